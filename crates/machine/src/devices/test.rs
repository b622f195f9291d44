//! Devices for tests of machines: `pc-testdev` on the ISA bus and `pci-testdev` on a PCI bus.

use std::sync::Arc;

use rhea_core::object::{Fixed, Object, PropertyError, Size, Typed};
use rhea_devices::misc::{pci_test::PciTestDevice, test_device::IsaTestDevice};

use super::{
    DeviceConfig, DeviceError, Driver, Plugged,
    isa_bus::{BUS, IsaBus},
    pci::PciAddress,
};
use crate::{Machine, MachineError, state::part::Kept};

/// Ports and memory by which test programs drive interrupt lines and check accesses of all widths.
#[derive(Object)]
#[object(type = "pc-testdev", parent = "isa-device", settings)]
struct TestDeviceSettings {}

/// A function whose windows count the writes that reach them.
#[derive(Object)]
#[object(type = "pci-testdev", parent = "pci-device", settings)]
struct PciTestSettings {
    /// Slot and optional function, such as 06.0 or 06; the first free slot if not given.
    #[property(default = PciAddress(None))]
    addr: PciAddress,
    /// Size of a third window, behind which nothing is: a power of two; 0 for none.
    #[property(default = Size(0))]
    membar: Size,
}

pub(super) const DRIVERS: [Driver; 2] = [
    Driver { info: TestDeviceSettings::INFO, aliases: &[], hotpluggable: false, plug: plug_isa },
    Driver { info: PciTestSettings::INFO, aliases: &[], hotpluggable: true, plug: plug_pci },
];

fn plug_isa(machine: &Machine, config: &DeviceConfig) -> Result<Plugged, MachineError> {
    let settings: TestDeviceSettings = config.settings().map_err(DeviceError::from)?;
    let (node, bus) = machine.find_bus::<IsaBus>(config, BUS.name, |_| true)?;
    let device = IsaTestDevice::new(std::array::from_fn(|irq| bus.interrupts().line(irq)));
    bus.add_single("pc-testdev", Arc::clone(&device) as _)?;
    let parts = machine.parts();
    device.map(&parts.ports, &parts.memory);
    machine.plug_on_isa(config, node, Arc::new(Fixed(settings)), Kept::Own("pc-testdev", device))
}

fn plug_pci(machine: &Machine, config: &DeviceConfig) -> Result<Plugged, MachineError> {
    /// More than any processor addresses.
    const LARGEST: u64 = 1 << 52;
    let mut settings: PciTestSettings = config.settings().map_err(DeviceError::from)?;
    let Size(empty) = settings.membar;
    if empty != 0 && (!empty.is_power_of_two() || !(4096..=LARGEST).contains(&empty)) {
        let (name, expected) = ("membar".to_owned(), "a power of two from 4 KiB to 4 PiB".to_owned());
        return Err(DeviceError::from(PropertyError::Range { name, expected }).into());
    }
    let place = machine.pci_place(config, settings.addr)?;
    settings.addr = PciAddress(Some(place.at));
    let parts = machine.parts();
    let device = PciTestDevice::new(Arc::clone(&parts.memory), Arc::clone(&parts.ports), empty);
    machine.plug_pci(config, &place, device, Arc::new(Fixed(settings)), &[], true)
}
