//! Instructions with a VEX prefix run whole: when they may run, faults, the halves of vectors, masks and gathers.

use proptest::prelude::*;

use crate::{
    bus::SystemBus,
    engine::testing::{DATA, Machine, Stop},
    simd::lanes::{from_dwords, from_qwords},
    state::{Cr0, Cr4, Rflags, seg},
    system::cpuid::Feature,
    trap::Exception,
};

const GP: Stop = Stop::Exception(Exception::general_protection(0));
const UD: Stop = Stop::Exception(Exception::INVALID_OPCODE);

/// A machine on which software has switched AVX on.
fn machine(code: &[u8], bits: u8) -> Machine {
    let mut machine = Machine::new(code, bits);
    let cpu = machine.cpu();
    for name in ["xsave", "avx"] {
        cpu.cpuid.set_feature(Feature::named(name).unwrap(), true);
    }
    cpu.cr4 |= Cr4::OSXSAVE.bits();
    cpu.xcr0 = 7;
    machine
}

fn set(machine: &mut Machine, number: usize, value: [u128; 2]) {
    let cpu = machine.cpu();
    (cpu.xmm[number], cpu.ymm_high[number]) = (value[0], value[1]);
}

fn get(machine: &mut Machine, number: usize) -> [u128; 2] {
    let cpu = machine.cpu();
    [cpu.xmm[number], cpu.ymm_high[number]]
}

/// vaddps ymm0, ymm1, ymm2
const VADDPS: [u8; 4] = [0xc5, 0xf4, 0x58, 0xc2];

#[test]
fn software_must_have_switched_the_state_on() {
    let stop = |change: fn(&mut Machine)| {
        let mut machine = machine(&VADDPS, 64);
        change(&mut machine);
        machine.run()
    };
    assert_eq!(stop(|_| {}), Stop::Halted);
    assert_eq!(stop(|machine| machine.cpu().cr4 &= !Cr4::OSXSAVE.bits()), UD);
    assert_eq!(stop(|machine| machine.cpu().xcr0 = 3), UD);
    assert_eq!(stop(|machine| machine.cpu().cr0 |= Cr0::TS.bits()), Stop::Exception(Exception::DEVICE_NOT_AVAILABLE));
    // Neither emulation of the x87 nor OSFXSR matters.
    assert_eq!(stop(|machine| machine.cpu().cr0 |= Cr0::EM.bits()), Stop::Halted);
    assert_eq!(stop(|machine| machine.cpu().cr4 &= !Cr4::OSFXSR.bits()), Stop::Halted);
}

#[test]
fn there_is_no_vex_in_real_mode_nor_behind_other_prefixes() {
    assert_eq!(machine(&VADDPS, 16).run(), UD);
    assert_eq!(machine(&VADDPS, 32).run(), Stop::Halted);
    for prefix in [0x66, 0xf2, 0xf3, 0xf0, 0x48] {
        assert_eq!(machine(&[&[prefix], &VADDPS[..]].concat(), 64).run(), UD, "{prefix:#x}");
    }
    let mut machine = machine(&VADDPS, 16);
    machine.cpu().cr0 |= Cr0::PE.bits();
    assert_eq!(machine.run(), Stop::Halted);
    // vsqrtps with a second source, vpaddb ymm with it missing is none: vaddss takes either length
    assert_eq!(self::machine(&[0xc5, 0xf0, 0x51, 0xc2], 64).run(), UD);
    assert_eq!(self::machine(&[0xc5, 0xf6, 0x58, 0xc2], 64).run(), Stop::Halted);
}

#[test]
fn short_results_clear_the_upper_half_and_sse_keeps_it() {
    // vpaddb xmm0, xmm1, xmm2; paddb xmm3, xmm1
    let mut machine = machine(&[0xc5, 0xf1, 0xfc, 0xc2, 0x66, 0x0f, 0xfc, 0xd9], 64);
    for number in 0..4 {
        set(&mut machine, number, [number as u128, 9]);
    }
    assert_eq!(machine.run(), Stop::Halted);
    assert_eq!((get(&mut machine, 0), get(&mut machine, 3)), ([3, 0], [4, 9]));
}

