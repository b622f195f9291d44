//! Devices that somebody asks for, at the start or while the machine runs: one table of what makes them, and how they come
//! and go. A file a family.

mod balloon;
mod block;
mod bridge;
pub(crate) mod character;
mod config;
mod console;
mod debug_exit;
mod dimm;
pub(crate) mod error;
mod generation;
mod isa;
pub(crate) mod isa_bus;
mod panic;
mod pci;
pub(crate) mod pci_bus;
mod processor;
mod rng;
mod test;
mod virtio;
mod vmcoreinfo;
mod watchdog;

use std::{
    any::Any,
    collections::BTreeMap,
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};
use rhea_api::Event;
use rhea_core::object::{DeviceState, NodeId, Object, PathError, Registry, TypeInfo, Typed, is_well_formed_id};
use rhea_devices::virtio::Worker;

pub use self::{config::DeviceConfig, error::DeviceError};
use crate::{
    Machine, MachineError,
    state::part::{Kept, Part},
};

/// A driver: what makes devices of one type.
#[derive(Clone, Copy)]
pub(crate) struct Driver {
    /// Type, properties, defaults and help.
    pub info: &'static TypeInfo,
    /// Other names of the type.
    pub aliases: &'static [&'static str],
    /// Whether such devices come and go while the machine runs.
    pub hotpluggable: bool,
    /// Makes the device, puts it where it belongs and into the tree; nothing remains after an error.
    pub plug: fn(&Machine, &DeviceConfig) -> Result<Plugged, MachineError>,
}

/// A device that is there.
pub(crate) struct Plugged {
    /// Where it is in the tree.
    pub node: NodeId,
    /// The bus that it is on, if that is an object.
    pub bus: Option<NodeId>,
    /// How it leaves, if it ever does.
    pub unplug: Option<Arc<dyn Unplug>>,
    /// Where its state is kept when the machine is saved.
    pub kept: Kept,
}

/// How a plugged device leaves.
pub(crate) trait Unplug: Send + Sync {
    /// Whether it may, whoever asks.
    ///
    /// # Errors
    /// The machine needs it.
    fn check(&self) -> Result<(), MachineError> {
        Ok(())
    }

    /// Asks the guest, which may have seen the device, or says that nobody has to be asked.
    ///
    /// # Errors
    /// The guest has no way to let go of it.
    fn request(&self, machine: &Machine) -> Result<Removal, MachineError>;

    /// Takes it away for good: the guest let go, or the machine was reset.
    fn remove(&self, machine: &Machine);
}

/// What a device that is to leave waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Nothing: it is to be taken away now.
    Now,
    /// The guest.
    Pending,
}

/// All drivers but those of processors, of which there is one a model.
pub(crate) const DRIVERS: &[Driver] = &[
    bridge::DRIVER,
    isa::DRIVERS[0],
    isa::DRIVERS[1],
    rng::DRIVERS[0],
    rng::DRIVERS[1],
    rng::DRIVERS[2],
    block::DRIVERS[0],
    block::DRIVERS[1],
    block::DRIVERS[2],
    balloon::DRIVERS[0],
    balloon::DRIVERS[1],
    balloon::DRIVERS[2],
    console::DRIVERS[0],
    console::DRIVERS[1],
    console::DRIVERS[2],
    console::CONSOLE_PORT,
    console::SERIAL_PORT,
    generation::DRIVER,
    dimm::DRIVER,
    vmcoreinfo::DRIVER,
    panic::DRIVER,
    debug_exit::DRIVER,
    watchdog::DRIVER,
    test::DRIVERS[0],
    test::DRIVERS[1],
];

/// The types that drivers build on.
pub(crate) const BASES: &[&TypeInfo] =
    &[virtio::TransportSettings::INFO, console::PORT, console::SerialBus::INFO, isa_bus::BUS, dimm::MEMORY_DEVICE];

/// The types of those drivers.
pub(crate) const TYPES: &[&TypeInfo] = &{
    let mut list = [DRIVERS[0].info; DRIVERS.len()];
    let mut index = 0;
    while index < list.len() {
        list[index] = DRIVERS[index].info;
        index += 1;
    }
    list
};

