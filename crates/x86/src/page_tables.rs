//! The pages that page tables map, for people who look at them: all of them, in the order of their addresses.
//!
//! The tables are the guest's: they may loop, and map the same page a billion times. A walk is bounded.
//! Source: Intel SDM vol. 3, ch. 4: 32-bit, PAE, 4-level and 5-level paging.

use std::ops::ControlFlow;

use crate::state::{CpuState, Cr0, Cr4, Efer};

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
/// Where entries of eight bytes have an address.
const FRAME: u64 = 0x000f_ffff_ffff_f000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Two levels of entries of four bytes; whether directories may map 4 MiB.
    Narrow { large: bool },
    /// Four pointers, which the processor holds, and two levels of entries of eight bytes.
    Pae { pointers: [u64; 4] },
    /// Four or five levels of entries of eight bytes.
    Long { levels: u32 },
}

/// The page tables of a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageTables {
    mode: Mode,
    root: u64,
    /// Whether bit 63 of an entry forbids execution.
    no_execute: bool,
    /// Whether there are pages of 1 GiB.
    gigabyte_pages: bool,
}

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its linear address.
    pub linear: u64,
    /// Its physical address.
    pub physical: u64,
    /// Its size.
    pub size: u64,
    /// The entry that maps it.
    pub entry: u64,
    /// Whether all entries on the way let it be written.
    pub writable: bool,
    /// Whether all entries on the way give it to user code.
    pub user: bool,
    /// Whether no entry on the way forbids its execution.
    pub executable: bool,
}

/// The most tables that a walk looks at.
const MOST_TABLES: usize = 1 << 15;

impl CpuState {
    /// The page tables in force; none without paging.
    pub fn page_tables(&self) -> Option<PageTables> {
        if self.cr0 & Cr0::PG.bits() == 0 {
            return None;
        }
        let has = |bit: Cr4| self.cr4 & bit.bits() != 0;
        let (mode, root) = if self.long_mode() {
            (Mode::Long { levels: if has(Cr4::LA57) { 5 } else { 4 } }, self.cr3 & FRAME)
        } else if has(Cr4::PAE) {
            (Mode::Pae { pointers: self.engine.paging.directory_pointers }, 0)
        } else {
            (Mode::Narrow { large: has(Cr4::PSE) }, self.cr3 & 0xffff_f000)
        };
        let no_execute = self.efer & Efer::NXE.bits() != 0;
        Some(PageTables { mode, root, no_execute, gigabyte_pages: self.engine.paging.gigabyte_pages })
    }
}

/// What is passed down the levels.
#[derive(Clone, Copy)]
struct Rights {
    writable: bool,
    user: bool,
    executable: bool,
}

struct Walk<'a> {
    tables: &'a PageTables,
    read: &'a mut dyn FnMut(u64, &mut [u8]) -> bool,
    visit: &'a mut dyn FnMut(Page) -> ControlFlow<()>,
    left: usize,
}

impl PageTables {
    /// Calls `visit` with each page, by rising address, until it breaks. `read` fills its bytes with the memory at a
    /// physical address, or says that there is none. `false` if there was more than is looked at.
    pub fn walk(
        &self,
        read: &mut dyn FnMut(u64, &mut [u8]) -> bool,
        visit: &mut dyn FnMut(Page) -> ControlFlow<()>,
    ) -> bool {
        let mut walk = Walk { tables: self, read, visit, left: MOST_TABLES };
        let rights = Rights { writable: true, user: true, executable: true };
        let result = match self.mode {
            Mode::Narrow { .. } => walk.table(self.root, 22, 0, rights),
            Mode::Pae { pointers } => (0_u64..).zip(pointers).try_for_each(|(number, pointer)| {
                if pointer & PRESENT == 0 {
                    return ControlFlow::Continue(());
                }
                walk.table(pointer & FRAME, 21, number << 30, rights)
            }),
            Mode::Long { levels } => walk.table(self.root, 3 + 9 * levels, 0, rights),
        };
        result.is_continue()
    }

    /// The entry as a page of 1 << `shift` bytes, if it is one and not a table.
    fn page(&self, entry: u64, shift: u32) -> Option<u64> {
        let large = entry & LARGE != 0;
        match (self.mode, shift) {
            (Mode::Narrow { .. }, 12) => Some(entry & 0xffff_f000),
            (Mode::Narrow { large: true }, 22) if large => Some(entry & 0xffc0_0000 | (entry & 0x1f_e000) << 19),
            (_, 12) => Some(entry & FRAME),
            (Mode::Pae { .. } | Mode::Long { .. }, 21) if large => Some(entry & FRAME & !0x1f_ffff),
            (Mode::Long { .. }, 30) if large && self.gigabyte_pages => Some(entry & FRAME & !0x3fff_ffff),
            _ => None,
        }
    }

