//! The differentiated system description table: the machine's devices in AML. ACPI 5.0 chapters 6, 7 and 19.

mod isa;
mod links;
mod memory;
mod pci;
mod processors;

use acpi_tables::{
    Aml, AmlSink,
    aml::{
        Acquire, Arg, Device, EISAName, Equal, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, IO,
        If, Local, Memory32Fixed, Method, MethodCall, Name, Notify, OpRegion, OpRegionSpace, Package, Path, Release,
        ResourceTemplate, Return, Scope, Store, ZERO,
    },
    sdt::Sdt,
};
use rhea_devices::acpi::{
    generation, hotplug,
    pm::{self, SleepRequest},
};

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, Platform, bytes, fixed::HPET_ADDRESS};

/// What a device is notified of (§ 5.6.6): it came, or is asked to go.
const DEVICE_CHECK: u8 = 1;
const EJECT_REQUEST: u8 = 3;
/// What a generation identifier is notified of when it is another.
const CHANGED: u8 = 0x80;
/// `_STA` of what is there and works (§ 6.3.7).
const WORKING: u8 = 0x0f;

pub fn dsdt(platform: &Platform) -> Sdt {
    let mut table = Sdt::new(*b"DSDT", 36, 2, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    let system = [
        processors::processors(&platform.processors),
        memory::memory(platform.memory_slots),
        pci::root(platform),
        links::links(),
        if platform.hpet { hpet() } else { Raw::all([]) },
        hotplug_ports(),
        generation_id(platform.generation_id),
    ];
    let parts = [sleep_states(&platform.sleep_states), scope("\\_SB_", system), scope("\\_GPE", [events(platform)])];
    for part in parts {
        table.append_slice(&part.0);
    }
    table
}

/// `\_S3`, `\_S4` and `\_S5`: the values of SLP_TYP (§ 7.3.4).
fn sleep_states(offered: &[SleepRequest]) -> Raw {
    let state = |request: &SleepRequest| {
        let name = match request {
            SleepRequest::S3 => "_S3_",
            SleepRequest::S4 => "_S4_",
            SleepRequest::S5 => "_S5_",
        };
        let kind = request.sleep_type();
        let package = Package::new(vec![&kind, &kind, &ZERO, &ZERO]);
        Raw::of(&[&Name::new(name.into(), &package)])
    };
    Raw::all(offered.iter().map(state))
}

fn hpet() -> Raw {
    let registers = Memory32Fixed::new(true, HPET_ADDRESS as u32, 0x400);
    let id = Name::new("_HID".into(), &EISAName::new("PNP0103"));
    let unique = Name::new("_UID".into(), &ZERO);
    let status = Name::new("_STA".into(), &WORKING);
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&registers]));
    Raw::of(&[&Device::new("HPET".into(), vec![&id, &unique, &status, &resources])])
}

/// Says that the ports of hotplug and of its events are taken.
fn hotplug_ports() -> Raw {
    let windows = [
        (pm::GPE_BASE, 4),
        (hotplug::pci::BASE, hotplug::pci::LENGTH),
        (hotplug::cpu::BASE, hotplug::cpu::LENGTH),
        (hotplug::memory::BASE, hotplug::memory::LENGTH),
    ];
    let ports = windows.map(|(base, length)| IO::new(base, base, 1, length as u8));
    let ports = ResourceTemplate::new(ports.iter().map(|window| window as &dyn Aml).collect());
    let id = Name::new("_HID".into(), &EISAName::new("PNP0C02"));
    let unique = Name::new("_UID".into(), &"hotplug");
    let status = Name::new("_STA".into(), &WORKING);
    let resources = Name::new("_CRS".into(), &ports);
    Raw::of(&[&Device::new("HPRS".into(), vec![&id, &unique, &status, &resources])])
}

/// The identifier of the machine's generation (Microsoft, "Virtual Machine Generation ID"): `ADDR` says where it is, low
/// half first.
fn generation_id(address: Option<u32>) -> Raw {
    let Some(address) = address else { return Raw(Vec::new()) };
    let id = Name::new("_HID".into(), &"QEMUVGID");
    let compatible = Name::new("_CID".into(), &"VM_Gen_Counter");
    let description = Name::new("_DDN".into(), &"VM_Gen_Counter");
    let status = Name::new("_STA".into(), &WORKING);
    let place = Name::new("ADDR".into(), &Package::new(vec![&address, &ZERO]));
    Raw::of(&[&Device::new("VGEN".into(), vec![&id, &compatible, &description, &status, &place])])
}

