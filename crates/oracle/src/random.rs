//! Random values that favour boundaries: numbers, floating-point values of every class, vectors of them.
//!
//! Everything follows from a seed and a case's number, so that each case can be had again.

/// A generator of one case's values.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of case `number` under `seed`.
    pub fn new(seed: u64, number: u64) -> Self {
        let mut random = Self(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        random.bits();
        random
    }

    /// 64 random bits (splitmix64: a counter, and a mixing of its bits).
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// True `percent` times of a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// An integer of `bits` bits.
    pub fn integer(&mut self, bits: u32) -> u64 {
        let mask = u64::MAX >> (64 - bits);
        let power = 1_u64 << self.below(u64::from(bits));
        let value = match self.below(16) {
            0 => 0,
            1 => 1,
            2 => mask,
            3 => 1 << (bits - 1),
            4 => (1 << (bits - 1)) - 1,
            5 => power,
            6 => power.wrapping_sub(1),
            7 => power.wrapping_neg(),
            8 => self.below(64),
            9 => self.below(64).wrapping_neg(),
            10 => self.bytes_of_ones(),
            _ => self.bits(),
        };
        value & mask
    }

    fn bytes_of_ones(&mut self) -> u64 {
        let choice = self.bits();
        (0..8).fold(0, |value, i| value | if choice >> i & 1 != 0 { 0xff << (8 * i) } else { 0 })
    }

    /// A floating-point number with so many bits of exponent and fraction, at most 64 in all.
    pub fn float(&mut self, exponent_bits: u32, fraction_bits: u32) -> u64 {
        let fraction_mask = (1_u64 << fraction_bits) - 1;
        let largest = (1_u64 << exponent_bits) - 1;
        let bias = largest >> 1;
        let sign = (self.bits() & 1) << (exponent_bits + fraction_bits);
        let quiet = 1_u64 << (fraction_bits - 1);
        let (exponent, fraction) = match self.below(20) {
            0 => (0, 0),
            1 => (0, 1),
            2 => (0, fraction_mask),
            3 => (0, self.bits()),
            4 => (1, 0),
            5 => (1, self.bits()),
            6 => (largest - 1, fraction_mask),
            7 => (largest, 0),
            8 => (largest, quiet | self.bits()),
            9 => (largest, self.bits() & (quiet - 1) | 1),
            10 => (bias, 0),
            11 => (bias, 1),
            // Halves, and integers near the limits of integers.
            12 => (bias + self.below(3), self.pick(&[quiet, quiet | quiet >> 1, quiet >> 1])),
            13 => (bias + self.pick(&[6, 7, 14, 15, 30, 31, 32, 62, 63, 64]), self.pick(&[0, 1, fraction_mask])),
            14 | 15 => (bias + self.below(16), self.bits() & (fraction_mask << self.below(u64::from(fraction_bits)))),
            16 => (bias.saturating_sub(self.below(16)), self.bits()),
            _ => (self.bits(), self.bits()),
        };
        sign | (exponent & largest) << fraction_bits | fraction & fraction_mask
    }

    /// An 80-bit number of the x87, those forms included that it no longer supports.
    pub fn extended(&mut self) -> u128 {
        const INTEGER: u64 = 1 << 63;
        let sign = u128::from(self.bits() & 1) << 79;
        let (exponent, significand) = match self.below(24) {
            0 => (0, 0),
            1 => (0, 1),
            2 => (0, INTEGER - 1),
            3 => (0, self.bits() & (INTEGER - 1)),
            // Pseudo-denormal.
            4 => (0, self.bits() | INTEGER),
            5 => (1, self.bits() | INTEGER),
            6 => (0x7ffe, u64::MAX),
            7 => (0x7fff, INTEGER),
            8 => (0x7fff, self.bits() | 3 << 62),
            9 => (0x7fff, self.bits() & !(1 << 62) | INTEGER | 1),
            // Pseudo-infinity, pseudo-NaN, unnormal.
            10 => (0x7fff, 0),
            11 => (0x7fff, self.bits() & (INTEGER - 1)),
            12 => (self.below(0x7fff), self.bits() & (INTEGER - 1)),
            13 => (0x3fff, INTEGER),
            14 => (0x3fff + self.below(3), INTEGER | self.pick(&[1, 1 << 62, 3 << 61, 1 << 61])),
            15 => (0x3fff + self.pick(&[14, 15, 30, 31, 62, 63, 64]), INTEGER | self.pick(&[0, 1, u64::MAX])),
            16 | 17 => (0x3fff + self.below(64), (self.bits() | INTEGER) & (u64::MAX << self.below(64))),
            18 => (0x3fff - self.below(70), self.bits() | INTEGER),
            // A denormal, or the border, of single and of double precision.
            19 => (0x3fff - self.pick(&[126, 127, 140, 149, 1022, 1023, 1060, 1074]), self.bits() | INTEGER),
            20 => (0x3fff + self.pick(&[126, 127, 128, 1022, 1023, 1024]), self.bits() | INTEGER),
            _ => (self.below(0x7fff), self.bits() | INTEGER),
        };
        sign | u128::from(exponent) << 64 | u128::from(significand)
    }

    /// 16 bytes of elements of one kind.
    pub fn vector(&mut self, kind: Element) -> u128 {
        match kind {
            Element::Single => self.elements(32, |random| random.float(8, 23)),
            Element::Double => self.elements(64, |random| random.float(11, 52)),
            Element::Half => self.elements(16, |random| random.float(5, 10)),
            Element::Integer(bits) => self.elements(bits, |random| random.integer(bits)),
        }
    }

    fn elements(&mut self, bits: u32, mut each: impl FnMut(&mut Self) -> u64) -> u128 {
        let mut value = 0;
        for at in (0..128).step_by(bits as usize) {
            value |= u128::from(each(self)) << at;
        }
        value
    }

    /// A kind of element.
    pub fn element(&mut self) -> Element {
        self.pick(&[
            Element::Single,
            Element::Single,
            Element::Double,
            Element::Double,
            Element::Integer(8),
            Element::Integer(16),
            Element::Integer(32),
            Element::Integer(64),
        ])
    }
}

/// What vectors are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32-bit floating point.
    Single,
    /// 64-bit floating point.
    Double,
    /// 16-bit floating point.
    Half,
    /// Integers of so many bits.
    Integer(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_number_give_the_same_values_again() {
        let values = |seed, number| {
            let mut random = Random::new(seed, number);
            [random.bits(), random.integer(16), random.float(8, 23)]
        };
        assert_eq!(values(1, 2), values(1, 2));
        assert_ne!(values(1, 2), values(1, 3));
        assert_ne!(values(1, 2), values(2, 2));
    }

    #[test]
    fn values_keep_to_their_sizes_and_reach_their_classes() {
        let mut random = Random::new(3, 0);
        let (mut infinite, mut denormal) = (0, 0);
        for _ in 0..10_000 {
            assert!(random.integer(8) < 0x100 && random.below(7) < 7);
            assert!(random.extended() >> 80 == 0);
            let single = f32::from_bits(random.float(8, 23) as u32);
            infinite += u32::from(single.is_infinite());
            denormal += u32::from(single.is_subnormal());
        }
        assert!(infinite > 100 && denormal > 100);
    }
}
