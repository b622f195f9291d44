//! What `-drive`, `-blockdev` and `-device` come to.

use rhea_backends::block::{Format, Options as ImageOptions};
use rhea_devices::{
    chipset::pci::SlotFunction,
    virtio::{Interface, console::MOST_PORTS},
};
use rhea_machine::BoardKind;

use super::{
    keyval::{KeyValues, OptionError, boolean},
    settings::check_id,
    table::DEVICES,
};

/// Devices that sit on a console device.
const PORT_DRIVERS: [&str; 2] = ["virtconsole", "virtserialport"];

/// A disk of an image, by the name that -device uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSettings {
    /// Its id, or the name of its node.
    pub id: String,
    /// The image, without its format if that is to be found out.
    pub image: ImageOptions,
    /// Whether the format is what the file looks like.
    pub probe: bool,
    /// Whether room is given back.
    pub unmap: bool,
    /// What it says it is, if the device does not say.
    pub serial: Option<String>,
    /// Whether it is a file node, on which formats stand.
    file: bool,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceLine {
    /// Its id.
    pub id: Option<String>,
    /// The bridge whose bus it is on.
    pub bus: Option<String>,
    /// Its place.
    pub address: Option<SlotFunction>,
    /// Its drivers.
    pub interface: Interface,
    /// Its vectors, if that is said.
    pub vectors: Option<u16>,
    /// What it is.
    pub kind: DeviceLineKind,
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceLineKind {
    /// A bridge to a bus of its own.
    Bridge,
    /// Random bytes.
    Rng {
        /// The object that they come from.
        backend: Option<String>,
    },
    /// A disk.
    Block {
        /// The name of the disk behind it.
        drive: String,
        /// What it says it is.
        serial: Option<String>,
        /// Whether the guest may give room back.
        discard: bool,
        /// Bytes of a block.
        block_size: u32,
    },
    /// A balloon.
    Balloon {
        /// Whether the guest may take pages back when it has no others.
        deflate_on_oom: bool,
    },
    /// Serial ports and consoles.
    Console {
        /// Most ports.
        most_ports: u32,
        /// Those that there are.
        ports: Vec<PortLine>,
    },
}

/// A port of a console device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortLine {
    /// Its id.
    pub id: Option<String>,
    /// Its number.
    pub number: u32,
    /// What the guest finds it by.
    pub name: Option<String>,
    /// Whether it is a terminal.
    pub console: bool,
    /// The character backend behind it.
    pub backend: String,
}

/// Disks and devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceSettings {
    /// Disks.
    pub disks: Vec<DiskSettings>,
    /// Devices, in order.
    pub lines: Vec<DeviceLine>,
}

impl DeviceSettings {
    /// `-drive`.
    pub fn drive(&mut self, parameters: &KeyValues) -> Result<(), OptionError> {
        for (key, only) in [("media", "disk"), ("detect-zeroes", "off")] {
            if parameters.get(key).is_some_and(|value| value != only) {
                return Err(parameters.error(format!("'{key}' can only be '{only}'")));
            }
        }
        if parameters.flag("snapshot", false) {
            return Err(parameters.error("'snapshot=on' is not supported yet"));
        }
        let interface = parameters.get("if").unwrap_or("ide");
        if !["virtio", "none"].contains(&interface) {
            return Err(
                parameters.error(format!("there is no interface '{interface}' for disks; give if=virtio or if=none"))
            );
        }
        let id = match parameters.get("id") {
            Some(id) => {
                check_id(parameters, id)?;
                id.to_owned()
            }
            None => format!("{interface}{}", self.disks.len()),
        };
        let format = match parameters.get("format") {
            None => None,
            Some(name) => Some(format(parameters, name)?),
        };
        let mut image = ImageOptions::new(parameters.require("file")?, format.unwrap_or(Format::Raw));
        image.read_only = parameters.flag("readonly", false) || parameters.flag("read-only", false);
        image.shared = is_off(parameters, "file.locking");
        match parameters.get("cache") {
            None | Some("writeback") => {}
            Some("none" | "directsync") => image.direct = true,
            Some("unsafe") => image.no_flush = true,
            // Each device that does not hear of flushes flushes itself; more is not needed.
            Some("writethrough") => {}
            Some(other) => return Err(parameters.error(format!("there is no cache mode '{other}'"))),
        }
        let unmap = unmap(parameters, "discard")?;
        let serial = parameters.get("serial").map(str::to_owned);
        self.add(
            parameters,
            DiskSettings { id: id.clone(), image, probe: format.is_none(), unmap, serial, file: false },
        )?;
        if interface == "virtio" {
            let kind = DeviceLineKind::Block { drive: id, serial: None, discard: true, block_size: 512 };
            self.lines.push(DeviceLine {
                id: None,
                bus: None,
                address: None,
                interface: Interface::default(),
                vectors: None,
                kind,
            });
        }
        Ok(())
    }

