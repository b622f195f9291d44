//! Lanes of single and double precision, and the operations on one: the host's arithmetic where it is sure to give the
//! guest's result and exceptions, software otherwise.
//!
//! Sources: SDM vol. 1 § 10.2.3 (MXCSR), § 11.5 (exceptions).

use std::cmp::Ordering;

use crate::{
    access::Value,
    float::{Environment, Flags, Format, NanRule, Number, Rounding},
    state::{CpuState, Cr4},
    trap::{Exception, Trap},
};

/// MXCSR: inexact results so far.
const PE: u32 = 1 << 5;
/// MXCSR: denormals are zeros.
const DAZ: u32 = 1 << 6;
/// MXCSR: where the masks begin.
const MASK_SHIFT: u32 = 7;
/// MXCSR: inexact results are masked.
const PM: u32 = 1 << 12;
/// MXCSR: where rounding control is.
const ROUNDING_SHIFT: u32 = 13;
const ROUNDING: u32 = 3 << ROUNDING_SHIFT;
/// MXCSR: flush to zero.
const FZ: u32 = 1 << 15;

/// f32 or f64 as a lane.
pub(super) trait Real: Copy + PartialOrd {
    /// Its encoding in memory.
    type Bits: Value + Into<u64> + Into<u128>;
    const FORMAT: Format;
    /// Bits of a lane.
    const WIDTH: u32;
    fn from_u64(bits: u64) -> Self;
    fn to_u64(self) -> u64;
    fn host_add(self, other: Self) -> Self;
    fn host_subtract(self, other: Self) -> Self;
    fn host_multiply(self, other: Self) -> Self;
    fn host_divide(self, other: Self) -> Self;
    fn host_square_root(self) -> Self;
    /// `self * factor + addend`, rounded once.
    fn host_multiply_add(self, factor: Self, addend: Self) -> Self;
    /// With the other sign.
    fn host_negate(self) -> Self;
    /// The nearest one to an integer.
    fn host_from_integer(value: i64) -> Self;
    /// Toward zero, saturating.
    fn host_to_integer(self) -> i64;
    /// The integer nearby.
    fn host_round(self, rounding: Rounding) -> Self;

    /// Lane `index` of a register.
    #[inline(always)]
    fn lane(register: u128, index: u32) -> Self {
        Self::from_u64((register >> (Self::WIDTH * index)) as u64 & Self::ONES)
    }

    /// Itself as lane `index` of a register that is zero otherwise.
    #[inline(always)]
    fn placed(self, index: u32) -> u128 {
        u128::from(self.to_u64()) << (Self::WIDTH * index)
    }

    /// `register` with lane 0 replaced.
    #[inline(always)]
    fn replace_low(self, register: u128) -> u128 {
        register & !u128::from(Self::ONES) | u128::from(self.to_u64())
    }

    /// Number of lanes in a register.
    const LANES: u32 = 128 / Self::WIDTH;
    /// All bits of a lane.
    const ONES: u64 = u64::MAX >> (64 - Self::WIDTH);
    /// Bits of the fraction.
    const FRACTION: u32 = Self::FORMAT.precision - 1;
    /// The exponent field of infinities and NaNs.
    const EXPONENT_ONES: u64 = 2 * Self::FORMAT.max_exponent as u64 + 1;

    /// The exponent field.
    #[inline(always)]
    fn exponent_field(self) -> u64 {
        self.to_u64() >> Self::FRACTION & Self::EXPONENT_ONES
    }

    #[inline(always)]
    fn is_zero(self) -> bool {
        self.to_u64() << (64 - Self::WIDTH) << 1 == 0
    }

    /// Neither denormal, infinite nor NaN.
    #[inline(always)]
    fn is_plain(self) -> bool {
        let exponent = self.exponent_field();
        exponent != Self::EXPONENT_ONES && (exponent != 0 || self.is_zero())
    }

    /// A result that rounding can neither have made too small nor too large.
    #[inline(always)]
    fn is_clear(self) -> bool {
        self.exponent_field().wrapping_sub(2) < Self::EXPONENT_ONES - 2
    }
}

