//! The saved state of one processor: what its software sees, and nothing that follows from it. Translations, decoded code
//! and the mode word are made anew.
//!
//! Source: SDM vol. 3 §§ 2.3, 2.5, 9.1 for what registers can hold; vol. 4 for model-specific ones.

use std::borrow::Cow;

use rhea_core::LoadError;
use serde::{Deserialize, Serialize};

use crate::{
    protection::address::attribute,
    state::{CpuState, Cr0, Cr4, Efer, Msrs, Rflags, Segment, TableRegister, X87, Xcr0, seg},
    system::{
        breakpoints::HITS,
        cpuid::{CpuidTable, Feature, Leaf},
    },
};

/// General registers.
const REGISTERS: usize = 16;
/// Segment registers.
const SEGMENTS: usize = 6;
/// TOP in the status word, which is kept apart from it.
const STATUS_TOP: u16 = 7 << 11;
/// Bits of MXCSR.
const MXCSR: u32 = 0xffff;

/// Saved form of [`Segment`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentV1 {
    base: u64,
    limit: u32,
    attributes: u16,
    selector: u16,
}

/// Saved form of [`X87`]; its registers are low and high halves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct X87V1 {
    registers: Vec<(u64, u64)>,
    control: u16,
    status: u16,
    top: u8,
    valid: u8,
    last_opcode: u16,
    last_instruction: u64,
    last_data: u64,
    last_cs: u16,
    last_ds: u16,
}

/// What software can find out of the processor's model: a state goes on only on the same one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ModelV1 {
    /// What CPUID answers: function, index, and EAX to EDX.
    leaves: Vec<(u32, u32, [u32; 4])>,
}

/// Saved form of [`CpuState`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CpuV1 {
    model: ModelV1,
    gpr: Vec<u64>,
    rip: u64,
    rflags: u64,
    cpl: u8,
    interrupt_shadow: bool,
    nmi_blocked: bool,
    #[serde(default)]
    x87_error_shown: bool,
    segments: Vec<SegmentV1>,
    cr0: u64,
    cr2: u64,
    cr3: u64,
    cr4: u64,
    efer: u64,
    ldtr: SegmentV1,
    tr: SegmentV1,
    gdtr: (u64, u16),
    idtr: (u64, u16),
    dr: [u64; 8],
    xmm: Vec<(u64, u64)>,
    /// Not in the states of processors without AVX that older programs saved.
    #[serde(default)]
    ymm_high: Vec<(u64, u64)>,
    #[serde(default = "initial_xcr0")]
    xcr0: u64,
    mxcsr: u32,
    x87: X87V1,
    msr: Msrs,
    /// What PAE paging keeps in the processor.
    directory_pointers: [u64; 4],
    #[serde(default)]
    pkru: u32,
    /// Breakpoints that were hit and not told of yet, as bits of DR6, and whether that is because the stack segment was just
    /// loaded. Not in the states that older programs saved: they lost them.
    #[serde(default)]
    breakpoints_hit: u64,
    #[serde(default)]
    stack_loaded: bool,
}

/// XCR0 of a processor that has none, and of one after a reset.
const fn initial_xcr0() -> u64 {
    Xcr0::X87.bits()
}

/// Both halves of a wide register.
const fn halves(value: u128) -> (u64, u64) {
    (value as u64, (value >> 64) as u64)
}

const fn whole((low, high): (u64, u64)) -> u128 {
    (high as u128) << 64 | low as u128
}

impl SegmentV1 {
    const fn of(segment: &Segment) -> Self {
        let Segment { base, limit, attributes, selector } = *segment;
        Self { base, limit, attributes, selector }
    }

    const fn segment(self) -> Segment {
        let Self { base, limit, attributes, selector } = self;
        Segment { base, limit, attributes, selector }
    }
}

impl X87V1 {
    fn of(x87: &X87) -> Self {
        let X87 { registers, control, status, top, valid, last_opcode, last_instruction, last_data, last_cs, last_ds } =
            *x87;
        Self {
            registers: registers.map(halves).into(),
            control,
            status,
            top,
            valid,
            last_opcode,
            last_instruction,
            last_data,
            last_cs,
            last_ds,
        }
    }

