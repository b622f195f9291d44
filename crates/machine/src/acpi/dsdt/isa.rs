//! The ISA bridge with the devices behind it.

use acpi_tables::{
    Aml,
    aml::{
        Arg, Device, EISAName, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, IO, Interrupt,
        Method, Name, OpRegion, OpRegionSpace, Path, ResourceTemplate, Return, Store,
    },
};

use super::{Raw, WORKING, registers};

/// The ISA bridge, the devices behind it, and the PIIX3's routing registers.
pub(super) fn isa(panic_port: Option<u16>) -> Raw {
    let mut inner = Vec::new();
    Name::new("_ADR".into(), &0x0001_0000_u32).to_aml_bytes(&mut inner);
    OpRegion::new("PIRQ".into(), OpRegionSpace::PCIConfig, &0x60_u8, &4_u8).to_aml_bytes(&mut inner);
    Field::new(
        "PIRQ".into(),
        FieldAccessType::Byte,
        FieldLockRule::NoLock,
        FieldUpdateRule::Preserve,
        [*b"PRQA", *b"PRQB", *b"PRQC", *b"PRQD"].map(|name| FieldEntry::Named(name, 8)).to_vec(),
    )
    .to_aml_bytes(&mut inner);
    let devices: [(&str, &str, Vec<IO>, Option<u32>); 5] = [
        ("RTC_", "PNP0B00", vec![IO::new(0x70, 0x70, 1, 2)], Some(8)),
        ("KBD_", "PNP0303", vec![IO::new(0x60, 0x60, 1, 1), IO::new(0x64, 0x64, 1, 1)], Some(1)),
        ("MOU_", "PNP0F13", vec![], Some(12)),
        ("COM1", "PNP0501", vec![IO::new(0x3f8, 0x3f8, 8, 8)], Some(4)),
        ("COM2", "PNP0501", vec![IO::new(0x2f8, 0x2f8, 8, 8)], Some(3)),
    ];
    for (name, id, ports, line) in devices {
        let interrupt = line.map(|line| Interrupt::new(true, true, false, false, line));
        let resources =
            ports.iter().map(|io| io as &dyn Aml).chain(interrupt.iter().map(|interrupt| interrupt as &dyn Aml));
        let resources = ResourceTemplate::new(resources.collect());
        let uid = if name == "COM2" { 2_u8 } else { 1 };
        Device::new(
            name.into(),
            vec![
                &Name::new("_HID".into(), &EISAName::new(id)),
                &Name::new("_UID".into(), &uid),
                &Name::new("_STA".into(), &WORKING),
                &Name::new("_CRS".into(), &resources),
            ],
        )
        .to_aml_bytes(&mut inner);
    }
    Raw::of(&[&Device::new("ISA_".into(), vec![&Raw(inner), &panic(panic_port)])])
}

/// The panic port, with methods that read and write it.
fn panic(port: Option<u16>) -> Raw {
    let Some(port) = port else { return Raw(Vec::new()) };
    let id = Name::new("_HID".into(), &"QEMU0001");
    let status = Name::new("_STA".into(), &WORKING);
    let window = IO::new(port, port, 1, 1);
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&window]));
    let region = registers("PEOR", port, 1);
    let access = (FieldAccessType::Byte, FieldLockRule::NoLock, FieldUpdateRule::Preserve);
    let field = Field::new("PEOR".into(), access.0, access.1, access.2, vec![FieldEntry::Named(*b"PEPT", 8)]);
    let byte = Path::new("PEPT");
    let give = Return::new(&byte);
    let read = Method::new("RDPT".into(), 0, false, vec![&give]);
    let set = Store::new(&byte, &Arg(0));
    let write = Method::new("WRPT".into(), 1, false, vec![&set]);
    Raw::of(&[&Device::new("PEVT".into(), vec![&id, &status, &resources, &region, &field, &read, &write])])
}
