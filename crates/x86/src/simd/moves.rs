//! Moves between XMM, MMX and general registers and memory.
//!
//! Sources: SDM vol. 1 § 10.4.1, § 11.4.1, § 12.3; SDM vol. 2. Non-temporal stores are plain stores here: guest memory
//! has no caches to pass by.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::{
    Destination,
    lanes::{dword, from_dwords, from_qwords, qword, with_low_dword, with_low_qword},
    operands::{
        claim_mmx, enter_mmx, enter_sse, load, load_aligned, mmx, set_mmx, set_xmm, source, store, store_aligned, xmm,
    },
    scalars::{TwoOperands, extract, from_general, load_low, mask_move, merge, merge_memory, store_element},
};
use crate::{
    access::{Access, Value},
    decode::{Form, Kind, segment_number},
    op::{Handler, Op, ZERO},
    state::{CpuState, reg, seg},
    trap::Trap,
};

extern "C" fn copy(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let value = xmm(cpu, op.src);
    set_xmm(cpu, op.dst, value);
    Ok(())
}

extern "C" fn load_aligned_16(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let value = load_aligned(cpu, op)?;
    set_xmm(cpu, op.dst, value);
    Ok(())
}

extern "C" fn load_16(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let value = load(cpu, op)?;
    set_xmm(cpu, op.dst, value);
    Ok(())
}

extern "C" fn store_aligned_16(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let value = xmm(cpu, op.src);
    store_aligned(cpu, op, value)
}

extern "C" fn store_16(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let value = xmm(cpu, op.src);
    store(cpu, op, value)
}

/// A move between XMM registers that makes the destination of its old value and the source.
pub(super) trait Merge {
    fn merge(old: u128, source: u128) -> u128;
}

macro_rules! merges {
    ($($name:ident: |$old:pat_param, $source:ident| $value:expr;)*) => {
        $(
            pub(super) struct $name;
            impl Merge for $name {
                #[inline(always)]
                fn merge($old: u128, $source: u128) -> u128 {
                    $value
                }
            }
        )*
    };
}

merges! {
    LowDword: |old, source| with_low_dword(old, source as u32);
    LowQword: |old, source| with_low_qword(old, qword(source, 0));
    LowQwordAlone: |_, source| u128::from(qword(source, 0));
    HighToLow: |old, source| with_low_qword(old, qword(source, 1));
    LowToHigh: |old, source| from_qwords(qword(old, 0), qword(source, 0));
    DoubleLowQword: |_, source| from_qwords(qword(source, 0), qword(source, 0));
    DoubleOddDwords: |_, source| {
        from_dwords([dword(source, 1), dword(source, 1), dword(source, 3), dword(source, 3)])
    };
    DoubleEvenDwords: |_, source| {
        from_dwords([dword(source, 0), dword(source, 0), dword(source, 2), dword(source, 2)])
    };
}

/// MOVSHDUP, MOVSLDUP.
extern "C" fn merge_aligned<M: Merge>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let value = source::<true>(cpu, op)?;
    let old = xmm(cpu, op.dst);
    set_xmm(cpu, op.dst, M::merge(old, value));
    Ok(())
}

extern "C" fn load_and_double(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let value = load(cpu, op)?;
    set_xmm(cpu, op.dst, from_qwords(value, value));
    Ok(())
}

extern "C" fn general_to_mmx<const SIZE: u8>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_mmx(cpu)?;
    let value = cpu.register(op.src);
    set_mmx(cpu, op.dst, if SIZE == 8 { value } else { value & 0xffff_ffff });
    Ok(())
}

extern "C" fn mmx_to_general<const SIZE: u8>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_mmx(cpu)?;
    claim_mmx(cpu);
    let value = mmx(cpu, op.src);
    cpu.gpr[usize::from(op.dst & 15)] = if SIZE == 8 { value } else { value & 0xffff_ffff };
    Ok(())
}

extern "C" fn copy_mmx(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_mmx(cpu)?;
    let value = mmx(cpu, op.src);
    set_mmx(cpu, op.dst, value);
    Ok(())
}

