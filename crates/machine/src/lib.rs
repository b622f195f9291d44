//! Boards, firmware tables, direct kernel boot, virtual processor threads and run state.

mod acpi;
mod assembly;
mod backends;
mod board;
pub mod boot;
mod boot_order;
pub mod config;
pub mod devices;
mod dirty;
pub mod dump;
mod error;
mod events;
pub mod firmware;
mod globals;
pub mod held;
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
pub mod smbios;
mod snapshots;
pub mod state;
pub mod taps;
mod test_access;
mod topology;
mod types;

pub use acpi::{GivenTable, TableError, TableFiles};
pub use backends::Backends;
pub use boot_order::{BootIndexError, BootOrder};
pub use config::{
    Accelerator, BoardKind, Config, ConfigError, Hidden, MAX_PROCESSORS, MAX_SLOTS, MemoryConfig, Software,
};
pub use devices::{DeviceConfig, DeviceError};
pub use dirty::DirtyLog;
pub use error::MachineError;
pub use events::EventSink;
pub use globals::{Global, GlobalError, Globals};
pub use inbox::{GuestRequest, SlotKind};
pub use machine::Machine;
pub use processors::{Processor, ProcessorPlace, Processors};
pub use snapshots::{SnapshotChoice, error::SnapshotError};
pub use test_access::{TestAccess, TestError};
pub use topology::{Choice, Place, PlaceError, Topology};
pub use types::types;
