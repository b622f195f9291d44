//! ACPI tables: how the operating system learns what the machine is made of. ACPI specification 5.0, chapter 5.

mod affinity;
mod dsdt;
mod fixed;
mod given;
mod interrupts;
pub mod loader;

use acpi_tables::{Aml, AmlSink, facs::FACS, rsdp::Rsdp, xsdt::XSDT};
use rhea_devices::acpi::pm::SleepRequest;

pub use affinity::{Affinity, MemoryAffinity};
pub use fixed::{HPET_ADDRESS, SCI, ports};
pub use given::{GivenTable, TableError, TableFiles};
pub use interrupts::IO_APIC_ADDRESS;

const OEM_ID: [u8; 6] = *b"RHEA  ";
const OEM_TABLE_ID: [u8; 8] = *b"RHEAPC  ";
const OEM_REVISION: u32 = 1;

/// A processor that may be in the machine.
#[derive(Clone, Copy, Debug)]
pub struct PossibleProcessor {
    /// Identifier of its local APIC.
    pub apic_id: u8,
    /// Whether it is there when the tables are made.
    pub present: bool,
    /// Its NUMA node, where there are nodes.
    pub node: Option<u32>,
}

/// A PCI bus behind a bridge on which devices come and go.
#[derive(Clone, Debug)]
pub struct HotplugBus {
    /// Its number in the hotplug registers.
    pub number: u32,
    /// The bridges that lead to it: their slots, the one on the first bus first.
    pub path: Vec<u8>,
}

/// What the tables describe.
#[derive(Clone, Debug)]
pub struct Platform {
    /// The processors that there may be, by index.
    pub processors: Vec<PossibleProcessor>,
    /// Slots for memory modules.
    pub memory_slots: u32,
    /// Buses behind bridges on which devices come and go.
    pub hotplug_buses: Vec<HotplugBus>,
    /// First address of the PCI memory window below 4 GiB.
    pub pci_window: u32,
    /// First and last address of the one above all memory, if processors reach there.
    pub high_pci_window: Option<(u64, u64)>,
    /// Nodes of processors and memory, if there are any.
    pub affinity: Option<Affinity>,
    /// Where the identifier of the machine's generation is, if it has one.
    pub generation_id: Option<u32>,
    /// The port by which the guest says that it panicked, if there is one.
    pub panic_port: Option<u16>,
    /// The sleep states that are offered.
    pub sleep_states: Vec<SleepRequest>,
    /// Whether there is a high precision event timer.
    pub hpet: bool,
    /// Tables of the user's.
    pub given: Vec<Vec<u8>>,
}

/// The tables, ready to be copied into guest memory.
#[derive(Clone, Debug)]
pub struct Tables {
    /// The root pointer, for an address between 0xe0000 and 0xfffff on a 16-byte boundary (§ 5.2.5.1).
    pub root_pointer: Vec<u8>,
    /// The FACS, for the address that was given: the operating system writes its waking vector here.
    pub facs: Vec<u8>,
    /// Everything else, for the address that was given.
    pub tables: Vec<u8>,
}

/// Builds the tables for a FACS at `facs_address` and all others from `tables_address` on, both below 4 GiB.
pub fn build(platform: &Platform, facs_address: u32, tables_address: u32) -> Tables {
    let mut placed = Placed { base: tables_address, bytes: Vec::new() };
    let dsdt = placed.put(&dsdt::dsdt(platform));
    let fadt = placed.put(&fixed::fadt(facs_address, dsdt));
    let madt = placed.put(&interrupts::madt(platform));
    let hpet = platform.hpet.then(|| placed.put(&fixed::hpet()));
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    let given: Vec<u32> = platform.given.iter().map(|table| placed.put(&Given(table))).collect();
    let affinity = platform.affinity.as_ref();
    let affinity = affinity.map(|nodes| [placed.put(&affinity::srat(nodes)), placed.put(&affinity::slit(nodes))]);
    for table in [fadt, madt].into_iter().chain(hpet).chain(affinity.into_iter().flatten()).chain(given) {
        xsdt.add_entry(u64::from(table));
    }
    let xsdt = placed.put(&xsdt);
    Tables { root_pointer: bytes(&Rsdp::new(OEM_ID, u64::from(xsdt))), facs: bytes(&FACS::new()), tables: placed.bytes }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// A table that is complete.
struct Given<'a>(&'a [u8]);

impl Aml for Given<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(self.0);
    }
}

struct Placed {
    base: u32,
    bytes: Vec<u8>,
}

impl Placed {
    /// Appends a table and gives the address it will have.
    fn put(&mut self, table: &dyn Aml) -> u32 {
        self.bytes.resize(self.bytes.len().next_multiple_of(16), 0);
        let address = self.base + self.bytes.len() as u32;
        table.to_aml_bytes(&mut self.bytes);
        address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
    }

    fn word(bytes: &[u8], at: usize) -> usize {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    }

    #[test]
    fn every_table_that_the_root_leads_to_sums_to_zero() {
        const BASE: u32 = 0x10_0000;
        let processor = |present| PossibleProcessor { apic_id: 1, present, node: Some(2) };
        let platform = Platform {
            processors: vec![processor(true), processor(false)],
            memory_slots: 2,
            hotplug_buses: vec![HotplugBus { number: 1, path: vec![5] }, HotplugBus { number: 2, path: vec![5, 0] }],
            pci_window: 0xc000_0000,
            high_pci_window: Some((1 << 32, (1 << 40) - 1)),
            affinity: Some(Affinity { processors: vec![(0, 0)], memory: Vec::new(), distances: vec![vec![10]] }),
            generation_id: Some(0xf_f100),
            hpet: true,
            given: vec![b"MINE\x09\0\0\0\xce".to_vec()],
            panic_port: Some(0x505),
            sleep_states: vec![SleepRequest::S4],
        };
        let tables = build(&platform, 0xf_f000, BASE);
        assert_eq!(checksum(&tables.root_pointer[..20]), 0);
        assert_eq!(checksum(&tables.root_pointer), 0);
        let xsdt = word(&tables.root_pointer, 24) - BASE as usize;
        let mut found = Vec::new();
        let mut queue = vec![xsdt];
        while let Some(at) = queue.pop() {
            let table = &tables.tables[at..][..word(&tables.tables, at + 4)];
            assert_eq!(checksum(table), 0, "{:?}", &table[..4]);
            found.push(String::from_utf8(table[..4].to_vec()).unwrap());
            match &table[..4] {
                b"XSDT" => queue.extend((36..table.len()).step_by(8).map(|i| word(table, i) - BASE as usize)),
                b"FACP" => {
                    assert_eq!(word(table, 36), 0xf_f000);
                    queue.push(word(table, 40) - BASE as usize);
                }
                _ => {}
            }
        }
        found.sort();
        assert_eq!(found, ["APIC", "DSDT", "FACP", "HPET", "MINE", "SLIT", "SRAT", "XSDT"]);
        assert_eq!(tables.facs.len(), 64);
    }
}
