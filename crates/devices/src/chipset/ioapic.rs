//! The I/O APIC: 24 interrupt inputs, each with an entry that says which processor gets which vector.
//!
//! Source: Intel 290566, "82093AA I/O Advanced Programmable Interrupt Controller" (cited as §); EOI register: Intel
//! 290658, "82870P2", as in I/O APICs of version 0x20.

use std::sync::{Arc, Weak};

use bitfield_struct::bitfield;
use parking_lot::Mutex;
use rhea_core::{Device, InterruptSink, LoadError, Mmio, SaveState, Width, trace};

pub use state::IoApicV1;

use super::lapic::{ApicBus, DeliveryMode, EndOfInterrupt, InterruptMessage, Trigger, widen};
use crate::Saveable;

/// Where the window of the first I/O APIC is.
pub const DEFAULT_BASE: u64 = 0xfec0_0000;
/// Inputs.
pub const PINS: usize = 24;
/// Version 0x20: with an EOI register.
const VERSION: u32 = 0x20;

/// An entry of the redirection table (§3.2.4).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Redirection {
    /// Interrupt vector.
    pub vector: u8,
    /// Delivery mode.
    #[bits(3)]
    pub mode: u8,
    /// Whether the destination is logical.
    pub logical: bool,
    /// Delivery status: delivery takes no time here.
    pub pending: bool,
    /// Polarity: lines carry "asserted" and not a voltage, so that it has no effect.
    pub active_low: bool,
    /// Sent and not yet served (level-triggered entries).
    pub remote_irr: bool,
    /// Trigger mode.
    pub level: bool,
    /// Interrupt mask.
    pub masked: bool,
    #[bits(39)]
    __: u64,
    /// Destination.
    pub destination: u8,
}

/// Bits of an entry that the guest writes: all but delivery status, remote IRR and the reserved ones.
const WRITABLE: u64 = 0xff00_0000_0001_afff;

/// A register in the memory window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// IOREGSEL: the index of the register to reach.
    Select,
    /// IOWIN: that register.
    Data,
    /// End of interrupt.
    Eoi,
}

impl Window {
    /// The register at an offset, if there is one.
    pub const fn at(offset: u64) -> Option<Self> {
        match offset {
            0x00 => Some(Self::Select),
            0x10 => Some(Self::Data),
            0x40 => Some(Self::Eoi),
            _ => None,
        }
    }
}

/// A register behind the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Id,
    Version,
    Arbitration,
    RedirectionLow(usize),
    RedirectionHigh(usize),
}

impl Register {
    const fn at(index: u8) -> Option<Self> {
        match index {
            0 => Some(Self::Id),
            1 => Some(Self::Version),
            2 => Some(Self::Arbitration),
            0x10..0x40 if index & 1 == 0 => Some(Self::RedirectionLow((index as usize - 0x10) >> 1)),
            0x10..0x40 => Some(Self::RedirectionHigh((index as usize - 0x10) >> 1)),
            _ => None,
        }
    }
}

/// The chip alone. What it sends is handed to the caller one message at a time, in the order of the pins.
#[derive(Clone, Debug, PartialEq)]
pub struct Chip {
    id: u8,
    select: u8,
    table: [u64; PINS],
    /// Levels of the inputs.
    lines: u32,
    /// Edges that came and were not sent yet.
    edges: u32,
}

impl Default for Chip {
    fn default() -> Self {
        Self::new()
    }
}

impl Chip {
    /// A chip after power-on: every entry masked.
    pub const fn new() -> Self {
        Self { id: 0, select: 0, table: [Redirection::new().with_masked(true).into_bits(); PINS], lines: 0, edges: 0 }
    }

    fn entry(&self, pin: usize) -> Option<Redirection> {
        self.table.get(pin).map(|&entry| entry.into())
    }

