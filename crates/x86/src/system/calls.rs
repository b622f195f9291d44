//! Fast ways between user code and the kernel: SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS. APM vol. 3, SDM vol. 2.

use iced_x86::{Code, Instruction, Mnemonic};

use crate::{
    decode::Form,
    op::{Handler, Op},
    protection::address::attribute,
    state::{CpuState, Cr0, Efer, Rflags, Segment, reg, seg},
    trap::{Exception, Trap},
};

const RCX: usize = reg::RCX as usize;
const R11: usize = 11;

/// What kind of code a fast call leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CodeSize {
    Bits32,
    Bits64,
}

/// Loads flat CS and SS for code at `privilege`, without a look at the descriptor tables.
fn load_flat(cpu: &mut CpuState, code: u16, stack: u16, size: CodeSize, privilege: u8) {
    let common = attribute::PRESENT
        | attribute::SEGMENT
        | attribute::WRITABLE
        | attribute::ACCESSED
        | attribute::GRANULARITY
        | u16::from(privilege) << 5;
    let kind = match size {
        CodeSize::Bits32 => attribute::BIG,
        CodeSize::Bits64 => attribute::LONG,
    };
    let flat = |selector, attributes| Segment { base: 0, limit: u32::MAX, attributes, selector };
    cpu.segments[usize::from(seg::CS)] = flat(code, common | attribute::CODE | kind);
    cpu.segments[usize::from(seg::SS)] = flat(stack, common | attribute::BIG);
    cpu.cpl = privilege;
    cpu.update_mode();
}

#[cold]
fn undefined(cpu: &mut CpuState) -> Trap {
    cpu.raise(Exception::INVALID_OPCODE)
}

#[cold]
fn refuse(cpu: &mut CpuState) -> Trap {
    cpu.raise(Exception::general_protection(0))
}

/// Whether SYSCALL and SYSRET are for 64-bit code, and this is none: on Intel's processors.
fn only_64_bit(cpu: &CpuState) -> bool {
    // "Genu", the first word of the vendor's name.
    cpu.cpuid.get(0, 0).ebx == 0x756e_6547 && !cpu.in_64_bit_code()
}

/// SYSCALL.
extern "C" fn system_call(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    if cpu.efer & Efer::SCE.bits() == 0 || !cpu.cr0_has(Cr0::PE) || only_64_bit(cpu) {
        return Err(undefined(cpu));
    }
    let star = cpu.msr.star;
    let code = (star >> 32) as u16 & !3;
    let stack = code.wrapping_add(8);
    if !cpu.long_mode() {
        cpu.gpr[RCX] = op.next_rip(cpu);
        cpu.rflags &= !(Rflags::IF | Rflags::VM | Rflags::RF).bits();
        cpu.rip = star & 0xffff_ffff;
        load_flat(cpu, code, stack, CodeSize::Bits32, 0);
        return Err(Trap::JUMP);
    }
    let from_64_bit_code = cpu.in_64_bit_code();
    cpu.gpr[RCX] = op.next_rip(cpu);
    let flags = cpu.rflags & !Rflags::RF.bits();
    cpu.gpr[R11] = flags;
    cpu.rflags = flags & !cpu.msr.sfmask | Rflags::FIXED.bits();
    cpu.rip = if from_64_bit_code { cpu.msr.lstar } else { cpu.msr.cstar };
    load_flat(cpu, code, stack, CodeSize::Bits64, 0);
    Err(Trap::JUMP)
}

