//! `throttle-group`: limits that several disks share.

use rhea_core::object::{Access, Object, PropertyError, PropertyInfo, TypeInfo, Value};
use serde_json::Map;

use super::CreateError;
use crate::block::{LIMIT_NAMES, LimitError, Limits, ThrottleGroup};

/// What the flat properties have before the names of the limits.
const PREFIX: &str = "x-";

const fn flat(name: &'static str, description: &'static str) -> PropertyInfo {
    PropertyInfo { kind: "int", access: Access::Live, ..PropertyInfo::of::<i64>(name, description) }
}

const PROPERTIES: &[PropertyInfo] = &[
    PropertyInfo {
        name: "limits",
        kind: "ThrottleLimits",
        description: "the limits by their names; those that are not given stay",
        default: None,
        access: Access::Live,
        from_text: one_limit,
    },
    flat("x-bps-total", "bytes a second"),
    flat("x-bps-total-max", "bytes a second in a burst"),
    flat("x-bps-total-max-length", "seconds that such a burst lasts"),
    flat("x-bps-read", "bytes read a second"),
    flat("x-bps-read-max", "bytes read a second in a burst"),
    flat("x-bps-read-max-length", "seconds that such a burst lasts"),
    flat("x-bps-write", "bytes written a second"),
    flat("x-bps-write-max", "bytes written a second in a burst"),
    flat("x-bps-write-max-length", "seconds that such a burst lasts"),
    flat("x-iops-total", "operations a second"),
    flat("x-iops-total-max", "operations a second in a burst"),
    flat("x-iops-total-max-length", "seconds that such a burst lasts"),
    flat("x-iops-read", "reads a second"),
    flat("x-iops-read-max", "reads a second in a burst"),
    flat("x-iops-read-max-length", "seconds that such a burst lasts"),
    flat("x-iops-write", "writes a second"),
    flat("x-iops-write-max", "writes a second in a burst"),
    flat("x-iops-write-max-length", "seconds that such a burst lasts"),
    flat("x-iops-size", "bytes that count as one operation; 0 for any number"),
];

/// The type.
pub const INFO: &TypeInfo = &TypeInfo {
    name: "throttle-group",
    description: "limits that several disks share",
    parent: Some("object"),
    is_abstract: false,
    interfaces: &["user-creatable"],
    properties: PROPERTIES,
};

/// `NAME=VALUE` of a command line.
fn one_limit(text: &str) -> Option<Value> {
    let (name, value) = text.split_once('=')?;
    Some(Value::Object(Map::from_iter([(name.to_owned(), Value::from(value.parse::<i64>().ok()?))])))
}

fn refused(error: &LimitError) -> PropertyError {
    PropertyError::Refused(error.to_string())
}

fn number(name: impl FnOnce() -> String, value: &Value) -> Result<i64, PropertyError> {
    if !value.is_number() || value.is_f64() {
        return Err(PropertyError::Type { name: name(), expected: "integer" });
    }
    value.as_i64().ok_or_else(|| refused(&LimitError::Range))
}

/// Changes those limits that are given.
fn merge(limits: &mut Limits, value: &Value) -> Result<(), PropertyError> {
    let Value::Object(given) = value else {
        return Err(PropertyError::Type { name: "limits".to_owned(), expected: "object" });
    };
    for (name, value) in given {
        if !LIMIT_NAMES.contains(&name.as_str()) {
            return Err(refused(&LimitError::Unknown(format!("limits.{name}"))));
        }
        let value = number(|| format!("limits.{name}"), value)?;
        limits.set(name, value).map_err(|error| refused(&error))?;
    }
    Ok(())
}

/// Makes a group.
///
/// # Errors
/// Unknown properties, or limits that cannot be.
pub(super) fn create(id: &str, properties: &[(String, Value)]) -> Result<ThrottleGroup, CreateError> {
    let mut limits = Limits::default();
    for (name, value) in properties {
        match name.strip_prefix(PREFIX).filter(|name| LIMIT_NAMES.contains(name)) {
            Some(limit) => {
                let value = number(|| name.clone(), value)?;
                limits.set(limit, value).map_err(|error| refused(&error))?;
            }
            None if name == "limits" => merge(&mut limits, value)?,
            None => return Err(INFO.no_property(name).into()),
        }
    }
    Ok(ThrottleGroup::new(id, limits).map_err(|error| refused(&error))?)
}

impl Object for ThrottleGroup {
    fn info(&self) -> &'static TypeInfo {
        INFO
    }

    fn get(&self, name: &str) -> Option<Value> {
        let limits = self.limits();
        if name == "limits" {
            let all = LIMIT_NAMES.iter().filter_map(|name| Some(((*name).to_owned(), limits.get(name)?.into())));
            return Some(Value::Object(all.collect()));
        }
        limits.get(name.strip_prefix(PREFIX)?).map(Value::from)
    }

    fn set(&self, name: &str, value: &Value) -> Result<(), PropertyError> {
        if name != "limits" {
            return Err(PropertyError::Refused("Property cannot be set after initialization".to_owned()));
        }
        let mut limits = self.limits();
        merge(&mut limits, value)?;
        self.set_limits(limits).map_err(|error| refused(&error))
    }

    fn in_use(&self) -> bool {
        self.has_members()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::block::GroupMember;

    #[test]
    fn limits_are_merged_and_what_cannot_be_changes_nothing() {
        let given = [("x-iops-total".to_owned(), json!(5)), ("limits".to_owned(), json!({ "bps-read": 7 }))];
        let group = Arc::new(create("g", &given).unwrap());
        group.set("limits", &json!({ "iops-total": 6, "iops-total-max": 60 })).unwrap();
        for (value, said) in [
            (json!({ "iops-read": 6 }), "cannot be used at the same time"),
            (json!({ "wings": 6 }), "Parameter 'limits.wings' is unexpected"),
            (json!({ "bps-read": "6" }), "'limits.bps-read', expected: integer"),
            (json!(6), "'limits', expected: object"),
        ] {
            assert!(group.set("limits", &value).unwrap_err().to_string().contains(said));
        }
        assert!(group.set("x-iops-total", &json!(9)).unwrap_err().to_string().contains("after initialization"));
        assert_eq!(group.get("x-iops-total"), Some(json!(6)));
        let all = group.get("limits").unwrap();
        assert_eq!(
            (&all["bps-read"], &all["iops-total-max"], &all["bps-write-max-length"]),
            (&json!(7), &json!(60), &json!(1))
        );
        assert!(PROPERTIES.iter().all(|property| group.get(property.name).is_some()));
        let member = GroupMember::new(Arc::clone(&group));
        assert!(group.in_use());
        drop(member);
        assert!(!group.in_use());
    }
}
