//! Both forms of the language, read whole.

mod support;

use std::collections::BTreeSet;

use rhea_qapi::{
    Arguments, Builtin, Condition, Flow, Item, Kind, SectionKind, TypeRef, UnionBase, introspect, introspect_with,
};
use serde_json::{Value, json};
use support::{load, load_files, sound};

/// The language as it was in 2017.
const FIRST_FORM: &str = r"
# -*- Mode: Python -*-
##
# = Ships
#
# All about ships.
##
{ 'pragma': { 'doc-required': true } }
{ 'pragma': { 'returns-whitelist': [ 'count-ships' ],
              'name-case-whitelist': [ 'q_obj_ShipInfo-base', 'Rig' ] } }

##
# @Rig:
#
# How a ship is rigged.
#
# Since: 1.0
##
{ 'enum': 'Rig', 'data': [ 'sloop', 'BARQUE' ] }

##
# @ShipInfo:
#
# One ship.
#
# @ID: its number
#
# @rig: its rig, which
# decides on the rest
#
# Since: 1.0
##
{ 'union': 'ShipInfo', 'base': { 'ID': 'int', 'rig': 'Rig' },
  'discriminator': 'rig',
  'data': { 'sloop': 'SloopInfo', 'BARQUE': 'BarqueInfo' } }

##
# @SloopInfo:
#
# @mast_height: in metres
#
# Since: 1.0
##
{ 'struct': 'SloopInfo', 'data': { 'mast_height': 'number' } }

##
# @BarqueInfo:
#
# No more is known of these.
#
# Since: 1.0
##
{ 'struct': 'BarqueInfo', 'data': { } }

##
# @Cargo:
#
# What is on board.
#
# @type: undocumented elsewhere
#
# Since: 1.1
##
{ 'union': 'Cargo', 'data': { 'coal': 'SloopInfo', 'letters': [ 'str' ] } }

##
# @load_ship:
#
# Loads a ship.
#
# @ship: the ship
#
# Returns: nothing on success
#          An error if she is full
#
# Notes: Loading takes time.
#
# Example:
#
# -> { 'execute': 'load_ship',
#      'arguments': { 'ship': 1 } }
# <- { 'return': {} }
#
##
{ 'command': 'load_ship', 'data': { 'ship': 'int', 'cargo': 'Cargo', '*count': 'size' } }

##
# @count-ships:
#
# Returns: how many there are
#
# Since: 1.0
##
{ 'command': 'count-ships', 'returns': 'int', 'gen': false }

##
# @query-ships:
#
# Since: 1.0
##
{ 'command': 'query-ships', 'returns': [ 'ShipInfo' ], 'success-response': false }

##
# @SHIP_SUNK:
#
# A ship has gone down.
#
# Since: 1.0
##
{ 'event': 'SHIP_SUNK', 'data': { 'ship': 'ShipInfo', '*x-depth': 'uint32' } }
";

#[test]
fn the_first_form_is_read_whole() {
    let schema = sound(FIRST_FORM);
    let Some(Kind::Union(cargo)) = schema.get("Cargo").map(|cargo| &cargo.kind) else { panic!("Cargo is a union") };
    assert!(cargo.simple);
    let kind = schema.get("CargoKind").expect("the enumeration of a simple union");
    assert!(kind.implicit);
    assert_eq!(schema.members_of("Cargo").len(), 1);
    let count = schema.command("count-ships").expect("a command");
    assert!(!count.generated && count.success_response);
    assert_eq!(count.returns, Some(TypeRef::Builtin(Builtin::Int)));
    assert!(!schema.command("query-ships").expect("a command").success_response);
    let Some(Kind::Union(ship)) = schema.get("ShipInfo").map(|ship| &ship.kind) else { panic!("ShipInfo is a union") };
    assert!(matches!(&ship.base, UnionBase::Inline(members) if members.len() == 2));
    let doc = schema.get("ShipInfo").and_then(|ship| ship.doc.as_ref()).expect("documentation");
    assert_eq!(doc.members[1].text, "its rig, which\ndecides on the rest");
}

#[test]
fn the_first_form_wants_every_branch() {
    let faults = load(&FIRST_FORM.replace(", 'BARQUE': 'BarqueInfo' }", " }")).expect_err("a branch is missing");
    assert_eq!(faults.len(), 1);
    assert!(faults[0].to_string().contains("lacks the branch 'BARQUE'"), "{}", faults[0]);
}

