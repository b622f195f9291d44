//! Task switches through 16- and 32-bit task state segments. SDM vol. 3 ch. 8.

use crate::{
    access::{Access, Privilege},
    protection::{
        address::attribute,
        descriptors::{Entry, Fault, is_null, kind, rpl, selector_code},
        stack::Stack,
    },
    state::{CpuState, Cr0, Rflags, Segment, TableRegister, seg},
    trap::{Exception, Trap},
};

/// What a task switch that succeeded may leave to be delivered in the new task.
pub(crate) type Pending = Option<Exception>;

/// What causes a task switch; it decides about busy bits, the link back and NT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// JMP.
    Jump,
    /// CALL.
    Call,
    /// IRET with NT set.
    Return,
    /// An exception or interrupt, INT n included.
    Gate,
}

/// A task switch to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Switch {
    pub(crate) selector: u16,
    pub(crate) reason: Reason,
    /// Where the old task goes on.
    pub(crate) return_rip: u64,
    /// Whether the old task goes on with RF set.
    pub(crate) resume: bool,
    /// What the new task finds on its stack.
    pub(crate) error_code: Option<u32>,
    pub(crate) ext: u32,
}

/// Where the fields of a task state segment are.
struct Layout {
    /// Size of a register.
    size: u8,
    /// The smallest limit.
    limit: u32,
    ip: u64,
    flags: u64,
    /// AX, the first of the eight general registers.
    ax: u64,
    /// ES, the first of the segment registers.
    es: u64,
    /// Distance of two segment registers.
    stride: u64,
    /// Number of segment registers: ES, CS, SS, DS, and FS, GS.
    segments: u8,
    ldt: u64,
}

const LAYOUT_16: Layout =
    Layout { size: 2, limit: 0x2b, ip: 14, flags: 16, ax: 18, es: 34, stride: 2, segments: 4, ldt: 42 };
const LAYOUT_32: Layout =
    Layout { size: 4, limit: 0x67, ip: 32, flags: 36, ax: 40, es: 72, stride: 4, segments: 6, ldt: 96 };
/// Where a 32-bit task state segment has CR3.
const CR3_OFFSET: u64 = 28;
/// Where a 32-bit task state segment has the debug trap flag.
const TRAP_OFFSET: u64 = 100;

impl Layout {
    fn of(kind: u8) -> &'static Self {
        if kind & kind::WIDE != 0 { &LAYOUT_32 } else { &LAYOUT_16 }
    }
}

/// What is read from the new task's segment before anything changes.
#[derive(Default)]
struct Image {
    cr3: Option<u64>,
    ip: u64,
    flags: u64,
    registers: [u64; 8],
    segments: [u16; 6],
    ldt: u16,
    trap: bool,
}

impl CpuState {
    /// The task state segment that a task gate or IRET leads to. `kinds` are the types that fit, 16-bit and 32-bit.
    fn task_descriptor(&mut self, selector: u16, fault: Fault, ext: u32, kinds: [u8; 2]) -> Result<Entry, Trap> {
        if is_null(selector) || selector & 4 != 0 {
            return Err(self.fail(fault, selector, ext));
        }
        let entry = self.descriptor(selector, fault, ext)?;
        if !entry.descriptor.system_kind().is_some_and(|kind| kinds.contains(&kind)) {
            return Err(self.fail(fault, selector, ext));
        }
        if !entry.descriptor.is_present() {
            return Err(self.fail(Exception::not_present, selector, ext));
        }
        Ok(entry)
    }

    /// The task that a task gate names.
    pub(crate) fn gate_task(&mut self, selector: u16, ext: u32) -> Result<Entry, Trap> {
        let kinds = [kind::TSS_16_AVAILABLE, kind::TSS_AVAILABLE];
        self.task_descriptor(selector, Exception::general_protection, ext, kinds)
    }

