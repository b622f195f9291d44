//! The arithmetic against the host's, against another implementation, and at its edges.

use proptest::prelude::*;
use rustc_apfloat::{
    Float, Round, Status,
    ieee::{Double, Single, X87DoubleExtended},
};

use super::{Environment, Flags, Format, NanRule, Number, Rounding, arithmetic::remainder};

fn environment(rounding: Rounding) -> Environment {
    Environment {
        rounding,
        masked: Flags::all(),
        flush_to_zero: false,
        denormals_are_zero: false,
        nan_rule: NanRule::First,
        wrap: 0,
        flags: Flags::empty(),
        rounded_up: false,
    }
}

const MODES: [(Rounding, Round); 4] = [
    (Rounding::Nearest, Round::NearestTiesToEven),
    (Rounding::Down, Round::TowardNegative),
    (Rounding::Up, Round::TowardPositive),
    (Rounding::Zero, Round::TowardZero),
];

/// What the other implementation reports, without what it reports differently: it finds results tiny before rounding
/// to the full precision, does not call it overflow where the largest number is the result, and knows no denormal
/// operands.
fn common(status: Status) -> Flags {
    let mut flags = Flags::empty();
    flags.set(Flags::INVALID, status.contains(Status::INVALID_OP));
    flags.set(Flags::ZERO_DIVIDE, status.contains(Status::DIV_BY_ZERO));
    flags.set(Flags::INEXACT, status.contains(Status::INEXACT));
    flags
}

const COMPARED: Flags = Flags::INVALID.union(Flags::ZERO_DIVIDE).union(Flags::INEXACT);

fn single() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        (any::<bool>(), 0u32..256, prop_oneof![Just(0), Just(1), Just(0x7f_ffff), Just(0x40_0000), 0u32..0x80_0000])
            .prop_map(|(sign, exponent, fraction)| u32::from(sign) << 31 | exponent << 23 | fraction),
        (any::<bool>(), 120u32..135, 0u32..0x80_0000)
            .prop_map(|(sign, exponent, fraction)| u32::from(sign) << 31 | exponent << 23 | fraction & 0x7f_ff00),
        (any::<bool>(), 0u32..3, 0u32..0x80_0000)
            .prop_map(|(sign, exponent, fraction)| u32::from(sign) << 31 | exponent << 23 | fraction),
    ]
}

fn double() -> impl Strategy<Value = u64> {
    let fraction = || prop_oneof![Just(0), Just(1), Just((1 << 52) - 1), Just(1 << 51), 0u64..1 << 52];
    prop_oneof![
        any::<u64>(),
        (any::<bool>(), 0u64..2048, fraction()).prop_map(|(s, e, f)| u64::from(s) << 63 | e << 52 | f),
        (any::<bool>(), 990u64..1060, fraction()).prop_map(|(s, e, f)| u64::from(s) << 63 | e << 52 | f),
        (any::<bool>(), 0u64..3, fraction()).prop_map(|(s, e, f)| u64::from(s) << 63 | e << 52 | f),
    ]
}

fn extended() -> impl Strategy<Value = u128> {
    let encode = |(sign, exponent, fraction): (bool, u128, u64)| {
        let integer = u128::from(exponent != 0) << 63;
        u128::from(sign) << 79 | exponent << 64 | integer | u128::from(fraction) >> 1
    };
    let fraction = || prop_oneof![Just(0), Just(2), Just(u64::MAX), Just(1 << 63), any::<u64>()];
    prop_oneof![
        (any::<bool>(), 0u128..0x7fff, fraction()).prop_map(encode),
        (any::<bool>(), 0x3fc0u128..0x4040, fraction()).prop_map(encode),
        (any::<bool>(), 0u128..3, fraction()).prop_map(encode),
        (any::<bool>(), Just(0x7fff), Just(0)).prop_map(encode),
    ]
}

type Operation = fn(&mut Environment, Format, Number, Number) -> Number;
const OPERATIONS: [Operation; 4] =
    [Environment::add, Environment::subtract, Environment::multiply, Environment::divide];

