//! What all test programs do alike: handlers of exceptions that end a case, the checks behind it, and what is printed.
//!
//! The routines use registers and addresses of 32 bits only, so that the same text is code of 32 and of 64 bits.
//! SDM vol. 3 § 6.12 to 6.14; National Semiconductor PC16550D.

use iced_x86::{Code, Instruction, code_asm::*};

use super::{
    Done,
    layout::{LOG, log, record, selector, variable},
    program::{NONE, Program},
};

/// Vectors whose exceptions have an error code.
const WITH_ERROR_CODE: [u8; 10] = [8, 10, 11, 12, 13, 14, 17, 21, 29, 30];
const COM1: u32 = 0x3f8;
const EXIT_PORT: u32 = 0x501;

/// Routines, and what the case being written needs.
pub struct Routines {
    /// Prints the text at EAX.
    pub text: CodeLabel,
    /// Prints EAX in 8 hexadecimal digits.
    pub hexadecimal: CodeLabel,
    /// Prints EAX in decimal.
    pub decimal: CodeLabel,
    /// Before and after a case.
    pub begin: CodeLabel,
    pub finish: CodeLabel,
    character: CodeLabel,
    handler: CodeLabel,
    /// Where each vector enters.
    pub stubs: Vec<CodeLabel>,
    /// Where the case being written goes on after an exception.
    pub recover: Option<CodeLabel>,
}

impl Routines {
    pub fn new(a: &mut CodeAssembler) -> Self {
        Self {
            text: a.create_label(),
            hexadecimal: a.create_label(),
            decimal: a.create_label(),
            begin: a.create_label(),
            finish: a.create_label(),
            character: a.create_label(),
            handler: a.create_label(),
            stubs: (0..256).map(|_| a.create_label()).collect(),
            recover: None,
        }
    }
}

/// The first instructions: the task register, and the console.
pub fn prologue(p: &mut Program) -> Done {
    let a = &mut p.a;
    a.mov(eax, u32::from(selector::TSS))?;
    a.ltr(ax)?;
    // 115200 bits a second, 8 bits, no parity, no interrupts.
    for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 0x03), (2, 0x07), (4, 0x0b)] {
        a.mov(edx, COM1 + register)?;
        a.mov(eax, value)?;
        a.out(dx, al)?;
    }
    // Both 8259A are told which vectors they have, and to be silent.
    for (port, value) in [
        (0x20, 0x11),
        (0x21, 0x30),
        (0x21, 4),
        (0x21, 1),
        (0xa0, 0x11),
        (0xa1, 0x38),
        (0xa1, 2),
        (0xa1, 1),
        (0x21, 0xff),
        (0xa1, 0xff),
    ] {
        a.mov(eax, value)?;
        a.out(port, al)?;
    }
    Ok(())
}

/// The last instructions.
pub fn verdict(p: &mut Program) -> Done {
    p.print("verdict: ")?;
    p.a.mov(eax, dword_ptr(variable::CASES))?;
    p.a.call(p.routines.decimal)?;
    p.print(" cases, ")?;
    p.a.mov(eax, dword_ptr(variable::FAILURES))?;
    p.a.call(p.routines.decimal)?;
    p.print(" failures\r\n")?;
    let mut halt = p.a.create_label();
    let a = &mut p.a;
    a.xor(eax, eax)?;
    a.cmp(dword_ptr(variable::FAILURES), 0)?;
    a.setne(al)?;
    a.mov(edx, EXIT_PORT)?;
    a.out(dx, al)?;
    a.set_label(&mut halt)?;
    a.hlt()?;
    a.jmp(halt)
}

/// The routines, behind the program.
pub fn routines(p: &mut Program) -> Done {
    character(p)?;
    text(p)?;
    hexadecimal(p)?;
    decimal(p)?;
    begin(p)?;
    finish(p)?;
    stubs(p)?;
    if p.bits == 64 { handler_64(p) } else { handler_32(p) }
}

fn character(p: &mut Program) -> Done {
    let mut wait = p.label();
    p.here(p.routines.character)?;
    let a = &mut p.a;
    a.mov(ah, al)?;
    a.mov(edx, COM1 + 5)?;
    a.set_label(&mut wait)?;
    a.in_(al, dx)?;
    a.test(al, 0x20)?;
    a.jz(wait)?;
    a.mov(al, ah)?;
    a.mov(edx, COM1)?;
    a.out(dx, al)?;
    a.ret()
}

