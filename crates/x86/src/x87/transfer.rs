//! Loads, stores, exchanges, conditional moves, constants and changes of sign.
//!
//! Sources: SDM vol. 1 § 8.3.3, § 8.3.4; SDM vol. 2 for each instruction.

use iced_x86::Mnemonic;

use super::{
    control::{C1, store},
    source::{Extended, Integer16, Integer32, Integer64, PackedDecimal, Real32, Real64, Source},
    stack::{
        StackFault, begin, begin_memory, bits, conclude, conclude_despite_denormals, environment, is_empty, number,
        pop, push, set_bits, stack_fault,
    },
};
use crate::{
    access::Value,
    decode::{Form, Kind},
    float::{Environment, Flags, Format, Number, Rounding},
    op::{Handler, Op},
    state::{CpuState, Rflags},
    trap::Trap,
};

/// The default NaN's encoding.
const DEFAULT_NAN: u128 = 0xffff_c000_0000_0000_0000;

/// The sign of a register.
const SIGN: u128 = 1 << 79;

/// What FBSTP stores when the number does not fit.
const DECIMAL_INDEFINITE: (u64, u16) = (0xc000_0000_0000_0000, 0xffff);

/// The largest magnitude of 18 digits.
const DECIMAL_MAX: u64 = 999_999_999_999_999_999;

extern "C" fn load<S: Source>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin_memory(cpu, op)?;
    let value = S::fetch(cpu, op)?;
    if !is_empty(cpu, 7) {
        if stack_fault(cpu, op, StackFault::Overflow) {
            push(cpu, DEFAULT_NAN);
        }
        return Ok(());
    }
    let mut environment = environment(cpu);
    let value = if S::EXACT { value } else { environment.convert(Format::EXTENDED, value) };
    if conclude_despite_denormals(cpu, op, &environment) {
        push(cpu, value.pack_extended());
    }
    Ok(())
}

/// FLD of 80 bits, which takes every encoding as it is.
extern "C" fn load_extended(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin_memory(cpu, op)?;
    let value = Extended::fetch_bits(cpu, op)?;
    push_bits(cpu, op, value);
    Ok(())
}

/// Pushes bits as they are, or reports that there is no room.
fn push_bits(cpu: &mut CpuState, op: &Op, value: u128) {
    if is_empty(cpu, 7) {
        cpu.x87.status &= !C1;
        push(cpu, value);
    } else if stack_fault(cpu, op, StackFault::Overflow) {
        push(cpu, DEFAULT_NAN);
    }
}

extern "C" fn load_register(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin(cpu, op)?;
    if is_empty(cpu, op.dst) {
        if stack_fault(cpu, op, StackFault::Underflow) {
            push(cpu, DEFAULT_NAN);
        }
        return Ok(());
    }
    let value = bits(cpu, op.dst);
    push_bits(cpu, op, value);
    Ok(())
}

/// A constant, as its first 128 bits; they are rounded as the control word says, and no exception is noted.
trait Constant {
    const EXPONENT: i32;
    const SIGNIFICAND: u128;
}

macro_rules! constants {
    ($($name:ident: $exponent:literal, $significand:literal;)*) => {
        $(
            struct $name;
            impl Constant for $name {
                const EXPONENT: i32 = $exponent;
                const SIGNIFICAND: u128 = $significand;
            }
        )*
    };
}

constants! {
    One: 0, 0x8000_0000_0000_0000_0000_0000_0000_0000;
    Log2Of10: 1, 0xd49a_784b_cd1b_8afe_492b_f6ff_4daf_db4d;
    Log2OfE: 0, 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e89;
    Pi: 1, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1;
    Log10Of2: -2, 0x9a20_9a84_fbcf_f798_8f89_59ac_0b7c_9178;
    LnOf2: -1, 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af;
}

