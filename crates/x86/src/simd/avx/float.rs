//! Arithmetic on packed singles and doubles, with three operands.
//!
//! Source: SDM vol. 1 § 14.1; SDM vol. 2 for each instruction, CMPPD for the predicates.

use std::cmp::Ordering;

use iced_x86::Mnemonic;

use super::{
    Vex,
    operands::{each, enter, forms, set_vector, source, vector},
};
use crate::{
    op::{Handler, Op},
    simd::{
        float::{Approximation, Reciprocal, ReciprocalRoot},
        real::{
            Add, Context, Divide, LaneOperation, Maximum, Minimum, Multiply, Real, Round, SquareRoot, Subtract,
            compare, dot_product,
        },
    },
    state::CpuState,
    trap::Trap,
};

/// Something done with 128 bits of both operands.
trait Half {
    fn half(context: &mut Context, a: u128, b: u128) -> u128;
}

/// An operation on each lane.
struct Lanes<O, R>(std::marker::PhantomData<(O, R)>);
impl<O: LaneOperation, R: Real> Half for Lanes<O, R> {
    #[inline(always)]
    fn half(context: &mut Context, a: u128, b: u128) -> u128 {
        (0..R::LANES).fold(0, |result, i| result | O::lane(context, R::lane(a, i), R::lane(b, i)).placed(i))
    }
}

/// An operation on neighbours of the first operand, then on those of the second.
struct Neighbours<O, R>(std::marker::PhantomData<(O, R)>);
impl<O: LaneOperation, R: Real> Half for Neighbours<O, R> {
    #[inline(always)]
    fn half(context: &mut Context, a: u128, b: u128) -> u128 {
        let mut result = 0;
        for i in 0..R::LANES / 2 {
            result |= O::lane(context, R::lane(a, 2 * i), R::lane(a, 2 * i + 1)).placed(i);
            result |= O::lane(context, R::lane(b, 2 * i), R::lane(b, 2 * i + 1)).placed(i + R::LANES / 2);
        }
        result
    }
}

/// Even lanes subtract, odd ones add.
struct Alternating<R>(std::marker::PhantomData<R>);
impl<R: Real> Half for Alternating<R> {
    #[inline(always)]
    fn half(context: &mut Context, a: u128, b: u128) -> u128 {
        (0..R::LANES).fold(0, |result, i| {
            let (a, b) = (R::lane(a, i), R::lane(b, i));
            let lane = if i & 1 == 0 { Subtract::lane(context, a, b) } else { Add::lane(context, a, b) };
            result | lane.placed(i)
        })
    }
}

/// VDPPS, VDPPD.
struct DotProduct<R>(std::marker::PhantomData<R>);
impl<R: Real> Half for DotProduct<R> {
    #[inline(always)]
    fn half(context: &mut Context, a: u128, b: u128) -> u128 {
        dot_product::<R>(context, a, b)
    }
}

/// VRCPPS, VRSQRTPS.
struct Approximate<A>(std::marker::PhantomData<A>);
impl<A: Approximation> Half for Approximate<A> {
    #[inline(always)]
    fn half(_: &mut Context, _: u128, b: u128) -> u128 {
        (0..4).fold(0, |result, i| result | A::approximate(f32::lane(b, i)).placed(i))
    }
}

extern "C" fn packed<H: Half, const LONG: bool, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let b = source::<LONG, MEMORY>(cpu, op)?;
    let a = vector(cpu, op.src);
    let mut context = Context::new(cpu, op.imm as u8);
    let result = each::<LONG>(a, b, |a, b| H::half(&mut context, a, b));
    context.finish(cpu)?;
    set_vector(cpu, op.dst, result);
    Ok(())
}

/// VCMPPS and its kin, with 32 predicates.
pub(in crate::simd) struct Compare;
impl LaneOperation for Compare {
    #[inline(always)]
    fn lane<R: Real>(context: &mut Context, a: R, b: R) -> R {
        /// For each of 16 predicates, in which cases it holds: less, equal, greater, unordered, from bit 0 on.
        const HOLDS: [u8; 16] = [2, 1, 3, 8, 13, 14, 12, 7, 10, 9, 11, 0, 5, 6, 4, 15];
        let predicate = context.immediate & 0x1f;
        // The upper 16 are the lower ones with the other opinion of quiet NaNs.
        let signals = matches!(predicate & 3, 1 | 2) != (predicate & 0x10 != 0);
        let case = match compare(context, a, b, signals) {
            Some(Ordering::Less) => 0,
            Some(Ordering::Equal) => 1,
            Some(Ordering::Greater) => 2,
            None => 3,
        };
        let holds = HOLDS[usize::from(predicate & 15)] >> case & 1 != 0;
        R::from_u64(if holds { R::ONES } else { 0 })
    }
}

/// The handlers of an operation on singles and on doubles.
macro_rules! widths {
    ($mnemonic:expr, $vex:expr, $($operation:ident: $ps:ident $pd:ident;)*) => {
        match $mnemonic {
            $(
                Mnemonic::$ps => forms!($vex, packed, Lanes<$operation, f32>),
                Mnemonic::$pd => forms!($vex, packed, Lanes<$operation, f64>),
            )*
            Mnemonic::Haddps => forms!($vex, packed, Neighbours<Add, f32>),
            Mnemonic::Haddpd => forms!($vex, packed, Neighbours<Add, f64>),
            Mnemonic::Hsubps => forms!($vex, packed, Neighbours<Subtract, f32>),
            Mnemonic::Hsubpd => forms!($vex, packed, Neighbours<Subtract, f64>),
            Mnemonic::Addsubps => forms!($vex, packed, Alternating<f32>),
            Mnemonic::Addsubpd => forms!($vex, packed, Alternating<f64>),
            Mnemonic::Dpps => forms!($vex, packed, DotProduct<f32>),
            Mnemonic::Dppd => forms!($vex, packed, DotProduct<f64>),
            Mnemonic::Rcpps => forms!($vex, packed, Approximate<Reciprocal>),
            Mnemonic::Rsqrtps => forms!($vex, packed, Approximate<ReciprocalRoot>),
            _ => return None,
        }
    };
}

/// The handler of an arithmetic instruction, whose mnemonic is that of SSE.
pub(super) fn select(mnemonic: Mnemonic, vex: &Vex<'_>) -> Option<Handler> {
    Some(widths! { mnemonic, vex,
        Add: Addps Addpd;
        Subtract: Subps Subpd;
        Multiply: Mulps Mulpd;
        Divide: Divps Divpd;
        Minimum: Minps Minpd;
        Maximum: Maxps Maxpd;
        SquareRoot: Sqrtps Sqrtpd;
        Round: Roundps Roundpd;
        Compare: Cmpps Cmppd;
    })
}
