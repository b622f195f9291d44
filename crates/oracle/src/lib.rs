//! The host's processor as the judge of the software processor.
//!
//! Cases are made from a seed and a number, executed natively in a process of its own and by the interpreter, and
//! compared: registers, flags as far as they are defined, memory and faults. Linux on x86-64 only.

/// What is told of a case that ended the host's process, or kept it busy.
pub const LOST: &str = "the host was lost";

pub mod aim;
pub mod case;
pub mod compare;
pub mod corpus;
pub mod features;
pub mod generate;
pub mod interpreter;
pub mod layout;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[allow(unsafe_code, reason = "it executes machine code of its own making, in a process of its own")]
pub mod native;
pub mod random;
pub mod report;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod run;
pub mod segments;
pub mod templates;
pub mod text;
