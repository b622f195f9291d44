//! Expected JSON, with places that may vary: what a transcript says a message looks like.
//!
//! Notation: JSON, in which some strings stand for more than themselves (`"*int*"`, `"*like TEXT WITH STARS*"`) and `...` as the
//! last entry of an object or array lets others be there too. See `tests/qmp/README.md`.

use std::fmt;

use serde_json::{Map, Value};

/// Stands in for `...` while the rest is read as JSON: a private character, so that no string of ours can mean it.
const MORE: &str = "\u{f8ff}...";

/// What a JSON value has to look like.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    /// Anything at all.
    Any,
    /// Any value of one JSON type.
    Kind(Kind),
    /// A string that this one matches, in which each `*` stands for any text, none included.
    Like(String),
    /// This string, number, boolean or null, and no other.
    Exact(Value),
    /// An object with these members, and with `open` possibly others.
    Object {
        /// Members by name.
        members: Vec<(String, Pattern)>,
        /// Whether others are allowed.
        open: bool,
    },
    /// Exactly these elements in this order; with `open` each of them somewhere, among others.
    Array {
        /// The elements.
        elements: Vec<Pattern>,
        /// Whether others are allowed.
        open: bool,
    },
}

/// A JSON type, with whole numbers told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number written without point and exponent.
    Integer,
    /// Any number.
    Number,
    /// A string.
    String,
    /// `true` or `false`.
    Boolean,
    /// An object.
    Object,
    /// An array.
    Array,
}

impl Kind {
    const ALL: [(&'static str, Kind); 6] = [
        ("*int*", Kind::Integer),
        ("*number*", Kind::Number),
        ("*string*", Kind::String),
        ("*bool*", Kind::Boolean),
        ("*object*", Kind::Object),
        ("*array*", Kind::Array),
    ];

    fn of(self, value: &Value) -> bool {
        match self {
            Kind::Integer => value.is_i64() || value.is_u64(),
            Kind::Number => value.is_number(),
            Kind::String => value.is_string(),
            Kind::Boolean => value.is_boolean(),
            Kind::Object => value.is_object(),
            Kind::Array => value.is_array(),
        }
    }

    fn name(self) -> &'static str {
        Kind::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// Text that is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON pattern: {0}")]
pub struct PatternError(String);

/// Where and how a value differs from its pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at {place}: expected {expected}, got {got}")]
pub struct Mismatch {
    place: String,
    expected: String,
    got: String,
}

impl Pattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let value = serde_json::from_str(&replace_dots(text)).map_err(|error| PatternError(error.to_string()))?;
        Self::from_value(value)
    }

    /// What a message is like that differs from `example` only as one run differs from another: other numbers, texts, and further
    /// members and elements. Names of listed things stay, as do the parts in `fixed`.
    pub fn shaped_like(example: &Value, fixed: &[&str]) -> Self {
        match example {
            Value::Null => Pattern::Any,
            Value::Bool(_) => Pattern::Kind(Kind::Boolean),
            Value::Number(number) if number.is_f64() => Pattern::Kind(Kind::Number),
            Value::Number(_) => Pattern::Kind(Kind::Integer),
            Value::String(_) => Pattern::Kind(Kind::String),
            Value::Array(elements) => {
                let listed = [fixed, &["name"]].concat();
                let elements = elements.iter().map(|element| Self::shaped_like(element, &listed)).collect();
                Pattern::Array { elements, open: true }
            }
            Value::Object(members) => {
                let member = |(name, value): (&String, &Value)| {
                    let pattern = if fixed.contains(&name.as_str()) {
                        Pattern::Exact(value.clone())
                    } else {
                        Self::shaped_like(value, fixed)
                    };
                    (name.clone(), pattern)
                };
                Pattern::Object { members: members.iter().map(member).collect(), open: true }
            }
        }
    }