fn text(p: &mut Program) -> Done {
    let (mut next, mut end) = (p.label(), p.label());
    p.here(p.routines.text)?;
    let a = &mut p.a;
    a.mov(ecx, eax)?;
    a.set_label(&mut next)?;
    a.mov(al, byte_ptr(ecx))?;
    a.test(al, al)?;
    a.jz(end)?;
    a.inc(ecx)?;
    a.call(p.routines.character)?;
    a.jmp(next)?;
    a.set_label(&mut end)?;
    a.ret()
}

fn hexadecimal(p: &mut Program) -> Done {
    let mut next = p.label();
    let digits = p.text("0123456789abcdef");
    p.here(p.routines.hexadecimal)?;
    let a = &mut p.a;
    a.mov(dword_ptr(variable::NUMBER), eax)?;
    a.mov(dword_ptr(variable::DIGITS_LEFT), 8)?;
    a.set_label(&mut next)?;
    a.rol(dword_ptr(variable::NUMBER), 4)?;
    a.mov(eax, dword_ptr(variable::NUMBER))?;
    a.and(eax, 15)?;
    a.mov(al, byte_ptr(eax + digits))?;
    a.call(p.routines.character)?;
    a.dec(dword_ptr(variable::DIGITS_LEFT))?;
    a.jnz(next)?;
    a.ret()
}

fn decimal(p: &mut Program) -> Done {
    let mut next = p.label();
    let ten = p.dwords(&[10]);
    p.here(p.routines.decimal)?;
    let a = &mut p.a;
    a.mov(ecx, variable::DECIMAL_END)?;
    a.mov(byte_ptr(ecx), 0)?;
    a.set_label(&mut next)?;
    a.xor(edx, edx)?;
    a.div(dword_ptr(ten))?;
    a.add(dl, u32::from(b'0'))?;
    a.dec(ecx)?;
    a.mov(byte_ptr(ecx), dl)?;
    a.test(eax, eax)?;
    a.jnz(next)?;
    a.mov(eax, ecx)?;
    a.jmp(p.routines.text)
}

/// Forgets what was recorded before.
fn begin(p: &mut Program) -> Done {
    let mut next = p.label();
    p.here(p.routines.begin)?;
    let a = &mut p.a;
    a.mov(eax, record::VECTOR)?;
    a.set_label(&mut next)?;
    a.mov(dword_ptr(eax), 0)?;
    a.add(eax, 4)?;
    a.cmp(eax, record::END as i32)?;
    a.jb(next)?;
    a.mov(dword_ptr(record::VECTOR), NONE as i32)?;
    a.mov(dword_ptr(variable::RESERVED), 0)?;
    a.mov(dword_ptr(variable::LOGGED), 0)?;
    a.ret()
}