    /// Drives an input. Edges at a masked input are lost (§3.4.2 says so of the Interrupt Mask bit).
    pub fn set_level(&mut self, pin: usize, level: bool) {
        let Some(entry) = self.entry(pin) else { return };
        let bit = 1 << pin;
        let rises = level && self.lines & bit == 0;
        self.lines = if level { self.lines | bit } else { self.lines & !bit };
        if rises && !entry.level() && !entry.masked() {
            self.edges |= bit;
        }
    }

    /// What an edge at a pin sends, if it is not masked.
    fn edge_message(&self, pin: usize) -> Option<InterruptMessage> {
        let entry = self.entry(pin).filter(|entry| !entry.masked() && !entry.level())?;
        Some(Self::message(entry, Trigger::Edge))
    }

    fn message(entry: Redirection, trigger: Trigger) -> InterruptMessage {
        InterruptMessage {
            destination: widen(entry.destination(), entry.logical()),
            logical: entry.logical(),
            mode: DeliveryMode::decode(entry.mode()),
            vector: entry.vector(),
            trigger,
        }
    }

    /// The next message to send.
    pub fn next_message(&mut self) -> Option<InterruptMessage> {
        let mut asking = self.lines | self.edges;
        while asking != 0 {
            let pin = asking.trailing_zeros() as usize;
            asking &= asking - 1;
            let Some(entry) = self.entry(pin) else { continue };
            let mode = DeliveryMode::decode(entry.mode());
            // §3.2.4: of SMI, NMI and INIT only edges make sense; as a level they would be sent for ever.
            let level = entry.level() && matches!(mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority);
            let due = if entry.level() {
                self.lines & 1 << pin != 0 && !entry.remote_irr() && !entry.masked()
            } else {
                self.edges & 1 << pin != 0
            };
            if !due {
                continue;
            }
            self.edges &= !(1 << pin);
            if entry.level() {
                self.table[pin] = entry.with_remote_irr(true).into();
            }
            return Some(Self::message(entry, if level { Trigger::Level } else { Trigger::Edge }));
        }
        None
    }

    /// A level-triggered vector was served: entries that have it may send again.
    pub fn end_of_interrupt(&mut self, vector: u8) {
        for entry in &mut self.table {
            let redirection = Redirection::from(*entry);
            if redirection.vector() == vector && redirection.level() {
                *entry = redirection.with_remote_irr(false).into();
            }
        }
    }

    /// A read of the window.
    pub fn read(&self, window: Window) -> u32 {
        match (window, Register::at(self.select)) {
            (Window::Select, _) => self.select.into(),
            (Window::Eoi, _) | (Window::Data, None) => 0,
            (Window::Data, Some(Register::Id | Register::Arbitration)) => u32::from(self.id) << 24,
            (Window::Data, Some(Register::Version)) => (PINS as u32 - 1) << 16 | VERSION,
            (Window::Data, Some(Register::RedirectionLow(pin))) => self.entry(pin).map_or(0, |e| u64::from(e) as u32),
            (Window::Data, Some(Register::RedirectionHigh(pin))) => {
                self.entry(pin).map_or(0, |e| (u64::from(e) >> 32) as u32)
            }
        }
    }

    /// A write to the window.
    pub fn write(&mut self, window: Window, value: u32) {
        match (window, Register::at(self.select)) {
            (Window::Select, _) => self.select = value as u8,
            (Window::Eoi, _) => self.end_of_interrupt(value as u8),
            (Window::Data, Some(Register::Id)) => self.id = (value >> 24 & 0xf) as u8,
            (Window::Data, Some(Register::Version | Register::Arbitration) | None) => {}
            (Window::Data, Some(Register::RedirectionLow(pin))) => self.set_entry(pin, 0xffff_ffff, value.into()),
            (Window::Data, Some(Register::RedirectionHigh(pin))) => {
                self.set_entry(pin, !0xffff_ffff, u64::from(value) << 32);
            }
        }
    }

