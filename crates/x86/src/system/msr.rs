//! Model-specific registers: RDMSR and WRMSR. SDM vol. 4, APM vol. 2 appendix A.
//!
//! What is not here raises #GP(0), as on a processor that does not have it; kernels probe for that. So does what comes
//! with a feature that the processor's model does not have.

use crate::{
    op::Op,
    state::{CpuState, Efer, Msrs, reg, seg},
    system::{cpuid::Feature, serialize},
    trap::{Exception, Trap},
};

#[allow(missing_docs, reason = "the registers' own names")]
mod number {
    pub(super) const P5_MC_ADDR: u32 = 0;
    pub(super) const P5_MC_TYPE: u32 = 1;
    pub(super) const TSC: u32 = 0x10;
    pub(super) const PLATFORM_ID: u32 = 0x17;
    pub(super) const APIC_BASE: u32 = 0x1b;
    pub(super) const EBL_CR_POWERON: u32 = 0x2a;
    pub(super) const PATCH_LEVEL: u32 = 0x8b;
    pub(super) const MTRR_CAP: u32 = 0xfe;
    pub(super) const SYSENTER_CS: u32 = 0x174;
    pub(super) const SYSENTER_ESP: u32 = 0x175;
    pub(super) const SYSENTER_EIP: u32 = 0x176;
    pub(super) const MCG_CAP: u32 = 0x179;
    pub(super) const MCG_STATUS: u32 = 0x17a;
    pub(super) const MCG_CTL: u32 = 0x17b;
    pub(super) const MISC_ENABLE: u32 = 0x1a0;
    pub(super) const DEBUGCTL: u32 = 0x1d9;
    pub(super) const LAST_BRANCH: u32 = 0x1db;
    pub(super) const LAST_BRANCH_LAST: u32 = 0x1de;
    pub(super) const MTRR_VARIABLE: u32 = 0x200;
    pub(super) const MTRR_VARIABLE_LAST: u32 = 0x20f;
    pub(super) const MTRR_FIX_64K: u32 = 0x250;
    pub(super) const MTRR_FIX_16K: u32 = 0x258;
    pub(super) const MTRR_FIX_16K_LAST: u32 = 0x259;
    pub(super) const MTRR_FIX_4K: u32 = 0x268;
    pub(super) const MTRR_FIX_4K_LAST: u32 = 0x26f;
    pub(super) const PAT: u32 = 0x277;
    pub(super) const MTRR_DEF_TYPE: u32 = 0x2ff;
    pub(super) const MC_BANKS: u32 = 0x400;
    pub(super) const MC_BANKS_LAST: u32 = 0x413;
    pub(super) const TSC_DEADLINE: u32 = 0x6e0;
    pub(super) const PKRS: u32 = 0x6e1;
    pub(super) const X2APIC: u32 = 0x800;
    pub(super) const X2APIC_LAST: u32 = 0x8ff;
    pub(super) const EFER: u32 = 0xc000_0080;
    pub(super) const STAR: u32 = 0xc000_0081;
    pub(super) const LSTAR: u32 = 0xc000_0082;
    pub(super) const CSTAR: u32 = 0xc000_0083;
    pub(super) const SFMASK: u32 = 0xc000_0084;
    pub(super) const FS_BASE: u32 = 0xc000_0100;
    pub(super) const GS_BASE: u32 = 0xc000_0101;
    pub(super) const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub(super) const TSC_AUX: u32 = 0xc000_0103;
    pub(super) const SYSCFG: u32 = 0xc001_0010;
    pub(super) const HWCR: u32 = 0xc001_0015;
    pub(super) const NORTHBRIDGE: u32 = 0xc001_001f;
    pub(super) const INTERRUPT_PENDING: u32 = 0xc001_0055;
}

