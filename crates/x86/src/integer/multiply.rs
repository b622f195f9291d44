//! Multiplication and division: MUL, IMUL, DIV, IDIV. SDM vol. 2.
//!
//! Of the flags that the manuals leave undefined, multiplication sets SF, ZF and PF by the low half and clears AF;
//! division leaves all as they were.

use iced_x86::{Instruction, Mnemonic};

use super::{
    flags::{self, ARITHMETIC, CF, OF},
    word::{Word, by_size, by_wide_size},
};
use crate::{
    access::Access,
    decode::{Form, Kind},
    op::{HIGH_BYTE, Handler, Op},
    state::{CpuState, reg},
    trap::{Exception, Trap},
};

/// Reads the only operand of MUL, DIV and their signed forms.
#[inline(always)]
fn operand<T: Word, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<T, Trap> {
    if MEMORY {
        let linear = cpu.linear(op, T::SIZE as u64, Access::Read)?;
        cpu.read(linear)
    } else {
        Ok(T::get(cpu, op.dst))
    }
}

/// The number of the register with the upper half of products and dividends: AH or DX, EDX, RDX.
const fn upper<T: Word>() -> u8 {
    if T::SIZE == 1 { HIGH_BYTE } else { reg::RDX }
}

#[inline(always)]
fn product_flags<T: Word>(low: T, overflowed: bool) -> u64 {
    flags::of_result(low) | if overflowed { CF | OF } else { 0 }
}

extern "C" fn multiply<T: Word, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let factor = operand::<T, MEMORY>(cpu, op)?;
    let product = u128::from(T::get(cpu, reg::RAX).wide()) * u128::from(factor.wide());
    let (low, high) = (T::cut(product as u64), T::cut((product >> T::BITS) as u64));
    T::set(cpu, reg::RAX, low);
    T::set(cpu, upper::<T>(), high);
    flags::put(cpu, ARITHMETIC, product_flags(low, high.wide() != 0));
    Ok(())
}

extern "C" fn multiply_signed<T: Word, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let factor = operand::<T, MEMORY>(cpu, op)?;
    let product = i128::from(T::get(cpu, reg::RAX).signed()) * i128::from(factor.signed());
    let (low, high) = (T::cut(product as u64), T::cut((product >> T::BITS) as u64));
    T::set(cpu, reg::RAX, low);
    T::set(cpu, upper::<T>(), high);
    flags::put(cpu, ARITHMETIC, product_flags(low, i128::from(low.signed()) != product));
    Ok(())
}

/// IMUL with two or three operands: `dst` from two factors; and the flags, where anybody will read them.
#[inline(always)]
fn multiply_to<T: Word, const LIVE: bool>(cpu: &mut CpuState, number: u8, left: T, right: T) {
    let product = i128::from(left.signed()) * i128::from(right.signed());
    let low = T::cut(product as u64);
    T::set(cpu, number, low);
    if LIVE {
        flags::put(cpu, ARITHMETIC, product_flags(low, i128::from(low.signed()) != product));
    }
}

extern "C" fn multiply_registers<T: Word, const LIVE: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let (left, right) = (T::get(cpu, op.dst), T::get(cpu, op.src));
    multiply_to::<T, LIVE>(cpu, op.dst, left, right);
    Ok(())
}

extern "C" fn multiply_register_memory<T: Word, const LIVE: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let linear = cpu.linear(op, T::SIZE as u64, Access::Read)?;
    let right: T = cpu.read(linear)?;
    let left = T::get(cpu, op.dst);
    multiply_to::<T, LIVE>(cpu, op.dst, left, right);
    Ok(())
}

extern "C" fn multiply_register_immediate<T: Word, const LIVE: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let left = T::get(cpu, op.src);
    multiply_to::<T, LIVE>(cpu, op.dst, left, T::cut(op.imm));
    Ok(())
}

extern "C" fn multiply_memory_immediate<T: Word, const LIVE: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let linear = cpu.linear(op, T::SIZE as u64, Access::Read)?;
    let left: T = cpu.read(linear)?;
    multiply_to::<T, LIVE>(cpu, op.dst, left, T::cut(op.imm));
    Ok(())
}

