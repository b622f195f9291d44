//! Conversions between integers, singles and doubles.
//!
//! Sources: SDM vol. 1 § 11.4.4; SDM vol. 2 (CVT*); § 11.5.2.1 (the integer indefinite).

use iced_x86::Mnemonic;

use super::{
    Destination,
    lanes::{dword, from_qwords, qword},
    operands::{claim_mmx, enter_mmx, enter_sse, load, load_aligned, mmx, set_mmx, set_xmm, source, xmm},
    real::{Context, Real, from_integer, narrow, to_integer, widen},
};
use crate::{
    decode::{Form, Kind},
    op::{Handler, Op},
    state::CpuState,
    trap::Trap,
};

/// The low 64 bits of an XMM register, or 64 bits of memory.
#[inline(always)]
fn half_source<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<u64, Trap> {
    if MEMORY { load(cpu, op) } else { Ok(qword(xmm(cpu, op.src), 0)) }
}

/// Lane `index` as a signed integer of 32 bits.
#[inline(always)]
fn signed_dword(a: u128, index: u32) -> i64 {
    i64::from(dword(a, index) as i32)
}

/// Packs the low 32 bits of two integers.
#[inline(always)]
fn pair(low: i64, high: i64) -> u64 {
    u64::from(low as u32) | u64::from(high as u32) << 32
}

/// CVTDQ2PS.
extern "C" fn dwords_to_singles<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b = source::<MEMORY>(cpu, op)?;
    let mut context = Context::new(cpu, 0);
    let mut result = 0;
    for i in 0..4 {
        result |= from_integer::<f32>(&mut context, signed_dword(b, i)).placed(i);
    }
    context.finish(cpu)?;
    set_xmm(cpu, op.dst, result);
    Ok(())
}

/// CVTDQ2PD: exact.
extern "C" fn dwords_to_doubles<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b = u128::from(half_source::<MEMORY>(cpu, op)?);
    let lane = |i| f64::host_from_integer(signed_dword(b, i)).placed(i);
    set_xmm(cpu, op.dst, lane(0) | lane(1));
    Ok(())
}

/// CVTPS2DQ, CVTTPS2DQ.
extern "C" fn singles_to_dwords<const MEMORY: bool, const TRUNCATE: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b = source::<MEMORY>(cpu, op)?;
    let mut context = Context::new(cpu, 0);
    let mut lane = |i| to_integer(&mut context, f32::lane(b, i), 32, TRUNCATE);
    let result = from_qwords(pair(lane(0), lane(1)), pair(lane(2), lane(3)));
    context.finish(cpu)?;
    set_xmm(cpu, op.dst, result);
    Ok(())
}

/// CVTPD2DQ, CVTTPD2DQ.
extern "C" fn doubles_to_dwords<const MEMORY: bool, const TRUNCATE: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b = source::<MEMORY>(cpu, op)?;
    let mut context = Context::new(cpu, 0);
    let mut lane = |i| to_integer(&mut context, f64::lane(b, i), 32, TRUNCATE);
    let result = pair(lane(0), lane(1));
    context.finish(cpu)?;
    set_xmm(cpu, op.dst, u128::from(result));
    Ok(())
}

/// CVTPS2PD.
extern "C" fn singles_to_doubles<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b = u128::from(half_source::<MEMORY>(cpu, op)?);
    let mut context = Context::new(cpu, 0);
    let result = widen(&mut context, f32::lane(b, 0)).placed(0) | widen(&mut context, f32::lane(b, 1)).placed(1);
    context.finish(cpu)?;
    set_xmm(cpu, op.dst, result);
    Ok(())
}

/// CVTPD2PS.
extern "C" fn doubles_to_singles<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b = source::<MEMORY>(cpu, op)?;
    let mut context = Context::new(cpu, 0);
    let result = narrow(&mut context, f64::lane(b, 0)).placed(0) | narrow(&mut context, f64::lane(b, 1)).placed(1);
    context.finish(cpu)?;
    set_xmm(cpu, op.dst, result);
    Ok(())
}

