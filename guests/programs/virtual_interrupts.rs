//! Virtual interrupts of programs in protected and 64-bit mode, which CR4.PVI lets level 3 hold off and await by CLI and STI as
//! if they were its own. SDM vol. 3 § 21.4; vol. 2 (CLI, STI, POPF, IRET).

use iced_x86::{IcedError, code_asm::*};

use super::{
    Done,
    layout::{RETURN_VECTOR, USER, USER_STACK, record, selector},
    program::{Check, Program, Want, descriptor, dword, fault, no_fault, number},
};

const IF: u32 = 1 << 9;
const IOPL: u32 = 3 << 12;
const VIF: u32 = 1 << 19;
const VIP: u32 = 1 << 20;
const ALL: u32 = IF | IOPL | VIF | VIP;
/// CR4.
const VME: u32 = 1 << 0;
const PVI: u32 = 1 << 1;
/// Memory that level 3 may use.
const SEEN: u32 = USER + 0x10_0000;

type Step = fn(&mut CodeAssembler) -> Done;

pub fn write_32() -> Result<Vec<u8>, IcedError> {
    write(32)
}

pub fn write_64() -> Result<Vec<u8>, IcedError> {
    write(64)
}

fn write(bits: u32) -> Result<Vec<u8>, IcedError> {
    let mut p = Program::new(bits)?;
    let (absent, over) = (p.label(), p.label());
    p.a.mov(eax, 1)?;
    p.a.cpuid()?;
    p.a.bt(edx, 1)?;
    p.a.jnc(absent)?;
    off(&mut p)?;
    switch(&mut p, PVI)?;
    on(&mut p)?;
    elsewhere(&mut p)?;
    switch(&mut p, 0)?;
    p.a.jmp(over)?;
    p.at(absent)?;
    p.case("#GP: CR4.PVI where CPUID does not offer it", fault(13, 0), |p| switch(p, PVI))?;
    p.at(over)?;
    p.end()
}

/// Writes CR4.VME and PVI.
fn switch(p: &mut Program, bits: u32) -> Done {
    if p.bits == 64 {
        p.a.mov(rax, cr4)?;
    } else {
        p.a.mov(eax, cr4)?;
    }
    p.a.and(eax, !(VME | PVI) as i32)?;
    p.a.or(eax, bits as i32)?;
    if p.bits == 64 { p.a.mov(cr4, rax) } else { p.a.mov(cr4, eax) }
}

/// Goes to `address` with these selectors and `flags`.
fn enter(p: &mut Program, code: u16, data: u16, address: u32, flags: u32) -> Done {
    for word in [data.into(), USER_STACK, flags | 2, code.into(), address] {
        p.a.push(word as i32)?;
    }
    if p.bits == 64 { p.a.iretq() } else { p.a.iretd() }
}

fn user_code(p: &Program) -> u16 {
    if p.bits == 64 { selector::USER_CODE_64 } else { selector::USER_CODE_32 }
}

/// The flags of all these that are set where the case ended.
fn flags(want: u32) -> Check {
    Check { what: "flags", at: record::FLAGS, mask: ALL.into(), want: Want::Number(want.into()) }
}

/// An instruction of level 3 that goes well: from what flags to what flags.
fn runs(p: &mut Program, name: &str, before: u32, after: u32, step: Step) -> Done {
    let code = p.user(p.bits, |a| {
        step(a)?;
        a.int(RETURN_VECTOR)
    })?;
    let checks = vec![number("vector", record::VECTOR, RETURN_VECTOR.into()), flags(after)];
    let selector = user_code(p);
    p.case(name, checks, |p| enter(p, selector, selector::USER_DATA, code, before))
}

/// An instruction of level 3 that is refused, and changes nothing.
fn refused(p: &mut Program, name: &str, before: u32, step: Step) -> Done {
    let code = p.user(p.bits, step)?;
    let mut checks = fault(13, 0);
    checks.extend([dword("instruction pointer", record::IP, code), flags(before)]);
    let selector = user_code(p);
    p.case(&format!("#GP: {name}"), checks, |p| enter(p, selector, selector::USER_DATA, code, before))
}

/// Without CR4.PVI level 3 needs I/O privilege.
fn off(p: &mut Program) -> Done {
    refused(p, "STI without privilege", 0, |a| a.sti())?;
    refused(p, "CLI without privilege", VIF, |a| a.cli())?;
    switch(p, VME)?;
    refused(p, "STI with CR4.VME alone", 0, |a| a.sti())?;
    switch(p, 0)?;
    runs(p, "IOPL 3: STI", IOPL, IOPL | IF, |a| {
        a.sti()?;
        a.nop()
    })
}

