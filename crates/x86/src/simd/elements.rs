//! Elements of any size in and out of XMM registers: PINSR, PEXTR, INSERTPS, EXTRACTPS.
//!
//! Source: SDM vol. 2 for each instruction.

use iced_x86::Mnemonic;

use super::{
    lanes::dword,
    operands::{enter_sse, load, set_xmm, store, xmm},
};
use crate::{
    decode::{Form, Kind},
    integer::word::Word,
    op::{Handler, Op},
    state::CpuState,
    trap::Trap,
};

/// Where element `number` of a register begins.
#[inline(always)]
fn shift<T: Word>(number: u64) -> u32 {
    T::BITS * (number as u32 & (128 / T::BITS - 1))
}

/// Element `number` of a register.
#[inline(always)]
pub(super) fn element<T: Word>(a: u128, number: u64) -> T {
    T::cut((a >> shift::<T>(number)) as u64)
}

/// `a` with element `number` replaced.
#[inline(always)]
pub(super) fn with_element<T: Word>(a: u128, number: u64, value: T) -> u128 {
    let shift = shift::<T>(number);
    a & !((u128::MAX >> (128 - T::BITS)) << shift) | u128::from(value.wide()) << shift
}

/// INSERTPS: `value` at the place in bits 4 and 5 of the immediate, then zero wherever one of its low bits is set.
#[inline(always)]
pub(super) fn insert_single(a: u128, value: u32, immediate: u8) -> u128 {
    let inserted = with_element(a, u64::from(immediate >> 4 & 3), value);
    (0..4).fold(inserted, |a, i| if immediate >> i & 1 != 0 { with_element(a, i, 0_u32) } else { a })
}

extern "C" fn to_register<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    cpu.gpr[usize::from(op.dst & 15)] = element::<T>(xmm(cpu, op.src), op.imm).wide();
    Ok(())
}

extern "C" fn to_memory<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let value: T = element(xmm(cpu, op.src), op.imm);
    store(cpu, op, value)
}

extern "C" fn from_register<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let value = T::cut(cpu.register(op.src));
    let old = xmm(cpu, op.dst);
    set_xmm(cpu, op.dst, with_element(old, op.imm, value));
    Ok(())
}

extern "C" fn from_memory<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let value: T = load(cpu, op)?;
    let old = xmm(cpu, op.dst);
    set_xmm(cpu, op.dst, with_element(old, op.imm, value));
    Ok(())
}

extern "C" fn single<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let value = if MEMORY { load(cpu, op)? } else { dword(xmm(cpu, op.src), (op.imm as u32 & 0xff) >> 6) };
    let old = xmm(cpu, op.dst);
    set_xmm(cpu, op.dst, insert_single(old, value, op.imm as u8));
    Ok(())
}

/// The handler of an insertion or extraction. The older forms of PINSRW and PEXTRW are with the shuffles.
pub(super) fn select(mnemonic: Mnemonic, form: &Form) -> Option<Handler> {
    let [destination, source, ..] = form.kinds.map(|kind| kind == Kind::Memory);
    Some(match (mnemonic, destination, source) {
        (Mnemonic::Pextrb, false, _) => to_register::<u8>,
        (Mnemonic::Pextrw, false, _) => to_register::<u16>,
        (Mnemonic::Pextrd | Mnemonic::Extractps, false, _) => to_register::<u32>,
        (Mnemonic::Pextrq, false, _) => to_register::<u64>,
        (Mnemonic::Pextrb, true, _) => to_memory::<u8>,
        (Mnemonic::Pextrw, true, _) => to_memory::<u16>,
        (Mnemonic::Pextrd | Mnemonic::Extractps, true, _) => to_memory::<u32>,
        (Mnemonic::Pextrq, true, _) => to_memory::<u64>,
        (Mnemonic::Pinsrb, _, false) => from_register::<u8>,
        (Mnemonic::Pinsrd, _, false) => from_register::<u32>,
        (Mnemonic::Pinsrq, _, false) => from_register::<u64>,
        (Mnemonic::Pinsrb, _, true) => from_memory::<u8>,
        (Mnemonic::Pinsrd, _, true) => from_memory::<u32>,
        (Mnemonic::Pinsrq, _, true) => from_memory::<u64>,
        (Mnemonic::Insertps, _, false) => single::<false>,
        (Mnemonic::Insertps, _, true) => single::<true>,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_an_element_wraps_at_their_count() {
        let a = 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100;
        assert_eq!(element::<u8>(a, 0xf3), 3);
        assert_eq!(element::<u64>(a, 3), 0x0f0e_0d0c_0b0a_0908);
        assert_eq!(with_element(a, 5, 0xffff_ffff_u32), a | 0xffff_ffff << 32);
        assert_eq!(with_element(u128::MAX, 2, 0_u64), u128::MAX << 64);
    }

    #[test]
    fn an_inserted_single_may_be_cleared_at_once() {
        assert_eq!(insert_single(u128::MAX, 7, 0b01_1000), 0x0000_0000_ffff_ffff_0000_0007_ffff_ffff);
        assert_eq!(insert_single(u128::MAX, 7, 0b01_0010), !(0xffff_ffff << 32));
    }
}
