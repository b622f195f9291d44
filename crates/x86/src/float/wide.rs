//! Numbers with 128 significant bits: what elementary functions are computed with before they are rounded to 64.
//!
//! Each operation is wrong by at most a few units of the last of the 128 bits.

use std::cmp::Ordering;

use super::Number;

/// `significand * 2^(exponent - 127)`, with bit 127 set, or zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wide {
    pub(super) sign: bool,
    pub(super) exponent: i32,
    pub(super) significand: u128,
}

impl Wide {
    pub(super) const ZERO: Self = Self { sign: false, exponent: 0, significand: 0 };
    pub(super) const ONE: Self = Self::constant(0, 1 << 127);

    /// A positive constant.
    pub(super) const fn constant(exponent: i32, significand: u128) -> Self {
        Self { sign: false, exponent, significand }
    }

    /// From a significand that need not be normalised.
    pub(super) fn normalized(sign: bool, exponent: i32, significand: u128) -> Self {
        if significand == 0 {
            return Self::ZERO;
        }
        let shift = significand.leading_zeros();
        Self { sign, exponent: exponent - shift as i32, significand: significand << shift }
    }

    pub(super) fn from_integer(value: i64) -> Self {
        Self::normalized(value < 0, 127, u128::from(value.unsigned_abs()))
    }

    pub(super) fn negated(self) -> Self {
        Self { sign: !self.sign, ..self }
    }

    pub(super) fn is_zero(self) -> bool {
        self.significand == 0
    }

    /// Times a power of two.
    pub(super) fn scaled(self, exponent: i32) -> Self {
        if self.is_zero() { self } else { Self { exponent: self.exponent + exponent, ..self } }
    }

    pub(super) fn add(self, other: Self) -> Self {
        if self.is_zero() {
            return other;
        }
        if other.is_zero() {
            return self;
        }
        let (large, small) = match (self.exponent, self.significand).cmp(&(other.exponent, other.significand)) {
            Ordering::Less => (other, self),
            _ => (self, other),
        };
        let x = large.significand >> 1;
        let y = (small.significand >> 1).checked_shr(large.exponent.abs_diff(small.exponent)).unwrap_or(0);
        let sum = if large.sign == small.sign { x + y } else { x - y };
        Self::normalized(large.sign, large.exponent + 1, sum)
    }

    pub(super) fn subtract(self, other: Self) -> Self {
        self.add(other.negated())
    }

    pub(super) fn multiply(self, other: Self) -> Self {
        let halves = |value: u128| (value >> 64, value & u128::from(u64::MAX));
        let ((a, b), (c, d)) = (halves(self.significand), halves(other.significand));
        let (ad, bc) = (halves(a * d), halves(b * c));
        let middle = halves(b * d).0 + ad.1 + bc.1;
        let high = a * c + ad.0 + bc.0 + (middle >> 64);
        Self::normalized(self.sign != other.sign, self.exponent + other.exponent + 1, high)
    }

    /// Divided by a small number.
    pub(super) fn divide_small(self, divisor: u64) -> Self {
        let divisor = u128::from(divisor);
        let (quotient, rest) = (self.significand / divisor, self.significand % divisor);
        if quotient == 0 {
            return Self::ZERO;
        }
        let shift = quotient.leading_zeros();
        let significand = (quotient << shift) | ((rest << shift) / divisor);
        Self { sign: self.sign, exponent: self.exponent - shift as i32, significand }
    }

    /// Divided by a number that is not zero.
    pub(super) fn divide(self, divisor: Self) -> Self {
        if self.is_zero() {
            return self;
        }
        let exponent = self.exponent - divisor.exponent;
        let mut rest = self.significand;
        let mut quotient = 0u128;
        let mut carried = false;
        for _ in 0..128 {
            let fits = carried || rest >= divisor.significand;
            if fits {
                rest = rest.wrapping_sub(divisor.significand);
            }
            quotient = quotient << 1 | u128::from(fits);
            carried = rest >> 127 != 0;
            rest <<= 1;
        }
        Self::normalized(self.sign != divisor.sign, exponent, quotient)
    }
}

impl From<Number> for Wide {
    /// Of a finite number.
    fn from(number: Number) -> Self {
        Self::normalized(number.sign, number.exponent, u128::from(number.significand) << 64)
    }
}

#[cfg(test)]
mod tests {
    use super::Wide;

    #[test]
    fn division_undoes_multiplication() {
        let third = Wide::ONE.divide(Wide::from_integer(3));
        assert_eq!(third.exponent, -2);
        assert_eq!(third.significand, u128::MAX / 3 * 2);
        assert_eq!(Wide::ONE.divide_small(3), third);
        let seven = Wide::from_integer(7);
        assert_eq!(seven.multiply(seven), Wide::from_integer(49));
        assert_eq!(Wide::from_integer(-63).divide(seven), Wide::from_integer(-9));
    }

    #[test]
    fn sums_align_their_exponents() {
        let a = Wide::from_integer(1 << 40);
        assert_eq!(a.add(Wide::ONE), Wide::from_integer((1 << 40) + 1));
        assert_eq!(Wide::ONE.subtract(a), Wide::from_integer(1 - (1 << 40)));
        assert_eq!(a.subtract(a), Wide::ZERO);
    }
}
