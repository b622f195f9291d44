//! SSE4's operations on packed integers, blends and PTEST.
//!
//! Source: SDM vol. 1 § 12.10, § 12.11; SDM vol. 2 for each instruction.

use iced_x86::Mnemonic;

use super::{
    lanes::{Lane, dword, from_qwords, word},
    operands::{enter_sse, source, xmm},
    operations::operations,
};
use crate::{
    decode::{Form, Kind},
    op::{Handler, Op},
    state::{CpuState, Rflags},
    trap::Trap,
};

operations! { binary
    Packusdw: |a, b| from_qwords(pack_unsigned(a), pack_unsigned(b));
    Pcmpeqq: |a, b| u64::zip(a, b, |a, b| if a == b { u64::MAX } else { 0 });
    Pcmpgtq: |a, b| u64::zip(a, b, |a, b| if a as i64 > b as i64 { u64::MAX } else { 0 });
    Pmaxsb: |a, b| i8::zip(a, b, i8::max);
    Pmaxsd: |a, b| i32::zip(a, b, i32::max);
    Pmaxuw: |a, b| u16::zip(a, b, u16::max);
    Pmaxud: |a, b| u32::zip(a, b, u32::max);
    Pminsb: |a, b| i8::zip(a, b, i8::min);
    Pminsd: |a, b| i32::zip(a, b, i32::min);
    Pminuw: |a, b| u16::zip(a, b, u16::min);
    Pminud: |a, b| u32::zip(a, b, u32::min);
    Pmuldq: |a, b| u64::zip(a, b, |a, b| (i64::from(a as i32) * i64::from(b as i32)) as u64);
    Pmulld: |a, b| u32::zip(a, b, u32::wrapping_mul);
    Phminposuw: |_a, b| least_word(b);
}

operations! { immediate
    Blendps: |a, b, choice| select(a, b, spread(u32::from(choice), 4));
    Blendpd: |a, b, choice| select(a, b, spread(u32::from(choice), 2));
    Pblendw: |a, b, choice| select(a, b, spread(u32::from(choice), 8));
    Mpsadbw: |a, b, offsets| sums_of_differences(a, b, offsets);
}

operations! { ternary
    Blendvps: |a, b, c| select(a, b, i32::map(c, |lane| lane >> 31));
    Blendvpd: |a, b, c| select(a, b, u64::map(c, |lane| (lane as i64 >> 63) as u64));
    Pblendvb: |a, b, c| select(a, b, i8::map(c, |lane| lane >> 7));
}

operations! { widening
    Pmovsxbw: u64, |b| widened(b, 16, |b| i16::from(b as i8) as u64);
    Pmovsxbd: u32, |b| widened(b, 32, |b| i32::from(b as i8) as u64);
    Pmovsxbq: u16, |b| widened(b, 64, |b| i64::from(b as i8) as u64);
    Pmovsxwd: u64, |b| widened_words(b, 32, |b| i32::from(b as i16) as u64);
    Pmovsxwq: u32, |b| widened_words(b, 64, |b| i64::from(b as i16) as u64);
    Pmovsxdq: u64, |b| from_qwords(i64::from(b as i32) as u64, i64::from((b >> 32) as i32) as u64);
    Pmovzxbw: u64, |b| widened(b, 16, u64::from);
    Pmovzxbd: u32, |b| widened(b, 32, u64::from);
    Pmovzxbq: u16, |b| widened(b, 64, u64::from);
    Pmovzxwd: u64, |b| widened_words(b, 32, u64::from);
    Pmovzxwq: u32, |b| widened_words(b, 64, u64::from);
    Pmovzxdq: u64, |b| from_qwords(u64::from(b as u32), u64::from((b >> 32) as u32));
}

/// Bits of `b` where `mask` has ones, else of `a`.
#[inline(always)]
fn select(a: u128, b: u128, mask: u128) -> u128 {
    a & !mask | b & mask
}

/// A mask of `count` lanes from the bits of `choice`.
#[inline(always)]
pub(super) fn spread(choice: u32, count: u32) -> u128 {
    let width = 128 / count;
    let ones = u128::MAX >> (128 - width);
    (0..count).fold(0, |mask, i| if choice >> i & 1 != 0 { mask | ones << (width * i) } else { mask })
}

#[inline(always)]
fn pack_unsigned(a: u128) -> u64 {
    (0..4).fold(0, |half, i| half | ((dword(a, i) as i32).clamp(0, 0xffff) as u64) << (16 * i))
}

/// The least word and its place.
#[inline(always)]
fn least_word(b: u128) -> u128 {
    let (place, least) = (1..8)
        .fold((0, word(b, 0)), |(place, least), i| if word(b, i) < least { (i, word(b, i)) } else { (place, least) });
    u128::from(least) | u128::from(place) << 16
}

/// MPSADBW: eight sums of the absolute differences of four bytes of `b` and those at successive places of `a`.
#[inline(always)]
fn sums_of_differences(a: u128, b: u128, offsets: u8) -> u128 {
    let (a, b) = (a >> (u32::from(offsets >> 2 & 1) * 32), b >> (u32::from(offsets & 3) * 32));
    let byte = |v: u128, i: u32| (v >> (8 * i)) as u8;
    (0..8).fold(0, |result, i| {
        let sum: u16 = (0..4).map(|j| u16::from(byte(a, i + j).abs_diff(byte(b, j)))).sum();
        result | u128::from(sum) << (16 * i)
    })
}