extern "C" fn load_mmx<T: Value + Into<u64>>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_mmx(cpu)?;
    let value: T = load(cpu, op)?;
    set_mmx(cpu, op.dst, value.into());
    Ok(())
}

/// Stores from an MMX register; ST(0) is R0 from then on, also if memory faults.
#[inline(always)]
fn store_mmx<T: Value>(cpu: &mut CpuState, op: &Op, value: T) -> Result<(), Trap> {
    cpu.x87.top = 0;
    store(cpu, op, value)?;
    claim_mmx(cpu);
    Ok(())
}

extern "C" fn store_mmx_dword(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_mmx(cpu)?;
    let value = mmx(cpu, op.src) as u32;
    store_mmx(cpu, op, value)
}

extern "C" fn store_mmx_qword(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_mmx(cpu)?;
    let value = mmx(cpu, op.src);
    store_mmx(cpu, op, value)
}

/// MOVQ2DQ.
extern "C" fn mmx_to_xmm(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    enter_mmx(cpu)?;
    claim_mmx(cpu);
    let value = mmx(cpu, op.src);
    set_xmm(cpu, op.dst, u128::from(value));
    Ok(())
}

/// MOVDQ2Q.
extern "C" fn xmm_to_mmx(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    enter_mmx(cpu)?;
    let value = qword(xmm(cpu, op.src), 0);
    set_mmx(cpu, op.dst, value);
    Ok(())
}

/// One bit for each of `count` lanes of `width` bits: its sign.
#[inline(always)]
pub(super) fn signs(a: u128, width: u32, count: u32) -> u64 {
    (0..count).fold(0, |signs, i| signs | ((a >> (width * (i + 1) - 1)) as u64 & 1) << i)
}

extern "C" fn move_signs<const WIDTH: u32, const COUNT: u32>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    cpu.gpr[usize::from(op.dst & 15)] = signs(xmm(cpu, op.src), WIDTH, COUNT);
    Ok(())
}

extern "C" fn move_signs_mmx(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_mmx(cpu)?;
    claim_mmx(cpu);
    cpu.gpr[usize::from(op.dst & 15)] = signs(u128::from(mmx(cpu, op.src)), 8, 8);
    Ok(())
}

/// Writes those bytes of `value` whose byte of `mask` has its top bit set; with none chosen memory is not touched.
pub(super) fn store_masked(cpu: &mut CpuState, op: &Op, value: u128, mask: u128, size: u64) -> Result<(), Trap> {
    let chosen = signs(mask, 8, 16);
    if chosen == 0 {
        return Ok(());
    }
    let linear = cpu.linear(op, size, Access::Write)?;
    // Halves without a chosen byte cannot fault.
    for half in 0..size / 8 {
        if chosen >> (8 * half) & 0xff != 0 {
            cpu.probe_write(linear.wrapping_add(8 * half), 8)?;
        }
    }
    for (i, byte) in value.to_le_bytes().into_iter().enumerate() {
        if chosen >> i & 1 != 0 {
            cpu.write(linear.wrapping_add(i as u64), byte)?;
        }
    }
    Ok(())
}

extern "C" fn mask_move_mmx(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_mmx(cpu)?;
    let (value, mask) = (mmx(cpu, op.src), mmx(cpu, op.aux));
    claim_mmx(cpu);
    store_masked(cpu, op, u128::from(value), u128::from(mask), 8)
}

/// Describes the implied memory operand of MASKMOVQ and MASKMOVDQU: at rDI.
pub(super) fn lower_implied_memory(instruction: &Instruction, form: &Form, op: &mut Op) {
    op.base = reg::RDI;
    op.index = ZERO;
    op.scale = 0;
    op.disp = 0;
    op.address_size = match instruction.op_kind(0) {
        OpKind::MemorySegDI => 2,
        OpKind::MemorySegEDI => 4,
        _ => 8,
    };
    let segment = segment_number(instruction.memory_segment());
    op.segment = if form.bits == 64 && segment < seg::FS { seg::FLAT } else { segment };
}

