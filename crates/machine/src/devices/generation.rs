//! `vmgenid`: the identifier by which a guest notices that it was copied or turned back. A machine has one at the most.

use std::sync::Arc;

use rhea_backends::random::Builtin;
use rhea_core::{
    LoadError, RandomSource, SaveError, Stateful,
    object::{Object, PropertyError, PropertyKind, Settings, TypeInfo, Typed, Unsuitable, Value, read_value},
    state,
};
use rhea_devices::acpi::generation::GenerationId;
use uuid::Uuid;

use super::{DeviceConfig, DeviceError, Driver, Plugged};
use crate::{Machine, MachineError, state::part::Kept};

/// An identifier as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guid {
    /// A random one.
    Auto,
    /// This one.
    Given(Uuid),
}

impl Guid {
    /// The bytes of the identifier, as they lie in memory.
    fn bytes(self) -> Result<[u8; 16], DeviceError> {
        let Self::Given(uuid) = self else {
            let mut bytes = [0; 16];
            let failed = |error: std::io::Error| DeviceError::Refused(format!("no random identifier: {error}"));
            Builtin.fill(&mut bytes).map_err(failed)?;
            return Ok(uuid::Builder::from_random_bytes(bytes).into_uuid().to_bytes_le());
        };
        Ok(uuid.to_bytes_le())
    }
}

impl PropertyKind for Guid {
    const NAME: &'static str = "str";

    fn to_value(&self) -> Value {
        match self {
            Self::Auto => Value::from("auto"),
            Self::Given(uuid) => Value::from(uuid.to_string()),
        }
    }

    fn from_value(value: &Value) -> Result<Self, Unsuitable> {
        let text = value.as_str().ok_or(Unsuitable::Type("string"))?;
        Self::from_text(text).ok_or(Unsuitable::Range("a UUID, or \"auto\""))
    }

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            _ => Uuid::try_parse(text).ok().map(Self::Given),
        }
    }
}

/// An identifier of the machine's generation.
#[derive(Object)]
#[object(type = "vmgenid", parent = "device", settings)]
struct GenerationSettings {
    /// The identifier: a UUID, or "auto" for a random one. The guest is told when it changes.
    #[property(default = Guid::Auto, live)]
    guid: Guid,
}

pub(super) const DRIVER: Driver = Driver { info: GenerationSettings::INFO, aliases: &[], hotpluggable: false, plug };

fn plug(machine: &Machine, config: &DeviceConfig) -> Result<Plugged, MachineError> {
    let settings: GenerationSettings = config.settings().map_err(DeviceError::from)?;
    if let Some(bus) = config.bus() {
        return Err(DeviceError::NoBus(bus.to_owned()).into());
    }
    let generation = machine.board().add_generation_id(settings.guid.bytes()?)?;
    // Nobody else has the id: that was looked at.
    let kept = Kept::Own("vmgenid", Arc::new(Seen(Arc::clone(&generation))));
    let node = machine.objects().plug(config.id.as_deref(), Arc::new(GenerationObject(generation)))?;
    Ok(Plugged { node, bus: None, unplug: None, kept })
}

/// The identifier that the guest has seen. A machine that takes another's state keeps its own identifier: it is what it was
/// told to be, and its guest hears of it.
struct Seen(Arc<GenerationId>);

impl Stateful for Seen {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn version(&self) -> u32 {
        self.0.version()
    }

    fn save_value(&self) -> Result<state::Value, SaveError> {
        self.0.save_value()
    }

    fn load_value(&self, state: &state::Value) -> Result<(), LoadError> {
        let own = self.0.get();
        self.0.load_value(state)?;
        if self.0.get() != own {
            self.0.set(own);
        }
        Ok(())
    }
}

struct GenerationObject(Arc<GenerationId>);

impl Object for GenerationObject {
    fn info(&self) -> &'static TypeInfo {
        GenerationSettings::INFO
    }

    fn get(&self, name: &str) -> Option<Value> {
        GenerationSettings { guid: Guid::Given(Uuid::from_bytes_le(self.0.get())) }.get(name)
    }

    fn set(&self, name: &str, value: &Value) -> Result<(), PropertyError> {
        let guid: Guid = read_value(name, value)?;
        let reason = |error: DeviceError| PropertyError::Range { name: name.to_owned(), expected: error.to_string() };
        self.0.set(guid.bytes().map_err(reason)?);
        Ok(())
    }
}

impl Machine {
    /// The identifier of the machine's generation.
    ///
    /// # Errors
    /// The machine has none.
    pub fn generation_id(&self) -> Result<Uuid, MachineError> {
        const NONE: MachineError = MachineError::Unsupported("VM Generation ID device not found");
        Ok(Uuid::from_bytes_le(self.board().generation_id().ok_or(NONE)?.get()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_identifier_is_a_uuid_or_another_each_time() {
        let guid = |text: &str| Guid::from_value(&json!(text));
        let given = guid("b3c1f7e2-04d9-4f6a-8e15-7c92ad60b3f1").unwrap();
        assert_eq!(given.bytes().unwrap()[..8], [0xe2, 0xf7, 0xc1, 0xb3, 0xd9, 0x04, 0x6a, 0x4f]);
        assert_eq!(given.to_value(), "b3c1f7e2-04d9-4f6a-8e15-7c92ad60b3f1");
        let auto = guid("auto").unwrap();
        assert_ne!(auto.bytes().unwrap(), auto.bytes().unwrap());
        for bad in ["", "b3c1f7e2", "automatic"] {
            assert!(guid(bad).is_err(), "{bad}");
        }
        assert_eq!(Guid::from_value(&json!(3)), Err(Unsuitable::Type("string")));
    }
}
