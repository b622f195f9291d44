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
pub mod lost_ticks;
pub mod misc;
pub mod virtio;

pub use rhea_core::Saveable;

use rhea_core::object::{TypeInfo, Typed};

/// The types of objects that this crate has.
pub const TYPES: &[&TypeInfo] = &[
    acpi::pm::Pm::INFO,
    chipset::hpet::MmioHpet::INFO,
    chipset::ioapic::IoApic::INFO,
    chipset::lapic::LocalApic::INFO,
    chipset::pci::HostBridge::INFO,
    chipset::pci::IsaBridge::INFO,
    chipset::pci::PciBus::INFO,
    chipset::pic::Pic::INFO,
    chipset::pit::IsaPit::INFO,
    chipset::reset::ResetPorts::INFO,
    input::Ps2::INFO,
    misc::fw_cfg::FwCfg::INFO,
    misc::rtc::IsaRtc::INFO,
];
