//! The legacy interface: all registers in one range of ports (VIRTIO 1.2 §4.1.4.10).

use std::sync::Weak;

use rhea_core::{PortIo, Width};
use virtio_queue::QueueT;

use super::VirtioPci;
use crate::virtio::registers::Legacy;

impl VirtioPci {
    pub(super) fn read_legacy(&self, offset: u16, width: Width) -> u32 {
        let (register, start) = Legacy::at(offset, self.vectors_enabled());
        let selected = self.registers.lock().selected();
        let value = match register {
            Legacy::DeviceFeatures => self.registers.lock().legacy_features(),
            Legacy::DriverFeatures => self.registers.lock().features() as u32,
            Legacy::QueueAddress => self.queue(selected).map_or(0, |queue| {
                queue.with(|queue| if queue.ready() { (queue.desc_table() >> 12) as u32 } else { 0 })
            }),
            Legacy::QueueSize => self.queue(selected).map_or(0, |queue| queue.with(|queue| queue.size().into())),
            Legacy::QueueSelect => selected.into(),
            Legacy::QueueNotify => 0,
            Legacy::Status => self.registers.lock().status().into_bits().into(),
            Legacy::Isr => self.take_isr().into(),
            Legacy::ConfigVector => self.front.lock().config_vector.into(),
            Legacy::QueueVector => self.queue_vector(selected).into(),
            Legacy::Config(offset) => self.read_config_bytes(offset, width) as u32,
        };
        value >> (8 * (offset - start))
    }

    pub(super) fn write_legacy(&self, offset: u16, width: Width, value: u32) {
        let (register, start) = Legacy::at(offset, self.vectors_enabled());
        if offset != start {
            return;
        }
        let selected = self.registers.lock().selected();
        match register {
            Legacy::DriverFeatures => self.registers.lock().accept_legacy(value),
            Legacy::QueueAddress => self.set_legacy_address(selected, value),
            Legacy::QueueSelect => self.registers.lock().select(value as u16),
            Legacy::QueueNotify => self.notify(value as usize & 0xffff),
            Legacy::Status => self.set_status(value as u8, true),
            Legacy::ConfigVector => self.set_vector(value as u16, |front| Some(&mut front.config_vector)),
            Legacy::QueueVector => {
                self.set_vector(value as u16, |front| front.queue_vectors.get_mut(usize::from(selected)));
            }
            Legacy::Config(offset) => self.write_config_bytes(offset, width, value.into()),
            Legacy::DeviceFeatures | Legacy::QueueSize | Legacy::Isr => {}
        }
    }

    /// §2.7.2: a legacy queue lies in one piece, its used ring on the next page boundary. Page 0 takes it away, and with
    /// the last one the device starts over.
    fn set_legacy_address(&self, selected: u16, page: u32) {
        let Some(queue) = self.queue(selected) else { return };
        queue.with(|queue| {
            if page == 0 {
                return queue.reset();
            }
            let size = u64::from(queue.size());
            let descriptors = u64::from(page) << 12;
            let available = descriptors + 16 * size;
            let used = (available + 6 + 2 * size).next_multiple_of(4096);
            let halves = |address: u64| (Some(address as u32), Some((address >> 32) as u32));
            let (low, high) = halves(descriptors);
            queue.set_desc_table_address(low, high);
            let (low, high) = halves(available);
            queue.set_avail_ring_address(low, high);
            let (low, high) = halves(used);
            queue.set_used_ring_address(low, high);
            queue.set_ready(true);
        });
    }
}

/// The ports of the legacy interface.
pub(super) struct LegacyWindow(pub(super) Weak<VirtioPci>);

impl PortIo for LegacyWindow {
    fn name(&self) -> &str {
        "virtio-pci"
    }

    fn read(&self, offset: u16, width: Width) -> u32 {
        self.0.upgrade().map_or(0, |function| function.read_legacy(offset, width))
    }

    fn write(&self, offset: u16, width: Width, value: u32) {
        if let Some(function) = self.0.upgrade() {
            function.write_legacy(offset, width, value);
        }
    }

    fn widest(&self) -> Width {
        Width::Dword
    }
}
