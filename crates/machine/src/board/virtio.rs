//! The virtio devices of a board: made as they are asked for, put on the PCI bus and taken away again, and served by
//! threads.

use std::sync::Arc;

use parking_lot::Mutex;
use rhea_core::Dma;
use rhea_devices::{
    chipset::{
        lapic::ApicBus,
        pci::{PciBus, SlotFunction},
    },
    virtio::{VirtioDevice, VirtioPci, Wiring, Worker, balloon::Balloon, block::Block, console::Console, rng::Rng},
};

use crate::{
    MachineError,
    config::{DeviceConfig, DeviceKind},
    parts::Parts,
};

/// A device whose own side others want.
#[derive(Clone)]
enum Own {
    Balloon(Arc<Balloon>),
    Console(Arc<Console>),
    /// Nobody asks.
    Other,
}

struct Plugged {
    id: Option<String>,
    at: SlotFunction,
    own: Own,
}

#[derive(Default)]
struct State {
    /// Serves the devices that have no thread of their own.
    shared: Option<Arc<Worker>>,
    list: Vec<Plugged>,
}

/// The devices, and what serves them.
pub struct VirtioDevices {
    bus: Arc<PciBus>,
    apics: Arc<ApicBus>,
    state: Mutex<State>,
}

impl VirtioDevices {
    /// No devices yet, on `bus`.
    pub fn new(bus: Arc<PciBus>, apics: Arc<ApicBus>) -> Self {
        Self { bus, apics, state: Mutex::default() }
    }

    /// The balloon, if there is one.
    pub fn balloon(&self) -> Option<Arc<Balloon>> {
        self.state.lock().balloon()
    }

    /// The console devices, in the order in which they were plugged.
    pub fn consoles(&self) -> Vec<Arc<Console>> {
        let state = self.state.lock();
        let consoles = state.list.iter().filter_map(|plugged| match &plugged.own {
            Own::Console(console) => Some(Arc::clone(console)),
            _ => None,
        });
        consoles.collect()
    }

    /// Makes a device and puts it on the bus.
    ///
    /// # Errors
    /// No room on the bus, no more threads, a second balloon, an id that another has.
    pub fn plug(&self, config: &DeviceConfig, parts: &Parts) -> Result<(), MachineError> {
        let mut state = self.state.lock();
        if let Some(id) = &config.id
            && state.list.iter().any(|plugged| plugged.id.as_ref() == Some(id))
        {
            return Err(MachineError::DuplicateId(id.clone()));
        }
        let at = config.address.or_else(|| self.bus.free_slot()).ok_or(MachineError::NoSlot)?;
        let name = config.id.as_deref().unwrap_or("disk");
        let (device, own, worker): (Arc<dyn VirtioDevice>, _, _) = match &config.kind {
            DeviceKind::Rng(source) => (Rng::new(Arc::clone(source)), Own::Other, state.shared(parts)?),
            // A disk that waits for the host holds up nobody else.
            DeviceKind::Block(options) => {
                (Block::new(options.clone()), Own::Other, start(&format!("virtio {name}"), parts)?)
            }
            DeviceKind::Console { most_ports, ports } => {
                let console = Console::new(*most_ports, ports.clone());
                (Arc::clone(&console) as _, Own::Console(console), state.shared(parts)?)
            }
            DeviceKind::Balloon { deflate_on_oom } => {
                if state.balloon().is_some() {
                    return Err(MachineError::SecondBalloon);
                }
                let balloon = Balloon::new(&parts.timers, *deflate_on_oom);
                (Arc::clone(&balloon) as _, Own::Balloon(balloon), state.shared(parts)?)
            }
        };
        let wiring = Wiring {
            memory: Arc::clone(&parts.memory),
            ports: Arc::clone(&parts.ports),
            dma: Dma::new(Arc::clone(&parts.memory)),
            line: self.bus.interrupt(at, 0),
            messages: Arc::clone(&self.apics) as _,
            worker,
        };
        let function = VirtioPci::new(device, config.interface, config.vectors, wiring);
        self.bus.plug(at, config.id.clone(), function)?;
        state.list.push(Plugged { id: config.id.clone(), at, own });
        Ok(())
    }

    /// Takes the device `id` away, whatever the guest does with it: its windows are gone, and its queues rest.
    ///
    /// # Errors
    /// There is no such device.
    pub fn unplug(&self, id: &str) -> Result<(), MachineError> {
        let mut state = self.state.lock();
        let index = state.list.iter().position(|plugged| plugged.id.as_deref() == Some(id));
        let plugged = index.map(|index| state.list.remove(index));
        let plugged = plugged.ok_or_else(|| MachineError::NoDevice(id.to_owned()))?;
        if let Some(function) = self.bus.remove(plugged.at) {
            function.reset();
        }
        Ok(())
    }
}

impl State {
    fn balloon(&self) -> Option<Arc<Balloon>> {
        self.list.iter().find_map(|plugged| match &plugged.own {
            Own::Balloon(balloon) => Some(Arc::clone(balloon)),
            _ => None,
        })
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
