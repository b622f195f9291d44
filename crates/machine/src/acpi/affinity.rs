//! Which processors and memory belong together, and how far it is from one node to another: the system resource
//! affinity table (ACPI 5.0 § 5.2.16) and the system locality distance information table (§ 5.2.17).

use acpi_tables::sdt::Sdt;

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};

/// The entry counts (flags of both kinds of structure).
const ENABLED: u32 = 1 << 0;
/// The range may be filled later.
const HOT_PLUGGABLE: u32 = 1 << 1;

/// A range of memory in a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryAffinity {
    /// First address.
    pub base: u64,
    /// Bytes.
    pub length: u64,
    /// The node.
    pub node: u32,
    /// Whether memory comes and goes there.
    pub hot_pluggable: bool,
}

/// Nodes as the operating system is told of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    /// APIC ids of all possible processors, with their nodes.
    pub processors: Vec<(u8, u32)>,
    /// Ranges of memory.
    pub memory: Vec<MemoryAffinity>,
    /// How far it is from each node to each.
    pub distances: Vec<Vec<u8>>,
}

pub fn srat(affinity: &Affinity) -> Sdt {
    let mut table = Sdt::new(*b"SRAT", 36, 3, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    // Reserved: 1, and 8 bytes of 0.
    table.append(1_u32);
    table.append(0_u64);
    // Operating systems number nodes as they meet them.
    let mut processors = affinity.processors.clone();
    processors.sort_by_key(|(_, node)| *node);
    for (apic_id, node) in processors {
        let [low, high @ ..] = node.to_le_bytes();
        // Processor local APIC affinity (§ 5.2.16.1): type, length, domain, APIC id, flags, SAPIC EID, domain, clock.
        table.append_slice(&[0, 16, low, apic_id]);
        table.append(ENABLED);
        table.append_slice(&[0, high[0], high[1], high[2]]);
        table.append(0_u32);
    }
    for &MemoryAffinity { base, length, node, hot_pluggable } in &affinity.memory {
        // Memory affinity (§ 5.2.16.2).
        table.append_slice(&[1, 40]);
        table.append(node);
        table.append(0_u16);
        table.append(base);
        table.append(length);
        table.append(0_u32);
        table.append(ENABLED | if hot_pluggable { HOT_PLUGGABLE } else { 0 });
        table.append(0_u64);
    }
    table
}

pub fn slit(affinity: &Affinity) -> Sdt {
    let mut table = Sdt::new(*b"SLIT", 36, 1, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append(affinity.distances.len() as u64);
    for row in &affinity.distances {
        table.append_slice(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_as_long_as_they_say() {
        let affinity = Affinity {
            processors: vec![(5, 1), (0, 0)],
            memory: vec![
                MemoryAffinity { base: 0, length: 64 << 20, node: 0, hot_pluggable: false },
                MemoryAffinity { base: 1 << 32, length: 1 << 30, node: 1, hot_pluggable: true },
            ],
            distances: vec![vec![10, 21], vec![31, 10]],
        };
        let bytes = super::super::bytes(&srat(&affinity));
        let (mut at, mut kinds) = (48, Vec::new());
        while at < bytes.len() {
            kinds.push(bytes[at]);
            at += usize::from(bytes[at + 1]);
        }
        assert_eq!((at, kinds), (bytes.len(), vec![0, 0, 1, 1]));
        assert_eq!(bytes[48 + 16 + 2..48 + 16 + 8], [1, 5, 1, 0, 0, 0]);
        let last = &bytes[bytes.len() - 40..];
        assert_eq!((last[2], last[28]), (1, 3));
        assert_eq!(u64::from_le_bytes(last[8..16].try_into().unwrap()), 1 << 32);
        let bytes = super::super::bytes(&slit(&affinity));
        assert_eq!(bytes[36..], [2, 0, 0, 0, 0, 0, 0, 0, 10, 21, 31, 10]);
    }
}
