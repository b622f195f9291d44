//! What page tables map, for whoever looks at them from outside of the processor: a dump, people, a debugger.
//!
//! The tables are the guest's: they may loop, point anywhere, or map the same page a billion times. A walk is as deep as
//! there are levels; how many tables it looks at is for its visitor to bound. The processor's own way through them, which
//! checks rights and leaves traces, is its memory management unit's.
//! Source: Intel SDM vol. 3, ch. 4 (cited as §): 32-bit, PAE, 4-level and 5-level paging.

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

const CR0_PAGING: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
const EFER_LONG_MODE_ACTIVE: u64 = 1 << 10;
const EFER_NO_EXECUTE: u64 = 1 << 11;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
/// Where entries of eight bytes have an address.
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// The registers that say where the tables are and of which form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlRegisters {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Two levels of entries of four bytes; whether directories may map 4 MiB.
    Narrow { large: bool },
    /// Four pointers, which a processor keeps from the time when CR3 was loaded, and two levels of entries of eight bytes.
    Pae { kept: Option<[u64; 4]> },
    /// Four or five levels of entries of eight bytes.
    Long { levels: u32 },
}

/// The page tables of a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageTables {
    mode: Mode,
    root: u64,
    /// Whether bit 63 of an entry forbids execution; otherwise it is reserved.
    no_execute: bool,
    /// Whether there are pages of 1 GiB.
    gigabyte_pages: bool,
    /// Bits of an address that the processor has not.
    beyond_physical: u64,
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

/// Reads memory: fills the bytes with what is at a physical address, or says that there is none.
pub trait Memory {
    /// Fills `bytes` with what is at `physical`; `false` if there is nothing.
    fn read(&mut self, physical: u64, bytes: &mut [u8]) -> bool;
}

impl<F: FnMut(u64, &mut [u8]) -> bool> Memory for F {
    fn read(&mut self, physical: u64, bytes: &mut [u8]) -> bool {
        self(physical, bytes)
    }
}

/// A table on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Table {
    /// Its physical address.
    pub physical: u64,
    /// The first linear address that it is for, before its sign is extended.
    pub linear: u64,
    /// log2 of what an entry of it is for.
    pub shift: u32,
}

/// Who sees what is mapped.
pub trait Visitor: Memory {
    /// A table is come to: whether it is to be looked at. Breaks to end the walk, as it has to at some time.
    fn table(&mut self, table: Table) -> ControlFlow<(), bool>;

    /// A page is found.
    fn page(&mut self, page: Page) -> ControlFlow<()>;
}

/// What an entry leads to.
enum Entry {
    Nothing,
    Table(u64),
    Page(u64),
}

/// What is passed down the levels.
#[derive(Clone, Copy)]
struct Rights {
    writable: bool,
    user: bool,
    executable: bool,
}

impl PageTables {
    /// The tables in force; none without paging. PAE's four pointers are looked for in memory, pages may be of 1 GiB, and
    /// addresses have as many bits as fit into an entry, unless more is known.
    pub const fn of(registers: &ControlRegisters) -> Option<Self> {
        let ControlRegisters { cr0, cr3, cr4, efer } = *registers;
        if cr0 & CR0_PAGING == 0 {
            return None;
        }
        let (mode, root) = if efer & EFER_LONG_MODE_ACTIVE != 0 {
            (Mode::Long { levels: if cr4 & CR4_LA57 != 0 { 5 } else { 4 } }, cr3 & FRAME)
        } else if cr4 & CR4_PAE != 0 {
            (Mode::Pae { kept: None }, cr3 & 0xffff_ffe0)
        } else {
            (Mode::Narrow { large: cr4 & CR4_PSE != 0 }, cr3 & 0xffff_f000)
        };
        let no_execute = efer & EFER_NO_EXECUTE != 0;
        Some(Self { mode, root, no_execute, gigabyte_pages: true, beyond_physical: 0 })
    }

    /// The same of a processor with this many bits of physical address, and with pages of 1 GiB or without.
    #[must_use]
    pub const fn of_processor(self, physical_bits: u32, gigabyte_pages: bool) -> Self {
        let beyond_physical = if physical_bits < 64 { !0 << physical_bits } else { 0 };
        Self { gigabyte_pages, beyond_physical, ..self }
    }

    /// The same with the pointers that the processor keeps, should it use PAE paging.
    #[must_use]
    pub const fn with_pointers(mut self, pointers: [u64; 4]) -> Self {
        if let Mode::Pae { kept } = &mut self.mode {
            *kept = Some(pointers);
        }
        self
    }

    /// Shows `visitor` each page, by rising address before its sign is extended, until it breaks. `false` if it did.
    pub fn walk(&self, visitor: &mut impl Visitor) -> bool {
        let rights = Rights { writable: true, user: true, executable: true };
        let root = Table { physical: self.root, linear: 0, shift: self.first_shift() };
        self.table(visitor, root, rights).is_continue()
    }

    /// The physical address behind a linear one; none where nothing is mapped. No rights are asked for.
    pub fn translate(&self, memory: &mut impl Memory, linear: u64) -> Option<u64> {
        let linear = match self.mode {
            Mode::Long { .. } if self.canonical(linear) != linear => return None,
            Mode::Long { .. } => linear,
            Mode::Narrow { .. } | Mode::Pae { .. } => linear & 0xffff_ffff,
        };
        let (mut table, mut shift) = (self.root, self.first_shift());
        loop {
            let number = linear >> shift & (self.entries(shift) - 1);
            let entry = match self.mode {
                Mode::Pae { kept: Some(pointers) } if shift == 30 => pointers.get(number as usize).copied()?,
                _ => {
                    let mut entry = [0; 8];
                    let bytes = entry.get_mut(..self.entry_size())?;
                    let at = table.checked_add(number * self.entry_size() as u64)?;
                    memory.read(at, bytes).then(|| u64::from_le_bytes(entry))?
                }
            };
            match self.decode(entry, shift) {
                Entry::Nothing => return None,
                Entry::Page(page) => return Some(page | linear & ((1 << shift) - 1)),
                Entry::Table(next) => table = next,
            }
            shift = shift.checked_sub(self.index_bits())?;
        }
    }

