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
            let mut stack = Stack::current(self);
            self.push_return(&mut stack, size, next_rip)?;
            stack.commit(self);
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
                let mut stack = Stack::current(self);
                self.push_return(&mut stack, size, next_rip)?;
                stack.commit(self);
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
        let linear = self.linear(op, size + 2, Access::Read)?;
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
    let selector = stack.pop_sized(cpu, op.size)? as u16;
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
