//! Character backends: where the bytes of a serial port or a monitor go on the host.
//!
//! A backend is a source of connections: a listening socket has many, one after another or side by side, a terminal or
//! file has one. Whoever stands in front (a monitor, a serial port) decides how many it serves.

mod backend;
mod connection;
mod options;
mod pump;

pub use backend::Backend;
pub use connection::{Connection, Incoming};
pub use options::{Address, OpenError, Options};
pub use pump::{Output, Port, pump};
