//! Memory modules: what was put into the machine beside its own memory, where there is room, and what they come to.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use rhea_core::{memory::RegionId, object::NodeId};

use crate::board::ram::Window;

/// Guests take memory in pieces of this size; what is put nowhere else lies so, if it can.
const PIECE: u64 = 128 << 20;

/// A memory module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryModule {
    /// Where the device is in the tree.
    pub device: NodeId,
    /// Where its backend is.
    pub backend: NodeId,
    /// Its slot.
    pub slot: u32,
    /// First address.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// The NUMA node it belongs to.
    pub node: u32,
    /// What is mapped.
    pub(crate) region: RegionId,
}

/// Where a module is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The slot; the first free one if not given.
    pub slot: Option<u32>,
    /// The address; the first that fits if not given.
    pub address: Option<u64>,
    /// Bytes.
    pub size: u64,
    /// The address is a multiple of this power of two.
    pub align: u64,
}

/// Why a module has no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each says what it is about")]
pub enum PlaceError {
    #[error("no slots where allocated, please specify the 'slots' option")]
    NoSlots,
    #[error("invalid slot number {0}, valid range is [0-{1}]")]
    Slot(u32, u32),
    #[error("slot {0} is busy")]
    SlotTaken(u32),
    #[error("no free slots available")]
    NoFreeSlot,
    #[error("backend memory size must be multiple of 0x{0:x}")]
    Size(u64),
    #[error("not enough space, currently 0x{used:x} in use of total space for memory devices 0x{most:x}")]
    Full { used: u64, most: u64 },
    #[error("address must be aligned to 0x{0:x} bytes")]
    Alignment(u64),
    #[error(
        "can't add memory device [0x{address:x}:0x{size:x}], usable range for memory devices [0x{base:x}:0x{length:x}]"
    )]
    Outside { address: u64, size: u64, base: u64, length: u64 },
    #[error("address range conflicts with the memory device in slot {0}")]
    Overlap(u32),
    #[error("could not find position in guest address space for memory device - memory fragmented due to alignments")]
    Fragmented,
}

/// The modules of a machine.
#[derive(Debug, Default)]
pub struct MemoryModules {
    window: Option<Window>,
    slots: u32,
    /// Most bytes of all of them.
    most: u64,
    list: Mutex<BTreeMap<u32, MemoryModule>>,
}

impl MemoryModules {
    /// Room for modules: addresses, slots, and how much they may come to.
    pub fn new(window: Option<Window>, slots: u32, most: u64) -> Self {
        Self { window, slots, most, list: Mutex::default() }
    }

    /// How many there can be.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// All of them, by address.
    pub fn list(&self) -> Vec<MemoryModule> {
        let mut all: Vec<MemoryModule> = self.list.lock().values().copied().collect();
        all.sort_by_key(|module| module.address);
        all
    }

    /// Bytes of all of them.
    pub fn plugged(&self) -> u64 {
        self.list.lock().values().map(|module| module.size).sum()
    }

    pub(crate) fn insert(&self, module: MemoryModule) {
        self.list.lock().insert(module.slot, module);
    }

    pub(crate) fn remove(&self, slot: u32) -> Option<MemoryModule> {
        self.list.lock().remove(&slot)
    }

