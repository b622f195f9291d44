//! Port input and output: IN, OUT, INS, OUTS, and who may use which port. SDM vol. 1 § 19.5.

use iced_x86::{Instruction, Mnemonic};
use rhea_core::Width;

use crate::{
    access::Access,
    decode::{Form, Kind},
    integer::{
        strings::{ALWAYS, StringOperation, destination, lower_string, once, repeat, source, step},
        word::{Word, get_sized, set_sized},
    },
    op::{Handler, Op, Prefix},
    state::{CpuState, Cr0, Rflags, reg},
    system::serialize,
    trap::{Exception, Trap},
};

/// Offset of the I/O map's base in a task state segment of 32 or 64 bits.
const MAP_BASE: u64 = 0x66;

#[inline(always)]
fn width(size: usize) -> Width {
    match size {
        1 => Width::Byte,
        2 => Width::Word,
        _ => Width::Dword,
    }
}

/// #GP(0) if the running code may not use `size` ports from `port` on.
#[inline(always)]
fn check(cpu: &mut CpuState, port: u16, size: usize) -> Result<(), Trap> {
    if !cpu.cr0_has(Cr0::PE) {
        return Ok(());
    }
    if cpu.cpl <= cpu.io_privilege() && !cpu.flags().contains(Rflags::VM) {
        return Ok(());
    }
    check_map(cpu, port, size)
}

/// Asks the task state segment's I/O permission map: a clear bit allows a port.
#[cold]
fn check_map(cpu: &mut CpuState, port: u16, size: usize) -> Result<(), Trap> {
    let (base, limit) = (cpu.tr.base, u64::from(cpu.tr.limit));
    // Only an available or busy segment of 32 or 64 bits has a map.
    if matches!(cpu.tr.attributes & 0x9f, 0x89 | 0x8b) && limit > MAP_BASE {
        let map: u16 = cpu.read_system(base.wrapping_add(MAP_BASE))?;
        let offset = u64::from(map) + u64::from(port / 8);
        // Two bytes are read in any case; the map ends with a byte of ones for that.
        if offset < limit {
            let bits: u16 = cpu.read_system(base.wrapping_add(offset))?;
            let wanted = (1_u16 << size) - 1;
            if bits >> (port % 8) & wanted == 0 {
                return Ok(());
            }
        }
    }
    Err(cpu.raise(Exception::general_protection(0)))
}

/// The port of an instruction: its immediate, or DX.
#[inline(always)]
fn port<const IMMEDIATE: bool>(cpu: &CpuState, op: &Op) -> u16 {
    if IMMEDIATE { u16::from(op.imm as u8) } else { cpu.register(reg::RDX) as u16 }
}

/// Ends the block if the access made a device ask something of this processor.
#[inline(always)]
fn after(cpu: &CpuState) -> Result<(), Trap> {
    if cpu.requests.any() { Err(Trap::NEXT) } else { Ok(()) }
}

extern "C" fn input<const IMMEDIATE: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    serialize();
    let port = port::<IMMEDIATE>(cpu, op);
    let size = usize::from(op.size);
    check(cpu, port, size)?;
    let value = cpu.bus.port_read(port, width(size));
    cpu.note_port(port, size);
    set_sized(cpu, reg::RAX, op.size, u64::from(value));
    after(cpu)
}

extern "C" fn output<const IMMEDIATE: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    serialize();
    let port = port::<IMMEDIATE>(cpu, op);
    let size = usize::from(op.size);
    check(cpu, port, size)?;
    let value = get_sized(cpu, reg::RAX, op.size) as u32;
    cpu.bus.port_write(port, width(size), value);
    cpu.note_port(port, size);
    after(cpu)
}

/// INS.
struct Input;
impl StringOperation for Input {
    fn one<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
        let port = port::<false>(cpu, op);
        check(cpu, port, T::SIZE)?;
        let offset = destination(cpu, op);
        let to = cpu.linear_at(op.aux, offset, T::SIZE as u64, Access::Write)?;
        // A device may change by being read: memory must be sure to take the value.
        cpu.probe_write(to, T::SIZE as u64)?;
        let value = cpu.bus.port_read(port, width(T::SIZE));
        cpu.note_port(port, T::SIZE);
        cpu.write(to, T::cut(u64::from(value)))?;
        step::<T>(cpu, op, reg::RDI);
        Ok(())
    }
}

/// OUTS.
struct Output;
impl StringOperation for Output {
    fn one<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
        let port = port::<false>(cpu, op);
        check(cpu, port, T::SIZE)?;
        let offset = source(cpu, op);
        let from = cpu.linear_at(op.segment, offset, T::SIZE as u64, Access::Read)?;
        let value: T = cpu.read(from)?;
        cpu.bus.port_write(port, width(T::SIZE), value.wide() as u32);
        cpu.note_port(port, T::SIZE);
        step::<T>(cpu, op, reg::RSI);
        Ok(())
    }
}

/// With a prefix: the permission is asked for also where nothing is to be done.
extern "C" fn repeat_allowed<S: StringOperation, T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let port = port::<false>(cpu, op);
    check(cpu, port, T::SIZE)?;
    repeat::<S, T, ALWAYS>(cpu, op)
}

/// Chooses the instance for an operand size and a prefix.
fn string_handler<S: StringOperation>(size: u8, prefix: Prefix) -> Handler {
    match (size, matches!(prefix, Prefix::Rep | Prefix::Repne)) {
        (1, false) => once::<S, u8>,
        (2, false) => once::<S, u16>,
        (_, false) => once::<S, u32>,
        (1, true) => repeat_allowed::<S, u8>,
        (2, true) => repeat_allowed::<S, u16>,
        (_, true) => repeat_allowed::<S, u32>,
    }
}

/// Handlers of this file's instructions.
pub(super) fn select(instruction: &Instruction, form: &Form, op: &mut Op) -> Option<Handler> {
    let size = match instruction.mnemonic() {
        Mnemonic::In => {
            op.size = form.sizes[0];
            return Some(if form.kinds[1] == Kind::Immediate { input::<true> } else { input::<false> });
        }
        Mnemonic::Out => {
            op.size = form.sizes[1];
            return Some(if form.kinds[0] == Kind::Immediate { output::<true> } else { output::<false> });
        }
        Mnemonic::Insb | Mnemonic::Outsb => 1,
        Mnemonic::Insw | Mnemonic::Outsw => 2,
        Mnemonic::Insd | Mnemonic::Outsd => 4,
        _ => return None,
    };
    lower_string(instruction, form, op);
    op.size = size;
    Some(match instruction.mnemonic() {
        Mnemonic::Insb | Mnemonic::Insw | Mnemonic::Insd => string_handler::<Input>(size, op.prefix),
        _ => string_handler::<Output>(size, op.prefix),
    })
}
