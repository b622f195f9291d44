//! Places for processors, and processors that come to them and go while the machine runs.

use std::sync::Arc;

use rhea_core::object::{DeviceState, NodeId};
use rhea_x86::system::cpuid::CpuModel;

use super::Processor;
use crate::{
    board::sockets::{Shown, Sockets},
    devices::{Removal, Unplug},
    error::MachineError,
    inbox::SlotKind,
    machine::Machine,
    topology::{Place, PlaceError},
};

/// A place for a processor.
pub struct ProcessorPlace {
    /// Its number, which is that of the processor in it.
    pub index: usize,
    /// Where it is.
    pub place: Place,
    /// Who is there.
    pub processor: Option<Arc<Processor>>,
}

impl Machine {
    fn sockets(&self) -> Result<&Sockets, MachineError> {
        self.board().sockets().ok_or(MachineError::Unsupported("machine does not support hot-plugging CPUs"))
    }

    /// All places for processors, by rising number.
    ///
    /// # Errors
    /// The board has none.
    pub fn processor_places(&self) -> Result<Vec<ProcessorPlace>, MachineError> {
        self.sockets()?;
        let topology = &self.config().topology;
        let place = |index: u32| ProcessorPlace {
            index: index as usize,
            place: topology.place(index),
            processor: self.processors().get(index as usize),
        };
        Ok((0..topology.max_cpus()).map(place).collect())
    }

    /// Adds the processor of number `index` as a part of the board. It waits for its start-up.
    ///
    /// # Errors
    /// The board has no such place, or somebody is there.
    pub fn add_processor(&self, index: i64) -> Result<(), MachineError> {
        self.sockets()?;
        let last = i64::from(self.config().topology.max_cpus()) - 1;
        let place = usize::try_from(index).map_err(|_| MachineError::ProcessorNumber(index))?;
        if index > last {
            return Err(MachineError::ProcessorLimit { index, last });
        }
        let _held = self.devices().hold();
        self.check_devices_free()?;
        let node = self.place_processor(place, None, Shown::Board).map_err(|error| match error {
            MachineError::Place(PlaceError::Taken { .. }) => MachineError::ProcessorExists(index),
            other => other,
        })?;
        self.let_leave(place, node, true);
        Ok(())
    }

    /// Lets the processors that are there from the start leave like those that come later; but not the first, which the
    /// guest cannot let go of.
    pub(crate) fn let_first_processors_leave(&self) {
        for processor in self.processors().list() {
            if let Some(node) = processor.node() {
                if processor.index() != 0 {
                    self.occupy(processor.index(), node);
                }
                self.let_leave(processor.index(), node, false);
            }
        }
    }

    fn let_leave(&self, index: usize, node: NodeId, hotplugged: bool) {
        self.objects().tree().set_device(node, DeviceState { hotpluggable: true, hotplugged });
        self.devices().adopt(node, Arc::new(Removable(index)));
    }

    fn occupy(&self, index: usize, node: NodeId) {
        if let Some(hotplug) = self.board().hotplug() {
            hotplug.occupy(SlotKind::Cpu, index as u32, node);
        }
    }

    /// Puts a processor, of a model of its own or the machine's, into place `index` and has the guest hear of it. Devices must be held.
    ///
    /// # Errors
    /// There is no such place, somebody is there, its id is taken, or the host has no more threads.
    pub(crate) fn place_processor(
        &self,
        index: usize,
        model: Option<&CpuModel>,
        shown: Shown<'_>,
    ) -> Result<NodeId, MachineError> {
        let node = self.sockets()?.add(index, model, shown)?;
        self.occupy(index, node);
        if let Some(hotplug) = self.board().hotplug() {
            hotplug.processors.insert(index as u32);
        }
        Ok(node)
    }
}

/// How the processor of this number leaves.
pub(crate) struct Removable(pub usize);

impl Unplug for Removable {
    fn check(&self) -> Result<(), MachineError> {
        if self.0 == 0 { Err(MachineError::Unsupported("Boot CPU is unpluggable")) } else { Ok(()) }
    }

    fn request(&self, machine: &Machine) -> Result<Removal, MachineError> {
        let Some(hotplug) = machine.board().hotplug() else { return Ok(Removal::Now) };
        hotplug.processors.request_removal(self.0 as u32);
        Ok(Removal::Pending)
    }

    fn remove(&self, machine: &Machine) {
        let Self(index) = *self;
        if let Some(hotplug) = machine.board().hotplug() {
            hotplug.processors.remove(index as u32);
            hotplug.vacate(SlotKind::Cpu, index as u32);
        }
        if let Some(sockets) = machine.board().sockets() {
            sockets.remove(index);
        }
    }
}
