//! Segments, privilege, interrupts and far transfers.

pub mod address;
pub mod boot;
pub mod delivery;
pub(crate) mod descriptors;
pub mod far;
#[cfg(test)]
mod fixture;
pub mod iret;
#[cfg(test)]
mod programs;
pub mod reset;
pub mod segments;
pub mod stack;
pub(crate) mod task;
pub(crate) mod virtual_interrupts;

use iced_x86::Instruction;

use crate::{
    decode::Form,
    op::{Handler, Op},
};

/// The handler of an instruction of this family; `None` if it is not one.
pub fn select(instruction: &Instruction, form: &Form, op: &mut Op) -> Option<Handler> {
    segments::select(instruction, form, op)
        .or_else(|| far::select(instruction, form, op))
        .or_else(|| iret::select(instruction, form, op))
        .or_else(|| delivery::select(instruction, form, op))
}
