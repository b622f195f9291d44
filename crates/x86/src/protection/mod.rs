//! Segments, privilege, interrupts and far transfers.

pub mod address;
pub mod stack;
