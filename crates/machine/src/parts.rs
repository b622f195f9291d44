//! What every board is built on, and what outlives none of its parts.

use std::sync::Arc;

use rhea_core::{AddressSpace, Gate, PortSpace, TimerQueue};
use rhea_x86::engine::CodeEpoch;

use crate::{
    backends::Backends, boot_order::BootOrder, inbox::Inbox, modules::MemoryModules, numa::Numa, objects::Objects,
    processors::Processors, taps::Taps,
};

/// What every board is built on.
pub struct Parts {
    /// Guest physical memory.
    pub memory: Arc<AddressSpace>,
    /// I/O ports.
    pub ports: Arc<PortSpace>,
    /// The machine's timers.
    pub timers: Arc<TimerQueue>,
    /// Where devices leave what concerns the whole machine.
    pub inbox: Arc<Inbox>,
    /// Stands before what works for devices outside of processors.
    pub gate: Arc<Gate>,
    /// Keeps processors informed of each other's decoded code.
    pub code_epoch: Arc<CodeEpoch>,
    /// The processors.
    pub processors: Arc<Processors>,
    /// Where tests listen to interrupt lines.
    pub taps: Taps,
    /// Nodes of processors and memory.
    pub numa: Arc<Numa>,
    /// Memory modules.
    pub modules: Arc<MemoryModules>,
    /// What firmware tries first.
    pub boot_order: Arc<BootOrder>,
    /// The tree of objects.
    pub objects: Arc<Objects>,
    /// What stands behind devices on the host.
    pub backends: Backends,
}
