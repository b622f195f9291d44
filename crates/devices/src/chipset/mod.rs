//! What the chipset holds: interrupt controllers, timers, the PCI host and the bridge to the ISA ports.

pub mod coprocessor;
pub mod hpet;
pub mod ioapic;
pub mod lapic;
pub mod pci;
pub mod pic;
pub mod pit;
mod pit_counter;
pub mod reset;
pub mod wires;
