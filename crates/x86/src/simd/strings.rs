//! Comparison of strings in XMM registers: PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM.
//!
//! Source: SDM vol. 2 § 4.1 (the immediate, the two intermediate results, output and flags).

use iced_x86::Mnemonic;

use super::{
    operands::{enter_sse, load, set_xmm, xmm},
    sse4::spread,
};
use crate::{
    decode::{Form, Kind},
    op::{Handler, Op},
    state::{CpuState, Rflags, reg},
    trap::Trap,
};

/// The immediate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Control(pub(super) u8);

impl Control {
    /// Elements of a register: bytes or words.
    #[inline(always)]
    fn elements(self) -> usize {
        if self.0 & 1 != 0 { 8 } else { 16 }
    }

    /// The elements of a register as numbers, sign-extended if the immediate says so.
    #[inline(always)]
    fn split(self, a: u128) -> [i32; 16] {
        let bytes = a.to_le_bytes();
        let word = |i: usize| u16::from_le_bytes([bytes[(2 * i) & 15], bytes[(2 * i + 1) & 15]]);
        std::array::from_fn(|i| match self.0 & 3 {
            0 => i32::from(bytes[i]),
            1 => i32::from(word(i)),
            2 => i32::from(bytes[i] as i8),
            _ => i32::from(word(i) as i16),
        })
    }

    /// Elements before the first that is zero.
    #[inline(always)]
    fn implicit_length(self, a: u128) -> usize {
        let elements = self.elements();
        self.split(a)[..elements].iter().position(|&element| element == 0).unwrap_or(elements)
    }

    /// Elements that a length in a register makes valid: its magnitude counts.
    #[inline(always)]
    fn explicit_length(self, length: i64) -> usize {
        length.unsigned_abs().min(self.elements() as u64) as usize
    }
}

/// Where the lengths of strings come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lengths {
    /// Each string ends before its first zero.
    Implicit,
    /// EAX and EDX, or RAX and RDX, sign-extended.
    Explicit(i64, i64),
}

/// What a comparison gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// A bit for each element of the second operand.
    bits: u32,
    elements: u32,
    /// The arithmetic flags.
    pub(super) flags: u64,
}

impl Outcome {
    /// What PCMPESTRI and PCMPISTRI put in ECX: the number of the lowest or of the highest bit.
    pub(super) fn index(&self, control: Control) -> u64 {
        let index = if control.0 & 0x40 != 0 { self.bits.checked_ilog2() } else { Some(self.bits.trailing_zeros()) };
        u64::from(index.unwrap_or(self.elements).min(self.elements))
    }

    /// What PCMPESTRM and PCMPISTRM put in XMM0: the bits, or an element of ones for each.
    pub(super) fn mask(&self, control: Control) -> u128 {
        if control.0 & 0x40 != 0 { spread(self.bits, self.elements) } else { u128::from(self.bits) }
    }
}

/// Compares the set, ranges, string or substring in `a` with the string in `b`.
fn compare(a: u128, b: u128, lengths: Lengths, control: Control) -> Outcome {
    let (valid_a, valid_b) = match lengths {
        Lengths::Implicit => (control.implicit_length(a), control.implicit_length(b)),
        Lengths::Explicit(a, b) => (control.explicit_length(a), control.explicit_length(b)),
    };
    let elements = control.elements();
    let (first, second) = (control.split(a), control.split(b));
    let (set, string) = (&first[..valid_a], &second[..valid_b]);
    let holds = |at: usize| match control.0 >> 2 & 3 {
        0 => string.get(at).is_some_and(|element| set.contains(element)),
        1 => string.get(at).is_some_and(|element| {
            set.chunks_exact(2).any(|range| matches!(range, [low, high] if (low..=high).contains(&element)))
        }),
        // Beyond the ends of both strings elements count as equal.
        2 => set.get(at) == string.get(at),
        // The substring may go on beyond the register.
        _ => (0..elements - at).all(|i| match set.get(i) {
            Some(element) => string.get(at + i) == Some(element),
            None => true,
        }),
    };
    let found = (0..elements).fold(0_u32, |bits, at| bits | u32::from(holds(at)) << at);
    let ones = |count: usize| (1_u32 << count) - 1;
    let bits = match control.0 >> 4 & 3 {
        1 => found ^ ones(elements),
        3 => found ^ ones(valid_b),
        _ => found,
    };
    let flag = |condition, flag: Rflags| if condition { flag.bits() } else { 0 };
    let flags = flag(bits != 0, Rflags::CF)
        | flag(valid_b < elements, Rflags::ZF)
        | flag(valid_a < elements, Rflags::SF)
        | flag(bits & 1 != 0, Rflags::OF);
    Outcome { bits, elements: elements as u32, flags }
}

/// The lengths that an instruction finds in registers of `SIZE` bytes; none for 0.
fn lengths<const SIZE: u8>(cpu: &CpuState) -> Lengths {
    let (a, b) = (cpu.register(reg::RAX), cpu.register(reg::RDX));
    match SIZE {
        0 => Lengths::Implicit,
        8 => Lengths::Explicit(a as i64, b as i64),
        _ => Lengths::Explicit(i64::from(a as i32), i64::from(b as i32)),
    }
}