#[test]
fn only_aligned_moves_ask_for_alignment() {
    // vmovaps ymm0, [rsi + 16]; vmovdqa [rsi + 16], ymm0; vmovntdqa ymm0, [rsi + 16]
    for code in
        [&[0xc5, 0xfc, 0x28, 0x46, 0x10][..], &[0xc5, 0xfd, 0x7f, 0x46, 0x10], &[0xc4, 0xe2, 0x7d, 0x2a, 0x46, 0x10]]
    {
        assert_eq!(machine(code, 64).run(), GP);
    }
    // vmovaps xmm0, [rsi + 16]; vpor ymm1, ymm1, [rsi + 1]; vmovups [rsi + 33], ymm1
    let code = [0xc5, 0xf8, 0x28, 0x46, 0x10, 0xc5, 0xf5, 0xeb, 0x4e, 0x01, 0xc5, 0xfc, 0x11, 0x4e, 0x21];
    let mut machine = machine(&code, 64);
    let bytes: [u8; 64] = std::array::from_fn(|i| i as u8);
    assert!(machine.ram.write(DATA, &bytes));
    assert_eq!(machine.run(), Stop::Halted);
    assert_eq!(machine.read::<32>(DATA + 33), bytes[1..33]);
}

#[test]
fn a_store_that_faults_in_its_second_page_writes_nothing() {
    // vmovups [rsi], ymm0: the last page that is mapped ends at 1 GiB
    let end = 1 << 30;
    let mut machine = machine(&[0xc5, 0xfc, 0x11, 0x06], 64);
    machine.cpu().gpr[6] = end - 24;
    set(&mut machine, 0, [u128::MAX; 2]);
    assert_eq!(machine.run(), Stop::Exception(Exception::page_fault(2)));
    assert_eq!(machine.cpu().cr2, end);
    assert_eq!(machine.bus.memory_read(end - 24, rhea_core::Width::Qword), 0);
}

#[test]
fn masked_moves_touch_only_what_is_chosen() {
    let mask = [from_dwords([0, 1 << 31, 0, 0]), from_dwords([1 << 31, 0, 0, 0x7fff_ffff])];
    let data = [from_dwords([1, 2, 3, 4]), from_dwords([5, 6, 7, 8])];
    // vmaskmovps [rsi], ymm1, ymm2; vpmaskmovd ymm3, ymm1, [rsi]
    let mut machine = machine(&[0xc4, 0xe2, 0x75, 0x2e, 0x16, 0xc4, 0xe2, 0x75, 0x8c, 0x1e], 64);
    assert!(machine.ram.write(DATA, &[0xee; 32]));
    set(&mut machine, 1, mask);
    set(&mut machine, 2, data);
    set(&mut machine, 3, [u128::MAX; 2]);
    assert_eq!(machine.run(), Stop::Halted);
    let mut expected = [0xee; 32];
    expected[4..8].copy_from_slice(&[2, 0, 0, 0]);
    expected[16..20].copy_from_slice(&[5, 0, 0, 0]);
    assert_eq!(machine.read::<32>(DATA), expected);
    assert_eq!(get(&mut machine, 3), [from_dwords([0, 2, 0, 0]), from_dwords([5, 0, 0, 0])]);
    // With nothing chosen there is no fault; with something beyond the fault, nothing is written.
    for (mask, stop) in [([0; 2], Stop::Halted), (mask, Stop::Exception(Exception::page_fault(2)))] {
        let mut machine = self::machine(&[0xc4, 0xe2, 0x75, 0x2e, 0x16], 64);
        machine.cpu().gpr[6] = (1 << 30) - 8;
        set(&mut machine, 1, mask);
        set(&mut machine, 2, data);
        assert_eq!(machine.run(), stop);
        assert_eq!(machine.bus.memory_read((1 << 30) - 8, rhea_core::Width::Qword), 0);
    }
}