#[test]
fn the_first_form_allows_capitals_only_where_listed() {
    let faults = load(&FIRST_FORM.replace("'q_obj_ShipInfo-base', ", "")).expect_err("a name");
    assert!(faults.iter().any(|fault| fault.message.contains("'ID' is not in lower case")));
}

#[test]
fn examples_are_kept_step_by_step() {
    let schema = sound(FIRST_FORM);
    let doc = schema.get("load_ship").and_then(|command| command.doc.as_ref()).expect("documentation");
    let examples = doc.examples();
    let [example] = examples.as_slice() else { panic!("one example") };
    assert_eq!(example.steps.len(), 2);
    assert_eq!(example.steps[0].flow, Flow::Sent);
    assert_eq!(example.steps[0].text, "{ 'execute': 'load_ship',\n     'arguments': { 'ship': 1 } }");
    let line = FIRST_FORM.lines().position(|line| line.starts_with("# <- ")).expect("the line") + 1;
    assert_eq!((example.steps[1].flow, example.steps[1].line), (Flow::Received, line));
    assert!(example.steps[0].json().is_err(), "single quotes are no JSON");
    assert_eq!(doc.section(SectionKind::Note).expect("notes").text, "Loading takes time.");
    assert_eq!(doc.section(SectionKind::Returns).expect("returns").text, "nothing on success\nAn error if she is full");
}

/// Today's language.
const TODAYS_FORM: &str = r"
{ 'pragma': { 'doc-required': true,
              'command-name-exceptions': [ 'old_move' ],
              'command-returns-exceptions': [ 'where' ],
              'member-name-exceptions': [ 'Point' ],
              'documentation-exceptions': [ 'Corner' ] } }

##
# @Corner:
#
# A corner of the world.
#
# Features:
#
# @unstable: this one may go
##
{ 'enum': 'Corner', 'data': [ 'north-east', { 'name': 'nowhere', 'if': 'CONFIG_NOWHERE' },
                              { 'name': '4th', 'features': [ 'unstable' ] } ] }

##
# @Point:
#
# A point.
#
# @X: across.
#
#     Still across.
#
# @Y: along
#
# @z: up
#
# A paragraph that belongs to no member.
#
# Features:
#
# @deprecated: use something else
#
# Since: 9.0
##
{ 'struct': 'Point',
  'data': { 'X': 'int', 'Y': { 'type': 'int', 'features': [ 'deprecated' ] },
            '*z': { 'type': 'int', 'if': { 'any': [ 'CONFIG_UP', { 'not': 'CONFIG_FLAT' } ] } } } }

##
# @Place:
#
# A point or a corner.
#
# @point: a point
#
# @corner: a corner
##
{ 'alternate': 'Place', 'data': { 'point': 'Point', 'corner': 'Corner' }, 'if': { 'all': [ 'CONFIG_UP' ] } }

##
# @old_move:
#
# @to: where to
#
# Features:
#
# @deprecated: use walk
#
# Errors:
#     - DeviceNotFound, if there is no such point
#     - GenericError, otherwise
#
# Since: 9.0
#
# .. qmp-example::
#    :title: Moving
#
#    -> { ''execute'': 1 }
##
{ 'command': 'old_move', 'data': { 'to': { 'type': 'Place', 'if': 'CONFIG_UP' } }, 'features': [ 'deprecated' ],
  'coroutine': true, 'allow-preconfig': true }

##
# @where:
#
# Returns: the corner
##
{ 'command': 'where', 'returns': 'Corner', 'allow-oob': true }

##
# @MOVED:
#
# Something moved.
#
# Since: 9.0
##
{ 'event': 'MOVED', 'data': 'Point', 'boxed': true, 'if': { 'not': 'CONFIG_STILL' } }
";

