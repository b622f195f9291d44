//! The README's table of the reference's commands and events, each with the transcript that proves it on a live guest.

// What the project's own files lack is a fault of the test: a failed unwrap is the assertion.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use rhea_qapi::Schema;
use rhea_tests::proofs::Proofs;

const BEGIN: &str = "<!-- proofs: made by the test of this name -->";
const END: &str = "<!-- end of proofs -->";

/// What a PC does not have: it answers these with an error that says so, and that is the proof.
const REFUSED: [&str; 2] = ["dump-skeys", "query-gic-capabilities"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn names(part: &str) -> Vec<String> {
    let reference = Schema::load(&root().join("data/reference-interface.json")).unwrap();
    match part {
        "commands" => reference.commands().map(|(definition, _)| definition.name.clone()).collect(),
        _ => reference.events().map(|(definition, _)| definition.name.clone()).collect(),
    }
}

/// Commands and events that nobody answers or sends yet.
fn unhandled() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("../crates/api/missing-handlers.txt")).unwrap();
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

fn table(proofs: &Proofs) -> String {
    let mut table = String::new();
    for (title, part) in [("command", "commands"), ("event", "events")] {
        writeln!(table, "| {title} | proven by, in tests/qmp |\n|---|---|").unwrap();
        for name in names(part) {
            let otherwise = if REFUSED.contains(&name.as_str()) { "refused: no PC has it" } else { "missing" };
            writeln!(table, "| {name} | {} |", proofs.of(&name).unwrap_or(otherwise)).unwrap();
        }
        table.push('\n');
    }
    table
}

#[test]
fn the_readme_names_the_proof_of_each_command_and_event() {
    let table = table(&Proofs::read(&root().join("qmp")).unwrap());
    println!("{table}");
    let path = root().join("../README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("the README has a place for the table");
    let (_, after) = rest.split_once(END).expect("the table's place in the README ends");
    let wanted = format!("{before}{BEGIN}\n\n{table}{END}{after}");
    if std::env::var_os("RHEA_WRITE_README").is_some() {
        fs::write(&path, &wanted).unwrap();
    } else {
        assert!(readme == wanted, "run this test again with RHEA_WRITE_README=1: the README's table is not of today");
    }
}

#[test]
fn what_is_answered_is_proven_on_a_live_guest() {
    let (proofs, unhandled) = (Proofs::read(&root().join("qmp")).unwrap(), unhandled());
    let bare: Vec<String> = [names("commands"), names("events")]
        .concat()
        .into_iter()
        .filter(|name| !unhandled.contains(name) && !REFUSED.contains(&name.as_str()) && proofs.of(name).is_none())
        .collect();
    assert_eq!(bare, Vec::<String>::new());
}

#[test]
fn the_reference_has_sixty_commands_and_six_events() {
    assert_eq!((names("commands").len(), names("events").len()), (60, 6));
}
