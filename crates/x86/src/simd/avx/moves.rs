//! Moves between vector and general registers and memory, and the state that goes with vectors.
//!
//! Source: SDM vol. 2 for each instruction. Non-temporal moves are plain ones here: guest memory has no caches to pass by.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::{
    Vex,
    operands::{either, enter, load_aligned, load_vector, set_low, set_vector, store_aligned, store_vector, vector},
};
use crate::{
    decode::Kind,
    op::{Handler, Op},
    simd::{
        moves::{HighToLow, LowDword, LowQword, LowQwordAlone, LowToHigh, lower_implied_memory, signs},
        operands::xmm,
        scalars::{ThreeOperands, extract, from_general, load_low, mask_move, merge, merge_memory, store_element},
    },
    state::CpuState,
    trap::Trap,
};

extern "C" fn copy<const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let [low, high] = vector(cpu, op.src);
    set_vector(cpu, op.dst, [low, if LONG { high } else { 0 }]);
    Ok(())
}

extern "C" fn load_any<const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let value = load_vector::<LONG>(cpu, op)?;
    set_vector(cpu, op.dst, value);
    Ok(())
}

extern "C" fn load_multiple<const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let value = load_aligned::<LONG>(cpu, op)?;
    set_vector(cpu, op.dst, value);
    Ok(())
}

extern "C" fn store_any<const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let value = vector(cpu, op.src);
    store_vector::<LONG>(cpu, op, value)
}

extern "C" fn store_multiple<const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let value = vector(cpu, op.src);
    store_aligned::<LONG>(cpu, op, value)
}

/// VMOVMSKPS, VMOVMSKPD, VPMOVMSKB: the signs of elements of `WIDTH` bits.
extern "C" fn move_signs<const WIDTH: u32, const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let count = 128 / WIDTH;
    let [low, high] = vector(cpu, op.src).map(|half| signs(half, WIDTH, count));
    cpu.gpr[usize::from(op.dst & 15)] = if LONG { low | high << count } else { low };
    Ok(())
}

/// VZEROUPPER, and VZEROALL with `ALL`; of the registers that the mode has.
extern "C" fn zero<const ALL: bool>(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let count = if cpu.in_64_bit_code() { 16 } else { 8 };
    for number in 0..count {
        let low = if ALL { 0 } else { xmm(cpu, number) };
        set_low(cpu, number, low);
    }
    Ok(())
}

/// The handler of VMOVD or VMOVQ.
fn select_low(vex: &Vex<'_>, from_vector: bool, to_vector: bool) -> Option<Handler> {
    let [to, from, ..] = vex.form.sizes;
    Some(match (vex.form.kinds[0], vex.form.kinds[1]) {
        (Kind::Register, Kind::Register) => match (to_vector, from_vector) {
            (true, true) => merge::<ThreeOperands, LowQwordAlone>,
            (true, false) if from == 8 => from_general::<ThreeOperands, u64>,
            (true, false) => from_general::<ThreeOperands, u32>,
            (false, _) if to == 8 => extract::<ThreeOperands, u64>,
            (false, _) => extract::<ThreeOperands, u32>,
        },
        (Kind::Register, _) if from == 8 => load_low::<ThreeOperands, u64>,
        (Kind::Register, _) => load_low::<ThreeOperands, u32>,
        _ if to == 8 => store_element::<ThreeOperands, u64, 0>,
        _ => store_element::<ThreeOperands, u32, 0>,
    })
}

