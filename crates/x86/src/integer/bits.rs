//! Bit tests and scans: BT, BTS, BTR, BTC, BSF, BSR, TZCNT, LZCNT, POPCNT. SDM vol. 2.

use iced_x86::{Instruction, Mnemonic};

use super::{
    flags::{self, ARITHMETIC, CF, ZF},
    word::{Word, by_wide_size},
};
use crate::{
    access::Access,
    decode::{Form, Kind},
    op::{Handler, Op, Prefix},
    state::CpuState,
    trap::Trap,
};

/// What a bit test does to the bit.
trait Change {
    const WRITES: bool;
    fn apply(value: u64, bit: u64) -> u64;
}

struct Keep;
impl Change for Keep {
    const WRITES: bool = false;
    #[inline(always)]
    fn apply(value: u64, _: u64) -> u64 {
        value
    }
}

struct Set;
impl Change for Set {
    const WRITES: bool = true;
    #[inline(always)]
    fn apply(value: u64, bit: u64) -> u64 {
        value | bit
    }
}

struct Reset;
impl Change for Reset {
    const WRITES: bool = true;
    #[inline(always)]
    fn apply(value: u64, bit: u64) -> u64 {
        value & !bit
    }
}

struct Complement;
impl Change for Complement {
    const WRITES: bool = true;
    #[inline(always)]
    fn apply(value: u64, bit: u64) -> u64 {
        value ^ bit
    }
}

/// The bit number inside an operand of type `T`.
#[inline(always)]
fn number<T: Word>(offset: u64) -> u32 {
    offset as u32 & (T::BITS - 1)
}

/// CF alone changes; the others are undefined but ZF, and stay.
#[inline(always)]
fn put_carry<T: Word>(cpu: &mut CpuState, value: T, number: u32) {
    flags::put(cpu, CF, value.wide() >> number & 1);
}

extern "C" fn register<C: Change, T: Word, const IMMEDIATE: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let number = number::<T>(if IMMEDIATE { op.imm } else { cpu.register(op.src) });
    let value = T::get(cpu, op.dst);
    if C::WRITES {
        T::set(cpu, op.dst, T::cut(C::apply(value.wide(), 1 << number)));
    }
    put_carry(cpu, value, number);
    Ok(())
}

#[inline(always)]
fn memory<C: Change, T: Word>(cpu: &mut CpuState, op: &Op, number: u32) -> Result<(), Trap> {
    let size = T::SIZE as u64;
    let change = |value: T| T::cut(C::apply(value.wide(), 1 << number));
    let value: T = if !C::WRITES {
        let linear = cpu.linear(op, size, Access::Read)?;
        cpu.read(linear)?
    } else {
        let linear = cpu.linear(op, size, Access::Write)?;
        if op.prefix == Prefix::Lock { cpu.modify_locked(linear, change)? } else { cpu.modify(linear, change)? }
    };
    put_carry(cpu, value, number);
    Ok(())
}

extern "C" fn memory_immediate<C: Change, T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    memory::<C, T>(cpu, op, number::<T>(op.imm))
}

/// The bit offset in a register is signed and reaches beyond the operand.
extern "C" fn memory_register<C: Change, T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let offset = T::get(cpu, op.src).signed();
    let units = offset >> T::BITS.trailing_zeros();
    let moved = Op { disp: op.disp.wrapping_add((units as u64).wrapping_mul(T::SIZE as u64)), ..*op };
    memory::<C, T>(cpu, &moved, number::<T>(offset as u64))
}

fn select_test<C: Change>(form: &Form) -> Option<Handler> {
    let size = form.sizes[0];
    Some(match (form.kinds[0], form.kinds[1]) {
        (Kind::Register, Kind::Immediate) => by_wide_size!(size, register, [C], [true]),
        (Kind::Register, _) => by_wide_size!(size, register, [C], [false]),
        (_, Kind::Immediate) => by_wide_size!(size, memory_immediate, [C], []),
        _ => by_wide_size!(size, memory_register, [C], []),
    })
}

