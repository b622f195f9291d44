//! Registers of memory modules that come and go: a selector, and the place, size and status of the module it selects.
//!
//! Source: the published "memory hotplug interface" of this kind of PC, at port 0xa00.

use std::sync::Arc;

use rhea_core::Width;
use serde::{Deserialize, Serialize};

pub use state::MemoryRegistersV1;

use super::{Controller, Presence, Raise, Registers, Slot, Slotted, Told};

/// First port.
pub const BASE: u16 = 0x0a00;
/// Ports.
pub const LENGTH: u16 = 0x18;

/// Offsets of the registers.
pub mod register {
    /// Read: 64 bits of address.
    pub const ADDRESS: u16 = 0x00;
    /// Read: 64 bits of size.
    pub const SIZE: u16 = 0x08;
    /// Read: the proximity domain.
    pub const NODE: u16 = 0x10;
    /// Status when read, control when written.
    pub const FLAGS: u16 = 0x14;
    /// Written: the selector.
    pub const SELECTOR: u16 = 0x00;
    /// Written: the event of a report.
    pub const REPORT_EVENT: u16 = 0x04;
    /// Written: the status of a report, which ends it.
    pub const REPORT_STATUS: u16 = 0x08;
}

/// The most slots, as on this kind of PC.
pub const MOST_SLOTS: u32 = 256;

/// What is in a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemorySlot {
    /// Where it is in guest memory.
    pub address: u64,
    /// How many bytes.
    pub size: u64,
    /// The NUMA node it belongs to.
    pub node: u32,
}

/// A slot and the module in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// All zero without one.
    memory: MemorySlot,
    slot: Slot,
}

impl Module {
    fn is_valid(&self) -> bool {
        let empty = self.slot.presence == Presence::Empty;
        self.slot.is_valid() && (!empty || self.memory == MemorySlot::default())
    }
}

/// The registers alone.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryRegisters {
    selector: u32,
    modules: Vec<Module>,
}

mod state {
    use super::{MOST_SLOTS, MemoryRegisters, Module};

    saved_state!(MemoryRegisters => MemoryRegistersV1 { selector: u32, modules: Vec<Module> }
        if |s| s.modules.len() <= MOST_SLOTS as usize && s.modules.iter().all(Module::is_valid));
}

impl MemoryRegisters {
    fn new(slots: u32) -> Self {
        Self { selector: 0, modules: vec![Module::default(); slots.min(MOST_SLOTS) as usize] }
    }

    fn module(&mut self, slot: u32) -> Option<&mut Module> {
        self.modules.get_mut(slot as usize)
    }
}

impl Registers for MemoryRegisters {
    const BASE: u16 = BASE;
    const LENGTH: u32 = LENGTH as u32;
    const KIND: &'static str = "memory-hotplug";

    fn read(&mut self, offset: u16, width: Width) -> u32 {
        let Some(Module { memory, slot }) = self.modules.get(self.selector as usize) else {
            return width.ones() as u32;
        };
        let value = match offset & !7 {
            register::ADDRESS => memory.address,
            register::SIZE => memory.size,
            _ => u64::from(memory.node) | u64::from(slot.status()) << 32,
        };
        (value >> (8 * (offset & 7))) as u32
    }

    fn write(&mut self, offset: u16, _: Width, value: u32) -> Vec<Told> {
        if offset == register::SELECTOR {
            self.selector = value;
            return Vec::new();
        }
        let index = self.selector;
        let Some(slot) = self.slot(index) else { return Vec::new() };
        match offset {
            register::REPORT_EVENT => slot.report.event = value,
            register::REPORT_STATUS => {
                slot.report.status = value;
                return vec![Told::Reported(index, slot.report)];
            }
            register::FLAGS if slot.control(value) => return vec![Told::Ejected(index)],
            _ => {}
        }
        Vec::new()
    }

    fn reset(&mut self) {
        self.selector = 0;
        self.modules.iter_mut().for_each(|module| module.slot.reset());
    }

    fn fits(&self, saved: &Self) -> bool {
        self.modules.len() == saved.modules.len()
    }
}

impl Slotted for MemoryRegisters {
    fn slot(&mut self, index: u32) -> Option<&mut Slot> {
        self.module(index).map(|module| &mut module.slot)
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.modules.iter().map(|module| &module.slot)
    }

    fn remove(&mut self, index: u32) {
        if let Some(module) = self.module(index) {
            module.memory = MemorySlot::default();
            module.slot.remove();
        }
    }
}

/// The registers of memory modules, at their ports.
pub type MemoryHotplug = Controller<MemoryRegisters>;

impl MemoryHotplug {
    /// Registers for `slots` empty slots. `raise` raises [`event::MEMORY`](super::event::MEMORY).
    pub fn new(raise: Raise, slots: u32) -> Arc<Self> {
        Self::of(MemoryRegisters::new(slots), raise)
    }

