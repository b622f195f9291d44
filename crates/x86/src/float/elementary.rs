//! Powers of two, logarithms and trigonometric functions, as the x87 has them.
//!
//! They are computed with 128 bits and rounded once to 64: the error is below 0.51 units in the last place of the
//! 80-bit format. Arguments of sine, cosine and tangent are reduced with the 66-bit pi that the SDM gives (vol. 1
//! § 8.3.8), exactly; the results for large arguments are those of such a pi.
//! Sources: SDM vol. 1 § 8.3.8 to 8.3.10; SDM vol. 2 (F2XM1, FYL2X, FYL2XP1, FPATAN, FPTAN, FSIN, FCOS: tables of
//! special values).

use super::{Class, Environment, Flags, Format, Number, wide::Wide};

/// The processor's pi in units of 2^-64; so half of it in units of 2^-65.
const PI_66: u128 = 0x3_243f_6a88_85a3_08d3;

const PI: Wide = Wide::constant(1, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1);
const LN_2: Wide = Wide::constant(-1, 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af);
const LOG2_E: Wide = Wide::constant(0, 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e89);

/// Arctangents of 1/8 to 8/8.
const ARCTANGENTS: [Wide; 8] = [
    Wide::constant(-4, 0xfead_d4d5_617b_6e32_c897_989f_3e88_8ef8),
    Wide::constant(-3, 0xfadb_afc9_6406_eb15_6dc7_9ef5_f7a2_17e6),
    Wide::constant(-2, 0xb7b0_ca0f_26f7_8473_8aa3_2122_dcfe_4483),
    Wide::constant(-2, 0xed63_382b_0dda_7b45_6fe4_45ec_bc3a_8d03),
    Wide::constant(-1, 0x8f00_5d5e_f7f5_9f9b_5c83_5e16_65c4_3748),
    Wide::constant(-1, 0xa4bc_7d19_34f7_0924_19a8_7f2a_457d_ac9f),
    Wide::constant(-1, 0xb805_3e2b_c231_9e73_cb2d_a552_10a4_443d),
    Wide::constant(-1, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1),
];

/// `e^y - 1` for |y| up to 0.7, by its power series.
fn exponential_minus_1(y: Wide) -> Wide {
    let sum = (2..=31).rev().fold(Wide::ONE, |sum, k| Wide::ONE.add(sum.multiply(y).divide_small(k)));
    sum.multiply(y)
}

/// `2 * artanh(s)` for |s| up to 0.18, which is `ln((1 + s) / (1 - s))`.
fn twice_area_tangent(s: Wide) -> Wide {
    let square = s.multiply(s);
    let sum = (0..=25).rev().fold(Wide::ZERO, |sum, k| sum.multiply(square).add(Wide::ONE.divide_small(2 * k + 1)));
    sum.multiply(s).scaled(1)
}

/// The binary logarithm of a positive number.
fn binary_logarithm(x: Wide) -> Wide {
    // The significand is taken from [0.75, 1.5): then a number near 1 has no integer part that would cancel.
    let upper = x.significand >> 126 == 3;
    let exponent = x.exponent + i32::from(upper);
    let m = Wide { exponent: -i32::from(upper), ..x };
    let s = m.subtract(Wide::ONE).divide(m.add(Wide::ONE));
    Wide::from_integer(i64::from(exponent)).add(twice_area_tangent(s).multiply(LOG2_E))
}

/// The sine for |r| up to pi / 4.
fn sine_series(r: Wide) -> Wide {
    let square = r.multiply(r);
    let sum = (1..=16)
        .rev()
        .fold(Wide::ONE, |sum, k| Wide::ONE.subtract(sum.multiply(square).divide_small(2 * k * (2 * k + 1))));
    sum.multiply(r)
}

/// The cosine for |r| up to pi / 4.
fn cosine_series(r: Wide) -> Wide {
    let square = r.multiply(r);
    (1..=16).rev().fold(Wide::ONE, |sum, k| Wide::ONE.subtract(sum.multiply(square).divide_small(2 * k * (2 * k - 1))))
}

