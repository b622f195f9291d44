//! An address space: regions of RAM and devices at addresses, with priorities where they overlap, rendered into a flat
//! list of ranges that readers use without a lock.

use crate::trace;
use std::{fmt, sync::Arc};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

use super::Ram;
use crate::bus::Width;

/// A device's window in memory.
pub trait Mmio: Send + Sync {
    /// Reads at `offset` from the window's start; bits above `width` are ignored.
    fn read(&self, offset: u64, width: Width) -> u64;

    /// Writes at `offset` from the window's start.
    fn write(&self, offset: u64, width: Width, value: u64);

    /// What people call the window.
    fn name(&self) -> &str {
        "device"
    }
}

/// What answers at an address.
#[derive(Clone)]
pub enum Target {
    /// RAM, from `offset` inside it.
    Ram {
        /// The memory.
        ram: Arc<Ram>,
        /// Where in it the region begins.
        offset: u64,
        /// Whether the guest may write; writes to read-only memory are dropped.
        writable: bool,
    },
    /// A device.
    Mmio(Arc<dyn Mmio>),
}

impl Target {
    /// The same, but writable only if its RAM is.
    fn held_to_ram(mut self) -> Self {
        if let Self::Ram { ram, writable, .. } = &mut self {
            *writable &= ram.writable();
        }
        self
    }
}

impl Target {
    /// What people call it.
    pub fn name(&self) -> &str {
        match self {
            Self::Ram { ram, .. } => ram.name(),
            Self::Mmio(device) => device.name(),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ram { ram, offset, writable } => write!(f, "{ram:?}+{offset:#x} writable={writable}"),
            Self::Mmio(_) => f.write_str("Mmio"),
        }
    }
}

/// Names a mapped region, to take it away again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RegionId(u64);

/// What was mapped where.
#[derive(Clone, Debug)]
pub struct Region {
    id: RegionId,
    /// First address.
    pub base: u64,
    /// Last address, inclusive.
    pub last: u64,
    /// The higher priority answers where regions overlap.
    pub priority: i32,
    /// Who answers.
    pub target: Target,
}

/// A run of addresses that one target answers.
#[derive(Clone, Debug)]
pub struct FlatRange {
    /// First address.
    pub base: u64,
    /// Last address, inclusive.
    pub last: u64,
    /// Where `base` lies inside the target's window (for RAM: inside the RAM).
    pub offset: u64,
    /// Who answers.
    pub target: Target,
    /// The priority with which it was mapped.
    pub priority: i32,
}

/// The address space as it is decoded: ranges in order, none overlapping.
#[derive(Clone, Debug, Default)]
pub struct FlatView {
    ranges: Vec<FlatRange>,
}

impl FlatView {
    /// The range that holds `address`.
    pub fn find(&self, address: u64) -> Option<&FlatRange> {
        let after = self.ranges.partition_point(|range| range.base <= address);
        self.ranges[..after].last().filter(|range| address <= range.last)
    }

    /// All ranges, by address.
    pub fn ranges(&self) -> &[FlatRange] {
        &self.ranges
    }

    /// The RAM in it, each once, by address.
    pub fn rams(&self) -> Vec<Arc<Ram>> {
        let mut rams: Vec<Arc<Ram>> = Vec::new();
        for range in &self.ranges {
            if let Target::Ram { ram, .. } = &range.target
                && !rams.iter().any(|known| Arc::ptr_eq(known, ram))
            {
                rams.push(Arc::clone(ram));
            }
        }
        rams
    }

    fn render(regions: &[Region]) -> Self {
        let mut ordered: Vec<&Region> = regions.iter().collect();
        // The highest priority first; among equals the one mapped last.
        ordered.sort_by_key(|region| (-i64::from(region.priority), u64::MAX - region.id.0));
        let mut ranges: Vec<FlatRange> = Vec::new();
        for region in ordered {
            // What is left of the region after everything above it took its part.
            let mut left = Some(region.base);
            let mut gaps = Vec::new();
            for above in &ranges {
                let Some(at) = left else { break };
                if above.last < at {
                    continue;
                }
                if above.base > region.last {
                    break;
                }
                if above.base > at {
                    gaps.push((at, above.base - 1));
                }
                left = above.last.checked_add(1).filter(|&next| next <= region.last);
            }
            gaps.extend(left.map(|at| (at, region.last)));
            ranges.extend(gaps.into_iter().map(|(base, last)| {
                let start = if let Target::Ram { offset, .. } = region.target { offset } else { 0 };
                let (target, priority) = (region.target.clone(), region.priority);
                FlatRange { base, last, offset: start + (base - region.base), target, priority }
            }));
            ranges.sort_by_key(|range| range.base);
        }
        Self { ranges }
    }
}

