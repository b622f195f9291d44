//! Addition, subtraction, logic and comparison. SDM vol. 2: ADD, ADC, SUB, SBB, CMP, NEG, INC, DEC, AND, OR, XOR, NOT,
//! TEST.

use iced_x86::{Instruction, Mnemonic};

use super::{
    flags::{self, ARITHMETIC, CF},
    word::{Word, by_size},
};
use crate::{
    access::Access,
    decode::{Form, Kind},
    op::{Handler, Op, Prefix},
    protection::address::{load, load_at_once},
    state::CpuState,
    trap::Trap,
};

/// An operation of two operands.
trait Binary {
    /// Whether the result goes to the first operand.
    const WRITES: bool = true;
    /// The result and all six flags; `carry` is the carry flag before.
    fn apply<T: Word>(left: T, right: T, carry: bool) -> (T, u64);
}

macro_rules! binary {
    ($(#[$doc:meta])* $name:ident, $writes:expr, |$left:ident, $right:ident, $carry:ident| $body:expr) => {
        $(#[$doc])*
        struct $name;
        impl Binary for $name {
            const WRITES: bool = $writes;
            #[inline(always)]
            fn apply<T: Word>($left: T, $right: T, $carry: bool) -> (T, u64) {
                $body
            }
        }
    };
}

#[inline(always)]
fn sum<T: Word>(left: T, right: T, carry: bool) -> (T, u64) {
    let (result, out) = left.add_carry(right, carry);
    (result, flags::of_sum(left, right, result, out))
}

#[inline(always)]
fn difference<T: Word>(left: T, right: T, borrow: bool) -> (T, u64) {
    let (result, out) = left.subtract_borrow(right, borrow);
    (result, flags::of_difference(left, right, result, out))
}

#[inline(always)]
fn logic<T: Word>(result: u64) -> (T, u64) {
    let result = T::cut(result);
    (result, flags::of_result(result))
}

binary!(Add, true, |left, right, _carry| sum(left, right, false));
binary!(Adc, true, |left, right, carry| sum(left, right, carry));
binary!(Sub, true, |left, right, _carry| difference(left, right, false));
binary!(Sbb, true, |left, right, carry| difference(left, right, carry));
binary!(Cmp, false, |left, right, _carry| difference(left, right, false));
binary!(And, true, |left, right, _carry| logic(left.wide() & right.wide()));
binary!(Or, true, |left, right, _carry| logic(left.wide() | right.wide()));
binary!(Xor, true, |left, right, _carry| logic(left.wide() ^ right.wide()));
binary!(Test, false, |left, right, _carry| logic(left.wide() & right.wide()));

/// Stores flags where anybody will read them.
#[inline(always)]
fn put<const LIVE: bool>(cpu: &mut CpuState, flags: u64) {
    if LIVE {
        flags::put(cpu, ARITHMETIC, flags);
    }
}

extern "C" fn register_register<O: Binary, T: Word, const LIVE: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let (result, flags) = O::apply(T::get(cpu, op.dst), T::get(cpu, op.src), cpu.rflags & CF != 0);
    if O::WRITES {
        T::set(cpu, op.dst, result);
    }
    put::<LIVE>(cpu, flags);
    Ok(())
}

extern "C" fn register_immediate<O: Binary, T: Word, const LIVE: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    let (result, flags) = O::apply(T::get(cpu, op.dst), T::cut(op.imm), cpu.rflags & CF != 0);
    if O::WRITES {
        T::set(cpu, op.dst, result);
    }
    put::<LIVE>(cpu, flags);
    Ok(())
}

/// The first operand, a register, and a second one from memory.
#[inline(always)]
fn to_register<O: Binary, T: Word, const LIVE: bool>(cpu: &mut CpuState, op: &Op, right: T) {
    let (result, flags) = O::apply(T::get(cpu, op.dst), right, cpu.rflags & CF != 0);
    if O::WRITES {
        T::set(cpu, op.dst, result);
    }
    put::<LIVE>(cpu, flags);
}

extern "C" fn register_memory<O: Binary, T: Word, const LIVE: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let Some(right) = load_at_once(cpu, op) else { return register_memory_with_care::<O, T, LIVE>(cpu, op) };
    to_register::<O, T, LIVE>(cpu, op, right);
    Ok(())
}

