//! Floating-point numbers in software, right to the bit: what SSE and the x87 compute with where the host's own
//! arithmetic cannot tell the exceptions, the rounding or the 80-bit format.
//!
//! Numbers are unpacked, computed with exactly (or with a sticky last bit), and rounded once.
//! Sources: IEEE 754-2008; SDM vol. 1 § 4.8 (formats, NaNs), § 4.9 (exceptions), § 8.5, § 11.5.

pub(crate) mod arithmetic;
pub(crate) mod elementary;
mod round;
mod wide;

bitflags::bitflags! {
    /// Exceptions, at the bits that MXCSR and the x87 status word give them.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Flags: u8 {
        const INVALID = 1 << 0;
        const DENORMAL = 1 << 1;
        const ZERO_DIVIDE = 1 << 2;
        const OVERFLOW = 1 << 3;
        const UNDERFLOW = 1 << 4;
        const INEXACT = 1 << 5;
    }
}

impl Flags {
    /// Those that are found before anything is computed; when one is unmasked, nothing else is reported.
    pub(crate) const BEFORE: Self = Self::INVALID.union(Self::DENORMAL).union(Self::ZERO_DIVIDE);
}

/// Rounding modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// To the nearest; ties to even.
    Nearest,
    /// Toward minus infinity.
    Down,
    /// Toward plus infinity.
    Up,
    /// Toward zero.
    Zero,
}

impl Rounding {
    /// From the two bits that MXCSR and the x87 control word have for it.
    #[inline(always)]
    pub(crate) fn from_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::Nearest,
            1 => Self::Down,
            2 => Self::Up,
            _ => Self::Zero,
        }
    }
}

/// A binary format: how many significant bits, and which exponents normal numbers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    /// Bits of the significand, with its integer bit.
    pub(crate) precision: u32,
    /// Exponent of the smallest normal number.
    pub(crate) min_exponent: i32,
    /// Exponent of the largest number; also the bias.
    pub(crate) max_exponent: i32,
}

impl Format {
    /// 16 bits.
    pub(crate) const HALF: Self = Self { precision: 11, min_exponent: -14, max_exponent: 15 };
    /// 32 bits.
    pub(crate) const SINGLE: Self = Self { precision: 24, min_exponent: -126, max_exponent: 127 };
    /// 64 bits.
    pub(crate) const DOUBLE: Self = Self { precision: 53, min_exponent: -1022, max_exponent: 1023 };
    /// 80 bits.
    pub(crate) const EXTENDED: Self = Self { precision: 64, min_exponent: -16382, max_exponent: 16383 };

    /// Fraction bits of an interchange format.
    const fn fraction_bits(self) -> u32 {
        self.precision - 1
    }

    /// The exponent field of infinities and NaNs.
    const fn exponent_ones(self) -> u64 {
        2 * self.max_exponent as u64 + 1
    }

    /// Where the sign bit is.
    const fn sign_shift(self) -> u32 {
        self.fraction_bits() + self.exponent_ones().count_ones()
    }
}

/// Which NaN an operation on two of them gives (SDM vol. 1 table 4-7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NanRule {
    /// SSE: the first operand that is one.
    First,
    /// x87: a quiet one before a signaling one, else the one with the larger significand.
    Larger,
}

/// What a computation is told, and what it tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Environment {
    /// How results are rounded.
    pub(crate) rounding: Rounding,
    /// The exceptions that do not trap.
    pub(crate) masked: Flags,
    /// Tiny results become zero, if underflow is masked.
    pub(crate) flush_to_zero: bool,
    /// Denormal operands count as zero.
    pub(crate) denormals_are_zero: bool,
    /// Which of two NaNs is the result.
    pub(crate) nan_rule: NanRule,
    /// By how much the exponent of a result is moved when overflow or underflow trap; 0 where such results are dropped.
    pub(crate) wrap: i32,
    /// Exceptions met so far.
    pub(crate) flags: Flags,
    /// Whether the last result was rounded away from zero.
    pub(crate) rounded_up: bool,
}

/// What a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Zero,
    Finite,
    Infinity,
    QuietNan,
    SignalingNan,
    /// An 80-bit encoding that the 387 and later refuse.
    Unsupported,
}

/// An unpacked number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    pub(crate) sign: bool,
    pub(crate) class: Class,
    /// Of a finite number: its value is `significand` times 2 to the power of `exponent - 63`.
    pub(crate) exponent: i32,
    /// Bit 63 is set, except in a denormal result of rounding. In a NaN bit 62 tells quiet from signaling.
    pub(crate) significand: u64,
    /// Whether the encoding is denormal.
    pub(crate) denormal: bool,
}

impl Number {
    /// The NaN of invalid operations.
    pub(crate) const DEFAULT_NAN: Self =
        Self { sign: true, class: Class::QuietNan, exponent: 0, significand: 3 << 62, denormal: false };

