//! Virtual addresses: what the processors' page tables map.
//!
//! The tables are the guest's: they may loop, point anywhere, or map the same page a billion times. Walking them is
//! bounded by a number of tables and of mappings; what lies beyond is left out.

use std::{
    collections::HashSet,
    ops::{ControlFlow, Range},
};

use rhea_page_tables::{ControlRegisters, Page, PageTables, Table, Visitor};

use crate::{Memory, Processor};

/// Physical memory that appears at a virtual address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// First virtual address.
    pub virtual_address: u64,
    /// First physical address.
    pub physical: u64,
    /// Bytes.
    pub length: u64,
}

/// All that the processors map, neighbours joined; in order, the upper half of addresses before the lower.
#[derive(Debug, Clone, Default)]
pub struct Mappings {
    list: Vec<Mapping>,
    truncated: bool,
}

/// Tables that a walk visits at most: enough to map half a terabyte page by page.
const MOST_TABLES: usize = 1 << 18;
/// Mappings that a walk collects at most, neighbours joined.
const MOST_MAPPINGS: usize = 1 << 20;

/// A walk of page tables, of one processor after another.
struct Walk<'a> {
    memory: &'a dyn Memory,
    ranges: &'a [Range<u64>],
    /// Tables that were walked for an address: processors share most of theirs.
    seen: HashSet<Table>,
    tables_left: usize,
    mappings_left: usize,
    found: Vec<Mapping>,
}

impl Mappings {
    /// Walks the page tables of `processors`. One that does not use paging sees physical memory.
    #[must_use]
    pub fn of(memory: &dyn Memory, processors: &[Processor]) -> Self {
        Self::bounded(memory, processors, MOST_TABLES, MOST_MAPPINGS)
    }

    fn bounded(memory: &dyn Memory, processors: &[Processor], tables_left: usize, mappings_left: usize) -> Self {
        let mut walk = Walk {
            memory,
            ranges: memory.ranges(),
            seen: HashSet::new(),
            tables_left,
            mappings_left,
            found: Vec::new(),
        };
        for processor in processors {
            match tables(processor) {
                Some(tables) => {
                    tables.walk(&mut walk);
                }
                None => {
                    let identity = |range: &Range<u64>| Mapping {
                        virtual_address: range.start,
                        physical: range.start,
                        length: range.end.saturating_sub(range.start),
                    };
                    walk.found.extend(walk.ranges.iter().map(identity));
                }
            }
        }
        let truncated = walk.tables_left == 0 || walk.mappings_left == 0;
        Self { list: joined(walk.found), truncated }
    }

    /// The mappings, ascending by virtual address as a signed number.
    #[must_use]
    pub fn as_slice(&self) -> &[Mapping] {
        &self.list
    }

    /// Whether the tables held more than is walked, so that some mappings are missing.
    #[must_use]
    pub const fn truncated(&self) -> bool {
        self.truncated
    }
}

/// The page tables of a processor, if it uses any.
const fn tables(processor: &Processor) -> Option<PageTables> {
    let Processor { cr0, cr3, cr4, efer, .. } = *processor;
    PageTables::of(&ControlRegisters { cr0, cr3, cr4, efer })
}

impl rhea_page_tables::Memory for Walk<'_> {
    fn read(&mut self, physical: u64, bytes: &mut [u8]) -> bool {
        self.memory.read(physical, bytes).is_ok()
    }
}

