//! JSON as QMP speaks it: a stream of values found by their brackets, single quotes allowed, limits enforced.
//!
//! Source: RFC 8259, with the extensions and limits of the QEMU Machine Protocol specification.

mod builder;
mod decoder;
mod fault;
mod text;
mod write;

pub use decoder::{Decoder, MAX_MESSAGE, MAX_NESTING, MAX_TOKENS};
pub use fault::SyntaxError;
pub use write::{append, to_string};