    /// IRET with NT set: back to the task that the current one's segment names.
    pub(crate) fn return_from_task(&mut self, next_rip: u64) -> Result<Pending, Trap> {
        let selector: u16 = self.read_system(self.table_address(self.tr.base))?;
        let kinds = [kind::TSS_16_BUSY, kind::TSS_BUSY];
        let task = self.task_descriptor(selector, Exception::invalid_tss, 0, kinds)?;
        let switch =
            Switch { selector, reason: Reason::Return, return_rip: next_rip, resume: false, error_code: None, ext: 0 };
        self.switch_task(&task, switch)
    }

    fn read_task_field(&mut self, base: u64, offset: u64, size: u8) -> Result<u64, Trap> {
        let address = self.table_address(base.wrapping_add(offset));
        Ok(match size {
            2 => u64::from(self.read_system::<u16>(address)?),
            _ => u64::from(self.read_system::<u32>(address)?),
        })
    }

    fn write_task_field(&mut self, base: u64, offset: u64, size: u8, value: u64) -> Result<(), Trap> {
        let address = self.table_address(base.wrapping_add(offset));
        match size {
            2 => self.write_system(address, value as u16),
            _ => self.write_system(address, value as u32),
        }
    }

    fn read_task(&mut self, base: u64, layout: &Layout) -> Result<Image, Trap> {
        let mut image = Image::default();
        let size = layout.size;
        image.ip = self.read_task_field(base, layout.ip, size)?;
        image.flags = self.read_task_field(base, layout.flags, size)?;
        for (i, register) in image.registers.iter_mut().enumerate() {
            *register = self.read_task_field(base, layout.ax + i as u64 * u64::from(size), size)?;
        }
        for i in 0..layout.segments {
            image.segments[usize::from(i)] =
                self.read_task_field(base, layout.es + u64::from(i) * layout.stride, 2)? as u16;
        }
        image.ldt = self.read_task_field(base, layout.ldt, 2)? as u16;
        if size == 4 {
            image.trap = self.read_task_field(base, TRAP_OFFSET, 2)? & 1 != 0;
            if self.cr0_has(Cr0::PG) {
                image.cr3 = Some(self.read_task_field(base, CR3_OFFSET, 4)?);
            }
        }
        Ok(image)
    }

    /// Faults now if the processor itself could not write `length` bytes (at most a page) at `linear`.
    fn probe_system_write(&mut self, linear: u64, length: u64) -> Result<(), Trap> {
        self.translate(self.table_address(linear), Access::Write, Privilege::Supervisor)?;
        let last = self.table_address(linear.wrapping_add(length - 1));
        self.translate(last, Access::Write, Privilege::Supervisor)?;
        Ok(())
    }

    /// Switches to the task of `entry`, whose type and presence were checked.
    ///
    /// # Errors
    /// What is found wrong before the point of no return. What is found later is pending in the new task.
    pub(crate) fn switch_task(&mut self, entry: &Entry, switch: Switch) -> Result<Pending, Trap> {
        let Switch { selector, reason, ext, .. } = switch;
        let layout = Layout::of(entry.descriptor.system_kind().unwrap_or_default());
        if entry.descriptor.limit() < layout.limit {
            return Err(self.fail(Exception::invalid_tss, selector, ext));
        }
        let base = entry.descriptor.base();
        let old_layout = Layout::of(self.tr.attributes as u8 & 15);
        if self.tr.limit < old_layout.limit {
            return Err(self.raise(Exception::invalid_tss(selector_code(self.tr.selector, ext))));
        }
        let old_base = self.tr.base;
        let old_descriptor = self.table_address(self.gdtr.base.wrapping_add(u64::from(self.tr.selector & !7)));
        let nested = matches!(reason, Reason::Call | Reason::Gate);

        // Everything that may fault in memory does so before anything is changed.
        let image = self.read_task(base, layout)?;
        self.probe_system_write(old_base.wrapping_add(old_layout.ip), u64::from(old_layout.limit) - old_layout.ip)?;
        self.probe_system_write(old_descriptor, 8)?;
        self.probe_system_write(entry.address, 8)?;
        if nested {
            self.probe_system_write(base, 2)?;
        }

        if !nested {
            self.mark_busy(old_descriptor, false)?;
        }
        let mut flags = self.rflags | if switch.resume { Rflags::RF.bits() } else { 0 };
        if reason == Reason::Return {
            flags &= !Rflags::NT.bits();
        }
        self.save_task(old_base, old_layout, switch.return_rip, flags)?;
        if nested {
            self.write_task_field(base, 0, 2, u64::from(self.tr.selector))?;
        }
        if reason != Reason::Return {
            self.mark_busy(entry.address, true)?;
        }
        self.tr = entry.descriptor.segment(selector);
        self.tr.attributes |= u16::from(kind::BUSY);
        self.cr0 |= Cr0::TS.bits();
        // The new task's local breakpoints are its own (SDM vol. 3 § 17.2.4).
        self.dr[7] &= !0x155;

        let result = self.enter_task(&image, layout, nested, switch.error_code);
        self.interrupt_shadow = false;
        self.update_mode();
        match result {
            Ok(()) if image.trap => {
                self.dr[6] |= 1 << 15;
                Ok(Some(Exception::DEBUG))
            }
            Ok(()) => Ok(None),
            Err(Trap::EXCEPTION) => Ok(Some(self.exception)),
            Err(trap) => Err(trap),
        }
    }

