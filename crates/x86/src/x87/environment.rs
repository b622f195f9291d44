//! FNSTENV, FLDENV, FNSAVE and FRSTOR: the x87 environment in its four formats.
//!
//! Source: SDM vol. 1 § 8.1.10 (figures 8-9 to 8-12).

use iced_x86::Mnemonic;

use super::control::{enter, enter_control};
use crate::{
    access::Access,
    decode::Form,
    op::{Handler, Op},
    state::{CpuState, Cr0, Rflags},
    trap::Trap,
};

/// Bytes of the eight registers behind the environment.
const REGISTERS: u64 = 80;

/// An 80-bit register.
const REGISTER_BITS: u128 = (1 << 80) - 1;

/// Whether pointers are selector and offset; linear addresses otherwise.
fn protected(cpu: &CpuState) -> bool {
    cpu.cr0_has(Cr0::PE) && !cpu.flags().contains(Rflags::VM)
}

/// The seven fields of the environment; each takes 2 or 4 bytes.
fn fields(cpu: &CpuState, long: bool) -> [u32; 7] {
    let x87 = &cpu.x87;
    let (instruction, data) = (x87.last_instruction as u32, x87.last_data as u32);
    let opcode = u32::from(x87.last_opcode & 0x7ff);
    let [control, status, tags] =
        [x87.control, x87.status_word(), x87.tag_word()].map(|word| 0xffff_0000 | u32::from(word));
    if protected(cpu) {
        let code = u32::from(x87.last_cs) | opcode << 16;
        return [control, status, tags, instruction, code, data, 0xffff_0000 | u32::from(x87.last_ds)];
    }
    let instruction = instruction.wrapping_add(u32::from(x87.last_cs) << 4);
    let data = data.wrapping_add(u32::from(x87.last_ds) << 4);
    // The pointers' upper parts stand at bit 12: 16 bits of them in the long format, 4 in the short one.
    let upper = |pointer: u32| if long { (pointer >> 16) << 12 } else { (pointer >> 4) & 0xf000 };
    let low = |pointer: u32| 0xffff_0000 | pointer & 0xffff;
    [control, status, tags, low(instruction), upper(instruction) | opcode, low(data), upper(data)]
}

/// Takes over an environment; the stack registers follow where there are some.
fn load_fields(cpu: &mut CpuState, fields: [u32; 7], long: bool) {
    let protected = protected(cpu);
    let x87 = &mut cpu.x87;
    x87.load_control(fields[0] as u16);
    x87.load_status(fields[1] as u16);
    x87.load_tags(fields[2] as u16);
    if protected {
        x87.last_instruction = u64::from(fields[3]);
        x87.last_cs = fields[4] as u16;
        x87.last_data = u64::from(fields[5]);
        x87.last_ds = fields[6] as u16;
        if long {
            x87.last_opcode = (fields[4] >> 16) as u16 & 0x7ff;
        }
        return;
    }
    let pointer = |low: u32, high: u32| {
        let high = if long { (high >> 12 & 0xffff) << 16 } else { (high & 0xf000) << 4 };
        u64::from(low & 0xffff | high)
    };
    x87.last_instruction = pointer(fields[3], fields[4]);
    x87.last_opcode = fields[4] as u16 & 0x7ff;
    x87.last_cs = 0;
    x87.last_data = pointer(fields[5], fields[6]);
    x87.last_ds = 0;
}

/// Bytes of the environment.
const fn environment_size(long: bool) -> u64 {
    if long { 28 } else { 14 }
}

/// What its fields are aligned to.
const fn part_size(long: bool) -> u64 {
    if long { 4 } else { 2 }
}

fn write_environment(cpu: &mut CpuState, linear: u64, long: bool) -> Result<(), Trap> {
    for (i, field) in fields(cpu, long).into_iter().enumerate() {
        if long {
            cpu.write(linear.wrapping_add(4 * i as u64), field)?;
        } else {
            cpu.write(linear.wrapping_add(2 * i as u64), field as u16)?;
        }
    }
    Ok(())
}

