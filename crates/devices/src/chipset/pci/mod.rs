//! The PCI bus: functions in slots, configuration mechanism 1, windows of functions, and the four interrupt wires.
//!
//! Source: PCI Local Bus Specification 3.0 (cited as §); Intel 290549, "82441FX (PMC)", §3.2 for the ports.

mod bridge;
mod class;
mod config;
mod host;
mod interrupt;
mod isa_bridge;
mod msi;
mod slots;

use std::sync::Arc;

use bitfield_struct::bitfield;
use parking_lot::Mutex;
use rhea_core::{
    AddressSpace, Device, InterruptLine, InterruptSink, LoadError, PortIo, PortSpace, SaveState, Stateful, Width,
    memory::{RegionId, Target},
    trace,
};

pub use bridge::{Bridge, BridgeRegisters, BridgeV1, BridgeWindows, Forwarded};
pub use class::class_name;
pub use config::{BARS, Bar, BarKind, Command, ConfigSpace, Identity, SIZE};
pub use host::{HostBridge, HostBridgeV1, Northbridge, Segment, Shadow, Smram};
pub use isa_bridge::{IsaBridge, IsaBridgeV1, Piix3};
pub use msi::{MESSAGE_ADDRESS, Message, MessageSink, Msi, MsiX, MsiXV1, map_message_space};
pub use slots::{Listed, Slots};

pub use state::MechanismV1;

use crate::Saveable;

/// Subsystem vendor and subsystem of the chip set's functions, by which firmware knows a virtual machine.
pub const VIRTUAL_MACHINE: (u16, u16) = (0x1af4, 0x1100);

/// A function on the bus. It has its own lock; accesses come from any processor.
pub trait PciFunction: Device + Stateful {
    /// A configuration read.
    fn read_config(&self, offset: u8, width: Width) -> u32;

    /// A configuration write.
    fn write_config(&self, offset: u8, width: Width, value: u32);

    /// The configuration space as it is now.
    fn config(&self) -> ConfigSpace;

    /// The bridge that it is, if it is one.
    fn bridge(&self) -> Option<&Bridge> {
        None
    }

    /// What reaches its bus. It is told when that changes; on the first bus it never is.
    fn set_forwarded(&self, _: &Forwarded) {}
}

/// Where a function is on its bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotFunction {
    /// 0 to 31.
    pub slot: u8,
    /// 0 to 7.
    pub function: u8,
}

/// Why a function was not put on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// Another function is there.
    #[error("PCI function {0}.{1} is taken")]
    Taken(u8, u8),
    /// There are 32 slots of 8 functions.
    #[error("there is no PCI function {0}.{1}")]
    OutOfRange(u8, u8),
}

/// CONFIG_ADDRESS (§3.2.2.3.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ConfigAddress {
    register: u8,
    #[bits(3)]
    function: u8,
    #[bits(5)]
    slot: u8,
    bus: u8,
    #[bits(7)]
    __: u8,
    enabled: bool,
}

/// What the guest may write of it.
const ADDRESS_WRITABLE: u32 = 0x80ff_fffc;

/// Configuration mechanism 1 alone: the address register.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mechanism {
    address: u32,
}

mod state {
    use super::{ADDRESS_WRITABLE, Mechanism};

    saved_state!(Mechanism => MechanismV1 { address: u32 } if |s| s.address & !ADDRESS_WRITABLE == 0);
}

/// Bus 0, with its configuration ports.
#[derive(rhea_core::object::Object)]
#[object(type = "PCI", parent = "bus")]
pub struct PciBus {
    slots: Arc<Slots>,
    mechanism: Mutex<Mechanism>,
}

impl PciBus {
    /// An empty bus whose four interrupt wires drive pins 0 to 3 (PIRQA# to PIRQD#) of `router`. Slots take the four
    /// wires in turn; slot 1, that of the ISA bridge, has INTA# on PIRQA#.
    pub fn new(router: &Arc<dyn InterruptSink>) -> Arc<Self> {
        let ends = std::array::from_fn(|wire| InterruptLine::new(Arc::clone(router), wire as u32));
        Arc::new(Self { slots: Slots::new(ends, 3), mechanism: Mutex::default() })
    }

    /// Puts the ports 0xcf8 and 0xcfc to 0xcff into `ports`. Narrow accesses to the three ports between are others'.
    pub fn map(self: &Arc<Self>, ports: &PortSpace) {
        ports.map(0xcf8, 1, Arc::new(AddressPort(Arc::clone(self))));
        ports.map(0xcfc, 4, Arc::new(DataPort(Arc::clone(self))));
    }