    fn save_task(&mut self, base: u64, layout: &Layout, rip: u64, flags: u64) -> Result<(), Trap> {
        let size = layout.size;
        self.write_task_field(base, layout.ip, size, rip)?;
        self.write_task_field(base, layout.flags, size, flags)?;
        for i in 0..8 {
            self.write_task_field(base, layout.ax + i as u64 * u64::from(size), size, self.gpr[i])?;
        }
        for i in 0..layout.segments {
            let selector = u64::from(self.segments[usize::from(i)].selector);
            self.write_task_field(base, layout.es + u64::from(i) * layout.stride, 2, selector)?;
        }
        Ok(())
    }

    /// Takes over the registers of the new task. What fails here, fails in the new task.
    fn enter_task(
        &mut self,
        image: &Image,
        layout: &Layout,
        nested: bool,
        error_code: Option<u32>,
    ) -> Result<(), Trap> {
        let fault: Fault = Exception::invalid_tss;
        self.rip = image.ip;
        let directory_pointers = image.cr3.map_or(Ok(()), |cr3| self.load_cr3(cr3));
        let valid = Rflags::ARITHMETIC.bits()
            | (Rflags::TF | Rflags::IF | Rflags::DF | Rflags::IOPL | Rflags::NT | Rflags::RF | Rflags::VM).bits()
            | (Rflags::AC | Rflags::VIF | Rflags::VIP | Rflags::ID).bits();
        self.rflags = image.flags & valid | Rflags::FIXED.bits() | if nested { Rflags::NT.bits() } else { 0 };
        self.gpr[..8].copy_from_slice(&image.registers);
        for (segment, &selector) in self.segments.iter_mut().zip(&image.segments) {
            *segment = Segment { selector, attributes: 0, ..*segment };
        }
        self.ldtr = Segment { selector: image.ldt, ..Segment::default() };
        let virtual_8086 = self.virtual_8086();
        let [_, cs, ss, ..] = image.segments;
        self.cpl = if virtual_8086 { 3 } else { rpl(cs) };
        directory_pointers?;

        self.ldtr = self.local_table(image.ldt, fault, fault)?;
        if virtual_8086 {
            for segment in seg::ES..=seg::GS {
                self.segments[usize::from(segment)] =
                    self.paragraph_segment(segment, image.segments[usize::from(segment)]);
            }
        } else {
            let code = self.task_code_segment(cs)?;
            self.set_code_segment(code.descriptor, cs, self.cpl);
            self.segments[usize::from(seg::SS)] = self.stack_segment(ss, self.cpl, fault, 0)?;
            for segment in [seg::ES, seg::DS, seg::FS, seg::GS] {
                let selector = image.segments[usize::from(segment)];
                self.segments[usize::from(segment)] = self.data_segment(segment, selector, self.cpl, fault, 0)?;
            }
        }
        if let Some(error_code) = error_code {
            let mut stack = Stack::current(self);
            stack.push_sized(self, layout.size, u64::from(error_code))?;
            stack.commit(self);
        }
        if image.ip > u64::from(self.segments[usize::from(seg::CS)].limit) {
            return Err(self.raise(Exception::general_protection(0)));
        }
        Ok(())
    }

