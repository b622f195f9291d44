//! The command line, in QEMU's spelling: one table of all options, their parameters and help, and what is made of them.

mod acpi;
mod block;
mod chardev;
mod clock;
mod config_file;
mod devices;
mod firmware;
mod host;
mod keyval;
mod log;
mod machine;
mod memory;
mod objects;
mod processor;
mod settings;
mod smbios;
mod table;
mod typed;

pub use chardev::chardev;
pub use devices::{device, device_help};
pub use host::{HostSettings, LockMemory, Messages, RunAs, Sandbox};
pub use keyval::size;
pub use log::{LogSettings, TraceSwitch};
pub use objects::object;
pub use settings::{CharUse, FIRST_TERMINAL, Inherited, MonitorMode, Settings, parse};
pub use table::{Argument, OPTIONS, ParameterKind};