    /// Its slots.
    pub fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    /// Puts a function on the bus.
    ///
    /// # Errors
    /// A place that is taken or that there is not.
    pub fn add(&self, at: SlotFunction, function: Arc<dyn PciFunction>) -> Result<(), AddError> {
        self.slots.plug(at, None, function)
    }

    /// The wire for the function at `at` to drive its pin `pin` (0 for INTA#).
    pub fn interrupt(&self, at: SlotFunction, pin: u8) -> InterruptLine {
        self.slots.interrupt(at, pin)
    }

    /// Where the guest's next access goes, in words.
    fn address(&self) -> String {
        let address = ConfigAddress::from(self.mechanism.lock().address);
        let (bus, slot, function) = (address.bus(), address.slot(), address.function());
        format!("{bus:02x}:{slot:02x}.{function} 0x{:x}", address.register())
    }

    fn selected(&self) -> Option<(Arc<dyn PciFunction>, u8)> {
        let address = ConfigAddress::from(self.mechanism.lock().address);
        if !address.enabled() {
            return None;
        }
        let at = SlotFunction { slot: address.slot(), function: address.function() };
        let function = match address.bus() {
            0 => self.slots.function(at)?,
            bus => self.slots.behind(bus, at)?,
        };
        Some((function, address.register()))
    }
}

impl Device for PciBus {
    /// Resets the functions too.
    fn reset(&self) {
        *self.mechanism.lock() = Mechanism::default();
        for (_, function) in self.slots.functions() {
            function.reset();
        }
    }
}

impl Saveable for PciBus {
    type Chip = Mechanism;
    const KIND: &'static str = "PCI";

    fn save(&self) -> MechanismV1 {
        self.mechanism.lock().save()
    }

    fn restore(&self, state: MechanismV1) -> Result<(), LoadError> {
        *self.mechanism.lock() = Mechanism::load(state)?;
        Ok(())
    }
}

/// CONFIG_ADDRESS in the port space.
struct AddressPort(Arc<PciBus>);

/// §3.2.2.3.2: only dwords reach CONFIG_ADDRESS.
impl PortIo for AddressPort {
    fn name(&self) -> &str {
        "pci-conf-idx"
    }

    fn read(&self, _: u16, width: Width) -> u32 {
        if width == Width::Dword { self.0.mechanism.lock().address } else { u32::MAX }
    }

    fn write(&self, _: u16, width: Width, value: u32) {
        if width == Width::Dword {
            self.0.mechanism.lock().address = value & ADDRESS_WRITABLE;
        }
    }

    fn widest(&self) -> Width {
        Width::Dword
    }
}

/// CONFIG_DATA in the port space.
struct DataPort(Arc<PciBus>);

impl PortIo for DataPort {
    fn name(&self) -> &str {
        "pci-conf-data"
    }

    fn read(&self, offset: u16, width: Width) -> u32 {
        let byte = offset as u8 & 3;
        let value = match self.0.selected() {
            Some((function, register)) if usize::from(byte) + width.bytes() <= 4 => {
                function.read_config(register | byte, width)
            }
            Some((function, register)) => {
                // What hangs over the end of CONFIG_DATA reads as ones.
                let beyond = u32::MAX.checked_shl(8 * (4 - u32::from(byte))).unwrap_or(0);
                function.read_config(register, Width::Dword) >> (8 * byte) | beyond
            }
            None => u32::MAX,
        };
        trace!(PCI_CFG_READ, "{} @0x{byte:x} -> 0x{value:x}", self.0.address());
        value
    }

    fn write(&self, offset: u16, width: Width, value: u32) {
        trace!(PCI_CFG_WRITE, "{} @0x{:x} <- 0x{value:x}", self.0.address(), offset & 3);
        let byte = offset as u8 & 3;
        let Some((function, register)) = self.0.selected() else { return };
        if usize::from(byte) + width.bytes() <= 4 {
            function.write_config(register | byte, width, value);
        } else {
            for (at, value) in (byte..4).zip(value.to_le_bytes()) {
                function.write_config(register | at, Width::Byte, value.into());
            }
        }
    }

    fn widest(&self) -> Width {
        Width::Dword
    }
}

/// What answers in a function's window.
#[derive(Clone)]
pub enum WindowTarget {
    /// In memory.
    Memory(Target),
    /// At ports.
    Io(Arc<dyn PortIo>),
}

