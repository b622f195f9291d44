//! What stands behind a device on the host: character backends.

pub mod char;
