//! The QAPI schema language: parser, checker, introspection, reference manual, code generator and schema differ.
//!
//! Written from the language's public description, in both its forms: the one of 2017 (simple unions, whitelists)
//! and today's (features, conditions, exceptions). The crate knows no machine and no command.
//!
//! ```text
//! files -> lexer -> parser (nodes, documentation) -> loader (includes, pragmas) -> check (rules) -> Schema
//! Schema -> introspect | markdown | diff | generate
//! ```

// A fault ends the reading of a file: its size costs nothing.
#![allow(clippy::result_large_err)]

mod check;
mod diff;
mod doc;
mod doc_check;
mod fault;
mod generate;
mod introspect;
mod lexer;
mod loader;
mod markdown;
mod names;
mod parser;
mod resolve;
mod schema;
mod source;

pub use diff::{Change, Direction, Verdict, diff};
pub use doc::{Doc, DocEntry, Example, Flow, Section, SectionKind, Step};
pub use fault::Fault;
pub use generate::{GenerateError, Generated, generate};
pub use introspect::{Naming, introspect, introspect_with};
pub use markdown::{Page, markdown, pages};
pub use schema::{
    Alternate, Arguments, Branch, Builtin, Command, Condition, Definition, Enum, EnumMember, Event, Feature, Item,
    Kind, Member, Module, Schema, Struct, TypeRef, Union, UnionBase,
};
pub use source::Position;
