//! Near control flow: JMP, Jcc, CALL, RET, LOOP, JCXZ. SDM vol. 2; far transfers are protection's.
//!
//! Branches set RIP in every case. Targets outside of CS's limit, or not canonical, fault before anything else is done.

use iced_x86::{Code, Instruction, Mnemonic};

use super::{
    flags::{ZF, by_condition, condition, condition_number},
    word::{Word, by_wide_size, get_sized, mask, set_sized},
};
use crate::{
    access::Access,
    decode::{Form, Kind},
    op::{Handler, Op},
    state::{CpuState, reg, seg},
    trap::{Exception, Trap},
};

/// The address of the instruction after `op`.
#[inline(always)]
fn next_rip<const LONG: bool>(cpu: &CpuState, op: &Op) -> u64 {
    let next = cpu.rip.wrapping_add(u64::from(op.offset)).wrapping_add(u64::from(op.length));
    if LONG { next } else { next & 0xffff_ffff }
}

#[cold]
fn bad_target(cpu: &mut CpuState) -> Trap {
    cpu.raise(Exception::general_protection(0))
}

/// #GP(0) if code cannot be at `target`.
#[inline(always)]
fn check_target<const LONG: bool>(cpu: &mut CpuState, target: u64) -> Result<(), Trap> {
    let good =
        if LONG { cpu.is_canonical(target) } else { target <= u64::from(cpu.segments[usize::from(seg::CS)].limit) };
    if good { Ok(()) } else { Err(bad_target(cpu)) }
}

/// A jump to a target that the instruction itself names. In 64-bit code the fetch sees whether it is canonical.
#[inline(always)]
fn go_direct<const LONG: bool>(cpu: &mut CpuState, target: u64) -> Result<(), Trap> {
    if !LONG {
        check_target::<LONG>(cpu, target)?;
    }
    cpu.rip = target;
    Ok(())
}

#[inline(always)]
fn go<const LONG: bool>(cpu: &mut CpuState, target: u64) -> Result<(), Trap> {
    check_target::<LONG>(cpu, target)?;
    cpu.rip = target;
    Ok(())
}

extern "C" fn jump<const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    go_direct::<LONG>(cpu, op.imm)
}

extern "C" fn jump_if<const C: u8, const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let next = next_rip::<LONG>(cpu, op);
    let taken = condition::<C>(cpu.rflags);
    if LONG {
        // The choice is data, not a branch: the host cannot predict what the guest's processor would.
        cpu.rip = if taken { op.imm } else { next };
        return Ok(());
    }
    if taken {
        return go_direct::<LONG>(cpu, op.imm);
    }
    cpu.rip = next;
    Ok(())
}

extern "C" fn jump_register<T: Word, const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let target = T::get(cpu, op.dst).wide();
    go::<LONG>(cpu, target)
}

extern "C" fn jump_memory<T: Word, const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let linear = cpu.linear(op, T::SIZE as u64, Access::Read)?;
    let target = cpu.read::<T>(linear)?.wide();
    go::<LONG>(cpu, target)
}

#[inline(always)]
fn call_to<T: Word, const LONG: bool, const DIRECT: bool>(
    cpu: &mut CpuState,
    op: &Op,
    target: u64,
) -> Result<(), Trap> {
    if !(LONG && DIRECT) {
        check_target::<LONG>(cpu, target)?;
    }
    let next = next_rip::<LONG>(cpu, op);
    cpu.push(T::cut(next))?;
    cpu.rip = target;
    Ok(())
}

extern "C" fn call<T: Word, const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    if LONG {
        let next = next_rip::<LONG>(cpu, op);
        if cpu.push_at_once(T::cut(next)) {
            cpu.rip = op.imm;
            return Ok(());
        }
    }
    call_with_care::<T, LONG>(cpu, op)
}

#[inline(never)]
extern "C" fn call_with_care<T: Word, const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    call_to::<T, LONG, true>(cpu, op, op.imm)
}

extern "C" fn call_register<T: Word, const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let target = T::get(cpu, op.dst).wide();
    call_to::<T, LONG, false>(cpu, op, target)
}

extern "C" fn call_memory<T: Word, const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let linear = cpu.linear(op, T::SIZE as u64, Access::Read)?;
    let target = cpu.read::<T>(linear)?.wide();
    call_to::<T, LONG, false>(cpu, op, target)
}

/// RET, with `imm` more bytes to drop.
extern "C" fn ret<T: Word, const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    if LONG
        && let Some(target) = cpu.top_at_once::<T>()
        && cpu.is_canonical(target.wide())
    {
        cpu.rip = target.wide();
        let rsp = cpu.register(reg::RSP);
        cpu.gpr[usize::from(reg::RSP)] = rsp.wrapping_add(T::SIZE as u64).wrapping_add(op.imm & 0xffff);
        return Ok(());
    }
    ret_with_care::<T, LONG>(cpu, op)
}

#[inline(never)]
extern "C" fn ret_with_care<T: Word, const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let target = cpu.stack_top::<T>(0)?.wide();
    go::<LONG>(cpu, target)?;
    cpu.drop_from_stack((T::SIZE as u64).wrapping_add(op.imm & 0xffff));
    Ok(())
}

