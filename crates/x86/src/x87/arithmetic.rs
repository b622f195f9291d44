//! Arithmetic with two operands or one, remainders, scaling, and elementary functions.
//!
//! Sources: SDM vol. 1 § 8.3.5, § 8.3.7 to 8.3.10; SDM vol. 2 for each instruction.

use iced_x86::Mnemonic;

use super::{
    compare::{C0, C2, C3},
    control::C1,
    source::{Integer16, Integer32, Real32, Real64, Source},
    stack::{
        StackFault, begin, begin_memory, conclude, environment, is_empty, number, pop, push, result_format, set_number,
        stack_fault,
    },
};
use crate::{
    decode::{Form, Kind},
    float::{Class, Environment, Flags, Format, Number, Rounding, arithmetic::remainder},
    op::{Handler, Op},
    state::CpuState,
    trap::Trap,
};

/// One of the four operations, or one with its operands reversed.
trait Operation {
    fn compute(environment: &mut Environment, format: Format, destination: Number, source: Number) -> Number;
}

macro_rules! operations {
    ($($name:ident: |$environment:ident, $format:ident, $d:ident, $s:ident| $result:expr;)*) => {
        $(
            struct $name;
            impl Operation for $name {
                #[inline(always)]
                fn compute($environment: &mut Environment, $format: Format, $d: Number, $s: Number) -> Number {
                    $result
                }
            }
        )*
    };
}

operations! {
    Add: |environment, format, d, s| environment.add(format, d, s);
    Subtract: |environment, format, d, s| environment.subtract(format, d, s);
    SubtractReversed: |environment, format, d, s| environment.subtract(format, s, d);
    Multiply: |environment, format, d, s| environment.multiply(format, d, s);
    Divide: |environment, format, d, s| environment.divide(format, d, s);
    DivideReversed: |environment, format, d, s| environment.divide(format, s, d);
}

/// Reports an empty operand; ST(`destination`) becomes the default NaN if that is masked.
#[cold]
fn underflow(cpu: &mut CpuState, op: &Op, destination: u8, pops: u8) {
    if stack_fault(cpu, op, StackFault::Underflow) {
        set_number(cpu, destination, Number::DEFAULT_NAN);
        pop(cpu, pops);
    }
}

extern "C" fn on_registers<O: Operation, const POPS: u8>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin(cpu, op)?;
    if is_empty(cpu, op.dst) || is_empty(cpu, op.src) {
        underflow(cpu, op, op.dst, POPS);
        return Ok(());
    }
    let mut environment = environment(cpu);
    let result = O::compute(&mut environment, result_format(cpu), number(cpu, op.dst), number(cpu, op.src));
    if conclude(cpu, op, &environment) {
        set_number(cpu, op.dst, result);
        pop(cpu, POPS);
    }
    Ok(())
}

extern "C" fn on_memory<O: Operation, S: Source>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin_memory(cpu, op)?;
    let source = S::fetch(cpu, op)?;
    if is_empty(cpu, 0) {
        underflow(cpu, op, 0, 0);
        return Ok(());
    }
    let mut environment = environment(cpu);
    let result = O::compute(&mut environment, result_format(cpu), number(cpu, 0), source);
    if conclude(cpu, op, &environment) {
        set_number(cpu, 0, result);
    }
    Ok(())
}

/// An operation on ST(0) alone.
trait Unary {
    fn compute(environment: &mut Environment, format: Format, x: Number) -> Number;
}

struct SquareRoot;
impl Unary for SquareRoot {
    fn compute(environment: &mut Environment, format: Format, x: Number) -> Number {
        environment.square_root(format, x)
    }
}

struct RoundToInteger;
impl Unary for RoundToInteger {
    fn compute(environment: &mut Environment, _: Format, x: Number) -> Number {
        environment.round_to_integral(x)
    }
}