    /// An address with its sign extended, where addresses have one.
    fn canonical(&self, address: u64) -> u64 {
        match self.mode {
            Mode::Long { levels } => {
                let unused = 64 - 12 - 9 * levels;
                ((address << unused) as i64 >> unused) as u64
            }
            _ => address,
        }
    }
}

impl Walk<'_> {
    /// A table whose entries decide on address bits from `shift` on. As deep as there are levels.
    fn table(&mut self, at: u64, shift: u32, base: u64, rights: Rights) -> ControlFlow<()> {
        if self.left == 0 {
            return ControlFlow::Break(());
        }
        self.left -= 1;
        let mut bytes = [0; 4096];
        if !(self.read)(at, &mut bytes) {
            return ControlFlow::Continue(());
        }
        let narrow = matches!(self.tables.mode, Mode::Narrow { .. });
        let step = if narrow { 4 } else { 8 };
        for (number, entry) in (0_u64..).zip(bytes.chunks_exact(step)) {
            let entry = entry.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
            if entry & PRESENT == 0 {
                continue;
            }
            let linear = base | number << shift;
            let forbidden = !narrow && self.tables.no_execute && entry & NO_EXECUTE != 0;
            let rights = Rights {
                writable: rights.writable && entry & WRITABLE != 0,
                user: rights.user && entry & USER != 0,
                executable: rights.executable && !forbidden,
            };
            if let Some(physical) = self.tables.page(entry, shift) {
                let Rights { writable, user, executable } = rights;
                let linear = self.tables.canonical(linear);
                (self.visit)(Page { linear, physical, size: 1 << shift, entry, writable, user, executable })?;
            } else {
                let (next, bits) = if narrow { (entry & 0xffff_f000, 10) } else { (entry & FRAME, 9) };
                // A directory's entry that says "large" where nothing is leads nowhere.
                if !narrow && entry & LARGE != 0 {
                    continue;
                }
                self.table(next, shift - bits, linear, rights)?;
            }
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Memory of entries, by address; everything else is zero.
    fn pages(tables: &PageTables, entries: &[(u64, u64)]) -> (Vec<Page>, bool) {
        let memory: HashMap<u64, u64> = entries.iter().copied().collect();
        let mut found = Vec::new();
        let mut read = |at: u64, bytes: &mut [u8]| {
            for (number, chunk) in (0..).zip(bytes.chunks_exact_mut(8)) {
                chunk.copy_from_slice(&memory.get(&(at + 8 * number)).copied().unwrap_or(0).to_le_bytes());
            }
            true
        };
        let complete = tables.walk(&mut read, &mut |page| {
            found.push(page);
            if found.len() > 1000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        (found, complete)
    }

    fn long(levels: u32) -> PageTables {
        PageTables { mode: Mode::Long { levels }, root: 0x1000, no_execute: true, gigabyte_pages: true }
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
        let shown: Vec<_> = found.iter().map(|page| (page.linear, page.physical, page.size)).collect();
        let low = [(0, 0x4000_0000, 1 << 30), (0x4000_0000, 0x60_0000, 2 << 20), (0x4020_1000, 0x9000, 4096)];
        assert_eq!(shown[..3], low);
        assert_eq!(shown[3].0, 0xffff_ff80_0000_0000);
        let rights = |page: &Page| (page.writable, page.user, page.executable);
        assert_eq!(
            found[..3].iter().map(rights).collect::<Vec<_>>(),
            [(true, true, true), (true, false, false), (false, true, true)]
        );
        assert!(!found[3].user);
    }

    #[test]
    fn narrow_and_pae_tables_are_walked() {
        let narrow =
            PageTables { mode: Mode::Narrow { large: true }, root: 0x1000, no_execute: false, gigabyte_pages: false };
        // Two entries of four bytes in each word.
        let (found, _) = pages(&narrow, &[(0x1000, 0x0080_2083 << 32 | 0x2007), (0x2008, 0x5007)]);
        let shown: Vec<_> = found.iter().map(|page| (page.linear, page.physical, page.size)).collect();
        assert_eq!(shown, [(0x2000, 0x5000, 4096), (0x40_0000, 0x1_0080_0000, 4 << 20)]);
        let pae = PageTables {
            mode: Mode::Pae { pointers: [0, 0, 0, 0x6001] },
            root: 0,
            no_execute: false,
            gigabyte_pages: false,
        };
        let (found, _) = pages(&pae, &[(0x6008, 0x20_0000 | 0x83)]);
        assert_eq!((found[0].linear, found[0].physical), (0xc020_0000, 0x20_0000));
    }

    #[test]
    fn tables_that_lead_to_themselves_come_to_an_end() {
        let (found, complete) = pages(&long(5), &[(0x1000, 0x1007), (0x1008, 0x1007)]);
        assert_eq!((found.len(), complete), (32, true));
        let loops: Vec<_> = (0..512).map(|number| (0x1000 + 8 * number, 0x1007)).collect();
        assert!(!pages(&long(4), &loops).1);
    }
}
