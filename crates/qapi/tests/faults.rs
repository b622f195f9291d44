//! What is wrong with a schema is told where it is wrong.

mod support;

use rhea_qapi::Fault;
use support::{load, load_files};

/// Expects exactly one fault, at a place, with these words in its message or hint.
#[track_caller]
fn one_fault(text: &str, line: usize, column: usize, words: &str) {
    let faults = load(text).expect_err("the schema has a fault");
    let [fault] = faults.as_slice() else {
        panic!("{} faults:\n{}", faults.len(), faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n"));
    };
    assert!(fault.to_string().contains(words), "{fault}");
    assert_eq!((fault.line, fault.column), (line, column), "{fault}");
}

/// Expects exactly one fault, under `needle` in the last line.
#[track_caller]
fn fault_under(text: &str, needle: &str, words: &str) {
    let last = text.lines().last().expect("a line");
    let column = last.find(needle).expect("the needle is there") + 1;
    one_fault(text, text.lines().count(), column, words);
}

#[test]
fn a_fault_shows_its_line_with_a_caret() {
    let faults = load("# first\n{ 'struct': 'One',\n  'data': { 'a': 'Two' } }\n").expect_err("a fault");
    let shown = faults[0].to_string();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].ends_with("schema.json:3:13: there is no type 'Two'"), "{shown}");
    assert_eq!(
        lines[1..5],
        [
            "  |",
            "3 |   'data': { 'a': 'Two' } }",
            "  |             ^^^",
            "  hint: define it, or include the file that does"
        ]
    );
}

#[test]
fn text_that_is_no_schema_is_a_fault() {
    one_fault("{ 'struct' }", 1, 12, "expected ':'");
    one_fault("{ 'struct': 'A', }", 1, 18, "no comma stands before '}'");
    one_fault("{ 'enum': 'A', 'data': ['a', ] }", 1, 30, "no comma stands before ']'");
    one_fault("{ 'enum': 'A' 'data': [] }", 1, 15, "expected ',' or '}'");
    one_fault("{ 'enum': 'A', 'enum': 'B', 'data': [] }", 1, 16, "a second time");
    one_fault("[]", 1, 1, "expected '{'");
    one_fault("{ \"enum\": 'A' }", 1, 3, "single quotes");
    one_fault("{ 'gen': False }", 1, 10, "lower case");
    one_fault("{ 'gen': null }", 1, 10, "no null");
    one_fault("{ 'gen': 12 }", 1, 10, "no numbers");
    one_fault("{ 'enum", 1, 3, "closing quote");
    one_fault("{ 'e\\x': 1 }", 1, 5, "unknown escape");
    one_fault("{ 'e\\u0000': 1 }", 1, 5, "\\u escape");
    one_fault("{ 'é': 1 }", 1, 4, "printable ASCII");
    one_fault("{ 'enum': 'A'", 1, 14, "the end of the file");
    one_fault(&"{ 'a': ".repeat(100), 1, 7 * 64 + 1, "nested more than 64 deep");
    one_fault(&format!("{{ 'a': {}", "[".repeat(100)), 1, 8 + 63, "nested more than 64 deep");
}

#[test]
fn definitions_have_their_keys_and_no_others() {
    one_fault("{ 'structure': 'A' }", 1, 1, "defines nothing");
    one_fault("{ 'struct': 'Abc' }", 1, 1, "lacks the key 'data'");
    one_fault("{ 'struct': 'Abc', 'data': {}, 'boxed': true }", 1, 32, "no key 'boxed'");
    one_fault("{ 'command': ['a'] }", 1, 14, "takes a name");
    one_fault("{ 'command': 'a', 'gen': true }", 1, 26, "'gen' is false or absent");
    one_fault("{ 'command': 'a', 'boxed': true }", 1, 19, "'boxed' without 'data'");
    one_fault("{ 'command': 'a', 'data': { 'x': 'int' }, 'boxed': true }", 1, 27, "name a type");
    one_fault("{ 'command': 'a', 'allow-oob': true, 'coroutine': true }", 1, 38, "'coroutine' beside 'allow-oob'");
    one_fault("{ 'command': 'a', 'data': [] }", 1, 27, "'data' is an object");
    one_fault("{ 'struct': 'Abc', 'data': { 'x': { 'y': 'int' } } }", 1, 37, "no key 'y'");
    one_fault("{ 'struct': 'Abc', 'data': { 'x': ['int', 'str'] } }", 1, 35, "write ['TYPE']");
    one_fault("{ 'struct': 'Abc', 'data': { 'x': true } }", 1, 35, "expected a type");
    one_fault("{ 'enum': 'Abc', 'data': [ 'a', {} ] }", 1, 33, "'name' is missing");
    one_fault("{ 'enum': 'Abc', 'data': { 'a': 'b' } }", 1, 26, "a list of names");
    one_fault("{ 'union': 'Abc', 'data': {} }", 1, 27, "no branch");
    one_fault("{ 'alternate': 'Abc', 'data': {} }", 1, 31, "at least one type");
    one_fault("{ 'enum': 'Abc', 'data': [], 'if': { 'some': [] } }", 1, 38, "'all', 'any' or 'not'");
    one_fault("{ 'enum': 'Abc', 'data': [], 'if': 'a b' }", 1, 36, "is no symbol");
    one_fault("{ 'enum': 'Abc', 'data': [], 'features': [ 'a', 'a' ] }", 1, 49, "a second time");
    one_fault("{ 'enum': 'Abc', 'data': [], 'features': [ 'deprecated' ] }", 1, 44, "of a type");
}

