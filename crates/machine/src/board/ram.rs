//! The RAM of a PC: backends in a row from address zero, around the hole below 4 GiB, and the window that modules are
//! put into later.

use std::sync::Arc;

use rhea_backends::object::MemoryBackend;
use rhea_core::{AddressSpace, memory::Target, object::NodeId};
use serde_json::json;

use crate::{
    acpi::MemoryAffinity,
    boot::MemoryMap,
    config::Config,
    error::MachineError,
    numa::{Numa, NumaError},
    objects::{ObjectConfig, Objects},
};

/// RAM below 4 GiB goes up to here at the most; PCI windows follow.
pub(super) const LOW_RAM_LIMIT: u64 = 0xc000_0000;
/// Where the RAM that did not fit below goes.
pub(super) const HIGH_RAM: u64 = 1 << 32;
/// Processors reach memory up to here: 40 bits of address.
const ADDRESS_LIMIT: u64 = 1 << 40;
/// Alignment of the windows for modules and for PCI devices, and the most that a module's own alignment wastes.
const WINDOW_ALIGNMENT: u64 = 1 << 30;

/// Id of the RAM that nobody made a backend for.
const OWN_BACKEND: &str = "pc.ram";

/// Addresses for modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First address.
    pub base: u64,
    /// Bytes.
    pub length: u64,
}

/// What became of it.
pub(super) struct BoardRam {
    pub(super) map: MemoryMap,
    /// Which node has what.
    pub(super) affinity: Vec<MemoryAffinity>,
    /// Where modules may come.
    pub(super) window: Option<Window>,
}

/// Maps the machine's RAM.
pub(super) fn build(
    config: &Config,
    numa: &Numa,
    memory: &AddressSpace,
    objects: &Objects,
) -> Result<BoardRam, MachineError> {
    let mut pieces = Vec::new();
    for (index, node) in numa.nodes().iter().enumerate() {
        let Some(id) = &node.backend else { continue };
        let (at, backend) = objects.find::<MemoryBackend>(id).ok_or_else(|| NumaError::NoBackend(id.clone()))?;
        objects.tree().link(objects.machine(), &format!("node[{index}]"), "memory-backend", Some(at))?;
        pieces.push(backend);
    }
    if pieces.is_empty() {
        let (at, backend) = whole(config, objects)?;
        objects.tree().link(objects.machine(), "memory-backend", "memory-backend", Some(at))?;
        pieces.push(backend);
    }
    let mut at = 0;
    for backend in pieces {
        let ram = backend.ram();
        if !ram.writable() {
            return Err(MachineError::Memory(format!("memory backend '{}' cannot be written", ram.name())));
        }
        for (base, offset, length) in placed(at, ram.len()) {
            memory.map(base, length, 0, Target::Ram { ram: Arc::clone(ram), offset, writable: true });
        }
        at += ram.len();
    }
    let map =
        MemoryMap::new(config.ram.min(LOW_RAM_LIMIT), config.ram.saturating_sub(LOW_RAM_LIMIT), config.tables_length());
    let window = Window::of(config)?;
    Ok(BoardRam { affinity: affinity(numa, window), map, window })
}

/// The one backend of all memory: the one that was named, or one of the board's own.
fn whole(config: &Config, objects: &Objects) -> Result<(NodeId, Arc<MemoryBackend>), MachineError> {
    let options = &config.memory;
    let id = match &options.backend {
        Some(id) => id,
        None => {
            let mut properties = vec![
                ("size".to_owned(), json!(config.ram)),
                ("prealloc".to_owned(), json!(options.prealloc)),
                ("merge".to_owned(), json!(options.merge)),
                ("dump".to_owned(), json!(options.dump)),
            ];
            properties.extend(options.path.as_ref().map(|path| ("mem-path".to_owned(), json!(path))));
            let kind = if options.path.is_some() { "memory-backend-file" } else { "memory-backend-ram" };
            let (kind, id) = (kind.to_owned(), OWN_BACKEND.to_owned());
            let made = objects.create(&ObjectConfig { kind, id, properties });
            made.map_err(|reason| MachineError::Memory(reason.to_string()))?;
            OWN_BACKEND
        }
    };
    let found = objects.find::<MemoryBackend>(id);
    let (at, backend) = found.ok_or_else(|| MachineError::Memory(format!("Memory backend '{id}' not found")))?;
    if backend.ram().len() != config.ram {
        let reason = "Machine memory size does not match the size of the memory backend";
        return Err(MachineError::Memory(reason.to_owned()));
    }
    Ok((at, backend))
}

