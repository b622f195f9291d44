//! `isa-debug-exit`: ports by which a bare guest ends the program, with a status of its choice.

use std::sync::Arc;

use rhea_core::object::{Fixed, Object, PropertyError, Typed};
use rhea_devices::misc::debug_exit::{DEFAULT_COUNT, DEFAULT_PORT, ExitPort};

use super::{DeviceConfig, DeviceError, Driver, Plugged};
use crate::{Machine, MachineError, inbox::GuestRequest, state::part::Kept};

/// Ports by which the guest ends the program: a write of v there is the status v * 2 + 1.
#[derive(Object)]
#[object(type = "isa-debug-exit", parent = "isa-device", settings)]
struct DebugExitSettings {
    /// The first port.
    #[property(default = DEFAULT_PORT)]
    iobase: u32,
    /// How many ports.
    #[property(default = DEFAULT_COUNT)]
    iosize: u32,
}

pub(super) const DRIVER: Driver = Driver { info: DebugExitSettings::INFO, aliases: &[], hotpluggable: false, plug };

fn plug(machine: &Machine, config: &DeviceConfig) -> Result<Plugged, MachineError> {
    let settings: DebugExitSettings = config.settings().map_err(DeviceError::from)?;
    let range = |name: &str, expected: &str| {
        DeviceError::from(PropertyError::Range { name: name.to_owned(), expected: expected.to_owned() })
    };
    let first = u16::try_from(settings.iobase).map_err(|_| range("iobase", "a port"))?;
    if !(1..=0x1_0000 - u32::from(first)).contains(&settings.iosize) {
        return Err(range("iosize", "a number of ports").into());
    }
    let inbox = Arc::clone(&machine.parts().inbox);
    let port = ExitPort::new(Box::new(move |status| inbox.leave(GuestRequest::Exit(status))));
    port.map(&machine.parts().ports, first, settings.iosize);
    // Nobody else has the id: that was looked at.
    let node = machine.objects().plug(config.id.as_deref(), Arc::new(Fixed(settings)))?;
    Ok(Plugged { node, bus: None, unplug: None, kept: Kept::Elsewhere })
}
