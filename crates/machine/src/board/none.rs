//! The machine with nothing: no processor, no memory, no device.

use std::sync::Arc;

use rhea_devices::{
    char::uart::Serial,
    chipset::pci::PciBus,
    virtio::{balloon::Balloon, console::Console},
};
use rhea_x86::bus::SystemBus;

use super::Board;
use crate::{MachineError, config::DeviceConfig, parts::Parts, processors::Processors};

/// The board of the machine `none`.
pub struct NoBoard;

impl Board for NoBoard {
    fn reset(&self, _: &Processors) -> Result<(), MachineError> {
        Ok(())
    }

    fn wake(&self, _: &Processors) -> Result<(), MachineError> {
        Err(MachineError::NotSuspended)
    }

    fn first_processor_bus(&self) -> Option<Arc<dyn SystemBus>> {
        None
    }

    fn power_button(&self) {}

    fn nmi(&self) -> Result<(), MachineError> {
        Err(MachineError::Unsupported("machine does not provide NMIs"))
    }

    fn consoles(&self) -> Vec<Arc<Console>> {
        Vec::new()
    }

    fn balloon(&self) -> Option<Arc<Balloon>> {
        None
    }

    fn plug(&self, _: &DeviceConfig, _: &Parts) -> Result<(), MachineError> {
        Err(MachineError::Unsupported("No 'PCI' bus found for the device"))
    }

    fn unplug(&self, id: &str) -> Result<(), MachineError> {
        Err(MachineError::NoDevice(id.to_owned()))
    }

    fn pci(&self) -> Option<&Arc<PciBus>> {
        None
    }

    fn serial(&self, _: usize) -> Option<Arc<Serial>> {
        None
    }
}
