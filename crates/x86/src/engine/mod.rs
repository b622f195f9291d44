//! The engine: finds, decodes and runs blocks of instructions.

pub mod mode;
pub mod run;
pub mod testing;

pub use mode::Mode;
pub use run::{Exit, Vcpu, VcpuConfig};

/// The engine's bookkeeping of one processor.
#[derive(Debug, Default)]
pub struct EngineState {}
