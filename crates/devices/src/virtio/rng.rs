//! The entropy device: fills the driver's buffers with random bytes.
//!
//! Source: VIRTIO 1.2 §5.4.

use std::{io::Write as _, sync::Arc};

use rhea_core::{RandomSource, trace};

use super::{DeviceType, Outcome, VirtioDevice, Virtqueue};

/// Most bytes that one request gets; the driver asks again if it wants more.
const MOST: usize = 64 << 10;

/// The device.
pub struct Rng {
    source: Arc<dyn RandomSource>,
}

impl Rng {
    /// A device fed by `source`.
    pub fn new(source: Arc<dyn RandomSource>) -> Arc<Self> {
        Arc::new(Self { source })
    }
}

impl VirtioDevice for Rng {
    fn device_type(&self) -> DeviceType {
        DeviceType { name: "virtio-rng-pci", id: 4, transitional: 0x1005, class: 0x00_ff00 }
    }

    fn queues(&self) -> Vec<u16> {
        vec![8]
    }

    fn features(&self) -> u64 {
        0
    }

    fn config_size(&self) -> usize {
        0
    }

    fn read_config(&self, _: usize, _: &mut [u8]) {}

    fn serve(&self, _: usize, queue: &Virtqueue) {
        queue.serve(|buffers| {
            let mut bytes = vec![0; buffers.writer.available_bytes().min(MOST)];
            match self.source.fill(&mut bytes) {
                // Writing to guest memory that was looked up does not fail; what is short is said by its length.
                Ok(()) => {
                    drop(buffers.writer.write_all(&bytes));
                    trace!(VIRTIO_RNG_PUSHED, "{} bytes pushed", bytes.len());
                }
                Err(error) => tracing::warn!("random bytes: {error}"),
            }
            Outcome::Done
        });
    }
}
