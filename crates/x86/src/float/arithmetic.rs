//! Addition, multiplication, division, square root, comparison, remainders and conversions.
//!
//! Sources: SDM vol. 1 § 4.8.3.5 (operating on NaNs), § 4.9.1 and § 4.9.2 (exceptions and their priority), § 11.5.2.

use std::cmp::Ordering;

use super::{Class, Environment, Flags, Format, NanRule, Number, Rounding, round::shift_right_sticky};

impl Environment {
    /// Reports an invalid operation; its result when that is masked.
    pub(crate) fn invalid(&mut self) -> Number {
        self.raise(Flags::INVALID);
        self.rounded_up = false;
        Number::DEFAULT_NAN
    }

    /// Reports denormal operands; to be asked when neither NaNs nor invalid operations come first.
    pub(crate) fn check_denormal(&mut self, operands: &[Number]) {
        if operands.iter().any(|operand| operand.denormal) {
            self.raise(Flags::DENORMAL);
        }
    }

    /// Unpacks an operand; a denormal one may count as zero.
    pub(crate) fn operand(&self, format: Format, bits: u64) -> Number {
        let number = Number::unpack(format, bits);
        if number.denormal && self.denormals_are_zero { Number::zero(number.sign) } else { number }
    }

    /// The NaN that comes of one NaN.
    pub(crate) fn quiet(&mut self, nan: Number) -> Number {
        self.rounded_up = false;
        match nan.class {
            Class::Unsupported => self.invalid(),
            Class::SignalingNan => {
                self.raise(Flags::INVALID);
                Number { class: Class::QuietNan, significand: nan.significand | 1 << 62, ..nan }
            }
            _ => nan,
        }
    }

    /// The NaN that comes of two operands of which at least one is a NaN.
    pub(crate) fn propagate(&mut self, a: Number, b: Number) -> Number {
        self.rounded_up = false;
        if a.class == Class::Unsupported || b.class == Class::Unsupported {
            return self.invalid();
        }
        let signaling = |number: Number| number.class == Class::SignalingNan;
        if signaling(a) || signaling(b) {
            self.raise(Flags::INVALID);
        }
        let chosen = match (a.is_nan(), b.is_nan()) {
            (true, false) => a,
            (false, true) => b,
            _ => match self.nan_rule {
                NanRule::First => a,
                NanRule::Larger if signaling(a) && !signaling(b) => b,
                NanRule::Larger if signaling(b) && !signaling(a) => a,
                NanRule::Larger => match a.significand.cmp(&b.significand) {
                    Ordering::Greater => a,
                    Ordering::Less => b,
                    Ordering::Equal if a.sign => b,
                    Ordering::Equal => a,
                },
            },
        };
        Number { class: Class::QuietNan, significand: chosen.significand | 1 << 62, ..chosen }
    }

    /// `a + b`.
    pub(crate) fn add(&mut self, format: Format, a: Number, b: Number) -> Number {
        if a.is_nan() || b.is_nan() {
            return self.propagate(a, b);
        }
        if a.is_infinite() && b.is_infinite() && a.sign != b.sign {
            return self.invalid();
        }
        self.rounded_up = false;
        self.check_denormal(&[a, b]);
        if a.is_infinite() {
            return a;
        }
        if b.is_infinite() {
            return b;
        }
        match (a.is_zero(), b.is_zero()) {
            (true, true) if a.sign == b.sign => return a,
            (true, true) => return Number::zero(self.rounding == Rounding::Down),
            (true, false) => return self.round(format, b.sign, b.exponent, u128::from(b.significand) << 64),
            (false, true) => return self.round(format, a.sign, a.exponent, u128::from(a.significand) << 64),
            (false, false) => {}
        }
        let (large, small) = if (a.exponent, a.significand) >= (b.exponent, b.significand) { (a, b) } else { (b, a) };
        // One bit is left free above for the carry.
        let x = u128::from(large.significand) << 63;
        let y = shift_right_sticky(u128::from(small.significand) << 63, large.exponent.abs_diff(small.exponent));
        let sum = if a.sign == b.sign { x + y } else { x - y };
        if sum == 0 {
            return Number::zero(self.rounding == Rounding::Down);
        }
        let shift = sum.leading_zeros();
        self.round(format, large.sign, large.exponent + 1 - shift as i32, sum << shift)
    }

    /// `a - b`; a NaN keeps its sign.
    pub(crate) fn subtract(&mut self, format: Format, a: Number, b: Number) -> Number {
        if a.is_nan() || b.is_nan() { self.propagate(a, b) } else { self.add(format, a, b.negated()) }
    }

    /// `a * b`.
    pub(crate) fn multiply(&mut self, format: Format, a: Number, b: Number) -> Number {
        if a.is_nan() || b.is_nan() {
            return self.propagate(a, b);
        }
        if a.is_infinite() && b.is_zero() || a.is_zero() && b.is_infinite() {
            return self.invalid();
        }
        self.rounded_up = false;
        self.check_denormal(&[a, b]);
        let sign = a.sign != b.sign;
        if a.is_infinite() || b.is_infinite() {
            return Number::infinity(sign);
        }
        if a.is_zero() || b.is_zero() {
            return Number::zero(sign);
        }
        let product = u128::from(a.significand) * u128::from(b.significand);
        let shift = product.leading_zeros();
        self.round(format, sign, a.exponent + b.exponent + 1 - shift as i32, product << shift)
    }

