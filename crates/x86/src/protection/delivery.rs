//! Delivery of exceptions and interrupts in every mode. SDM vol. 3 ch. 6, § 20.1.4 (real mode), § 20.3 (virtual-8086
//! mode).
//!
//! A delivery that faults has changed nothing but accessed bits and memory beyond the top of the new stack.

use iced_x86::{Instruction, Mnemonic};

use crate::{
    decode::Form,
    op::{Handler, Op},
    protection::{
        descriptors::{Entry, Gate, is_null, kind, selector_code},
        stack::Stack,
        task::{Pending, Reason, Switch},
    },
    state::{CpuState, Cr0, Rflags, Segment, reg, seg},
    trap::{Exception, Trap},
};

/// Where an event comes from, which decides about privilege checks and error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// An interrupt pin or message.
    External,
    /// The processor itself, or INT1.
    Exception,
    /// INT n, INT3 or INTO.
    Software,
}

/// An exception or interrupt under delivery.
#[derive(Clone, Copy, Debug)]
struct Event {
    vector: u8,
    error_code: Option<u32>,
    origin: Origin,
    /// What is pushed as the instruction pointer.
    return_rip: u64,
    /// Whether the pushed flags have RF set, so that the instruction's restart meets no instruction breakpoint.
    resume: bool,
}

impl Event {
    fn exception(exception: Exception, rip: u64) -> Self {
        Self {
            vector: exception.vector,
            error_code: exception.error_code,
            origin: Origin::Exception,
            return_rip: rip,
            // Faults do; debug exceptions are left alone, as most are traps.
            resume: exception.vector != Exception::DEBUG.vector,
        }
    }

    /// The EXT bit of error codes made during this delivery.
    fn ext(&self) -> u32 {
        u32::from(self.origin != Origin::Software)
    }

    /// The error code that names the vector's gate.
    fn gate_code(&self) -> u32 {
        u32::from(self.vector) << 3 | 2 | self.ext()
    }
}

/// Classes of exceptions, as the rules for double faults know them (SDM vol. 3 table 6-4).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Benign,
    Contributory,
    PageFault,
    DoubleFault,
}

impl Class {
    fn of(event: &Event) -> Self {
        match event.vector {
            _ if event.origin != Origin::Exception => Self::Benign,
            0 | 10..=13 => Self::Contributory,
            14 => Self::PageFault,
            8 => Self::DoubleFault,
            _ => Self::Benign,
        }
    }
}

/// What comes after `first` could not be delivered because of `second`; `None` is a shutdown (SDM vol. 3 table 6-5).
fn combine(first: &Event, second: Event) -> Option<Event> {
    let double_fault = Event { vector: 8, error_code: Some(0), ..second };
    match (Class::of(first), Class::of(&second)) {
        (Class::DoubleFault, Class::Benign) => Some(second),
        (Class::DoubleFault, _) => None,
        (Class::Contributory, Class::Contributory) => Some(double_fault),
        (Class::PageFault, Class::Contributory | Class::PageFault) => Some(double_fault),
        _ => Some(second),
    }
}

/// More failures in a row than any table of gates can cause without going in circles.
const MOST_FAILURES: usize = 64;

impl CpuState {
    /// Delivers an exception that the instruction at `rip` raised (for a trap: `rip` of the next one). Faults on the way
    /// become what the architecture makes of them.
    ///
    /// # Errors
    /// [`Trap::SHUTDOWN`] on a triple fault.
    pub fn deliver_exception(&mut self, exception: Exception, rip: u64) -> Result<(), Trap> {
        self.rip = rip;
        if exception.vector == Exception::DEBUG.vector {
            // General detect is for the debugger's own use (SDM vol. 3 § 17.2.4).
            self.dr[7] &= !(1 << 13);
        }
        self.deliver_to_the_end(Event::exception(exception, rip))
    }

    /// Delivers a maskable interrupt between instructions, with RIP at the next.
    ///
    /// # Errors
    /// [`Trap::SHUTDOWN`] on a triple fault.
    pub fn deliver_interrupt(&mut self, vector: u8) -> Result<(), Trap> {
        let event = Event { vector, error_code: None, origin: Origin::External, return_rip: self.rip, resume: false };
        self.deliver_to_the_end(event)
    }

    /// Delivers a non-maskable interrupt between instructions, and blocks further ones until IRET.
    ///
    /// # Errors
    /// [`Trap::SHUTDOWN`] on a triple fault.
    pub fn deliver_nmi(&mut self) -> Result<(), Trap> {
        self.nmi_blocked = true;
        self.deliver_interrupt(2)
    }

    /// INT n, INT3 and INTO: the gate must allow it. RIP is set.
    ///
    /// # Errors
    /// What goes wrong is the instruction's own exception.
    pub fn software_interrupt(&mut self, vector: u8, next_rip: u64) -> Result<(), Trap> {
        let event = Event { vector, error_code: None, origin: Origin::Software, return_rip: next_rip, resume: false };
        let pending = self.deliver(event)?;
        self.deliver_pending(pending)
    }

    /// Delivers what a task switch left pending in the new task.
    pub(crate) fn deliver_pending(&mut self, pending: Pending) -> Result<(), Trap> {
        match pending {
            Some(exception) => self.deliver_exception(exception, self.rip),
            None => Ok(()),
        }
    }