#[derive(Default)]
struct Regions {
    list: Vec<Region>,
    next: u64,
    /// Bits of who follows writes.
    followers: u32,
    on_change: Vec<Arc<dyn Fn() + Send + Sync>>,
}

/// A guest physical address space.
#[derive(Default)]
pub struct AddressSpace {
    view: ArcSwap<FlatView>,
    regions: Mutex<Regions>,
}

impl AddressSpace {
    /// An empty space.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `target` at `length` bytes from `base`. Where regions overlap, the higher priority answers, and the one
    /// mapped last among equals. An empty region maps nothing; one past the end of the space is cut there.
    pub fn map(&self, base: u64, length: u64, priority: i32, target: Target) -> RegionId {
        let mut regions = self.regions.lock();
        let id = RegionId(regions.next);
        regions.next += 1;
        if length > 0 {
            let target = target.held_to_ram();
            regions.list.push(Region { id, base, last: base.saturating_add(length - 1), priority, target });
            self.publish(regions);
        }
        id
    }

    /// Takes a region away; `false` if it is not there.
    pub fn unmap(&self, id: RegionId) -> bool {
        let mut regions = self.regions.lock();
        let before = regions.list.len();
        regions.list.retain(|region| region.id != id);
        let found = regions.list.len() < before;
        if found {
            self.publish(regions);
        }
        found
    }

    /// Several changes seen as one: takes `remove` away and maps `add`.
    pub fn replace(&self, remove: &[RegionId], add: Vec<(u64, u64, i32, Target)>) -> Vec<RegionId> {
        let mut regions = self.regions.lock();
        regions.list.retain(|region| !remove.contains(&region.id));
        let mut ids = Vec::with_capacity(add.len());
        for (base, length, priority, target) in add {
            let id = RegionId(regions.next);
            regions.next += 1;
            ids.push(id);
            if length > 0 {
                let target = target.held_to_ram();
                regions.list.push(Region { id, base, last: base.saturating_add(length - 1), priority, target });
            }
        }
        self.publish(regions);
        ids
    }

    /// Calls `listener` after each change of the map, from the thread that made it: processors drop what they cached.
    pub fn on_change(&self, listener: impl Fn() + Send + Sync + 'static) {
        self.regions.lock().on_change.push(Arc::new(listener));
    }

    /// Changes who follows writes; `false` if that changed nothing.
    pub(super) fn change_followers(&self, change: impl FnOnce(u32) -> u32) -> bool {
        let mut regions = self.regions.lock();
        let followers = change(regions.followers);
        let changed = followers != regions.followers;
        regions.followers = followers;
        for ram in self.view.load().rams() {
            ram.set_followers(followers);
        }
        changed
    }

    fn publish(&self, regions: parking_lot::MutexGuard<'_, Regions>) {
        let view = FlatView::render(&regions.list);
        if regions.followers != 0 {
            // Who comes is followed before anybody sees it, and who goes is not any more.
            let (came, gone) = (view.rams(), self.view.load().rams());
            for ram in gone.iter().filter(|gone| !came.iter().any(|ram| Arc::ptr_eq(ram, gone))) {
                ram.set_followers(0);
            }
            for ram in came {
                ram.set_followers(regions.followers);
            }
        }
        self.view.store(Arc::new(view));
        let listeners = regions.on_change.clone();
        drop(regions);
        for listener in listeners {
            listener();
        }
    }

    /// All that is mapped, by address, and where that is the same, by rising priority.
    pub fn regions(&self) -> Vec<Region> {
        let mut list = self.regions.lock().list.clone();
        list.sort_by_key(|region| (region.base, region.priority, region.id.0));
        list
    }

    /// The map as it is now.
    pub fn view(&self) -> Guard<Arc<FlatView>> {
        self.view.load()
    }