/// The arctangent for t from 0 to 1.
fn arctangent_series(t: Wide) -> Wide {
    // Eighths: the nearest one is taken off, so that the series converges by more than 8 bits a term.
    let eighths = match u32::try_from(124 - t.exponent) {
        Ok(shift @ 0..=127) => (((t.significand >> (shift - 1).min(127)) + 1) >> 1) as usize,
        _ => 0,
    };
    let (base, rest) = match ARCTANGENTS.get(eighths.wrapping_sub(1)) {
        Some(&base) => {
            let eighths = Wide::from_integer(eighths as i64).scaled(-3);
            (base, t.subtract(eighths).divide(Wide::ONE.add(t.multiply(eighths))))
        }
        None => (Wide::ZERO, t),
    };
    let square = rest.multiply(rest);
    let sum =
        (0..=17).rev().fold(Wide::ZERO, |sum, k| Wide::ONE.divide_small(2 * k + 1).subtract(sum.multiply(square)));
    base.add(sum.multiply(rest))
}

/// The quadrant that a magnitude below 2^63 lies in, counted from -pi/4, and how far from that quadrant's middle.
fn reduce(x: Number) -> (u32, Wide) {
    if x.exponent < -2 {
        return (0, Wide::from(x.with_sign(false)));
    }
    let units = u128::from(x.significand) << (x.exponent + 2).clamp(0, 64);
    let (quotient, rest) = (units / PI_66, units % PI_66);
    if rest > PI_66 / 2 {
        ((quotient as u32).wrapping_add(1) & 3, Wide::normalized(true, 127 - 65, PI_66 - rest))
    } else {
        (quotient as u32 & 3, Wide::normalized(false, 127 - 65, rest))
    }
}

/// Sine and cosine of a finite number below 2^63 in magnitude.
fn sine_and_cosine(x: Number) -> (Wide, Wide) {
    let (quadrant, r) = reduce(x);
    let (sine, cosine) = (sine_series(r), cosine_series(r));
    let (sine, cosine) = match quadrant {
        0 => (sine, cosine),
        1 => (cosine, sine.negated()),
        2 => (sine.negated(), cosine.negated()),
        _ => (cosine.negated(), sine),
    };
    (if x.sign { sine.negated() } else { sine }, cosine)
}

/// What sine, cosine and tangent have in common before they compute.
enum Argument {
    /// Computes.
    Finite,
    /// The result is known.
    Special(Number),
    /// 2^63 and more: the instruction does not work.
    OutOfRange,
}

impl Environment {
    /// Rounds an irrational result.
    fn finish(&mut self, value: Wide) -> Number {
        if value.is_zero() {
            return Number::zero(value.sign);
        }
        self.round(Format::EXTENDED, value.sign, value.exponent, value.significand | 1)
    }

    /// `2^x - 1` for x from -1 to 1; other arguments come back as they are.
    pub(crate) fn power_of_two_minus_1(&mut self, x: Number) -> Number {
        self.rounded_up = false;
        match x.class {
            Class::Zero => return x,
            Class::Infinity if x.sign => return Number::finite(true, 63, 1),
            Class::Infinity => return x,
            Class::Finite => {}
            _ => return self.quiet(x),
        }
        self.check_denormal(&[x]);
        if x.exponent >= 0 {
            if x.exponent > 0 || x.significand != 1 << 63 {
                self.raise(Flags::INEXACT);
                return x;
            }
            return if x.sign { Number { exponent: -1, ..x } } else { x };
        }
        self.finish(exponential_minus_1(Wide::from(x).multiply(LN_2)))
    }

    /// `y * log2(x)`.
    pub(crate) fn logarithm(&mut self, y: Number, x: Number) -> Number {
        self.rounded_up = false;
        if x.is_nan() || y.is_nan() {
            return self.propagate(x, y);
        }
        if x.is_zero() {
            if y.is_zero() {
                return self.invalid();
            }
            if y.class == Class::Finite {
                self.raise(Flags::ZERO_DIVIDE);
            }
            return Number::infinity(!y.sign);
        }
        if x.sign {
            return self.invalid();
        }
        let is_one = x.class == Class::Finite && x.exponent == 0 && x.significand == 1 << 63;
        let below_one = x.class == Class::Finite && x.exponent < 0;
        if x.is_infinite() && y.is_zero() || y.is_infinite() && is_one {
            return self.invalid();
        }
        self.check_denormal(&[x, y]);
        let sign = y.sign != below_one;
        if x.is_infinite() || y.is_infinite() {
            return Number::infinity(sign);
        }
        if y.is_zero() || is_one {
            return Number::zero(sign);
        }
        if x.significand == 1 << 63 {
            // Processors call the logarithm itself inexact.
            self.raise(Flags::INEXACT);
            return self.multiply(Format::EXTENDED, y, Number::from_integer(i64::from(x.exponent)));
        }
        self.finish(binary_logarithm(Wide::from(x)).multiply(Wide::from(y)))
    }

