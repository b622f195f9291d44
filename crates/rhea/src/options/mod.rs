//! The command line, in QEMU's spelling: one table of all options, their parameters and help, and what is made of them.

mod acpi;
mod block;
mod clock;
mod devices;
mod firmware;
mod keyval;
mod log;
mod memory;
mod objects;
mod processor;
mod settings;
mod table;
mod typed;

pub use devices::{device, device_help};
pub use keyval::size;
pub use log::{LogSettings, TraceSwitch};
pub use objects::object;
pub use settings::{CharUse, FIRST_TERMINAL, Inherited, MonitorMode, Settings, chardev, parse};
pub use table::{Argument, OPTIONS, ParameterKind};
