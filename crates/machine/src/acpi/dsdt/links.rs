//! The PCI interrupt links: which ISA interrupt each of the PIIX3's four routing registers leads to.

use acpi_tables::{
    Aml,
    aml::{
        And, Arg, BufferData, CreateDWordField, Device, EISAName, Else, If, Interrupt, Local, Method, Name, Or, Path,
        ResourceTemplate, Return, Store, ZERO,
    },
};

use super::Raw;

/// Interrupts that a PCI interrupt link may be set to.
const LINK_INTERRUPTS: [u32; 3] = [5, 10, 11];

/// The PCI interrupt link devices (§ 6.2.13): each is one routing register, disabled while its bit 7 is set.
pub(super) fn links() -> Raw {
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
    Raw(inner)
}