#[cold]
extern "C" fn register_memory_with_care<O: Binary, T: Word, const LIVE: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    let right = load(cpu, op)?;
    to_register::<O, T, LIVE>(cpu, op, right);
    Ok(())
}

/// Applies an operation to memory if nothing can go wrong with that; whether it did.
#[inline(always)]
fn to_memory_at_once<O: Binary, T: Word, const LIVE: bool>(cpu: &mut CpuState, op: &Op, right: T) -> bool {
    let carry = cpu.rflags & CF != 0;
    let left = if O::WRITES {
        let change = |left| O::apply::<T>(left, right, carry).0;
        cpu.linear_at_once(op).and_then(|linear| cpu.modify_at_once(linear, change))
    } else {
        load_at_once(cpu, op)
    };
    let Some(left) = left else { return false };
    if LIVE {
        put::<LIVE>(cpu, O::apply(left, right, carry).1);
    }
    true
}

/// Applies an operation to memory.
#[inline(always)]
fn to_memory<O: Binary, T: Word, const LIVE: bool, const LOCK: bool>(
    cpu: &mut CpuState,
    op: &Op,
    right: T,
) -> Result<(), Trap> {
    let carry = cpu.rflags & CF != 0;
    let size = T::SIZE as u64;
    let left = if !O::WRITES {
        load(cpu, op)?
    } else if LOCK {
        let linear = cpu.linear(op, size, Access::Write)?;
        cpu.modify_locked(linear, |left| O::apply::<T>(left, right, carry).0)?
    } else {
        let linear = cpu.linear(op, size, Access::Write)?;
        cpu.modify(linear, |left| O::apply::<T>(left, right, carry).0)?
    };
    if LIVE {
        put::<LIVE>(cpu, O::apply(left, right, carry).1);
    }
    Ok(())
}

extern "C" fn memory_register<O: Binary, T: Word, const LIVE: bool, const LOCK: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    let right = T::get(cpu, op.src);
    if !LOCK && to_memory_at_once::<O, T, LIVE>(cpu, op, right) {
        return Ok(());
    }
    memory_register_with_care::<O, T, LIVE, LOCK>(cpu, op)
}

#[inline(never)]
extern "C" fn memory_register_with_care<O: Binary, T: Word, const LIVE: bool, const LOCK: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    let right = T::get(cpu, op.src);
    to_memory::<O, T, LIVE, LOCK>(cpu, op, right)
}

extern "C" fn memory_immediate<O: Binary, T: Word, const LIVE: bool, const LOCK: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    if !LOCK && to_memory_at_once::<O, T, LIVE>(cpu, op, T::cut(op.imm)) {
        return Ok(());
    }
    memory_immediate_with_care::<O, T, LIVE, LOCK>(cpu, op)
}

#[inline(never)]
extern "C" fn memory_immediate_with_care<O: Binary, T: Word, const LIVE: bool, const LOCK: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    to_memory::<O, T, LIVE, LOCK>(cpu, op, T::cut(op.imm))
}

/// An operation of one operand.
trait Unary {
    /// The result, all six flags, and which of them change.
    fn apply<T: Word>(value: T) -> (T, u64);
    /// The flags that change.
    const FLAGS: u64;
}

struct Inc;
impl Unary for Inc {
    const FLAGS: u64 = ARITHMETIC & !CF;
    #[inline(always)]
    fn apply<T: Word>(value: T) -> (T, u64) {
        sum(value, T::cut(1), false)
    }
}

struct Dec;
impl Unary for Dec {
    const FLAGS: u64 = ARITHMETIC & !CF;
    #[inline(always)]
    fn apply<T: Word>(value: T) -> (T, u64) {
        difference(value, T::cut(1), false)
    }
}

struct Neg;
impl Unary for Neg {
    const FLAGS: u64 = ARITHMETIC;
    #[inline(always)]
    fn apply<T: Word>(value: T) -> (T, u64) {
        difference(T::cut(0), value, false)
    }
}