/// What LOOP and its kind ask of ZF.
const ALWAYS: u8 = 0;
const WHILE_EQUAL: u8 = 1;
const WHILE_NOT_EQUAL: u8 = 2;

extern "C" fn count_down<const WHILE: u8, const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let count = get_sized(cpu, reg::RCX, op.size).wrapping_sub(1) & mask(op.size);
    let equal = cpu.rflags & ZF != 0;
    let wanted = match WHILE {
        WHILE_EQUAL => equal,
        WHILE_NOT_EQUAL => !equal,
        _ => true,
    };
    let target = if count != 0 && wanted { op.imm } else { next_rip::<LONG>(cpu, op) };
    go_direct::<LONG>(cpu, target)?;
    set_sized(cpu, reg::RCX, op.size, count);
    Ok(())
}

extern "C" fn jump_if_no_count<const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let target = if get_sized(cpu, reg::RCX, op.size) == 0 { op.imm } else { next_rip::<LONG>(cpu, op) };
    go_direct::<LONG>(cpu, target)
}

/// Size of the count register of LOOP, JCXZ and their kind: the address size.
fn count_size(code: Code) -> u8 {
    match code {
        Code::Loop_rel8_16_CX
        | Code::Loop_rel8_32_CX
        | Code::Loope_rel8_16_CX
        | Code::Loope_rel8_32_CX
        | Code::Loopne_rel8_16_CX
        | Code::Loopne_rel8_32_CX
        | Code::Jcxz_rel8_16
        | Code::Jcxz_rel8_32 => 2,
        Code::Loop_rel8_16_RCX
        | Code::Loop_rel8_64_RCX
        | Code::Loope_rel8_16_RCX
        | Code::Loope_rel8_64_RCX
        | Code::Loopne_rel8_16_RCX
        | Code::Loopne_rel8_64_RCX
        | Code::Jrcxz_rel8_16
        | Code::Jrcxz_rel8_64 => 8,
        _ => 4,
    }
}

macro_rules! by_mode {
    ($long:expr, $handler:ident $(, $first:tt)?) => {{
        let handler: Handler = if $long { $handler::<$($first,)? true> } else { $handler::<$($first,)? false> };
        handler
    }};
}

/// Handlers of this file's instructions.
pub(super) fn select(instruction: &Instruction, form: &Form, op: &mut Op) -> Option<Handler> {
    let long = form.bits == 64;
    let size = form.sizes[0];
    let pushed = instruction.stack_pointer_increment().unsigned_abs() as u8;
    if instruction.is_jcc_short_or_near() {
        let number = condition_number(instruction)?;
        return Some(if long {
            by_condition!(number, jump_if, [], [true])
        } else {
            by_condition!(number, jump_if, [], [false])
        });
    }
    Some(match (instruction.mnemonic(), form.kinds[0], long) {
        (Mnemonic::Jmp, Kind::Branch, _) => by_mode!(long, jump),
        (Mnemonic::Call, Kind::Branch, true) => by_wide_size!(pushed, call, [], [true]),
        (Mnemonic::Call, Kind::Branch, false) => by_wide_size!(pushed, call, [], [false]),
        (Mnemonic::Jmp, Kind::Register, true) => by_wide_size!(size, jump_register, [], [true]),
        (Mnemonic::Jmp, Kind::Register, false) => by_wide_size!(size, jump_register, [], [false]),
        (Mnemonic::Call, Kind::Register, true) => by_wide_size!(size, call_register, [], [true]),
        (Mnemonic::Call, Kind::Register, false) => by_wide_size!(size, call_register, [], [false]),
        (Mnemonic::Jmp, Kind::Memory, true) if instruction.is_jmp_near_indirect() => {
            by_wide_size!(size, jump_memory, [], [true])
        }
        (Mnemonic::Jmp, Kind::Memory, false) if instruction.is_jmp_near_indirect() => {
            by_wide_size!(size, jump_memory, [], [false])
        }
        (Mnemonic::Call, Kind::Memory, true) if instruction.is_call_near_indirect() => {
            by_wide_size!(size, call_memory, [], [true])
        }
        (Mnemonic::Call, Kind::Memory, false) if instruction.is_call_near_indirect() => {
            by_wide_size!(size, call_memory, [], [false])
        }
        (Mnemonic::Ret, ..) => match (instruction.code(), long) {
            (Code::Retnw | Code::Retnw_imm16, true) => ret::<u16, true>,
            (Code::Retnw | Code::Retnw_imm16, false) => ret::<u16, false>,
            (Code::Retnd | Code::Retnd_imm16, _) => ret::<u32, false>,
            _ => ret::<u64, true>,
        },
        (Mnemonic::Loop, ..) => {
            op.size = count_size(instruction.code());
            by_mode!(long, count_down, ALWAYS)
        }
        (Mnemonic::Loope, ..) => {
            op.size = count_size(instruction.code());
            by_mode!(long, count_down, WHILE_EQUAL)
        }
        (Mnemonic::Loopne, ..) => {
            op.size = count_size(instruction.code());
            by_mode!(long, count_down, WHILE_NOT_EQUAL)
        }
        (Mnemonic::Jcxz | Mnemonic::Jecxz | Mnemonic::Jrcxz, ..) => {
            op.size = count_size(instruction.code());
            by_mode!(long, jump_if_no_count)
        }
        _ => return None,
    })
}