/// The handler of a move.
pub(super) fn select(instruction: &Instruction, form: &Form, destination: Destination, op: &mut Op) -> Option<Handler> {
    let from_mmx =
        instruction.op_count() > 1 && instruction.op_kind(1) == OpKind::Register && instruction.op_register(1).is_mm();
    let from_xmm =
        instruction.op_count() > 1 && instruction.op_kind(1) == OpKind::Register && instruction.op_register(1).is_xmm();
    Some(match (instruction.mnemonic(), form.kinds[0], form.kinds[1]) {
        (
            Mnemonic::Movaps
            | Mnemonic::Movapd
            | Mnemonic::Movdqa
            | Mnemonic::Movups
            | Mnemonic::Movupd
            | Mnemonic::Movdqu,
            Kind::Register,
            Kind::Register,
        ) => copy,
        (Mnemonic::Movaps | Mnemonic::Movapd | Mnemonic::Movdqa, Kind::Register, Kind::Memory)
        | (Mnemonic::Movntdqa, ..) => load_aligned_16,
        (Mnemonic::Movaps | Mnemonic::Movapd | Mnemonic::Movdqa, Kind::Memory, _)
        | (Mnemonic::Movntps | Mnemonic::Movntpd | Mnemonic::Movntdq, ..) => store_aligned_16,
        (Mnemonic::Movups | Mnemonic::Movupd | Mnemonic::Movdqu | Mnemonic::Lddqu, Kind::Register, Kind::Memory) => {
            load_16
        }
        (Mnemonic::Movups | Mnemonic::Movupd | Mnemonic::Movdqu, Kind::Memory, _) => store_16,
        (Mnemonic::Movss, Kind::Register, Kind::Register) => merge::<TwoOperands, LowDword>,
        (Mnemonic::Movss, Kind::Register, _) => load_low::<TwoOperands, u32>,
        (Mnemonic::Movss, Kind::Memory, _) => store_element::<TwoOperands, u32, 0>,
        // The string instruction has the same mnemonic.
        (Mnemonic::Movsd, Kind::Register, Kind::Register) => merge::<TwoOperands, LowQword>,
        (Mnemonic::Movsd, Kind::Register, _) => load_low::<TwoOperands, u64>,
        (Mnemonic::Movsd, Kind::Memory, Kind::Register) if from_xmm => store_element::<TwoOperands, u64, 0>,
        (Mnemonic::Movq | Mnemonic::Movd, Kind::Register, Kind::Register) => match destination {
            Destination::Xmm if from_xmm => merge::<TwoOperands, LowQwordAlone>,
            Destination::Mmx if from_mmx => copy_mmx,
            Destination::Xmm if form.sizes[1] == 8 => from_general::<TwoOperands, u64>,
            Destination::Xmm => from_general::<TwoOperands, u32>,
            Destination::Mmx if form.sizes[1] == 8 => general_to_mmx::<8>,
            Destination::Mmx => general_to_mmx::<4>,
            Destination::Other if from_xmm && form.sizes[0] == 8 => extract::<TwoOperands, u64>,
            Destination::Other if from_xmm => extract::<TwoOperands, u32>,
            Destination::Other if form.sizes[0] == 8 => mmx_to_general::<8>,
            Destination::Other => mmx_to_general::<4>,
        },
        (Mnemonic::Movq | Mnemonic::Movd, Kind::Register, Kind::Memory) => match (destination, form.sizes[1]) {
            (Destination::Xmm, 8) => load_low::<TwoOperands, u64>,
            (Destination::Xmm, _) => load_low::<TwoOperands, u32>,
            (_, 8) => load_mmx::<u64>,
            _ => load_mmx::<u32>,
        },
        (Mnemonic::Movq | Mnemonic::Movd, Kind::Memory, _) => match (from_xmm, form.sizes[0]) {
            (true, 8) => store_element::<TwoOperands, u64, 0>,
            (true, _) => store_element::<TwoOperands, u32, 0>,
            (false, 8) => store_mmx_qword,
            (false, _) => store_mmx_dword,
        },
        (Mnemonic::Movntq, ..) => store_mmx_qword,
        (Mnemonic::Movlps | Mnemonic::Movlpd, Kind::Register, Kind::Memory) => merge_memory::<TwoOperands, LowQword>,
        (Mnemonic::Movlps | Mnemonic::Movlpd, Kind::Memory, _) => store_element::<TwoOperands, u64, 0>,
        (Mnemonic::Movhps | Mnemonic::Movhpd, Kind::Register, Kind::Memory) => merge_memory::<TwoOperands, LowToHigh>,
        (Mnemonic::Movhps | Mnemonic::Movhpd, Kind::Memory, _) => store_element::<TwoOperands, u64, 1>,
        (Mnemonic::Movhlps, ..) => merge::<TwoOperands, HighToLow>,
        (Mnemonic::Movlhps, ..) => merge::<TwoOperands, LowToHigh>,
        (Mnemonic::Movddup, _, Kind::Register) => merge::<TwoOperands, DoubleLowQword>,
        (Mnemonic::Movddup, ..) => load_and_double,
        (Mnemonic::Movshdup, _, Kind::Register) => merge::<TwoOperands, DoubleOddDwords>,
        (Mnemonic::Movshdup, ..) => merge_aligned::<DoubleOddDwords>,
        (Mnemonic::Movsldup, _, Kind::Register) => merge::<TwoOperands, DoubleEvenDwords>,
        (Mnemonic::Movsldup, ..) => merge_aligned::<DoubleEvenDwords>,
        (Mnemonic::Movq2dq, ..) => mmx_to_xmm,
        (Mnemonic::Movdq2q, ..) => xmm_to_mmx,
        (Mnemonic::Movmskps, ..) => move_signs::<32, 4>,
        (Mnemonic::Movmskpd, ..) => move_signs::<64, 2>,
        (Mnemonic::Pmovmskb, ..) if from_mmx => move_signs_mmx,
        (Mnemonic::Pmovmskb, ..) => move_signs::<8, 16>,
        (Mnemonic::Maskmovdqu, ..) => {
            lower_implied_memory(instruction, form, op);
            mask_move::<TwoOperands>
        }
        (Mnemonic::Maskmovq, ..) => {
            lower_implied_memory(instruction, form, op);
            mask_move_mmx
        }
        _ => return None,
    })
}

