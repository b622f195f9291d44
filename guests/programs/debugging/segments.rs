//! Debug exceptions of code in segments: breakpoints are linear addresses, whatever a segment's base is, in protected mode and
//! in virtual-8086 mode; and single steps there. SDM vol. 3 §§ 3.4, 18.2, 21.1.

use iced_x86::{IcedError, code_asm::*};

use crate::programs::{
    Done,
    layout::{RETURN_VECTOR, SCRATCH, TSS, log, record, selector, variable},
    program::{Check, Program, Want, assemble, descriptor, dword, no_fault, number},
};

const SINGLE_STEP: u32 = 1 << 14;
const TF: u32 = 1 << 8;
const RF: u32 = 1 << 16;
const VM: u32 = 1 << 17;
const IOPL: u32 = 3 << 12;
/// What is watched.
const WATCHED: u32 = SCRATCH + 0x440;
/// R/W and LEN of breakpoint 0.
const EXECUTE: u32 = 0;
const WRITE_DWORD: u32 = 0b1101;
const PORT: u32 = 0b0010;
/// Virtual-8086 code, its stack and its data, in paragraphs.
const SEGMENT: u32 = 0x900;
const STACK_SEGMENT: u32 = 0x1000;
const DATA_SEGMENT: u32 = 0x2000;
/// CR4.DE.
const EXTENSIONS: u32 = 1 << 3;

pub fn write() -> Result<Vec<u8>, IcedError> {
    let mut p = Program::new(32)?;
    p.a.mov(dword_ptr(variable::RETURNS), 1 << 1)?;
    data(&mut p)?;
    code(&mut p)?;
    // All ports are for everybody.
    p.a.mov(edi, TSS + 104)?;
    p.a.mov(ecx, 0x2000)?;
    p.a.xor(eax, eax)?;
    p.a.rep().stosb()?;
    p.a.mov(eax, cr4)?;
    p.a.or(eax, EXTENSIONS as i32)?;
    p.a.mov(cr4, eax)?;
    virtual_8086(&mut p)?;
    p.end()
}

/// Turns breakpoint 0 on.
fn set(p: &mut Program, address: u32, kind: u32) -> Done {
    p.a.xor(eax, eax)?;
    p.a.mov(dr6, eax)?;
    p.a.mov(eax, address)?;
    p.a.mov(dr0, eax)?;
    p.a.mov(eax, 0x402 | kind << 16)?;
    p.a.mov(dr7, eax)
}

fn off(p: &mut Program) -> Done {
    p.a.mov(eax, 0x400)?;
    p.a.mov(dr7, eax)
}

fn steps(count: u32) -> Check {
    dword("debug exceptions", variable::LOGGED, count)
}

/// Where exception `index` was, and what DR6 said.
fn step(index: u32, at: u32, cause: u32) -> [Check; 2] {
    let status = Check { what: "DR6", at: log::field(index, log::DR6), mask: 0xe00f, want: Want::Number(cause.into()) };
    [dword("instruction pointer of a step", log::field(index, log::IP), at), status]
}

/// Data by way of segments with a base.
fn data(p: &mut Program) -> Done {
    for (index, (name, base, offset, hits)) in (0..).zip([
        ("a base below it", WATCHED - 0x40, 0x40, true),
        ("a base above it", WATCHED + 0x1000, 0xffff_f000, true),
        ("around the end of the address space", 0xfff0_0000, WATCHED + 0x10_0000, true),
        ("the same offset by a base", 0x1000, WATCHED, false),
    ]) {
        let segment = p.descriptor(index, descriptor(base, 0xf_ffff, 0xc093));
        let mut checks = vec![no_fault(), steps(u32::from(hits))];
        if hits {
            checks.extend(step(0, 0, 1).into_iter().skip(1));
        }
        p.case(&format!("data by a segment: {name}"), checks, |p| {
            p.a.mov(eax, u32::from(segment))?;
            p.a.mov(es, ax)?;
            set(p, WATCHED, WRITE_DWORD)?;
            p.a.mov(ebx, offset)?;
            p.a.mov(dword_ptr(ebx).es(), eax)?;
            p.a.nop()?;
            off(p)?;
            p.a.mov(eax, u32::from(selector::DATA))?;
            p.a.mov(es, ax)
        })?;
    }
    Ok(())
}