#[test]
fn todays_form_is_read_whole() {
    let schema = sound(TODAYS_FORM);
    let command = schema.command("old_move").expect("a command");
    assert!(command.coroutine && command.allow_preconfig && !command.allow_oob);
    let point = schema.members_of("Point");
    assert_eq!(point.iter().map(|member| member.features.len()).collect::<Vec<_>>(), [0, 1, 0]);
    let up = Condition::Symbol("CONFIG_UP".into());
    let flat = Condition::Not(Box::new(Condition::Symbol("CONFIG_FLAT".into())));
    assert_eq!(point[2].condition, Some(Condition::Any(vec![up, flat])));
    let doc = schema.get("Point").and_then(|point| point.doc.as_ref()).expect("documentation");
    assert_eq!(doc.members[0].text, "across.\n\nStill across.");
    assert_eq!(doc.features[0].name, "deprecated");
    assert_eq!(doc.sections[0].text, "A paragraph that belongs to no member.");
    assert!(matches!(
        schema.get("MOVED").map(|event| &event.kind),
        Some(Kind::Event(event)) if matches!(&event.arguments, Arguments::Named { boxed: true, .. })
    ));
    let errors = schema.get("old_move").and_then(|command| command.doc.as_ref()?.section(SectionKind::Errors).cloned());
    assert!(errors.expect("errors").text.starts_with("- DeviceNotFound, if"));
    let doc = schema.get("old_move").and_then(|command| command.doc.as_ref()).expect("documentation");
    assert_eq!(doc.examples()[0].title, "Moving");
}

#[test]
fn conditions_prune_what_is_not_there() {
    let schema = sound(TODAYS_FORM);
    let with = |symbols: &[&str]| schema.configured(&symbols.iter().map(|symbol| (*symbol).to_owned()).collect());
    let bare = with(&["CONFIG_FLAT"]).expect("sound without anything");
    assert!(bare.get("Place").is_none() && bare.get("MOVED").is_some());
    assert_eq!(bare.members_of("Point").len(), 2);
    assert_eq!(bare.enumeration("Corner").expect("an enum").members.len(), 2);
    let full = with(&["CONFIG_UP", "CONFIG_NOWHERE", "CONFIG_STILL"]).expect("sound with everything");
    assert!(full.get("Place").is_some() && full.get("MOVED").is_none());
    assert_eq!(full.members_of("Point").len(), 3);
    assert!(full.modules[0].items.iter().all(|item| !matches!(item, Item::Definition(name) if name == "MOVED")));
}

#[test]
fn a_type_that_a_condition_takes_from_its_users_is_a_fault() {
    let schema =
        sound("{ 'struct': 'Abc', 'data': {}, 'if': 'CONFIG_ABC' }\n{ 'command': 'x', 'data': { 'a': 'Abc' } }");
    let faults = schema.configured(&BTreeSet::new()).expect_err("the type is gone");
    assert!(faults[0].message.contains("there is no type 'Abc'"));
}

