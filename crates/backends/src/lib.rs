//! What stands behind a device on the host: character backends, disk images, sources of random bytes, and
//! the objects that managers make.

pub mod block;
pub mod char;
pub mod object;
pub mod random;