/// The low bytes of `b`, each widened by `f` to `width` bits.
#[inline(always)]
fn widened(b: u128, width: u32, f: impl Fn(u8) -> u64) -> u128 {
    let ones = u64::MAX >> (64 - width);
    (0..128 / width).fold(0, |result, i| result | u128::from(f((b >> (8 * i)) as u8) & ones) << (width * i))
}

/// The low words of `b`, each widened by `f` to `width` bits.
#[inline(always)]
fn widened_words(b: u128, width: u32, f: impl Fn(u16) -> u64) -> u128 {
    let ones = u64::MAX >> (64 - width);
    (0..128 / width).fold(0, |result, i| result | u128::from(f((b >> (16 * i)) as u16) & ones) << (width * i))
}

/// The flags of PTEST: ZF, if no bit is set in both operands; CF, if the first one has all that are set in the second.
#[inline(always)]
pub(super) fn test_flags(a: u128, b: u128) -> u64 {
    let flag = |condition, flag: Rflags| if condition { flag.bits() } else { 0 };
    flag(a & b == 0, Rflags::ZF) | flag(!a & b == 0, Rflags::CF)
}

extern "C" fn test<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b = source::<MEMORY>(cpu, op)?;
    let flags = test_flags(xmm(cpu, op.dst), b);
    cpu.rflags = cpu.rflags & !Rflags::ARITHMETIC.bits() | flags;
    Ok(())
}

/// The handler of PTEST.
pub(super) fn select_test(mnemonic: Mnemonic, form: &Form) -> Option<Handler> {
    match (mnemonic, form.kinds[1]) {
        (Mnemonic::Ptest, Kind::Memory) => Some(test::<true>),
        (Mnemonic::Ptest, _) => Some(test::<false>),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::operations::{Binary, Immediate, Ternary, Widening},
        *,
    };

    const COUNTING: u128 = 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100;

    #[test]
    fn blends_choose_lanes() {
        assert_eq!(Blendps::wide(0, u128::MAX, 0b1010), 0xffff_ffff_0000_0000_ffff_ffff_0000_0000);
        assert_eq!(Blendpd::wide(0, u128::MAX, 0b10), u128::MAX << 64);
        assert_eq!(Pblendw::wide(COUNTING, 0, 0x7f), 0x0f0e << 112);
        assert_eq!(Blendvps::wide(1, u128::MAX, 1 << 127 | 0x7fff_ffff), 0xffff_ffff << 96 | 1);
        assert_eq!(Blendvpd::wide(1, u128::MAX, 1 << 127), u128::MAX << 64 | 1);
        assert_eq!(Pblendvb::wide(COUNTING, 0, 0x80 << 8), COUNTING & !0xff00);
    }

    #[test]
    fn the_first_of_equal_least_words_is_found() {
        assert_eq!(Phminposuw::wide(0, 0x0005_0003_ffff_0003_0009_0008_0007_0006), 0x0004_0003);
        assert_eq!(Phminposuw::wide(0, u128::MAX), 0xffff);
    }

    #[test]
    fn differences_are_summed_at_the_places_the_immediate_names() {
        // Blocks of `a` from byte 4 on, against bytes 8 to 11 of `b`.
        let sums = Mpsadbw::wide(COUNTING, COUNTING, 0b110);
        assert_eq!(sums, 0x000c_0008_0004_0000_0004_0008_000c_0010);
    }

    #[test]
    fn values_are_widened_with_their_sign_or_with_zeros() {
        let b = 0xfedc_ba98_8765_4321;
        assert_eq!(Pmovsxbw::wide(b), 0xfffe_ffdc_ffba_ff98_ff87_0065_0043_0021);
        assert_eq!(Pmovzxbw::wide(b), 0x00fe_00dc_00ba_0098_0087_0065_0043_0021);
        assert_eq!(Pmovsxbd::wide(b), 0xffff_ff87_0000_0065_0000_0043_0000_0021);
        assert_eq!(Pmovsxbq::wide(0x80ff), 0xffff_ffff_ffff_ff80_ffff_ffff_ffff_ffff);
        assert_eq!(Pmovsxwd::wide(b), 0xffff_fedc_ffff_ba98_ffff_8765_0000_4321);
        assert_eq!(Pmovzxwq::wide(b), 0x8765_0000_0000_0000_4321);
        assert_eq!(Pmovsxdq::wide(b), 0xffff_ffff_fedc_ba98_ffff_ffff_8765_4321);
    }

    #[test]
    fn multiplications_and_packs_know_signs() {
        assert_eq!(Pmuldq::wide(0xffff_ffff, 2), 0xffff_ffff_ffff_fffe);
        assert_eq!(Pmulld::wide(0xffff_ffff, 3), 0xffff_fffd);
        assert_eq!(Packusdw::wide(0xffff_ffff_0001_0000_0000_ffff, 5 << 96), 0x0005_0000_0000_0000_0000_0000_ffff_ffff);
        assert_eq!(Pcmpgtq::wide(0, u128::from(u64::MAX)), u128::from(u64::MAX));
    }

    #[test]
    fn tests_tell_of_common_and_of_covered_bits() {
        assert_eq!(test_flags(1, 2), 0x40);
        assert_eq!(test_flags(3, 2), 0x01);
        assert_eq!(test_flags(3, 6), 0);
        assert_eq!(test_flags(3, 0), 0x41);
    }
}
