//! What all virtio devices on PCI buses have: their transport.

use std::sync::Arc;

use rhea_core::{
    Dma,
    object::{Object, PropertyError, Settings, TypeInfo, Value},
    property_words,
};
use rhea_devices::virtio::{Interface, VirtioDevice, VirtioPci, Wiring, Worker};

use super::{
    DeviceConfig, DeviceError, Plugged, device_type,
    pci::{Link, PciAddress, PciPlace},
};
use crate::{Machine, MachineError};

/// Most vectors of MSI-X (PCI Local Bus Specification 3.0 § 6.8.2.3).
const MOST_VECTORS: u32 = 2048;
/// As many vectors as the device can use.
const ALL_VECTORS: u32 = u32::MAX;

property_words! {
    /// A choice that can be left open.
    pub(super) enum OnOffAuto: "OnOffAuto" {
        /// As it fits.
        Auto = "auto",
        /// Yes.
        On = "on",
        /// No.
        Off = "off",
    }
}

/// What all virtio devices on PCI buses have.
#[derive(Clone, Debug, Object)]
#[object(type = "virtio-pci", parent = "pci-device", abstract, settings)]
pub(super) struct TransportSettings {
    /// Slot and optional function, such as 06.0 or 06; the first free slot if not given.
    #[property(default = PciAddress(None))]
    addr: PciAddress,
    /// Vectors of MSI-X, 0 for none; as many as the device can use if not given.
    #[property(default = ALL_VECTORS)]
    vectors: u32,
    /// Whether drivers from before version 1 are left out.
    #[property(default = OnOffAuto::Auto)]
    disable_legacy: OnOffAuto,
    /// Whether drivers of version 1 are left out.
    #[property(default = false)]
    disable_modern: bool,
}

impl TransportSettings {
    fn interface(&self, driver: &str) -> Result<Interface, DeviceError> {
        let refused = |text: &str| DeviceError::Refused(text.to_owned());
        // Some names say for which drivers the device is.
        let named = if driver.ends_with("-non-transitional") {
            Some(Interface::Modern)
        } else {
            driver.ends_with("-transitional").then_some(Interface::Transitional)
        };
        match (named, self.disable_legacy == OnOffAuto::On, self.disable_modern) {
            (Some(interface), false, false) => Ok(interface),
            (Some(_), _, _) => Err(refused("the driver's name says which interface it has")),
            (None, true, true) => Err(refused("a device needs the modern or the legacy interface")),
            (None, true, false) => Ok(Interface::Modern),
            (None, false, true) => Ok(Interface::Legacy),
            (None, false, false) => Ok(Interface::Transitional),
        }
    }

    fn vectors(&self) -> Result<Option<u16>, DeviceError> {
        match self.vectors {
            ALL_VECTORS => Ok(None),
            count if count <= MOST_VECTORS => Ok(Some(count as u16)),
            _ => {
                let expected = format!("{MOST_VECTORS} vectors at the most");
                Err(PropertyError::Range { name: "vectors".to_owned(), expected }.into())
            }
        }
    }
}

/// A virtio device, and what goes with it.
pub(super) struct Made {
    /// The device.
    pub device: Arc<dyn VirtioDevice>,
    /// Its own properties.
    pub own: Arc<dyn Object>,
    /// What serves its queues.
    pub worker: Arc<Worker>,
    /// What it uses.
    pub links: Vec<Link>,
}

/// A virtio device in the tree: what its transport holds, and what is its own.
pub(super) struct VirtioObject {
    info: &'static TypeInfo,
    transport: TransportSettings,
    pub own: Arc<dyn Object>,
}

impl Object for VirtioObject {
    fn info(&self) -> &'static TypeInfo {
        self.info
    }

    fn get(&self, name: &str) -> Option<Value> {
        self.own.get(name).or_else(|| self.transport.get(name))
    }

    fn set(&self, name: &str, value: &Value) -> Result<(), PropertyError> {
        self.own.set(name, value)
    }
}

/// Makes a device by `make`, which is told its place, and puts it on its bus.
pub(super) fn plug(
    machine: &Machine,
    config: &DeviceConfig,
    make: impl FnOnce(&PciPlace) -> Result<Made, MachineError>,
) -> Result<Plugged, MachineError> {
    let info = device_type(&config.driver).ok_or_else(|| DeviceError::Driver(config.driver.clone()))?;
    let mut transport: TransportSettings = config.settings().map_err(DeviceError::from)?;
    let (interface, vectors) = (transport.interface(&config.driver)?, transport.vectors()?);
    let place = machine.pci_place(config, transport.addr)?;
    transport.addr = PciAddress(Some(place.at));
    let messages = machine.board().messages();
    let messages = messages.ok_or(DeviceError::NoBusOf { bus: "PCI", driver: config.driver.clone() })?;
    let Made { device, own, worker, links } = make(&place)?;
    let parts = machine.parts();
    let wiring = Wiring {
        memory: Arc::clone(&parts.memory),
        ports: Arc::clone(&parts.ports),
        dma: Dma::new(Arc::clone(&parts.memory)),
        line: place.slots().interrupt(place.at, 0),
        messages,
        worker,
        gate: Arc::clone(&parts.gate),
    };
    let function = VirtioPci::new(device, interface, vectors, wiring);
    machine.plug_pci(config, &place, function, Arc::new(VirtioObject { info, transport, own }), &links, true)
}

/// The three drivers of a device: for all drivers in guests, for those of version 1 on, and for all by name.
macro_rules! virtio_drivers {
    ($settings:ty, $alias:literal, $name:literal, $plug:expr) => {{
        use rhea_core::object::{TypeInfo, Typed};
        use $crate::devices::Driver;
        [
            Driver { info: <$settings>::INFO, aliases: &[$alias], hotpluggable: true, plug: $plug },
            Driver {
                info: &TypeInfo::like(concat!($name, "-non-transitional"), <$settings>::INFO),
                aliases: &[],
                hotpluggable: true,
                plug: $plug,
            },
            Driver {
                info: &TypeInfo::like(concat!($name, "-transitional"), <$settings>::INFO),
                aliases: &[],
                hotpluggable: true,
                plug: $plug,
            },
        ]
    }};
}
pub(super) use virtio_drivers;
