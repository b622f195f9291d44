//! PCI buses as firmware leaves them: numbered, each with windows for what is on it and for what may come.
//!
//! Source: PCI-to-PCI Bridge Architecture Specification 1.2 (cited as §).

use std::sync::Arc;

use rhea_core::Width;
use rhea_devices::chipset::pci::{PciFunction, Slots};

/// Registers of a bridge (§3.2).
const COMMAND: u8 = 0x04;
const PRIMARY: u8 = 0x18;
const SECONDARY: u8 = 0x19;
const SUBORDINATE: u8 = 0x1a;
const IO_BASE: u8 = 0x1c;
const MEMORY_BASE: u8 = 0x20;
const PREFETCHABLE_BASE: u8 = 0x24;
/// The bridge answers at ports and in memory, and reaches memory itself.
const FORWARDS: u32 = 7;

/// The least that a bridge's windows are: ports, and bytes of memory of either kind (§3.2.5.6, §3.2.5.8).
const PORTS: u32 = 0x1000;
const MEMORY: u32 = 0x10_0000;
/// Windows of ports that are closed, and of memory: their limit is below their base.
const NO_PORTS: u32 = 0x00f0;
const NO_MEMORY: u32 = 0x0000_fff0;

/// Ports that nothing of the board is at, in two pieces.
const PORT_RANGES: [(u32, u32); 2] = [(0x1000, 0xa000), (0xb000, 0x1_0000)];
/// Addresses for the windows of bridges, out of those that PCI devices have: for memory, and for memory that is read ahead.
const MEMORY_RANGES: [(u32, u32); 2] = [(0xf000_0000, 0xf700_0000), (0xf700_0000, 0xfe00_0000)];

/// Addresses to give away, from the first on.
#[derive(Clone, Copy)]
struct Room {
    next: u32,
    end: u32,
}

impl Room {
    const fn of((next, end): (u32, u32)) -> Self {
        Self { next, end }
    }

    fn take(&mut self, size: u32) -> Option<Self> {
        let next = self.next;
        self.next = next.checked_add(size).filter(|end| *end <= self.end)?;
        Some(Self { next, end: self.next })
    }

    /// Base and limit as registers for ports have them: bits 15 to 12.
    fn as_ports(&self) -> u32 {
        (self.next >> 8 & 0xf0) | ((self.end - 1) >> 8 & 0xf0) << 8
    }

    /// Base and limit as registers for memory have them: bits 31 to 20.
    fn as_memory(&self) -> u32 {
        (self.next >> 16 & 0xfff0) | ((self.end - 1) >> 16 & 0xfff0) << 16
    }
}

/// What the buses from a bridge on have, each if there was room for it.
#[derive(Clone, Copy)]
struct Rooms {
    ports: Option<Room>,
    memory: [Option<Room>; 2],
}

impl Rooms {
    /// A part of it, for `buses`.
    fn take(&mut self, buses: u32) -> Self {
        let part = |room: &mut Option<Room>, size: u32| room.as_mut()?.take(size.checked_mul(buses)?);
        let [plain, ahead] = &mut self.memory;
        Self { ports: part(&mut self.ports, PORTS), memory: [part(plain, MEMORY), part(ahead, MEMORY)] }
    }
}

/// Numbers the buses behind the bridges in `slots`, which are of the first bus, and opens the bridges.
pub fn set_up(slots: &Slots) {
    let memory = MEMORY_RANGES.map(|range| Some(Room::of(range)));
    let mut rooms = PORT_RANGES.map(|range| Rooms { ports: Some(Room::of(range)), memory });
    let mut last = 0;
    for bridge in bridges(slots) {
        let buses = buses_from(&bridge);
        let [low, high] = &mut rooms;
        let mut part = low.take(buses);
        part.ports = part.ports.or_else(|| high.take(buses).ports);
        open(&bridge, 0, &mut last, part);
    }
}

fn bridges(slots: &Slots) -> Vec<Arc<dyn PciFunction>> {
    let all = slots.functions().into_iter();
    all.map(|(_, function)| function).filter(|function| function.bridge().is_some()).collect()
}

fn behind(bridge: &Arc<dyn PciFunction>) -> Vec<Arc<dyn PciFunction>> {
    bridge.bridge().map_or_else(Vec::new, |bridge| bridges(bridge.slots()))
}