/// The four operations of the other implementation.
fn reference<T: Float>(operation: usize, a: T, b: T, round: Round) -> (T, Flags) {
    let result = match operation {
        0 => a.add_r(b, round),
        1 => a.sub_r(b, round),
        2 => a.mul_r(b, round),
        _ => a.div_r(b, round),
    };
    (result.value, common(result.status))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn single_arithmetic_agrees_with_another_implementation(a in single(), b in single()) {
        for (rounding, round) in MODES {
            for (i, operation) in OPERATIONS.iter().enumerate() {
                let mut env = environment(rounding);
                let unpack = |bits: u32| Number::unpack(Format::SINGLE, u64::from(bits));
                let result = operation(&mut env, Format::SINGLE, unpack(a), unpack(b));
                let (expected, flags) =
                    reference(i, Single::from_bits(u128::from(a)), Single::from_bits(u128::from(b)), round);
                if expected.is_nan() {
                    prop_assert!(result.is_nan());
                } else {
                    prop_assert_eq!(u128::from(result.pack(Format::SINGLE)), expected.to_bits());
                    prop_assert_eq!(env.flags & COMPARED, flags);
                }
            }
        }
    }

    #[test]
    fn double_arithmetic_agrees_with_another_implementation(a in double(), b in double()) {
        for (rounding, round) in MODES {
            for (i, operation) in OPERATIONS.iter().enumerate() {
                let mut env = environment(rounding);
                let unpack = |bits: u64| Number::unpack(Format::DOUBLE, bits);
                let result = operation(&mut env, Format::DOUBLE, unpack(a), unpack(b));
                let (expected, flags) =
                    reference(i, Double::from_bits(u128::from(a)), Double::from_bits(u128::from(b)), round);
                if expected.is_nan() {
                    prop_assert!(result.is_nan());
                } else {
                    prop_assert_eq!(u128::from(result.pack(Format::DOUBLE)), expected.to_bits());
                    prop_assert_eq!(env.flags & COMPARED, flags);
                }
            }
        }
    }

    #[test]
    fn extended_arithmetic_agrees_with_another_implementation(a in extended(), b in extended()) {
        for (rounding, round) in MODES {
            for (i, operation) in OPERATIONS.iter().enumerate() {
                let mut env = environment(rounding);
                let result =
                    operation(&mut env, Format::EXTENDED, Number::unpack_extended(a), Number::unpack_extended(b));
                let (expected, flags) =
                    reference(i, X87DoubleExtended::from_bits(a), X87DoubleExtended::from_bits(b), round);
                if expected.is_nan() {
                    prop_assert!(result.is_nan());
                } else {
                    prop_assert_eq!(result.pack_extended(), expected.to_bits());
                    prop_assert_eq!(env.flags & COMPARED, flags);
                }
            }
        }
    }

    #[test]
    fn square_roots_agree_with_the_host(a in double(), b in single()) {
        let mut env = environment(Rounding::Nearest);
        let root = env.square_root(Format::DOUBLE, Number::unpack(Format::DOUBLE, a));
        let expected = f64::from_bits(a).sqrt();
        if expected.is_nan() {
            prop_assert!(root.is_nan());
        } else {
            prop_assert_eq!(root.pack(Format::DOUBLE), expected.to_bits());
        }
        let root = env.square_root(Format::SINGLE, Number::unpack(Format::SINGLE, u64::from(b)));
        let expected = f32::from_bits(b).sqrt();
        if expected.is_nan() {
            prop_assert!(root.is_nan());
        } else {
            prop_assert_eq!(root.pack(Format::SINGLE), u64::from(expected.to_bits()));
        }
    }

    #[test]
    fn directed_square_roots_enclose_the_root(a in extended()) {
        let number = Number::unpack_extended(a & !(1 << 79));
        let mut env = environment(Rounding::Down);
        let down = env.square_root(Format::EXTENDED, number).pack_extended();
        let inexact = env.flags.contains(Flags::INEXACT);
        let up = environment(Rounding::Up).square_root(Format::EXTENDED, number).pack_extended();
        // Neighbours differ by one when the integer bit is left out.
        let place = |bits: u128| bits >> 64 << 63 | bits & ((1 << 63) - 1);
        prop_assert_eq!(place(up) - place(down), u128::from(inexact));
        if !inexact && number.class == super::Class::Finite {
            let root = Number::unpack_extended(down);
            prop_assert_eq!(env.multiply(Format::EXTENDED, root, root).pack_extended(), number.pack_extended());
        }
    }

    #[test]
    fn conversions_and_comparisons_agree_with_the_host(a in double(), b in double()) {
        let (x, y) = (f64::from_bits(a), f64::from_bits(b));
        let unpack = |bits| Number::unpack(Format::DOUBLE, bits);
        let mut env = environment(Rounding::Nearest);
        let narrow = env.convert(Format::SINGLE, unpack(a));
        if !x.is_nan() {
            prop_assert_eq!(narrow.pack(Format::SINGLE), u64::from((x as f32).to_bits()));
        }
        prop_assert_eq!(env.compare(unpack(a), unpack(b), false), x.partial_cmp(&y));
        for (rounding, expected) in [
            (Rounding::Nearest, x.round_ties_even()),
            (Rounding::Down, x.floor()),
            (Rounding::Up, x.ceil()),
            (Rounding::Zero, x.trunc()),
        ] {
            let mut env = environment(rounding);
            let rounded = env.round_to_integral(unpack(a));
            if !x.is_nan() {
                prop_assert_eq!(rounded.pack(Format::DOUBLE), expected.to_bits());
                prop_assert_eq!(env.flags.contains(Flags::INEXACT), expected != x);
            }
            let mut env = environment(rounding);
            let integer = env.round_to_integer(unpack(a), 64, rounding);
            if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&expected) {
                prop_assert_eq!(integer, expected as i64);
            } else {
                prop_assert_eq!((integer, env.flags), (i64::MIN, Flags::INVALID));
            }
            let mut env = environment(rounding);
            let integer = env.round_to_integer(unpack(a), 32, rounding);
            if (-2_147_483_648.0..2_147_483_648.0).contains(&expected) {
                prop_assert_eq!(integer, expected as i64);
            } else {
                prop_assert_eq!((integer, env.flags), (i64::from(i32::MIN), Flags::INVALID));
            }
        }
    }

    #[test]
    fn integers_convert_as_on_the_host(value: i64) {
        let mut env = environment(Rounding::Nearest);
        let double = env.convert(Format::DOUBLE, Number::from_integer(value));
        prop_assert_eq!(double.pack(Format::DOUBLE), (value as f64).to_bits());
        prop_assert_eq!(env.round_to_integer(Number::from_integer(value), 64, Rounding::Nearest), value);
    }

    #[test]
    fn repeated_steps_of_a_remainder_agree_with_the_host(a in double(), b in double()) {
        let (x, y) = (f64::from_bits(a), f64::from_bits(b));
        prop_assume!(x.is_finite() && y.is_finite() && x != 0.0 && y != 0.0);
        let divisor = Number::unpack(Format::DOUBLE, b);
        let mut rest = Number::unpack(Format::DOUBLE, a);
        loop {
            let step = remainder(rest, divisor, false);
            rest = step.value;
            if step.quotient.is_some() || rest.is_zero() {
                break;
            }
        }
        let rest = environment(Rounding::Nearest).convert(Format::DOUBLE, rest);
        prop_assert_eq!(rest.pack(Format::DOUBLE), (x % y).to_bits());
    }

    #[test]
    fn elementary_functions_are_near_the_host_s(x in -1.0f64..1.0, y in -1e6f64..1e6) {
        let number = |x: f64| Number::unpack(Format::DOUBLE, x.to_bits());
        let mut env = environment(Rounding::Nearest);
        let mut near = |result: Number, expected: f64| {
            let result = f64::from_bits(env.convert(Format::DOUBLE, result).pack(Format::DOUBLE));
            (result - expected).abs() <= 4.0 * f64::EPSILON * expected.abs() + f64::MIN_POSITIVE
        };
        let mut env = environment(Rounding::Nearest);
        prop_assert!(near(env.power_of_two_minus_1(number(x)), (x * std::f64::consts::LN_2).exp_m1()));
        prop_assert!(near(env.logarithm(number(y), number(y.abs())), y * y.abs().log2()));
        prop_assert!(near(
            env.logarithm_plus_1(number(y), number(x / 4.0)), y * (x / 4.0).ln_1p() * std::f64::consts::LOG2_E
        ));
        prop_assert!(near(env.arctangent(number(y), number(x)), y.atan2(x)));
        prop_assert!(near(env.arctangent(number(x), number(y)), x.atan2(y)));
        // Here pi's 66 bits are enough for the host's result.
        prop_assert!(near(env.sine(number(x)).unwrap(), x.sin()));
        prop_assert!(near(env.cosine(number(x)).unwrap(), x.cos()));
        prop_assert!(near(env.tangent(number(x)).unwrap(), x.tan()));
    }

    #[test]
    fn sine_and_cosine_lie_on_the_circle(x in -9e18f64..9e18) {
        let number = Number::unpack(Format::DOUBLE, x.to_bits());
        let mut env = environment(Rounding::Nearest);
        let mut square = |value: Number| env.multiply(Format::EXTENDED, value, value);
        let mut env = environment(Rounding::Nearest);
        let (sine, cosine) = (square(env.sine(number).unwrap()), square(env.cosine(number).unwrap()));
        let sum = env.add(Format::EXTENDED, sine, cosine);
        let error = env.subtract(Format::EXTENDED, sum, Number::from_integer(1));
        prop_assert!(error.is_zero() || error.exponent <= -63);
    }
}

