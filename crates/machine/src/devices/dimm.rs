//! `pc-dimm`: a memory module in a slot, with a backend behind it.

use std::sync::Arc;

use rhea_backends::object::MemoryBackend;
use rhea_core::{
    Ram,
    memory::Target,
    object::{Object, PropertyKind, Settings, TypeInfo, Typed, Value},
    property_link,
};
use rhea_devices::acpi::hotplug::MemorySlot;

use super::{DeviceConfig, DeviceError, Driver, Plugged, Removal, Unplug};
use crate::{
    Machine, MachineError,
    inbox::SlotKind,
    modules::{MemoryModule, Wanted},
    state::part::Kept,
};

property_link! {
    /// The memory.
    struct Backend: "link<memory-backend>"
}

/// What memory modules of all kinds offer.
pub(super) const MEMORY_DEVICE: &TypeInfo = &TypeInfo::abstract_type("memory-device", "interface");

/// Alignment of memory that is mapped in large pages, as the address of any module is.
const ALIGNMENT: u64 = 2 << 20;

/// A memory module.
#[derive(Clone, Debug, Object)]
#[object(type = "pc-dimm", parent = "device", interfaces = ["memory-device"], settings)]
struct DimmSettings {
    /// Address where it starts; 0 for the first that fits.
    #[property(default = 0)]
    addr: u64,
    /// Slot it sits in; -1 for the first that is free.
    #[property(default = -1)]
    slot: i32,
    /// NUMA node it belongs to.
    #[property(default = 0)]
    node: u32,
    /// Id of the memory backend behind it.
    #[property]
    memdev: Backend,
    /// Bytes, which are its backend's.
    #[property(read_only)]
    size: u64,
}

pub(super) const DRIVER: Driver = Driver { info: DimmSettings::INFO, aliases: &[], hotpluggable: true, plug };

/// A module in the tree.
struct Dimm {
    settings: DimmSettings,
    /// The module holds its memory for as long as somebody looks at it.
    ram: Arc<Ram>,
}

impl Object for Dimm {
    fn info(&self) -> &'static TypeInfo {
        DimmSettings::INFO
    }

    fn get(&self, name: &str) -> Option<Value> {
        if name == "size" { Some(self.ram.len().to_value()) } else { self.settings.get(name) }
    }
}

fn plug(machine: &Machine, config: &DeviceConfig) -> Result<Plugged, MachineError> {
    let mut settings: DimmSettings = config.settings().map_err(DeviceError::from)?;
    let refused = |reason: String| DeviceError::Refused(reason);
    let Some(hotplug) = machine.board().hotplug() else {
        return Err(refused("Device 'pc-dimm' can not be hotplugged on this machine".to_owned()).into());
    };
    let name = settings.memdev.0.clone();
    if name.is_empty() {
        return Err(refused("'memdev' property must be set".to_owned()).into());
    }
    let objects = machine.objects();
    let id = name.strip_prefix("/objects/").unwrap_or(&name);
    let not_there = || DeviceError::NotThere { driver: config.driver.clone(), property: "memdev", value: name.clone() };
    let (backend_node, backend) = objects.find::<MemoryBackend>(id).ok_or_else(not_there)?;
    let ram = Arc::clone(backend.ram());
    if objects.tree().is_linked(backend_node) {
        return Err(refused(format!("can't use already busy memdev: {id}")).into());
    }
    if !ram.writable() {
        return Err(refused(format!("memory backend '{id}' cannot be written")).into());
    }
    let nodes = machine.numa().nodes().len() as u32;
    if settings.node >= nodes.max(1) {
        let node = settings.node;
        return Err(refused(format!(
            "'DIMM property node has value {node}' which exceeds the number of numa nodes: {nodes}"
        ))
        .into());
    }
    let slot = match settings.slot {
        -1 => None,
        slot => Some(u32::try_from(slot).map_err(|_| {
            let last = machine.modules().slots().saturating_sub(1);
            refused(format!("invalid slot number {slot}, valid range is [0-{last}]"))
        })?),
    };
    let address = Some(settings.addr).filter(|&address| address != 0);
    let wanted = Wanted { slot, address, size: ram.len(), align: ALIGNMENT };
    let (slot, address) = machine.modules().place(&wanted).map_err(|reason| refused(reason.to_string()))?;
    settings.slot = slot as i32;
    settings.addr = address;
    let node = settings.node;
    let object = Arc::new(Dimm { settings, ram: Arc::clone(&ram) });
    let device = objects.plug(config.id.as_deref(), object)?;
    objects
        .tree()
        .link(device, "memdev", "memory-backend", Some(backend_node))
        .inspect_err(|_| drop(objects.tree().remove(device)))?;
    let size = ram.len();
    let region = machine.memory().map(address, size, 0, Target::Ram { ram, offset: 0, writable: true });
    machine.modules().insert(MemoryModule { device, backend: backend_node, slot, address, size, node, region });
    machine.processors().memory_changed();
    hotplug.occupy(SlotKind::Dimm, slot, device);
    hotplug.memory.insert(slot, MemorySlot { address, size, node });
    Ok(Plugged { node: device, bus: None, unplug: Some(Arc::new(InSlot(slot))), kept: Kept::Elsewhere })
}

/// How a module leaves.
struct InSlot(u32);

impl Unplug for InSlot {
    fn request(&self, machine: &Machine) -> Result<Removal, MachineError> {
        if let Some(hotplug) = machine.board().hotplug() {
            hotplug.memory.request_removal(self.0);
        }
        Ok(Removal::Pending)
    }

    fn remove(&self, machine: &Machine) {
        let Self(slot) = *self;
        if let Some(hotplug) = machine.board().hotplug() {
            hotplug.memory.remove(slot);
            hotplug.vacate(SlotKind::Dimm, slot);
        }
        if let Some(module) = machine.modules().remove(slot) {
            machine.memory().unmap(module.region);
            // Until they have looked again, processors hold what was mapped.
            machine.processors().memory_changed();
        }
    }
}
