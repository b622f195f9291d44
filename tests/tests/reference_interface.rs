//! Holds our schema against the names and types of the interface that clients were written for.
//!
//! Source: `tests/data/reference-interface.json`, in the language of schemas. No client of it may notice that it speaks with
//! us: `rhea schema diff` finds nothing that breaks one.

// Whatever the data file lacks is a fault of the test: a failed unwrap is the assertion.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use rhea_qapi::{Schema, Verdict, diff};

/// Words that clients may meet now and could not then. They name formats of dumps, which a client asks for by name: one that
/// does not know a word passes over it.
const MORE_WORDS: [&str; 3] = ["kdump-raw-zlib", "kdump-raw-lzo", "kdump-raw-snappy"];

fn schema(path: &str) -> Schema {
    Schema::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        panic!("{}", faults.join("\n\n"))
    })
}

#[test]
fn the_reference_is_whole() {
    let reference = schema("data/reference-interface.json");
    assert_eq!((reference.commands().count(), reference.events().count()), (60, 6));
    // 68 types of its own, and the kinds of its simple union.
    assert_eq!(reference.definitions().count() - 66, 69);
}

#[test]
fn no_client_of_the_reference_notices() {
    let changes = diff(&schema("data/reference-interface.json"), &schema("../schema/qapi-schema.json"));
    let breaking = changes.iter().filter(|change| change.verdict == Verdict::Breaking);
    let known = |subject: &str| {
        MORE_WORDS
            .iter()
            .any(|word| subject == format!("command query-dump-guest-memory-capability, return.formats[]='{word}'"))
    };
    let breaking: Vec<String> = breaking.filter(|change| !known(&change.subject)).map(ToString::to_string).collect();
    assert!(breaking.is_empty(), "{}", breaking.join("\n"));
    // It looks: what is new is told.
    assert!(changes.iter().any(|change| change.subject == "command object-add" || change.what == "is new"));
}

#[test]
fn names_of_types_are_those_of_the_reference() {
    // Clients do not see them, but those who write clients look them up.
    let (reference, ours) = (schema("data/reference-interface.json"), schema("../schema/qapi-schema.json"));
    let missing: Vec<&str> = reference
        .definitions()
        .map(|definition| definition.name.as_str())
        .filter(|name| ours.get(name).is_none())
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
