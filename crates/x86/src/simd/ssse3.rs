//! SSSE3: sums of neighbours, signs, absolute values and shuffles of bytes, on XMM and MMX registers.
//!
//! Source: SDM vol. 1 § 12.7; SDM vol. 2 for each instruction.

use super::{
    lanes::{Lane, dword, word},
    operations::operations,
};

operations! { binary
    Pshufb: |a, b| shuffle_bytes(a, b), shuffle_bytes(a, b & 0x8787_8787_8787_8787);

    Phaddw: |a, b| neighbour_words(a, b, i16::wrapping_add), neighbour_words(a | b << 64, 0, i16::wrapping_add);
    Phaddd: |a, b| neighbour_dwords(a, b, u32::wrapping_add), neighbour_dwords(a | b << 64, 0, u32::wrapping_add);
    Phaddsw: |a, b| neighbour_words(a, b, i16::saturating_add), neighbour_words(a | b << 64, 0, i16::saturating_add);
    Phsubw: |a, b| neighbour_words(a, b, i16::wrapping_sub), neighbour_words(a | b << 64, 0, i16::wrapping_sub);
    Phsubd: |a, b| neighbour_dwords(a, b, u32::wrapping_sub), neighbour_dwords(a | b << 64, 0, u32::wrapping_sub);
    Phsubsw: |a, b| neighbour_words(a, b, i16::saturating_sub), neighbour_words(a | b << 64, 0, i16::saturating_sub);

    Pmaddubsw: |a, b| u16::zip(a, b, multiply_add_bytes);
    Pmulhrsw: |a, b| i16::zip(a, b, |a, b| ((((i32::from(a) * i32::from(b)) >> 14) + 1) >> 1) as i16);

    Psignb: |a, b| i8::zip(a, b, |a, b| if b < 0 { a.wrapping_neg() } else if b == 0 { 0 } else { a });
    Psignw: |a, b| i16::zip(a, b, |a, b| if b < 0 { a.wrapping_neg() } else if b == 0 { 0 } else { a });
    Psignd: |a, b| i32::zip(a, b, |a, b| if b < 0 { a.wrapping_neg() } else if b == 0 { 0 } else { a });
    Pabsb: |_a, b| i8::map(b, i8::wrapping_abs);
    Pabsw: |_a, b| i16::map(b, i16::wrapping_abs);
    Pabsd: |_a, b| i32::map(b, i32::wrapping_abs);
}

operations! { immediate
    Palignr: |a, b, count| align(a, b, count), (a << 64 | b).checked_shr(8 * u32::from(count)).unwrap_or(0);
}

/// Bytes of `a` as `order` has their numbers; zero where its top bit is set.
#[inline(always)]
fn shuffle_bytes(a: u128, order: u128) -> u128 {
    let a = a.to_le_bytes();
    u128::from_le_bytes(
        order.to_le_bytes().map(|number| if number & 0x80 != 0 { 0 } else { a[usize::from(number & 15)] }),
    )
}

/// `f` of neighbouring words: of the first operand, then of the second.
#[inline(always)]
fn neighbour_words(a: u128, b: u128, f: impl Fn(i16, i16) -> i16) -> u128 {
    let pair = |v: u128, i: u32| u128::from(f(word(v, 2 * i) as i16, word(v, 2 * i + 1) as i16) as u16);
    (0..4).fold(0, |result, i| result | pair(a, i) << (16 * i) | pair(b, i) << (16 * i + 64))
}

/// `f` of neighbouring dwords: of the first operand, then of the second.
#[inline(always)]
fn neighbour_dwords(a: u128, b: u128, f: impl Fn(u32, u32) -> u32) -> u128 {
    let pair = |v: u128, i: u32| u128::from(f(dword(v, 2 * i), dword(v, 2 * i + 1)));
    (0..2).fold(0, |result, i| result | pair(a, i) << (32 * i) | pair(b, i) << (32 * i + 64))
}

/// Two products of an unsigned and a signed byte, added with saturation.
#[inline(always)]
fn multiply_add_bytes(a: u16, b: u16) -> u16 {
    let product = |shift: u32| i32::from((a >> shift) as u8) * i32::from((b >> shift) as i8);
    (product(0) + product(8)).clamp(-0x8000, 0x7fff) as u16
}

/// 16 bytes of `a` and `b`, with `a` above, from byte `count` on.
#[inline(always)]
fn align(a: u128, b: u128, count: u8) -> u128 {
    let bits = 8 * u32::from(count);
    match count {
        0 => b,
        1..=15 => b >> bits | a << (128 - bits),
        _ => a.checked_shr(bits - 128).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::operations::{Binary, Immediate},
        *,
    };

    const COUNTING: u128 = 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100;

    #[test]
    fn bytes_are_shuffled_inside_the_register_that_they_are_in() {
        assert_eq!(Pshufb::wide(COUNTING, 0x8f_0f_1f), 0x0f0f);
        assert_eq!(Pshufb::wide(COUNTING, COUNTING.swap_bytes()), COUNTING.swap_bytes());
        assert_eq!(Pshufb::narrow(0x0706_0504_0302_0100, 0x0f80_0102_0304_0506), 0x0700_0102_0304_0506);
    }

    #[test]
    fn alignment_slides_over_both_operands() {
        let above = COUNTING | 0x1010_1010_1010_1010_1010_1010_1010_1010;
        assert_eq!(Palignr::wide(above, COUNTING, 0), COUNTING);
        assert_eq!(Palignr::wide(above, COUNTING, 15), above << 8 | 0x0f);
        assert_eq!(Palignr::wide(above, COUNTING, 16), above);
        assert_eq!(Palignr::wide(above, COUNTING, 31), 0x1f);
        assert_eq!(Palignr::wide(above, COUNTING, 32), 0);
        assert_eq!(Palignr::wide(above, COUNTING, 255), 0);
        assert_eq!(Palignr::narrow(0x0f0e_0d0c_0b0a_0908, 0x0706_0504_0302_0100, 9), 0x000f_0e0d_0c0b_0a09);
        assert_eq!(Palignr::narrow(1, 1, 16), 0);
    }

    #[test]
    fn extremes_saturate_or_wrap() {
        assert_eq!(Phaddsw::wide(0x8000_8000_7fff_0001, 0), 0x8000_7fff);
        assert_eq!(Phaddw::narrow(0x8000_8000_7fff_0001, 0x0002_0003_0004_0005), 0x0005_0009_0000_8000);
        assert_eq!(Phsubd::wide(1, 1 << 32), 0xffff_ffff << 64 | 1);
        assert_eq!(Pmaddubsw::wide(0xffff_ffff, 0x8080_7f7f), 0x8000_7fff);
        assert_eq!(Pmulhrsw::wide(0x8000, 0x8000), 0x8000);
        assert_eq!(Pabsb::wide(0, 0x80_ff_7f), 0x80_01_7f);
        assert_eq!(Psignw::wide(0x8000_0005_0006, 0xffff_0000_0001), 0x8000_0000_0006);
    }
}
