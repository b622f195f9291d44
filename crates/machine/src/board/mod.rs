//! Boards: which devices a machine has, where they are and how they are wired.

pub(crate) mod bios;
mod debug_log;
pub mod hotplug;
pub mod none;
pub mod pc;
mod processor_bus;
pub(crate) mod ram;
pub(crate) mod shown;
mod smbios;
pub mod sockets;
mod vmcoreinfo;

use std::sync::Arc;

use rhea_devices::{
    acpi::generation::GenerationId,
    acpi::pm::WakeCause,
    chipset::{
        lapic::Inspection,
        pci::{MessageSink, PciBus},
    },
    misc::rtc::IsaRtc,
};

use rhea_x86::bus::SystemBus;

use self::{
    shown::{InterruptControllers, LoadedItem},
    sockets::Sockets,
};

use crate::{error::MachineError, input::Input, processors::Processors, state::part::BoardParts};

/// A board: what the machine is, apart from its run state.
pub(crate) trait Board: Send + Sync {
    /// Everything back to power-on, software loaded again. The processors stand still, and are reset by this too.
    ///
    /// # Errors
    /// The software does not fit.
    fn reset(&self, processors: &Processors) -> Result<(), MachineError>;

    /// Wakes the machine from suspend to RAM: everything back to power-on but RAM, and on to the waking vector.
    ///
    /// # Errors
    /// The guest left no waking vector.
    fn wake(&self, processors: &Processors, cause: WakeCause) -> Result<(), MachineError>;

    /// Memory and ports as the first processor sees them, if there is one.
    fn first_processor_bus(&self) -> Option<Arc<dyn SystemBus>>;

    /// Its parts whose state is saved, but for what is on its PCI bus.
    fn parts(&self) -> BoardParts {
        BoardParts::default()
    }

    /// Has the wires of interrupts tell their controllers their level once more.
    fn drive_wires(&self) {}

    /// Where processors come and go, if the board has such places.
    fn sockets(&self) -> Option<&Sockets>;

    /// The power button was pressed.
    fn power_button(&self);

    /// A non-maskable interrupt for the processors.
    ///
    /// # Errors
    /// The board has none.
    fn nmi(&self) -> Result<(), MachineError>;

    /// Address and size of the note that the guest has left for dumps.
    fn vmcoreinfo(&self) -> Option<(u64, u64)> {
        None
    }

    /// Gives the guest a place to say where its note is.
    ///
    /// # Errors
    /// The board has none, or has it already.
    fn add_vmcoreinfo(&self) -> Result<(), MachineError> {
        Err(MachineError::Unsupported("this machine has no channel through which its guest could tell"))
    }

    /// The identifier of the machine's generation, if it has one.
    fn generation_id(&self) -> Option<Arc<GenerationId>> {
        None
    }

    /// Gives the machine an identifier of its generation, as it lies in memory.
    ///
    /// # Errors
    /// It has one already, or no place for it.
    fn add_generation_id(&self, bytes: [u8; 16]) -> Result<Arc<GenerationId>, MachineError> {
        let _ = bytes;
        Err(MachineError::Unsupported("this machine has no place for a generation identifier"))
    }

    /// Says in the tables where the port is by which the guest says that it panicked.
    ///
    /// # Errors
    /// There is one already, or no place for it.
    fn set_panic_port(&self, port: u16) -> Result<(), MachineError> {
        let _ = port;
        Err(MachineError::Unsupported("No 'ISA' bus found for device 'pvpanic'"))
    }

    /// What comes and goes while the machine runs, if anything does.
    fn hotplug(&self) -> Option<&hotplug::Hotplug>;

    /// The PCI bus, if the board has one.
    fn pci(&self) -> Option<&Arc<PciBus>>;

    /// What takes the interrupt messages of PCI devices.
    fn messages(&self) -> Option<Arc<dyn MessageSink>>;

    /// The state of the interrupt controllers.
    fn interrupt_controllers(&self) -> Option<InterruptControllers> {
        None
    }

    /// The local APIC with that identification.
    fn local_apic(&self, id: u8) -> Option<Inspection> {
        let _ = id;
        None
    }

    /// What was put into memory, or is offered to firmware.
    fn loaded_items(&self) -> Vec<LoadedItem> {
        Vec::new()
    }

    /// Keyboard and mouse.
    fn input(&self) -> Option<&Input> {
        None
    }

    /// The clock of date and time and its path in the tree, if the board has one.
    fn clock(&self) -> Option<(&Arc<IsaRtc>, &str)>;
}