    fn deliver_to_the_end(&mut self, mut event: Event) -> Result<(), Trap> {
        for _ in 0..MOST_FAILURES {
            match self.deliver(event) {
                Ok(None) => return Ok(()),
                Ok(Some(exception)) => event = Event::exception(exception, self.rip),
                Err(Trap::EXCEPTION) => {
                    let second = Event::exception(self.exception, event.return_rip);
                    event = combine(&event, second).ok_or(Trap::SHUTDOWN)?;
                }
                Err(trap) => return Err(trap),
            }
        }
        Err(Trap::SHUTDOWN)
    }

    fn deliver(&mut self, event: Event) -> Result<Pending, Trap> {
        if !self.cr0_has(Cr0::PE) {
            self.deliver_real(event)?;
            Ok(None)
        } else if self.long_mode() {
            self.deliver_long(event)?;
            Ok(None)
        } else {
            self.deliver_protected(event)
        }
    }

    /// The flags that an event's handler finds on its stack.
    fn pushed_flags(&self, event: &Event) -> u64 {
        self.rflags | if event.resume { Rflags::RF.bits() } else { 0 }
    }

    /// Clears `flags`, which handlers are entered without.
    fn enter_with_cleared(&mut self, flags: Rflags) {
        self.rflags &= !flags.bits();
        self.interrupt_shadow = false;
        self.update_mode();
    }

    /// Through the interrupt vector table of real mode.
    fn deliver_real(&mut self, event: Event) -> Result<(), Trap> {
        let offset = u64::from(event.vector) * 4;
        if offset + 3 > u64::from(self.idtr.limit) {
            return Err(self.raise(Exception::general_protection(event.gate_code())));
        }
        let pointer: u32 = self.read_system(self.table_address(self.idtr.base.wrapping_add(offset)))?;
        let mut stack = Stack::current(self).with_fault_code(event.ext());
        stack.push(self, self.rflags as u16)?;
        stack.push(self, self.segments[usize::from(seg::CS)].selector)?;
        stack.push(self, event.return_rip as u16)?;
        stack.commit(self);
        self.segments[usize::from(seg::CS)] = self.paragraph_segment(seg::CS, (pointer >> 16) as u16);
        self.rip = u64::from(pointer & 0xffff);
        self.enter_with_cleared(Rflags::IF | Rflags::TF | Rflags::AC | Rflags::RF);
        Ok(())
    }

    /// The checks of a gate that both formats share.
    fn check_gate(&mut self, event: &Event, gate: &Gate) -> Result<(), Trap> {
        let code = event.gate_code();
        if event.origin == Origin::Software && gate.dpl < self.cpl {
            return Err(self.raise(Exception::general_protection(code)));
        }
        if !gate.present {
            return Err(self.raise(Exception::not_present(code)));
        }
        Ok(())
    }

    /// The code segment that a gate leads to. It may be as privileged as the current one, or more.
    pub(crate) fn gate_code_segment(&mut self, selector: u16, ext: u32) -> Result<Entry, Trap> {
        let fault = Exception::general_protection;
        if is_null(selector) {
            return Err(self.raise(fault(ext)));
        }
        let mut code = self.descriptor(selector, fault, ext)?;
        let descriptor = code.descriptor;
        if !descriptor.is_code() || descriptor.dpl() > self.cpl {
            return Err(self.fail(fault, selector, ext));
        }
        // Gates of long mode lead to 64-bit code alone.
        if self.long_mode()
            && descriptor.attributes() & (super::address::attribute::LONG | super::address::attribute::BIG)
                != super::address::attribute::LONG
        {
            return Err(self.fail(fault, selector, ext));
        }
        if !descriptor.is_present() {
            return Err(self.fail(Exception::not_present, selector, ext));
        }
        self.mark_accessed(&mut code)?;
        Ok(code)
    }

    /// The stack for an entry to the inner privilege level `cpl`, from a 16- or 32-bit task state segment.
    pub(crate) fn inner_stack(&mut self, cpl: u8, ext: u32) -> Result<(Segment, Stack), Trap> {
        let wide = self.tr.attributes & u16::from(kind::WIDE) != 0;
        let (offset, size) = if wide { (u32::from(cpl) * 8 + 4, 4) } else { (u32::from(cpl) * 4 + 2, 2) };
        if offset + size + 1 > self.tr.limit {
            return Err(self.raise(Exception::invalid_tss(selector_code(self.tr.selector, ext))));
        }
        let address = self.tr.base.wrapping_add(u64::from(offset));
        let pointer = if wide {
            self.read_system::<u32>(self.table_address(address))?
        } else {
            u32::from(self.read_system::<u16>(self.table_address(address))?)
        };
        let selector: u16 = self.read_system(self.table_address(address.wrapping_add(u64::from(size))))?;
        let segment = self.stack_segment(selector, cpl, Exception::invalid_tss, ext)?;
        Ok((segment, Stack::new(segment, u64::from(pointer), cpl, selector_code(selector, ext))))
    }

    /// A stack pointer from the 64-bit task state segment.
    pub(crate) fn long_stack_pointer(&mut self, offset: u32, ext: u32) -> Result<u64, Trap> {
        if offset + 7 > self.tr.limit {
            return Err(self.raise(Exception::invalid_tss(selector_code(self.tr.selector, ext))));
        }
        self.read_system(self.tr.base.wrapping_add(u64::from(offset)))
    }

