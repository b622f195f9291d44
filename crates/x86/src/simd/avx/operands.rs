//! What all instructions with a VEX prefix share: whether they may run, and their operands, which are vectors of 128 or
//! 256 bits and need no alignment in memory.
//!
//! Source: SDM vol. 1 § 14.3; SDM vol. 2 § 2.4 (exception types); SDM vol. 3 § 13.1.

use crate::{
    access::Access,
    op::Op,
    protection::address::{load, store},
    simd::operands::{misaligned, xmm},
    state::{CpuState, Cr0, Cr4, Xcr0},
    trap::{Exception, Trap},
};

/// A YMM register's value: its lower and its upper half.
pub(super) type Vector = [u128; 2];

/// What of the extended state must be switched on.
const NEEDED: u64 = Xcr0::SSE.bits() | Xcr0::AVX.bits();

/// Lets an instruction with a VEX prefix pass, or raises what the mode says.
#[inline(always)]
pub(in crate::simd) fn enter(cpu: &mut CpuState) -> Result<(), Trap> {
    if cpu.cr0 & Cr0::TS.bits() | !cpu.cr4 & Cr4::OSXSAVE.bits() | !cpu.xcr0 & NEEDED != 0 {
        return Err(unavailable(cpu));
    }
    Ok(())
}

#[cold]
fn unavailable(cpu: &mut CpuState) -> Trap {
    let switched_on = cpu.cr4_has(Cr4::OSXSAVE) && cpu.xcr0 & NEEDED == NEEDED;
    cpu.raise(if switched_on { Exception::DEVICE_NOT_AVAILABLE } else { Exception::INVALID_OPCODE })
}

/// YMM register `number`.
#[inline(always)]
pub(super) fn vector(cpu: &CpuState, number: u8) -> Vector {
    let number = usize::from(number & 15);
    [cpu.xmm[number], cpu.ymm_high[number]]
}

/// Writes YMM register `number`.
#[inline(always)]
pub(super) fn set_vector(cpu: &mut CpuState, number: u8, value: Vector) {
    let number = usize::from(number & 15);
    cpu.xmm[number] = value[0];
    cpu.ymm_high[number] = value[1];
}

/// Writes the lower half of YMM register `number`; the upper one becomes zero.
#[inline(always)]
pub(in crate::simd) fn set_low(cpu: &mut CpuState, number: u8, value: u128) {
    set_vector(cpu, number, [value, 0]);
}

/// Reads a memory operand of 32 bytes.
#[inline(always)]
pub(super) fn load_long(cpu: &mut CpuState, op: &Op) -> Result<Vector, Trap> {
    let linear = cpu.linear(op, 32, Access::Read)?;
    if linear & 0xfff > 4096 - 32 {
        // What is wrong with the whole operand comes before what is wrong with its first half.
        cpu.probe_read(linear, 32)?;
    }
    Ok([cpu.read(linear)?, cpu.read(linear.wrapping_add(16))?])
}

/// Reads a memory operand of 16 or 32 bytes.
#[inline(always)]
pub(super) fn load_vector<const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<Vector, Trap> {
    if LONG { load_long(cpu, op) } else { Ok([load(cpu, op)?, 0]) }
}

/// Writes 16 or 32 bytes at a linear address: all of them, or none.
#[inline(always)]
fn write_vector<const LONG: bool>(cpu: &mut CpuState, linear: u64, value: Vector) -> Result<(), Trap> {
    if LONG {
        // In one page the second half is written if the first one is.
        if linear & 0xfff > 4096 - 32 {
            cpu.probe_write(linear, 32)?;
        }
        cpu.write(linear, value[0])?;
        return cpu.write(linear.wrapping_add(16), value[1]);
    }
    cpu.write(linear, value[0])
}

/// Writes a memory operand of 16 or 32 bytes.
#[inline(always)]
pub(super) fn store_vector<const LONG: bool>(cpu: &mut CpuState, op: &Op, value: Vector) -> Result<(), Trap> {
    if !LONG {
        return store(cpu, op, value[0]);
    }
    let linear = cpu.linear(op, 32, Access::Write)?;
    write_vector::<LONG>(cpu, linear, value)
}

/// The linear address of a memory operand that must lie on a multiple of its size.
#[inline(always)]
fn aligned<const LONG: bool>(cpu: &mut CpuState, op: &Op, access: Access) -> Result<u64, Trap> {
    let size = if LONG { 32 } else { 16 };
    let linear = cpu.linear(op, size, access)?;
    if linear & (size - 1) != 0 { Err(misaligned(cpu)) } else { Ok(linear) }
}

/// Reads a memory operand that must lie on a multiple of its size.
#[inline(always)]
pub(super) fn load_aligned<const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<Vector, Trap> {
    let linear = aligned::<LONG>(cpu, op, Access::Read)?;
    let low = cpu.read(linear)?;
    Ok([low, if LONG { cpu.read(linear.wrapping_add(16))? } else { 0 }])
}

/// Writes a memory operand that must lie on a multiple of its size.
#[inline(always)]
pub(super) fn store_aligned<const LONG: bool>(cpu: &mut CpuState, op: &Op, value: Vector) -> Result<(), Trap> {
    let linear = aligned::<LONG>(cpu, op, Access::Write)?;
    write_vector::<LONG>(cpu, linear, value)
}

/// The last operand that is no immediate: a register, or memory.
#[inline(always)]
pub(super) fn source<const LONG: bool, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<Vector, Trap> {
    if MEMORY { load_vector::<LONG>(cpu, op) } else { Ok(vector(cpu, op.aux)) }
}

/// The last operand that is no immediate: an XMM register, or 16 bytes of memory.
#[inline(always)]
pub(super) fn short_source<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<u128, Trap> {
    if MEMORY { load(cpu, op) } else { Ok(xmm(cpu, op.aux)) }
}

/// Applies `f` to both halves of vectors, or to the lower ones alone.
#[inline(always)]
pub(super) fn each<const LONG: bool>(a: Vector, b: Vector, mut f: impl FnMut(u128, u128) -> u128) -> Vector {
    [f(a[0], b[0]), if LONG { f(a[1], b[1]) } else { 0 }]
}

/// The handler for the length of the vectors and the kind of the last operand.
macro_rules! forms {
    ($vex:expr, $handler:ident $(, $generic:ty)*) => {
        match ($vex.long, $vex.memory) {
            (false, false) => $handler::<$($generic,)* false, false>,
            (false, true) => $handler::<$($generic,)* false, true>,
            (true, false) => $handler::<$($generic,)* true, false>,
            (true, true) => $handler::<$($generic,)* true, true>,
        }
    };
}
pub(super) use forms;

/// The handler for one of two lengths, or one of two kinds of operand.
macro_rules! either {
    ($condition:expr, $handler:ident $(, $generic:ty)*) => {
        if $condition { $handler::<$($generic,)* true> } else { $handler::<$($generic,)* false> }
    };
}
pub(super) use either;
