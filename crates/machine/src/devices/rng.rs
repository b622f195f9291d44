//! `virtio-rng-pci`: random bytes.

use std::sync::Arc;

use rhea_backends::{object::RandomBackend, random::Builtin};
use rhea_core::{
    RandomSource,
    object::{Fixed, Object},
    property_link,
};
use rhea_devices::virtio::rng::Rng;

use super::{
    DeviceConfig, DeviceError, Driver, Plugged,
    virtio::{self, Made, virtio_drivers},
};
use crate::{Machine, MachineError};

property_link! {
    /// The source.
    struct Source: "link<rng-backend>"
}

/// Random bytes for the guest.
#[derive(Object)]
#[object(type = "virtio-rng-pci", parent = "virtio-pci", settings)]
struct RngSettings {
    /// The rng-random or rng-builtin object behind it; the host's generator if not given.
    #[property]
    rng: Source,
}

pub(super) const DRIVERS: [Driver; 3] = virtio_drivers!(RngSettings, "virtio-rng", "virtio-rng-pci", plug);

fn plug(machine: &Machine, config: &DeviceConfig) -> Result<Plugged, MachineError> {
    let settings: RngSettings = config.settings().map_err(DeviceError::from)?;
    virtio::plug(machine, config, |_| {
        let id = settings.rng.0.strip_prefix("/objects/").unwrap_or(&settings.rng.0);
        let (source, links): (Arc<dyn RandomSource>, _) = if id.is_empty() {
            (Arc::new(Builtin), Vec::new())
        } else {
            let found = machine.objects().find::<RandomBackend>(id);
            let (node, backend) = found.ok_or_else(|| DeviceError::NotThere {
                driver: config.driver.clone(),
                property: "rng",
                value: settings.rng.0.clone(),
            })?;
            (Arc::clone(backend.source()), vec![("rng", "rng-backend", node)])
        };
        Ok(Made { device: Rng::new(source), own: Arc::new(Fixed(settings)), worker: machine.shared_worker()?, links })
    })
}
