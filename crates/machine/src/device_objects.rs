//! Devices that were asked for, as managers see them in the tree: their types and properties.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rhea_core::object::{
    Fixed, Object, PropertyError, PropertyKind, Settings, TypeInfo, Typed, Unsuitable, Value, read_value,
};
use rhea_devices::virtio::{Interface, balloon::Balloon};
use serde_json::{Map, json};

use crate::config::{DeviceConfig, DeviceKind};

/// The types of these devices.
pub const TYPES: &[&TypeInfo] = &[
    BridgeSettings::INFO,
    TransportSettings::INFO,
    RngSettings::INFO,
    BlockSettings::INFO,
    ConsoleSettings::INFO,
    BalloonSettings::INFO,
];

/// What all virtio devices on the PCI bus have.
#[derive(Object)]
#[object(type = "virtio-pci", parent = "pci-device", abstract, settings)]
struct TransportSettings {
    /// Eight times the slot, and the function; -1 for the first free slot.
    #[property(default = -1)]
    addr: i32,
    /// Vectors of MSI-X; -1 for as many as it can use.
    #[property(default = -1)]
    vectors: i32,
    /// Whether drivers from before version 1 are left out: on, off or auto.
    #[property(default = "auto")]
    disable_legacy: String,
    /// Whether drivers of version 1 are left out.
    #[property(default = false)]
    disable_modern: bool,
}

/// A bus behind a slot of another.
#[derive(Object)]
#[object(type = "pci-bridge", parent = "pci-device", settings)]
struct BridgeSettings {
    /// Eight times the slot, and the function; -1 for the first free slot.
    #[property(default = -1)]
    addr: i32,
}

/// Random bytes.
#[derive(Object)]
#[object(type = "virtio-rng-pci", parent = "virtio-pci", settings)]
struct RngSettings {}

/// A disk.
#[derive(Object)]
#[object(type = "virtio-blk-pci", parent = "virtio-pci", settings)]
struct BlockSettings {
    /// What the disk says it is, up to 20 bytes.
    #[property]
    serial: Option<String>,
    /// Whether the guest may give room back.
    #[property(default = true)]
    discard: bool,
    /// Bytes of a block, as the guest is advised.
    #[property(name = "logical_block_size", default = 512)]
    block_size: u32,
}

/// Serial ports and consoles.
#[derive(Object)]
#[object(type = "virtio-serial-pci", parent = "virtio-pci", settings)]
struct ConsoleSettings {
    /// Most ports.
    #[property(name = "max_ports", default = 31)]
    most_ports: u32,
}

/// A balloon.
#[derive(Object)]
#[object(type = "virtio-balloon-pci", parent = "virtio-pci", settings)]
struct BalloonSettings {
    /// Whether the guest may take pages back when it has no others.
    #[property(default = false)]
    deflate_on_oom: bool,
    /// Seconds between two askings for statistics; 0 for never.
    #[property(default = 0, live)]
    guest_stats_polling_interval: u32,
    /// What the guest said last of its memory, and when.
    #[property(read_only)]
    guest_stats: GuestStatistics,
}

/// Statistics of the guest's memory with the second of 1970 in which they came.
#[derive(Clone, Debug, Default)]
struct GuestStatistics(Value);

impl PropertyKind for GuestStatistics {
    const NAME: &'static str = "guest statistics";

    fn to_value(&self) -> Value {
        self.0.clone()
    }

    fn from_value(_: &Value) -> Result<Self, Unsuitable> {
        Err(Unsuitable::Range("nothing: it is read only"))
    }

    fn from_text(_: &str) -> Option<Self> {
        None
    }
}

/// Statistics by their tags (virtio 1.2 § 5.5.6.4).
const STATISTICS: [&str; 10] = [
    "stat-swap-in",
    "stat-swap-out",
    "stat-major-faults",
    "stat-minor-faults",
    "stat-free-memory",
    "stat-total-memory",
    "stat-available-memory",
    "stat-disk-caches",
    "stat-htlb-pgalloc",
    "stat-htlb-pgfail",
];

/// A balloon whose statistics are read when somebody asks.
struct BalloonObject {
    balloon: Arc<Balloon>,
    deflate_on_oom: bool,
}

impl BalloonObject {
    fn statistics(&self) -> Value {
        let (said, updated) = self.balloon.statistics();
        // What the guest does not say is all ones.
        let value = |tag: usize| u16::try_from(tag).ok().and_then(|tag| said.get(&tag).copied()).unwrap_or(u64::MAX);
        let stats: Map<String, Value> =
            STATISTICS.iter().enumerate().map(|(tag, name)| ((*name).to_owned(), json!(value(tag)))).collect();
        let since = |at: SystemTime| at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        json!({ "stats": stats, "last-update": updated.map_or(0, since) })
    }
}

impl Object for BalloonObject {
    fn info(&self) -> &'static TypeInfo {
        BalloonSettings::INFO
    }

    fn get(&self, name: &str) -> Option<Value> {
        let now = BalloonSettings {
            deflate_on_oom: self.deflate_on_oom,
            guest_stats_polling_interval: self.balloon.polling_interval(),
            guest_stats: GuestStatistics(self.statistics()),
        };
        now.get(name)
    }

    fn set(&self, name: &str, value: &Value) -> Result<(), PropertyError> {
        // The only one that can be set.
        self.balloon.set_polling_interval(read_value(name, value)?);
        Ok(())
    }
}

/// A device: what its transport holds, and what is its own.
struct OnPci {
    transport: TransportSettings,
    own: Box<dyn Object>,
}

impl Object for OnPci {
    fn info(&self) -> &'static TypeInfo {
        self.own.info()
    }

    fn get(&self, name: &str) -> Option<Value> {
        self.own.get(name).or_else(|| self.transport.get(name))
    }

    fn set(&self, name: &str, value: &Value) -> Result<(), PropertyError> {
        self.own.set(name, value)
    }
}

/// The object of a device; `balloon` is the machine's, if it has one.
pub fn object(config: &DeviceConfig, balloon: Option<Arc<Balloon>>) -> Arc<dyn Object> {
    let transport = TransportSettings {
        addr: config.address.map_or(-1, |at| i32::from(at.slot) << 3 | i32::from(at.function)),
        vectors: config.vectors.map_or(-1, i32::from),
        disable_legacy: if config.interface == Interface::Modern { "on" } else { "off" }.to_owned(),
        disable_modern: config.interface == Interface::Legacy,
    };
    let own: Box<dyn Object> = match (&config.kind, balloon) {
        (DeviceKind::Bridge, _) => return Arc::new(Fixed(BridgeSettings { addr: transport.addr })),
        (DeviceKind::Rng { .. }, _) => Box::new(Fixed(RngSettings {})),
        (DeviceKind::Block(options), _) => Box::new(Fixed(BlockSettings {
            serial: Some(options.serial.clone()),
            discard: options.discard,
            block_size: options.block_size,
        })),
        (DeviceKind::Console { most_ports, .. }, _) => Box::new(Fixed(ConsoleSettings { most_ports: *most_ports })),
        (DeviceKind::Balloon { deflate_on_oom }, Some(balloon)) => {
            Box::new(BalloonObject { balloon, deflate_on_oom: *deflate_on_oom })
        }
        (DeviceKind::Balloon { .. }, None) => Box::new(Fixed(BalloonSettings::defaults())),
    };
    Arc::new(OnPci { transport, own })
}
