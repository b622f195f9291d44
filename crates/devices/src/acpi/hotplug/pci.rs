//! Registers of PCI devices that come and go: for the selected bus, a bit a slot of what came, what is asked for, and
//! what the guest lets go of.
//!
//! Source: the published "PCI hotplug interface" of this kind of PC, at port 0xae00.

use std::sync::Arc;

use rhea_core::Width;
use serde::{Deserialize, Serialize};

pub use state::PciRegistersV1;

use super::{Controller, Raise, Registers, Told};

/// First port.
pub const BASE: u16 = 0xae00;
/// Ports.
pub const LENGTH: u16 = 0x14;

/// Offsets of the registers, 32 bits each.
pub mod register {
    /// Slots into which something came; reading forgets them.
    pub const UP: u16 = 0x00;
    /// Slots that the guest is asked for.
    pub const DOWN: u16 = 0x04;
    /// Written: slots that the guest lets go of. Read: features, of which there are none.
    pub const EJECT: u16 = 0x08;
    /// Slots whose devices may go.
    pub const REMOVABLE: u16 = 0x0c;
    /// The bus that all this is about.
    pub const BUS: u16 = 0x10;
}

/// The most buses.
const LIMIT: usize = 256;

/// A bus, a bit a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bus {
    /// Devices that are there and may go.
    present: u32,
    /// Devices that came and that the guest has yet to hear of.
    up: u32,
    /// Devices that the guest is asked for.
    down: u32,
}

impl Bus {
    fn is_valid(&self) -> bool {
        (self.up | self.down) & !self.present == 0
    }
}

/// The registers alone.
#[derive(Clone, Debug, PartialEq)]
pub struct PciRegisters {
    selector: u32,
    buses: Vec<Bus>,
}

mod state {
    use super::{Bus, LIMIT, PciRegisters};

    saved_state!(PciRegisters => PciRegistersV1 { selector: u32, buses: Vec<Bus> }
        if |s| (1..=LIMIT).contains(&s.buses.len()) && s.buses.iter().all(Bus::is_valid));
}

impl Default for PciRegisters {
    fn default() -> Self {
        Self { selector: 0, buses: vec![Bus::default()] }
    }
}

impl PciRegisters {
    /// A bus and the bit of a slot on it.
    fn at(&mut self, bus: u32, slot: u8) -> Option<(&mut Bus, u32)> {
        let bit = 1_u32.checked_shl(slot.into())?;
        Some((self.buses.get_mut(bus as usize)?, bit))
    }
}

impl Registers for PciRegisters {
    const BASE: u16 = BASE;
    const LENGTH: u32 = LENGTH as u32;
    const KIND: &'static str = "pci-hotplug";

    fn read(&mut self, offset: u16, width: Width) -> u32 {
        let shift = 8 * (offset & 3);
        let selector = self.selector;
        let Some(bus) = self.buses.get_mut(selector as usize) else { return 0 };
        let value = match offset & !3 {
            register::UP => {
                let seen = (width.ones() as u32) << shift;
                let up = bus.up;
                bus.up &= !seen;
                up
            }
            register::DOWN => bus.down,
            register::REMOVABLE => bus.present,
            register::BUS => selector,
            _ => 0,
        };
        value >> shift
    }

    fn write(&mut self, offset: u16, _: Width, value: u32) -> Vec<Told> {
        match offset {
            register::BUS => self.selector = value,
            register::EJECT => {
                let selector = self.selector;
                let Some(bus) = self.buses.get_mut(selector as usize) else { return Vec::new() };
                // A device that is let go of is not there for the guest any more: it cannot let go of it twice.
                let gone = value & bus.present;
                *bus = Bus { present: bus.present & !gone, up: bus.up & !gone, down: bus.down & !gone };
                let slots = (0..32).filter(|slot| gone >> slot & 1 != 0);
                return slots.map(|slot| Told::Ejected(selector << 8 | slot)).collect();
            }
            _ => {}
        }
        Vec::new()
    }

    fn reset(&mut self) {
        self.selector = 0;
        self.buses.iter_mut().for_each(|bus| *bus = Bus { present: bus.present, ..Bus::default() });
    }

    fn fits(&self, saved: &Self) -> bool {
        self.buses.len() == saved.buses.len()
    }
}

/// The registers of PCI devices, at their ports.
pub type PciHotplug = Controller<PciRegisters>;

impl PciHotplug {
    /// Registers for the first bus, with nothing on it that may go. `raise` raises
    /// [`event::PCI`](super::event::PCI).
    pub fn new(raise: Raise) -> Arc<Self> {
        Self::of(PciRegisters::default(), raise)
    }

    /// A further bus on which devices come and go, and its number here; none if there are too many.
    pub fn register_bus(&self) -> Option<u32> {
        let buses = &mut self.registers.lock().buses;
        let number = buses.len();
        if number >= LIMIT {
            return None;
        }
        buses.push(Bus::default());
        u32::try_from(number).ok()
    }

    /// A device came that may go again.
    pub fn insert(&self, bus: u32, slot: u8) {
        self.change(|registers, tell| {
            let Some((bus, bit)) = registers.at(bus, slot) else { return false };
            *bus = Bus { present: bus.present | bit, up: bus.up & !bit, down: bus.down & !bit };
            if tell {
                bus.up |= bit;
            }
            tell
        });
    }

