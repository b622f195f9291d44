//! Packed integer and bitwise operations on XMM and MMX registers: one line each.
//!
//! Sources: SDM vol. 1 § 9.4, § 11.4.2 to 11.4.3; SDM vol. 2 for each instruction.

use super::{
    lanes::{Lane, dword, from_dwords, from_qwords, qword, word},
    operations::operations,
};

operations! { binary
    Pand: |a, b| a & b;
    Pandn: |a, b| !a & b;
    Por: |a, b| a | b;
    Pxor: |a, b| a ^ b;
    Andps: |a, b| a & b;
    Andpd: |a, b| a & b;
    Andnps: |a, b| !a & b;
    Andnpd: |a, b| !a & b;
    Orps: |a, b| a | b;
    Orpd: |a, b| a | b;
    Xorps: |a, b| a ^ b;
    Xorpd: |a, b| a ^ b;

    Paddb: |a, b| u8::zip(a, b, u8::wrapping_add);
    Paddw: |a, b| u16::zip(a, b, u16::wrapping_add);
    Paddd: |a, b| u32::zip(a, b, u32::wrapping_add);
    Paddq: |a, b| u64::zip(a, b, u64::wrapping_add);
    Psubb: |a, b| u8::zip(a, b, u8::wrapping_sub);
    Psubw: |a, b| u16::zip(a, b, u16::wrapping_sub);
    Psubd: |a, b| u32::zip(a, b, u32::wrapping_sub);
    Psubq: |a, b| u64::zip(a, b, u64::wrapping_sub);
    Paddsb: |a, b| i8::zip(a, b, i8::saturating_add);
    Paddsw: |a, b| i16::zip(a, b, i16::saturating_add);
    Paddusb: |a, b| u8::zip(a, b, u8::saturating_add);
    Paddusw: |a, b| u16::zip(a, b, u16::saturating_add);
    Psubsb: |a, b| i8::zip(a, b, i8::saturating_sub);
    Psubsw: |a, b| i16::zip(a, b, i16::saturating_sub);
    Psubusb: |a, b| u8::zip(a, b, u8::saturating_sub);
    Psubusw: |a, b| u16::zip(a, b, u16::saturating_sub);

    Pmullw: |a, b| u16::zip(a, b, u16::wrapping_mul);
    Pmulhw: |a, b| i16::zip(a, b, |a, b| ((i32::from(a) * i32::from(b)) >> 16) as i16);
    Pmulhuw: |a, b| u16::zip(a, b, |a, b| ((u32::from(a) * u32::from(b)) >> 16) as u16);
    Pmuludq: |a, b| u64::zip(a, b, |a, b| (a & 0xffff_ffff) * (b & 0xffff_ffff));
    Pmaddwd: |a, b| u32::zip(a, b, multiply_add_words);
    Psadbw: |a, b| u64::zip(u8::zip(a, b, u8::abs_diff), 0, |differences, _| sum_of_bytes(differences));

    Pavgb: |a, b| u8::zip(a, b, |a, b| ((u16::from(a) + u16::from(b) + 1) >> 1) as u8);
    Pavgw: |a, b| u16::zip(a, b, |a, b| ((u32::from(a) + u32::from(b) + 1) >> 1) as u16);
    Pminub: |a, b| u8::zip(a, b, u8::min);
    Pmaxub: |a, b| u8::zip(a, b, u8::max);
    Pminsw: |a, b| i16::zip(a, b, i16::min);
    Pmaxsw: |a, b| i16::zip(a, b, i16::max);

    Pcmpeqb: |a, b| u8::zip(a, b, |a, b| if a == b { u8::MAX } else { 0 });
    Pcmpeqw: |a, b| u16::zip(a, b, |a, b| if a == b { u16::MAX } else { 0 });
    Pcmpeqd: |a, b| u32::zip(a, b, |a, b| if a == b { u32::MAX } else { 0 });
    Pcmpgtb: |a, b| i8::zip(a, b, |a, b| -i8::from(a > b));
    Pcmpgtw: |a, b| i16::zip(a, b, |a, b| -i16::from(a > b));
    Pcmpgtd: |a, b| i32::zip(a, b, |a, b| -i32::from(a > b));

    Psllw: |a, b| match count(b, 16) { Some(n) => u16::map(a, |a| a << n), None => 0 };
    Pslld: |a, b| match count(b, 32) { Some(n) => u32::map(a, |a| a << n), None => 0 };
    Psllq: |a, b| match count(b, 64) { Some(n) => u64::map(a, |a| a << n), None => 0 };
    Psrlw: |a, b| match count(b, 16) { Some(n) => u16::map(a, |a| a >> n), None => 0 };
    Psrld: |a, b| match count(b, 32) { Some(n) => u32::map(a, |a| a >> n), None => 0 };
    Psrlq: |a, b| match count(b, 64) { Some(n) => u64::map(a, |a| a >> n), None => 0 };
    Psraw: |a, b| { let n = count(b, 16).unwrap_or(15); i16::map(a, |a| a >> n) };
    Psrad: |a, b| { let n = count(b, 32).unwrap_or(31); i32::map(a, |a| a >> n) };
    Pslldq: |a, b| match count(b, 16) { Some(n) => a << (8 * n), None => 0 };
    Psrldq: |a, b| match count(b, 16) { Some(n) => a >> (8 * n), None => 0 };

    Packsswb: |a, b| pack_words(a, b, |a| a.clamp(-128, 127) as u8), pack_words(a | b << 64, 0, |a| a.clamp(-128, 127) as u8);
    Packuswb: |a, b| pack_words(a, b, |a| a.clamp(0, 255) as u8), pack_words(a | b << 64, 0, |a| a.clamp(0, 255) as u8);
    Packssdw: |a, b| pack_dwords(a, b), pack_dwords(a | b << 64, 0);

    Punpcklbw: |a, b| interleave_bytes(qword(a, 0), qword(b, 0));
    Punpcklwd: |a, b| interleave_words(qword(a, 0), qword(b, 0));
    Punpckldq: |a, b| interleave_dwords(qword(a, 0), qword(b, 0));
    Punpcklqdq: |a, b| from_qwords(qword(a, 0), qword(b, 0));
    Punpckhbw: |a, b| interleave_bytes(qword(a, 1), qword(b, 1)), interleave_bytes(a as u64, b as u64) >> 64;
    Punpckhwd: |a, b| interleave_words(qword(a, 1), qword(b, 1)), interleave_words(a as u64, b as u64) >> 64;
    Punpckhdq: |a, b| interleave_dwords(qword(a, 1), qword(b, 1)), interleave_dwords(a as u64, b as u64) >> 64;
    Punpckhqdq: |a, b| from_qwords(qword(a, 1), qword(b, 1));
    Unpcklps: |a, b| interleave_dwords(qword(a, 0), qword(b, 0));
    Unpckhps: |a, b| interleave_dwords(qword(a, 1), qword(b, 1));
    Unpcklpd: |a, b| from_qwords(qword(a, 0), qword(b, 0));
    Unpckhpd: |a, b| from_qwords(qword(a, 1), qword(b, 1));
}

