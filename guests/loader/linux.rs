//! The option ROM that starts Linux through its 16-bit entry.
//!
//! Source: Linux `Documentation/arch/x86/boot.rst`, "Running the kernel".

use iced_x86::{IcedError, code_asm::*};

use super::{CODE, COMMAND_LINE, INITRD, KERNEL, Routines, SETUP, finish, header};

/// The segment in which the kernel's setup and the stack are, and the stack's top in it: what the kernel is told of its
/// heap ends below that.
const SEGMENT: u32 = 0x1000;
const STACK: u32 = 0xe000;
/// Bytes behind the kernel's boot sector's start at which it is entered, as a difference of segments.
const ENTRY: u32 = 0x20;

fn code() -> Result<CodeAssembler, IcedError> {
    let mut a = CodeAssembler::new(16)?;
    let routines = Routines::new(&mut a);
    a.cli()?;
    a.cld()?;
    a.mov(ax, SEGMENT)?;
    a.mov(ss, ax)?;
    a.mov(sp, STACK - 16)?;
    a.mov(bp, sp)?;
    for part in [SETUP, COMMAND_LINE, KERNEL, INITRD] {
        routines.call_fetch(&mut a, part)?;
    }
    // The kernel's 16-bit part, with all segments where it is.
    a.mov(ax, SETUP.address)?;
    a.call(routines.number)?;
    a.shr(eax, 4)?;
    a.mov(ds, ax)?;
    a.mov(es, ax)?;
    a.mov(fs, ax)?;
    a.mov(gs, ax)?;
    a.mov(ss, ax)?;
    a.mov(sp, STACK)?;
    a.add(ax, ENTRY)?;
    a.push(ax)?;
    a.xor(ax, ax)?;
    a.push(ax)?;
    a.retf()?;
    routines.place(&mut a)?;
    Ok(a)
}

/// The ROM's bytes.
pub fn assemble() -> Result<Vec<u8>, IcedError> {
    let mut rom = header(1, b"Linux of -kernel\0");
    rom.extend(code()?.assemble(CODE.into())?);
    Ok(finish(rom, 1))
}