#[derive(Clone, Copy, PartialEq)]
enum Mapped {
    Nowhere,
    Ports(u16),
    Memory(u64, RegionId),
}

/// The windows of a function: keeps the spaces as its base address registers and command register say.
pub struct Windows {
    memory: Arc<AddressSpace>,
    ports: Arc<PortSpace>,
    targets: [Option<WindowTarget>; BARS],
    mapped: Mutex<[Mapped; BARS]>,
    forwarded: Mutex<Forwarded>,
}

impl Windows {
    /// Windows onto `targets`, by number of the register. Each port target must be one of its own.
    pub fn new(memory: Arc<AddressSpace>, ports: Arc<PortSpace>, targets: [Option<WindowTarget>; BARS]) -> Self {
        let (mapped, forwarded) = (Mutex::new([Mapped::Nowhere; BARS]), Mutex::default());
        Self { memory, ports, targets, mapped, forwarded }
    }

    /// Says what reaches the function's bus; to be followed by [`update`](Self::update).
    pub fn set_forwarded(&self, forwarded: &Forwarded) {
        *self.forwarded.lock() = forwarded.clone();
    }

    /// Maps and unmaps what changed; to be called after each configuration write and after a reset.
    pub fn update(&self, config: &ConfigSpace) {
        let mut mapped = self.mapped.lock();
        let forwarded = self.forwarded.lock();
        for (index, (mapped, target)) in mapped.iter_mut().zip(&self.targets).enumerate() {
            let (Some(target), Some(bar)) = (target, config.bar(index)) else { continue };
            let wanted = config.window(index).filter(|base| forwarded.reaches(bar.kind, *base, bar.size));
            match *mapped {
                Mapped::Nowhere if wanted.is_none() => continue,
                Mapped::Ports(base) if wanted == Some(base.into()) => continue,
                Mapped::Memory(base, _) if wanted == Some(base) => continue,
                Mapped::Nowhere => {}
                Mapped::Ports(_) => {
                    if let WindowTarget::Io(device) = target {
                        self.ports.unmap(device);
                    }
                }
                Mapped::Memory(_, region) => {
                    self.memory.unmap(region);
                }
            }
            *mapped = match (wanted, target) {
                (None, _) => Mapped::Nowhere,
                (Some(base), WindowTarget::Io(device)) => {
                    self.ports.map(base as u16, bar.size as u32, Arc::clone(device));
                    Mapped::Ports(base as u16)
                }
                // Above RAM, so that a device may be put over it, and below what the chipset maps for itself.
                (Some(base), WindowTarget::Memory(target)) => {
                    Mapped::Memory(base, self.memory.map(base, bar.size, 1, target.clone()))
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rhea_core::Mmio;

    use super::*;

    pub(super) struct Levels(pub(super) Mutex<u32>);

    impl InterruptSink for Levels {
        fn set_level(&self, pin: u32, level: bool) {
            let mut levels = self.0.lock();
            *levels = *levels & !(1 << pin) | u32::from(level) << pin;
        }
    }

    struct Echo(u8);

    impl Mmio for Echo {
        fn read(&self, offset: u64, _: Width) -> u64 {
            offset + u64::from(self.0)
        }

        fn write(&self, _: u64, _: Width, _: u64) {}
    }

    impl PortIo for Echo {
        fn read(&self, offset: u16, _: Width) -> u32 {
            u32::from(offset) + u32::from(self.0)
        }

        fn write(&self, _: u16, _: Width, _: u32) {}
    }

    struct Card {
        config: Mutex<ConfigSpace>,
        windows: Windows,
    }

    impl Device for Card {
        fn reset(&self) {
            let mut config = self.config.lock();
            config.write(4, Width::Word, 0);
            self.windows.update(&config);
        }
    }

    impl Saveable for Card {
        type Chip = Mechanism;
        const KIND: &'static str = "card";

        fn save(&self) -> MechanismV1 {
            Mechanism::default().save()
        }

        fn restore(&self, _: MechanismV1) -> Result<(), LoadError> {
            Ok(())
        }
    }

    impl PciFunction for Card {
        fn read_config(&self, offset: u8, width: Width) -> u32 {
            self.config.lock().read(offset, width)
        }

        fn write_config(&self, offset: u8, width: Width, value: u32) {
            let mut config = self.config.lock();
            config.write(offset, width, value);
            self.windows.update(&config);
        }

        fn config(&self) -> ConfigSpace {
            self.config.lock().clone()
        }

        fn set_forwarded(&self, forwarded: &Forwarded) {
            self.windows.set_forwarded(forwarded);
            self.windows.update(&self.config.lock());
        }
    }

    struct Bench {
        memory: Arc<AddressSpace>,
        ports: Arc<PortSpace>,
        bus: Arc<PciBus>,
        levels: Arc<Levels>,
    }

    fn bench() -> Bench {
        let levels = Arc::new(Levels(Mutex::new(0)));
        let bus = PciBus::new(&(Arc::clone(&levels) as _));
        let (memory, ports) = (Arc::new(AddressSpace::new()), Arc::new(PortSpace::new()));
        let identity = Identity { vendor: 0x1234, device: 0x5678, class: 0xff_0000, revision: 0, subsystem: (0, 0) };
        let mut config = ConfigSpace::new(identity);
        config.add_bar(0, BarKind::Io, 0x10);
        config.add_bar(1, BarKind::Memory, 0x1000);
        let mut targets = [const { None }; BARS];
        targets[0] = Some(WindowTarget::Io(Arc::new(Echo(0x40))));
        targets[1] = Some(WindowTarget::Memory(Target::Mmio(Arc::new(Echo(0x80)))));
        let windows = Windows::new(Arc::clone(&memory), Arc::clone(&ports), targets);
        let card = Arc::new(Card { config: Mutex::new(config), windows });
        bus.add(SlotFunction { slot: 3, function: 0 }, card).unwrap();
        bus.map(&ports);
        Bench { memory, ports, bus, levels }
    }

    fn select(ports: &PortSpace, slot: u32, register: u32) {
        ports.write(0xcf8, Width::Dword, 0x8000_0000 | slot << 11 | register);
    }

    #[test]
    fn mechanism_1_reaches_bytes_words_and_dwords_and_nothing_reads_as_ones() {
        let Bench { ports, .. } = bench();
        select(&ports, 3, 0);
        assert_eq!(ports.read(0xcfc, Width::Dword), 0x5678_1234);
        assert_eq!((ports.read(0xcfe, Width::Word), ports.read(0xcfd, Width::Byte)), (0x5678, 0x12));
        assert_eq!(ports.read(0xcff, Width::Word), 0xff56);
        assert_eq!(ports.read(0xcf8, Width::Dword), 0x8000_1800);
        select(&ports, 4, 0);
        assert_eq!(ports.read(0xcfc, Width::Dword), u32::MAX);
        ports.write(0xcf8, Width::Dword, 3 << 11);
        assert_eq!(ports.read(0xcfc, Width::Word), 0xffff);
        // Another bus.
        ports.write(0xcf8, Width::Dword, 0x8001_1800);
        assert_eq!(ports.read(0xcfc, Width::Word), 0xffff);
    }

    #[test]
    fn bytes_written_to_the_address_port_do_not_change_it() {
        let Bench { ports, bus, .. } = bench();
        select(&ports, 3, 0);
        ports.write(0xcf9, Width::Byte, 0xff);
        assert_eq!(ports.read(0xcf8, Width::Dword), 0x8000_1800);
        let state = bus.save();
        bus.reset();
        assert_eq!(ports.read(0xcf8, Width::Dword), 0);
        bus.restore(state).unwrap();
        assert_eq!(ports.read(0xcfc, Width::Word), 0x1234);
    }

    #[test]
    fn windows_follow_their_registers() {
        let Bench { memory, ports, bus, .. } = bench();
        let config = |register, value| {
            select(&ports, 3, register);
            ports.write(0xcfc, Width::Dword, value);
        };
        config(0x10, 0xc000);
        config(0x14, 0xfe00_0000);
        assert_eq!(ports.read(0xc005, Width::Byte), 0xff);
        config(4, 3);
        assert_eq!(ports.read(0xc005, Width::Byte), 0x45);
        assert_eq!(memory.read_value(0xfe00_0001, Width::Byte), 0x81);
        config(0x10, 0xd000);
        config(0x14, 0xfd00_0000);
        assert_eq!((ports.read(0xc005, Width::Byte), ports.read(0xd005, Width::Byte)), (0xff, 0x45));
        assert_eq!(memory.read_value(0xfe00_0001, Width::Byte), 0);
        assert_eq!(memory.read_value(0xfd00_0001, Width::Byte), 0x81);
        bus.reset();
        assert_eq!(ports.read(0xd005, Width::Byte), 0xff);
        assert!(memory.view().ranges().is_empty());
    }

    #[test]
    fn a_bridge_passes_on_its_bus_its_windows_and_its_interrupts() {
        let Bench { memory, ports, bus, levels } = bench();
        let at = SlotFunction { slot: 4, function: 0 };
        let bridge = Bridge::new(std::array::from_fn(|pin| bus.interrupt(at, pin as u8)));
        bus.add(at, Arc::clone(&bridge) as _).unwrap();
        let card = bus.slots().remove(SlotFunction { slot: 3, function: 0 }).unwrap();
        let inner = SlotFunction { slot: 2, function: 0 };
        bridge.slots().plug(inner, Some("card".to_owned()), card).unwrap();
        bridge.forward();
        let config = |bus: u32, slot: u32, register: u32, value| {
            ports.write(0xcf8, Width::Dword, 0x8000_0000 | bus << 16 | slot << 11 | register);
            ports.write(0xcfc, Width::Dword, value);
        };
        let read = |bus: u32, slot: u32| {
            ports.write(0xcf8, Width::Dword, 0x8000_0000 | bus << 16 | slot << 11);
            ports.read(0xcfc, Width::Dword)
        };
        assert_eq!(read(5, 2), u32::MAX);
        config(0, 4, 0x18, 0x0006_0500);
        assert_eq!((read(5, 2), read(6, 2), read(7, 2)), (0x5678_1234, u32::MAX, u32::MAX));
        config(5, 2, 0x14, 0xe010_0000);
        config(5, 2, 4, 2);
        assert!(memory.view().find(0xe010_0000).is_none());
        config(0, 4, 0x20, 0xe010_e010);
        config(0, 4, 4, 2);
        assert!(memory.view().find(0xe010_0000).is_some());
        config(0, 4, 0x20, 0xe020_e020);
        assert!(memory.view().find(0xe010_0000).is_none());
        // Slot 2's INTA# is the bridge's INTC#, and slot 4's INTC# the second wire.
        bridge.slots().interrupt(inner, 0).set(true);
        assert_eq!(*levels.0.lock(), 1 << 1);
        assert_eq!(bus.slots().list()[0].behind.as_ref().unwrap()[0].id.as_deref(), Some("card"));
        let state = bridge.save();
        bridge.reset();
        assert_eq!(read(5, 2), u32::MAX);
        bridge.restore(state).unwrap();
        assert_eq!(read(5, 2), 0x5678_1234);
    }

    #[test]
    fn slots_take_the_four_wires_in_turn_and_share_them() {
        let Bench { bus, levels, .. } = bench();
        let line = |slot, function, pin| bus.interrupt(SlotFunction { slot, function }, pin);
        for (slot, pin, wire) in [(1, 0, 0), (1, 3, 3), (2, 0, 1), (4, 1, 0), (31, 2, 0), (0, 0, 3)] {
            line(slot, 5, pin).raise();
            assert_eq!(*levels.0.lock(), 1 << wire, "slot {slot} pin {pin}");
            line(slot, 5, pin).lower();
        }
        let lines = [line(3, 0, 0), line(3, 1, 0), line(7, 0, 0)];
        lines.iter().for_each(InterruptLine::raise);
        lines.iter().for_each(InterruptLine::raise);
        lines[0].lower();
        lines[2].lower();
        assert_eq!(*levels.0.lock(), 1 << 2);
        lines[1].lower();
        assert_eq!(*levels.0.lock(), 0);
    }

    #[test]
    fn a_place_is_taken_once() {
        let Bench { bus, .. } = bench();
        let at = SlotFunction { slot: 3, function: 0 };
        let card = bus.slots.function(at).unwrap();
        assert_eq!(bus.add(at, Arc::clone(&card)), Err(AddError::Taken(3, 0)));
        assert_eq!(bus.add(SlotFunction { slot: 32, function: 0 }, card), Err(AddError::OutOfRange(32, 0)));
        assert!(bus.slots.remove(at).is_some() && bus.slots.functions().is_empty());
    }

    proptest! {
        #[test]
        fn any_access_is_harmless(ops in prop::collection::vec((0u16..8, 0u32..3, any::<u32>(), any::<bool>()), 0..100)) {
            let Bench { ports, .. } = bench();
            for (offset, width, value, select_card) in ops {
                if select_card {
                    select(&ports, 3, value & 0xfc);
                }
                let width = Width::of(1 << width).unwrap();
                ports.write(0xcf8 + offset, width, value);
                ports.read(0xcf8 + offset, width);
            }
        }
    }
}
