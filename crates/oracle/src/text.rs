//! Cases for people: the instruction, and what it starts with.

use std::fmt::Write;

use iced_x86::{Formatter, GasFormatter, Instruction};

use crate::case::Case;

/// Names of the general registers.
pub const GENERAL: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// The instruction as assemblers write it.
pub fn disassembly(instruction: &Instruction) -> String {
    let mut text = String::new();
    GasFormatter::new().format(instruction, &mut text);
    text
}

/// Hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The whole case, several lines.
pub fn describe(case: &Case, instruction: &Instruction) -> String {
    let registers = &case.registers;
    let mut text = format!("{}-bit  {}  {}\n ", case.bits, hexadecimal(&case.bytes), disassembly(instruction));
    for (name, value) in GENERAL.iter().zip(registers.gpr) {
        let _ = write!(text, " {name}={value:x}");
    }
    let _ = write!(
        text,
        "\n  rip={:x} rflags={:x} fs.base={:x} gs.base={:x} mxcsr={:x} control={:x} status={:x} valid={:x}\n ",
        registers.rip,
        registers.rflags,
        registers.fs_base,
        registers.gs_base,
        registers.mxcsr,
        registers.control,
        registers.status,
        registers.valid
    );
    for (number, value) in registers.x87.iter().enumerate() {
        let _ = write!(text, " R{number}={value:020x}");
    }
    text.push('\n');
    for (number, [low, high]) in registers.vector.iter().enumerate() {
        let _ = writeln!(text, "  ymm{number}={high:032x}_{low:032x}");
    }
    for patch in &case.patches {
        let _ = writeln!(text, "  memory {:x}: {}", patch.address, hexadecimal(&patch.bytes));
    }
    text
}
