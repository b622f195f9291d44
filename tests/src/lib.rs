//! Tests that need the whole program: transcripts, guest boots and third-party clients.
//!
//! A transcript (`tests/qmp/*/*.qmp`) is a conversation with a live machine. [`transcript`] reads the file, [`pattern`]
//! compares what comes with what was written, [`process`] starts the program, [`here`] speaks with it in tests that are
//! no transcripts, [`monitor`] and [`guest`] talk to the two sides of the machine, [`qtest`] drives one without a guest,
//! and [`run`] goes through a transcript from top to bottom. [`proofs`] says which transcript proves which command. The
//! format is explained in `tests/qmp/README.md`.

pub mod guest;
pub mod here;
pub mod monitor;
pub mod pattern;
pub mod process;
pub mod proofs;
pub mod python;
pub mod qtest;
pub mod run;
pub mod transcript;
