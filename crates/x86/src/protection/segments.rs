//! Loading segment registers, with the checks of each mode, and instructions that do so or ask about selectors.
//! SDM vol. 3 ch. 5, § 20.1 (virtual-8086 mode); vol. 2 for each instruction.

use iced_x86::{Instruction, Mnemonic};

use crate::{
    access::{Access, Value},
    decode::{Form, Kind},
    op::{Handler, Op},
    protection::{
        address::attribute,
        descriptors::{Descriptor, Entry, Fault, is_null, kind, rpl},
        stack::Stack,
    },
    state::{CpuState, Cr0, Cr4, Rflags, Segment, seg},
    trap::{Exception, Trap},
};

/// Attributes of data segments outside of protected mode: present, writable, accessed.
const REAL_ATTRIBUTES: u16 = 0x93;
/// Attributes of every segment in virtual-8086 mode: as in real mode, with DPL 3.
const VIRTUAL_8086_ATTRIBUTES: u16 = 0xf3;

impl CpuState {
    /// Whether the processor is in virtual-8086 mode.
    #[inline(always)]
    pub fn virtual_8086(&self) -> bool {
        self.rflags & Rflags::VM.bits() != 0 && self.cr0_has(Cr0::PE)
    }

    /// Whether segments are as on the 8086: in real and virtual-8086 mode.
    #[inline(always)]
    pub(crate) fn segments_are_paragraphs(&self) -> bool {
        !self.cr0_has(Cr0::PE) || self.virtual_8086()
    }

    /// A segment register as real or virtual-8086 mode loads it.
    pub(crate) fn paragraph_segment(&self, segment: u8, selector: u16) -> Segment {
        let base = u64::from(selector) << 4;
        if self.cr0_has(Cr0::PE) {
            return Segment { base, limit: 0xffff, attributes: VIRTUAL_8086_ATTRIBUTES, selector };
        }
        // Real mode leaves the limit and the size bits of what was there before, which "unreal mode" relies on.
        let old = self.segments[usize::from(segment & 7)];
        let kept = old.attributes & (attribute::BIG | attribute::GRANULARITY);
        Segment { base, limit: old.limit, attributes: kept | REAL_ATTRIBUTES, selector }
    }

    /// A segment register that holds a null selector.
    pub(crate) fn null_segment(&self, segment: u8, selector: u16) -> Segment {
        // The limit stays, for programs that return to real mode without a usable descriptor.
        Segment { base: 0, attributes: 0, selector, ..self.segments[usize::from(segment & 7)] }
    }

    /// SS as 64-bit code has it after an entry at privilege level `cpl`.
    pub(crate) fn null_stack_segment(cpl: u8) -> Segment {
        Segment { base: 0, limit: 0xffff_ffff, attributes: u16::from(cpl) << 5, selector: u16::from(cpl) }
    }

    /// What ES, DS, FS or GS become when loaded with a selector in protected mode by code of privilege level `cpl`.
    ///
    /// # Errors
    /// `fault` or #NP with the selector; a page fault.
    pub(crate) fn data_segment(
        &mut self,
        segment: u8,
        selector: u16,
        cpl: u8,
        fault: Fault,
        ext: u32,
    ) -> Result<Segment, Trap> {
        if is_null(selector) {
            return Ok(self.null_segment(segment, selector));
        }
        let mut entry = self.descriptor(selector, fault, ext)?;
        let descriptor = entry.descriptor;
        if !descriptor.is_readable() || !descriptor.is_conforming_code() && rpl(selector).max(cpl) > descriptor.dpl() {
            return Err(self.fail(fault, selector, ext));
        }
        if !descriptor.is_present() {
            return Err(self.fail(Exception::not_present, selector, ext));
        }
        self.mark_accessed(&mut entry)?;
        Ok(entry.descriptor.segment(selector))
    }

    /// What SS becomes when loaded with a selector in protected mode for code of privilege level `cpl`.
    ///
    /// # Errors
    /// `fault` or #SS with the selector, `fault` for a null one; a page fault.
    pub(crate) fn stack_segment(&mut self, selector: u16, cpl: u8, fault: Fault, ext: u32) -> Result<Segment, Trap> {
        if is_null(selector) {
            return Err(self.raise(fault(ext)));
        }
        let mut entry = self.descriptor(selector, fault, ext)?;
        let descriptor = entry.descriptor;
        if rpl(selector) != cpl || !descriptor.is_writable_data() || descriptor.dpl() != cpl {
            return Err(self.fail(fault, selector, ext));
        }
        if !descriptor.is_present() {
            return Err(self.fail(Exception::stack, selector, ext));
        }
        self.mark_accessed(&mut entry)?;
        Ok(entry.descriptor.segment(selector))
    }

