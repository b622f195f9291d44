//! FXSAVE and FXRSTOR, MXCSR, and leaving MMX.
//!
//! Sources: SDM vol. 1 § 10.5, § 10.2.3 (MXCSR), SDM vol. 2 (FXSAVE: the layout of the area).

use iced_x86::Mnemonic;

use super::operands::{enter_mmx, load, misaligned, store, xmm};
use crate::{
    access::Access,
    decode::Form,
    op::{Handler, Op},
    state::{CpuState, Cr0, X87},
    trap::{Exception, Trap},
};

/// Bits of MXCSR that exist.
pub(super) const MXCSR_MASK: u32 = 0xffff;

/// Where ST(0) is in the area; 16 bytes a register.
const X87_REGISTERS: u64 = 32;

/// Where MXCSR is in the area, followed by the mask of its bits.
const MXCSR: u64 = 24;

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

/// Writes the x87 state to its places in an area; `long` is the form with 64-bit pointers. The caller has probed.
pub(super) fn save_x87(cpu: &mut CpuState, area: u64, long: bool) -> Result<(), Trap> {
    let x87 = cpu.x87;
    let (instruction, data) = if long {
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
    cpu.write(area, u128::from(control) | u128::from(instruction) << 64)?;
    cpu.write(area.wrapping_add(16), data)?;
    for i in 0..8 {
        let register = x87.registers[usize::from(x87.top.wrapping_add(i) & 7)] & REGISTER_BITS;
        cpu.write(area.wrapping_add(X87_REGISTERS + 16 * u64::from(i)), register)?;
    }
    Ok(())
}

/// Writes MXCSR and the mask of its bits to their place in an area.
pub(super) fn save_mxcsr(cpu: &mut CpuState, area: u64) -> Result<(), Trap> {
    cpu.write(area.wrapping_add(MXCSR), u64::from(cpu.mxcsr) | u64::from(MXCSR_MASK) << 32)
}

/// Writes the first `count` XMM registers to their places in an area.
pub(super) fn save_xmm(cpu: &mut CpuState, area: u64, count: u8) -> Result<(), Trap> {
    for i in 0..count {
        let register = xmm(cpu, i);
        cpu.write(area.wrapping_add(XMM_REGISTERS + 16 * u64::from(i)), register)?;
    }
    Ok(())
}

/// The x87 state in an area, and the status word that goes with it.
pub(super) fn read_x87(cpu: &mut CpuState, area: u64, long: bool) -> Result<X87Image, Trap> {
    let header: u128 = cpu.read(area)?;
    let data: u64 = cpu.read(area.wrapping_add(16))?;
    let mut x87 = cpu.x87;
    let top = (header >> 27) as u8 & 7;
    for i in 0..8 {
        let register: u128 = cpu.read(area.wrapping_add(X87_REGISTERS + 16 * u64::from(i)))?;
        x87.registers[usize::from(top.wrapping_add(i) & 7)] = register & REGISTER_BITS;
    }
    x87.top = top;
    x87.valid = (header >> 32) as u8;
    x87.last_opcode = (header >> 48) as u16 & 0x7ff;
    let instruction = (header >> 64) as u64;
    if long {
        x87.last_instruction = instruction;
        x87.last_data = data;
    } else {
        x87.last_instruction = instruction & 0xffff_ffff;
        x87.last_cs = (instruction >> 32) as u16;
        x87.last_data = data & 0xffff_ffff;
        x87.last_ds = (data >> 32) as u16;
    }
    Ok(X87Image { x87, control: header as u16, status: (header >> 16) as u16 })
}

/// x87 state from an area, with the words that are not yet taken apart.
pub(super) struct X87Image {
    x87: X87,
    control: u16,
    status: u16,
}

impl X87Image {
    /// Makes it the processor's.
    pub(super) fn load(self, cpu: &mut CpuState) {
        cpu.x87 = self.x87;
        cpu.x87.load_control(self.control);
        cpu.x87.load_status(self.status);
        cpu.settle_x87_error();
    }
}

/// MXCSR in an area.
///
/// # Errors
/// #GP(0) for bits that do not exist.
pub(super) fn read_mxcsr(cpu: &mut CpuState, area: u64) -> Result<u32, Trap> {
    let mxcsr: u32 = cpu.read(area.wrapping_add(MXCSR))?;
    if mxcsr & !MXCSR_MASK != 0 {
        return Err(cpu.raise(Exception::general_protection(0)));
    }
    Ok(mxcsr)
}

/// The XMM registers, with the first `count` of them from an area.
pub(super) fn read_xmm(cpu: &mut CpuState, area: u64, count: u8) -> Result<[u128; 16], Trap> {
    let mut registers = cpu.xmm;
    for i in 0..count {
        registers[usize::from(i & 15)] = cpu.read(area.wrapping_add(XMM_REGISTERS + 16 * u64::from(i)))?;
    }
    Ok(registers)
}

/// `LONG` is the form with REX.W: 64-bit pointers. `XMM` is how many XMM registers the mode has.
extern "C" fn fxsave<const LONG: bool, const XMM: u8>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let linear = enter(cpu, op, Access::Write)?;
    cpu.probe_write(linear, AREA)?;
    save_x87(cpu, linear, LONG)?;
    save_mxcsr(cpu, linear)?;
    save_xmm(cpu, linear, XMM)
}

extern "C" fn fxrstor<const LONG: bool, const XMM: u8>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let linear = enter(cpu, op, Access::Read)?;
    cpu.probe_read(linear, AREA)?;
    let mxcsr = read_mxcsr(cpu, linear)?;
    let image = read_x87(cpu, linear, LONG)?;
    cpu.xmm = read_xmm(cpu, linear, XMM)?;
    cpu.mxcsr = mxcsr;
    image.load(cpu);
    Ok(())
}

/// Loads MXCSR from the memory operand of an instruction that may run.
pub(super) fn load_control(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let value: u32 = load(cpu, op)?;
    if value & !MXCSR_MASK != 0 {
        return Err(cpu.raise(Exception::general_protection(0)));
    }
    cpu.mxcsr = value;
    Ok(())
}

/// Stores MXCSR to the memory operand of an instruction that may run.
pub(super) fn store_control(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
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
        Mnemonic::Emms => leave_mmx,
        _ => return None,
    })
}
