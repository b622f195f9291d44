//! Breakpoints on ports: which accesses hit them, where they are reported, and what needs CR4.DE. SDM vol. 3 §§ 18.2.4 to
//! 18.2.6.

use iced_x86::code_asm::*;

use super::{SINGLE_STEP, follow, no_trap, off, set, status, step_at, step_status, steps, trap};
use crate::programs::{
    Done,
    layout::{RETURN_VECTOR, SCRATCH, TSS, record, selector},
    program::{Program, dword, fault_at, no_fault, number},
};

/// Nothing is at these ports.
const PORT: u32 = 0x2c0;
/// CR4.DE.
const EXTENSIONS: u32 = 1 << 3;
/// R/W 10, with LEN for 1, 2 and 4 ports.
const ONE: u32 = 0b0010;
const TWO: u32 = 0b0110;
const FOUR: u32 = 0b1110;
/// What is stored by OUTS, and where INS stores.
const BUFFER: u32 = SCRATCH + 0x100;
/// The map of I/O permissions.
const PERMISSIONS: u32 = TSS + 104;

type Step = fn(&mut CodeAssembler) -> Done;

pub fn write(p: &mut Program) -> Done {
    aliases(p)?;
    p.a.mov(rax, cr4)?;
    p.a.or(eax, EXTENSIONS as i32)?;
    p.a.mov(cr4, rax)?;
    without_aliases(p)?;
    accesses(p)?;
    strings(p)?;
    with_others(p)?;
    by_users(p)?;
    off(p)?;
    p.a.mov(rax, cr4)?;
    p.a.and(eax, !EXTENSIONS as i32)?;
    p.a.mov(cr4, rax)
}

/// Without CR4.DE, DR4 and DR5 are other names of DR6 and DR7.
fn aliases(p: &mut Program) -> Done {
    off(p)?;
    let checks = vec![
        no_fault(),
        dword("DR4", record::result(0), 0xffff_2ff1),
        dword("DR6", record::result(1), 0xffff_4ff2),
        dword("DR5", record::result(2), 0x404),
        dword("DR7", record::result(3), 0x408),
    ];
    p.case("without CR4.DE, DR4 and DR5 are DR6 and DR7", checks, |p| {
        p.a.mov(eax, 0x2001)?;
        p.a.mov(dr6, rax)?;
        p.a.mov(rax, dr4)?;
        p.keep(0, eax)?;
        p.a.mov(eax, 0x4002)?;
        p.a.mov(dr4, rax)?;
        p.a.mov(rax, dr6)?;
        p.keep(1, eax)?;
        // Breakpoint 1 is at a port that nobody uses.
        p.a.mov(eax, 0xfff0)?;
        p.a.mov(dr1, rax)?;
        p.a.mov(eax, 0x404)?;
        p.a.mov(dr7, rax)?;
        p.a.mov(rax, dr5)?;
        p.keep(2, eax)?;
        p.a.mov(eax, 0x408)?;
        p.a.mov(dr5, rax)?;
        p.a.mov(rax, dr7)?;
        p.keep(3, eax)
    })?;
    off(p)
}

/// With it they are not there.
fn without_aliases(p: &mut Program) -> Done {
    let uses: [(&str, Step); 4] = [
        ("MOV from DR4", |a| a.mov(rax, dr4)),
        ("MOV from DR5", |a| a.mov(rax, dr5)),
        ("MOV to DR4", |a| a.mov(dr4, rax)),
        ("MOV to DR5", |a| a.mov(dr5, rax)),
    ];
    for (name, step) in uses {
        let at = p.label();
        p.case(&format!("#UD: with CR4.DE: {name}"), fault_at(6, 0, at), |p| {
            p.a.xor(eax, eax)?;
            p.here(at)?;
            step(&mut p.a)
        })?;
    }
    Ok(())
}

/// Turns breakpoint 0 on for ports from `first` on, has DX name `port`, and clears EAX.
fn watch(p: &mut Program, first: u64, kind: u32, port: u32) -> Done {
    p.a.mov(rax, first)?;
    p.a.mov(dr0, rax)?;
    set(p, kind)?;
    p.a.mov(edx, port)?;
    p.a.mov(edi, BUFFER)?;
    p.a.mov(esi, BUFFER)?;
    p.a.xor(eax, eax)
}

