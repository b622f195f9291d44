//! ACPI: power management of the PIIX4, what comes and goes while the machine runs, and the generation identifier.

mod chip;
pub mod generation;
pub mod hotplug;
pub mod pm;