/// All drivers.
fn drivers() -> &'static [Driver] {
    static ALL: LazyLock<Vec<Driver>> = LazyLock::new(|| DRIVERS.iter().copied().chain(processor::drivers()).collect());
    &ALL
}

fn driver(name: &str) -> Option<&'static Driver> {
    drivers().iter().find(|driver| driver.info.name == name || driver.aliases.contains(&name))
}

/// The type of devices that go by this name, be it an alias.
pub fn device_type(name: &str) -> Option<&'static TypeInfo> {
    driver(name).map(|driver| driver.info)
}

/// All types of devices that can be asked for, with their other names.
pub fn device_types() -> impl Iterator<Item = (&'static TypeInfo, &'static [&'static str])> {
    drivers().iter().map(|driver| (driver.info, driver.aliases))
}

/// Whether devices of this type, or of one that builds on it, come and go while the machine runs.
pub(crate) fn comes_and_goes(types: &Registry, info: &'static TypeInfo) -> bool {
    DRIVERS.iter().any(|driver| driver.hotpluggable && types.implements(driver.info, info.name))
}

struct Entry {
    id: Option<String>,
    bus: Option<NodeId>,
    hotpluggable: bool,
    unplug: Option<Arc<dyn Unplug>>,
    /// Its removal is under way.
    pending: bool,
    kept: Kept,
}

/// The devices of a machine.
#[derive(Default)]
pub(crate) struct Devices {
    /// Held while devices come and go. Taken before the machine's lock, where both are.
    changes: Mutex<()>,
    list: Mutex<BTreeMap<NodeId, Entry>>,
    /// Serves those virtio devices that have no thread of their own, as long as there are any.
    shared_worker: Mutex<Weak<Worker>>,
    /// What was asked for at the start is there.
    complete: AtomicBool,
    /// The guest may have seen its machine.
    under_way: AtomicBool,
    /// PCI devices that come and go, by the number of their bus in the hotplug registers, slot and function.
    pci: Mutex<BTreeMap<(u32, u8, u8), NodeId>>,
}

impl Devices {
    /// Lets a part of the board leave like a device that somebody asked for.
    pub(crate) fn adopt(&self, node: NodeId, unplug: Arc<dyn Unplug>) {
        self.list.lock().insert(
            node,
            Entry {
                id: None,
                bus: None,
                hotpluggable: true,
                unplug: Some(unplug),
                pending: false,
                kept: Kept::Elsewhere,
            },
        );
    }

    /// Keeps devices from coming and going.
    pub(crate) fn hold(&self) -> MutexGuard<'_, ()> {
        self.changes.lock()
    }

    /// Those devices whose state is kept by itself.
    pub(crate) fn own_parts(&self) -> Vec<Part> {
        let list = self.list.lock();
        let parts = list.values().filter_map(|entry| match &entry.kept {
            Kept::Elsewhere => None,
            Kept::Own(place, part) => Some(Part::new(*place, Arc::clone(part))),
        });
        parts.collect()
    }

    /// Whether a device of this node came by its driver, or leaves like one.
    pub(crate) fn knows(&self, node: NodeId) -> bool {
        self.list.lock().contains_key(&node)
    }

    /// The devices whose removal is under way.
    pub(crate) fn leaving(&self) -> Vec<NodeId> {
        self.list.lock().iter().filter(|(_, entry)| entry.pending).map(|(node, _)| *node).collect()
    }

    /// Says of which devices the removal is under way.
    pub(crate) fn set_leaving(&self, nodes: &[NodeId]) {
        for (node, entry) in self.list.lock().iter_mut() {
            entry.pending = nodes.contains(node);
        }
    }

    /// The guest runs from now on.
    pub(crate) fn set_under_way(&self) {
        self.under_way.store(true, Ordering::Release);
    }

    /// Whether the guest may have seen its machine: then it is asked before something is taken away.
    pub(crate) fn under_way(&self) -> bool {
        self.under_way.load(Ordering::Acquire)
    }
}

impl Machine {
    /// Makes the devices that were asked for with the machine.
    ///
    /// # Errors
    /// The first that cannot be.
    pub(crate) fn add_first_devices(&self) -> Result<(), MachineError> {
        for device in &self.config().devices {
            self.device_add(device.clone())
                .map_err(|reason| MachineError::Asked { driver: device.driver.clone(), reason: Box::new(reason) })?;
        }
        self.devices().complete.store(true, Ordering::Release);
        Ok(())
    }

