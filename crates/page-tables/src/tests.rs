//! Tables of each form, walked and looked into.

use std::collections::HashMap;

use super::*;

/// Memory of entries, by address, everything else of which is zero; and what was seen.
#[derive(Default)]
struct Seen {
    entries: HashMap<u64, u64>,
    pages: Vec<Page>,
}

impl Memory for Seen {
    fn read(&mut self, physical: u64, bytes: &mut [u8]) -> bool {
        for (number, byte) in (physical..).zip(bytes) {
            let word = self.entries.get(&(number & !7)).copied().unwrap_or(0);
            *byte = word.to_le_bytes()[(number & 7) as usize];
        }
        true
    }
}

impl Visitor for Seen {
    fn table(&mut self, _: Table) -> ControlFlow<(), bool> {
        ControlFlow::Continue(true)
    }

    fn page(&mut self, page: Page) -> ControlFlow<()> {
        self.pages.push(page);
        if self.pages.len() > 1000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn pages(tables: &PageTables, entries: &[(u64, u64)]) -> (Vec<Page>, bool) {
    let mut seen = Seen { entries: entries.iter().copied().collect(), pages: Vec::new() };
    let complete = tables.walk(&mut seen);
    for page in seen.pages.clone().iter().take(100) {
        let inside = page.size - 1;
        assert_eq!(tables.translate(&mut seen, page.linear | inside), Some(page.physical | inside));
    }
    (seen.pages, complete)
}

fn tables(cr4: u64, efer: u64) -> PageTables {
    PageTables::of(&ControlRegisters { cr0: CR0_PAGING, cr3: 0x1000, cr4, efer }).unwrap()
}

fn long(levels: u32) -> PageTables {
    let levels = if levels == 5 { CR4_LA57 } else { 0 };
    tables(CR4_PAE | levels, EFER_LONG_MODE_ACTIVE | EFER_NO_EXECUTE)
}

fn places(pages: &[Page]) -> Vec<(u64, u64, u64)> {
    pages.iter().map(|page| (page.linear, page.physical, page.size)).collect()
}

#[test]
fn pages_of_all_sizes_are_found_with_the_rights_of_their_way() {
    let entries = [
        (0x1000, 0x2007),
        (0x1ff8, 0x2003),
        (0x2000, 0x4000_0000 | 0x87),
        (0x2008, 0x3007),
        (0x3000, 0x60_0000 | NO_EXECUTE | 0x83),
        (0x3008, 0x4005),
        (0x4008, 0x9007),
    ];
    let (found, complete) = pages(&long(4), &entries);
    assert!(complete);
    let low = [(0, 0x4000_0000, 1 << 30), (0x4000_0000, 0x60_0000, 2 << 20), (0x4020_1000, 0x9000, 4096)];
    assert_eq!(places(&found)[..3], low);
    assert_eq!(found[3].linear, 0xffff_ff80_0000_0000);
    let rights = |page: &Page| (page.writable, page.user, page.executable);
    assert_eq!(
        found[..3].iter().map(rights).collect::<Vec<_>>(),
        [(true, true, true), (true, false, false), (false, true, true)]
    );
    assert!(!found[3].user);
}

#[test]
fn five_levels_reach_further_than_four() {
    let entries = [(0x1008, 0x2007), (0x2000, 0x3007), (0x3000, 0x4000_0000 | 0x83)];
    assert_eq!(places(&pages(&long(5), &entries).0), [(1 << 48, 0x4000_0000, 1 << 30)]);
    let mut seen = Seen { entries: entries.into_iter().collect(), pages: Vec::new() };
    assert_eq!(long(5).translate(&mut seen, 1 << 48 | 0x123), Some(0x4000_0123));
    assert_eq!(long(5).translate(&mut seen, 1 << 57), None, "an address that is not canonical");
    assert_eq!(long(4).translate(&mut seen, 1 << 48), None);
}

#[test]
fn narrow_and_pae_tables_are_walked() {
    // Two entries of four bytes in each word.
    let entries = [(0x1000, 0x0080_2083 << 32 | 0x2007), (0x2008, 0x5007)];
    let (found, _) = pages(&tables(CR4_PSE, 0), &entries);
    assert_eq!(places(&found), [(0x2000, 0x5000, 4096), (0x40_0000, 0x1_0080_0000, 4 << 20)]);

    let entries = [(0x6008, 0x20_0000 | 0x83), (0x1018, 0x6001)];
    let (found, _) = pages(&tables(CR4_PAE, 0), &entries);
    assert_eq!(places(&found), [(0xc020_0000, 0x20_0000, 2 << 20)]);
    assert!(found[0].writable && !found[0].user);
    // What the processor keeps counts, not what memory has become.
    let (found, _) = pages(&tables(CR4_PAE, 0).with_pointers([0x6001, 0, 0, 0]), &entries);
    assert_eq!(places(&found), [(0x20_0000, 0x20_0000, 2 << 20)]);
}

#[test]
fn entries_with_reserved_bits_lead_nowhere() {
    let none = |tables: PageTables, entries: &[(u64, u64)]| pages(&tables, entries).0.is_empty();
    let giant = [(0x1000, 0x2007), (0x2000, 0x87)];
    assert!(!none(long(4), &giant));
    assert!(none(long(4).of_processor(40, false), &giant));
    assert!(none(long(4), &[(0x1000, 0x87)]), "no page of 512 GiB");
    assert!(none(long(4), &[(0x1000, 0x2007), (0x2000, 0x2087)]));
    assert!(none(long(4).of_processor(40, true), &[(0x1000, 0x2007), (0x2000, 1 << 40 | 0x87)]));
    assert!(none(tables(CR4_PAE, EFER_LONG_MODE_ACTIVE), &[(0x1000, NO_EXECUTE | 0x2007), (0x2000, 0x87)]));
    assert!(none(tables(CR4_PSE, 0), &[(0x1000, 0x20_0083)]));
    assert_eq!(PageTables::of(&ControlRegisters::default()), None);
}

#[test]
fn tables_that_lead_to_themselves_come_to_an_end() {
    let (found, complete) = pages(&long(5), &[(0x1000, 0x1007), (0x1008, 0x1007)]);
    assert_eq!((found.len(), complete), (32, true));
    let loops: Vec<_> = (0..512).map(|number| (0x1000 + 8 * number, 0x1007)).collect();
    assert!(!pages(&long(4), &loops).1);
}
