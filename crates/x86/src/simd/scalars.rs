//! Instructions on single elements of XMM registers, which SSE and AVX have alike: arithmetic, conversions, insertions,
//! extractions and moves.
//!
//! Sources: SDM vol. 1 § 10.4, § 11.4, § 14.1; SDM vol. 2 for each instruction, and § 2.3 (VEX).

use std::cmp::Ordering;

use iced_x86::Mnemonic;

use super::{
    avx,
    elements::{element, insert_single, with_element},
    float::{Approximation, Reciprocal, ReciprocalRoot},
    lanes::dword,
    moves::{Merge, store_masked},
    operands::{enter_sse, load, set_xmm, store, xmm},
    real::{
        Add, Context, Divide, LaneOperation, Maximum, Minimum, Multiply, Real, Round, SquareRoot, Subtract, compare,
        from_integer, narrow, to_integer, widen,
    },
    save::{load_control, store_control},
};
use crate::{
    access::Value,
    decode::{Form, Kind},
    integer::word::Word,
    op::{Handler, Op},
    state::{CpuState, Rflags},
    trap::Trap,
};

/// Where such an instruction has its registers, and what it does with the upper half of the destination's YMM register.
pub(super) trait Style {
    /// CMPSS and CMPSD, whose predicates are more with VEX.
    type Compare: LaneOperation;
    /// The place of the last register or memory among the operands, if there are all.
    const LAST: usize;

    /// Lets an instruction pass, or raises what the mode says.
    fn enter(cpu: &mut CpuState) -> Result<(), Trap>;
    /// The register that gives all elements but the one.
    fn first(op: &Op) -> u8;
    /// The register that gives the one.
    fn last(op: &Op) -> u8;
    /// Writes an XMM register.
    fn set(cpu: &mut CpuState, number: u8, value: u128);
}

/// Without VEX: the destination is the first source too, and the upper half stays as it is.
pub(super) enum TwoOperands {}
impl Style for TwoOperands {
    type Compare = super::real::Compare;
    const LAST: usize = 1;

    #[inline(always)]
    fn enter(cpu: &mut CpuState) -> Result<(), Trap> {
        enter_sse(cpu)
    }

    #[inline(always)]
    fn first(op: &Op) -> u8 {
        op.dst
    }

    #[inline(always)]
    fn last(op: &Op) -> u8 {
        op.src
    }

    #[inline(always)]
    fn set(cpu: &mut CpuState, number: u8, value: u128) {
        set_xmm(cpu, number, value);
    }
}

/// With VEX: there are two sources, and the upper half becomes zero.
pub(super) enum ThreeOperands {}
impl Style for ThreeOperands {
    type Compare = avx::Compare;
    const LAST: usize = 2;

    #[inline(always)]
    fn enter(cpu: &mut CpuState) -> Result<(), Trap> {
        avx::enter(cpu)
    }

    #[inline(always)]
    fn first(op: &Op) -> u8 {
        op.src
    }

    #[inline(always)]
    fn last(op: &Op) -> u8 {
        op.aux
    }

    #[inline(always)]
    fn set(cpu: &mut CpuState, number: u8, value: u128) {
        avx::set_low(cpu, number, value);
    }
}

/// The last operand of a scalar operation.
#[inline(always)]
pub(super) fn source<S: Style, R: Real, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<R, Trap> {
    Ok(if MEMORY { R::from_u64(load::<R::Bits>(cpu, op)?.into()) } else { R::lane(xmm(cpu, S::last(op)), 0) })
}

/// Writes a result over the lowest element of the first source.
#[inline(always)]
fn replace_low<S: Style, R: Real>(cpu: &mut CpuState, op: &Op, result: R) {
    let old = xmm(cpu, S::first(op));
    S::set(cpu, op.dst, result.replace_low(old));
}

extern "C" fn arithmetic<S: Style, O: LaneOperation, R: Real, const MEMORY: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    S::enter(cpu)?;
    let b: R = source::<S, R, MEMORY>(cpu, op)?;
    let a = xmm(cpu, S::first(op));
    let mut context = Context::new(cpu, op.imm as u8);
    let result = O::lane(&mut context, R::lane(a, 0), b);
    context.finish(cpu)?;
    S::set(cpu, op.dst, result.replace_low(a));
    Ok(())
}

