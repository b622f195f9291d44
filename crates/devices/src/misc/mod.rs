//! What belongs to no family: the clock with its CMOS memory, and the configuration channel to firmware.

mod calendar;
pub mod fw_cfg;
pub mod rtc;