    const fn is_narrow(&self) -> bool {
        matches!(self.mode, Mode::Narrow { .. })
    }

    /// log2 of what an entry of the topmost table is for.
    const fn first_shift(&self) -> u32 {
        match self.mode {
            Mode::Narrow { .. } => 22,
            Mode::Pae { .. } => 30,
            Mode::Long { levels } => 3 + 9 * levels,
        }
    }

    const fn index_bits(&self) -> u32 {
        if self.is_narrow() { 10 } else { 9 }
    }

    const fn entry_size(&self) -> usize {
        if self.is_narrow() { 4 } else { 8 }
    }

    /// How many entries a table has.
    const fn entries(&self, shift: u32) -> u64 {
        match self.mode {
            Mode::Pae { .. } if shift == 30 => 4,
            _ => 1 << self.index_bits(),
        }
    }

    /// What an entry of a table leads to. One with reserved bits set leads nowhere.
    fn decode(&self, entry: u64, shift: u32) -> Entry {
        if entry & PRESENT == 0 {
            return Entry::Nothing;
        }
        let leads = |reserved: bool, to: Entry| if reserved { Entry::Nothing } else { to };
        match self.mode {
            Mode::Narrow { .. } if shift == 12 => Entry::Page(entry & 0xffff_f000),
            Mode::Narrow { large: true } if entry & LARGE != 0 => {
                // § 4.3: bits 13 to 20 are bits 32 to 39 of the address.
                let page = entry & 0xffc0_0000 | (entry & 0x1f_e000) << 19;
                leads(entry & 1 << 21 != 0 || page & self.beyond_physical != 0, Entry::Page(page))
            }
            Mode::Narrow { .. } => Entry::Table(entry & 0xffff_f000),
            // § 4.4.1: what is reserved there was looked at when the pointers were loaded.
            Mode::Pae { .. } if shift == 30 => Entry::Table(entry & FRAME),
            Mode::Pae { .. } | Mode::Long { .. } => {
                let long = matches!(self.mode, Mode::Long { .. });
                let mut reserved = self.beyond_physical & if long { FRAME } else { !NO_EXECUTE };
                if !self.no_execute {
                    reserved |= NO_EXECUTE;
                }
                let large = shift > 12 && entry & LARGE != 0;
                if large {
                    reserved |= match shift {
                        21 => 0x1f_e000,
                        30 if self.gigabyte_pages => 0x3fff_e000,
                        _ => LARGE,
                    };
                }
                let page = entry & FRAME & !((1 << shift) - 1);
                let to = if large || shift == 12 { Entry::Page(page) } else { Entry::Table(entry & FRAME) };
                leads(entry & reserved != 0, to)
            }
        }
    }

    /// An address with its sign extended, where addresses have one.
    const fn canonical(&self, address: u64) -> u64 {
        match self.mode {
            Mode::Long { levels } => {
                let unused = 64 - 12 - 9 * levels;
                ((address << unused).cast_signed() >> unused).cast_unsigned()
            }
            Mode::Narrow { .. } | Mode::Pae { .. } => address,
        }
    }

    /// As deep as there are levels.
    fn table(&self, visitor: &mut impl Visitor, table: Table, rights: Rights) -> ControlFlow<()> {
        if !visitor.table(table)? {
            return ControlFlow::Continue(());
        }
        let Table { physical, linear, shift } = table;
        let mut bytes = [0; 4096];
        let length = self.entries(shift) as usize * self.entry_size();
        let Some(bytes) = bytes.get_mut(..length) else { return ControlFlow::Continue(()) };
        if let Mode::Pae { kept: Some(pointers) } = self.mode
            && shift == 30
        {
            for (bytes, pointer) in bytes.chunks_exact_mut(8).zip(pointers) {
                bytes.copy_from_slice(&pointer.to_le_bytes());
            }
        } else if !visitor.read(physical, bytes) {
            return ControlFlow::Continue(());
        }
        // PAE's pointers say nothing of rights.
        let has_rights = !matches!(self.mode, Mode::Pae { .. }) || shift != 30;
        for (number, entry) in (0_u64..).zip(bytes.chunks_exact(self.entry_size())) {
            let entry = entry.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
            let linear = linear | number << shift;
            let rights = Rights {
                writable: rights.writable && (!has_rights || entry & WRITABLE != 0),
                user: rights.user && (!has_rights || entry & USER != 0),
                executable: rights.executable && entry & NO_EXECUTE == 0,
            };
            match self.decode(entry, shift) {
                Entry::Nothing => {}
                Entry::Page(physical) => {
                    let Rights { writable, user, executable } = rights;
                    let linear = self.canonical(linear);
                    visitor.page(Page { linear, physical, size: 1 << shift, entry, writable, user, executable })?;
                }
                Entry::Table(next) => {
                    let next = Table { physical: next, linear, shift: shift - self.index_bits() };
                    self.table(visitor, next, rights)?;
                }
            }
        }
        ControlFlow::Continue(())
    }
}