    /// `-blockdev`.
    pub fn node(&mut self, parameters: &KeyValues) -> Result<(), OptionError> {
        let name = parameters.require("node-name")?.to_owned();
        check_id(parameters, &name)?;
        let driver = parameters.require("driver")?;
        let disk = match driver {
            "file" | "host_device" => {
                let mut image = ImageOptions::new(parameters.require("filename")?, Format::Raw);
                image.shared = is_off(parameters, "locking");
                self.node_settings(parameters, "", name, image, true)?
            }
            "raw" | "qcow2" => {
                let format = format(parameters, driver)?;
                let image = match (parameters.get("file"), parameters.get("file.driver")) {
                    (Some(below), None) => {
                        let below = self.disks.iter().find(|disk| disk.id == below && disk.file).ok_or_else(|| {
                            parameters.error(format!("Cannot find device='' nor node-name='{below}'"))
                        })?;
                        ImageOptions { format, ..below.image.clone() }
                    }
                    (None, None | Some("file" | "host_device")) => {
                        let mut image = ImageOptions::new(parameters.require("file.filename")?, format);
                        image.shared = is_off(parameters, "file.locking");
                        let below = self.node_settings(parameters, "file.", name.clone(), image, true)?;
                        ImageOptions { format, ..below.image }
                    }
                    (Some(_), Some(_)) => return Err(parameters.error("'file' is a name or has members, not both")),
                    (None, Some(other)) => return Err(parameters.error(format!("Unknown driver '{other}'"))),
                };
                self.node_settings(parameters, "", name, image, false)?
            }
            other => {
                return Err(
                    parameters.error(format!("Unknown driver '{other}'; there are file, host_device, raw, qcow2"))
                );
            }
        };
        self.add(parameters, disk)
    }

    /// What all nodes have, by names that begin with `prefix`.
    fn node_settings(
        &self,
        parameters: &KeyValues,
        prefix: &str,
        id: String,
        mut image: ImageOptions,
        file: bool,
    ) -> Result<DiskSettings, OptionError> {
        let flag = |name: &str, default| parameters.flag(&format!("{prefix}{name}"), default);
        image.read_only = flag("read-only", image.read_only);
        image.direct = flag("cache.direct", image.direct);
        image.no_flush = flag("cache.no-flush", image.no_flush);
        let unmap = unmap(parameters, &format!("{prefix}discard"))?;
        Ok(DiskSettings { id, image, probe: false, unmap, serial: None, file })
    }

    fn add(&mut self, parameters: &KeyValues, disk: DiskSettings) -> Result<(), OptionError> {
        if self.disks.iter().any(|other| other.id == disk.id) {
            return Err(parameters.error(format!("Duplicate nodes with node-name='{}'", disk.id)));
        }
        self.disks.push(disk);
        Ok(())
    }

    /// `-device`; gives what is to be printed instead, if that was asked for.
    pub fn device(&mut self, text: &str) -> Result<Option<String>, OptionError> {
        let driver = if text.starts_with('{') {
            let object: serde_json::Value = serde_json::from_str(text)
                .map_err(|error| OptionError::about("device", format!("JSON parse error, {error}")))?;
            object.get("driver").and_then(|driver| driver.as_str()).unwrap_or_default().to_owned()
        } else {
            text.split(',').next().unwrap_or_default().trim_start_matches("driver=").to_owned()
        };
        if driver == "help" || driver == "?" {
            return Ok(Some(DEVICES.iter().map(|row| format!("{:32} {}\n", row.driver(), row.help)).collect()));
        }
        // The names that say for which drivers the device is.
        let (base, named) = match driver.strip_suffix("-non-transitional") {
            Some(base) => (base, Some(Interface::Modern)),
            None => match driver.strip_suffix("-transitional") {
                Some(base) => (base, Some(Interface::Transitional)),
                None => (driver.as_str(), None),
            },
        };
        let row = DEVICES.iter().find(|row| row.driver() == base).ok_or_else(|| {
            OptionError::about(
                "device",
                format!("'{driver}' is not a valid device model name; '-device help' lists them"),
            )
        })?;
        if text.ends_with(",help") {
            let properties = row.parameters.iter().filter(|parameter| parameter.name != "driver");
            return Ok(Some(
                properties.map(|property| format!("  {:24} {}\n", property.name, property.help)).collect(),
            ));
        }
        let parameters = KeyValues::parse_either(row, text)?;
        if PORT_DRIVERS.contains(&base) {
            self.port(base, &parameters)?;
        } else {
            let line = self.line(base, named, &parameters)?;
            self.lines.push(line);
        }
        Ok(None)
    }

