//! The multiple APIC description table: processors, the I/O APIC and how ISA interrupts reach it. ACPI 5.0 § 5.2.12.

use acpi_tables::{
    Aml, AmlSink,
    madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic},
};
use zerocopy::{Immutable, IntoBytes};

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, Platform};

/// Address of each processor's own local APIC.
pub const LOCAL_APIC_ADDRESS: u32 = 0xfee0_0000;
/// Address of the I/O APIC.
pub const IO_APIC_ADDRESS: u32 = 0xfec0_0000;

/// Active high, level triggered (§ 5.2.12.5, MPS INTI flags).
const LEVEL_HIGH: u16 = 0b1101;

/// Interrupt source override (§ 5.2.12.5).
#[derive(Clone, IntoBytes, Immutable)]
#[repr(C, packed)]
struct SourceOverride {
    kind: u8,
    length: u8,
    bus: u8,
    source: u8,
    global: u32,
    flags: u16,
}

/// Local APIC NMI (§ 5.2.12.7).
#[derive(Clone, IntoBytes, Immutable)]
#[repr(C, packed)]
struct LocalApicNmi {
    kind: u8,
    length: u8,
    processor: u8,
    flags: u16,
    lint: u8,
}

impl Aml for SourceOverride {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(self.as_bytes());
    }
}

impl Aml for LocalApicNmi {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(self.as_bytes());
    }
}

pub fn madt(platform: &Platform) -> Table {
    let address = LocalInterruptController::Address(LOCAL_APIC_ADDRESS);
    let mut madt = MADT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION, address);
    for (index, processor) in platform.processors.iter().enumerate() {
        // One that may come is disabled here, with an APIC id that is valid.
        let status = if processor.present { EnabledStatus::Enabled } else { EnabledStatus::Disabled };
        madt.add_structure(ProcessorLocalApic::new(index as u8, processor.apic_id, status));
    }
    madt.add_structure(IoApic::new(0, IO_APIC_ADDRESS, 0));
    let source_override = |source: u8, global: u32, flags: u16| SourceOverride {
        kind: 2,
        length: 10,
        bus: 0,
        source,
        global: global.to_le(),
        flags: flags.to_le(),
    };
    // The timer comes in at pin 2, since pin 0 takes the 8259's output.
    madt.add_structure(source_override(0, 2, 0));
    // The SCI and what the PIIX routes PCI interrupts to are level triggered.
    for line in [5, super::fixed::SCI, 10, 11] {
        madt.add_structure(source_override(line, u32::from(line), LEVEL_HIGH));
    }
    madt.add_structure(LocalApicNmi { kind: 4, length: 6, processor: 0xff, flags: 0, lint: 1 });
    // The library leaves the flags empty; bit 0 says that an 8259 pair is there as well (§ 5.2.12).
    let mut bytes = super::bytes(&madt);
    bytes[40] |= 1;
    bytes[9] = bytes[9].wrapping_sub(1);
    Table(bytes)
}

/// A finished table.
pub struct Table(Vec<u8>);

impl Aml for Table {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}
