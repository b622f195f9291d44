//! Devices driven through the test port on an exact clock, one file a device, and the port's own protocol.
//!
//! Times are given in nanoseconds of the machine's time or in ticks of the device's crystal.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod fw_cfg;
mod hpet;
mod i8042;
mod ioapic;
mod lapic;
mod pci;
mod pic;
mod pit;
mod pm;
mod port;
mod random;
mod reset;
mod rtc;
mod test_devices;
mod trace;
mod uart;
mod virtio;
mod virtio_balloon;
mod virtio_blk;
mod virtio_rng;

/// The first nanosecond at which a counter of `frequency` hertz that started at power-on has counted `ticks`.
fn of_ticks(ticks: u64, frequency: u64) -> u64 {
    (u128::from(ticks) * 1_000_000_000).div_ceil(u128::from(frequency)) as u64
}