macro_rules! real {
    ($type:ty, $bits:ty, $format:expr) => {
        impl Real for $type {
            type Bits = $bits;
            const FORMAT: Format = $format;
            const WIDTH: u32 = <$bits>::BITS;

            #[inline(always)]
            fn from_u64(bits: u64) -> Self {
                <$type>::from_bits(bits as $bits)
            }

            #[inline(always)]
            fn to_u64(self) -> u64 {
                u64::from(self.to_bits())
            }

            #[inline(always)]
            fn host_add(self, other: Self) -> Self {
                self + other
            }

            #[inline(always)]
            fn host_subtract(self, other: Self) -> Self {
                self - other
            }

            #[inline(always)]
            fn host_multiply(self, other: Self) -> Self {
                self * other
            }

            #[inline(always)]
            fn host_divide(self, other: Self) -> Self {
                self / other
            }

            #[inline(always)]
            fn host_square_root(self) -> Self {
                self.sqrt()
            }

            #[inline(always)]
            fn host_multiply_add(self, factor: Self, addend: Self) -> Self {
                self.mul_add(factor, addend)
            }

            #[inline(always)]
            fn host_negate(self) -> Self {
                -self
            }

            #[inline(always)]
            fn host_from_integer(value: i64) -> Self {
                value as $type
            }

            #[inline(always)]
            fn host_to_integer(self) -> i64 {
                self as i64
            }

            #[inline(always)]
            fn host_round(self, rounding: Rounding) -> Self {
                match rounding {
                    Rounding::Nearest => self.round_ties_even(),
                    Rounding::Down => self.floor(),
                    Rounding::Up => self.ceil(),
                    Rounding::Zero => self.trunc(),
                }
            }
        }
    };
}

real!(f32, u32, Format::SINGLE);
real!(f64, u64, Format::DOUBLE);

/// What the lanes of one instruction share.
pub(super) struct Context {
    mxcsr: u32,
    flags: Flags,
    /// The instruction's immediate.
    pub(super) immediate: u8,
}

impl Context {
    #[inline(always)]
    pub(super) fn new(cpu: &CpuState, immediate: u8) -> Self {
        Self { mxcsr: cpu.mxcsr, flags: Flags::empty(), immediate }
    }

    /// Whether an inexact result, rounded to nearest, tells nothing new: then the host's result will do.
    #[inline(always)]
    pub(super) fn host_rounds(&self) -> bool {
        self.mxcsr & (ROUNDING | PE | PM) == PE | PM
    }

    /// Computes in software.
    #[inline(never)]
    pub(super) fn software<T>(&mut self, compute: impl FnOnce(&mut Environment) -> T) -> T {
        let mut environment = Environment {
            rounding: self.rounding(),
            masked: Flags::from_bits_truncate((self.mxcsr >> MASK_SHIFT) as u8),
            flush_to_zero: self.mxcsr & FZ != 0,
            denormals_are_zero: self.mxcsr & DAZ != 0,
            nan_rule: NanRule::First,
            wrap: 0,
            flags: Flags::empty(),
            rounded_up: false,
        };
        let result = compute(&mut environment);
        // Of one lane only what comes before computing counts, if that traps.
        let before = environment.flags & Flags::BEFORE;
        self.flags |= if environment.masked.contains(before) { environment.flags } else { before };
        result
    }

    /// The rounding mode.
    pub(super) fn rounding(&self) -> Rounding {
        Rounding::from_bits(self.mxcsr >> ROUNDING_SHIFT)
    }

    /// Whether an exception was met that is not masked: what an instruction of several steps does not go on after.
    pub(super) fn traps(&self) -> bool {
        let masked = Flags::from_bits_truncate((self.mxcsr >> MASK_SHIFT) as u8);
        !masked.contains(self.flags)
    }

    /// Notes the exceptions in MXCSR; raises #XM if one is unmasked, and then nothing must be written.
    #[inline(always)]
    pub(super) fn finish(self, cpu: &mut CpuState) -> Result<(), Trap> {
        if self.flags.is_empty() { Ok(()) } else { self.report(cpu) }
    }

