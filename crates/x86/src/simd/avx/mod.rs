//! AVX, AVX2, FMA and F16C: instructions with a VEX prefix that work on vectors. Operations that SSE has as well are
//! applied to each half of a vector by one of the handlers here; the rest has its files.
//!
//! Source: SDM vol. 1 ch. 14; SDM vol. 2 § 2.3 (VEX) and for each instruction.

mod convert;
mod float;
mod fused;
mod masked;
mod moves;
mod operands;
mod permute;
mod strings;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::LazyLock};

use iced_x86::{Instruction, Mnemonic, OpKind};
use operands::{each, forms, set_vector, short_source, source, vector};
pub(super) use {
    float::Compare,
    operands::{enter, set_low},
};

use super::{
    operands::xmm,
    operations::{Binary, Encoding, Immediate, Ternary, Widening},
    scalars::{self, ThreeOperands},
};
use crate::{
    access::Value,
    decode::{Form, Kind},
    engine::Mode,
    op::{Handler, Op},
    protection::address::load,
    state::CpuState,
    trap::Trap,
};

/// An instruction with a VEX prefix, as handlers are chosen by it.
struct Vex<'a> {
    form: &'a Form,
    /// Its vectors have 256 bits.
    long: bool,
    /// The last operand that is no immediate is in memory.
    memory: bool,
}

impl<'a> Vex<'a> {
    fn of(instruction: &Instruction, form: &'a Form) -> Self {
        let registers = (0..instruction.op_count()).filter(|&i| instruction.op_kind(i) == OpKind::Register);
        let long = registers.clone().any(|i| instruction.op_register(i).is_ymm())
            || instruction.memory_index().is_ymm()
            || form.sizes.contains(&32);
        let memory = form.kinds.contains(&Kind::Memory);
        Self { form, long, memory }
    }

    /// Whether the last operand is an immediate byte.
    fn has_immediate(&self) -> bool {
        self.form.kinds.contains(&Kind::Immediate)
    }
}

impl Encoding for Vex<'_> {
    fn binary<O: Binary>(&self) -> Option<Handler> {
        let count_is_short = self.long && self.form.sizes[2] == 16;
        Some(match (self.form.kinds[2], count_is_short) {
            (Kind::Immediate, _) if self.long => by_count::<O, true>,
            (Kind::Immediate, _) => by_count::<O, false>,
            (Kind::Memory, true) => by_short::<O, true>,
            (Kind::Register, true) => by_short::<O, false>,
            _ => forms!(self, binary, O),
        })
    }

    fn immediate<O: Immediate>(&self) -> Option<Handler> {
        Some(forms!(self, immediate, O))
    }

    fn ternary<O: Ternary>(&self) -> Option<Handler> {
        Some(forms!(self, ternary, O))
    }

    fn widening<O: Widening>(&self) -> Option<Handler> {
        Some(forms!(self, widening, O))
    }
}

extern "C" fn binary<O: Binary, const LONG: bool, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let b = source::<LONG, MEMORY>(cpu, op)?;
    let a = vector(cpu, op.src);
    set_vector(cpu, op.dst, each::<LONG>(a, b, O::wide));
    Ok(())
}

/// A shift by an immediate.
extern "C" fn by_count<O: Binary, const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let count = u128::from(op.imm as u8);
    let a = vector(cpu, op.src);
    set_vector(cpu, op.dst, each::<LONG>(a, [count; 2], O::wide));
    Ok(())
}

/// A shift of 256 bits by the count in an XMM register or in memory.
extern "C" fn by_short<O: Binary, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let count = short_source::<MEMORY>(cpu, op)?;
    let a = vector(cpu, op.src);
    set_vector(cpu, op.dst, each::<true>(a, [count; 2], O::wide));
    Ok(())
}

