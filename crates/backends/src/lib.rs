//! What stands behind a device on the host: character backends, disk images, sources of random bytes, the
//! host's clocks, and the objects that managers make.

pub mod block;
pub mod char;
pub mod clock;
pub mod object;
pub mod random;
