//! SSE arithmetic on singles and doubles, packed and scalar.
//!
//! Sources: SDM vol. 1 § 10.4.1.2, § 11.4.1, § 12.3; SDM vol. 2 for each instruction.

use std::cmp::Ordering;

use iced_x86::Mnemonic;

use super::{
    operands::{enter_sse, load, set_xmm, source, xmm},
    real::{
        Add, Compare, Context, Divide, LaneOperation, Maximum, Minimum, Multiply, Real, Round, SquareRoot, Subtract,
        compare, dot_product,
    },
};
use crate::{
    decode::{Form, Kind},
    op::{Handler, Op},
    state::{CpuState, Rflags},
    trap::Trap,
};

/// The second operand of a scalar operation.
#[inline(always)]
fn scalar_source<R: Real, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<R, Trap> {
    Ok(if MEMORY { R::from_u64(load::<R::Bits>(cpu, op)?.into()) } else { R::lane(xmm(cpu, op.src), 0) })
}

extern "C" fn packed<O: LaneOperation, R: Real, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b = source::<MEMORY>(cpu, op)?;
    let a = xmm(cpu, op.dst);
    let mut context = Context::new(cpu, op.imm as u8);
    let mut result = 0;
    for i in 0..R::LANES {
        result |= O::lane(&mut context, R::lane(a, i), R::lane(b, i)).placed(i);
    }
    context.finish(cpu)?;
    set_xmm(cpu, op.dst, result);
    Ok(())
}

extern "C" fn scalar<O: LaneOperation, R: Real, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b: R = scalar_source::<R, MEMORY>(cpu, op)?;
    let a = xmm(cpu, op.dst);
    let mut context = Context::new(cpu, op.imm as u8);
    let result = O::lane(&mut context, R::lane(a, 0), b);
    context.finish(cpu)?;
    set_xmm(cpu, op.dst, result.replace_low(a));
    Ok(())
}

/// COMISS and its kin: the order goes to ZF, PF and CF, the other arithmetic flags become zero.
extern "C" fn ordered_compare<R: Real, const MEMORY: bool, const SIGNALS: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b: R = scalar_source::<R, MEMORY>(cpu, op)?;
    let a = R::lane(xmm(cpu, op.dst), 0);
    let mut context = Context::new(cpu, 0);
    let order = compare(&mut context, a, b, SIGNALS);
    context.finish(cpu)?;
    cpu.rflags = cpu.rflags & !Rflags::ARITHMETIC.bits() | order_flags(order).bits();
    Ok(())
}

/// The flags that tell of an order.
pub(super) fn order_flags(order: Option<Ordering>) -> Rflags {
    match order {
        Some(Ordering::Greater) => Rflags::empty(),
        Some(Ordering::Less) => Rflags::CF,
        Some(Ordering::Equal) => Rflags::ZF,
        None => Rflags::ZF | Rflags::PF | Rflags::CF,
    }
}

/// HADDPS and its kin: neighbours of the first operand, then of the second.
extern "C" fn horizontal<O: LaneOperation, R: Real, const MEMORY: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b = source::<MEMORY>(cpu, op)?;
    let a = xmm(cpu, op.dst);
    let mut context = Context::new(cpu, 0);
    let mut result = 0;
    for i in 0..R::LANES / 2 {
        result |= O::lane(&mut context, R::lane(a, 2 * i), R::lane(a, 2 * i + 1)).placed(i);
        result |= O::lane(&mut context, R::lane(b, 2 * i), R::lane(b, 2 * i + 1)).placed(i + R::LANES / 2);
    }
    context.finish(cpu)?;
    set_xmm(cpu, op.dst, result);
    Ok(())
}

