//! The PCI buses: `pci.json`.

use rhea_api::pci::{
    Handler, PciBridgeInfo, PciBusInfo, PciDeviceClass, PciDeviceId, PciDeviceInfo, PciInfo, PciMemoryRange,
    PciMemoryRegion,
};
use rhea_devices::chipset::pci::{BARS, Bar, BarKind, BridgeWindows, ConfigSpace, Listed, class_name};
use rhea_qmp::Error;

use super::Commands;

impl Handler for Commands<'_> {
    fn query_pci(&mut self) -> Result<Vec<PciInfo>, Error> {
        let Some(bus) = self.machine().pci() else { return Ok(Vec::new()) };
        Ok(vec![PciInfo { bus: 0, devices: bus.slots().list().iter().map(|listed| device(0, listed)).collect() }])
    }
}

fn device(bus: i64, listed: &Listed) -> PciDeviceInfo {
    let Listed { at, id, config, behind } = listed;
    let identity = config.identity();
    let class = (identity.class >> 8) as u16;
    let (vendor, subsystem) = identity.subsystem;
    let told = vendor != 0;
    let pin = config.interrupt_pin();
    PciDeviceInfo {
        bus,
        slot: at.slot.into(),
        function: at.function.into(),
        class_info: PciDeviceClass { desc: class_name(class).map(str::to_owned), class: class.into() },
        id: PciDeviceId {
            device: identity.device.into(),
            vendor: identity.vendor.into(),
            subsystem: told.then_some(subsystem.into()),
            subsystem_vendor: told.then_some(vendor.into()),
        },
        irq: pin.map(|(_, line)| line.into()),
        irq_pin: Some(pin.map_or(0, |(pin, _)| pin.into())),
        qdev_id: id.clone().unwrap_or_default(),
        pci_bridge: behind.as_ref().map(|behind| bridge(config, behind)),
        regions: (0..BARS).filter_map(|index| Some(region(index, config.bar(index)?, config.window(index)))).collect(),
    }
}

/// Offsets of bus numbers in a bridge's header.
const PRIMARY: u8 = 0x18;
const SECONDARY: u8 = 0x19;
const SUBORDINATE: u8 = 0x1a;

fn bridge(config: &ConfigSpace, behind: &[Listed]) -> PciBridgeInfo {
    let number = |offset| i64::from(config.byte(offset));
    let windows = BridgeWindows::of(config);
    let range = |(base, limit): (u64, u64)| PciMemoryRange { base: base as i64, limit: limit as i64 };
    PciBridgeInfo {
        bus: PciBusInfo {
            number: number(PRIMARY),
            secondary: number(SECONDARY),
            subordinate: number(SUBORDINATE),
            io_range: range(windows.io),
            memory_range: range(windows.memory),
            prefetchable_range: range(windows.prefetchable),
        },
        devices: (!behind.is_empty()).then(|| behind.iter().map(|listed| device(number(SECONDARY), listed)).collect()),
    }
}

fn region(index: usize, bar: Bar, window: Option<u64>) -> PciMemoryRegion {
    let memory = bar.kind != BarKind::Io;
    PciMemoryRegion {
        bar: index as i64,
        r#type: if memory { "memory" } else { "io" }.to_owned(),
        address: window.map_or(-1, |address| address as i64),
        size: bar.size as i64,
        prefetch: memory.then_some(bar.kind == BarKind::Prefetchable64),
        mem_type_64: memory.then_some(bar.kind != BarKind::Memory),
    }
}
