//! The QAPI schema language: parser, checker, introspection, code generator and schema differ.
