//! Results and flags of arithmetic, logic, shifts, products and quotients.

use proptest::prelude::{ProptestConfig, Strategy, any, prop, prop_assert_eq, proptest};
use proptest::{prop_oneof, sample};

use super::{exception, execute, merged, ones, peek, poke, signed, sized};
use crate::{
    engine::testing::Machine,
    integer::flags::{AF, ARITHMETIC, CF, OF, PF, SF, ZF},
    state::reg,
    trap::Exception,
};

const RAX: usize = reg::RAX as usize;
const RCX: usize = reg::RCX as usize;
const RDX: usize = reg::RDX as usize;

/// Operands, with those near the edges of every size made likely.
fn operand() -> impl Strategy<Value = u64> {
    let edges = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
    prop_oneof![
        any::<u64>(),
        0..16_u64,
        sample::select(edges.to_vec()),
        sample::select(vec![i64::MAX as u64, i64::MIN as u64, u64::MAX, u64::MAX - 1]),
    ]
}

fn size() -> impl Strategy<Value = usize> {
    sample::select(vec![1_usize, 2, 4, 8])
}

fn flag(set: bool, bit: u64) -> u64 {
    if set { bit } else { 0 }
}

fn result_flags(result: u64, size: usize) -> u64 {
    let result = result & ones(size);
    let parity = (0..8).filter(|bit| result >> bit & 1 != 0).count() % 2 == 0;
    flag(parity, PF) | flag(result == 0, ZF) | flag(signed(result, size) < 0, SF)
}

fn fits(value: i128, size: usize) -> bool {
    let limit = 1_i128 << (8 * size - 1);
    (-limit..limit).contains(&value)
}

/// What opcode row `row` (ADD, OR, ADC, SBB, AND, SUB, XOR, CMP) makes of its operands.
fn expected(row: u8, left: u64, right: u64, carry: bool, size: usize) -> (u64, u64) {
    let (a, b) = (left & ones(size), right & ones(size));
    let c = u64::from(carry && matches!(row, 2 | 3));
    let (sa, sb) = (signed(a, size), signed(b, size));
    match row {
        0 | 2 => {
            let full = u128::from(a) + u128::from(b) + u128::from(c);
            let result = full as u64 & ones(size);
            let flags = flag(full > u128::from(ones(size)), CF)
                | flag((a & 15) + (b & 15) + c > 15, AF)
                | flag(!fits(sa + sb + i128::from(c), size), OF);
            (result, flags | result_flags(result, size))
        }
        3 | 5 | 7 => {
            let full = i128::from(a) - i128::from(b) - i128::from(c);
            let result = full as u64 & ones(size);
            let flags =
                flag(full < 0, CF) | flag((a & 15) < (b & 15) + c, AF) | flag(!fits(sa - sb - i128::from(c), size), OF);
            (result, flags | result_flags(result, size))
        }
        _ => {
            let result = match row {
                1 => a | b,
                4 => a & b,
                _ => a ^ b,
            };
            (result, result_flags(result, size))
        }
    }
}