extern "C" fn load_constant<C: Constant>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin(cpu, op)?;
    let value = environment(cpu).round(Format::EXTENDED, false, C::EXPONENT, C::SIGNIFICAND);
    push_bits(cpu, op, value.pack_extended());
    Ok(())
}

extern "C" fn load_zero(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin(cpu, op)?;
    push_bits(cpu, op, 0);
    Ok(())
}

/// Stores what `convert` makes of ST(0), or `indefinite` if that is empty, and pops.
fn store_converted<T: Value>(
    cpu: &mut CpuState,
    op: &Op,
    pops: u8,
    indefinite: T,
    convert: impl FnOnce(&mut Environment, Number) -> T,
) -> Result<(), Trap> {
    begin_memory(cpu, op)?;
    let mut environment = environment(cpu);
    let empty = is_empty(cpu, 0);
    let value = if empty {
        environment.raise(Flags::INVALID);
        indefinite
    } else {
        convert(&mut environment, number(cpu, 0))
    };
    // A store is never told of denormals. Unlike a register, memory gets nothing if overflow or underflow trap, and
    // so nothing was inexact.
    environment.flags -= Flags::DENORMAL;
    let stored = environment.masked.contains(environment.flags - Flags::INEXACT);
    if stored {
        store(cpu, op, value)?;
    } else {
        environment.flags -= Flags::INEXACT;
        environment.rounded_up = false;
    }
    if empty {
        stack_fault(cpu, op, StackFault::Underflow);
    } else {
        conclude(cpu, op, &environment);
    }
    if stored {
        pop(cpu, pops);
    }
    Ok(())
}

extern "C" fn store_single<const POPS: u8>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    store_converted(cpu, op, POPS, 0xffc0_0000u32, |environment, value| {
        environment.convert(Format::SINGLE, value).pack(Format::SINGLE) as u32
    })
}

extern "C" fn store_double<const POPS: u8>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    store_converted(cpu, op, POPS, 0xfff8_0000_0000_0000u64, |environment, value| {
        environment.convert(Format::DOUBLE, value).pack(Format::DOUBLE)
    })
}

/// FIST, FISTP and, toward zero whatever the control word says, FISTTP.
extern "C" fn store_integer_16<const POPS: u8, const TRUNCATE: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    store_converted(cpu, op, POPS, 0x8000u16, |environment, value| integer::<TRUNCATE>(environment, value, 16) as u16)
}

extern "C" fn store_integer_32<const POPS: u8, const TRUNCATE: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    store_converted(cpu, op, POPS, 1u32 << 31, |environment, value| integer::<TRUNCATE>(environment, value, 32) as u32)
}

extern "C" fn store_integer_64<const POPS: u8, const TRUNCATE: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    store_converted(cpu, op, POPS, 1u64 << 63, |environment, value| integer::<TRUNCATE>(environment, value, 64) as u64)
}

fn integer<const TRUNCATE: bool>(environment: &mut Environment, value: Number, bits: u32) -> i64 {
    let rounding = if TRUNCATE { Rounding::Zero } else { environment.rounding };
    environment.round_to_integer(value, bits, rounding)
}

/// Stores 80 bits.
fn store_80(cpu: &mut CpuState, op: &Op, low: u64, high: u16) -> Result<(), Trap> {
    let linear = cpu.linear(op, 10, crate::access::Access::Write)?;
    cpu.check_parts(linear, 8)?;
    cpu.probe_write(linear, 10)?;
    cpu.write(linear, low)?;
    cpu.write(linear.wrapping_add(8), high)
}

extern "C" fn store_extended(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin_memory(cpu, op)?;
    let empty = is_empty(cpu, 0);
    let value = if empty { DEFAULT_NAN } else { bits(cpu, 0) };
    if !empty || environment(cpu).masked.contains(Flags::INVALID) {
        store_80(cpu, op, value as u64, (value >> 64) as u16)?;
    }
    if empty && !stack_fault(cpu, op, StackFault::Underflow) {
        return Ok(());
    }
    cpu.x87.status &= !C1;
    pop(cpu, 1);
    Ok(())
}