/// How many buses there are from a bridge on.
fn buses_from(bridge: &Arc<dyn PciFunction>) -> u32 {
    behind(bridge).iter().map(buses_from).fold(1, u32::saturating_add)
}

/// Opens a bridge that is on bus `primary`, and those behind it; `last` is the highest number of a bus so far.
fn open(bridge: &Arc<dyn PciFunction>, primary: u8, last: &mut u8, mut rooms: Rooms) {
    // A bus without a number cannot be reached.
    let Some(secondary) = last.checked_add(1) else { return };
    *last = secondary;
    bridge.write_config(PRIMARY, Width::Byte, primary.into());
    bridge.write_config(SECONDARY, Width::Byte, secondary.into());
    let Rooms { ports, memory } = rooms;
    bridge.write_config(IO_BASE, Width::Word, ports.map_or(NO_PORTS, |room| room.as_ports()));
    for (register, room) in [MEMORY_BASE, PREFETCHABLE_BASE].into_iter().zip(memory) {
        bridge.write_config(register, Width::Dword, room.map_or(NO_MEMORY, |room| room.as_memory()));
    }
    // The first part is for the bus itself.
    rooms.take(1);
    for next in behind(bridge) {
        open(&next, secondary, last, rooms.take(buses_from(&next)));
    }
    bridge.write_config(SUBORDINATE, Width::Byte, (*last).into());
    bridge.write_config(COMMAND, Width::Word, FORWARDS);
}

#[cfg(test)]
mod tests {
    use rhea_core::{InterruptLine, InterruptSink};
    use rhea_devices::chipset::pci::{Bridge, BridgeWindows, PciBus, SlotFunction};

    use super::*;

    struct Nowhere;

    impl InterruptSink for Nowhere {
        fn set_level(&self, _: u32, _: bool) {}
    }

    fn add(slots: &Slots, slot: u8) -> Arc<Bridge> {
        let bridge = Bridge::new(std::array::from_fn(|pin| InterruptLine::new(Arc::new(Nowhere), pin as u32)));
        slots.plug(SlotFunction { slot, function: 0 }, None, Arc::clone(&bridge) as _).unwrap();
        bridge
    }

    #[test]
    fn buses_are_numbered_in_depth_and_inner_windows_lie_in_outer_ones() {
        let bus = PciBus::new(&(Arc::new(Nowhere) as _));
        let outer = add(bus.slots(), 2);
        let inner = add(outer.slots(), 5);
        let other = add(bus.slots(), 3);
        set_up(bus.slots());
        assert_eq!([outer.numbers(), inner.numbers(), other.numbers()], [(1, 2), (2, 2), (3, 3)]);
        let [outer, inner, other] = [outer, inner, other].map(|bridge| BridgeWindows::of(&bridge.config()));
        assert_eq!(outer.io, (0x1000, 0x2fff));
        assert_eq!((inner.io, other.io), ((0x2000, 0x2fff), (0x3000, 0x3fff)));
        assert_eq!((outer.memory, inner.memory), ((0xf000_0000, 0xf01f_ffff), (0xf010_0000, 0xf01f_ffff)));
        assert_eq!(other.prefetchable, (0xf720_0000, 0xf72f_ffff));
    }

    #[test]
    fn what_has_no_room_is_closed_and_what_has_no_number_is_left() {
        let bus = PciBus::new(&(Arc::new(Nowhere) as _));
        let mut chains = Vec::new();
        for slot in 2..32 {
            let mut bridge = add(bus.slots(), slot);
            for _ in 0..9 {
                chains.push(Arc::clone(&bridge));
                bridge = add(bridge.slots(), 0);
            }
            chains.push(bridge);
        }
        set_up(bus.slots());
        let numbered = chains.iter().filter(|bridge| bridge.numbers().0 != 0).count();
        assert_eq!((chains.len(), numbered), (300, 255));
        for bridge in chains {
            let windows = BridgeWindows::of(&bridge.config());
            for (base, limit) in [windows.memory, windows.prefetchable] {
                assert!(base > limit || (0xf000_0000 <= base && limit < 0xfe00_0000) || bridge.numbers().0 == 0);
            }
            assert!(windows.io.0 > windows.io.1 || windows.io.1 < 0x1_0000);
        }
    }
}