    /// Loads ES, SS, DS, FS or GS, as MOV and POP do. The caller sees to the interrupt shadow of SS.
    ///
    /// # Errors
    /// #GP, #NP or #SS with the selector; a page fault. The register is as it was then.
    pub fn load_segment(&mut self, segment: u8, selector: u16) -> Result<(), Trap> {
        let value = if self.segments_are_paragraphs() {
            self.paragraph_segment(segment, selector)
        } else if segment != seg::SS {
            self.data_segment(segment, selector, self.cpl, Exception::general_protection, 0)?
        } else if is_null(selector) && self.in_64_bit_code() && self.cpl != 3 && rpl(selector) == self.cpl {
            Self::null_stack_segment(self.cpl)
        } else {
            self.stack_segment(selector, self.cpl, Exception::general_protection, 0)?
        };
        self.segments[usize::from(segment & 7)] = value;
        self.update_mode();
        Ok(())
    }

    /// Loads CS and sets the privilege level. All checks were made; the mode is not updated yet.
    pub(crate) fn set_code_segment(&mut self, code: Descriptor, selector: u16, cpl: u8) {
        let mut segment = code.segment(selector & 0xfffc | u16::from(cpl));
        if !self.long_mode() {
            segment.attributes &= !attribute::LONG;
        }
        self.segments[usize::from(seg::CS)] = segment;
        self.cpl = cpl;
    }

    /// Empties the data segment registers that code of the current privilege level may not hold, after a return to it.
    pub(crate) fn drop_inner_segments(&mut self) {
        for segment in [seg::ES, seg::DS, seg::FS, seg::GS] {
            let register = &mut self.segments[usize::from(segment)];
            let conforming = register.has(attribute::SEGMENT | attribute::CODE | attribute::CONFORMING);
            if register.has(attribute::PRESENT) && !conforming && register.dpl() < self.cpl {
                register.selector = 0;
                register.attributes = 0;
            }
        }
    }

    /// The descriptor that LAR, LSL, VERR or VERW ask about; `None` if the program may not see it.
    fn visible_descriptor(&mut self, selector: u16) -> Result<Option<Entry>, Trap> {
        if is_null(selector) {
            return Ok(None);
        }
        match self.descriptor(selector, Exception::general_protection, 0) {
            Ok(entry) => {
                let descriptor = entry.descriptor;
                let visible = descriptor.is_conforming_code() || self.cpl.max(rpl(selector)) <= descriptor.dpl();
                Ok(visible.then_some(entry))
            }
            // Outside of the table is an answer here; a page fault is not.
            Err(Trap::EXCEPTION) if self.exception.vector == 13 => Ok(None),
            Err(trap) => Err(trap),
        }
    }

    fn set_zero_flag(&mut self, zero: bool) {
        self.rflags = self.rflags & !Rflags::ZF.bits() | if zero { Rflags::ZF.bits() } else { 0 };
    }

    /// Fails in real and virtual-8086 mode, which lack some instructions.
    fn require_protected(&mut self) -> Result<(), Trap> {
        if self.segments_are_paragraphs() { Err(self.raise(Exception::INVALID_OPCODE)) } else { Ok(()) }
    }

    /// Fails unless at CPL 0.
    pub(crate) fn require_cpl_0(&mut self) -> Result<(), Trap> {
        if self.cpl == 0 { Ok(()) } else { Err(self.raise(Exception::general_protection(0))) }
    }

    /// Reads a 16-bit source operand: register or memory.
    fn selector_operand<const MEMORY: bool>(&mut self, op: &Op, register: u8) -> Result<u16, Trap> {
        if MEMORY {
            let linear = self.linear(op, 2, Access::Read)?;
            self.read(linear)
        } else {
            Ok(self.register(register) as u16)
        }
    }

    /// Writes a selector to operand 0: all of a register of `op.size` bytes, or 16 bits of memory.
    fn store_selector<const MEMORY: bool>(&mut self, op: &Op, selector: u16) -> Result<(), Trap> {
        if MEMORY {
            let linear = self.linear(op, 2, Access::Write)?;
            return self.write(linear, selector);
        }
        self.set_register_sized(op.dst, op.size, u64::from(selector));
        Ok(())
    }

    /// Writes a register of 2, 4 or 8 bytes.
    fn set_register_sized(&mut self, register: u8, size: u8, value: u64) {
        let register = &mut self.gpr[usize::from(register & 15)];
        *register = match size {
            2 => *register & !0xffff | value & 0xffff,
            4 => value & 0xffff_ffff,
            _ => value,
        };
    }
}