/// FBSTP: 18 decimal digits and a sign.
extern "C" fn store_decimal(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin_memory(cpu, op)?;
    let mut environment = environment(cpu);
    let empty = is_empty(cpu, 0);
    let value = number(cpu, 0);
    let rounding = environment.rounding;
    let integer = environment.round_to_integer(value, 64, rounding);
    let (low, high) = if empty || integer.unsigned_abs() > DECIMAL_MAX {
        environment.flags = Flags::INVALID;
        environment.rounded_up = false;
        DECIMAL_INDEFINITE
    } else {
        let mut rest = integer.unsigned_abs();
        let mut digits = 0u128;
        for i in 0..18 {
            digits |= u128::from(rest % 10) << (4 * i);
            rest /= 10;
        }
        (digits as u64, (digits >> 64) as u16 | u16::from(value.sign) << 15)
    };
    let stored = environment.masked.contains(environment.flags - Flags::INEXACT);
    if stored {
        store_80(cpu, op, low, high)?;
    }
    if empty {
        stack_fault(cpu, op, StackFault::Underflow);
    } else {
        conclude(cpu, op, &environment);
    }
    if stored {
        pop(cpu, 1);
    }
    Ok(())
}

extern "C" fn store_register<const POPS: u8>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin(cpu, op)?;
    let value = if !is_empty(cpu, 0) {
        cpu.x87.status &= !C1;
        bits(cpu, 0)
    } else if stack_fault(cpu, op, StackFault::Underflow) {
        DEFAULT_NAN
    } else {
        return Ok(());
    };
    set_bits(cpu, op.dst, value);
    pop(cpu, POPS);
    Ok(())
}

/// FSTPNCE, an alias of FSTP that raises nothing: an empty ST(0) is popped, and not copied.
extern "C" fn store_register_unchecked(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin(cpu, op)?;
    cpu.x87.status &= !C1;
    if !is_empty(cpu, 0) {
        let value = bits(cpu, 0);
        set_bits(cpu, op.dst, value);
    }
    pop(cpu, 1);
    Ok(())
}

extern "C" fn exchange(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin(cpu, op)?;
    let other = op.src;
    if is_empty(cpu, 0) || is_empty(cpu, other) {
        if !stack_fault(cpu, op, StackFault::Underflow) {
            return Ok(());
        }
        for i in [0, other] {
            if is_empty(cpu, i) {
                set_bits(cpu, i, DEFAULT_NAN);
            }
        }
    } else {
        cpu.x87.status &= !C1;
    }
    let (a, b) = (bits(cpu, 0), bits(cpu, other));
    set_bits(cpu, 0, b);
    set_bits(cpu, other, a);
    Ok(())
}

/// FCMOVcc: moves if `FLAGS` has a bit set, or, with `INVERTED`, if it has none.
extern "C" fn conditional_move<const FLAGS: u64, const INVERTED: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    begin(cpu, op)?;
    if is_empty(cpu, 0) || is_empty(cpu, op.src) {
        if stack_fault(cpu, op, StackFault::Underflow) {
            set_bits(cpu, 0, DEFAULT_NAN);
        }
        return Ok(());
    }
    if (cpu.rflags & FLAGS != 0) != INVERTED {
        let value = bits(cpu, op.src);
        set_bits(cpu, 0, value);
    }
    Ok(())
}

/// FCHS and FABS change the sign of whatever is there.
extern "C" fn change_sign<const KEPT: u128, const FLIPPED: u128>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin(cpu, op)?;
    if is_empty(cpu, 0) {
        if stack_fault(cpu, op, StackFault::Underflow) {
            set_bits(cpu, 0, DEFAULT_NAN);
        }
        return Ok(());
    }
    cpu.x87.status &= !C1;
    let value = (bits(cpu, 0) & KEPT) ^ FLIPPED;
    set_bits(cpu, 0, value);
    Ok(())
}

