//! ACPI: power management of the PIIX4, and what comes and goes while the machine runs.

mod chip;
pub mod hotplug;
pub mod pm;
