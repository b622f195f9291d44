//! `virtio-blk-pci`: a disk.

use std::sync::Arc;

use rhea_core::{
    BlockMedium as _,
    object::{Fixed, Object, PropertyError},
};
use rhea_devices::virtio::block::{Block, BlockOptions};

use super::{
    DeviceConfig, DeviceError, Driver, Plugged,
    virtio::{self, Made, OnOffAuto, virtio_drivers},
};
use crate::{Machine, MachineError};

/// A disk.
#[derive(Object)]
#[object(type = "virtio-blk-pci", parent = "virtio-pci", settings)]
struct BlockSettings {
    /// The -drive or block node behind it.
    #[property]
    drive: String,
    /// What the disk says it is, up to 20 bytes.
    #[property]
    serial: Option<String>,
    /// Whether the guest may give room back.
    #[property(default = true)]
    discard: bool,
    /// Bytes of a block, as the guest is advised: 512 or 4096.
    #[property(name = "logical_block_size", default = 512)]
    block_size: u32,
    /// Accepted and ignored: bytes of a block of the medium.
    #[property(name = "physical_block_size", default = 512)]
    physical_block_size: u32,
    /// Accepted and ignored: there is no firmware that chooses.
    #[property(name = "bootindex", default = -1)]
    boot_index: i32,
    /// Whether writes wait for a flush: on or auto.
    #[property(default = OnOffAuto::Auto)]
    write_cache: OnOffAuto,
    /// Queues: 1.
    #[property(default = 1)]
    num_queues: u16,
}

pub(super) const DRIVERS: [Driver; 3] = virtio_drivers!(BlockSettings, "virtio-blk", "virtio-blk-pci", plug);

fn plug(machine: &Machine, config: &DeviceConfig, _: bool) -> Result<Plugged, MachineError> {
    let mut settings: BlockSettings = config.settings().map_err(DeviceError::from)?;
    let range = |name: &str, expected: &str| {
        DeviceError::from(PropertyError::Range { name: name.to_owned(), expected: expected.to_owned() })
    };
    if !matches!(settings.block_size, 512 | 4096) {
        return Err(range("logical_block_size", "512 or 4096").into());
    }
    if settings.num_queues != 1 {
        return Err(range("num-queues", "1").into());
    }
    if settings.write_cache == OnOffAuto::Off {
        return Err(DeviceError::Refused("'write-cache=off' is not supported yet".to_owned()).into());
    }
    if settings.drive.is_empty() {
        return Err(DeviceError::from(PropertyError::Missing("drive")).into());
    }
    let mut claimed = None;
    let plugged = virtio::plug(machine, config, || {
        let name = config.id.as_deref().unwrap_or("disk");
        let disk = machine.parts().backends.blocks.claim(&settings.drive, name)?;
        let serial = settings.serial.clone().or_else(|| disk.serial().map(str::to_owned)).unwrap_or_default();
        settings.serial = Some(serial.clone());
        let device = Block::new(BlockOptions {
            read_only: disk.read_only(),
            medium: Arc::clone(&disk) as _,
            serial,
            discard: settings.discard,
            block_size: settings.block_size,
        });
        let told = Arc::downgrade(&device);
        disk.on_resize(move || {
            if let Some(device) = told.upgrade() {
                device.resized();
            }
        });
        claimed = Some(disk);
        // A disk that waits for the host holds up nobody else.
        let worker = machine.start_worker(&format!("virtio {name}"))?;
        Ok(Made { device, own: Arc::new(Fixed(settings)), worker, links: Vec::new() })
    })?;
    if let Some(disk) = claimed {
        // As managers know the part of a device that is not its transport.
        disk.set_device(format!("{}/virtio-backend", machine.objects().tree().path(plugged.node)));
    }
    Ok(plugged)
}
