//! Guest RAM as devices reach it that master the bus: the libraries' view of memory over our own address space.
//!
//! What is written this way is told to the RAM, so that no processor runs code that is no longer there. It makes slices
//! of mapped memory, so it may be unsafe.
#![allow(unsafe_code)]

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion, GuestMemoryRegionBytes,
    GuestRegionCollection, MemoryRegionAddress, VolatileSlice,
    bitmap::{BS, Bitmap, BitmapSlice, WithBitmapSlice},
};

use super::{AddressSpace, FlatView, Ram, Target};

/// All RAM that devices may read and write, by address.
pub type GuestRam = GuestRegionCollection<RamRegion>;

/// Tells the RAM of writes: what the libraries take for a bitmap of dirty pages.
#[derive(Clone, Debug)]
pub struct WriteLog {
    ram: Arc<Ram>,
    offset: u64,
}

/// A part of a [`WriteLog`].
#[derive(Clone, Copy, Debug)]
pub struct WriteLogSlice<'a> {
    ram: &'a Ram,
    offset: u64,
}

impl<'a> WithBitmapSlice<'a> for WriteLog {
    type S = WriteLogSlice<'a>;
}

impl WithBitmapSlice<'_> for WriteLogSlice<'_> {
    type S = Self;
}

impl BitmapSlice for WriteLogSlice<'_> {}

impl Bitmap for WriteLog {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.slice_at(offset).mark_dirty(0, len);
    }

    fn dirty_at(&self, _: usize) -> bool {
        false
    }

    fn slice_at(&self, offset: usize) -> WriteLogSlice<'_> {
        WriteLogSlice { ram: &self.ram, offset: self.offset + offset as u64 }
    }
}

impl Bitmap for WriteLogSlice<'_> {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.ram.note_write(self.offset + offset as u64, len as u64);
    }

    /// Nobody asks: dirty pages are the RAM's business.
    fn dirty_at(&self, _: usize) -> bool {
        false
    }

    fn slice_at(&self, offset: usize) -> Self {
        Self { ram: self.ram, offset: self.offset + offset as u64 }
    }
}

/// A run of addresses behind which RAM is.
#[derive(Debug)]
pub struct RamRegion {
    base: u64,
    length: u64,
    log: WriteLog,
}

impl GuestMemoryRegion for RamRegion {
    type B = WriteLog;

    fn len(&self) -> u64 {
        self.length
    }

    fn start_addr(&self) -> GuestAddress {
        GuestAddress(self.base)
    }

    fn bitmap(&self) -> BS<'_, WriteLog> {
        self.log.slice_at(0)
    }

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> Result<VolatileSlice<'_, BS<'_, WriteLog>>, GuestMemoryError> {
        let inside = offset.0.checked_add(count as u64).is_some_and(|end| end <= self.length);
        let start = self.log.ram.host(self.log.offset + offset.0).filter(|_| inside);
        let start = start.ok_or(GuestMemoryError::InvalidBackendAddress)?;
        // SAFETY: all `count` bytes are inside the RAM, which lives as long as this region; a slice is only ever
        // accessed as volatile memory that others change.
        Ok(unsafe { VolatileSlice::with_bitmap(start.as_ptr(), count, self.log.slice_at(offset.0 as usize), None) })
    }
}

impl GuestMemoryRegionBytes for RamRegion {}

struct Snapshot {
    view: Arc<FlatView>,
    memory: Arc<GuestRam>,
}

/// A device's way to guest RAM. What is no writable RAM is not reached.
pub struct Dma {
    space: Arc<AddressSpace>,
    snapshot: ArcSwap<Snapshot>,
}

impl fmt::Debug for Dma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dma")
    }
}

impl Dma {
    /// The way to the RAM of `space`.
    pub fn new(space: Arc<AddressSpace>) -> Arc<Self> {
        let snapshot = ArcSwap::from_pointee(Snapshot::of(Arc::clone(&space.view())));
        Arc::new(Self { space, snapshot })
    }