    /// `y * log2(x + 1)`; exact to the last place also for small x.
    pub(crate) fn logarithm_plus_1(&mut self, y: Number, x: Number) -> Number {
        self.rounded_up = false;
        if x.is_nan() || y.is_nan() {
            return self.propagate(x, y);
        }
        let minus_one = x.sign && x.class == Class::Finite && x.exponent == 0 && x.significand == 1 << 63;
        let below = x.sign && !minus_one && (x.is_infinite() || x.class == Class::Finite && x.exponent >= 0);
        if below && x.class == Class::Finite {
            // The manuals leave this open; processors hand the operand through.
            self.raise(Flags::INEXACT);
            return x;
        }
        if below || x.is_zero() && y.is_infinite() || (x.is_infinite() || minus_one) && y.is_zero() {
            return self.invalid();
        }
        let sign = x.sign != y.sign;
        if minus_one {
            if y.class == Class::Finite {
                self.raise(Flags::ZERO_DIVIDE);
            }
            return Number::infinity(sign);
        }
        self.check_denormal(&[x, y]);
        if x.is_infinite() || y.is_infinite() {
            return Number::infinity(sign);
        }
        if x.is_zero() || y.is_zero() {
            return Number::zero(sign);
        }
        let wide = Wide::from(x);
        let logarithm = if x.exponent < -2 {
            twice_area_tangent(wide.divide(wide.add(Wide::from_integer(2)))).multiply(LOG2_E)
        } else {
            binary_logarithm(wide.add(Wide::ONE))
        };
        self.finish(logarithm.multiply(Wide::from(y)))
    }

    fn trigonometric_argument(&mut self, x: Number) -> Argument {
        self.rounded_up = false;
        match x.class {
            Class::Infinity => Argument::Special(self.invalid()),
            Class::Zero | Class::Finite if x.exponent < 63 => {
                self.check_denormal(&[x]);
                Argument::Finite
            }
            Class::Zero | Class::Finite => Argument::OutOfRange,
            _ => Argument::Special(self.quiet(x)),
        }
    }

    /// The sine; `None` if the argument is out of range.
    pub(crate) fn sine(&mut self, x: Number) -> Option<Number> {
        match self.trigonometric_argument(x) {
            Argument::Finite if x.is_zero() => Some(x),
            Argument::Finite => Some(self.finish(sine_and_cosine(x).0)),
            Argument::Special(result) => Some(result),
            Argument::OutOfRange => None,
        }
    }

    /// The cosine; `None` if the argument is out of range.
    pub(crate) fn cosine(&mut self, x: Number) -> Option<Number> {
        match self.trigonometric_argument(x) {
            Argument::Finite if x.is_zero() => Some(Number::from_integer(1)),
            Argument::Finite => Some(self.finish(sine_and_cosine(x).1)),
            Argument::Special(result) => Some(result),
            Argument::OutOfRange => None,
        }
    }

    /// The tangent; `None` if the argument is out of range.
    pub(crate) fn tangent(&mut self, x: Number) -> Option<Number> {
        match self.trigonometric_argument(x) {
            Argument::Finite if x.is_zero() => Some(x),
            Argument::Finite => {
                let (sine, cosine) = sine_and_cosine(x);
                Some(self.finish(sine.divide(cosine)))
            }
            Argument::Special(result) => Some(result),
            Argument::OutOfRange => None,
        }
    }

    /// The angle of the point (x, y).
    pub(crate) fn arctangent(&mut self, y: Number, x: Number) -> Number {
        self.rounded_up = false;
        if x.is_nan() || y.is_nan() {
            return self.propagate(x, y);
        }
        self.check_denormal(&[x, y]);
        let rank = |n: &Number| match n.class {
            Class::Zero => (0, 0, 0),
            Class::Infinity => (2, 0, 0),
            _ => (1, n.exponent, n.significand),
        };
        let steep = rank(&y) > rank(&x);
        let first = if y.is_infinite() && x.is_infinite() {
            PI.scaled(-2)
        } else if y.is_zero() || x.is_infinite() {
            if !x.sign {
                return Number::zero(y.sign);
            }
            Wide::ZERO
        } else if x.is_zero() || y.is_infinite() {
            PI.scaled(-1)
        } else {
            let (x, y) = (Wide::from(x.with_sign(false)), Wide::from(y.with_sign(false)));
            if steep { PI.scaled(-1).subtract(arctangent_series(x.divide(y))) } else { arctangent_series(y.divide(x)) }
        };
        let angle = if x.sign { PI.subtract(first) } else { first };
        self.finish(Wide { sign: y.sign, ..angle })
    }
}
