//! The map of physical memory that firmware tells the operating system (the "e820" map). ACPI 5.0 chapter 15.

/// What a range of memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// Free for the operating system.
    Usable = 1,
    /// Not to be used.
    Reserved = 2,
    /// ACPI tables: free once they were read.
    AcpiReclaim = 3,
    /// Kept over sleep.
    AcpiNvs = 4,
}

/// A range of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// First address.
    pub base: u64,
    /// Length in bytes.
    pub length: u64,
    /// What it is.
    pub kind: Kind,
}

/// Bytes at the end of memory below 4 GiB that ACPI takes, without tables of the user's: a page for the FACS, one that
/// no one else uses, and the tables of 256 memory slots and 30 bridges.
const ACPI: u64 = 128 * 1024;
const PAGE: u64 = 4096;

/// The memory map of a PC with the given RAM.
#[derive(Clone, Debug)]
pub struct MemoryMap {
    entries: Vec<MemoryRange>,
    below_4g: u64,
    above_4g: u64,
    facs: u64,
    tables_length: u64,
}

impl MemoryMap {
    /// The map for `below_4g` bytes of RAM at address zero and `above_4g` bytes at 4 GiB, with room for `more` bytes of
    /// tables.
    pub fn new(below_4g: u64, above_4g: u64, more: u64) -> Self {
        let acpi = ACPI.saturating_add(more.saturating_add(PAGE - 1) & !(PAGE - 1));
        let facs = below_4g.saturating_sub(acpi);
        let tables_length = acpi - 2 * PAGE;
        let mut entries = vec![
            MemoryRange { base: 0, length: 0x9_fc00, kind: Kind::Usable },
            MemoryRange { base: 0x9_fc00, length: 0x400, kind: Kind::Reserved },
            MemoryRange { base: 0xf_0000, length: 0x1_0000, kind: Kind::Reserved },
        ];
        if facs > 0x10_0000 {
            entries.push(MemoryRange { base: 0x10_0000, length: facs - 0x10_0000, kind: Kind::Usable });
        }
        entries.push(MemoryRange { base: facs, length: PAGE, kind: Kind::AcpiNvs });
        entries.push(MemoryRange { base: facs + PAGE, length: PAGE, kind: Kind::Reserved });
        entries.push(MemoryRange { base: facs + 2 * PAGE, length: tables_length, kind: Kind::AcpiReclaim });
        if above_4g > 0 {
            entries.push(MemoryRange { base: 1 << 32, length: above_4g, kind: Kind::Usable });
        }
        Self { entries, below_4g, above_4g, facs, tables_length }
    }

    /// All ranges, by address.
    pub fn entries(&self) -> &[MemoryRange] {
        &self.entries
    }

    /// Bytes of RAM below 4 GiB.
    pub fn below_4g(&self) -> u64 {
        self.below_4g
    }

    /// Bytes of RAM from 4 GiB on.
    pub fn above_4g(&self) -> u64 {
        self.above_4g
    }

    /// Where the FACS goes, in memory that is kept over sleep.
    pub fn facs(&self) -> u64 {
        self.facs
    }

    /// Where the identifier of the machine's generation goes, in a page that nobody uses, saves or restores.
    pub fn generation_id(&self) -> u64 {
        self.facs + PAGE
    }

    /// Where the other ACPI tables go.
    pub fn acpi_tables(&self) -> u64 {
        self.facs + 2 * PAGE
    }

    /// How many bytes the other ACPI tables may take.
    pub fn acpi_tables_length(&self) -> u64 {
        self.tables_length
    }

    /// Whether `start` up to, but not including, `end` is all usable and below 4 GiB.
    pub fn usable_below_4g(&self, start: u64, end: u64) -> bool {
        self.usable().any(|range| range.base <= start && end <= range.base + range.length && end <= 1 << 32)
    }

    /// The highest page-aligned address at which `length` usable bytes end at or below `limit`.
    pub fn highest_below(&self, limit: u64, length: u64) -> Option<u64> {
        self.usable()
            .filter(|range| range.base < 1 << 32)
            .filter_map(|range| {
                let end = limit.min(range.base + range.length);
                let at = end.checked_sub(length)? & !0xfff;
                (at >= range.base).then_some(at)
            })
            .max()
    }

    fn usable(&self) -> impl Iterator<Item = &MemoryRange> {
        self.entries.iter().filter(|range| range.kind == Kind::Usable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_in_order_and_do_not_overlap() {
        for (below, above) in [(1_u64 << 20, 0), (16 << 20, 0), (0xc000_0000, 5 << 30)] {
            let map = MemoryMap::new(below, above, 5000);
            if below > 1 << 20 {
                for pair in map.entries().windows(2) {
                    assert!(pair[0].base + pair[0].length <= pair[1].base, "{pair:x?}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_placed_over_the_tables_or_past_the_limit() {
        let map = MemoryMap::new(64 << 20, 0, 0);
        let at = map.highest_below(u64::MAX, 0x1234).unwrap();
        assert!(at + 0x1234 <= map.facs());
        assert_eq!(map.highest_below(0x200_0000, 0x1000), Some(0x1ff_f000));
        assert_eq!(map.highest_below(u64::MAX, 1 << 40), None);
        assert!(!map.usable_below_4g(0x9_f000, 0xa_0000));
    }
}
