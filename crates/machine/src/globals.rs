//! Properties that all devices of a type are to have: what `-global` says.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use rhea_core::object::{Access, PropertyError, PropertyKind, Registry, TypeInfo, Value, read_value};

/// A property that all devices of a type are to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Global {
    /// The type, or one that others build on.
    pub driver: String,
    /// The property's name.
    pub property: String,
    /// What it is to hold, as a word of a command line.
    pub value: String,
}

/// Why a device cannot have a property that all of its type are to have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("can't apply global {}.{}={}: {reason}", .global.driver, .global.property, .global.value)]
pub struct GlobalError {
    /// What was said.
    pub global: Global,
    /// What is wrong with it.
    pub reason: PropertyError,
}

/// What was said of all devices of a type, in order. What comes later counts.
#[derive(Clone, Debug, Default)]
pub struct Globals(Vec<Entry>);

#[derive(Clone, Debug)]
struct Entry {
    global: Global,
    /// Whether there was a device of the type.
    used: Arc<AtomicBool>,
}

impl Globals {
    /// Those of a command line, in its order.
    pub fn new(globals: impl IntoIterator<Item = Global>) -> Self {
        Self(globals.into_iter().map(|global| Entry { global, used: Arc::default() }).collect())
    }

    /// What they say of these types.
    pub(crate) const fn among(&self, types: &'static Registry) -> GlobalsAmong<'_> {
        GlobalsAmong { globals: self, types }
    }
}

/// What was said of all devices of a type, where these types are known.
#[derive(Clone, Copy)]
pub(crate) struct GlobalsAmong<'a> {
    globals: &'a Globals,
    types: &'static Registry,
}

impl GlobalsAmong<'_> {
    /// What devices of type `info` are to hold, in order.
    ///
    /// # Errors
    /// A property that the type does not have, or that does not take the value.
    pub(crate) fn of(self, info: &'static TypeInfo) -> Result<Vec<(String, Value)>, Box<GlobalError>> {
        let meant = |entry: &&Entry| self.types.implements(info, &entry.global.driver);
        let read = |Entry { global, used }: &Entry| {
            used.store(true, Ordering::Relaxed);
            let Global { property: name, value: word, .. } = global;
            let value = match self.types.property(info, name) {
                None => Err(info.no_property(name)),
                Some(property) if property.access == Access::ReadOnly => Err(info.not_writable(name)),
                Some(property) => (property.from_text)(word)
                    .ok_or_else(|| PropertyError::Range { name: name.clone(), expected: property.kind.to_owned() }),
            };
            match value {
                Ok(value) => Ok((name.clone(), value)),
                Err(reason) => Err(Box::new(GlobalError { global: global.clone(), reason })),
            }
        };
        self.globals.0.iter().filter(meant).map(read).collect()
    }

    /// What property `name` of devices of type `info` is to hold, if that was said.
    ///
    /// # Errors
    /// As of [`of`](Self::of).
    pub(crate) fn value<T: PropertyKind>(
        self,
        info: &'static TypeInfo,
        name: &str,
    ) -> Result<Option<T>, Box<GlobalError>> {
        let all = self.of(info)?;
        // What was read from its word once is of the kind.
        Ok(all.iter().rev().find(|(own, _)| own == name).and_then(|(_, value)| read_value(name, value).ok()))
    }

    /// What had no effect, in words: there is no such type, or no such device, and none can come: `comes` tells of which
    /// types some can.
    pub(crate) fn unused<'a>(self, comes: impl Fn(&'static TypeInfo) -> bool + 'a) -> impl Iterator<Item = String> + 'a
    where
        Self: 'a,
    {
        self.globals.0.iter().filter(|entry| !entry.used.load(Ordering::Relaxed)).filter_map(move |entry| {
            let Global { driver, property, value } = &entry.global;
            match self.types.get(driver) {
                Some(info) if self.types.implements(info, "device") => {
                    (!comes(info)).then(|| format!("global {driver}.{property}={value} not used"))
                }
                _ => Some(format!("global {driver}.{property} has invalid class name")),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use rhea_core::object::Typed;
    use rhea_devices::{acpi::pm::Pm, lost_ticks::LostTickPolicy, misc::rtc::IsaRtc};
    use serde_json::json;

    use super::*;
    use crate::{
        devices::{comes_and_goes, device_type},
        types::types,
    };

    fn globals(texts: &[(&str, &str, &str)]) -> Globals {
        Globals::new(texts.iter().map(|(driver, property, value)| Global {
            driver: (*driver).to_owned(),
            property: (*property).to_owned(),
            value: (*value).to_owned(),
        }))
    }

    #[test]
    fn they_reach_a_type_by_its_name_and_by_those_that_it_builds_on() {
        let all = globals(&[
            ("virtio-pci", "vectors", "3"),
            ("virtio-rng-pci", "vectors", "0x1"),
            ("virtio-blk-pci", "serial", "disk"),
        ]);
        let expected = [("vectors", json!(3)), ("vectors", json!(1))];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(all.among(types()).of(device_type("virtio-rng-pci").unwrap()).unwrap(), expected);
        let policy = globals(&[("mc146818rtc", "lost_tick_policy", "slew")]);
        let policy = policy.among(types()).value(IsaRtc::INFO, "lost_tick_policy");
        assert_eq!(policy, Ok(Some(LostTickPolicy::Slew)));
        assert_eq!(Globals::default().among(types()).value::<u8>(Pm::INFO, "disable_s3"), Ok(None));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let said = |texts: &[(&str, &str, &str)]| globals(texts).among(types()).of(Pm::INFO).unwrap_err().to_string();
        assert_eq!(
            said(&[("PIIX4_PM", "colour", "red")]),
            "can't apply global PIIX4_PM.colour=red: Property 'PIIX4_PM.colour' not found"
        );
        assert!(said(&[("PIIX4_PM", "disable_s3", "often")]).ends_with("Parameter 'disable_s3' expects uint8"));
        assert!(said(&[("device", "realized", "on")]).contains("realized"));
    }

    #[test]
    fn what_had_no_effect_is_told_unless_such_a_device_can_still_come() {
        let all = globals(&[
            ("PIIX4_PM", "disable_s3", "1"),
            ("hpet", "timers", "3"),
            ("virtio-rng-pci", "vectors", "1"),
            ("warp-drive", "speed", "9"),
        ]);
        all.among(types()).of(Pm::INFO).unwrap();
        let unused: Vec<String> = all.among(types()).unused(|info| comes_and_goes(types(), info)).collect();
        assert_eq!(unused, ["global hpet.timers=3 not used", "global warp-drive.speed has invalid class name"]);
    }
}
