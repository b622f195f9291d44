//! The virtio devices of a board: made as they are asked for, put on the PCI bus, and served by threads.

use std::sync::Arc;

use rhea_core::Dma;
use rhea_devices::{
    chipset::{lapic::ApicBus, pci::PciBus},
    virtio::{VirtioDevice, VirtioPci, Wiring, Worker, balloon::Balloon, block::Block, console::Console, rng::Rng},
};

use crate::{
    MachineError,
    config::{DeviceConfig, DeviceKind},
    machine::Parts,
};

/// The devices, and what serves them.
#[derive(Default)]
pub struct VirtioDevices {
    /// Serves the devices that have no thread of their own.
    shared: Option<Arc<Worker>>,
    balloon: Option<Arc<Balloon>>,
    consoles: Vec<Arc<Console>>,
}

impl VirtioDevices {
    /// The balloon, if there is one.
    pub fn balloon(&self) -> Option<&Arc<Balloon>> {
        self.balloon.as_ref()
    }

    /// The console devices, in the order in which they were plugged.
    pub fn consoles(&self) -> &[Arc<Console>] {
        &self.consoles
    }

    /// Makes a device and puts it on the bus.
    ///
    /// # Errors
    /// No room on the bus, no more threads, a second balloon.
    pub fn plug(
        &mut self,
        config: &DeviceConfig,
        parts: &Parts,
        bus: &PciBus,
        apics: &Arc<ApicBus>,
    ) -> Result<(), MachineError> {
        let at = config.address.or_else(|| bus.free_slot()).ok_or(MachineError::NoSlot)?;
        let name = config.id.as_deref().unwrap_or("disk");
        let (device, worker): (Arc<dyn VirtioDevice>, _) = match &config.kind {
            DeviceKind::Rng(source) => (Rng::new(Arc::clone(source)), self.shared(parts)?),
            // A disk that waits for the host holds up nobody else.
            DeviceKind::Block(options) => (Block::new(options.clone()), start(&format!("virtio {name}"), parts)?),
            DeviceKind::Console { most_ports, ports } => {
                let console = Console::new(*most_ports, ports.clone());
                self.consoles.push(Arc::clone(&console));
                (console, self.shared(parts)?)
            }
            DeviceKind::Balloon { deflate_on_oom } => {
                if self.balloon.is_some() {
                    return Err(MachineError::SecondBalloon);
                }
                let balloon = Balloon::new(&parts.timers, *deflate_on_oom);
                self.balloon = Some(Arc::clone(&balloon));
                (balloon, self.shared(parts)?)
            }
        };
        let wiring = Wiring {
            memory: Arc::clone(&parts.memory),
            ports: Arc::clone(&parts.ports),
            dma: Dma::new(Arc::clone(&parts.memory)),
            line: bus.interrupt(at, 0),
            messages: Arc::clone(apics) as _,
            worker,
        };
        bus.plug(at, config.id.clone(), VirtioPci::new(device, config.interface, config.vectors, wiring))?;
        Ok(())
    }

    fn shared(&mut self, parts: &Parts) -> Result<Arc<Worker>, MachineError> {
        if let Some(worker) = &self.shared {
            return Ok(Arc::clone(worker));
        }
        let worker = start("virtio", parts)?;
        self.shared = Some(Arc::clone(&worker));
        Ok(worker)
    }
}

fn start(name: &str, parts: &Parts) -> Result<Arc<Worker>, MachineError> {
    let worker = Worker::start(name, Arc::clone(&parts.gate));
    worker.map_err(|reason| MachineError::Host { what: "could not start a thread for a device".into(), reason })
}
