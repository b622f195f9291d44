//! The slots for memory modules that come and go (§ 9.12), and the methods by which they do (§ 6.3).

use acpi_tables::{
    Aml,
    aml::{
        Add, AddressSpace, AddressSpaceCacheable, Arg, CreateQWordField, Device, EISAName, Else, If, LessThan, Local,
        MethodCall, Mutex, Name, ONE, Or, Path, ResourceTemplate, ShiftLeft, Store, Subtract, While, ZERO,
    },
};
use rhea_devices::acpi::hotplug::memory;

use super::{DEVICE_CHECK, EJECT_REQUEST, Raw, WORKING, flags, forward, guarded, notify, registers, words};

/// Tells the operating system of modules that came or are to go.
pub(super) const SCAN: &str = "\\_SB_.MHPC.MSCN";

pub(super) fn memory(slots: u32) -> Raw {
    if slots == 0 {
        return Raw(Vec::new());
    }
    let id = Name::new("_HID".into(), &EISAName::new("PNP0A06"));
    let unique = Name::new("_UID".into(), &"memory slots");
    let devices = Raw::all((0..slots).map(device));
    let notify = notify("MTFY", (0..slots).map(name));
    Raw::of(&[&Device::new("MHPC".into(), vec![&id, &unique, &methods(slots), &notify, &devices])])
}

fn name(slot: u32) -> String {
    format!("MP{slot:02X}")
}

fn device(slot: u32) -> Raw {
    let id = Name::new("_HID".into(), &EISAName::new("PNP0C80"));
    let unique = Name::new("_UID".into(), &slot);
    let status = forward("_STA", 0, "MSTA", slot);
    let resources = forward("_CRS", 0, "MCRS", slot);
    let near = forward("_PXM", 0, "MPXM", slot);
    let report = forward("_OST", 3, "MRPT", slot);
    let eject = forward("_EJ0", 1, "MEJT", slot);
    let terms: Vec<&dyn Aml> = vec![&id, &unique, &status, &resources, &near, &report, &eject];
    Raw::of(&[&Device::new(name(slot).as_str().into(), terms)])
}

fn methods(slots: u32) -> Raw {
    let path = Path::new;
    let (selector, node) = (path("MSEL"), path("MNOD"));
    let (enabled, inserting, removing, eject) = (path("MPEN"), path("MINS"), path("MRMV"), path("MEJ0"));
    let select = Store::new(&selector, &Arg(0));

    let present = Raw::of(&[&If::new(&enabled, vec![&Store::new(&Local(0), &WORKING)])]);
    let status = guarded("MSTA", 1, "MLCK", &[&select, &present]);
    let near = guarded("MPXM", 1, "MLCK", &[&select, &Store::new(&Local(0), &node)]);
    let ejection = guarded("MEJT", 2, "MLCK", &[&select, &Store::new(&eject, &ONE)]);
    let (event, outcome) = (path("MOEV"), path("MOST"));
    let (event, outcome) = (Store::new(&event, &Arg(1)), Store::new(&outcome, &Arg(2)));
    let report = guarded("MRPT", 4, "MLCK", &[&select, &event, &outcome]);

    let tell = |event: &u8, flag: &Path| {
        let call = MethodCall::new("MTFY".into(), vec![&Local(1), event]);
        Raw::of(&[&call, &Store::new(flag, &ONE)])
    };
    let each = Store::new(&selector, &Local(1));
    let came = Raw::of(&[&If::new(&inserting, vec![&tell(&DEVICE_CHECK, &inserting)])]);
    let goes = Raw::of(&[&If::new(&removing, vec![&tell(&EJECT_REQUEST, &removing)])]);
    let otherwise = Raw::of(&[&Else::new(vec![&goes])]);
    let next = Add::new(&Local(1), &Local(1), &ONE);
    let rest = LessThan::new(&Local(1), &slots);
    let scan = While::new(&rest, vec![&each, &came, &otherwise, &next]);
    let scan = guarded("MSCN", 0, "MLCK", &[&Store::new(&Local(1), &ZERO), &scan]);

    let region = registers("MREG", memory::BASE, memory::LENGTH);
    let told = words("MREG", memory::register::ADDRESS, &[b"MADL", b"MADH", b"MSZL", b"MSZH", b"MNOD"]);
    let asked = words("MREG", memory::register::SELECTOR, &[b"MSEL", b"MOEV", b"MOST"]);
    let bits = flags("MREG", memory::register::FLAGS, &[b"MPEN", b"MINS", b"MRMV", b"MEJ0"], None);
    let mutex = Raw::of(&[&Mutex::new("MLCK".into(), 0)]);
    Raw::all([region, told, asked, bits, mutex, status, resources(), near, ejection, report, scan])
}

/// `MCRS(slot)`: one QWord address space descriptor (§ 6.4.3.5.1), with the module's place filled in.
fn resources() -> Raw {
    const FIRST: u8 = 14;
    const LAST: u8 = 22;
    const LENGTH: u8 = 38;
    let path = Path::new;
    let range = AddressSpace::<u64>::new_memory(AddressSpaceCacheable::Cacheable, true, 0, 0, None);
    let buffer = Name::new("MBUF".into(), &ResourceTemplate::new(vec![&range]));
    let whole = path("MBUF");
    let field = |name: &str, offset: u8| Raw::of(&[&CreateQWordField::new(&path(name), &whole, &offset)]);
    let fields = Raw::all([field("MMIN", FIRST), field("MMAX", LAST), field("MLEN", LENGTH)]);
    // The halves of a 64-bit register, put together into a variable.
    let join = |variable: &Local, low: &str, high: &str| {
        let high = path(high);
        Raw::of(&[&ShiftLeft::new(variable, &high, &32_u8), &Or::new(variable, variable, &path(low))])
    };
    let address = join(&Local(1), "MADL", "MADH");
    let size = join(&Local(2), "MSZL", "MSZH");
    let first = Raw::of(&[&Store::new(&path("MMIN"), &Local(1))]);
    let length = Raw::of(&[&Store::new(&path("MLEN"), &Local(2))]);
    let end = Raw::of(&[&Add::new(&Local(3), &Local(1), &Local(2))]);
    let last = Raw::of(&[&Subtract::new(&path("MMAX"), &Local(3), &ONE)]);
    let select = Raw::of(&[&Store::new(&path("MSEL"), &Arg(0))]);
    let result = Store::new(&Local(0), &whole);
    let terms: [&dyn Aml; 10] = [&buffer, &fields, &select, &address, &size, &first, &length, &end, &last, &result];
    guarded("MCRS", 1, "MLCK", &terms)
}
