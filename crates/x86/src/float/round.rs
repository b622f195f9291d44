//! Rounding of exact results into a format, with the exceptions that come of it.
//!
//! Sources: SDM vol. 1 § 4.8.4 (rounding), § 4.9.1.4 to 4.9.1.6 (overflow, underflow, inexact; x86 finds a result tiny
//! after rounding), § 8.5.4, § 8.5.5 (trapped overflow and underflow of the x87).

use super::{Class, Environment, Flags, Format, Number, Rounding};

/// `value` shifted right; bits that fall out leave a one in the lowest bit.
pub(super) fn shift_right_sticky(value: u128, count: u32) -> u128 {
    match count {
        0 => value,
        1..=127 => value >> count | u128::from(value << (128 - count) != 0),
        _ => u128::from(value != 0),
    }
}

impl Environment {
    /// Notes that an exception was met.
    pub(crate) fn raise(&mut self, flags: Flags) {
        self.flags |= flags;
    }

    /// Whether to add one to the magnitude `kept` for what was cut off: `rest`, of which `half` is one half.
    fn rounds_up(&self, sign: bool, kept: u128, rest: u128, half: u128) -> bool {
        match self.rounding {
            Rounding::Nearest => rest > half || rest == half && kept & 1 != 0,
            Rounding::Down => rest != 0 && sign,
            Rounding::Up => rest != 0 && !sign,
            Rounding::Zero => false,
        }
    }

    /// Keeps the upper `precision` bits (1 to 64) of `significand`; may carry into bit `precision` of what it gives.
    fn cut(&mut self, sign: bool, significand: u128, precision: u32) -> (u128, bool) {
        let below = 128 - precision;
        let (kept, rest) = (significand >> below, significand & ((1 << below) - 1));
        let up = self.rounds_up(sign, kept, rest, 1 << (below - 1));
        self.rounded_up = up;
        (kept + u128::from(up), rest != 0)
    }

    /// Rounds `significand * 2^(exponent - 127)`, of which bit 127 is set, to a format.
    pub(crate) fn round(&mut self, format: Format, sign: bool, exponent: i32, significand: u128) -> Number {
        let precision = format.precision;
        let (mut kept, inexact) = self.cut(sign, significand, precision);
        let mut rounded_exponent = exponent;
        if kept >> precision != 0 {
            kept >>= 1;
            rounded_exponent += 1;
        }
        let finite = |exponent: i32, kept: u128| Number {
            sign,
            class: Class::Finite,
            exponent,
            significand: (kept as u64) << (64 - precision),
            denormal: false,
        };
        if rounded_exponent > format.max_exponent {
            self.raise(Flags::OVERFLOW);
            if !self.masked.contains(Flags::OVERFLOW) {
                if rounded_exponent - self.wrap > format.max_exponent && self.wrap != 0 {
                    self.raise(Flags::INEXACT);
                    self.rounded_up = true;
                    return Number::infinity(sign);
                }
                self.note_inexact(inexact);
                return finite(rounded_exponent - self.wrap, kept);
            }
            self.raise(Flags::INEXACT);
            self.rounded_up = match self.rounding {
                Rounding::Nearest => true,
                Rounding::Down => sign,
                Rounding::Up => !sign,
                Rounding::Zero => false,
            };
            if self.rounded_up {
                return Number::infinity(sign);
            }
            return finite(format.max_exponent, (1 << precision) - 1);
        }
        if rounded_exponent >= format.min_exponent {
            self.note_inexact(inexact);
            return finite(rounded_exponent, kept);
        }
        if !self.masked.contains(Flags::UNDERFLOW) {
            self.raise(Flags::UNDERFLOW);
            if rounded_exponent + self.wrap < format.min_exponent && self.wrap != 0 {
                self.raise(Flags::INEXACT);
                self.rounded_up = false;
                return Number::zero(sign);
            }
            self.note_inexact(inexact);
            return finite(rounded_exponent + self.wrap, kept);
        }
        if self.flush_to_zero {
            self.raise(Flags::UNDERFLOW | Flags::INEXACT);
            self.rounded_up = false;
            return Number::zero(sign);
        }
        let shift = format.min_exponent.abs_diff(exponent);
        let (kept, inexact) = self.cut(sign, shift_right_sticky(significand, shift), precision);
        if inexact {
            self.raise(Flags::UNDERFLOW | Flags::INEXACT);
        }
        if kept == 0 {
            return Number::zero(sign);
        }
        finite(format.min_exponent, kept)
    }

    fn note_inexact(&mut self, inexact: bool) {
        if inexact {
            self.raise(Flags::INEXACT);
        }
    }

    /// Rounds the magnitude of a finite number to an integer, if that has no more than 64 bits.
    pub(super) fn round_to_u64(&mut self, number: &Number, rounding: Rounding) -> Option<(u64, bool)> {
        if number.exponent > 63 {
            return None;
        }
        let wide = u128::from(number.significand) << 64;
        let below = 63 - number.exponent;
        // The integer part moves to the low 64 bits, what is behind the point is judged in the upper ones.
        let shifted = shift_right_sticky(wide, below as u32);
        let (kept, rest) = (shifted >> 64, shifted & u128::from(u64::MAX));
        let up = Self { rounding, ..*self }.rounds_up(number.sign, kept, rest, 1 << 63);
        self.rounded_up = up;
        let value = u64::try_from(kept + u128::from(up)).ok()?;
        Some((value, rest != 0))
    }
}
