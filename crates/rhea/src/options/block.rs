//! What `-drive` and `-blockdev` come to: block nodes to make, by the options of `blockdev-add`.

use rhea_backends::block::{DriveConfig, DriveLimits, LIMIT_NAMES};
use serde_json::{Map, Value, json as value};

use super::{
    keyval::{KeyValues, OptionError},
    typed::{check_id, is_json, json, named},
};

/// Nodes and drives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockSettings {
    /// Nodes, in order.
    pub nodes: Vec<Map<String, Value>>,
    /// Drives, in order.
    pub drives: Vec<DriveConfig>,
}

impl BlockSettings {
    /// `-drive`; gives the drive's id, and whether it is to have a device of its own.
    pub fn drive(&mut self, parameters: &KeyValues) -> Result<(String, bool), OptionError> {
        if parameters.get("media").is_some_and(|value| value != "disk") {
            return Err(parameters.error("'media' can only be 'disk'"));
        }
        if parameters.flag("snapshot") {
            return Err(parameters.error("'snapshot=on' is not supported yet"));
        }
        let interface = parameters.or_default("if").unwrap_or_default();
        if !["virtio", "none"].contains(&interface) {
            return Err(
                parameters.error(format!("there is no interface '{interface}' for disks; give if=virtio or if=none"))
            );
        }
        let id = match parameters.get("id") {
            Some(id) => {
                check_id(id).map_err(|reason| parameters.error(reason))?;
                id.to_owned()
            }
            None => format!("{interface}{}", self.drives.len()),
        };
        if self.drives.iter().any(|other| other.id == id) {
            return Err(parameters.error(format!("Duplicate ID '{id}' for drive")));
        }
        let mut file = value!({ "driver": "file", "filename": parameters.require("file")? });
        let mut node = Map::new();
        let mut cache = Map::new();
        match parameters.or_default("cache") {
            // Each device that does not hear of flushes flushes itself; more is not needed for 'writethrough'.
            None | Some("writeback" | "writethrough") => {}
            Some("none" | "directsync") => drop(cache.insert("direct".to_owned(), true.into())),
            Some("unsafe") => drop(cache.insert("no-flush".to_owned(), true.into())),
            Some(other) => return Err(parameters.error(format!("there is no cache mode '{other}'"))),
        }
        node.insert("cache".to_owned(), cache.into());
        if let Some(driver) = parameters.get("format") {
            node.insert("driver".to_owned(), driver.into());
        }
        let read_only = parameters.flag("readonly") || parameters.flag("read-only");
        node.insert("read-only".to_owned(), read_only.into());
        for name in ["discard", "detect-zeroes"] {
            if let Some(value) = parameters.get(name) {
                node.insert(name.to_owned(), value.into());
            }
        }
        for (name, below) in [("aio", "aio"), ("file.locking", "locking")] {
            if let (Some(value), Some(file)) = (parameters.get(name), file.as_object_mut()) {
                file.insert(below.to_owned(), value.into());
            }
        }
        node.insert("file".to_owned(), file);
        let serial = parameters.get("serial").map(str::to_owned);
        let limits = limits(parameters)?;
        self.drives.push(DriveConfig { id: id.clone(), node, serial, limits });
        Ok((id, interface == "virtio"))
    }

    /// `-blockdev`: JSON, or words with dotted names.
    pub fn node(&mut self, text: &str) -> Result<(), OptionError> {
        let error = |reason: String| OptionError::about("blockdev", reason);
        let node = if is_json(text) { json(text) } else { nested(text) }.map_err(error)?;
        self.nodes.push(node);
        Ok(())
    }
}

/// Old short names of limits.
const SHORT_NAMES: [(&str, &str); 13] = [
    ("bps", "bps-total"),
    ("bps_rd", "bps-read"),
    ("bps_wr", "bps-write"),
    ("bps_max", "bps-total-max"),
    ("bps_rd_max", "bps-read-max"),
    ("bps_wr_max", "bps-write-max"),
    ("iops", "iops-total"),
    ("iops_rd", "iops-read"),
    ("iops_wr", "iops-write"),
    ("iops_max", "iops-total-max"),
    ("iops_rd_max", "iops-read-max"),
    ("iops_wr_max", "iops-write-max"),
    ("iops_size", "iops-size"),
];

