//! Paging of 32-bit code, in both its forms: two levels of 32-bit entries, and three of 64-bit entries, against the model in
//! `paging_model.rs`; and what long mode alone has. SDM vol. 3 § 2.5, 4.3 and 4.4.

mod loads;

use iced_x86::{IcedError, code_asm::*};

use super::{
    Done,
    layout::{SCRATCH, USER},
    paging_cases::{Form, group, prepare, routine, say_what_was_left_out},
    paging_model::{Format, P, PS, RW, US},
    program::{Program, fault},
};

const ROOT: u32 = SCRATCH;

const LEGACY: Form = Form {
    format: Format::Legacy,
    linear: 0xc020_4010,
    root: ROOT,
    places: &[ROOT + 4 * 0x300, ROOT + 0x1000 + 4 * 0x204],
    cr0: 0x8000_0033,
    cr4: 0x610,
    efer: 0,
};

const PAE: Form = Form {
    format: Format::Pae,
    linear: 0xc000_4010,
    root: ROOT,
    places: &[ROOT + 8 * 3, ROOT + 0x2000, ROOT + 0x3000 + 8 * 4],
    cr0: 0x8000_0033,
    cr4: 0x620,
    efer: 0,
};

pub fn write() -> Result<Vec<u8>, IcedError> {
    let mut p = Program::new(32)?;
    p.case("#GP: CR4.PCIDE outside of long mode", fault(13, 0), |p| {
        p.a.mov(eax, cr4)?;
        p.a.or(eax, 1 << 17)?;
        p.a.mov(cr4, eax)
    })?;
    let accesses = prepare(&mut p)?;
    for (name, form) in [("two levels", LEGACY), ("three levels", PAE)] {
        let run = routine(&mut p, &form, accesses)?;
        tables(&mut p, form.format)?;
        let last = form.places.len() - 1;
        for (kind, last) in [("small", last), ("large", last - 1)] {
            group(&mut p, &format!("{name}, rights to {kind} pages"), &form, &form.matrix(last), run)?;
        }
        for seed in 100..102 {
            group(&mut p, &format!("{name}, by chance, seed {seed}"), &form, &form.chance(seed, 600), run)?;
        }
    }
    loads::write(&mut p)?;
    say_what_was_left_out(&mut p)?;
    p.end()
}

/// Tables that map the first 64 MiB to themselves by large pages; only the program's user page is for level 3.
fn tables(p: &mut Program, format: Format) -> Done {
    p.a.mov(edi, ROOT)?;
    p.a.xor(eax, eax)?;
    p.a.mov(ecx, 0x1000)?;
    p.a.rep().stosd()?;
    let size = format.entry_size();
    let (directory, megabytes) = if size == 4 { (ROOT, 4) } else { (ROOT + 0x1000, 2) };
    if size == 8 {
        p.a.mov(dword_ptr(ROOT), (directory | 1) as i32)?;
    }
    for index in 0..64 / megabytes {
        let address = (index * megabytes) << 20;
        let user = if address == USER { US as u32 } else { 0 };
        p.a.mov(dword_ptr(directory + size * index), (address | (P | RW | PS) as u32 | user) as i32)?;
    }
    Ok(())
}
