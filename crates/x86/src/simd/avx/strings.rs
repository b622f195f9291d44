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
    simd::strings::{Control, compare_with, index_with},
    state::CpuState,
    trap::Trap,
};

/// `SIZE` is that of the registers with the lengths, 0 if strings end at a zero.
extern "C" fn index<const SIZE: u8, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let b = short_source::<MEMORY>(cpu, op)?;
    index_with::<SIZE>(cpu, op, b);
    Ok(())
}

extern "C" fn mask<const SIZE: u8, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let b = short_source::<MEMORY>(cpu, op)?;
    let outcome = compare_with::<SIZE>(cpu, op, b);
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