    fn set_entry(&mut self, pin: usize, half: u64, value: u64) {
        if let Some(entry) = self.table.get_mut(pin) {
            let writable = half & WRITABLE;
            let new = Redirection::from(*entry & !writable | value & writable);
            // What was sent as a level and became an edge is not waited for any more.
            *entry = if new.level() { new } else { new.with_remote_irr(false) }.into();
            if new.masked() || new.level() {
                self.edges &= !(1 << pin);
            }
        }
    }
}

mod state {
    use super::{Chip, PINS, Redirection, WRITABLE};

    saved_state!(Chip => IoApicV1 {
        id: u8, select: u8, table: [u64; PINS], lines: u32, edges: u32,
    } if |s| s.id < 16 && (s.lines | s.edges) >> PINS == 0
        && s.table.iter().all(|&entry| entry & !WRITABLE & !Redirection::new().with_remote_irr(true).into_bits() == 0));
}

/// The I/O APIC in memory; its inputs are pins 0 to 23 of an [`InterruptSink`].
#[derive(rhea_core::object::Object)]
#[object(type = "ioapic", parent = "sys-bus-device")]
pub struct IoApic {
    chip: Mutex<Chip>,
    bus: Arc<ApicBus>,
}

impl IoApic {
    /// An I/O APIC that sends on `bus` and hears of its EOIs.
    pub fn new(bus: Arc<ApicBus>) -> Arc<Self> {
        let io_apic = Arc::new(Self { chip: Mutex::new(Chip::new()), bus });
        let weak: Weak<Self> = Arc::downgrade(&io_apic);
        io_apic.bus.connect_io_apic(weak);
        io_apic
    }

    /// Changes the chip and sends what then is due. A level-triggered entry sends once until its EOI and an edge once,
    /// so that this ends.
    fn with<T>(&self, change: impl FnOnce(&mut Chip) -> T) -> T {
        let mut chip = self.chip.lock();
        let result = change(&mut chip);
        while let Some(message) = chip.next_message() {
            self.bus.send(&message);
        }
        result
    }
}

impl InterruptSink for IoApic {
    fn set_level(&self, pin: u32, level: bool) {
        trace!(IOAPIC_SET_IRQ, "vector {pin} level {}", u8::from(level));
        self.with(|chip| chip.set_level(pin as usize, level));
    }

    fn is_pending(&self, pin: u32) -> bool {
        let message = self.chip.lock().edge_message(pin as usize);
        message.is_some_and(|message| self.bus.is_requested(&message))
    }
}

impl EndOfInterrupt for IoApic {
    fn end_of_interrupt(&self, vector: u8) {
        self.with(|chip| chip.end_of_interrupt(vector));
    }
}

impl Mmio for IoApic {
    fn name(&self) -> &str {
        "ioapic"
    }

    fn read(&self, offset: u64, _: Width) -> u64 {
        let value = Window::at(offset).map_or(0, |window| self.chip.lock().read(window).into());
        trace!(IOAPIC_MEM_READ, "addr 0x{offset:x} value 0x{value:x}");
        value
    }

    fn write(&self, offset: u64, _: Width, value: u64) {
        trace!(IOAPIC_MEM_WRITE, "addr 0x{offset:x} value 0x{value:x}");
        if let Some(window) = Window::at(offset) {
            self.with(|chip| chip.write(window, value as u32));
        }
    }
}

impl Device for IoApic {
    fn reset(&self) {
        *self.chip.lock() = Chip::new();
    }
}

impl Saveable for IoApic {
    type Chip = Chip;
    const KIND: &'static str = "ioapic";

    fn save(&self) -> IoApicV1 {
        self.chip.lock().save()
    }

