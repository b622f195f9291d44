//! What belongs to no family: the clock with its CMOS memory, the configuration channel to firmware, the panic and exit
//! ports, the watchdog, and devices for tests.

mod calendar;
pub mod debug_exit;
pub mod fw_cfg;
pub mod panic;
pub mod pci_test;
pub mod rtc;
pub mod test_device;
pub mod watchdog;