    fn x87(&self) -> Option<X87> {
        let Self { registers, control, status, top, valid, last_opcode, last_instruction, last_data, last_cs, last_ds } =
            self.clone();
        let wide: Vec<u128> = registers.into_iter().map(whole).collect();
        let registers: [u128; 8] = wide.try_into().ok()?;
        let fits = registers.iter().all(|register| register >> 80 == 0);
        (fits && status & STATUS_TOP == 0 && top < 8 && last_opcode < 0x800).then_some(X87 {
            registers,
            control,
            status,
            top,
            valid,
            last_opcode,
            last_instruction,
            last_data,
            last_cs,
            last_ds,
        })
    }
}

impl ModelV1 {
    fn of(cpu: &CpuState) -> Self {
        let leaves = cpu.cpuid.leaves().into_iter();
        let registers = |Leaf { eax, ebx, ecx, edx }| [eax, ebx, ecx, edx];
        Self { leaves: leaves.map(|(function, index, leaf)| (function, index, registers(leaf))).collect() }
    }

    fn table(&self) -> CpuidTable {
        let leaf = |[eax, ebx, ecx, edx]: [u32; 4]| Leaf { eax, ebx, ecx, edx };
        let leaves = self.leaves.iter().map(|(function, index, registers)| (*function, *index, leaf(*registers)));
        CpuidTable::from_leaves(leaves)
    }
}

impl CpuState {
    /// What is saved of it.
    pub(crate) fn save(&self) -> CpuV1 {
        let Self {
            gpr,
            rip,
            rflags,
            cpl,
            interrupt_shadow,
            nmi_blocked,
            x87_error_shown,
            // Follow from the rest.
            mode: _,
            privilege: _,
            half_space: _,
            segments,
            cr0,
            cr2,
            cr3,
            cr4,
            efer,
            ldtr,
            tr,
            gdtr,
            idtr,
            dr,
            xmm,
            ymm_high,
            xcr0,
            mxcsr,
            x87,
            msr,
            // Between instructions there is none.
            exception: _,
            pkru,
            // Made anew.
            tlb: _,
            view: _,
            // The same on both sides.
            cpuid: _,
            engine,
            memory: _,
            bus: _,
            // The engine's.
            requests: _,
        } = self;
        let (general, segments) = (gpr.iter().take(REGISTERS), segments.iter().take(SEGMENTS));
        CpuV1 {
            model: ModelV1::of(self),
            gpr: general.copied().collect(),
            rip: *rip,
            rflags: *rflags,
            cpl: *cpl,
            interrupt_shadow: *interrupt_shadow,
            nmi_blocked: *nmi_blocked,
            x87_error_shown: *x87_error_shown,
            segments: segments.map(SegmentV1::of).collect(),
            cr0: *cr0,
            cr2: *cr2,
            cr3: *cr3,
            cr4: *cr4,
            efer: *efer,
            ldtr: SegmentV1::of(ldtr),
            tr: SegmentV1::of(tr),
            gdtr: (gdtr.base, gdtr.limit),
            idtr: (idtr.base, idtr.limit),
            dr: *dr,
            xmm: xmm.iter().copied().map(halves).collect(),
            ymm_high: ymm_high.iter().copied().map(halves).collect(),
            xcr0: *xcr0,
            mxcsr: *mxcsr,
            x87: X87V1::of(x87),
            msr: msr.clone(),
            directory_pointers: engine.paging.directory_pointers,
            pkru: *pkru,
            breakpoints_hit: engine.breakpoints.hits,
            stack_loaded: engine.breakpoints.stack_loaded,
        }
    }

