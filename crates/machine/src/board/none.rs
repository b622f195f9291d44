//! The machine with nothing: no processor, no memory, no device.

use std::sync::Arc;

use rhea_core::object::{Fixed, Object, Settings as _};
use rhea_devices::{
    acpi::pm::WakeCause,
    chipset::pci::{MessageSink, PciBus},
    misc::rtc::IsaRtc,
};
use rhea_x86::bus::SystemBus;

use super::{Board, hotplug::Hotplug, sockets::Sockets};
use crate::{error::MachineError, processors::Processors};

/// The machine `none`.
#[derive(Object)]
#[object(type = "none-machine", parent = "machine", settings)]
pub(crate) struct NoneSettings {}

/// What the machine tells of itself.
pub(crate) fn object() -> Arc<dyn Object> {
    Arc::new(Fixed(NoneSettings::defaults()))
}

/// The board of the machine `none`.
pub struct NoBoard;

impl Board for NoBoard {
    fn reset(&self, _: &Processors) -> Result<(), MachineError> {
        Ok(())
    }

    fn wake(&self, _: &Processors, _: WakeCause) -> Result<(), MachineError> {
        Err(MachineError::NotSuspended)
    }

    fn first_processor_bus(&self) -> Option<Arc<dyn SystemBus>> {
        None
    }

    fn sockets(&self) -> Option<&Sockets> {
        None
    }

    fn power_button(&self) {}

    fn nmi(&self) -> Result<(), MachineError> {
        Err(MachineError::Unsupported("machine does not provide NMIs"))
    }

    fn hotplug(&self) -> Option<&Hotplug> {
        None
    }

    fn pci(&self) -> Option<&Arc<PciBus>> {
        None
    }

    fn clock(&self) -> Option<(&Arc<IsaRtc>, &str)> {
        None
    }

    fn messages(&self) -> Option<Arc<dyn MessageSink>> {
        None
    }
}
