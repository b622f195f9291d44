//! A device as it was asked for: by `-device` or `device_add`.

use rhea_core::object::{Access, PropertyError, Registry, Settings, TypeInfo, Value};

/// A device as it was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceConfig {
    /// Its type, or another name of that.
    pub driver: String,
    /// What its user calls it.
    pub id: Option<String>,
    /// Everything else: properties of its type, and `bus`.
    pub properties: Vec<(String, Value)>,
}

/// The property that is not the device's but says where it goes.
const BUS: &str = "bus";

impl DeviceConfig {
    /// Whether every property is one that `info` has among these types, and that can be set.
    ///
    /// # Errors
    /// The first that is not.
    pub(crate) fn check(&self, types: &Registry, info: &'static TypeInfo) -> Result<(), PropertyError> {
        for (name, value) in &self.properties {
            match types.property(info, name) {
                None if name == BUS && value.is_string() => {}
                None if name == BUS => {
                    return Err(PropertyError::Type { name: name.clone(), expected: "string" });
                }
                None => return Err(info.no_property(name)),
                Some(property) if property.access == Access::ReadOnly => return Err(info.not_writable(name)),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// The bus that it is to be on, if that was said.
    pub(crate) fn bus(&self) -> Option<&str> {
        self.properties.iter().rev().find(|(name, _)| name == BUS)?.1.as_str()
    }

    /// Defaults of `S`, changed by those properties that are its own; others are left to others. A word stands for a value
    /// of any kind, as on a command line.
    ///
    /// # Errors
    /// A value that does not fit.
    pub(crate) fn settings<S: Settings>(&self) -> Result<S, PropertyError> {
        let mut settings = S::defaults();
        for (name, value) in &self.properties {
            let Some(property) = S::INFO.property(name) else { continue };
            match (settings.assign(name, value), value) {
                (Err(PropertyError::Type { .. }), Value::String(word)) => {
                    let kind = property.kind.to_owned();
                    let meant = (property.from_text)(word)
                        .ok_or_else(|| PropertyError::Range { name: name.clone(), expected: kind })?;
                    settings.assign(name, &meant)?;
                }
                (result, _) => result?,
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use rhea_core::object::{Object, Typed};
    use serde_json::json;

    use super::*;
    use crate::types::types;

    #[derive(Debug, PartialEq, Object)]
    #[object(type = "test-socket", parent = "device", settings)]
    struct SocketSettings {
        /// Volts.
        #[property(default = 230)]
        volts: u16,
        /// What it is called.
        #[property]
        label: String,
    }

    fn config(properties: &[(&str, Value)]) -> DeviceConfig {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        DeviceConfig { driver: "test-socket".into(), id: None, properties }
    }

    #[test]
    fn words_stand_for_values_and_what_is_of_others_is_left() {
        let given =
            config(&[("volts", json!("0x6e")), ("label", json!("left")), ("addr", json!(1)), ("bus", json!("b"))]);
        assert_eq!(given.settings(), Ok(SocketSettings { volts: 110, label: "left".into() }));
        assert_eq!(given.bus(), Some("b"));
        assert_eq!(given.check(types(), SocketSettings::INFO), Err(SocketSettings::INFO.no_property("addr")));
    }

    #[test]
    fn values_that_do_not_fit_are_named() {
        for (value, text) in [
            (json!("many"), "Parameter 'volts' expects uint16"),
            (json!(70000), "Parameter 'volts' expects uint16"),
            (json!([]), "Invalid parameter type for 'volts', expected: integer"),
        ] {
            assert_eq!(config(&[("volts", value)]).settings::<SocketSettings>().unwrap_err().to_string(), text);
        }
        assert!(config(&[("bus", json!(1))]).check(types(), SocketSettings::INFO).is_err());
        assert_eq!(
            config(&[("realized", json!(true))]).check(types(), SocketSettings::INFO),
            Err(SocketSettings::INFO.not_writable("realized"))
        );
    }
}