/// How an instruction that loaded a segment register ends: the block goes on if what it was decoded for still holds.
fn after_load(cpu: &mut CpuState, segment: u8, mode_before: u32) -> Result<(), Trap> {
    if segment == seg::SS {
        cpu.interrupt_shadow = true;
        cpu.engine.breakpoints.stack_loaded = true;
        Err(Trap::NEXT)
    } else if cpu.mode == mode_before {
        Ok(())
    } else {
        Err(Trap::NEXT)
    }
}

/// MOV Sreg, r/m.
extern "C" fn move_to_segment<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let mode = cpu.mode;
    let selector = cpu.selector_operand::<MEMORY>(op, op.src)?;
    cpu.load_segment(op.dst, selector)?;
    after_load(cpu, op.dst, mode)
}

/// MOV r/m, Sreg.
extern "C" fn move_from_segment<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let selector = cpu.segments[usize::from(op.src & 7)].selector;
    cpu.store_selector::<MEMORY>(op, selector)
}

/// PUSH Sreg.
extern "C" fn push_segment(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let selector = cpu.segments[usize::from(op.dst & 7)].selector;
    match op.size {
        2 => cpu.push(selector),
        4 => cpu.push(u32::from(selector)),
        _ => cpu.push(u64::from(selector)),
    }
}

/// POP Sreg.
extern "C" fn pop_segment(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let mode = cpu.mode;
    let mut stack = Stack::current(cpu);
    let selector = cpu.stack_top::<u16>(0)?;
    cpu.load_segment(op.dst, selector)?;
    stack.drop(u64::from(op.size));
    stack.commit(cpu);
    after_load(cpu, op.dst, mode)
}

/// LDS, LES, LSS, LFS, LGS: the segment register is in `aux`.
extern "C" fn load_far_pointer<T: Value>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let mode = cpu.mode;
    let (at, size) = (op.effective_address(cpu), T::SIZE as u64);
    let linear = cpu.linear_of_any_alignment(op.segment, at, size + 2, Access::Read)?;
    cpu.check_parts(linear, size)?;
    let offset: T = cpu.read(linear)?;
    let selector = cpu.read::<u16>(linear.wrapping_add(T::SIZE as u64))?;
    cpu.load_segment(op.aux, selector)?;
    cpu.set_register_sized(op.dst, T::SIZE as u8, u128::from_le_bytes(offset.to_bytes()) as u64);
    // Unlike MOV and POP, LSS casts no interrupt shadow.
    if cpu.mode == mode { Ok(()) } else { Err(Trap::NEXT) }
}

/// LLDT.
extern "C" fn load_local_table<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    cpu.require_protected()?;
    cpu.require_cpl_0()?;
    let selector = cpu.selector_operand::<MEMORY>(op, op.dst)?;
    cpu.ldtr = cpu.local_table(selector, Exception::general_protection, Exception::not_present)?;
    Ok(())
}

impl CpuState {
    /// What LDTR becomes when loaded with a selector.
    pub(crate) fn local_table(&mut self, selector: u16, fault: Fault, absent: Fault) -> Result<Segment, Trap> {
        if is_null(selector) {
            return Ok(Segment { selector, ..Segment::default() });
        }
        if selector & 4 != 0 {
            return Err(self.fail(fault, selector, 0));
        }
        let entry = self.descriptor(selector, fault, 0)?;
        if entry.descriptor.system_kind() != Some(kind::LDT) {
            return Err(self.fail(fault, selector, 0));
        }
        if !entry.descriptor.is_present() {
            return Err(self.fail(absent, selector, 0));
        }
        self.system_segment(&entry, selector, fault, 0)
    }
}

/// LTR.
extern "C" fn load_task_register<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    cpu.require_protected()?;
    cpu.require_cpl_0()?;
    let fault: Fault = Exception::general_protection;
    let selector = cpu.selector_operand::<MEMORY>(op, op.dst)?;
    if is_null(selector) {
        return Err(cpu.raise(Exception::general_protection(0)));
    }
    if selector & 4 != 0 {
        return Err(cpu.fail(fault, selector, 0));
    }
    let entry = cpu.descriptor(selector, fault, 0)?;
    match entry.descriptor.system_kind() {
        Some(kind::TSS_AVAILABLE) => {}
        Some(kind::TSS_16_AVAILABLE) if !cpu.long_mode() => {}
        _ => return Err(cpu.fail(fault, selector, 0)),
    }
    if !entry.descriptor.is_present() {
        return Err(cpu.fail(Exception::not_present, selector, 0));
    }
    let mut segment = cpu.system_segment(&entry, selector, fault, 0)?;
    cpu.mark_busy(entry.address, true)?;
    segment.attributes |= u16::from(kind::BUSY);
    cpu.tr = segment;
    Ok(())
}