struct PowerOfTwo;
impl Unary for PowerOfTwo {
    fn compute(environment: &mut Environment, _: Format, x: Number) -> Number {
        environment.power_of_two_minus_1(x)
    }
}

extern "C" fn on_top<U: Unary>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin(cpu, op)?;
    if is_empty(cpu, 0) {
        underflow(cpu, op, 0, 0);
        return Ok(());
    }
    let mut environment = environment(cpu);
    let result = U::compute(&mut environment, result_format(cpu), number(cpu, 0));
    if conclude(cpu, op, &environment) {
        set_number(cpu, 0, result);
    }
    Ok(())
}

/// An operation on ST(0) and ST(1) whose result is as precise as can be.
trait Pair {
    fn compute(environment: &mut Environment, top: Number, next: Number) -> Number;
}

struct Logarithm;
impl Pair for Logarithm {
    fn compute(environment: &mut Environment, top: Number, next: Number) -> Number {
        environment.logarithm(next, top)
    }
}

struct LogarithmPlus1;
impl Pair for LogarithmPlus1 {
    fn compute(environment: &mut Environment, top: Number, next: Number) -> Number {
        environment.logarithm_plus_1(next, top)
    }
}

struct Arctangent;
impl Pair for Arctangent {
    fn compute(environment: &mut Environment, top: Number, next: Number) -> Number {
        environment.arctangent(next, top)
    }
}

/// A finite number that an operand of zero or infinity leaves as it is: it does not underflow, however small it is.
fn unchanged(environment: &Environment, x: Number) -> Number {
    let mut quiet = Environment { masked: Flags::all(), flags: Flags::empty(), ..*environment };
    quiet.round(Format::EXTENDED, x.sign, x.exponent, u128::from(x.significand) << 64)
}

struct Scale;
impl Pair for Scale {
    fn compute(environment: &mut Environment, top: Number, next: Number) -> Number {
        if top.is_nan() || next.is_nan() {
            return environment.propagate(top, next);
        }
        if next.is_infinite() {
            if next.sign && top.is_infinite() || !next.sign && top.is_zero() {
                return environment.invalid();
            }
            environment.check_denormal(&[top]);
            return if next.sign { Number::zero(top.sign) } else { Number::infinity(top.sign) };
        }
        environment.check_denormal(&[top, next]);
        if top.class != Class::Finite {
            return top;
        }
        if next.is_zero() {
            return unchanged(environment, top);
        }
        // Beyond this every result overflows, or underflows.
        const LIMIT: i64 = 1 << 16;
        let quiet = &mut Environment { flags: Flags::empty(), ..*environment };
        let scale = match next.exponent {
            16.. if next.sign => -LIMIT,
            16.. => LIMIT,
            _ => quiet.round_to_integer(next, 64, Rounding::Zero),
        };
        let significand = u128::from(top.significand) << 64;
        environment.round(Format::EXTENDED, top.sign, top.exponent + scale as i32, significand)
    }
}

extern "C" fn on_pair<P: Pair, const POPS: u8>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin(cpu, op)?;
    if is_empty(cpu, 0) || is_empty(cpu, 1) {
        underflow(cpu, op, POPS, POPS);
        return Ok(());
    }
    let mut environment = environment(cpu);
    let result = P::compute(&mut environment, number(cpu, 0), number(cpu, 1));
    if conclude(cpu, op, &environment) {
        // What is popped makes the register below the top the destination.
        set_number(cpu, POPS, result);
        pop(cpu, POPS);
    }
    Ok(())
}