#[test]
fn a_result_is_tiny_if_it_is_so_after_rounding_to_full_precision() {
    // The smallest normal number less a quarter of its last place rounds up to it, and is not tiny; less a half of
    // what a denormal's last place is, it still becomes it, but is.
    let mut env = environment(Rounding::Nearest);
    let result = env.round(Format::SINGLE, false, -127, u128::MAX << 102);
    assert_eq!((result.pack(Format::SINGLE), env.flags), (0x80_0000, Flags::INEXACT));
    let mut env = environment(Rounding::Nearest);
    let result = env.round(Format::SINGLE, false, -127, u128::MAX << 104);
    assert_eq!((result.pack(Format::SINGLE), env.flags), (0x80_0000, Flags::INEXACT | Flags::UNDERFLOW));
}

#[test]
fn exact_denormals_underflow_only_where_that_traps_or_flushes() {
    let exact = |env: &mut Environment| env.round(Format::SINGLE, true, -127, 1 << 127).pack(Format::SINGLE);
    let mut env = environment(Rounding::Nearest);
    assert_eq!((exact(&mut env), env.flags), (0x8040_0000, Flags::empty()));
    let mut env = Environment { masked: Flags::empty(), ..environment(Rounding::Nearest) };
    exact(&mut env);
    assert_eq!(env.flags, Flags::UNDERFLOW);
    let mut env = Environment { flush_to_zero: true, ..environment(Rounding::Nearest) };
    assert_eq!((exact(&mut env), env.flags), (0x8000_0000, Flags::INEXACT | Flags::UNDERFLOW));
}