/// SLDT and STR may be denied to programs.
fn check_instruction_prevention(cpu: &mut CpuState) -> Result<(), Trap> {
    if cpu.cr4_has(Cr4::UMIP) { cpu.require_cpl_0() } else { Ok(()) }
}

/// SLDT.
extern "C" fn store_local_table<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    cpu.require_protected()?;
    check_instruction_prevention(cpu)?;
    cpu.store_selector::<MEMORY>(op, cpu.ldtr.selector)
}

/// STR.
extern "C" fn store_task_register<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    cpu.require_protected()?;
    check_instruction_prevention(cpu)?;
    cpu.store_selector::<MEMORY>(op, cpu.tr.selector)
}

/// LAR.
extern "C" fn load_access_rights<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    cpu.require_protected()?;
    let selector = cpu.selector_operand::<MEMORY>(op, op.src)?;
    let rights = cpu.visible_descriptor(selector)?.and_then(|entry| {
        let known = match entry.descriptor.system_kind() {
            None => true,
            Some(kind::LDT | kind::TSS_AVAILABLE | kind::TSS_BUSY | kind::CALL_GATE) => true,
            Some(kind::TSS_16_AVAILABLE | kind::TSS_16_BUSY | kind::CALL_GATE_16 | kind::TASK_GATE) => !cpu.long_mode(),
            Some(_) => false,
        };
        known.then_some(entry.descriptor.0 >> 32 & 0xff_ff00)
    });
    if let Some(rights) = rights {
        cpu.set_register_sized(op.dst, op.size, rights);
    }
    cpu.set_zero_flag(rights.is_some());
    Ok(())
}

/// LSL.
extern "C" fn load_segment_limit<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    cpu.require_protected()?;
    let selector = cpu.selector_operand::<MEMORY>(op, op.src)?;
    let limit = cpu.visible_descriptor(selector)?.and_then(|entry| {
        let known = match entry.descriptor.system_kind() {
            None => true,
            Some(kind::LDT | kind::TSS_AVAILABLE | kind::TSS_BUSY) => true,
            Some(kind::TSS_16_AVAILABLE | kind::TSS_16_BUSY) => !cpu.long_mode(),
            Some(_) => false,
        };
        known.then_some(u64::from(entry.descriptor.limit()))
    });
    if let Some(limit) = limit {
        cpu.set_register_sized(op.dst, op.size, limit);
    }
    cpu.set_zero_flag(limit.is_some());
    Ok(())
}

/// VERR and VERW.
extern "C" fn verify<const MEMORY: bool, const WRITE: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    cpu.require_protected()?;
    let selector = cpu.selector_operand::<MEMORY>(op, op.dst)?;
    let allowed = cpu
        .visible_descriptor(selector)?
        .is_some_and(|entry| if WRITE { entry.descriptor.is_writable_data() } else { entry.descriptor.is_readable() });
    cpu.set_zero_flag(allowed);
    Ok(())
}

/// ARPL.
extern "C" fn adjust_requested_privilege<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    cpu.require_protected()?;
    let source = rpl(cpu.register(op.src) as u16);
    let destination = if MEMORY {
        // It is written only if it changes.
        let linear = cpu.linear(op, 2, Access::Read)?;
        cpu.read(linear)?
    } else {
        cpu.register(op.dst) as u16
    };
    let raise = rpl(destination) < source;
    if raise {
        let adjusted = destination & !3 | u16::from(source);
        if MEMORY {
            let linear = cpu.linear(op, 2, Access::Write)?;
            cpu.write(linear, adjusted)?;
        } else {
            cpu.set_register_sized(op.dst, 2, u64::from(adjusted));
        }
    }
    cpu.set_zero_flag(raise);
    Ok(())
}

/// The handler of `memory` or `register` form.
macro_rules! by_kind {
    ($kind:expr, $handler:ident $(, $argument:literal)*) => {
        match $kind {
            Kind::Memory => $handler::<true $(, $argument)*> as Handler,
            _ => $handler::<false $(, $argument)*>,
        }
    };
}

