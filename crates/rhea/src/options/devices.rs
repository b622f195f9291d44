//! What `-device` comes to, and the devices of `-drive`; what `-global` says of all devices of a type.

use rhea_machine::{
    DeviceConfig, Global,
    devices::{device_type, device_types},
};
use serde_json::Value;

use super::{
    block::BlockSettings,
    keyval::{KeyValues, OptionError},
    table::OptionRow,
    typed::{Form, Made, type_help},
};

/// Disks and devices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceSettings {
    /// What disks are made of.
    pub blocks: BlockSettings,
    /// Devices, in order.
    pub lines: Vec<DeviceConfig>,
    /// What all devices of a type are to have, in order.
    pub globals: Vec<Global>,
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

    /// `-debugcon`.
    pub fn debug_console(&mut self, backend: String) {
        let properties = vec![("chardev".to_owned(), Value::String(backend))];
        self.lines.push(DeviceConfig { driver: "isa-debugcon".to_owned(), id: None, properties });
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

/// How a device is asked for.
const DEVICE: Form = Form {
    kind: "driver",
    find: |driver| {
        device_type(driver)
            .ok_or_else(|| format!("'{driver}' is not a valid device model name; '-device help' lists them"))
    },
    besides: &["bus"],
};

/// Reads the text of option `name`: `DRIVER,PROPERTY=VALUE`, or the same as JSON. The monitor for people reads it too.
///
/// # Errors
/// An unknown driver or property, or a value that is none of its kind.
pub fn device(name: &str, text: &str) -> Result<DeviceConfig, OptionError> {
    let Made { kind: driver, id, properties } = DEVICE.read(text).map_err(|reason| OptionError::about(name, reason))?;
    Ok(DeviceConfig { driver, id, properties })
}

/// Reads `-global`: `DRIVER.PROPERTY=VALUE`, or the three by their names.
pub(super) fn global(row: &'static OptionRow, text: &str) -> Result<Global, OptionError> {
    let short = text.split_once('=').and_then(|(name, value)| Some((name.split_once('.')?, value)));
    if let Some(((driver, property), value)) = short {
        let (driver, property, value) = (driver.to_owned(), property.to_owned(), value.to_owned());
        return Ok(Global { driver, property, value });
    }
    let parameters = KeyValues::parse(row, text)?;
    let [driver, property, value] =
        ["driver", "property", "value"].map(|key| parameters.require(key).map(str::to_owned));
    Ok(Global { driver: driver?, property: property?, value: value? })
}

/// What `help` asks for instead of a device: the drivers, or `DRIVER,help` its properties.
pub fn device_help(text: &str) -> Option<String> {
    if !matches!(text, "help" | "?") {
        return type_help(text, &DEVICE, "device");
    }
    let lines = device_types().map(|(info, aliases)| {
        let also = if aliases.is_empty() { String::new() } else { format!(" (also {})", aliases.join(", ")) };
        format!("{:36} {}{also}\n", info.name, info.description)
    });
    Some(lines.collect())
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
    fn a_debug_console_is_a_device_with_its_backend() {
        let lines = settings("-debugcon file:/tmp/x -debugcon none").unwrap().lines;
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((line.driver.as_str(), &line.properties[0].0), ("isa-debugcon", &"chardev".to_owned()));
        assert_eq!(line.properties[0].1, json!("debugcon0"));
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
    fn what_is_said_of_all_has_two_spellings() {
        let settings =
            settings("-global a-b.c_d=e=f,g -global driver=h,property=i.j,value=k -rtc driftfix=slew").unwrap();
        let all: Vec<String> = settings
            .globals
            .iter()
            .map(|Global { driver, property, value }| format!("{driver} {property} {value}"))
            .collect();
        assert_eq!(all, ["a-b c_d e=f,g", "h i.j k", "mc146818rtc lost_tick_policy slew"]);
        assert_eq!(
            self::settings("-global mc146818rtc").unwrap_err().0,
            "-global: invalid parameter 'mc146818rtc'; known are driver, property, value"
        );
        assert_eq!(
            self::settings("-global driver=a,property=b").unwrap_err().0,
            "-global: parameter 'value' is missing"
        );
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
