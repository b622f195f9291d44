//! What paging is to do with an access, worked out from the specification: a fault with its error code, or the entries as they
//! are afterwards. SDM vol. 3 § 4.5 to 4.8.

pub const P: u64 = 1 << 0;
pub const RW: u64 = 1 << 1;
pub const US: u64 = 1 << 2;
pub const A: u64 = 1 << 5;
pub const D: u64 = 1 << 6;
pub const PS: u64 = 1 << 7;
pub const NX: u64 = 1 << 63;
/// Beyond the addresses of all processors here.
const BEYOND: u64 = 1 << 51;

pub const WP: u32 = 1 << 16;
pub const SMEP: u32 = 1 << 20;
pub const SMAP: u32 = 1 << 21;
pub const PKE: u32 = 1 << 22;
pub const NXE: u32 = 1 << 11;
pub const AC: u32 = 1 << 18;

/// The most levels there are.
pub const LEVELS: usize = 5;

/// How a mapping is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Long mode: the last entries of the walk are for a page of 4 KiB, 2 MiB or 1 GiB.
    FourLevels,
    FiveLevels,
    /// Two or three levels, the first of them without rights; pages of 4 KiB or 2 MiB.
    Pae,
    /// Two levels of 32-bit entries; pages of 4 KiB or 4 MiB.
    Legacy,
}

impl Format {
    pub const fn levels(self) -> usize {
        match self {
            Self::FiveLevels => 5,
            Self::FourLevels => 4,
            Self::Pae => 3,
            Self::Legacy => 2,
        }
    }

    pub const fn is_long(self) -> bool {
        matches!(self, Self::FourLevels | Self::FiveLevels)
    }

    /// Bytes of an entry.
    pub const fn entry_size(self) -> u32 {
        if matches!(self, Self::Legacy) { 4 } else { 8 }
    }

    /// Address bits that the entries of a level, counted from the root, leave to those below.
    pub const fn shift(self, level: usize) -> u32 {
        let below = (self.levels() - 1 - level) as u32;
        12 + below * if matches!(self, Self::Legacy) { 10 } else { 9 }
    }

    /// Whether PS in an entry of a level makes a page of it.
    pub const fn may_be_page(self, level: usize) -> bool {
        match self.shift(level) {
            21 | 22 => true,
            30 => self.is_long(),
            _ => false,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    Execute,
}

/// An access, and all that it depends on.
#[derive(Clone, Copy)]
pub struct Access {
    pub format: Format,
    pub kind: Kind,
    pub user: bool,
    pub cr0: u32,
    pub cr4: u32,
    pub efer: u32,
    pub flags: u32,
    pub pkru: u32,
    /// From the root on; the walk ends at a large page.
    pub entries: [u64; LEVELS],
}

/// What comes of it.
pub struct Outcome {
    /// The error code of a page fault.
    pub fault: Option<u32>,
    pub entries: [u64; LEVELS],
}

impl Access {
    fn has_nx(&self) -> bool {
        self.format.entry_size() == 8 && self.efer & NXE != 0
    }

    /// Bits that must be zero in the entry of a level, counted from the root, that is present.
    fn reserved(&self, level: usize, entry: u64) -> u64 {
        let nx = if self.has_nx() { 0 } else { NX };
        let large = self.format.may_be_page(level) && entry & PS != 0;
        let shift = self.format.shift(level);
        match self.format {
            Format::Legacy if large => 1 << 21,
            Format::Legacy => 0,
            // Of the four of a pointer table: RW, US and more (§ 4.4.1).
            Format::Pae if level == 0 => 0,
            // What is below the address of a page, but for PAT.
            Format::Pae if large => nx | BEYOND | 0x7ff0_0000_001f_e000,
            Format::Pae => nx | BEYOND | 0x7ff0_0000_0000_0000,
            _ if large => nx | BEYOND | ((1 << shift) - 1) & !0x1fff,
            _ if shift > 30 => nx | BEYOND | PS,
            _ => nx | BEYOND,
        }
    }

    /// The model.
    pub fn outcome(&self) -> Outcome {
        let write = self.kind == Kind::Write;
        let execute = self.kind == Kind::Execute && (self.has_nx() || self.cr4 & SMEP != 0);
        let code = u32::from(write) << 1 | u32::from(self.user) << 2 | u32::from(execute) << 4;
        let refused = |code: u32| Outcome { fault: Some(code), entries: self.entries };
        let (mut user, mut writable, mut no_execute) = (true, true, false);
        let mut used = 0;
        for (level, &entry) in self.entries.iter().enumerate().take(self.format.levels()) {
            if entry & P == 0 {
                return refused(code);
            }
            if entry & self.reserved(level, entry) != 0 {
                return refused(code | 1 | 8);
            }
            used = level + 1;
            if self.format == Format::Pae && level == 0 {
                continue;
            }
            user &= entry & US != 0;
            writable &= entry & RW != 0;
            no_execute |= self.has_nx() && entry & NX != 0;
            if self.format.may_be_page(level) && entry & PS != 0 {
                break;
            }
        }
        let leaf = self.entries[used - 1];
        let key = (leaf >> 59 & 15) as u32;
        let protects = self.cr0 & WP != 0;
        let keys = self.format.is_long() && self.cr4 & PKE != 0 && user && self.kind != Kind::Execute;
        let (denied, read_only) = (self.pkru >> (2 * key) & 1 != 0, self.pkru >> (2 * key + 1) & 1 != 0);
        let by_key = keys && (denied || read_only && write && (self.user || protects));
        let allowed = match (self.user, self.kind) {
            (true, Kind::Read) => user,
            (true, Kind::Write) => user && writable,
            (true, Kind::Execute) => user && !no_execute,
            (false, Kind::Execute) => !(no_execute || user && self.cr4 & SMEP != 0),
            (false, kind) => {
                let prevented = user && self.cr4 & SMAP != 0 && self.flags & AC == 0;
                !prevented && (kind == Kind::Read || writable || !protects)
            }
        };
        if !allowed || by_key {
            return refused(code | 1 | u32::from(by_key) << 5);
        }
        let mut entries = self.entries;
        for (level, entry) in entries.iter_mut().enumerate().take(used) {
            if self.format != Format::Pae || level > 0 {
                *entry |= A;
            }
        }
        if write {
            entries[used - 1] |= D;
        }
        Outcome { fault: None, entries }
    }
}

/// Numbers that are the same each time: SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ value >> 31
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.next().is_multiple_of(count)
    }
}

/// The frame that all mappings lead to.
pub const FRAME: u64 = 0x60_4000;
