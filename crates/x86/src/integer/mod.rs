//! Integer instructions: moves, arithmetic, shifts, bits, strings, stack and near control flow.

mod alu;
mod bits;
mod bmi;
mod branches;
mod chains;
mod checksum;
mod compare_add;
mod decimal;
mod exchange;
mod flags;
mod moves;
mod multiply;
mod random;
mod shifts;
mod stack;
pub(crate) mod strings;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod word;

use iced_x86::{Instruction, Mnemonic};

use crate::{
    decode::Form,
    op::{Handler, Op},
    state::CpuState,
    trap::{Exception, Trap},
};

/// What only takes time, or is a hint: NOP, ENDBR, PREFETCH, PAUSE, and what processors without an extension take for
/// a NOP.
extern "C" fn nothing(_: &mut CpuState, _: &Op) -> Result<(), Trap> {
    Ok(())
}

/// Orders this processor's accesses: MFENCE, LFENCE, SFENCE.
extern "C" fn fence(_: &mut CpuState, _: &Op) -> Result<(), Trap> {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    Ok(())
}

/// PAUSE: others may need the host's processor more.
extern "C" fn pause(_: &mut CpuState, _: &Op) -> Result<(), Trap> {
    std::hint::spin_loop();
    Ok(())
}

/// CLFLUSH, CLFLUSHOPT, CLWB: memory is always coherent here; what remains is the check of the address.
extern "C" fn flush_line(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let linear = cpu.linear(op, 1, crate::access::Access::Read)?;
    cpu.probe_read(linear, 1)
}

/// UD0, UD1, UD2.
extern "C" fn undefined(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    Err(cpu.raise(Exception::INVALID_OPCODE))
}

/// The handler of an integer instruction; `None` if it is of another family.
pub fn select(instruction: &Instruction, form: &Form, op: &mut Op) -> Option<Handler> {
    let hint: Option<Handler> = match instruction.mnemonic() {
        Mnemonic::Nop
        | Mnemonic::Reservednop
        | Mnemonic::Endbr32
        | Mnemonic::Endbr64
        | Mnemonic::Rdsspd
        | Mnemonic::Rdsspq
        | Mnemonic::Cldemote
        | Mnemonic::Prefetch
        | Mnemonic::Prefetchw
        | Mnemonic::Prefetchwt1
        | Mnemonic::Prefetchnta
        | Mnemonic::Prefetcht0
        | Mnemonic::Prefetcht1
        | Mnemonic::Prefetcht2
        | Mnemonic::Prefetchit0
        | Mnemonic::Prefetchit1 => Some(nothing),
        Mnemonic::Pause => Some(pause),
        Mnemonic::Mfence | Mnemonic::Lfence | Mnemonic::Sfence => Some(fence),
        Mnemonic::Clflush | Mnemonic::Clflushopt | Mnemonic::Clwb => Some(flush_line),
        Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 => Some(undefined),
        _ => None,
    };
    hint.or_else(|| moves::select(instruction, form, op))
        .or_else(|| alu::select(instruction, form, op))
        .or_else(|| branches::select(instruction, form, op))
        .or_else(|| stack::select(instruction, form, op))
        .or_else(|| flags::select(instruction, form))
        .or_else(|| shifts::select(instruction, form))
        .or_else(|| bits::select(instruction, form))
        .or_else(|| multiply::select(instruction, form))
        .or_else(|| exchange::select(instruction, form, op))
        .or_else(|| strings::select(instruction, form, op))
        .or_else(|| decimal::select(instruction, form))
        .or_else(|| bmi::select(instruction, form))
        .or_else(|| chains::select(instruction, form))
        .or_else(|| compare_add::select(instruction, form))
        .or_else(|| checksum::select(instruction, form))
        .or_else(|| random::select(instruction, form))
}