    /// Through the interrupt descriptor table of protected mode, virtual-8086 mode included.
    fn deliver_protected(&mut self, event: Event) -> Result<Pending, Trap> {
        let ext = event.ext();
        let offset = u64::from(event.vector) * 8;
        if offset + 7 > u64::from(self.idtr.limit) {
            return Err(self.raise(Exception::general_protection(event.gate_code())));
        }
        let raw = self.read_system(self.table_address(self.idtr.base.wrapping_add(offset)))?;
        let gate = Gate::parse(raw);
        let interrupt = matches!(gate.kind, kind::INTERRUPT_GATE | kind::INTERRUPT_GATE_16);
        if !interrupt && !matches!(gate.kind, kind::TRAP_GATE | kind::TRAP_GATE_16 | kind::TASK_GATE) {
            return Err(self.raise(Exception::general_protection(event.gate_code())));
        }
        self.check_gate(&event, &gate)?;
        if gate.kind == kind::TASK_GATE {
            let task = self.gate_task(gate.selector, ext)?;
            let switch = Switch {
                selector: gate.selector,
                reason: Reason::Gate,
                return_rip: event.return_rip,
                resume: event.resume,
                error_code: event.error_code,
                ext,
            };
            return self.switch_task(&task, switch);
        }
        let size = if gate.kind & kind::WIDE != 0 { 4 } else { 2 };
        let code = self.gate_code_segment(gate.selector, ext)?.descriptor;
        let cpl = if code.is_conforming_code() { self.cpl } else { code.dpl() };
        let virtual_8086 = self.virtual_8086();
        if virtual_8086 && cpl != 0 {
            return Err(self.fail(Exception::general_protection, gate.selector, ext));
        }
        let (new_segment, mut stack) = if cpl < self.cpl {
            let (segment, stack) = self.inner_stack(cpl, ext)?;
            (Some(segment), stack)
        } else {
            (None, Stack::current(self).with_fault_code(ext))
        };
        self.check_target(code, gate.offset, ext)?;
        if new_segment.is_some() {
            let outer: &[u8] = if virtual_8086 { &[seg::GS, seg::FS, seg::DS, seg::ES, seg::SS] } else { &[seg::SS] };
            for &segment in outer {
                let selector = self.segments[usize::from(segment)].selector;
                stack.push_sized(self, size, u64::from(selector))?;
            }
            stack.push_sized(self, size, self.register(reg::RSP))?;
        }
        stack.push_sized(self, size, self.pushed_flags(&event))?;
        stack.push_sized(self, size, u64::from(self.segments[usize::from(seg::CS)].selector))?;
        stack.push_sized(self, size, event.return_rip)?;
        if let Some(error_code) = event.error_code {
            stack.push_sized(self, size, u64::from(error_code))?;
        }
        // Nothing fails from here on.
        if virtual_8086 {
            for segment in [seg::GS, seg::FS, seg::DS, seg::ES] {
                self.segments[usize::from(segment)] = self.null_segment(segment, 0);
            }
        }
        if let Some(segment) = new_segment {
            self.segments[usize::from(seg::SS)] = segment;
        }
        stack.commit(self);
        self.set_code_segment(code, gate.selector, cpl);
        self.rip = gate.offset;
        let cleared = Rflags::TF | Rflags::NT | Rflags::VM | Rflags::RF;
        self.enter_with_cleared(if interrupt { cleared | Rflags::IF } else { cleared });
        Ok(None)
    }

    /// Through the interrupt descriptor table of long mode.
    fn deliver_long(&mut self, event: Event) -> Result<(), Trap> {
        let ext = event.ext();
        let offset = u64::from(event.vector) * 16;
        if offset + 15 > u64::from(self.idtr.limit) {
            return Err(self.raise(Exception::general_protection(event.gate_code())));
        }
        let address = self.idtr.base.wrapping_add(offset);
        let low = self.read_system(address)?;
        let high = self.read_system(address.wrapping_add(8))?;
        let gate = Gate::parse_long(low, high);
        if !matches!(gate.kind, kind::INTERRUPT_GATE | kind::TRAP_GATE) {
            return Err(self.raise(Exception::general_protection(event.gate_code())));
        }
        self.check_gate(&event, &gate)?;
        let code = self.gate_code_segment(gate.selector, ext)?.descriptor;
        let cpl = if code.is_conforming_code() { self.cpl } else { code.dpl() };
        let pointer = match gate.extra & 7 {
            0 if cpl < self.cpl => self.long_stack_pointer(u32::from(cpl) * 8 + 4, ext)?,
            0 => self.register(reg::RSP),
            number => self.long_stack_pointer(u32::from(number) * 8 + 28, ext)?,
        };
        self.check_target(code, gate.offset, ext)?;
        let mut stack = Stack::long(pointer & !15, cpl, ext);
        stack.push(self, u64::from(self.segments[usize::from(seg::SS)].selector))?;
        stack.push(self, self.register(reg::RSP))?;
        stack.push(self, self.pushed_flags(&event))?;
        stack.push(self, u64::from(self.segments[usize::from(seg::CS)].selector))?;
        stack.push(self, event.return_rip)?;
        if let Some(error_code) = event.error_code {
            stack.push(self, u64::from(error_code))?;
        }
        // Nothing fails from here on.
        if cpl < self.cpl {
            self.segments[usize::from(seg::SS)] = Self::null_stack_segment(cpl);
        }
        stack.commit(self);
        self.set_code_segment(code, gate.selector, cpl);
        self.rip = gate.offset;
        let cleared = Rflags::TF | Rflags::NT | Rflags::VM | Rflags::RF;
        self.enter_with_cleared(if gate.kind == kind::INTERRUPT_GATE { cleared | Rflags::IF } else { cleared });
        Ok(())
    }
}

impl Op {
    /// Where the instruction after this one starts.
    pub(crate) fn next_rip(&self, cpu: &CpuState) -> u64 {
        let next = cpu.rip.wrapping_add(u64::from(self.offset)).wrapping_add(u64::from(self.length));
        if cpu.in_64_bit_code() { next } else { next & 0xffff_ffff }
    }
}

