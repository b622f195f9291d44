//! Shifts and rotations. SDM vol. 2: SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR, SHLD, SHRD.
//!
//! Where the manuals leave OF undefined (counts above one) it follows the same formula as for a count of one; AF is
//! cleared.

use iced_x86::{Instruction, Mnemonic};

use super::{
    flags::{self, ARITHMETIC, CF, OF},
    word::{Word, by_size, by_wide_size},
};
use crate::{
    access::Access,
    decode::{Form, Kind},
    op::{Handler, Op},
    state::{CpuState, reg},
    trap::Trap,
};

/// A shift of one operand by a count.
trait Shift {
    /// The flags that change when the masked count is not zero.
    const FLAGS: u64;
    /// The result and the flags; `count` is masked and not zero.
    fn apply<T: Word>(value: T, count: u32, carry: bool) -> (T, u64);
}

/// A count as the processor masks it.
#[inline(always)]
fn masked<T: Word>(count: u64) -> u32 {
    count as u32 & if T::BITS == 64 { 63 } else { 31 }
}

#[inline(always)]
fn overflow(set: bool) -> u64 {
    u64::from(set) << 11
}

#[inline(always)]
fn bit<T: Word>(value: T, number: u32) -> bool {
    value.wide() >> (number & 63) & 1 != 0
}

struct Shl;
impl Shift for Shl {
    const FLAGS: u64 = ARITHMETIC;
    #[inline(always)]
    fn apply<T: Word>(value: T, count: u32, _: bool) -> (T, u64) {
        let before = value.wide() << ((count - 1) & 63);
        let carry = before >> (T::BITS - 1) & 1 != 0;
        let result = T::cut(before << 1);
        (result, flags::of_result(result) | u64::from(carry) | overflow(result.sign() ^ carry))
    }
}

struct Shr;
impl Shift for Shr {
    const FLAGS: u64 = ARITHMETIC;
    #[inline(always)]
    fn apply<T: Word>(value: T, count: u32, _: bool) -> (T, u64) {
        let before = value.wide() >> ((count - 1) & 63);
        let result = T::cut(before >> 1);
        let top = bit(T::cut(before), T::BITS - 1);
        (result, flags::of_result(result) | before & 1 | overflow(top))
    }
}

struct Sar;
impl Shift for Sar {
    const FLAGS: u64 = ARITHMETIC;
    #[inline(always)]
    fn apply<T: Word>(value: T, count: u32, _: bool) -> (T, u64) {
        let before = value.signed() >> ((count - 1) & 63);
        let result = T::cut((before >> 1) as u64);
        (result, flags::of_result(result) | before as u64 & 1)
    }
}

struct Rol;
impl Shift for Rol {
    const FLAGS: u64 = CF | OF;
    #[inline(always)]
    fn apply<T: Word>(value: T, count: u32, _: bool) -> (T, u64) {
        let count = count % T::BITS;
        let wide = value.wide();
        let result = if count == 0 { value } else { T::cut(wide << count | wide >> (T::BITS - count)) };
        let carry = result.wide() & 1;
        (result, carry | overflow(result.sign() ^ (carry != 0)))
    }
}

struct Ror;
impl Shift for Ror {
    const FLAGS: u64 = CF | OF;
    #[inline(always)]
    fn apply<T: Word>(value: T, count: u32, _: bool) -> (T, u64) {
        let count = count % T::BITS;
        let wide = value.wide();
        let result = if count == 0 { value } else { T::cut(wide >> count | wide << (T::BITS - count)) };
        (result, u64::from(result.sign()) | overflow(result.sign() ^ bit(result, T::BITS - 2)))
    }
}

/// Rotates the operand with the carry on top of it left by `count`, below `BITS + 1`.
#[inline(always)]
fn rotate_through<T: Word>(value: T, carry: bool, count: u32) -> (T, bool) {
    let all = u128::from(carry) << T::BITS | u128::from(value.wide());
    let rotated = all << count | all >> (T::BITS + 1 - count);
    (T::cut(rotated as u64), rotated >> T::BITS & 1 != 0)
}

