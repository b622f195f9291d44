//! Far JMP, CALL and RET: to other segments, through call gates, to other tasks. SDM vol. 2 JMP, CALL, RET; vol. 3
//! §§ 5.8.1 to 5.8.6.

use iced_x86::{Code, Instruction};

use crate::{
    access::Access,
    decode::{Form, Kind},
    op::{Handler, Op},
    protection::{
        address::attribute,
        descriptors::{Descriptor, Entry, Fault, Gate, is_null, kind, rpl},
        stack::Stack,
        task::{Reason, Switch},
    },
    state::{CpuState, reg, seg},
    trap::{Exception, Trap},
};

/// A far JMP or CALL under way.
#[derive(Clone, Copy)]
struct Transfer {
    call: bool,
    /// Operand size in bytes.
    size: u8,
    selector: u16,
    offset: u64,
    next_rip: u64,
}

impl CpuState {
    /// Pushes CS and the return address onto `stack`.
    fn push_return(&mut self, stack: &mut Stack, size: u8, next_rip: u64) -> Result<(), Trap> {
        stack.push_sized(self, size, u64::from(self.segments[usize::from(seg::CS)].selector))?;
        stack.push_sized(self, size, next_rip)
    }

    /// Pushes the far return address for code of this privilege level, onto the stack as that code sees it: Intel's
    /// processors change between 64-bit and compatibility mode first.
    fn push_return_for(&mut self, code: Descriptor, size: u8, next_rip: u64) -> Result<(), Trap> {
        let mut stack = if self.is_long_code(code) {
            Stack::long(self.register(reg::RSP), self.cpl, 0)
        } else {
            Stack::new(self.segments[usize::from(seg::SS)], self.register(reg::RSP), self.cpl, 0)
        };
        self.push_return(&mut stack, size, next_rip)?;
        stack.commit(self);
        Ok(())
    }

    fn transfer_far(&mut self, transfer: Transfer) -> Result<(), Trap> {
        if self.segments_are_paragraphs() {
            self.transfer_to_paragraph(transfer)?;
        } else {
            self.transfer_protected(transfer)?;
        }
        self.update_mode();
        Err(Trap::JUMP)
    }

    fn transfer_to_paragraph(&mut self, transfer: Transfer) -> Result<(), Trap> {
        let Transfer { call, size, selector, offset, next_rip } = transfer;
        let segment = self.paragraph_segment(seg::CS, selector);
        if offset > u64::from(segment.limit) {
            return Err(self.raise(Exception::general_protection(0)));
        }
        if call {
            let mut stack = Stack::current(self);
            self.push_return(&mut stack, size, next_rip)?;
            stack.commit(self);
        }
        self.segments[usize::from(seg::CS)] = segment;
        self.rip = offset;
        Ok(())
    }

    fn transfer_protected(&mut self, transfer: Transfer) -> Result<(), Trap> {
        let Transfer { selector, .. } = transfer;
        let fault: Fault = Exception::general_protection;
        if is_null(selector) {
            return Err(self.raise(fault(0)));
        }
        let entry = self.descriptor(selector, fault, 0)?;
        let descriptor = entry.descriptor;
        let Some(kind) = descriptor.system_kind() else {
            return self.transfer_to_segment(transfer, entry);
        };
        // Gates and task state segments are data, as far as privilege is concerned.
        let allowed = match kind {
            kind::CALL_GATE => true,
            kind::CALL_GATE_16 | kind::TASK_GATE | kind::TSS_16_AVAILABLE | kind::TSS_AVAILABLE => !self.long_mode(),
            _ => false,
        };
        if !allowed || descriptor.dpl() < self.cpl.max(rpl(selector)) {
            return Err(self.fail(fault, selector, 0));
        }
        match kind {
            kind::CALL_GATE | kind::CALL_GATE_16 => self.transfer_through_gate(transfer, descriptor),
            kind::TASK_GATE => {
                if !descriptor.is_present() {
                    return Err(self.fail(Exception::not_present, selector, 0));
                }
                let task_selector = Gate::parse(descriptor.0).selector;
                let task = self.gate_task(task_selector, 0)?;
                self.transfer_to_task(transfer, task_selector, &task)
            }
            _ => {
                let task = self.gate_task(selector, 0)?;
                self.transfer_to_task(transfer, selector, &task)
            }
        }
    }

