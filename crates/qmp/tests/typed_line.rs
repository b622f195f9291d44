//! What people type into a shell: lines to messages, completion, layout.

use rhea_qmp::client::line::{Completion, LineError, complete, parse, pretty};
use rhea_qmp::client::schema::Schema;
use serde_json::{Value, json};

fn schema() -> Schema {
    Schema::from_json(&json!([
        {"name": "memsave", "meta-type": "command", "arg-type": "1", "ret-type": "0"},
        {"name": "memory-report", "meta-type": "command", "arg-type": "0", "ret-type": "0"},
        {"name": "object-add", "meta-type": "command", "arg-type": "2", "ret-type": "0"},
        {"name": "STOP", "meta-type": "event", "arg-type": "0"},
        {"name": "0", "meta-type": "object", "members": []},
        {"name": "1", "meta-type": "object", "members": [
            {"name": "val", "type": "int"}, {"name": "size", "type": "int"},
            {"name": "filename", "type": "str"}, {"name": "cpu-index", "type": "int", "default": null}]},
        {"name": "2", "meta-type": "object", "tag": "kind", "members": [
            {"name": "kind", "type": "3"}, {"name": "id", "type": "str"}, {"name": "props", "type": "5", "default": null}],
         "variants": [{"case": "file", "type": "4"}, {"case": "null", "type": "0"}]},
        {"name": "3", "meta-type": "enum", "members": [{"name": "file"}, {"name": "null"}], "values": ["file", "null"]},
        {"name": "4", "meta-type": "object", "members": [{"name": "path", "type": "str"}, {"name": "share", "type": "bool"}]},
        {"name": "5", "meta-type": "object", "members": [{"name": "mode", "type": "6"}, {"name": "align", "type": "int", "default": null}]},
        {"name": "6", "meta-type": "enum", "values": ["private", "prelink", "shared"]},
        {"name": "int", "meta-type": "builtin", "json-type": "int"},
        {"name": "str", "meta-type": "builtin", "json-type": "string"},
        {"name": "bool", "meta-type": "builtin", "json-type": "boolean"},
        {"name": "new", "meta-type": "something-of-tomorrow"},
        "nonsense"
    ]))
}

fn parsed(line: &str) -> Value {
    parse(line, &schema()).expect("a good line").expect("a message")
}