#[test]
fn names_follow_their_rules() {
    one_fault("{ 'struct': 'abc', 'data': {} }", 1, 13, "CamelCase");
    one_fault("{ 'struct': 'int', 'data': {} }", 1, 13, "the language itself");
    one_fault("{ 'struct': 'AbcList', 'data': {} }", 1, 13, "ends in 'List'");
    one_fault("{ 'struct': 'A b', 'data': {} }", 1, 13, "no name for a struct");
    one_fault("{ 'command': 'device_add' }", 1, 14, "command-name-exceptions");
    one_fault("{ 'command': 'Stop' }", 1, 14, "lower case");
    one_fault("{ 'command': 'q-stop' }", 1, 14, "reserved");
    one_fault("{ 'event': 'stop' }", 1, 12, "upper case");
    one_fault("{ 'struct': 'Abc', 'data': { 'a_b': 'int' } }", 1, 30, "member-name-exceptions");
    one_fault("{ 'struct': 'Abc', 'data': { 'UUID': 'str' } }", 1, 30, "member-name-exceptions");
    one_fault("{ 'struct': 'Abc', 'data': { '*has-x': 'str' } }", 1, 30, "reserved");
    one_fault("{ 'struct': 'Abc', 'data': { 'u': 'str' } }", 1, 30, "reserved");
    one_fault("{ 'struct': 'Abc', 'data': { '1a': 'str' } }", 1, 30, "no name for a member");
    one_fault("{ 'struct': 'Abc', 'data': { 'a-b': 'int', '*a-b': 'int' } }", 1, 44, "clashes with 'a-b'");
    one_fault("{ 'enum': 'Abc', 'data': [ 'ab', 'CD' ] }", 1, 34, "lower case");
    let excepted = "{ 'pragma': { 'member-name-exceptions': [ 'Abc' ] } }";
    one_fault(&format!("{excepted}{{ 'enum': 'Abc', 'data': [ 'ab', 'AB' ] }}"), 1, 87, "clashes with 'ab'");
    one_fault("{ 'enum': 'Abc', 'data': [ 'a-b', 'a-b' ] }", 1, 35, "clashes");
}

#[test]
fn a_second_definition_is_a_fault() {
    let text = "{ 'command': 'a' }\n{ 'event': 'A' }\n{ 'command': 'a' }\n";
    one_fault(text, 3, 14, "schema.json:1");
    let names = "{ 'pragma': { 'command-name-exceptions': [ 'a_b' ] } }\n{ 'command': 'a_b' }\n{ 'command': 'a-b' }";
    one_fault(names, 3, 14, "clashes with 'a_b'");
}

#[test]
fn types_must_exist_and_fit() {
    one_fault("{ 'struct': 'Abc', 'data': { 'x': 'string' } }", 1, 30, "there is no type 'string'");
    one_fault(
        "{ 'command': 'abc', 'returns': ['ABC'] }\n{ 'struct': 'Abc', 'data': {} }",
        1,
        32,
        "did you mean 'Abc'?",
    );
    one_fault("{ 'command': 'a' }\n{ 'command': 'b', 'data': { 'x': 'a' } }", 2, 29, "'a' is no type");
    one_fault("{ 'command': 'a', 'returns': 'int' }", 1, 30, "can't grow");
    one_fault("{ 'command': 'a', 'returns': ['str'] }", 1, 30, "command-returns-exceptions");
    one_fault("{ 'enum': 'Abc', 'data': [] }\n{ 'command': 'a', 'data': 'Abc' }", 2, 27, "no struct");
    one_fault(
        "{ 'union': 'Abc', 'data': { 'a': 'str' } }\n{ 'command': 'a', 'data': 'Abc' }",
        2,
        27,
        "add 'boxed': true",
    );
    one_fault("{ 'struct': 'Abc', 'base': 'Abc', 'data': {} }", 1, 28, "its own base");
    one_fault("{ 'enum': 'Abc', 'data': [] }\n{ 'struct': 'Def', 'base': 'Abc', 'data': {} }", 2, 28, "no struct");
    one_fault(
        "{ 'struct': 'Abc', 'data': { 'x': 'int' } }\n{ 'struct': 'Def', 'base': 'Abc', 'data': { '*x': 'int' } }",
        2,
        45,
        "a member of the base",
    );
}