    /// Reads a value of `width` at `address`, little-endian. Where nothing answers, zero.
    pub fn read_value(&self, address: u64, width: Width) -> u64 {
        let view = self.view.load();
        if let Some(range) = view.find(address)
            && range.last - address >= width.bytes() as u64 - 1
            && let Target::Mmio(device) = &range.target
        {
            let value = device.read(address - range.base + range.offset, width) & width.ones();
            trace!(MEMORY_REGION_OPS_READ, "addr 0x{address:x} value 0x{value:x} size {}", width.bytes());
            return value;
        }
        let mut bytes = [0; 8];
        self.read_in(&view, address, &mut bytes[..width.bytes()]);
        u64::from_le_bytes(bytes)
    }

    /// Writes a value of `width` at `address`, little-endian. Where nothing answers, it is dropped.
    pub fn write_value(&self, address: u64, width: Width, value: u64) {
        let view = self.view.load();
        if let Some(range) = view.find(address)
            && range.last - address >= width.bytes() as u64 - 1
            && let Target::Mmio(device) = &range.target
        {
            let value = value & width.ones();
            trace!(MEMORY_REGION_OPS_WRITE, "addr 0x{address:x} value 0x{value:x} size {}", width.bytes());
            return device.write(address - range.base + range.offset, width, value);
        }
        self.write_in(&view, address, &value.to_le_bytes()[..width.bytes()]);
    }