    fn from_value(value: Value) -> Result<Self, PatternError> {
        Ok(match value {
            Value::String(text) => Self::from_string(text)?,
            Value::Object(members) => {
                let open = members.contains_key(MORE);
                let members = members
                    .into_iter()
                    .filter(|(name, _)| name != MORE)
                    .map(|(name, value)| Ok((name, Self::from_value(value)?)))
                    .collect::<Result<_, PatternError>>()?;
                Pattern::Object { members, open }
            }
            Value::Array(elements) => {
                let open = elements.iter().any(|element| element == MORE);
                let elements = elements
                    .into_iter()
                    .filter(|element| element != MORE)
                    .map(Self::from_value)
                    .collect::<Result<_, PatternError>>()?;
                Pattern::Array { elements, open }
            }
            other => Pattern::Exact(other),
        })
    }

    fn from_string(text: String) -> Result<Self, PatternError> {
        if text == "*any*" {
            return Ok(Pattern::Any);
        }
        if let Some((_, kind)) = Kind::ALL.iter().find(|(name, _)| *name == text) {
            return Ok(Pattern::Kind(*kind));
        }
        if let Some(pattern) = like(&text) {
            return Ok(Pattern::Like(pattern.to_owned()));
        }
        if text.len() > 2 && text.starts_with('*') && text.ends_with('*') {
            return Err(PatternError(format!("unknown placeholder \"{text}\"")));
        }
        Ok(Pattern::Exact(Value::String(text)))
    }

    /// The same pattern with `from` replaced by `to` in every string.
    pub fn substitute(&self, from: &str, to: &str) -> Self {
        match self {
            Pattern::Like(text) => Pattern::Like(text.replace(from, to)),
            Pattern::Exact(Value::String(text)) => Pattern::Exact(Value::String(text.replace(from, to))),
            Pattern::Object { members, open } => Pattern::Object {
                members: members.iter().map(|(name, value)| (name.clone(), value.substitute(from, to))).collect(),
                open: *open,
            },
            Pattern::Array { elements, open } => Pattern::Array {
                elements: elements.iter().map(|element| element.substitute(from, to)).collect(),
                open: *open,
            },
            Pattern::Any | Pattern::Kind(_) | Pattern::Exact(_) => self.clone(),
        }
    }

    /// Whether this is an object that must have the member `name`.
    pub fn has_member(&self, name: &str) -> bool {
        matches!(self, Pattern::Object { members, .. } if members.iter().any(|(member, _)| member == name))
    }

    /// The value of a member that the pattern fixes to one string.
    pub fn fixed_string(&self, name: &str) -> Option<&str> {
        let Pattern::Object { members, .. } = self else { return None };
        members.iter().find_map(|(member, pattern)| match pattern {
            Pattern::Exact(Value::String(text)) if member == name => Some(text.as_str()),
            _ => None,
        })
    }

    /// Whether `value` is as the pattern says; if not, the first difference.
    pub fn check(&self, value: &Value) -> Result<(), Mismatch> {
        self.check_at("the message", value)
    }

    fn check_at(&self, place: &str, value: &Value) -> Result<(), Mismatch> {
        let fits = match self {
            Pattern::Any => true,
            Pattern::Kind(kind) => kind.of(value),
            Pattern::Like(pattern) => value.as_str().is_some_and(|text| matches_stars(pattern, text)),
            Pattern::Exact(expected) => expected == value,
            Pattern::Object { members, open } => match value {
                Value::Object(value) => return check_object(place, members, *open, value),
                _ => false,
            },
            Pattern::Array { elements, open } => match value {
                Value::Array(value) => return self.check_array(place, elements, *open, value),
                _ => false,
            },
        };
        if fits { Ok(()) } else { Err(mismatch(place, self, value)) }
    }

    fn check_array(&self, place: &str, elements: &[Pattern], open: bool, value: &[Value]) -> Result<(), Mismatch> {
        if open {
            return match elements.iter().find(|element| value.iter().all(|item| element.check(item).is_err())) {
                Some(missing) => Err(Mismatch {
                    place: place.to_owned(),
                    expected: format!("an element like {missing}"),
                    got: shorten(&Value::Array(value.to_vec()).to_string()),
                }),
                None => Ok(()),
            };
        }
        if elements.len() != value.len() {
            return Err(mismatch(place, self, &Value::Array(value.to_vec())));
        }
        elements
            .iter()
            .zip(value)
            .enumerate()
            .try_for_each(|(index, (element, item))| element.check_at(&format!("{place}[{index}]"), item))
    }
}