impl Visitor for Walk<'_> {
    fn table(&mut self, table: Table) -> ControlFlow<(), bool> {
        if self.tables_left == 0 || self.mappings_left == 0 {
            return ControlFlow::Break(());
        }
        let is_new = self.seen.insert(table);
        self.tables_left -= usize::from(is_new);
        ControlFlow::Continue(is_new)
    }

    fn page(&mut self, page: Page) -> ControlFlow<()> {
        self.add(Mapping { virtual_address: page.linear, physical: page.physical, length: page.size });
        if self.mappings_left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Walk<'_> {
    /// Takes in a page if any of it is RAM.
    fn add(&mut self, page: Mapping) {
        let end = page.physical.saturating_add(page.length);
        let first = self.ranges.partition_point(|range| range.end <= page.physical);
        if self.ranges.get(first).is_none_or(|range| range.start >= end) {
            return;
        }
        if let Some(last) = self.found.last_mut()
            && last.virtual_address.wrapping_add(last.length) == page.virtual_address
            && last.physical.wrapping_add(last.length) == page.physical
        {
            last.length += page.length;
            return;
        }
        self.mappings_left -= 1;
        self.found.push(page);
    }
}

/// Joins what overlaps or follows on with the same distance between virtual and physical addresses.
fn joined(mut found: Vec<Mapping>) -> Vec<Mapping> {
    found.sort_unstable_by_key(|one| (one.physical.wrapping_sub(one.virtual_address), one.virtual_address));
    found.dedup_by(|next, kept| {
        let distance = next.virtual_address.wrapping_sub(kept.virtual_address);
        let same = next.physical.wrapping_sub(kept.physical) == distance && distance <= kept.length;
        if same {
            kept.length = kept.length.max(distance.saturating_add(next.length));
        }
        same
    });
    // The upper half comes first: makedumpfile takes the first mapping for the kernel's own of all memory.
    found.sort_unstable_by_key(|one| (one.virtual_address.cast_signed(), one.physical));
    found
}

