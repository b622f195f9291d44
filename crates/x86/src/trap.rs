//! Why an instruction did not just end: exceptions and requests to the engine. SDM vol. 3 ch. 6.

use std::num::NonZeroU32;

/// An exception that an instruction raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Its vector, 0 to 31.
    pub vector: u8,
    /// The error code, for the vectors that push one.
    pub error_code: Option<u32>,
}

impl Exception {
    /// #DE, divide error.
    pub const DIVIDE: Self = Self::plain(0);
    /// #DB, debug.
    pub const DEBUG: Self = Self::plain(1);
    /// #BP, breakpoint.
    pub const BREAKPOINT: Self = Self::plain(3);
    /// #OF, overflow.
    pub const OVERFLOW: Self = Self::plain(4);
    /// #BR, bound range exceeded.
    pub const BOUND: Self = Self::plain(5);
    /// #UD, invalid opcode.
    pub const INVALID_OPCODE: Self = Self::plain(6);
    /// #NM, device not available.
    pub const DEVICE_NOT_AVAILABLE: Self = Self::plain(7);
    /// #DF, double fault.
    pub const DOUBLE_FAULT: Self = Self::with_code(8, 0);
    /// #MF, x87 floating-point error.
    pub const X87_ERROR: Self = Self::plain(16);
    /// #AC, alignment check.
    pub const ALIGNMENT_CHECK: Self = Self::with_code(17, 0);
    /// #XM, SIMD floating-point exception.
    pub const SIMD_ERROR: Self = Self::plain(19);

    /// An exception without error code.
    pub const fn plain(vector: u8) -> Self {
        Self { vector, error_code: None }
    }

    /// An exception with an error code.
    pub const fn with_code(vector: u8, error_code: u32) -> Self {
        Self { vector, error_code: Some(error_code) }
    }

    /// #TS, invalid task state segment.
    pub const fn invalid_tss(error_code: u32) -> Self {
        Self::with_code(10, error_code)
    }

    /// #NP, segment not present.
    pub const fn not_present(error_code: u32) -> Self {
        Self::with_code(11, error_code)
    }

    /// #SS, stack segment fault.
    pub const fn stack(error_code: u32) -> Self {
        Self::with_code(12, error_code)
    }

    /// #GP, general protection.
    pub const fn general_protection(error_code: u32) -> Self {
        Self::with_code(13, error_code)
    }

    /// #PF, page fault; CR2 is set apart.
    pub const fn page_fault(error_code: u32) -> Self {
        Self::with_code(14, error_code)
    }
}

/// Why a handler did not let the next instruction of the block follow. One word, so that `Result<(), Trap>` is passed
/// in a register and translated code can test it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Trap(NonZeroU32);

impl Trap {
    /// [`CpuState::exception`](crate::state::CpuState) holds what was raised; RIP is still the instruction's own.
    pub const EXCEPTION: Self = Self::code(1);
    /// The block ends; execution goes on at the next instruction.
    pub const NEXT: Self = Self::code(2);
    /// The block ends; RIP was set by the handler.
    pub const JUMP: Self = Self::code(3);
    /// The block ends; the same instruction is to be executed again (a repeated string instruction that makes way for
    /// interrupts).
    pub const AGAIN: Self = Self::code(4);
    /// HLT: execution goes on at the next instruction when an interrupt comes.
    pub const HALT: Self = Self::code(5);
    /// The processor shut down (a triple fault).
    pub const SHUTDOWN: Self = Self::code(6);
    /// As [`JUMP`](Self::JUMP), after a return: a trap flag that was set before has its trap, whatever was loaded into it.
    pub const RETURN: Self = Self::code(7);

    /// MONITOR: it ends once all processors have agreed to its watch.
    pub const MONITOR: Self = Self::code(8);
    /// As [`MONITOR`](Self::MONITOR), of a line of which the processors have not been told.
    pub const MONITOR_FRESH: Self = Self::code(9);
    /// MWAIT: execution goes on at the next instruction when a store, an interrupt or anything else comes.
    pub const WAIT: Self = Self::code(10);
    /// An x87 error was reported to the chipset: the same instruction is to be executed again when anything comes.
    pub const FROZEN: Self = Self::code(11);

    const fn code(code: u32) -> Self {
        match NonZeroU32::new(code) {
            Some(code) => Self(code),
            None => unreachable!(),
        }
    }
}
