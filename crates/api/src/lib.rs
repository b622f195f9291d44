//! Rhea's management interface, generated from the QAPI schema: types, handler traits, events and introspection data.
//!
//! Nothing here is written by hand but these lines. A schema module `run-state.json` becomes the module `run_state`
//! with its types and a trait `Handler` that has one method a command; [`dispatch`] finds the method for a command's
//! name, reads the arguments and hands back the result as JSON. Commands named in `missing-handlers.txt` are left out
//! everywhere: they are neither advertised nor answered.

/// What the build makes of the schema.
#[allow(rustdoc::all, unused_qualifications, clippy::too_many_arguments, clippy::large_enum_variant)]
#[allow(clippy::doc_lazy_continuation, clippy::doc_markdown, clippy::needless_pass_by_value)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/api.rs"));
}

pub use generated::*;