/// ADDSUBPS and ADDSUBPD: even lanes subtract, odd ones add.
extern "C" fn alternating<R: Real, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b = source::<MEMORY>(cpu, op)?;
    let a = xmm(cpu, op.dst);
    let mut context = Context::new(cpu, 0);
    let mut result = 0;
    for i in 0..R::LANES {
        let (a, b) = (R::lane(a, i), R::lane(b, i));
        let lane = if i & 1 == 0 { Subtract::lane(&mut context, a, b) } else { Add::lane(&mut context, a, b) };
        result |= lane.placed(i);
    }
    context.finish(cpu)?;
    set_xmm(cpu, op.dst, result);
    Ok(())
}

extern "C" fn dot<R: Real, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b = source::<MEMORY>(cpu, op)?;
    let a = xmm(cpu, op.dst);
    let mut context = Context::new(cpu, op.imm as u8);
    let result = dot_product::<R>(&mut context, a, b);
    context.finish(cpu)?;
    set_xmm(cpu, op.dst, result);
    Ok(())
}

/// An approximation of 12 bits; it raises no exceptions.
pub(super) trait Approximation {
    fn approximate(a: f32) -> f32;
}

/// Keeps 12 bits of a magnitude, rounded; the caller has seen to its sign and size.
fn twelve_bits(value: f64) -> f32 {
    let bits = (value as f32).to_bits();
    f32::from_bits(bits.wrapping_add(0x7ff + (bits >> 12 & 1)) & !0xfff)
}

/// What both approximations do alike with operands that are no normal numbers.
fn special_approximation(a: f32) -> Option<f32> {
    match a.exponent_field() {
        0 => Some(f32::INFINITY.copysign(a)),
        0xff if a.is_nan() => Some(f32::from_bits(a.to_bits() | 1 << 22)),
        _ => None,
    }
}

pub(super) struct Reciprocal;
impl Approximation for Reciprocal {
    fn approximate(a: f32) -> f32 {
        special_approximation(a).unwrap_or_else(|| {
            let result = twelve_bits(1.0 / f64::from(a));
            if result.is_normal() { result } else { 0f32.copysign(a) }
        })
    }
}

pub(super) struct ReciprocalRoot;
impl Approximation for ReciprocalRoot {
    fn approximate(a: f32) -> f32 {
        special_approximation(a).unwrap_or_else(|| {
            if a < 0.0 { f32::from_bits(0xffc0_0000) } else { twelve_bits(1.0 / f64::from(a).sqrt()) }
        })
    }
}

extern "C" fn approximate_packed<A: Approximation, const MEMORY: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b = source::<MEMORY>(cpu, op)?;
    let result = (0..4).fold(0, |result, i| result | A::approximate(f32::lane(b, i)).placed(i));
    set_xmm(cpu, op.dst, result);
    Ok(())
}

extern "C" fn approximate_scalar<A: Approximation, const MEMORY: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b = scalar_source::<f32, MEMORY>(cpu, op)?;
    let old = xmm(cpu, op.dst);
    set_xmm(cpu, op.dst, A::approximate(b).replace_low(old));
    Ok(())
}

/// Chooses between the register and the memory form of a handler.
macro_rules! by_source {
    ($memory:expr, $handler:ident::<$($type:ty),*> $(, $constant:literal)?) => {
        if $memory { $handler::<$($type,)* true $(, $constant)?> } else { $handler::<$($type,)* false $(, $constant)?> }
    };
}