/// The handler of an instruction that works on segment registers or selectors.
pub(super) fn select(instruction: &Instruction, form: &Form, op: &mut Op) -> Option<Handler> {
    let kind = form.kinds[0];
    let is_segment =
        |operand: u32| instruction.op_count() > operand && instruction.op_register(operand).is_segment_register();
    let pointer = |segment: u8, op: &mut Op| -> Option<Handler> {
        op.aux = segment;
        Some(match op.size {
            2 => load_far_pointer::<u16> as Handler,
            4 => load_far_pointer::<u32>,
            _ => load_far_pointer::<u64>,
        })
    };
    match instruction.mnemonic() {
        Mnemonic::Mov if is_segment(0) => {
            if op.dst == seg::CS {
                return None;
            }
            return Some(by_kind!(form.kinds[1], move_to_segment));
        }
        Mnemonic::Mov if is_segment(1) => return Some(by_kind!(kind, move_from_segment)),
        Mnemonic::Push if is_segment(0) => {
            op.size = instruction.stack_pointer_increment().unsigned_abs() as u8;
            return Some(push_segment);
        }
        Mnemonic::Pop if is_segment(0) => {
            op.size = instruction.stack_pointer_increment().unsigned_abs() as u8;
            return Some(pop_segment);
        }
        Mnemonic::Lds => return pointer(seg::DS, op),
        Mnemonic::Les => return pointer(seg::ES, op),
        Mnemonic::Lss => return pointer(seg::SS, op),
        Mnemonic::Lfs => return pointer(seg::FS, op),
        Mnemonic::Lgs => return pointer(seg::GS, op),
        _ => {}
    }
    let handler = match instruction.mnemonic() {
        Mnemonic::Lldt => by_kind!(kind, load_local_table),
        Mnemonic::Ltr => by_kind!(kind, load_task_register),
        Mnemonic::Sldt => by_kind!(kind, store_local_table),
        Mnemonic::Str => by_kind!(kind, store_task_register),
        Mnemonic::Lar => by_kind!(form.kinds[1], load_access_rights),
        Mnemonic::Lsl => by_kind!(form.kinds[1], load_segment_limit),
        Mnemonic::Verr => by_kind!(kind, verify, false),
        Mnemonic::Verw => by_kind!(kind, verify, true),
        Mnemonic::Arpl => by_kind!(kind, adjust_requested_privilege),
        _ => return None,
    };
    Some(handler)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{FREE_SELECTOR, Fixture, LDT, TSS_SELECTOR, descriptor};
    use crate::{
        engine::testing::{DATA, STACK, Stop},
        state::{Rflags, reg, seg},
        trap::Exception,
    };

    const RAX: usize = reg::RAX as usize;

    /// Loads `segment` with a selector of requested privilege `rpl` for a descriptor of these attributes, at `cpl`.
    fn load(segment: u8, attributes: u16, rpl: u16, cpl: u8) -> Result<(), Exception> {
        let mut fixture = Fixture::new(&[], 32);
        if cpl == 3 {
            fixture.enter_user();
        } else {
            fixture.cpu().cpl = cpl;
        }
        fixture.set_descriptor(FREE_SELECTOR, descriptor(0x1234, 0x5678, attributes));
        let before = fixture.cpu().segments;
        let result = fixture.cpu().load_segment(segment, FREE_SELECTOR | rpl);
        let result = fixture.outcome(result);
        if result.is_err() {
            assert_eq!(fixture.cpu().segments, before);
        } else {
            let loaded = fixture.cpu().segments[usize::from(segment)];
            assert_eq!((loaded.base, loaded.limit, loaded.selector), (0x1234, 0x5678, FREE_SELECTOR | rpl));
            assert_eq!(loaded.attributes, attributes | 1);
            assert_eq!(fixture.read_u64(0x1000 + u64::from(FREE_SELECTOR)) >> 40 & 1, 1, "accessed bit");
        }
        result
    }

    const GP: Result<(), Exception> = Err(Exception::general_protection(FREE_SELECTOR as u32));
    const NP: Result<(), Exception> = Err(Exception::not_present(FREE_SELECTOR as u32));
    const SS: Result<(), Exception> = Err(Exception::stack(FREE_SELECTOR as u32));

    /// SDM vol. 2 MOV: type, then privilege, then presence.
    #[test]
    fn data_segments_are_checked_for_type_privilege_and_presence() {
        for (attributes, rpl, cpl, expected) in [
            (0x4092, 0, 0, Ok(())),
            (0x4090, 0, 0, Ok(())),
            (0x409a, 0, 0, Ok(())),
            (0x4098, 0, 0, GP),
            (0x4082, 0, 0, GP),
            (0x4089, 0, 0, GP),
            (0x4012, 0, 0, NP),
            (0x4092, 3, 0, GP),
            (0x4092, 0, 3, GP),
            (0x40f2, 3, 3, Ok(())),
            (0x40f2, 0, 3, Ok(())),
            (0x40b2, 1, 1, Ok(())),
            (0x40b2, 2, 1, GP),
            // Conforming readable code may be read from everywhere.
            (0x409e, 3, 3, Ok(())),
            (0x409c, 3, 3, GP),
            (0x4072, 3, 3, NP),
        ] {
            for segment in [seg::ES, seg::DS, seg::FS, seg::GS] {
                assert_eq!(load(segment, attributes, rpl, cpl), expected, "{attributes:#x} rpl {rpl} cpl {cpl}");
            }
        }
    }

    #[test]
    fn stack_segments_must_be_writable_and_of_just_this_privilege() {
        for (attributes, rpl, cpl, expected) in [
            (0x4092, 0, 0, Ok(())),
            (0x4096, 0, 0, Ok(())),
            (0x4090, 0, 0, GP),
            (0x409a, 0, 0, GP),
            (0x4092, 1, 0, GP),
            (0x40b2, 0, 0, GP),
            (0x4012, 0, 0, SS),
            (0x40f2, 3, 3, Ok(())),
            (0x40f2, 0, 3, GP),
        ] {
            assert_eq!(load(seg::SS, attributes, rpl, cpl), expected, "{attributes:#x} rpl {rpl} cpl {cpl}");
        }
    }

    #[test]
    fn null_selectors_empty_data_segments_but_not_the_stack() {
        let mut fixture = Fixture::new(&[], 32);
        let result = fixture.cpu().load_segment(seg::DS, 3);
        assert_eq!(fixture.outcome(result), Ok(()));
        assert_eq!(fixture.selector(seg::DS), 3);
        let result = fixture.cpu().load_segment(seg::SS, 0);
        assert_eq!(fixture.outcome(result), Err(Exception::general_protection(0)));
    }

    #[test]
    fn access_through_a_null_selector_faults() {
        // mov ds, ax; mov al, [0]
        let mut fixture = Fixture::new(&[0x8e, 0xd8, 0xa0, 0, 0, 0, 0], 32);
        fixture.cpu().gpr[RAX] = 0;
        assert_eq!(fixture.run(), Stop::Exception(Exception::general_protection(0)));
    }

    #[test]
    fn inner_64_bit_code_may_have_a_null_stack_segment_of_its_own_privilege() {
        let mut fixture = Fixture::new(&[], 64);
        let result = fixture.cpu().load_segment(seg::SS, 0);
        assert_eq!(fixture.outcome(result), Ok(()));
        let result = fixture.cpu().load_segment(seg::SS, 3);
        assert_eq!(fixture.outcome(result), Err(Exception::general_protection(0)));
    }

    #[test]
    fn selectors_beyond_a_table_name_themselves() {
        let mut fixture = Fixture::new(&[], 32);
        let result = fixture.cpu().load_segment(seg::ES, 0x1003);
        assert_eq!(fixture.outcome(result), Err(Exception::general_protection(0x1000)));
        let result = fixture.cpu().load_segment(seg::ES, 0x84);
        assert_eq!(fixture.outcome(result), Err(Exception::general_protection(0x84)));
        fixture.cpu().ldtr.attributes = 0;
        let result = fixture.cpu().load_segment(seg::ES, 0x0c);
        assert_eq!(fixture.outcome(result), Err(Exception::general_protection(0x0c)));
    }

    #[test]
    fn local_descriptors_are_read_from_the_local_table() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_descriptor(0x0c, descriptor(0x7654_3210, 0xfffff, 0xc092));
        let result = fixture.cpu().load_segment(seg::ES, 0x0c);
        assert_eq!(fixture.outcome(result), Ok(()));
        let es = fixture.cpu().segments[usize::from(seg::ES)];
        assert_eq!((es.base, es.limit), (0x7654_3210, u32::MAX));
        assert_eq!(fixture.machine.read::<1>(LDT + 8 + 5), [0x93]);
    }

    #[test]
    fn real_mode_loads_paragraphs_and_keeps_the_limit() {
        // mov ds, ax; mov bl, [0x10000 with a 32-bit address]
        let mut fixture = Fixture::new(&[0x8e, 0xd8, 0x67, 0x8a, 0x1d, 0, 0, 1, 0], 16);
        fixture.cpu().segments[usize::from(seg::DS)].limit = u32::MAX;
        fixture.cpu().gpr[RAX] = 0x1234;
        fixture.write(0x2_2340, &[0x77]);
        assert_eq!(fixture.run(), Stop::Halted);
        assert_eq!(fixture.cpu().register(reg::RBX), 0x77);
        assert_eq!(fixture.cpu().segments[usize::from(seg::DS)].base, 0x1_2340);
    }

    #[test]
    fn moves_to_the_stack_segment_hold_interrupts_off() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.cpu().gpr[RAX] = 0x10;
        // mov ss, ax
        assert_eq!(fixture.execute(&[0x8e, 0xd0]), Ok(()));
        assert!(fixture.cpu().interrupt_shadow);
    }

    #[test]
    fn segment_registers_are_stored_as_16_bits_in_memory_and_zero_extended_in_registers() {
        // mov [esi], ds; mov eax, ds; mov cx, ds; push ds; pop es
        let mut fixture = Fixture::new(&[0x8c, 0x1e, 0x8c, 0xd8, 0x66, 0x8c, 0xd9, 0x1e, 0x07], 32);
        fixture.write(DATA, &[0xff; 4]);
        fixture.cpu().gpr[RAX] = u64::MAX;
        fixture.cpu().gpr[usize::from(reg::RCX)] = 0x1234_5678;
        fixture.cpu().segments[usize::from(seg::ES)].selector = 0;
        assert_eq!(fixture.run(), Stop::Halted);
        assert_eq!(fixture.read_u32(DATA), 0xffff_0010);
        assert_eq!(fixture.cpu().register(reg::RAX), 0x10);
        assert_eq!(fixture.cpu().register(reg::RCX), 0x1234_0010);
        assert_eq!(fixture.selector(seg::ES), 0x10);
        assert_eq!(fixture.rsp(), STACK);
    }

    #[test]
    fn pop_of_a_bad_selector_leaves_the_stack_alone() {
        // push 0x98; pop es
        let mut fixture = Fixture::new(&[0x68, 0x80, 0, 0, 0, 0x07], 32);
        fixture.set_descriptor(0x80, 0);
        assert_eq!(fixture.run(), Stop::Exception(Exception::general_protection(0x80)));
        assert_eq!(fixture.rsp(), STACK - 4);
    }

    #[test]
    fn far_pointers_load_a_register_and_a_segment() {
        // les ebx, [esi]; lfs rdx, [rsi]
        for (code, bits) in [(&[0xc4, 0x1e][..], 32), (&[0x48, 0x0f, 0xb4, 0x1e], 64)] {
            let mut fixture = Fixture::new(code, bits);
            let offset = 0x1122_3344_5566_7788_u64;
            fixture.write(DATA, &offset.to_le_bytes());
            let size = u64::from(bits / 8);
            fixture.write(DATA + size, &0x10_u16.to_le_bytes());
            fixture.cpu().segments[usize::from(seg::ES)].selector = 0;
            fixture.cpu().segments[usize::from(seg::FS)].selector = 0;
            assert_eq!(fixture.run(), Stop::Halted);
            let expected = if bits == 32 { offset & 0xffff_ffff } else { offset };
            assert_eq!(fixture.cpu().register(reg::RBX), expected);
            assert_eq!(fixture.selector(if bits == 32 { seg::ES } else { seg::FS }), 0x10);
        }
    }

    #[test]
    fn the_task_register_marks_its_descriptor_busy() {
        // ltr ax
        let mut fixture = Fixture::new(&[0x0f, 0x00, 0xd8], 32);
        fixture.set_descriptor(FREE_SELECTOR, descriptor(0x1234, 0x67, 0x89));
        fixture.cpu().gpr[RAX] = u64::from(FREE_SELECTOR);
        assert_eq!(fixture.run(), Stop::Halted);
        assert_eq!((fixture.cpu().tr.base, fixture.cpu().tr.attributes), (0x1234, 0x8b));
        assert_eq!(fixture.read_u64(0x1000 + u64::from(FREE_SELECTOR)), descriptor(0x1234, 0x67, 0x8b));
        // It is busy now.
        assert_eq!(fixture.execute(&[0x0f, 0x00, 0xd8]), Err(Exception::general_protection(FREE_SELECTOR.into())));
    }

    #[test]
    fn system_descriptors_of_long_mode_have_64_bit_bases() {
        // lldt ax
        let mut fixture = Fixture::new(&[0x0f, 0x00, 0xd0], 64);
        fixture.cpu().gpr[RAX] = u64::from(FREE_SELECTOR);
        fixture.set_descriptor(FREE_SELECTOR, descriptor(0x8765_4321, 0x1f, 0x82));
        fixture.set_descriptor(FREE_SELECTOR + 8, 0xffff_8000);
        assert_eq!(fixture.run(), Stop::Halted);
        assert_eq!(fixture.cpu().ldtr.base, 0xffff_8000_8765_4321);
        // A base that is not canonical.
        fixture.set_descriptor(FREE_SELECTOR + 8, 0x8000);
        assert_eq!(fixture.execute(&[0x0f, 0x00, 0xd0]), Err(Exception::general_protection(FREE_SELECTOR.into())));
    }

    #[test]
    fn system_registers_are_loaded_with_checks() {
        for (code, attributes, selector, expected) in [
            (0xd0, 0x82, FREE_SELECTOR | 4, Exception::general_protection(u32::from(FREE_SELECTOR | 4))),
            (0xd0, 0x92, FREE_SELECTOR, Exception::general_protection(FREE_SELECTOR.into())),
            (0xd0, 0x02, FREE_SELECTOR, Exception::not_present(FREE_SELECTOR.into())),
            (0xd8, 0x89, 0, Exception::general_protection(0)),
            (0xd8, 0x09, FREE_SELECTOR, Exception::not_present(FREE_SELECTOR.into())),
            (0xd8, 0x82, FREE_SELECTOR, Exception::general_protection(FREE_SELECTOR.into())),
        ] {
            let mut fixture = Fixture::new(&[0x0f, 0x00, code], 32);
            fixture.set_descriptor(FREE_SELECTOR, descriptor(0, 0xff, attributes));
            fixture.cpu().gpr[RAX] = u64::from(selector);
            assert_eq!(fixture.run(), Stop::Exception(expected), "{code:#x} {attributes:#x} {selector:#x}");
        }
        let mut fixture = Fixture::new(&[0x0f, 0x00, 0xd8], 32);
        fixture.enter_user();
        fixture.cpu().gpr[RAX] = u64::from(TSS_SELECTOR);
        assert_eq!(fixture.run(), Stop::Exception(Exception::general_protection(0)));
    }

    #[test]
    fn questions_about_selectors_are_answered_in_the_zero_flag() {
        const LAR: &[u8] = &[0x0f, 0x02, 0xd8];
        const LSL: &[u8] = &[0x0f, 0x03, 0xd8];
        const VERR: &[u8] = &[0x0f, 0x00, 0xe0];
        const VERW: &[u8] = &[0x0f, 0x00, 0xe8];
        for (code, attributes, user, expected) in [
            (LAR, 0x4092, false, Some(0x0041_9200)),
            (LAR, 0x4092, true, None),
            (LAR, 0x409c, true, Some(0x0041_9c00)),
            (LAR, 0x0081, false, Some(0x0001_8100)),
            (LAR, 0x0086, false, None),
            (LSL, 0x4092, false, Some(0x1_2345)),
            (LSL, 0xc092, false, Some(0x1234_5fff)),
            (LSL, 0x0084, false, None),
            (LSL, 0x0082, false, Some(0x1_2345)),
            (VERR, 0x4092, false, Some(0)),
            (VERR, 0x4098, false, None),
            (VERR, 0x4082, false, None),
            (VERW, 0x4092, false, Some(0)),
            (VERW, 0x4090, false, None),
            (VERW, 0x409a, false, None),
            (VERW, 0x40f2, true, Some(0)),
        ] {
            let mut fixture = Fixture::new(code, 32);
            fixture.set_descriptor(FREE_SELECTOR, descriptor(0, 0x1_2345, attributes));
            if user {
                fixture.enter_user();
            }
            fixture.cpu().gpr[RAX] = u64::from(FREE_SELECTOR);
            fixture.run();
            let zero = fixture.cpu().flags().contains(Rflags::ZF);
            assert_eq!(zero, expected.is_some(), "{code:x?} {attributes:#x} {user}");
            assert_eq!(fixture.cpu().register(reg::RBX), expected.unwrap_or(0), "{code:x?} {attributes:#x} {user}");
        }
    }

    #[test]
    fn real_mode_has_no_selectors_to_ask_about() {
        for code in [[0x0f, 0x02, 0xd8], [0x0f, 0x00, 0xe0], [0x0f, 0x00, 0xd8], [0x0f, 0x00, 0xc0]] {
            let mut fixture = Fixture::new(&code, 16);
            assert_eq!(fixture.run(), Stop::Exception(Exception::INVALID_OPCODE), "{code:x?}");
        }
    }

    #[test]
    fn arpl_raises_the_requested_privilege_level() {
        // arpl bx, ax
        let mut fixture = Fixture::new(&[0x63, 0xc3], 32);
        fixture.cpu().gpr[RAX] = 3;
        fixture.cpu().gpr[usize::from(reg::RBX)] = 0x1234_0011;
        assert_eq!(fixture.run(), Stop::Halted);
        assert_eq!(fixture.cpu().register(reg::RBX), 0x1234_0013);
        assert!(fixture.cpu().flags().contains(Rflags::ZF));
        assert_eq!(fixture.execute(&[0x63, 0xc3]), Ok(()));
        assert!(!fixture.cpu().flags().contains(Rflags::ZF));
    }

    #[test]
    fn arpl_writes_only_what_changes() {
        // arpl cs:[0x4000], ax: code cannot be written
        let mut fixture = Fixture::new(&[0x2e, 0x63, 0x05, 0, 0x40, 0, 0], 32);
        fixture.cpu().gpr[RAX] = 0;
        assert_eq!(fixture.run(), Stop::Halted);
        let mut fixture = Fixture::new(&[0x2e, 0x63, 0x05, 0, 0x40, 0, 0], 32);
        fixture.cpu().gpr[RAX] = 3;
        assert_eq!(fixture.run(), Stop::Exception(Exception::general_protection(0)));
    }
}
