//! What `-object` comes to: `TYPE,id=ID,PROPERTY=VALUE`, or the same as JSON. The monitor for people reads it too.

use rhea_machine::{objects::ObjectConfig, types};

use super::{
    keyval::OptionError,
    typed::{Form, Made, type_help},
};

/// How an object is asked for.
const OBJECT: Form = Form {
    kind: "qom-type",
    find: |kind| types().get(kind).ok_or_else(|| format!("there is no type '{kind}'")),
    besides: &[],
};

/// Reads the text of option `name`.
///
/// # Errors
/// A type or id that is missing, an unknown property, or a value that is none of its kind.
pub fn object(name: &str, text: &str) -> Result<ObjectConfig, OptionError> {
    let failed = |reason: String| OptionError::about(name, reason);
    let Made { kind, id, properties } = OBJECT.read(text).map_err(failed)?;
    let id = id.ok_or_else(|| failed("parameter 'id' is missing".to_owned()))?;
    Ok(ObjectConfig { kind, id, properties })
}

/// What `help` asks for instead of an object: the types, or `TYPE,help` its properties.
pub fn help(text: &str) -> Option<String> {
    if !matches!(text, "help" | "?") {
        return type_help(text, &OBJECT, "object");
    }
    let made = types().all().filter(|info| !info.is_abstract && types().implements(info, "user-creatable"));
    let lines: String = made.map(|info| format!("  {}\n", info.name)).collect();
    Some(format!("List of user creatable objects:\n{lines}"))
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
        // Those that it has from the type that it builds on as well.
        let file = help("memory-backend-file,help").unwrap();
        assert!(file.contains("  mem-path=<str>") && file.contains("  size=<size>"), "{file}");
        assert!(!file.contains("  type=<"), "{file}");
        assert_eq!(help("iothread,id=a"), None);
    }
}
