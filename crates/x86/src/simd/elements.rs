//! Elements of any size in XMM registers, as PINSR, PEXTR, INSERTPS and EXTRACTPS number them.
//!
//! Source: SDM vol. 2 for each instruction.

use crate::integer::word::Word;

/// Where element `number` of a register begins.
#[inline(always)]
fn shift<T: Word>(number: u64) -> u32 {
    T::BITS * (number as u32 & (128 / T::BITS - 1))
}

/// Element `number` of a register.
#[inline(always)]
pub(super) fn element<T: Word>(a: u128, number: u64) -> T {
    T::cut((a >> shift::<T>(number)) as u64)
}

/// `a` with element `number` replaced.
#[inline(always)]
pub(super) fn with_element<T: Word>(a: u128, number: u64, value: T) -> u128 {
    let shift = shift::<T>(number);
    a & !((u128::MAX >> (128 - T::BITS)) << shift) | u128::from(value.wide()) << shift
}

/// INSERTPS: `value` at the place in bits 4 and 5 of the immediate, then zero wherever one of its low bits is set.
#[inline(always)]
pub(super) fn insert_single(a: u128, value: u32, immediate: u8) -> u128 {
    let inserted = with_element(a, u64::from(immediate >> 4 & 3), value);
    (0..4).fold(inserted, |a, i| if immediate >> i & 1 != 0 { with_element(a, i, 0_u32) } else { a })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_an_element_wraps_at_their_count() {
        let a = 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100;
        assert_eq!(element::<u8>(a, 0xf3), 3);
        assert_eq!(element::<u64>(a, 3), 0x0f0e_0d0c_0b0a_0908);
        assert_eq!(with_element(a, 5, 0xffff_ffff_u32), a | 0xffff_ffff << 32);
        assert_eq!(with_element(u128::MAX, 2, 0_u64), u128::MAX << 64);
    }

    #[test]
    fn an_inserted_single_may_be_cleared_at_once() {
        assert_eq!(insert_single(u128::MAX, 7, 0b01_1000), 0x0000_0000_ffff_ffff_0000_0007_ffff_ffff);
        assert_eq!(insert_single(u128::MAX, 7, 0b01_0010), !(0xffff_ffff << 32));
    }
}