/// The shift count in the low half of `b`, if it is below `limit`.
#[inline(always)]
fn count(b: u128, limit: u64) -> Option<u32> {
    let count = b as u64;
    (count < limit).then_some(count as u32)
}

#[inline(always)]
fn multiply_add_words(a: u32, b: u32) -> u32 {
    let product = |shift: u32| i32::from((a >> shift) as i16) * i32::from((b >> shift) as i16);
    product(0).wrapping_add(product(16)) as u32
}

#[inline(always)]
fn sum_of_bytes(bytes: u64) -> u64 {
    bytes.to_le_bytes().iter().map(|&byte| u64::from(byte)).sum()
}

#[inline(always)]
fn pack_words(a: u128, b: u128, saturate: impl Fn(i16) -> u8) -> u128 {
    let half = |a: u128| u64::from_le_bytes(std::array::from_fn(|i| saturate(word(a, i as u32) as i16)));
    from_qwords(half(a), half(b))
}

#[inline(always)]
fn pack_dwords(a: u128, b: u128) -> u128 {
    let saturate = |a: u32| (a as i32).clamp(-0x8000, 0x7fff) as u16;
    let half = |a: u128| (0..4).fold(0, |half, i| half | u64::from(saturate(dword(a, i))) << (16 * i));
    from_qwords(half(a), half(b))
}

