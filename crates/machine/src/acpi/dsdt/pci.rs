//! The PCI bus: its windows, how its interrupts are routed, and its slots with the methods by which devices come and go
//! (§ 6.2.12, § 6.3).

use acpi_tables::{
    Aml,
    aml::{
        AddressSpace, AddressSpaceCacheable, And, Arg, Device, EISAName, IO, If, Local, Method, MethodCall, Mutex,
        Name, Notify, ONE, Package, PackageBuilder, Path, ResourceTemplate, ShiftLeft, Store, ZERO,
    },
};
use rhea_devices::acpi::hotplug::pci;

use super::{DEVICE_CHECK, EJECT_REQUEST, Raw, guarded, isa, registers, words};
use crate::acpi::{HotplugBus, Platform};

/// Tells the operating system of devices that came or are to go.
pub(super) const SCAN: &str = "\\_SB_.PCI0.PSCN";

/// The slots of the first bus that the board itself uses.
const OWN_SLOTS: u8 = 2;

pub(super) fn root(platform: &Platform) -> Raw {
    let id = Name::new("_HID".into(), &EISAName::new("PNP0A03"));
    let address = Name::new("_ADR".into(), &ZERO);
    let unique = Name::new("_UID".into(), &ZERO);
    let windows = windows(platform);
    let routing = Name::new("_PRT".into(), &routing());
    let first = HotplugBus { number: 0, path: Vec::new() };
    let slots = slots(&first, &platform.hotplug_buses);
    let terms: Vec<&dyn Aml> = vec![&id, &address, &unique, &windows, &routing];
    let (isa, methods) = (isa::isa(platform.panic_port), methods());
    let terms = terms.into_iter().chain([&isa as &dyn Aml, &methods, &slots]).collect();
    Raw::of(&[&Device::new("PCI0".into(), terms)])
}

fn windows(platform: &Platform) -> Raw {
    let bus = AddressSpace::<u16>::new_bus_number(0, 0xff);
    let config = IO::new(0xcf8, 0xcf8, 1, 8);
    let low_ports = AddressSpace::<u16>::new_io(0, 0xcf7, None);
    let high_ports = AddressSpace::<u16>::new_io(0xd00, 0xffff, None);
    let cacheable = AddressSpaceCacheable::Cacheable;
    let vga = AddressSpace::<u32>::new_memory(cacheable, true, 0xa_0000, 0xb_ffff, None);
    let uncached = AddressSpaceCacheable::NotCacheable;
    let window = AddressSpace::<u32>::new_memory(uncached, true, platform.pci_window, 0xfebf_ffff, None);
    let high = platform.high_pci_window;
    let high = high.map(|(first, last)| AddressSpace::<u64>::new_memory(uncached, true, first, last, None));
    let all: [&dyn Aml; 6] = [&bus, &config, &low_ports, &high_ports, &vga, &window];
    let resources = all.into_iter().chain(high.as_ref().map(|high| high as &dyn Aml)).collect();
    let resources = ResourceTemplate::new(resources);
    Raw::of(&[&Name::new("_CRS".into(), &resources)])
}

/// `_PRT` (§ 6.2.12): the pins of slot n are wired to the links one further than those of slot n - 1.
fn routing() -> PackageBuilder {
    let mut routing = PackageBuilder::new();
    for slot in 0..32_u32 {
        for pin in 0..4_u32 {
            let link = Path::new(["LNKA", "LNKB", "LNKC", "LNKD"][((slot + pin + 3) % 4) as usize]);
            let address = slot << 16 | 0xffff;
            routing.add_element(&Package::new(vec![&address, &(pin as u8), &link, &ZERO]));
        }
    }
    routing
}

/// Registers, and what all buses share.
fn methods() -> Raw {
    let path = Path::new;
    let (bus, eject) = (path("PBUS"), path("PEJT"));
    let bit = ShiftLeft::new(&Local(1), &ONE, &Arg(1));
    let eject = guarded("PEJ0", 2, "PLCK", &[&Store::new(&bus, &Arg(0)), &bit, &Store::new(&eject, &Local(1))]);
    let tell = MethodCall::new("PCNT".into(), vec![]);
    let scan = guarded("PSCN", 0, "PLCK", &[&tell]);
    let region = registers("PREG", pci::BASE, pci::LENGTH);
    let fields = words("PREG", pci::register::UP, &[b"PCIU", b"PCID", b"PEJT", b"PRMV", b"PBUS"]);
    let mutex = Raw::of(&[&Mutex::new("PLCK".into(), 0)]);
    Raw::all([region, fields, mutex, eject, scan])
}

fn name(slot: u8) -> String {
    format!("S{:02X}_", slot << 3)
}

/// The slots of a bus, with the buses behind its bridges, and `PCNT`, which tells of all that came or is to go there.
fn slots(bus: &HotplugBus, all: &[HotplugBus]) -> Raw {
    let (mut devices, mut told, mut behind) = (Vec::new(), Vec::new(), Vec::new());
    for slot in if bus.path.is_empty() { OWN_SLOTS..32 } else { 0..32 } {
        let path: Vec<u8> = bus.path.iter().copied().chain([slot]).collect();
        let address = Raw::of(&[&Name::new("_ADR".into(), &(u32::from(slot) << 16))]);
        let inside = match all.iter().find(|bridge| bridge.path == path) {
            Some(bridge) => {
                // Names of several parts are not looked for further out (§ 5.3): this one is whole.
                let through: String = path.iter().map(|slot| format!("{}.", name(*slot))).collect();
                let count = Path::new(&format!("\\_SB_.PCI0.{through}PCNT"));
                behind.push(Raw::of(&[&MethodCall::new(count, vec![])]));
                slots(bridge, all)
            }
            None => {
                told.push(tell_of(slot));
                ejectable(bus.number, slot)
            }
        };
        devices.push(Raw::of(&[&Device::new(name(slot).as_str().into(), vec![&address, &inside])]));
    }
    let tell = Raw::of(&[&Method::new("PTFY".into(), 2, false, vec![&Raw::all(told)])]);
    let select = Raw::of(&[&Store::new(&Path::new("PBUS"), &bus.number)]);
    let call =
        |register: &str, event: &u8| Raw::of(&[&MethodCall::new("PTFY".into(), vec![&Path::new(register), event])]);
    let (came, goes) = (call("PCIU", &DEVICE_CHECK), call("PCID", &EJECT_REQUEST));
    let count = Raw::of(&[&Method::new("PCNT".into(), 0, false, vec![&select, &came, &goes, &Raw::all(behind)])]);
    Raw::all(devices.into_iter().chain([tell, count]))
}

/// What makes a slot one whose device may be taken out.
fn ejectable(bus: u32, slot: u8) -> Raw {
    let number = Name::new("_SUN".into(), &u32::from(slot));
    let call = MethodCall::new("PEJ0".into(), vec![&bus, &slot]);
    Raw::of(&[&number, &Method::new("_EJ0".into(), 1, false, vec![&call])])
}

/// Notifies a slot of the second argument if its bit is set in the first.
fn tell_of(slot: u8) -> Raw {
    let (bit, device) = (1_u32 << slot, Path::new(&name(slot)));
    Raw::of(&[&If::new(&And::new(&ZERO, &Arg(0), &bit), vec![&Notify::new(&device, &Arg(1))])])
}