/// What a scan of an operand gives.
trait Scan {
    /// Result and flags; no result leaves the register alone.
    fn apply<T: Word>(value: T) -> (Option<u32>, u64);
}

/// ZF of a scan; the others are undefined and follow the operand, as after a comparison of it with zero.
#[inline(always)]
fn scan_flags<T: Word>(value: T) -> u64 {
    flags::of_result(value)
}

struct Forward;
impl Scan for Forward {
    #[inline(always)]
    fn apply<T: Word>(value: T) -> (Option<u32>, u64) {
        let wide = value.wide();
        ((wide != 0).then(|| wide.trailing_zeros()), scan_flags(value))
    }
}

struct Backward;
impl Scan for Backward {
    #[inline(always)]
    fn apply<T: Word>(value: T) -> (Option<u32>, u64) {
        (value.wide().checked_ilog2(), scan_flags(value))
    }
}

/// CF of a count of zeros tells that there was nothing but zeros, ZF that there was none.
#[inline(always)]
fn zeros_flags<T: Word>(value: T, count: u32) -> u64 {
    if value.wide() == 0 { CF } else { flags::of_result(T::cut(u64::from(count))) }
}

struct TrailingZeros;
impl Scan for TrailingZeros {
    #[inline(always)]
    fn apply<T: Word>(value: T) -> (Option<u32>, u64) {
        let count = value.wide().trailing_zeros().min(T::BITS);
        (Some(count), zeros_flags(value, count))
    }
}

struct LeadingZeros;
impl Scan for LeadingZeros {
    #[inline(always)]
    fn apply<T: Word>(value: T) -> (Option<u32>, u64) {
        let count = value.wide().leading_zeros() - (64 - T::BITS);
        (Some(count), zeros_flags(value, count))
    }
}

struct Count;
impl Scan for Count {
    #[inline(always)]
    fn apply<T: Word>(value: T) -> (Option<u32>, u64) {
        (Some(value.wide().count_ones()), if value.wide() == 0 { ZF } else { 0 })
    }
}

extern "C" fn scan_register<S: Scan, T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let (result, flags) = S::apply(T::get(cpu, op.src));
    if let Some(result) = result {
        T::set(cpu, op.dst, T::cut(u64::from(result)));
    }
    flags::put(cpu, ARITHMETIC, flags);
    Ok(())
}

extern "C" fn scan_memory<S: Scan, T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let linear = cpu.linear(op, T::SIZE as u64, Access::Read)?;
    let (result, flags) = S::apply::<T>(cpu.read(linear)?);
    if let Some(result) = result {
        T::set(cpu, op.dst, T::cut(u64::from(result)));
    }
    flags::put(cpu, ARITHMETIC, flags);
    Ok(())
}

fn select_scan<S: Scan>(form: &Form) -> Option<Handler> {
    Some(match form.kinds[1] {
        Kind::Register => by_wide_size!(form.sizes[0], scan_register, [S], []),
        _ => by_wide_size!(form.sizes[0], scan_memory, [S], []),
    })
}

/// Handlers of this file's instructions.
pub(super) fn select(instruction: &Instruction, form: &Form) -> Option<Handler> {
    match instruction.mnemonic() {
        Mnemonic::Bt => select_test::<Keep>(form),
        Mnemonic::Bts => select_test::<Set>(form),
        Mnemonic::Btr => select_test::<Reset>(form),
        Mnemonic::Btc => select_test::<Complement>(form),
        // The decoder takes TZCNT and LZCNT for BSF and BSR on processors without BMI1 and LZCNT.
        Mnemonic::Tzcnt => select_scan::<TrailingZeros>(form),
        Mnemonic::Lzcnt => select_scan::<LeadingZeros>(form),
        Mnemonic::Bsf => select_scan::<Forward>(form),
        Mnemonic::Bsr => select_scan::<Backward>(form),
        Mnemonic::Popcnt => select_scan::<Count>(form),
        _ => None,
    }
}
