//! Holds our schema against the names and types of the interface that clients were written for.
//!
//! Source: `tests/data/reference-interface.json`. Whatever stands there our schema has, the same; what it has on top must not
//! disturb a client that does not know it: new arguments are optional, new members and values are added only.

// Whatever the data file lacks is a fault of the test: a failed unwrap is the assertion.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use rhea_qapi::{Kind, Member, Schema};
use serde_json::{Map, Value};

fn schema() -> Schema {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schema/qapi-schema.json");
    Schema::load(&root).unwrap_or_else(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        panic!("{}", faults.join("\n\n"))
    })
}

fn reference(part: &str) -> Map<String, Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/reference-interface.json");
    let text = std::fs::read_to_string(path).unwrap();
    let Value::Object(mut reference) = serde_json::from_str(&text).unwrap() else { panic!("the data are an object") };
    let Some(Value::Object(part)) = reference.remove(part) else { panic!("the data have a part '{part}'") };
    part
}

/// A type as our schema prints it: `str`, `[str]`.
fn type_name(reference: &Value) -> String {
    match reference {
        Value::Array(element) => format!("[{}]", type_name(&element[0])),
        name => name.as_str().unwrap().to_owned(),
    }
}

/// Differences between members of the reference and ours, each as a line.
fn differences(place: &str, reference: &Value, ours: &[&Member]) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, expected) in reference.as_object().unwrap() {
        let Some(member) = ours.iter().find(|member| member.name == *name) else {
            faults.push(format!("{place}: no member '{name}'"));
            continue;
        };
        let (kind, expected_kind) = (member.kind.to_string(), type_name(&expected["type"]));
        if kind != expected_kind {
            faults.push(format!("{place}: '{name}' is {kind}, not {expected_kind}"));
        }
        let optional = expected.get("optional").is_some();
        if member.optional != optional {
            faults.push(format!("{place}: '{name}' has optional {}, not {optional}", member.optional));
        }
    }
    let names = reference.as_object().unwrap();
    let surplus = ours.iter().filter(|member| !member.optional && !names.contains_key(&member.name));
    faults.extend(surplus.map(|member| format!("{place}: '{}' was added and is not optional", member.name)));
    faults
}

#[test]
fn every_command_is_there_with_its_arguments_and_result() {
    let (schema, commands) = (schema(), reference("commands"));
    assert_eq!(commands.len(), 60);
    let mut faults = Vec::new();
    for (name, expected) in commands {
        let Some(command) = schema.command(&name) else {
            faults.push(format!("no command '{name}'"));
            continue;
        };
        faults.extend(differences(&name, &expected["arguments"], &schema.argument_members(&command.arguments)));
        let (ours, theirs) =
            (command.returns.as_ref().map(ToString::to_string), expected.get("returns").map(type_name));
        if ours != theirs {
            faults.push(format!("{name}: returns {ours:?}, not {theirs:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_event_is_there_with_its_data() {
    let (schema, events) = (schema(), reference("events"));
    assert_eq!(events.len(), 6);
    let mut faults = Vec::new();
    for (name, expected) in events {
        match schema.get(&name).map(|definition| &definition.kind) {
            Some(Kind::Event(event)) => {
                faults.extend(differences(&name, &expected["data"], &schema.argument_members(&event.arguments)));
            }
            _ => faults.push(format!("no event '{name}'")),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_type_is_there_with_its_shape() {
    let (schema, types) = (schema(), reference("types"));
    assert_eq!(types.len(), 68);
    let faults: Vec<String> =
        types.iter().flat_map(|(name, expected)| type_differences(&schema, name, expected)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn type_differences(schema: &Schema, name: &str, expected: &Value) -> Vec<String> {
    let Some(definition) = schema.get(name) else { return vec![format!("no type '{name}'")] };
    match (&definition.kind, expected["kind"].as_str().unwrap()) {
        (Kind::Enum(ours), "enum") => {
            let ours: Vec<&str> = ours.members.iter().map(|member| member.name.as_str()).collect();
            let missing =
                expected["values"].as_array().unwrap().iter().filter(|value| !ours.contains(&value.as_str().unwrap()));
            missing.map(|value| format!("{name}: no value {value}")).collect()
        }
        (Kind::Struct(ours), "struct") => {
            let own: Vec<&Member> = ours.members.iter().collect();
            let mut faults = differences(name, &expected["members"], &own);
            if ours.base.as_deref() != expected.get("base").and_then(Value::as_str) {
                faults.push(format!("{name}: another base"));
            }
            faults
        }
        (Kind::Union(ours), "union") => {
            let mut faults = differences(name, &expected["base"], &schema.base_members(ours));
            if Some(ours.discriminator.as_str()) != expected["tag"].as_str() {
                faults.push(format!("{name}: another discriminator"));
            }
            for (value, kind) in expected["branches"].as_object().unwrap() {
                let branch = ours.branches.iter().find(|branch| branch.name == *value);
                if branch.is_none_or(|branch| branch.kind.to_string() != type_name(kind)) {
                    faults.push(format!("{name}: no branch '{value}' of {kind}"));
                }
            }
            faults
        }
        // Written in today's form: each branch a struct with the one member that goes over the wire.
        (Kind::Union(ours), "simple-union") => {
            let mut faults = Vec::new();
            for (value, kind) in expected["branches"].as_object().unwrap() {
                let wrapper =
                    ours.branches.iter().find(|branch| branch.name == *value).map(|branch| branch.kind.to_string());
                let members = wrapper.map(|wrapper| schema.members_of(&wrapper)).unwrap_or_default();
                let wraps = |member: &&Member| member.name == "data" && member.kind.to_string() == type_name(kind);
                if ours.discriminator != "type" || !members.iter().all(wraps) || members.len() != 1 {
                    faults.push(format!("{name}: branch '{value}' does not wrap {kind}"));
                }
            }
            faults
        }
        (ours, kind) => vec![format!("{name}: {} instead of {kind}", ours.keyword())],
    }
}
