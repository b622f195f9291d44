//! Every instruction that the decoder knows, each with ways to write it: found by walking the opcode maps.

use std::collections::BTreeMap;

use iced_x86::{Code, Decoder, DecoderOptions, Instruction};

use crate::{
    features::{LeftOut, left_out},
    layout::CODE,
};

/// Most ways that are kept of one instruction.
const WAYS: usize = 48;

/// A way to write an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// Prefixes that make it this instruction: 66, 67, F2 or F3; 0 for none.
    pub prefixes: [u8; 3],
    /// REX.W or VEX.W.
    pub wide: bool,
    /// The VEX prefix's L and pp, if it has one.
    pub vex: Option<u8>,
    /// The opcode map: 0 to 3.
    pub map: u8,
    /// The opcode.
    pub opcode: u8,
    /// A ModRM byte with which it is this instruction.
    pub modrm: u8,
}

/// What a template leaves open.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// ModRM.
    pub modrm: u8,
    /// R, X and B, as REX has them.
    pub extension: u8,
    /// The register that VEX names.
    pub vvvv: u8,
}

impl Template {
    /// Its bytes up to ModRM.
    pub fn bytes(&self, bits: u8, choice: &Choice, to: &mut Vec<u8>) {
        to.extend(self.prefixes.iter().filter(|prefix| **prefix != 0));
        let long = bits == 64;
        let extension = if long { choice.extension & 7 } else { 0 };
        if let Some(vex) = self.vex {
            // Outside 64-bit code the two highest bits are what makes it VEX and not LES or LDS.
            let inverted = (!extension & 7) << 5 | self.map;
            let vvvv = (!choice.vvvv & if long { 15 } else { 7 }) & 15;
            let vvvv = if long { vvvv } else { vvvv | 8 };
            let last = u8::from(self.wide) << 7 | vvvv << 3 | vex;
            if self.map == 1 && !self.wide && extension & 3 == 0 && choice.modrm & 1 == 0 {
                to.extend([0xc5, (inverted & 0x80) | last & 0x7f]);
            } else {
                to.extend([0xc4, inverted, last]);
            }
            to.push(self.opcode);
        } else {
            if long && (self.wide || extension != 0) {
                to.push(0x40 | u8::from(self.wide) << 3 | extension);
            }
            match self.map {
                0 => {}
                1 => to.push(0x0f),
                2 => to.extend([0x0f, 0x38]),
                _ => to.extend([0x0f, 0x3a]),
            }
            to.push(self.opcode);
        }
        to.push(choice.modrm);
    }
}

/// The instructions of one size of code.
#[derive(Debug)]
pub struct Instructions {
    /// The size of code.
    pub bits: u8,
    /// Those that are executed.
    pub executed: Vec<(Code, Vec<Template>)>,
    /// Those that are not, with the reason.
    pub left_out: Vec<(Code, LeftOut)>,
}

/// Decodes one instruction at the page of code.
pub fn decode(bits: u8, bytes: &[u8], ip: u64) -> Instruction {
    Decoder::with_ip(u32::from(bits), bytes, ip, DecoderOptions::NONE).decode()
}

impl Instructions {
    /// Walks the opcode maps.
    pub fn of(bits: u8) -> Self {
        let mut found: BTreeMap<u32, (Instruction, Vec<Template>)> = BTreeMap::new();
        let mut try_one = |template: Template| {
            let mut bytes = Vec::with_capacity(24);
            let choice = Choice { modrm: template.modrm, extension: 0, vvvv: 0 };
            template.bytes(bits, &choice, &mut bytes);
            bytes.extend([0; 12]);
            let instruction = decode(bits, &bytes, CODE);
            if !instruction.is_invalid() {
                let entry = found.entry(instruction.code() as u32).or_insert_with(|| (instruction, Vec::new()));
                if entry.1.len() < WAYS {
                    entry.1.push(template);
                }
            }
        };
        let samples: Vec<u8> = (0..8)
            .flat_map(|reg| [reg << 3, reg << 3 | 2].into_iter().chain((0..8).map(move |rm| 0xc0 | reg << 3 | rm)))
            .collect();
        let sizes: &[[u8; 2]] = &[[0, 0], [0x66, 0], [0x67, 0], [0x66, 0x67]];
        for map in 0..4 {
            for size in sizes.iter().take(if map == 0 { 4 } else { 2 }) {
                for repeat in [0, 0xf2, 0xf3] {
                    for wide in [false, true].into_iter().take(if bits == 64 { 2 } else { 1 }) {
                        for opcode in 0..=255 {
                            for &modrm in &samples {
                                let prefixes = [size[0], size[1], repeat];
                                try_one(Template { prefixes, wide, vex: None, map, opcode, modrm });
                            }
                        }
                    }
                }
            }
        }
        for map in 1..4 {
            for vex in 0..8 {
                for wide in [false, true] {
                    for opcode in 0..=255 {
                        for &modrm in &samples {
                            try_one(Template { prefixes: [0; 3], wide, vex: Some(vex), map, opcode, modrm });
                        }
                    }
                }
            }
        }
        let mut instructions = Self { bits, executed: Vec::new(), left_out: Vec::new() };
        for (instruction, ways) in found.into_values() {
            match left_out(&instruction) {
                Some(reason) => instructions.left_out.push((instruction.code(), reason)),
                None => instructions.executed.push((instruction.code(), ways)),
            }
        }
        instructions
    }

    /// Keeps those whose mnemonic or one of whose features is `name`, whatever the case of its letters.
    pub fn keep_only(&mut self, name: &str) {
        self.executed.retain(|(code, _)| {
            let is = |other: &str| other.eq_ignore_ascii_case(name);
            is(&format!("{:?}", code.mnemonic()))
                || is(&format!("{code:?}"))
                || code.cpuid_features().iter().any(|feature| is(&format!("{feature:?}")))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_writes_its_instruction() {
        for bits in [16, 32, 64] {
            let instructions = Instructions::of(bits);
            assert!(instructions.executed.len() > 600, "{}", instructions.executed.len());
            for (code, ways) in &instructions.executed {
                for way in ways {
                    let mut bytes = Vec::new();
                    way.bytes(bits, &Choice { modrm: way.modrm, extension: 0, vvvv: 0 }, &mut bytes);
                    bytes.extend([0; 12]);
                    assert_eq!(decode(bits, &bytes, CODE).code(), *code);
                }
            }
        }
    }

    #[test]
    fn a_name_chooses_by_mnemonic_and_by_feature() {
        let mut instructions = Instructions::of(64);
        instructions.keep_only("SSE2");
        assert!(instructions.executed.len() > 100);
        instructions.keep_only("addpd");
        assert_eq!(instructions.executed.len(), 1);
    }
}