extern "C" fn approximate<S: Style, A: Approximation, const MEMORY: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    S::enter(cpu)?;
    let b = source::<S, f32, MEMORY>(cpu, op)?;
    replace_low::<S, f32>(cpu, op, A::approximate(b));
    Ok(())
}

/// COMISS and its kin: the order goes to ZF, PF and CF, the other arithmetic flags become zero.
extern "C" fn ordered_compare<S: Style, R: Real, const SIGNALS: bool, const MEMORY: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    S::enter(cpu)?;
    let b: R = source::<S, R, MEMORY>(cpu, op)?;
    let a = R::lane(xmm(cpu, op.dst), 0);
    let mut context = Context::new(cpu, 0);
    let order = compare(&mut context, a, b, SIGNALS);
    context.finish(cpu)?;
    cpu.rflags = cpu.rflags & !Rflags::ARITHMETIC.bits() | order_flags(order).bits();
    Ok(())
}

/// The flags that tell of an order.
fn order_flags(order: Option<Ordering>) -> Rflags {
    match order {
        Some(Ordering::Greater) => Rflags::empty(),
        Some(Ordering::Less) => Rflags::CF,
        Some(Ordering::Equal) => Rflags::ZF,
        None => Rflags::ZF | Rflags::PF | Rflags::CF,
    }
}

/// CVTSS2SD.
extern "C" fn single_to_double<S: Style, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    S::enter(cpu)?;
    let b: f32 = source::<S, f32, MEMORY>(cpu, op)?;
    let mut context = Context::new(cpu, 0);
    let result = widen(&mut context, b);
    context.finish(cpu)?;
    replace_low::<S, f64>(cpu, op, result);
    Ok(())
}

/// CVTSD2SS.
extern "C" fn double_to_single<S: Style, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    S::enter(cpu)?;
    let b: f64 = source::<S, f64, MEMORY>(cpu, op)?;
    let mut context = Context::new(cpu, 0);
    let result = narrow(&mut context, b);
    context.finish(cpu)?;
    replace_low::<S, f32>(cpu, op, result);
    Ok(())
}

/// CVTSI2SS, CVTSI2SD; `QUAD` is the form of 64-bit integers.
extern "C" fn general_to_scalar<S: Style, R: Real, const QUAD: bool, const MEMORY: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    S::enter(cpu)?;
    let value = match (MEMORY, QUAD) {
        (false, true) => cpu.register(S::last(op)) as i64,
        (false, false) => i64::from(cpu.register(S::last(op)) as i32),
        (true, true) => load::<u64>(cpu, op)? as i64,
        (true, false) => i64::from(load::<u32>(cpu, op)? as i32),
    };
    let mut context = Context::new(cpu, 0);
    let result: R = from_integer(&mut context, value);
    context.finish(cpu)?;
    replace_low::<S, R>(cpu, op, result);
    Ok(())
}

/// CVTSS2SI, CVTSD2SI and with `TRUNCATE` CVTTSS2SI, CVTTSD2SI.
extern "C" fn scalar_to_general<S: Style, R: Real, const TRUNCATE: bool, const QUAD: bool, const MEMORY: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    S::enter(cpu)?;
    let b: R = source::<S, R, MEMORY>(cpu, op)?;
    let mut context = Context::new(cpu, 0);
    let value = to_integer(&mut context, b, if QUAD { 64 } else { 32 }, TRUNCATE);
    context.finish(cpu)?;
    cpu.gpr[usize::from(op.dst & 15)] = if QUAD { value as u64 } else { u64::from(value as u32) };
    Ok(())
}

/// PEXTRB and its kin, MOVD and MOVQ to a general register.
pub(super) extern "C" fn extract<S: Style, T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    S::enter(cpu)?;
    cpu.gpr[usize::from(op.dst & 15)] = element::<T>(xmm(cpu, op.src), op.imm & 0xff).wide();
    Ok(())
}

