//! The registers of a virtio device's common configuration and of its legacy interface: the chip alone.
//!
//! Source: VIRTIO 1.2 §2.1, §4.1.4.3, §4.1.4.10 (cited as §).

use bitfield_struct::bitfield;
use rhea_core::LoadError;

/// Feature bit: the driver is one of version 1.
pub const VERSION_1: u64 = 1 << 32;
/// Feature bit: descriptors may lie in tables of their own.
pub const INDIRECT: u64 = 1 << 28;
/// Feature bit: both sides say from which entry on they want to hear.
pub const EVENT_IDX: u64 = 1 << 29;
/// Feature bit of legacy devices: no assumptions about how requests are cut into buffers.
pub const ANY_LAYOUT: u64 = 1 << 27;

/// Device status (§2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct DeviceStatus {
    /// The driver has seen the device.
    pub acknowledge: bool,
    /// It knows how to drive it.
    pub driver: bool,
    /// It is ready.
    pub driver_ok: bool,
    /// Features are agreed on.
    pub features_ok: bool,
    #[bits(2)]
    __: u8,
    /// The device cannot go on.
    pub needs_reset: bool,
    /// The driver has given up.
    pub failed: bool,
}

/// A register of the common configuration (§4.1.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Common {
    DeviceFeatureSelect,
    DeviceFeature,
    DriverFeatureSelect,
    DriverFeature,
    ConfigVector,
    QueueCount,
    Status,
    ConfigGeneration,
    QueueSelect,
    QueueSize,
    QueueVector,
    QueueEnable,
    QueueNotifyOffset,
    QueueDescriptors,
    QueueDriver,
    QueueDevice,
    QueueNotifyData,
    QueueReset,
}

/// Bytes of the common configuration.
pub const COMMON_SIZE: u64 = 0x3c;

impl Common {
    const MAP: [(u64, u64, Self); 18] = [
        (0x00, 4, Self::DeviceFeatureSelect),
        (0x04, 4, Self::DeviceFeature),
        (0x08, 4, Self::DriverFeatureSelect),
        (0x0c, 4, Self::DriverFeature),
        (0x10, 2, Self::ConfigVector),
        (0x12, 2, Self::QueueCount),
        (0x14, 1, Self::Status),
        (0x15, 1, Self::ConfigGeneration),
        (0x16, 2, Self::QueueSelect),
        (0x18, 2, Self::QueueSize),
        (0x1a, 2, Self::QueueVector),
        (0x1c, 2, Self::QueueEnable),
        (0x1e, 2, Self::QueueNotifyOffset),
        (0x20, 8, Self::QueueDescriptors),
        (0x28, 8, Self::QueueDriver),
        (0x30, 8, Self::QueueDevice),
        (0x38, 2, Self::QueueNotifyData),
        (0x3a, 2, Self::QueueReset),
    ];

    /// The register that holds the byte at `offset`, where it begins, and its bytes.
    pub fn at(offset: u64) -> Option<(Self, u64, u64)> {
        let found = Self::MAP.iter().find(|(start, length, _)| (*start..start + length).contains(&offset));
        found.map(|&(start, length, register)| (register, start, length))
    }
}

/// A register of the legacy interface (§4.1.4.10), in front of the device's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Legacy {
    DeviceFeatures,
    DriverFeatures,
    QueueAddress,
    QueueSize,
    QueueSelect,
    QueueNotify,
    Status,
    Isr,
    ConfigVector,
    QueueVector,
    /// The device's configuration, from this offset on.
    Config(usize),
}

/// Bytes in front of the device's configuration without MSI-X.
pub const LEGACY_HEADER: u16 = 0x14;

impl Legacy {
    const MAP: [(u16, u16, Self); 8] = [
        (0x00, 4, Self::DeviceFeatures),
        (0x04, 4, Self::DriverFeatures),
        (0x08, 4, Self::QueueAddress),
        (0x0c, 2, Self::QueueSize),
        (0x0e, 2, Self::QueueSelect),
        (0x10, 2, Self::QueueNotify),
        (0x12, 1, Self::Status),
        (0x13, 1, Self::Isr),
    ];

