//! Moves between vector and general registers and memory, and the state that goes with vectors.
//!
//! Source: SDM vol. 2 for each instruction. Non-temporal moves are plain ones here: guest memory has no caches to pass by.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::{
    Vex,
    operands::{either, enter, load_aligned, load_vector, set_low, set_vector, store_aligned, store_vector, vector},
};
use crate::{
    access::Value,
    decode::Kind,
    integer::word::Word,
    op::{Handler, Op},
    protection::address::{load, store},
    simd::{
        elements::{element, insert_single, with_element},
        lanes::{dword, from_qwords, qword, with_low_dword, with_low_qword},
        moves::{lower_implied_memory, signs, store_masked},
        operands::xmm,
        save::{load_control, store_control},
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

/// VMOVSS, VMOVSD, VMOVD and VMOVQ from memory: the rest of the register becomes zero.
extern "C" fn load_low<T: Value + Into<u128>>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let value: T = load(cpu, op)?;
    set_low(cpu, op.dst, value.into());
    Ok(())
}

/// The element of a register that `T` cuts from lane `NUMBER` on, to memory.
extern "C" fn store_element<T: Word, const NUMBER: u64>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let value: T = element(xmm(cpu, op.src), NUMBER);
    store(cpu, op, value)
}

/// A move that makes the destination of two sources.
trait Merge {
    fn merge(a: u128, b: u128) -> u128;
}

macro_rules! merges {
    ($($name:ident: |$a:pat_param, $b:ident| $value:expr;)*) => {
        $(
            struct $name;
            impl Merge for $name {
                #[inline(always)]
                fn merge($a: u128, $b: u128) -> u128 {
                    $value
                }
            }
        )*
    };
}

merges! {
    LowDword: |a, b| with_low_dword(a, b as u32);
    LowQword: |a, b| with_low_qword(a, qword(b, 0));
    LowQwordAlone: |_, b| u128::from(qword(b, 0));
    HighToLow: |a, b| with_low_qword(a, qword(b, 1));
    LowToHigh: |a, b| from_qwords(qword(a, 0), qword(b, 0));
}

extern "C" fn merge<M: Merge>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let value = M::merge(xmm(cpu, op.src), xmm(cpu, op.aux));
    set_low(cpu, op.dst, value);
    Ok(())
}

/// VMOVLPS, VMOVHPS and their kin from memory.
extern "C" fn merge_memory<M: Merge>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let b: u64 = load(cpu, op)?;
    let value = M::merge(xmm(cpu, op.src), u128::from(b));
    set_low(cpu, op.dst, value);
    Ok(())
}

extern "C" fn from_general<T: Word + Into<u128>>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let value = T::cut(cpu.register(op.src));
    set_low(cpu, op.dst, value.into());
    Ok(())
}

/// VPEXTRB and its kin, VMOVD and VMOVQ to a general register.
extern "C" fn to_general<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    cpu.gpr[usize::from(op.dst & 15)] = element::<T>(xmm(cpu, op.src), op.imm & 0xff).wide();
    Ok(())
}

extern "C" fn extract_to_memory<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let value: T = element(xmm(cpu, op.src), op.imm & 0xff);
    store(cpu, op, value)
}

/// VPINSRB and its kin.
extern "C" fn insert<T: Word, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let value: T = if MEMORY { load(cpu, op)? } else { T::cut(cpu.register(op.aux)) };
    let a = xmm(cpu, op.src);
    set_low(cpu, op.dst, with_element(a, op.imm & 0xff, value));
    Ok(())
}

/// VINSERTPS.
extern "C" fn insert_one_single<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let value = if MEMORY { load(cpu, op)? } else { dword(xmm(cpu, op.aux), (op.imm as u32 & 0xff) >> 6) };
    let a = xmm(cpu, op.src);
    set_low(cpu, op.dst, insert_single(a, value, op.imm as u8));
    Ok(())
}

/// VMOVMSKPS, VMOVMSKPD, VPMOVMSKB: the signs of elements of `WIDTH` bits.
extern "C" fn move_signs<const WIDTH: u32, const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let count = 128 / WIDTH;
    let [low, high] = vector(cpu, op.src).map(|half| signs(half, WIDTH, count));
    cpu.gpr[usize::from(op.dst & 15)] = if LONG { low | high << count } else { low };
    Ok(())
}

