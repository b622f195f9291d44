//! What `-object` comes to: `TYPE,id=ID,PROPERTY=VALUE`, or the same as JSON. The monitor for people reads it too.

use rhea_machine::objects::{ObjectConfig, types};
use serde_json::{Map, Value};

use super::keyval::{OptionError, split};

/// Reads the text of option `name`.
///
/// # Errors
/// A type or id that is missing, an unknown property, or a value that is none of its kind.
pub fn object(name: &str, text: &str) -> Result<ObjectConfig, OptionError> {
    if text.trim_start().starts_with('{') {
        return from_json(text).map_err(|reason| OptionError::about(name, reason));
    }
    from_words(text).map_err(|reason| OptionError::about(name, reason))
}

fn from_json(text: &str) -> Result<ObjectConfig, String> {
    let mut members: Map<String, Value> = serde_json::from_str(text).map_err(|error| format!("JSON: {error}"))?;
    let mut word = |key: &str| match members.shift_remove(key) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("parameter '{key}' expects a string")),
        None => Err(format!("parameter '{key}' is missing")),
    };
    let (kind, id) = (word("qom-type")?, word("id")?);
    Ok(ObjectConfig { kind, id, properties: members.into_iter().collect() })
}

fn from_words(text: &str) -> Result<ObjectConfig, String> {
    let (mut kind, mut id, mut words) = (None, None, Vec::new());
    for (index, word) in split(text).into_iter().enumerate() {
        match word.split_once('=') {
            Some(("qom-type", value)) => kind = Some(value.to_owned()),
            Some(("id", value)) => id = Some(value.to_owned()),
            Some((key, value)) => words.push((key.to_owned(), value.to_owned())),
            None if index == 0 => kind = Some(word),
            None => words.push((word, "on".to_owned())),
        }
    }
    let kind = kind.ok_or("parameter 'qom-type' is missing")?;
    let id = id.ok_or("parameter 'id' is missing")?;
    let info = types().get(&kind).ok_or_else(|| format!("there is no type '{kind}'"))?;
    let mut properties = Vec::new();
    for (key, word) in words {
        // `limits.bps-total=5` sets a member of a property.
        let (key, word) = match key.split_once('.') {
            Some((outer, member)) => (outer.to_owned(), format!("{member}={word}")),
            None => (key, word),
        };
        let property = types().property(info, &key).ok_or_else(|| info.no_property(&key).to_string())?;
        let value = (property.from_text)(&word)
            .ok_or_else(|| format!("parameter '{key}' expects a value of type {}, not '{word}'", property.kind))?;
        // Members that come one by one belong to one value.
        let known = properties.iter_mut().find(|(known, _): &&mut (String, Value)| *known == key);
        match (known, value) {
            (Some((_, Value::Object(members))), Value::Object(more)) => members.extend(more),
            (_, value) => properties.push((key, value)),
        }
    }
    Ok(ObjectConfig { kind, id, properties })
}

/// What `help` asks for instead of an object: the types, or `TYPE,help` its properties.
pub fn help(text: &str) -> Option<String> {
    let line = |name: &str, rest: String| format!("  {name}{rest}\n");
    if matches!(text, "help" | "?") {
        let made = types().all().filter(|info| !info.is_abstract && types().implements(info, "user-creatable"));
        let lines: String = made.map(|info| line(info.name, String::new())).collect();
        return Some(format!("List of user creatable objects:\n{lines}"));
    }
    let info = types().get(text.strip_suffix(",help")?)?;
    let lines = info.properties.iter().map(|property| {
        let default = property.default.map(|default| format!(" (default: {})", default())).unwrap_or_default();
        line(property.name, format!("=<{}> - {}{default}", property.kind, property.description))
    });
    Some(format!("{} options:\n{}", info.name, lines.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let words = object("object", "memory-backend-ram,id=m0,size=64M,prealloc=on").unwrap();
        let text = r#"{"qom-type":"memory-backend-ram","id":"m0","size":67108864,"prealloc":true}"#;
        assert_eq!(words, object("object", text).unwrap());
        let several =
            object("object", "throttle-group,id=g,limits.bps-total=5,x-iops-read=7,limits.bps-total-max=9").unwrap();
        let limits = json!({ "bps-total": 5, "bps-total-max": 9 });
        assert_eq!(several.properties, [("limits".to_owned(), limits), ("x-iops-read".to_owned(), json!(7))]);
        assert!(object("object", "throttle-group,id=g,limits.bps-total=x").is_err());
        assert!(object("object", "throttle-group,id=g,wings.bps-total=5").is_err());
        assert_eq!(words.properties[0], ("size".to_owned(), json!(67_108_864)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (bad, part) in [
            ("memory-backend-ram", "'id' is missing"),
            ("id=m0", "'qom-type' is missing"),
            ("warp-drive,id=m0", "no type 'warp-drive'"),
            ("memory-backend-ram,id=m0,size=much", "'size' expects a value of type size"),
            ("memory-backend-ram,id=m0,wings=2", "Property 'memory-backend-ram.wings' not found"),
            ("{", "JSON"),
            (r#"{"qom-type": 1, "id": "a"}"#, "expects a string"),
        ] {
            let error = object("object", bad).unwrap_err();
            assert!(error.0.starts_with("-object: ") && error.0.contains(part), "{bad}: {error}");
        }
    }

    #[test]
    fn help_lists_types_and_properties() {
        assert!(help("help").unwrap().contains("  iothread\n"));
        assert!(help("iothread,help").unwrap().contains("poll-max-ns=<int64>"));
        assert_eq!(help("iothread,id=a"), None);
    }
}
