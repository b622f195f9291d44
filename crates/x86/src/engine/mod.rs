//! The engine: finds, decodes and runs blocks of instructions.

pub mod mode;

/// The engine's bookkeeping of one processor.
#[derive(Debug, Default)]
pub struct EngineState {}
