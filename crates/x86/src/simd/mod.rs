//! MMX, SSE to SSE3, and XSAVE. Each family has its file, with the choice of its handlers at its end.

mod convert;
mod float;
mod integer;
mod lanes;
mod moves;
mod operands;
mod real;
mod save;
mod shuffle;
mod xsave;

use iced_x86::Instruction;

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
    let destination = moves::destination(instruction);
    let mnemonic = instruction.mnemonic();
    moves::select(instruction, form, destination, op)
        .or_else(|| integer::select(mnemonic, form, destination))
        .or_else(|| shuffle::select(instruction, form, destination))
        .or_else(|| float::select(mnemonic, form))
        .or_else(|| convert::select(mnemonic, form, destination))
        .or_else(|| save::select(mnemonic, form))
        .or_else(|| xsave::select(mnemonic))
}

#[cfg(test)]
mod tests;
