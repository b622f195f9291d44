//! Comparison of strings: VPCMPESTRI, VPCMPESTRM, VPCMPISTRI, VPCMPISTRM.
//!
//! Source: SDM vol. 2 § 4.1.

use iced_x86::Mnemonic;

use super::{
    Vex,
    operands::{enter, set_low, short_source},
};
use crate::{
    op::{Handler, Op},
    simd::{
        operands::xmm,
        strings::{Control, Outcome, compare, lengths},
    },
    state::{CpuState, Rflags, reg},
    trap::Trap,
};

#[inline(always)]
fn compared<const SIZE: u8, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<Outcome, Trap> {
    enter(cpu)?;
    let b = short_source::<MEMORY>(cpu, op)?;
    let outcome = compare(xmm(cpu, op.dst), b, lengths::<SIZE>(cpu), Control(op.imm as u8));
    cpu.rflags = cpu.rflags & !Rflags::ARITHMETIC.bits() | outcome.flags;
    Ok(outcome)
}

/// `SIZE` is that of the registers with the lengths, 0 if strings end at a zero.
extern "C" fn index<const SIZE: u8, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let outcome = compared::<SIZE, MEMORY>(cpu, op)?;
    cpu.gpr[usize::from(reg::RCX)] = outcome.index(Control(op.imm as u8));
    Ok(())
}

extern "C" fn mask<const SIZE: u8, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let outcome = compared::<SIZE, MEMORY>(cpu, op)?;
    set_low(cpu, 0, outcome.mask(Control(op.imm as u8)));
    Ok(())
}

/// The handler of a comparison of strings.
pub(super) fn select(mnemonic: Mnemonic, vex: &Vex<'_>) -> Option<Handler> {
    Some(match (mnemonic, vex.memory) {
        (Mnemonic::Vpcmpistri, false) => index::<0, false>,
        (Mnemonic::Vpcmpistri, true) => index::<0, true>,
        (Mnemonic::Vpcmpestri, false) => index::<4, false>,
        (Mnemonic::Vpcmpestri, true) => index::<4, true>,
        (Mnemonic::Vpcmpestri64, false) => index::<8, false>,
        (Mnemonic::Vpcmpestri64, true) => index::<8, true>,
        (Mnemonic::Vpcmpistrm, false) => mask::<0, false>,
        (Mnemonic::Vpcmpistrm, true) => mask::<0, true>,
        (Mnemonic::Vpcmpestrm, false) => mask::<4, false>,
        (Mnemonic::Vpcmpestrm, true) => mask::<4, true>,
        (Mnemonic::Vpcmpestrm64, false) => mask::<8, false>,
        (Mnemonic::Vpcmpestrm64, true) => mask::<8, true>,
        _ => return None,
    })
}
