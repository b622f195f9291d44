//! Breakpoints of the debug registers: which are armed, and what hits them. SDM vol. 3 §§ 17.2, 17.3.
//!
//! While one is armed, the engine runs one instruction at a time, and pages with watched data have no entries in the TLB, so
//! that every access to them is seen. Otherwise none of this costs anything.

use crate::{
    access::Access,
    engine::Mode,
    state::{CpuState, Cr4, seg},
};

/// What the engine keeps of breakpoints.
#[derive(Debug, Default)]
pub(crate) struct Breakpoints {
    /// One is armed; kept by [`update_mode`](crate::engine::mode).
    pub(crate) armed: bool,
    /// Those that were hit and not told of yet, as bits of DR6.
    pub(crate) hits: u64,
    /// The stack segment was just loaded: debug exceptions wait for the end of the next instruction (SDM vol. 3 § 6.8.3).
    pub(crate) stack_loaded: bool,
}

/// DR6.B0 to B3.
pub(crate) const HITS: u64 = 15;

/// What hits a breakpoint: its R/W field in DR7.
const EXECUTE: u64 = 0;
const WRITE: u64 = 1;
const PORT: u64 = 2;
const READ_OR_WRITE: u64 = 3;

impl CpuState {
    /// Whether DR7 enables a breakpoint, locally or globally.
    pub(crate) fn breakpoints_enabled(&self) -> bool {
        self.dr[7] & 0xff != 0
    }

    /// Those enabled breakpoints of a kind that `kinds` has whose bytes are among the `size` bytes at `address`, as bits
    /// of DR6.
    fn breakpoints_at(&self, address: u64, size: u64, kinds: &[u64]) -> u64 {
        let control = self.dr[7];
        (0..4)
            .filter(|number| {
                let (kind, length) = (control >> (16 + 4 * number) & 3, control >> (18 + 4 * number) & 3);
                // One, two, eight, four bytes.
                let length = [1, 2, 8, 4][length as usize & 3];
                let first = self.dr[*number as usize & 3] & !(length - 1);
                control >> (2 * number) & 3 != 0
                    && kinds.contains(&kind)
                    && (first.wrapping_sub(address) < size || address.wrapping_sub(first) < length)
            })
            .fold(0, |hits, number| hits | 1 << number)
    }

    /// The breakpoints at the instruction that is next.
    pub(crate) fn code_breakpoints(&self) -> u64 {
        let flat = self.mode().contains(Mode::FLAT_CS);
        let base = self.segments[usize::from(seg::CS)].base;
        let linear = if flat { self.rip } else { base.wrapping_add(self.rip) & 0xffff_ffff };
        self.breakpoints_at(linear, 1, &[EXECUTE])
    }

    /// Whether accesses to data of the page of `linear` must be seen.
    pub(crate) fn watches_page(&self, linear: u64) -> bool {
        self.engine.breakpoints.armed && self.breakpoints_at(linear & !0xfff, 0x1000, &[WRITE, READ_OR_WRITE]) != 0
    }

    /// Takes note of an access to data.
    #[inline]
    pub(crate) fn note_data(&mut self, linear: u64, size: usize, access: Access) {
        if self.engine.breakpoints.armed {
            let kinds: &[u64] = if access == Access::Write { &[WRITE, READ_OR_WRITE] } else { &[READ_OR_WRITE] };
            self.engine.breakpoints.hits |= self.breakpoints_at(linear, size as u64, kinds);
        }
    }