#[test]
fn introspection_hides_names_and_sizes() {
    let schema = sound(
        "{ 'enum': 'Kind2', 'data': [ 'a', { 'name': 'b', 'features': [ 'unstable' ] } ] }
         { 'struct': 'One', 'data': { 'x': 'uint8', '*y': [ 'size' ], '*z': { 'type': 'any', 'features': [ 'deprecated' ] } } }
         { 'union': 'Two', 'base': { 'k': 'Kind2' }, 'discriminator': 'k', 'data': { 'a': 'One' } }
         { 'alternate': 'Three', 'data': { 'o': 'One', 's': 'str', 'n': 'null' } }
         { 'command': 'go', 'data': { 'two': 'Two' }, 'returns': [ 'Two' ], 'allow-oob': true, 'features': [ 'quick' ] }
         { 'event': 'GONE', 'data': { 'three': 'Three' } }
         { 'event': 'BARE' }
         { 'union': 'Unused', 'data': { 'x': 'int' } }",
    );
    let expected = json!([
        { "name": "go", "meta-type": "command", "arg-type": "0", "ret-type": "[1]", "allow-oob": true, "features": ["quick"] },
        { "name": "GONE", "meta-type": "event", "arg-type": "2" },
        { "name": "BARE", "meta-type": "event", "arg-type": "3" },
        { "name": "0", "meta-type": "object", "members": [ { "name": "two", "type": "1" } ] },
        { "name": "[1]", "meta-type": "array", "element-type": "1" },
        { "name": "1", "meta-type": "object", "members": [ { "name": "k", "type": "4" } ], "tag": "k",
          "variants": [ { "case": "a", "type": "5" }, { "case": "b", "type": "3" } ] },
        { "name": "2", "meta-type": "object", "members": [ { "name": "three", "type": "6" } ] },
        { "name": "3", "meta-type": "object", "members": [] },
        { "name": "4", "meta-type": "enum", "members": [ { "name": "a" }, { "name": "b", "features": ["unstable"] } ],
          "values": [ "a", "b" ] },
        { "name": "5", "meta-type": "object", "members": [
            { "name": "x", "type": "int" },
            { "name": "y", "type": "[int]", "default": null },
            { "name": "z", "type": "any", "default": null, "features": ["deprecated"] } ] },
        { "name": "6", "meta-type": "alternate", "members": [ { "type": "5" }, { "type": "str" }, { "type": "null" } ] },
        { "name": "int", "meta-type": "builtin", "json-type": "int" },
        { "name": "[int]", "meta-type": "array", "element-type": "int" },
        { "name": "any", "meta-type": "builtin", "json-type": "value" },
        { "name": "str", "meta-type": "builtin", "json-type": "string" },
        { "name": "null", "meta-type": "builtin", "json-type": "null" },
    ]);
    let rows = introspect(&schema);
    let sorted = |value: &Value| {
        let mut rows: Vec<Value> = value.as_array().expect("rows").clone();
        rows.sort_by_key(|row| row["name"].to_string());
        rows
    };
    assert_eq!(sorted(&rows), sorted(&expected));
    let named = introspect_with(&schema, rhea_qapi::Naming::Kept);
    let names: Vec<&str> = named.as_array().expect("rows").iter().filter_map(|row| row["name"].as_str()).collect();
    for name in ["q_obj_go-arg", "[Two]", "Two", "q_empty", "Kind2", "One", "Three"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
}

#[test]
fn a_simple_union_is_introspected_with_its_wrapper() {
    let rows = introspect_with(&sound(FIRST_FORM), rhea_qapi::Naming::Kept);
    let row = |name: &str| rows.as_array().expect("rows").iter().find(|row| row["name"] == name).cloned();
    let cargo = row("Cargo").expect("the union");
    assert_eq!(cargo["tag"], "type");
    assert_eq!(cargo["variants"][1], json!({ "case": "letters", "type": "q_obj_str-wrapper" }));
    assert_eq!(row("CargoKind").expect("the enum")["values"], json!(["coal", "letters"]));
    let wrapper = row("q_obj_SloopInfo-wrapper").expect("the wrapper");
    assert_eq!(wrapper["members"], json!([{ "name": "data", "type": "SloopInfo" }]));
}

#[test]
fn modules_are_named_after_their_files() {
    let files = [
        ("schema.json", "{ 'include': 'run-state.json' }\n{ 'include': 'sub/run-state.json' }\n{ 'command': 'a' }"),
        ("run-state.json", "{ 'command': 'b' }"),
        ("sub/run-state.json", "{ 'command': 'c' }"),
    ];
    let schema = load_files(&files).expect("sound");
    let names: Vec<&str> = schema.modules.iter().map(|module| module.name.as_str()).collect();
    assert_eq!(names, ["schema", "run-state", "sub-run-state"]);
    assert_eq!(schema.get("c").expect("a command").module, 2);
}

#[test]
fn the_manual_has_everything_a_reader_asks_for() {
    let manual = rhea_qapi::markdown(&sound(TODAYS_FORM));
    for line in [
        "### old\\_move (command)",
        "**Arguments:**",
        "- `to` ([Place](#Place)): where to (if CONFIG_UP)",
        "- DeviceNotFound, if there is no such point",
        "**Since:** 9.0",
        "-> { ''execute'': 1 }",
        "- `X` (int): across.",
        "- `nowhere` (if CONFIG_NOWHERE)",
        "**Data:** the members of [Point](#Point)",
        "**Result:** [Corner](#Corner)",
        "- `deprecated`: use walk",
        "**If:** not CONFIG_STILL",
    ] {
        assert!(manual.contains(line), "{line:?} in\n{manual}");
    }
    let manual = rhea_qapi::markdown(&sound(FIRST_FORM));
    assert!(manual.starts_with("# Ships\n\nAll about ships.\n"), "{manual}");
    assert!(manual.contains("- when `type` is `letters`, `data` is list of str"), "{manual}");
}
