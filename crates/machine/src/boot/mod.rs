//! What runs first: direct boot of kernels, bare images and the memory map that they are told of.

pub mod buses;
mod elf;
pub mod linux;
mod map;
pub mod multiboot;
pub mod parameters;
pub mod start;

pub use map::{Kind, MemoryMap, MemoryRange};

/// Why a guest's software could not be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The kernel file is not what is needed.
    #[error("kernel: {0}")]
    Kernel(String),
    /// The command line is longer than the kernel takes.
    #[error("kernel command line of {length} bytes is too long: this kernel takes {limit}")]
    CommandLine {
        /// Its length.
        length: usize,
        /// What the kernel takes.
        limit: usize,
    },
    /// The guest's memory is too small.
    #[error("not enough guest memory for {what}, which needs {needs} bytes: give more with -m")]
    Memory {
        /// What did not fit.
        what: &'static str,
        /// How much it needs.
        needs: u64,
    },
    /// What firmware cannot be told.
    #[error(transparent)]
    Item(#[from] rhea_devices::misc::fw_cfg::ItemError),
}

/// How the bootstrap processor starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// In 64-bit mode with an identity mapping of the first 4 GiB and flat segments; interrupts off.
    Long {
        /// First instruction.
        rip: u64,
        /// RSI: the boot parameters.
        rsi: u64,
    },
    /// In 32-bit protected mode with flat segments and no paging, as the multiboot specification says (§ 3.2).
    Multiboot {
        /// First instruction.
        eip: u32,
        /// EBX: the information structure.
        information: u32,
    },
    /// In 32-bit protected mode with flat segments and no paging, as Linux's 32-bit boot protocol says.
    Protected {
        /// First instruction.
        eip: u32,
        /// ESI: the boot parameters.
        esi: u32,
    },
    /// In real mode, as a waking vector is entered (ACPI 5.0 § 16.3.3.4).
    Real {
        /// Physical address of the first instruction, below 1 MiB.
        address: u32,
    },
}