fn accesses(p: &mut Program) -> Done {
    let port = u64::from(PORT);
    let by_byte: Step = |a| a.in_(al, dx);
    let by_word: Step = |a| a.in_(ax, dx);
    let by_dword: Step = |a| a.in_(eax, dx);
    let cases: [(&str, u64, u32, u32, Step, bool); 27] = [
        ("IN from the port that is watched", port, ONE, PORT, by_byte, true),
        ("IN from the port behind it", port, ONE, PORT + 1, by_byte, false),
        ("IN from the port before it", port, ONE, PORT - 1, by_byte, false),
        ("IN by its number", 0xe0, ONE, 0, |a| a.in_(al, 0xe0), true),
        ("IN by another number", 0xe0, ONE, 0, |a| a.in_(al, 0xe1), false),
        ("OUT to the port that is watched", port, ONE, PORT, |a| a.out(dx, al), true),
        ("OUT by its number", 0xe0, ONE, 0, |a| a.out(0xe0, al), true),
        ("OUT of a word", port, ONE, PORT, |a| a.out(dx, ax), true),
        ("OUT of a dword", port, ONE, PORT, |a| a.out(dx, eax), true),
        ("a word whose second byte is watched", port, ONE, PORT - 1, by_word, true),
        ("a word in front of the port", port, ONE, PORT - 2, by_word, false),
        ("a dword whose last byte is watched", port, ONE, PORT - 3, by_dword, true),
        ("a dword in front of the port", port, ONE, PORT - 4, by_dword, false),
        ("the second of two ports", port, TWO, PORT + 1, by_byte, true),
        ("the port behind two", port, TWO, PORT + 2, by_byte, false),
        ("two ports begin at an even one: the first", port + 1, TWO, PORT, by_byte, true),
        ("two ports begin at an even one: the third", port + 1, TWO, PORT + 2, by_byte, false),
        ("the last of four ports", port, FOUR, PORT + 3, by_byte, true),
        ("the port behind four", port, FOUR, PORT + 4, by_byte, false),
        ("the word across the end of four", port, FOUR, PORT + 3, by_word, true),
        ("four ports begin at a multiple of 4: the first", port + 3, FOUR, PORT, by_byte, true),
        ("four ports begin at a multiple of 4: the fifth", port + 3, FOUR, PORT + 4, by_byte, false),
        ("a port is compared with all of the register", port | 1 << 16, ONE, PORT, by_byte, false),
        ("and with its upper half", port | 1 << 32, ONE, PORT, by_byte, false),
        ("a read of memory at the same number", SCRATCH.into(), FOUR, 0, |a| a.mov(eax, dword_ptr(SCRATCH)), false),
        ("a write to memory at the same number", SCRATCH.into(), FOUR, 0, |a| a.mov(dword_ptr(SCRATCH), eax), false),
        ("an instruction that uses no port", port, ONE, PORT, |a| a.inc(edx), false),
    ];
    follow(p, true)?;
    for (name, first, kind, port, access, hits) in cases {
        let after = p.label();
        let mut checks = vec![no_fault(), steps(u32::from(hits))];
        if hits {
            checks.extend([step_at(0, after), step_status(0, 1)]);
        } else {
            checks.push(dword("fixed bits of DR6 alone", record::result(0), 0xffff_0ff0));
        }
        p.case(&format!("ports: {name}"), checks, |p| {
            watch(p, first, kind, port)?;
            access(&mut p.a)?;
            p.here(after)?;
            p.a.nop()?;
            p.a.mov(rax, dr6)?;
            p.keep(0, eax)?;
            off(p)
        })?;
    }
    let checks = vec![no_fault(), steps(1), step_status(0, 1), dword("what was read", record::result(0), 0xff)];
    p.case("ports: the exception comes when IN has loaded AL", checks, |p| {
        watch(p, PORT.into(), ONE, PORT)?;
        p.a.in_(al, dx)?;
        p.keep(0, eax)?;
        off(p)
    })
}

