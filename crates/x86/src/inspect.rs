//! What a debugger or manager asks of a processor that stands still.

use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter};

use crate::state::{CpuState, seg};

impl CpuState {
    /// The linear address of the next instruction.
    pub fn linear_instruction_pointer(&self) -> u64 {
        let base = if self.mode().code_bits() == 64 { 0 } else { self.segments[usize::from(seg::CS)].base };
        base.wrapping_add(self.rip)
    }

    /// The register that people call `name`; 16- and 32-bit names give that part of a general register.
    pub fn register_named(&self, name: &str) -> Option<u64> {
        const GENERAL: [&str; 8] = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"];
        const SEGMENTS: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];
        let general = |name: &str| GENERAL.iter().position(|known| *known == name).map(|number| self.gpr[number]);
        let segment = |name: &str| Some(&self.segments[SEGMENTS.iter().position(|known| *known == name)?]);
        match name {
            "pc" => return Some(self.linear_instruction_pointer()),
            "rip" => return Some(self.rip),
            "eip" => return Some(self.rip & 0xffff_ffff),
            "rflags" | "eflags" => return Some(self.flags().bits()),
            "cr0" => return Some(self.cr0),
            "cr2" => return Some(self.cr2),
            "cr3" => return Some(self.cr3),
            "cr4" => return Some(self.cr4),
            "efer" => return Some(self.efer),
            _ => {}
        }
        if let Some(value) = general(name) {
            return Some(value & 0xffff);
        }
        if let Some(segment) = segment(name) {
            return Some(segment.selector.into());
        }
        match (name.split_at_checked(1)?, name.split_once('.')) {
            (_, Some((name, "base"))) => Some(segment(name)?.base),
            (_, Some((name, "limit"))) => Some(segment(name)?.limit.into()),
            (("r", rest), _) if GENERAL.contains(&rest) => general(rest),
            (("e", rest), _) => Some(general(rest)? & 0xffff_ffff),
            (("r", rest), _) => {
                let number = rest.parse().ok().filter(|number| (8..16).contains(number))?;
                self.gpr.get::<usize>(number).copied()
            }
            _ => None,
        }
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
