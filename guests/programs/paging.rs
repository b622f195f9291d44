//! Paging of four levels: every combination of rights, access and control bits that matters, and thousands by chance, against
//! the model in `paging_model.rs`.

use iced_x86::IcedError;

use super::{
    layout::{SCRATCH, TABLES},
    paging_cases::{Form, group, prepare, routine, say_what_was_left_out},
    paging_model::Format,
    program::Program,
};

/// The tables below the root.
const POINTERS: u32 = SCRATCH;
const DIRECTORY: u32 = SCRATCH + 0x1000;
const TABLE: u32 = SCRATCH + 0x2000;

const FORM: Form = Form {
    format: Format::FourLevels,
    linear: 1 << 39 | 2 << 30 | 3 << 21 | 4 << 12 | 0x10,
    root: TABLES,
    places: &[TABLES + 8, POINTERS + 2 * 8, DIRECTORY + 3 * 8, TABLE + 4 * 8],
    cr0: 0x8000_0033,
    cr4: 0x620,
    efer: 0x501,
};

pub fn write() -> Result<Vec<u8>, IcedError> {
    let mut p = Program::new(64)?;
    let accesses = prepare(&mut p)?;
    let run = routine(&mut p, &FORM, accesses)?;
    for (name, last) in [("4 KiB", 3), ("2 MiB", 2), ("1 GiB", 1)] {
        group(&mut p, &format!("rights to pages of {name}"), &FORM, &FORM.matrix(last), run)?;
    }
    for seed in 0..4 {
        group(&mut p, &format!("walks by chance, seed {seed}"), &FORM, &FORM.chance(seed, 750), run)?;
    }
    say_what_was_left_out(&mut p)?;
    p.end()
}