/// MTRRs: eight variable ranges, the fixed ones, write-combining.
const MTRR_CAP: u64 = 0x508;
/// Machine check: five banks, and MCG_CTL.
const MCG_CAP: u64 = 0x105;
/// The microcode's version, as virtual processors of AMD's tell it.
const PATCH_LEVEL: u64 = 0x0100_0065;
/// And of Intel's: revision 1, in the upper half (SDM vol. 3 § 10.11.7).
const SIGNATURE: u64 = 1 << 32;
/// IA32_APIC_BASE: x2APIC mode.
const X2APIC_MODE: u64 = 1 << 10;
/// HWCR: writes to MCi_STATUS are allowed.
const MC_STATUS_WRITE: u64 = 1 << 18;
/// IA32_DEBUGCTL: single steps end after branches only.
pub(crate) const BRANCH_TRAP: u64 = 1 << 1;
/// IA32_DEBUGCTL's bits: last branches, of which none is recorded, and [`BRANCH_TRAP`].
const DEBUGCTL_BITS: u64 = 1 | BRANCH_TRAP;
/// IA32_MISC_ENABLE's bits that can be set: fast strings, thermal control, SpeedStep, MONITOR and xTPR messages. Limiting
/// CPUID and taking away NX are not among them.
const MISC_ENABLE_BITS: u64 = 1 << 0 | 1 << 3 | 1 << 16 | MONITOR_ENABLED | 1 << 23;
/// IA32_MISC_ENABLE: MONITOR and MWAIT are on, and told of.
pub(crate) const MONITOR_ENABLED: u64 = 1 << 18;
/// SYSCFG: the fixed MTRRs' RdMem and WrMem bits can be seen and changed.
const FIXED_MTRR_MODIFY: u64 = 1 << 19;

/// Index into the eleven fixed-range MTRRs.
fn fixed_mtrr(msr: u32) -> Option<usize> {
    Some(match msr {
        number::MTRR_FIX_64K => 0,
        number::MTRR_FIX_16K..=number::MTRR_FIX_16K_LAST => 1 + (msr - number::MTRR_FIX_16K) as usize,
        number::MTRR_FIX_4K..=number::MTRR_FIX_4K_LAST => 3 + (msr - number::MTRR_FIX_4K) as usize,
        _ => return None,
    })
}

/// Whether a memory type exists: UC, WC, WT, WP, WB.
fn is_memory_type(value: u8) -> bool {
    matches!(value, 0 | 1 | 4 | 5 | 6)
}

/// Whether the machine has a register of the local APIC's number; the bus answers for those.
fn is_apic(msr: u32) -> bool {
    matches!(msr, number::APIC_BASE | number::TSC_DEADLINE | number::X2APIC..=number::X2APIC_LAST)
}

impl CpuState {
    /// The time stamp counter as the guest reads it.
    pub fn time_stamp(&self) -> u64 {
        self.bus.tsc().wrapping_add(self.msr.tsc_offset)
    }

    /// Bits of physical addresses above those that the processor has.
    fn beyond_physical(&self) -> u64 {
        u64::MAX << self.cpuid.physical_bits()
    }

    /// Whether the processor's model has a register, if any processor does.
    fn has_msr(&self, msr: u32) -> bool {
        let has = |feature| self.cpuid.has(feature);
        let sixth_family = || self.cpuid.family() >= 6;
        match msr {
            number::P5_MC_ADDR | number::P5_MC_TYPE => has(Feature::MCE),
            number::TSC => has(Feature::TSC),
            number::APIC_BASE => has(Feature::APIC),
            number::TSC_DEADLINE => has(Feature::TSC_DEADLINE),
            number::PKRS => has(Feature::PKS),
            number::X2APIC..=number::X2APIC_LAST => has(Feature::X2APIC),
            number::PLATFORM_ID | number::EBL_CR_POWERON | number::MISC_ENABLE => {
                !self.cpuid.is_amd() && sixth_family()
            }
            number::PATCH_LEVEL | number::DEBUGCTL | number::LAST_BRANCH..=number::LAST_BRANCH_LAST => sixth_family(),
            number::SYSENTER_CS..=number::SYSENTER_EIP => has(Feature::SEP),
            number::MCG_CAP..=number::MCG_CTL | number::MC_BANKS..=number::MC_BANKS_LAST => has(Feature::MCA),
            number::PAT => has(Feature::PAT),
            number::MTRR_CAP | number::MTRR_DEF_TYPE | number::MTRR_VARIABLE..=number::MTRR_VARIABLE_LAST => {
                has(Feature::MTRR)
            }
            _ if fixed_mtrr(msr).is_some() => has(Feature::MTRR),
            number::EFER => has(Feature::SYSCALL) || has(Feature::LM) || has(Feature::NX),
            number::STAR => has(Feature::SYSCALL),
            number::LSTAR..=number::SFMASK => has(Feature::SYSCALL) && has(Feature::LM),
            number::FS_BASE..=number::KERNEL_GS_BASE => has(Feature::LM),
            number::TSC_AUX => has(Feature::RDTSCP) || has(Feature::RDPID),
            number::SYSCFG | number::HWCR | number::NORTHBRIDGE | number::INTERRUPT_PENDING => self.cpuid.is_amd(),
            _ => false,
        }
    }

