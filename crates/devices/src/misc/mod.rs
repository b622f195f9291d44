//! What belongs to no family: the clock with its CMOS memory, the configuration channel to firmware, the panic and exit
//! ports and the watchdog.

mod calendar;
pub mod debug_exit;
pub mod fw_cfg;
pub mod panic;
pub mod rtc;
pub mod watchdog;
