//! Bare programs that test the processor and the chips next to it from inside: each an image with a multiboot header that
//! prints a line for each case and a verdict on the first serial port, and ends through `isa-debug-exit` at port 0x501 with
//! status 1, or 3 where something was not as it should be.

// The assembler's registers and memory operands are its vocabulary: dozens of short names.
#![allow(clippy::wildcard_imports)]

mod coprocessor;
mod debugging;
mod exceptions;
mod handover;
mod harness;
mod identifiers;
mod interrupts;
mod layout;
mod lowest_priority;
mod modifying;
mod monitor;
mod ordering;
mod paging;
mod paging_32;
mod paging_57;
mod paging_cases;
mod paging_model;
mod processors;
mod program;
mod shutdown;
mod tasks;
mod unknown;
mod virtual8086;
mod virtual_interrupts;

use iced_x86::IcedError;

type Done = Result<(), IcedError>;

type Write = fn() -> Result<Vec<u8>, IcedError>;

/// All programs by name.
pub const ALL: &[(&str, Write)] = &[
    ("coprocessor", coprocessor::write),
    ("monitor", monitor::write),
    ("debugging-32", debugging::segments::write),
    ("debugging", debugging::write),
    ("modifying", modifying::write),
    ("virtual8086", virtual8086::write),
    ("exceptions", exceptions::write),
    ("handover", handover::write),
    ("identifiers", identifiers::write),
    ("interrupts", interrupts::write),
    ("lowest-priority", lowest_priority::write),
    ("ordering", ordering::write),
    ("paging-32", paging_32::write),
    ("paging-57", paging_57::write),
    ("paging", paging::write),
    ("shutdown", shutdown::write),
    ("tasks", tasks::write),
    ("unknown", unknown::write),
    ("virtual-interrupts-32", virtual_interrupts::write_32),
    ("virtual-interrupts", virtual_interrupts::write_64),
];
