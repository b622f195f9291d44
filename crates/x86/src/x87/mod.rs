//! The x87 floating-point unit. Each family has its file, with the choice of its handlers at its end.
//!
//! Sources: SDM vol. 1 ch. 8, SDM vol. 2 for each instruction.

mod arithmetic;
mod compare;
mod control;
mod environment;
mod report;
mod source;
mod stack;
mod transfer;

use iced_x86::Instruction;

use crate::{
    decode::Form,
    op::{Handler, Op},
};

/// The handler of an x87 instruction.
pub fn select(instruction: &Instruction, form: &Form, _: &mut Op) -> Option<Handler> {
    let mnemonic = instruction.mnemonic();
    transfer::select(mnemonic, form)
        .or_else(|| arithmetic::select(mnemonic, form))
        .or_else(|| compare::select(mnemonic, form))
        .or_else(|| control::select(mnemonic, form))
        .or_else(|| environment::select(mnemonic, form))
}

#[cfg(test)]
mod tests;
