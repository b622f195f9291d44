//! RAM in the memory map, ordered for quick lookup: page walks and TLB fills come here.

use std::sync::Arc;

use rhea_core::{
    Ram,
    memory::{FlatView, PAGE, Target},
};

/// Whole pages of RAM, contiguous in guest and host.
#[derive(Clone, Debug)]
pub(crate) struct RamRange {
    /// First guest physical address.
    pub(crate) base: u64,
    /// Bytes, a whole number of pages.
    pub(crate) length: u64,
    /// Where the host has the first byte.
    pub(crate) host: usize,
    /// Where `base` lies in the RAM.
    pub(crate) offset: u64,
    /// The RAM, which this keeps alive.
    pub(crate) ram: Arc<Ram>,
    /// Whether the guest may write it.
    pub(crate) writable: bool,
}

/// All RAM ranges, the largest first: most accesses are to that one.
#[derive(Debug, Default)]
pub(crate) struct RamMap {
    ranges: Vec<RamRange>,
}

impl RamMap {
    /// The RAM of `view`.
    pub(crate) fn new(view: &FlatView) -> Self {
        let mut ranges = Vec::new();
        for range in view.ranges() {
            let Target::Ram { ram, writable, .. } = &range.target else { continue };
            // Pages that are only partly RAM, or lie askew in it, are left to slower ways.
            if !(range.base.wrapping_sub(range.offset)).is_multiple_of(PAGE) {
                continue;
            }
            let Some(base) = range.base.checked_next_multiple_of(PAGE) else { continue };
            let offset = range.offset + (base - range.base);
            let Some(in_view) = range.last.checked_sub(base).map(|last| last.saturating_add(1) & !(PAGE - 1)) else {
                continue;
            };
            let length = in_view.min(ram.len().saturating_sub(offset));
            let Some(host) = ram.host(offset).filter(|_| length > 0) else { continue };
            ranges.push(RamRange {
                base,
                length,
                host: host.as_ptr() as usize,
                offset,
                ram: Arc::clone(ram),
                writable: *writable,
            });
        }
        ranges.sort_by_key(|range| u64::MAX - range.length);
        Self { ranges }
    }

    /// The range that holds `address`.
    #[inline]
    pub(crate) fn find(&self, address: u64) -> Option<&RamRange> {
        self.ranges.iter().find(|range| address.wrapping_sub(range.base) < range.length)
    }
}

impl RamRange {
    /// Where the host has `address`, which lies inside.
    #[inline]
    pub(crate) fn host_of(&self, address: u64) -> usize {
        self.host + (address - self.base) as usize
    }

    /// Where `address`, which lies inside, is in the RAM.
    #[inline]
    pub(crate) fn offset_of(&self, address: u64) -> u64 {
        self.offset + (address - self.base)
    }
}