    /// How many slots there are.
    pub fn slots(&self) -> u32 {
        self.look(|registers| registers.modules.len() as u32)
    }

    /// A module came.
    pub fn insert(&self, slot: u32, memory: MemorySlot) {
        self.change(|registers, tell| {
            let Some(module) = registers.module(slot) else { return false };
            module.memory = memory;
            module.slot.insert(tell);
            tell
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rhea_core::{Device, SaveState};

    use super::{
        super::{Report, bench::Bench},
        *,
    };
    use crate::Saveable;

    const DIMM: MemorySlot = MemorySlot { address: 0x1_4000_0000, size: 0x2_0800_0000, node: 7 };

    fn bench() -> (Bench, Arc<MemoryHotplug>) {
        let bench = Bench::default();
        let hotplug = MemoryHotplug::new(bench.raise(), 3);
        bench.connect(&hotplug);
        (bench, hotplug)
    }

    fn flags(bench: &Bench, slot: u32) -> u32 {
        bench.ports.write(BASE, Width::Dword, slot);
        bench.ports.read(BASE + register::FLAGS, Width::Byte)
    }

    #[test]
    fn a_module_tells_where_it_is() {
        let (bench, hotplug) = bench();
        hotplug.insert(1, DIMM);
        assert_eq!((bench.raised(), flags(&bench, 0), flags(&bench, 1)), (1, 0, 3));
        let words: Vec<u32> = (0..5).map(|word| bench.ports.read(BASE + 4 * word, Width::Dword)).collect();
        assert_eq!(words, [0x4000_0000, 1, 0x0800_0000, 2, 7]);
        assert_eq!(bench.ports.read(BASE + 0x0b, Width::Byte), 8);
        bench.ports.write(BASE + register::FLAGS, Width::Byte, 2);
        assert_eq!(flags(&bench, 1), 1);
    }

    #[test]
    fn a_module_that_the_guest_lets_go_of_is_gone_for_it_at_once() {
        let (bench, hotplug) = bench();
        hotplug.insert(2, DIMM);
        hotplug.request_removal(2);
        assert_eq!((bench.raised(), flags(&bench, 2)), (2, 7));
        for _ in 0..2 {
            bench.ports.write(BASE + register::FLAGS, Width::Byte, 8);
        }
        assert_eq!((bench.heard(), flags(&bench, 2), hotplug.is_present(2)), (vec![Told::Ejected(2)], 0, true));
        hotplug.remove(2);
        assert!(!hotplug.is_present(2));
        assert_eq!(bench.ports.read(BASE + register::SIZE, Width::Dword), 0);
    }

    #[test]
    fn a_report_is_heard_when_its_status_comes() {
        let (bench, hotplug) = bench();
        for (register, value) in [(0, 2), (4, 1), (8, 0x80)] {
            bench.ports.write(BASE + register, Width::Dword, value);
        }
        let report = Report { event: 1, status: 0x80 };
        assert_eq!(bench.heard(), [Told::Reported(2, report)]);
        assert_eq!(hotplug.reports()[2], report);
    }

    #[test]
    fn past_the_last_slot_reads_are_ones_and_writes_lost() {
        let (bench, hotplug) = bench();
        assert_eq!(flags(&bench, 3), 0xff);
        assert_eq!(bench.ports.read(BASE, Width::Dword), u32::MAX);
        bench.ports.write(BASE + 8, Width::Dword, 1);
        bench.ports.write(BASE + register::FLAGS, Width::Byte, 8);
        hotplug.insert(3, DIMM);
        assert_eq!((bench.heard(), bench.raised(), hotplug.slots()), (vec![], 0, 3));
    }

    proptest! {
        #[test]
        fn any_access_is_harmless(ops in prop::collection::vec((0u8..7, 0u16..26, 0u32..3, 0u32..12), 0..200)) {
            let (bench, hotplug) = bench();
            for (op, offset, width, value) in ops {
                let width = Width::of(1 << width).unwrap();
                match op {
                    0..3 => bench.ports.write(BASE + offset, width, value),
                    3 => { bench.ports.read(BASE + offset, width); }
                    4 => hotplug.insert(value, DIMM),
                    5 => hotplug.request_removal(value),
                    _ => hotplug.cancel_removal(value),
                }
                let state = hotplug.save();
                prop_assert_eq!(MemoryRegisters::load(state.clone()).unwrap().save(), state.clone());
                hotplug.restore(state).unwrap();
            }
            (0..3).for_each(|slot| hotplug.remove(slot));
            hotplug.reset();
            prop_assert_eq!(hotplug.look(MemoryRegisters::clone), MemoryRegisters::new(3));
        }
    }

    #[test]
    fn a_state_of_other_slots_is_refused() {
        let (_, hotplug) = bench();
        assert!(hotplug.restore(MemoryHotplug::new(Arc::new(|| ()), 2).save()).is_err());
        let mut state = hotplug.save();
        state.modules[0].memory = DIMM;
        assert!(hotplug.restore(state).is_err());
    }
}