/// The handler of a move.
pub(super) fn select(instruction: &Instruction, vex: &Vex<'_>, op: &mut Op) -> Option<Handler> {
    let is_vector = |i: u32| {
        instruction.op_count() > i
            && instruction.op_kind(i) == OpKind::Register
            && instruction.op_register(i).is_vector_register()
    };
    let long = vex.long;
    let [first, second, ..] = vex.form.kinds;
    Some(match (instruction.mnemonic(), first, second) {
        (
            Mnemonic::Vmovaps
            | Mnemonic::Vmovapd
            | Mnemonic::Vmovdqa
            | Mnemonic::Vmovups
            | Mnemonic::Vmovupd
            | Mnemonic::Vmovdqu,
            Kind::Register,
            Kind::Register,
        ) => either!(long, copy),
        (Mnemonic::Vmovaps | Mnemonic::Vmovapd | Mnemonic::Vmovdqa, Kind::Register, _) | (Mnemonic::Vmovntdqa, ..) => {
            either!(long, load_multiple)
        }
        (Mnemonic::Vmovaps | Mnemonic::Vmovapd | Mnemonic::Vmovdqa, ..)
        | (Mnemonic::Vmovntps | Mnemonic::Vmovntpd | Mnemonic::Vmovntdq, ..) => either!(long, store_multiple),
        (Mnemonic::Vmovups | Mnemonic::Vmovupd | Mnemonic::Vmovdqu | Mnemonic::Vlddqu, Kind::Register, _) => {
            either!(long, load_any)
        }
        (Mnemonic::Vmovups | Mnemonic::Vmovupd | Mnemonic::Vmovdqu, ..) => either!(long, store_any),
        (Mnemonic::Vmovss, Kind::Register, Kind::Register) => merge::<ThreeOperands, LowDword>,
        (Mnemonic::Vmovss, Kind::Register, _) => load_low::<ThreeOperands, u32>,
        (Mnemonic::Vmovss, ..) => store_element::<ThreeOperands, u32, 0>,
        (Mnemonic::Vmovsd, Kind::Register, Kind::Register) => merge::<ThreeOperands, LowQword>,
        (Mnemonic::Vmovsd, Kind::Register, _) => load_low::<ThreeOperands, u64>,
        (Mnemonic::Vmovsd, ..) => store_element::<ThreeOperands, u64, 0>,
        (Mnemonic::Vmovd | Mnemonic::Vmovq, ..) => {
            op.imm = 0;
            return select_low(vex, is_vector(1), is_vector(0));
        }
        (Mnemonic::Vmovlps | Mnemonic::Vmovlpd, Kind::Register, _) => merge_memory::<ThreeOperands, LowQword>,
        (Mnemonic::Vmovlps | Mnemonic::Vmovlpd, ..) => store_element::<ThreeOperands, u64, 0>,
        (Mnemonic::Vmovhps | Mnemonic::Vmovhpd, Kind::Register, _) => merge_memory::<ThreeOperands, LowToHigh>,
        (Mnemonic::Vmovhps | Mnemonic::Vmovhpd, ..) => store_element::<ThreeOperands, u64, 1>,
        (Mnemonic::Vmovhlps, ..) => merge::<ThreeOperands, HighToLow>,
        (Mnemonic::Vmovlhps, ..) => merge::<ThreeOperands, LowToHigh>,
        (Mnemonic::Vmovmskps, ..) if long => move_signs::<32, true>,
        (Mnemonic::Vmovmskps, ..) => move_signs::<32, false>,
        (Mnemonic::Vmovmskpd, ..) if long => move_signs::<64, true>,
        (Mnemonic::Vmovmskpd, ..) => move_signs::<64, false>,
        (Mnemonic::Vpmovmskb, ..) if long => move_signs::<8, true>,
        (Mnemonic::Vpmovmskb, ..) => move_signs::<8, false>,
        (Mnemonic::Vmaskmovdqu, ..) => {
            lower_implied_memory(instruction, vex.form, op);
            // Its first operand is the memory that has no place in the encoding.
            (op.src, op.aux) = (instruction.op1_register().number() as u8, instruction.op2_register().number() as u8);
            mask_move::<ThreeOperands>
        }
        (Mnemonic::Vzeroall, ..) => zero::<true>,
        (Mnemonic::Vzeroupper, ..) => zero::<false>,
        _ => return None,
    })
}
