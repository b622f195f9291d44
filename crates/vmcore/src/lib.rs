//! Writers of guest memory dumps: ELF cores and kdump-compressed files, for gdb, crash, makedumpfile, drgn and their kind.
//!
//! Pure: takes pages and registers, gives bytes. It knows no machine and no monitor; what it reads is behind [`Memory`],
//! what it writes goes to a [`Sink`] or a [`Place`].
//! Sources: System V ABI (ELF), its AMD64 supplement, Intel SDM volume 3 (paging), the disk dump format of version 6 as
//! makedumpfile and crash read it, the kernel's admin guide on VMCOREINFO.

#![cfg_attr(test, allow(clippy::single_range_in_vec_init, reason = "a memory of one range is what is meant"))]

pub mod elf;
pub mod kdump;
mod mapping;
mod memory;
mod notes;
mod place;
mod processor;
mod sink;
mod vmcoreinfo;

pub use mapping::{Mapping, Mappings, translate};
pub use memory::{Memory, PAGE, Unreadable, clip, is_zero, total};
pub use place::{Flattened, Place, Raw};
pub use processor::{Processor, Segment};
pub use sink::{Sink, Sparse, Stream};
pub use vmcoreinfo::{UtsName, Vmcoreinfo};

use std::{io, ops::ControlFlow};

/// What is dumped.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The guest's memory.
    pub memory: &'a dyn Memory,
    /// Registers of each processor, in order.
    pub processors: &'a [Processor],
    /// What the guest's kernel says about itself.
    pub vmcoreinfo: Option<&'a Vmcoreinfo>,
}

/// Told now and then how many bytes of memory are worked off in all; may call the dump off.
pub type Progress<'a> = dyn FnMut(u64) -> ControlFlow<()> + 'a;

/// Why a dump was not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing to write.
    #[error("there is no guest memory to dump")]
    NoMemory,
    /// A range of memory does not begin and end with a page, or ranges are out of order.
    #[error("guest memory at {0:#x} is not made of whole pages in ascending order")]
    Layout(u64),
    /// Memory that the format cannot address.
    #[error("guest memory ends at {0:#x}, beyond what the format can describe")]
    TooHigh(u64),
    /// More processors or notes than the format can hold.
    #[error("the notes take {0} bytes, more than the format can hold")]
    Notes(usize),
    /// Memory that could not be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// Where the dump goes does not take it.
    #[error("{0}")]
    Write(#[from] io::Error),
    /// The receiver of the progress called it off.
    #[error("the dump was called off")]
    Cancelled,
}

/// Passes progress on, and the answer back as an error.
fn report(progress: &mut Progress<'_>, done: u64) -> Result<(), Error> {
    match progress(done) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled),
    }
}