    /// The value of a model-specific register; `None` if there is none of that number.
    pub fn read_msr(&self, msr: u32) -> Option<u64> {
        if !self.has_msr(msr) {
            return None;
        }
        if let Some(index) = fixed_mtrr(msr) {
            return self.msr.mtrr_fixed.get(index).copied();
        }
        Some(match msr {
            _ if is_apic(msr) => return self.bus.apic_msr_read(msr),
            number::TSC => self.time_stamp(),
            // Nothing failed, no straps are set, no branch was recorded.
            number::P5_MC_ADDR | number::P5_MC_TYPE | number::PLATFORM_ID | number::EBL_CR_POWERON => 0,
            number::LAST_BRANCH..=number::LAST_BRANCH_LAST => 0,
            number::DEBUGCTL => self.msr.debugctl,
            number::PKRS => self.msr.pkrs,
            number::PATCH_LEVEL if self.cpuid.is_amd() => PATCH_LEVEL,
            number::PATCH_LEVEL => SIGNATURE,
            number::MTRR_CAP => MTRR_CAP,
            number::SYSENTER_CS => self.msr.sysenter_cs,
            number::SYSENTER_ESP => self.msr.sysenter_esp,
            number::SYSENTER_EIP => self.msr.sysenter_eip,
            number::MCG_CAP => MCG_CAP,
            number::MCG_STATUS => self.msr.mcg_status,
            number::MCG_CTL => self.msr.mcg_ctl,
            number::MISC_ENABLE => self.msr.misc_enable,
            number::MTRR_VARIABLE..=number::MTRR_VARIABLE_LAST => {
                let ranges = if msr & 1 == 0 { &self.msr.mtrr_base } else { &self.msr.mtrr_mask };
                ranges[(msr as usize >> 1) & 7]
            }
            number::PAT => self.msr.pat,
            number::MTRR_DEF_TYPE => self.msr.mtrr_def_type,
            number::MC_BANKS..=number::MC_BANKS_LAST => {
                *self.msr.machine_check.get((msr - number::MC_BANKS) as usize)?
            }
            number::EFER => self.efer,
            number::STAR => self.msr.star,
            number::LSTAR => self.msr.lstar,
            number::CSTAR => self.msr.cstar,
            number::SFMASK => self.msr.sfmask,
            number::FS_BASE => self.segments[usize::from(seg::FS)].base,
            number::GS_BASE => self.segments[usize::from(seg::GS)].base,
            number::KERNEL_GS_BASE => self.msr.kernel_gs_base,
            number::TSC_AUX => self.msr.tsc_aux,
            number::SYSCFG => self.msr.syscfg,
            number::HWCR => self.msr.hwcr,
            // There is no northbridge to configure.
            number::NORTHBRIDGE => 0,
            number::INTERRUPT_PENDING => self.msr.interrupt_pending,
            _ => return None,
        })
    }

