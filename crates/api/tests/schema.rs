//! What is made of Rhea's own schema holds together with it.

use std::collections::BTreeSet;
use std::path::Path;

use rhea_api::{COMMANDS, EVENTS, INTROSPECTION, MISSING};
use rhea_qapi::Schema;
use serde_json::Value;

/// The interface with nothing left out.
#[allow(unused_qualifications, clippy::too_many_arguments, clippy::needless_pass_by_value, unreachable_pub, dead_code)]
#[allow(clippy::doc_lazy_continuation, clippy::large_enum_variant, clippy::enum_variant_names)]
mod whole {
    include!(concat!(env!("OUT_DIR"), "/whole.rs"));
}

fn schema() -> Schema {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schema/qapi-schema.json");
    Schema::load(&root).expect("the schema is sound")
}

#[test]
fn what_has_no_handler_is_listed_and_nothing_else_is_left_out() {
    println!("{} still without a handler: {}", MISSING.len(), MISSING.join(", "));
    let schema = schema();
    let mut defined: BTreeSet<&str> = schema.commands().map(|(definition, _)| definition.name.as_str()).collect();
    defined.extend(schema.events().map(|(definition, _)| definition.name.as_str()));
    let missing: BTreeSet<&str> = MISSING.iter().copied().collect();
    assert_eq!(missing.len(), MISSING.len(), "a name is listed twice");
    let present: BTreeSet<&str> = COMMANDS.iter().map(|row| row.name).chain(EVENTS.iter().copied()).collect();
    assert_eq!(missing.intersection(&present).count(), 0);
    assert_eq!(missing.union(&present).copied().collect::<BTreeSet<_>>(), defined);
}

#[test]
fn the_whole_interface_is_the_present_one_and_the_missing_one() {
    let names = |commands: &[&'static str], events: &'static [&'static str]| -> BTreeSet<&'static str> {
        commands.iter().chain(events).copied().collect()
    };
    let commands: Vec<&str> = whole::COMMANDS.iter().map(|row| row.name).collect();
    let all = names(&commands, whole::EVENTS);
    let commands: Vec<&str> = COMMANDS.iter().map(|row| row.name).collect();
    let mut present = names(&commands, EVENTS);
    present.extend(MISSING);
    assert_eq!(all, present);
    assert!(whole::MISSING.is_empty());
}

#[test]
fn introspection_tells_exactly_what_is_answered_and_sent() {
    let rows: Vec<Value> = serde_json::from_str(INTROSPECTION).expect("introspection is JSON");
    let named = |meta_type: &str| -> BTreeSet<String> {
        let rows = rows.iter().filter(|row| row["meta-type"] == meta_type);
        rows.filter_map(|row| row["name"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(named("command"), COMMANDS.iter().map(|row| row.name.to_owned()).collect());
    assert_eq!(named("event"), EVENTS.iter().map(|name| (*name).to_owned()).collect());
}

#[test]
fn introspection_leads_nowhere_but_to_its_own_types() {
    let rows: Vec<Value> = serde_json::from_str(INTROSPECTION).expect("introspection is JSON");
    let names: BTreeSet<&str> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(names.len(), rows.len(), "a name stands twice");
    let mut led_to = BTreeSet::new();
    for row in &rows {
        let lists = ["members", "variants"].into_iter().filter_map(|key| row[key].as_array()).flatten();
        led_to.extend(lists.filter_map(|entry| entry["type"].as_str()));
        led_to.extend(["arg-type", "ret-type", "element-type"].into_iter().filter_map(|key| row[key].as_str()));
    }
    let types = rows.iter().filter(|row| !matches!(row["meta-type"].as_str(), Some("command" | "event")));
    assert_eq!(led_to, types.filter_map(|row| row["name"].as_str()).collect());
}

#[test]
fn every_command_has_an_example_that_is_json() {
    let mut without = Vec::new();
    for (definition, _) in schema().commands() {
        let examples = definition.doc.as_ref().map(rhea_qapi::Doc::examples).unwrap_or_default();
        if examples.iter().all(|example| example.steps.is_empty()) {
            without.push(definition.name.clone());
        }
        for step in examples.iter().flat_map(|example| &example.steps) {
            let place = format!("{}:{}", definition.position.path().display(), step.line);
            assert!(step.json().is_ok(), "{place}: {}: {:?}", definition.name, step.json());
        }
    }
    assert!(without.is_empty(), "without an example: {}", without.join(", "));
}
