//! What managers make with object-add: memory, threads, sources of random bytes, secrets, limits. Each is a real thing of the
//! host's, made when the object is and given back when it goes.

mod iothread;
mod memory;
mod random;
mod secret;
mod throttle;

use std::{io, sync::Arc};

use rhea_core::object::{Object, PropertyError, TypeInfo, Typed, Value};

pub use iothread::{IoThread, IoThreadSettings};
pub use memory::{FileSettings, MemfdSettings, MemoryBackend, MemorySettings, OnOffAuto, Policy, RamSettings};
pub use random::{RandomBackend, RngBuiltinSettings, RngRandomSettings};
pub use secret::{Secret, SecretFormat, SecretSettings};

/// Why an object could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A property is wrong.
    #[error(transparent)]
    Property(#[from] PropertyError),
    /// The host refused something.
    #[error("{what}: {}", rhea_core::files::reason(reason))]
    Host {
        /// What was wanted.
        what: String,
        /// What the host said.
        reason: io::Error,
    },
}

/// Makes an object of the name `id` with the given properties.
pub type Create = fn(id: &str, properties: &[(String, Value)]) -> Result<Arc<dyn Object>, CreateError>;

/// The types that can be made, and how.
pub const CREATABLE: &[(&TypeInfo, Create)] = &[
    (IoThreadSettings::INFO, |id, given| Ok(Arc::new(IoThread::new(id, given)?))),
    (FileSettings::INFO, |id, given| Ok(Arc::new(MemoryBackend::file(id, given)?))),
    (MemfdSettings::INFO, |id, given| Ok(Arc::new(MemoryBackend::memfd(id, given)?))),
    (RamSettings::INFO, |id, given| Ok(Arc::new(MemoryBackend::ram_only(id, given)?))),
    (RngBuiltinSettings::INFO, |_, given| Ok(Arc::new(RandomBackend::builtin(given)?))),
    (RngRandomSettings::INFO, |_, given| Ok(Arc::new(RandomBackend::file(given)?))),
    (SecretSettings::INFO, |_, given| Ok(Arc::new(Secret::new(given)?))),
    (throttle::INFO, |id, given| Ok(Arc::new(throttle::create(id, given)?))),
];

/// The types of objects that this crate has.
pub const TYPES: &[&TypeInfo] = &[
    &TypeInfo::abstract_type("rng-backend", "object"),
    &TypeInfo::abstract_type("secret_common", "object"),
    IoThreadSettings::INFO,
    FileSettings::INFO,
    MemfdSettings::INFO,
    MemorySettings::INFO,
    RamSettings::INFO,
    RngBuiltinSettings::INFO,
    RngRandomSettings::INFO,
    SecretSettings::INFO,
    throttle::INFO,
];