fn strings(p: &mut Program) -> Done {
    let single: [(&str, Step, u32); 4] = [
        ("INSB", |a| a.insb(), 0x5a5a_5aff),
        ("INSW", |a| a.insw(), 0x5a5a_ffff),
        ("INSD", |a| a.insd(), u32::MAX),
        ("OUTSB", |a| a.outsb(), 0x5a5a_5a5a),
    ];
    for (name, step, memory) in single {
        let after = p.label();
        let checks = vec![
            no_fault(),
            steps(1),
            step_at(0, after),
            step_status(0, 1),
            dword("memory", record::result(0), memory),
        ];
        p.case(&format!("ports: {name}"), checks, |p| {
            p.a.mov(dword_ptr(BUFFER), 0x5a5a_5a5a)?;
            watch(p, PORT.into(), ONE, PORT)?;
            step(&mut p.a)?;
            p.here(after)?;
            p.a.mov(eax, dword_ptr(BUFFER))?;
            p.keep(0, eax)?;
            off(p)
        })?;
    }
    let repeated: [(&str, Step); 2] = [("REP INSB", |a| a.rep().insb()), ("REP OUTSB", |a| a.rep().outsb())];
    for (name, step) in repeated {
        let (at, after) = (p.label(), p.label());
        let checks = vec![
            no_fault(),
            steps(3),
            step_at(0, at),
            step_at(1, at),
            step_at(2, after),
            step_status(2, 1),
            dword("ECX", record::result(0), 0),
        ];
        p.case(&format!("ports: {name} is reported each time"), checks, |p| {
            watch(p, PORT.into(), ONE, PORT)?;
            p.a.mov(ecx, 3)?;
            p.here(at)?;
            step(&mut p.a)?;
            p.here(after)?;
            p.a.nop()?;
            p.keep(0, ecx)?;
            off(p)
        })?;
        p.case(&format!("ports: {name} that does nothing"), vec![no_fault(), steps(0)], |p| {
            watch(p, PORT.into(), ONE, PORT)?;
            p.a.xor(ecx, ecx)?;
            step(&mut p.a)?;
            p.a.nop()?;
            off(p)
        })?;
    }
    // Where INS stores is watched too: one exception for both.
    p.case("ports: INS to memory that is watched", vec![no_fault(), steps(1), step_status(0, 0b101)], |p| {
        watch(p, PORT.into(), ONE, PORT)?;
        p.a.mov(ecx, BUFFER)?;
        p.a.mov(dr2, rcx)?;
        p.a.mov(ecx, 0x411 | ONE << 16 | 0b0001 << 24)?;
        p.a.mov(dr7, rcx)?;
        p.a.insb()?;
        p.a.nop()?;
        off(p)
    })
}

/// Together with what else leads to debug exceptions.
fn with_others(p: &mut Program) -> Done {
    p.case("ports: two breakpoints at once", vec![no_fault(), steps(1), step_status(0, 0b1100)], |p| {
        watch(p, 0, ONE, PORT)?;
        for (number, register) in [(1, dr2), (2, dr3)] {
            p.a.mov(ecx, PORT + number)?;
            p.a.mov(register, rcx)?;
        }
        // One by its local bit, one by its global.
        p.a.mov(ecx, 0x400 | 1 << 4 | 1 << 7 | ONE << 24 | ONE << 28)?;
        p.a.mov(dr7, rcx)?;
        p.a.in_(eax, dx)?;
        p.a.nop()?;
        off(p)
    })?;
    p.case("ports: a breakpoint that is not turned on", vec![no_fault(), steps(0)], |p| {
        watch(p, PORT.into(), ONE, PORT)?;
        p.a.mov(ecx, 0x400 | ONE << 16)?;
        p.a.mov(dr7, rcx)?;
        p.a.in_(al, dx)?;
        p.a.nop()
    })?;
    let after = p.label();
    let checks = vec![no_fault(), steps(3), step_at(0, after), step_status(0, SINGLE_STEP | 1)];
    p.case("ports: a single step and a breakpoint are one exception", checks, |p| {
        watch(p, PORT.into(), ONE, PORT)?;
        trap(p)?;
        p.a.in_(al, dx)?;
        p.here(after)?;
        no_trap(p)?;
        off(p)
    })?;
    let after = p.label();
    p.case("ports: IN behind MOV SS", vec![no_fault(), steps(1), step_at(0, after), step_status(0, 1)], |p| {
        watch(p, PORT.into(), ONE, PORT)?;
        p.a.mov(ecx, u32::from(selector::DATA))?;
        p.a.mov(ss, cx)?;
        p.a.in_(al, dx)?;
        p.here(after)?;
        p.a.nop()?;
        off(p)
    })
}

fn by_users(p: &mut Program) -> Done {
    let code = p.user(64, |a| {
        a.in_(al, dx)?;
        a.nop()?;
        a.int(RETURN_VECTOR)
    })?;
    p.a.mov(dword_ptr(PERMISSIONS + PORT / 8), -1)?;
    let refused = vec![
        number("vector", record::VECTOR, 13),
        number("error code", record::ERROR, 0),
        number("RIP", record::IP, code.into()),
        steps(0),
        status(record::DR6, 0),
    ];
    p.case("ports: #GP at a port that the map refuses, and nothing else", refused, |p| {
        watch(p, PORT.into(), ONE, PORT)?;
        p.enter_user(selector::USER_CODE_64, code, 2)
    })?;
    p.a.mov(dword_ptr(PERMISSIONS + PORT / 8), 0)?;
    let allowed = vec![number("vector", record::VECTOR, RETURN_VECTOR.into()), steps(1), step_status(0, 1)];
    p.case("ports: level 3 at a port that the map lets", allowed, |p| {
        watch(p, PORT.into(), ONE, PORT)?;
        p.enter_user(selector::USER_CODE_64, code, 2)
    })?;
    p.a.mov(dword_ptr(PERMISSIONS + PORT / 8), -1)
}