/// The dividend of DIV and IDIV, zero-extended.
#[inline(always)]
fn dividend<T: Word>(cpu: &CpuState) -> u128 {
    u128::from(T::get(cpu, upper::<T>()).wide()) << T::BITS | u128::from(T::get(cpu, reg::RAX).wide())
}

extern "C" fn divide<T: Word, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let divisor = operand::<T, MEMORY>(cpu, op)?.wide();
    let high = T::get(cpu, upper::<T>()).wide();
    // The quotient fits exactly if the upper half is below the divisor; a divisor of zero is caught by the same test.
    if high >= divisor {
        return Err(cpu.raise(Exception::DIVIDE));
    }
    let (quotient, remainder) = if T::BITS < 64 || high == 0 {
        let low = T::get(cpu, reg::RAX).wide();
        let dividend = if T::BITS < 64 { high << (T::BITS & 63) | low } else { low };
        (dividend / divisor, dividend % divisor)
    } else {
        let dividend = dividend::<T>(cpu);
        ((dividend / u128::from(divisor)) as u64, (dividend % u128::from(divisor)) as u64)
    };
    T::set(cpu, reg::RAX, T::cut(quotient));
    T::set(cpu, upper::<T>(), T::cut(remainder));
    Ok(())
}

extern "C" fn divide_signed<T: Word, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let divisor = i128::from(operand::<T, MEMORY>(cpu, op)?.signed());
    let unused = 128 - 2 * T::BITS;
    let dividend = ((dividend::<T>(cpu) << unused) as i128) >> unused;
    let (Some(quotient), Some(remainder)) = (dividend.checked_div(divisor), dividend.checked_rem(divisor)) else {
        return Err(cpu.raise(Exception::DIVIDE));
    };
    let low = T::cut(quotient as u64);
    if i128::from(low.signed()) != quotient {
        return Err(cpu.raise(Exception::DIVIDE));
    }
    T::set(cpu, reg::RAX, low);
    T::set(cpu, upper::<T>(), T::cut(remainder as u64));
    Ok(())
}

/// The handler of IMUL with two or three operands, of which the second and third are of these kinds.
fn signed_to_register<const LIVE: bool>(size: u8, second: Kind, third: Kind) -> Option<Handler> {
    Some(match (second, third) {
        (Kind::Register, Kind::None) => by_wide_size!(size, multiply_registers, [], [LIVE]),
        (Kind::Memory, Kind::None) => by_wide_size!(size, multiply_register_memory, [], [LIVE]),
        (Kind::Register, _) => by_wide_size!(size, multiply_register_immediate, [], [LIVE]),
        (Kind::Memory, _) => by_wide_size!(size, multiply_memory_immediate, [], [LIVE]),
        _ => return None,
    })
}

/// Handlers of this file's instructions.
pub(super) fn select(instruction: &Instruction, form: &Form) -> Option<Handler> {
    let size = form.sizes[0];
    let memory = form.kinds[0] == Kind::Memory;
    Some(match (instruction.mnemonic(), memory) {
        (Mnemonic::Mul, false) => by_size!(size, multiply, [], [false]),
        (Mnemonic::Mul, true) => by_size!(size, multiply, [], [true]),
        (Mnemonic::Div, false) => by_size!(size, divide, [], [false]),
        (Mnemonic::Div, true) => by_size!(size, divide, [], [true]),
        (Mnemonic::Idiv, false) => by_size!(size, divide_signed, [], [false]),
        (Mnemonic::Idiv, true) => by_size!(size, divide_signed, [], [true]),
        (Mnemonic::Imul, _) => match (form.kinds[1], form.kinds[2]) {
            (Kind::None, _) if memory => by_size!(size, multiply_signed, [], [true]),
            (Kind::None, _) => by_size!(size, multiply_signed, [], [false]),
            (left, right) if form.flags_live => signed_to_register::<true>(size, left, right)?,
            (left, right) => signed_to_register::<false>(size, left, right)?,
        },
        _ => return None,
    })
}