/// The kind of register that operand 0 is.
pub(super) fn destination(instruction: &Instruction) -> Destination {
    let register = if instruction.op_count() > 0 && instruction.op_kind(0) == OpKind::Register {
        instruction.op_register(0)
    } else {
        Register::None
    };
    if register.is_xmm() {
        Destination::Xmm
    } else if register.is_mm() {
        Destination::Mmx
    } else {
        Destination::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sign_bit_a_lane() {
        let a = 0x80 << 120 | 0x80 << 56 | 0x80;
        assert_eq!(signs(a, 8, 16), 0x8081);
        assert_eq!(signs(a, 32, 4), 0b1010);
        assert_eq!(signs(a, 64, 2), 0b11);
    }

    #[test]
    fn partial_moves_keep_the_rest_of_the_register() {
        let (old, new) = (from_dwords([0, 1, 2, 3]), from_dwords([4, 5, 6, 7]));
        assert_eq!(LowDword::merge(old, new), from_dwords([4, 1, 2, 3]));
        assert_eq!(LowQword::merge(old, new), from_dwords([4, 5, 2, 3]));
        assert_eq!(LowQwordAlone::merge(old, new), from_dwords([4, 5, 0, 0]));
        assert_eq!(HighToLow::merge(old, new), from_dwords([6, 7, 2, 3]));
        assert_eq!(LowToHigh::merge(old, new), from_dwords([0, 1, 4, 5]));
        assert_eq!(DoubleOddDwords::merge(old, new), from_dwords([5, 5, 7, 7]));
    }
}
