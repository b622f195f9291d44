//! `pci-bridge`: a bus behind a slot of another.

use std::sync::Arc;

use rhea_core::object::{Fixed, Object, Typed};
use rhea_devices::chipset::pci::Bridge;

use super::{DeviceConfig, DeviceError, Driver, Plugged, pci::PciAddress, pci_bus::PciSlots};
use crate::{Machine, MachineError};

/// A PCI bus behind a bridge, which devices name by its id.
#[derive(Debug, Object)]
#[object(type = "pci-bridge", parent = "pci-device", settings)]
struct BridgeSettings {
    /// Slot and optional function, such as 06.0 or 06; the first free slot if not given.
    #[property(default = PciAddress(None))]
    addr: PciAddress,
    /// Accepted and ignored: number of the chassis.
    #[property(name = "chassis_nr", default = 0)]
    chassis_number: u8,
    /// Accepted and ignored: there is no hot-plug controller.
    #[property(default = false)]
    shpc: bool,
}

pub(super) const DRIVER: Driver = Driver { info: BridgeSettings::INFO, aliases: &[], hotpluggable: false, plug };

fn plug(machine: &Machine, config: &DeviceConfig) -> Result<Plugged, MachineError> {
    let mut settings: BridgeSettings = config.settings().map_err(DeviceError::from)?;
    let place = machine.pci_place(config, settings.addr)?;
    settings.addr = PciAddress(Some(place.at));
    let bridge = Bridge::new(std::array::from_fn(|pin| place.slots().interrupt(place.at, pin as u8)));
    let tree = machine.objects().tree();
    let name = match &config.id {
        Some(id) => id.clone(),
        None => {
            let taken: Vec<String> = tree.all().into_iter().map(|(_, name, _)| name).collect();
            let mut names = (1..=taken.len()).map(|number| format!("pci.{number}"));
            names.find(|name| !taken.contains(name)).ok_or_else(|| DeviceError::NoSlot(config.driver.clone()))?
        }
    };
    let path = place.path_behind();
    let function = Arc::clone(&bridge) as _;
    let plugged = machine.plug_pci(config, &place, function, Arc::new(Fixed(settings)), &[], false)?;
    let number = path.clone().and_then(|path| machine.board().hotplug().and_then(|hotplug| hotplug.add_bus(path)));
    let bus = PciSlots::behind(&bridge, place.firmware_path("pci-bridge"), number, path.unwrap_or_default());
    // Nothing but its own properties is there yet that could have the name.
    tree.add(plugged.node, &name, bus).inspect_err(|_| machine.take_back(&plugged))?;
    Ok(plugged)
}
