//! `virtio-serial-pci`: a bus of serial ports, and `virtconsole` and `virtserialport`: the ports on it.

use std::sync::Arc;

use parking_lot::Mutex;
use rhea_backends::char::CharError;
use rhea_core::object::{Fixed, Object, PropertyError, TypeInfo, Typed};
use rhea_devices::virtio::console::{Console, MOST_PORTS, PortOptions};

use super::{
    DeviceConfig, DeviceError, Driver, Plugged, Removal, Unplug,
    character::{ConsolePort, Sink},
    virtio::{self, Made, virtio_drivers},
};
use crate::{Machine, MachineError, state::part::Kept};

/// Serial ports and consoles, by virtconsole and virtserialport.
#[derive(Object)]
#[object(type = "virtio-serial-pci", parent = "virtio-pci", settings)]
struct ConsoleSettings {
    /// Most ports: 1 to 31.
    #[property(name = "max_ports", default = MOST_PORTS)]
    most_ports: u32,
}

pub(super) const DRIVERS: [Driver; 3] =
    virtio_drivers!(ConsoleSettings, "virtio-serial", "virtio-serial-pci", plug_console);

/// Where ports go.
#[derive(Object)]
#[object(type = "virtio-serial-bus", parent = "bus")]
pub(super) struct SerialBus {
    console: Arc<Console>,
    most_ports: u32,
    /// Numbers of the ports that are there.
    taken: Mutex<Vec<u32>>,
}

fn plug_console(machine: &Machine, config: &DeviceConfig) -> Result<Plugged, MachineError> {
    let settings: ConsoleSettings = config.settings().map_err(DeviceError::from)?;
    let most_ports = settings.most_ports;
    if !(1..=MOST_PORTS).contains(&most_ports) {
        let expected = format!("1 to {MOST_PORTS}");
        return Err(DeviceError::from(PropertyError::Range { name: "max_ports".to_owned(), expected }).into());
    }
    let console = Console::new(most_ports);
    let plugged = virtio::plug(machine, config, |_| {
        let device = Arc::clone(&console) as _;
        Ok(Made { device, own: Arc::new(Fixed(settings)), worker: machine.shared_worker()?, links: Vec::new() })
    })?;
    let tree = machine.objects().tree();
    let name = match &config.id {
        Some(id) => format!("{id}.0"),
        None => {
            let taken: Vec<String> = tree.all().into_iter().map(|(_, name, _)| name).collect();
            let mut names = (0..=taken.len()).map(|number| format!("virtio-serial-bus.{number}"));
            names.find(|name| !taken.contains(name)).unwrap_or_default()
        }
    };
    let bus = Arc::new(SerialBus { console, most_ports, taken: Mutex::default() });
    // Nothing but its own properties is there yet that could have the name.
    tree.add(plugged.node, &name, bus).inspect_err(|_| machine.take_back(&plugged))?;
    Ok(plugged)
}

/// What ports have in common.
pub(super) const PORT: &TypeInfo = &TypeInfo::abstract_type("virtio-serial-port", "device");

/// A serial port on a virtio-serial-pci.
#[derive(Object)]
#[object(type = "virtserialport", parent = "virtio-serial-port", settings)]
struct PortSettings {
    /// The character backend behind it.
    #[property]
    chardev: String,
    /// Its number; the first free one if not given.
    #[property(name = "nr", default = u32::MAX)]
    number: u32,
    /// What the guest finds it by.
    #[property]
    name: Option<String>,
}

pub(super) const SERIAL_PORT: Driver =
    Driver { info: PortSettings::INFO, aliases: &[], hotpluggable: true, plug: plug_port };

/// A terminal has the same properties as a serial port.
const CONSOLE_INFO: &TypeInfo =
    &TypeInfo { description: "A terminal on a virtio-serial-pci", ..TypeInfo::like("virtconsole", PortSettings::INFO) };

pub(super) const CONSOLE_PORT: Driver =
    Driver { info: CONSOLE_INFO, aliases: &[], hotpluggable: true, plug: plug_port };