extern "C" fn extract_to_memory<S: Style, T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    S::enter(cpu)?;
    let value: T = element(xmm(cpu, op.src), op.imm & 0xff);
    store(cpu, op, value)
}

/// PINSRB and its kin.
extern "C" fn insert<S: Style, T: Word, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    S::enter(cpu)?;
    let value: T = if MEMORY { load(cpu, op)? } else { T::cut(cpu.register(S::last(op))) };
    let a = xmm(cpu, S::first(op));
    S::set(cpu, op.dst, with_element(a, op.imm & 0xff, value));
    Ok(())
}

/// INSERTPS.
extern "C" fn insert_one_single<S: Style, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    S::enter(cpu)?;
    let value = if MEMORY { load(cpu, op)? } else { dword(xmm(cpu, S::last(op)), (op.imm as u32 & 0xff) >> 6) };
    let a = xmm(cpu, S::first(op));
    S::set(cpu, op.dst, insert_single(a, value, op.imm as u8));
    Ok(())
}

/// MOVD and MOVQ from a general register.
pub(super) extern "C" fn from_general<S: Style, T: Word + Into<u128>>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    S::enter(cpu)?;
    let value = T::cut(cpu.register(op.src));
    S::set(cpu, op.dst, value.into());
    Ok(())
}

/// MOVSS, MOVSD, MOVD and MOVQ from memory: the rest of the register becomes zero.
pub(super) extern "C" fn load_low<S: Style, T: Value + Into<u128>>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    S::enter(cpu)?;
    let value: T = load(cpu, op)?;
    S::set(cpu, op.dst, value.into());
    Ok(())
}

/// Element `NUMBER` of a register to memory: MOVSS, MOVSD, MOVD, MOVQ, MOVLPS, MOVHPS.
pub(super) extern "C" fn store_element<S: Style, T: Word, const NUMBER: u64>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    S::enter(cpu)?;
    let value: T = element(xmm(cpu, op.src), NUMBER);
    store(cpu, op, value)
}

/// A move between registers that keeps some of the first source.
pub(super) extern "C" fn merge<S: Style, M: Merge>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    S::enter(cpu)?;
    let value = M::merge(xmm(cpu, S::first(op)), xmm(cpu, S::last(op)));
    S::set(cpu, op.dst, value);
    Ok(())
}

/// MOVLPS, MOVHPS and their kin from memory.
pub(super) extern "C" fn merge_memory<S: Style, M: Merge>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    S::enter(cpu)?;
    let b: u64 = load(cpu, op)?;
    let value = M::merge(xmm(cpu, S::first(op)), u128::from(b));
    S::set(cpu, op.dst, value);
    Ok(())
}

/// MASKMOVDQU.
pub(super) extern "C" fn mask_move<S: Style>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    S::enter(cpu)?;
    let (value, mask) = (xmm(cpu, op.src), xmm(cpu, op.aux));
    store_masked(cpu, op, value, mask, 16)
}

extern "C" fn load_mxcsr<S: Style>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    S::enter(cpu)?;
    load_control(cpu, op)
}

extern "C" fn store_mxcsr<S: Style>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    S::enter(cpu)?;
    store_control(cpu, op)
}

/// The handler for one or two conditions, which are its last parameters.
macro_rules! by {
    ([$first:expr], $handler:ident $(, $generic:tt)*) => {
        if $first { $handler::<$($generic,)* true> } else { $handler::<$($generic,)* false> }
    };
    ([$first:expr, $second:expr], $handler:ident $(, $generic:tt)*) => {
        match ($first, $second) {
            (false, false) => $handler::<$($generic,)* false, false>,
            (false, true) => $handler::<$($generic,)* false, true>,
            (true, false) => $handler::<$($generic,)* true, false>,
            (true, true) => $handler::<$($generic,)* true, true>,
        }
    };
}

