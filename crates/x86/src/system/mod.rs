//! System instructions: control and debug registers, descriptor tables, MSRs, CPUID, ports, SYSCALL and SYSENTER.

mod bases;
pub(crate) mod breakpoints;
mod calls;
mod control;
pub mod cpuid;
pub(crate) mod monitor;
pub(crate) mod msr;
mod ports;
#[cfg(test)]
mod tests;
mod user_pages;

use iced_x86::{Instruction, Mnemonic};

use self::cpuid::components;
use crate::{
    decode::Form,
    op::{Handler, Op},
    protection::virtual_interrupts::InterruptFlag,
    state::{CpuState, Cr4, Rflags, reg},
    trap::{Exception, Trap},
};

extern "C" fn halt(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    cpu.require_cpl_0()?;
    Err(Trap::HALT)
}

extern "C" fn clear_interrupts(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    match cpu.interrupt_flag()? {
        InterruptFlag::Real => cpu.rflags &= !Rflags::IF.bits(),
        InterruptFlag::Virtual => cpu.set_virtual_interrupt_flag(false),
    }
    Ok(())
}

extern "C" fn set_interrupts(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    if cpu.interrupt_flag()? == InterruptFlag::Virtual {
        cpu.check_virtual_flags(Rflags::IF.bits())?;
        cpu.set_virtual_interrupt_flag(true);
        return Ok(());
    }
    if cpu.flags().contains(Rflags::IF) {
        return Ok(());
    }
    cpu.rflags |= Rflags::IF.bits();
    cpu.interrupt_shadow = true;
    Err(Trap::NEXT)
}

#[inline(always)]
fn put_pair(cpu: &mut CpuState, value: u64) {
    cpu.gpr[usize::from(reg::RAX)] = value & 0xffff_ffff;
    cpu.gpr[usize::from(reg::RDX)] = value >> 32;
}

/// #GP(0) for RDTSC in user code that CR4.TSD forbids it.
fn time_allowed(cpu: &mut CpuState) -> Result<(), Trap> {
    if cpu.cpl != 0 && cpu.cr4_has(Cr4::TSD) {
        return Err(cpu.raise(Exception::general_protection(0)));
    }
    Ok(())
}

extern "C" fn read_time(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    time_allowed(cpu)?;
    let value = cpu.time_stamp();
    put_pair(cpu, value);
    Ok(())
}

extern "C" fn read_time_and_processor(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    if !cpu.cpuid.has(cpuid::Feature::RDTSCP) {
        return Err(cpu.raise(Exception::INVALID_OPCODE));
    }
    time_allowed(cpu)?;
    let value = cpu.time_stamp();
    put_pair(cpu, value);
    cpu.gpr[usize::from(reg::RCX)] = cpu.msr.tsc_aux;
    Ok(())
}

/// RDPID.
extern "C" fn read_processor(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    cpu.gpr[usize::from(op.dst & 15)] = cpu.msr.tsc_aux;
    Ok(())
}

/// RDPMC: there are no counters to name.
extern "C" fn read_counter(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    Err(cpu.raise(Exception::general_protection(0)))
}

/// What serializing instructions do for memory: others see what was written before anything more is read (SDM vol. 3 § 9.3).
#[inline(always)]
pub(crate) fn serialize() {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

extern "C" fn identify(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    serialize();
    let function = cpu.register(reg::RAX) as u32;
    let mut leaf = cpu.cpuid.get(function, cpu.register(reg::RCX) as u32);
    match (function, cpu.register(reg::RCX) as u32) {
        (1, _) if cpu.cr4_has(Cr4::OSXSAVE) => leaf.ecx |= 1 << 27,
        (7, 0) if cpu.cr4_has(Cr4::PKE) => leaf.ecx |= 1 << 4,
        // How much space is needed follows what is switched on.
        (0xd, 0) if leaf.eax != 0 => leaf.ebx = components::standard_size(cpu.xcr0),
        (0xd, 1) if leaf.ebx != 0 => leaf.ebx = components::compacted_size(cpu.xcr0),
        _ => {}
    }
    if function == 1 && !cpu.monitor_enabled() {
        leaf.ecx &= !(1 << 3);
    }
    // A local APIC that was switched off is not told of.
    if matches!(function, 1 | 0x8000_0001) && cpu.bus.apic_msr_read(0x1b).is_some_and(|base| base & 1 << 11 == 0) {
        leaf.edx &= !(1 << 9);
    }
    cpu.gpr[usize::from(reg::RAX)] = u64::from(leaf.eax);
    cpu.gpr[usize::from(reg::RBX)] = u64::from(leaf.ebx);
    cpu.gpr[usize::from(reg::RCX)] = u64::from(leaf.ecx);
    cpu.gpr[usize::from(reg::RDX)] = u64::from(leaf.edx);
    Ok(())
}

/// The handler of a system instruction; `None` if it is of another family.
pub fn select(instruction: &Instruction, form: &Form, op: &mut Op) -> Option<Handler> {
    let handler: Handler = match instruction.mnemonic() {
        Mnemonic::Hlt => halt,
        Mnemonic::Monitor => {
            monitor::operand(instruction, op);
            monitor::monitor
        }
        Mnemonic::Mwait => monitor::wait,
        Mnemonic::Cli => clear_interrupts,
        Mnemonic::Sti => set_interrupts,
        Mnemonic::Cpuid => identify,
        Mnemonic::Rdtsc => read_time,
        Mnemonic::Rdtscp => read_time_and_processor,
        Mnemonic::Rdpid => read_processor,
        Mnemonic::Rdpmc => read_counter,
        Mnemonic::Rdmsr => msr::read,
        Mnemonic::Wrmsr => msr::write,
        _ => {
            return control::select(instruction, form, op)
                .or_else(|| ports::select(instruction, form, op))
                .or_else(|| calls::select(instruction, form))
                .or_else(|| bases::select(instruction, form))
                .or_else(|| user_pages::select(instruction));
        }
    };
    Some(handler)
}