/// FPREM and FPREM1: a step of the remainder; C2 is set until it is complete, then C0, C3 and C1 have the quotient's
/// last three bits.
extern "C" fn partial_remainder<const NEAREST: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin(cpu, op)?;
    if is_empty(cpu, 0) || is_empty(cpu, 1) {
        cpu.x87.status &= !C2;
        underflow(cpu, op, 0, 0);
        return Ok(());
    }
    let mut environment = environment(cpu);
    let (a, b) = (number(cpu, 0), number(cpu, 1));
    let mut quotient = Some(0);
    cpu.x87.status &= !C2;
    let special = a.is_nan() || b.is_nan() || a.is_infinite() || b.is_zero();
    let result = if a.is_nan() || b.is_nan() {
        environment.propagate(a, b)
    } else if special {
        environment.invalid()
    } else {
        environment.check_denormal(&[a, b]);
        let mut rest = a;
        if !a.is_zero() && !b.is_infinite() {
            let step = remainder(a, b, NEAREST);
            (rest, quotient) = (step.value, step.quotient);
        }
        match rest.class {
            Class::Finite if b.is_infinite() => unchanged(&environment, a),
            Class::Finite => {
                let significand = u128::from(rest.significand) << 64;
                environment.round(Format::EXTENDED, rest.sign, rest.exponent, significand)
            }
            _ => rest,
        }
    };
    if conclude(cpu, op, &environment) {
        set_number(cpu, 0, result);
        if special {
            return Ok(());
        }
        let condition = |bit: u32, code: u16| match quotient {
            Some(quotient) if quotient >> bit & 1 != 0 => code,
            _ => 0,
        };
        let incomplete = if quotient.is_none() { C2 } else { 0 };
        let codes = incomplete | condition(2, C0) | condition(1, C3) | condition(0, C1);
        cpu.x87.status = cpu.x87.status & !(C0 | C1 | C2 | C3) | codes;
    }
    Ok(())
}

/// FXTRACT: the exponent stays in ST(0)'s place, the significand is pushed above it.
extern "C" fn extract(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin(cpu, op)?;
    if !two_results_fit(cpu, op) {
        return Ok(());
    }
    let mut environment = environment(cpu);
    let x = number(cpu, 0);
    let (exponent, significand) = match x.class {
        Class::Zero => {
            environment.raise(Flags::ZERO_DIVIDE);
            (Number::infinity(true), x)
        }
        Class::Infinity => (Number::infinity(false), x),
        Class::Finite => {
            environment.check_denormal(&[x]);
            (Number::from_integer(i64::from(x.exponent)), Number { exponent: 0, ..x })
        }
        _ => {
            let nan = environment.quiet(x);
            (nan, nan)
        }
    };
    if conclude(cpu, op, &environment) {
        set_number(cpu, 0, exponent);
        push(cpu, significand.pack_extended());
    }
    Ok(())
}

/// For instructions that replace ST(0) and push: reports a stack fault, after which both results are the default NaN.
fn two_results_fit(cpu: &mut CpuState, op: &Op) -> bool {
    let fault = if is_empty(cpu, 0) {
        StackFault::Underflow
    } else if !is_empty(cpu, 7) {
        StackFault::Overflow
    } else {
        return true;
    };
    if stack_fault(cpu, op, fault) {
        set_number(cpu, 0, Number::DEFAULT_NAN);
        push(cpu, Number::DEFAULT_NAN.pack_extended());
    }
    false
}

/// FSIN and FCOS.
extern "C" fn trigonometric<const COSINE: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin(cpu, op)?;
    if is_empty(cpu, 0) {
        cpu.x87.status &= !C2;
        underflow(cpu, op, 0, 0);
        return Ok(());
    }
    let mut environment = environment(cpu);
    let x = number(cpu, 0);
    let Some(result) = (if COSINE { environment.cosine(x) } else { environment.sine(x) }) else {
        cpu.x87.status = cpu.x87.status & !C1 | C2;
        return Ok(());
    };
    cpu.x87.status &= !C2;
    if conclude(cpu, op, &environment) {
        set_number(cpu, 0, result);
    }
    Ok(())
}

