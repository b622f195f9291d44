//! Which changes of a schema its clients survive.

mod support;

use rhea_qapi::{Change, Verdict, diff};
use support::sound;

/// What changed between two schemas, verdict first.
fn changes(old: &str, new: &str) -> Vec<String> {
    diff(&sound(old), &sound(new)).iter().map(Change::to_string).collect()
}

/// The same type taken as an argument and given back.
fn both_ways(definitions: &str) -> String {
    format!(
        "{{ 'pragma': {{ 'command-returns-exceptions': [ 'give' ] }} }} {definitions}
         {{ 'command': 'take', 'data': {{ 'x': 'Abc' }} }} {{ 'command': 'give', 'returns': 'Abc' }}"
    )
}

/// Expects one change each way: the verdict for what clients send, and for what they receive.
#[track_caller]
fn verdicts(old: &str, new: &str, input: Verdict, output: Verdict) {
    let changes = diff(&sound(&both_ways(old)), &sound(&both_ways(new)));
    let found: Vec<Verdict> = changes.iter().map(|change| change.verdict).collect();
    assert_eq!(found, [input, output], "{changes:#?}");
}

use Verdict::{Breaking, Compatible};

fn object(members: &str) -> String {
    format!("{{ 'enum': 'Word', 'data': [ 'a' ] }} {{ 'struct': 'Abc', 'data': {{ {members} }} }}")
}

#[test]
fn the_same_schema_has_no_changes() {
    let text = both_ways(&object("'a': 'int', '*b': [ 'Abc' ], 'c': 'Word'"));
    assert_eq!(changes(&text, &text), Vec::<String>::new());
}

#[test]
fn members_may_be_promised_but_not_demanded() {
    verdicts(&object(""), &object("'*a': 'int'"), Compatible, Compatible);
    verdicts(&object(""), &object("'a': 'int'"), Breaking, Compatible);
    verdicts(&object("'a': 'int'"), &object(""), Breaking, Breaking);
    verdicts(&object("'a': 'int'"), &object("'*a': 'int'"), Compatible, Breaking);
    verdicts(&object("'*a': 'int'"), &object("'a': 'int'"), Breaking, Compatible);
}

#[test]
fn types_may_widen_where_they_are_taken_and_narrow_where_they_are_given() {
    let of = |kind: &str| object(&format!("'a': {kind}"));
    verdicts(&of("'int'"), &of("'number'"), Compatible, Breaking);
    verdicts(&of("'uint8'"), &of("'int'"), Compatible, Breaking);
    verdicts(&of("'int'"), &of("'size'"), Breaking, Breaking);
    verdicts(&of("'any'"), &of("'str'"), Breaking, Compatible);
    verdicts(&of("'Word'"), &of("'str'"), Compatible, Breaking);
    verdicts(&of("'int'"), &of("[ 'int' ]"), Breaking, Breaking);
    verdicts(&of("[ 'int' ]"), &of("[ 'str' ]"), Breaking, Breaking);
    verdicts(&of("{ 'type': 'int', 'features': [ 'deprecated' ] }"), &of("'int'"), Compatible, Compatible);
    verdicts(&of("{ 'type': 'int', 'features': [ 'quick' ] }"), &of("'int'"), Breaking, Breaking);
    verdicts(&of("'int'"), &of("{ 'type': 'int', 'if': 'CONFIG_A' }"), Breaking, Breaking);
}

#[test]
fn words_may_be_added_where_they_are_taken() {
    let words = |list: &str| format!("{{ 'enum': 'Abc', 'data': [ {list} ] }}");
    verdicts(&words("'a'"), &words("'a', 'b'"), Compatible, Breaking);
    verdicts(&words("'a', 'b'"), &words("'a'"), Breaking, Compatible);
}

#[test]
fn alternates_may_grow_where_they_are_taken() {
    let one_of =
        |list: &str| format!("{{ 'struct': 'Obj', 'data': {{}} }} {{ 'alternate': 'Abc', 'data': {{ {list} }} }}");
    verdicts(&one_of("'o': 'Obj'"), &one_of("'x': 'Obj', 's': 'str'"), Compatible, Breaking);
    verdicts(&one_of("'o': 'Obj', 's': 'str'"), &one_of("'s': 'str'"), Breaking, Compatible);
    let with = |kind: &str| {
        format!(
            "{{ 'struct': 'Obj', 'data': {{ '*n': 'int' }} }} {{ 'alternate': 'Alt', 'data': {{ 'o': 'Obj', 's': 'str' }} }} {{ 'struct': 'Abc', 'data': {{ 'a': '{kind}' }} }}"
        )
    };
    verdicts(&with("Obj"), &with("Alt"), Compatible, Breaking);
}