struct Not;
impl Unary for Not {
    const FLAGS: u64 = 0;
    #[inline(always)]
    fn apply<T: Word>(value: T) -> (T, u64) {
        (T::cut(!value.wide()), 0)
    }
}

extern "C" fn unary_register<O: Unary, T: Word, const LIVE: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let (result, flags) = O::apply(T::get(cpu, op.dst));
    T::set(cpu, op.dst, result);
    if LIVE {
        flags::put(cpu, O::FLAGS, flags & O::FLAGS);
    }
    Ok(())
}

extern "C" fn unary_memory<O: Unary, T: Word, const LOCK: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let linear = cpu.linear(op, T::SIZE as u64, Access::Write)?;
    let old = if LOCK {
        cpu.modify_locked(linear, |value: T| O::apply(value).0)?
    } else {
        cpu.modify(linear, |value: T| O::apply(value).0)?
    };
    flags::put(cpu, O::FLAGS, O::apply(old).1 & O::FLAGS);
    Ok(())
}

fn select_binary<O: Binary>(form: &Form, op: &Op) -> Option<Handler> {
    let size = form.sizes[0];
    let locked = op.prefix == Prefix::Lock;
    Some(match (form.kinds[0], form.kinds[1], form.flags_live) {
        (Kind::Register, Kind::Register, true) => by_size!(size, register_register, [O], [true]),
        (Kind::Register, Kind::Register, false) => by_size!(size, register_register, [O], [false]),
        (Kind::Register, Kind::Immediate, true) => by_size!(size, register_immediate, [O], [true]),
        (Kind::Register, Kind::Immediate, false) => by_size!(size, register_immediate, [O], [false]),
        (Kind::Register, Kind::Memory, true) => by_size!(size, register_memory, [O], [true]),
        (Kind::Register, Kind::Memory, false) => by_size!(size, register_memory, [O], [false]),
        (Kind::Memory, Kind::Register, _) if locked => by_size!(size, memory_register, [O], [true, true]),
        (Kind::Memory, Kind::Immediate, _) if locked => by_size!(size, memory_immediate, [O], [true, true]),
        (Kind::Memory, Kind::Register, true) => by_size!(size, memory_register, [O], [true, false]),
        (Kind::Memory, Kind::Register, false) => by_size!(size, memory_register, [O], [false, false]),
        (Kind::Memory, Kind::Immediate, true) => by_size!(size, memory_immediate, [O], [true, false]),
        (Kind::Memory, Kind::Immediate, false) => by_size!(size, memory_immediate, [O], [false, false]),
        _ => return None,
    })
}

fn select_unary<O: Unary>(form: &Form, op: &Op) -> Option<Handler> {
    let size = form.sizes[0];
    Some(match form.kinds[0] {
        Kind::Register if form.flags_live => by_size!(size, unary_register, [O], [true]),
        Kind::Register => by_size!(size, unary_register, [O], [false]),
        Kind::Memory if op.prefix == Prefix::Lock => by_size!(size, unary_memory, [O], [true]),
        Kind::Memory => by_size!(size, unary_memory, [O], [false]),
        _ => return None,
    })
}

/// Handlers of this file's instructions.
pub(super) fn select(instruction: &Instruction, form: &Form, op: &Op) -> Option<Handler> {
    match instruction.mnemonic() {
        Mnemonic::Add => select_binary::<Add>(form, op),
        Mnemonic::Adc => select_binary::<Adc>(form, op),
        Mnemonic::Sub => select_binary::<Sub>(form, op),
        Mnemonic::Sbb => select_binary::<Sbb>(form, op),
        Mnemonic::Cmp => select_binary::<Cmp>(form, op),
        Mnemonic::And => select_binary::<And>(form, op),
        Mnemonic::Or => select_binary::<Or>(form, op),
        Mnemonic::Xor => select_binary::<Xor>(form, op),
        Mnemonic::Test => select_binary::<Test>(form, op),
        Mnemonic::Inc => select_unary::<Inc>(form, op),
        Mnemonic::Dec => select_unary::<Dec>(form, op),
        Mnemonic::Neg => select_unary::<Neg>(form, op),
        Mnemonic::Not => select_unary::<Not>(form, op),
        _ => None,
    }
}
