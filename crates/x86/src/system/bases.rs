//! Segment bases without an MSR: RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE. SDM vol. 2.

use iced_x86::{Instruction, Mnemonic};

use crate::{
    decode::Form,
    integer::word::{Word, by_wide_size},
    op::{Handler, Op},
    state::{CpuState, Cr4, seg},
    trap::{Exception, Trap},
};

/// #UD unless the system switched these instructions on.
fn check(cpu: &mut CpuState) -> Result<(), Trap> {
    if cpu.cr4_has(Cr4::FSGSBASE) { Ok(()) } else { Err(cpu.raise(Exception::INVALID_OPCODE)) }
}

extern "C" fn read<T: Word, const SEGMENT: u8>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    check(cpu)?;
    let base = cpu.segments[usize::from(SEGMENT)].base;
    T::set(cpu, op.dst, T::cut(base));
    Ok(())
}

extern "C" fn write<T: Word, const SEGMENT: u8>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    check(cpu)?;
    let base = T::get(cpu, op.dst).wide();
    if !cpu.fits_linear_address(base) {
        return Err(cpu.raise(Exception::general_protection(0)));
    }
    cpu.segments[usize::from(SEGMENT)].base = base;
    Ok(())
}

/// Handlers of this file's instructions.
pub(super) fn select(instruction: &Instruction, form: &Form) -> Option<Handler> {
    if form.bits != 64 {
        return None;
    }
    const FS: u8 = seg::FS;
    const GS: u8 = seg::GS;
    let size = form.sizes[0];
    Some(match instruction.mnemonic() {
        Mnemonic::Rdfsbase => by_wide_size!(size, read, [], [FS]),
        Mnemonic::Rdgsbase => by_wide_size!(size, read, [], [GS]),
        Mnemonic::Wrfsbase => by_wide_size!(size, write, [], [FS]),
        Mnemonic::Wrgsbase => by_wide_size!(size, write, [], [GS]),
        _ => return None,
    })
}
