//! Shuffles by an immediate, and words in and out of the general registers.
//!
//! Source: SDM vol. 2 (PSHUFD, PSHUFHW, PSHUFLW, PSHUFW, SHUFPS, SHUFPD, PINSRW, PEXTRW).

use iced_x86::{Code, Instruction, Mnemonic};

use super::{
    Destination,
    lanes::{dword, from_dwords, from_qwords, qword},
    operands::{claim_mmx, enter_mmx, load, mmx, set_mmx},
    operations::operations,
};
use crate::{
    decode::{Form, Kind},
    op::{Handler, Op},
    state::CpuState,
    trap::Trap,
};

/// Two bits of `order`.
#[inline(always)]
fn pick(order: u8, slot: u32) -> u32 {
    u32::from(order >> (2 * slot) & 3)
}

/// Four words of `a` in the given order.
#[inline(always)]
fn shuffle_words(a: u64, order: u8) -> u64 {
    (0..4).fold(0, |result, i| result | (a >> (16 * pick(order, i)) & 0xffff) << (16 * i))
}

operations! { immediate
    Pshufd: |_a, b, order| from_dwords(std::array::from_fn(|i| dword(b, pick(order, i as u32))));
    Pshufhw: |_a, b, order| from_qwords(qword(b, 0), shuffle_words(qword(b, 1), order));
    Pshuflw: |_a, b, order| from_qwords(shuffle_words(qword(b, 0), order), qword(b, 1));
    Shufps: |a, b, order| from_dwords([
        dword(a, pick(order, 0)),
        dword(a, pick(order, 1)),
        dword(b, pick(order, 2)),
        dword(b, pick(order, 3)),
    ]);
    Shufpd: |a, b, order| from_qwords(qword(a, u32::from(order)), qword(b, u32::from(order >> 1)));
}

extern "C" fn shuffle_mmx<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_mmx(cpu)?;
    let b = if MEMORY { load(cpu, op)? } else { mmx(cpu, op.src) };
    set_mmx(cpu, op.dst, shuffle_words(b, op.imm as u8));
    Ok(())
}

/// The word that PINSRW inserts.
#[inline(always)]
fn inserted<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<u16, Trap> {
    if MEMORY { load(cpu, op) } else { Ok(cpu.register(op.src) as u16) }
}

extern "C" fn insert_word_mmx<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_mmx(cpu)?;
    let value = inserted::<MEMORY>(cpu, op)?;
    let shift = 16 * (op.imm as u32 & 3);
    let old = mmx(cpu, op.dst);
    set_mmx(cpu, op.dst, old & !(0xffff << shift) | u64::from(value) << shift);
    Ok(())
}

extern "C" fn extract_word_mmx(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_mmx(cpu)?;
    claim_mmx(cpu);
    cpu.gpr[usize::from(op.dst & 15)] = mmx(cpu, op.src) >> (16 * (op.imm as u32 & 3)) & 0xffff;
    Ok(())
}

/// The handler of a shuffle, insertion or extraction.
pub(super) fn select(instruction: &Instruction, form: &Form, destination: Destination) -> Option<Handler> {
    let memory = form.kinds[1] == Kind::Memory;
    Some(match instruction.mnemonic() {
        Mnemonic::Pshufw if memory => shuffle_mmx::<true>,
        Mnemonic::Pshufw => shuffle_mmx::<false>,
        Mnemonic::Pinsrw => match (destination, memory) {
            (Destination::Mmx, false) => insert_word_mmx::<false>,
            (Destination::Mmx, true) => insert_word_mmx::<true>,
            _ => return None,
        },
        Mnemonic::Pextrw => match instruction.code() {
            Code::Pextrw_r32_mm_imm8 | Code::Pextrw_r64_mm_imm8 => extract_word_mmx,
            _ => return None,
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::operations::Immediate, *};

    #[test]
    fn each_slot_of_a_shuffle_is_chosen_by_two_bits() {
        let a = from_dwords([0, 1, 2, 3]);
        let b = from_dwords([4, 5, 6, 7]);
        assert_eq!(Pshufd::wide(a, b, 0b00_01_10_11), from_dwords([7, 6, 5, 4]));
        assert_eq!(Shufps::wide(a, b, 0b00_01_10_11), from_dwords([3, 2, 5, 4]));
        assert_eq!(Shufpd::wide(a, b, 0b01), from_qwords(qword(a, 1), qword(b, 0)));
        assert_eq!(shuffle_words(0x0003_0002_0001_0000, 0b00_01_10_11), 0x0000_0001_0002_0003);
        assert_eq!(Pshufhw::wide(0, 0x0003_0002_0001_0000 << 64 | 9, 0), 9);
    }
}
