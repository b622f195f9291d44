//! Whatever text is given as a schema, the answer is a schema or faults: never a panic, never an endless loop.

mod support;

use std::collections::BTreeSet;

use proptest::prelude::{Strategy, any, prop, prop_assert, proptest};
use support::load;

/// A small schema with one of nearly everything, to be damaged.
const SOUND: &str = "{ 'pragma': { 'doc-required': false } }
##
# = Title
##
##
# @Word:
#
# @a: one
#
# Features:
#
# @unstable: x
#
# Since: 1
##
{ 'enum': 'Word', 'data': [ 'a', { 'name': 'b', 'features': [ 'unstable' ], 'if': { 'not': 'X' } } ] }
{ 'struct': 'Abc', 'data': { 'a': 'int', '*b': [ 'Abc' ] } }
{ 'union': 'Two', 'base': { 'k': 'Word' }, 'discriminator': 'k', 'data': { 'a': 'Abc' } }
{ 'union': 'Old', 'data': { 'a': 'Abc', 'b': [ 'str' ] } }
{ 'alternate': 'Alt', 'data': { 'a': 'Abc', 's': 'str' } }
##
# @go:
#
# Example:
#
# -> {}
# <- {}
##
{ 'command': 'go', 'data': { 'x': 'Alt' }, 'returns': [ 'Two' ] }
{ 'event': 'GONE', 'data': 'Two', 'boxed': true }
";

/// Reads `text` and, if it is a schema, does with it all that can be done.
fn use_it(text: &str) {
    match load(text) {
        Ok(schema) => {
            let _ = rhea_qapi::introspect(&schema);
            let _ = rhea_qapi::markdown(&schema);
            assert!(rhea_qapi::diff(&schema, &schema).is_empty());
            if let Ok(configured) = schema.configured(&BTreeSet::new()) {
                rhea_qapi::generate(&configured, &BTreeSet::new()).expect("code for a sound schema");
            }
        }
        Err(faults) => {
            assert!(!faults.is_empty());
            for fault in faults {
                assert!(!fault.to_string().is_empty());
            }
        }
    }
}

/// Pieces of schemas, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "'",
        "'struct'",
        "'Abc'",
        "'data'",
        "'union'",
        "'base'",
        "'enum'",
        "'if'",
        "true",
        "false",
        "'command'",
        "'a'",
        "'*a'",
        "'int'",
        "'type'",
        "#",
        "##\n",
        "# @a:\n",
        "# Since: 1\n",
        "# Features:\n",
        "\n",
        " ",
        "# -> {\n",
        "'features'",
        "'returns'",
        "\\u00",
        "é",
        "\t",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

#[test]
fn the_sound_schema_is_sound() {
    assert!(load(SOUND).is_ok());
    use_it(SOUND);
}

proptest! {
    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        use_it(&text);
    }

    #[test]
    fn any_mixture_of_pieces_is_answered(text in pieces()) {
        use_it(&text);
    }

    #[test]
    fn a_damaged_schema_is_answered(at in 0..SOUND.len(), length in 0usize..40, with in pieces()) {
        let mut text = SOUND.to_owned();
        text.replace_range(at..(at + length).min(SOUND.len()), &with);
        use_it(&text);
    }

    #[test]
    fn a_word_in_the_place_of_another_is_answered(from in 0usize..40, to in 0usize..40) {
        let words: BTreeSet<&str> = SOUND.split('\'').filter(|word| !word.contains(['{', '#', ':', '\n'])).collect();
        let words: Vec<&str> = words.into_iter().collect();
        prop_assert!(words.len() > 20);
        let (from, to) = (words[from % words.len()], words[to % words.len()]);
        use_it(&SOUND.replace(&format!("'{from}'"), &format!("'{to}'")));
    }

    #[test]
    fn nesting_is_bounded(depth in 1usize..100_000, open in prop::sample::select(vec!["[", "{ 'a': "])) {
        use_it(&format!("{{ 'enum': {}", open.repeat(depth)));
    }
}