    fn restore(&self, state: IoApicV1) -> Result<(), LoadError> {
        // What was sent is saved with its receiver.
        *self.chip.lock() = Chip::load(state)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(chip: &mut Chip, pin: u8, entry: u64) {
        for half in 0..2 {
            chip.write(Window::Select, u32::from(0x11 + 2 * pin - half));
            chip.write(Window::Data, (entry >> (32 * (1 - half))) as u32);
        }
    }

    fn entry(chip: &mut Chip, pin: u8) -> u32 {
        chip.write(Window::Select, u32::from(0x10 + 2 * pin));
        chip.read(Window::Data)
    }

    #[test]
    fn an_edge_is_sent_once_with_what_the_entry_says() {
        let mut chip = Chip::new();
        set(&mut chip, 2, 0x0300_0000_0000_0930);
        chip.set_level(2, true);
        let (mode, trigger) = (DeliveryMode::LowestPriority, Trigger::Edge);
        let message = InterruptMessage { destination: 3, logical: true, mode, vector: 0x30, trigger };
        assert_eq!(chip.next_message(), Some(message));
        chip.set_level(2, true);
        assert_eq!(chip.next_message(), None);
        chip.set_level(2, false);
        chip.set_level(2, true);
        assert_eq!(chip.next_message(), Some(message));
    }

    #[test]
    fn a_masked_edge_is_lost_and_a_masked_level_waits() {
        let mut chip = Chip::new();
        set(&mut chip, 4, 0x1_0034);
        set(&mut chip, 9, 0x1_8039);
        chip.set_level(4, true);
        chip.set_level(9, true);
        assert_eq!(chip.next_message(), None);
        set(&mut chip, 4, 0x34);
        set(&mut chip, 9, 0x8039);
        assert_eq!(chip.next_message().map(|message| message.vector), Some(0x39));
        assert_eq!(chip.next_message(), None);
    }

    #[test]
    fn a_level_is_sent_again_after_its_eoi_while_it_stands() {
        let mut chip = Chip::new();
        set(&mut chip, 9, 0x8039);
        chip.set_level(9, true);
        assert!(chip.next_message().is_some());
        assert_eq!(entry(&mut chip, 9), 0xc039);
        assert_eq!(chip.next_message(), None);
        chip.end_of_interrupt(0x40);
        assert_eq!(chip.next_message(), None);
        chip.write(Window::Eoi, 0x39);
        assert!(chip.next_message().is_some());
        chip.set_level(9, false);
        chip.end_of_interrupt(0x39);
        assert_eq!((chip.next_message(), entry(&mut chip, 9)), (None, 0x8039));
    }

    #[test]
    fn making_an_entry_edge_triggered_clears_its_remote_irr() {
        let mut chip = Chip::new();
        set(&mut chip, 9, 0x8039);
        chip.set_level(9, true);
        chip.next_message();
        set(&mut chip, 9, 0x1_0039);
        assert_eq!(entry(&mut chip, 9), 0x1_0039);
    }

    #[test]
    fn identification_is_four_bits_and_the_version_says_24_entries() {
        let mut chip = Chip::new();
        chip.write(Window::Data, 0xff00_0000);
        assert_eq!(chip.read(Window::Data), 0x0f00_0000);
        chip.write(Window::Select, 1);
        chip.write(Window::Data, 0);
        assert_eq!(chip.read(Window::Data), 0x0017_0020);
    }

    proptest! {
        #[test]
        fn any_access_is_harmless_and_sending_ends(ops in prop::collection::vec((0u8..5, any::<u32>()), 0..200)) {
            let mut chip = Chip::new();
            for (op, value) in ops {
                match op {
                    0 => chip.write(Window::Select, value % 0x50),
                    1 => chip.write(Window::Data, value),
                    2 => chip.write(Window::Eoi, value),
                    3 => { chip.read(Window::Data); }
                    _ => chip.set_level(value as usize % 32, value & 0x100 != 0),
                }
                let sent = std::iter::from_fn(|| chip.next_message()).take(100).count();
                prop_assert!(sent <= PINS);
                prop_assert_eq!(&Chip::load(chip.save()).unwrap(), &chip);
            }
        }
    }
}