    /// A port, on the console device that it names or else the last one.
    fn port(&mut self, driver: &str, parameters: &KeyValues) -> Result<(), OptionError> {
        let console = driver == "virtconsole";
        let id = self.new_id(parameters)?;
        let bus = parameters.get("bus");
        let device = self.lines.iter_mut().rev().find_map(|line| match (&mut line.kind, bus) {
            (DeviceLineKind::Console { most_ports, ports }, None) => Some((*most_ports, ports)),
            (DeviceLineKind::Console { most_ports, ports }, Some(bus)) => {
                let own = line.id.as_ref().is_some_and(|id| bus.strip_prefix(id.as_str()) == Some(".0"));
                own.then_some((*most_ports, ports))
            }
            _ => None,
        });
        let (most_ports, ports) = device.ok_or_else(|| match bus {
            Some(bus) => parameters.error(format!("Bus '{bus}' not found")),
            None => parameters.error(format!("No 'virtio-serial-bus' bus found for device '{driver}'")),
        })?;
        let taken = |number: u32, ports: &[PortLine]| ports.iter().any(|port| port.number == number);
        let number = match parameters.number("nr") {
            // Port 0 is for terminals, as drivers that know one port only take it.
            None => (u32::from(!console)..most_ports).find(|&number| !taken(number, ports)),
            Some(0) if !console => return Err(parameters.error("port 0 is reserved for virtconsole devices")),
            Some(number) => u32::try_from(number).ok().filter(|&number| number < most_ports && !taken(number, ports)),
        };
        let number = number.ok_or_else(|| parameters.error("there is no such port, or it is taken"))?;
        let backend = parameters.require("chardev")?.to_owned();
        ports.push(PortLine { id, number, name: parameters.get("name").map(str::to_owned), console, backend });
        Ok(())
    }

    /// The character backends that ports use.
    pub fn char_backends(&self) -> impl Iterator<Item = &str> {
        let ports = self.lines.iter().filter_map(|line| match &line.kind {
            DeviceLineKind::Console { ports, .. } => Some(ports),
            _ => None,
        });
        ports.flatten().map(|port| port.backend.as_str())
    }

    fn new_id(&self, parameters: &KeyValues) -> Result<Option<String>, OptionError> {
        let Some(id) = parameters.get("id") else { return Ok(None) };
        check_id(parameters, id)?;
        let same = |other: &Option<String>| other.as_deref() == Some(id);
        let taken = self.lines.iter().any(|line| {
            let ports = if let DeviceLineKind::Console { ports, .. } = &line.kind { &ports[..] } else { &[] };
            same(&line.id) || ports.iter().any(|port| same(&port.id))
        });
        if taken { Err(parameters.error(format!("Duplicate device ID '{id}'"))) } else { Ok(Some(id.to_owned())) }
    }