fn on(p: &mut Program) -> Done {
    runs(p, "STI sets VIF", 0, VIF, |a| a.sti())?;
    runs(p, "STI leaves IF as it is", IF, IF | VIF, |a| a.sti())?;
    runs(p, "STI again", VIF, VIF, |a| a.sti())?;
    runs(p, "CLI clears VIF, not IF", IF | VIF, IF, |a| a.cli())?;
    runs(p, "CLI again", 0, 0, |a| a.cli())?;
    runs(p, "CLI while an interrupt is pending", VIP | VIF, VIP, |a| a.cli())?;
    runs(p, "IOPL 1: STI sets VIF", 1 << 12, 1 << 12 | VIF, |a| a.sti())?;
    runs(p, "CLI and STI in turns", 0, VIF, |a| {
        for _ in 0..8 {
            a.sti()?;
            a.cli()?;
        }
        a.sti()
    })?;
    refused(p, "STI while an interrupt is pending", VIP, |a| a.sti())?;
    refused(p, "STI while an interrupt is pending, though VIF is set", VIP | VIF, |a| a.sti())?;
    runs(p, "IOPL 3: STI sets IF, not VIF", IOPL, IOPL | IF, |a| {
        a.sti()?;
        a.nop()
    })?;
    runs(p, "IOPL 3: STI while an interrupt is pending", IOPL | VIP, IOPL | VIP | IF, |a| {
        a.sti()?;
        a.nop()
    })?;
    runs(p, "IOPL 3: CLI clears IF, not VIF", IOPL | VIF | IF, IOPL | VIF, |a| a.cli())?;
    runs(p, "INT enters its handler with VIF as it was", VIF | IF, VIF | IF, |a| a.nop())?;
    // Unlike in virtual-8086 mode, images of flags have all of them as they are.
    images(p)
}

fn images(p: &mut Program) -> Done {
    let bits = p.bits;
    for (name, before) in [("VIF", VIF), ("IF", IF)] {
        let code = p.user(bits, |a| {
            if bits == 64 {
                a.pushfq()?;
                a.pop(rax)?;
            } else {
                a.pushfd()?;
                a.pop(eax)?;
            }
            // DS is empty after the way to level 3.
            a.mov(dword_ptr(SEEN).ss(), eax)?;
            a.int(RETURN_VECTOR)
        })?;
        let checks = vec![
            number("vector", record::VECTOR, RETURN_VECTOR.into()),
            Check { what: "flags that are seen", at: SEEN, mask: ALL.into(), want: Want::Number(before.into()) },
        ];
        let selector = user_code(p);
        p.case(&format!("PUSHF shows {name} as it is"), checks, |p| {
            enter(p, selector, selector::USER_DATA, code, before)
        })?;
    }
    let interrupts = |want: u32| Check {
        what: "IF and IOPL",
        at: record::FLAGS,
        mask: (IF | IOPL).into(),
        want: Want::Number(want.into()),
    };
    for (name, before, image) in [
        ("POPF does not change IF or IOPL", 0, IF | IOPL | 3),
        ("POPF does not clear IF", IF, 2),
        ("POPF of IF while an interrupt is pending", VIP, IF | 2),
    ] {
        let code = p.user(bits, |a| {
            a.push(image as i32)?;
            if bits == 64 {
                a.popfq()?;
            } else {
                a.popfd()?;
            }
            a.int(RETURN_VECTOR)
        })?;
        let checks = vec![number("vector", record::VECTOR, RETURN_VECTOR.into()), interrupts(before & IF)];
        let selector = user_code(p);
        p.case(name, checks, |p| enter(p, selector, selector::USER_DATA, code, before))?;
    }
    // Nor does IRET at level 3.
    let selector = user_code(p);
    for (name, before, image) in
        [("IRET does not set VIF, VIP, IF or IOPL", 0, ALL | 2), ("IRET does not clear VIF or IF", VIF | IF, 2)]
    {
        let there = p.user(bits, |a| a.int(RETURN_VECTOR))?;
        let code = p.user(bits, |a| {
            let words: &[u32] = &[selector::USER_DATA.into(), USER_STACK, image, selector.into(), there];
            // Within a level, code of 32 bits has no stack to go back to.
            for word in &words[if bits == 64 { 0 } else { 2 }..] {
                a.push(*word as i32)?;
            }
            if bits == 64 { a.iretq() } else { a.iretd() }
        })?;
        let checks = vec![
            number("vector", record::VECTOR, RETURN_VECTOR.into()),
            dword("instruction pointer", record::IP, there + 2),
            flags(before),
        ];
        p.case(name, checks, |p| enter(p, selector, selector::USER_DATA, code, before))?;
    }
    Ok(())
}

/// At other levels nothing is virtual.
fn elsewhere(p: &mut Program) -> Done {
    // Handlers are entered with VIF as it was.
    runs(p, "neither flag", 0, 0, |a| a.nop())?;
    let checks = vec![
        no_fault(),
        Check { what: "flags", at: record::result(0), mask: ALL.into(), want: Want::Number(IF.into()) },
        Check { what: "flags behind CLI", at: record::result(1), mask: ALL.into(), want: Want::Number(0) },
    ];
    p.case("level 0: STI and CLI change IF", checks, |p| {
        p.a.sti()?;
        p.a.nop()?;
        for index in 0..2 {
            if p.bits == 64 {
                p.a.pushfq()?;
                p.a.pop(rax)?;
            } else {
                p.a.pushfd()?;
                p.a.pop(eax)?;
            }
            p.keep(index, eax)?;
            p.a.cli()?;
        }
        Ok(())
    })?;
    for (index, level) in [(0, 1), (2, 2)] {
        let long = if p.bits == 64 { 0xa000 } else { 0xc000 };
        let code = p.descriptor(index, descriptor(0, 0xf_ffff, long | 0x9b | level << 5)) | level;
        let data = p.descriptor(index + 1, descriptor(0, 0xf_ffff, 0xc093 | level << 5)) | level;
        let at = p.code(p.bits, |a| a.sti())?;
        let mut checks = fault(13, 0);
        checks.extend([dword("instruction pointer", record::IP, at), flags(0)]);
        p.case(&format!("#GP: level {level}: STI"), checks, |p| enter(p, code, data, at, 0))?;
    }
    Ok(())
}
