//! Hotplug of processors, memory and PCI devices: registers by which the ACPI tables learn of what came, and say what
//! the guest let go of.
//!
//! Source: the published register layouts of this kind of PC ("CPU hotplug interface", "memory hotplug interface", "PCI
//! hotplug interface"); ACPI specification 5.0, §5.6.6 (notifications) and §6.3 (cited as §).

pub mod cpu;
pub mod memory;
pub mod pci;

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use rhea_core::{Device, LoadError, PortIo, PortSpace, SaveState, Width};
use serde::{Deserialize, Serialize};

pub use cpu::CpuHotplug;
pub use memory::{MemoryHotplug, MemorySlot};
pub use pci::PciHotplug;

use crate::Saveable;

/// General-purpose events of what comes and goes.
pub mod event {
    /// PCI devices.
    pub const PCI: u8 = 1;
    /// Processors.
    pub const PROCESSORS: u8 = 2;
    /// Memory.
    pub const MEMORY: u8 = 3;
}

/// What the guest does about things that come and go. Called on a processor's thread, under no lock of the chip.
pub trait HotplugSink: Send + Sync {
    /// The guest let go of `slot` (`_EJ0`, §6.3.3).
    fn ejected(&self, slot: u32);

    /// The guest reported (`_OST`, §6.3.5): the event it speaks of, and how it went.
    fn reported(&self, slot: u32, event: u32, status: u32);
}

/// The last report of a slot, all zero before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What the guest reported about.
    pub event: u32,
    /// How it went.
    pub status: u32,
}

/// What an access tells the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The guest let go of a slot.
    Ejected(u32),
    /// The guest reported about a slot.
    Reported(u32, Report),
}

/// Whether something is in a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Presence {
    /// Nothing.
    #[default]
    Empty,
    /// Something.
    Present,
    /// Something that the guest let go of; it sees nothing there, though the machine has yet to take it away.
    Released,
}

/// A slot as the guest sees it through one status register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    presence: Presence,
    /// The guest has yet to be told of what came.
    inserting: bool,
    /// The guest has yet to be asked to let go.
    removing: bool,
    report: Report,
}

impl Slot {
    const ENABLED: u32 = 1 << 0;
    const INSERTING: u32 = 1 << 1;
    const REMOVING: u32 = 1 << 2;
    const EJECT: u32 = 1 << 3;

    /// An empty one.
    const EMPTY: Self =
        Self { presence: Presence::Empty, inserting: false, removing: false, report: Report { event: 0, status: 0 } };
    /// One in which something was from the start.
    const OCCUPIED: Self = Self { presence: Presence::Present, ..Self::EMPTY };

    /// Something is put in; the guest is told if it is to know.
    fn insert(&mut self, tell: bool) {
        *self = Self { presence: Presence::Present, inserting: tell, removing: false, report: self.report };
    }

    /// The guest is to be asked for what is there.
    fn request_removal(&mut self) -> bool {
        self.removing |= self.presence == Presence::Present;
        self.removing
    }

    /// What is there stays.
    fn cancel_removal(&mut self) {
        self.removing = false;
        if self.presence == Presence::Released {
            self.presence = Presence::Present;
        }
    }

    /// What was there is taken away.
    fn remove(&mut self) {
        *self = Self { report: self.report, ..Self::EMPTY };
    }

    fn has_event(&self) -> bool {
        self.inserting || self.removing
    }

    fn status(&self) -> u32 {
        let bit = |mask, set| if set { mask } else { 0 };
        bit(Self::ENABLED, self.presence == Presence::Present)
            | bit(Self::INSERTING, self.inserting)
            | bit(Self::REMOVING, self.removing)
    }

    /// A write to the control register: whether the guest lets go of what is there.
    fn control(&mut self, value: u32) -> bool {
        self.inserting &= value & Self::INSERTING == 0;
        self.removing &= value & Self::REMOVING == 0;
        let eject = value & Self::EJECT != 0 && self.presence == Presence::Present;
        if eject {
            *self = Self { presence: Presence::Released, report: self.report, ..Self::EMPTY };
        }
        eject
    }

    /// Back to power-on: nobody has been told, or has said, anything.
    fn reset(&mut self) {
        *self = Self { presence: self.presence, ..Self::EMPTY };
    }

    /// Events are those of something that is there.
    fn is_valid(&self) -> bool {
        self.presence == Presence::Present || !self.has_event()
    }
}

/// The registers of one kind of slots.
pub trait Registers: SaveState + Send {
    /// First port.
    const BASE: u16;
    /// Ports.
    const LENGTH: u32;
    /// What they are, in a saved machine.
    const KIND: &'static str;

    /// A read.
    fn read(&mut self, offset: u16, width: Width) -> u32;

    /// A write.
    fn write(&mut self, offset: u16, width: Width, value: u32) -> Vec<Told>;

    /// Back to power-on; what is in the slots stays.
    fn reset(&mut self);

    /// Whether a saved state belongs to the same slots.
    fn fits(&self, saved: &Self) -> bool;
}

/// Registers whose slots have a status and a report each.
pub trait Slotted: Registers {
    /// A slot, if there is one of this number.
    fn slot(&mut self, index: u32) -> Option<&mut Slot>;

    /// All of them, by number.
    fn slots(&self) -> impl Iterator<Item = &Slot>;

    /// What was in a slot is gone: nothing of it stays.
    fn remove(&mut self, index: u32) {
        self.slot(index).into_iter().for_each(Slot::remove);
    }
}

/// Raises a general-purpose event.
pub type Raise = Arc<dyn Fn() + Send + Sync>;

