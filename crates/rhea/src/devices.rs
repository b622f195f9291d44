//! Opens what stands behind the devices of a command line.

use std::sync::Arc;

use anyhow::Context as _;
use rhea_backends::block::{Format, Image, Options as ImageOptions};
use rhea_core::BlockMedium;
use rhea_devices::{
    char::CharSink,
    virtio::{block::BlockOptions, console::PortOptions},
};
use rhea_machine::{DeviceConfig, DeviceKind};

use crate::options::{DeviceLineKind, DeviceSettings};

/// Devices, and the disks behind them, which are to be flushed at the end.
pub type Opened = (Vec<DeviceConfig>, Vec<Arc<dyn BlockMedium>>);

/// Opens the disks that devices use, and says what the devices are; `output` gives where the output of a port goes, by its
/// character backend.
///
/// # Errors
/// An image that cannot be opened.
pub fn open(settings: &DeviceSettings, output: impl Fn(&str) -> Option<Arc<dyn CharSink>>) -> anyhow::Result<Opened> {
    let mut media: Vec<Arc<dyn BlockMedium>> = Vec::new();
    let mut devices = Vec::new();
    for line in &settings.lines {
        let kind = match &line.kind {
            DeviceLineKind::Bridge => DeviceKind::Bridge,
            DeviceLineKind::Rng { backend } => DeviceKind::Rng { backend: backend.clone() },
            DeviceLineKind::Balloon { deflate_on_oom } => DeviceKind::Balloon { deflate_on_oom: *deflate_on_oom },
            DeviceLineKind::Console { most_ports, ports } => {
                let ports = ports.iter().map(|port| {
                    Ok(PortOptions {
                        number: port.number,
                        name: port.name.clone(),
                        console: port.console,
                        output: output(&port.backend).context("the backend was checked")?,
                    })
                });
                DeviceKind::Console { most_ports: *most_ports, ports: ports.collect::<anyhow::Result<_>>()? }
            }
            DeviceLineKind::Block { drive, serial, discard, block_size } => {
                let disk = settings.disks.iter().find(|disk| disk.id == *drive).context("the disk was checked")?;
                let format = if disk.probe { Format::of(&disk.image.path)? } else { disk.image.format };
                let image = Image::open(&ImageOptions { format, ..disk.image.clone() })?;
                let medium: Arc<dyn BlockMedium> = Arc::new(image);
                media.push(Arc::clone(&medium));
                DeviceKind::Block(BlockOptions {
                    read_only: medium.read_only(),
                    medium,
                    serial: serial.clone().or_else(|| disk.serial.clone()).unwrap_or_default(),
                    discard: *discard,
                    unmap: disk.unmap,
                    block_size: *block_size,
                })
            }
        };
        devices.push(DeviceConfig {
            id: line.id.clone(),
            bus: line.bus.clone(),
            address: line.address,
            interface: line.interface,
            vectors: line.vectors,
            kind,
        });
    }
    Ok((devices, media))
}

/// The ports of console devices: number of the device among those, number of the port, and its character backend.
pub fn console_ports(settings: &DeviceSettings) -> impl Iterator<Item = (usize, u32, &str)> {
    let consoles = settings.lines.iter().filter_map(|line| match &line.kind {
        DeviceLineKind::Console { ports, .. } => Some(ports),
        _ => None,
    });
    consoles
        .enumerate()
        .flat_map(|(device, ports)| ports.iter().map(move |port| (device, port.number, port.backend.as_str())))
}
