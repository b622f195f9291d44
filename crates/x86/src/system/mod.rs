//! System instructions: control and debug registers, descriptor tables, MSRs, CPUID, ports, SYSCALL and SYSENTER.

pub mod cpuid;

use iced_x86::{Instruction, Mnemonic};

use crate::{
    decode::Form,
    op::{Handler, Op},
    state::CpuState,
    trap::{Exception, Trap},
};

/// #GP(0) for all but the most privileged code.
#[inline(always)]
pub(crate) fn privileged(cpu: &mut CpuState) -> Result<(), Trap> {
    if cpu.cpl == 0 { Ok(()) } else { Err(cpu.raise(Exception::general_protection(0))) }
}

/// HLT.
extern "C" fn halt(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    privileged(cpu)?;
    Err(Trap::HALT)
}

/// The handler of a system instruction; `None` if it is of another family.
pub fn select(instruction: &Instruction, _: &Form, _: &mut Op) -> Option<Handler> {
    Some(match instruction.mnemonic() {
        Mnemonic::Hlt => halt,
        _ => return None,
    })
}
