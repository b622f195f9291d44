//! The x86 processor in software: decoder, interpreter, memory management unit and processor models.
//!
//! It knows no threads and no devices: memory is an address space, everything else is behind [`bus::SystemBus`].
//! Sources: Intel SDM volumes 1 to 3, AMD APM volumes 1 to 5.
#![allow(improper_ctypes_definitions, reason = "handlers are called by Rust, and later by code that passes pointers")]

pub mod access;
mod bulk;
pub mod bus;
pub mod decode;
pub mod engine;
mod float;
pub mod inspect;
pub mod integer;
pub mod mmu;
pub mod op;
mod page_tables;
pub mod protection;
pub mod saved;
pub mod simd;
pub mod state;
pub mod system;
pub mod tlb;
pub mod trap;
pub mod x87;
