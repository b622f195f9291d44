//! FXSAVE and FXRSTOR, MXCSR, and leaving MMX.
//!
//! Sources: SDM vol. 1 § 10.5, § 10.2.3 (MXCSR), SDM vol. 2 (FXSAVE: the layout of the area).

use iced_x86::Mnemonic;

use super::operands::{enter_mmx, enter_sse, load, misaligned, store};
use crate::{
    access::Access,
    decode::Form,
    op::{Handler, Op},
    state::{CpuState, Cr0},
    trap::{Exception, Trap},
};

/// Bits of MXCSR that exist.
const MXCSR_MASK: u32 = 0xffff;

/// Where ST(0) is in the area; 16 bytes a register.
const X87_REGISTERS: u64 = 32;

/// Where XMM0 is in the area.
const XMM_REGISTERS: u64 = 160;

/// Bytes of an area, of which FXSAVE leaves the last 48 alone.
const AREA: u64 = 512;

/// An 80-bit register without what lies beyond it in memory.
const REGISTER_BITS: u128 = (1 << 80) - 1;

fn enter(cpu: &mut CpuState, op: &Op, access: Access) -> Result<u64, Trap> {
    if cpu.cr0 & (Cr0::EM.bits() | Cr0::TS.bits()) != 0 {
        return Err(cpu.raise(Exception::DEVICE_NOT_AVAILABLE));
    }
    let linear = cpu.linear(op, AREA, access)?;
    if linear & 15 != 0 {
        return Err(misaligned(cpu));
    }
    Ok(linear)
}

/// `LONG` is the form with REX.W: 64-bit pointers. `XMM` is how many XMM registers the mode has.
extern "C" fn fxsave<const LONG: bool, const XMM: u8>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let linear = enter(cpu, op, Access::Write)?;
    cpu.probe_write(linear, AREA)?;
    let x87 = cpu.x87;
    let (instruction, data) = if LONG {
        (x87.last_instruction, x87.last_data)
    } else {
        (
            x87.last_instruction & 0xffff_ffff | u64::from(x87.last_cs) << 32,
            x87.last_data & 0xffff_ffff | u64::from(x87.last_ds) << 32,
        )
    };
    let status = x87.status & !0x3800 | u16::from(x87.top & 7) << 11;
    let control = u64::from(x87.control)
        | u64::from(status) << 16
        | u64::from(x87.valid) << 32
        | u64::from(x87.last_opcode & 0x7ff) << 48;
    cpu.write(linear, u128::from(control) | u128::from(instruction) << 64)?;
    let mxcsr = u64::from(cpu.mxcsr) | u64::from(MXCSR_MASK) << 32;
    cpu.write(linear.wrapping_add(16), u128::from(data) | u128::from(mxcsr) << 64)?;
    for i in 0..8 {
        let register = x87.registers[usize::from(x87.top.wrapping_add(i) & 7)] & REGISTER_BITS;
        cpu.write(linear.wrapping_add(X87_REGISTERS + 16 * u64::from(i)), register)?;
    }
    for i in 0..XMM {
        let register = cpu.xmm[usize::from(i & 15)];
        cpu.write(linear.wrapping_add(XMM_REGISTERS + 16 * u64::from(i)), register)?;
    }
    Ok(())
}

extern "C" fn fxrstor<const LONG: bool, const XMM: u8>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let linear = enter(cpu, op, Access::Read)?;
    cpu.probe_read(linear, AREA)?;
    let header: u128 = cpu.read(linear)?;
    let second: u128 = cpu.read(linear.wrapping_add(16))?;
    let mxcsr = (second >> 64) as u32;
    if mxcsr & !MXCSR_MASK != 0 {
        return Err(cpu.raise(Exception::general_protection(0)));
    }
    let mut x87 = cpu.x87;
    let top = (header >> 27) as u8 & 7;
    for i in 0..8 {
        let register: u128 = cpu.read(linear.wrapping_add(X87_REGISTERS + 16 * u64::from(i)))?;
        x87.registers[usize::from(top.wrapping_add(i) & 7)] = register & REGISTER_BITS;
    }
    let mut xmm = cpu.xmm;
    for i in 0..XMM {
        xmm[usize::from(i & 15)] = cpu.read(linear.wrapping_add(XMM_REGISTERS + 16 * u64::from(i)))?;
    }
    x87.top = top;
    x87.valid = (header >> 32) as u8;
    x87.last_opcode = (header >> 48) as u16 & 0x7ff;
    let (instruction, data) = ((header >> 64) as u64, second as u64);
    if LONG {
        x87.last_instruction = instruction;
        x87.last_data = data;
    } else {
        x87.last_instruction = instruction & 0xffff_ffff;
        x87.last_cs = (instruction >> 32) as u16;
        x87.last_data = data & 0xffff_ffff;
        x87.last_ds = (data >> 32) as u16;
    }
    cpu.x87 = x87;
    cpu.x87.load_control(header as u16);
    cpu.x87.load_status((header >> 16) as u16);
    cpu.xmm = xmm;
    cpu.mxcsr = mxcsr;
    Ok(())
}

extern "C" fn load_mxcsr(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let value: u32 = load(cpu, op)?;
    if value & !MXCSR_MASK != 0 {
        return Err(cpu.raise(Exception::general_protection(0)));
    }
    cpu.mxcsr = value;
    Ok(())
}

extern "C" fn store_mxcsr(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let value = cpu.mxcsr;
    store(cpu, op, value)
}

/// EMMS: all registers are empty; TOP is zero as after every MMX instruction (SDM vol. 3 table 12-1).
extern "C" fn leave_mmx(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    enter_mmx(cpu)?;
    cpu.x87.top = 0;
    cpu.x87.valid = 0;
    Ok(())
}

/// The handler of an instruction that saves or loads state.
pub(super) fn select(mnemonic: Mnemonic, form: &Form) -> Option<Handler> {
    let long_mode = form.bits == 64;
    Some(match mnemonic {
        Mnemonic::Fxsave if long_mode => fxsave::<false, 16>,
        Mnemonic::Fxsave => fxsave::<false, 8>,
        Mnemonic::Fxsave64 => fxsave::<true, 16>,
        Mnemonic::Fxrstor if long_mode => fxrstor::<false, 16>,
        Mnemonic::Fxrstor => fxrstor::<false, 8>,
        Mnemonic::Fxrstor64 => fxrstor::<true, 16>,
        Mnemonic::Ldmxcsr => load_mxcsr,
        Mnemonic::Stmxcsr => store_mxcsr,
        Mnemonic::Emms => leave_mmx,
        _ => return None,
    })
}