fn check_object(
    place: &str,
    members: &[(String, Pattern)],
    open: bool,
    value: &Map<String, Value>,
) -> Result<(), Mismatch> {
    for (name, pattern) in members {
        let here = format!("{place}.{name}");
        match value.get(name) {
            Some(value) => pattern.check_at(&here, value)?,
            None => return Err(Mismatch { place: here, expected: pattern.to_string(), got: "nothing".to_owned() }),
        }
    }
    let surplus = value.iter().find(|(name, _)| !members.iter().any(|(member, _)| member == *name));
    match surplus {
        Some((name, value)) if !open => Err(Mismatch {
            place: format!("{place}.{name}"),
            expected: "nothing".to_owned(),
            got: shorten(&value.to_string()),
        }),
        _ => Ok(()),
    }
}

fn mismatch(place: &str, expected: &Pattern, got: &Value) -> Mismatch {
    Mismatch { place: place.to_owned(), expected: expected.to_string(), got: shorten(&got.to_string()) }
}

/// Long replies would hide the difference.
fn shorten(text: &str) -> String {
    const LIMIT: usize = 1000;
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{} ... ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

/// The text between the marks of `*like TEXT*`.
pub fn like(text: &str) -> Option<&str> {
    text.strip_prefix("*like ")?.strip_suffix('*')
}

/// Whether `text` is `pattern`, in which each `*` stands for any text.
pub fn matches_stars(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(found) => text = &text[found + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

/// Puts something that JSON knows in the place of each `...` outside strings.
fn replace_dots(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut open_brackets = Vec::new();
    let mut in_string = false;
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if !in_string && rest.starts_with("...") {
            let value =
                if open_brackets.last() == Some(&'{') { format!("\"{MORE}\": null") } else { format!("\"{MORE}\"") };
            result.push_str(&value);
            rest = &rest[3..];
            continue;
        }
        let mut length = character.len_utf8();
        match character {
            '"' => in_string = !in_string,
            // An escaped character never ends the string.
            '\\' if in_string => length += rest[length..].chars().next().map_or(0, char::len_utf8),
            '{' | '[' if !in_string => open_brackets.push(character),
            '}' | ']' if !in_string => {
                open_brackets.pop();
            }
            _ => {}
        }
        result.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    result
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Any => f.write_str("anything"),
            Pattern::Kind(kind) => f.write_str(kind.name()),
            Pattern::Like(pattern) => write!(f, "a string like {pattern:?}"),
            Pattern::Exact(value) => write!(f, "{value}"),
            Pattern::Object { members, open } => {
                let mut entries: Vec<String> =
                    members.iter().map(|(name, value)| format!("{}: {value}", Value::from(name.as_str()))).collect();
                entries.extend(open.then(|| "...".to_owned()));
                write!(f, "{{{}}}", entries.join(", "))
            }
            Pattern::Array { elements, open } => {
                let mut entries: Vec<String> = elements.iter().map(ToString::to_string).collect();
                entries.extend(open.then(|| "...".to_owned()));
                write!(f, "[{}]", entries.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn check(pattern: &str, value: &Value) -> Result<(), String> {
        Pattern::parse(pattern).unwrap().check(value).map_err(|mismatch| mismatch.to_string())
    }

    #[test]
    fn plain_json_matches_only_itself() {
        assert_eq!(check(r#"{ "return": { "running": true } }"#, &json!({"return": {"running": true}})), Ok(()));
        assert_eq!(
            check(r#"{ "return": { "running": true } }"#, &json!({"return": {"running": false}})).unwrap_err(),
            "at the message.return.running: expected true, got false"
        );
    }

    #[test]
    fn a_surplus_member_is_a_difference_unless_dots_allow_it() {
        let value = json!({"name": "pc", "cpu-max": 8});
        assert_eq!(
            check(r#"{ "name": "pc" }"#, &value).unwrap_err(),
            "at the message.cpu-max: expected nothing, got 8"
        );
        assert_eq!(check(r#"{ "name": "pc", ... }"#, &value), Ok(()));
    }

    #[test]
    fn a_missing_member_is_a_difference_even_with_dots() {
        assert!(check(r#"{ "id": "*any*", ... }"#, &json!({"return": {}})).is_err());
    }

    #[test]
    fn an_array_with_dots_finds_its_elements_in_any_order() {
        let value = json!([{"name": "quit"}, {"name": "stop"}, {"name": "cont"}]);
        assert_eq!(check(r#"[ { "name": "cont" }, { "name": "quit" }, ... ]"#, &value), Ok(()));
        assert!(check(r#"[ { "name": "balloon" }, ... ]"#, &value).is_err());
        assert!(check(r#"[ { "name": "quit" } ]"#, &value).is_err());
    }

    #[test]
    fn placeholders_tell_types_apart() {
        assert_eq!(check(r#"["*int*", "*number*", "*string*", "*bool*"]"#, &json!([-1, 1.5, "", false])), Ok(()));
        assert!(check(r#""*int*""#, &json!(1.0)).is_err());
        assert!(check(r#""*string*""#, &json!(null)).is_err());
        assert!(Pattern::parse(r#""*integer*""#).is_err());
    }

    #[test]
    fn dots_in_a_string_are_text() {
        assert_eq!(check(r#"{ "desc": "wait ... \" ..." }"#, &json!({"desc": "wait ... \" ..."})), Ok(()));
    }

    #[test]
    fn stars_stand_for_any_text() {
        assert!(matches_stars("RIP=*RFL=*", "RIP=fff0 RFL=00000002"));
        assert!(matches_stars("a*a", "aa"));
        assert!(!matches_stars("a*a", "a"));
        assert!(!matches_stars("*b*c", "cb"));
        assert_eq!(check(r#""*like Could not open '*': **""#, &json!("Could not open '/x': denied*")), Ok(()));
    }

    #[test]
    fn an_example_gives_the_shape_and_the_names_of_listed_things() {
        let example = json!({"return": [{"name": "quit", "count": 1}], "class": "GenericError"});
        let shape = Pattern::shaped_like(&example, &["class"]);
        let like =
            json!({"return": [{"name": "stop"}, {"name": "quit", "count": 7}], "class": "GenericError", "id": 1});
        assert_eq!(shape.check(&like), Ok(()));
        assert!(shape.check(&json!({"return": [{"name": "stop", "count": 7}], "class": "GenericError"})).is_err());
        assert!(shape.check(&json!({"return": [{"name": "quit", "count": 7}], "class": "DeviceNotFound"})).is_err());
        assert!(shape.check(&json!({"return": [{"name": "quit", "count": ""}], "class": "GenericError"})).is_err());
    }

    #[test]
    fn a_substitution_reaches_nested_strings() {
        let pattern = Pattern::parse(r#"{ "error": { "desc": "*like *'@DIR@/x'*", "class": "@DIR@" } }"#).unwrap();
        let value = json!({"error": {"desc": "no '/tmp/1/x'", "class": "/tmp/1"}});
        assert!(pattern.check(&value).is_err());
        assert_eq!(pattern.substitute("@DIR@", "/tmp/1").check(&value), Ok(()));
    }

    proptest! {
        #[test]
        fn reading_any_text_never_panics(text in "\\PC*") {
            let _ = Pattern::parse(&text);
        }

        #[test]
        fn a_text_is_like_itself_with_parts_starred_out(before in "[a-c*]{0,6}", middle in "[a-c]{0,6}", after in "[a-c]{0,6}") {
            let before = before.replace('*', "");
            let starred = format!("{before}*{after}");
            let text = format!("{before}{middle}{after}");
            prop_assert!(matches_stars(&starred, &text));
        }
    }
}
