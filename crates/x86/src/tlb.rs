//! The translation look-aside buffer: where the host has the guest pages used lately.

/// Entries of one table.
pub const ENTRIES: usize = 1024;

/// One entry: a page of linear addresses and the host address it is at.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub struct TlbEntry {
    /// The linear address of the page.
    pub tag: u64,
    /// Where the host has its first byte.
    pub host: usize,
}

/// The entries for one kind of access. Presence is permission: what must not be read or written has no entry.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct TlbTable {
    entries: [TlbEntry; ENTRIES],
    /// One bit an entry: it is in use.
    used: [u64; ENTRIES / 64],
    /// One bit an entry: it outlives a change of address space.
    global: [u64; ENTRIES / 64],
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
        Self { entries, used: [0; ENTRIES / 64], global: [0; ENTRIES / 64] }
    }

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

    /// Remembers that the page of `linear` is at `host`; a global one outlives a change of address space.
    pub fn insert(&mut self, linear: u64, host: usize, global: bool) {
        let index = Self::index(linear);
        self.entries[index] = TlbEntry { tag: linear & !0xfff, host };
        let (word, bit) = (index / 64, 1 << (index % 64));
        self.used[word] |= bit;
        if global {
            self.global[word] |= bit;
        } else {
            self.global[word] &= !bit;
        }
    }

    /// Forgets the page of `linear`.
    pub fn remove(&mut self, linear: u64) {
        self.remove_if(Self::index(linear), |entry| entry.tag == linear & !0xfff);
    }

    fn remove_if(&mut self, index: usize, condition: impl Fn(&TlbEntry) -> bool) {
        if condition(&self.entries[index]) {
            self.entries[index] = Self::empty(index);
            self.used[index / 64] &= !(1 << (index % 64));
        }
    }

    /// Forgets the entries that `condition` holds for.
    pub fn remove_where(&mut self, condition: impl Fn(&TlbEntry) -> bool) {
        for word in 0..self.used.len() {
            let mut bits = self.used[word];
            while bits != 0 {
                self.remove_if(64 * word + bits.trailing_zeros() as usize, &condition);
                bits &= bits - 1;
            }
        }
    }

    /// Forgets everything, or everything that is not global.
    pub fn clear(&mut self, keep_global: bool) {
        for word in 0..self.used.len() {
            let keep = if keep_global { self.global[word] } else { 0 };
            let mut bits = self.used[word] & !keep;
            self.used[word] &= keep;
            while bits != 0 {
                let index = 64 * word + bits.trailing_zeros() as usize;
                self.entries[index] = Self::empty(index);
                bits &= bits - 1;
            }
        }
    }

    /// An entry that no address of its index matches.
    const fn empty(index: usize) -> TlbEntry {
        TlbEntry { tag: ((index ^ 1) as u64) << 12, host: 0 }
    }
}

impl Default for TlbTable {
    fn default() -> Self {
        Self::new()
    }
}

/// Read and write tables of one privilege.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct TlbSet {
    /// For reads.
    pub read: TlbTable,
    /// For writes. A page from which code was decoded has no entry here.
    pub write: TlbTable,
}

impl TlbSet {
    /// Tables with no entries.
    pub const fn new() -> Self {
        Self { read: TlbTable::new(), write: TlbTable::new() }
    }

    /// Forgets everything, or everything that is not global.
    pub fn clear(&mut self, keep_global: bool) {
        self.read.clear(keep_global);
        self.write.clear(keep_global);
    }

    /// Forgets the page of `linear`.
    pub fn remove(&mut self, linear: u64) {
        self.read.remove(linear);
        self.write.remove(linear);
    }

    /// Forgets the entries that `condition` holds for.
    pub fn remove_where(&mut self, condition: impl Fn(&TlbEntry) -> bool) {
        self.read.remove_where(&condition);
        self.write.remove_where(&condition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_table_finds_nothing() {
        let table = TlbTable::new();
        for page in 0..2 * ENTRIES as u64 {
            assert_eq!(table.find(page << 12, 1), None, "{page:#x}");
            assert_eq!(table.find((page << 12) + 0xfff, 1), None, "{page:#x}");
        }
    }

    #[test]
    fn an_entry_covers_its_page_and_no_access_past_its_end() {
        let mut table = TlbTable::new();
        table.insert(0x1234_5678, 0x10_0000, false);
        assert_eq!(table.find(0x1234_5000, 8), Some(0x10_0000));
        assert_eq!(table.find(0x1234_5ff8, 8), Some(0x10_0ff8));
        assert_eq!(table.find(0x1234_5ff9, 8), None);
        assert_eq!(table.find(0x1234_4fff, 1), None);
        assert_eq!(table.find(0x1234_6000, 1), None);
        table.remove(0x1234_5000);
        assert_eq!(table.find(0x1234_5000, 8), None);
    }

    #[test]
    fn global_entries_outlive_a_change_of_address_space() {
        let mut table = TlbTable::new();
        table.insert(0x1000, 1 << 20, true);
        table.insert(0x2000, 2 << 20, false);
        table.clear(true);
        assert!(table.find(0x1000, 1).is_some());
        assert!(table.find(0x2000, 1).is_none());
        // A later entry in the same place does not inherit it.
        table.insert(0x1000 + ((ENTRIES as u64) << 12), 3 << 20, false);
        table.clear(true);
        assert!(table.find(0x1000 + ((ENTRIES as u64) << 12), 1).is_none());
        table.insert(0x1000, 1 << 20, true);
        table.clear(false);
        assert!(table.find(0x1000, 1).is_none());
    }
}