#[test]
fn unions_must_decide() {
    let kind = "{ 'enum': 'Kind2', 'data': [ 'a', 'b' ] }\n{ 'struct': 'Abc', 'data': { 'x': 'int' } }\n";
    let with = |union: &str| format!("{kind}{{ 'union': 'Choice', {union} }}");
    fault_under(&with("'base': { 'k': 'Kind2' }, 'data': { 'a': 'Abc' }"), "{ 'k'", "no discriminator");
    fault_under(&with("'discriminator': 'k', 'data': { 'a': 'Abc' }"), "'k'", "no base");
    let flat = |base: &str, branches: &str| with(&format!("'base': {base}, 'discriminator': 'k', 'data': {branches}"));
    let deciding = "'k', 'data'";
    fault_under(&flat("{ 'j': 'Kind2' }", "{ 'a': 'Abc' }"), deciding, "no member of the base");
    fault_under(&flat("{ 'k': 'str' }", "{ 'a': 'Abc' }"), deciding, "no enum");
    fault_under(&flat("{ '*k': 'Kind2' }", "{ 'a': 'Abc' }"), deciding, "is optional");
    fault_under(&flat("{ 'k': 'Kind2' }", "{ 'c': 'Abc' }"), "'c'", "no value of 'Kind2'");
    fault_under(&flat("{ 'k': 'Kind2' }", "{ 'a': 'str' }"), "'a'", "no struct");
    fault_under(&flat("{ 'k': 'Kind2', 'x': 'str' }", "{ 'a': 'Abc' }"), "'a'", "clashes with 'x'");
    fault_under(&flat("'Kind2'", "{ 'a': 'Abc' }"), "'Kind2'", "no struct");
}

#[test]
fn alternates_must_be_told_apart() {
    let with = |branches: &str| {
        format!(
            "{{ 'enum': 'Digits', 'data': [ '1st' ] }}\n{{ 'enum': 'Switch', 'data': [ 'on' ] }}\n\
             {{ 'alternate': 'Choice', 'data': {{ {branches} }} }}"
        )
    };
    fault_under(&with("'a': 'int', 'b': 'number'"), "'b'", "told from 'a'");
    fault_under(&with("'a': 'str', 'b': 'Digits'"), "'b'", "told from 'a'");
    fault_under(&with("'a': 'int', 'b': 'Digits'"), "'b'", "told from 'a'");
    fault_under(&with("'a': 'bool', 'b': 'Switch'"), "'b'", "told from 'a'");
    fault_under(&with("'a': 'str', 'b': 'int'"), "'b'", "told from 'a'");
    fault_under(&with("'a': 'any'"), "'a'", "'any' in an alternate");
    fault_under(&with("'a': 'Choice'"), "'a'", "in an alternate");
    load(&with("'a': 'Switch', 'b': 'int', 'c': 'null', 'd': ['str']")).expect("all can be told");
}

#[test]
fn includes_are_read_once_and_never_in_a_circle() {
    let shared = "{ 'struct': 'Abc', 'data': {} }";
    let files = [
        ("root.json", "{ 'include': 'sub/a.json' }\n{ 'include': 'b.json' }"),
        ("sub/a.json", "{ 'include': '../b.json' }"),
        ("b.json", shared),
    ];
    load_files(&files).expect("each file is read once");

    let circle = [("root.json", "{ 'include': 'a.json' }"), ("a.json", "\n{ 'include': 'root.json' }")];
    let faults = load_files(&circle).expect_err("a circle");
    assert_eq!(faults.len(), 1);
    assert_eq!((faults[0].line, faults[0].column), (2, 14));
    let shown = faults[0].to_string();
    assert!(
        shown.contains("includes itself") && shown.contains("included from") && shown.contains("root.json:1"),
        "{shown}"
    );

    one_fault("{ 'include': 'nowhere.json' }", 1, 14, "cannot read");
    one_fault("{ 'include': 'a.json', 'data': {} }", 1, 24, "'data' beside 'include'");
    one_fault("{ 'include': true }", 1, 14, "the name of a file");
    assert!(rhea_qapi::Schema::load("no-such-schema.json".as_ref()).is_err());
}

#[test]
fn pragmas_are_known_ones() {
    one_fault("{ 'pragma': { 'doc-requierd': true } }", 1, 15, "no pragma 'doc-requierd'");
    one_fault("{ 'pragma': { 'doc-required': 'yes' } }", 1, 31, "true or false");
    one_fault("{ 'pragma': { 'returns-whitelist': 'a' } }", 1, 36, "a list of names");
    one_fault("{ 'pragma': [] }", 1, 13, "takes an object");
}

