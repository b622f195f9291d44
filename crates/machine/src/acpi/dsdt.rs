//! The differentiated system description table: the machine's devices in AML. ACPI 5.0 chapters 6, 7 and 19.

use acpi_tables::{
    Aml,
    aml::{
        AddressSpace, AddressSpaceCacheable, And, Arg, BufferData, CreateDWordField, Device, EISAName, Else, Field,
        FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, IO, If, Interrupt, Local, Memory32Fixed, Method,
        Name, OpRegion, OpRegionSpace, Or, Package, PackageBuilder, Path, ResourceTemplate, Return, Scope, Store, ZERO,
    },
    sdt::Sdt,
};

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, Platform, fixed::HPET_ADDRESS};

/// Interrupts that a PCI interrupt link may be set to.
const LINK_INTERRUPTS: [u32; 3] = [5, 10, 11];

pub fn dsdt(platform: &Platform) -> Sdt {
    let mut table = Sdt::new(*b"DSDT", 36, 2, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    let mut aml = Vec::new();
    sleep_states(&mut aml);
    processors(platform, &mut aml);
    pci(platform, &mut aml);
    links(&mut aml);
    hpet(&mut aml);
    table.append_slice(&aml);
    table
}

/// `\_S3` and `\_S5`: the values of SLP_TYP (§ 7.3.4), as the PIIX4 encodes them: S3 is 1, soft off is 0.
fn sleep_states(aml: &mut Vec<u8>) {
    for (name, kind) in [("_S3_", 1_u8), ("_S5_", 0)] {
        let package = Package::new(vec![&kind, &kind, &ZERO, &ZERO]);
        Name::new(name.into(), &package).to_aml_bytes(aml);
    }
}

fn processors(platform: &Platform, aml: &mut Vec<u8>) {
    let devices: Vec<Vec<u8>> = platform
        .processors
        .iter()
        .map(|&id| {
            let hid = Name::new("_HID".into(), &"ACPI0007");
            let uid = Name::new("_UID".into(), &id);
            let mut bytes = Vec::new();
            Device::new(format!("C{id:03X}").as_str().into(), vec![&hid, &uid]).to_aml_bytes(&mut bytes);
            bytes
        })
        .collect();
    aml.extend(Scope::raw("\\_SB_".into(), devices.concat()));
}

fn pci(platform: &Platform, aml: &mut Vec<u8>) {
    let bus = AddressSpace::<u16>::new_bus_number(0, 0xff);
    let config = IO::new(0xcf8, 0xcf8, 1, 8);
    let low_ports = AddressSpace::<u16>::new_io(0, 0xcf7, None);
    let high_ports = AddressSpace::<u16>::new_io(0xd00, 0xffff, None);
    let cacheable = AddressSpaceCacheable::Cacheable;
    let vga = AddressSpace::<u32>::new_memory(cacheable, true, 0xa_0000, 0xb_ffff, None);
    let window = AddressSpace::<u32>::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        platform.pci_window,
        0xfebf_ffff,
        None,
    );
    let resources = ResourceTemplate::new(vec![&bus, &config, &low_ports, &high_ports, &vga, &window]);
    let routing = routing();
    let isa = isa();
    let mut inner = Vec::new();
    Name::new("_HID".into(), &EISAName::new("PNP0A03")).to_aml_bytes(&mut inner);
    Name::new("_ADR".into(), &ZERO).to_aml_bytes(&mut inner);
    Name::new("_UID".into(), &ZERO).to_aml_bytes(&mut inner);
    Name::new("_CRS".into(), &resources).to_aml_bytes(&mut inner);
    Name::new("_PRT".into(), &routing).to_aml_bytes(&mut inner);
    inner.extend(isa);
    let inner = Raw(inner);
    let root = Device::new("PCI0".into(), vec![&inner]);
    Scope::new("\\_SB_".into(), vec![&root]).to_aml_bytes(aml);
}

/// AML that is already encoded.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
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