    /// Takes note of an access to ports.
    #[inline]
    pub(crate) fn note_port(&mut self, port: u16, size: usize) {
        if self.engine.breakpoints.armed && self.cr4_has(Cr4::DE) {
            self.engine.breakpoints.hits |= self.breakpoints_at(u64::from(port), size as u64, &[PORT]);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        engine::testing::{CODE, DATA, Machine, Stop},
        state::{Cr4, Rflags, reg},
        trap::Exception,
    };

    const RAX: usize = reg::RAX as usize;
    const RCX: usize = reg::RCX as usize;
    const STEP: u64 = 1 << 14;

    /// A machine whose breakpoint 1 is `address`, of `kind` and `length` as DR7 has them.
    fn machine(code: &[u8], address: u64, kind: u64, length: u64) -> Machine {
        let mut machine = Machine::new(code, 64);
        machine.cpu().dr[1] = address;
        machine.cpu().dr[7] = 0x400 | 1 << 3 | kind << 20 | length << 22;
        machine.cpu().update_mode();
        machine.cpu().flush_all();
        machine
    }

    /// Runs until the next debug exception; gives where it was, and DR6 without what is always set.
    fn next(machine: &mut Machine) -> Option<(u64, u64)> {
        machine.cpu().dr[6] = 0xffff_0ff0;
        match machine.run() {
            Stop::Exception(Exception::DEBUG) => Some((machine.cpu().rip - CODE, machine.cpu().dr[6] & 0xf00f)),
            Stop::Halted => None,
            stop => panic!("{stop:?}"),
        }
    }

    #[test]
    fn an_instruction_is_met_before_it_is_executed_and_passed_with_the_resume_flag() {
        // inc eax; inc eax; inc eax
        let mut machine = machine(&[0xff, 0xc0, 0xff, 0xc0, 0xff, 0xc0], CODE + 2, 0, 0);
        assert_eq!(next(&mut machine), Some((2, 2)));
        assert_eq!(machine.cpu().gpr[RAX], 1);
        assert_eq!(next(&mut machine), Some((2, 2)));
        machine.cpu().rflags |= Rflags::RF.bits();
        assert_eq!(next(&mut machine), None);
        assert_eq!((machine.cpu().gpr[RAX], machine.cpu().rflags & Rflags::RF.bits()), (3, 0));
        // Neither the second byte of an instruction nor one that is not enabled is met.
        let mut machine = self::machine(&[0xff, 0xc0, 0xff, 0xc0], CODE + 3, 0, 0);
        assert_eq!(next(&mut machine), None);
    }

    #[test]
    fn data_are_met_after_the_instruction_that_touches_them() {
        // mov [rdi], ax; nop; mov ax, [rdi]; nop
        let code = [0x66, 0x89, 0x07, 0x90, 0x66, 0x8b, 0x07, 0x90];
        for (address, kind, length, expected) in [
            (DATA, 1, 0, vec![3]),
            (DATA, 3, 0, vec![3, 7]),
            (DATA + 1, 3, 0, vec![3, 7]),
            (DATA + 2, 3, 0, vec![]),
            (DATA - 1, 3, 0, vec![]),
            // Bits of the address below the length do not count.
            (DATA + 3, 1, 3, vec![3]),
            (DATA - 2, 1, 3, vec![]),
            (DATA + 7, 3, 2, vec![3, 7]),
            (DATA, 2, 0, vec![]),
        ] {
            let mut machine = machine(&code, address, kind, length);
            for at in &expected {
                assert_eq!(next(&mut machine), Some((*at, 2)), "{address:#x} {kind} {length}");
            }
            assert_eq!(next(&mut machine), None, "{address:#x} {kind} {length}");
        }
    }

    #[test]
    fn repeated_strings_stop_after_the_element_that_was_met() {
        // rep stosb
        let mut machine = machine(&[0xf3, 0xaa], DATA + 5, 1, 0);
        machine.cpu().gpr[RCX] = 9;
        assert_eq!(next(&mut machine), Some((0, 2)));
        assert_eq!(machine.cpu().gpr[RCX], 3);
        assert_eq!(next(&mut machine), None);
        assert_eq!(machine.cpu().gpr[RCX], 0);
    }

    #[test]
    fn a_resumed_string_meets_its_own_breakpoint_once() {
        let mut machine = machine(&[0xf3, 0xaa], CODE, 0, 0);
        machine.cpu().gpr[RCX] = 600;
        assert_eq!(next(&mut machine), Some((0, 2)));
        machine.cpu().rflags |= Rflags::RF.bits();
        machine.cpu().requests.ask(crate::state::Request::EXIT);
        assert_eq!(next(&mut machine), None);
        assert_eq!(machine.cpu().gpr[RCX], 0);
    }

    #[test]
    fn ports_are_met_where_debugging_extensions_are_on() {
        // in al, 0x43; nop
        let code = [0xe4, 0x43, 0x90];
        let mut machine = machine(&code, 0x42, 2, 1);
        machine.cpu().cr4 |= Cr4::DE.bits();
        assert_eq!(next(&mut machine), Some((2, 2)));
        let mut machine = self::machine(&code, 0x42, 2, 1);
        machine.cpu().cr4 &= !Cr4::DE.bits();
        assert_eq!(next(&mut machine), None);
    }

    #[test]
    fn a_loaded_stack_segment_keeps_debug_exceptions_for_later() {
        // mov ss, [rdi]; inc eax; nop
        let code = [0x8e, 0x17, 0xff, 0xc0, 0x90];
        let mut machine = machine(&code, DATA, 3, 0);
        machine.memory.write(DATA, &[0x10, 0]);
        assert_eq!(next(&mut machine), Some((4, 2)));
        assert_eq!(machine.cpu().gpr[RAX], 1);
        // A breakpoint on the instruction after it is not met, nor is there a single step between them.
        let mut machine = self::machine(&code, CODE + 2, 0, 0);
        machine.memory.write(DATA, &[0x10, 0]);
        machine.cpu().rflags |= Rflags::TF.bits();
        assert_eq!(next(&mut machine), Some((4, STEP)));
        assert_eq!(next(&mut machine), Some((5, STEP)));
    }

    #[test]
    fn a_single_step_and_a_breakpoint_are_one_exception() {
        // mov [rdi], al
        let mut machine = machine(&[0x88, 0x07], DATA, 1, 0);
        machine.cpu().rflags |= Rflags::TF.bits();
        assert_eq!(next(&mut machine), Some((2, STEP | 2)));
    }

    #[test]
    fn single_steps_end_after_branches_where_that_is_asked_for() {
        // inc eax; jmp +0 (not taken as one: it leads to the next); jmp +1; nop; inc eax
        let code = [0xff, 0xc0, 0xeb, 0x01, 0x90, 0xff, 0xc0];
        let mut machine = Machine::new(&code, 64);
        machine.cpu().msr.debugctl = 2;
        machine.cpu().rflags |= Rflags::TF.bits();
        assert_eq!(next(&mut machine), Some((5, STEP)));
        assert_eq!(machine.cpu().gpr[RAX], 1);
    }

    #[test]
    fn what_writes_to_debug_registers_arms_and_disarms() {
        // mov dr0, rdi; mov dr7, rax; mov [rdi], al; mov dr7, rcx; mov [rdi], al
        let code = [0x0f, 0x23, 0xc7, 0x0f, 0x23, 0xf8, 0x88, 0x07, 0x0f, 0x23, 0xf9, 0x88, 0x07];
        let mut machine = Machine::new(&code, 64);
        assert!(machine.cpu().write::<u8>(DATA, 0).is_ok());
        (machine.cpu().gpr[RAX], machine.cpu().gpr[RCX]) = (1 | 1 << 16, 0);
        assert_eq!(next(&mut machine), Some((8, 1)));
        assert_eq!(next(&mut machine), None);
    }
}
