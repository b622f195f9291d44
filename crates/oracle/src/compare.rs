//! Whether both sides agree, where the manuals say what is to come out.
//!
//! Sources: SDM vol. 2, each instruction's "Flags Affected"; SDM vol. 1 § 8.1.8 (the x87's pointers).

use iced_x86::{Instruction, Mnemonic, RflagsBits};

use crate::{
    aim,
    case::{Case, Outcome, Registers},
    layout,
};

/// RFLAGS that are compared: the arithmetic flags, DF, NT, AC and ID, TF, IF and IOPL.
const COMPARED: u64 = 0x24_7fd5;
const CF: u64 = 1 << 0;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// In what.
    pub place: String,
    /// What the host's processor gave.
    pub native: String,
    /// What the interpreter gave.
    pub interpreted: String,
}

/// What is not compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undefined {
    /// Bits of RFLAGS.
    pub flags: u64,
    /// Bits of the x87 status word.
    pub status: u16,
    /// General registers, a bit each.
    pub registers: u16,
    /// Memory: from, to.
    pub memory: Vec<(u64, u64)>,
}

/// The count of a shift or rotation, as far as the processor looks at it.
fn count(case: &Case, instruction: &Instruction) -> u64 {
    let last = instruction.op_count().saturating_sub(1);
    let count = if instruction.op_kind(last) == iced_x86::OpKind::Register {
        case.registers.gpr[1]
    } else {
        instruction.immediate(last)
    };
    count & if operand_bits(instruction) == 64 { 63 } else { 31 }
}

fn operand_bits(instruction: &Instruction) -> u64 {
    let register = instruction.op0_register().size() as u64;
    8 * if instruction.op0_kind() == iced_x86::OpKind::Register {
        register
    } else {
        instruction.memory_size().size() as u64
    }
}

impl Undefined {
    /// What the manuals leave open of an instruction that went well.
    pub fn of(case: &Case, instruction: &Instruction) -> Self {
        use Mnemonic as M;
        let mut undefined = Self::default();
        let bits = instruction.rflags_undefined();
        for (from, to) in [
            (RflagsBits::CF, CF),
            (RflagsBits::PF, PF),
            (RflagsBits::AF, AF),
            (RflagsBits::ZF, ZF),
            (RflagsBits::SF, SF),
            (RflagsBits::OF, OF),
        ] {
            if bits & from != 0 {
                undefined.flags |= to;
            }
        }
        for (from, to) in [(RflagsBits::C0, 8), (RflagsBits::C1, 9), (RflagsBits::C2, 10), (RflagsBits::C3, 14)] {
            if bits & from != 0 {
                undefined.status |= 1 << to;
            }
        }
        let size = operand_bits(instruction);
        match instruction.mnemonic() {
            M::Rol | M::Ror | M::Rcl | M::Rcr => {
                undefined.flags = if count(case, instruction) > 1 { OF } else { 0 };
            }
            M::Shl | M::Sal | M::Shr | M::Sar => {
                let count = count(case, instruction);
                undefined.flags = match count {
                    0 => 0,
                    1 => AF,
                    _ => AF | OF,
                };
                if count >= size && instruction.mnemonic() != M::Sar {
                    undefined.flags |= CF;
                }
            }
            M::Shld | M::Shrd => {
                let count = count(case, instruction);
                undefined.flags = match count {
                    0 => 0,
                    1 => AF,
                    _ => AF | OF,
                };
                if count > size {
                    undefined.flags = CF | PF | AF | ZF | SF | OF;
                    undefined.result(case, instruction);
                }
            }
            // A 16-bit operand.
            M::Bswap if size == 16 => undefined.result(case, instruction),
            M::Fnstenv | M::Fstenv | M::Fnsave | M::Fsave | M::Fxsave | M::Fxsave64 => {
                if let Some(at) = aim::address(case, instruction, 0) {
                    let (from, to) = match (instruction.mnemonic(), instruction.memory_size().size()) {
                        (M::Fxsave | M::Fxsave64, _) => (6, 24),
                        (_, 14 | 94) => (6, 14),
                        _ => (12, 28),
                    };
                    undefined.memory.push((at.wrapping_add(from), at.wrapping_add(to)));
                }
            }
            _ => {}
        }
        undefined
    }

