//! Breakpoints on data that wide and unusual operands touch, and what else single steps meet. SDM vol. 3 § 18.2.5, 18.3.1.

use iced_x86::code_asm::*;

use super::{SINGLE_STEP, clear_status, follow, no_trap, off, set, step_at, step_status, steps, trap};
use crate::programs::{
    Done,
    layout::{SCRATCH, log, record, selector},
    program::{Check, Program, Want, dword, fault_at, no_fault},
};

/// What instructions work on; on a boundary that all of them like.
const OPERAND: u32 = SCRATCH + 0x400;
/// R/W and LEN: writes, and accesses, of one byte.
const WRITES: u32 = 0b0001;
const ACCESSES: u32 = 0b0011;
/// DEBUGCTL, and single steps by branches in it.
const DEBUGCTL: u32 = 0x1d9;
const BRANCHES: u64 = 1 << 1;

type Step = fn(&mut CodeAssembler) -> Done;

pub fn write(p: &mut Program) -> Done {
    follow(p, true)?;
    operands(p)?;
    off(p)?;
    more_steps(p)?;
    follow(p, false)?;
    off(p)?;
    first_of_two(p)
}

/// Each is to hit at the byte of its operand that is watched, and not behind its end.
fn operands(p: &mut Program) -> Done {
    p.a.fninit()?;
    let cases: [(&str, u32, u32, Step); 22] = [
        ("MOVUPS to memory", WRITES, 16, |a| a.movups(xmmword_ptr(rbx), xmm0)),
        ("MOVUPS from memory", ACCESSES, 16, |a| a.movups(xmm0, xmmword_ptr(rbx))),
        ("ADDPS from memory", ACCESSES, 16, |a| a.addps(xmm0, xmmword_ptr(rbx))),
        ("MOVQ to memory", WRITES, 8, |a| a.movq(qword_ptr(rbx), xmm0)),
        ("FSTP of 80 bits", WRITES, 10, |a| {
            a.fldz()?;
            a.fstp(tbyte_ptr(rbx))
        }),
        ("FLD of 80 bits", ACCESSES, 10, |a| {
            a.fld(tbyte_ptr(rbx))?;
            a.fstp(st0)
        }),
        ("FNSTENV", WRITES, 28, |a| a.fnstenv(ptr(rbx))),
        ("FXSAVE", WRITES, 416, |a| a.fxsave(ptr(rbx))),
        ("MOV to memory", WRITES, 8, |a| a.mov(qword_ptr(rbx), rcx)),
        ("ADD to memory", WRITES, 8, |a| a.add(qword_ptr(rbx), rcx)),
        ("CMP with memory", ACCESSES, 8, |a| a.cmp(qword_ptr(rbx), rcx)),
        ("LOCK XADD", WRITES, 8, |a| a.lock().xadd(qword_ptr(rbx), rcx)),
        ("XCHG", WRITES, 8, |a| a.xchg(qword_ptr(rbx), rcx)),
        ("BTS", WRITES, 4, |a| a.bts(dword_ptr(rbx), ecx)),
        ("SGDT", WRITES, 10, |a| a.sgdt(ptr(rbx))),
        ("LGDT", ACCESSES, 10, |a| a.lgdt(ptr(rbx))),
        ("SETC", WRITES, 1, |a| a.setb(byte_ptr(rbx))),
        ("MOV from a segment register", WRITES, 2, |a| a.mov(word_ptr(rbx), ds)),
        ("POP to memory", WRITES, 8, |a| {
            a.push(rcx)?;
            a.pop(qword_ptr(rbx))
        }),
        ("PUSH of memory", ACCESSES, 8, |a| {
            a.push(qword_ptr(rbx))?;
            a.pop(rcx)
        }),
        ("MOVSQ to memory", WRITES, 8, |a| {
            a.mov(esi, OPERAND + 0x200)?;
            a.mov(edi, ebx)?;
            a.movsq()
        }),
        ("SCASD", ACCESSES, 4, |a| {
            a.mov(edi, ebx)?;
            a.scasd()
        }),
    ];
    for (name, kind, size, step) in cases {
        for (where_, offset, hits) in [("first", 0, true), ("last", size - 1, true), ("next", size, false)] {
            if size > 100 && !hits {
                // What is written there is reserved.
                continue;
            }
            let mut checks = vec![no_fault(), steps(u32::from(hits))];
            if hits {
                checks.push(step_status(0, 1));
            }
            p.case(&format!("{name}: the {where_} byte of {size}"), checks, |p| {
                // The operand is what LGDT is to load.
                p.a.mov(ebx, OPERAND)?;
                p.a.sgdt(ptr(rbx))?;
                p.a.xor(ecx, ecx)?;
                p.a.mov(eax, OPERAND + offset)?;
                p.a.mov(dr0, rax)?;
                set(p, kind)?;
                step(&mut p.a)?;
                p.a.nop()?;
                off(p)
            })?;
        }
    }
    Ok(())
}