/// How fast a drive may be, if anything is said of that.
fn limits(parameters: &KeyValues) -> Result<Option<DriveLimits>, OptionError> {
    let mut limits = DriveLimits::default();
    for name in LIMIT_NAMES {
        let long = format!("throttling.{name}");
        let short = SHORT_NAMES.iter().find(|(_, known)| *known == name).map_or("", |(short, _)| short);
        let value = match (parameters.number(&long), parameters.number(short)) {
            (Some(_), Some(_)) => {
                return Err(
                    parameters.error(format!("'{long}' and its alias '{short}' can't be used at the same time"))
                );
            }
            (Some(value), None) | (None, Some(value)) => value,
            (None, None) => continue,
        };
        limits.values.push((name.to_owned(), i64::try_from(value).unwrap_or(i64::MAX)));
    }
    limits.group = parameters.get("throttling.group").or_else(|| parameters.get("group")).map(str::to_owned);
    Ok(Some(limits).filter(|limits| limits.group.is_some() || !limits.values.is_empty()))
}

/// `a.b=c` as `{ "a": { "b": "c" } }`; the first word may be a driver only.
fn nested(text: &str) -> Result<Map<String, Value>, String> {
    let mut all = Map::new();
    for (key, value) in named(text, Some("driver")) {
        let value = value.unwrap_or_else(|| "on".to_owned());
        let mut place = &mut all;
        let mut parts: Vec<&str> = key.split('.').collect();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            let inner = place.entry(part).or_insert_with(|| Map::new().into());
            place =
                inner.as_object_mut().ok_or_else(|| format!("Parameter '{key}' is used as a name and as a value"))?;
        }
        if place.get(last).is_some_and(Value::is_object) {
            return Err(format!("Parameter '{key}' is used as a name and as a value"));
        }
        place.insert(last.to_owned(), value.into());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::options::table::option;

    fn drive(settings: &mut BlockSettings, text: &str) -> Result<(String, bool), OptionError> {
        settings.drive(&KeyValues::parse(option("drive").unwrap(), text)?)
    }

    #[test]
    fn limits_have_long_and_short_names() {
        let mut settings = BlockSettings::default();
        drive(&mut settings, "if=none,file=/a,bps=5,throttling.iops-write-max-length=3,group=g").unwrap();
        let values = vec![("bps-total".to_owned(), 5), ("iops-write-max-length".to_owned(), 3)];
        assert_eq!(settings.drives[0].limits, Some(DriveLimits { group: Some("g".to_owned()), values }));
    }

    #[test]
    fn a_drive_makes_its_device_or_leaves_it() {
        let mut settings = BlockSettings::default();
        assert_eq!(drive(&mut settings, "file=/a,format=raw,if=virtio").unwrap(), ("virtio0".to_owned(), true));
        let text = "file=/b,,c,if=none,id=d,discard=unmap,cache=none,file.locking=off,readonly=on";
        assert_eq!(drive(&mut settings, text).unwrap(), ("d".to_owned(), false));
        let node = value!({
            "cache": { "direct": true }, "read-only": true, "discard": "unmap",
            "file": { "driver": "file", "filename": "/b,c", "locking": "off" }
        });
        assert_eq!(Value::from(settings.drives[1].node.clone()), node);
    }

    #[test]
    fn a_node_is_json_or_words() {
        let mut settings = BlockSettings::default();
        settings.node("raw,node-name=r,file.driver=file,file.filename=/b,read-only").unwrap();
        settings
            .node(r#"{"driver":"raw","node-name":"r","file":{"driver":"file","filename":"/b"},"read-only":"on"}"#)
            .unwrap();
        assert_eq!(settings.nodes[0], settings.nodes[1]);
        for text in ["raw,file=a,file.driver=b", "raw,file.driver=b,file=a", "{", "{}x", "{\"a\":1}}"] {
            assert!(settings.node(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_is_said() {
        for (text, said) in [
            ("file=/a", "no interface 'ide'"),
            ("if=none", "'file' is missing"),
            ("if=none,file=/a,id=1", "not well-formed"),
            ("if=none,file=/a,media=cdrom", "can only be 'disk'"),
            ("if=none,file=/a,snapshot=on", "not supported"),
            ("if=none,file=/a,cache=hot", "no cache mode 'hot'"),
        ] {
            let error = drive(&mut BlockSettings::default(), text).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let mut settings = BlockSettings::default();
        let twice = drive(&mut BlockSettings::default(), "if=none,file=/a,iops=5,throttling.iops-total=5").unwrap_err();
        assert!(twice.to_string().contains("'throttling.iops-total' and its alias 'iops'"));
        drive(&mut settings, "if=none,id=d,file=/a").unwrap();
        assert!(drive(&mut settings, "if=none,id=d,file=/b").unwrap_err().to_string().contains("Duplicate"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-c.=,{}\"]{0,40}") {
            let _ = nested(&text);
        }
    }
}