    /// `x * y + z` of terms `x`, `y`, `z`, rounded once; product and addend may be negated before, NaNs keep their signs.
    /// For formats of at most 62 bits of precision.
    pub(crate) fn multiply_add(
        &mut self,
        format: Format,
        terms: [Number; 3],
        negate_product: bool,
        negate_addend: bool,
    ) -> Number {
        let [x, y, z] = terms;
        self.rounded_up = false;
        let invalid_product = x.is_infinite() && y.is_zero() || x.is_zero() && y.is_infinite();
        if terms.iter().any(Number::is_nan) {
            return self.propagate_three(terms);
        }
        let product_sign = (x.sign != y.sign) != negate_product;
        let z = if negate_addend { z.negated() } else { z };
        let infinite_product = x.is_infinite() || y.is_infinite();
        if invalid_product || infinite_product && z.is_infinite() && z.sign != product_sign {
            return self.invalid();
        }
        self.check_denormal(&terms);
        if infinite_product {
            return Number::infinity(product_sign);
        }
        if z.is_infinite() {
            return z;
        }
        if x.is_zero() || y.is_zero() {
            return match z.is_zero() {
                true if z.sign == product_sign => z,
                true => Number::zero(self.rounding == Rounding::Down),
                false => self.round(format, z.sign, z.exponent, u128::from(z.significand) << 64),
            };
        }
        let product = u128::from(x.significand) * u128::from(y.significand);
        let shift = product.leading_zeros();
        let (exponent, product) = (x.exponent + y.exponent + 1 - shift as i32, product << shift);
        if z.is_zero() {
            return self.round(format, product_sign, exponent, product);
        }
        // One bit is left free above for the carry. Neither term has ones near its lower end, and where bits of the smaller
        // one fall out below, the larger one keeps its magnitude.
        let (a, b) = ((product_sign, exponent, product), (z.sign, z.exponent, u128::from(z.significand) << 64));
        let (large, small) = if (a.1, a.2) >= (b.1, b.2) { (a, b) } else { (b, a) };
        let aligned = shift_right_sticky(small.2 >> 1, large.1.abs_diff(small.1));
        let sum = if large.0 == small.0 { (large.2 >> 1) + aligned } else { (large.2 >> 1) - aligned };
        if sum == 0 {
            return Number::zero(self.rounding == Rounding::Down);
        }
        let shift = sum.leading_zeros();
        self.round(format, large.0, large.1 + 1 - shift as i32, sum << shift)
    }

    /// The NaN that comes of three operands: the first that is one.
    fn propagate_three(&mut self, terms: [Number; 3]) -> Number {
        if terms.iter().any(|term| term.class == Class::SignalingNan) {
            self.raise(Flags::INVALID);
        }
        let chosen = terms.into_iter().find(Number::is_nan).unwrap_or(Number::DEFAULT_NAN);
        Number { class: Class::QuietNan, significand: chosen.significand | 1 << 62, ..chosen }
    }

    /// `a / b`.
    pub(crate) fn divide(&mut self, format: Format, a: Number, b: Number) -> Number {
        if a.is_nan() || b.is_nan() {
            return self.propagate(a, b);
        }
        if a.is_infinite() && b.is_infinite() || a.is_zero() && b.is_zero() {
            return self.invalid();
        }
        self.rounded_up = false;
        let sign = a.sign != b.sign;
        if b.is_zero() && !a.is_infinite() {
            self.raise(Flags::ZERO_DIVIDE);
            return Number::infinity(sign);
        }
        self.check_denormal(&[a, b]);
        if a.is_infinite() {
            return Number::infinity(sign);
        }
        if a.is_zero() || b.is_infinite() {
            return Number::zero(sign);
        }
        let divisor = u128::from(b.significand);
        let dividend = u128::from(a.significand) << 63;
        let (high, rest) = (dividend / divisor, dividend % divisor);
        let (low, rest) = ((rest << 64) / divisor, (rest << 64) % divisor);
        let quotient = high << 64 | low;
        let shift = quotient.leading_zeros();
        let significand = quotient << shift | u128::from(rest != 0);
        self.round(format, sign, a.exponent - b.exponent - shift as i32, significand)
    }

    /// The square root.
    pub(crate) fn square_root(&mut self, format: Format, a: Number) -> Number {
        self.rounded_up = false;
        if a.is_nan() {
            return self.quiet(a);
        }
        if a.is_zero() {
            return a;
        }
        if a.sign {
            return self.invalid();
        }
        self.check_denormal(&[a]);
        if a.is_infinite() {
            return a;
        }
        // An even exponent makes the root of the significand that of the number.
        let radicand = u128::from(a.significand) << if a.exponent & 1 == 0 { 63 } else { 64 };
        let root = radicand.isqrt();
        let rest = radicand - root * root;
        let behind = u128::from(rest > root) << 63 | u128::from(rest != 0);
        self.round(format, false, a.exponent >> 1, root << 64 | behind)
    }

