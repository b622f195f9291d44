//! `rhea schema`: checks, introspects, documents and compares schema files.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rhea_tests::process::program;
use serde_json::Value;
use tempfile::TempDir;

/// A small interface.
const OLD: &str = "\
{ 'enum': 'Colour', 'data': ['red', 'green'] }
{ 'struct': 'Lamp', 'data': { 'name': 'str', '*colour': 'Colour' } }
{ 'command': 'query-lamps', 'returns': ['Lamp'] }
{ 'command': 'light', 'data': { 'name': 'str' } }
{ 'event': 'LIT', 'data': { 'name': 'str' } }
";

/// A directory with schema files in it.
struct Files(TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        Self(directory)
    }

    fn schema(&self, arguments: &[&str]) -> Output {
        Command::new(program().unwrap()).arg("schema").args(arguments).current_dir(&self.0).output().unwrap()
    }
}

fn out(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn our_own_schema_has_no_faults() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schema/qapi-schema.json");
    let output = Files::new(&[]).schema(&["check", root.to_str().unwrap()]);
    assert!(output.status.success(), "{}", err(&output));
    assert!(out(&output).starts_with("no faults: "), "{}", out(&output));
}

#[test]
fn faults_are_shown_with_their_place_and_a_hint() {
    let files = Files::new(&[
        ("root.json", "{ 'include': 'lamps.json' }\n"),
        ("lamps.json", "{ 'command': 'light',\n  'data': { 'name': 'text' } }\n"),
    ]);
    let expected = "\
lamps.json:2:13: there is no type 'text'
  |
2 |   'data': { 'name': 'text' } }
  |             ^^^^^^
  hint: define it, or include the file that does
  included from root.json:1
";
    for command in [&["check", "root.json"][..], &["introspect", "root.json"], &["doc", "root.json"]] {
        let output = files.schema(command);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!((out(&output), err(&output)), ("", expected));
    }
}

#[test]
fn every_fault_of_a_file_is_told_at_once() {
    let files =
        Files::new(&[("root.json", "{ 'command': 'a', 'data': 'One' }\n{ 'command': 'b', 'returns': 'Two' }\n")]);
    let output = files.schema(&["check", "root.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("root.json:1:") && err(&output).contains("root.json:2:"), "{}", err(&output));
}

#[test]
fn introspection_hides_names_of_types_unless_they_are_asked_for() {
    let files = Files::new(&[("root.json", OLD)]);
    let names = |arguments: &[&str]| -> Vec<String> {
        let output = files.schema(arguments);
        assert!(output.status.success(), "{}", err(&output));
        let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
        rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    };
    let masked = names(&["introspect", "root.json"]);
    let kept = names(&["introspect", "root.json", "--names"]);
    assert_eq!(masked[..3], ["query-lamps", "light", "LIT"]);
    assert_eq!(masked.len(), kept.len());
    assert!(!masked.contains(&"Lamp".to_owned()) && kept.contains(&"Lamp".to_owned()), "{masked:?} {kept:?}");
}

#[test]
fn the_manual_describes_each_command() {
    let text =
        "{ 'pragma': { 'doc-required': true } }\n\n##\n# @light:\n#\n# Lights all lamps.\n##\n{ 'command': 'light' }\n";
    let output = Files::new(&[("root.json", text)]).schema(&["doc", "root.json"]);
    assert!(output.status.success(), "{}", err(&output));
    assert!(out(&output).contains("light") && out(&output).contains("Lights all lamps."), "{}", out(&output));
}

#[test]
fn a_comparison_says_what_breaks_and_so_does_its_status() {
    let grown = OLD.replace("'*colour'", "'*watts': 'int', '*colour'") + "{ 'command': 'darken' }\n";
    let shrunk = OLD.replace("{ 'event': 'LIT', 'data': { 'name': 'str' } }\n", "");
    let files =
        Files::new(&[("old.json", OLD), ("grown.json", &grown), ("shrunk.json", &shrunk), ("broken.json", "{")]);

    let same = files.schema(&["diff", "old.json", "old.json"]);
    assert_eq!((same.status.code(), out(&same)), (Some(0), ""));

    let more = files.schema(&["diff", "old.json", "grown.json"]);
    assert_eq!(more.status.code(), Some(0), "{}", out(&more));
    assert_eq!(out(&more).lines().count(), 2, "{}", out(&more));
    assert!(out(&more).lines().all(|line| line.starts_with("compatible")), "{}", out(&more));

    let less = files.schema(&["diff", "old.json", "shrunk.json"]);
    assert_eq!((less.status.code(), out(&less)), (Some(1), "breaking    event LIT: is gone\n"));

    let broken = files.schema(&["diff", "old.json", "broken.json"]);
    assert_eq!((broken.status.code(), out(&broken)), (Some(1), ""));
    assert!(err(&broken).starts_with("broken.json:1:"), "{}", err(&broken));
}

#[test]
fn a_wrong_command_line_is_one_line_and_status_1() {
    let files = Files::new(&[]);
    for arguments in [&[][..], &["chek", "a"], &["check"], &["check", "a", "b"], &["diff", "a"], &["doc"]] {
        let output = files.schema(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert_eq!((out(&output), err(&output).lines().count()), ("", 1), "{arguments:?}: {}", err(&output));
        assert!(err(&output).starts_with("rhea: schema"), "{}", err(&output));
    }
    let missing = files.schema(&["check", "missing.json"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(err(&missing).starts_with("missing.json: "), "{}", err(&missing));
}

#[test]
fn the_manual_in_the_project_is_that_of_the_schema() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = Files::new(&[]);
    let root = project.join("schema/qapi-schema.json");
    let output = files.schema(&["doc", root.to_str().unwrap(), "made"]);
    assert!(output.status.success(), "{}", err(&output));
    let pages = |directory: &Path| -> BTreeMap<String, String> {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        entries
            .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap()))
            .collect()
    };
    let (made, kept) = (pages(&files.0.path().join("made")), pages(&project.join("docs/reference")));
    let stale: Vec<&String> =
        made.keys().chain(kept.keys()).filter(|name| made.get(*name) != kept.get(*name)).collect();
    assert!(stale.is_empty(), "not of today: {stale:?}; run: rhea schema doc schema/qapi-schema.json docs/reference");
    // Links lead somewhere.
    for (name, text) in &made {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            let (page, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if page.is_empty() { Some(text) } else { made.get(page) };
            let there =
                target.is_some_and(|target| anchor.is_empty() || target.contains(&format!("<a id=\"{anchor}\">")));
            assert!(there, "{name}: {link}");
        }
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schema/qapi-schema.json");
    let line = format!("'{}' schema doc '{}' | head -n 1", program().unwrap().display(), root.display());
    let output = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert_eq!(err(&output), "");
    assert_eq!(out(&output).lines().count(), 1);
}