    fn line(&self, driver: &str, named: Option<Interface>, parameters: &KeyValues) -> Result<DeviceLine, OptionError> {
        let id = self.new_id(parameters)?;
        let bus = parameters.get("bus").filter(|&bus| bus != "pci.0");
        let is_bridge = |line: &DeviceLine| line.kind == DeviceLineKind::Bridge && line.id.as_deref() == bus;
        if let Some(bus) = bus
            && !self.lines.iter().any(is_bridge)
        {
            return Err(parameters.error(format!("Bus '{bus}' not found")));
        }
        let legacy_off = parameters.get("disable-legacy").and_then(boolean) == Some(true);
        let interface = match (named, legacy_off, parameters.flag("disable-modern", false)) {
            (Some(interface), false, false) => interface,
            (Some(_), _, _) => return Err(parameters.error("the driver's name says which interface it has")),
            (None, true, true) => return Err(parameters.error("a device needs the modern or the legacy interface")),
            (None, true, false) => Interface::Modern,
            (None, false, true) => Interface::Legacy,
            (None, false, false) => Interface::Transitional,
        };
        let vectors = match parameters.number("vectors") {
            None => None,
            Some(count) => Some(
                u16::try_from(count)
                    .ok()
                    .filter(|&count| count <= 2048)
                    .ok_or_else(|| parameters.error("there are 2048 vectors at the most"))?,
            ),
        };
        let kind = match driver {
            "pci-bridge" => DeviceLineKind::Bridge,
            "virtio-rng-pci" => DeviceLineKind::Rng { backend: parameters.get("rng").map(str::to_owned) },
            "virtio-serial-pci" => {
                let most_ports = parameters.number("max_ports").unwrap_or(MOST_PORTS.into());
                let most_ports = u32::try_from(most_ports).ok().filter(|count| (1..=MOST_PORTS).contains(count));
                let most_ports =
                    most_ports.ok_or_else(|| parameters.error(format!("'max_ports' is 1 to {MOST_PORTS}")))?;
                DeviceLineKind::Console { most_ports, ports: Vec::new() }
            }
            "virtio-balloon-pci" => {
                if parameters.flag("free-page-reporting", false) {
                    return Err(parameters.error("'free-page-reporting=on' is not supported yet"));
                }
                DeviceLineKind::Balloon { deflate_on_oom: parameters.flag("deflate-on-oom", false) }
            }
            _ => {
                let block_size = parameters.number("logical_block_size").unwrap_or(512);
                if block_size != 512 && block_size != 4096 {
                    return Err(parameters.error("'logical_block_size' is 512 or 4096"));
                }
                if parameters.number("num-queues").is_some_and(|count| count != 1) {
                    return Err(parameters.error("'num-queues' can only be 1"));
                }
                if parameters.get("write-cache").is_some_and(|value| boolean(value) == Some(false)) {
                    return Err(parameters.error("'write-cache=off' is not supported yet"));
                }
                DeviceLineKind::Block {
                    drive: parameters.require("drive")?.to_owned(),
                    serial: parameters.get("serial").map(str::to_owned),
                    discard: parameters.flag("discard", true),
                    block_size: block_size as u32,
                }
            }
        };
        Ok(DeviceLine { id, bus: bus.map(str::to_owned), address: address(parameters)?, interface, vectors, kind })
    }

    /// Every disk that a device needs is there and no other's, and so is the bus.
    pub fn check(&self, board: BoardKind) -> Result<(), OptionError> {
        if board == BoardKind::None && !self.lines.is_empty() {
            return Err(OptionError::about("device", "No 'PCI' bus found for devices of this machine"));
        }
        let mut used = Vec::new();
        for line in &self.lines {
            let DeviceLineKind::Block { drive, .. } = &line.kind else { continue };
            if !self.disks.iter().any(|disk| disk.id == *drive) {
                let reason = format!("Property 'virtio-blk-device.drive' can't find value '{drive}'");
                return Err(OptionError::about("device virtio-blk-pci", reason));
            }
            if used.contains(&drive) {
                let reason = format!("Drive '{drive}' is already in use by another block device");
                return Err(OptionError::about("device virtio-blk-pci", reason));
            }
            used.push(drive);
        }
        Ok(())
    }
}

fn format(parameters: &KeyValues, name: &str) -> Result<Format, OptionError> {
    Format::named(name).ok_or_else(|| parameters.error(format!("Unknown driver '{name}'; there are raw and qcow2")))
}

fn unmap(parameters: &KeyValues, key: &str) -> Result<bool, OptionError> {
    match parameters.get(key) {
        None | Some("ignore" | "off") => Ok(false),
        Some("unmap" | "on") => Ok(true),
        Some(other) => Err(parameters.error(format!("'{key}' is 'unmap' or 'ignore', not '{other}'"))),
    }
}

fn is_off(parameters: &KeyValues, key: &str) -> bool {
    parameters.get(key).and_then(boolean) == Some(false)
}

