//! Devices on the ISA bus that take nothing but ports there: `isa-serial`, a serial port, and `isa-debugcon`, a debug console.

use std::sync::Arc;

use rhea_core::object::{Fixed, NodeId, Object, PropertyError, Typed};
use rhea_devices::char::{
    debugcon::{Debugcon, DebugconSettings},
    uart::SerialSettings,
};

use super::{
    DeviceConfig, DeviceError, Driver, Plugged,
    character::connect_console,
    isa_bus::{BUS, IsaBus},
};
use crate::{Machine, MachineError, state::part::Kept};

pub(super) const DRIVERS: [Driver; 2] = [
    Driver { info: SerialSettings::INFO, aliases: &[], hotpluggable: false, plug: plug_serial },
    Driver { info: DebugconSettings::INFO, aliases: &[], hotpluggable: false, plug: plug_console },
];

fn plug_serial(machine: &Machine, config: &DeviceConfig) -> Result<Plugged, MachineError> {
    let settings: SerialSettings = config.settings().map_err(DeviceError::from)?;
    let (node, bus) = machine.find_bus::<IsaBus>(config, BUS.name, |_| true)?;
    let settings = bus.add_serial(machine.parts(), settings)?;
    machine.plug_on_isa(config, node, Arc::new(Fixed(settings)), Kept::Elsewhere)
}

fn plug_console(machine: &Machine, config: &DeviceConfig) -> Result<Plugged, MachineError> {
    let settings: DebugconSettings = config.settings().map_err(DeviceError::from)?;
    let (node, _) = machine.find_bus::<IsaBus>(config, BUS.name, |_| true)?;
    let port = u16::try_from(settings.iobase).map_err(|_| {
        let (name, expected) = ("iobase".to_owned(), "a port".to_owned());
        DeviceError::from(PropertyError::Range { name, expected })
    })?;
    let backend = settings.chardev.as_deref().filter(|id| !id.is_empty());
    let backend =
        backend.ok_or_else(|| DeviceError::Refused("Can't create isa-debugcon device, empty char device".into()))?;
    let console = Debugcon::new(connect_console(&machine.parts().backends.chars, backend)?, settings.readback as u8);
    console.map(&machine.parts().ports, port);
    machine.plug_on_isa(config, node, Arc::new(Fixed(settings)), Kept::Elsewhere)
}

impl Machine {
    /// Puts the object of a device on an ISA bus into the tree.
    pub(super) fn plug_on_isa(
        &self,
        config: &DeviceConfig,
        bus: NodeId,
        object: Arc<dyn Object>,
        kept: Kept,
    ) -> Result<Plugged, MachineError> {
        let node = self.objects().plug(config.id.as_deref(), object)?;
        self.objects().tree().link(node, "parent_bus", BUS.name, Some(bus))?;
        Ok(Plugged { node, bus: Some(bus), unplug: None, kept })
    }
}