/// A shift or rotation done bit by bit, as the manual's pseudocode does: result, CF, and OF for a count of one.
fn shifted(kind: u8, value: u64, count: u32, carry: bool, size: usize) -> (u64, bool, bool) {
    let bits = 8 * size as u32;
    let mut v = value & ones(size);
    let mut cf = carry;
    let top = |v: u64| v >> (bits - 1) & 1 != 0;
    let original = v;
    for _ in 0..count {
        let (high, low) = (top(v), v & 1 != 0);
        let in_high = |v: u64, bit: bool| v >> 1 | u64::from(bit) << (bits - 1);
        match kind {
            0 => (v, cf) = ((v << 1 | u64::from(high)) & ones(size), high),
            1 => (v, cf) = (in_high(v, low), low),
            2 => (v, cf) = ((v << 1 | u64::from(cf)) & ones(size), high),
            3 => (v, cf) = (in_high(v, cf), low),
            4 | 6 => (v, cf) = (v << 1 & ones(size), high),
            5 => (v, cf) = (v >> 1, low),
            _ => (v, cf) = (in_high(v, high), low),
        }
    }
    let overflow = match kind {
        0 | 2 | 4 | 6 => top(v) ^ cf,
        1 | 3 => top(v) ^ (v >> (bits - 2) & 1 != 0),
        5 => top(original),
        _ => false,
    };
    (v, cf, overflow)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn two_operand_arithmetic_gives_the_sums_flags(cases in prop::collection::vec(
        (0..8_u8, size(), operand(), operand(), any::<bool>(), any::<bool>(), any::<bool>()), 64..65
    )) {
        let mut machine = Machine::new(&[], 64);
        for (row, size, left, right, carry, memory, lock) in cases {
            let lock = lock && memory && row != 7;
            let (result, flags) = expected(row, left, right, carry, size);
            poke(&machine, left);
            let cpu = machine.cpu();
            cpu.gpr[RAX] = left;
            cpu.gpr[RCX] = right;
            cpu.rflags = 0x202 | u64::from(carry) | ARITHMETIC & !CF & right;
            let code = sized(size, lock, &[], row << 3, &[if memory { 0x0e } else { 0xc8 }]);
            prop_assert_eq!(execute(&mut machine, &code), Ok(()));
            prop_assert_eq!(machine.cpu().rflags, 0x202 | flags, "{:02x?} {:x} {:x}", code, left, right);
            let stored = if row == 7 { left } else if memory { left & !ones(size) | result } else { merged(left, result, size) };
            prop_assert_eq!(if memory { peek(&machine) } else { machine.cpu().gpr[RAX] }, stored);
        }
    }

    #[test]
    fn shifts_follow_the_bits_one_by_one(cases in prop::collection::vec(
        (0..8_u8, size(), operand(), prop_oneof![any::<u8>(), 0..3_u8], any::<bool>(), any::<bool>()), 64..65
    )) {
        let mut machine = Machine::new(&[], 64);
        for (kind, size, value, count, carry, memory) in cases {
            let masked = u32::from(count & if size == 8 { 63 } else { 31 });
            let (result, cf, of) = shifted(kind, value, masked, carry, size);
            poke(&machine, value);
            let cpu = machine.cpu();
            cpu.gpr[RAX] = value;
            cpu.gpr[RCX] = u64::from(count);
            let before = 2 | ZF | AF | u64::from(carry);
            cpu.rflags = before;
            let code = sized(size, false, &[], 0xd2, &[kind << 3 | if memory { 0x06 } else { 0xc0 }]);
            prop_assert_eq!(execute(&mut machine, &code), Ok(()));
            let after = if memory { peek(&machine) } else { machine.cpu().gpr[RAX] };
            let stored = if memory { value & !ones(size) | result } else { merged(value, result, size) };
            prop_assert_eq!(after, stored, "{:02x?} {:x} by {}", code, value, count);
            let flags = machine.cpu().rflags;
            if masked == 0 {
                prop_assert_eq!(flags, before);
                continue;
            }
            prop_assert_eq!(flags & CF != 0, cf, "{:02x?} {:x} by {}", code, value, count);
            if masked == 1 {
                prop_assert_eq!(flags & OF != 0, of, "{:02x?} {:x}", code, value);
            }
            if kind < 4 {
                prop_assert_eq!(flags & !(CF | OF), before & !(CF | OF));
            } else {
                prop_assert_eq!(flags & (ZF | SF | PF), result_flags(result, size));
            }
        }
    }

    #[test]
    fn double_shifts_take_bits_from_the_other_register(
        value in operand(), fill in operand(), count in 0..64_u32, wide in any::<bool>(), left in any::<bool>()
    ) {
        let size = if wide { 8 } else { 4 };
        let bits = 8 * size as u32;
        let count = count % bits;
        let (mut v, mut f, mut cf) = (value & ones(size), fill & ones(size), false);
        for _ in 0..count {
            if left {
                cf = v >> (bits - 1) & 1 != 0;
                v = (v << 1 | f >> (bits - 1) & 1) & ones(size);
                f = f << 1 & ones(size);
            } else {
                cf = v & 1 != 0;
                v = v >> 1 | (f & 1) << (bits - 1);
                f >>= 1;
            }
        }
        let mut machine = Machine::new(&[], 64);
        let cpu = machine.cpu();
        cpu.gpr[RAX] = value;
        cpu.gpr[RDX] = fill;
        cpu.gpr[RCX] = u64::from(count);
        // SHLD or SHRD EAX/RAX, EDX/RDX, CL
        let code = sized(size, false, &[0x0f], if left { 0xa5 } else { 0xad }, &[0xd0]);
        prop_assert_eq!(execute(&mut machine, &code), Ok(()));
        prop_assert_eq!(machine.cpu().gpr[RAX], merged(value, v, size));
        if count == 0 {
            prop_assert_eq!(machine.cpu().rflags, 2);
        } else {
            prop_assert_eq!(machine.cpu().rflags & (CF | ZF | SF | PF), flag(cf, CF) | result_flags(v, size));
        }
    }

    #[test]
    fn products_and_quotients_match_wide_arithmetic(cases in prop::collection::vec(
        (4..8_u8, size(), operand(), operand(), operand()), 64..65
    )) {
        let mut machine = Machine::new(&[], 64);
        for (kind, size, low, high, factor) in cases {
            let bits = 8 * size as u32;
            let (al, ah, b) = (low & ones(size), high & ones(size), factor & ones(size));
            let cpu = machine.cpu();
            cpu.gpr[RAX] = if size == 1 { al | ah << 8 } else { low };
            cpu.gpr[RDX] = high;
            cpu.gpr[RCX] = factor;
            cpu.rflags = 2;
            let before = (cpu.gpr[RAX], cpu.gpr[RDX]);
            let double = u128::from(ah) << bits | u128::from(al);
            let unused = 128 - 2 * bits;
            let signed_double = (double << unused) as i128 >> unused;
            // What goes to the lower and upper registers; None for #DE.
            let pair = match kind {
                4 => {
                    let product = u128::from(al) * u128::from(b);
                    Some((product as u64, (product >> bits) as u64))
                }
                5 => {
                    let product = signed(al, size) * signed(b, size);
                    Some((product as u64, (product >> bits) as u64))
                }
                6 => double.checked_div(u128::from(b)).filter(|&q| q <= u128::from(ones(size)))
                    .map(|q| (q as u64, (double % u128::from(b)) as u64)),
                _ => signed_double.checked_div(signed(b, size)).filter(|&q| fits(q, size))
                    .map(|q| (q as u64, (signed_double % signed(b, size)) as u64)),
            };
            let code = sized(size, false, &[], 0xf6, &[0xc1 | kind << 3]);
            let Some((lower, upper)) = pair else {
                prop_assert_eq!(exception(&mut machine, &code), Exception::DIVIDE);
                let cpu = machine.cpu();
                prop_assert_eq!((cpu.gpr[RAX], cpu.gpr[RDX]), before);
                continue;
            };
            prop_assert_eq!(execute(&mut machine, &code), Ok(()));
            let cpu = machine.cpu();
            if size == 1 {
                prop_assert_eq!(cpu.gpr[RAX] & 0xffff, lower & 0xff | (upper & 0xff) << 8);
            } else {
                prop_assert_eq!(cpu.gpr[RAX], merged(low, lower, size), "{:02x?}", code);
                prop_assert_eq!(cpu.gpr[RDX], merged(high, upper, size), "{:02x?}", code);
            }
            let significant = match kind {
                4 => u128::from(al) * u128::from(b) > u128::from(ones(size)),
                5 => !fits(signed(al, size) * signed(b, size), size),
                _ => continue,
            };
            prop_assert_eq!(cpu.rflags & (CF | OF), flag(significant, CF | OF));
        }
    }

    #[test]
    fn decimal_sums_are_right_after_daa(left in 0..100_u8, right in 0..100_u8) {
        let packed = |n: u8| ((n / 10) << 4) | (n % 10);
        let mut machine = Machine::new(&[], 32);
        machine.cpu().gpr[RAX] = u64::from(packed(left));
        machine.cpu().gpr[RCX] = u64::from(packed(right));
        prop_assert_eq!(execute(&mut machine, &[0x00, 0xc8]), Ok(()));
        prop_assert_eq!(execute(&mut machine, &[0x27]), Ok(()));
        let sum = left + right;
        prop_assert_eq!(machine.cpu().gpr[RAX] as u8, packed(sum % 100));
        prop_assert_eq!(machine.cpu().rflags & CF != 0, sum > 99);
        // And back again.
        prop_assert_eq!(execute(&mut machine, &[0x28, 0xc8]), Ok(()));
        prop_assert_eq!(execute(&mut machine, &[0x2f]), Ok(()));
        prop_assert_eq!(machine.cpu().gpr[RAX] as u8, packed(left));
    }
}

