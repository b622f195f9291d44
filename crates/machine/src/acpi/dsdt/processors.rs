//! All processors that there may be, and the methods by which they come and go (§ 6.3, § 8.4).

use acpi_tables::{
    Aml,
    aml::{Arg, BufferData, Device, EISAName, Else, If, Local, MethodCall, Mutex, Name, ONE, Path, Store, While, ZERO},
    madt::{EnabledStatus, ProcessorLocalApic},
};
use rhea_devices::acpi::hotplug::cpu;

use super::{DEVICE_CHECK, EJECT_REQUEST, Raw, WORKING, bytes, flags, forward, guarded, notify, registers, words};
use crate::acpi::PossibleProcessor;

/// Tells the operating system of processors that came or are to go.
pub(super) const SCAN: &str = "\\_SB_.CPUS.CSCN";

pub(super) fn processors(list: &[PossibleProcessor]) -> Raw {
    let devices = list.iter().enumerate().map(|(index, processor)| device(index, processor));
    let terms = [&identity() as &dyn Aml, &methods(), &notify("CTFY", (0..list.len()).map(name)), &Raw::all(devices)];
    Raw::of(&[&Device::new("CPUS".into(), terms.to_vec())])
}

fn name(index: usize) -> String {
    format!("C{index:03X}")
}

/// A container of processors.
fn identity() -> Raw {
    let id = Name::new("_HID".into(), &"ACPI0010");
    let compatible = Name::new("_CID".into(), &EISAName::new("PNP0A05"));
    Raw::of(&[&id, &compatible])
}

fn device(index: usize, processor: &PossibleProcessor) -> Raw {
    let number = index as u32;
    let id = Name::new("_HID".into(), &"ACPI0007");
    let unique = Name::new("_UID".into(), &number);
    let entry = ProcessorLocalApic::new(index as u8, processor.apic_id, EnabledStatus::Enabled);
    let interrupts = Name::new("_MAT".into(), &BufferData::new(bytes(&entry)));
    let status = forward("_STA", 0, "CSTA", number);
    let report = forward("_OST", 3, "COST", number);
    // The first processor started the machine, and stays.
    let eject = if index == 0 { Raw(Vec::new()) } else { forward("_EJ0", 1, "CEJT", number) };
    let near = match &processor.node {
        Some(node) => Raw::of(&[&Name::new("_PXM".into(), node)]),
        None => Raw(Vec::new()),
    };
    let terms: Vec<&dyn Aml> = vec![&id, &unique, &interrupts, &status, &report, &eject, &near];
    Raw::of(&[&Device::new(name(index).as_str().into(), terms)])
}

fn methods() -> Raw {
    let (selector, data, command) = (Path::new("CSEL"), Path::new("CDAT"), Path::new("CCMD"));
    let (enabled, inserting, removing) = (Path::new("CPEN"), Path::new("CINS"), Path::new("CRMV"));
    let eject = Path::new("CEJ0");
    let select = Store::new(&selector, &Arg(0));

    let present = Raw::of(&[&If::new(&enabled, vec![&Store::new(&Local(0), &WORKING)])]);
    let status = guarded("CSTA", 1, "CLCK", &[&select, &present]);
    let ejection = guarded("CEJT", 2, "CLCK", &[&select, &Store::new(&eject, &ONE)]);

    let says = |number: &u8| Raw::of(&[&Store::new(&command, number)]);
    let (event, outcome) = (Store::new(&data, &Arg(1)), Store::new(&data, &Arg(2)));
    let (event_next, outcome_next) = (says(&cpu::command::REPORT_EVENT), says(&cpu::command::REPORT_STATUS));
    let report = guarded("COST", 4, "CLCK", &[&select, &event_next, &event, &outcome_next, &outcome]);

    let (first, next) = (Store::new(&selector, &ZERO), says(&cpu::command::NEXT_WITH_EVENT));
    let (again, done) = (Store::new(&Local(1), &ONE), Store::new(&Local(1), &ZERO));
    let tell = |event: &u8, flag: &Path| {
        let call = MethodCall::new("CTFY".into(), vec![&data, event]);
        Raw::of(&[&call, &Store::new(flag, &ONE), &again])
    };
    let came = Raw::of(&[&If::new(&inserting, vec![&tell(&DEVICE_CHECK, &inserting)])]);
    let goes = Raw::of(&[&If::new(&removing, vec![&tell(&EJECT_REQUEST, &removing)])]);
    let otherwise = Raw::of(&[&Else::new(vec![&goes])]);
    let scan = While::new(&Local(1), vec![&done, &next, &came, &otherwise]);
    let scan = guarded("CSCN", 0, "CLCK", &[&first, &again, &scan]);

    let region = registers("CREG", cpu::BASE, cpu::LENGTH);
    let bits = flags("CREG", cpu::register::FLAGS, &[b"CPEN", b"CINS", b"CRMV", b"CEJ0"], Some(*b"CCMD"));
    let choose = words("CREG", cpu::register::SELECTOR, &[b"CSEL"]);
    let value = words("CREG", cpu::register::DATA, &[b"CDAT"]);
    let mutex = Raw::of(&[&Mutex::new("CLCK".into(), 0)]);
    Raw::all([region, bits, choose, value, mutex, status, ejection, report, scan])
}
