//! x87 errors with CR0.NE clear: interrupt 13 by the 8259A pair and by the I/O APIC, and port 0xF0. SDM vol. 1 § 8.7; Intel
//! 290550 (82371SB), coprocessor error register.

use iced_x86::{IcedError, code_asm::*};

use super::{
    Done,
    interrupts::{LVT_LINT0, MASKED, outs, redirect},
    layout::{record, variable},
    processors::{apic_write, start},
    program::{Check, Program, Want, dword, fault_at, no_fault},
};

/// Interrupt 13 is input 5 of the second 8259A, whose vectors begin at 0x38; and a vector for the I/O APIC.
const BY_PIC: usize = 0x3d;
const BY_IO_APIC: usize = 0x66;

/// Whether the handler clears the error.
const CLEARS: u32 = variable::OWN + 0x400;
/// The control word that unmasks division by zero.
const CONTROL: u32 = variable::OWN + 0x410;

/// What the handler keeps: how often it was called, where it came from, and the status word.
const TIMES: u32 = record::result(0);
const FROM: u32 = record::result(1);
const STATUS: u32 = record::result(2);
/// The status word that a case leaves.
const AFTER: u32 = record::result(3);

/// Status word: division by zero, and that an error is pending.
const DIVISION: u64 = 0x84;

pub fn write() -> Result<Vec<u8>, IcedError> {
    let mut p = Program::new(64)?;
    start(&mut p)?;
    handlers(&mut p)?;
    p.a.mov(dword_ptr(CONTROL), 0x37b)?;
    p.a.fninit()?;
    exceptions(&mut p)?;
    p.a.mov(rax, cr0)?;
    p.a.btr(rax, 5)?;
    p.a.mov(cr0, rax)?;
    by_pic(&mut p)?;
    by_io_apic(&mut p)?;
    p.end()
}

/// Handlers of both vectors: they write to port 0xF0, clear the error if they are to, and end the interrupt.
fn handlers(p: &mut Program) -> Done {
    let over = p.label();
    p.a.jmp(over)?;
    for (vector, at_pic) in [(BY_PIC, true), (BY_IO_APIC, false)] {
        let [handler, keeps] = std::array::from_fn(|_| p.label());
        p.at(handler)?;
        p.a.push(rax)?;
        p.a.inc(dword_ptr(TIMES))?;
        p.a.mov(rax, qword_ptr(rsp + 8))?;
        p.a.mov(qword_ptr(FROM), rax)?;
        p.a.fnstsw(ax)?;
        p.a.movzx(eax, ax)?;
        p.a.mov(dword_ptr(STATUS), eax)?;
        p.a.xor(eax, eax)?;
        p.a.out(0xf0, al)?;
        p.a.cmp(dword_ptr(CLEARS), 0)?;
        p.a.je(keeps)?;
        p.a.fnclex()?;
        p.at(keeps)?;
        if at_pic {
            p.a.mov(al, 0x20)?;
            p.a.out(0xa0, al)?;
            p.a.out(0x20, al)?;
        } else {
            p.a.mov(eax, 0xfee0_00b0_u32)?;
            p.a.mov(dword_ptr(eax), 0)?;
        }
        p.a.pop(rax)?;
        p.a.iretq()?;
        p.idt[vector].handler = handler;
    }
    p.at(over)
}

/// Divides by zero, unmasked: the error is pending afterwards.
fn divide(p: &mut Program) -> Done {
    p.a.fninit()?;
    p.a.fldcw(word_ptr(CONTROL))?;
    p.a.fldz()?;
    p.a.fld1()?;
    p.a.fdivrp(st1, st0)
}

fn keep_status(p: &mut Program) -> Done {
    p.a.fnstsw(ax)?;
    p.a.movzx(eax, ax)?;
    p.a.mov(dword_ptr(AFTER), eax)
}

fn clears(p: &mut Program, clears: bool) -> Done {
    p.a.mov(dword_ptr(CLEARS), i32::from(clears))
}