    fn transfer_to_task(&mut self, transfer: Transfer, selector: u16, task: &Entry) -> Result<(), Trap> {
        let switch = Switch {
            selector,
            reason: if transfer.call { Reason::Call } else { Reason::Jump },
            return_rip: transfer.next_rip,
            resume: false,
            error_code: None,
            ext: 0,
        };
        let pending = self.switch_task(task, switch)?;
        self.deliver_pending(pending)
    }

    /// To a code segment of the same privilege level, or a conforming one.
    fn transfer_to_segment(&mut self, transfer: Transfer, mut entry: Entry) -> Result<(), Trap> {
        let Transfer { call, size, selector, offset, next_rip } = transfer;
        let code = entry.descriptor;
        let allowed = if code.is_conforming_code() {
            code.dpl() <= self.cpl
        } else {
            code.dpl() == self.cpl && rpl(selector) <= self.cpl
        };
        let ambiguous = self.is_long_code(code) && code.has(attribute::BIG);
        if !code.is_code() || !allowed || ambiguous {
            return Err(self.fail(Exception::general_protection, selector, 0));
        }
        if !code.is_present() {
            return Err(self.fail(Exception::not_present, selector, 0));
        }
        self.check_target(code, offset, 0)?;
        self.mark_accessed(&mut entry)?;
        if call {
            self.push_return_for(code, size, next_rip)?;
        }
        self.set_code_segment(entry.descriptor, selector, self.cpl);
        self.rip = offset;
        Ok(())
    }

    /// Through a call gate. JMP keeps its privilege level; CALL may gain some, with a stack of that level's.
    fn transfer_through_gate(&mut self, transfer: Transfer, descriptor: Descriptor) -> Result<(), Trap> {
        let Transfer { call, selector, next_rip, .. } = transfer;
        let (gate, size) = if self.long_mode() {
            let high = self.descriptor_high(selector, Exception::general_protection, 0)?;
            // The type in the upper half must be 0, so that no program takes it for a descriptor of its own.
            if high >> 40 & 0x1f != 0 {
                return Err(self.fail(Exception::general_protection, selector, 0));
            }
            (Gate::parse_long(descriptor.0, high & 0xffff_ffff), 8)
        } else {
            let gate = Gate::parse(descriptor.0);
            (gate, if gate.kind & kind::WIDE != 0 { 4 } else { 2 })
        };
        if !gate.present {
            return Err(self.fail(Exception::not_present, selector, 0));
        }
        let code = self.gate_code_segment(gate.selector, 0)?.descriptor;
        let inner = !code.is_conforming_code() && code.dpl() < self.cpl;
        if inner && !call {
            return Err(self.fail(Exception::general_protection, gate.selector, 0));
        }
        if !inner {
            self.check_target(code, gate.offset, 0)?;
            if call {
                self.push_return_for(code, size, next_rip)?;
            }
            self.set_code_segment(code, gate.selector, self.cpl);
            self.rip = gate.offset;
            return Ok(());
        }
        let cpl = code.dpl();
        let (segment, mut stack) = if self.long_mode() {
            let pointer = self.long_stack_pointer(u32::from(cpl) * 8 + 4, 0)?;
            (Self::null_stack_segment(cpl), Stack::long(pointer, cpl, 0))
        } else {
            self.inner_stack(cpl, 0)?
        };
        self.check_target(code, gate.offset, 0)?;
        stack.push_sized(self, size, u64::from(self.segments[usize::from(seg::SS)].selector))?;
        stack.push_sized(self, size, self.register(reg::RSP))?;
        if !self.long_mode() {
            let mut parameters = [0; 31];
            let parameters = &mut parameters[..usize::from(gate.extra & 31)];
            let mut old = Stack::current(self);
            for parameter in parameters.iter_mut() {
                *parameter = old.pop_sized(self, size)?;
            }
            for &parameter in parameters.iter().rev() {
                stack.push_sized(self, size, parameter)?;
            }
        }
        self.push_return(&mut stack, size, next_rip)?;
        // Nothing fails from here on.
        self.segments[usize::from(seg::SS)] = segment;
        stack.commit(self);
        self.set_code_segment(code, gate.selector, cpl);
        self.rip = gate.offset;
        Ok(())
    }

