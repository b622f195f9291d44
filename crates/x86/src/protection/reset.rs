//! The state after power-on, INIT and a start-up IPI. SDM vol. 3 table 9-1.

use crate::{
    protection::address::attribute,
    state::{CpuState, Cr0, Msrs, Rflags, Segment, X87, reg, seg},
};

/// Segment attributes after a reset: present, writable, accessed.
pub(super) const DATA: u16 = attribute::PRESENT | attribute::SEGMENT | attribute::WRITABLE | attribute::ACCESSED;
/// CR0.CD and CR0.NW.
const CACHE_BITS: u64 = Cr0::CD.bits() | Cr0::NW.bits();
/// IA32_PAT after power-on: WB, WT, UC-, UC, twice (SDM vol. 3 table 11-12).
const PAT: u64 = 0x0007_0406_0007_0406;
/// IA32_MISC_ENABLE after power-on: fast strings.
const MISC_ENABLE: u64 = 1;

impl CpuState {
    /// Power-on and hardware reset. Memory, the bus and CPUID stay; what INIT keeps is set as well.
    pub fn reset(&mut self) {
        self.cr0 = CACHE_BITS;
        self.xmm = [0; 16];
        self.mxcsr = 0x1f80;
        self.x87 = X87 {
            registers: [0; 8],
            control: 0x40,
            status: 0,
            top: 0,
            // The tag word is 0x5555: every register holds a zero.
            valid: 0xff,
            last_opcode: 0,
            last_instruction: 0,
            last_data: 0,
            last_cs: 0,
            last_ds: 0,
        };
        self.msr = Msrs { pat: PAT, misc_enable: MISC_ENABLE, ..Default::default() };
        self.init();
    }

    /// INIT: as a reset, but caches, x87, SSE, the time stamp counter, MTRRs and most MSRs stay as they are.
    pub fn init(&mut self) {
        self.gpr = [0; 32];
        self.gpr[usize::from(reg::RDX)] = u64::from(self.cpuid.get(1, 0).eax);
        self.rip = 0xfff0;
        self.rflags = Rflags::FIXED.bits();
        self.cpl = 0;
        self.interrupt_shadow = false;
        self.nmi_blocked = false;
        self.cr0 = self.cr0 & CACHE_BITS | Cr0::ET.bits();
        self.cr2 = 0;
        self.cr3 = 0;
        self.cr4 = 0;
        self.efer = 0;
        let data = Segment { base: 0, limit: 0xffff, attributes: DATA, selector: 0 };
        self.segments[..=usize::from(seg::GS)].fill(data);
        self.segments[usize::from(seg::CS)] = Segment { base: 0xffff_0000, selector: 0xf000, ..data };
        self.reset_system_segments();
        self.dr = [0; 8];
        self.dr[6] = 0xffff_0ff0;
        self.dr[7] = 0x400;
        self.drop_translations();
        self.update_mode();
    }

    /// A start-up IPI: execution begins in real mode at page `vector`.
    pub fn startup(&mut self, vector: u8) {
        let cs = &mut self.segments[usize::from(seg::CS)];
        cs.selector = u16::from(vector) << 8;
        cs.base = u64::from(vector) << 12;
        self.rip = 0;
        self.update_mode();
    }

    /// Forgets every translation.
    pub(crate) fn drop_translations(&mut self) {
        self.flush_all();
    }
}