fn word(what: &'static str, at: u32, mask: u64, want: u64) -> Check {
    Check { what, at, mask, want: Want::Number(want) }
}

fn from(at: CodeLabel) -> Check {
    Check { what: "where it came from", at: FROM, mask: u64::MAX, want: Want::At(at) }
}

fn exceptions(p: &mut Program) -> Done {
    let at = p.label();
    p.case("CR0.NE: an error is exception 16", fault_at(16, 0, at), |p| {
        divide(p)?;
        p.here(at)?;
        p.a.fnop()
    })?;
    p.a.fninit()
}

fn by_pic(p: &mut Program) -> Done {
    apic_write(p, LVT_LINT0, 0x700)?;
    outs(p, &[(0x21, 0xfb), (0xa1, 0xdf)])?;
    for (name, of_mmx) in [("interrupt 13 before an x87 instruction", false), ("and before one of MMX", true)] {
        let at = p.label();
        let checks = vec![
            no_fault(),
            dword("interrupts", TIMES, 1),
            from(at),
            word("status word", STATUS, 0xff, DIVISION),
            word("status word afterwards", AFTER, 0xff, 0),
        ];
        p.case(name, checks, |p| {
            clears(p, true)?;
            divide(p)?;
            p.a.sti()?;
            p.a.nop()?;
            p.here(at)?;
            if of_mmx {
                p.a.paddb(mm0, mm1)?;
            } else {
                p.a.wait()?;
            }
            p.a.cli()?;
            keep_status(p)
        })?;
    }
    let checks = vec![
        no_fault(),
        dword("interrupts", TIMES, 1),
        word("status word afterwards", AFTER, 0xff, DIVISION),
        dword("what was computed", record::result(4), 1),
    ];
    p.case("port 0xF0 lets the processor go on with the error", checks, |p| {
        clears(p, false)?;
        divide(p)?;
        p.a.sti()?;
        p.a.nop()?;
        p.a.fnop()?;
        p.a.cli()?;
        p.a.fld1()?;
        p.a.fistp(dword_ptr(record::result(4)))?;
        keep_status(p)
    })?;
    let checks = vec![no_fault(), dword("interrupts", TIMES, 1), word("status word", STATUS, 0xff, DIVISION)];
    p.case("up to its end, and no longer", checks, |p| {
        p.a.fnclex()?;
        clears(p, true)?;
        divide(p)?;
        p.a.sti()?;
        p.a.nop()?;
        p.a.fnop()?;
        p.a.cli()
    })?;
    let checks = vec![no_fault(), dword("interrupts", TIMES, 0), word("status word", AFTER, 0xff, DIVISION)];
    p.case("instructions that do not wait do not report", checks, |p| {
        divide(p)?;
        p.a.sti()?;
        p.a.nop()?;
        keep_status(p)?;
        p.a.fnclex()?;
        p.a.fnop()?;
        p.a.cli()
    })?;
    outs(p, &[(0xa1, 0xff), (0x21, 0xff)])?;
    apic_write(p, LVT_LINT0, MASKED)
}

fn by_io_apic(p: &mut Program) -> Done {
    let at = p.label();
    let checks = vec![
        no_fault(),
        dword("interrupts", TIMES, 2),
        from(at),
        word("status word", STATUS, 0xff, DIVISION),
        word("status word afterwards", AFTER, 0xff, 0),
    ];
    p.case("interrupt 13 by the I/O APIC, twice", checks, |p| {
        redirect(p, 13, BY_IO_APIC as u32, 0)?;
        divide(p)?;
        p.a.sti()?;
        p.a.nop()?;
        p.a.fnop()?;
        p.a.cli()?;
        divide(p)?;
        p.a.sti()?;
        p.a.nop()?;
        p.here(at)?;
        p.a.fnop()?;
        p.a.cli()?;
        keep_status(p)?;
        redirect(p, 13, MASKED, 0)
    })
}
