//! `pvpanic`: the port by which a guest says that it panicked.

use std::sync::Arc;

use rhea_core::object::{Fixed, Object, Typed};
use rhea_devices::misc::panic::{DEFAULT_PORT, PANICKED, PanicPort};

use super::{DeviceConfig, DeviceError, Driver, Plugged};
use crate::{Machine, MachineError, inbox::GuestRequest, state::part::Kept};

/// A port by which the guest says that it panicked.
#[derive(Object)]
#[object(type = "pvpanic", parent = "isa-device", settings)]
struct PanicSettings {
    /// The port.
    #[property(default = DEFAULT_PORT)]
    ioport: u16,
    /// Bits that the guest may use: 1 for a panic.
    #[property(default = PANICKED)]
    events: u8,
}

pub(super) const DRIVER: Driver = Driver { info: PanicSettings::INFO, aliases: &[], hotpluggable: false, plug };

fn plug(machine: &Machine, config: &DeviceConfig) -> Result<Plugged, MachineError> {
    let settings: PanicSettings = config.settings().map_err(DeviceError::from)?;
    machine.board().set_panic_port(settings.ioport)?;
    let inbox = Arc::clone(&machine.parts().inbox);
    let port = PanicPort::new(settings.events, Box::new(move || inbox.leave(GuestRequest::Panicked)));
    port.map(&machine.parts().ports, settings.ioport);
    // Nobody else has the id: that was looked at.
    let node = machine.objects().plug(config.id.as_deref(), Arc::new(Fixed(settings)))?;
    Ok(Plugged { node, bus: None, unplug: None, kept: Kept::Elsewhere })
}