#[test]
fn products_with_two_and_three_operands_are_cut_to_the_size() {
    let mut machine = Machine::new(&[], 64);
    poke(&machine, (-3_i64) as u64);
    for (code, expected, overflows) in [
        (&[0x48, 0x0f, 0xaf, 0xc1][..], (-70_i64) as u64, false), // IMUL RAX, RCX
        (&[0x0f, 0xaf, 0x06], (-21_i32) as u32 as u64, false),    // IMUL EAX, [RSI]
        (&[0x48, 0x6b, 0xc1, 0xf8], 80, false),                   // IMUL RAX, RCX, -8
        (&[0x48, 0x69, 0xc1, 0, 0, 0, 0x40], (-0x2_8000_0000_i64) as u64, false), // IMUL RAX, RCX, 0x40000000
        (&[0x69, 0xc1, 0, 0, 0, 0x40], 0x8000_0000, true),        // IMUL EAX, ECX, 0x40000000
        (&[0x48, 0x69, 0x06, 0, 1, 0, 0], (-768_i64) as u64, false), // IMUL RAX, [RSI], 256
        (&[0x66, 0x69, 0xc0, 0, 0x40], 0xc000, true),             // IMUL AX, AX, 0x4000
    ] {
        let cpu = machine.cpu();
        (cpu.gpr[RAX], cpu.gpr[RCX]) = (7, (-10_i64) as u64);
        cpu.rflags = 2;
        execute(&mut machine, code).expect("no trap");
        assert_eq!(machine.cpu().gpr[RAX], expected, "{code:02x?}");
        assert_eq!(machine.cpu().rflags & (CF | OF), flag(overflows, CF | OF), "{code:02x?}");
    }
}