    /// Reads the far pointer in memory that an instruction names.
    fn far_pointer(&mut self, op: &Op) -> Result<(u16, u64), Trap> {
        let size = u64::from(op.size);
        // Alignment is that of the offset; the selector follows it.
        let at = op.effective_address(self);
        let linear = self.linear_of_any_alignment(op.segment, at, size + 2, Access::Read)?;
        self.check_parts(linear, size)?;
        let offset = match op.size {
            2 => u64::from(self.read::<u16>(linear)?),
            4 => u64::from(self.read::<u32>(linear)?),
            _ => self.read::<u64>(linear)?,
        };
        Ok((self.read(linear.wrapping_add(size))?, offset))
    }
}

/// JMP and CALL to an immediate far pointer.
extern "C" fn transfer_direct<const CALL: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let transfer =
        Transfer { call: CALL, size: op.size, selector: op.disp as u16, offset: op.imm, next_rip: op.next_rip(cpu) };
    cpu.transfer_far(transfer)
}

/// JMP and CALL to a far pointer in memory.
extern "C" fn transfer_indirect<const CALL: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let (selector, offset) = cpu.far_pointer(op)?;
    let transfer = Transfer { call: CALL, size: op.size, selector, offset, next_rip: op.next_rip(cpu) };
    cpu.transfer_far(transfer)
}

/// RETF; `imm` is the number of bytes to release.
extern "C" fn return_far(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let release = op.imm & 0xffff;
    let mut stack = Stack::current(cpu);
    let offset = stack.pop_sized(cpu, op.size)?;
    let selector = stack.pop_selector(cpu, op.size)?;
    if cpu.segments_are_paragraphs() {
        let segment = cpu.paragraph_segment(seg::CS, selector);
        if offset > u64::from(segment.limit) {
            return Err(cpu.raise(Exception::general_protection(0)));
        }
        stack.drop(release);
        stack.commit(cpu);
        cpu.segments[usize::from(seg::CS)] = segment;
        cpu.rip = offset;
    } else {
        cpu.return_far(stack, op.size, (selector, offset), release, false)?;
    }
    cpu.update_mode();
    Err(Trap::JUMP)
}