    /// Makes a device and puts it where it belongs.
    ///
    /// # Errors
    /// It cannot be; then nothing has changed.
    pub fn device_add(&self, mut config: DeviceConfig) -> Result<(), MachineError> {
        let devices = self.devices();
        let _held = devices.hold();
        self.check_devices_free()?;
        let driver = driver(&config.driver).ok_or_else(|| DeviceError::Driver(config.driver.clone()))?;
        driver.info.name.clone_into(&mut config.driver);
        if let Some(id) = &config.id {
            if !is_well_formed_id(id) {
                return Err(DeviceError::Id.into());
            }
            if self.objects().peripheral(id).is_some() {
                return Err(DeviceError::Duplicate(id.clone()).into());
            }
        }
        config.check(self.types(), driver.info).map_err(DeviceError::from)?;
        // What is said of this device comes after what is said of all, and counts.
        config.properties.splice(0..0, self.config().globals.among(self.types()).of(driver.info)?);
        let hotplugged = devices.complete.load(Ordering::Acquire);
        let hotpluggable = driver.hotpluggable;
        if hotplugged && !hotpluggable {
            return Err(DeviceError::NotHotpluggable(config.driver).into());
        }
        let Plugged { node, bus, unplug, kept } = (driver.plug)(self, &config)?;
        self.objects().tree().set_device(node, DeviceState { hotpluggable, hotplugged });
        let entry = Entry { id: config.id, bus, hotpluggable, unplug, pending: false, kept };
        devices.list.lock().insert(node, entry);
        Ok(())
    }

    /// Has the device of this id, or at this path, leave. If it is gone at once,
    /// [`finish_removal`](Self::finish_removal) of the node is what is left to do.
    ///
    /// # Errors
    /// There is no such device, or it cannot leave, or is about to.
    pub fn device_del(&self, id_or_path: &str) -> Result<Option<NodeId>, MachineError> {
        let devices = self.devices();
        let _held = devices.hold();
        self.check_devices_free()?;
        let name = || id_or_path.to_owned();
        let node = self.find_device(id_or_path)?;
        let unplug = {
            let mut list = devices.list.lock();
            match list.get_mut(&node) {
                Some(entry) if entry.pending => return Err(DeviceError::Pending(name()).into()),
                Some(Entry { hotpluggable: true, unplug: Some(unplug), pending, .. }) => {
                    unplug.check()?;
                    // The guest may refuse before the request returns.
                    *pending = true;
                    Arc::clone(unplug)
                }
                // What belongs to the board has no driver.
                _ => return Err(DeviceError::NotHotpluggable(name()).into()),
            }
        };
        // Before the guest has begun there is nobody to ask.
        let removal = if devices.under_way() { unplug.request(self) } else { Ok(Removal::Now) };
        match removal {
            Ok(removal) => Ok((removal == Removal::Now).then_some(node)),
            Err(error) => {
                self.keep(node);
                Err(error)
            }
        }
    }

    fn find_device(&self, id_or_path: &str) -> Result<NodeId, DeviceError> {
        if let Some(node) = self.objects().peripheral(id_or_path) {
            return Ok(node);
        }
        if !id_or_path.starts_with('/') {
            return Err(DeviceError::NotFound(id_or_path.to_owned()));
        }
        let tree = self.objects().tree();
        let node = tree.resolve(id_or_path).map_err(|error| match error {
            PathError::NotFound(path) => DeviceError::NotFound(path),
            PathError::Ambiguous(path) => DeviceError::Ambiguous(path),
        })?;
        let object = tree.object(node).ok_or_else(|| DeviceError::NotFound(id_or_path.to_owned()))?;
        if !self.types().implements(object.info(), "device") {
            return Err(DeviceError::NoDevice(id_or_path.to_owned()));
        }
        Ok(node)
    }

    /// The guest does not let go of a device: it stays. Whether it was to leave.
    pub(crate) fn keep(&self, node: NodeId) -> bool {
        let mut list = self.devices().list.lock();
        list.get_mut(&node).is_some_and(|entry| std::mem::take(&mut entry.pending))
    }

