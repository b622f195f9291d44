//! The x87 floating-point unit. Each family has its file, with the choice of its handlers at its end.
//!
//! Sources: SDM vol. 1 ch. 8, SDM vol. 2 for each instruction.

mod control;
mod environment;

use iced_x86::Instruction;

use crate::{
    decode::Form,
    op::{Handler, Op},
};

/// The handler of an x87 instruction.
pub fn select(instruction: &Instruction, form: &Form, _: &mut Op) -> Option<Handler> {
    let mnemonic = instruction.mnemonic();
    control::select(mnemonic, form).or_else(|| environment::select(mnemonic, form))
}

#[cfg(test)]
mod tests;