/// The handler of a transfer.
pub(super) fn select(mnemonic: Mnemonic, form: &Form) -> Option<Handler> {
    const CF: u64 = Rflags::CF.bits();
    const ZF: u64 = Rflags::ZF.bits();
    const PF: u64 = Rflags::PF.bits();
    let memory = form.kinds[0] == Kind::Memory;
    Some(match (mnemonic, form.sizes[0]) {
        (Mnemonic::Fld, _) if !memory => load_register,
        (Mnemonic::Fld, 4) => load::<Real32>,
        (Mnemonic::Fld, 8) => load::<Real64>,
        (Mnemonic::Fld, _) => load_extended,
        (Mnemonic::Fild, 2) => load::<Integer16>,
        (Mnemonic::Fild, 4) => load::<Integer32>,
        (Mnemonic::Fild, _) => load::<Integer64>,
        (Mnemonic::Fbld, _) => load::<PackedDecimal>,
        (Mnemonic::Fst, _) if !memory => store_register::<0>,
        (Mnemonic::Fst, 4) => store_single::<0>,
        (Mnemonic::Fst, _) => store_double::<0>,
        (Mnemonic::Fstpnce, _) => store_register_unchecked,
        (Mnemonic::Fstp, _) if !memory => store_register::<1>,
        (Mnemonic::Fstp, 4) => store_single::<1>,
        (Mnemonic::Fstp, 8) => store_double::<1>,
        (Mnemonic::Fstp, _) => store_extended,
        (Mnemonic::Fist, 2) => store_integer_16::<0, false>,
        (Mnemonic::Fist, _) => store_integer_32::<0, false>,
        (Mnemonic::Fistp, 2) => store_integer_16::<1, false>,
        (Mnemonic::Fistp, 4) => store_integer_32::<1, false>,
        (Mnemonic::Fistp, _) => store_integer_64::<1, false>,
        (Mnemonic::Fisttp, 2) => store_integer_16::<1, true>,
        (Mnemonic::Fisttp, 4) => store_integer_32::<1, true>,
        (Mnemonic::Fisttp, _) => store_integer_64::<1, true>,
        (Mnemonic::Fbstp, _) => store_decimal,
        (Mnemonic::Fxch, _) => exchange,
        (Mnemonic::Fcmovb, _) => conditional_move::<CF, false>,
        (Mnemonic::Fcmove, _) => conditional_move::<ZF, false>,
        (Mnemonic::Fcmovbe, _) => conditional_move::<{ CF | ZF }, false>,
        (Mnemonic::Fcmovu, _) => conditional_move::<PF, false>,
        (Mnemonic::Fcmovnb, _) => conditional_move::<CF, true>,
        (Mnemonic::Fcmovne, _) => conditional_move::<ZF, true>,
        (Mnemonic::Fcmovnbe, _) => conditional_move::<{ CF | ZF }, true>,
        (Mnemonic::Fcmovnu, _) => conditional_move::<PF, true>,
        (Mnemonic::Fchs, _) => change_sign::<{ u128::MAX }, SIGN>,
        (Mnemonic::Fabs, _) => change_sign::<{ !SIGN }, 0>,
        (Mnemonic::Fld1, _) => load_constant::<One>,
        (Mnemonic::Fldl2t, _) => load_constant::<Log2Of10>,
        (Mnemonic::Fldl2e, _) => load_constant::<Log2OfE>,
        (Mnemonic::Fldpi, _) => load_constant::<Pi>,
        (Mnemonic::Fldlg2, _) => load_constant::<Log10Of2>,
        (Mnemonic::Fldln2, _) => load_constant::<LnOf2>,
        (Mnemonic::Fldz, _) => load_zero,
        _ => return None,
    })
}