    /// Sets a model-specific register; `None` if there is none of that number, or it cannot have that value.
    pub fn write_msr(&mut self, msr: u32, value: u64) -> Option<()> {
        if !self.has_msr(msr) {
            return None;
        }
        let linear = self.fits_linear_address(value);
        let canonical = || linear.then_some(value);
        if let Some(index) = fixed_mtrr(msr) {
            let extra = if self.msr.syscfg & FIXED_MTRR_MODIFY != 0 { 0x18 } else { 0 };
            if !value.to_le_bytes().iter().all(|&byte| is_memory_type(byte & !extra)) {
                return None;
            }
            *self.msr.mtrr_fixed.get_mut(index)? = value;
            return Some(());
        }
        match msr {
            number::APIC_BASE if value & X2APIC_MODE != 0 && !self.cpuid.has(Feature::X2APIC) => return None,
            number::TSC_DEADLINE => self.set_deadline(value),
            _ if is_apic(msr) => return self.bus.apic_msr_write(msr, value),
            number::TSC => {
                self.msr.tsc_offset = value.wrapping_sub(self.bus.tsc());
                if self.cpuid.has(Feature::TSC_DEADLINE)
                    && let Some(deadline) = self.bus.apic_msr_read(number::TSC_DEADLINE)
                {
                    self.set_deadline(deadline);
                }
            }
            // Systems clear it and have CPUID fill it again, which it is all the time.
            number::PATCH_LEVEL if !self.cpuid.is_amd() => {}
            number::SYSENTER_CS => self.msr.sysenter_cs = value & 0xffff,
            number::SYSENTER_ESP => self.msr.sysenter_esp = canonical()?,
            number::SYSENTER_EIP => self.msr.sysenter_eip = canonical()?,
            number::MCG_STATUS => self.msr.mcg_status = (value & !7 == 0).then_some(value)?,
            number::MCG_CTL => self.msr.mcg_ctl = value,
            number::MISC_ENABLE => self.msr.misc_enable = (value & !MISC_ENABLE_BITS == 0).then_some(value)?,
            number::P5_MC_ADDR | number::P5_MC_TYPE => {}
            number::PKRS => self.set_pkrs((value >> 32 == 0).then_some(value)?),
            number::DEBUGCTL => self.msr.debugctl = (value & !DEBUGCTL_BITS == 0).then_some(value)?,
            number::MTRR_VARIABLE..=number::MTRR_VARIABLE_LAST => self.write_variable_mtrr(msr, value)?,
            number::PAT => {
                let valid = |byte: u8| is_memory_type(byte) || byte == 7;
                self.msr.pat = value.to_le_bytes().iter().all(|&byte| valid(byte)).then_some(value)?;
            }
            number::MTRR_DEF_TYPE => {
                let valid = value & !0xcff == 0 && is_memory_type(value as u8);
                self.msr.mtrr_def_type = valid.then_some(value)?;
            }
            number::MC_BANKS..=number::MC_BANKS_LAST => {
                // Each bank has CTL, STATUS, ADDR and MISC; all but CTL can only be cleared.
                let free = msr & 3 == 0 || self.msr.hwcr & MC_STATUS_WRITE != 0;
                let slot = self.msr.machine_check.get_mut((msr - number::MC_BANKS) as usize)?;
                *slot = (free || value == 0).then_some(value)?;
            }
            number::EFER => self.write_efer(value)?,
            number::STAR => self.msr.star = value,
            number::LSTAR => self.msr.lstar = canonical()?,
            number::CSTAR => self.msr.cstar = canonical()?,
            number::SFMASK => self.msr.sfmask = value & 0xffff_ffff,
            number::FS_BASE => self.segments[usize::from(seg::FS)].base = canonical()?,
            number::GS_BASE => self.segments[usize::from(seg::GS)].base = canonical()?,
            number::KERNEL_GS_BASE => self.msr.kernel_gs_base = canonical()?,
            number::TSC_AUX => self.msr.tsc_aux = value & 0xffff_ffff,
            number::SYSCFG => self.msr.syscfg = (value >> 32 == 0).then_some(value)?,
            number::HWCR => self.msr.hwcr = (value >> 32 == 0).then_some(value)?,
            number::NORTHBRIDGE => {}
            number::INTERRUPT_PENDING => {
                self.msr.interrupt_pending = (value >> 32 == 0).then_some(value)?;
            }
            _ => return None,
        }
        Some(())
    }

