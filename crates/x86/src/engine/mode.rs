//! The mode word: what of the processor's state decoded code depends on.
//!
//! Blocks are decoded for one value of it, so that handlers need not ask at run time what the mode is.

use crate::state::{CpuState, Cr0, Cr4, Rflags, Segment, seg};

bitflags::bitflags! {
    /// What decoded code depends on.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Mode: u32 {
        /// 32-bit code.
        const CODE_32 = 1 << 0;
        /// 64-bit code; neither is 16-bit code.
        const CODE_64 = 1 << 1;
        /// The stack pointer is ESP.
        const STACK_32 = 1 << 2;
        /// The stack pointer is RSP; neither is SP.
        const STACK_64 = 1 << 3;
        /// CPL 3.
        const USER = 1 << 4;
        /// Protected mode (CR0.PE), virtual-8086 mode included.
        const PROTECTED = 1 << 5;
        /// Virtual-8086 mode.
        const VIRTUAL_8086 = 1 << 6;
        /// ES begins at 0, has no limit and may be read and written.
        const FLAT_ES = 1 << 7;
        /// CS begins at 0 and has no limit.
        const FLAT_CS = 1 << 8;
        /// SS as `FLAT_ES`.
        const FLAT_SS = 1 << 9;
        /// DS as `FLAT_ES`.
        const FLAT_DS = 1 << 10;
        /// CR0.TS.
        const TASK_SWITCHED = 1 << 11;
        /// CR0.EM.
        const EMULATE_X87 = 1 << 12;
        /// CR0.MP.
        const MONITOR_X87 = 1 << 13;
        /// CR4.OSFXSR.
        const SSE = 1 << 14;
        /// RFLAGS.TF: one instruction at a time, with a debug exception after each.
        const TRAP_FLAG = 1 << 15;
        /// Every flag is computed, also where nothing reads it.
        const STRICT = 1 << 16;
        /// Blocks of one instruction; set by the engine, not part of `CpuState::mode`.
        const SINGLE = 1 << 17;
    }
}

impl Mode {
    /// The size of code: 16, 32 or 64.
    #[inline(always)]
    pub const fn code_bits(self) -> u8 {
        if self.contains(Self::CODE_64) {
            64
        } else if self.contains(Self::CODE_32) {
            32
        } else {
            16
        }
    }

    /// Those bits of an instruction pointer that count.
    #[inline(always)]
    pub const fn pointer_mask(self) -> u64 {
        match self.code_bits() {
            64 => u64::MAX,
            32 => 0xffff_ffff,
            _ => 0xffff,
        }
    }
}

/// Bits of [`Segment::attributes`].
mod attribute {
    pub(super) const WRITABLE_OR_READABLE: u16 = 1 << 1;
    pub(super) const EXPAND_DOWN: u16 = 1 << 2;
    pub(super) const CODE: u16 = 1 << 3;
    pub(super) const MEMORY: u16 = 1 << 4;
    pub(super) const PRESENT: u16 = 1 << 7;
    pub(super) const LONG: u16 = 1 << 13;
    pub(super) const BIG: u16 = 1 << 14;
}

/// Whether a segment neither moves nor limits anything.
fn whole(segment: &Segment) -> bool {
    segment.base == 0 && segment.limit == u32::MAX
}

/// Whether every address may be read and written through a segment, at the address itself.
fn flat(segment: &Segment) -> bool {
    use attribute::{CODE, EXPAND_DOWN, MEMORY, PRESENT, WRITABLE_OR_READABLE};
    let wanted = MEMORY | PRESENT | WRITABLE_OR_READABLE;
    whole(segment) && segment.attributes & (wanted | EXPAND_DOWN | CODE) == wanted
}

impl CpuState {
    /// The mode word.
    #[inline(always)]
    pub fn mode(&self) -> Mode {
        Mode::from_bits_retain(self.mode)
    }

    /// Brings the mode word up to date. To be called after CPL, a segment register, RFLAGS.TF, VM or AC, CR0, CR4 or
    /// EFER changed; the handler that did so then ends its block.
    pub fn update_mode(&mut self) {
        let code = self.segments[usize::from(seg::CS)];
        let stack = self.segments[usize::from(seg::SS)];
        let mut mode = self.mode() & Mode::STRICT;
        let long_code = self.long_mode() && code.attributes & attribute::LONG != 0;
        mode.set(Mode::CODE_64, long_code);
        mode.set(Mode::CODE_32, !long_code && code.attributes & attribute::BIG != 0);
        mode.set(Mode::STACK_64, long_code);
        mode.set(Mode::STACK_32, !long_code && stack.attributes & attribute::BIG != 0);
        mode.set(Mode::USER, self.cpl == 3);
        mode.set(Mode::PROTECTED, self.cr0_has(Cr0::PE));
        mode.set(Mode::VIRTUAL_8086, self.flags().contains(Rflags::VM));
        for (bit, number) in [(Mode::FLAT_ES, seg::ES), (Mode::FLAT_SS, seg::SS), (Mode::FLAT_DS, seg::DS)] {
            mode.set(bit, long_code || flat(&self.segments[usize::from(number)]));
        }
        mode.set(Mode::FLAT_CS, long_code || whole(&code));
        mode.set(Mode::TASK_SWITCHED, self.cr0_has(Cr0::TS));
        mode.set(Mode::EMULATE_X87, self.cr0_has(Cr0::EM));
        mode.set(Mode::MONITOR_X87, self.cr0_has(Cr0::MP));
        mode.set(Mode::SSE, self.cr4_has(Cr4::OSFXSR));
        mode.set(Mode::TRAP_FLAG, self.flags().contains(Rflags::TF));
        self.mode = mode.bits();
        self.engine.breakpoints.armed = self.breakpoints_enabled();
        self.update_privilege();
        self.update_address_width();
        self.update_contexts(mode);
    }
}