fn read_environment(cpu: &mut CpuState, linear: u64, long: bool) -> Result<[u32; 7], Trap> {
    let mut fields = [0; 7];
    for (i, field) in fields.iter_mut().enumerate() {
        *field = if long {
            cpu.read(linear.wrapping_add(4 * i as u64))?
        } else {
            u32::from(cpu.read::<u16>(linear.wrapping_add(2 * i as u64))?)
        };
    }
    Ok(fields)
}

extern "C" fn store_environment<const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_control(cpu)?;
    let linear = cpu.linear(op, environment_size(LONG), Access::Write)?;
    cpu.check_parts(linear, part_size(LONG))?;
    cpu.probe_write(linear, environment_size(LONG))?;
    write_environment(cpu, linear, LONG)?;
    let masked = cpu.x87.control | super::control::EXCEPTIONS;
    cpu.x87.load_control(masked);
    cpu.settle_x87_error();
    Ok(())
}

extern "C" fn load_environment<const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let linear = cpu.linear(op, environment_size(LONG), Access::Read)?;
    cpu.check_parts(linear, part_size(LONG))?;
    let fields = read_environment(cpu, linear, LONG)?;
    load_fields(cpu, fields, LONG);
    cpu.settle_x87_error();
    Ok(())
}

extern "C" fn save<const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_control(cpu)?;
    let size = environment_size(LONG) + REGISTERS;
    let linear = cpu.linear(op, size, Access::Write)?;
    cpu.check_parts(linear, part_size(LONG))?;
    cpu.probe_write(linear, size)?;
    write_environment(cpu, linear, LONG)?;
    for i in 0..8 {
        let register = cpu.x87.registers[usize::from(cpu.x87.top.wrapping_add(i) & 7)];
        let address = linear.wrapping_add(environment_size(LONG) + 10 * u64::from(i));
        cpu.write(address, register as u64)?;
        cpu.write(address.wrapping_add(8), (register >> 64) as u16)?;
    }
    cpu.x87.initialize();
    cpu.settle_x87_error();
    Ok(())
}

extern "C" fn restore<const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let size = environment_size(LONG) + REGISTERS;
    let linear = cpu.linear(op, size, Access::Read)?;
    cpu.check_parts(linear, part_size(LONG))?;
    let fields = read_environment(cpu, linear, LONG)?;
    let mut registers = [0; 8];
    for (i, register) in registers.iter_mut().enumerate() {
        let address = linear.wrapping_add(environment_size(LONG) + 10 * i as u64);
        let significand: u64 = cpu.read(address)?;
        let exponent: u16 = cpu.read(address.wrapping_add(8))?;
        *register = (u128::from(significand) | u128::from(exponent) << 64) & REGISTER_BITS;
    }
    load_fields(cpu, fields, LONG);
    registers.rotate_right(usize::from(cpu.x87.top & 7));
    cpu.x87.registers = registers;
    cpu.settle_x87_error();
    Ok(())
}

/// The handler of an instruction that saves or loads the environment.
pub(super) fn select(mnemonic: Mnemonic, form: &Form) -> Option<Handler> {
    let long = matches!(form.sizes[0], 28 | 108);
    Some(match (mnemonic, long) {
        (Mnemonic::Fnstenv, false) => store_environment::<false>,
        (Mnemonic::Fnstenv, true) => store_environment::<true>,
        (Mnemonic::Fldenv, false) => load_environment::<false>,
        (Mnemonic::Fldenv, true) => load_environment::<true>,
        (Mnemonic::Fnsave, false) => save::<false>,
        (Mnemonic::Fnsave, true) => save::<true>,
        (Mnemonic::Frstor, false) => restore::<false>,
        (Mnemonic::Frstor, true) => restore::<true>,
        _ => return None,
    })
}