    /// Which is larger; `None` if they are unordered. A comparison that signals takes quiet NaNs for invalid too.
    pub(crate) fn compare(&mut self, a: Number, b: Number, signals: bool) -> Option<Ordering> {
        if a.is_nan() || b.is_nan() {
            if signals || [a, b].iter().any(|n| matches!(n.class, Class::SignalingNan | Class::Unsupported)) {
                self.raise(Flags::INVALID);
            }
            return None;
        }
        self.check_denormal(&[a, b]);
        let rank = |n: &Number| match n.class {
            Class::Zero => (0, 0, 0),
            Class::Infinity => (2, 0, 0),
            _ => (1, n.exponent, n.significand),
        };
        let magnitudes = rank(&a).cmp(&rank(&b));
        Some(match (a.sign, b.sign) {
            _ if a.is_zero() && b.is_zero() => Ordering::Equal,
            (false, false) => magnitudes,
            (true, true) => magnitudes.reverse(),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        })
    }

    /// The same value in another format.
    pub(crate) fn convert(&mut self, format: Format, a: Number) -> Number {
        self.rounded_up = false;
        match a.class {
            Class::Zero | Class::Infinity => a,
            Class::Finite => {
                self.check_denormal(&[a]);
                self.round(format, a.sign, a.exponent, u128::from(a.significand) << 64)
            }
            Class::QuietNan | Class::SignalingNan | Class::Unsupported => self.quiet(a),
        }
    }

    /// A signed integer of `bits` bits; the least of them, with an invalid operation, if it does not fit.
    pub(crate) fn round_to_integer(&mut self, a: Number, bits: u32, rounding: Rounding) -> i64 {
        self.rounded_up = false;
        let rounded = match a.class {
            Class::Zero => return 0,
            Class::Finite => self.round_to_u64(&a, rounding),
            _ => None,
        };
        let limit = 1u64 << (bits - 1);
        match rounded {
            Some((value, inexact)) if value < limit || value == limit && a.sign => {
                if inexact {
                    self.raise(Flags::INEXACT);
                }
                if a.sign { (value as i64).wrapping_neg() } else { value as i64 }
            }
            _ => {
                self.invalid();
                (limit as i64).wrapping_neg()
            }
        }
    }

    /// The integer nearby, in the same format.
    pub(crate) fn round_to_integral(&mut self, a: Number) -> Number {
        self.rounded_up = false;
        if a.is_nan() {
            return self.quiet(a);
        }
        if a.class != Class::Finite {
            return a;
        }
        self.check_denormal(&[a]);
        if a.exponent >= 63 {
            return a;
        }
        match self.round_to_u64(&a, self.rounding) {
            Some((value, inexact)) => {
                if inexact {
                    self.raise(Flags::INEXACT);
                }
                if value == 0 { Number::zero(a.sign) } else { Number::finite(a.sign, 63, value) }
            }
            None => a,
        }
    }
}

/// What a step of a remainder gives.
pub(crate) struct Remainder {
    /// What is left.
    pub(crate) value: Number,
    /// The low bits of the quotient; `None` if the reduction is not complete.
    pub(crate) quotient: Option<u64>,
}

/// One step of the remainder of two finite numbers that are not zero: exact, but it takes away at most 63 bits of the
/// difference of the exponents. `nearest` rounds the last quotient to the nearest, not toward zero.
pub(crate) fn remainder(a: Number, b: Number, nearest: bool) -> Remainder {
    let difference = a.exponent - b.exponent;
    if difference < -1 || difference == -1 && !nearest {
        return Remainder { value: a, quotient: Some(0) };
    }
    if difference >= 64 {
        let step = difference as u32 & 31 | 32;
        let rest = (u128::from(a.significand) << step) % u128::from(b.significand);
        let value = match rest as u64 {
            0 => Number::zero(a.sign),
            rest => Number::finite(a.sign, a.exponent - step as i32, rest),
        };
        return Remainder { value, quotient: None };
    }
    // Both in units of the divisor's last bit, doubled so that an exponent that is one less is no fraction.
    let dividend = u128::from(a.significand) << (difference + 1).clamp(0, 64);
    let divisor = u128::from(b.significand) << 1;
    let (mut quotient, mut rest) = (dividend / divisor, dividend % divisor);
    let mut sign = a.sign;
    if nearest && (rest > divisor - rest || rest == divisor - rest && quotient & 1 != 0) {
        quotient += 1;
        rest = divisor - rest;
        sign = !sign;
    }
    let value = match rest {
        0 => Number::zero(a.sign),
        rest => {
            let shift = rest.leading_zeros();
            Number::finite(sign, b.exponent - 1 + 64 - shift as i32, (rest << shift >> 64) as u64)
        }
    };
    Remainder { value, quotient: Some(quotient as u64) }
}
