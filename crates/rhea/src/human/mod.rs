//! The monitor for people: its commands, and what they print. Each renders the reply of the command of the schema, so
//! that there is one source of truth.
//!
//! A command is a row of one table (`commands.rs`), a subject of `info` one of another (`subjects.rs`); what a row says
//! and how a line finds it is in `table.rs`.

mod addresses;
mod block;
mod chardev;
mod commands;
mod complete;
mod descriptors;
mod device_tree;
mod dump;
mod examine;
mod input;
mod interrupts;
mod machine;
mod memory_info;
mod migration;
mod mtree;
mod objects;
mod paging;
mod pci;
mod ports;
mod registers;
mod session;
mod snapshots;
mod subjects;
mod table;
mod trace;

pub use session::{Session, Step};
pub use table::{Answer, Job, run};