/// `SLOT` or `SLOT.FUNCTION`, in hexadecimal.
fn address(parameters: &KeyValues) -> Result<Option<SlotFunction>, OptionError> {
    let Some(text) = parameters.get("addr") else { return Ok(None) };
    let (slot, function) = text.split_once('.').unwrap_or((text, "0"));
    let hexadecimal = |text: &str| u8::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok();
    match (hexadecimal(slot), hexadecimal(function)) {
        (Some(slot @ 0..=31), Some(function @ 0..=7)) => Ok(Some(SlotFunction { slot, function })),
        _ => Err(parameters.error(format!("'{text}' is no PCI address, such as 5 or 5.1 in hexadecimal"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::parse;

    fn settings(text: &str) -> Result<DeviceSettings, OptionError> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        parse(&words).map(|settings| settings.devices)
    }

    #[test]
    fn a_drive_makes_its_device_or_leaves_it() {
        let settings = settings("-drive file=/a,format=raw,if=virtio -drive file=/b,if=none,id=d,discard=unmap -device virtio-blk-pci,drive=d,id=x,addr=0x5.1").unwrap();
        assert_eq!(settings.disks.len(), 2);
        assert!(settings.disks[1].probe && settings.disks[1].unmap);
        assert_eq!(settings.lines[1].address, Some(SlotFunction { slot: 5, function: 1 }));
        assert_eq!(settings.lines[1].id.as_deref(), Some("x"));
    }

    #[test]
    fn nodes_stand_on_files_by_name_or_in_one() {
        let text = "-blockdev file,node-name=f,filename=/a,cache.direct=on -blockdev qcow2,node-name=q,file=f \
                    -blockdev driver=raw,node-name=r,file.driver=file,file.filename=/b,read-only=on \
                    -device virtio-blk-pci-non-transitional,drive=q";
        let settings = settings(text).unwrap();
        assert_eq!((&settings.disks[1].image.path, settings.disks[1].image.format), (&"/a".into(), Format::Qcow2));
        assert!(settings.disks[1].image.direct && settings.disks[2].image.read_only);
        assert_eq!(settings.lines[0].interface, Interface::Modern);
    }

    #[test]
    fn ports_go_to_the_console_device_they_name_and_take_free_numbers() {
        let text = "-chardev null,id=a -chardev null,id=b -chardev null,id=c -device virtio-serial-pci,id=s \
                    -device virtio-serial-pci,id=t,max_ports=4 -device virtconsole,chardev=a,bus=s.0 \
                    -device virtserialport,chardev=b,name=org.b -device virtserialport,chardev=c,nr=3";
        let settings = settings(text).unwrap();
        let numbers: Vec<Vec<u32>> = settings
            .lines
            .iter()
            .map(|line| match &line.kind {
                DeviceLineKind::Console { ports, .. } => ports.iter().map(|port| port.number).collect(),
                _ => Vec::new(),
            })
            .collect();
        assert_eq!(numbers, [vec![0], vec![1, 3]]);
        assert_eq!(settings.char_backends().collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    #[test]
    fn what_cannot_be_is_one_line_that_says_so() {
        for (text, said) in [
            ("-device levitator", "'levitator' is not a valid device model name"),
            ("-device virtio-blk-pci", "'drive' is missing"),
            ("-device virtio-blk-pci,drive=x", "can't find value 'x'"),
            ("-device virtio-rng-pci,id=1x", "not well-formed"),
            ("-device virtio-rng-pci,id=x -device virtio-rng-pci,id=x", "Duplicate device ID 'x'"),
            ("-device virtio-rng-pci,addr=20", "no PCI address"),
            ("-device virtio-rng-pci,bus=usb", "Bus 'usb' not found"),
            ("-device virtio-rng-pci,colour=red", "invalid parameter 'colour'"),
            ("-machine none -device virtio-rng-pci", "No 'PCI' bus"),
            ("-drive file=/a", "no interface 'ide'"),
            ("-drive if=none", "'file' is missing"),
            ("-drive file=/a,if=none,id=a -drive file=/b,if=none,id=a", "Duplicate"),
            ("-device virtconsole,chardev=a", "No 'virtio-serial-bus' bus"),
            ("-device virtio-serial-pci,max_ports=32", "1 to 31"),
            ("-device virtio-serial-pci -device virtserialport,chardev=a,nr=0", "reserved"),
            ("-device virtio-serial-pci,id=s -device virtserialport,chardev=a,bus=t.0", "Bus 't.0' not found"),
            ("-device virtio-serial-pci,id=s -device virtserialport,chardev=a,id=s", "Duplicate device ID 's'"),
            ("-device virtio-serial-pci -device virtserialport,chardev=a", "no backend 'a'"),
            ("-blockdev vdi,node-name=a", "Unknown driver 'vdi'"),
            ("-blockdev raw,node-name=a,file=b", "node-name='b'"),
        ] {
            let error = settings(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