/// The handler of an arithmetic instruction, by its mnemonic without V.
fn select_arithmetic<S: Style>(mnemonic: Mnemonic, memory: bool) -> Option<Handler> {
    macro_rules! both {
        ($($operation:ident: $ss:ident $sd:ident;)*) => {
            match mnemonic {
                $(
                    Mnemonic::$ss => by!([memory], arithmetic, S, $operation, f32),
                    Mnemonic::$sd => by!([memory], arithmetic, S, $operation, f64),
                )*
                Mnemonic::Cmpss if memory => arithmetic::<S, S::Compare, f32, true>,
                Mnemonic::Cmpss => arithmetic::<S, S::Compare, f32, false>,
                Mnemonic::Cmpsd if memory => arithmetic::<S, S::Compare, f64, true>,
                Mnemonic::Cmpsd => arithmetic::<S, S::Compare, f64, false>,
                Mnemonic::Rcpss => by!([memory], approximate, S, Reciprocal),
                Mnemonic::Rsqrtss => by!([memory], approximate, S, ReciprocalRoot),
                Mnemonic::Comiss => by!([memory], ordered_compare, S, f32, true),
                Mnemonic::Comisd => by!([memory], ordered_compare, S, f64, true),
                Mnemonic::Ucomiss => by!([memory], ordered_compare, S, f32, false),
                Mnemonic::Ucomisd => by!([memory], ordered_compare, S, f64, false),
                _ => return None,
            }
        };
    }
    Some(both! {
        Add: Addss Addsd;
        Subtract: Subss Subsd;
        Multiply: Mulss Mulsd;
        Divide: Divss Divsd;
        Minimum: Minss Minsd;
        Maximum: Maxss Maxsd;
        SquareRoot: Sqrtss Sqrtsd;
        Round: Roundss Roundsd;
    })
}

/// The handler of an instruction, by its mnemonic without V. Moves are chosen where other moves are; the older forms of
/// PINSRW and PEXTRW with MMX registers are with the shuffles.
pub(super) fn select<S: Style>(mnemonic: Mnemonic, form: &Form) -> Option<Handler> {
    let memory = form.kinds.contains(&Kind::Memory);
    let (quad, from_quad) = (form.sizes[0] == 8, form.sizes[S::LAST] == 8);
    Some(match mnemonic {
        // The string comparison of dwords has the same mnemonic.
        Mnemonic::Cmpsd if form.kinds[0] != Kind::Register => return None,
        Mnemonic::Cvtss2sd => by!([memory], single_to_double, S),
        Mnemonic::Cvtsd2ss => by!([memory], double_to_single, S),
        Mnemonic::Cvtsi2ss => by!([from_quad, memory], general_to_scalar, S, f32),
        Mnemonic::Cvtsi2sd => by!([from_quad, memory], general_to_scalar, S, f64),
        Mnemonic::Cvtss2si => by!([quad, memory], scalar_to_general, S, f32, false),
        Mnemonic::Cvttss2si => by!([quad, memory], scalar_to_general, S, f32, true),
        Mnemonic::Cvtsd2si => by!([quad, memory], scalar_to_general, S, f64, false),
        Mnemonic::Cvttsd2si => by!([quad, memory], scalar_to_general, S, f64, true),
        Mnemonic::Pextrb if memory => extract_to_memory::<S, u8>,
        Mnemonic::Pextrw if memory => extract_to_memory::<S, u16>,
        Mnemonic::Pextrd | Mnemonic::Extractps if memory => extract_to_memory::<S, u32>,
        Mnemonic::Pextrq if memory => extract_to_memory::<S, u64>,
        Mnemonic::Pextrb => extract::<S, u8>,
        Mnemonic::Pextrw => extract::<S, u16>,
        Mnemonic::Pextrd | Mnemonic::Extractps => extract::<S, u32>,
        Mnemonic::Pextrq => extract::<S, u64>,
        Mnemonic::Pinsrb => by!([memory], insert, S, u8),
        Mnemonic::Pinsrw => by!([memory], insert, S, u16),
        Mnemonic::Pinsrd => by!([memory], insert, S, u32),
        Mnemonic::Pinsrq => by!([memory], insert, S, u64),
        Mnemonic::Insertps => by!([memory], insert_one_single, S),
        Mnemonic::Ldmxcsr => load_mxcsr::<S>,
        Mnemonic::Stmxcsr => store_mxcsr::<S>,
        _ => return select_arithmetic::<S>(mnemonic, memory),
    })
}