    fn task_code_segment(&mut self, selector: u16) -> Result<Entry, Trap> {
        let fault: Fault = Exception::invalid_tss;
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
        if !descriptor.is_code() || !fits {
            return Err(self.fail(fault, selector, 0));
        }
        if !descriptor.is_present() {
            return Err(self.fail(Exception::not_present, selector, 0));
        }
        self.mark_accessed(&mut code)?;
        Ok(code)
    }

    /// The state of the task register and the local table register that a reset leaves.
    pub(crate) fn reset_system_segments(&mut self) {
        let empty = Segment { base: 0, limit: 0xffff, attributes: attribute::PRESENT, selector: 0 };
        self.ldtr = Segment { attributes: empty.attributes | u16::from(kind::LDT), ..empty };
        self.tr = Segment { attributes: empty.attributes | u16::from(kind::TSS_BUSY), ..empty };
        self.gdtr = TableRegister { base: 0, limit: 0xffff };
        self.idtr = TableRegister { base: 0, limit: 0xffff };
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{
        FREE_SELECTOR, Fixture, HANDLER, INNER_STACK, LDT, OTHER_TSS, TSS, TSS_SELECTOR, descriptor, gate,
    };
    use crate::{
        engine::testing::{CODE, STACK},
        state::{Cr0, Rflags, reg, seg},
        trap::Exception,
    };

    const GATE: u16 = FREE_SELECTOR + 0x20;
    const JMP: u8 = 0xea;
    const CALL: u8 = 0x9a;
    const IF: u64 = Rflags::IF.bits();
    const NT: u64 = Rflags::NT.bits();

    /// A machine with a second task at [`HANDLER`], user code's size and rights.
    fn fixture() -> Fixture {
        let fixture = Fixture::new(&[], 32);
        fixture.set_descriptor(FREE_SELECTOR, descriptor(OTHER_TSS, 0x67, 0x89));
        fixture.set_descriptor(0x208, descriptor(LDT, 0x7f, 0x82));
        let fields = [
            (32, HANDLER),
            (36, 2 | IF),
            (40, 0xa0),
            (44, 0xa1),
            (48, 0xa2),
            (52, 0xa3),
            (56, 0x6000),
            (60, 0xa5),
            (64, 0xa6),
            (68, 0xa7),
            (72, 0x3b),
            (76, 0x33),
            (80, 0x3b),
            (84, 0x3b),
            (88, 0),
            (92, 0),
            (96, 0x208),
            (100, 0),
        ];
        for (offset, value) in fields {
            set(&fixture, offset, value);
        }
        fixture
    }

    fn set(fixture: &Fixture, offset: u64, value: u64) {
        fixture.write(OTHER_TSS + offset, &(value as u32).to_le_bytes());
    }

    fn direct(opcode: u8, selector: u16) -> [u8; 7] {
        let [low, high] = selector.to_le_bytes();
        [opcode, 0, 0, 0, 0, low, high]
    }

    fn access_byte(fixture: &Fixture, selector: u16) -> u8 {
        let [byte] = fixture.machine.read(0x1000 + u64::from(selector) + 5);
        byte
    }

    #[test]
    fn a_jump_saves_one_task_and_loads_the_other() {
        let mut fixture = fixture();
        fixture.cpu().gpr[usize::from(reg::RBX)] = 0x1234_5678;
        fixture.cpu().dr[7] = 0x4ff;
        assert_eq!(fixture.execute(&direct(JMP, FREE_SELECTOR)), Ok(()));
        // Saved.
        assert_eq!((fixture.read_u32(TSS + 32), fixture.read_u32(TSS + 36)), (CODE as u32 + 7, 2));
        assert_eq!((fixture.read_u32(TSS + 52), fixture.read_u32(TSS + 56)), (0x1234_5678, STACK as u32));
        assert_eq!((fixture.read_u16(TSS + 76), fixture.read_u16(TSS + 80)), (8, 0x10));
        // Loaded.
        assert_eq!((fixture.cpu().rip, fixture.cpu().rflags, fixture.cpu().cpl), (HANDLER, 2 | IF, 3));
        assert_eq!(fixture.cpu().gpr[..8], [0xa0, 0xa1, 0xa2, 0xa3, 0x6000, 0xa5, 0xa6, 0xa7]);
        let selectors = [seg::ES, seg::CS, seg::SS, seg::DS, seg::FS, seg::GS].map(|segment| fixture.selector(segment));
        assert_eq!(selectors, [0x3b, 0x33, 0x3b, 0x3b, 0, 0]);
        assert_eq!((fixture.cpu().ldtr.selector, fixture.cpu().ldtr.base), (0x208, LDT));
        assert_eq!((fixture.cpu().tr.selector, fixture.cpu().tr.base), (FREE_SELECTOR, OTHER_TSS));
        assert!(fixture.cpu().cr0_has(Cr0::TS));
        assert_eq!(fixture.cpu().dr[7], 0x4aa);
        // Busy bits moved.
        assert_eq!((access_byte(&fixture, TSS_SELECTOR), access_byte(&fixture, FREE_SELECTOR)), (0x89, 0x8b));
    }

    #[test]
    fn a_call_nests_and_iret_comes_back() {
        let mut fixture = fixture();
        assert_eq!(fixture.execute(&direct(CALL, FREE_SELECTOR)), Ok(()));
        assert_eq!(fixture.cpu().rflags, 2 | IF | NT);
        assert_eq!(fixture.read_u16(OTHER_TSS), TSS_SELECTOR);
        assert_eq!((access_byte(&fixture, TSS_SELECTOR), access_byte(&fixture, FREE_SELECTOR)), (0x8b, 0x8b));
        assert_eq!(fixture.execute(&[0xcf]), Ok(()));
        assert_eq!((fixture.cpu().rip, fixture.cpu().cpl, fixture.rsp()), (CODE + 7, 0, STACK));
        assert_eq!((access_byte(&fixture, TSS_SELECTOR), access_byte(&fixture, FREE_SELECTOR)), (0x8b, 0x89));
        assert_eq!(fixture.read_u32(OTHER_TSS + 36), (2 | IF) as u32);
    }

    #[test]
    fn task_gates_lend_their_own_privilege() {
        let mut fixture = fixture();
        fixture.set_descriptor(GATE, gate(FREE_SELECTOR, 0, 0xe5, 0));
        fixture.enter_user();
        assert_eq!(
            fixture.execute(&direct(CALL, FREE_SELECTOR | 3)),
            Err(Exception::general_protection(FREE_SELECTOR.into()))
        );
        assert_eq!(fixture.execute(&direct(CALL, GATE | 3)), Ok(()));
        assert_eq!(fixture.cpu().tr.selector, FREE_SELECTOR);
    }

    #[test]
    fn tasks_of_16_bits_have_their_own_layout() {
        let mut fixture = fixture();
        fixture.set_descriptor(FREE_SELECTOR, descriptor(OTHER_TSS, 0x2b, 0x81));
        let words = [0x9000_u16, 2, 0xa0, 0xa1, 0xa2, 0xa3, 0x6000, 0xa5, 0xa6, 0xa7, 0x3b, 0x33, 0x3b, 0x3b, 0];
        for (i, word) in words.iter().enumerate() {
            fixture.write(OTHER_TSS + 14 + 2 * i as u64, &word.to_le_bytes());
        }
        assert_eq!(fixture.execute(&direct(CALL, FREE_SELECTOR)), Ok(()));
        assert_eq!((fixture.cpu().rip, fixture.rsp(), fixture.cpu().rflags), (HANDLER, 0x6000, 2 | NT));
        fixture.cpu().gpr[usize::from(reg::RDI)] = 0xfeed;
        assert_eq!(fixture.execute(&[0xcf]), Ok(()));
        assert_eq!(fixture.read_u16(OTHER_TSS + 32), 0xfeed);
        assert_eq!(fixture.cpu().rip, CODE + 7);
    }

    #[test]
    fn a_task_may_be_a_virtual_8086_one() {
        let mut fixture = fixture();
        set(&fixture, 36, Rflags::VM.bits() | 2);
        set(&fixture, 76, 0x2000);
        assert_eq!(fixture.execute(&direct(JMP, FREE_SELECTOR)), Ok(()));
        assert_eq!(fixture.cpu().segments[usize::from(seg::CS)].base, 0x2_0000);
        assert_eq!(fixture.cpu().cpl, 3);
    }

    #[test]
    fn what_is_wrong_before_the_switch_belongs_to_the_old_task() {
        for (raw, expected) in [
            (descriptor(OTHER_TSS, 0x66, 0x89), Exception::invalid_tss(FREE_SELECTOR.into())),
            (descriptor(OTHER_TSS, 0x67, 0x8b), Exception::general_protection(FREE_SELECTOR.into())),
            (descriptor(OTHER_TSS, 0x67, 0x09), Exception::not_present(FREE_SELECTOR.into())),
        ] {
            let mut fixture = fixture();
            fixture.set_descriptor(FREE_SELECTOR, raw);
            assert_eq!(fixture.execute(&direct(JMP, FREE_SELECTOR)), Err(expected), "{raw:#x}");
            assert_eq!((fixture.cpu().tr.selector, fixture.rsp()), (TSS_SELECTOR, STACK));
        }
    }

    /// SDM vol. 3 table 8-1: what is found wrong later is delivered in the new task.
    #[test]
    fn what_is_wrong_after_the_switch_is_raised_in_the_new_task() {
        const TS: u8 = 10;
        for (offset, value, vector, code) in [
            (96, 0x0c, TS, 0x0c),
            (96, 0x10, TS, 0x10),
            (76, 0x3b, TS, 0x38),
            (80, 0, TS, 0),
            (80, 0x38, TS, 0x38),
            (80, 0x10, TS, 0x10),
            (72, 0x13, TS, 0x10),
            (92, 0x1008, TS, 0x1008),
        ] {
            let mut fixture = fixture();
            fixture.set_gate(TS, gate(8, HANDLER + 0x100, 0x8e, 0));
            // The new task's stack for its own exceptions.
            set(&fixture, 4, INNER_STACK);
            set(&fixture, 8, 0x10);
            set(&fixture, offset, value);
            assert_eq!(fixture.execute(&direct(JMP, FREE_SELECTOR)), Ok(()));
            assert_eq!(fixture.cpu().tr.selector, FREE_SELECTOR);
            if fixture.cpu().rip == HANDLER + 0x100 {
                let [pushed_code, rip] = fixture.stack(4);
                assert_eq!((vector, pushed_code, rip), (TS, code, HANDLER), "{offset} {value:#x}");
            } else {
                panic!("{offset} {value:#x}: at {:#x}", fixture.cpu().rip);
            }
        }
    }

    #[test]
    fn the_trap_bit_raises_a_debug_exception_in_the_new_task() {
        let mut fixture = fixture();
        fixture.set_gate(1, gate(8, HANDLER + 0x100, 0x8e, 0));
        set(&fixture, 4, INNER_STACK);
        set(&fixture, 8, 0x10);
        set(&fixture, 100, 1);
        assert_eq!(fixture.execute(&direct(JMP, FREE_SELECTOR)), Ok(()));
        assert_eq!(fixture.cpu().rip, HANDLER + 0x100);
        assert_eq!(fixture.stack(4), [HANDLER, 0x33, 2 | IF]);
        assert_eq!(fixture.cpu().dr[6] & 0x8000, 0x8000);
    }

    #[test]
    fn long_mode_has_no_task_switches() {
        let mut fixture = Fixture::new(&[], 64);
        fixture.set_descriptor(FREE_SELECTOR, descriptor(OTHER_TSS, 0x67, 0x89));
        fixture.write(0x4000, &0_u32.to_le_bytes());
        fixture.write(0x4004, &FREE_SELECTOR.to_le_bytes());
        // jmp far [rsi]
        assert_eq!(fixture.execute(&[0xff, 0x2e]), Err(Exception::general_protection(FREE_SELECTOR.into())));
    }
}