/// The immediate for the upper half is in the second byte: see [`immediate_of_upper_half`].
extern "C" fn immediate<O: Immediate, const LONG: bool, const MEMORY: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    enter(cpu)?;
    let b = source::<LONG, MEMORY>(cpu, op)?;
    let a = vector(cpu, op.src);
    let upper = if LONG { O::wide(a[1], b[1], (op.imm >> 8) as u8) } else { 0 };
    set_vector(cpu, op.dst, [O::wide(a[0], b[0], op.imm as u8), upper]);
    Ok(())
}

/// The number of the third register is where the immediate would be.
extern "C" fn ternary<O: Ternary, const LONG: bool, const MEMORY: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    enter(cpu)?;
    let b = source::<LONG, MEMORY>(cpu, op)?;
    let (a, c) = (vector(cpu, op.src), vector(cpu, op.imm as u8));
    let upper = if LONG { O::wide(a[1], b[1], c[1]) } else { 0 };
    set_vector(cpu, op.dst, [O::wide(a[0], b[0], c[0]), upper]);
    Ok(())
}

extern "C" fn widening<O: Widening, const LONG: bool, const MEMORY: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    enter(cpu)?;
    let size = O::Source::SIZE;
    let b = match (MEMORY, if LONG { 2 * size } else { size }) {
        (false, _) => xmm(cpu, op.aux),
        (true, 2) => load::<u16>(cpu, op)?.into(),
        (true, 4) => load::<u32>(cpu, op)?.into(),
        (true, 8) => load::<u64>(cpu, op)?.into(),
        (true, _) => load(cpu, op)?,
    };
    set_vector(cpu, op.dst, [O::wide(b), if LONG { O::wide(b >> (8 * size)) } else { 0 }]);
    Ok(())
}

/// By how much the immediate moves for the upper half of the vector.
fn immediate_of_upper_half(mnemonic: Mnemonic) -> u32 {
    match mnemonic {
        Mnemonic::Vshufpd | Mnemonic::Vblendpd | Mnemonic::Vpermilpd => 2,
        Mnemonic::Vmpsadbw => 3,
        Mnemonic::Vblendps | Mnemonic::Vpblendd => 4,
        _ => 0,
    }
}

/// The mnemonics of instructions that SSE has without the V.
static WITHOUT_V: LazyLock<HashMap<Mnemonic, Mnemonic>> = LazyLock::new(|| {
    let names: HashMap<String, Mnemonic> =
        Mnemonic::values().map(|mnemonic| (format!("{mnemonic:?}").to_lowercase(), mnemonic)).collect();
    let pairs = names.iter().filter_map(|(name, mnemonic)| Some((*mnemonic, *names.get(name.strip_prefix('v')?)?)));
    pairs.collect()
});

/// The handler of an instruction with a VEX prefix.
pub(super) fn select(instruction: &Instruction, form: &Form, op: &mut Op) -> Option<Handler> {
    // There is no VEX in real and virtual-8086 mode.
    let prefix_exists = form.mode.contains(Mode::PROTECTED) && !form.mode.contains(Mode::VIRTUAL_8086);
    if !prefix_exists {
        return None;
    }
    let vex = Vex::of(instruction, form);
    let mnemonic = instruction.mnemonic();
    if !matches!(form.kinds[2], Kind::Register | Kind::Memory) {
        // Without a first source the operand after the destination is the last one.
        op.aux = op.src;
    }
    if vex.has_immediate() {
        let immediate = op.imm & 0xff;
        op.imm = immediate | (immediate >> immediate_of_upper_half(mnemonic)) << 8;
    }
    moves::select(instruction, &vex, op)
        .or_else(|| permute::select(mnemonic, &vex))
        .or_else(|| masked::select(mnemonic, &vex))
        .or_else(|| fused::select(mnemonic, &vex, op))
        .or_else(|| convert::select(mnemonic, &vex))
        .or_else(|| strings::select(mnemonic, &vex))
        .or_else(|| {
            let mnemonic = *WITHOUT_V.get(&mnemonic)?;
            super::operation(mnemonic, &vex)
                .or_else(|| float::select(mnemonic, &vex))
                .or_else(|| scalars::select::<ThreeOperands>(mnemonic, form))
        })
}
