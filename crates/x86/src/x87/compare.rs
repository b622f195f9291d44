//! Comparisons and classification.
//!
//! Sources: SDM vol. 1 § 8.1.3.1, § 8.3.6 (condition codes, FCOMI); SDM vol. 2 (FCOM, FUCOM, FICOM, FTST, FXAM).

use std::cmp::Ordering;

use iced_x86::Mnemonic;

use super::{
    control::C1,
    source::{Integer16, Integer32, Real32, Real64, Source},
    stack::{StackFault, begin, begin_memory, bits, conclude, environment, is_empty, number, pop, stack_fault},
};
use crate::{
    decode::{Form, Kind},
    float::{Class, Number},
    op::{Handler, Op},
    state::{CpuState, Rflags},
    trap::Trap,
};

/// Status word: condition code bit 0, "less".
pub(super) const C0: u16 = 1 << 8;
/// Condition code bit 2, "unordered" or "incomplete".
pub(super) const C2: u16 = 1 << 10;
/// Condition code bit 3, "equal".
pub(super) const C3: u16 = 1 << 14;

/// Where the order goes.
trait Report {
    /// Bits of the status word that stay as they are.
    const KEPT: u16;
    fn report(cpu: &mut CpuState, order: Option<Ordering>);
}

/// To the condition codes.
struct ConditionCodes;
impl Report for ConditionCodes {
    const KEPT: u16 = 0;

    fn report(cpu: &mut CpuState, order: Option<Ordering>) {
        let codes = match order {
            Some(Ordering::Greater) => 0,
            Some(Ordering::Less) => C0,
            Some(Ordering::Equal) => C3,
            None => C0 | C2 | C3,
        };
        cpu.x87.status = cpu.x87.status & !(C0 | C2 | C3) | codes;
    }
}

/// To the processor's flags; OF, SF and AF become zero.
struct ProcessorFlags;
impl Report for ProcessorFlags {
    // Only a stack fault writes it.
    const KEPT: u16 = C1;

    fn report(cpu: &mut CpuState, order: Option<Ordering>) {
        let flags = match order {
            Some(Ordering::Greater) => Rflags::empty(),
            Some(Ordering::Less) => Rflags::CF,
            Some(Ordering::Equal) => Rflags::ZF,
            None => Rflags::ZF | Rflags::PF | Rflags::CF,
        };
        cpu.rflags = cpu.rflags & !Rflags::ARITHMETIC.bits() | flags.bits();
    }
}

/// Compares ST(0) with `other`; `None` if that is an empty register.
fn compare<R: Report>(cpu: &mut CpuState, op: &Op, other: Option<Number>, signals: bool, pops: u8) {
    let (order, goes_on) = match other {
        Some(other) if !is_empty(cpu, 0) => {
            let mut environment = environment(cpu);
            let order = environment.compare(number(cpu, 0), other, signals);
            let kept = cpu.x87.status & R::KEPT;
            let goes_on = conclude(cpu, op, &environment);
            cpu.x87.status |= kept;
            (order, goes_on)
        }
        _ => (None, stack_fault(cpu, op, StackFault::Underflow)),
    };
    // The order is told also if an exception traps, but then nothing is popped.
    R::report(cpu, order);
    if goes_on {
        pop(cpu, pops);
    }
}

fn register(cpu: &CpuState, i: u8) -> Option<Number> {
    (!is_empty(cpu, i)).then(|| number(cpu, i))
}

extern "C" fn with_register<R: Report, const SIGNALS: bool, const POPS: u8>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    begin(cpu, op)?;
    let other = register(cpu, op.src);
    compare::<R>(cpu, op, other, SIGNALS, POPS);
    Ok(())
}

/// FCOMPP and FUCOMPP, which name no registers.
extern "C" fn with_next<const SIGNALS: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin(cpu, op)?;
    let other = register(cpu, 1);
    compare::<ConditionCodes>(cpu, op, other, SIGNALS, 2);
    Ok(())
}

extern "C" fn with_zero(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin(cpu, op)?;
    compare::<ConditionCodes>(cpu, op, Some(Number::zero(false)), true, 0);
    Ok(())
}

extern "C" fn with_memory<S: Source, const POPS: u8>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin_memory(cpu, op)?;
    let other = S::fetch(cpu, op)?;
    compare::<ConditionCodes>(cpu, op, Some(other), true, POPS);
    Ok(())
}

/// FXAM.
extern "C" fn examine(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin(cpu, op)?;
    let value = number(cpu, 0);
    let class = match value.class {
        _ if is_empty(cpu, 0) => C3 | C0,
        Class::Unsupported => 0,
        Class::QuietNan | Class::SignalingNan => C0,
        Class::Infinity => C2 | C0,
        Class::Zero => C3,
        Class::Finite if value.denormal => C3 | C2,
        Class::Finite => C2,
    };
    let sign = if bits(cpu, 0) >> 79 & 1 != 0 { C1 } else { 0 };
    cpu.x87.status = cpu.x87.status & !(C0 | C1 | C2 | C3) | class | sign;
    Ok(())
}

/// The handler of a comparison.
pub(super) fn select(mnemonic: Mnemonic, form: &Form) -> Option<Handler> {
    Some(match (mnemonic, form.kinds[0], form.sizes[0]) {
        (Mnemonic::Fcom, Kind::Memory, 4) => with_memory::<Real32, 0>,
        (Mnemonic::Fcom, Kind::Memory, _) => with_memory::<Real64, 0>,
        (Mnemonic::Fcom, ..) => with_register::<ConditionCodes, true, 0>,
        (Mnemonic::Fcomp, Kind::Memory, 4) => with_memory::<Real32, 1>,
        (Mnemonic::Fcomp, Kind::Memory, _) => with_memory::<Real64, 1>,
        (Mnemonic::Fcomp, ..) => with_register::<ConditionCodes, true, 1>,
        (Mnemonic::Fcompp, ..) => with_next::<true>,
        (Mnemonic::Fucom, ..) => with_register::<ConditionCodes, false, 0>,
        (Mnemonic::Fucomp, ..) => with_register::<ConditionCodes, false, 1>,
        (Mnemonic::Fucompp, ..) => with_next::<false>,
        (Mnemonic::Ficom, _, 2) => with_memory::<Integer16, 0>,
        (Mnemonic::Ficom, ..) => with_memory::<Integer32, 0>,
        (Mnemonic::Ficomp, _, 2) => with_memory::<Integer16, 1>,
        (Mnemonic::Ficomp, ..) => with_memory::<Integer32, 1>,
        (Mnemonic::Fcomi, ..) => with_register::<ProcessorFlags, true, 0>,
        (Mnemonic::Fcomip, ..) => with_register::<ProcessorFlags, true, 1>,
        (Mnemonic::Fucomi, ..) => with_register::<ProcessorFlags, false, 0>,
        (Mnemonic::Fucomip, ..) => with_register::<ProcessorFlags, false, 1>,
        (Mnemonic::Ftst, ..) => with_zero,
        (Mnemonic::Fxam, ..) => examine,
        _ => return None,
    })
}