fn completed(line: &str) -> (usize, Vec<String>) {
    let Completion { start, candidates } = complete(&schema(), line, line.len());
    (start, candidates.into_iter().map(|candidate| candidate.text).collect())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn arguments_get_the_types_of_the_schema() {
    assert_eq!(
        parsed("memsave val=0x10 size=16 filename=/tmp/x"),
        json!({"execute": "memsave", "arguments": {"val": 16, "size": 16, "filename": "/tmp/x"}})
    );
    assert_eq!(
        parsed("memsave val=-1 size=1 filename=12"),
        json!({"execute": "memsave", "arguments": {"val": -1, "size": 1, "filename": "12"}})
    );
    assert_eq!(
        parsed("object-add kind=null id=true"),
        json!({"execute": "object-add", "arguments": {"kind": "null", "id": "true"}})
    );
    assert_eq!(parsed("object-add kind=file share=on")["arguments"]["share"], true);
}

#[test]
fn a_command_without_arguments_has_none() {
    assert_eq!(parsed("  memory-report "), json!({"execute": "memory-report"}));
    assert_eq!(parse(" \t ", &schema()), Ok(None));
}

#[test]
fn values_of_unknown_arguments_are_json_where_they_can_be() {
    assert_eq!(
        parsed("x a=1 b=true c=word d=[1,2] e='1' f=1.5 g={'h': [1, 'two words']} i=nullx j="),
        json!({"execute": "x", "arguments": {"a": 1, "b": true, "c": "word", "d": [1, 2], "e": "1", "f": 1.5,
            "g": {"h": [1, "two words"]}, "i": "nullx", "j": ""}})
    );
}

#[test]
fn dotted_names_are_nested_and_quotes_hold_words_together() {
    assert_eq!(
        parsed(r#"x a.b.c=1 a.b.d=2 name="two words" it's=fine"#),
        json!({"execute": "x", "arguments": {"a": {"b": {"c": 1, "d": 2}}, "name": "two words", "it's": "fine"}})
    );
}

#[test]
fn json_is_taken_as_it_is() {
    assert_eq!(parsed("{'execute': 'x', 'id': 1}"), json!({"execute": "x", "id": 1}));
    assert_eq!(parse("{'execute': 'x'", &schema()), Err(LineError::Unclosed));
    assert!(matches!(parse("{'execute': 'x'} y", &schema()), Err(LineError::Json(_))));
    assert!(matches!(parse("{'execute': 'x',}", &schema()), Err(LineError::Json(_))));
}

#[test]
fn bad_lines_say_what_is_wrong() {
    assert_eq!(parse("x y", &schema()), Err(LineError::NotAnArgument("y".to_owned())));
    assert_eq!(parse("x =1", &schema()), Err(LineError::NotAnArgument("=1".to_owned())));
    assert_eq!(parse("x a=1 a=2", &schema()), Err(LineError::Twice("a".to_owned())));
    assert_eq!(parse("x a=1 a.b=2", &schema()), Err(LineError::Twice("a.b".to_owned())));
    assert_eq!(parse("x a='open", &schema()), Err(LineError::Unclosed));
}

#[test]
fn commands_are_completed() {
    assert_eq!(completed("mem"), (0, words(&["memory-report", "memsave"])));
    assert_eq!(completed("  mems"), (2, words(&["memsave"])));
    assert_eq!(completed(""), (0, words(&["memory-report", "memsave", "object-add"])));
    assert_eq!(completed("{'execute': \"obj"), (13, words(&["object-add"])));
    assert_eq!(completed("{'id': \"obj"), (11, words(&[])));
}

#[test]
fn arguments_not_given_yet_are_completed() {
    assert_eq!(completed("memsave "), (8, words(&["cpu-index=", "filename=", "size=", "val="])));
    assert_eq!(completed("memsave val=1 size=2 "), (21, words(&["cpu-index=", "filename="])));
    assert_eq!(completed("memsave f"), (8, words(&["filename="])));
    assert_eq!(completed("warp "), (5, words(&[])));
    let note = &complete(&schema(), "memsave c", 9).candidates[0].note;
    assert_eq!(note, "int, optional");
}

#[test]
fn the_tag_brings_its_members() {
    assert_eq!(completed("object-add id=x "), (16, words(&["kind=", "props."])));
    assert_eq!(completed("object-add kind=file id=x "), (26, words(&["path=", "props.", "share="])));
}

#[test]
fn nested_members_and_values_are_completed() {
    assert_eq!(completed("object-add props."), (17, words(&["align=", "mode="])));
    assert_eq!(completed("object-add props.mode=pr"), (22, words(&["private", "prelink"])));
    assert_eq!(completed("object-add kind=file share="), (27, words(&["false", "true"])));
    assert_eq!(completed("object-add kind="), (16, words(&["file", "null"])));
    assert_eq!(completed("memsave val="), (12, words(&[])));
}

#[test]
fn any_line_is_taken_in_at_any_cursor() {
    let line = "object-add kind='fi le' props.mode=[{\"ü\": 'x props..=";
    for cursor in 0..=line.len() + 1 {
        complete(&schema(), line, cursor);
        if let Some(part) = line.get(..cursor) {
            let _ = parse(part, &schema());
        }
    }
}

#[test]
fn schema_lists_commands_and_events() {
    let schema = schema();
    assert_eq!(schema.commands().collect::<Vec<_>>(), ["memory-report", "memsave", "object-add"]);
    assert_eq!(schema.events().collect::<Vec<_>>(), ["STOP"]);
    assert!(schema.has_command("memsave"));
    assert!(!schema.has_command("STOP"));
}

#[test]
fn what_fits_stays_on_one_line() {
    let value = json!({"name": "x", "list": [1, 2, 3], "inner": {"text": "a long text that does not fit"}, "none": []});
    assert_eq!(
        pretty(&value, 40),
        r#"{
  "name": "x",
  "list": [1, 2, 3],
  "inner": {
    "text": "a long text that does not fit"
  },
  "none": []
}"#
    );
    assert_eq!(pretty(&json!({"a": 1}), 40), r#"{"a": 1}"#);
    assert_eq!(pretty(&json!([]), 0), "[\n]");
}
