//! MONITOR and MWAIT: waiting for a store to a line of memory, or for an interrupt.
//!
//! The line is marked as lines with decoded code are: no processor keeps a way to write it unseen, and a store to it makes
//! stale what was noted of its page before. MONITOR ends only when all processors have agreed to that, so that no store
//! after it is missed.
//!
//! Sources: SDM vol. 2, MONITOR and MWAIT; vol. 3 § 8.10; APM vol. 3, the same. Waiting may always end without a reason.

use iced_x86::{Code, Instruction, Register};
use rhea_core::memory::{GRAIN, PAGE};

use super::{cpuid::Feature, msr::MONITOR_ENABLED};
use crate::{
    access::{Access, PageWatch},
    decode::segment_number,
    op::{Op, ZERO},
    state::{CpuState, Rflags, reg, seg},
    trap::{Exception, Trap},
};

/// MWAIT's extension in ECX: interrupts end it although RFLAGS.IF is clear.
const INTERRUPTS_END: u64 = 1;

/// What the processor has on watch.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    watched: Option<Watched>,
    /// MONITOR was executed, and nothing has happened since that ends its effect.
    armed: bool,
}

/// A line of RAM.
#[derive(Debug)]
struct Watched {
    /// Where the host has it.
    line: usize,
    page: PageWatch,
    /// All processors have agreed to it.
    agreed: bool,
}

impl Monitor {
    /// Nothing is on watch any more.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// MWAIT will not wait before another MONITOR.
    pub(crate) const fn disarm(&mut self) {
        self.armed = false;
    }

    /// All processors have agreed to the watch; or the line has been stored to meanwhile, and MWAIT will not wait.
    pub(crate) fn agree(&mut self, agreed: bool) -> bool {
        let Some(watched) = &mut self.watched else { return true };
        watched.agreed |= agreed || watched.page.stale();
        watched.agreed
    }

    /// What is watched, to be told when it is stored to.
    pub(crate) fn page(&self) -> Option<&PageWatch> {
        self.watched.as_ref().map(|watched| &watched.page)
    }

    /// Whether what the processor waits for has happened.
    pub(crate) fn triggered(&self) -> bool {
        self.page().is_some_and(PageWatch::stale)
    }
}

impl CpuState {
    /// #UD outside of privilege level 0, or where software has switched the instructions off.
    fn may_monitor(&mut self) -> Result<(), Trap> {
        if self.cpl != 0 || !self.monitor_enabled() {
            return Err(self.raise(Exception::INVALID_OPCODE));
        }
        Ok(())
    }

    /// Whether IA32_MISC_ENABLE, where there is one, leaves the instructions on.
    pub(super) fn monitor_enabled(&self) -> bool {
        self.cpuid.is_amd() || !self.cpuid.has(Feature::MONITOR) || self.msr.misc_enable & MONITOR_ENABLED != 0
    }

    /// ECX, or RCX in 64-bit code.
    fn extensions(&self) -> u64 {
        let rcx = self.register(reg::RCX);
        if self.in_64_bit_code() { rcx } else { rcx & 0xffff_ffff }
    }

    /// Puts the line of a physical address on watch. Whether the processors still have to be told of it.
    fn watch_line(&mut self, address: u64) -> bool {
        self.engine.monitor.armed = false;
        let Some(range) = self.engine.ram.find(address) else {
            // Stores to devices are not seen: there is no waiting for them.
            self.engine.monitor.forget();
            return false;
        };
        let line = range.host_of(address & !(GRAIN - 1));
        let known = self.engine.monitor.watched.as_ref().filter(|watched| watched.line == line);
        // A watch that is not agreed to yet is that of this very instruction, which is executed again.
        if known.is_some_and(|watched| !watched.agreed || !watched.page.stale()) {
            self.engine.monitor.armed = true;
            return false;
        }
        let offset = range.offset_of(address & !(PAGE - 1));
        let host = range.host_of(address & !(PAGE - 1));
        let Some(page) = PageWatch::new(&range.ram, offset) else {
            self.engine.monitor.forget();
            return false;
        };
        let fresh = page.mark(1 << (address % PAGE / GRAIN));
        self.engine.monitor = Monitor { watched: Some(Watched { line, page, agreed: false }), armed: true };
        if fresh {
            self.drop_write_translations_of(host);
        }
        fresh
    }
}

pub(super) extern "C" fn monitor(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    cpu.may_monitor()?;
    if cpu.extensions() != 0 {
        return Err(cpu.raise(Exception::general_protection(0)));
    }
    let linear = cpu.linear(op, 1, Access::Read)?;
    let privilege = cpu.privilege();
    let address = cpu.translate(linear, Access::Read, privilege)?;
    Err(if cpu.watch_line(address) { Trap::MONITOR_FRESH } else { Trap::MONITOR })
}

pub(super) extern "C" fn wait(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    cpu.may_monitor()?;
    let extensions = cpu.extensions();
    if extensions & !INTERRUPTS_END != 0 {
        return Err(cpu.raise(Exception::general_protection(0)));
    }
    let armed = std::mem::take(&mut cpu.engine.monitor.armed);
    let watched = cpu.engine.monitor.watched.as_ref();
    if !armed || !watched.is_some_and(|watched| watched.agreed && !watched.page.stale()) {
        return Ok(());
    }
    let interruptible = cpu.flags().contains(Rflags::IF) || extensions & INTERRUPTS_END != 0;
    if interruptible && cpu.requests.interrupt.load(std::sync::atomic::Ordering::SeqCst) {
        return Ok(());
    }
    Err(Trap::WAIT)
}

/// The operand of MONITOR: what DS, or another segment, has at rAX.
pub(super) fn operand(instruction: &Instruction, op: &mut Op) {
    op.base = reg::RAX;
    (op.index, op.scale, op.disp) = (ZERO, 0, 0);
    op.address_size = match instruction.code() {
        Code::Monitorw => 2,
        Code::Monitord => 4,
        _ => 8,
    };
    let overridden = instruction.segment_prefix();
    let segment = if overridden == Register::None { seg::DS } else { segment_number(overridden) };
    op.segment = if op.address_size == 8 && segment < seg::FS { seg::FLAT } else { segment };
}
