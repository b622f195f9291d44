//! Compare and exchange, exchange and add: CMPXCHG, CMPXCHG8B, CMPXCHG16B, XADD. SDM vol. 2.

use iced_x86::{Instruction, Mnemonic};

use super::{
    flags::{self, ARITHMETIC, ZF},
    word::{Word, by_size},
};
use crate::{
    access::Access,
    decode::{Form, Kind},
    op::{Handler, Op, Prefix},
    state::{CpuState, reg},
    trap::{Exception, Trap},
};

/// Flags of the comparison of the accumulator with what was found.
#[inline(always)]
fn compare<T: Word>(accumulator: T, found: T) -> u64 {
    let (result, borrow) = accumulator.subtract_borrow(found, false);
    flags::of_difference(accumulator, found, result, borrow)
}

extern "C" fn compare_register<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let accumulator = T::get(cpu, reg::RAX);
    let found = T::get(cpu, op.dst);
    if found == accumulator {
        let value = T::get(cpu, op.src);
        T::set(cpu, op.dst, value);
    } else {
        // The destination is not written: its upper half stays where it has 32 bits.
        T::set(cpu, reg::RAX, found);
    }
    flags::put(cpu, ARITHMETIC, compare(accumulator, found));
    Ok(())
}

extern "C" fn compare_memory<T: Word, const LOCK: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let accumulator = T::get(cpu, reg::RAX);
    let value = T::get(cpu, op.src);
    let linear = cpu.linear(op, T::SIZE as u64, Access::Write)?;
    // What was there is written back if it differs, as the processor does.
    let change = |found: T| if found == accumulator { value } else { found };
    let found = if LOCK { cpu.modify_locked(linear, change)? } else { cpu.modify(linear, change)? };
    if found != accumulator {
        T::set(cpu, reg::RAX, found);
    }
    flags::put(cpu, ARITHMETIC, compare(accumulator, found));
    Ok(())
}

extern "C" fn compare_8_bytes(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let pair = |cpu: &CpuState, high, low| cpu.register(high) << 32 | cpu.register(low) & 0xffff_ffff;
    let expected = pair(cpu, reg::RDX, reg::RAX);
    let value = pair(cpu, reg::RCX, reg::RBX);
    let linear = cpu.linear(op, 8, Access::Write)?;
    let change = |found: u64| if found == expected { value } else { found };
    let found =
        if op.prefix == Prefix::Lock { cpu.modify_locked(linear, change)? } else { cpu.modify(linear, change)? };
    if found != expected {
        u32::set(cpu, reg::RAX, found as u32);
        u32::set(cpu, reg::RDX, (found >> 32) as u32);
    }
    flags::put(cpu, ZF, if found == expected { ZF } else { 0 });
    Ok(())
}

extern "C" fn compare_16_bytes(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let pair = |cpu: &CpuState, high, low| u128::from(cpu.register(high)) << 64 | u128::from(cpu.register(low));
    let expected = pair(cpu, reg::RDX, reg::RAX);
    let value = pair(cpu, reg::RCX, reg::RBX);
    let linear = cpu.linear(op, 16, Access::Write)?;
    if linear & 15 != 0 {
        return Err(cpu.raise(Exception::general_protection(0)));
    }
    let change = |found: u128| if found == expected { value } else { found };
    let found =
        if op.prefix == Prefix::Lock { cpu.modify_locked(linear, change)? } else { cpu.modify(linear, change)? };
    if found != expected {
        u64::set(cpu, reg::RAX, found as u64);
        u64::set(cpu, reg::RDX, (found >> 64) as u64);
    }
    flags::put(cpu, ZF, if found == expected { ZF } else { 0 });
    Ok(())
}

extern "C" fn add_register<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let (left, right) = (T::get(cpu, op.dst), T::get(cpu, op.src));
    let (sum, carry) = left.add_carry(right, false);
    // In this order: where both are one register, the sum stays.
    T::set(cpu, op.src, left);
    T::set(cpu, op.dst, sum);
    flags::put(cpu, ARITHMETIC, flags::of_sum(left, right, sum, carry));
    Ok(())
}

extern "C" fn add_memory<T: Word, const LOCK: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let right = T::get(cpu, op.src);
    let linear = cpu.linear(op, T::SIZE as u64, Access::Write)?;
    let change = |left: T| left.add_carry(right, false).0;
    let left = if LOCK { cpu.modify_locked(linear, change)? } else { cpu.modify(linear, change)? };
    let (sum, carry) = left.add_carry(right, false);
    T::set(cpu, op.src, left);
    flags::put(cpu, ARITHMETIC, flags::of_sum(left, right, sum, carry));
    Ok(())
}

/// Handlers of this file's instructions.
pub(super) fn select(instruction: &Instruction, form: &Form, op: &Op) -> Option<Handler> {
    let size = form.sizes[0];
    let memory = form.kinds[0] == Kind::Memory;
    let locked = op.prefix == Prefix::Lock;
    Some(match (instruction.mnemonic(), memory, locked) {
        (Mnemonic::Cmpxchg, false, _) => by_size!(size, compare_register, [], []),
        (Mnemonic::Cmpxchg, true, false) => by_size!(size, compare_memory, [], [false]),
        (Mnemonic::Cmpxchg, true, true) => by_size!(size, compare_memory, [], [true]),
        (Mnemonic::Cmpxchg8b, ..) => compare_8_bytes,
        (Mnemonic::Cmpxchg16b, ..) => compare_16_bytes,
        (Mnemonic::Xadd, false, _) => by_size!(size, add_register, [], []),
        (Mnemonic::Xadd, true, false) => by_size!(size, add_memory, [], [false]),
        (Mnemonic::Xadd, true, true) => by_size!(size, add_memory, [], [true]),
        _ => return None,
    })
}