/// Registers at their ports, with the event that they raise and those who hear what the guest does.
pub struct Controller<R> {
    registers: Mutex<R>,
    raise: Raise,
    sink: OnceLock<Arc<dyn HotplugSink>>,
    /// Whether what comes is news for the guest.
    under_way: AtomicBool,
}

impl<R: Registers> Controller<R> {
    fn of(registers: R, raise: Raise) -> Arc<Self> {
        let registers = Mutex::new(registers);
        Arc::new(Self { registers, raise, sink: OnceLock::new(), under_way: AtomicBool::new(false) })
    }

    /// Who hears what the guest does. Set once.
    pub fn set_sink(&self, sink: Arc<dyn HotplugSink>) {
        let _ = self.sink.set(sink);
    }

    /// From now on, what is inserted is news for the guest.
    pub fn power_on(&self) {
        self.under_way.store(true, Ordering::Relaxed);
    }

    /// Changes the slots and raises the event if `change` says that there is news.
    fn change(&self, change: impl FnOnce(&mut R, bool) -> bool) {
        let under_way = self.under_way.load(Ordering::Relaxed);
        if change(&mut self.registers.lock(), under_way) {
            (self.raise)();
        }
    }

    fn look<T>(&self, look: impl FnOnce(&R) -> T) -> T {
        look(&self.registers.lock())
    }
}

impl<R: Slotted> Controller<R> {
    /// The guest is to be asked for what is in slot `index`.
    pub fn request_removal(&self, index: u32) {
        self.change(|registers, _| registers.slot(index).is_some_and(Slot::request_removal));
    }

    /// What is in slot `index` stays after all.
    pub fn cancel_removal(&self, index: u32) {
        self.change(|registers, _| {
            registers.slot(index).into_iter().for_each(Slot::cancel_removal);
            false
        });
    }

    /// What was in slot `index` is gone.
    pub fn remove(&self, index: u32) {
        self.change(|registers, _| {
            registers.remove(index);
            false
        });
    }

    /// Whether there is something in slot `index`, though the guest may have let go of it.
    pub fn is_present(&self, index: u32) -> bool {
        let presence = |registers: &R| registers.slots().nth(index as usize).map(|slot| slot.presence);
        self.look(presence).is_some_and(|presence| presence != Presence::Empty)
    }

    /// What the guest reported last, of each slot.
    pub fn reports(&self) -> Vec<Report> {
        self.look(|registers| registers.slots().map(|slot| slot.report).collect())
    }
}

impl<R: Registers + 'static> Controller<R> {
    /// Puts the registers into `ports`.
    pub fn map(self: &Arc<Self>, ports: &PortSpace) {
        ports.map(R::BASE, R::LENGTH, Arc::clone(self) as Arc<dyn PortIo>);
    }
}

impl<R: Registers> PortIo for Controller<R> {
    fn name(&self) -> &str {
        R::KIND
    }

    fn read(&self, offset: u16, width: Width) -> u32 {
        self.registers.lock().read(offset, width)
    }

    fn write(&self, offset: u16, width: Width, value: u32) {
        let told = self.registers.lock().write(offset, width, value);
        let Some(sink) = self.sink.get() else { return };
        for told in told {
            match told {
                Told::Ejected(slot) => sink.ejected(slot),
                Told::Reported(slot, report) => sink.reported(slot, report.event, report.status),
            }
        }
    }

    fn widest(&self) -> Width {
        Width::Dword
    }
}

impl<R: Registers> Device for Controller<R> {
    fn reset(&self) {
        self.registers.lock().reset();
    }
}

impl<R: Registers> Saveable for Controller<R> {
    type Chip = R;
    const KIND: &'static str = R::KIND;

    fn save(&self) -> R::State {
        self.registers.lock().save()
    }

    fn restore(&self, state: R::State) -> Result<(), LoadError> {
        let saved = R::load(state)?;
        let mut registers = self.registers.lock();
        if !registers.fits(&saved) {
            return Err(LoadError::invalid("hotplug slots", "other slots than this machine has"));
        }
        *registers = saved;
        Ok(())
    }
}

#[cfg(test)]
mod bench {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Counts the events that were raised, and hears what the guest does.
    #[derive(Default)]
    pub(super) struct Bench {
        pub(super) ports: PortSpace,
        raised: Arc<AtomicUsize>,
        heard: Arc<Heard>,
    }

    #[derive(Default)]
    struct Heard(Mutex<Vec<Told>>);

    impl HotplugSink for Heard {
        fn ejected(&self, slot: u32) {
            self.0.lock().push(Told::Ejected(slot));
        }

        fn reported(&self, slot: u32, event: u32, status: u32) {
            self.0.lock().push(Told::Reported(slot, Report { event, status }));
        }
    }

    impl Bench {
        pub(super) fn raise(&self) -> Raise {
            let raised = Arc::clone(&self.raised);
            Arc::new(move || {
                raised.fetch_add(1, Ordering::Relaxed);
            })
        }

        pub(super) fn connect<R: Registers + 'static>(&self, controller: &Arc<Controller<R>>) {
            controller.map(&self.ports);
            controller.set_sink(Arc::clone(&self.heard) as _);
            controller.power_on();
        }

        /// Events since the last time.
        pub(super) fn raised(&self) -> usize {
            self.raised.swap(0, Ordering::Relaxed)
        }

        /// What was heard since the last time.
        pub(super) fn heard(&self) -> Vec<Told> {
            std::mem::take(&mut self.heard.0.lock())
        }
    }
}