    /// Whether a device is there that may go, and that the guest did not let go of.
    pub fn is_present(&self, bus: u32, slot: u8) -> bool {
        self.look(|registers| {
            let bus = registers.buses.get(bus as usize);
            bus.is_some_and(|bus| bus.present.checked_shr(slot.into()).is_some_and(|bits| bits & 1 != 0))
        })
    }

    /// The guest is to be asked for a device.
    pub fn request_removal(&self, bus: u32, slot: u8) {
        self.change(|registers, _| {
            let Some((bus, bit)) = registers.at(bus, slot) else { return false };
            bus.down |= bit & bus.present;
            bus.down & bit != 0
        });
    }

    /// A device is gone.
    pub fn remove(&self, bus: u32, slot: u8) {
        self.change(|registers, _| {
            if let Some((bus, bit)) = registers.at(bus, slot) {
                *bus = Bus { present: bus.present & !bit, up: bus.up & !bit, down: bus.down & !bit };
            }
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rhea_core::{Device, SaveState};

    use super::{super::bench::Bench, *};
    use crate::Saveable;

    fn bench() -> (Bench, Arc<PciHotplug>) {
        let bench = Bench::default();
        let hotplug = PciHotplug::new(bench.raise());
        bench.connect(&hotplug);
        (bench, hotplug)
    }

    fn read(bench: &Bench, register: u16) -> u32 {
        bench.ports.read(BASE + register, Width::Dword)
    }

    #[test]
    fn a_device_that_comes_is_seen_once() {
        let (bench, hotplug) = bench();
        hotplug.insert(0, 3);
        hotplug.insert(0, 31);
        assert!(hotplug.is_present(0, 31) && !hotplug.is_present(0, 4) && !hotplug.is_present(0, 32));
        assert_eq!((bench.raised(), read(&bench, register::REMOVABLE)), (2, 0x8000_0008));
        assert_eq!([read(&bench, register::UP), read(&bench, register::UP)], [0x8000_0008, 0]);
        assert_eq!([read(&bench, register::DOWN), read(&bench, register::EJECT)], [0, 0]);
    }

    #[test]
    fn a_device_is_asked_for_until_the_guest_lets_go_of_it() {
        let (bench, hotplug) = bench();
        hotplug.insert(0, 3);
        hotplug.request_removal(0, 3);
        assert_eq!((bench.raised(), read(&bench, register::DOWN), read(&bench, register::DOWN)), (2, 8, 8));
        for _ in 0..2 {
            bench.ports.write(BASE + register::EJECT, Width::Dword, 0xff);
        }
        assert_eq!((bench.heard(), read(&bench, register::DOWN)), (vec![Told::Ejected(3)], 0));
        assert!(!hotplug.is_present(0, 3));
        hotplug.request_removal(0, 3);
        assert_eq!(bench.raised(), 0);
    }

    #[test]
    fn each_bus_has_its_own_slots() {
        let (bench, hotplug) = bench();
        assert_eq!([hotplug.register_bus(), hotplug.register_bus()], [Some(1), Some(2)]);
        hotplug.insert(2, 5);
        assert_eq!(read(&bench, register::UP), 0);
        bench.ports.write(BASE + register::BUS, Width::Dword, 2);
        assert_eq!((read(&bench, register::BUS), read(&bench, register::UP)), (2, 0x20));
        bench.ports.write(BASE + register::EJECT, Width::Dword, 0x20);
        assert_eq!(bench.heard(), [Told::Ejected(0x205)]);
        bench.ports.write(BASE + register::BUS, Width::Dword, 3);
        assert_eq!((read(&bench, register::BUS), read(&bench, register::REMOVABLE)), (0, 0));
        while hotplug.register_bus().is_some() {}
        assert_eq!(hotplug.save().buses.len(), LIMIT);
    }

    #[test]
    fn what_is_nowhere_does_not_come() {
        let (bench, hotplug) = bench();
        hotplug.insert(1, 0);
        hotplug.insert(0, 32);
        hotplug.request_removal(0, 4);
        assert_eq!((bench.raised(), read(&bench, register::REMOVABLE)), (0, 0));
    }

    proptest! {
        #[test]
        fn any_access_is_harmless(ops in prop::collection::vec((0u8..7, 0u16..22, 0u32..3, 0u32..40), 0..200)) {
            let (bench, hotplug) = bench();
            hotplug.register_bus();
            for (op, offset, width, value) in ops {
                let width = Width::of(1 << width).unwrap();
                match op {
                    0..3 => bench.ports.write(BASE + offset, width, value),
                    3 => { bench.ports.read(BASE + offset, width); }
                    4 => hotplug.insert(value & 1, value as u8),
                    5 => hotplug.request_removal(value & 1, value as u8),
                    _ => hotplug.remove(value & 1, value as u8),
                }
                let state = hotplug.save();
                prop_assert_eq!(PciRegisters::load(state.clone()).unwrap().save(), state.clone());
                hotplug.restore(state).unwrap();
            }
            (0..32).for_each(|slot| { hotplug.remove(0, slot); hotplug.remove(1, slot); });
            hotplug.reset();
            let new = PciRegisters { buses: vec![Bus::default(); 2], ..PciRegisters::default() };
            prop_assert_eq!(hotplug.look(PciRegisters::clone), new);
        }
    }

    #[test]
    fn a_state_that_cannot_be_is_refused() {
        let (_, hotplug) = bench();
        let up = Bus { up: 1, ..Bus::default() };
        for buses in [vec![Bus::default(); 2], Vec::new(), vec![up]] {
            assert!(hotplug.restore(PciRegistersV1 { selector: 0, buses }).is_err());
        }
    }
}