    /// Takes a device away, and all that is on it, and says so. One that is gone already is let be.
    pub fn finish_removal(&self, node: NodeId) {
        self.finish_removals(|| vec![node]);
    }

    /// Takes those devices away that `which` finds while devices are held.
    fn finish_removals(&self, which: impl FnOnce() -> Vec<NodeId>) {
        let mut gone = Vec::new();
        {
            let _held = self.devices().hold();
            for node in which() {
                self.take_away(node, &mut gone);
            }
        }
        for event in gone {
            self.emit(event);
        }
    }

    /// Takes all devices away whose removal is under way. Devices must be held; the events are to be emitted.
    pub(crate) fn take_pending_away(&self) -> Vec<Event> {
        let mut gone = Vec::new();
        for node in self.devices().leaving() {
            for node in self.devices().leaves_with(node) {
                self.take_away(node, &mut gone);
            }
        }
        gone
    }

    /// Undoes what a driver did that cannot finish.
    fn take_back(&self, plugged: &Plugged) {
        if let Some(unplug) = &plugged.unplug {
            unplug.remove(self);
        }
        // Nobody could come to refer to it yet.
        let _ = self.objects().tree().remove(plugged.node);
    }

    fn take_away(&self, node: NodeId, gone: &mut Vec<Event>) {
        let tree = self.objects().tree();
        let path = tree.path(node);
        let above = format!("{path}/");
        let list = self.devices().list.lock();
        let on_it = list.iter().filter(|(_, entry)| entry.bus.is_some_and(|bus| tree.path(bus).starts_with(&above)));
        let on_it: Vec<NodeId> = on_it.map(|(node, _)| *node).collect();
        drop(list);
        for node in on_it {
            self.take_away(node, gone);
        }
        let Some(entry) = self.devices().list.lock().remove(&node) else { return };
        if let Some(unplug) = entry.unplug {
            unplug.remove(self);
        }
        if let Err(error) = tree.remove(node) {
            tracing::error!("{path}: {error}");
        }
        gone.push(Event::DeviceDeleted { device: entry.id, path });
    }

    /// The bus that a device is to be on: the one that it names, or else the first that has room; a `T`, called `kind`.
    pub(crate) fn find_bus<T: Object>(
        &self,
        config: &DeviceConfig,
        kind: &'static str,
        has_room: impl Fn(&T) -> bool,
    ) -> Result<(NodeId, Arc<T>), DeviceError> {
        let tree = self.objects().tree();
        let as_bus = |object: Arc<dyn Object>| (object as Arc<dyn Any + Send + Sync>).downcast::<T>().ok();
        let driver = || config.driver.clone();
        let Some(name) = config.bus() else {
            let mut all = tree.all().into_iter().filter_map(|(node, _, object)| Some((node, as_bus(object)?)));
            return all
                .find(|(_, bus)| has_room(bus))
                .ok_or_else(|| DeviceError::NoBusOf { bus: kind, driver: driver() });
        };
        let found = if name.contains('/') {
            tree.resolve(name).ok().and_then(|node| Some((node, tree.object(node)?)))
        } else {
            let is_bus = |info| self.types().implements(info, "bus");
            let named = |(node, own, object): (NodeId, String, Arc<dyn Object>)| {
                (own == name && is_bus(object.info())).then_some((node, object))
            };
            tree.all().into_iter().find_map(named)
        };
        let (node, object) = found.ok_or_else(|| DeviceError::NoBus(name.to_owned()))?;
        let bus = object.info().name;
        let bus = as_bus(object).ok_or_else(|| DeviceError::WrongBus { driver: driver(), bus })?;
        Ok((node, bus))
    }

    /// The thread that serves devices without one of their own.
    pub(crate) fn shared_worker(&self) -> Result<Arc<Worker>, MachineError> {
        let mut shared = self.devices().shared_worker.lock();
        if let Some(worker) = shared.upgrade() {
            return Ok(worker);
        }
        let worker = self.start_worker("virtio")?;
        *shared = Arc::downgrade(&worker);
        Ok(worker)
    }

    /// A thread for a device, called `name`.
    pub(crate) fn start_worker(&self, name: &str) -> Result<Arc<Worker>, MachineError> {
        let worker = Worker::start(name);
        worker.map_err(|reason| MachineError::Host { what: "could not start a thread for a device".into(), reason })
    }
}