    fn result(&mut self, case: &Case, instruction: &Instruction) {
        if instruction.op0_kind() == iced_x86::OpKind::Register {
            self.registers |= 1 << (instruction.op0_register().full_register().number() & 15);
        } else if let Some(at) = aim::address(case, instruction, 0) {
            self.memory.push((at, at.wrapping_add(instruction.memory_size().size() as u64)));
        }
    }
}

/// What differs; nothing if both agree.
pub fn differences(case: &Case, instruction: &Instruction, native: &Outcome, interpreted: &Outcome) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut differ = |place: &dyn std::fmt::Display, native: &dyn std::fmt::Display, other: &dyn std::fmt::Display| {
        found.push(Difference { place: place.to_string(), native: native.to_string(), interpreted: other.to_string() });
    };
    let completed = native.registers.rip != case.registers.rip;
    let undefined = if completed { Undefined::of(case, instruction) } else { Undefined::default() };
    let exception = |outcome: &Outcome| {
        // Linux hides which addresses of its own there are.
        let error =
            if outcome.vector == 14 && outcome.cr2 >= (1 << 47) - 4096 { outcome.error | 1 } else { outcome.error };
        (outcome.vector, error, outcome.cr2)
    };
    let (ours, theirs) = (exception(interpreted), exception(native));
    if ours != theirs {
        let text =
            |(vector, error, cr2): (u8, u32, u64)| format!("vector {vector}, error {error:#x}, address {cr2:#x}");
        differ(&"exception", &text(theirs), &text(ours));
    }
    let (a, b) = (&native.registers, &interpreted.registers);
    for (number, (x, y)) in a.gpr.iter().zip(&b.gpr).enumerate() {
        if x != y && undefined.registers >> number & 1 == 0 {
            differ(&crate::text::GENERAL[number], &format!("{x:#x}"), &format!("{y:#x}"));
        }
    }
    let flags = |registers: &Registers| registers.rflags & COMPARED & !undefined.flags;
    for (place, x, y) in [
        ("rip", a.rip, b.rip),
        ("rflags", flags(a), flags(b)),
        ("fs.base", a.fs_base, b.fs_base),
        ("gs.base", a.gs_base, b.gs_base),
        ("mxcsr", u64::from(a.mxcsr), u64::from(b.mxcsr)),
        ("x87 control", u64::from(a.control), u64::from(b.control)),
        ("x87 status", u64::from(a.status & !undefined.status), u64::from(b.status & !undefined.status)),
        ("x87 valid", u64::from(a.valid), u64::from(b.valid)),
    ] {
        if x != y {
            differ(&place, &format!("{x:#x}"), &format!("{y:#x}"));
        }
    }
    for (number, (x, y)) in a.x87.iter().zip(&b.x87).enumerate() {
        if x != y {
            differ(&format!("R{number}"), &format!("{x:#x}"), &format!("{y:#x}"));
        }
    }
    for (number, (x, y)) in a.vector.iter().zip(&b.vector).enumerate() {
        for (name, x, y) in [("xmm", x[0], y[0]), ("upper ymm", x[1], y[1])] {
            if x != y {
                differ(&format!("{name}{number}"), &format!("{x:#034x}"), &format!("{y:#034x}"));
            }
        }
    }
    if a.selectors != b.selectors {
        differ(&"segments", &format!("{:x?}", a.selectors), &format!("{:x?}", b.selectors));
    }
    let mut words: Vec<u32> = native.memory.iter().chain(&interpreted.memory).map(|entry| entry.0).collect();
    words.sort_unstable();
    words.dedup();
    for word in words {
        let address = layout::address_of(word as usize);
        let mask = (0..8_u64).fold(u64::MAX, |mask, i| {
            let at = address + i;
            let open = undefined.memory.iter().any(|(from, to)| (*from..*to).contains(&at));
            if open { mask & !(0xff << (8 * i)) } else { mask }
        });
        let (x, y) = (native.word(word) & mask, interpreted.word(word) & mask);
        if x != y {
            differ(&format!("memory at {address:#x}"), &format!("{x:#018x}"), &format!("{y:#018x}"));
        }
    }
    found
}
