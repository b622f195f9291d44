//! `info pci`: the reply of query-pci, for people.

use std::fmt::Write as _;

use rhea_api::pci::{Handler, PciDeviceInfo};

use super::table::{Call, Printed};

pub(super) fn info(call: &Call<'_>) -> Printed {
    let mut text = String::new();
    for bus in Handler::query_pci(&mut call.commands())? {
        bus.devices.iter().for_each(|device| show(&mut text, device));
    }
    Ok(text)
}

/// Writing to a string does not fail: what the macros return is dropped.
fn show(text: &mut String, device: &PciDeviceInfo) {
    let _ = write!(text, "  Bus {:2}, device {:3}, function {}:\r\n", device.bus, device.slot, device.function);
    let class = match &device.class_info.desc {
        Some(name) => name.clone(),
        None => format!("Class {:04x}", device.class_info.class),
    };
    let _ = write!(text, "    {class}: PCI device {:04x}:{:04x}\r\n", device.id.vendor, device.id.device);
    if let (Some(vendor), Some(subsystem)) = (device.id.subsystem_vendor, device.id.subsystem) {
        let _ = write!(text, "      PCI subsystem {vendor:04x}:{subsystem:04x}\r\n");
    }
    if let (Some(line), Some(pin @ 1..=4)) = (device.irq, device.irq_pin) {
        let _ = write!(text, "      IRQ {line}, pin {}\r\n", ['A', 'B', 'C', 'D'][pin as usize - 1]);
    }
    for region in &device.regions {
        // An address of -1 is none: all ones, as in the register.
        let address = region.address as u64;
        let last = if region.address == -1 { address } else { address.wrapping_add(region.size as u64 - 1) };
        let _ = match (region.prefetch, region.mem_type_64) {
            (Some(prefetch), Some(wide)) => write!(
                text,
                "      BAR{}: {} bit {}memory at 0x{address:08x} [0x{last:08x}].\r\n",
                region.bar,
                if wide { 64 } else { 32 },
                if prefetch { "prefetchable " } else { "" },
            ),
            _ => write!(
                text,
                "      BAR{}: I/O at 0x{:04x} [0x{:04x}].\r\n",
                region.bar,
                address & 0xffff,
                last & 0xffff
            ),
        };
    }
    if let Some(bridge) = &device.pci_bridge {
        let bus = &bridge.bus;
        let _ = write!(text, "      BUS {}.\r\n      secondary bus {}.\r\n", bus.number, bus.secondary);
        let _ = write!(text, "      subordinate bus {}.\r\n", bus.subordinate);
        for inner in bridge.devices.iter().flatten() {
            show(text, inner);
        }
    }
    let _ = write!(text, "      id \"{}\"\r\n", device.qdev_id);
}
