//! The modern interface: common configuration, interrupt status, device configuration and notifications in one memory
//! window (VIRTIO 1.2 §4.1.4).

use std::sync::Weak;

use rhea_core::{Mmio, Width};
use virtio_queue::QueueT;

use super::{COMMON, CONFIG, ISR, MODERN_SIZE, NOTIFY, NOTIFY_MULTIPLIER, VirtioPci};
use crate::virtio::registers::{COMMON_SIZE, Common};

impl VirtioPci {
    fn read_common(&self, register: Common) -> u64 {
        let selected = self.registers.lock().selected();
        let queue =
            |read: fn(&virtio_queue::Queue) -> u64| self.queue(selected).map_or(0, |queue| queue.with(|q| read(q)));
        match register {
            Common::ConfigVector => self.front.lock().config_vector.into(),
            Common::QueueCount => self.queues.len() as u64,
            Common::QueueSize => queue(|queue| queue.size().into()),
            Common::QueueVector => self.queue_vector(selected).into(),
            Common::QueueEnable => queue(|queue| queue.ready().into()),
            Common::QueueNotifyOffset => selected.into(),
            Common::QueueDescriptors => queue(QueueT::desc_table),
            Common::QueueDriver => queue(QueueT::avail_ring),
            Common::QueueDevice => queue(QueueT::used_ring),
            Common::QueueNotifyData | Common::QueueReset => 0,
            _ => self.registers.lock().read(register),
        }
    }

    /// A write of a whole register, or of one half of an address: `low` and `high` are those that are written.
    fn write_common(&self, register: Common, low: Option<u32>, high: Option<u32>) {
        let value = u64::from(low.unwrap_or(0));
        let selected = self.registers.lock().selected();
        let queue = |change: &dyn Fn(&mut virtio_queue::Queue)| {
            // §4.1.4.3.2: the registers of a queue that is enabled stand.
            if let Some(queue) = self.queue(selected) {
                queue.with(|queue| {
                    if !queue.ready() {
                        change(queue);
                    }
                });
            }
        };
        match register {
            Common::ConfigVector => self.set_vector(value as u16, |front| Some(&mut front.config_vector)),
            Common::QueueVector => {
                self.set_vector(value as u16, |front| front.queue_vectors.get_mut(usize::from(selected)));
            }
            Common::Status => self.set_status(value as u8, false),
            Common::QueueSize => queue(&|queue| queue.set_size(value as u16)),
            Common::QueueEnable if value == 1 => queue(&|queue| queue.set_ready(true)),
            Common::QueueDescriptors => queue(&|queue| queue.set_desc_table_address(low, high)),
            Common::QueueDriver => queue(&|queue| queue.set_avail_ring_address(low, high)),
            Common::QueueDevice => queue(&|queue| queue.set_used_ring_address(low, high)),
            _ => self.registers.lock().write(register, value),
        }
    }

    pub(super) fn read_modern(&self, offset: u64, width: Width) -> u64 {
        match offset {
            COMMON..COMMON_SIZE => {
                let Some((register, start, _)) = Common::at(offset) else { return 0 };
                self.read_common(register) >> (8 * (offset - start))
            }
            ISR => self.take_isr().into(),
            CONFIG..NOTIFY => self.read_config_bytes((offset - CONFIG) as usize, width),
            _ => 0,
        }
    }

    pub(super) fn write_modern(&self, offset: u64, width: Width, value: u64) {
        match offset {
            COMMON..COMMON_SIZE => {
                let Some((register, start, length)) = Common::at(offset) else { return };
                let bytes = width.bytes() as u64;
                let (low, high) = (value as u32, (value >> 32) as u32);
                match (length, bytes, offset - start) {
                    (8, 8, 0) => self.write_common(register, Some(low), Some(high)),
                    (8, 4, 0) => self.write_common(register, Some(low), None),
                    (8, 4, 4) => self.write_common(register, None, Some(low)),
                    // §4.1.3.1: registers are written whole.
                    (length, bytes, 0) if length == bytes => self.write_common(register, Some(low), None),
                    _ => {}
                }
            }
            CONFIG..NOTIFY => self.write_config_bytes((offset - CONFIG) as usize, width, value),
            NOTIFY..MODERN_SIZE => self.notify(((offset - NOTIFY) / NOTIFY_MULTIPLIER) as usize),
            _ => {}
        }
    }
}

/// The window of the modern interface.
pub(super) struct ModernWindow(pub(super) Weak<VirtioPci>);

impl Mmio for ModernWindow {
    fn name(&self) -> &str {
        "virtio-pci"
    }

    fn read(&self, offset: u64, width: Width) -> u64 {
        self.0.upgrade().map_or(0, |function| function.read_modern(offset, width))
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        if let Some(function) = self.0.upgrade() {
            function.write_modern(offset, width, value);
        }
    }
}
