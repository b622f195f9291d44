//! ACPI: power management of the PIIX4.

mod chip;
pub mod pm;
