//! The register stack, and what every computing instruction does around its work: stack faults, exceptions, pointers.
//!
//! Sources: SDM vol. 1 § 8.1.2 (stack), § 8.1.8 (pointers), § 8.4 and § 8.5 (exceptions; § 8.5.1.1 stack faults).

use super::control::{C1, STACK_FAULT, enter};
use crate::{
    float::{Environment, Flags, Format, NanRule, Number, Rounding},
    op::Op,
    state::{CpuState, seg},
    trap::Trap,
};

/// How far a trapped overflow or underflow moves the exponent of a result in a register.
const WRAP: i32 = 24576;

/// Lets a computing instruction pass, and notes where it is.
#[inline(always)]
pub(super) fn begin(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    cpu.x87.last_instruction = cpu.rip.wrapping_add(u64::from(op.offset));
    cpu.x87.last_cs = cpu.segments[usize::from(seg::CS)].selector;
    Ok(())
}

/// As [`begin`], for an instruction with a memory operand.
#[inline(always)]
pub(super) fn begin_memory(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    begin(cpu, op)?;
    cpu.x87.last_data = op.effective_address(cpu);
    cpu.x87.last_ds = cpu.segments[usize::from(op.segment & 7)].selector;
    Ok(())
}

/// What the control word says about computing.
#[inline(always)]
pub(super) fn environment(cpu: &CpuState) -> Environment {
    let control = cpu.x87.control;
    Environment {
        rounding: Rounding::from_bits(u32::from(control >> 10)),
        masked: Flags::from_bits_truncate(control as u8),
        flush_to_zero: false,
        denormals_are_zero: false,
        nan_rule: NanRule::Larger,
        wrap: WRAP,
        flags: Flags::empty(),
        rounded_up: false,
    }
}

/// The format that addition, multiplication, division and square root round to: the exponents are always those of 80
/// bits, the precision is the control word's.
#[inline(always)]
pub(super) fn result_format(cpu: &CpuState) -> Format {
    let precision = match cpu.x87.control >> 8 & 3 {
        0 => 24,
        2 => 53,
        _ => 64,
    };
    Format { precision, ..Format::EXTENDED }
}

/// The physical number of ST(`i`).
#[inline(always)]
fn physical(cpu: &CpuState, i: u8) -> u8 {
    cpu.x87.top.wrapping_add(i) & 7
}

/// Whether ST(`i`) is empty.
#[inline(always)]
pub(super) fn is_empty(cpu: &CpuState, i: u8) -> bool {
    cpu.x87.valid >> physical(cpu, i) & 1 == 0
}

/// The bits of ST(`i`).
#[inline(always)]
pub(super) fn bits(cpu: &CpuState, i: u8) -> u128 {
    cpu.x87.registers[usize::from(physical(cpu, i))]
}

/// Writes ST(`i`), which is then not empty.
#[inline(always)]
pub(super) fn set_bits(cpu: &mut CpuState, i: u8, value: u128) {
    let number = physical(cpu, i);
    cpu.x87.registers[usize::from(number)] = value;
    cpu.x87.valid |= 1 << number;
}

/// The number in ST(`i`).
#[inline(always)]
pub(super) fn number(cpu: &CpuState, i: u8) -> Number {
    Number::unpack_extended(bits(cpu, i))
}

/// Writes a number to ST(`i`).
#[inline(always)]
pub(super) fn set_number(cpu: &mut CpuState, i: u8, value: Number) {
    set_bits(cpu, i, value.pack_extended());
}

/// Pushes a value; the caller has seen that there is room.
#[inline(always)]
pub(super) fn push(cpu: &mut CpuState, value: u128) {
    cpu.x87.top = cpu.x87.top.wrapping_sub(1) & 7;
    set_bits(cpu, 0, value);
}

/// Pops `count` registers.
#[inline(always)]
pub(super) fn pop(cpu: &mut CpuState, count: u8) {
    for _ in 0..count {
        cpu.x87.valid &= !(1 << (cpu.x87.top & 7));
        cpu.x87.top = cpu.x87.top.wrapping_add(1) & 7;
    }
}

/// Which way the stack ran over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StackFault {
    /// A register was needed that is empty.
    Underflow,
    /// A register should have been filled that is not empty.
    Overflow,
}

/// Reports a stack fault; whether it is masked, so that the instruction goes on with the default NaN.
#[cold]
pub(super) fn stack_fault(cpu: &mut CpuState, op: &Op, fault: StackFault) -> bool {
    let mut environment = environment(cpu);
    environment.raise(Flags::INVALID);
    cpu.x87.status |= STACK_FAULT;
    let masked = conclude(cpu, op, &environment);
    if fault == StackFault::Overflow {
        cpu.x87.status |= C1;
    }
    masked
}

/// Notes the exceptions of a computation and how it was rounded. Whether there is a result to write: not if an
/// exception traps that comes before computing.
#[inline(always)]
pub(super) fn conclude(cpu: &mut CpuState, op: &Op, environment: &Environment) -> bool {
    conclude_with(cpu, op, environment, Flags::BEFORE)
}

/// As [`conclude`], for loads, which go on after a denormal operand also if that traps.
#[inline(always)]
pub(super) fn conclude_despite_denormals(cpu: &mut CpuState, op: &Op, environment: &Environment) -> bool {
    conclude_with(cpu, op, environment, Flags::INVALID)
}

#[inline(always)]
fn conclude_with(cpu: &mut CpuState, op: &Op, environment: &Environment, stopping: Flags) -> bool {
    let before = environment.flags & stopping;
    let goes_on = environment.masked.contains(before);
    let flags = if goes_on { environment.flags } else { before };
    let direction = if goes_on && environment.rounded_up { C1 } else { 0 };
    cpu.x87.status = cpu.x87.status & !C1 | u16::from(flags.bits()) | direction;
    if !environment.masked.contains(flags) {
        trap_later(cpu, op);
    }
    goes_on
}

/// Makes an exception pending. Only now the opcode is noted, as processors do since the Pentium 4 (SDM vol. 1
/// § 8.1.9.1); it is read again from memory.
#[cold]
fn trap_later(cpu: &mut CpuState, op: &Op) {
    cpu.x87.summarize();
    let cr2 = cpu.cr2;
    let start = cpu.segments[usize::from(seg::CS)].base.wrapping_add(cpu.rip).wrapping_add(u64::from(op.offset));
    let mut bytes = (0..u64::from(op.length)).map_while(|i| cpu.read::<u8>(start.wrapping_add(i)).ok());
    let opcode = bytes.find(|byte| byte & 0xf8 == 0xd8).zip(bytes.next());
    cpu.cr2 = cr2;
    if let Some((opcode, operand)) = opcode {
        cpu.x87.last_opcode = u16::from(opcode & 7) << 8 | u16::from(operand);
    }
}
