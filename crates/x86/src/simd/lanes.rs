//! A 128-bit register seen as lanes of one width: how packed operations are written down once for all widths.

/// An integer that can be a lane.
pub(super) trait Lane: Copy {
    /// Applies `f` to each pair of lanes.
    fn zip(a: u128, b: u128, f: impl Fn(Self, Self) -> Self) -> u128;
    /// Applies `f` to each lane.
    fn map(a: u128, f: impl Fn(Self) -> Self) -> u128;
}

macro_rules! lane {
    ($type:ty, $count:literal) => {
        impl Lane for $type {
            #[inline(always)]
            fn zip(a: u128, b: u128, f: impl Fn(Self, Self) -> Self) -> u128 {
                let a: [$type; $count] = zerocopy::transmute!(a.to_le());
                let b: [$type; $count] = zerocopy::transmute!(b.to_le());
                let mut result = [0; $count];
                for i in 0..$count {
                    result[i] = f(<$type>::from_le(a[i]), <$type>::from_le(b[i])).to_le();
                }
                let result: u128 = zerocopy::transmute!(result);
                u128::from_le(result)
            }

            #[inline(always)]
            fn map(a: u128, f: impl Fn(Self) -> Self) -> u128 {
                Self::zip(a, 0, |a, _| f(a))
            }
        }
    };
}

lane!(u8, 16);
lane!(i8, 16);
lane!(u16, 8);
lane!(i16, 8);
lane!(u32, 4);
lane!(i32, 4);
lane!(u64, 2);

/// Lane `index` of a register, 16 bits wide.
#[inline(always)]
pub(super) fn word(a: u128, index: u32) -> u16 {
    (a >> (16 * (index & 7))) as u16
}

/// Lane `index` of a register, 32 bits wide.
#[inline(always)]
pub(super) fn dword(a: u128, index: u32) -> u32 {
    (a >> (32 * (index & 3))) as u32
}

/// Lane `index` of a register, 64 bits wide.
#[inline(always)]
pub(super) fn qword(a: u128, index: u32) -> u64 {
    (a >> (64 * (index & 1))) as u64
}

/// A register from its 32-bit lanes, lowest first.
#[inline(always)]
pub(super) fn from_dwords(lanes: [u32; 4]) -> u128 {
    u128::from(lanes[0]) | u128::from(lanes[1]) << 32 | u128::from(lanes[2]) << 64 | u128::from(lanes[3]) << 96
}

/// A register from its 64-bit lanes, lowest first.
#[inline(always)]
pub(super) fn from_qwords(low: u64, high: u64) -> u128 {
    u128::from(low) | u128::from(high) << 64
}

/// `a` with its low 32 bits replaced.
#[inline(always)]
pub(super) fn with_low_dword(a: u128, low: u32) -> u128 {
    a & !0xffff_ffff | u128::from(low)
}

/// `a` with its low 64 bits replaced.
#[inline(always)]
pub(super) fn with_low_qword(a: u128, low: u64) -> u128 {
    from_qwords(low, qword(a, 1))
}

#[cfg(test)]
mod tests {
    use super::{Lane, from_dwords, with_low_dword, word};

    #[test]
    fn lanes_are_numbered_from_the_low_end() {
        let a = from_dwords([1, 2, 3, 4]);
        assert_eq!(u32::map(a, |lane| lane + 1), from_dwords([2, 3, 4, 5]));
        assert_eq!(word(a, 4), 3);
        assert_eq!(with_low_dword(a, 9), from_dwords([9, 2, 3, 4]));
    }
}