    #[cold]
    fn report(self, cpu: &mut CpuState) -> Result<(), Trap> {
        let masked = Flags::from_bits_truncate((cpu.mxcsr >> MASK_SHIFT) as u8);
        let before = self.flags & Flags::BEFORE;
        let flags = if masked.contains(before) { self.flags } else { before };
        cpu.mxcsr |= u32::from(flags.bits());
        if masked.contains(flags) {
            return Ok(());
        }
        Err(cpu.raise(if cpu.cr4_has(Cr4::OSXMMEXCPT) { Exception::SIMD_ERROR } else { Exception::INVALID_OPCODE }))
    }
}

/// An operation on a lane of the first and the second operand.
pub(super) trait LaneOperation {
    fn lane<R: Real>(context: &mut Context, a: R, b: R) -> R;
}

/// Defines an arithmetic operation by what the host and what the software computes. `exact_zero`: a result of zero is
/// always exact.
macro_rules! arithmetic {
    ($($name:ident, $host:ident, $software:ident, $exact_zero:literal;)*) => {
        $(
            pub(super) struct $name;
            impl LaneOperation for $name {
                #[inline(always)]
                fn lane<R: Real>(context: &mut Context, a: R, b: R) -> R {
                    if context.host_rounds() && a.is_plain() && b.is_plain() {
                        let result = a.$host(b);
                        if result.is_clear() || result.is_zero() && ($exact_zero || a.is_zero() || b.is_zero()) {
                            return result;
                        }
                    }
                    context.software(|environment| {
                        let a = environment.operand(R::FORMAT, a.to_u64());
                        let b = environment.operand(R::FORMAT, b.to_u64());
                        R::from_u64(environment.$software(R::FORMAT, a, b).pack(R::FORMAT))
                    })
                }
            }
        )*
    };
}

arithmetic! {
    Add, host_add, add, true;
    Subtract, host_subtract, subtract, true;
    Multiply, host_multiply, multiply, false;
    Divide, host_divide, divide, false;
}

/// The square root of the second operand.
pub(super) struct SquareRoot;
impl LaneOperation for SquareRoot {
    #[inline(always)]
    fn lane<R: Real>(context: &mut Context, _: R, b: R) -> R {
        if context.host_rounds() && b.is_plain() {
            let result = b.host_square_root();
            if result.is_clear() || result.is_zero() {
                return result;
            }
        }
        context.software(|environment| {
            let b = environment.operand(R::FORMAT, b.to_u64());
            R::from_u64(environment.square_root(R::FORMAT, b).pack(R::FORMAT))
        })
    }
}

/// The product of two terms and the sum with the third, rounded once; product and addend may be negated before.
#[inline(always)]
pub(super) fn fused<R: Real>(context: &mut Context, terms: [R; 3], negate_product: bool, negate_addend: bool) -> R {
    let [x, y, z] = terms;
    if context.host_rounds() && x.is_plain() && y.is_plain() && z.is_plain() {
        let factor = if negate_product { x.host_negate() } else { x };
        let addend = if negate_addend { z.host_negate() } else { z };
        let result = factor.host_multiply_add(y, addend);
        if result.is_clear() {
            return result;
        }
    }
    context.software(|environment| {
        let terms = terms.map(|term| environment.operand(R::FORMAT, term.to_u64()));
        R::from_u64(environment.multiply_add(R::FORMAT, terms, negate_product, negate_addend).pack(R::FORMAT))
    })
}

/// Compares two lanes; any NaN is invalid if the comparison signals.
#[inline(always)]
pub(super) fn compare<R: Real>(context: &mut Context, a: R, b: R, signals: bool) -> Option<Ordering> {
    if a.is_plain() && b.is_plain() {
        return a.partial_cmp(&b);
    }
    context.software(|environment| {
        let a = environment.operand(R::FORMAT, a.to_u64());
        let b = environment.operand(R::FORMAT, b.to_u64());
        environment.compare(a, b, signals)
    })
}

/// MIN and MAX: the second operand unless the first one is strictly `WANTED`.
#[inline(always)]
fn choose<R: Real>(context: &mut Context, a: R, b: R, wanted: Ordering) -> R {
    let chosen = if compare(context, a, b, true) == Some(wanted) { a } else { b };
    if context.mxcsr & DAZ != 0 && chosen.exponent_field() == 0 {
        // Only the sign of a denormal is left.
        return R::from_u64(chosen.to_u64() & 1 << (R::WIDTH - 1));
    }
    chosen
}

