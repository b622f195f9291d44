//! MMX, SSE to SSE4.2, SSE4A, AES, PCLMULQDQ, SHA, AVX and XSAVE. Each family has its file, with the choice of its
//! handlers at its end.

mod aes;
mod avx;
mod carryless;
mod convert;
mod elements;
mod float;
mod integer;
mod lanes;
mod moves;
mod operands;
mod operations;
mod real;
mod save;
mod scalars;
mod sha;
mod shuffle;
mod sse4;
mod sse4a;
mod ssse3;
mod strings;
mod xsave;

use iced_x86::{EncodingKind, Instruction, Mnemonic};
use operations::Encoding;

use crate::{
    decode::Form,
    op::{Handler, Op},
};

/// The kind of register that an instruction writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Destination {
    Xmm,
    Mmx,
    /// A general register, or memory.
    Other,
}

/// The handler of an MMX or SSE instruction.
pub fn select(instruction: &Instruction, form: &Form, op: &mut Op) -> Option<Handler> {
    if instruction.encoding() == EncodingKind::VEX {
        return avx::select(instruction, form, op);
    }
    let destination = moves::destination(instruction);
    let mnemonic = instruction.mnemonic();
    let encoding = operations::Legacy { form, destination };
    moves::select(instruction, form, destination, op)
        .or_else(|| operation(mnemonic, &encoding))
        .or_else(|| shuffle::select(instruction, form, destination))
        .or_else(|| scalars::select::<scalars::TwoOperands>(mnemonic, form))
        .or_else(|| strings::select(mnemonic, form))
        .or_else(|| sse4::select_test(mnemonic, form))
        .or_else(|| sse4a::select(mnemonic, form))
        .or_else(|| float::select(mnemonic, form))
        .or_else(|| convert::select(mnemonic, form, destination))
        .or_else(|| save::select(mnemonic, form))
        .or_else(|| xsave::select(mnemonic))
}

/// The handler of an operation that is the same in all encodings.
fn operation(mnemonic: Mnemonic, encoding: &impl Encoding) -> Option<Handler> {
    integer::binary(mnemonic, encoding)
        .or_else(|| ssse3::binary(mnemonic, encoding))
        .or_else(|| sse4::binary(mnemonic, encoding))
        .or_else(|| aes::binary(mnemonic, encoding))
        .or_else(|| sha::binary(mnemonic, encoding))
        .or_else(|| shuffle::immediate(mnemonic, encoding))
        .or_else(|| ssse3::immediate(mnemonic, encoding))
        .or_else(|| sse4::immediate(mnemonic, encoding))
        .or_else(|| aes::immediate(mnemonic, encoding))
        .or_else(|| carryless::immediate(mnemonic, encoding))
        .or_else(|| sha::immediate(mnemonic, encoding))
        .or_else(|| sse4::ternary(mnemonic, encoding))
        .or_else(|| sha::ternary(mnemonic, encoding))
        .or_else(|| sse4::widening(mnemonic, encoding))
}

#[cfg(test)]
mod tests;
