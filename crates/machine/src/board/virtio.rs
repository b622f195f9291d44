//! The PCI devices of a board that are asked for: virtio devices, served by threads, and bridges; put on a bus and taken
//! away again.

use std::sync::Arc;

use parking_lot::Mutex;
use rhea_backends::{object::RandomBackend, random::Builtin};
use rhea_core::{Dma, RandomSource};
use rhea_devices::{
    chipset::{
        lapic::ApicBus,
        pci::{Bridge, PciBus, PciFunction, SlotFunction, Slots},
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
    Bridge(Arc<Bridge>),
    /// Nobody asks.
    Other,
}

struct Plugged {
    id: Option<String>,
    slots: Arc<Slots>,
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
        let bridge = match &config.bus {
            None => None,
            Some(id) => Some(state.bridge(id).ok_or_else(|| MachineError::NoBus(id.clone()))?),
        };
        let slots = Arc::clone(bridge.as_ref().map_or_else(|| self.bus.slots(), |bridge| bridge.slots()));
        // Slot 0 behind a bridge is left free: a hot-plug controller would be there.
        let first = u8::from(bridge.is_some());
        let at = config.address.or_else(|| slots.free_slot(first)).ok_or(MachineError::NoSlot)?;
        let (function, own) = self.make(&mut state, config, parts, &slots, at)?;
        slots.plug(at, config.id.clone(), function)?;
        if let Some(bridge) = bridge {
            bridge.forward();
        }
        state.list.push(Plugged { id: config.id.clone(), slots, at, own });
        Ok(())
    }

    fn make(
        &self,
        state: &mut State,
        config: &DeviceConfig,
        parts: &Parts,
        slots: &Slots,
        at: SlotFunction,
    ) -> Result<(Arc<dyn PciFunction>, Own), MachineError> {
        let name = config.id.as_deref().unwrap_or("disk");
        let (device, own, worker): (Arc<dyn VirtioDevice>, _, _) = match &config.kind {
            DeviceKind::Bridge => {
                let bridge = Bridge::new(std::array::from_fn(|pin| slots.interrupt(at, pin as u8)));
                return Ok((Arc::clone(&bridge) as _, Own::Bridge(bridge)));
            }
            DeviceKind::Rng { backend } => {
                let source: Arc<dyn RandomSource> = match backend {
                    None => Arc::new(Builtin),
                    Some(id) => {
                        let found = parts.objects.find::<RandomBackend>(id);
                        let (_, backend) = found.ok_or_else(|| MachineError::NoBackend("rng", id.clone()))?;
                        Arc::clone(backend.source())
                    }
                };
                (Rng::new(source), Own::Other, state.shared(parts)?)
            }
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
            line: slots.interrupt(at, 0),
            messages: Arc::clone(&self.apics) as _,
            worker,
        };
        Ok((VirtioPci::new(device, config.interface, config.vectors, wiring), own))
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
        if let Some(function) = plugged.slots.remove(plugged.at) {
            function.reset();
        }
        Ok(())
    }
}

impl State {
    fn bridge(&self, id: &str) -> Option<Arc<Bridge>> {
        self.list.iter().find_map(|plugged| match &plugged.own {
            Own::Bridge(bridge) if plugged.id.as_deref() == Some(id) => Some(Arc::clone(bridge)),
            _ => None,
        })
    }

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
