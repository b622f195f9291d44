//! Device models: a pure chip and a thin bus adapter each.
//!
//! Locks are taken downstream only: a device, then whatever its interrupt line leads to (router, interrupt
//! controller, local APIC, processor pin). Whoever answers upstream (an EOI, an acknowledge) lets its own lock go first.

#[macro_use]
mod saved;

pub mod acpi;
pub mod char;
pub mod chipset;
pub mod input;
pub mod misc;
pub mod virtio;

pub use saved::Saveable;