    /// Whether registers can hold these values together.
    pub(crate) fn holds(&self, values: &Msrs) -> bool {
        let Msrs {
            star: _,
            lstar,
            cstar,
            sfmask,
            kernel_gs_base,
            sysenter_cs,
            sysenter_esp,
            sysenter_eip,
            pat,
            tsc_offset: _,
            tsc_aux,
            misc_enable,
            mtrr_def_type,
            mtrr_fixed,
            mtrr_base,
            mtrr_mask,
            mcg_status,
            mcg_ctl: _,
            machine_check: _,
            syscfg,
            hwcr,
            interrupt_pending,
            debugctl,
            pkrs,
        } = values;
        let fixed = |value: &u64| value.to_le_bytes().iter().all(|&byte| is_memory_type(byte & !0x18));
        let base = |value: &u64| value & (self.beyond_physical() | 0xf00) == 0 && is_memory_type(*value as u8);
        let mask = |value: &u64| value & (self.beyond_physical() | 0x7ff) == 0;
        [lstar, cstar, kernel_gs_base, sysenter_esp, sysenter_eip]
            .into_iter()
            .all(|&address| self.fits_linear_address(address))
            && [sfmask, tsc_aux, syscfg, hwcr, interrupt_pending, pkrs].into_iter().all(|value| value >> 32 == 0)
            && sysenter_cs >> 16 == 0
            && pat.to_le_bytes().iter().all(|&byte| is_memory_type(byte) || byte == 7)
            && mtrr_def_type & !0xcff == 0
            && is_memory_type(*mtrr_def_type as u8)
            && mtrr_fixed.iter().all(fixed)
            && mtrr_base.iter().all(base)
            && mtrr_mask.iter().all(mask)
            && mcg_status & !7 == 0
            && misc_enable & !MISC_ENABLE_BITS == 0
            && debugctl & !DEBUGCTL_BITS == 0
    }

    /// Arms the local APIC's timer for the time at which the guest's counter reaches `deadline`; disarms it for zero.
    fn set_deadline(&self, deadline: u64) {
        let now = self.bus.tsc();
        let left = deadline.saturating_sub(now.wrapping_add(self.msr.tsc_offset));
        self.bus.set_tsc_deadline(deadline, now.saturating_add(left));
    }

    fn write_variable_mtrr(&mut self, msr: u32, value: u64) -> Option<()> {
        let index = (msr as usize >> 1) & 7;
        if msr & 1 == 0 {
            let valid = value & (self.beyond_physical() | 0xf00) == 0 && is_memory_type(value as u8);
            self.msr.mtrr_base[index] = valid.then_some(value)?;
        } else {
            let valid = value & (self.beyond_physical() | 0x7ff) == 0;
            self.msr.mtrr_mask[index] = valid.then_some(value)?;
        }
        Some(())
    }

    /// EFER: bits of features that are not offered are reserved; LMA follows CR0.PG and cannot be written.
    fn write_efer(&mut self, value: u64) -> Option<()> {
        let mut bits = Efer::empty();
        for (feature, bit) in
            [(Feature::SYSCALL, Efer::SCE), (Feature::LM, Efer::LME | Efer::LMA), (Feature::NX, Efer::NXE)]
        {
            bits.set(bit, self.cpuid.has(feature));
        }
        let paging = self.cr0_has(crate::state::Cr0::PG);
        let changed = self.efer ^ value;
        if value & !bits.bits() != 0 || paging && changed & Efer::LME.bits() != 0 {
            return None;
        }
        let old = self.efer;
        self.efer = value & !Efer::LMA.bits() | old & Efer::LMA.bits();
        if changed & Efer::NXE.bits() != 0 && self.paging_changed().is_err() {
            self.efer = old;
            return None;
        }
        self.update_mode();
        Some(())
    }
}

/// RDMSR.
pub(super) extern "C" fn read(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    cpu.require_cpl_0()?;
    let msr = cpu.register(reg::RCX) as u32;
    let Some(value) = cpu.read_msr(msr) else {
        return Err(cpu.raise(Exception::general_protection(0)));
    };
    cpu.gpr[usize::from(reg::RAX)] = value & 0xffff_ffff;
    cpu.gpr[usize::from(reg::RDX)] = value >> 32;
    Ok(())
}

/// WRMSR.
pub(super) extern "C" fn write(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    cpu.require_cpl_0()?;
    serialize();
    let msr = cpu.register(reg::RCX) as u32;
    let value = cpu.register(reg::RDX) << 32 | cpu.register(reg::RAX) & 0xffff_ffff;
    if cpu.write_msr(msr, value).is_none() {
        return Err(cpu.raise(Exception::general_protection(0)));
    }
    match msr {
        // These change nothing that the rest of the block depends on.
        number::FS_BASE | number::GS_BASE | number::KERNEL_GS_BASE => Ok(()),
        _ => Err(Trap::NEXT),
    }
}
