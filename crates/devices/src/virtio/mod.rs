//! Virtio devices, each a configuration and queues of requests in guest memory, on the PCI bus.
//!
//! Source: Virtual I/O Device (VIRTIO) Version 1.2 (cited as §).

pub mod balloon;
pub mod block;
pub mod console;
mod pci;
mod queue;
mod registers;
pub mod rng;

use rhea_core::LoadError;
pub use rhea_core::Worker;
use serde::{Deserialize, Serialize};

pub use pci::{Interface, Link, VirtioPci, VirtioPciV1, Wiring};
pub use queue::{Buffers, Outcome, QueueV1, Virtqueue};
pub use registers::{DeviceStatus, Registers, RegistersV1};

/// What a driver recognises a device by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceType {
    /// What it is in a saved machine.
    pub name: &'static str,
    /// Device ID (§5).
    pub id: u16,
    /// PCI device ID of the transitional device (§4.1.2.1).
    pub transitional: u16,
    /// PCI class code.
    pub class: u32,
}

/// Saved form of what a device is apart from its transport.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum DeviceV1 {
    /// It keeps nothing.
    Stateless,
    /// A disk.
    Block(block::BlockV1),
    /// A balloon.
    Balloon(balloon::BalloonV1),
    /// Serial ports.
    Console(console::ConsoleV1),
}

/// What a virtio device is apart from its transport. Queues are served on a worker thread, one queue by one thread at a
/// time; everything else may be called by any processor.
pub trait VirtioDevice: Send + Sync {
    /// What it is.
    fn device_type(&self) -> DeviceType;

    /// The most entries of each queue: powers of two.
    fn queues(&self) -> Vec<u16>;

    /// The feature bits of the device itself (0 to 23 and 50 on).
    fn features(&self) -> u64;

    /// Bytes of the device's configuration.
    fn config_size(&self) -> usize;

    /// A read of the configuration: what lies past the end reads as zeros already.
    fn read_config(&self, offset: usize, data: &mut [u8]);

    /// A write of the configuration.
    fn write_config(&self, _offset: usize, _data: &[u8]) {}

    /// The way to its queues, given once before anything else is called.
    fn attach(&self, _link: Link) {}

    /// The driver is ready, and has accepted `features`.
    fn activate(&self, _features: u64) {}

    /// The driver, or the machine, starts over. No queue is being served.
    fn reset(&self) {}

    /// Its state, while no queue is being served.
    fn save(&self) -> DeviceV1 {
        DeviceV1::Stateless
    }

    /// Puts a saved state back.
    ///
    /// # Errors
    /// A state that the device cannot have.
    fn restore(&self, state: &DeviceV1) -> Result<(), LoadError> {
        match state {
            DeviceV1::Stateless => Ok(()),
            _ => Err(LoadError::invalid("VirtioDevice", "the state of another device")),
        }
    }

    /// Queue `index` may have new buffers.
    fn serve(&self, index: usize, queue: &Virtqueue);
}
