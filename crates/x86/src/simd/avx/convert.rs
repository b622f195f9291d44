//! Conversions between integers, singles, doubles and halves.
//!
//! Source: SDM vol. 1 § 14.4 (half precision); SDM vol. 2 (CVT*, VCVT*); SDM vol. 1 § 11.5.2.1 (the integer indefinite).

use iced_x86::Mnemonic;

use super::{
    Vex,
    operands::{Vector, enter, forms, load_long, set_low, set_vector, vector},
};
use crate::{
    access::Access,
    float::{Format, Number, Rounding},
    op::{Handler, Op},
    protection::address::{load, store},
    simd::real::{Context, Real, from_integer, narrow, to_integer, widen},
    state::CpuState,
    trap::Trap,
};

/// A conversion of one element.
trait Conversion {
    /// Bits of an element before.
    const FROM: u32;
    /// Bits of an element after.
    const TO: u32;
    fn convert(context: &mut Context, bits: u64) -> u64;
}

macro_rules! conversions {
    ($($name:ident: $from:literal => $to:literal, |$context:ident, $bits:ident| $value:expr;)*) => {
        $(
            struct $name;
            impl Conversion for $name {
                const FROM: u32 = $from;
                const TO: u32 = $to;
                #[inline(always)]
                fn convert($context: &mut Context, $bits: u64) -> u64 {
                    $value
                }
            }
        )*
    };
}

conversions! {
    IntegerToSingle: 32 => 32, |context, bits| from_integer::<f32>(context, i64::from(bits as i32)).to_u64();
    IntegerToDouble: 32 => 64, |_context, bits| f64::host_from_integer(i64::from(bits as i32)).to_u64();
    SingleToInteger: 32 => 32, |context, bits| to_integer(context, f32::from_u64(bits), 32, false) as u64;
    SingleCutToInteger: 32 => 32, |context, bits| to_integer(context, f32::from_u64(bits), 32, true) as u64;
    DoubleToInteger: 64 => 32, |context, bits| to_integer(context, f64::from_u64(bits), 32, false) as u64;
    DoubleCutToInteger: 64 => 32, |context, bits| to_integer(context, f64::from_u64(bits), 32, true) as u64;
    SingleToDouble: 32 => 64, |context, bits| widen(context, f32::from_u64(bits)).to_u64();
    DoubleToSingle: 64 => 32, |context, bits| narrow(context, f64::from_u64(bits)).to_u64();
    HalfToSingle: 16 => 32, |context, bits| half_to_single(context, bits);
    SingleToHalf: 32 => 16, |context, bits| single_to_half(context, bits);
}

/// Denormal halves are no exception, and are never taken for zero.
fn half_to_single(context: &mut Context, bits: u64) -> u64 {
    context.software(|environment| {
        let half = Number { denormal: false, ..Number::unpack(Format::HALF, bits) };
        environment.convert(Format::SINGLE, half).pack(Format::SINGLE)
    })
}

/// The immediate chooses how to round, or leaves that to MXCSR; tiny results are never flushed to zero.
fn single_to_half(context: &mut Context, bits: u64) -> u64 {
    let immediate = context.immediate;
    context.software(|environment| {
        if immediate & 4 == 0 {
            environment.rounding = Rounding::from_bits(u32::from(immediate));
        }
        environment.flush_to_zero = false;
        let single = environment.operand(Format::SINGLE, bits);
        environment.convert(Format::HALF, single).pack(Format::HALF)
    })
}

/// How many elements of the wider kind a vector has.
const fn elements(long: bool, from: u32, to: u32) -> u32 {
    let width = if from > to { from } else { to };
    if long { 256 / width } else { 128 / width }
}

/// All elements of a vector, converted.
#[inline(always)]
fn convert_all<C: Conversion, const LONG: bool>(context: &mut Context, a: Vector) -> Vector {
    let mut result = [0; 2];
    for i in 0..elements(LONG, C::FROM, C::TO) {
        let (from, to) = (i * C::FROM, i * C::TO);
        let bits = (a[(from >> 7) as usize & 1] >> (from & 127)) as u64 & (u64::MAX >> (64 - C::FROM));
        let converted = C::convert(context, bits) & (u64::MAX >> (64 - C::TO));
        result[(to >> 7) as usize & 1] |= u128::from(converted) << (to & 127);
    }
    result
}

extern "C" fn packed<C: Conversion, const LONG: bool, const MEMORY: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    enter(cpu)?;
    let a = match (MEMORY, elements(LONG, C::FROM, C::TO) * C::FROM / 8) {
        (false, _) => vector(cpu, op.aux),
        // Halves may lie anywhere (SDM vol. 2 § 2.4, type 11).
        (true, 8) if C::FROM == 16 => {
            let offset = op.effective_address(cpu);
            let linear = cpu.linear_of_any_alignment(op.segment, offset, 8, Access::Read)?;
            [cpu.read::<u64>(linear)?.into(), 0]
        }
        (true, 8) => [load::<u64>(cpu, op)?.into(), 0],
        (true, 16) => [load(cpu, op)?, 0],
        (true, _) => load_long(cpu, op)?,
    };
    let mut context = Context::new(cpu, op.imm as u8);
    let result = convert_all::<C, LONG>(&mut context, a);
    context.finish(cpu)?;
    set_vector(cpu, op.dst, result);
    Ok(())
}

/// VCVTPS2PH, whose destination may be memory. As on Intel's processors, MXCSR tells of the conversion even if the store
/// faults then.
extern "C" fn to_halves<const LONG: bool, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let a = vector(cpu, op.src);
    let mut context = Context::new(cpu, op.imm as u8);
    let [result, _] = convert_all::<SingleToHalf, LONG>(&mut context, a);
    context.finish(cpu)?;
    match (MEMORY, LONG) {
        (false, _) => {
            set_low(cpu, op.dst, result);
            Ok(())
        }
        (true, true) => store(cpu, op, result),
        (true, false) => {
            let offset = op.effective_address(cpu);
            let linear = cpu.linear_of_any_alignment(op.segment, offset, 8, Access::Write)?;
            cpu.write(linear, result as u64)
        }
    }
}

/// The handler of a conversion.
pub(super) fn select(mnemonic: Mnemonic, vex: &Vex<'_>) -> Option<Handler> {
    Some(match mnemonic {
        Mnemonic::Vcvtdq2ps => forms!(vex, packed, IntegerToSingle),
        Mnemonic::Vcvtdq2pd => forms!(vex, packed, IntegerToDouble),
        Mnemonic::Vcvtps2dq => forms!(vex, packed, SingleToInteger),
        Mnemonic::Vcvttps2dq => forms!(vex, packed, SingleCutToInteger),
        Mnemonic::Vcvtpd2dq => forms!(vex, packed, DoubleToInteger),
        Mnemonic::Vcvttpd2dq => forms!(vex, packed, DoubleCutToInteger),
        Mnemonic::Vcvtps2pd => forms!(vex, packed, SingleToDouble),
        Mnemonic::Vcvtpd2ps => forms!(vex, packed, DoubleToSingle),
        Mnemonic::Vcvtph2ps => forms!(vex, packed, HalfToSingle),
        Mnemonic::Vcvtps2ph => forms!(vex, to_halves),
        _ => return None,
    })
}
