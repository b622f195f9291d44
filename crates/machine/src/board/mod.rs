//! Boards: which devices a machine has, where they are and how they are wired.

mod debug_log;
pub mod none;
pub mod pc;
mod processor_bus;
mod virtio;

use std::sync::Arc;

use rhea_devices::{
    char::{CharSink, uart::Serial},
    chipset::pci::PciBus,
    virtio::{balloon::Balloon, console::Console},
};

use rhea_x86::bus::SystemBus;

use crate::{MachineError, config::DeviceConfig, parts::Parts, processors::Processors};

/// Where the serial ports' output goes, first port first; absent ports have none.
#[derive(Clone, Default)]
pub struct SerialPorts {
    /// One sink a port.
    pub ports: Vec<Option<Arc<dyn CharSink>>>,
}

/// A board: what the machine is, apart from its run state.
pub trait Board: Send + Sync {
    /// Everything back to power-on, software loaded again. The processors stand still, and are reset by this too.
    ///
    /// # Errors
    /// The software does not fit.
    fn reset(&self, processors: &Processors) -> Result<(), MachineError>;

    /// Wakes the machine from suspend to RAM: everything back to power-on but RAM, and on to the waking vector.
    ///
    /// # Errors
    /// The guest left no waking vector.
    fn wake(&self, processors: &Processors) -> Result<(), MachineError>;

    /// Memory and ports as the first processor sees them, if there is one.
    fn first_processor_bus(&self) -> Option<Arc<dyn SystemBus>>;

    /// The power button was pressed.
    fn power_button(&self);

    /// A non-maskable interrupt for the processors.
    ///
    /// # Errors
    /// The board has none.
    fn nmi(&self) -> Result<(), MachineError>;

    /// The console devices, in the order of the configuration.
    fn consoles(&self) -> Vec<Arc<Console>>;

    /// The balloon, if the machine has one.
    fn balloon(&self) -> Option<Arc<Balloon>>;

    /// Puts a virtio device on the PCI bus.
    ///
    /// # Errors
    /// The board has no such bus, or no room on it.
    fn plug(&self, config: &DeviceConfig, parts: &Parts) -> Result<(), MachineError>;

    /// Takes the virtio device `id` away, without asking the guest.
    ///
    /// # Errors
    /// There is no such device.
    fn unplug(&self, id: &str) -> Result<(), MachineError>;

    /// The PCI bus, if the board has one.
    fn pci(&self) -> Option<&Arc<PciBus>>;

    /// Serial port `index`, if the board has it.
    fn serial(&self, index: usize) -> Option<Arc<Serial>>;
}
