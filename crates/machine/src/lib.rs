//! Boards, firmware tables, direct kernel boot, virtual processor threads and run state.

mod acpi;
mod backends;
mod board;
pub mod boot;
mod boot_order;
pub mod config;
pub mod devices;
mod dirty;
pub mod dump;
mod error;
pub mod firmware;
mod globals;
pub mod hold;
mod inbox;
mod input;
pub mod inspect;
pub mod jobs;
mod machine;
pub mod migration;
pub mod modules;
pub mod numa;
pub mod objects;
mod parts;
mod processors;
mod save;
mod slots;
mod snapshots;
pub mod state;
pub mod taps;
mod test_access;

pub use acpi::{GivenTable, TableError, TableFiles};
pub use backends::Backends;
pub use boot_order::{BootIndexError, BootOrder};
pub use config::{
    Accelerator, BoardKind, Config, ConfigError, MAX_PROCESSORS, MAX_SLOTS, MemoryConfig, Software, Topology,
};
pub use devices::{DeviceConfig, DeviceError};
pub use dirty::DirtyLog;
pub use error::MachineError;
pub use globals::{Global, GlobalError, Globals};
pub use inbox::{GuestRequest, SlotKind};
pub use machine::{EventSink, Machine};
pub use processors::{Choice, Place, PlaceError, Processor, ProcessorPlace, Processors};
pub use snapshots::{SnapshotChoice, SnapshotError};
pub use test_access::{TestAccess, TestError};
