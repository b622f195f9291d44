//! `virtio-blk-pci`: a disk.

use std::sync::Arc;

use rhea_backends::object::IoThread;
use rhea_core::{
    BlockMedium as _,
    object::{Object, PropertyError, Settings as _, TypeInfo, Typed, Value, read_value},
    property_link,
};
use rhea_devices::virtio::block::{Block, BlockOptions, MOST_ENTRIES, MOST_QUEUES};

use super::{
    DeviceConfig, DeviceError, Driver, Plugged,
    virtio::{self, Made, OnOffAuto, virtio_drivers},
};
use crate::{Machine, MachineError, boot_order::BootPlace};

property_link! {
    /// A thread.
    struct Thread: "link<iothread>"
}

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
    /// Place in the order in which firmware tries to boot, from 0 on; -1 for none.
    #[property(name = "bootindex", default = -1, live)]
    boot_index: i32,
    /// Whether writes wait for a flush, unless the guest says otherwise; auto is on.
    #[property(default = OnOffAuto::Auto)]
    write_cache: OnOffAuto,
    /// Queues, 1 to 64.
    #[property(default = 1)]
    num_queues: u16,
    /// Entries of each queue: a power of two from 4 to 1024.
    #[property(default = 256)]
    queue_size: u16,
    /// The I/O thread that serves the queues; one of the disk's own if not given.
    #[property]
    iothread: Thread,
}

pub(super) const DRIVERS: [Driver; 3] = virtio_drivers!(BlockSettings, "virtio-blk", "virtio-blk-pci", plug);

fn plug(machine: &Machine, config: &DeviceConfig) -> Result<Plugged, MachineError> {
    let mut settings: BlockSettings = config.settings().map_err(DeviceError::from)?;
    let range = |name: &str, expected: &str| {
        DeviceError::from(PropertyError::Range { name: name.to_owned(), expected: expected.to_owned() })
    };
    if !matches!(settings.block_size, 512 | 4096) {
        return Err(range("logical_block_size", "512 or 4096").into());
    }
    if !(1..=MOST_QUEUES).contains(&settings.num_queues) {
        return Err(range("num-queues", &format!("1 to {MOST_QUEUES}")).into());
    }
    if !(4..=MOST_ENTRIES).contains(&settings.queue_size) || !settings.queue_size.is_power_of_two() {
        return Err(range("queue-size", &format!("a power of two from 4 to {MOST_ENTRIES}")).into());
    }
    if settings.drive.is_empty() {
        return Err(DeviceError::from(PropertyError::Missing("drive")).into());
    }
    let thread = match settings.iothread.0.strip_prefix("/objects/").unwrap_or(&settings.iothread.0) {
        "" => None,
        id => Some(machine.objects().find::<IoThread>(id).ok_or_else(|| DeviceError::NotThere {
            driver: config.driver.clone(),
            property: "iothread",
            value: id.to_owned(),
        })?),
    };
    let mut claimed = None;
    let plugged = virtio::plug(machine, config, |place| {
        let name = config.id.as_deref().unwrap_or("disk");
        let path = place.firmware_path("scsi");
        // People know a device without a name by its type and place.
        let called = config.id.as_ref().map_or_else(|| format!("{} at {path}", config.driver), |id| format!("'{id}'"));
        let order = &machine.parts().boot_order;
        let boot = order.enter(called, format!("{path}/disk@0,0"), settings.boot_index)?;
        let disk = machine.parts().backends.blocks.claim(&settings.drive, name)?;
        let serial = settings.serial.clone().or_else(|| disk.serial().map(str::to_owned)).unwrap_or_default();
        settings.serial = Some(serial.clone());
        let device = Block::new(BlockOptions {
            read_only: disk.read_only(),
            medium: Arc::clone(&disk) as _,
            serial,
            discard: settings.discard,
            block_size: settings.block_size,
            write_cache: settings.write_cache != OnOffAuto::Off,
            queues: settings.num_queues,
            entries: settings.queue_size,
        });
        let told = Arc::downgrade(&device);
        disk.on_resize(move || {
            if let Some(device) = told.upgrade() {
                device.resized();
            }
        });
        let told = Arc::downgrade(&device);
        disk.on_limits(move || {
            if let Some(device) = told.upgrade() {
                device.ask_again();
            }
        });
        claimed = Some(disk);
        let (worker, links) = match thread {
            Some((node, thread)) => (Arc::clone(thread.worker()), vec![("iothread", "iothread", node)]),
            // A disk that waits for the host holds up nobody else.
            None => (machine.start_worker(&format!("virtio {name}"))?, Vec::new()),
        };
        Ok(Made { device, own: Arc::new(Disk { settings, boot }), worker, links })
    })?;
    if let Some(disk) = claimed {
        // As managers know the part of a device that is not its transport.
        disk.set_device(format!("{}/virtio-backend", machine.objects().tree().path(plugged.node)));
    }
    Ok(plugged)
}

/// A disk's own properties.
struct Disk {
    settings: BlockSettings,
    boot: Arc<BootPlace>,
}

impl Object for Disk {
    fn info(&self) -> &'static TypeInfo {
        BlockSettings::INFO
    }

    fn get(&self, name: &str) -> Option<Value> {
        match name {
            "bootindex" => Some(self.boot.index().into()),
            _ => self.settings.get(name),
        }
    }

    fn set(&self, name: &str, value: &Value) -> Result<(), PropertyError> {
        // The only one that can be set.
        let index = read_value(name, value)?;
        self.boot.move_to(index).map_err(|taken| PropertyError::Refused(taken.to_string()))
    }
}
