//! `rng-builtin` and `rng-random`: sources of random bytes.

use std::sync::Arc;

use rhea_core::{
    RandomSource,
    object::{Object, Settings, TypeInfo, Typed, Value},
};

use super::CreateError;
use crate::random::{Builtin, RandomFile};

/// The host kernel's generator.
#[derive(Clone, Debug, Object)]
#[object(type = "rng-builtin", parent = "rng-backend", interfaces = ["user-creatable"], settings)]
pub struct RngBuiltinSettings {}

/// A file that gives random bytes.
#[derive(Clone, Debug, Object)]
#[object(type = "rng-random", parent = "rng-backend", interfaces = ["user-creatable"], settings)]
pub struct RngRandomSettings {
    /// The file.
    #[property(default = RandomFile::DEFAULT.to_owned())]
    pub filename: String,
}

/// A source, and what it was made from.
pub struct RandomBackend {
    info: &'static TypeInfo,
    filename: Option<String>,
    source: Arc<dyn RandomSource>,
}

impl RandomBackend {
    /// The host kernel's generator.
    ///
    /// # Errors
    /// Properties, of which it has none.
    pub fn builtin(properties: &[(String, Value)]) -> Result<Self, CreateError> {
        RngBuiltinSettings::given(properties)?;
        Ok(Self { info: RngBuiltinSettings::INFO, filename: None, source: Arc::new(Builtin) })
    }

    /// A file.
    ///
    /// # Errors
    /// Wrong properties, or a file that cannot be opened.
    pub fn file(properties: &[(String, Value)]) -> Result<Self, CreateError> {
        let RngRandomSettings { filename } = RngRandomSettings::given(properties)?;
        let source = RandomFile::open(&filename)
            .map_err(|reason| CreateError::Host { what: format!("Could not open '{filename}'"), reason })?;
        Ok(Self { info: RngRandomSettings::INFO, filename: Some(filename), source: Arc::new(source) })
    }

    /// Where the bytes come from.
    pub fn source(&self) -> &Arc<dyn RandomSource> {
        &self.source
    }
}

impl Object for RandomBackend {
    fn info(&self) -> &'static TypeInfo {
        self.info
    }

    fn get(&self, name: &str) -> Option<Value> {
        self.filename.clone().filter(|_| name == "filename").map(Value::String)
    }
}