    /// A zero.
    pub(crate) const fn zero(sign: bool) -> Self {
        Self { sign, class: Class::Zero, exponent: 0, significand: 0, denormal: false }
    }

    /// An infinity.
    pub(crate) const fn infinity(sign: bool) -> Self {
        Self { sign, class: Class::Infinity, exponent: 0, significand: 1 << 63, denormal: false }
    }

    /// A finite number from a significand that is not zero.
    pub(crate) fn finite(sign: bool, exponent: i32, significand: u64) -> Self {
        let shift = significand.leading_zeros();
        Self {
            sign,
            class: Class::Finite,
            exponent: exponent - shift as i32,
            significand: significand << (shift & 63),
            denormal: false,
        }
    }

    /// An integer, exactly.
    pub(crate) fn from_integer(value: i64) -> Self {
        match value.unsigned_abs() {
            0 => Self::zero(false),
            magnitude => Self::finite(value < 0, 63, magnitude),
        }
    }

    pub(crate) fn is_nan(&self) -> bool {
        matches!(self.class, Class::QuietNan | Class::SignalingNan | Class::Unsupported)
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.class == Class::Zero
    }

    pub(crate) fn is_infinite(&self) -> bool {
        self.class == Class::Infinity
    }

    pub(crate) fn negated(self) -> Self {
        Self { sign: !self.sign, ..self }
    }

    pub(crate) fn with_sign(self, sign: bool) -> Self {
        Self { sign, ..self }
    }

    /// Unpacks the 32- or 64-bit encoding.
    pub(crate) fn unpack(format: Format, bits: u64) -> Self {
        let sign = bits >> format.sign_shift() & 1 != 0;
        let exponent = bits >> format.fraction_bits() & format.exponent_ones();
        let fraction = bits << (64 - format.fraction_bits()) >> 1;
        if exponent == format.exponent_ones() {
            let class = match fraction {
                0 => return Self::infinity(sign),
                _ if fraction >> 62 != 0 => Class::QuietNan,
                _ => Class::SignalingNan,
            };
            return Self { sign, class, exponent: 0, significand: 1 << 63 | fraction, denormal: false };
        }
        if exponent == 0 {
            return match fraction {
                0 => Self::zero(sign),
                _ => Self { denormal: true, ..Self::finite(sign, format.min_exponent, fraction) },
            };
        }
        let exponent = exponent as i32 - format.max_exponent;
        Self { sign, class: Class::Finite, exponent, significand: 1 << 63 | fraction, denormal: false }
    }

    /// Packs a number that was rounded to the 32- or 64-bit format.
    pub(crate) fn pack(self, format: Format) -> u64 {
        let fraction = (self.significand << 1) >> (64 - format.fraction_bits());
        let (exponent, fraction) = match self.class {
            Class::Zero => (0, 0),
            Class::Infinity => (format.exponent_ones(), 0),
            Class::Finite if self.significand >> 63 == 0 => (0, fraction),
            Class::Finite => (i64::from(self.exponent + format.max_exponent) as u64, fraction),
            Class::QuietNan | Class::SignalingNan | Class::Unsupported => (format.exponent_ones(), fraction),
        };
        u64::from(self.sign) << format.sign_shift() | exponent << format.fraction_bits() | fraction
    }

    /// Unpacks the 80-bit encoding (SDM vol. 1 § 4.2.2, § 8.2.2).
    pub(crate) fn unpack_extended(bits: u128) -> Self {
        let significand = bits as u64;
        let exponent = (bits >> 64) as i32 & 0x7fff;
        let sign = bits >> 79 & 1 != 0;
        let integer_bit = significand >> 63 != 0;
        let nan = |class| Self { sign, class, exponent: 0, significand, denormal: false };
        match exponent {
            0 if significand == 0 => Self::zero(sign),
            0 => Self { denormal: true, ..Self::finite(sign, Format::EXTENDED.min_exponent, significand) },
            _ if !integer_bit => nan(Class::Unsupported),
            0x7fff if significand == 1 << 63 => Self::infinity(sign),
            0x7fff if significand >> 62 == 3 => nan(Class::QuietNan),
            0x7fff => nan(Class::SignalingNan),
            _ => Self { sign, class: Class::Finite, exponent: exponent - 16383, significand, denormal: false },
        }
    }

    /// Packs a number that was rounded to the 80-bit format.
    pub(crate) fn pack_extended(self) -> u128 {
        let exponent = match self.class {
            Class::Zero => 0,
            Class::Finite if self.significand >> 63 == 0 => 0,
            Class::Finite => (self.exponent + Format::EXTENDED.max_exponent) as u16 & 0x7fff,
            Class::Infinity | Class::QuietNan | Class::SignalingNan | Class::Unsupported => 0x7fff,
        };
        u128::from(self.sign) << 79 | u128::from(exponent) << 64 | u128::from(self.significand)
    }
}

#[cfg(test)]
mod tests;
