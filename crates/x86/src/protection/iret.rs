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
        virtual_interrupts::InterruptFlag,
    },
    state::{CpuState, Cr0, Rflags, reg, seg},
    system::serialize,
    trap::{Exception, Trap},
};

/// Flags that an IRET of 16 bits loads where nothing forbids: the arithmetic ones, TF, IF, DF, IOPL, NT.
const FLAGS_16: Rflags = Rflags::from_bits_retain(0x7fd5);

/// The flags that an IRET of `size` bytes may load in real mode and at CPL 0, RF apart.
fn loadable_flags(size: u8) -> Rflags {
    if size == 2 { FLAGS_16 } else { FLAGS_16 | Rflags::AC | Rflags::ID }
}

impl CpuState {
    /// Replaces those flags that are in `mask`.
    fn replace_flags(&mut self, image: u64, mut mask: Rflags) {
        // RF holds breakpoints off until the next instruction has ended, and is cleared then: it is loaded where there are
        // any. IRETs of 32 and 64 bits have it.
        if self.engine.breakpoints.armed && mask.contains(Rflags::ID) {
            mask |= Rflags::RF;
        }
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
            let stack_selector = stack.pop_selector(self, size)?;
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
    serialize();
    // Even one that faults lets NMIs in again (SDM vol. 3 § 6.7.1).
    cpu.nmi_blocked = false;
    if !cpu.cr0_has(Cr0::PE) {
        cpu.return_to_paragraph(op.size, loadable_flags(op.size))?;
    } else if cpu.virtual_8086() {
        let loadable = loadable_flags(op.size) - Rflags::IOPL;
        if cpu.interrupt_flag_in_image(usize::from(op.size))? == InterruptFlag::Virtual {
            let image = u64::from(cpu.stack_top::<u16>(4)?);
            cpu.check_virtual_flags(image)?;
            cpu.return_to_paragraph(op.size, loadable - Rflags::IF)?;
            cpu.set_virtual_interrupt_flag(image & Rflags::IF.bits() != 0);
        } else {
            cpu.return_to_paragraph(op.size, loadable)?;
        }
    } else if !cpu.flags().contains(Rflags::NT) {
        cpu.return_protected(op.size)?;
    } else if cpu.long_mode() {
        return Err(cpu.raise(Exception::general_protection(0)));
    } else {
        let pending = cpu.return_from_task(op.next_rip(cpu))?;
        cpu.deliver_pending(pending)?;
        cpu.update_mode();
        return Err(Trap::JUMP);
    }
    cpu.update_mode();
    Err(Trap::RETURN)
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

#[cfg(test)]
mod tests {
    use super::super::fixture::{FREE_SELECTOR, Fixture, HANDLER, OTHER_TSS, TSS, TSS_SELECTOR, descriptor};
    use crate::{
        engine::testing::STACK,
        state::{Rflags, reg, seg},
        trap::Exception,
    };

    const TOP: u64 = STACK - 0x100;
    const IRET: &[u8] = &[0xcf];
    const IRETQ: &[u8] = &[0x48, 0xcf];
    const RSP: usize = reg::RSP as usize;
    const IOPL: u64 = Rflags::IOPL.bits();

    const fn gp(code: u32) -> Result<(), Exception> {
        Err(Exception::general_protection(code))
    }

    #[test]
    fn real_mode_takes_address_and_flags_from_the_stack() {
        let mut fixture = Fixture::new(&[], 16);
        fixture.set_stack(TOP, 2, &[0x1234, 0x2000, 0x7fd5]);
        fixture.cpu().nmi_blocked = true;
        assert_eq!(fixture.execute(IRET), Ok(()));
        assert_eq!((fixture.cpu().rip, fixture.selector(seg::CS), fixture.rsp()), (0x1234, 0x2000, TOP + 6));
        assert_eq!(fixture.cpu().rflags, 0x7fd7);
        assert!(!fixture.cpu().nmi_blocked);
    }

    #[test]
    fn a_32_bit_return_in_real_mode_keeps_vm_out() {
        let mut fixture = Fixture::new(&[], 16);
        fixture.set_stack(TOP, 4, &[0x1234, 0x2000, 0xffff_ffff]);
        assert_eq!(fixture.execute(&[0x66, 0xcf]), Ok(()));
        assert_eq!(fixture.cpu().rflags, 0x24_7fd7);
        fixture.set_stack(TOP, 4, &[0x1_0000, 0x2000, 2]);
        assert_eq!(fixture.execute(&[0x66, 0xcf]), gp(0));
        assert_eq!(fixture.rsp(), TOP);
    }

    #[test]
    fn a_return_to_the_same_privilege_level_leaves_ss_alone() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_stack(TOP, 4, &[HANDLER, 8, 0x4ad7, 0xdead, 0xbeef]);
        assert_eq!(fixture.execute(IRET), Ok(()));
        assert_eq!((fixture.cpu().rip, fixture.rsp(), fixture.selector(seg::SS)), (HANDLER, TOP + 12, 0x10));
        assert_eq!(fixture.cpu().rflags, 0x4ad7);
    }

    #[test]
    fn a_return_to_user_code_takes_its_stack_and_drops_inner_segments() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_stack(TOP, 4, &[HANDLER, 0x33, 0x3202, 0x6000, 0x3b]);
        let result = fixture.cpu().load_segment(seg::ES, 0x3b);
        assert_eq!(fixture.outcome(result), Ok(()));
        assert_eq!(fixture.execute(IRET), Ok(()));
        assert_eq!((fixture.cpu().cpl, fixture.rsp(), fixture.selector(seg::SS)), (3, 0x6000, 0x3b));
        assert_eq!(fixture.selector(seg::CS), 0x33);
        assert_eq!([seg::ES, seg::DS, seg::FS, seg::GS].map(|segment| fixture.selector(segment)), [0x3b, 0, 0, 0]);
        assert_eq!(fixture.cpu().rflags, 0x3202);
        let result = fixture.cpu().linear_at(seg::DS, 0, 1, crate::access::Access::Read).map(drop);
        assert_eq!(fixture.outcome(result), gp(0));
    }

