//! Character backends: where the bytes of a serial port or a monitor go on the host.
//!
//! A [`CharDevice`] is a backend under its id, and [`CharDevices`] are all of the program's. Whoever uses one claims it and
//! gets a [`FrontEnd`]: a device connects its [`Port`] there and writes; a monitor asks it for [`Conversations`]. A backend
//! is a source of connections: a listening socket has many, one after another or side by side, a terminal or file has one.

mod connection;
mod connections;
mod conversations;
mod device;
mod devices;
mod mux;
mod open;
mod options;
mod pump;
mod ring;

pub use connection::Connection;
pub use connections::Lease;
pub use conversations::{Conversations, PortStream};
pub use device::{CharDevice, FrontEnd, Port};
pub use devices::{CharDevices, CharError, Listed, Watcher};
pub use options::{Address, Definition, Log, OpenError, Options};

/// What is done when something happens.
pub type Hook = std::sync::Arc<dyn Fn() + Send + Sync>;
