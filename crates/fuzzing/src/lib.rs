//! What fuzz targets do with their bytes: accesses to one device, or text for one parser.
//!
//! Each target is a function of bytes that panics when a rule is broken. The rules of a device: no access panics or
//! hangs; a reset leaves it as a new one; a saved state put back, here or into a new device, is the same state, drives
//! the same lines and waits for the same moment; a state with a value changed is refused or leads to no panic later.
//! `fuzz/` runs the targets under libFuzzer; `tests/seeded.rs` runs each of them with a million accesses.

// A rule that is broken is a panic: that is how a fuzzer hears of it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bench;
mod bytes;
mod chips;
mod images;
mod machine;
mod parsers;
mod subject;
mod virtio;

pub use bytes::Bytes;

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Runs it on bytes; gives how many accesses, or texts, those were.
    pub run: fn(&[u8]) -> u64,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "debug_console", run: subject::run::<chips::DebugConsole> },
    Target { name: "exit_port", run: subject::run::<chips::Exit> },
    Target { name: "fw_cfg", run: subject::run::<chips::Firmware> },
    Target { name: "generation_id", run: subject::run::<chips::Generation> },
    Target { name: "hotplug_cpu", run: subject::run::<chips::Cpus> },
    Target { name: "hotplug_memory", run: subject::run::<chips::Modules> },
    Target { name: "hotplug_pci", run: subject::run::<chips::Slots> },
    Target { name: "hpet", run: subject::run::<chips::EventTimer> },
    Target { name: "human_line", run: parsers::human_line },
    Target { name: "i8042", run: subject::run::<chips::Keyboard> },
    Target { name: "ioapic", run: subject::run::<chips::InputOutput> },
    Target { name: "kernel_image", run: parsers::kernel_image },
    Target { name: "lapic", run: subject::run::<chips::Local> },
    Target { name: "multiboot_image", run: parsers::multiboot_image },
    Target { name: "panic_port", run: subject::run::<chips::Panics> },
    Target { name: "pci_bridge", run: subject::run::<chips::PciBridge> },
    Target { name: "pci_bus", run: subject::run::<chips::Pci> },
    Target { name: "pci_host", run: subject::run::<chips::North> },
    Target { name: "pci_isa_bridge", run: subject::run::<chips::South> },
    Target { name: "pci_test", run: subject::run::<chips::PciTester> },
    Target { name: "pic", run: subject::run::<chips::Controllers> },
    Target { name: "pit", run: subject::run::<chips::IntervalTimer> },
    Target { name: "pm", run: subject::run::<chips::Power> },
    Target { name: "property_text", run: parsers::property_text },
    Target { name: "qcow2_snapshots", run: images::qcow2_snapshots },
    Target { name: "reset_ports", run: subject::run::<chips::Resets> },
    Target { name: "rtc", run: subject::run::<chips::Clock> },
    Target { name: "state_stream", run: machine::state_stream },
    Target { name: "test_device", run: subject::run::<chips::Tester> },
    Target { name: "uart", run: subject::run::<chips::SerialPort> },
    Target { name: "virtio_balloon", run: subject::run::<virtio::BalloonFunction> },
    Target { name: "virtio_blk", run: subject::run::<virtio::DiskFunction> },
    Target { name: "virtio_console", run: subject::run::<virtio::ConsoleFunction> },
    Target { name: "virtio_rng", run: subject::run::<virtio::RngFunction> },
    Target { name: "watchdog", run: subject::run::<chips::Tended> },
];

impl Target {
    /// The target of this name.
    pub fn named(name: &str) -> Option<Self> {
        TARGETS.iter().find(|target| target.name == name).copied()
    }
}
