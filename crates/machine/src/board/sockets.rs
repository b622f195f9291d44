//! The sockets of a PC: where processors come with their local APICs, and go.

use std::sync::Arc;

use rhea_core::{
    AddressSpace, Clock, PortSpace,
    object::{NodeId, Object},
};
use rhea_devices::chipset::{
    coprocessor::CoprocessorErrors,
    lapic::{ApicBus, LocalApic, ProcessorPins},
};
use rhea_x86::{
    bus::SystemBus,
    engine::{CodeEpoch, Vcpu, VcpuConfig},
    state::CpuState,
    system::cpuid::{CpuModel, CpuidTable, Topology as CpuidTopology},
};

use super::processor_bus::ProcessorBus;
use crate::{
    error::MachineError,
    numa::Numa,
    objects::Objects,
    parts::Parts,
    processors::{self, Processor, Processors},
    topology::{PlaceError, Topology},
};

/// The time stamp counter counts nanoseconds.
const TSC_KHZ: u32 = 1_000_000;
/// So does the local APICs' timer, before its divider.
const APIC_KHZ: u32 = 1_000_000;

/// Where PCI's memory window ends, and RAM may begin again.
const WINDOW_END: u64 = 1 << 32;

/// How a processor is shown in the tree of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown<'a> {
    /// As a part of the board.
    Board,
    /// As a device that somebody added, with the id that it was given.
    Device(Option<&'a str>),
}

/// The sockets.
pub struct Sockets {
    topology: Topology,
    /// The model of processors of which nothing else is said.
    model: CpuModel,
    apics: Arc<ApicBus>,
    /// Where the bootstrap processor's x87 errors go.
    coprocessor: Arc<CoprocessorErrors>,
    memory: Arc<AddressSpace>,
    ports: Arc<PortSpace>,
    clock: Arc<Clock>,
    code_epoch: Arc<CodeEpoch>,
    objects: Arc<Objects>,
    processors: Arc<Processors>,
    numa: Arc<Numa>,
    /// First address of the PCI memory window below 4 GiB.
    pci_window: u32,
}

impl Sockets {
    /// Sockets in which there is no processor yet.
    pub fn new(
        topology: Topology,
        model: CpuModel,
        apics: &Arc<ApicBus>,
        coprocessor: Arc<CoprocessorErrors>,
        parts: &Parts,
        pci_window: u32,
    ) -> Self {
        Self {
            coprocessor,
            topology,
            model,
            apics: Arc::clone(apics),
            memory: Arc::clone(&parts.memory),
            ports: Arc::clone(&parts.ports),
            clock: Arc::clone(parts.timers.clock()),
            code_epoch: Arc::clone(&parts.code_epoch),
            objects: Arc::clone(&parts.objects),
            processors: Arc::clone(&parts.processors),
            numa: Arc::clone(&parts.numa),
            pci_window,
        }
    }

    /// The machine as the processor of number `index`, with `apic`, sees it.
    fn bus(&self, index: usize, apic: &Arc<LocalApic>) -> Arc<dyn SystemBus> {
        Arc::new(ProcessorBus {
            apic: Arc::clone(apic),
            memory: Arc::clone(&self.memory),
            ports: Arc::clone(&self.ports),
            clock: Arc::clone(&self.clock),
            coprocessor: (index == 0).then(|| Arc::clone(&self.coprocessor)),
        })
    }

    /// The machine as the first processor sees it.
    pub fn first_bus(&self) -> Option<Arc<dyn SystemBus>> {
        self.apics.apics().first().map(|apic| self.bus(0, apic))
    }

    /// Puts a processor of a model of its own, or of the machine's, into place `index`; it waits for its start-up, unless it
    /// is the first.
    ///
    /// # Errors
    /// There is no such place, it is taken, its id in the tree is taken, or the host has no more threads.
    pub fn add(&self, index: usize, model: Option<&CpuModel>, shown: Shown<'_>) -> Result<NodeId, MachineError> {
        let place = u32::try_from(index).ok().filter(|&index| index < self.topology.max_cpus());
        let number = place.ok_or(MachineError::ProcessorNumber(index as i64))?;
        let apic_id = self.topology.apic_id(number).ok_or(MachineError::ProcessorNumber(index as i64))?;
        if self.processors.get(index).is_some() {
            return Err(PlaceError::Taken { index, apic_id }.into());
        }
        let model = model.unwrap_or(&self.model);
        let cpuid = model.table(CpuidTopology {
            apic_id,
            package: self.topology.package(),
            tsc_khz: TSC_KHZ,
            apic_khz: APIC_KHZ,
        });
        let processor = Processor::new(index, apic_id, self.topology.place(number));
        let node = self.show(&processor, model.clone(), cpuid.clone(), shown)?;
        let apic = self.apics.plug(index, apic_id, Arc::clone(&processor) as Arc<dyn ProcessorPins>);
        apic.set_virtual_wire();
        let mut vcpu = Vcpu::new(VcpuConfig {
            index,
            bus: self.bus(index, &apic),
            memory: Arc::clone(&self.memory),
            cpuid,
            requests: Arc::clone(processor.requests()),
            code_epoch: Arc::clone(&self.code_epoch),
            bootstrap: index == 0,
        });
        set_memory_types(vcpu.state_mut(), self.pci_window);
        let made = self.objects.attach_to(node, "lapic", apic as Arc<dyn Object>).map_err(MachineError::from);
        let started = made.and_then(|_| {
            let started = self.processors.insert(&processor, vcpu);
            started.map_err(|reason| MachineError::Host { what: "could not start a processor thread".into(), reason })
        });
        if let Err(error) = started {
            self.apics.unplug(index);
            // Nobody could come to refer to it yet.
            let _ = self.objects.tree().remove(node);
            return Err(error);
        }
        Ok(node)
    }

    fn show(
        &self,
        processor: &Processor,
        model: CpuModel,
        cpuid: CpuidTable,
        shown: Shown<'_>,
    ) -> Result<NodeId, MachineError> {
        let object = processors::object(processor, self.numa.processor(processor.index()), model, cpuid);
        let node = match shown {
            Shown::Board => self.objects.attach(object)?,
            Shown::Device(id) => self.objects.plug(id, object)?,
        };
        processor.set_node(node);
        Ok(node)
    }

    /// Takes the processor at place `index` away, whatever it does; the others go on. It stays in the tree.
    pub fn remove(&self, index: usize) -> Option<Arc<Processor>> {
        // First of all nothing reaches it any more.
        self.apics.unplug(index);
        self.processors.remove(index)
    }
}

/// Memory types as firmware sets them (SDM vol. 3 § 11.11): write-back, but for the window of PCI devices.
pub fn set_memory_types(cpu: &mut CpuState, pci_window: u32) {
    const UNCACHED: u64 = 0;
    const VALID: u64 = 1 << 11;
    let physical_mask = (1_u64 << cpu.cpuid.physical_bits()) - 0x1000;
    cpu.msr.mtrr_base[0] = u64::from(pci_window) | UNCACHED;
    cpu.msr.mtrr_mask[0] = physical_mask & !(WINDOW_END - u64::from(pci_window) - 1) | VALID;
    // Enabled, with the fixed ranges, which are write-back too; the default is write-back.
    cpu.msr.mtrr_def_type = 0xc06;
    cpu.msr.mtrr_fixed = [0x0606_0606_0606_0606; 11];
    // The frame buffer window.
    cpu.msr.mtrr_fixed[2] = 0;
}
