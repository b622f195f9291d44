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
    system::msr::BRANCH_TRAP,
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
            // And of branches (SDM vol. 3 § 17.4.3).
            self.msr.debugctl &= !BRANCH_TRAP;
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
        self.engine.breakpoints.stack_loaded = false;
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
    if cpu.virtual_8086() && cpu.interrupt_in_virtual_8086(op.imm as u8, op)? {
        return Err(Trap::JUMP);
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
mod tests;