#[test]
fn branches_are_compared_value_by_value() {
    let union = |base: &str, branch: &str| {
        format!(
            "{{ 'enum': 'Word', 'data': [ 'p', 'q' ] }} {{ 'struct': 'Branch', 'data': {{ {branch} }} }}
             {{ 'union': 'Abc', 'base': {{ 'k': 'Word' {base} }}, 'discriminator': 'k', 'data': {{ 'p': 'Branch' }} }}"
        )
    };
    verdicts(&union("", ""), &union("", "'*a': 'int'"), Compatible, Compatible);
    verdicts(&union("", "'a': 'int'"), &union("", ""), Breaking, Breaking);
    verdicts(&union("", ""), &union(", 'b': 'int'", ""), Breaking, Compatible);
    let told = changes(&both_ways(&union("", "'a': 'int'")), &both_ways(&union("", "")));
    assert_eq!(told[0], "breaking    command take, arguments.x<p>.a: is no longer taken");
    assert_eq!(told[1], "breaking    command give, return<p>.a: is no longer there");
}

#[test]
fn commands_and_events_may_come_but_not_go() {
    let old = "{ 'command': 'a', 'allow-oob': true } { 'command': 'b', 'features': [ 'quick' ] } { 'event': 'E' }";
    let new = "{ 'command': 'a' } { 'command': 'b', 'features': [ 'quick', 'deprecated' ], 'allow-preconfig': true }
               { 'command': 'c' } { 'event': 'F' }";
    assert_eq!(
        changes(old, new),
        [
            "breaking    command a: loses 'allow-oob'",
            "compatible  command b: gains the feature 'deprecated'",
            "compatible  command b: gains 'allow-preconfig'",
            "breaking    event E: is gone",
            "compatible  command c: is new",
            "compatible  event F: is new",
        ]
    );
}

#[test]
fn an_empty_result_may_be_filled() {
    let types = "{ 'struct': 'Abc', 'data': { 'a': 'int' } }";
    let nothing = format!("{types} {{ 'command': 'a' }}");
    let something = format!("{types} {{ 'command': 'a', 'returns': 'Abc' }}");
    assert_eq!(changes(&nothing, &something), ["compatible  command a, return.a: is new and mandatory"]);
    assert_eq!(changes(&something, &nothing).len(), 1);
    assert!(changes(&something, &nothing)[0].starts_with("breaking"));
}

#[test]
fn names_of_types_are_no_business_of_clients() {
    let old = object("'a': 'Word'");
    let new = old.replace("Word", "Term");
    assert_eq!(changes(&both_ways(&old), &both_ways(&new)), Vec::<String>::new());
}

#[test]
fn a_simple_union_may_be_written_with_its_wrappers() {
    let simple = "{ 'union': 'Abc', 'data': { 'a': 'Inner' } }";
    let flat = |wrapper: &str| {
        format!(
            "{{ 'enum': 'AbcKind', 'data': [ 'a' ] }} {{ 'struct': 'Wrapper', 'data': {{ {wrapper} }} }}
             {{ 'union': 'Abc', 'base': {{ 'type': 'AbcKind' }}, 'discriminator': 'type', 'data': {{ 'a': 'Wrapper' }} }}"
        )
    };
    let whole = |union: &str| both_ways(&format!("{{ 'struct': 'Inner', 'data': {{ 'x': 'int' }} }} {union}"));
    let same = flat("'data': 'Inner'");
    assert_eq!(changes(&whole(simple), &whole(&same)), Vec::<String>::new());
    assert_eq!(changes(&whole(&same), &whole(simple)), Vec::<String>::new());
    for other in ["'x': 'int'", "'*data': 'Inner'"] {
        let found = changes(&whole(simple), &whole(&flat(other)));
        assert!(found.iter().any(|change| change.ends_with("is wrapped differently")), "{found:?}");
    }
    let found = changes(&whole(simple), &whole(&flat("'data': 'str'")));
    assert!(found.iter().any(|change| change.starts_with("breaking")), "{found:?}");
}

#[test]
fn types_that_hold_themselves_are_compared_once() {
    let old = object("'a': [ 'Abc' ], '*b': 'Abc'");
    let new = object("'a': [ 'Abc' ], '*b': 'Abc', '*c': 'int'");
    verdicts(&old, &new, Compatible, Compatible);
}
