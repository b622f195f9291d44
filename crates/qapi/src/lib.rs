//! The QAPI schema language: parser, checker, introspection and code generator.
//!
//! Written from the language's public description, in both its forms: the one of 2017 (simple unions, whitelists)
//! and today's (features, conditions, exceptions). The crate knows no machine and no command.
//!
//! ```text
//! files -> lexer -> parser (nodes, documentation) -> loader (includes, pragmas) -> check (rules) -> Schema
//! ```

mod check;
mod doc;
mod doc_check;
mod fault;
mod generate;
mod introspect;
mod lexer;
mod loader;
mod names;
mod parser;
mod resolve;
mod schema;
mod source;

pub use doc::{Doc, DocEntry, Example, Flow, Section, SectionKind, Step};
pub use fault::Fault;
pub use generate::{GenerateError, Generated, generate};
pub use introspect::{Naming, introspect, introspect_with};
pub use schema::{
    Alternate, Arguments, Branch, Builtin, Command, Condition, Definition, Enum, EnumMember, Event, Feature, Item,
    Kind, Member, Module, Schema, Struct, TypeRef, Union, UnionBase,
};
pub use source::Position;
