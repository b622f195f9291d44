//! The engine: finds, decodes and runs blocks of instructions.

mod block;
mod cache;
mod contexts;
mod epoch;
pub mod mode;
mod ram;
pub mod run;
mod saved;
pub mod testing;
mod waiting;

pub use epoch::CodeEpoch;
pub use mode::Mode;
pub(crate) use ram::RamRange;
pub use run::{Exit, Vcpu, VcpuConfig};
pub use saved::VcpuV1;
pub use waiting::StoreWatch;

use std::sync::Arc;

use crate::{
    mmu::Paging,
    state::CpuState,
    system::{breakpoints::Breakpoints, cpuid::instructions::Instructions, monitor::Monitor},
};

/// The engine's bookkeeping of one processor.
#[derive(Debug, Default)]
pub struct EngineState {
    /// Decoded code was written to: the running block ends after its instruction.
    pub(crate) stop: bool,
    /// The exception in [`CpuState::exception`](crate::state::CpuState) is for an address that is not canonical.
    pub(crate) non_canonical: bool,
    /// What paging depends on.
    pub(crate) paging: Paging,
    /// RAM in the memory map.
    pub(crate) ram: ram::RamMap,
    /// Which linear addresses the TLB has from pages larger than 4 KiB.
    pub(crate) large_pages: contexts::LargePages,
    /// Breakpoints of the debug registers.
    pub(crate) breakpoints: Breakpoints,
    /// What translations of code are valid in.
    pub(crate) contexts: contexts::Contexts,
    /// What MONITOR has put on watch.
    pub(crate) monitor: Monitor,
    /// The instructions that the processor's model has, once one was decoded.
    instructions: Option<Arc<Instructions>>,
}

impl CpuState {
    /// The instructions that the processor's model has.
    pub(crate) fn instructions(&mut self) -> Arc<Instructions> {
        let Self { engine, cpuid, .. } = self;
        Arc::clone(engine.instructions.get_or_insert_with(|| Arc::new(Instructions::of(cpuid))))
    }

    /// Executes every instruction that there is a handler for, whatever the model has: to try instructions, which need
    /// not be offered yet.
    pub fn execute_every_instruction(&mut self) {
        self.engine.instructions = Some(Arc::new(Instructions::every()));
    }

    /// Executes those instructions that CPUID tells of, after that was changed.
    pub fn execute_offered_instructions(&mut self) {
        self.engine.instructions = None;
    }
}

#[cfg(test)]
mod tests;