    /// Takes a saved state, and drops all that was made from the old one.
    ///
    /// # Errors
    /// A state that no processor of this model reaches; then nothing has changed.
    pub(crate) fn load(&mut self, saved: CpuV1) -> Result<(), LoadError> {
        let refused = |reason: &str| LoadError::invalid("processor", reason);
        self.check(&saved).map_err(|reason| refused(&reason))?;
        let CpuV1 {
            model: _,
            gpr,
            rip,
            rflags,
            cpl,
            interrupt_shadow,
            nmi_blocked,
            x87_error_shown,
            segments,
            cr0,
            cr2,
            cr3,
            cr4,
            efer,
            ldtr,
            tr,
            gdtr,
            idtr,
            dr,
            xmm,
            ymm_high,
            xcr0,
            mxcsr,
            x87,
            msr,
            directory_pointers,
            pkru,
            breakpoints_hit,
            stack_loaded,
        } = saved;
        let x87 = x87.x87().ok_or_else(|| refused("x87 registers that cannot be"))?;
        for (to, from) in self.gpr.iter_mut().zip(gpr) {
            *to = from;
        }
        for (to, from) in self.segments.iter_mut().zip(segments) {
            *to = from.segment();
        }
        for (to, from) in self.xmm.iter_mut().zip(xmm) {
            *to = whole(from);
        }
        self.ymm_high = [0; 16];
        for (to, from) in self.ymm_high.iter_mut().zip(ymm_high) {
            *to = whole(from);
        }
        self.xcr0 = xcr0;
        (self.rip, self.rflags, self.cpl) = (rip, rflags, cpl);
        (self.interrupt_shadow, self.nmi_blocked) = (interrupt_shadow, nmi_blocked);
        self.x87_error_shown = x87_error_shown;
        (self.cr0, self.cr2, self.cr3, self.cr4, self.efer) = (cr0, cr2, cr3, cr4, efer);
        (self.ldtr, self.tr) = (ldtr.segment(), tr.segment());
        self.gdtr = TableRegister { base: gdtr.0, limit: gdtr.1 };
        self.idtr = TableRegister { base: idtr.0, limit: idtr.1 };
        (self.dr, self.mxcsr, self.x87, self.msr) = (dr, mxcsr, x87, msr);
        self.engine.paging.directory_pointers = directory_pointers;
        self.pkru = pkru;
        (self.engine.breakpoints.hits, self.engine.breakpoints.stack_loaded) = (breakpoints_hit, stack_loaded);
        self.engine.stop = false;
        self.engine.non_canonical = false;
        self.flush_all();
        self.update_mode();
        Ok(())
    }

    /// Whether a processor like this one reaches such a state; if not, what is wrong with it.
    fn check(&self, saved: &CpuV1) -> Result<(), Cow<'static, str>> {
        let demand = |met: bool, otherwise| if met { Ok(()) } else { Err(otherwise) };
        let CpuV1 { rflags, cpl, cr0, cr4, efer, .. } = *saved;
        if let Some(difference) = saved.model.table().difference(&self.cpuid) {
            return Err(format!("it is of another model of processor, {difference}: see -cpu").into());
        }
        let counts = (saved.gpr.len(), saved.segments.len(), saved.xmm.len());
        demand(counts == (REGISTERS, SEGMENTS, self.xmm.len()), "another number of registers")?;
        demand([0, self.ymm_high.len()].contains(&saved.ymm_high.len()), "another number of registers")?;
        demand(self.accepts_xcr0(saved.xcr0), "XCR0: parts of the state that the model does not have")?;