pub(super) struct Minimum;
impl LaneOperation for Minimum {
    #[inline(always)]
    fn lane<R: Real>(context: &mut Context, a: R, b: R) -> R {
        choose(context, a, b, Ordering::Less)
    }
}

pub(super) struct Maximum;
impl LaneOperation for Maximum {
    #[inline(always)]
    fn lane<R: Real>(context: &mut Context, a: R, b: R) -> R {
        choose(context, a, b, Ordering::Greater)
    }
}

/// CMPPS and its kin: the predicate is the immediate (SDM vol. 2, table 3-1).
pub(super) struct Compare;
impl LaneOperation for Compare {
    #[inline(always)]
    fn lane<R: Real>(context: &mut Context, a: R, b: R) -> R {
        let predicate = context.immediate & 7;
        let order = compare(context, a, b, matches!(predicate & 3, 1 | 2));
        let holds = match predicate & 3 {
            0 => order == Some(Ordering::Equal),
            1 => order == Some(Ordering::Less),
            2 => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            _ => order.is_none(),
        };
        R::from_u64(if holds != (predicate & 4 != 0) { R::ONES } else { 0 })
    }
}

/// ROUNDPS and its kin: the integer nearby, as the immediate says: how to round in its low two bits, unless bit 2 leaves
/// that to MXCSR; bit 3 keeps quiet about inexact results.
pub(super) struct Round;
impl LaneOperation for Round {
    #[inline(always)]
    fn lane<R: Real>(context: &mut Context, _: R, b: R) -> R {
        let exponent = b.exponent_field();
        if exponent == R::EXPONENT_ONES {
            return context.software(|environment| {
                let b = environment.operand(R::FORMAT, b.to_u64());
                R::from_u64(environment.round_to_integral(b).pack(R::FORMAT))
            });
        }
        if exponent == 0 && context.mxcsr & DAZ != 0 {
            // Only the sign of a denormal is left.
            return R::from_u64(b.to_u64() & 1 << (R::WIDTH - 1));
        }
        let immediate = context.immediate;
        let rounding = if immediate & 4 != 0 { context.rounding() } else { Rounding::from_bits(u32::from(immediate)) };
        let result = b.host_round(rounding);
        if immediate & 8 == 0 && result != b {
            context.flags |= Flags::INEXACT;
        }
        result
    }
}

/// DPPS and DPPD: the sum of the products of those lanes that the upper half of the immediate names, in those lanes that
/// its lower half names.
#[inline(always)]
pub(super) fn dot_product<R: Real>(context: &mut Context, a: u128, b: u128) -> u128 {
    let mut terms = [R::from_u64(0); 4];
    for (i, term) in (0..R::LANES).zip(&mut terms) {
        if context.immediate >> (4 + i) & 1 != 0 {
            *term = Multiply::lane(context, R::lane(a, i), R::lane(b, i));
        }
    }
    // Each lane adds up all terms in an order of its own, which tells in NaNs only: the manuals leave open which of several
    // is kept, this is what Intel's processors do.
    let mut distance = 1;
    while distance < R::LANES as usize {
        if context.traps() {
            return 0;
        }
        let own = R::LANES as usize / 2 == distance;
        terms = std::array::from_fn(|i| {
            let (first, second) = if own { (i, i ^ distance) } else { (i ^ distance, i) };
            Add::lane(context, terms[first], terms[second])
        });
        distance *= 2;
    }
    (0..R::LANES).zip(terms).fold(
        0,
        |result, (i, sum)| {
            if context.immediate >> i & 1 != 0 { result | sum.placed(i) } else { result }
        },
    )
}