    /// Slot and address of a module that is to come.
    ///
    /// # Errors
    /// There is no room, or not where it was wanted.
    pub fn place(&self, wanted: &Wanted) -> Result<(u32, u64), PlaceError> {
        let &Wanted { slot, address, size, align } = wanted;
        let Window { base, length } = self.window.filter(|_| self.slots > 0).ok_or(PlaceError::NoSlots)?;
        let modules = self.list();
        let taken = |slot| modules.iter().any(|module| module.slot == slot);
        let slot = match slot {
            Some(slot) if slot >= self.slots => return Err(PlaceError::Slot(slot, self.slots - 1)),
            Some(slot) if taken(slot) => return Err(PlaceError::SlotTaken(slot)),
            Some(slot) => slot,
            None => (0..self.slots).find(|&slot| !taken(slot)).ok_or(PlaceError::NoFreeSlot)?,
        };
        if size == 0 || !size.is_multiple_of(align) {
            return Err(PlaceError::Size(align));
        }
        let used = self.plugged();
        if used.checked_add(size).is_none_or(|total| total > self.most) {
            return Err(PlaceError::Full { used, most: self.most });
        }
        let overlaps = |at: u64| {
            modules.iter().find(|module| at < module.address + module.size && module.address < at.saturating_add(size))
        };
        let inside = |at: u64| at >= base && at.checked_add(size).is_some_and(|end| end <= base + length);
        if let Some(address) = address {
            if !address.is_multiple_of(align) {
                return Err(PlaceError::Alignment(align));
            }
            if !inside(address) {
                return Err(PlaceError::Outside { address, size, base, length });
            }
            return match overlaps(address) {
                Some(other) => Err(PlaceError::Overlap(other.slot)),
                None => Ok((slot, address)),
            };
        }
        let first_of = |align: u64| {
            let starts = std::iter::once(base).chain(modules.iter().map(|module| module.address + module.size));
            let mut starts = starts.filter_map(|start| start.checked_next_multiple_of(align));
            starts.find(|&start| inside(start) && overlaps(start).is_none())
        };
        let found = first_of(align.max(PIECE)).or_else(|| first_of(align));
        Ok((slot, found.ok_or(PlaceError::Fragmented)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rhea_core::{AddressSpace, Ram, memory::Target, object::Tree};

    use super::*;

    const BASE: u64 = 4 << 30;
    const MIB: u64 = 1 << 20;

    fn modules() -> MemoryModules {
        MemoryModules::new(Some(Window { base: BASE, length: 4 << 30 }), 3, 1 << 30)
    }

    fn put(modules: &MemoryModules, wanted: Wanted) -> Result<(u32, u64), PlaceError> {
        let (slot, address) = modules.place(&wanted)?;
        let root = Tree::new(crate::types::types()).root();
        let target = Target::Ram { ram: Ram::new("test", 4096).unwrap(), offset: 0, writable: true };
        let region = AddressSpace::new().map(0, 4096, 0, target);
        modules.insert(MemoryModule { device: root, backend: root, slot, address, size: wanted.size, node: 0, region });
        Ok((slot, address))
    }

    fn any(size: u64) -> Wanted {
        Wanted { slot: None, address: None, size, align: 2 * MIB }
    }

    #[test]
    fn the_first_free_slot_and_address_are_taken() {
        let modules = modules();
        assert_eq!(put(&modules, any(128 * MIB)), Ok((0, BASE)));
        assert_eq!(put(&modules, Wanted { slot: Some(2), ..any(2 * MIB) }), Ok((2, BASE + 128 * MIB)));
        // What comes behind a small one is aligned as guests like it.
        assert_eq!(modules.place(&any(128 * MIB)), Ok((1, BASE + 256 * MIB)));
        modules.remove(0);
        assert_eq!(put(&modules, any(128 * MIB)), Ok((0, BASE)));
        assert_eq!(modules.plugged(), 130 * MIB);
        put(&modules, any(2 * MIB)).unwrap();
        assert_eq!(modules.place(&any(2 * MIB)), Err(PlaceError::NoFreeSlot));
    }

    proptest! {
        #[test]
        fn modules_never_overlap_or_leave_their_window(
            wanted in prop::collection::vec(
                (prop::option::of(0_u32..5), prop::option::of(2040_u64..4200), 0_u64..300, proptest::bool::ANY),
                0..40,
            ),
        ) {
            let modules = modules();
            for (slot, address, size, remove) in wanted {
                if remove {
                    modules.remove(slot.unwrap_or(0));
                }
                let address = address.map(|address| address * 2 * MIB);
                let _ = put(&modules, Wanted { slot, address, size: size * 2 * MIB, align: 2 * MIB });
                let list = modules.list();
                prop_assert!(modules.plugged() <= 1 << 30 && list.len() <= 3);
                prop_assert!(list.iter().all(|module| module.size > 0 && module.address >= BASE));
                prop_assert!(list.iter().all(|module| module.address + module.size <= BASE + (4 << 30)));
                prop_assert!(list.windows(2).all(|pair| pair[0].address + pair[0].size <= pair[1].address));
            }
        }
    }

    #[test]
    fn what_was_asked_for_is_checked() {
        let modules = modules();
        put(&modules, Wanted { address: Some(BASE + 128 * MIB), ..any(128 * MIB) }).unwrap();
        let at = |address| modules.place(&Wanted { address: Some(address), ..any(128 * MIB) });
        assert_eq!(at(BASE), Ok((1, BASE)));
        for overlapping in [BASE + 2 * MIB, BASE + 128 * MIB, BASE + 254 * MIB] {
            assert_eq!(at(overlapping), Err(PlaceError::Overlap(0)));
        }
        assert_eq!(at(BASE + 256 * MIB), Ok((1, BASE + 256 * MIB)));
        assert_eq!(at(BASE + 1), Err(PlaceError::Alignment(2 * MIB)));
        for outside in [0, BASE - 2 * MIB, BASE + (4 << 30) - 126 * MIB, !(2 * MIB - 1)] {
            assert!(matches!(at(outside), Err(PlaceError::Outside { .. })), "{outside:#x}");
        }
        let slot = |slot| modules.place(&Wanted { slot: Some(slot), ..any(2 * MIB) });
        assert_eq!(slot(0), Err(PlaceError::SlotTaken(0)));
        assert_eq!(slot(3), Err(PlaceError::Slot(3, 2)));
        assert_eq!(modules.place(&any(MIB)), Err(PlaceError::Size(2 * MIB)));
        assert_eq!(modules.place(&any(0)), Err(PlaceError::Size(2 * MIB)));
        assert_eq!(modules.place(&any(1 << 30)), Err(PlaceError::Full { used: 128 * MIB, most: 1 << 30 }));
        assert_eq!(modules.place(&any(1 << 63)), Err(PlaceError::Full { used: 128 * MIB, most: 1 << 30 }));
        assert_eq!(MemoryModules::default().place(&any(2 * MIB)), Err(PlaceError::NoSlots));
    }
}
