//! `virtio-balloon-pci`: takes memory from the guest. A machine has one at the most.

use std::{
    any::Any,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rhea_core::object::{
    Object, PropertyError, PropertyKind, Settings, TypeInfo, Typed, Unsuitable, Value, read_value,
};
use rhea_devices::virtio::balloon::Balloon;
use serde_json::{Map, json};

use super::{
    DeviceConfig, DeviceError, Driver, Plugged,
    virtio::{self, Made, VirtioObject, virtio_drivers},
};
use crate::{Machine, MachineError};

/// A balloon that takes memory from the guest.
#[derive(Object)]
#[object(type = "virtio-balloon-pci", parent = "virtio-pci", settings)]
struct BalloonSettings {
    /// Whether the guest may take pages back when it has no others.
    #[property(default = false)]
    deflate_on_oom: bool,
    /// Only off is there: whether the guest tells of pages that it does not use.
    #[property(default = false)]
    free_page_reporting: bool,
    /// Seconds between two askings for statistics; 0 for never.
    #[property(default = 0, live)]
    guest_stats_polling_interval: u32,
    /// What the guest said last of its memory, and when.
    #[property(read_only)]
    guest_stats: GuestStatistics,
}

pub(super) const DRIVERS: [Driver; 3] = virtio_drivers!(BalloonSettings, "virtio-balloon", "virtio-balloon-pci", plug);

fn plug(machine: &Machine, config: &DeviceConfig) -> Result<Plugged, MachineError> {
    let settings: BalloonSettings = config.settings().map_err(DeviceError::from)?;
    if settings.free_page_reporting {
        return Err(DeviceError::Refused("'free-page-reporting=on' is not supported yet".to_owned()).into());
    }
    if machine.balloon_device().is_some() {
        return Err(DeviceError::Refused("Only one balloon device is supported".to_owned()).into());
    }
    virtio::plug(machine, config, |_| {
        let balloon = Balloon::new(&machine.parts().timers, settings.deflate_on_oom);
        balloon.set_polling_interval(settings.guest_stats_polling_interval);
        machine.follow_balloon(&balloon);
        let own = Arc::new(BalloonObject { balloon: Arc::clone(&balloon), deflate_on_oom: settings.deflate_on_oom });
        Ok(Made { device: balloon, own, worker: machine.shared_worker()?, links: Vec::new() })
    })
}

impl Machine {
    /// The balloon, if there is one.
    pub(crate) fn balloon_device(&self) -> Option<Arc<Balloon>> {
        self.objects().tree().all().into_iter().find_map(|(_, _, object)| {
            let object = (object as Arc<dyn Any + Send + Sync>).downcast::<VirtioObject>().ok()?;
            let own = (Arc::clone(&object.own) as Arc<dyn Any + Send + Sync>).downcast::<BalloonObject>().ok()?;
            Some(Arc::clone(&own.balloon))
        })
    }
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
            free_page_reporting: false,
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