/// The handler of a far transfer.
pub(super) fn select(instruction: &Instruction, form: &Form, op: &mut Op) -> Option<Handler> {
    let (size, handler) = match instruction.code() {
        Code::Jmp_ptr1616 => (2, transfer_direct::<false> as Handler),
        Code::Jmp_ptr1632 => (4, transfer_direct::<false> as Handler),
        Code::Call_ptr1616 => (2, transfer_direct::<true> as Handler),
        Code::Call_ptr1632 => (4, transfer_direct::<true> as Handler),
        Code::Jmp_m1616 => (2, transfer_indirect::<false> as Handler),
        Code::Jmp_m1632 => (4, transfer_indirect::<false> as Handler),
        Code::Jmp_m1664 => (8, transfer_indirect::<false> as Handler),
        Code::Call_m1616 => (2, transfer_indirect::<true> as Handler),
        Code::Call_m1632 => (4, transfer_indirect::<true> as Handler),
        Code::Call_m1664 => (8, transfer_indirect::<true> as Handler),
        Code::Retfw | Code::Retfw_imm16 => (2, return_far as Handler),
        Code::Retfd | Code::Retfd_imm16 => (4, return_far as Handler),
        Code::Retfq | Code::Retfq_imm16 => (8, return_far as Handler),
        _ => return None,
    };
    op.size = size;
    if form.kinds[0] == Kind::None {
        // RETF without an immediate.
        op.imm = 0;
    }
    Some(handler)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::{FREE_SELECTOR, Fixture, HANDLER, INNER_STACK, TSS, descriptor, gate};
    use crate::{
        engine::testing::{CODE, DATA, STACK},
        state::{reg, seg},
        trap::{Exception, Trap},
    };

    const GATE: u16 = FREE_SELECTOR + 0x20;

    const fn gp(code: u32) -> Result<(), Exception> {
        Err(Exception::general_protection(code))
    }

    fn direct(opcode: u8, selector: u16, offset: u32) -> [u8; 7] {
        let ([a, b, c, d], [e, f]) = (offset.to_le_bytes(), selector.to_le_bytes());
        [opcode, a, b, c, d, e, f]
    }

    const JMP: u8 = 0xea;
    const CALL: u8 = 0x9a;

    #[test]
    fn real_mode_calls_push_cs_and_ip_and_returns_pop_them() {
        let mut fixture = Fixture::new(&[], 16);
        // call 0x2000:0x1234
        assert_eq!(fixture.execute(&[CALL, 0x34, 0x12, 0x00, 0x20]), Ok(()));
        assert_eq!((fixture.cpu().rip, fixture.cpu().segments[usize::from(seg::CS)].base), (0x1234, 0x2_0000));
        assert_eq!(fixture.stack(2), [CODE + 5, 0]);
        // retf 6
        assert_eq!(fixture.execute(&[0xca, 6, 0]), Ok(()));
        assert_eq!((fixture.cpu().rip, fixture.selector(seg::CS), fixture.rsp()), (CODE + 5, 0, STACK + 6));
    }

    #[test]
    fn real_mode_offsets_stay_inside_64_kib() {
        let mut fixture = Fixture::new(&[], 16);
        assert_eq!(fixture.execute(&[0x66, JMP, 0, 0, 1, 0, 0, 0]), gp(0));
    }

    #[test]
    fn protected_jumps_switch_between_code_sizes() {
        let mut fixture = Fixture::new(&[], 32);
        assert_eq!(fixture.execute(&direct(JMP, 0x20, 0x9000)), Ok(()));
        assert_eq!((fixture.cpu().rip, fixture.cpu().mode().code_bits()), (0x9000, 16));
    }

    /// SDM vol. 2 JMP and CALL, protected mode, to code segments.
    #[test]
    fn code_segments_are_checked_for_type_privilege_presence_and_limit() {
        let free = u32::from(FREE_SELECTOR);
        for (attributes, limit, rpl, user, expected) in [
            (0xc09b, 0xfffff, 0, false, Ok(())),
            (0xc09b, 0xfffff, 3, false, gp(free)),
            (0xc0fb, 0xfffff, 3, false, gp(free)),
            (0xc09b, 0xfffff, 0, true, gp(free)),
            (0xc09f, 0xfffff, 3, true, Ok(())),
            (0xc0ff, 0xfffff, 0, false, gp(free)),
            (0xc0fb, 0xfffff, 0, true, Ok(())),
            (0xc093, 0xfffff, 0, false, gp(free)),
            (0x0082, 0xfffff, 0, false, gp(free)),
            (0xc01b, 0xfffff, 0, false, Err(Exception::not_present(free))),
            (0x409b, 0x8fff, 0, false, gp(0)),
        ] {
            for opcode in [JMP, CALL] {
                let mut fixture = Fixture::new(&[], 32);
                fixture.set_descriptor(FREE_SELECTOR, descriptor(0, limit, attributes));
                if user {
                    fixture.enter_user();
                }
                let result = fixture.execute(&direct(opcode, FREE_SELECTOR | rpl, HANDLER as u32));
                assert_eq!(result, expected, "{attributes:#x} rpl {rpl} user {user}");
                let pushed = if expected.is_ok() && opcode == CALL { 8 } else { 0 };
                assert_eq!(fixture.rsp(), STACK - pushed);
                if expected.is_ok() {
                    // CS has the privilege level of the code, not of the selector.
                    assert_eq!(fixture.selector(seg::CS), FREE_SELECTOR + u16::from(user) * 3);
                }
            }
        }
        let mut fixture = Fixture::new(&[], 32);
        assert_eq!(fixture.execute(&direct(JMP, 3, 0)), gp(0));
    }

    #[test]
    fn long_mode_refuses_descriptors_of_both_sizes() {
        let mut fixture = Fixture::new(&[], 64);
        fixture.set_descriptor(FREE_SELECTOR, descriptor(0, 0xfffff, 0xe09b));
        fixture.write(DATA, &HANDLER.to_le_bytes());
        fixture.write(DATA + 8, &FREE_SELECTOR.to_le_bytes());
        // jmp far [rsi], 64-bit
        assert_eq!(fixture.execute(&[0x48, 0xff, 0x2e]), gp(FREE_SELECTOR.into()));
    }

    #[test]
    fn long_mode_calls_through_memory_and_returns() {
        let mut fixture = Fixture::new(&[], 64);
        fixture.write(DATA, &0xffff_8000_0000_9000_u64.to_le_bytes());
        fixture.write(DATA + 8, &0x18_u16.to_le_bytes());
        // call far [rsi], 64-bit
        assert_eq!(fixture.execute(&[0x48, 0xff, 0x1e]), Ok(()));
        assert_eq!(fixture.cpu().rip, 0xffff_8000_0000_9000);
        assert_eq!(fixture.stack(8), [CODE + 3, 0x18]);
        // retfq
        assert_eq!(fixture.execute(&[0x48, 0xcb]), Ok(()));
        assert_eq!((fixture.cpu().rip, fixture.rsp()), (CODE + 3, STACK));
    }

    #[test]
    fn long_mode_jumps_to_compatibility_mode() {
        let mut fixture = Fixture::new(&[], 64);
        fixture.write(DATA, &(HANDLER as u32).to_le_bytes());
        fixture.write(DATA + 4, &8_u16.to_le_bytes());
        // jmp far [rsi], 32-bit
        assert_eq!(fixture.execute(&[0xff, 0x2e]), Ok(()));
        assert_eq!((fixture.cpu().rip, fixture.cpu().mode().code_bits()), (HANDLER, 32));
    }

    #[test]
    fn a_call_gate_brings_parameters_to_the_inner_stack_and_the_return_releases_them() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_descriptor(GATE, gate(8, 0x1234_9000, 0xec, 2));
        fixture.enter_user();
        fixture.set_stack(0x6000, 4, &[0x11, 0x22]);
        assert_eq!(fixture.execute(&direct(CALL, GATE | 3, 0xdead_beef)), Ok(()));
        assert_eq!((fixture.cpu().rip, fixture.cpu().cpl, fixture.selector(seg::CS)), (0x1234_9000, 0, 8));
        assert_eq!((fixture.rsp(), fixture.selector(seg::SS)), (INNER_STACK - 24, 0x10));
        assert_eq!(fixture.stack(4), [CODE + 7, 0x33, 0x11, 0x22, 0x6000, 0x3b]);
        // retf 8
        assert_eq!(fixture.execute(&[0xca, 8, 0]), Ok(()));
        assert_eq!((fixture.cpu().rip, fixture.cpu().cpl, fixture.rsp()), (CODE + 7, 3, 0x6008));
        assert_eq!((fixture.selector(seg::CS), fixture.selector(seg::SS)), (0x33, 0x3b));
    }

    #[test]
    fn a_16_bit_call_gate_moves_words() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_descriptor(GATE, gate(8, 0x1234_9000, 0xe4, 1));
        fixture.enter_user();
        fixture.set_stack(0x6000, 2, &[0x11]);
        assert_eq!(fixture.execute(&direct(CALL, GATE | 3, 0)), Ok(()));
        assert_eq!((fixture.cpu().rip, fixture.rsp()), (0x9000, INNER_STACK - 10));
        assert_eq!(fixture.stack(2), [CODE + 7, 0x33, 0x11, 0x6000, 0x3b]);
    }

    #[test]
    fn call_gates_are_checked_before_what_they_lead_to() {
        let (gate_code, free) = (u32::from(GATE), u32::from(FREE_SELECTOR));
        for (opcode, raw, code_raw, user, expected) in [
            (CALL, gate(8, HANDLER, 0x8c, 0), 0, true, gp(gate_code)),
            (CALL, gate(8, HANDLER, 0x6c, 0), 0, true, Err(Exception::not_present(gate_code))),
            (CALL, gate(0, HANDLER, 0xec, 0), 0, true, gp(0)),
            (CALL, gate(0x10, HANDLER, 0xec, 0), 0, true, gp(0x10)),
            (
                CALL,
                gate(FREE_SELECTOR, HANDLER, 0xec, 0),
                descriptor(0, 0xfffff, 0xc01b),
                true,
                Err(Exception::not_present(free)),
            ),
            (CALL, gate(FREE_SELECTOR, HANDLER, 0xec, 0), descriptor(0, 0xff, 0x409b), true, gp(0)),
            (JMP, gate(8, HANDLER, 0xec, 0), 0, true, gp(8)),
            (JMP, gate(8, HANDLER, 0x8c, 0), 0, false, Ok(())),
            (CALL, gate(8, HANDLER, 0x8c, 0), 0, false, Ok(())),
            (JMP, gate(0x33, HANDLER, 0xec, 0), 0, true, Ok(())),
        ] {
            let mut fixture = Fixture::new(&[], 32);
            fixture.set_descriptor(GATE, raw);
            fixture.set_descriptor(FREE_SELECTOR, code_raw);
            if user {
                fixture.enter_user();
            }
            let rpl = u16::from(user) * 3;
            let cpl = fixture.cpu().cpl;
            assert_eq!(fixture.execute(&direct(opcode, GATE | rpl, 0)), expected, "{opcode:#x} {raw:#x}");
            assert_eq!(fixture.cpu().cpl, cpl);
            let pushed = if expected.is_ok() && opcode == CALL { 8 } else { 0 };
            assert_eq!(fixture.rsp(), STACK - pushed);
        }
    }

    #[test]
    fn long_mode_call_gates_switch_stacks_without_parameters() {
        let mut fixture = Fixture::new(&[], 64);
        fixture.set_descriptor(GATE, gate(0x18, 0x9000, 0xec, 3));
        fixture.set_descriptor(GATE + 8, 0xffff_8000);
        fixture.write(DATA, &0_u32.to_le_bytes());
        fixture.write(DATA + 4, &GATE.to_le_bytes());
        fixture.enter_user();
        // call far [rsi]
        assert_eq!(fixture.execute(&[0xff, 0x1e]), Ok(()));
        assert_eq!((fixture.cpu().rip, fixture.cpu().cpl), (0xffff_8000_0000_9000, 0));
        assert_eq!((fixture.rsp(), fixture.selector(seg::SS)), (INNER_STACK - 32, 0));
        assert_eq!(fixture.stack(8), [CODE + 2, 0x43, STACK, 0x3b]);
        // A type in the upper half.
        fixture.set_descriptor(GATE + 8, 0x0000_0c00_ffff_8000);
        assert_eq!(fixture.execute(&[0xff, 0x1e]), gp(GATE.into()));
    }

    #[test]
    fn returns_do_not_lead_inwards() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.enter_user();
        fixture.set_stack(0x6000, 4, &[HANDLER, 8]);
        assert_eq!(fixture.execute(&[0xcb]), gp(8));
        assert_eq!(fixture.rsp(), 0x6000);
    }

    #[test]
    fn a_gate_without_stack_for_its_level_is_an_invalid_task_state_segment() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_descriptor(GATE, gate(8, HANDLER, 0xec, 0));
        fixture.write(TSS + 8, &0_u16.to_le_bytes());
        fixture.enter_user();
        assert_eq!(fixture.execute(&direct(CALL, GATE | 3, 0)), Err(Exception::invalid_tss(0)));
    }

    proptest! {
        /// Whatever descriptors say and stacks hold, far transfers raise an exception or succeed.
        #[test]
        fn no_descriptor_makes_a_transfer_panic(
            table in proptest::collection::vec(any::<u64>(), 32),
            attributes in proptest::collection::vec(any::<u8>(), 32),
            stack in proptest::collection::vec(any::<u64>(), 8),
            task in any::<[u64; 13]>(),
            selector in 0_u16..0x100,
            bits in proptest::sample::select(vec![32_u8, 64]),
            user in any::<bool>(),
            form in 0_usize..5,
            nested in any::<bool>(),
        ) {
            let mut fixture = Fixture::new(&[], bits);
            for (i, (&raw, &attributes)) in table.iter().zip(&attributes).enumerate().skip(9) {
                let raw = raw & !(0xff << 40 | 0xff00_ff00 << 16) | u64::from(attributes) << 40;
                fixture.write(0x1000 + 8 * i as u64, &raw.to_le_bytes());
            }
            for (i, value) in task.iter().enumerate() {
                fixture.write(TSS + 8 * i as u64, &value.to_le_bytes());
            }
            if user {
                fixture.enter_user();
            }
            let words: Vec<u64> = stack.iter().map(|value| value & 0xff_0000_00ff).collect();
            fixture.set_stack(0x6000, 8, &words);
            fixture.write(DATA, &(HANDLER as u32).to_le_bytes());
            fixture.write(DATA + 4, &selector.to_le_bytes());
            if nested {
                fixture.cpu().rflags |= crate::state::Rflags::NT.bits();
            }
            let code: &[u8] = [&[0xff, 0x2e][..], &[0xff, 0x1e], &[0xcf], &[0xcb], &[0xca, 8, 0]][form];
            let before = fixture.cpu().segments;
            let top = fixture.cpu().register(reg::RSP);
            let result = fixture.try_execute(code);
            if result == Err(Trap::EXCEPTION) {
                // What fails before a task switch leaves everything as it was.
                prop_assert_eq!(fixture.cpu().segments, before);
                prop_assert_eq!(fixture.cpu().register(reg::RSP), top);
            } else {
                // A task that cannot even take its own exception is the end.
                prop_assert!(matches!(result, Ok(()) | Err(Trap::SHUTDOWN)), "{result:?}");
            }
        }
    }
}