#[test]
fn documentation_comments_are_well_formed() {
    one_fault("## x\n", 1, 1, "text after '##'");
    one_fault("##\n# a\n", 3, 1, "without its end");
    one_fault("##\n# a\n## b\n", 3, 1, "text after '##'");
    one_fault("##\n#a\n##\n", 2, 1, "no space after '#'");
    one_fault("##\n# @stop\n##\n", 2, 3, "ends with ':'");
    one_fault("##\n# @st op:\n##\n", 2, 3, "no name of a definition");
    one_fault("##\n# text\n#\n# @x: y\n##\n", 4, 3, "belongs to no definition");
    one_fault("##\n# = One\n#\n# = Two\n##\n", 4, 3, "not the first line");
    one_fault("##\n# @stop:\n#\n# = One\n##\n{ 'command': 'stop' }", 4, 3, "a heading in");
    one_fault("##\n# @stop:\n#\n# @: x\n##\n{ 'command': 'stop' }", 4, 3, "no name of a member");
    one_fault("##\n# @stop:\n##\n", 2, 3, "without a definition");
    one_fault("##\n# @stop:\n##\n##\n# text\n##\n{ 'command': 'stop' }", 2, 3, "without a definition");
    one_fault("##\n# @stop:\n##\n{ 'command': 'cont' }", 2, 3, "before the definition of 'cont'");
    one_fault("##\n# @stop:\n##\n{ 'pragma': { } }", 2, 3, "before 'pragma'");
    one_fault("{ 'enum': 'A',\n##\n# x\n##\n 'data': [] }", 2, 1, "expected a key");
}

/// A command with one argument, documented by `lines`.
fn documented(lines: &[&str]) -> String {
    let lines: String =
        lines.iter().map(|line| format!("#{}{line}\n", if line.is_empty() { "" } else { " " })).collect();
    format!(
        "##\n# @move:\n#\n{lines}##\n{{ 'command': 'move', 'data': {{ 'to': 'str' }}, 'features': [ 'quick' ] }}\n\
         {{ 'pragma': {{ 'doc-required': true }} }}"
    )
}

#[test]
fn documentation_agrees_with_its_definition() {
    let features = ["Features:", "@quick: fast"];
    let with = |before: &[&str], after: &[&str]| documented(&[before, &features, after].concat());
    load(&with(&["@to: where"], &["", "Since: 1"])).expect("sound");
    one_fault(&with(&["@to: where", "@from: x"], &[]), 5, 3, "has no member 'from'");
    one_fault(&with(&["@to: where", "@to: x"], &[]), 5, 3, "a second time");
    one_fault(&with(&[], &[]), 2, 3, "no documentation of 'to'");
    one_fault(&documented(&["@to: where"]), 2, 3, "no documentation of 'quick'");
    one_fault(&with(&["@to: where"], &["@slow: x"]), 7, 3, "has no feature 'slow'");
    one_fault(&with(&["@to: where"], &["@quick: x"]), 7, 3, "a second time");
    one_fault(&documented(&["@to: where", "Features:"]), 5, 3, "without a feature");
    one_fault(&documented(&["@to: where", "Features: x"]), 5, 3, "text after 'Features:'");
    one_fault(&documented(&["@to: where", "Features:", "x"]), 6, 3, "text between");
    one_fault(&with(&["@to: where"], &["Since: 1", "Since: 2"]), 8, 3, "a second time");
    one_fault(&with(&["@to: where"], &["Since: 1", "@from: x"]), 8, 3, "after the section 'Since:'");
    one_fault(&with(&["@to: where"], &["Since:"]), 7, 3, "no text after 'Since:'");
    one_fault(&with(&["@to: where"], &["Returns: x"]), 7, 3, "returns nothing");
    one_fault(&with(&["@to: where", "    more", "  less"], &[]), 6, 3, "further left");
    one_fault(
        "##\n# @Abc:\n#\n# Returns: x\n##\n{ 'struct': 'Abc', 'data': {} }",
        4,
        3,
        "only commands return or fail",
    );
    one_fault("{ 'pragma': { 'doc-required': true } }\n{ 'command': 'stop' }", 2, 14, "has no documentation");
}

#[test]
fn all_faults_of_sound_files_are_told_at_once() {
    let faults = load("{ 'command': 'Aa' }\n{ 'command': 'bb', 'returns': 'X' }\n{ 'foo': 'x' }").expect_err("faults");
    let lines: Vec<usize> = faults.iter().map(|fault| fault.line).collect();
    assert_eq!(lines, [1, 3, 2]);
}
