//! What every part of a machine stands on: time, guest memory, address spaces, ports, interrupt lines, objects, saved
//! state and files of the host.

// What `#[derive(Object)]` makes speaks of this crate by name, inside it too.
extern crate self as rhea_core;

pub mod backend;
pub mod bus;
pub mod files;
pub mod gate;
pub mod host_time;
pub mod interrupt;
pub mod memory;
pub mod object;
pub mod state;
pub mod time;
pub mod trace;
pub mod worker;

pub use backend::{BlockMedium, RandomSource};
pub use bus::{PortIo, PortSpace, Width};
pub use gate::Gate;
pub use host_time::{HostTime, ToldHostTime};
pub use interrupt::{InterruptLine, InterruptSink, Tap, TapListener};
pub use memory::{AddressSpace, Dma, Mmio, Ram};
pub use state::{LoadError, SaveError, SaveState, Saveable, Stateful};
pub use time::{Clock, Instant, Timer, TimerQueue};
pub use worker::{Polling, Task, Work, Worker};

/// A part of the machine that a system reset returns to its power-on state.
pub trait Device: Send + Sync {
    /// Back to the state after power-on. A device that was reset equals a new one.
    fn reset(&self);
}