    /// Fills `data` from `address` on. Devices are read byte by byte; where nothing answers, zeros.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        self.read_in(&self.view.load(), address, data);
    }

    /// Writes `data` from `address` on, read-only memory and holes left out.
    pub fn write(&self, address: u64, data: &[u8]) {
        self.write_in(&self.view.load(), address, data);
    }

    /// Whether RAM answers for all of `length` bytes from `address`.
    pub fn is_ram(&self, address: u64, length: u64) -> bool {
        let view = self.view.load();
        let Some(last) = address.checked_add(length.saturating_sub(1)) else { return false };
        let mut at = address;
        loop {
            match view.find(at) {
                Some(FlatRange { last: end, target: Target::Ram { .. }, .. }) if *end >= last => return true,
                Some(FlatRange { last: end, target: Target::Ram { .. }, .. }) => at = end + 1,
                _ => return false,
            }
        }
    }

    fn read_in(&self, view: &FlatView, address: u64, mut data: &mut [u8]) {
        let mut at = address;
        while !data.is_empty() {
            let Some(range) = view.find(at) else {
                data[0] = 0;
                data = &mut data[1..];
                at = at.wrapping_add(1);
                continue;
            };
            let run = usize::try_from((range.last - at).saturating_add(1)).unwrap_or(usize::MAX).min(data.len());
            let (now, rest) = data.split_at_mut(run);
            let offset = at - range.base + range.offset;
            match &range.target {
                Target::Ram { ram, .. } => {
                    if !ram.read(offset, now) {
                        now.fill(0);
                    }
                }
                Target::Mmio(device) => {
                    for (i, byte) in now.iter_mut().enumerate() {
                        *byte = device.read(offset + i as u64, Width::Byte) as u8;
                        trace!(
                            MEMORY_REGION_OPS_READ,
                            "addr 0x{:x} value 0x{byte:x} size 1",
                            at.wrapping_add(i as u64)
                        );
                    }
                }
            }
            data = rest;
            at = at.wrapping_add(run as u64);
        }
    }

    fn write_in(&self, view: &FlatView, address: u64, mut data: &[u8]) {
        let mut at = address;
        while !data.is_empty() {
            let Some(range) = view.find(at) else {
                data = &data[1..];
                at = at.wrapping_add(1);
                continue;
            };
            let run = usize::try_from((range.last - at).saturating_add(1)).unwrap_or(usize::MAX).min(data.len());
            let (now, rest) = data.split_at(run);
            let offset = at - range.base + range.offset;
            match &range.target {
                Target::Ram { ram, writable: true, .. } => {
                    // A region longer than its RAM has nothing behind its end.
                    let _ = ram.write(offset, now);
                }
                Target::Ram { .. } => {}
                Target::Mmio(device) => {
                    for (i, &byte) in now.iter().enumerate() {
                        trace!(
                            MEMORY_REGION_OPS_WRITE,
                            "addr 0x{:x} value 0x{byte:x} size 1",
                            at.wrapping_add(i as u64)
                        );
                        device.write(offset + i as u64, Width::Byte, u64::from(byte));
                    }
                }
            }
            data = rest;
            at = at.wrapping_add(run as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::PAGE;

    struct Echo;

    impl Mmio for Echo {
        fn read(&self, offset: u64, _: Width) -> u64 {
            offset
        }

        fn write(&self, _: u64, _: Width, _: u64) {}
    }

    fn ram(pages: u64) -> Target {
        Target::Ram { ram: Ram::new("test", pages * PAGE).unwrap(), offset: 0, writable: true }
    }

    #[test]
    fn a_hole_in_ram_shows_the_device_and_the_ram_behind_keeps_its_offset() {
        let space = AddressSpace::new();
        space.map(0, 4 * PAGE, 0, ram(4));
        space.write(0, &vec![7; 4 * PAGE as usize]);
        let device = space.map(PAGE, PAGE, 1, Target::Mmio(Arc::new(Echo)));
        assert_eq!(space.read_value(PAGE + 5, Width::Byte), 5);
        assert_eq!(space.read_value(2 * PAGE, Width::Dword), 0x0707_0707);
        assert_eq!(space.view().find(2 * PAGE).unwrap().offset, 2 * PAGE);
        assert!(space.is_ram(2 * PAGE, 2 * PAGE));
        assert!(!space.is_ram(0, 4 * PAGE));
        assert!(space.unmap(device));
        assert!(space.is_ram(0, 4 * PAGE));
    }

    #[test]
    fn regions_are_listed_by_address_with_what_they_are_called() {
        let space = AddressSpace::new();
        space.map(PAGE, PAGE, 1, Target::Mmio(Arc::new(Echo)));
        space.map(0, 4 * PAGE, 0, ram(4));
        let listed: Vec<_> = space.regions().iter().map(|r| (r.base, r.priority, r.target.name().to_owned())).collect();
        assert_eq!(listed, [(0, 0, "test".to_owned()), (PAGE, 1, "device".to_owned())]);
        assert_eq!(space.view().ranges()[1].priority, 1);
    }

    #[test]
    fn read_only_memory_drops_writes() {
        let space = AddressSpace::new();
        let rom = Ram::new("rom", PAGE).unwrap();
        assert!(rom.write(0, &[1]));
        space.map(0, PAGE, 0, Target::Ram { ram: rom, offset: 0, writable: false });
        space.write_value(0, Width::Byte, 9);
        assert_eq!(space.read_value(0, Width::Byte), 1);
    }

    #[test]
    fn accesses_at_the_end_of_the_space_do_not_wrap_into_a_fault() {
        let space = AddressSpace::new();
        space.map(u64::MAX - 1, 100, 0, Target::Mmio(Arc::new(Echo)));
        assert_eq!(space.read_value(u64::MAX, Width::Byte), 1);
        space.write(u64::MAX, &[1, 2, 3]);
        assert!(!space.is_ram(u64::MAX, u64::MAX));
    }

    #[test]
    fn listeners_hear_of_each_change() {
        let space = AddressSpace::new();
        let count = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&count);
        space.on_change(move || *counter.lock() += 1);
        let id = space.map(0, PAGE, 0, ram(1));
        space.unmap(id);
        space.unmap(id);
        assert_eq!(*count.lock(), 2);
    }

    proptest! {
        #[test]
        fn the_flat_view_says_what_the_regions_say(
            regions in prop::collection::vec((0u64..64, 1u64..32, 0i32..3), 0..8),
        ) {
            let space = AddressSpace::new();
            for (base, length, priority) in &regions {
                space.map(*base, *length, *priority, Target::Mmio(Arc::new(Echo)));
            }
            for address in 0..100 {
                let expected = regions
                    .iter()
                    .enumerate()
                    .filter(|(_, (base, length, _))| (*base..base + length).contains(&address))
                    .max_by_key(|(i, (_, _, priority))| (*priority, *i))
                    .map(|(_, (base, _, _))| address - base);
                let view = space.view();
                let got = view.find(address).map(|range| address - range.base + range.offset);
                prop_assert_eq!(got, expected);
            }
        }
    }
}