    /// The RAM as it is mapped now. Keeping this longer than for one request means to work on an old map.
    pub fn memory(&self) -> Arc<GuestRam> {
        let view = self.space.view();
        let snapshot = self.snapshot.load();
        if Arc::ptr_eq(&view, &snapshot.view) {
            return Arc::clone(&snapshot.memory);
        }
        let snapshot = Snapshot::of(Arc::clone(&view));
        let memory = Arc::clone(&snapshot.memory);
        self.snapshot.store(Arc::new(snapshot));
        memory
    }

    /// Gives the host back the page of RAM at `address`; it reads as zeros from now on. `false` if no RAM is there.
    pub fn discard_page(&self, address: u64) -> bool {
        let memory = self.memory();
        let Some((region, at)) = memory.to_region_addr(GuestAddress(address)) else { return false };
        region.log.ram.discard_page(region.log.offset + at.0)
    }
}

impl Snapshot {
    fn of(view: Arc<FlatView>) -> Self {
        let regions = view.ranges().iter().filter_map(|range| match &range.target {
            Target::Ram { ram, writable: true, .. } => {
                // A region may be longer than its RAM.
                let length = ram.len().checked_sub(range.offset)?.min((range.last - range.base).saturating_add(1));
                let log = WriteLog { ram: Arc::clone(ram), offset: range.offset };
                (length > 0).then_some(RamRegion { base: range.base, length, log })
            }
            _ => None,
        });
        // Ranges are sorted and do not overlap; without any there is no RAM.
        let memory = GuestRam::from_regions(regions.collect()).unwrap_or_default();
        Self { view, memory: Arc::new(memory) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use vm_memory::Bytes;

    use super::*;
    use crate::{Mmio, Width, memory::PAGE};

    struct Nothing;

    impl Mmio for Nothing {
        fn read(&self, _: u64, _: Width) -> u64 {
            0
        }

        fn write(&self, _: u64, _: Width, _: u64) {}
    }

    #[test]
    fn writes_of_devices_make_decoded_code_stale() {
        let space = Arc::new(AddressSpace::new());
        let ram = Ram::new("test", 4 * PAGE).unwrap();
        let target = Target::Ram { ram: Arc::clone(&ram), offset: PAGE, writable: true };
        space.map(0x10_0000, 3 * PAGE, 0, target);
        let dma = Dma::new(Arc::clone(&space));
        let page = ram.page(2 * PAGE).unwrap();
        page.code.store(1 << 2, Ordering::SeqCst);
        let memory = dma.memory();
        memory.write_slice(&[1; 64], GuestAddress(0x10_1000)).unwrap();
        assert_eq!(page.generation.load(Ordering::SeqCst), 0);
        memory.write_slice(&[1; 256], GuestAddress(0x10_0f90 + 0x40)).unwrap();
        assert_eq!(page.generation.load(Ordering::SeqCst), 1);
        page.code.store(1, Ordering::SeqCst);
        memory.store(7_u16, GuestAddress(0x10_1002), Ordering::Release).unwrap();
        assert_eq!(page.generation.load(Ordering::SeqCst), 2);
        assert_eq!(space.read_value(0x10_1002, Width::Word), 7);
    }

    #[test]
    fn what_is_no_ram_is_not_reached_and_the_map_may_change() {
        let space = Arc::new(AddressSpace::new());
        let dma = Dma::new(Arc::clone(&space));
        assert!(dma.memory().write_slice(&[1], GuestAddress(0)).is_err());
        let ram = Ram::new("test", 4 * PAGE).unwrap();
        let id = space.map(0, 8 * PAGE, 0, Target::Ram { ram, offset: 0, writable: true });
        space.map(PAGE, PAGE, 1, Target::Mmio(Arc::new(Nothing)));
        let memory = dma.memory();
        memory.write_slice(&[1, 2], GuestAddress(PAGE - 2)).unwrap();
        assert!(memory.write_slice(&[1, 2], GuestAddress(PAGE - 1)).is_err());
        assert!(memory.write_slice(&[1], GuestAddress(4 * PAGE)).is_err());
        assert!(memory.write_slice(&[1], GuestAddress(u64::MAX)).is_err());
        assert!(dma.discard_page(0));
        assert!(!dma.discard_page(PAGE));
        assert_eq!(space.read_value(PAGE - 2, Width::Word), 0);
        space.unmap(id);
        assert!(dma.memory().read_slice(&mut [0], GuestAddress(0)).is_err());
    }
}
