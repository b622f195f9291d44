//! IRET in every mode, and the return to a code segment that it shares with RETF. SDM vol. 2 IRET; vol. 3 § 6.12.1,
//! § 6.14.3 (long mode), § 20.2.3 (virtual-8086 mode).

use iced_x86::{Instruction, Mnemonic};

use crate::{
    decode::Form,
    op::{Handler, Op},
    protection::{
        address::attribute,
        descriptors::{Descriptor, is_null, rpl},
        stack::Stack,
    },
    state::{CpuState, Cr0, Rflags, reg, seg},
    trap::{Exception, Trap},
};

/// Flags that an IRET of 16 bits loads where nothing forbids: the arithmetic ones, TF, IF, DF, IOPL, NT.
const FLAGS_16: Rflags = Rflags::from_bits_retain(0x7fd5);

/// The flags that an IRET of `size` bytes may load in real mode and at CPL 0.
fn loadable_flags(size: u8) -> Rflags {
    if size == 2 { FLAGS_16 } else { FLAGS_16 | Rflags::RF | Rflags::AC | Rflags::ID }
}

impl CpuState {
    /// Replaces those flags that are in `mask`.
    fn replace_flags(&mut self, image: u64, mask: Rflags) {
        self.rflags = self.rflags & !mask.bits() | image & mask.bits();
    }

    /// The code segment that a far return goes to, at its own or an outer privilege level.
    fn return_code_segment(&mut self, selector: u16) -> Result<Descriptor, Trap> {
        let fault = Exception::general_protection;
        if is_null(selector) {
            return Err(self.raise(fault(0)));
        }
        let mut code = self.descriptor(selector, fault, 0)?;
        let descriptor = code.descriptor;
        let fits = if descriptor.has(attribute::CONFORMING) {
            descriptor.dpl() <= rpl(selector)
        } else {
            descriptor.dpl() == rpl(selector)
        };
        if !descriptor.is_code() || rpl(selector) < self.cpl || !fits {
            return Err(self.fail(fault, selector, 0));
        }
        if self.is_long_code(descriptor) && descriptor.has(attribute::BIG) {
            return Err(self.fail(fault, selector, 0));
        }
        if !descriptor.is_present() {
            return Err(self.fail(Exception::not_present, selector, 0));
        }
        self.mark_accessed(&mut code)?;
        Ok(code.descriptor)
    }

    /// Returns to `selector:offset`, which were popped from `stack`, releasing `release` more bytes. If the privilege
    /// level changes, or `with_stack` demands it, SS and the stack pointer are popped as well. The mode is not updated
    /// yet.
    pub(crate) fn return_far(
        &mut self,
        mut stack: Stack,
        size: u8,
        (selector, offset): (u16, u64),
        release: u64,
        with_stack: bool,
    ) -> Result<(), Trap> {
        let code = self.return_code_segment(selector)?;
        let cpl = rpl(selector);
        let outer = cpl > self.cpl;
        stack.drop(release);
        if outer || with_stack {
            let pointer = stack.pop_sized(self, size)?;
            let stack_selector = stack.pop_sized(self, size)? as u16;
            let segment = if !is_null(stack_selector) {
                self.stack_segment(stack_selector, cpl, Exception::general_protection, 0)?
            } else if self.is_long_code(code) && cpl != 3 {
                let mut segment = Self::null_stack_segment(cpl);
                segment.selector = stack_selector;
                segment
            } else {
                return Err(self.raise(Exception::general_protection(0)));
            };
            self.check_target(code, offset, 0)?;
            self.segments[usize::from(seg::SS)] = segment;
            self.set_code_segment(code, selector, cpl);
            self.set_stack_pointer(pointer.wrapping_add(release));
            if outer {
                self.drop_inner_segments();
            }
        } else {
            self.check_target(code, offset, 0)?;
            stack.commit(self);
            self.set_code_segment(code, selector, cpl);
        }
        self.rip = offset;
        Ok(())
    }