    #[test]
    fn a_return_to_a_16_bit_stack_keeps_the_upper_half_of_esp() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_descriptor(FREE_SELECTOR, descriptor(0, 0xffff, 0x00f3));
        fixture.set_stack(TOP, 4, &[HANDLER, 0x33, 2, 0x9999_6000, u64::from(FREE_SELECTOR | 3)]);
        fixture.cpu().gpr[RSP] = TOP;
        assert_eq!(fixture.execute(IRET), Ok(()));
        assert_eq!(fixture.rsp(), 0x6000);
    }

    /// SDM vol. 2 IRET: IOPL belongs to CPL 0, IF to IOPL.
    #[test]
    fn privileged_flags_are_kept_from_programs() {
        for (iopl, expected) in [(0, 2), (3, 0x202)] {
            let mut fixture = Fixture::new(&[], 32);
            fixture.enter_user();
            fixture.cpu().rflags = 2 | iopl << 12;
            fixture.set_stack(TOP, 4, &[HANDLER, 0x33, 0x1e_3202 ^ IOPL]);
            assert_eq!(fixture.execute(IRET), Ok(()));
            // AC may be set by anybody; VM, VIF and VIP may not.
            assert_eq!(fixture.cpu().rflags, expected | iopl << 12 | Rflags::AC.bits());
        }
    }

    #[test]
    fn bad_return_frames_are_named_by_error_codes() {
        let free = u32::from(FREE_SELECTOR);
        for (raw, cs, rip, ss, expected) in [
            (0, 0, HANDLER, 0x3b, gp(0)),
            (0, 0x1008, HANDLER, 0x3b, gp(0x1008)),
            (0, 0x10, HANDLER, 0x3b, gp(0x10)),
            (0, 0x0b, HANDLER, 0x3b, gp(8)),
            (0, 0x30, HANDLER, 0x3b, gp(0x30)),
            (descriptor(0, 0xfffff, 0xc01b), FREE_SELECTOR, HANDLER, 0x3b, Err(Exception::not_present(free))),
            (descriptor(0, 0xfff, 0x409b), FREE_SELECTOR, HANDLER, 0x3b, gp(0)),
            (0, 0x33, HANDLER, 0, gp(0)),
            (0, 0x33, HANDLER, 0x38, gp(0x38)),
            (0, 0x33, HANDLER, 0x13, gp(0x10)),
            (0, 0x33, HANDLER, 0x33, gp(0x30)),
            (descriptor(0, 0xfffff, 0xc073), 0x33, HANDLER, FREE_SELECTOR | 3, Err(Exception::stack(free))),
        ] {
            let mut fixture = Fixture::new(&[], 32);
            fixture.set_descriptor(FREE_SELECTOR, raw);
            fixture.set_stack(TOP, 4, &[rip, u64::from(cs), 2, 0x6000, u64::from(ss)]);
            let before = fixture.cpu().segments;
            assert_eq!(fixture.execute(IRET), expected, "cs {cs:#x} ss {ss:#x} {raw:#x}");
            assert_eq!((fixture.cpu().segments, fixture.rsp(), fixture.cpu().cpl), (before, TOP, 0));
        }
        let mut fixture = Fixture::new(&[], 32);
        fixture.enter_user();
        fixture.set_stack(TOP, 4, &[HANDLER, 8, 2]);
        assert_eq!(fixture.execute(IRET), gp(8));
    }

    #[test]
    fn code_of_64_bits_always_gets_its_stack_back() {
        let mut fixture = Fixture::new(&[], 64);
        fixture.set_stack(TOP, 8, &[0xffff_8000_0000_1000, 0x18, 0x202, 0xffff_8000_0000_2000, 0]);
        assert_eq!(fixture.execute(IRETQ), Ok(()));
        assert_eq!((fixture.cpu().rip, fixture.rsp()), (0xffff_8000_0000_1000, 0xffff_8000_0000_2000));
        assert_eq!((fixture.selector(seg::SS), fixture.cpu().rflags), (0, 0x202));
    }

    #[test]
    fn long_mode_returns_to_user_code_of_both_sizes() {
        for (cs, rsp, ss, bits) in [(0x43, 0x7fff_0000_0000, 0x3b, 64), (0x33, 0x6000, 0x3b, 32)] {
            let mut fixture = Fixture::new(&[], 64);
            fixture.cpu().segments[usize::from(seg::GS)].base = 0xffff_8000_1234_0000;
            fixture.cpu().segments[usize::from(seg::GS)].selector = 0;
            fixture.cpu().segments[usize::from(seg::GS)].attributes = 0;
            fixture.set_stack(TOP, 8, &[HANDLER, cs, 0x202, rsp, ss]);
            assert_eq!(fixture.execute(IRETQ), Ok(()));
            assert_eq!((fixture.cpu().cpl, fixture.rsp(), fixture.cpu().mode().code_bits()), (3, rsp, bits));
            assert_eq!(fixture.cpu().segments[usize::from(seg::GS)].base, 0xffff_8000_1234_0000);
        }
    }

    #[test]
    fn long_mode_refuses_user_code_without_stack_segment_and_bad_addresses() {
        for (frame, expected) in [
            ([HANDLER, 0x43, 2, 0x6000, 0], gp(0)),
            ([HANDLER, 0x08, 2, 0x6000, 0], gp(0)),
            ([0x8000_0000_0000, 0x18, 2, 0x6000, 0], gp(0)),
            ([HANDLER, 0x18, 2, 0x6000, 0x3b], gp(0x38)),
        ] {
            let mut fixture = Fixture::new(&[], 64);
            fixture.set_stack(TOP, 8, &frame);
            assert_eq!(fixture.execute(IRETQ), expected, "{frame:x?}");
        }
        let mut fixture = Fixture::new(&[], 64);
        fixture.cpu().rflags |= Rflags::NT.bits();
        assert_eq!(fixture.execute(IRETQ), gp(0));
    }

    #[test]
    fn virtual_8086_programs_return_by_themselves_with_the_io_privilege_level() {
        let mut fixture = Fixture::new(&[], 32);
        let cpu = fixture.cpu();
        cpu.rflags = 2 | Rflags::VM.bits();
        cpu.cpl = 3;
        for segment in seg::ES..=seg::GS {
            cpu.segments[usize::from(segment)] = cpu.paragraph_segment(segment, 0);
        }
        fixture.set_stack(TOP, 2, &[0x1234, 0x2000, 0x0202]);
        assert_eq!(fixture.execute(IRET), gp(0));
        fixture.cpu().rflags |= IOPL;
        assert_eq!(fixture.execute(IRET), Ok(()));
        assert_eq!(fixture.cpu().rflags, 0x202 | IOPL | Rflags::VM.bits());
        assert_eq!(fixture.cpu().segments[usize::from(seg::CS)].base, 0x2_0000);
    }

    #[test]
    fn nested_tasks_return_to_the_one_before() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_descriptor(FREE_SELECTOR, descriptor(OTHER_TSS, 0x67, 0x8b));
        fixture.write(TSS, &FREE_SELECTOR.to_le_bytes());
        for (offset, value) in [(32, HANDLER), (36, 2), (56, STACK), (76, 8), (80, 0x10)] {
            fixture.write(OTHER_TSS + offset, &(value as u32).to_le_bytes());
        }
        fixture.cpu().rflags |= Rflags::NT.bits();
        assert_eq!(fixture.execute(IRET), Ok(()));
        assert_eq!((fixture.cpu().rip, fixture.cpu().tr.selector), (HANDLER, FREE_SELECTOR));
        // The old task is available again, and its saved flags have no NT.
        assert_eq!(fixture.read_u64(0x1000 + u64::from(TSS_SELECTOR)) >> 40 & 0xff, 0x89);
        assert_eq!(fixture.read_u32(TSS + 36), 2);
        assert_eq!(fixture.read_u64(0x1000 + u64::from(FREE_SELECTOR)) >> 40 & 0xff, 0x8b);
    }

    #[test]
    fn the_task_before_must_be_a_busy_one() {
        for (link, raw, expected) in [
            (FREE_SELECTOR, descriptor(OTHER_TSS, 0x67, 0x89), Exception::invalid_tss(FREE_SELECTOR.into())),
            (FREE_SELECTOR, descriptor(OTHER_TSS, 0x67, 0x0b), Exception::not_present(FREE_SELECTOR.into())),
            (FREE_SELECTOR, descriptor(OTHER_TSS, 0x66, 0x8b), Exception::invalid_tss(FREE_SELECTOR.into())),
            (FREE_SELECTOR | 4, 0, Exception::invalid_tss(u32::from(FREE_SELECTOR | 4))),
            (0, 0, Exception::invalid_tss(0)),
        ] {
            let mut fixture = Fixture::new(&[], 32);
            fixture.set_descriptor(FREE_SELECTOR, raw);
            fixture.write(TSS, &link.to_le_bytes());
            fixture.cpu().rflags |= Rflags::NT.bits();
            assert_eq!(fixture.execute(IRET), Err(expected), "{link:#x} {raw:#x}");
        }
    }
}