/// VMASKMOVDQU.
extern "C" fn mask_move(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let (value, mask) = (xmm(cpu, op.src), xmm(cpu, op.aux));
    store_masked(cpu, op, value, mask, 16)
}

extern "C" fn load_mxcsr(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    load_control(cpu, op)
}

extern "C" fn store_mxcsr(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    store_control(cpu, op)
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
            (true, true) => merge::<LowQwordAlone>,
            (true, false) if from == 8 => from_general::<u64>,
            (true, false) => from_general::<u32>,
            (false, _) if to == 8 => to_general::<u64>,
            (false, _) => to_general::<u32>,
        },
        (Kind::Register, _) if from == 8 => load_low::<u64>,
        (Kind::Register, _) => load_low::<u32>,
        _ if to == 8 => store_element::<u64, 0>,
        _ => store_element::<u32, 0>,
    })
}

/// The handler of a move.
pub(super) fn select(instruction: &Instruction, vex: &Vex<'_>, op: &mut Op) -> Option<Handler> {
    let is_vector = |i: u32| {
        instruction.op_count() > i
            && instruction.op_kind(i) == OpKind::Register
            && instruction.op_register(i).is_vector_register()
    };
    let (long, memory) = (vex.long, vex.memory);
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
        (Mnemonic::Vmovss, Kind::Register, Kind::Register) => merge::<LowDword>,
        (Mnemonic::Vmovss, Kind::Register, _) => load_low::<u32>,
        (Mnemonic::Vmovss, ..) => store_element::<u32, 0>,
        (Mnemonic::Vmovsd, Kind::Register, Kind::Register) => merge::<LowQword>,
        (Mnemonic::Vmovsd, Kind::Register, _) => load_low::<u64>,
        (Mnemonic::Vmovsd, ..) => store_element::<u64, 0>,
        (Mnemonic::Vmovd | Mnemonic::Vmovq, ..) => {
            op.imm = 0;
            return select_low(vex, is_vector(1), is_vector(0));
        }
        (Mnemonic::Vmovlps | Mnemonic::Vmovlpd, Kind::Register, _) => merge_memory::<LowQword>,
        (Mnemonic::Vmovlps | Mnemonic::Vmovlpd, ..) => store_element::<u64, 0>,
        (Mnemonic::Vmovhps | Mnemonic::Vmovhpd, Kind::Register, _) => merge_memory::<LowToHigh>,
        (Mnemonic::Vmovhps | Mnemonic::Vmovhpd, ..) => store_element::<u64, 1>,
        (Mnemonic::Vmovhlps, ..) => merge::<HighToLow>,
        (Mnemonic::Vmovlhps, ..) => merge::<LowToHigh>,
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
            mask_move
        }
        (Mnemonic::Vpextrb, Kind::Memory, _) => extract_to_memory::<u8>,
        (Mnemonic::Vpextrw, Kind::Memory, _) => extract_to_memory::<u16>,
        (Mnemonic::Vpextrd | Mnemonic::Vextractps, Kind::Memory, _) => extract_to_memory::<u32>,
        (Mnemonic::Vpextrq, Kind::Memory, _) => extract_to_memory::<u64>,
        (Mnemonic::Vpextrb, ..) => to_general::<u8>,
        (Mnemonic::Vpextrw, ..) => to_general::<u16>,
        (Mnemonic::Vpextrd | Mnemonic::Vextractps, ..) => to_general::<u32>,
        (Mnemonic::Vpextrq, ..) => to_general::<u64>,
        (Mnemonic::Vpinsrb, ..) => either!(memory, insert, u8),
        (Mnemonic::Vpinsrw, ..) => either!(memory, insert, u16),
        (Mnemonic::Vpinsrd, ..) => either!(memory, insert, u32),
        (Mnemonic::Vpinsrq, ..) => either!(memory, insert, u64),
        (Mnemonic::Vinsertps, ..) => either!(memory, insert_one_single),
        (Mnemonic::Vldmxcsr, ..) => load_mxcsr,
        (Mnemonic::Vstmxcsr, ..) => store_mxcsr,
        (Mnemonic::Vzeroall, ..) => zero::<true>,
        (Mnemonic::Vzeroupper, ..) => zero::<false>,
        _ => return None,
    })
}
