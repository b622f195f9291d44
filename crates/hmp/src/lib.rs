//! The language of the monitor for people: how a line is typed, and how its words, expressions and formats are read.
//! Knows no command.
//!
//! The spelling is that of QEMU's monitor, whose users know it.

pub mod editor;
mod error;
mod expression;
mod format;
mod line;

pub use error::LineError;
pub use expression::evaluate;
pub use format::{Format, Letter};
pub use line::Line;
