//! Multiplication without carries: PCLMULQDQ.
//!
//! Source: SDM vol. 2 PCLMULQDQ.

use super::{lanes::qword, operations::operations};

operations! { immediate
    Pclmulqdq: |a, b, halves| multiply(qword(a, u32::from(halves)), qword(b, u32::from(halves >> 4)));
}

/// Every fifth bit.
const FIFTH: u128 = 0x2108_4210_8421_0842_1084_2108_4210_8421;

/// The product of two polynomials over the field of two elements.
///
/// Numbers of which every fifth bit counts are multiplied as integers: at most 13 ones meet at a bit of the product, so
/// that their sum does not reach the next bit that counts.
pub(super) fn multiply(a: u64, b: u64) -> u128 {
    let every_fifth = |a: u64, from: u32| u128::from(a & (FIFTH << from) as u64);
    let mut product = 0;
    for i in 0..5 {
        for j in 0..5 {
            product ^= (every_fifth(a, i) * every_fifth(b, j)) & (FIFTH << ((i + j) % 5));
        }
    }
    product
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::operations::Immediate, *};

    #[test]
    fn the_immediate_chooses_the_halves() {
        let (a, b) = (3 << 64 | 5, 7 << 64 | 11);
        assert_eq!(Pclmulqdq::wide(a, b, 0x00), multiply(5, 11));
        assert_eq!(Pclmulqdq::wide(a, b, 0x01), multiply(3, 11));
        assert_eq!(Pclmulqdq::wide(a, b, 0x10), multiply(5, 7));
        assert_eq!(Pclmulqdq::wide(a, b, 0xff), multiply(3, 7));
    }

    proptest! {
        #[test]
        fn a_product_is_the_sum_of_shifted_factors(a: u64, b: u64) {
            let sum = (0..64).filter(|i| a >> i & 1 != 0).fold(0, |sum, i| sum ^ u128::from(b) << i);
            prop_assert_eq!(multiply(a, b), sum);
        }
    }

    #[test]
    fn all_ones_do_not_run_into_each_other() {
        assert_eq!(multiply(u64::MAX, u64::MAX), 0x5555_5555_5555_5555_5555_5555_5555_5555);
    }
}
