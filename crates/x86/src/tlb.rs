//! The translation look-aside buffer: where the host has the guest pages used lately.

/// Entries of one table.
pub const ENTRIES: usize = 1024;

/// One entry: a page of linear addresses and the host address it is at.
#[derive(Clone, Copy, Debug, zerocopy::FromZeros)]
#[repr(C, align(16))]
pub struct TlbEntry {
    /// The linear address of the page.
    pub tag: u64,
    /// Where the host has its first byte.
    pub host: usize,
}

/// The entries for one kind of access. Presence is permission: what must not be read or written has no entry.
#[derive(Clone, Debug, zerocopy::FromZeros)]
#[repr(C)]
pub struct TlbTable {
    entries: [TlbEntry; ENTRIES],
}

impl TlbTable {
    /// The index of `linear`'s entry.
    #[inline(always)]
    fn index(linear: u64) -> usize {
        (linear >> 12) as usize % ENTRIES
    }

    /// The host address of `size` bytes at `linear`, if its page is here and holds them all.
    #[inline(always)]
    pub fn find(&self, linear: u64, size: usize) -> Option<usize> {
        let entry = &self.entries[Self::index(linear)];
        let offset = linear.wrapping_sub(entry.tag);
        // One comparison covers both the tag and the end of the page.
        (offset <= 4096 - size as u64).then(|| entry.host.wrapping_add(offset as usize))
    }

    /// Remembers that the page of `linear` is at `host`.
    pub fn insert(&mut self, linear: u64, host: usize) {
        self.entries[Self::index(linear)] = TlbEntry { tag: linear & !0xfff, host };
    }

    /// Forgets the page of `linear`.
    pub fn remove(&mut self, linear: u64) {
        let index = Self::index(linear);
        if self.entries[index].tag == linear & !0xfff {
            self.entries[index] = Self::empty(index);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        for (index, entry) in self.entries.iter_mut().enumerate() {
            *entry = Self::empty(index);
        }
    }

    /// An entry that no address of its index matches.
    const fn empty(index: usize) -> TlbEntry {
        TlbEntry { tag: ((index ^ 1) as u64) << 12, host: 0 }
    }
}

impl TlbTable {
    /// A table with no entries.
    pub const fn new() -> Self {
        let mut entries = [Self::empty(0); ENTRIES];
        let mut index = 1;
        while index < ENTRIES {
            entries[index] = Self::empty(index);
            index += 1;
        }
        Self { entries }
    }
}

impl Default for TlbTable {
    fn default() -> Self {
        Self::new()
    }
}

impl TlbSet {
    /// Tables with no entries.
    pub const fn new() -> Self {
        Self { read: TlbTable::new(), write: TlbTable::new() }
    }
}

impl Default for TlbSet {
    fn default() -> Self {
        Self::new()
    }
}

/// Read and write tables of one privilege.
#[derive(Clone, Debug, zerocopy::FromZeros)]
#[repr(C)]
pub struct TlbSet {
    /// For reads.
    pub read: TlbTable,
    /// For writes. A page from which code was decoded has no entry here.
    pub write: TlbTable,
}