#[test]
fn increments_leave_the_carry_alone() {
    let mut machine = Machine::new(&[], 64);
    machine.cpu().gpr[RAX] = 0xffff_ffff;
    machine.cpu().rflags = 3;
    // INC EAX
    execute(&mut machine, &[0xff, 0xc0]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RAX], 0);
    assert_eq!(machine.cpu().rflags, 2 | CF | ZF | PF | AF);
    // DEC AL
    execute(&mut machine, &[0xfe, 0xc8]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RAX], 0xff);
    assert_eq!(machine.cpu().rflags, 2 | CF | SF | PF | AF);
}

#[test]
fn negation_carries_unless_it_is_of_zero() {
    let mut machine = Machine::new(&[], 64);
    machine.cpu().gpr[RAX] = 0x80;
    // NEG AL
    execute(&mut machine, &[0xf6, 0xd8]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RAX], 0x80);
    assert_eq!(machine.cpu().rflags & (CF | OF | SF), CF | OF | SF);
    machine.cpu().gpr[RAX] = 0;
    execute(&mut machine, &[0xf6, 0xd8]).expect("no trap");
    assert_eq!(machine.cpu().rflags & (CF | ZF), ZF);
}

#[test]
fn high_bytes_are_operands_of_their_own() {
    let mut machine = Machine::new(&[], 64);
    machine.cpu().gpr[RAX] = 0x1122_3344_5566_7788;
    machine.cpu().gpr[3] = 0x0100;
    // ADD AH, BH; then MOV AL, AH
    execute(&mut machine, &[0x00, 0xfc]).expect("no trap");
    execute(&mut machine, &[0x88, 0xe0]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RAX], 0x1122_3344_5566_7878);
    // With REX, the same number is SPL: MOV AL, SPL
    machine.cpu().gpr[4] = 0x7042;
    execute(&mut machine, &[0x40, 0x88, 0xe0]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RAX] as u8, 0x42);
}

#[test]
fn unpacked_digits_are_adjusted() {
    let mut machine = Machine::new(&[], 32);
    machine.cpu().gpr[RAX] = 0x000b;
    execute(&mut machine, &[0x37]).expect("no trap"); // AAA
    assert_eq!(machine.cpu().gpr[RAX], 0x0101);
    assert_eq!(machine.cpu().rflags & (CF | AF), CF | AF);
    machine.cpu().gpr[RAX] = 0x0200;
    execute(&mut machine, &[0x3f]).expect("no trap"); // AAS, with AF still set
    assert_eq!(machine.cpu().gpr[RAX], 0x000a);
    machine.cpu().gpr[RAX] = 63;
    execute(&mut machine, &[0xd4, 10]).expect("no trap"); // AAM
    assert_eq!(machine.cpu().gpr[RAX], 0x0603);
    execute(&mut machine, &[0xd5, 10]).expect("no trap"); // AAD
    assert_eq!(machine.cpu().gpr[RAX], 63);
    assert_eq!(exception(&mut machine, &[0xd4, 0]), Exception::DIVIDE);
}

#[test]
fn decimal_adjustments_do_not_exist_in_64_bit_code() {
    let mut machine = Machine::new(&[], 64);
    assert_eq!(exception(&mut machine, &[0x27]), Exception::INVALID_OPCODE);
}