/// The physical address behind a virtual one, as `processor` translates it; none where nothing is mapped.
#[must_use]
pub fn translate(memory: &dyn Memory, processor: &Processor, address: u64) -> Option<u64> {
    match tables(processor) {
        Some(tables) => tables.translate(&mut |at, bytes: &mut [u8]| memory.read(at, bytes).is_ok(), address),
        None => Some(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Unreadable;

    const CR0_PAGING: u64 = 1 << 31;
    const CR4_PSE: u64 = 1 << 4;
    const CR4_PAE: u64 = 1 << 5;
    /// Long mode is active, and entries can forbid execution.
    const EFER: u64 = 1 << 10 | 1 << 11;
    const FRAME: u64 = 0x000f_ffff_ffff_f000;

    struct Ram(Vec<u8>, [Range<u64>; 1]);

    impl Ram {
        fn new(size: u64) -> Self {
            Self(vec![0; size as usize], [0..size])
        }

        fn entry(&mut self, table: u64, number: u64, value: u64) {
            let at = (table + number * 8) as usize;
            self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }

        fn entry32(&mut self, table: u64, number: u64, value: u32) {
            let at = (table + number * 4) as usize;
            self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    }

    impl Memory for Ram {
        fn ranges(&self) -> &[Range<u64>] {
            &self.1
        }

        fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
            let start = usize::try_from(address).map_err(|_| Unreadable(address))?;
            let end = start.checked_add(into.len()).ok_or(Unreadable(address))?;
            into.copy_from_slice(self.0.get(start..end).ok_or(Unreadable(address))?);
            Ok(())
        }
    }

    fn long(cr3: u64) -> Processor {
        Processor { cr0: CR0_PAGING, cr3, cr4: CR4_PAE, efer: EFER, ..Processor::default() }
    }

    fn mapping(virtual_address: u64, physical: u64, length: u64) -> Mapping {
        Mapping { virtual_address, physical, length }
    }

    #[test]
    fn pages_of_all_sizes_are_found_joined_and_sign_extended() {
        let mut ram = Ram::new(4 << 20);
        ram.entry(0x1000, 511, 0x2003); // top half
        ram.entry(0x2000, 510, 0x3003);
        ram.entry(0x2000, 511, 0x83); // 1 GiB at 0
        ram.entry(0x3000, 0, 0x20_0083); // 2 MiB at 2 MiB
        ram.entry(0x3000, 1, 0x4003);
        ram.entry(0x4000, 0, 0x8000_0000_0000_5003); // no execution
        ram.entry(0x4000, 1, 0x6003);
        ram.entry(0x4000, 2, 0xfee0_0003); // no RAM
        let mappings = Mappings::of(&ram, &[long(0x1000), long(0x1fff)]);
        let high = 0xffff_ffff_8000_0000;
        assert_eq!(
            mappings.as_slice(),
            [
                mapping(high, 0x20_0000, 0x20_0000),
                mapping(high + 0x20_0000, 0x5000, 0x2000),
                mapping(high + 0x4000_0000, 0, 1 << 30)
            ]
        );
        assert!(!mappings.truncated());
        assert_eq!(translate(&ram, &long(0x1000), high + 0x12_3456), Some(0x32_3456));
        assert_eq!(translate(&ram, &long(0x1000), high + 0x20_1234), Some(0x6234));
        assert_eq!(translate(&ram, &long(0x1000), 0x1000), None);
    }

    #[test]
    fn tables_that_point_at_themselves_end() {
        let mut ram = Ram::new(1 << 20);
        for number in 0..512 {
            ram.entry(0x1000, number, 0x1003);
        }
        let mappings = Mappings::bounded(&ram, &[long(0x1000)], 1000, 100_000);
        assert!(mappings.truncated());
        assert!(!mappings.as_slice().is_empty());
        assert!(Mappings::bounded(&ram, &[long(0x1000)], 1000, 10).as_slice().len() <= 10);
    }

    #[test]
    fn what_one_processor_used_up_is_not_there_for_the_next() {
        let mut ram = Ram::new(1 << 20);
        for number in 0..512 {
            ram.entry(0x1000, number, 0x2003);
            ram.entry(0x2000, number, 0x1003);
        }
        let mappings = Mappings::bounded(&ram, &[long(0x1000), long(0x2000)], 1000, 10);
        assert!(mappings.truncated());
        assert!(mappings.as_slice().len() <= 10);
    }

    #[test]
    fn tables_out_of_memory_map_nothing() {
        let mut ram = Ram::new(1 << 20);
        ram.entry(0x1000, 0, FRAME | 3);
        assert!(Mappings::of(&ram, &[long(0x1000), long(FRAME)]).as_slice().is_empty());
        assert_eq!(translate(&ram, &long(FRAME), 0), None);
        assert_eq!(translate(&ram, &long(0x1000), 0), None);
    }

    #[test]
    fn older_modes_are_walked_too() {
        let mut ram = Ram::new(8 << 20);
        ram.entry32(0x1000, 768, 0x40_0083); // 4 MiB
        ram.entry32(0x1000, 0, 0x2003);
        ram.entry32(0x2000, 1, 0x7003);
        let bits32 = Processor { cr0: CR0_PAGING, cr3: 0x1000, cr4: CR4_PSE, ..Processor::default() };
        let expected = [mapping(0x1000, 0x7000, 0x1000), mapping(0xc000_0000, 0x40_0000, 0x40_0000)];
        assert_eq!(Mappings::of(&ram, &[bits32]).as_slice(), expected);
        assert_eq!(translate(&ram, &bits32, 0xc000_1234), Some(0x40_1234));

        ram.entry(0x3020, 3, 0x4001); // directory pointers need only 32 bytes of alignment
        ram.entry(0x4000, 0, 0x40_0083);
        let pae = Processor { cr0: CR0_PAGING, cr3: 0x3020, cr4: CR4_PAE, ..Processor::default() };
        assert_eq!(Mappings::of(&ram, &[pae]).as_slice(), [mapping(0xc000_0000, 0x40_0000, 0x20_0000)]);

        let off = Processor::default();
        assert_eq!(Mappings::of(&ram, &[off, off]).as_slice(), [mapping(0, 0, 8 << 20)]);
    }
}
