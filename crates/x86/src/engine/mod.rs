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

pub use epoch::CodeEpoch;
pub use mode::Mode;
pub(crate) use ram::RamRange;
pub use run::{Exit, Vcpu, VcpuConfig};
pub use saved::VcpuV1;

use crate::mmu::Paging;

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
    /// What translations of code are valid in.
    pub(crate) contexts: contexts::Contexts,
}

#[cfg(test)]
mod tests;
