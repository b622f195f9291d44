//! What `-device` comes to, and the devices of `-drive`.

use rhea_core::object::{TypeInfo, is_well_formed_id};
use rhea_machine::{
    DeviceConfig,
    devices::{device_type, device_types},
    objects::types,
};
use serde_json::{Map, Value};

use super::{
    block::BlockSettings,
    keyval::{KeyValues, OptionError, split},
};

/// Disks and devices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceSettings {
    /// What disks are made of.
    pub blocks: BlockSettings,
    /// Devices, in order.
    pub lines: Vec<DeviceConfig>,
}

impl DeviceSettings {
    /// `-drive`.
    pub fn drive(&mut self, parameters: &KeyValues) -> Result<(), OptionError> {
        let (id, own_device) = self.blocks.drive(parameters)?;
        if own_device {
            let properties = vec![("drive".to_owned(), Value::String(id))];
            self.lines.push(DeviceConfig { driver: "virtio-blk-pci".to_owned(), id: None, properties });
        }
        Ok(())
    }

    /// `-device`.
    pub fn device(&mut self, text: &str) -> Result<(), OptionError> {
        let device = device("device", text)?;
        if device.id.is_some() && self.lines.iter().any(|line| line.id == device.id) {
            let id = device.id.unwrap_or_default();
            return Err(OptionError::about("device", format!("Duplicate device ID '{id}'")));
        }
        self.lines.push(device);
        Ok(())
    }
}

/// Reads the text of option `name`: `DRIVER,PROPERTY=VALUE`, or the same as JSON. The monitor for people reads it too.
///
/// # Errors
/// An unknown driver or property, or a value that is none of its kind.
pub fn device(name: &str, text: &str) -> Result<DeviceConfig, OptionError> {
    let read = if text.trim_start().starts_with('{') { from_json(text) } else { from_words(text) };
    let failed = |reason| OptionError::about(name, reason);
    let config = read.map_err(failed)?;
    let info = type_of(&config.driver).map_err(failed)?;
    if let Some(id) = config.id.as_ref().filter(|id| !is_well_formed_id(id)) {
        let reason = format!("id '{id}' is not well-formed: a letter, then letters, digits, '-', '.' and '_'");
        return Err(failed(reason));
    }
    let known = |name: &str| name == "bus" || types().property(info, name).is_some();
    match config.properties.iter().find(|(name, _)| !known(name)) {
        Some((name, _)) => Err(failed(info.no_property(name).to_string())),
        None => Ok(config),
    }
}

fn type_of(driver: &str) -> Result<&'static TypeInfo, String> {
    device_type(driver).ok_or_else(|| format!("'{driver}' is not a valid device model name; '-device help' lists them"))
}

fn from_json(text: &str) -> Result<DeviceConfig, String> {
    let mut members: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| format!("JSON parse error, {error}"))?;
    let mut word = |key: &str| match members.shift_remove(key) {
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("parameter '{key}' expects a string")),
        None => Ok(None),
    };
    let (driver, id) = (word("driver")?.ok_or("parameter 'driver' is missing")?, word("id")?);
    Ok(DeviceConfig { driver, id, properties: members.into_iter().collect() })
}

fn from_words(text: &str) -> Result<DeviceConfig, String> {
    let (mut driver, mut id, mut words) = (None, None, Vec::new());
    for (index, word) in split(text).into_iter().enumerate() {
        match word.split_once('=') {
            Some(("driver", value)) => driver = Some(value.to_owned()),
            Some(("id", value)) => id = Some(value.to_owned()),
            Some((key, value)) => words.push((key.to_owned(), value.to_owned())),
            None if index == 0 => driver = Some(word),
            None => words.push((word, "on".to_owned())),
        }
    }
    let driver = driver.ok_or("parameter 'driver' is missing")?;
    let info = type_of(&driver)?;
    let mut properties = Vec::new();
    for (key, word) in words {
        // What is not known is named later.
        let value = match types().property(info, &key) {
            None => Value::String(word),
            Some(property) => (property.from_text)(&word)
                .ok_or_else(|| format!("parameter '{key}' expects a value of type {}, not '{word}'", property.kind))?,
        };
        properties.push((key, value));
    }
    Ok(DeviceConfig { driver, id, properties })
}

