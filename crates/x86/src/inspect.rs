//! What a debugger or manager asks of a processor that stands still.

use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter};

use crate::state::{CpuState, seg};

impl CpuState {
    /// The linear address of the next instruction.
    pub fn linear_instruction_pointer(&self) -> u64 {
        let base = if self.mode().code_bits() == 64 { 0 } else { self.segments[usize::from(seg::CS)].base };
        base.wrapping_add(self.rip)
    }

    /// The size of the code that runs: 16, 32 or 64.
    pub fn code_bits(&self) -> u8 {
        self.mode().code_bits()
    }
}

/// The first instruction of `bytes`, as code of `bits` at `address` has it, in AT&T's syntax; and its length, at least 1.
pub fn disassemble(bytes: &[u8], bits: u8, address: u64) -> (String, usize) {
    let mut decoder = Decoder::with_ip(u32::from(bits), bytes, address, DecoderOptions::NONE);
    let instruction = decoder.decode();
    let mut text = String::new();
    GasFormatter::new().format(&instruction, &mut text);
    (text, instruction.len().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_shown_with_their_length() {
        assert_eq!(disassemble(&[0x48, 0x89, 0xd8], 64, 0x1000), ("mov %rbx,%rax".to_owned(), 3));
        assert_eq!(disassemble(&[0xff, 0xff], 64, 0).0, "(bad)");
    }
}
