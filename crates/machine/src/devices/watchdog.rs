//! `i6300esb`: a watchdog on a PCI bus.

use std::sync::Arc;

use rhea_core::object::{Fixed, Object, Typed};
use rhea_devices::misc::watchdog::PciWatchdog;

use super::{DeviceConfig, DeviceError, Driver, Plugged, pci::PciAddress};
use crate::{Machine, MachineError, inbox::GuestRequest};

/// A watchdog that ends the machine, or does what else was chosen, if the guest does not tend it.
#[derive(Object)]
#[object(type = "i6300esb", parent = "pci-device", settings)]
struct WatchdogSettings {
    /// Slot and optional function, such as 06.0 or 06; the first free slot if not given.
    #[property(default = PciAddress(None))]
    addr: PciAddress,
}

pub(super) const DRIVER: Driver = Driver { info: WatchdogSettings::INFO, aliases: &[], hotpluggable: true, plug };

fn plug(machine: &Machine, config: &DeviceConfig) -> Result<Plugged, MachineError> {
    let mut settings: WatchdogSettings = config.settings().map_err(DeviceError::from)?;
    let place = machine.pci_place(config, settings.addr)?;
    settings.addr = PciAddress(Some(place.at));
    let parts = machine.parts();
    let inbox = Arc::clone(&parts.inbox);
    let on_expiry = Box::new(move || inbox.leave(GuestRequest::WatchdogExpired));
    let watchdog = PciWatchdog::new(&parts.timers, Arc::clone(&parts.memory), Arc::clone(&parts.ports), on_expiry);
    machine.plug_pci(config, &place, watchdog, Arc::new(Fixed(settings)), &[], true)
}