#[inline(always)]
fn interleave_bytes(a: u64, b: u64) -> u128 {
    let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
    u128::from_le_bytes(std::array::from_fn(|i| if i & 1 == 0 { a[i / 2] } else { b[i / 2] }))
}

#[inline(always)]
fn interleave_words(a: u64, b: u64) -> u128 {
    (0..4).fold(0, |result, i| {
        let pair = u128::from(a >> (16 * i) & 0xffff) | u128::from(b >> (16 * i) & 0xffff) << 16;
        result | pair << (32 * i)
    })
}

#[inline(always)]
fn interleave_dwords(a: u64, b: u64) -> u128 {
    from_dwords([a as u32, b as u32, (a >> 32) as u32, (b >> 32) as u32])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::operations::Binary, *};

    #[test]
    fn shift_counts_beyond_the_lane_clear_it_or_fill_it_with_the_sign() {
        let a = 0x8000_0000_0000_0001_8000_0000_0000_0001;
        assert_eq!(Psllw::wide(a, 16), 0);
        assert_eq!(Psrlq::wide(a, 64), 0);
        assert_eq!(Psrlq::wide(a, 1 << 32), 0);
        assert_eq!(Psraw::wide(a, 200), 0xffff_0000_0000_0000_ffff_0000_0000_0000);
        assert_eq!(Psrldq::wide(a, 16), 0);
        assert_eq!(Psrldq::wide(a, 8), 0x8000_0000_0000_0001);
    }

    #[test]
    fn packs_saturate_and_take_the_first_operand_low() {
        let a = 0x7fff_8000_0100_00ff_0080_007f_ffff_0001;
        assert_eq!(Packsswb::wide(a, 0), 0x7f80_7f7f_7f7f_ff01);
        assert_eq!(Packuswb::wide(0, a), 0xff00_ffff_807f_0001 << 64);
        assert_eq!(Packuswb::narrow(0x0001_0002_0003_0004, 0x0005_0006_0007_0008), 0x0506_0708_0102_0304);
        assert_eq!(Packssdw::narrow(0x7fff_ffff_0000_8000, 0xffff_ffff_8000_0000), 0xffff_8000_7fff_7fff);
    }

    #[test]
    fn unpacks_of_the_narrow_registers_use_their_own_halves() {
        let (a, b) = (0x0706_0504_0302_0100, 0x1716_1514_1312_1110);
        assert_eq!(Punpcklbw::narrow(a, b), 0x1303_1202_1101_1000);
        assert_eq!(Punpckhbw::narrow(a, b), 0x1707_1606_1505_1404);
        assert_eq!(Punpckhwd::narrow(a, b), 0x1716_0706_1514_0504);
        assert_eq!(Punpckhdq::narrow(a, b), 0x1716_1514_0706_0504);
        assert_eq!(Punpcklwd::wide(u128::from(a), u128::from(b)), 0x1716_0706_1514_0504_1312_0302_1110_0100);
    }

    #[test]
    fn multiply_add_of_the_most_negative_words_wraps() {
        assert_eq!(Pmaddwd::wide(0x8000_8000, 0x8000_8000), 0x8000_0000);
        assert_eq!(Pmulhw::wide(0x8000, 0x8000), 0x4000);
        assert_eq!(Pmulhuw::wide(0xffff, 0xffff), 0xfffe);
        assert_eq!(Psadbw::wide(0xff << 64 | 5, 0x0a), 0xff << 64 | 5);
    }

    proptest! {
        #[test]
        fn narrow_lane_operations_agree_with_the_low_half_of_wide_ones(a: u64, b: u64, high_a: u64, high_b: u64) {
            let (wide_a, wide_b) = (from_qwords(a, high_a), from_qwords(b, high_b));
            prop_assert_eq!(Paddsw::narrow(a, b), Paddsw::wide(wide_a, wide_b) as u64);
            prop_assert_eq!(Pcmpgtd::narrow(a, b), Pcmpgtd::wide(wide_a, wide_b) as u64);
            prop_assert_eq!(Psadbw::narrow(a, b), Psadbw::wide(wide_a, wide_b) as u64);
        }

        #[test]
        fn unpack_undoes_pack_of_small_values(a: u64, b: u64) {
            let wide = |a: u64| Punpcklbw::wide(u128::from(a), 0);
            prop_assert_eq!(Packuswb::wide(wide(a), wide(b)), from_qwords(a, b));
        }
    }
}