        let flags = Rflags::from_bits(rflags).ok_or("RFLAGS")?;
        demand(flags.contains(Rflags::FIXED), "RFLAGS")?;
        let control = Cr0::from_bits(cr0).filter(|control| control.contains(Cr0::ET)).ok_or("CR0")?;
        demand(!control.contains(Cr0::PG) || control.contains(Cr0::PE), "CR0: paging without protection")?;
        demand(!control.contains(Cr0::NW) || control.contains(Cr0::CD), "CR0: NW without CD")?;
        demand(cr4 & !self.cr4_bits() == 0, "CR4: features that the model does not have")?;
        let extended = Efer::from_bits(efer).ok_or("EFER")?;
        for (feature, bits) in
            [(Feature::SYSCALL, Efer::SCE), (Feature::LM, Efer::LME | Efer::LMA), (Feature::NX, Efer::NXE)]
        {
            demand(
                self.cpuid.has(feature) || !extended.intersects(bits),
                "EFER: features that the model does not have",
            )?;
        }
        let long = extended.contains(Efer::LMA);
        demand(long == (extended.contains(Efer::LME) && control.contains(Cr0::PG)), "EFER: LMA")?;
        demand(!long || cr4 & Cr4::PAE.bits() != 0, "long mode without PAE")?;
        demand(long || cr4 & Cr4::PCIDE.bits() == 0, "CR4: PCIDE outside of long mode")?;
        demand(!long || saved.cr3 & self.engine.paging.beyond_physical == 0, "CR3")?;
        let reserved = self.engine.paging.beyond_physical | 0x1e6;
        demand(saved.directory_pointers.iter().all(|entry| entry & 1 == 0 || entry & reserved == 0), "CR3's pointers")?;

        let virtual_8086 = flags.contains(Rflags::VM);
        let protected = control.contains(Cr0::PE);
        demand(cpl <= 3 && (protected || cpl == 0) && (!virtual_8086 || cpl == 3), "CPL")?;
        demand(!virtual_8086 || protected && !long, "RFLAGS: virtual-8086 mode where there is none")?;
        let code = saved.segments.get(usize::from(seg::CS)).ok_or("CS")?;
        let code_64 = code.attributes & attribute::LONG != 0;
        demand(long || !code_64, "CS: 64-bit code outside of long mode")?;
        demand(code_64 || saved.rip <= u64::from(u32::MAX), "RIP")?;

        let canonical = |address: u64| demand(self.fits_linear_address(address), "an address that is not canonical");
        let attributes = |segment: &SegmentV1| demand(segment.attributes & 0x0f00 == 0, "attributes of a segment");
        for (number, segment) in (0..).zip(&saved.segments) {
            attributes(segment)?;
            match number {
                seg::FS | seg::GS => canonical(segment.base)?,
                _ => demand(segment.base <= u64::from(u32::MAX), "base of a segment")?,
            }
        }
        for segment in [&saved.ldtr, &saved.tr] {
            attributes(segment)?;
            canonical(segment.base)?;
            let of_system = segment.attributes & (attribute::PRESENT | attribute::SEGMENT);
            demand(of_system != attribute::PRESENT | attribute::SEGMENT, "attributes of LDTR or TR")?;
        }
        for address in [saved.gdtr.0, saved.idtr.0] {
            canonical(address)?;
        }
        demand(saved.dr[6] >> 32 == 0 && saved.dr[7] >> 32 == 0, "DR6 or DR7")?;
        demand(saved.breakpoints_hit & !HITS == 0, "breakpoints that are not there")?;
        demand(saved.interrupt_shadow || !saved.stack_loaded, "a stack segment that was loaded without a shadow")?;
        demand(saved.mxcsr & !MXCSR == 0, "MXCSR")?;
        demand(saved.x87.x87().is_some(), "x87 registers that cannot be")?;
        demand(self.holds(&saved.msr), "a value that its model-specific register does not hold")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::testing::Machine, system::cpuid::Feature};

    #[test]
    fn a_state_of_another_model_is_refused_by_what_differs() {
        let mut machine = Machine::new(&[], 64);
        let saved = machine.cpu().save();
        machine.cpu().cpuid.set_feature(Feature::SMEP, true);
        assert_eq!(
            machine.cpu().load(saved.clone()).unwrap_err().to_string(),
            LoadError::invalid("processor", "it is of another model of processor, features -smep: see -cpu")
                .to_string()
        );
        machine.cpu().cpuid.set_feature(Feature::SMEP, false);
        let unlike = |error: LoadError| error.to_string().contains("another model");
        assert!(!machine.cpu().load(saved).is_err_and(unlike));
    }
}