/// An integer of `bits` bits from a lane; the least of them if it does not fit.
#[inline(always)]
pub(super) fn to_integer<R: Real>(context: &mut Context, a: R, bits: u32, truncate: bool) -> i64 {
    if truncate && a.is_plain() {
        let value = a.host_to_integer();
        let fits = value.unsigned_abs() >> (bits - 2) == 0;
        if fits && (context.host_rounds() || R::host_from_integer(value) == a) {
            return value;
        }
    }
    let rounding = if truncate { Rounding::Zero } else { context.rounding() };
    context.software(|environment| {
        let a = environment.operand(R::FORMAT, a.to_u64());
        environment.round_to_integer(a, bits, rounding)
    })
}

/// A lane from an integer.
#[inline(always)]
pub(super) fn from_integer<R: Real>(context: &mut Context, value: i64) -> R {
    if context.host_rounds() || value.unsigned_abs() >> R::FORMAT.precision == 0 {
        return R::host_from_integer(value);
    }
    context.software(|environment| {
        R::from_u64(environment.convert(R::FORMAT, Number::from_integer(value)).pack(R::FORMAT))
    })
}

/// A single as a double.
#[inline(always)]
pub(super) fn widen(context: &mut Context, a: f32) -> f64 {
    if a.is_plain() {
        return f64::from(a);
    }
    context.software(|environment| {
        let a = environment.operand(Format::SINGLE, a.to_u64());
        f64::from_u64(environment.convert(Format::DOUBLE, a).pack(Format::DOUBLE))
    })
}

