//! The code made of a schema, used: reading arguments, dispatch, results, events, for each construct of the language.

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use rhea_qmp::Error;
use rhea_qmp::reply::Later;
use serde_json::{Map, Value, json};

/// Code for `constructs/constructs.json`.
#[allow(unused_qualifications, clippy::too_many_arguments, clippy::needless_pass_by_value, unreachable_pub, dead_code)]
mod made {
    include!(concat!(env!("OUT_DIR"), "/constructs.rs"));
}

use made::constructs::{Bare, Derived, Flat, FlatBranch, Simple, Sun, Weather};
use made::more::Lists;
use made::{COMMANDS, EVENTS, Event, INTROSPECTION, Outcome, dispatch};

/// Hands each command's arguments back as its result.
#[derive(Default)]
struct Echo {
    calls: Vec<&'static str>,
}

impl made::constructs::Handler for Echo {
    fn hail(&mut self, name: Option<String>, arguments: i64) -> Result<String, Error> {
        Ok(format!("{name:?} {arguments}"))
    }

    fn derive(
        &mut self,
        id: String,
        size: Option<u64>,
        r#type: u8,
        list: Option<Vec<i64>>,
        self_: Option<Derived>,
        list_of_self: Option<Vec<Derived>>,
        members: bool,
    ) -> Result<Derived, Error> {
        Ok(Derived { id, size, r#type, list, self_: self_.map(Box::new), list_of_self, members })
    }

    fn flatten(&mut self, arguments: Flat) -> Result<Flat, Error> {
        Ok(arguments)
    }

    fn lists(
        &mut self,
        bare: Vec<Bare>,
        simple: Vec<Simple>,
        either: Vec<made::constructs::Either>,
    ) -> Result<Lists, Error> {
        Ok(Lists { bare, simple, either })
    }

    fn old_name(&mut self) -> Result<(), Error> {
        self.calls.push("old_name");
        Ok(())
    }

    fn anything(&mut self, arguments: Map<String, Value>) -> Result<Value, Error> {
        Ok(Value::Object(arguments))
    }

    fn slow(&mut self, turns: u16) -> Result<Later<Sun>, Error> {
        Ok(Box::new(move || Ok(Sun { hours: f64::from(turns) / 2.0 })))
    }

    fn slow_silent(&mut self) -> Result<Later<()>, Error> {
        Ok(Box::new(|| Err(Error::generic("not now"))))
    }
}

impl made::more::Handler for Echo {
    fn more(&mut self) -> Result<(), Error> {
        self.calls.push("more");
        Ok(())
    }
}

fn run(command: &str, arguments: Value) -> Result<Value, String> {
    let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
    let outcome = dispatch(&mut Echo::default(), command, arguments);
    let result = outcome.and_then(|outcome| match outcome {
        Outcome::Done(value) => Ok(value),
        Outcome::Later(work) => std::thread::spawn(work).join().expect("the work ends"),
    });
    result.map_err(|error| error.desc)
}

/// Sends `arguments` to a command that echoes, and expects them back as they are.
fn echoes(command: &str, arguments: Value) {
    assert_eq!(run(command, arguments.clone()), Ok(arguments));
}

#[test]
fn structs_come_back_with_the_members_they_went_with() {
    echoes("derive", json!({ "id": "a", "type": 255, "members": true }));
    echoes(
        "derive",
        json!({ "id": "a", "size": u64::MAX, "type": 0, "list": [], "self": { "id": "b", "type": 1, "members": false },
                "list-of-self": [ { "id": "c", "type": 1, "list": [ -1 ], "members": true } ], "members": true }),
    );
}

#[test]
fn unions_are_flat_on_the_wire() {
    echoes("flatten", json!({ "CPU": 1, "weather": "sun", "hours": 1.5 }));
    echoes("flatten", json!({ "CPU": 1, "weather": "light-rain", "note": "x" }));
    echoes("flatten", json!({ "CPU": 1, "weather": "SNOW" }));
    echoes(
        "lists",
        json!({ "bare": [ { "weather": "sun", "hours": 0.5 }, { "weather": "light-rain" } ],
                "simple": [ { "type": "one", "data": { "hours": 2.0 } }, { "type": "two", "data": "x" },
                            { "type": "three", "data": [ 1, 2 ] } ],
                "either": [ "SNOW", { "hours": 3.0 }, [ 1 ], null ] }),
    );
    let flat = Flat { cpu: 7, weather: FlatBranch::Sun(Sun { hours: 1.0 }), note: None };
    assert_eq!(serde_json::to_value(&flat).unwrap(), json!({ "CPU": 7, "weather": "sun", "hours": 1.0 }));
    assert_eq!(flat.weather.kind(), Weather::Sun);
}

#[test]
fn bad_arguments_are_named() {
    let cases = [
        ("hail", json!({}), "Parameter 'arguments' is missing"),
        ("hail", json!({ "arguments": 1, "age": 2 }), "Parameter 'age' is unexpected"),
        ("hail", json!({ "arguments": 1.0 }), "Invalid parameter type for 'arguments', expected: integer"),
        ("hail", json!({ "arguments": 1, "name": null }), "Invalid parameter type for 'name', expected: string"),
        ("old_name", json!({ "x": 1 }), "Parameter 'x' is unexpected"),
        ("derive", json!({ "id": "a", "size": -1, "type": 1, "members": true }), "Parameter 'size' expects uint64"),
        ("derive", json!({ "id": "a", "type": 256, "members": true }), "Parameter 'type' expects uint8_t"),
        (
            "derive",
            json!({ "id": "a", "type": 1, "self": { "id": "b", "type": 1 }, "members": true }),
            "Parameter 'self.members' is missing",
        ),
        (
            "derive",
            json!({ "id": "a", "type": 1, "self": { "id": "b", "type": 1, "members": true, "more": 1 }, "members": true }),
            "Parameter 'self.more' is unexpected",
        ),
        ("flatten", json!({ "CPU": 1 }), "Parameter 'weather' is missing"),
        ("flatten", json!({ "CPU": 1, "weather": "frogs" }), "Parameter 'weather' does not accept value 'frogs'"),
        ("flatten", json!({ "CPU": 1, "weather": "sun" }), "Parameter 'hours' is missing"),
        ("flatten", json!({ "CPU": 1, "weather": "SNOW", "hours": 1 }), "Parameter 'hours' is unexpected"),
        (
            "lists",
            json!({ "bare": [], "simple": [ { "type": "two" } ], "either": [] }),
            "Parameter 'simple[0].data' is missing",
        ),
        (
            "lists",
            json!({ "bare": [ 1 ], "simple": [], "either": [] }),
            "Invalid parameter type for 'bare[0]', expected: object",
        ),
        (
            "lists",
            json!({ "bare": [], "simple": [], "either": [ true ] }),
            "Invalid parameter type for 'either[0]', expected: Either",
        ),
        ("slow", json!({ "turns": 70000 }), "Parameter 'turns' expects uint16_t"),
    ];
    for (command, arguments, expected) in cases {
        assert_eq!(run(command, arguments.clone()), Err(expected.to_owned()), "{command} {arguments}");
    }
}

#[test]
fn results_are_an_object_when_there_is_nothing_to_say() {
    assert_eq!(run("old_name", json!({})), Ok(json!({})));
    assert_eq!(run("hail", json!({ "arguments": 3, "name": "x" })), Ok(json!("Some(\"x\") 3")));
    let mut echo = Echo::default();
    assert!(matches!(dispatch(&mut echo, "more", Map::new()), Ok(Outcome::Done(Value::Object(map))) if map.is_empty()));
    assert_eq!(echo.calls, ["more"]);
}

#[test]
fn raw_arguments_pass_unread() {
    echoes("anything", json!({ "whatever": [ 1, { "y": null } ] }));
}

#[test]
fn slow_work_is_handed_out() {
    let outcome = dispatch(&mut Echo::default(), "slow", [("turns".to_owned(), json!(3))].into_iter().collect());
    assert!(matches!(outcome, Ok(Outcome::Later(_))));
    assert_eq!(run("slow", json!({ "turns": 3 })), Ok(json!({ "hours": 1.5 })));
    assert_eq!(run("slow-silent", json!({})), Err("not now".to_owned()));
}

#[test]
fn unknown_commands_are_not_found() {
    assert_eq!(run("plague", json!({})), Err("The command plague has not been found".to_owned()));
    assert!(COMMANDS.iter().all(|row| row.name != "plague"));
}

#[test]
fn the_tables_hold_names_and_flags() {
    let names: Vec<&str> = COMMANDS.iter().map(|row| row.name).collect();
    assert_eq!(names, ["anything", "derive", "flatten", "hail", "lists", "more", "old_name", "slow", "slow-silent"]);
    let row = |name| *made::command(name).expect("a known command");
    assert!(row("hail").allow_oob && !row("more").allow_oob);
    assert!(row("derive").allow_preconfig && !row("hail").allow_preconfig);
    assert!(row("slow").coroutine && !row("hail").coroutine);
    assert!(made::command("plague").is_none());
    assert_eq!(EVENTS, ["BARE", "IN_PLACE", "NAMED"]);
}

#[test]
fn events_carry_their_data() {
    assert_eq!((Event::Bare.name(), Event::Bare.data()), ("BARE", None));
    let event = Event::InPlace { sun: Sun { hours: 1.0 }, r#move: None };
    assert_eq!((event.name(), event.data()), ("IN_PLACE", Some(json!({ "sun": { "hours": 1.0 } }))));
    let event = Event::Named(Bare::LightRain);
    assert_eq!((event.name(), event.data()), ("NAMED", Some(json!({ "weather": "light-rain" }))));
}

#[test]
fn introspection_is_json_without_what_has_a_false_condition() {
    let rows: Vec<Value> = serde_json::from_str(INTROSPECTION).unwrap();
    let named = |name: &str| rows.iter().find(|row| row["name"] == name);
    assert!(named("plague").is_none());
    let hail = named("hail").expect("the command");
    assert_eq!(hail["allow-oob"], true);
    let derived = rows.iter().find(|row| row["name"] == named("derive").unwrap()["arg-type"]).unwrap();
    let members: Vec<&str> =
        derived["members"].as_array().unwrap().iter().map(|member| member["name"].as_str().unwrap()).collect();
    assert_eq!(members, ["id", "size", "type", "list", "self", "list-of-self", "members"]);
}

#[test]
fn words_are_found_by_name() {
    for weather in Weather::ALL {
        assert_eq!(Weather::named(weather.as_str()), Some(*weather));
    }
    assert_eq!(Weather::named("frogs"), None);
    assert_eq!(format!("{:>5}", Weather::Sun), "  sun");
}

/// JSON of any shape, with the names and words of the constructs among its strings.
fn json_value() -> impl Strategy<Value = Value> {
    let word = || {
        prop::sample::select(vec![
            "id", "size", "type", "list", "self", "members", "weather", "sun", "SNOW", "CPU", "hours", "data", "one",
            "two", "bare", "simple", "either", "x",
        ])
    };
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((word(), inner), 0..6)
                .prop_map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn any_arguments_are_taken_or_refused_with_a_text(arguments in json_value()) {
        let Value::Object(arguments) = arguments else { return Ok(()) };
        for row in COMMANDS {
            if let Err(refusal) = run(row.name, Value::Object(arguments.clone())) {
                assert!(!refusal.is_empty());
            }
        }
    }
}