struct Rcl;
impl Shift for Rcl {
    const FLAGS: u64 = CF | OF;
    #[inline(always)]
    fn apply<T: Word>(value: T, count: u32, carry: bool) -> (T, u64) {
        let (result, carry) = rotate_through(value, carry, count % (T::BITS + 1));
        (result, u64::from(carry) | overflow(result.sign() ^ carry))
    }
}

struct Rcr;
impl Shift for Rcr {
    const FLAGS: u64 = CF | OF;
    #[inline(always)]
    fn apply<T: Word>(value: T, count: u32, carry: bool) -> (T, u64) {
        let (result, carry) = rotate_through(value, carry, T::BITS + 1 - count % (T::BITS + 1));
        (result, u64::from(carry) | overflow(result.sign() ^ bit(result, T::BITS - 2)))
    }
}

#[inline(always)]
fn shift_register<S: Shift, T: Word, const LIVE: bool>(cpu: &mut CpuState, op: &Op, count: u64) {
    let count = masked::<T>(count);
    let value = T::get(cpu, op.dst);
    if count == 0 {
        // No flag changes, but a 32-bit register is written: its upper half is cleared.
        T::set(cpu, op.dst, value);
        return;
    }
    let (result, flags) = S::apply(value, count, cpu.rflags & CF != 0);
    T::set(cpu, op.dst, result);
    if LIVE {
        flags::put(cpu, S::FLAGS, flags);
    }
}

#[inline(always)]
fn shift_memory<S: Shift, T: Word>(cpu: &mut CpuState, op: &Op, count: u64) -> Result<(), Trap> {
    let count = masked::<T>(count);
    let carry = cpu.rflags & CF != 0;
    let linear = cpu.linear(op, T::SIZE as u64, Access::Write)?;
    if count == 0 {
        cpu.modify(linear, |value: T| value)?;
        return Ok(());
    }
    let old = cpu.modify(linear, |value: T| S::apply(value, count, carry).0)?;
    flags::put(cpu, S::FLAGS, S::apply(old, count, carry).1);
    Ok(())
}

extern "C" fn register_immediate<S: Shift, T: Word, const LIVE: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    shift_register::<S, T, LIVE>(cpu, op, op.imm);
    Ok(())
}

extern "C" fn register_cl<S: Shift, T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let count = cpu.register(reg::RCX);
    shift_register::<S, T, true>(cpu, op, count);
    Ok(())
}

extern "C" fn memory_immediate<S: Shift, T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    shift_memory::<S, T>(cpu, op, op.imm)
}

extern "C" fn memory_cl<S: Shift, T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let count = cpu.register(reg::RCX);
    shift_memory::<S, T>(cpu, op, count)
}

fn select_shift<S: Shift>(form: &Form) -> Option<Handler> {
    let size = form.sizes[0];
    // The second operand is an immediate (the decoder gives 1 for the short forms) or CL.
    Some(match (form.kinds[0], form.kinds[1]) {
        (Kind::Register, Kind::Immediate) if form.flags_live => by_size!(size, register_immediate, [S], [true]),
        (Kind::Register, Kind::Immediate) => by_size!(size, register_immediate, [S], [false]),
        (Kind::Register, _) => by_size!(size, register_cl, [S], []),
        (Kind::Memory, Kind::Immediate) => by_size!(size, memory_immediate, [S], []),
        (Kind::Memory, _) => by_size!(size, memory_cl, [S], []),
        _ => return None,
    })
}