    /// IRET in real mode, and in virtual-8086 mode with IOPL 3.
    fn return_to_paragraph(&mut self, size: u8, loadable: Rflags) -> Result<(), Trap> {
        let mut stack = Stack::current(self);
        let offset = stack.pop_sized(self, size)?;
        let selector = stack.pop_sized(self, size)? as u16;
        let flags = stack.pop_sized(self, size)?;
        let segment = self.paragraph_segment(seg::CS, selector);
        if offset > u64::from(segment.limit) {
            return Err(self.raise(Exception::general_protection(0)));
        }
        stack.commit(self);
        self.segments[usize::from(seg::CS)] = segment;
        self.rip = offset;
        self.replace_flags(flags, loadable);
        Ok(())
    }

    /// IRET of 32 bits at CPL 0 that finds VM set in the flags to be loaded.
    fn return_to_virtual_8086(
        &mut self,
        mut stack: Stack,
        (selector, offset): (u16, u64),
        flags: u64,
    ) -> Result<(), Trap> {
        let pointer = stack.pop::<u32>(self)?;
        let mut selectors = [0; 6];
        selectors[usize::from(seg::CS)] = selector;
        for segment in [seg::SS, seg::ES, seg::DS, seg::FS, seg::GS] {
            selectors[usize::from(segment)] = stack.pop::<u32>(self)? as u16;
        }
        if offset > 0xffff {
            return Err(self.raise(Exception::general_protection(0)));
        }
        self.replace_flags(flags, loadable_flags(4) | Rflags::VM | Rflags::VIF | Rflags::VIP);
        for segment in seg::ES..=seg::GS {
            self.segments[usize::from(segment)] = self.paragraph_segment(segment, selectors[usize::from(segment)]);
        }
        self.cpl = 3;
        self.gpr[usize::from(reg::RSP)] = u64::from(pointer);
        self.rip = offset;
        Ok(())
    }

    fn return_protected(&mut self, size: u8) -> Result<(), Trap> {
        let mut stack = Stack::current(self);
        let offset = stack.pop_sized(self, size)?;
        let selector = stack.pop_sized(self, size)? as u16;
        let flags = stack.pop_sized(self, size)?;
        if size == 4 && flags & Rflags::VM.bits() != 0 && self.cpl == 0 && !self.long_mode() {
            return self.return_to_virtual_8086(stack, (selector, offset), flags);
        }
        let mut loadable = loadable_flags(size);
        if self.cpl > self.io_privilege() {
            loadable -= Rflags::IF;
        }
        if self.cpl > 0 {
            loadable -= Rflags::IOPL;
        } else if size != 2 {
            loadable |= Rflags::VIF | Rflags::VIP;
        }
        self.return_far(stack, size, (selector, offset), 0, self.in_64_bit_code())?;
        self.replace_flags(flags, loadable);
        Ok(())
    }

    /// The I/O privilege level.
    #[inline(always)]
    pub fn io_privilege(&self) -> u8 {
        (self.rflags >> 12 & 3) as u8
    }
}

/// IRET, IRETD, IRETQ: `size` is the operand size.
extern "C" fn interrupt_return(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    // Even one that faults lets NMIs in again (SDM vol. 3 § 6.7.1).
    cpu.nmi_blocked = false;
    if !cpu.cr0_has(Cr0::PE) {
        cpu.return_to_paragraph(op.size, loadable_flags(op.size))?;
    } else if cpu.virtual_8086() {
        if cpu.io_privilege() != 3 {
            return Err(cpu.raise(Exception::general_protection(0)));
        }
        cpu.return_to_paragraph(op.size, loadable_flags(op.size) - Rflags::IOPL)?;
    } else if !cpu.flags().contains(Rflags::NT) {
        cpu.return_protected(op.size)?;
    } else if cpu.long_mode() {
        return Err(cpu.raise(Exception::general_protection(0)));
    } else {
        let pending = cpu.return_from_task(op.next_rip(cpu))?;
        cpu.deliver_pending(pending)?;
    }
    cpu.update_mode();
    Err(Trap::JUMP)
}

/// The handler of IRET.
pub(super) fn select(instruction: &Instruction, _form: &Form, op: &mut Op) -> Option<Handler> {
    op.size = match instruction.mnemonic() {
        Mnemonic::Iret => 2,
        Mnemonic::Iretd => 4,
        Mnemonic::Iretq => 8,
        _ => return None,
    };
    Some(interrupt_return)
}
