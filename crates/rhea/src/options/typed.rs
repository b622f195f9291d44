//! Text as typed values: what follows an option whose names come from a type of objects.

use rhea_core::object::{TypeInfo, is_well_formed_id};
use rhea_machine::types;
use serde_json::{Map, Value};

/// Words between commas; two commas are one that belongs to a word.
pub fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character != ',' {
            word.push(character);
        } else if characters.peek() == Some(&',') {
            characters.next();
            word.push(',');
        } else {
            words.push(std::mem::take(&mut word));
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// The words of `text` as names and values. A first word that stands alone is the value of `first`, if there is such a
/// name; any other that does has no value.
pub fn named(text: &str, first: Option<&str>) -> Vec<(String, Option<String>)> {
    let words = split(text).into_iter().enumerate();
    let named = words.map(|(index, word)| match (word.split_once('='), first) {
        (Some((name, value)), _) => (name.to_owned(), Some(value.to_owned())),
        (None, Some(first)) if index == 0 => (first.to_owned(), Some(word)),
        (None, _) => (word, None),
    });
    named.collect()
}

/// Whether the text is JSON rather than words.
pub fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// An object of JSON.
pub fn json(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("JSON parse error, {error}"))
}

/// What is wrong with an id.
pub fn check_id(id: &str) -> Result<(), String> {
    if is_well_formed_id(id) {
        return Ok(());
    }
    Err(format!("id '{id}' is not well-formed: a letter, then letters, digits, '-', '.' and '_'"))
}

/// How an option names what it makes.
pub struct Form {
    /// What its type is called.
    pub kind: &'static str,
    /// The type of this name, or why there is none.
    pub find: fn(&str) -> Result<&'static TypeInfo, String>,
    /// Names that are no properties.
    pub besides: &'static [&'static str],
}

/// What an option makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// Its type.
    pub kind: String,
    /// Its id.
    pub id: Option<String>,
    /// Its properties, in order.
    pub properties: Vec<(String, Value)>,
}

impl Form {
    /// Reads `TYPE,id=ID,PROPERTY=VALUE`, or the same as JSON.
    ///
    /// # Errors
    /// An unknown type or property, an id that is none, or a value that is none of its kind.
    pub fn read(&self, text: &str) -> Result<Made, String> {
        let (made, info) = if is_json(text) { self.read_json(text)? } else { self.read_words(text)? };
        made.id.as_deref().map_or(Ok(()), check_id)?;
        let known = |name: &str| self.besides.contains(&name) || types().property(info, name).is_some();
        match made.properties.iter().find(|(name, _)| !known(name)) {
            Some((name, _)) => Err(info.no_property(name).to_string()),
            None => Ok(made),
        }
    }

    fn missing(&self) -> String {
        format!("parameter '{}' is missing", self.kind)
    }

    fn read_json(&self, text: &str) -> Result<(Made, &'static TypeInfo), String> {
        let mut members = json(text)?;
        let mut word = |key: &str| match members.shift_remove(key) {
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("parameter '{key}' expects a string")),
            None => Ok(None),
        };
        let (kind, id) = (word(self.kind)?.ok_or_else(|| self.missing())?, word("id")?);
        let info = (self.find)(&kind)?;
        Ok((Made { kind, id, properties: members.into_iter().collect() }, info))
    }

    fn read_words(&self, text: &str) -> Result<(Made, &'static TypeInfo), String> {
        let (mut kind, mut id, mut words) = (None, None, Vec::new());
        for (name, value) in named(text, Some(self.kind)) {
            let value = value.unwrap_or_else(|| "on".to_owned());
            match name.as_str() {
                name if name == self.kind => kind = Some(value),
                "id" => id = Some(value),
                _ => words.push((name, value)),
            }
        }
        let kind = kind.ok_or_else(|| self.missing())?;
        let info = (self.find)(&kind)?;
        let mut properties: Vec<(String, Value)> = Vec::new();
        for (name, word) in words {
            let (name, value) = typed(info, name, word)?;
            // Members that come one by one belong to one value.
            let known = properties.iter_mut().find(|(known, _)| *known == name);
            match (known, value) {
                (Some((_, Value::Object(members))), Value::Object(more)) => members.extend(more),
                (_, value) => properties.push((name, value)),
            }
        }
        Ok((Made { kind, id, properties }, info))
    }
}

/// The value that a word is for a property. What the type does not have stays a word: it is named later.
fn typed(info: &'static TypeInfo, name: String, word: String) -> Result<(String, Value), String> {
    let (property, name, word) = match (types().property(info, &name), name.split_once('.')) {
        // `limits.bps-total=5` sets a member of a property.
        (None, Some((outer, member))) => (types().property(info, outer), outer.to_owned(), format!("{member}={word}")),
        (property, _) => (property, name, word),
    };
    let Some(property) = property else { return Ok((name, Value::String(word))) };
    let value = (property.from_text)(&word)
        .ok_or_else(|| format!("parameter '{name}' expects a value of type {}, not '{word}'", property.kind))?;
    Ok((name, value))
}

/// What `TYPE,help` asks for instead of making something: the properties that can be set, without those of the type `base`
/// and of what that builds on.
pub fn type_help(text: &str, form: &Form, base: &str) -> Option<String> {
    let (kind, rest) = text.split_once(',')?;
    if !matches!(rest, "help" | "?") {
        return None;
    }
    let info =
        (form.find)(kind.strip_prefix(form.kind).and_then(|kind| kind.strip_prefix('=')).unwrap_or(kind)).ok()?;
    let lines = types().settable(info, base).into_iter().map(|property| {
        let default = property.default.map(|default| format!(" (default: {})", default())).unwrap_or_default();
        format!("  {}=<{}> - {}{default}\n", property.name, property.kind, property.description)
    });
    Some(format!("{} options:\n{}", info.name, lines.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_names_values_and_doubled_commas() {
        let word = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
        let expected = [word("kind", Some("a")), word("b", Some("c,d")), word("e", None), word("f", Some(""))];
        assert_eq!(named("a,b=c,,d,e,f=", Some("kind")), expected);
        assert_eq!(named("a,b", None), [word("a", None), word("b", None)]);
        assert_eq!(named(",,,", None), [word(",", None)]);
    }
}
