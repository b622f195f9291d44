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
        if let Some(cr3) = image.cr3 {
            self.cr3 = cr3;
            self.drop_translations();
        }
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