    /// The register that holds the byte at `offset`, and where it begins; `vectors` says whether MSI-X is enabled, which
    /// moves the configuration.
    pub fn at(offset: u16, vectors: bool) -> (Self, u16) {
        let found = Self::MAP.iter().find(|(start, length, _)| (*start..start + length).contains(&offset));
        match (found, vectors) {
            (Some(&(start, _, register)), _) => (register, start),
            (None, true) if offset < 0x16 => (Self::ConfigVector, 0x14),
            (None, true) if offset < 0x18 => (Self::QueueVector, 0x16),
            (None, true) => (Self::Config(usize::from(offset) - 0x18), offset),
            (None, false) => (Self::Config(usize::from(offset) - 0x14), offset),
        }
    }
}

/// What a write of the status asks the transport to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusChange {
    /// Nothing.
    Nothing,
    /// Start over.
    Reset,
    /// The driver became ready.
    Ready,
}

/// The registers of the device as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Registers {
    offered: u64,
    accepted: u64,
    device_feature_select: u32,
    driver_feature_select: u32,
    status: DeviceStatus,
    queue_select: u16,
    generation: u8,
}

/// Saved form of [`Registers`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RegistersV1 {
    accepted: u64,
    device_feature_select: u32,
    driver_feature_select: u32,
    status: u8,
    queue_select: u16,
    generation: u8,
}

impl Registers {
    /// Registers after power-on of a device that offers `offered`.
    pub const fn new(offered: u64) -> Self {
        Self {
            offered,
            accepted: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            status: DeviceStatus::new(),
            queue_select: 0,
            generation: 0,
        }
    }

    /// Back to the state after power-on.
    pub const fn reset(&mut self) {
        *self = Self::new(self.offered);
    }

    /// The status.
    pub const fn status(&self) -> DeviceStatus {
        self.status
    }

    /// Features that both sides agreed on.
    pub const fn features(&self) -> u64 {
        self.accepted & self.offered
    }

    /// The queue that the queue registers speak of.
    pub const fn selected(&self) -> u16 {
        self.queue_select
    }

    /// Selects a queue.
    pub const fn select(&mut self, queue: u16) {
        self.queue_select = queue;
    }