#[test]
fn overflow_gives_infinity_or_the_largest_number_as_the_mode_says() {
    for (rounding, positive, negative) in [
        (Rounding::Nearest, 0x7f80_0000, 0xff80_0000),
        (Rounding::Down, 0x7f7f_ffff, 0xff80_0000),
        (Rounding::Up, 0x7f80_0000, 0xff7f_ffff),
        (Rounding::Zero, 0x7f7f_ffff, 0xff7f_ffff),
    ] {
        let mut env = environment(rounding);
        assert_eq!(env.round(Format::SINGLE, false, 128, 1 << 127).pack(Format::SINGLE), positive);
        assert_eq!(env.round(Format::SINGLE, true, 128, 1 << 127).pack(Format::SINGLE), negative);
        assert_eq!(env.flags, Flags::OVERFLOW | Flags::INEXACT);
    }
}

#[test]
fn two_nans_give_the_one_that_the_rule_says() {
    let nan = |bits: u64| Number::unpack(Format::DOUBLE, bits);
    let (quiet, signaling) = (nan(0x7ff8_0000_0000_0001), nan(0x7ff4_0000_0000_0002));
    let larger = nan(0xfff8_0000_0000_0005);
    let mut sse = environment(Rounding::Nearest);
    assert_eq!(sse.add(Format::DOUBLE, quiet, larger).pack(Format::DOUBLE), 0x7ff8_0000_0000_0001);
    assert_eq!(sse.flags, Flags::empty());
    assert_eq!(sse.add(Format::DOUBLE, signaling, quiet).pack(Format::DOUBLE), 0x7ffc_0000_0000_0002);
    assert_eq!(sse.flags, Flags::INVALID);
    let mut x87 = Environment { nan_rule: NanRule::Larger, ..environment(Rounding::Nearest) };
    assert_eq!(x87.add(Format::DOUBLE, quiet, larger), larger);
    assert_eq!(x87.flags, Flags::empty());
    assert_eq!(x87.add(Format::DOUBLE, signaling, quiet), quiet);
    assert_eq!(x87.flags, Flags::INVALID);
}

#[test]
fn elementary_functions_give_known_80_bit_values() {
    let mut env = environment(Rounding::Nearest);
    let one = Number::from_integer(1);
    // pi / 4, log2(10), log2(e) * ln(2) through the constants, sin(1), cos(1), tan(1)
    assert_eq!(env.arctangent(one, one).pack_extended(), 0x3ffe_c90f_daa2_2168_c235);
    assert_eq!(env.logarithm(one, Number::from_integer(10)).pack_extended(), 0x4000_d49a_784b_cd1b_8afe);
    assert_eq!(env.logarithm(one, Number::from_integer(1 << 40)).pack_extended(), 0x4004_a000_0000_0000_0000);
    assert_eq!(env.sine(one).unwrap().pack_extended(), 0x3ffe_d76a_a478_4867_7021);
    assert_eq!(env.cosine(one).unwrap().pack_extended(), 0x3ffe_8a51_407d_a834_5c92);
    assert_eq!(env.power_of_two_minus_1(one.negated()).pack_extended(), 0xbffe_8000_0000_0000_0000);
}
