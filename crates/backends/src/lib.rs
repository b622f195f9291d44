//! What stands behind a device on the host: character backends, disk images and sources of random bytes.

pub mod block;
pub mod char;
pub mod random;