/// FSINCOS pushes the cosine above the sine, FPTAN a one above the tangent.
extern "C" fn trigonometric_pair<const TANGENT: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin(cpu, op)?;
    if !two_results_fit(cpu, op) {
        cpu.x87.status &= !C2;
        return Ok(());
    }
    let mut environment = environment(cpu);
    let x = number(cpu, 0);
    let results = if TANGENT {
        let one = if x.is_nan() || x.is_infinite() { None } else { Some(Number::from_integer(1)) };
        environment.tangent(x).map(|tangent| (tangent, one.unwrap_or(tangent)))
    } else {
        environment.sine(x).zip(environment.cosine(x))
    };
    let Some((first, second)) = results else {
        cpu.x87.status = cpu.x87.status & !C1 | C2;
        return Ok(());
    };
    cpu.x87.status &= !C2;
    if conclude(cpu, op, &environment) {
        set_number(cpu, 0, first);
        push(cpu, second.pack_extended());
    }
    Ok(())
}

/// The handler of one of the four operations for a form.
fn binary<O: Operation>(form: &Form, integer: bool, pops: bool) -> Handler {
    match (form.kinds[0], form.sizes[0], integer) {
        (Kind::Memory, 2, true) => on_memory::<O, Integer16>,
        (Kind::Memory, _, true) => on_memory::<O, Integer32>,
        (Kind::Memory, 4, false) => on_memory::<O, Real32>,
        (Kind::Memory, ..) => on_memory::<O, Real64>,
        _ if pops => on_registers::<O, 1>,
        _ => on_registers::<O, 0>,
    }
}

/// The handler of an arithmetic instruction.
pub(super) fn select(mnemonic: Mnemonic, form: &Form) -> Option<Handler> {
    Some(match mnemonic {
        Mnemonic::Fadd => binary::<Add>(form, false, false),
        Mnemonic::Faddp => binary::<Add>(form, false, true),
        Mnemonic::Fiadd => binary::<Add>(form, true, false),
        Mnemonic::Fsub => binary::<Subtract>(form, false, false),
        Mnemonic::Fsubp => binary::<Subtract>(form, false, true),
        Mnemonic::Fisub => binary::<Subtract>(form, true, false),
        Mnemonic::Fsubr => binary::<SubtractReversed>(form, false, false),
        Mnemonic::Fsubrp => binary::<SubtractReversed>(form, false, true),
        Mnemonic::Fisubr => binary::<SubtractReversed>(form, true, false),
        Mnemonic::Fmul => binary::<Multiply>(form, false, false),
        Mnemonic::Fmulp => binary::<Multiply>(form, false, true),
        Mnemonic::Fimul => binary::<Multiply>(form, true, false),
        Mnemonic::Fdiv => binary::<Divide>(form, false, false),
        Mnemonic::Fdivp => binary::<Divide>(form, false, true),
        Mnemonic::Fidiv => binary::<Divide>(form, true, false),
        Mnemonic::Fdivr => binary::<DivideReversed>(form, false, false),
        Mnemonic::Fdivrp => binary::<DivideReversed>(form, false, true),
        Mnemonic::Fidivr => binary::<DivideReversed>(form, true, false),
        Mnemonic::Fsqrt => on_top::<SquareRoot>,
        Mnemonic::Frndint => on_top::<RoundToInteger>,
        Mnemonic::F2xm1 => on_top::<PowerOfTwo>,
        Mnemonic::Fyl2x => on_pair::<Logarithm, 1>,
        Mnemonic::Fyl2xp1 => on_pair::<LogarithmPlus1, 1>,
        Mnemonic::Fpatan => on_pair::<Arctangent, 1>,
        Mnemonic::Fscale => on_pair::<Scale, 0>,
        Mnemonic::Fprem => partial_remainder::<false>,
        Mnemonic::Fprem1 => partial_remainder::<true>,
        Mnemonic::Fxtract => extract,
        Mnemonic::Fsin => trigonometric::<false>,
        Mnemonic::Fcos => trigonometric::<true>,
        Mnemonic::Fsincos => trigonometric_pair::<false>,
        Mnemonic::Fptan => trigonometric_pair::<true>,
        _ => return None,
    })
}