/// Code of 32 and of 16 bits in segments with a base.
fn code(p: &mut Program) -> Done {
    for (index, bits, attributes) in [(8, 32, 0x409b), (9, 16, 0x009b)] {
        let at = p.code(bits, |a| {
            a.nop()?;
            a.nop()?;
            a.inc(cx)?;
            a.nop()?;
            a.int(RETURN_VECTOR)
        })?;
        // Of a paragraph before the code.
        let base = (at & !0xf) - 0x100;
        let segment = p.descriptor(index, descriptor(base, 0xffff, attributes));
        let offset = at - base;
        let enter = |p: &mut Program, flags: u32| {
            for word in [flags | 2, segment.into(), offset] {
                p.a.push(word as i32)?;
            }
            p.a.iretd()
        };
        let ends = || number("vector", record::VECTOR, RETURN_VECTOR.into());
        let mut checks = vec![
            number("vector", record::VECTOR, 1),
            dword("instruction pointer", record::IP, offset + 1),
            dword("CS", record::CS, segment.into()),
        ];
        checks.push(Check { what: "DR6", at: record::DR6, mask: 0xe00f, want: Want::Number(1) });
        p.case(&format!("{bits} bits: a breakpoint on an instruction"), checks, |p| {
            p.a.mov(dword_ptr(variable::RETURNS), 0)?;
            set(p, at + 1, EXECUTE)?;
            enter(p, 0)
        })?;
        p.case(&format!("{bits} bits: RF lets it through"), vec![ends()], |p| {
            set(p, at, EXECUTE)?;
            enter(p, RF)
        })?;
        p.a.mov(dword_ptr(variable::RETURNS), 1 << 1)?;
        p.case(&format!("{bits} bits: a breakpoint at the same offset"), vec![ends(), steps(0)], |p| {
            set(p, offset + 1, EXECUTE)?;
            enter(p, 0)
        })?;
        // INC CX has a prefix in code of 32 bits.
        let length = if bits == 32 { 2 } else { 1 };
        let mut checks = vec![ends(), steps(4)];
        for (number, ip) in (0..).zip([1, 2, 2 + length, 3 + length]) {
            checks.extend(step(number, offset + ip, SINGLE_STEP));
        }
        p.case(&format!("{bits} bits: single steps"), checks, |p| {
            off(p)?;
            p.a.xor(eax, eax)?;
            p.a.mov(dr6, eax)?;
            enter(p, TF)
        })?;
    }
    Ok(())
}

/// Copies code for virtual-8086 mode, and enters it.
fn enter_virtual_8086(p: &mut Program, flags: u32, write: impl FnOnce(&mut CodeAssembler) -> Done) -> Done {
    let code = assemble(16, 0, write)?;
    p.copy(&code, SEGMENT << 4)?;
    for word in [0, 0, DATA_SEGMENT, 0, STACK_SEGMENT, 0x100, flags | VM | IOPL | 2, SEGMENT, 0] {
        p.a.push(word as i32)?;
    }
    p.a.iretd()
}

fn virtual_8086(p: &mut Program) -> Done {
    type Step = fn(&mut CodeAssembler) -> Done;
    let ends = || number("vector", record::VECTOR, RETURN_VECTOR.into());
    let cases: [(&str, u32, u32, Step, u32); 6] = [
        ("a write by DS", (DATA_SEGMENT << 4) + 0x40, WRITE_DWORD, |a| a.mov(word_ptr(0x42_u16), ax), 1),
        (
            "a write behind what is watched",
            (DATA_SEGMENT << 4) + 0x40,
            WRITE_DWORD,
            |a| a.mov(word_ptr(0x44_u16), ax),
            0,
        ),
        ("a write to the offset alone", 0x40, WRITE_DWORD, |a| a.mov(word_ptr(0x42_u16), ax), 0),
        ("PUSH", (STACK_SEGMENT << 4) + 0xfc, WRITE_DWORD, |a| a.push(ax), 1),
        ("IN", 0xe0, PORT, |a| a.in_(al, 0xe0), 1),
        ("IN from another port", 0xe0, PORT, |a| a.in_(al, 0xe1), 0),
    ];
    for (name, address, kind, step_code, hits) in cases {
        let mut checks = vec![ends(), steps(hits)];
        if hits > 0 {
            checks.extend(step(0, 0, 1).into_iter().skip(1));
            checks.push(Check {
                what: "VM",
                at: log::field(0, log::FLAGS),
                mask: VM.into(),
                want: Want::Number(VM.into()),
            });
        }
        p.case(&format!("virtual-8086 mode: {name}"), checks, |p| {
            set(p, address, kind)?;
            enter_virtual_8086(p, 0, |a| {
                step_code(a)?;
                a.nop()?;
                a.int(RETURN_VECTOR)
            })
        })?;
    }
    off(p)?;
    let mut checks = vec![ends(), steps(3)];
    for (number, ip) in (0..).zip([1, 4, 5]) {
        checks.extend(step(number, ip, SINGLE_STEP));
    }
    p.case("virtual-8086 mode: single steps", checks, |p| {
        p.a.xor(eax, eax)?;
        p.a.mov(dr6, eax)?;
        enter_virtual_8086(p, TF, |a| {
            a.nop()?;
            a.mov(ax, 0x1234)?;
            a.nop()?;
            a.int(RETURN_VECTOR)
        })
    })?;
    let mut checks = vec![ends(), steps(2)];
    for (number, ip) in (0..).zip([3, 4]) {
        checks.extend(step(number, ip, SINGLE_STEP));
    }
    p.case("virtual-8086 mode: MOV SS holds the trap off", checks, |p| {
        p.a.xor(eax, eax)?;
        p.a.mov(dr6, eax)?;
        p.a.mov(ebx, STACK_SEGMENT)?;
        enter_virtual_8086(p, TF, |a| {
            // Two bytes, and one.
            a.mov(ss, bx)?;
            a.nop()?;
            a.nop()?;
            a.int(RETURN_VECTOR)
        })
    })?;
    p.a.mov(dword_ptr(variable::RETURNS), 0)?;
    let checks = vec![
        number("vector", record::VECTOR, 1),
        dword("instruction pointer", record::IP, 1),
        dword("CS", record::CS, SEGMENT),
        Check { what: "VM", at: record::FLAGS, mask: VM.into(), want: Want::Number(VM.into()) },
    ];
    p.case("virtual-8086 mode: a breakpoint on an instruction", checks, |p| {
        set(p, (SEGMENT << 4) + 1, EXECUTE)?;
        enter_virtual_8086(p, 0, |a| {
            a.nop()?;
            a.nop()?;
            a.int(RETURN_VECTOR)
        })
    })?;
    off(p)
}