/// CVTPI2PS; from memory it is no MMX instruction.
extern "C" fn mmx_to_singles<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b = u128::from(if MEMORY {
        load(cpu, op)?
    } else {
        enter_mmx(cpu)?;
        claim_mmx(cpu);
        mmx(cpu, op.src)
    });
    let mut context = Context::new(cpu, 0);
    let mut lane = |i| from_integer::<f32>(&mut context, signed_dword(b, i)).placed(i);
    let result = lane(0) | lane(1);
    context.finish(cpu)?;
    let old = xmm(cpu, op.dst);
    set_xmm(cpu, op.dst, from_qwords(result as u64, qword(old, 1)));
    Ok(())
}

/// CVTPI2PD; from memory it is no MMX instruction.
extern "C" fn mmx_to_doubles<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b = if MEMORY {
        load(cpu, op)?
    } else {
        enter_mmx(cpu)?;
        claim_mmx(cpu);
        mmx(cpu, op.src)
    };
    let lane = |i| f64::host_from_integer(signed_dword(u128::from(b), i)).placed(i);
    set_xmm(cpu, op.dst, lane(0) | lane(1));
    Ok(())
}

/// CVTPS2PI, CVTTPS2PI.
extern "C" fn singles_to_mmx<const MEMORY: bool, const TRUNCATE: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    enter_sse(cpu)?;
    enter_mmx(cpu)?;
    let b = u128::from(half_source::<MEMORY>(cpu, op)?);
    let mut context = Context::new(cpu, 0);
    let mut lane = |i| to_integer(&mut context, f32::lane(b, i), 32, TRUNCATE);
    let result = pair(lane(0), lane(1));
    // The x87 becomes MMX's even if the conversion traps.
    claim_mmx(cpu);
    context.finish(cpu)?;
    set_mmx(cpu, op.dst, result);
    Ok(())
}

/// CVTPD2PI, CVTTPD2PI.
extern "C" fn doubles_to_mmx<const MEMORY: bool, const TRUNCATE: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    enter_sse(cpu)?;
    enter_mmx(cpu)?;
    let b = if MEMORY { load_aligned(cpu, op)? } else { xmm(cpu, op.src) };
    let mut context = Context::new(cpu, 0);
    let mut lane = |i| to_integer(&mut context, f64::lane(b, i), 32, TRUNCATE);
    let result = pair(lane(0), lane(1));
    // The x87 becomes MMX's even if the conversion traps.
    claim_mmx(cpu);
    context.finish(cpu)?;
    set_mmx(cpu, op.dst, result);
    Ok(())
}

/// The register or the memory form of a handler.
macro_rules! by_source {
    ($memory:expr, $handler:ident $(, $constant:literal)?) => {
        if $memory { $handler::<true $(, $constant)?> } else { $handler::<false $(, $constant)?> }
    };
}

/// The handler of a conversion.
pub(super) fn select(mnemonic: Mnemonic, form: &Form, destination: Destination) -> Option<Handler> {
    let memory = form.kinds[1] == Kind::Memory;
    if destination == Destination::Other && form.kinds[0] != Kind::Register {
        return None;
    }
    Some(match mnemonic {
        Mnemonic::Cvtdq2ps => by_source!(memory, dwords_to_singles),
        Mnemonic::Cvtdq2pd => by_source!(memory, dwords_to_doubles),
        Mnemonic::Cvtps2dq => by_source!(memory, singles_to_dwords, false),
        Mnemonic::Cvttps2dq => by_source!(memory, singles_to_dwords, true),
        Mnemonic::Cvtpd2dq => by_source!(memory, doubles_to_dwords, false),
        Mnemonic::Cvttpd2dq => by_source!(memory, doubles_to_dwords, true),
        Mnemonic::Cvtps2pd => by_source!(memory, singles_to_doubles),
        Mnemonic::Cvtpd2ps => by_source!(memory, doubles_to_singles),
        Mnemonic::Cvtpi2ps => by_source!(memory, mmx_to_singles),
        Mnemonic::Cvtpi2pd => by_source!(memory, mmx_to_doubles),
        Mnemonic::Cvtps2pi => by_source!(memory, singles_to_mmx, false),
        Mnemonic::Cvttps2pi => by_source!(memory, singles_to_mmx, true),
        Mnemonic::Cvtpd2pi => by_source!(memory, doubles_to_mmx, false),
        Mnemonic::Cvttpd2pi => by_source!(memory, doubles_to_mmx, true),
        _ => return None,
    })
}
