//! `memory-backend-ram`: memory of the host's for the guest.

use std::sync::Arc;

use rhea_core::{
    Ram,
    object::{Object, PropertyError, Settings, Size, TypeInfo, Typed, Value},
};

use super::CreateError;

/// What memory is wanted.
#[derive(Clone, Debug, Object)]
#[object(type = "memory-backend-ram", parent = "memory-backend", interfaces = ["user-creatable"], settings)]
pub struct MemorySettings {
    /// Bytes, a whole number of pages.
    #[property]
    pub size: Option<Size>,
    /// Whether all of it is taken from the host at once.
    #[property(default = false)]
    pub prealloc: bool,
}

/// The memory.
#[derive(Debug)]
pub struct MemoryBackend {
    settings: MemorySettings,
    ram: Arc<Ram>,
}

impl MemoryBackend {
    /// Takes memory from the host.
    ///
    /// # Errors
    /// Wrong properties, or memory that the host does not have.
    pub fn new(id: &str, properties: &[(String, Value)]) -> Result<Self, CreateError> {
        let settings = MemorySettings::given(properties)?;
        let Size(size) = settings.size.ok_or(PropertyError::Missing("size"))?;
        if size == 0 || !size.is_multiple_of(rhea_core::memory::PAGE) {
            let expected = "a whole number of 4096-byte pages".to_owned();
            return Err(PropertyError::Range { name: "size".to_owned(), expected }.into());
        }
        let ram = Ram::new(id, size)
            .map_err(|reason| CreateError::Host { what: format!("cannot set up guest memory '{id}'"), reason })?;
        if settings.prealloc {
            for offset in (0..size).step_by(rhea_core::memory::PAGE as usize) {
                // Inside: a page's first byte takes the page.
                let _ = ram.write(offset, &[0]);
            }
        }
        Ok(Self { settings, ram })
    }

    /// An object for memory that is there already.
    pub fn of(ram: Arc<Ram>) -> Self {
        Self { settings: MemorySettings { size: Some(Size(ram.len())), prealloc: false }, ram }
    }

    /// The memory itself.
    pub fn ram(&self) -> &Arc<Ram> {
        &self.ram
    }
}

impl Object for MemoryBackend {
    fn info(&self) -> &'static TypeInfo {
        MemorySettings::INFO
    }

    fn get(&self, name: &str) -> Option<Value> {
        self.settings.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(size: impl Into<Value>) -> Result<MemoryBackend, String> {
        MemoryBackend::new("m0", &[("size".to_owned(), size.into())]).map_err(|error| error.to_string())
    }

    #[test]
    fn memory_is_as_large_as_asked_for_or_is_not_there() {
        assert_eq!(made(8192).unwrap().ram().len(), 8192);
        for bad in [Value::from(0), 4097.into(), Value::from(-1), Value::from(u64::MAX), "1M".into()] {
            assert!(made(bad.clone()).is_err(), "{bad}");
        }
        assert!(made(1_u64 << 62).unwrap_err().starts_with("cannot set up guest memory 'm0': "));
        let missing = MemoryBackend::new("m0", &[]).err().unwrap();
        assert_eq!(missing.to_string(), "Parameter 'size' is missing");
    }
}
