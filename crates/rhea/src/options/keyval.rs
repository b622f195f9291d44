//! The text behind an option: `key=value,key=value`, with `,,` for a comma.

use rhea_core::object::{PropertyKind as _, Size};

use super::{
    table::{OptionRow, Parameter, ParameterKind},
    typed::named,
};

/// A command line that cannot be followed: one line, which names the option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OptionError(pub String);

impl OptionError {
    /// An error about option `name`.
    pub fn about(name: &str, reason: impl std::fmt::Display) -> Self {
        Self(format!("-{name}: {reason}"))
    }
}

/// The parameters given to one option, in order.
#[derive(Clone, Debug)]
pub struct KeyValues {
    row: &'static OptionRow,
    pairs: Vec<(String, String)>,
}

impl KeyValues {
    /// Reads `text` as the parameters of `row`: names are checked, and booleans, numbers and sizes must be such.
    ///
    /// # Errors
    /// An unknown parameter, or a value of the wrong kind.
    pub fn parse(row: &'static OptionRow, text: &str) -> Result<Self, OptionError> {
        let mut values = Self { row, pairs: Vec::new() };
        for (name, value) in named(text, row.implied) {
            // `server` is `server=on`, `nowait` is `wait=off`.
            let (key, value) = match (value, name.strip_prefix("no")) {
                (Some(value), _) => (name, value),
                (None, Some(rest)) if row.parameter(rest).is_some() => (rest.to_owned(), "off".to_owned()),
                (None, _) => (name, "on".to_owned()),
            };
            let Some(parameter) = row.parameter(&key) else {
                return Err(values.error(format!("invalid parameter '{key}'{}", row.choices())));
            };
            values.check(parameter, &key, &value)?;
            values.pairs.push((key, value));
        }
        Ok(values)
    }

    fn check(&self, parameter: &Parameter, key: &str, value: &str) -> Result<(), OptionError> {
        let what = match parameter.kind {
            ParameterKind::String => return Ok(()),
            ParameterKind::Boolean if boolean(value).is_some() => return Ok(()),
            ParameterKind::Boolean => "'on' or 'off'",
            ParameterKind::Switch if value == "auto" || boolean(value).is_some() => return Ok(()),
            ParameterKind::Switch => "'on', 'off' or 'auto'",
            ParameterKind::Number if number(value).is_some() => return Ok(()),
            ParameterKind::Number => "a number",
            ParameterKind::Size if size(value, 1).is_some() => return Ok(()),
            ParameterKind::Size => "a size, such as 512M (suffixes k, M, G, T)",
        };
        Err(self.error(format!("parameter '{key}' expects {what}, not '{value}'")))
    }

    /// The last value given for `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// All values given for `key`, in order.
    pub fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The names of the parameters that were given.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().map(|(name, _)| name.as_str())
    }

    /// The value for `key`, which must have been given.
    ///
    /// # Errors
    /// It was not.
    pub fn require(&self, key: &str) -> Result<&str, OptionError> {
        self.get(key).ok_or_else(|| self.error(format!("parameter '{key}' is missing")))
    }

    /// The last value given for `key`, or else what the table says.
    pub fn or_default(&self, key: &str) -> Option<&str> {
        self.get(key).or_else(|| self.row.parameter(key)?.default)
    }

    /// A boolean; if it was not given what the table says.
    pub fn flag(&self, key: &str) -> bool {
        self.or_default(key).and_then(boolean).unwrap_or_default()
    }

    /// A boolean, if it was given.
    pub fn given_flag(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(boolean)
    }

    /// A number, if it was given.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.get(key).and_then(number)
    }

    /// An error about this option.
    pub fn error(&self, reason: impl std::fmt::Display) -> OptionError {
        OptionError::about(self.row.name, reason)
    }
}

/// `on`, `off` and their kin.
pub fn boolean(text: &str) -> Option<bool> {
    bool::from_text(text)
}

/// A number, decimal or with `0x`.
pub fn number(text: &str) -> Option<u64> {
    u64::from_text(text)
}

/// A number of bytes with an optional suffix; without one it counts units of `unit` bytes.
pub fn size(text: &str, unit: u64) -> Option<u64> {
    Size::in_units(text, unit).map(|size| size.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::options::table::option;

    #[test]
    fn sizes_have_suffixes_and_never_wrap() {
        assert_eq!(size("512", 1 << 20), Some(512 << 20));
        assert_eq!(size("1.5G", 1), Some(3 << 29));
        assert_eq!(size("262144k", 1), Some(256 << 20));
        for bad in ["", "x", "1X", "-1", "16E", "99999999999999999999", "1.2.3M", ".5M"] {
            assert_eq!(size(bad, 1 << 20), None, "{bad}");
        }
    }

    #[test]
    fn commas_are_doubled_and_old_flags_understood() {
        let row = option("chardev").unwrap();
        let values = KeyValues::parse(row, "socket,id=a,path=/tmp/a,,b,server,nowait").unwrap();
        assert_eq!(values.get("backend"), Some("socket"));
        assert_eq!(values.get("path"), Some("/tmp/a,b"));
        assert!(values.flag("server"));
        assert!(!values.flag("wait"));
    }

    #[test]
    fn unknown_parameters_and_wrong_kinds_name_the_option() {
        let row = option("smp").unwrap();
        let error = KeyValues::parse(row, "2,wings=2").unwrap_err();
        assert!(error.0.starts_with("-smp: invalid parameter 'wings'"), "{error}");
        let error = KeyValues::parse(row, "two").unwrap_err();
        assert_eq!(error.0, "-smp: parameter 'cpus' expects a number, not 'two'");
    }

    proptest! {
        #[test]
        fn no_text_panics_the_parser(text in ".{0,80}", at in 0usize..200) {
            let row = &crate::options::OPTIONS[at % crate::options::OPTIONS.len()];
            let _ = KeyValues::parse(row, &text);
            let _ = size(&text, 1 << 20);
        }
    }
}