/// A port in the tree.
struct PortObject {
    info: &'static TypeInfo,
    settings: Fixed<PortSettings>,
}

impl Object for PortObject {
    fn info(&self) -> &'static TypeInfo {
        self.info
    }

    fn get(&self, name: &str) -> Option<rhea_core::object::Value> {
        self.settings.get(name)
    }
}

fn plug_port(machine: &Machine, config: &DeviceConfig) -> Result<Plugged, MachineError> {
    let console = config.driver == CONSOLE_INFO.name;
    let mut settings: PortSettings = config.settings().map_err(DeviceError::from)?;
    let has_room = |bus: &SerialBus| bus.free(console).is_some();
    let (bus_node, bus) = machine.find_bus::<SerialBus>(config, SerialBus::INFO.name, has_room)?;
    settings.number = bus.choose(settings.number, console)?;
    if settings.chardev.is_empty() {
        return Err(DeviceError::from(PropertyError::Missing("chardev")).into());
    }
    let claimed = machine.parts().backends.chars.claim(&settings.chardev);
    let front = Arc::new(claimed.map_err(|error| {
        let (driver, property, value) = (config.driver.clone(), "chardev", settings.chardev.clone());
        match error {
            CharError::InUse(_) => DeviceError::Taken { driver, property, value },
            _ => DeviceError::NotThere { driver, property, value },
        }
    })?);
    let (number, name) = (settings.number, settings.name.clone());
    let info = if console { CONSOLE_INFO } else { PortSettings::INFO };
    let object = Arc::new(PortObject { info, settings: Fixed(settings) });
    let node = machine.objects().plug(config.id.as_deref(), object)?;
    let tree = machine.objects().tree();
    tree.link(node, "parent_bus", SerialBus::INFO.name, Some(bus_node)).inspect_err(|_| drop(tree.remove(node)))?;
    let output = Arc::new(Sink(Arc::clone(&front)));
    bus.taken.lock().push(number);
    bus.console.add_port(PortOptions { number, name, console, output });
    front.connect(Arc::new(ConsolePort(Arc::clone(&bus.console), number)));
    Ok(Plugged { node, bus: Some(bus_node), unplug: Some(Arc::new(OnBus { bus, number })), kept: Kept::Elsewhere })
}

impl SerialBus {
    /// The first number for a port that is free. Number 0 is for terminals, as drivers that know one port only take it.
    fn free(&self, console: bool) -> Option<u32> {
        let taken = self.taken.lock();
        (u32::from(!console)..self.most_ports).find(|number| !taken.contains(number))
    }

    /// The number that a port gets which asked for `wanted`, or for none by all ones.
    fn choose(&self, wanted: u32, console: bool) -> Result<u32, DeviceError> {
        let refused = |text: String| Err(DeviceError::Refused(text));
        match wanted {
            u32::MAX => self.free(console).ok_or(DeviceError::Refused(format!(
                "virtio-serial-bus: maximum number of ports supported by the device ({}) reached",
                self.most_ports
            ))),
            0 if !console => refused("virtio-serial-bus: port number 0 is reserved for virtconsole devices".to_owned()),
            wanted if wanted >= self.most_ports => refused(format!(
                "virtio-serial-bus: port number {wanted} is out of range: the ports of the device are 0 to {}",
                self.most_ports.saturating_sub(1)
            )),
            wanted if self.taken.lock().contains(&wanted) => {
                refused(format!("virtio-serial-bus: there is a port {wanted} already"))
            }
            wanted => Ok(wanted),
        }
    }
}

/// How a port leaves: the guest is told, and not asked.
struct OnBus {
    bus: Arc<SerialBus>,
    number: u32,
}

impl Unplug for OnBus {
    fn request(&self, _: &Machine) -> Result<Removal, MachineError> {
        Ok(Removal::Now)
    }

    fn remove(&self, _: &Machine) {
        self.bus.console.remove_port(self.number);
        self.bus.taken.lock().retain(|number| *number != self.number);
    }
}