/// Does the checks of a case, and says what is wrong or that all is right.
fn finish(p: &mut Program) -> Done {
    let [next, bad, good, done, fine] = std::array::from_fn(|_| p.label());
    p.here(p.routines.finish)?;
    p.a.cld()?;
    p.a.mov(ebx, dword_ptr(variable::CASE))?;
    p.a.mov(edi, dword_ptr(ebx + 8))?;
    p.a.lea(esi, ptr(ebx + 16))?;
    p.a.xor(ebp, ebp)?;
    p.here(next)?;
    p.a.test(edi, edi)?;
    p.a.jz(done)?;
    for half in [0, 4] {
        p.a.mov(eax, dword_ptr(esi + 4))?;
        p.a.mov(ecx, dword_ptr(eax + half))?;
        p.a.and(ecx, dword_ptr(esi + (8 + half)))?;
        p.a.cmp(ecx, dword_ptr(esi + (16 + half)))?;
        p.a.jne(bad)?;
    }
    p.at(good)?;
    p.a.add(esi, 24)?;
    p.a.dec(edi)?;
    p.a.jmp(next)?;
    p.here(bad)?;
    p.a.mov(ebp, 1)?;
    p.print("FAIL ")?;
    p.a.mov(eax, dword_ptr(ebx))?;
    p.a.call(p.routines.text)?;
    p.print(": ")?;
    p.a.mov(eax, dword_ptr(esi))?;
    p.a.call(p.routines.text)?;
    p.print(": expected ")?;
    for half in [4, 0] {
        p.a.mov(eax, dword_ptr(esi + (16 + half)))?;
        p.a.call(p.routines.hexadecimal)?;
    }
    p.print(", found ")?;
    for half in [4, 0] {
        p.a.mov(ecx, dword_ptr(esi + 4))?;
        p.a.mov(eax, dword_ptr(ecx + half))?;
        p.a.and(eax, dword_ptr(esi + (8 + half)))?;
        p.a.call(p.routines.hexadecimal)?;
    }
    p.print("\r\n")?;
    p.a.jmp(good)?;
    p.here(done)?;
    p.a.add(dword_ptr(variable::FAILURES), ebp)?;
    p.a.inc(dword_ptr(variable::CASES))?;
    p.a.test(ebp, ebp)?;
    p.a.jz(fine)?;
    p.a.ret()?;
    p.here(fine)?;
    p.print("ok ")?;
    p.a.mov(eax, dword_ptr(ebx))?;
    p.a.call(p.routines.text)?;
    p.print("\r\n")?;
    p.a.ret()
}

fn stubs(p: &mut Program) -> Done {
    for vector in 0..=255_u8 {
        p.here(p.routines.stubs[usize::from(vector)])?;
        if !WITH_ERROR_CODE.contains(&vector) {
            p.a.push(0)?;
        }
        let code = if p.bits == 64 { Code::Pushq_imm32 } else { Code::Pushd_imm32 };
        p.a.add_instruction(Instruction::with1(code, i32::from(vector))?)?;
        p.a.jmp(p.routines.handler)?;
    }
    Ok(())
}

/// On the stack are vector, error code, and what the processor put there.
fn handler_64(p: &mut Program) -> Done {
    let returns = p.label();
    p.here(p.routines.handler)?;
    let a = &mut p.a;
    a.push(rax)?;
    a.push(rcx)?;
    a.mov(rax, qword_ptr(rsp + 16))?;
    a.bt(dword_ptr(variable::RETURNS), eax)?;
    a.jc(returns)?;
    for slot in 0..7 {
        a.mov(rax, qword_ptr(rsp + (16 + 8 * slot)))?;
        a.mov(qword_ptr(record::VECTOR + 8 * slot), rax)?;
    }
    a.lea(rax, ptr(rsp + 24))?;
    a.mov(qword_ptr(record::HANDLER_SP), rax)?;
    a.mov(rax, cr2)?;
    a.mov(qword_ptr(record::CR2), rax)?;
    a.mov(rax, dr6)?;
    a.mov(qword_ptr(record::DR6), rax)?;
    a.mov(eax, u32::from(selector::DATA))?;
    for segment in [ds, es, ss] {
        a.mov(segment, ax)?;
    }
    a.mov(esp, dword_ptr(variable::RECOVER_SP))?;
    a.mov(eax, dword_ptr(variable::CASE))?;
    a.mov(eax, dword_ptr(eax + 4))?;
    a.jmp(rax)?;
    p.here(returns)?;
    p.a.push(rdx)?;
    log_entry(p, &|a, field| match field {
        log::VECTOR => a.mov(eax, dword_ptr(rsp + 24)),
        log::IP => a.mov(eax, dword_ptr(rsp + 40)),
        log::FLAGS => a.mov(eax, dword_ptr(rsp + 56)),
        _ => {
            a.mov(rax, dr6)?;
            a.mov(eax, eax)
        }
    })?;
    p.a.mov(eax, dword_ptr(rsp + 24))?;
    end_of_interrupt(p)?;
    p.a.pop(rdx)?;
    p.a.pop(rcx)?;
    p.a.pop(rax)?;
    p.a.add(rsp, 16)?;
    p.a.iretq()
}