#[test]
fn a_gather_that_faults_says_how_far_it_came_and_goes_on_from_there() {
    // vgatherdpd ymm1, [rsi + 8*xmm2], ymm3
    let code = [0xc4, 0xe2, 0xe5, 0x92, 0x0c, 0xd6];
    let gather = |machine: &mut Machine| {
        assert!(machine.ram.write(DATA, &[7, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0]));
        machine.run()
    };
    let mut first = machine(&code, 64);
    set(&mut first, 1, [from_qwords(1, 2), from_qwords(3, 4)]);
    set(&mut first, 2, [from_dwords([1, 0, 1 << 28, 0xffff_ffff]), 0]);
    set(&mut first, 3, [from_qwords(u64::MAX, 5), from_qwords(1 << 63, 1 << 63)]);
    assert_eq!(gather(&mut first), Stop::Exception(Exception::page_fault(0)));
    assert_eq!(first.cpu().cr2, DATA + (8 << 28));
    assert_eq!(get(&mut first, 1), [from_qwords(8, 2), from_qwords(3, 4)]);
    assert_eq!(get(&mut first, 3), [from_qwords(0, 5), from_qwords(1 << 63, 1 << 63)]);

    let mut second = machine(&code, 64);
    for number in [1, 3] {
        let value = get(&mut first, number);
        set(&mut second, number, value);
    }
    set(&mut second, 2, [from_dwords([1, 0, 0, 0xffff_ffff]), 0]);
    assert!(second.ram.write(DATA - 8, &[9, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(gather(&mut second), Stop::Halted);
    assert_eq!(get(&mut second, 1), [from_qwords(8, 2), from_qwords(7, 9)]);
    assert_eq!(get(&mut second, 3), [0; 2]);
}

#[test]
fn addresses_of_a_gather_are_cut_to_their_size() {
    // vpgatherdd xmm1, [4*xmm2 + DATA], xmm3, without base, with addresses of 64 and of 32 bits
    let code = [0xc4, 0xe2, 0x61, 0x90, 0x0c, 0x95, 0, 0x40, 0, 0];
    for (prefix, stop) in [(&[][..], Stop::Exception(Exception::page_fault(0))), (&[0x67], Stop::Halted)] {
        let mut machine = machine(&[prefix, &code].concat(), 64);
        assert!(machine.ram.write(DATA - 4, &[1, 2, 3, 4, 5, 6, 7, 8]));
        set(&mut machine, 2, [from_dwords([0xffff_ffff, 1 << 30, 0, 0]), 0]);
        set(&mut machine, 3, [from_dwords([u32::MAX, u32::MAX, 0, 0]), u128::MAX]);
        set(&mut machine, 1, [0, u128::MAX]);
        assert_eq!(machine.run(), stop);
        if stop == Stop::Halted {
            assert_eq!(get(&mut machine, 1), [from_dwords([0x0403_0201, 0x0807_0605, 0, 0]), 0]);
        } else {
            assert_eq!(machine.cpu().cr2, DATA + (1 << 32));
        }
    }
}

#[test]
fn segments_count_for_each_element() {
    // vmaskmovps xmm0, xmm1, [esi] at the end of a segment
    for (mask, stop) in [([1 << 31, 0, 0, 0], Stop::Halted), ([0, 1 << 31, 0, 0], GP)] {
        let mut machine = machine(&[0xc4, 0xe2, 0x71, 0x2c, 0x06], 32);
        machine.cpu().segments[usize::from(seg::DS)].limit = DATA as u32 + 3;
        set(&mut machine, 1, [from_dwords(mask), 0]);
        assert_eq!(machine.run(), stop);
    }
}

#[test]
fn clearing_registers_reaches_those_of_the_mode() {
    for (bits, count) in [(32, 8), (64, 16)] {
        // vzeroupper; vzeroall
        for (code, low) in [([0xc5, 0xf8, 0x77], 5), ([0xc5, 0xfc, 0x77], 0)] {
            let mut machine = machine(&code, bits);
            for number in 0..16 {
                set(&mut machine, number, [5, 6]);
            }
            assert_eq!(machine.run(), Stop::Halted);
            for number in 0..16 {
                assert_eq!(get(&mut machine, number), if number < count { [low, 0] } else { [5, 6] });
            }
        }
    }
}

#[test]
fn an_exception_in_the_upper_half_keeps_the_destination() {
    // vdivps ymm0, ymm1, ymm2
    let mut machine = machine(&[0xc5, 0xf4, 0x5e, 0xc2], 64);
    let one = from_dwords([1f32.to_bits(); 4]);
    set(&mut machine, 0, [3, 4]);
    set(&mut machine, 1, [one; 2]);
    set(&mut machine, 2, [one, one & !0xffff_ffff]);
    machine.cpu().mxcsr = 0x1d80;
    assert_eq!(machine.run(), Stop::Exception(Exception::SIMD_ERROR));
    assert_eq!((get(&mut machine, 0), machine.cpu().mxcsr), ([3, 4], 0x1d84));
}

#[test]
fn comparisons_have_32_predicates() {
    let cases = [(1_f64, 2_f64), (1.0, 1.0), (2.0, 1.0), (1.0, f64::NAN)];
    // Less, equal, greater, unordered, from bit 0 on; and whether quiet NaNs are invalid.
    let predicates = [
        (0x08, 10, false),
        (0x09, 9, true),
        (0x0b, 0, false),
        (0x0d, 6, true),
        (0x0f, 15, false),
        (0x10, 2, true),
        (0x11, 1, false),
        (0x1c, 5, true),
        (0x1f, 15, true),
    ];
    for (predicate, holds, signals) in predicates {
        for (i, (a, b)) in cases.into_iter().enumerate() {
            // vcmppd ymm0, ymm1, ymm2, predicate
            let mut machine = machine(&[0xc5, 0xf5, 0xc2, 0xc2, predicate], 64);
            set(&mut machine, 1, [from_qwords(a.to_bits(), a.to_bits()); 2]);
            set(&mut machine, 2, [from_qwords(b.to_bits(), b.to_bits()); 2]);
            assert_eq!(machine.run(), Stop::Halted);
            let expected = if holds >> i & 1 != 0 { u128::MAX } else { 0 };
            assert_eq!(get(&mut machine, 0), [expected; 2], "{predicate:#x} of {a} and {b}");
            assert_eq!(machine.cpu().mxcsr & 1 != 0, signals && i == 3);
        }
    }
}

#[test]
fn tests_look_at_both_halves() {
    let flags = |code: &[u8], a: [u128; 2], b: [u128; 2]| {
        let mut machine = machine(code, 64);
        set(&mut machine, 1, a);
        set(&mut machine, 2, b);
        machine.cpu().rflags |= Rflags::ARITHMETIC.bits();
        assert_eq!(machine.run(), Stop::Halted);
        Rflags::from_bits_retain(machine.cpu().rflags & Rflags::ARITHMETIC.bits())
    };
    // vptest ymm1, ymm2; vtestps ymm1, ymm2
    let (vptest, vtestps) = ([0xc4, 0xe2, 0x7d, 0x17, 0xca], [0xc4, 0xe2, 0x7d, 0x0e, 0xca]);
    assert_eq!(flags(&vptest, [0, 1], [5, 1]), Rflags::empty());
    assert_eq!(flags(&vptest, [5, 1], [5, 1]), Rflags::CF);
    assert_eq!(flags(&vptest, [2, 2], [1, 1]), Rflags::ZF);
    assert_eq!(flags(&vtestps, [0, 1], [5, 1]), Rflags::ZF | Rflags::CF);
    assert_eq!(flags(&vtestps, [0, 0], [0, 1 << 127]), Rflags::ZF);
}

#[test]
fn permutations_cross_the_middle() {
    let permuted = |code: &[u8], order: [u128; 2]| {
        let mut machine = machine(code, 64);
        set(&mut machine, 1, order);
        set(&mut machine, 2, [from_dwords([0, 1, 2, 3]), from_dwords([4, 5, 6, 7])]);
        assert_eq!(machine.run(), Stop::Halted);
        get(&mut machine, 0)
    };
    let reverse = [from_dwords([7, 6, 5, 4]), from_dwords([3, 2, 1, 8])];
    // vpermd ymm0, ymm1, ymm2; vpermq ymm0, ymm2, 0b00_01_10_11; vperm2i128 ymm0, ymm1, ymm2, 0x83
    assert_eq!(
        permuted(&[0xc4, 0xe2, 0x75, 0x36, 0xc2], reverse),
        [from_dwords([7, 6, 5, 4]), from_dwords([3, 2, 1, 0])]
    );
    assert_eq!(
        permuted(&[0xc4, 0xe3, 0xfd, 0x00, 0xc2, 0b00_01_10_11], reverse),
        [from_dwords([6, 7, 4, 5]), from_dwords([2, 3, 0, 1])]
    );
    assert_eq!(permuted(&[0xc4, 0xe3, 0x75, 0x46, 0xc2, 0x83], reverse), [from_dwords([4, 5, 6, 7]), 0]);
}

#[test]
fn halves_are_rounded_as_the_immediate_says() {
    // vcvtps2ph xmm0, xmm1, immediate; vcvtph2ps xmm2, xmm0
    for (immediate, expected) in [(0, 0x3c00), (1, 0x3c00), (2, 0x3c01), (3, 0x3c00), (4, 0x3c01)] {
        let mut machine = machine(&[0xc4, 0xe3, 0x79, 0x1d, 0xc8, immediate, 0xc4, 0xe2, 0x79, 0x13, 0xd0], 64);
        set(&mut machine, 1, [u128::from((1f32 + f32::EPSILON).to_bits()), 7]);
        machine.cpu().mxcsr = 0x5f80;
        assert_eq!(machine.run(), Stop::Halted);
        assert_eq!((get(&mut machine, 0), machine.cpu().mxcsr), ([expected, 0], 0x5fa0));
        let back = 1.0 + (expected - 0x3c00) as f32 / 1024.0;
        assert_eq!(get(&mut machine, 2)[0] as u32, back.to_bits());
    }
}

#[test]
fn a_conversion_is_told_of_even_if_its_store_faults() {
    // vcvtps2ph [rsi], xmm1, 0
    let mut machine = machine(&[0xc4, 0xe3, 0x79, 0x1d, 0x0e, 0], 64);
    machine.cpu().gpr[6] = 1 << 30;
    set(&mut machine, 1, [u128::from((1f32 + f32::EPSILON).to_bits()), 0]);
    assert_eq!(machine.run(), Stop::Exception(Exception::page_fault(2)));
    assert_eq!(machine.cpu().mxcsr, 0x1fa0);
}

#[test]
fn operands_that_end_beyond_canonical_addresses_are_no_page_faults() {
    // vpmovzxbw ymm0, [rsi]; vmovups ymm0, [rsi]: at addresses that are not mapped
    for (code, size) in [(&[0xc4, 0xe2, 0x7d, 0x30, 0x06][..], 16), (&[0xc5, 0xfc, 0x10, 0x06], 32)] {
        let end = 1 << 47;
        for (address, stop) in [(end - size, Stop::Exception(Exception::page_fault(0))), (end - size + 4, GP)] {
            let mut machine = machine(code, 64);
            machine.cpu().gpr[6] = address;
            assert_eq!(machine.run(), stop);
        }
    }
}

#[test]
fn fused_operations_round_once() {
    // vfmsub213sd xmm0, xmm1, xmm2: the product's error
    let mut machine = machine(&[0xc4, 0xe2, 0xf1, 0xab, 0xc2], 64);
    let a = 1.0 + f64::EPSILON;
    for (number, value) in [(0, a), (1, a), (2, a * a)] {
        set(&mut machine, number, [u128::from(value.to_bits()), 3]);
    }
    assert_eq!(machine.run(), Stop::Halted);
    assert_eq!(get(&mut machine, 0), [u128::from((f64::EPSILON * f64::EPSILON).to_bits()), 0]);
    assert_eq!(machine.cpu().mxcsr, 0x1f80);
}

/// Numbers whose products and sums meet: of all exponents, and of few.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        (1000_u64..1046, 0_u64..1 << 52, 0_u64..2).prop_map(|(e, f, sign)| sign << 63 | e << 52 | f),
        (1000_u64..1046, 0_u64..4, 0_u64..2).prop_map(|(e, f, sign)| sign << 63 | e << 52 | f),
        (0_u64..3, 0_u64..1 << 52).prop_map(|(e, f)| e << 52 | f),
    ]
}

proptest! {
    #[test]
    fn both_ways_to_a_fused_result_agree_with_the_host(a in number(), b in number(), c in number()) {
        let expected = f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c));
        // With the inexact flag clear it is the software that computes.
        for mxcsr in [0x1f80, 0x1fa0] {
            // vfmadd231pd ymm0, ymm1, ymm2
            let mut machine = machine(&[0xc4, 0xe2, 0xf5, 0xb8, 0xc2], 64);
            for (number, value) in [(0, c), (1, a), (2, b)] {
                set(&mut machine, number, [from_qwords(value, value); 2]);
            }
            machine.cpu().mxcsr = mxcsr;
            prop_assert_eq!(machine.run(), Stop::Halted);
            let result = get(&mut machine, 0);
            prop_assert_eq!(result, [from_qwords(result[0] as u64, result[0] as u64); 2]);
            let result = f64::from_bits(result[0] as u64);
            prop_assert!(result.to_bits() == expected.to_bits() || result.is_nan() && expected.is_nan());
        }
    }

    #[test]
    fn long_vectors_are_two_short_ones(
        opcode in prop::sample::select(&[
            0x60_u8, 0x62, 0x63, 0x64, 0x67, 0x69, 0x6b, 0x6c, 0x6d, 0x74, 0xd4, 0xd5, 0xd8, 0xda, 0xdb, 0xdf, 0xe0, 0xe4, 0xe5,
            0xea, 0xeb, 0xef, 0xf4, 0xf5, 0xf6, 0xf8, 0xfb, 0xfe,
        ][..]),
        a: [u128; 2],
        b: [u128; 2],
    ) {
        // vp... ymm0, ymm1, ymm2; and p... xmm1, xmm2 of each half
        let mut long = machine(&[0xc5, 0xf5, opcode, 0xc2], 64);
        set(&mut long, 1, a);
        set(&mut long, 2, b);
        prop_assert_eq!(long.run(), Stop::Halted);
        let result = get(&mut long, 0);
        for half in 0..2 {
            let mut short = machine(&[0x66, 0x0f, opcode, 0xca], 64);
            set(&mut short, 1, [a[half], 0]);
            set(&mut short, 2, [b[half], 0]);
            prop_assert_eq!(short.run(), Stop::Halted);
            prop_assert_eq!(get(&mut short, 1)[0], result[half]);
        }
    }

    #[test]
    fn no_bytes_behind_the_prefix_are_too_much(bytes: [u8; 5], bits in prop::sample::select(vec![32_u8, 64])) {
        // Outside of 64-bit code two bits tell the prefix from LES.
        let kept = if bits == 64 { bytes[0] & 0xe0 } else { bytes[0] & 0x20 | 0xc0 };
        let map = bytes[0] % 3 + 1;
        let mut machine = machine(&[&[0xc4, kept | map], &bytes[1..], &[0xf4; 5]].concat(), bits);
        for number in 0..16 {
            set(&mut machine, number, [u128::from_le_bytes([bytes[4]; 16]); 2]);
        }
        // A step, and nothing of what follows.
        machine.cpu().rflags |= Rflags::TF.bits();
        prop_assert!(matches!(machine.run(), Stop::Exception(_)));
    }
}