/// INT n.
extern "C" fn interrupt(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    // Sensitive to IOPL in virtual-8086 mode; INT3 and INTO are not (SDM vol. 3 § 20.2.7).
    if cpu.virtual_8086() && !cpu.flags().contains(Rflags::IOPL) {
        return Err(cpu.raise(Exception::general_protection(0)));
    }
    cpu.software_interrupt(op.imm as u8, op.next_rip(cpu))?;
    Err(Trap::JUMP)
}

/// INT3.
extern "C" fn breakpoint(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    cpu.software_interrupt(Exception::BREAKPOINT.vector, op.next_rip(cpu))?;
    Err(Trap::JUMP)
}

/// INTO.
extern "C" fn overflow(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    if !cpu.flags().contains(Rflags::OF) {
        cpu.rip = op.next_rip(cpu);
        return Err(Trap::JUMP);
    }
    cpu.software_interrupt(Exception::OVERFLOW.vector, op.next_rip(cpu))?;
    Err(Trap::JUMP)
}

/// INT1: a debug exception that looks at no gate's privilege.
extern "C" fn debug_trap(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let event = Event::exception(Exception::DEBUG, op.next_rip(cpu));
    let pending = cpu.deliver(event)?;
    cpu.deliver_pending(pending)?;
    Err(Trap::JUMP)
}

