//! What classes of PCI functions are called, for people.
//!
//! Source: PCI Code and ID Assignment Specification 1.11.

/// Names by base class and subclass.
const NAMES: &[(u16, &str)] = &[
    (0x0001, "VGA controller"),
    (0x00ff, "Unclassified device"),
    (0x0100, "SCSI controller"),
    (0x0101, "IDE controller"),
    (0x0102, "Floppy controller"),
    (0x0104, "RAID controller"),
    (0x0106, "SATA controller"),
    (0x0108, "NVMe controller"),
    (0x0180, "Storage controller"),
    (0x0200, "Ethernet controller"),
    (0x0280, "Network controller"),
    (0x0300, "VGA controller"),
    (0x0380, "Display controller"),
    (0x0400, "Video controller"),
    (0x0401, "Audio controller"),
    (0x0500, "RAM controller"),
    (0x0580, "Memory controller"),
    (0x0600, "Host bridge"),
    (0x0601, "ISA bridge"),
    (0x0604, "PCI bridge"),
    (0x0680, "Bridge"),
    (0x0700, "Serial port"),
    (0x0780, "Communication controller"),
    (0x0880, "System peripheral"),
    (0x0900, "Keyboard"),
    (0x0c03, "USB controller"),
    (0x0c05, "SMBus"),
];

/// What a class (base class in the upper byte, subclass in the lower) is called, if it has a name here.
pub fn class_name(class: u16) -> Option<&'static str> {
    NAMES.iter().find(|(known, _)| *known == class).map(|(_, name)| *name)
}