    /// The configuration changed: who read it before reads it again.
    pub const fn config_changed(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// The device cannot go on.
    pub fn break_down(&mut self) {
        self.status.set_needs_reset(true);
    }

    /// Reads a register of the device as a whole; those of a queue are the transport's.
    pub fn read(&self, register: Common) -> u64 {
        let half = |features: u64, select| match select {
            0 => features & 0xffff_ffff,
            1 => features >> 32,
            _ => 0,
        };
        match register {
            Common::DeviceFeatureSelect => self.device_feature_select.into(),
            Common::DeviceFeature => half(self.offered, self.device_feature_select),
            Common::DriverFeatureSelect => self.driver_feature_select.into(),
            Common::DriverFeature => half(self.accepted, self.driver_feature_select),
            Common::Status => self.status.into_bits().into(),
            Common::ConfigGeneration => self.generation.into(),
            Common::QueueSelect => self.queue_select.into(),
            _ => 0,
        }
    }

    /// Writes a register of the device as a whole, but for the status.
    pub fn write(&mut self, register: Common, value: u64) {
        match register {
            Common::DeviceFeatureSelect => self.device_feature_select = value as u32,
            Common::DriverFeatureSelect => self.driver_feature_select = value as u32,
            // §3.1.1: what was agreed on stays until a reset.
            Common::DriverFeature if !self.status.features_ok() => match self.driver_feature_select {
                0 => self.accepted = self.accepted & !0xffff_ffff | value & 0xffff_ffff,
                1 => self.accepted = self.accepted & 0xffff_ffff | value << 32,
                _ => {}
            },
            Common::QueueSelect => self.queue_select = value as u16,
            _ => {}
        }
    }

    /// The legacy driver accepts features.
    pub const fn accept_legacy(&mut self, features: u32) {
        self.accepted = features as u64 & self.offered;
    }

    /// The features that a legacy driver sees.
    pub const fn legacy_features(&self) -> u32 {
        self.offered as u32
    }

    /// Writes the status.
    pub fn set_status(&mut self, value: u8, legacy: bool) -> StatusChange {
        if value == 0 {
            return StatusChange::Reset;
        }
        let before = self.status;
        let mut status = DeviceStatus::from_bits(value).with_needs_reset(before.needs_reset());
        // §2.2.2: features that were not offered, or no version, are not agreed on.
        let agreed = self.accepted & !self.offered == 0 && self.accepted & VERSION_1 != 0;
        if status.features_ok() && !before.features_ok() && !legacy && !agreed {
            status.set_features_ok(false);
        }
        if status.features_ok() {
            // A legacy driver, for which the bit means nothing, is not told what it has not got.
            self.accepted &= self.offered;
        }
        self.status = status;
        if status.driver_ok() && !before.driver_ok() { StatusChange::Ready } else { StatusChange::Nothing }
    }

    /// What changes.
    pub fn save(&self) -> RegistersV1 {
        let Self {
            offered: _,
            accepted,
            device_feature_select,
            driver_feature_select,
            status,
            queue_select,
            generation,
        } = self.clone();
        RegistersV1 {
            accepted,
            device_feature_select,
            driver_feature_select,
            status: status.into_bits(),
            queue_select,
            generation,
        }
    }

    /// Puts it back.
    ///
    /// # Errors
    /// The driver uses what the device does not offer.
    pub fn restore(&mut self, state: &RegistersV1) -> Result<(), LoadError> {
        let RegistersV1 { accepted, device_feature_select, driver_feature_select, status, queue_select, generation } =
            *state;
        if DeviceStatus::from_bits(status).features_ok() && accepted & !self.offered != 0 {
            let reason = format!("features {:#x}, which this device does not offer", accepted & !self.offered);
            return Err(LoadError::invalid("virtio", reason));
        }
        *self = Self {
            offered: self.offered,
            accepted,
            device_feature_select,
            driver_feature_select,
            status: DeviceStatus::from_bits(status),
            queue_select,
            generation,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_that_were_not_offered_are_not_agreed_on() {
        let mut registers = Registers::new(VERSION_1 | 0b101);
        registers.write(Common::DeviceFeatureSelect, 1);
        assert_eq!(registers.read(Common::DeviceFeature), 1);
        registers.set_status(0b11, false);
        registers.write(Common::DriverFeature, 0b10);
        assert_eq!(registers.set_status(0b1011, false), StatusChange::Nothing);
        assert!(!registers.status().features_ok());
        registers.write(Common::DriverFeature, 0b100);
        registers.set_status(0b1011, false);
        // Version 1 is not accepted yet.
        assert!(!registers.status().features_ok());
        registers.write(Common::DriverFeatureSelect, 1);
        registers.write(Common::DriverFeature, 1);
        registers.set_status(0b1011, false);
        assert!(registers.status().features_ok());
        registers.write(Common::DriverFeature, 0);
        assert_eq!(registers.features(), VERSION_1 | 0b100);
        assert_eq!(registers.set_status(0b1111, false), StatusChange::Ready);
        assert_eq!(registers.set_status(0b1111, false), StatusChange::Nothing);
        let state = registers.save();
        let mut other = Registers::new(VERSION_1 | 0b101);
        other.restore(&state).unwrap();
        assert_eq!(other, registers);
        assert_eq!(registers.set_status(0, false), StatusChange::Reset);
        registers.reset();
        assert_eq!(registers, Registers::new(VERSION_1 | 0b101));
    }

    #[test]
    fn every_byte_of_the_common_configuration_belongs_to_one_register() {
        for offset in 0..COMMON_SIZE {
            let (_, start, length) = Common::at(offset).unwrap();
            assert!((start..start + length).contains(&offset));
        }
        assert_eq!(Common::at(COMMON_SIZE), None);
    }

    #[test]
    fn vectors_move_the_legacy_configuration() {
        assert_eq!(Legacy::at(0x14, false), (Legacy::Config(0), 0x14));
        assert_eq!(Legacy::at(0x17, true), (Legacy::QueueVector, 0x16));
        assert_eq!(Legacy::at(0x19, true), (Legacy::Config(1), 0x19));
        assert_eq!(Legacy::at(0x13, true), (Legacy::Isr, 0x13));
    }
}
