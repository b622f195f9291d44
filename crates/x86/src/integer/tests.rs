//! Integer instructions against arithmetic done in another way, and at the edges that the manuals name.

mod arithmetic;
mod control;
mod coverage;
mod memory;

use iced_x86::{Decoder, DecoderOptions};
use rhea_core::Width;

use crate::{
    decode::decode,
    engine::testing::{CODE, DATA, Machine},
    trap::{Exception, Trap},
};

/// Executes the one instruction in `code`, as if it were at [`CODE`].
pub(crate) fn execute(machine: &mut Machine, code: &[u8]) -> Result<(), Trap> {
    let cpu = machine.cpu();
    let mode = cpu.mode();
    let instruction = Decoder::with_ip(u32::from(mode.code_bits()), code, CODE, DecoderOptions::NONE).decode();
    assert_eq!(instruction.len(), code.len(), "one instruction: {code:02x?}");
    let op = decode(&instruction, mode, true);
    cpu.rip = CODE;
    (op.handler)(cpu, &op)
}

/// Executes an instruction that must raise an exception.
pub(crate) fn exception(machine: &mut Machine, code: &[u8]) -> Exception {
    assert_eq!(execute(machine, code), Err(Trap::EXCEPTION), "{code:02x?}");
    machine.cpu().exception
}

/// The bytes of an instruction with operand size `size` in 64-bit code, whose opcode differs in its lowest bit between
/// bytes and the rest: `before` is put in front of the opcode.
fn sized(size: usize, lock: bool, before: &[u8], opcode: u8, rest: &[u8]) -> Vec<u8> {
    let mut code = Vec::new();
    if lock {
        code.push(0xf0);
    }
    match size {
        2 => code.push(0x66),
        8 => code.push(0x48),
        _ => {}
    }
    code.extend_from_slice(before);
    code.push(if size == 1 { opcode & !1 } else { opcode | 1 });
    code.extend_from_slice(rest);
    code
}

fn ones(size: usize) -> u64 {
    u64::MAX >> (64 - 8 * size)
}

fn signed(value: u64, size: usize) -> i128 {
    let unused = 64 - 8 * size;
    i128::from((value << unused) as i64 >> unused)
}

/// What a register of `size` holds after an instruction put `value` there.
fn merged(old: u64, value: u64, size: usize) -> u64 {
    match size {
        8 => value,
        4 => value & ones(4),
        _ => old & !ones(size) | value & ones(size),
    }
}

fn poke(machine: &Machine, value: u64) {
    machine.memory.write_value(DATA, Width::Qword, value);
}

fn peek(machine: &Machine) -> u64 {
    machine.memory.read_value(DATA, Width::Qword)
}