fn handler_32(p: &mut Program) -> Done {
    let returns = p.label();
    p.here(p.routines.handler)?;
    let a = &mut p.a;
    a.push(eax)?;
    a.push(ecx)?;
    a.push(ds)?;
    a.mov(eax, u32::from(selector::DATA))?;
    a.mov(ds, ax)?;
    a.mov(eax, dword_ptr(esp + 12))?;
    a.bt(dword_ptr(variable::RETURNS), eax)?;
    a.jc(returns)?;
    // What is there of stack pointer and segments depends on where the exception came from.
    for slot in 0..11 {
        a.mov(eax, dword_ptr(esp + (12 + 4 * slot)))?;
        a.mov(dword_ptr(record::VECTOR + 8 * slot), eax)?;
    }
    a.lea(eax, ptr(esp + 16))?;
    a.mov(dword_ptr(record::HANDLER_SP), eax)?;
    a.mov(eax, cr2)?;
    a.mov(dword_ptr(record::CR2), eax)?;
    a.mov(eax, dr6)?;
    a.mov(dword_ptr(record::DR6), eax)?;
    a.mov(eax, u32::from(selector::DATA))?;
    for segment in [es, fs, gs, ss] {
        a.mov(segment, ax)?;
    }
    a.mov(esp, dword_ptr(variable::RECOVER_SP))?;
    a.mov(eax, dword_ptr(variable::CASE))?;
    a.mov(eax, dword_ptr(eax + 4))?;
    a.jmp(eax)?;
    p.here(returns)?;
    p.a.push(edx)?;
    log_entry(p, &|a, field| match field {
        log::VECTOR => a.mov(eax, dword_ptr(esp + 16)),
        log::IP => a.mov(eax, dword_ptr(esp + 24)),
        log::FLAGS => a.mov(eax, dword_ptr(esp + 32)),
        _ => a.mov(eax, dr6),
    })?;
    p.a.mov(eax, dword_ptr(esp + 16))?;
    end_of_interrupt(p)?;
    p.a.pop(edx)?;
    p.a.pop(ds)?;
    p.a.pop(ecx)?;
    p.a.pop(eax)?;
    p.a.add(esp, 8)?;
    p.a.iretd()
}

/// Writes an entry of the log; `fetch` brings a field into EAX. Several processors may do so at once.
fn log_entry(p: &mut Program, fetch: &dyn Fn(&mut CodeAssembler, u32) -> Done) -> Done {
    let full = p.label();
    p.a.mov(ecx, 1)?;
    p.a.lock().xadd(dword_ptr(variable::RESERVED), ecx)?;
    p.a.cmp(ecx, log::MOST as i32)?;
    p.a.jae(full)?;
    p.a.shl(ecx, 5)?;
    p.a.add(ecx, LOG as i32)?;
    for field in [log::VECTOR, log::IP, log::DR6, log::FLAGS] {
        fetch(&mut p.a, field)?;
        p.a.mov(dword_ptr(ecx + field), eax)?;
        if field >= 8 {
            p.a.mov(dword_ptr(ecx + (field + 4)), 0)?;
        }
    }
    p.a.mov(eax, 0xfee0_0020_u32)?;
    p.a.mov(eax, dword_ptr(eax))?;
    p.a.shr(eax, 24)?;
    p.a.mov(dword_ptr(ecx + log::APIC), eax)?;
    // Who sees the count sees the entry.
    p.a.lock().inc(dword_ptr(variable::LOGGED))?;
    p.at(full)
}

/// Ends the interrupt of vector EAX where that was asked for.
fn end_of_interrupt(p: &mut Program) -> Done {
    let [exception, no_apic, no_pic] = std::array::from_fn(|_| p.label());
    p.a.cmp(eax, 32)?;
    p.a.jb(exception)?;
    p.a.cmp(dword_ptr(variable::END_AT_APIC), 0)?;
    p.a.je(no_apic)?;
    p.a.mov(eax, 0xfee0_00b0_u32)?;
    p.a.mov(dword_ptr(eax), 0)?;
    p.at(no_apic)?;
    p.a.cmp(dword_ptr(variable::END_AT_PIC), 0)?;
    p.a.je(no_pic)?;
    p.a.mov(eax, 0x20)?;
    p.a.out(0xa0, al)?;
    p.a.out(0x20, al)?;
    p.at(no_pic)?;
    p.at(exception)
}