/// The four handlers of an arithmetic operation.
macro_rules! widths {
    ($mnemonic:expr, $memory:expr, $($operation:ident: $ps:ident $pd:ident $ss:ident $sd:ident;)*) => {
        match $mnemonic {
            $(
                Mnemonic::$ps => by_source!($memory, packed::<$operation, f32>),
                Mnemonic::$pd => by_source!($memory, packed::<$operation, f64>),
                Mnemonic::$ss => by_source!($memory, scalar::<$operation, f32>),
                Mnemonic::$sd => by_source!($memory, scalar::<$operation, f64>),
            )*
            Mnemonic::Comiss => by_source!($memory, ordered_compare::<f32>, true),
            Mnemonic::Comisd => by_source!($memory, ordered_compare::<f64>, true),
            Mnemonic::Ucomiss => by_source!($memory, ordered_compare::<f32>, false),
            Mnemonic::Ucomisd => by_source!($memory, ordered_compare::<f64>, false),
            Mnemonic::Haddps => by_source!($memory, horizontal::<Add, f32>),
            Mnemonic::Haddpd => by_source!($memory, horizontal::<Add, f64>),
            Mnemonic::Hsubps => by_source!($memory, horizontal::<Subtract, f32>),
            Mnemonic::Hsubpd => by_source!($memory, horizontal::<Subtract, f64>),
            Mnemonic::Addsubps => by_source!($memory, alternating::<f32>),
            Mnemonic::Addsubpd => by_source!($memory, alternating::<f64>),
            Mnemonic::Dpps => by_source!($memory, dot::<f32>),
            Mnemonic::Dppd => by_source!($memory, dot::<f64>),
            Mnemonic::Rcpps => by_source!($memory, approximate_packed::<Reciprocal>),
            Mnemonic::Rcpss => by_source!($memory, approximate_scalar::<Reciprocal>),
            Mnemonic::Rsqrtps => by_source!($memory, approximate_packed::<ReciprocalRoot>),
            Mnemonic::Rsqrtss => by_source!($memory, approximate_scalar::<ReciprocalRoot>),
            _ => return None,
        }
    };
}

/// The handler of an arithmetic instruction.
pub(super) fn select(mnemonic: Mnemonic, form: &Form) -> Option<Handler> {
    // The string comparison of dwords has the mnemonic of CMPSD.
    if form.kinds[0] != Kind::Register {
        return None;
    }
    Some(widths! { mnemonic, form.kinds[1] == Kind::Memory,
        Add: Addps Addpd Addss Addsd;
        Subtract: Subps Subpd Subss Subsd;
        Multiply: Mulps Mulpd Mulss Mulsd;
        Divide: Divps Divpd Divss Divsd;
        Minimum: Minps Minpd Minss Minsd;
        Maximum: Maxps Maxpd Maxss Maxsd;
        SquareRoot: Sqrtps Sqrtpd Sqrtss Sqrtsd;
        Round: Roundps Roundpd Roundss Roundsd;
        Compare: Cmpps Cmppd Cmpss Cmpsd;
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn approximations_treat_denormals_as_zero_and_flush_small_results() {
        assert_eq!(Reciprocal::approximate(f32::from_bits(1)), f32::INFINITY);
        assert_eq!(Reciprocal::approximate(-0.0), f32::NEG_INFINITY);
        assert_eq!(Reciprocal::approximate(f32::MAX).to_bits(), 0);
        assert_eq!(Reciprocal::approximate(f32::NEG_INFINITY).to_bits(), 0x8000_0000);
        assert_eq!(Reciprocal::approximate(f32::from_bits(0x7f80_0001)).to_bits(), 0x7fc0_0001);
        assert_eq!(ReciprocalRoot::approximate(-1.0).to_bits(), 0xffc0_0000);
        assert_eq!(ReciprocalRoot::approximate(f32::INFINITY).to_bits(), 0);
        assert_eq!(ReciprocalRoot::approximate(4.0), 0.5);
    }

    proptest! {
        #[test]
        fn approximations_are_right_to_twelve_bits(a in 1e-37f32..1e37) {
            let error = |approximate: f32, exact: f64| (f64::from(approximate) / exact - 1.0).abs();
            prop_assert!(error(Reciprocal::approximate(a), 1.0 / f64::from(a)) < 1.5 / 4096.0);
            prop_assert!(error(ReciprocalRoot::approximate(a), 1.0 / f64::from(a).sqrt()) < 1.5 / 4096.0);
        }
    }
}
