//! The state after power-on, INIT and a start-up IPI. SDM vol. 3 table 9-1.

use crate::{
    protection::address::attribute,
    state::{CpuState, Cr0, Msrs, Rflags, Segment, X87, Xcr0, reg, seg},
    system::{cpuid::Feature, msr::MONITOR_ENABLED},
};

/// Segment attributes after a reset: present, writable, accessed.
pub(super) const DATA: u16 = attribute::PRESENT | attribute::SEGMENT | attribute::WRITABLE | attribute::ACCESSED;
/// CR0.CD and CR0.NW.
const CACHE_BITS: u64 = Cr0::CD.bits() | Cr0::NW.bits();
/// IA32_PAT after power-on: WB, WT, UC-, UC, twice (SDM vol. 3 table 11-12).
const PAT: u64 = 0x0007_0406_0007_0406;
/// IA32_MISC_ENABLE after power-on: fast strings; MONITOR besides, where the model has it.
const MISC_ENABLE: u64 = 1;
/// HWCR.TscFreqSel (AMD's BKDGs and PPRs, MSRC001_0015).
const TSC_AT_FULL_RATE: u64 = 1 << 24;

impl CpuState {
    /// Power-on and hardware reset. Memory, the bus and CPUID stay; what INIT keeps is set as well.
    pub fn reset(&mut self) {
        self.cr0 = CACHE_BITS;
        self.xmm = [0; 16];
        self.ymm_high = [0; 16];
        self.xcr0 = Xcr0::X87.bits();
        self.pkru = 0;
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
        // AMD's processors from family 10H on say that the time stamp counter runs at their full rate.
        let hwcr = if self.cpuid.is_amd() && self.cpuid.family() >= 0x10 { TSC_AT_FULL_RATE } else { 0 };
        let monitor = if self.cpuid.has(Feature::MONITOR) { MONITOR_ENABLED } else { 0 };
        self.msr = Msrs { pat: PAT, misc_enable: MISC_ENABLE | monitor, hwcr, ..Default::default() };
        self.x87_error_shown = false;
        self.init();
    }

    /// INIT: as a reset, but caches, x87, SSE, AVX, XCR0, the time stamp counter, MTRRs and most MSRs stay as they are.
    pub fn init(&mut self) {
        self.gpr = [0; 32];
        self.gpr[usize::from(reg::RDX)] = u64::from(self.cpuid.get(1, 0).eax);
        self.rip = 0xfff0;
        self.rflags = Rflags::FIXED.bits();
        self.cpl = 0;
        self.interrupt_shadow = false;
        self.nmi_blocked = false;
        (self.engine.breakpoints.hits, self.engine.breakpoints.stack_loaded) = (0, false);
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
        self.flush_all();
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
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use crate::{
        state::{Cr0, Efer, reg, seg},
        system::cpuid::Leaf,
    };

    #[test]
    fn power_on_leads_to_the_reset_vector() {
        let mut fixture = Fixture::new(&[], 64);
        fixture.cpu().cpuid.set(1, 0, Leaf { eax: 0x0008_06f2, ..Leaf::default() });
        fixture.cpu().msr.star = 1;
        (fixture.cpu().ymm_high[15], fixture.cpu().xcr0) = (1, 3);
        fixture.cpu().reset();
        let cpu = fixture.cpu();
        let cs = cpu.segments[usize::from(seg::CS)];
        assert_eq!((cs.base + cpu.rip, cs.selector, cs.limit), (0xffff_fff0, 0xf000, 0xffff));
        assert_eq!((cpu.cr0, cpu.rflags, cpu.efer, cpu.cr4), (0x6000_0010, 2, 0, 0));
        assert_eq!((cpu.register(reg::RDX), cpu.register(reg::RAX)), (0x0008_06f2, 0));
        assert_eq!((cpu.mxcsr, cpu.x87.control, cpu.msr.pat, cpu.msr.star), (0x1f80, 0x40, 0x0007_0406_0007_0406, 0));
        assert_eq!((cpu.dr[6], cpu.dr[7]), (0xffff_0ff0, 0x400));
        assert_eq!((cpu.ymm_high, cpu.xcr0), ([0; 16], 1));
        assert_eq!(cpu.mode().code_bits(), 16);
        assert!(!cpu.in_64_bit_code());
    }

    #[test]
    fn init_keeps_caches_floating_point_and_memory_types() {
        let mut fixture = Fixture::new(&[], 64);
        let cpu = fixture.cpu();
        cpu.cr0 |= Cr0::NW.bits();
        (cpu.xmm[3], cpu.ymm_high[3], cpu.xcr0) = (7, 8, 7);
        cpu.x87.control = 0x37f;
        cpu.msr.mtrr_def_type = 0xc06;
        cpu.msr.pat = 5;
        cpu.msr.tsc_offset = 9;
        cpu.init();
        assert_eq!(cpu.cr0, (Cr0::NW | Cr0::ET).bits());
        assert_eq!((cpu.xmm[3], cpu.x87.control, cpu.msr.mtrr_def_type, cpu.msr.pat), (7, 0x37f, 0xc06, 5));
        assert_eq!((cpu.ymm_high[3], cpu.xcr0), (8, 7));
        assert_eq!((cpu.msr.tsc_offset, cpu.efer & Efer::LMA.bits(), cpu.rip), (9, 0, 0xfff0));
    }

    #[test]
    fn init_forgets_debug_exceptions_that_were_held_back() {
        let mut fixture = Fixture::new(&[], 64);
        fixture.write(0x4000, &[0x10, 0]);
        fixture.cpu().gpr[usize::from(reg::RDI)] = 0x4000;
        fixture.cpu().dr[0] = 0x4000;
        fixture.cpu().dr[7] = 0x3_0401;
        fixture.cpu().flush_all();
        // mov ss, [rdi]: what is read is watched, and told of behind the next instruction.
        assert_eq!(fixture.execute(&[0x8e, 0x17]), Ok(()));
        let held = |fixture: &mut Fixture| {
            let breakpoints = &fixture.cpu().engine.breakpoints;
            (breakpoints.hits, breakpoints.stack_loaded)
        };
        assert_eq!(held(&mut fixture), (1, true));
        fixture.cpu().init();
        assert_eq!(held(&mut fixture), (0, false));
    }

    #[test]
    fn a_start_up_ipi_begins_at_its_page() {
        let mut fixture = Fixture::new(&[], 16);
        fixture.cpu().init();
        fixture.cpu().startup(0x9a);
        let cs = fixture.cpu().segments[usize::from(seg::CS)];
        assert_eq!((cs.selector, cs.base, fixture.cpu().rip), (0x9a00, 0x9_a000, 0));
    }
}