/// SYSRET; with a 64-bit operand size back to 64-bit code.
extern "C" fn system_return<const LONG: bool>(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    if cpu.efer & Efer::SCE.bits() == 0 || !cpu.cr0_has(Cr0::PE) || only_64_bit(cpu) {
        return Err(undefined(cpu));
    }
    cpu.require_cpl_0()?;
    // Intel's processors fault here, in the kernel; AMD's at the target, in user code.
    if LONG && !cpu.cpuid.is_amd() && !cpu.is_canonical(cpu.gpr[RCX]) {
        return Err(refuse(cpu));
    }
    let base = (cpu.msr.star >> 48) as u16;
    let stack = base.wrapping_add(8) | 3;
    if cpu.long_mode() {
        let kept = Rflags::RF | Rflags::VM;
        cpu.rflags = cpu.gpr[R11] & 0x3f_7fd7 & !kept.bits() | Rflags::FIXED.bits();
    } else {
        cpu.rflags |= Rflags::IF.bits();
    }
    if LONG {
        cpu.rip = cpu.gpr[RCX];
        load_flat(cpu, base.wrapping_add(16) | 3, stack, CodeSize::Bits64, 3);
    } else {
        cpu.rip = cpu.gpr[RCX] & 0xffff_ffff;
        load_flat(cpu, base | 3, stack, CodeSize::Bits32, 3);
    }
    Err(Trap::JUMP)
}

/// Whether SYSENTER and SYSEXIT exist: on AMD's processors they do not in long mode.
fn check_enter(cpu: &mut CpuState) -> Result<(), Trap> {
    if cpu.long_mode() && cpu.cpuid.is_amd() { Err(undefined(cpu)) } else { Ok(()) }
}

/// SYSENTER.
extern "C" fn enter(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    check_enter(cpu)?;
    let code = cpu.msr.sysenter_cs as u16 & !3;
    if !cpu.cr0_has(Cr0::PE) || code == 0 {
        return Err(refuse(cpu));
    }
    cpu.rflags &= !(Rflags::IF | Rflags::VM | Rflags::RF).bits();
    let stack = code.wrapping_add(8);
    if cpu.long_mode() {
        cpu.rip = cpu.msr.sysenter_eip;
        cpu.gpr[usize::from(reg::RSP)] = cpu.msr.sysenter_esp;
        load_flat(cpu, code, stack, CodeSize::Bits64, 0);
    } else {
        cpu.rip = cpu.msr.sysenter_eip & 0xffff_ffff;
        cpu.gpr[usize::from(reg::RSP)] = cpu.msr.sysenter_esp & 0xffff_ffff;
        load_flat(cpu, code, stack, CodeSize::Bits32, 0);
    }
    Err(Trap::JUMP)
}

/// SYSEXIT.
extern "C" fn exit<const LONG: bool>(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    check_enter(cpu)?;
    let base = cpu.msr.sysenter_cs as u16 & !3;
    if !cpu.cr0_has(Cr0::PE) || base == 0 || cpu.cpl != 0 {
        return Err(refuse(cpu));
    }
    let (target, pointer) = (cpu.register(reg::RDX), cpu.register(reg::RCX));
    if LONG {
        if !cpu.is_canonical(target) || !cpu.is_canonical(pointer) {
            return Err(refuse(cpu));
        }
        cpu.rip = target;
        cpu.gpr[usize::from(reg::RSP)] = pointer;
        load_flat(cpu, base.wrapping_add(32) | 3, base.wrapping_add(40) | 3, CodeSize::Bits64, 3);
    } else {
        cpu.rip = target & 0xffff_ffff;
        cpu.gpr[usize::from(reg::RSP)] = pointer & 0xffff_ffff;
        load_flat(cpu, base.wrapping_add(16) | 3, base.wrapping_add(24) | 3, CodeSize::Bits32, 3);
    }
    Err(Trap::JUMP)
}

extern "C" fn swap_gs(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    cpu.require_cpl_0()?;
    std::mem::swap(&mut cpu.segments[usize::from(seg::GS)].base, &mut cpu.msr.kernel_gs_base);
    Ok(())
}

/// Handlers of this file's instructions.
pub(super) fn select(instruction: &Instruction, form: &Form) -> Option<Handler> {
    Some(match instruction.mnemonic() {
        Mnemonic::Syscall => system_call,
        Mnemonic::Sysret | Mnemonic::Sysretq if instruction.code() == Code::Sysretq => system_return::<true>,
        Mnemonic::Sysret => system_return::<false>,
        Mnemonic::Sysenter => enter,
        Mnemonic::Sysexit | Mnemonic::Sysexitq if instruction.code() == Code::Sysexitq => exit::<true>,
        Mnemonic::Sysexit => exit::<false>,
        Mnemonic::Swapgs if form.bits == 64 => swap_gs,
        _ => return None,
    })
}