/// SHLD (`LEFT`) or SHRD of `value`, with the bits of `fill` coming in.
#[inline(always)]
fn double<T: Word, const LEFT: bool>(value: T, fill: T, count: u32) -> (T, u64) {
    let (v, f) = (u128::from(value.wide()), u128::from(fill.wide()));
    // Counts above 16 are undefined for 16 bits; the operands then go round, as on most processors.
    let (result, carry) = if LEFT {
        let all = (v << T::BITS | f) << (128 - 2 * T::BITS);
        let all = if T::BITS == 16 { all | v << 80 } else { all };
        ((all << count) >> (128 - T::BITS), all >> (128 - count) & 1)
    } else {
        let all = f << T::BITS | v;
        let all = if T::BITS == 16 { all | v << 32 } else { all };
        (all >> count, all >> (count - 1) & 1)
    };
    let result = T::cut(result as u64);
    let changed = (result.wide() ^ value.wide()) >> (T::BITS - 1) & 1 != 0;
    (result, flags::of_result(result) | carry as u64 | overflow(changed))
}

/// The count of SHLD and SHRD: CL (`CL`) or the immediate.
#[inline(always)]
fn double_count<T: Word, const CL: bool>(cpu: &CpuState, op: &Op) -> u32 {
    masked::<T>(if CL { cpu.register(reg::RCX) } else { op.imm })
}

extern "C" fn double_register<T: Word, const LEFT: bool, const CL: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    let count = double_count::<T, CL>(cpu, op);
    let value = T::get(cpu, op.dst);
    if count == 0 {
        T::set(cpu, op.dst, value);
        return Ok(());
    }
    let (result, flags) = double::<T, LEFT>(value, T::get(cpu, op.src), count);
    T::set(cpu, op.dst, result);
    flags::put(cpu, ARITHMETIC, flags);
    Ok(())
}

extern "C" fn double_memory<T: Word, const LEFT: bool, const CL: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    let count = double_count::<T, CL>(cpu, op);
    let fill = T::get(cpu, op.src);
    let linear = cpu.linear(op, T::SIZE as u64, Access::Write)?;
    if count == 0 {
        cpu.modify(linear, |value: T| value)?;
        return Ok(());
    }
    let old = cpu.modify(linear, |value: T| double::<T, LEFT>(value, fill, count).0)?;
    flags::put(cpu, ARITHMETIC, double::<T, LEFT>(old, fill, count).1);
    Ok(())
}

fn select_double(form: &Form, left: bool) -> Option<Handler> {
    let size = form.sizes[0];
    Some(match (form.kinds[0], left, form.kinds[2] == Kind::Register) {
        (Kind::Register, true, true) => by_wide_size!(size, double_register, [], [true, true]),
        (Kind::Register, true, false) => by_wide_size!(size, double_register, [], [true, false]),
        (Kind::Register, false, true) => by_wide_size!(size, double_register, [], [false, true]),
        (Kind::Register, false, false) => by_wide_size!(size, double_register, [], [false, false]),
        (_, true, true) => by_wide_size!(size, double_memory, [], [true, true]),
        (_, true, false) => by_wide_size!(size, double_memory, [], [true, false]),
        (_, false, true) => by_wide_size!(size, double_memory, [], [false, true]),
        (_, false, false) => by_wide_size!(size, double_memory, [], [false, false]),
    })
}

/// Handlers of this file's instructions.
pub(super) fn select(instruction: &Instruction, form: &Form) -> Option<Handler> {
    match instruction.mnemonic() {
        Mnemonic::Shl | Mnemonic::Sal => select_shift::<Shl>(form),
        Mnemonic::Shr => select_shift::<Shr>(form),
        Mnemonic::Sar => select_shift::<Sar>(form),
        Mnemonic::Rol => select_shift::<Rol>(form),
        Mnemonic::Ror => select_shift::<Ror>(form),
        Mnemonic::Rcl => select_shift::<Rcl>(form),
        Mnemonic::Rcr => select_shift::<Rcr>(form),
        Mnemonic::Shld => select_double(form, true),
        Mnemonic::Shrd => select_double(form, false),
        _ => None,
    }
}
