//! What supervisors do with user pages, and users with their own: CLAC, STAC, RDPKRU, WRPKRU. SDM vol. 2; vol. 3 § 4.6.

use iced_x86::{Instruction, Mnemonic};

use crate::{
    op::{Handler, Op},
    state::{CpuState, Cr4, Rflags, reg},
    trap::{Exception, Trap},
};

/// STAC and CLAC. Code itself does not depend on RFLAGS.AC: the block goes on.
extern "C" fn set_alignment_check<const SET: bool>(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    if cpu.cpl != 0 {
        return Err(cpu.raise(Exception::INVALID_OPCODE));
    }
    if SET {
        cpu.rflags |= Rflags::AC.bits();
    } else {
        cpu.rflags &= !Rflags::AC.bits();
    }
    cpu.update_privilege();
    Ok(())
}

/// #UD unless protection keys are switched on; #GP(0) if one of `zero` is not.
fn check(cpu: &mut CpuState, zero: &[u8]) -> Result<(), Trap> {
    if !cpu.cr4_has(Cr4::PKE) {
        return Err(cpu.raise(Exception::INVALID_OPCODE));
    }
    if zero.iter().any(|&register| cpu.register(register) as u32 != 0) {
        return Err(cpu.raise(Exception::general_protection(0)));
    }
    Ok(())
}

extern "C" fn read_rights(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    check(cpu, &[reg::RCX])?;
    cpu.gpr[usize::from(reg::RAX)] = u64::from(cpu.pkru);
    cpu.gpr[usize::from(reg::RDX)] = 0;
    Ok(())
}

extern "C" fn write_rights(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    check(cpu, &[reg::RCX, reg::RDX])?;
    let value = cpu.register(reg::RAX) as u32;
    cpu.set_pkru(value);
    Ok(())
}

/// Handlers of this file's instructions.
pub(super) fn select(instruction: &Instruction) -> Option<Handler> {
    Some(match instruction.mnemonic() {
        Mnemonic::Stac => set_alignment_check::<true>,
        Mnemonic::Clac => set_alignment_check::<false>,
        Mnemonic::Rdpkru => read_rights,
        Mnemonic::Wrpkru => write_rights,
        _ => return None,
    })
}