/// Compares the register that is `op`'s first operand with `b`, and sets the flags.
#[inline(always)]
pub(super) fn compare_with<const SIZE: u8>(cpu: &mut CpuState, op: &Op, b: u128) -> Outcome {
    let outcome = compare(xmm(cpu, op.dst), b, lengths::<SIZE>(cpu), Control(op.imm as u8));
    cpu.rflags = cpu.rflags & !Rflags::ARITHMETIC.bits() | outcome.flags;
    outcome
}

/// As [`compare_with`], with the index in RCX as the result.
#[inline(always)]
pub(super) fn index_with<const SIZE: u8>(cpu: &mut CpuState, op: &Op, b: u128) {
    let outcome = compare_with::<SIZE>(cpu, op, b);
    cpu.gpr[usize::from(reg::RCX)] = outcome.index(Control(op.imm as u8));
}

/// The second string, which need not be aligned.
#[inline(always)]
fn second<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<u128, Trap> {
    enter_sse(cpu)?;
    if MEMORY { load(cpu, op) } else { Ok(xmm(cpu, op.src)) }
}

extern "C" fn index<const SIZE: u8, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let b = second::<MEMORY>(cpu, op)?;
    index_with::<SIZE>(cpu, op, b);
    Ok(())
}

extern "C" fn mask<const SIZE: u8, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let b = second::<MEMORY>(cpu, op)?;
    let outcome = compare_with::<SIZE>(cpu, op, b);
    set_xmm(cpu, 0, outcome.mask(Control(op.imm as u8)));
    Ok(())
}

/// The handler of a comparison of strings.
pub(super) fn select(mnemonic: Mnemonic, form: &Form) -> Option<Handler> {
    Some(match (mnemonic, form.kinds[1] == Kind::Memory) {
        (Mnemonic::Pcmpistri, false) => index::<0, false>,
        (Mnemonic::Pcmpistri, true) => index::<0, true>,
        (Mnemonic::Pcmpestri, false) => index::<4, false>,
        (Mnemonic::Pcmpestri, true) => index::<4, true>,
        (Mnemonic::Pcmpestri64, false) => index::<8, false>,
        (Mnemonic::Pcmpestri64, true) => index::<8, true>,
        (Mnemonic::Pcmpistrm, false) => mask::<0, false>,
        (Mnemonic::Pcmpistrm, true) => mask::<0, true>,
        (Mnemonic::Pcmpestrm, false) => mask::<4, false>,
        (Mnemonic::Pcmpestrm, true) => mask::<4, true>,
        (Mnemonic::Pcmpestrm64, false) => mask::<8, false>,
        (Mnemonic::Pcmpestrm64, true) => mask::<8, true>,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> u128 {
        let mut bytes = [0; 16];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        u128::from_le_bytes(bytes)
    }

    fn implicit(a: &str, b: &str, control: u8) -> Outcome {
        compare(text(a), text(b), Lengths::Implicit, Control(control))
    }

    #[test]
    fn a_set_finds_its_members() {
        let outcome = implicit("xyz", "alphazulu", 0);
        assert_eq!((outcome.index(Control(0)), outcome.flags), (5, 0xc1));
        // Of the others, those inside the string, the highest one.
        assert_eq!(implicit("ul", "alphazulu", 0x30).index(Control(0x70)), 5);
        // Nothing found.
        assert_eq!(implicit("q", "alphazulu", 0).index(Control(0)), 16);
    }

    #[test]
    fn ranges_are_pairs() {
        assert_eq!(implicit("azAZ", "12 Words", 4).mask(Control(4)), 0b1111_1000);
        // The last one has no upper end.
        assert_eq!(implicit("az0", "12 Words", 4).mask(Control(4)), 0b1111_0000);
    }

    #[test]
    fn equal_strings_are_equal_beyond_their_ends_too() {
        let outcome = implicit("word", "word", 8);
        assert_eq!((outcome.mask(Control(8)), outcome.flags), (0xffff, 0x8c1));
        assert_eq!(implicit("word", "work", 0x18).index(Control(0x18)), 3);
    }

    #[test]
    fn a_substring_is_found_where_it_begins_even_at_the_end() {
        assert_eq!(implicit("abc", "xxabcxabc", 0xc).mask(Control(0xc)), 1 << 2 | 1 << 6);
        assert_eq!(implicit("abc", "0123456789abcdab", 0xc).mask(Control(0xc)), 1 << 10 | 1 << 14);
        assert_eq!(implicit("", "x", 0xc).mask(Control(0xc)), 0xffff);
    }

    #[test]
    fn explicit_lengths_count_by_magnitude_and_are_limited() {
        let outcome = compare(0, 0, Lengths::Explicit(-3, i64::MIN), Control(9));
        assert_eq!((outcome.mask(Control(9)), outcome.flags), (7, 0x881));
        let words = compare(0x8000, 0xffff_0001_7fff, Lengths::Explicit(2, 3), Control(0b0000_0111));
        // From -0x8000 to 0.
        assert_eq!(words.mask(Control(0x47)), 0xffff << 32);
    }
}
