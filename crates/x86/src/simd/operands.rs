//! What all SSE and MMX handlers share: whether the instruction may run at all, and where its operands are.
//!
//! Sources: SDM vol. 1 § 9.5 to 9.6, § 11.6.2; SDM vol. 3 § 2.5, § 12.1 (MMX and the x87 registers).

use super::Destination;
pub(super) use crate::protection::address::{load, store};
use crate::{
    access::{Access, Value},
    decode::{Form, Kind},
    op::{Handler, Op},
    state::{CpuState, Cr0, Cr4},
    trap::{Exception, Trap},
};

/// Status word bit ES: an unmasked x87 exception is pending.
const ERROR_SUMMARY: u16 = 1 << 7;

/// Bits of CR0 that keep SSE and MMX instructions from running.
const BLOCKED: u64 = Cr0::EM.bits() | Cr0::TS.bits();

/// Lets an SSE instruction pass, or raises what the mode says.
#[inline(always)]
pub(super) fn enter_sse(cpu: &mut CpuState) -> Result<(), Trap> {
    if cpu.cr0 & BLOCKED | !cpu.cr4 & Cr4::OSFXSR.bits() != 0 {
        return Err(sse_unavailable(cpu));
    }
    Ok(())
}

#[cold]
fn sse_unavailable(cpu: &mut CpuState) -> Trap {
    if cpu.cr0_has(Cr0::EM) || !cpu.cr4_has(Cr4::OSFXSR) {
        cpu.raise(Exception::INVALID_OPCODE)
    } else {
        cpu.raise(Exception::DEVICE_NOT_AVAILABLE)
    }
}

/// Lets an MMX instruction pass, or raises what the mode or a pending x87 exception says.
#[inline(always)]
pub(super) fn enter_mmx(cpu: &mut CpuState) -> Result<(), Trap> {
    if cpu.cr0 & BLOCKED | u64::from(cpu.x87.status & ERROR_SUMMARY) != 0 {
        return Err(mmx_unavailable(cpu));
    }
    Ok(())
}

#[cold]
fn mmx_unavailable(cpu: &mut CpuState) -> Trap {
    let exception = if cpu.cr0_has(Cr0::EM) {
        Exception::INVALID_OPCODE
    } else if cpu.cr0_has(Cr0::TS) {
        Exception::DEVICE_NOT_AVAILABLE
    } else {
        Exception::X87_ERROR
    };
    cpu.raise(exception)
}

/// What every MMX instruction but EMMS does to the x87 state: all registers valid, ST(0) is R0.
#[inline(always)]
pub(super) fn claim_mmx(cpu: &mut CpuState) {
    cpu.x87.top = 0;
    cpu.x87.valid = 0xff;
}

/// MMX register `number`.
#[inline(always)]
pub(super) fn mmx(cpu: &CpuState, number: u8) -> u64 {
    cpu.x87.registers[usize::from(number & 7)] as u64
}

/// Writes MMX register `number`: sign and exponent of the x87 register become ones.
#[inline(always)]
pub(super) fn set_mmx(cpu: &mut CpuState, number: u8, value: u64) {
    claim_mmx(cpu);
    cpu.x87.registers[usize::from(number & 7)] = 0xffff << 64 | u128::from(value);
}

/// XMM register `number`.
#[inline(always)]
pub(super) fn xmm(cpu: &CpuState, number: u8) -> u128 {
    cpu.xmm[usize::from(number & 15)]
}

/// Writes XMM register `number`.
#[inline(always)]
pub(super) fn set_xmm(cpu: &mut CpuState, number: u8, value: u128) {
    cpu.xmm[usize::from(number & 15)] = value;
}

/// Reads a memory operand that must lie on a multiple of 16.
#[inline(always)]
pub(super) fn load_aligned(cpu: &mut CpuState, op: &Op) -> Result<u128, Trap> {
    let linear = cpu.linear(op, 16, Access::Read)?;
    if linear & 15 != 0 {
        return Err(misaligned(cpu));
    }
    cpu.read(linear)
}

/// Writes a memory operand that must lie on a multiple of 16.
#[inline(always)]
pub(super) fn store_aligned(cpu: &mut CpuState, op: &Op, value: u128) -> Result<(), Trap> {
    let linear = cpu.linear(op, 16, Access::Write)?;
    if linear & 15 != 0 {
        return Err(misaligned(cpu));
    }
    cpu.write(linear, value)
}

/// The fault of an operand that is not aligned as the instruction demands.
#[cold]
pub(super) fn misaligned(cpu: &mut CpuState) -> Trap {
    cpu.raise(Exception::general_protection(0))
}

/// The second operand of a 128-bit operation: a register, or aligned memory.
#[inline(always)]
pub(super) fn source<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<u128, Trap> {
    if MEMORY { load_aligned(cpu, op) } else { Ok(xmm(cpu, op.src)) }
}

/// An operation on two registers of the same kind that writes the first.
pub(super) trait Binary {
    /// On XMM registers.
    fn wide(a: u128, b: u128) -> u128;
    /// On MMX registers; for operations whose lanes do not meet, the low half of the wide one.
    #[inline(always)]
    fn narrow(a: u64, b: u64) -> u64 {
        Self::wide(u128::from(a), u128::from(b)) as u64
    }
}

/// The handler of a [`Binary`] operation for a form.
pub(super) fn binary_handler<O: Binary>(form: &Form, destination: Destination) -> Option<Handler> {
    Some(match (destination, form.kinds[1], form.sizes[1]) {
        (Destination::Xmm, Kind::Register, _) => wide::<O, false>,
        (Destination::Xmm, Kind::Memory, _) => wide::<O, true>,
        (Destination::Xmm, Kind::Immediate, _) => wide_immediate::<O>,
        (Destination::Mmx, Kind::Register, _) => narrow::<O>,
        (Destination::Mmx, Kind::Memory, 4) => narrow_memory::<O, u32>,
        (Destination::Mmx, Kind::Memory, _) => narrow_memory::<O, u64>,
        (Destination::Mmx, Kind::Immediate, _) => narrow_immediate::<O>,
        _ => return None,
    })
}

extern "C" fn wide<O: Binary, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b = source::<MEMORY>(cpu, op)?;
    let a = xmm(cpu, op.dst);
    set_xmm(cpu, op.dst, O::wide(a, b));
    Ok(())
}

extern "C" fn wide_immediate<O: Binary>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let a = xmm(cpu, op.dst);
    set_xmm(cpu, op.dst, O::wide(a, u128::from(op.imm as u8)));
    Ok(())
}

extern "C" fn narrow<O: Binary>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_mmx(cpu)?;
    let value = O::narrow(mmx(cpu, op.dst), mmx(cpu, op.src));
    set_mmx(cpu, op.dst, value);
    Ok(())
}

extern "C" fn narrow_memory<O: Binary, T: Value + Into<u64>>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_mmx(cpu)?;
    let b: T = load(cpu, op)?;
    let value = O::narrow(mmx(cpu, op.dst), b.into());
    set_mmx(cpu, op.dst, value);
    Ok(())
}

extern "C" fn narrow_immediate<O: Binary>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_mmx(cpu)?;
    let value = O::narrow(mmx(cpu, op.dst), u64::from(op.imm as u8));
    set_mmx(cpu, op.dst, value);
    Ok(())
}
