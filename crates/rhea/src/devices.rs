//! Opens the disks of a command line when devices want them.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rhea_backends::block::{Format, Image, Options as ImageOptions};
use rhea_core::BlockMedium;
use rhea_machine::{DeviceError, Disk, Disks};

use crate::options::DiskSettings;

/// The disks of a command line. Each is open while a device has it.
pub struct DiskTable {
    disks: Vec<(DiskSettings, Mutex<Weak<Image>>)>,
}

impl DiskTable {
    /// None of them is open yet.
    pub fn new(disks: &[DiskSettings]) -> Arc<Self> {
        Arc::new(Self { disks: disks.iter().map(|disk| (disk.clone(), Mutex::default())).collect() })
    }

    /// Flushes what is open.
    pub fn flush(&self) {
        for image in self.disks.iter().filter_map(|(_, open)| open.lock().upgrade()) {
            if let Err(error) = image.flush() {
                tracing::error!("{image:?}: {error}");
            }
        }
    }
}

impl Disks for DiskTable {
    fn claim(&self, name: &str, _: &str) -> Result<Disk, DeviceError> {
        let found = self.disks.iter().find(|(disk, _)| disk.id == name);
        let (disk, open) = found.ok_or_else(|| DeviceError::no_disk(name))?;
        let mut open = open.lock();
        if open.strong_count() > 0 {
            return Err(DeviceError::Refused(format!("Drive '{name}' is already in use by another block device")));
        }
        let refused = |error: rhea_backends::block::OpenError| DeviceError::Refused(error.to_string());
        let format = if disk.probe { Format::of(&disk.image.path).map_err(refused)? } else { disk.image.format };
        let image = Arc::new(Image::open(&ImageOptions { format, ..disk.image.clone() }).map_err(refused)?);
        *open = Arc::downgrade(&image);
        Ok(Disk { medium: image, unmap: disk.unmap, serial: disk.serial.clone() })
    }
}
