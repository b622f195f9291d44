//! FMA: products and sums that are rounded once.
//!
//! Source: SDM vol. 1 § 14.5; SDM vol. 2 for each instruction. The digits in a mnemonic say which operands are multiplied
//! and which is added: 132 is first times third plus second.

use iced_x86::Mnemonic;

use super::{
    Vex,
    operands::{either, enter, forms, set_low, set_vector, source, vector},
};
use crate::{
    op::{Handler, Op},
    simd::{
        operands::xmm,
        real::{Context, Real, fused},
        scalars::{self, ThreeOperands},
    },
    state::CpuState,
    trap::Trap,
};

/// What the mnemonic says besides the widths; it is kept where other instructions have their immediate.
#[derive(Clone, Copy)]
struct Recipe(u64);

impl Recipe {
    /// The product is negated.
    const NEGATE_PRODUCT: u64 = 1 << 0;
    /// The addend is negated in even lanes.
    const NEGATE_EVEN: u64 = 1 << 1;
    /// The addend is negated in odd lanes.
    const NEGATE_ODD: u64 = 1 << 2;
    /// Where the order of operands begins: 0 for 132, 1 for 213, 2 for 231.
    const ORDER: u32 = 3;

    /// Reads a mnemonic.
    fn of(name: &str) -> Option<(Self, Width)> {
        const BOTH: u64 = Recipe::NEGATE_EVEN | Recipe::NEGATE_ODD;
        let (signs, rest) = [
            ("vfmaddsub", Self::NEGATE_EVEN),
            ("vfmsubadd", Self::NEGATE_ODD),
            ("vfmadd", 0),
            ("vfmsub", BOTH),
            ("vfnmadd", Self::NEGATE_PRODUCT),
            ("vfnmsub", Self::NEGATE_PRODUCT | BOTH),
        ]
        .into_iter()
        .find_map(|(start, signs)| Some((signs, name.strip_prefix(start)?)))?;
        let (order, width) = rest.split_at_checked(3)?;
        let order = match order {
            "132" => 0,
            "213" => 1,
            "231" => 2,
            _ => return None,
        };
        let width = match width {
            "ps" => Width::PackedSingle,
            "pd" => Width::PackedDouble,
            "ss" => Width::Single,
            "sd" => Width::Double,
            _ => return None,
        };
        Some((Self(signs | order << Self::ORDER), width))
    }

    /// The two factors and the addend, of the first, second and third operand.
    #[inline(always)]
    fn order<T: Copy>(self, first: T, second: T, third: T) -> [T; 3] {
        match self.0 >> Self::ORDER {
            0 => [first, third, second],
            1 => [second, first, third],
            _ => [second, third, first],
        }
    }

    /// One lane.
    #[inline(always)]
    fn lane<R: Real>(self, context: &mut Context, terms: [R; 3], odd: bool) -> R {
        let addend = if odd { Self::NEGATE_ODD } else { Self::NEGATE_EVEN };
        fused(context, terms, self.0 & Self::NEGATE_PRODUCT != 0, self.0 & addend != 0)
    }
}

enum Width {
    PackedSingle,
    PackedDouble,
    Single,
    Double,
}

extern "C" fn packed<R: Real, const LONG: bool, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let third = source::<LONG, MEMORY>(cpu, op)?;
    let recipe = Recipe(op.imm);
    let [x, y, z] = recipe.order(vector(cpu, op.dst), vector(cpu, op.src), third);
    let mut context = Context::new(cpu, 0);
    let mut result = [0; 2];
    for (half, value) in result.iter_mut().enumerate().take(if LONG { 2 } else { 1 }) {
        for i in 0..R::LANES {
            let terms = [x, y, z].map(|operand| R::lane(operand[half], i));
            *value |= recipe.lane(&mut context, terms, i & 1 != 0).placed(i);
        }
    }
    context.finish(cpu)?;
    set_vector(cpu, op.dst, result);
    Ok(())
}

extern "C" fn scalar<R: Real, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let third: R = scalars::source::<ThreeOperands, R, MEMORY>(cpu, op)?;
    let recipe = Recipe(op.imm);
    let old = xmm(cpu, op.dst);
    let terms = recipe.order(R::lane(old, 0), R::lane(xmm(cpu, op.src), 0), third);
    let mut context = Context::new(cpu, 0);
    let result = recipe.lane(&mut context, terms, false);
    context.finish(cpu)?;
    set_low(cpu, op.dst, result.replace_low(old));
    Ok(())
}

/// The handler of a fused operation.
pub(super) fn select(mnemonic: Mnemonic, vex: &Vex<'_>, op: &mut Op) -> Option<Handler> {
    let (recipe, width) = Recipe::of(&format!("{mnemonic:?}").to_lowercase())?;
    op.imm = recipe.0;
    Some(match width {
        Width::PackedSingle => forms!(vex, packed, f32),
        Width::PackedDouble => forms!(vex, packed, f64),
        Width::Single => either!(vex.memory, scalar, f32),
        Width::Double => either!(vex.memory, scalar, f64),
    })
}