#[test]
fn scans_of_zero_keep_the_register() {
    let mut machine = Machine::new(&[], 64);
    machine.cpu().gpr[RAX] = 0x55;
    // BSF and BSR EAX, ECX with ECX = 0
    for code in [&[0x0f, 0xbc, 0xc1], &[0x0f, 0xbd, 0xc1]] {
        machine.cpu().rflags = 2;
        execute(&mut machine, code).expect("no trap");
        assert_eq!(machine.cpu().gpr[RAX], 0x55);
        assert_eq!(machine.cpu().rflags & ZF, ZF);
    }
    machine.cpu().gpr[RCX] = 0x0018_0000;
    execute(&mut machine, &[0x0f, 0xbc, 0xc1]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RAX], 19);
    execute(&mut machine, &[0x0f, 0xbd, 0xc1]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RAX], 20);
    assert_eq!(machine.cpu().rflags & ZF, 0);
    // POPCNT RAX, RCX
    execute(&mut machine, &[0xf3, 0x48, 0x0f, 0xb8, 0xc1]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RAX], 2);
    assert_eq!(machine.cpu().rflags & ARITHMETIC, 0);
}

#[test]
fn counts_of_zeros_say_by_carry_that_there_is_nothing_else() {
    let mut machine = Machine::new(&[], 64);
    // TZCNT and LZCNT of CX, ECX and RCX to AX, EAX and RAX
    for (tzcnt, lzcnt, bits) in [
        (&[0x66, 0xf3, 0x0f, 0xbc, 0xc1][..], &[0x66, 0xf3, 0x0f, 0xbd, 0xc1][..], 16),
        (&[0xf3, 0x0f, 0xbc, 0xc1], &[0xf3, 0x0f, 0xbd, 0xc1], 32),
        (&[0xf3, 0x48, 0x0f, 0xbc, 0xc1], &[0xf3, 0x48, 0x0f, 0xbd, 0xc1], 64),
    ] {
        for (value, trailing, leading) in [(0, bits, bits), (1, 0, bits - 1), (0x180, 7, bits - 9)] {
            machine.cpu().gpr[RCX] = value;
            for (code, count) in [(tzcnt, trailing), (lzcnt, leading)] {
                machine.cpu().gpr[RAX] = 0;
                execute(&mut machine, code).expect("no trap");
                assert_eq!(machine.cpu().gpr[RAX], count, "{code:02x?}");
                let flags = u64::from(value == 0) | u64::from(count == 0) << 6;
                assert_eq!(machine.cpu().rflags & 0x41, flags, "{code:02x?}");
            }
        }
    }
}

#[test]
fn bytes_are_swapped_on_their_way_to_and_from_memory() {
    let mut machine = Machine::new(&[], 64);
    poke(&machine, 0x0123_4567_89ab_cdef);
    machine.cpu().gpr[RAX] = u64::MAX;
    // MOVBE AX, [RSI]; MOVBE ECX, [RSI]
    execute(&mut machine, &[0x66, 0x0f, 0x38, 0xf0, 0x06]).expect("no trap");
    execute(&mut machine, &[0x0f, 0x38, 0xf0, 0x0e]).expect("no trap");
    assert_eq!((machine.cpu().gpr[RAX], machine.cpu().gpr[RCX]), (0xffff_ffff_ffff_efcd, 0xefcd_ab89));
    // MOVBE [RSI], RCX
    execute(&mut machine, &[0x48, 0x0f, 0x38, 0xf1, 0x0e]).expect("no trap");
    assert_eq!(peek(&machine), 0x89ab_cdef_0000_0000);
}

#[test]
fn conditional_moves_clear_the_upper_half_even_if_not_met() {
    let mut machine = Machine::new(&[], 64);
    machine.cpu().gpr[RAX] = 0xffff_ffff_0000_0001;
    // CMOVE EAX, ECX with ZF clear
    execute(&mut machine, &[0x0f, 0x44, 0xc1]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RAX], 1);
}

#[test]
fn every_condition_holds_as_its_flags_say() {
    let mut machine = Machine::new(&[], 64);
    for bits in 0..32_u64 {
        let (cf, zf, sf, of, pf) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0, bits & 8 != 0, bits & 16 != 0);
        let table = [of, cf, zf, cf || zf, sf, pf, sf != of, zf || sf != of];
        for (i, &expected) in table.iter().enumerate() {
            for negated in [false, true] {
                machine.cpu().rflags = 2 | flag(cf, CF) | flag(zf, ZF) | flag(sf, SF) | flag(of, OF) | flag(pf, PF);
                // SETcc AL
                execute(&mut machine, &[0x0f, 0x90 | (i as u8) << 1 | u8::from(negated), 0xc0]).expect("no trap");
                assert_eq!(machine.cpu().gpr[RAX] as u8, u8::from(expected != negated), "condition {i}, {bits:b}");
            }
        }
    }
}