/// What is done when a general-purpose event comes (§ 5.6.4.1).
fn events(platform: &Platform) -> Raw {
    let mut scans = vec![(hotplug::event::PCI, pci::SCAN)];
    if !platform.processors.is_empty() {
        scans.push((hotplug::event::PROCESSORS, processors::SCAN));
    }
    if platform.memory_slots > 0 {
        scans.push((hotplug::event::MEMORY, memory::SCAN));
    }
    let handler = |(event, scan): (u8, &str)| {
        let call = MethodCall::new(scan.into(), vec![]);
        Raw::of(&[&Method::new(format!("_E{event:02X}").as_str().into(), 0, false, vec![&call])])
    };
    let changed = platform.generation_id.map(|_| {
        let device = Path::new("\\_SB_.VGEN");
        let notify = Notify::new(&device, &CHANGED);
        Raw::of(&[&Method::new(format!("_E{:02X}", generation::EVENT).as_str().into(), 0, false, vec![&notify])])
    });
    Raw::all(scans.into_iter().map(handler).chain(changed))
}

/// AML that is already encoded.
struct Raw(Vec<u8>);

impl Raw {
    fn of(terms: &[&dyn Aml]) -> Self {
        let mut bytes = Vec::new();
        terms.iter().for_each(|term| term.to_aml_bytes(&mut bytes));
        Self(bytes)
    }

    fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        Self(parts.into_iter().flat_map(|part| part.0).collect())
    }
}

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

fn scope(path: &str, parts: impl IntoIterator<Item = Raw>) -> Raw {
    Raw(Scope::raw(path.into(), Raw::all(parts).0))
}

/// A method that holds `mutex` while it runs `body`, and returns what that leaves in Local0.
fn guarded(name: &str, arguments: u8, mutex: &str, body: &[&dyn Aml]) -> Raw {
    let acquire = Acquire::new(mutex.into(), 0xffff);
    let result = Local(0);
    let start = Store::new(&result, &ZERO);
    let release = Release::new(mutex.into());
    let give = Return::new(&result);
    let terms: Vec<&dyn Aml> = [&acquire as &dyn Aml, &start].into_iter().chain(body.iter().copied()).collect();
    let terms = terms.into_iter().chain([&release as &dyn Aml, &give]).collect();
    Raw::of(&[&Method::new(name.into(), arguments, true, terms)])
}

/// Registers in the port space.
fn registers(name: &str, base: u16, length: u16) -> Raw {
    Raw::of(&[&OpRegion::new(name.into(), OpRegionSpace::SystemIO, &base, &length)])
}

/// Registers of 32 bits each, one after another from `offset` on.
fn words(region: &str, offset: u16, names: &[&[u8; 4]]) -> Raw {
    let skip = (offset > 0).then_some(FieldEntry::Reserved(8 * usize::from(offset)));
    let fields = skip.into_iter().chain(names.iter().map(|name| FieldEntry::Named(**name, 32))).collect();
    let (access, lock, update) = (FieldAccessType::DWord, FieldLockRule::NoLock, FieldUpdateRule::Preserve);
    Raw::of(&[&Field::new(region.into(), access, lock, update, fields)])
}

/// Bits of a byte at `offset` whose ones do something when written, and a register of a byte behind it.
fn flags(region: &str, offset: u16, names: &[&[u8; 4]], behind: Option<[u8; 4]>) -> Raw {
    let mut fields = vec![FieldEntry::Reserved(8 * usize::from(offset))];
    fields.extend(names.iter().map(|name| FieldEntry::Named(**name, 1)));
    if let Some(behind) = behind {
        fields.push(FieldEntry::Reserved(8 - names.len()));
        fields.push(FieldEntry::Named(behind, 8));
    }
    let (access, lock, update) = (FieldAccessType::Byte, FieldLockRule::NoLock, FieldUpdateRule::WriteAsZeroes);
    Raw::of(&[&Field::new(region.into(), access, lock, update, fields)])
}

/// A method without locks that calls `target` with the number of its object and then its own arguments.
fn forward(name: &str, arguments: u8, target: &str, number: u32) -> Raw {
    let own: Vec<Arg> = (0..arguments).map(Arg).collect();
    let passed = std::iter::once(&number as &dyn Aml).chain(own.iter().map(|argument| argument as &dyn Aml)).collect();
    let call = MethodCall::new(Path::new(target), passed);
    Raw::of(&[&Method::new(name.into(), arguments, false, vec![&Return::new(&call)])])
}

/// A method that notifies the device with the number of its first argument of its second argument.
fn notify(name: &str, devices: impl IntoIterator<Item = String>) -> Raw {
    let one = |(number, device): (usize, String)| {
        let (device, number) = (Path::new(&device), number as u32);
        Raw::of(&[&If::new(&Equal::new(&Arg(0), &number), vec![&Notify::new(&device, &Arg(1))])])
    };
    let all = Raw::all(devices.into_iter().enumerate().map(one));
    Raw::of(&[&Method::new(name.into(), 2, false, vec![&all])])
}