/// The ISA bridge, the devices behind it, and the PIIX3's routing registers.
fn isa() -> Vec<u8> {
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
                &Name::new("_STA".into(), &0x0f_u8),
                &Name::new("_CRS".into(), &resources),
            ],
        )
        .to_aml_bytes(&mut inner);
    }
    let mut bytes = Vec::new();
    Device::new("ISA_".into(), vec![&Raw(inner)]).to_aml_bytes(&mut bytes);
    bytes
}

/// The PCI interrupt link devices (§ 6.2.13): each is one routing register, disabled while its bit 7 is set.
fn links(aml: &mut Vec<u8>) {
    let mut inner = Vec::new();
    for (uid, (name, register)) in
        [("LNKA", "PRQA"), ("LNKB", "PRQB"), ("LNKC", "PRQC"), ("LNKD", "PRQD")].into_iter().enumerate()
    {
        let register = Path::new(&format!("\\_SB_.PCI0.ISA_.{register}"));
        let possible: Vec<Interrupt> =
            LINK_INTERRUPTS.iter().map(|&line| Interrupt::new(true, false, false, true, line)).collect();
        let mut multiple = Vec::new();
        // One descriptor that lists all choices: the library's holds a single number.
        multiple.extend_from_slice(&[0x89, (2 + 4 * possible.len()) as u8, 0, 0b1001, possible.len() as u8]);
        for line in LINK_INTERRUPTS {
            multiple.extend_from_slice(&line.to_le_bytes());
        }
        let mut current = Vec::new();
        // Interrupt descriptor with a number to fill in at byte 5, and the end tag.
        current.extend_from_slice(&[0x89, 6, 0, 0b1001, 1, 0, 0, 0, 0, 0x79, 0]);
        let disabled = And::new(&ZERO, &register, &0x80_u8);
        let number = And::new(&ZERO, &register, &0x0f_u8);
        Device::new(
            name.into(),
            vec![
                &Name::new("_HID".into(), &EISAName::new("PNP0C0F")),
                &Name::new("_UID".into(), &(uid as u8)),
                &Method::new(
                    "_STA".into(),
                    0,
                    false,
                    vec![&If::new(&disabled, vec![&Return::new(&0x09_u8)]), &Else::new(vec![&Return::new(&0x0b_u8)])],
                ),
                &Method::new("_DIS".into(), 0, false, vec![&Store::new(&register, &0x80_u8)]),
                &Name::new("_PRS".into(), &ResourceTemplate::new(vec![&Raw(multiple)])),
                &Method::new(
                    "_CRS".into(),
                    0,
                    true,
                    vec![
                        &Name::new("BUF_".into(), &BufferData::new(current)),
                        &CreateDWordField::new(&Path::new("LINE"), &Path::new("BUF_"), &5_u8),
                        &If::new(&And::new(&ZERO, &register, &0x80_u8), vec![&Store::new(&Path::new("LINE"), &ZERO)]),
                        &Else::new(vec![&Store::new(&Path::new("LINE"), &number)]),
                        &Return::new(&Path::new("BUF_")),
                    ],
                ),
                &Method::new(
                    "_SRS".into(),
                    1,
                    false,
                    vec![
                        &CreateDWordField::new(&Path::new("LINE"), &Arg(0), &5_u8),
                        &Or::new(&Local(0), &Path::new("LINE"), &ZERO),
                        &Store::new(&register, &Local(0)),
                    ],
                ),
            ],
        )
        .to_aml_bytes(&mut inner);
    }
    aml.extend(Scope::raw("\\_SB_".into(), inner));
}

fn hpet(aml: &mut Vec<u8>) {
    let registers = Memory32Fixed::new(true, HPET_ADDRESS as u32, 0x400);
    let id = Name::new("_HID".into(), &EISAName::new("PNP0103"));
    let unique = Name::new("_UID".into(), &ZERO);
    let status = Name::new("_STA".into(), &0x0f_u8);
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&registers]));
    let device = Device::new("HPET".into(), vec![&id, &unique, &status, &resources]);
    Scope::new("\\_SB_".into(), vec![&device]).to_aml_bytes(aml);
}