/// The handler of an instruction that interrupts.
pub(super) fn select(instruction: &Instruction, _form: &Form, _op: &mut Op) -> Option<Handler> {
    Some(match instruction.mnemonic() {
        Mnemonic::Int => interrupt,
        Mnemonic::Int3 => breakpoint,
        Mnemonic::Into => overflow,
        Mnemonic::Int1 => debug_trap,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::{
        FREE_SELECTOR, Fixture, HANDLER, IDT, INNER_STACK, TSS, TSS_SELECTOR, descriptor, gate,
    };
    use crate::{
        engine::testing::{CODE, STACK},
        state::{Cr0, Rflags, Segment, reg, seg},
        trap::{Exception, Trap},
    };

    const RSP: usize = reg::RSP as usize;
    const SET: u64 = Rflags::FIXED.bits();
    const IF: u64 = Rflags::IF.bits();
    const TF: u64 = Rflags::TF.bits();
    const RF: u64 = Rflags::RF.bits();
    const VM: u64 = Rflags::VM.bits();
    const IOPL: u64 = Rflags::IOPL.bits();

    const fn gp(code: u32) -> Result<(), Exception> {
        Err(Exception::general_protection(code))
    }

    #[test]
    fn real_mode_pushes_three_words_and_goes_through_the_vector_table() {
        let mut fixture = Fixture::new(&[], 16);
        fixture.write(0x21 * 4, &[0x34, 0x12, 0x00, 0x20]);
        fixture.cpu().rflags = SET | IF | TF | Rflags::CF.bits();
        fixture.cpu().rip = CODE;
        assert_eq!(fixture.cpu().deliver_interrupt(0x21), Ok(()));
        assert_eq!(fixture.stack(2), [CODE, 0, SET | IF | TF | 1]);
        assert_eq!((fixture.cpu().rip, fixture.selector(seg::CS)), (0x1234, 0x2000));
        assert_eq!(fixture.cpu().segments[usize::from(seg::CS)].base, 0x2_0000);
        assert_eq!(fixture.cpu().rflags, SET | 1);
    }

    #[test]
    fn real_mode_exceptions_push_no_error_code() {
        let mut fixture = Fixture::new(&[], 16);
        fixture.write(13 * 4, &[0x34, 0x12, 0, 0]);
        assert_eq!(fixture.cpu().deliver_exception(Exception::general_protection(0), CODE), Ok(()));
        assert_eq!(fixture.rsp(), STACK - 6);
    }

    #[test]
    fn a_vector_table_without_entries_shuts_the_processor_down() {
        let mut fixture = Fixture::new(&[], 16);
        fixture.cpu().idtr.limit = 0;
        assert_eq!(fixture.cpu().deliver_interrupt(0x21), Err(Trap::SHUTDOWN));
        assert_eq!(fixture.rsp(), STACK);
    }

    #[test]
    fn faults_push_flags_with_rf_and_their_error_code() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_gate(14, gate(8, 0x1234_9000, 0x8e, 0));
        fixture.cpu().rflags = SET | IF | TF | Rflags::NT.bits();
        assert_eq!(fixture.cpu().deliver_exception(Exception::page_fault(2), CODE), Ok(()));
        assert_eq!(fixture.stack(4), [2, CODE, 8, SET | IF | TF | Rflags::NT.bits() | RF]);
        assert_eq!(fixture.rsp(), STACK - 16);
        assert_eq!((fixture.cpu().rip, fixture.cpu().rflags), (0x1234_9000, SET));
    }

    #[test]
    fn debug_traps_leave_rf_alone_and_end_general_detect() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_gate(1, gate(8, HANDLER, 0x8e, 0));
        fixture.cpu().dr[7] = 0x2400;
        assert_eq!(fixture.cpu().deliver_exception(Exception::DEBUG, CODE), Ok(()));
        assert_eq!(fixture.stack(4), [CODE, 8, SET]);
        assert_eq!(fixture.cpu().dr[7], 0x400);
    }

    #[test]
    fn trap_gates_leave_interrupts_enabled() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_gate(0x20, gate(8, HANDLER, 0x8f, 0));
        fixture.cpu().rflags = SET | IF;
        assert_eq!(fixture.cpu().deliver_interrupt(0x20), Ok(()));
        assert_eq!(fixture.cpu().rflags, SET | IF);
    }

    #[test]
    fn gates_of_16_bits_push_words() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_gate(13, gate(8, 0xffff_9000, 0x86, 0));
        assert_eq!(fixture.cpu().deliver_exception(Exception::general_protection(0x18), CODE), Ok(()));
        assert_eq!(fixture.stack(2), [0x18, CODE, 8, SET]);
        assert_eq!(fixture.cpu().rip, 0x9000);
    }

    #[test]
    fn user_code_is_left_for_the_stack_of_the_task_state_segment() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_gate(0x20, gate(8, HANDLER, 0x8e, 0));
        fixture.enter_user();
        fixture.cpu().gpr[RSP] = 0x6000;
        fixture.cpu().rip = CODE;
        assert_eq!(fixture.cpu().deliver_interrupt(0x20), Ok(()));
        assert_eq!(fixture.rsp(), INNER_STACK - 20);
        assert_eq!(fixture.stack(4), [CODE, 0x33, SET, 0x6000, 0x3b]);
        assert_eq!((fixture.cpu().cpl, fixture.selector(seg::CS), fixture.selector(seg::SS)), (0, 8, 0x10));
        assert_eq!(fixture.selector(seg::DS), 0x3b);
    }

    #[test]
    fn stacks_of_a_16_bit_task_state_segment_have_16_bit_pointers() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_gate(0x20, gate(8, HANDLER, 0x8e, 0));
        fixture.write(TSS + 2, &[0x00, 0x68, 0x10, 0x00]);
        fixture.cpu().tr.attributes = 0x83;
        fixture.enter_user();
        assert_eq!(fixture.cpu().deliver_interrupt(0x20), Ok(()));
        assert_eq!(fixture.rsp(), INNER_STACK - 20);
    }

    #[test]
    fn conforming_handlers_keep_the_privilege_level_and_the_stack() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_descriptor(FREE_SELECTOR, descriptor(0, 0xfffff, 0xc09e));
        fixture.set_gate(0x20, gate(FREE_SELECTOR, HANDLER, 0x8e, 0));
        fixture.enter_user();
        assert_eq!(fixture.cpu().deliver_interrupt(0x20), Ok(()));
        assert_eq!((fixture.cpu().cpl, fixture.selector(seg::CS), fixture.rsp()), (3, FREE_SELECTOR | 3, STACK - 12));
    }

    /// The exceptions of SDM vol. 2 "INT n", PROTECTED-MODE, each with its error code. `ext` is what an event from
    /// outside adds to it.
    #[test]
    fn bad_gates_and_segments_are_named_by_error_codes() {
        let free = u32::from(FREE_SELECTOR);
        let vector = 0x20 * 8 + 2;
        let ts = |code| Err(Exception::invalid_tss(code));
        let np = |code| Err(Exception::not_present(code));
        for (gate_raw, code_raw, user, expected) in [
            // Not a gate that interrupts use; not present.
            (gate(8, HANDLER, 0x8c, 0), 0, false, gp(vector)),
            (gate(8, HANDLER, 0xee, 0) & !(1 << 47), 0, false, np(vector)),
            // The code segment: null, beyond the table, no code, less privileged, not present.
            (gate(0, HANDLER, 0xee, 0), 0, false, gp(0)),
            (gate(0x1008, HANDLER, 0xee, 0), 0, false, gp(0x1008)),
            (gate(0x10, HANDLER, 0xee, 0), 0, false, gp(0x10)),
            (gate(0x33, HANDLER, 0xee, 0), 0, false, gp(0x30)),
            (gate(FREE_SELECTOR, HANDLER, 0xee, 0), descriptor(0, 0xfffff, 0xc01b), false, np(free)),
            // The offset is beyond the code segment.
            (gate(FREE_SELECTOR, HANDLER, 0xee, 0), descriptor(0, 0xfff, 0x409b), false, gp(0)),
            // The stack is that of level 1, which the task state segment has none for.
            (gate(FREE_SELECTOR, HANDLER, 0xee, 0), descriptor(0, 0xfffff, 0xc0bb), true, ts(0)),
        ] {
            for external in [false, true] {
                let mut fixture = Fixture::new(&[], 32);
                fixture.set_gate(0x20, gate_raw);
                fixture.set_descriptor(FREE_SELECTOR, code_raw);
                if user {
                    fixture.enter_user();
                }
                let origin = if external { super::Origin::External } else { super::Origin::Software };
                let event = super::Event { vector: 0x20, error_code: None, origin, return_rip: CODE, resume: false };
                let result = fixture.cpu().deliver(event).map(drop);
                let expected = expected.map_err(|exception: Exception| Exception {
                    error_code: exception.error_code.map(|code| code | u32::from(external)),
                    ..exception
                });
                assert_eq!(fixture.outcome(result), expected, "{gate_raw:#x}");
                assert_eq!(fixture.rsp(), STACK);
            }
        }
    }

    #[test]
    fn bad_inner_stacks_are_invalid_task_state_segments() {
        let free = u32::from(FREE_SELECTOR);
        for (ss, raw, limit, expected) in [
            (0, 0, 0x67, Exception::invalid_tss(0)),
            (0x1008, 0, 0x67, Exception::invalid_tss(0x1008)),
            (FREE_SELECTOR | 3, descriptor(0, 0xfffff, 0xc093), 0x67, Exception::invalid_tss(free)),
            (FREE_SELECTOR, descriptor(0, 0xfffff, 0xc091), 0x67, Exception::invalid_tss(free)),
            (FREE_SELECTOR, descriptor(0, 0xfffff, 0xc0f3), 0x67, Exception::invalid_tss(free)),
            (FREE_SELECTOR, descriptor(0, 0xfffff, 0xc013), 0x67, Exception::stack(free)),
            // No room for what is to be pushed.
            (FREE_SELECTOR, descriptor(0, 0xff, 0x4093), 0x67, Exception::stack(free)),
            // The task state segment ends before the stack pointer does.
            (0x10, 0, 8, Exception::invalid_tss(TSS_SELECTOR.into())),
        ] {
            let mut fixture = Fixture::new(&[], 32);
            fixture.set_gate(0x20, gate(8, HANDLER, 0xee, 0));
            fixture.set_descriptor(FREE_SELECTOR, raw);
            fixture.write(TSS + 8, &ss.to_le_bytes());
            fixture.enter_user();
            fixture.cpu().tr.limit = limit;
            let before = fixture.cpu().segments;
            let result = fixture.cpu().software_interrupt(0x20, CODE + 2);
            assert_eq!(fixture.outcome(result), Err(expected), "{ss:#x} {raw:#x}");
            assert_eq!((fixture.cpu().segments, fixture.cpu().cpl, fixture.rsp()), (before, 3, STACK));
        }
    }

    #[test]
    fn programs_may_only_use_gates_of_their_privilege() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_gate(0x20, gate(8, HANDLER, 0x8e, 0));
        fixture.set_gate(3, gate(8, HANDLER, 0x8e, 0));
        fixture.set_gate(0x80, gate(8, HANDLER, 0xee, 0));
        fixture.enter_user();
        // int 0x20; int3; int 0x80
        assert_eq!(fixture.execute(&[0xcd, 0x20]), gp(0x20 * 8 + 2));
        assert_eq!(fixture.execute(&[0xcc]), gp(3 * 8 + 2));
        assert_eq!(fixture.cpu().rip, CODE);
        assert_eq!(fixture.execute(&[0xcd, 0x80]), Ok(()));
        assert_eq!((fixture.cpu().rip, fixture.cpu().cpl), (HANDLER, 0));
        assert_eq!(fixture.stack(4), [CODE + 2, 0x33, SET]);
    }

    #[test]
    fn int1_asks_no_gate_for_permission() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_gate(1, gate(8, HANDLER, 0x8e, 0));
        fixture.enter_user();
        assert_eq!(fixture.execute(&[0xf1]), Ok(()));
        assert_eq!(fixture.stack(4), [CODE + 1, 0x33, SET]);
    }

    #[test]
    fn into_interrupts_on_overflow_alone() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_gate(4, gate(8, HANDLER, 0xee, 0));
        assert_eq!(fixture.execute(&[0xce]), Ok(()));
        assert_eq!(fixture.cpu().rip, CODE + 1);
        fixture.cpu().rflags |= Rflags::OF.bits();
        assert_eq!(fixture.execute(&[0xce]), Ok(()));
        assert_eq!(fixture.cpu().rip, HANDLER);
    }

    #[test]
    fn long_mode_pushes_five_quadwords_on_an_aligned_stack() {
        let mut fixture = Fixture::new(&[], 64);
        fixture.set_long_gate(0x20, gate(0x18, 0x9000, 0x8e, 0), 0xffff_8000);
        fixture.cpu().gpr[RSP] = STACK - 1;
        fixture.cpu().rflags = SET | IF;
        fixture.cpu().rip = 0xffff_8000_0000_1234;
        assert_eq!(fixture.cpu().deliver_interrupt(0x20), Ok(()));
        assert_eq!(fixture.rsp(), STACK - 16 - 40);
        assert_eq!(fixture.stack(8), [0xffff_8000_0000_1234, 0x18, SET | IF, STACK - 1, 0x10]);
        assert_eq!((fixture.cpu().rip, fixture.cpu().rflags), (0xffff_8000_0000_9000, SET));
        // Without a change of privilege, SS stays.
        assert_eq!(fixture.selector(seg::SS), 0x10);
    }

    #[test]
    fn long_mode_takes_the_stack_of_the_task_state_segment_and_a_null_stack_segment() {
        let mut fixture = Fixture::new(&[], 64);
        fixture.set_long_gate(14, gate(0x18, HANDLER, 0x8e, 0), 0);
        fixture.enter_user();
        assert_eq!(fixture.cpu().deliver_exception(Exception::page_fault(6), CODE), Ok(()));
        assert_eq!(fixture.rsp(), INNER_STACK - 48);
        assert_eq!(fixture.stack(8), [6, CODE, 0x43, SET | RF, STACK, 0x3b]);
        assert_eq!((fixture.cpu().cpl, fixture.selector(seg::SS), fixture.selector(seg::DS)), (0, 0, 0x3b));
    }

    #[test]
    fn interrupt_stacks_are_used_from_every_privilege_level() {
        for user in [false, true] {
            let mut fixture = Fixture::new(&[], 64);
            fixture.set_long_gate(2, gate(0x18, HANDLER, 0x8e, 3), 0);
            fixture.write(TSS + 0x34, &0x6408_u64.to_le_bytes());
            if user {
                fixture.enter_user();
            }
            assert_eq!(fixture.cpu().deliver_nmi(), Ok(()));
            assert_eq!(fixture.rsp(), 0x6400 - 40);
            assert_eq!(fixture.selector(seg::SS), if user { 0 } else { 0x10 });
            assert!(fixture.cpu().nmi_blocked);
        }
    }

    #[test]
    fn long_mode_gates_lead_to_64_bit_code_at_canonical_addresses() {
        let vector = 0x20 * 16;
        for (low, high, expected) in [
            (gate(8, HANDLER, 0xee, 0), 0, gp(8)),
            (gate(0x18, HANDLER, 0xee, 0), 0x8000, gp(0)),
            (gate(0x18, HANDLER, 0xe5, 0), 0, gp(0x20 * 8 + 2)),
            (gate(0x18, HANDLER, 0xe6, 0), 0, gp(0x20 * 8 + 2)),
            (gate(0x18, HANDLER, 0x6e, 0), 0, Err(Exception::not_present(0x20 * 8 + 2))),
        ] {
            let mut fixture = Fixture::new(&[], 64);
            fixture.write(IDT + vector, &low.to_le_bytes());
            fixture.write(IDT + vector + 8, &u64::to_le_bytes(high));
            assert_eq!(fixture.execute(&[0xcd, 0x20]), expected, "{low:#x}");
        }
        // Beyond the table.
        let mut fixture = Fixture::new(&[], 64);
        fixture.cpu().idtr.limit = 0x20e;
        assert_eq!(fixture.execute(&[0xcd, 0x20]), gp(0x102));
        // A stack that is not canonical.
        let mut fixture = Fixture::new(&[], 64);
        fixture.set_long_gate(0x20, gate(0x18, HANDLER, 0xee, 0), 0);
        fixture.write(TSS + 4, &0x8000_0000_0100_u64.to_le_bytes());
        fixture.enter_user();
        assert_eq!(fixture.execute(&[0xcd, 0x20]), Err(Exception::stack(0)));
    }

    #[test]
    fn a_fault_while_a_contributory_one_is_delivered_is_a_double_fault() {
        let mut fixture = Fixture::new(&[], 32);
        // #GP's gate is absent, which is #NP; the handler of #DF is there.
        fixture.set_gate(13, gate(8, HANDLER, 0x0e, 0));
        fixture.set_gate(8, gate(8, HANDLER + 0x100, 0x8e, 0));
        assert_eq!(fixture.cpu().deliver_exception(Exception::general_protection(0x10), CODE), Ok(()));
        assert_eq!(fixture.cpu().rip, HANDLER + 0x100);
        assert_eq!(fixture.stack::<3>(4), [0, CODE, 8]);
    }

    /// SDM vol. 3 table 6-5.
    #[test]
    fn exceptions_combine_as_the_table_says() {
        const DE: Exception = Exception::DIVIDE;
        const UD: Exception = Exception::INVALID_OPCODE;
        const GP: Exception = Exception::general_protection(0);
        const PF: Exception = Exception::page_fault(0);
        const DF: Exception = Exception::DOUBLE_FAULT;
        for (first, second, expected) in [
            (UD, GP, Some(13)),
            (UD, PF, Some(14)),
            (DE, GP, Some(8)),
            (GP, GP, Some(8)),
            (GP, PF, Some(14)),
            (GP, UD, Some(6)),
            (PF, GP, Some(8)),
            (PF, PF, Some(8)),
            (PF, UD, Some(6)),
            (DF, GP, None),
            (DF, PF, None),
        ] {
            let result = super::combine(&super::Event::exception(first, 0), super::Event::exception(second, 0));
            assert_eq!(result.map(|event| event.vector), expected, "{first:?} then {second:?}");
        }
    }

    #[test]
    fn errors_found_while_an_interrupt_is_delivered_have_the_external_bit() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_gate(11, gate(8, HANDLER, 0x8e, 0));
        fixture.set_gate(0x20, gate(8, HANDLER, 0x0e, 0));
        fixture.cpu().rip = CODE;
        assert_eq!(fixture.cpu().deliver_interrupt(0x20), Ok(()));
        assert_eq!(fixture.stack::<2>(4), [0x20 * 8 + 3, CODE]);
    }

    #[test]
    fn an_empty_interrupt_table_is_a_triple_fault() {
        for bits in [32, 64] {
            let mut fixture = Fixture::new(&[], bits);
            assert_eq!(fixture.cpu().deliver_exception(Exception::INVALID_OPCODE, CODE), Err(Trap::SHUTDOWN));
        }
    }

    /// Puts the processor into virtual-8086 mode, at 0x800:0 (which is [`CODE`]).
    fn enter_virtual_8086(fixture: &mut Fixture, iopl: u64) {
        let cpu = fixture.cpu();
        cpu.rflags = SET | VM | IF | iopl;
        cpu.cpl = 3;
        for segment in seg::ES..=seg::GS {
            cpu.segments[usize::from(segment)] = cpu.paragraph_segment(segment, 0x800 + u16::from(segment));
        }
        cpu.gpr[RSP] = 0x100;
        cpu.update_mode();
    }

    #[test]
    fn virtual_8086_mode_is_left_and_returned_to_with_all_its_segments() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_gate(13, gate(8, HANDLER, 0x8e, 0));
        enter_virtual_8086(&mut fixture, 0);
        let before = fixture.cpu().segments;
        assert_eq!(fixture.cpu().deliver_exception(Exception::general_protection(0), 0x12), Ok(()));
        assert_eq!(fixture.rsp(), INNER_STACK - 40);
        let flags = SET | VM | IF;
        assert_eq!(fixture.stack(4), [0, 0x12, 0x801, flags | RF, 0x100, 0x802, 0x800, 0x803, 0x804, 0x805]);
        assert_eq!((fixture.cpu().cpl, fixture.cpu().rflags), (0, SET));
        assert_eq!([seg::ES, seg::DS, seg::FS, seg::GS].map(|segment| fixture.selector(segment)), [0; 4]);
        // add esp, 4; iretd
        fixture.cpu().gpr[RSP] += 4;
        assert_eq!(fixture.execute(&[0xcf]), Ok(()));
        assert_eq!((fixture.cpu().cpl, fixture.cpu().rflags, fixture.cpu().rip), (3, flags | RF, 0x12));
        assert_eq!((fixture.cpu().segments, fixture.rsp()), (before, 0x100));
    }

    #[test]
    fn virtual_8086_programs_need_the_io_privilege_level_for_int_but_not_for_int3() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_gate(0x21, gate(8, HANDLER, 0xee, 0));
        fixture.set_gate(3, gate(8, HANDLER, 0xee, 0));
        enter_virtual_8086(&mut fixture, IOPL & 0x2000);
        assert_eq!(fixture.execute(&[0xcd, 0x21]), gp(0));
        assert_eq!(fixture.execute(&[0xcc]), Ok(()));
        enter_virtual_8086(&mut fixture, IOPL);
        assert_eq!(fixture.execute(&[0xcd, 0x21]), Ok(()));
        assert_eq!(fixture.cpu().rip, HANDLER);
    }

    #[test]
    fn virtual_8086_mode_is_only_left_for_privilege_level_0() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_descriptor(FREE_SELECTOR, descriptor(0, 0xfffff, 0xc09e));
        fixture.set_gate(0x21, gate(FREE_SELECTOR, HANDLER, 0xee, 0));
        enter_virtual_8086(&mut fixture, IOPL);
        assert_eq!(fixture.execute(&[0xcd, 0x21]), gp(FREE_SELECTOR.into()));
    }

    #[test]
    fn a_task_gate_hands_the_error_code_to_the_new_task() {
        use super::super::fixture::OTHER_TSS;
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_descriptor(FREE_SELECTOR, descriptor(OTHER_TSS, 0x67, 0x89));
        fixture.set_gate(8, gate(FREE_SELECTOR, 0, 0x85, 0));
        for (offset, value) in [(32, HANDLER), (36, 2), (56, INNER_STACK), (76, 8), (80, 0x10), (84, 0x10)] {
            fixture.write(OTHER_TSS + offset, &(value as u32).to_le_bytes());
        }
        // Nothing can be pushed here: #SS, and #DF because there is no handler for it, which needs no stack.
        fixture.cpu().segments[usize::from(seg::SS)].limit = 0;
        fixture.set_gate(13, gate(8, HANDLER, 0x8e, 0));
        assert_eq!(fixture.cpu().deliver_exception(Exception::general_protection(0), CODE), Ok(()));
        assert_eq!((fixture.cpu().rip, fixture.rsp()), (HANDLER, INNER_STACK - 4));
        assert_eq!(fixture.stack::<1>(4), [0]);
        assert_eq!(fixture.cpu().tr.selector, FREE_SELECTOR);
        assert_eq!(fixture.read_u16(OTHER_TSS), TSS_SELECTOR);
        assert_eq!(fixture.read_u32(TSS + 32), CODE as u32);
    }

    proptest! {
        /// Whatever the tables hold, a delivery ends, and it ends in success or shutdown.
        #[test]
        fn no_table_makes_a_delivery_panic(
            tables in proptest::collection::vec(any::<u64>(), 96),
            kinds in proptest::collection::vec(0_u8..16, 64),
            vector in 0_u8..32,
            bits in proptest::sample::select(vec![16_u8, 32, 64]),
            user in any::<bool>(),
            virtual_8086 in any::<bool>(),
            base in any::<u32>(),
        ) {
            let mut fixture = Fixture::new(&[], bits);
            for (i, &raw) in tables.iter().take(64).enumerate() {
                // Mostly present gates that lead into the table's first entries.
                let kind = kinds[i];
                let raw = raw & !0xff80_fff8_0000 & !(0x1f << 40) | u64::from(kind) << 40 | u64::from(vector & 7) << 19;
                fixture.write(IDT + 8 * i as u64, &raw.to_le_bytes());
            }
            for (i, &raw) in tables[64..].iter().enumerate() {
                fixture.write(0x1000 + 8 * i as u64, &raw.to_le_bytes());
            }
            fixture.write(TSS, &tables[0].to_le_bytes());
            fixture.cpu().tr.base = u64::from(base) % 0x8000;
            if bits != 16 && user {
                fixture.enter_user();
                if bits == 32 && virtual_8086 {
                    enter_virtual_8086(&mut fixture, 0);
                }
            }
            let exception = Exception::with_code(vector, 0);
            let result = fixture.cpu().deliver_exception(exception, CODE);
            prop_assert!(matches!(result, Ok(()) | Err(Trap::SHUTDOWN)), "{result:?}");
        }
    }

    #[test]
    fn the_first_delivery_after_power_on_works_without_tables() {
        let mut fixture = Fixture::new(&[], 16);
        fixture.cpu().reset();
        fixture.cpu().segments[usize::from(seg::SS)] =
            Segment { base: 0, limit: 0xffff, attributes: 0x93, selector: 0 };
        fixture.cpu().gpr[RSP] = STACK;
        fixture.write(2 * 4, &[0x00, 0x90, 0, 0]);
        assert_eq!(fixture.cpu().deliver_nmi(), Ok(()));
        assert!(!fixture.cpu().cr0_has(Cr0::PE));
        assert_eq!(fixture.stack::<2>(2), [0xfff0, 0xf000]);
    }
}
