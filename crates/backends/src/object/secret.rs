//! `secret`: a password or key, given in the clear, in base64 or in a file. It is never shown again.

use std::io::Read as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rhea_core::{
    files::{self, Access},
    object::{Object, PropertyError, Settings, TypeInfo, Typed, Value},
};

use super::CreateError;

/// Most bytes of a secret's file: no key is longer, and a file such as /dev/zero never ends.
const LIMIT: u64 = 1 << 20;

rhea_core::property_words! {
    /// How a secret is written.
    pub enum SecretFormat: "QCryptoSecretFormat" {
        /// As it is.
        Raw = "raw",
        /// In base64.
        Base64 = "base64",
    }
}

/// What a secret is made from: data or a file.
#[derive(Clone, Object)]
#[object(type = "secret", parent = "secret_common", interfaces = ["user-creatable"], settings)]
pub struct SecretSettings {
    /// The secret itself.
    #[property(write_only)]
    pub data: Option<String>,
    /// File that holds it.
    #[property]
    pub file: Option<String>,
    /// How it is written.
    #[property(default = SecretFormat::Raw)]
    pub format: SecretFormat,
}

/// A secret.
pub struct Secret {
    settings: SecretSettings,
    bytes: Vec<u8>,
}

impl Secret {
    /// Takes the secret in.
    ///
    /// # Errors
    /// Neither data nor a file, or both; a file that cannot be read; text that is no base64.
    pub fn new(properties: &[(String, Value)]) -> Result<Self, CreateError> {
        let mut settings = SecretSettings::given(properties)?;
        let refused = |text: &str| CreateError::Property(PropertyError::Refused(text.to_owned()));
        let written = match (settings.data.take(), &settings.file) {
            (Some(data), None) => data.into_bytes(),
            (None, Some(path)) => {
                let mut bytes = Vec::new();
                let read =
                    files::open(path, Access::Read).and_then(|file| file.take(LIMIT + 1).read_to_end(&mut bytes));
                read.map_err(|reason| CreateError::Host { what: format!("Could not open '{path}'"), reason })?;
                if bytes.len() as u64 > LIMIT {
                    return Err(refused("the file is too long for a secret"));
                }
                bytes
            }
            (None, None) => return Err(refused("a secret needs 'data' or 'file'")),
            (Some(_), Some(_)) => return Err(refused("'data' and 'file' cannot be given together")),
        };
        let bytes = match settings.format {
            SecretFormat::Raw => written,
            SecretFormat::Base64 => {
                STANDARD.decode(written.trim_ascii()).map_err(|_| refused("the secret is not written in base64"))?
            }
        };
        Ok(Self { settings, bytes })
    }

    /// The secret itself.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Object for Secret {
    fn info(&self) -> &'static TypeInfo {
        SecretSettings::INFO
    }

    fn get(&self, name: &str) -> Option<Value> {
        self.settings.get(name)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn made(properties: &[(&str, &str)]) -> Result<Secret, String> {
        let given: Vec<_> = properties.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
        Secret::new(&given).map_err(|error| error.to_string())
    }

    #[test]
    fn data_and_files_are_read_in_both_formats() {
        assert_eq!(made(&[("data", "letmein")]).unwrap().bytes(), b"letmein");
        assert_eq!(made(&[("data", "bGV0bWVpbg=="), ("format", "base64")]).unwrap().bytes(), b"letmein");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "bGV0bWVpbg==").unwrap();
        let path = file.path().to_str().unwrap();
        assert_eq!(made(&[("file", path), ("format", "base64")]).unwrap().bytes(), b"letmein");
        assert_eq!(made(&[("file", path)]).unwrap().bytes(), b"bGV0bWVpbg==\n");
    }

    #[test]
    fn what_is_no_secret_is_an_error() {
        for bad in [
            &[][..],
            &[("data", "a"), ("file", "/dev/null")],
            &[("data", "***"), ("format", "base64")],
            &[("data", "a"), ("format", "rot13")],
            &[("file", "/nowhere/secret")],
            &[("file", "/dev/zero")],
        ] {
            assert!(made(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_data_are_never_shown() {
        assert_eq!(made(&[("data", "letmein")]).unwrap().get("data"), None);
    }
}