fn more_steps(p: &mut Program) -> Done {
    let after = p.label();
    let checks = vec![no_fault(), steps(3), step_at(0, after), step_status(0, SINGLE_STEP)];
    p.case("a single step ends HLT", checks, |p| {
        clear_status(p)?;
        trap(p)?;
        p.a.hlt()?;
        p.here(after)?;
        no_trap(p)
    })?;
    let after = p.label();
    let pointer = p.dwords(&[0, 0, selector::DATA.into()]);
    p.case("LSS does not hold the trap off", vec![no_fault(), steps(3), step_at(0, after)], |p| {
        p.a.mov(qword_ptr(pointer), rsp)?;
        p.a.mov(word_ptr(pointer + 4), i32::from(selector::DATA))?;
        clear_status(p)?;
        trap(p)?;
        p.a.lss(esp, fword_ptr(pointer))?;
        p.here(after)?;
        no_trap(p)
    })?;
    let [taken, there] = std::array::from_fn(|_| p.label());
    let checks = vec![
        no_fault(),
        steps(4),
        step_at(0, there),
        Check { what: "TF", at: log::field(0, log::FLAGS), mask: 0x100, want: Want::Number(0x100) },
    ];
    p.case("steps by branches: one that is taken, and none that is not", checks, |p| {
        clear_status(p)?;
        p.write_msr(DEBUGCTL, BRANCHES)?;
        p.a.xor(ecx, ecx)?;
        p.a.inc(ecx)?;
        trap(p)?;
        p.a.nop()?;
        p.a.test(ecx, ecx)?;
        p.a.jz(taken)?;
        p.a.nop()?;
        p.a.jnz(there)?;
        p.at(taken)?;
        p.at(there)?;
        // The exception has cleared BTF, and its handler returns with TF.
        no_trap(p)
    })?;
    p.write_msr(DEBUGCTL, 0)
}

/// Which of two exceptions of one instruction comes.
fn first_of_two(p: &mut Program) -> Done {
    let at = p.label();
    let there = p.address_of(at);
    let mut checks = fault_at(1, 0, at);
    checks.push(dword("DR6", record::DR6, 0xffff_0ff1));
    p.case("a breakpoint on an instruction that is invalid", checks, |p| {
        p.a.mov(rax, qword_ptr(there))?;
        p.a.mov(dr0, rax)?;
        set(p, 0)?;
        p.here(at)?;
        p.a.ud2()
    })?;
    off(p)?;
    let at = p.label();
    let mut checks = fault_at(6, 0, at);
    checks.extend([
        steps(0),
        Check { what: "TF that is saved", at: record::FLAGS, mask: 0x100, want: Want::Number(0x100) },
    ]);
    p.case("a fault is no step", checks, |p| {
        clear_status(p)?;
        trap(p)?;
        p.here(at)?;
        p.a.ud2()
    })?;
    no_trap(p)
}
