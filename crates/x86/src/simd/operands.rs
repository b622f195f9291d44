//! What all SSE and MMX handlers share: whether the instruction may run at all, and where its operands are.
//!
//! Sources: SDM vol. 1 § 9.5 to 9.6, § 11.6.2; SDM vol. 3 § 2.5, § 12.1 (MMX and the x87 registers).

pub(super) use crate::protection::address::{load, store};
use crate::{
    access::Access,
    op::Op,
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
        return mmx_unavailable(cpu);
    }
    Ok(())
}

#[cold]
fn mmx_unavailable(cpu: &mut CpuState) -> Result<(), Trap> {
    if cpu.cr0_has(Cr0::EM) {
        Err(cpu.raise(Exception::INVALID_OPCODE))
    } else if cpu.cr0_has(Cr0::TS) {
        Err(cpu.raise(Exception::DEVICE_NOT_AVAILABLE))
    } else {
        cpu.report_x87_error()
    }
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