/// Where `length` bytes go of which `at` others come before: address, offset among them and length of each part.
fn placed(at: u64, length: u64) -> Vec<(u64, u64, u64)> {
    let below = LOW_RAM_LIMIT.saturating_sub(at).min(length);
    let mut parts = Vec::new();
    if below > 0 {
        parts.push((at, 0, below));
    }
    if length > below {
        parts.push((HIGH_RAM + (at + below - LOW_RAM_LIMIT), below, length - below));
    }
    parts
}

impl Window {
    /// First address behind it.
    pub(super) const fn end(self) -> u64 {
        self.base.saturating_add(self.length)
    }

    /// The window of a PC, if there may be modules.
    ///
    /// # Errors
    /// It would end where processors do not reach.
    pub fn of(config: &Config) -> Result<Option<Self>, MachineError> {
        let options = &config.memory;
        let Some(more) = options.maximum.checked_sub(config.ram).filter(|&more| more > 0) else { return Ok(None) };
        let end = HIGH_RAM + config.ram.saturating_sub(LOW_RAM_LIMIT);
        let base = end.next_multiple_of(WINDOW_ALIGNMENT);
        let length = more.saturating_add(u64::from(options.slots) * WINDOW_ALIGNMENT);
        if base.checked_add(length).is_none_or(|end| end > ADDRESS_LIMIT) {
            return Err(MachineError::Memory(format!(
                "maxmem 0x{:x} with {} slots is more than the {ADDRESS_LIMIT:#x} bytes that processors reach",
                options.maximum, options.slots
            )));
        }
        Ok(Some(Self { base, length }))
    }
}

/// The window for PCI devices behind `memory_end`, up to where addresses of so many bits end.
pub(super) fn high_pci_window(memory_end: u64, physical_bits: u32) -> Option<(u64, u64)> {
    let first = memory_end.checked_next_multiple_of(WINDOW_ALIGNMENT)?;
    let last = u64::MAX >> (64 - physical_bits.clamp(32, 52));
    (first < last).then_some((first, last))
}

fn affinity(numa: &Numa, window: Option<Window>) -> Vec<MemoryAffinity> {
    let (mut at, mut all) = (0, Vec::new());
    for (node, number) in numa.nodes().iter().zip(0..) {
        let parts = placed(at, node.memory).into_iter();
        all.extend(parts.map(|(base, _, length)| MemoryAffinity { base, length, node: number, hot_pluggable: false }));
        at += node.memory;
    }
    // Each module says itself to which node it belongs; the last one is as good as any for what is not there.
    if let (Some(Window { base, length }), Some(last)) = (window, numa.nodes().len().checked_sub(1)) {
        all.push(MemoryAffinity { base, length, node: last as u32, hot_pluggable: true });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn devices_have_what_is_behind_all_memory_as_far_as_processors_reach() {
        assert_eq!(high_pci_window(4 * GIB, 40), Some((4 * GIB, (1 << 40) - 1)));
        assert_eq!(high_pci_window(6 * GIB + 4096, 36), Some((7 * GIB, 64 * GIB - 1)));
        assert_eq!(high_pci_window(4 * GIB, 32), None);
        assert_eq!(high_pci_window(64 * GIB, 36), None);
        assert_eq!(high_pci_window(u64::MAX, 52), None);
    }

    #[test]
    fn memory_goes_around_the_hole() {
        assert_eq!(placed(0, GIB), [(0, 0, GIB)]);
        assert_eq!(placed(2 * GIB, 2 * GIB), [(2 * GIB, 0, GIB), (4 * GIB, GIB, GIB)]);
        assert_eq!(placed(3 * GIB, GIB), [(4 * GIB, 0, GIB)]);
        assert_eq!(placed(5 * GIB, GIB), [(6 * GIB, 0, GIB)]);
        assert_eq!(placed(GIB, 0), []);
    }
}
