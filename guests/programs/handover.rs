//! What a loader hands over: prints the command line, each module's words and contents, which are text, and the usable memory
//! at zero and at 1 MiB as the map of memory has it. Multiboot Specification 0.6.96 § 3.2 and § 3.3.

use iced_x86::{IcedError, code_asm::*};

use super::{
    layout::{record, variable},
    program::{Program, dword},
};

pub fn write() -> Result<Vec<u8>, IcedError> {
    let mut p = Program::new(32)?;
    p.case("the loader's number is in EAX", vec![dword("number", variable::LOADER_NUMBER, 0x2bad_b002)], |_| Ok(()))?;
    // Memory, a command line, modules, a map and a name: flags 0, 2, 3, 6 and 9.
    p.case("it gives what kernels need", vec![dword("flags", record::result(0), 0x24d)], |p| {
        p.a.mov(ebx, dword_ptr(variable::INFORMATION))?;
        p.a.mov(eax, dword_ptr(ebx))?;
        p.a.and(eax, 0x24d)?;
        p.keep(0, eax)
    })?;
    line(&mut p, "command line: ", 16)?;
    line(&mut p, "loader: ", 64)?;
    modules(&mut p)?;
    memory(&mut p)?;
    p.end()
}

/// Prints the text to which the information points at `offset`.
fn line(p: &mut Program, what: &str, offset: u32) -> Result<(), IcedError> {
    p.print(what)?;
    p.a.mov(ebx, dword_ptr(variable::INFORMATION))?;
    p.a.mov(eax, dword_ptr(ebx + offset))?;
    p.a.call(p.routines.text)?;
    p.print("\r\n")
}

fn modules(p: &mut Program) -> Result<(), IcedError> {
    let (next, end) = (p.label(), p.label());
    let (left, at) = (variable::OWN, variable::OWN + 4);
    p.a.mov(ebx, dword_ptr(variable::INFORMATION))?;
    p.a.mov(eax, dword_ptr(ebx + 20))?;
    p.a.mov(dword_ptr(left), eax)?;
    p.a.mov(eax, dword_ptr(ebx + 24))?;
    p.a.mov(dword_ptr(at), eax)?;
    p.at(next)?;
    p.a.cmp(dword_ptr(left), 0)?;
    p.a.je(end)?;
    p.print("module: ")?;
    p.a.mov(ebx, dword_ptr(at))?;
    p.a.mov(eax, dword_ptr(ebx + 8))?;
    p.a.call(p.routines.text)?;
    p.print(": ")?;
    p.a.mov(ebx, dword_ptr(at))?;
    p.a.mov(eax, dword_ptr(ebx))?;
    p.a.call(p.routines.text)?;
    p.print("\r\n")?;
    p.a.add(dword_ptr(at), 16)?;
    p.a.dec(dword_ptr(left))?;
    p.a.jmp(next)?;
    p.at(end)
}

/// The kibibytes that the information says, and those of the ranges that start where it counts from.
fn memory(p: &mut Program) -> Result<(), IcedError> {
    for (name, field, base) in [("lower", 4_u32, 0_u32), ("upper", 8, 0x10_0000)] {
        let (next, found, done) = (p.label(), p.label(), p.label());
        p.case(
            &format!("the map has the {name} memory that is told"),
            vec![dword("found", record::result(0), 1), dword("difference", record::result(1), 0)],
            |p| {
                p.a.mov(ebx, dword_ptr(variable::INFORMATION))?;
                p.a.mov(esi, dword_ptr(ebx + 48_u32))?;
                p.a.mov(edi, dword_ptr(ebx + 44_u32))?;
                p.a.add(edi, esi)?;
                p.a.xor(eax, eax)?;
                p.keep(0, eax)?;
                p.at(next)?;
                p.a.cmp(esi, edi)?;
                p.a.jae(done)?;
                p.a.cmp(dword_ptr(esi + 20), 1)?;
                let skip = p.label();
                p.a.jne(skip)?;
                p.a.cmp(dword_ptr(esi + 4), base as i32)?;
                p.a.je(found)?;
                p.at(skip)?;
                p.a.add(esi, dword_ptr(esi))?;
                p.a.add(esi, 4)?;
                p.a.jmp(next)?;
                p.at(found)?;
                p.a.mov(eax, dword_ptr(esi + 12))?;
                p.a.shr(eax, 10)?;
                p.a.sub(eax, dword_ptr(ebx + field))?;
                p.keep(1, eax)?;
                p.a.mov(eax, 1_u32)?;
                p.keep(0, eax)?;
                p.at(done)
            },
        )?;
    }
    Ok(())
}