/// What `help` asks for instead of a device: the drivers, or `DRIVER,help` its properties.
pub fn device_help(text: &str) -> Option<String> {
    if matches!(text, "help" | "?") {
        let lines = device_types().map(|(info, aliases)| {
            let also = if aliases.is_empty() { String::new() } else { format!(" (also {})", aliases.join(", ")) };
            format!("{:36} {}{also}\n", info.name, info.description)
        });
        return Some(lines.collect());
    }
    let (driver, _) = text.split_once(",help").or_else(|| text.split_once(",?"))?;
    let info = device_type(driver.trim_start_matches("driver="))?;
    let lines = types().settable(info, "device").into_iter().map(|property| {
        let default = property.default.map(|default| format!(" (default: {})", default())).unwrap_or_default();
        format!("  {}=<{}> - {}{default}\n", property.name, property.kind, property.description)
    });
    Some(format!("{} options:\n{}", info.name, lines.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::options::parse;

    fn settings(text: &str) -> Result<DeviceSettings, OptionError> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        parse(&words).map(|settings| settings.devices)
    }

    #[test]
    fn a_drive_makes_its_device_or_leaves_it() {
        let settings = settings("-drive file=/a,format=raw,if=virtio -drive file=/b,if=none,id=d,discard=unmap -device virtio-blk-pci,drive=d,id=x,addr=0x5.1").unwrap();
        assert_eq!(settings.blocks.drives.len(), 2);
        assert_eq!(settings.lines[0].properties, [("drive".to_owned(), json!("virtio0"))]);
        let expected = [("drive".to_owned(), json!("d")), ("addr".to_owned(), json!(41))];
        assert_eq!((settings.lines[1].id.as_deref(), &settings.lines[1].properties[..]), (Some("x"), &expected[..]));
    }

    #[test]
    fn both_forms_say_the_same() {
        let words = device("device", "virtio-blk-pci,id=d0,drive=a,addr=0x5,vectors=0,discard=off").unwrap();
        let text = r#"{"driver":"virtio-blk-pci","id":"d0","drive":"a","addr":40,"vectors":0,"discard":false}"#;
        assert_eq!(words, device("device", text).unwrap());
        assert!(device("device", r#"{"driver":1}"#).is_err());
        assert!(device("device", "{").is_err());
    }

    #[test]
    fn help_lists_drivers_and_their_properties() {
        let all = device_help("help").unwrap();
        assert!(all.contains("virtio-blk-pci-transitional") && all.contains("(also virtio-blk)"), "{all}");
        let one = device_help("virtio-blk,help").unwrap();
        assert!(one.contains("serial=<str> - What the disk says") && one.contains("addr=<str>"), "{one}");
        assert_eq!(device_help("virtio-blk,id=help"), None);
    }

    #[test]
    fn what_cannot_be_is_one_line_that_says_so() {
        for (text, said) in [
            ("-device levitator", "'levitator' is not a valid device model name"),
            ("-device virtio-rng-pci,id=1x", "not well-formed"),
            ("-device virtio-rng-pci,id=x -device virtio-rng-pci,id=x", "Duplicate device ID 'x'"),
            ("-device virtio-rng-pci,addr=20", "'addr' expects a value of type str, not '20'"),
            ("-device virtio-rng-pci,colour=red", "Property 'virtio-rng-pci.colour' not found"),
            ("-drive file=/a", "no interface 'ide'"),
            ("-drive file=/a,if=none,id=a -drive file=/b,if=none,id=a", "Duplicate"),
            ("-device virtio-serial-pci,id=s -device virtserialport,chardev=a,id=s", "Duplicate device ID 's'"),
        ] {
            let error = settings(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