/// A double as a single.
#[inline(always)]
pub(super) fn narrow(context: &mut Context, a: f64) -> f32 {
    if context.host_rounds() && a.is_plain() {
        let result = a as f32;
        if result.is_clear() || a.is_zero() {
            return result;
        }
    }
    context.software(|environment| {
        let a = environment.operand(Format::DOUBLE, a.to_u64());
        f32::from_u64(environment.convert(Format::SINGLE, a).pack(Format::SINGLE))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEFAULT: u32 = 0x1f80;

    /// An operation under a control word: the result's bits and the flags it raised.
    fn compute<O: LaneOperation, R: Real>(mxcsr: u32, a: u64, b: u64) -> (u64, Flags) {
        let mut context = Context { mxcsr, flags: Flags::empty(), immediate: 0 };
        let result = O::lane(&mut context, R::from_u64(a), R::from_u64(b)).to_u64();
        (result, context.flags)
    }

    fn single(a: f32) -> u64 {
        u64::from(a.to_bits())
    }

    fn bits() -> impl Strategy<Value = u64> {
        prop_oneof![
            any::<u64>(),
            any::<f32>().prop_map(|a| f64::from(a).to_bits()),
            (990u64..1060, 0u64..1 << 52).prop_map(|(exponent, fraction)| exponent << 52 | fraction),
            (0u64..3, 0u64..1 << 52).prop_map(|(exponent, fraction)| exponent << 52 | fraction),
        ]
    }

    /// What the short way and the software give is the same, and the host's result.
    fn agrees<O: LaneOperation>(a: u64, b: u64, expected: f64) -> Result<(), TestCaseError> {
        let (short, _) = compute::<O, f64>(DEFAULT | PE, a, b);
        let (long, _) = compute::<O, f64>(DEFAULT, a, b);
        prop_assert_eq!(short, long);
        if expected.is_nan() {
            prop_assert!(f64::from_bits(long).is_nan());
        } else {
            prop_assert_eq!(long, expected.to_bits());
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn both_ways_agree_with_the_host(a in bits(), b in bits()) {
            let (x, y) = (f64::from_bits(a), f64::from_bits(b));
            agrees::<Add>(a, b, x + y)?;
            agrees::<Subtract>(a, b, x - y)?;
            agrees::<Multiply>(a, b, x * y)?;
            agrees::<Divide>(a, b, x / y)?;
            agrees::<SquareRoot>(a, b, y.sqrt())?;
        }

        #[test]
        fn conversions_agree_with_the_host(a in bits(), integer: i64) {
            for mxcsr in [DEFAULT, DEFAULT | PE] {
                let mut context = Context { mxcsr, flags: Flags::empty(), immediate: 0 };
                let value = f64::from_bits(a);
                if !value.is_nan() {
                    prop_assert_eq!(narrow(&mut context, value).to_bits(), (value as f32).to_bits());
                }
                let in_range = value.abs() < 9.2e18;
                let expected = if in_range { value as i64 } else { i64::MIN };
                prop_assert_eq!(to_integer(&mut context, value, 64, true), expected);
                prop_assert_eq!(from_integer::<f64>(&mut context, integer), integer as f64);
                prop_assert_eq!(from_integer::<f32>(&mut context, integer), integer as f32);
            }
        }
    }

    #[test]
    fn each_rounding_mode_breaks_ties_and_directs_as_named() {
        // 1 + 2^-24 lies half way between two singles.
        let (one, half) = (single(1.0), single(1.0 / 16_777_216.0));
        for (mode, positive, negative) in [
            (0, 0x3f80_0000, 0xbf80_0000),
            (1, 0x3f80_0000, 0xbf80_0001),
            (2, 0x3f80_0001, 0xbf80_0000),
            (3, 0x3f80_0000, 0xbf80_0000),
        ] {
            let mxcsr = DEFAULT | mode << ROUNDING_SHIFT;
            assert_eq!(compute::<Add, f32>(mxcsr, one, half), (positive, Flags::INEXACT));
            let sign = 1 << 31;
            assert_eq!(compute::<Add, f32>(mxcsr, one | sign, half | sign), (negative, Flags::INEXACT));
        }
    }

    #[test]
    fn denormals_are_told_or_taken_for_zero_and_flushed() {
        let (small, one) = (1, single(1.0));
        assert_eq!(compute::<Multiply, f32>(DEFAULT, small, one), (1, Flags::DENORMAL));
        assert_eq!(compute::<Multiply, f32>(DEFAULT | DAZ, small, one), (0, Flags::empty()));
        let tiny = single(f32::MIN_POSITIVE);
        let underflow = Flags::UNDERFLOW | Flags::INEXACT;
        assert_eq!(compute::<Multiply, f32>(DEFAULT | FZ, tiny, single(-0.5)), (0x8000_0000, underflow));
        assert_eq!(compute::<Multiply, f32>(DEFAULT, tiny, single(-0.5)), (0x8040_0000, Flags::empty()));
        // The short way must not be taken here.
        assert_eq!(compute::<Multiply, f32>(DEFAULT | FZ | PE, tiny, single(-0.5)), (0x8000_0000, underflow));
    }

    #[test]
    fn unmasked_underflow_and_overflow_are_judged_before_the_exponent_is_cut() {
        let unmasked = |flags: Flags| DEFAULT & !(u32::from(flags.bits()) << MASK_SHIFT);
        let half = single(0.5);
        let flags = |mxcsr: u32, a: u64, b: u64| compute::<Multiply, f32>(mxcsr, a, b).1;
        // Inexact as a denormal, but not with an exponent without bounds.
        assert_eq!(flags(DEFAULT, 0x80_0001, half), Flags::UNDERFLOW | Flags::INEXACT);
        assert_eq!(flags(unmasked(Flags::UNDERFLOW), 0x80_0001, half), Flags::UNDERFLOW);
        assert_eq!(flags(unmasked(Flags::UNDERFLOW), 0xff_ffff, half - 1), Flags::UNDERFLOW | Flags::INEXACT);
        assert_eq!(flags(DEFAULT, 0x7f00_0000, single(4.0)), Flags::OVERFLOW | Flags::INEXACT);
        assert_eq!(flags(unmasked(Flags::OVERFLOW), 0x7f00_0000, single(4.0)), Flags::OVERFLOW);
    }

    #[test]
    fn exceptions_of_special_operands() {
        let (zero, one, infinity) = (0, 1f64.to_bits(), f64::INFINITY.to_bits());
        let (quiet, signaling) = (0x7ff8_0000_0000_0123, 0x7ff0_0000_0000_0456);
        let default = 0xfff8_0000_0000_0000;
        assert_eq!(compute::<Divide, f64>(DEFAULT, one, zero), (infinity, Flags::ZERO_DIVIDE));
        assert_eq!(compute::<Divide, f64>(DEFAULT, zero, zero), (default, Flags::INVALID));
        // A denormal dividend is not told of when the divisor is zero.
        assert_eq!(compute::<Divide, f64>(DEFAULT, 1, zero), (infinity, Flags::ZERO_DIVIDE));
        assert_eq!(compute::<Subtract, f64>(DEFAULT, infinity, infinity), (default, Flags::INVALID));
        assert_eq!(compute::<Multiply, f64>(DEFAULT, zero, infinity), (default, Flags::INVALID));
        assert_eq!(compute::<SquareRoot, f64>(DEFAULT, 0, (-1f64).to_bits()), (default, Flags::INVALID));
        assert_eq!(compute::<Add, f64>(DEFAULT, quiet, signaling), (quiet, Flags::INVALID));
        assert_eq!(compute::<Add, f64>(DEFAULT, one, signaling), (signaling | 1 << 51, Flags::INVALID));
        assert_eq!(compute::<Add, f64>(DEFAULT, quiet, 1), (quiet, Flags::empty()));
    }

    #[test]
    fn minimum_and_maximum_give_the_second_operand_unless_the_first_wins() {
        let (positive, negative, nan) = (0, 1 << 31, 0x7f80_0001);
        assert_eq!(compute::<Minimum, f32>(DEFAULT, positive, negative).0, negative);
        assert_eq!(compute::<Minimum, f32>(DEFAULT, negative, positive).0, positive);
        assert_eq!(compute::<Maximum, f32>(DEFAULT, single(1.0), nan), (nan, Flags::INVALID));
        assert_eq!(compute::<Maximum, f32>(DEFAULT, nan, single(1.0)), (single(1.0), Flags::INVALID));
        assert_eq!(compute::<Maximum, f32>(DEFAULT, single(2.0), single(1.0)), (single(2.0), Flags::empty()));
    }

    #[test]
    fn integers_that_do_not_fit_become_the_indefinite() {
        let mut context = Context { mxcsr: DEFAULT, flags: Flags::empty(), immediate: 0 };
        assert_eq!(to_integer(&mut context, 2_147_483_647.0f64, 32, true), 2_147_483_647);
        assert_eq!(to_integer(&mut context, -2_147_483_648.0f64, 32, false), -2_147_483_648);
        assert_eq!(context.flags, Flags::empty());
        assert_eq!(to_integer(&mut context, 2_147_483_648.0f64, 32, true), -2_147_483_648);
        assert_eq!(context.flags, Flags::INVALID);
        assert_eq!(to_integer(&mut context, f32::NAN, 64, true), i64::MIN);
        for (mode, expected) in [(0, 2), (1, 2), (2, 3), (3, 2)] {
            let mut context = Context { mxcsr: DEFAULT | mode << ROUNDING_SHIFT, flags: Flags::empty(), immediate: 0 };
            assert_eq!(to_integer(&mut context, 2.5f64, 32, false), expected);
            assert_eq!(context.flags, Flags::INEXACT);
        }
    }

    #[test]
    fn comparison_predicates() {
        let nan = single(f32::NAN);
        let holds = |predicate: u8, a: u64, b: u64| {
            let mut context = Context { mxcsr: DEFAULT, flags: Flags::empty(), immediate: predicate };
            let lane = Compare::lane(&mut context, f32::from_u64(a), f32::from_u64(b)).to_bits();
            assert!(lane == 0 || lane == u32::MAX);
            (lane != 0, context.flags)
        };
        let (one, two) = (single(1.0), single(2.0));
        for (predicate, less, equal, greater, unordered) in [
            (0, false, true, false, (false, Flags::empty())),
            (1, true, false, false, (false, Flags::INVALID)),
            (2, true, true, false, (false, Flags::INVALID)),
            (3, false, false, false, (true, Flags::empty())),
            (4, true, false, true, (true, Flags::empty())),
            (5, false, true, true, (true, Flags::INVALID)),
            (6, false, false, true, (true, Flags::INVALID)),
            (7, true, true, true, (false, Flags::empty())),
        ] {
            assert_eq!(holds(predicate, one, two), (less, Flags::empty()));
            assert_eq!(holds(predicate, one, one), (equal, Flags::empty()));
            assert_eq!(holds(predicate, two, one), (greater, Flags::empty()));
            assert_eq!(holds(predicate, one, nan), unordered);
        }
    }
}
