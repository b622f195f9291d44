//! SSE arithmetic on packed singles and doubles, and approximations.
//!
//! Sources: SDM vol. 1 § 10.4.1.2, § 11.4.1, § 12.3; SDM vol. 2 for each instruction.

use iced_x86::Mnemonic;

use super::{
    operands::{enter_sse, set_xmm, source, xmm},
    real::{
        Add, Compare, Context, Divide, LaneOperation, Maximum, Minimum, Multiply, Real, Round, SquareRoot, Subtract,
        dot_product,
    },
};
use crate::{
    decode::{Form, Kind},
    op::{Handler, Op},
    state::CpuState,
    trap::Trap,
};

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
///
/// What Intel's processors give is the same for all numbers of an interval: the function of the interval's middle, rounded
/// to 13 binary places. That the manual leaves open; it was measured, for every significand and every exponent, on a
/// processor of family 6.
pub(super) trait Approximation {
    fn approximate(a: f32) -> f32;
}

/// Fraction bits of a single.
const FRACTION: u32 = 0x7f_ffff;
/// The first bit of a single that an approximation never has: its fraction is of 12 bits.
const APPROXIMATE_SHIFT: u32 = 23 - 12;

/// A number from its sign, its exponent field, and its significand between 1 and 2 in units of 2 to the power of -12.
const fn assembled(sign: u32, exponent: u32, significand: u32) -> f32 {
    f32::from_bits(sign | exponent << 23 | (significand << APPROXIMATE_SHIFT) & FRACTION)
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
            let bits = a.to_bits();
            let (sign, exponent) = (bits & 1 << 31, bits >> 23 & 0xff);
            // What comes out of 2 to the power of 126 and more, and of infinity, is no normal number.
            if exponent >= 253 {
                return f32::from_bits(sign);
            }
            // 2048 intervals: the middle in units of 2 to the power of -12.
            let middle = 1 << 12 | (bits & FRACTION) >> 12 << 1 | 1;
            // Twice the reciprocal, which is between 1 and 2, in those units. It is never just between two of them.
            let significand = ((1 << 25) + middle / 2) / middle;
            assembled(sign, 253 - exponent, significand)
        })
    }
}

pub(super) struct ReciprocalRoot;
impl Approximation for ReciprocalRoot {
    fn approximate(a: f32) -> f32 {
        special_approximation(a).unwrap_or_else(|| {
            let bits = a.to_bits();
            if a < 0.0 {
                return f32::from_bits(0xffc0_0000);
            }
            let exponent = bits >> 23;
            if exponent == 0xff {
                return 0.0;
            }
            // 1024 intervals, of numbers between 1 and 2 and of those up to 4: the middle in units of 2 to the power of -11.
            let middle = (1 << 11 | (bits & FRACTION) >> 13 << 1 | 1) << (!exponent & 1);
            // Twice the reciprocal of its root, which is between 1 and 2, in units of 2 to the power of -12.
            let significand = ((1_u64 << 37) as f64 / f64::from(middle)).sqrt().round() as u32;
            assembled(0, 190 - exponent.div_ceil(2), significand)
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

/// Chooses between the register and the memory form of a handler.
macro_rules! by_source {
    ($memory:expr, $handler:ident::<$($type:ty),*>) => {
        if $memory { $handler::<$($type,)* true> } else { $handler::<$($type,)* false> }
    };
}

/// The handlers of an arithmetic operation on singles and on doubles.
macro_rules! widths {
    ($mnemonic:expr, $memory:expr, $($operation:ident: $ps:ident $pd:ident;)*) => {
        match $mnemonic {
            $(
                Mnemonic::$ps => by_source!($memory, packed::<$operation, f32>),
                Mnemonic::$pd => by_source!($memory, packed::<$operation, f64>),
            )*
            Mnemonic::Haddps => by_source!($memory, horizontal::<Add, f32>),
            Mnemonic::Haddpd => by_source!($memory, horizontal::<Add, f64>),
            Mnemonic::Hsubps => by_source!($memory, horizontal::<Subtract, f32>),
            Mnemonic::Hsubpd => by_source!($memory, horizontal::<Subtract, f64>),
            Mnemonic::Addsubps => by_source!($memory, alternating::<f32>),
            Mnemonic::Addsubpd => by_source!($memory, alternating::<f64>),
            Mnemonic::Dpps => by_source!($memory, dot::<f32>),
            Mnemonic::Dppd => by_source!($memory, dot::<f64>),
            Mnemonic::Rcpps => by_source!($memory, approximate_packed::<Reciprocal>),
            Mnemonic::Rsqrtps => by_source!($memory, approximate_packed::<ReciprocalRoot>),
            _ => return None,
        }
    };
}

/// The handler of an arithmetic instruction.
pub(super) fn select(mnemonic: Mnemonic, form: &Form) -> Option<Handler> {
    if form.kinds[0] != Kind::Register {
        return None;
    }
    Some(widths! { mnemonic, form.kinds[1] == Kind::Memory,
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
        assert_eq!(ReciprocalRoot::approximate(4.0).to_bits(), 0x3eff_f000);
    }

    /// A sum in which every bit and the order of the numbers count.
    fn checksum(numbers: impl Iterator<Item = f32>) -> u32 {
        numbers.fold(0, |sum: u32, number| sum.wrapping_mul(31).wrapping_add(number.to_bits()))
    }

    #[test]
    fn approximations_are_those_that_were_measured() {
        let interval = |exponent: u32, number: u32, bits: u32| f32::from_bits(exponent << 23 | number << (23 - bits));
        assert_eq!(checksum((0..2048).map(|i| Reciprocal::approximate(interval(127, i, 11)))), 0xe0e7_5000);
        assert_eq!(checksum((0..1024).map(|i| ReciprocalRoot::approximate(interval(127, i, 10)))), 0x8df7_3000);
        assert_eq!(checksum((0..1024).map(|i| ReciprocalRoot::approximate(interval(128, i, 10)))), 0xbb88_a800);
        // The ends of intervals, and numbers far away.
        for (of, reciprocal, root) in [
            (0x3f80_0000, 0x3f7f_f000, 0x3f7f_f000),
            (0x3f80_0fff, 0x3f7f_f000, 0x3f7f_f000),
            (0x3f80_1000, 0x3f7f_d000, 0x3f7f_f000),
            (0x4049_0fdb, 0x3ea3_0000, 0x3f10_7000),
            (0x0080_0000, 0x7e7f_f000, 0x5eff_f000),
            (0x7e7f_ffff, 0x0080_0800, 0x2000_0800),
            (0x7e80_0000, 0x0000_0000, 0x1fff_f000),
            (0x7f7f_ffff, 0x0000_0000, 0x1f80_0800),
            (0x3fff_ffff, 0x3f00_0800, 0x3f35_0800),
            (0x407f_ffff, 0x3e80_0800, 0x3f00_0800),
            (0x1234_5678, 0x6cb5_b000, 0x5618_8800),
            (0x6b5a_3c2d, 0x1396_2800, 0x298a_a800),
        ] {
            assert_eq!(Reciprocal::approximate(f32::from_bits(of)).to_bits(), reciprocal, "{of:#x}");
            assert_eq!(ReciprocalRoot::approximate(f32::from_bits(of)).to_bits(), root, "{of:#x}");
        }
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
