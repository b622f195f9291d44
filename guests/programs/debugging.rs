//! Debug exceptions: single steps, breakpoints on instructions and data, what holds them off, and what DR6 says.
//! SDM vol. 3 ch. 18 (debug registers and exceptions), § 6.8.3 (MOV SS).

use iced_x86::{IcedError, code_asm::*};

use super::{
    Done,
    layout::{RETURN_VECTOR, SCRATCH, log, record, selector, variable},
    program::{Check, Program, Want, dword, fault_at, no_fault, number},
};

mod operands;
mod ports;
pub mod segments;

const SINGLE_STEP: u32 = 1 << 14;

pub fn write() -> Result<Vec<u8>, IcedError> {
    let mut p = Program::new(64)?;
    single_steps(&mut p)?;
    breakpoints(&mut p)?;
    ports::write(&mut p)?;
    operands::write(&mut p)?;
    p.end()
}

/// Has #DB write to the log and return.
fn follow(p: &mut Program, on: bool) -> Done {
    p.a.mov(dword_ptr(variable::RETURNS), if on { 1 << 1 } else { 0 })
}

fn clear_status(p: &mut Program) -> Done {
    p.a.xor(eax, eax)?;
    p.a.mov(dr6, rax)
}

fn trap(p: &mut Program) -> Done {
    p.a.push(0x102)?;
    p.a.popfq()
}

fn no_trap(p: &mut Program) -> Done {
    p.a.push(2)?;
    p.a.popfq()
}

fn steps(count: u32) -> Check {
    dword("debug exceptions", variable::LOGGED, count)
}

fn step_at(index: u32, at: CodeLabel) -> Check {
    let address = log::field(index, log::IP);
    Check { what: "instruction pointer of a step", at: address, mask: u32::MAX.into(), want: Want::At(at) }
}

fn status(at: u32, want: u32) -> Check {
    Check { what: "DR6", at, mask: 0xe00f, want: Want::Number(want.into()) }
}

fn step_status(index: u32, want: u32) -> Check {
    status(log::field(index, log::DR6), want)
}

fn single_steps(p: &mut Program) -> Done {
    let [one, two, three] = std::array::from_fn(|_| p.label());
    let mut checks = vec![no_fault(), steps(4), step_at(0, one), step_at(1, two), step_at(2, three)];
    checks.push(step_status(0, SINGLE_STEP));
    // The flags of the log show TF; the handler runs without.
    checks.push(Check {
        what: "TF that is saved",
        at: log::field(0, log::FLAGS),
        mask: 0x100,
        want: Want::Number(0x100),
    });
    p.case("a trap after each instruction, from the one behind POPF", checks, |p| {
        follow(p, true)?;
        clear_status(p)?;
        trap(p)?;
        p.a.nop()?;
        p.here(one)?;
        p.a.inc(ecx)?;
        p.here(two)?;
        p.a.push(2)?;
        p.here(three)?;
        p.a.popfq()
    })?;
    let [first, second] = std::array::from_fn(|_| p.label());
    p.case(
        "MOV SS holds the trap off for one instruction",
        vec![no_fault(), steps(4), step_at(0, first), step_at(1, second)],
        |p| {
            clear_status(p)?;
            p.a.mov(eax, u32::from(selector::DATA))?;
            trap(p)?;
            p.a.mov(ss, ax)?;
            p.a.nop()?;
            p.here(first)?;
            p.a.nop()?;
            p.here(second)?;
            no_trap(p)
        },
    )?;
    let repeated = p.label();
    let checks =
        vec![no_fault(), steps(5), step_at(0, repeated), step_at(1, repeated), dword("RCX", record::result(0), 0)];
    p.case("a repeated instruction traps after each time", checks, |p| {
        clear_status(p)?;
        p.a.mov(edi, SCRATCH)?;
        p.a.mov(ecx, 3)?;
        trap(p)?;
        p.here(repeated)?;
        p.a.rep().stosb()?;
        no_trap(p)?;
        p.keep(0, ecx)
    })?;
    p.case("INT enters its handler without a trap", vec![number("vector", record::VECTOR, 0x40), steps(0)], |p| {
        clear_status(p)?;
        trap(p)?;
        p.a.int(0x40)
    })?;
    no_trap(p)?;
    follow(p, false)?;
    let after = p.label();
    let mut checks = fault_at(1, 0, after);
    checks.push(status(record::DR6, 0));
    p.case("ICEBP is a trap of its own", checks, |p| {
        clear_status(p)?;
        p.a.db(&[0xf1])?;
        p.at(after)
    })?;
    let user = p.user(64, |a| {
        a.nop()?;
        a.int(RETURN_VECTOR)
    })?;
    let mut checks = vec![number("vector", record::VECTOR, 1), number("RIP", record::IP, u64::from(user) + 1)];
    checks.push(status(record::DR6, SINGLE_STEP));
    p.case("IRET with TF traps after the first instruction of level 3", checks, |p| {
        clear_status(p)?;
        p.enter_user(selector::USER_CODE_64, user, 0x102)
    })?;
    let checks = {
        let mut checks = vec![number("vector", record::VECTOR, 1)];
        checks.push(status(record::DR6, 1 << 13));
        checks
    };
    p.case("access to a debug register while DR7.GD is set", checks, |p| {
        clear_status(p)?;
        p.a.mov(eax, 0x2400)?;
        p.a.mov(dr7, rax)?;
        p.a.mov(rax, dr0)
    })
}

/// Turns breakpoint 0 on: `kind` is what stands in R/W0 and LEN0.
fn set(p: &mut Program, kind: u32) -> Done {
    clear_status(p)?;
    p.a.mov(eax, 0x401 | kind << 16 | 2)?;
    p.a.mov(dr7, rax)
}

fn off(p: &mut Program) -> Done {
    p.a.mov(eax, 0x400)?;
    p.a.mov(dr7, rax)
}

fn breakpoints(p: &mut Program) -> Done {
    off(p)?;
    let at = p.label();
    let there = p.address_of(at);
    let mut checks = fault_at(1, 0, at);
    checks.push(status(record::DR6, 1));
    // This fault alone does not save RF as set: its handler does, if it likes.
    checks.push(Check { what: "RF", at: record::FLAGS, mask: 1 << 16, want: Want::Number(0) });
    p.case("an instruction breakpoint is a fault", checks, |p| {
        p.a.mov(rax, qword_ptr(there))?;
        p.a.mov(dr0, rax)?;
        set(p, 0)?;
        p.here(at)?;
        p.a.nop()
    })?;
    off(p)?;
    let at = p.label();
    let there = p.address_of(at);
    p.case(
        "RF lets the instruction through once",
        vec![no_fault(), steps(0), dword("ECX", record::result(0), 1)],
        |p| {
            follow(p, true)?;
            p.a.xor(ecx, ecx)?;
            p.a.mov(rax, qword_ptr(there))?;
            p.a.mov(dr0, rax)?;
            set(p, 0)?;
            p.a.mov(rdx, rsp)?;
            p.a.push(i32::from(selector::DATA))?;
            p.a.push(rdx)?;
            p.a.push(0x1_0002)?;
            p.a.push(i32::from(selector::CODE_64))?;
            p.a.push(qword_ptr(there))?;
            p.a.iretq()?;
            p.here(at)?;
            p.a.inc(ecx)?;
            off(p)?;
            p.keep(0, ecx)
        },
    )?;
    off(p)?;
    let at = p.label();
    p.case(
        "#UD saves RF as set",
        {
            let mut checks = fault_at(6, 0, at);
            checks.push(Check { what: "RF", at: record::FLAGS, mask: 1 << 16, want: Want::Number(1 << 16) });
            checks
        },
        |p| {
            p.here(at)?;
            p.a.ud2()
        },
    )?;
    // R/W and LEN: writes and accesses of 1, 2, 4 and 8 bytes.
    for (name, kind, offset, hits) in [
        ("a write to the bytes that are watched", 0b1101, 0, true),
        ("a write to the last of them", 0b1101, 3, true),
        ("a write behind them", 0b1101, 4, false),
        ("a write to a byte that is watched", 0b0001, 0, true),
        ("a write behind that byte", 0b0001, 1, false),
        ("a write of which the last byte is watched", 0b0001, -3, true),
        ("a write to 8 bytes that are watched", 0b1001, 7, true),
    ] {
        let after = p.label();
        let mut checks = vec![no_fault(), steps(u32::from(hits))];
        if hits {
            checks.extend([step_at(0, after), step_status(0, 1)]);
        }
        p.case(name, checks, |p| {
            p.a.mov(eax, SCRATCH + 0x40)?;
            p.a.mov(dr0, rax)?;
            p.a.mov(ebx, (SCRATCH + 0x40).wrapping_add_signed(offset))?;
            set(p, kind)?;
            p.a.mov(dword_ptr(rbx), ecx)?;
            p.here(after)?;
            p.a.nop()?;
            off(p)
        })?;
    }
    for (name, kind, hits) in
        [("a read of what is watched for writes", 0b1101, 0), ("a read of what is watched for accesses", 0b1111, 1)]
    {
        p.case(name, vec![no_fault(), steps(hits)], |p| {
            p.a.mov(eax, SCRATCH + 0x40)?;
            p.a.mov(dr0, rax)?;
            set(p, kind)?;
            p.a.mov(ecx, dword_ptr(SCRATCH + 0x40))?;
            p.a.nop()?;
            off(p)
        })?;
    }
    p.case("PUSH to what is watched", vec![no_fault(), steps(1), step_status(0, 1)], |p| {
        p.a.lea(rax, ptr(rsp - 8))?;
        p.a.mov(dr0, rax)?;
        set(p, 0b1001)?;
        p.a.push(rcx)?;
        p.a.pop(rcx)?;
        off(p)
    })?;
    p.case("a breakpoint that is not turned on", vec![no_fault(), steps(0)], |p| {
        p.a.mov(eax, SCRATCH + 0x40)?;
        p.a.mov(dr0, rax)?;
        p.a.mov(eax, 0x400 | 0b1101 << 16)?;
        p.a.mov(dr7, rax)?;
        p.a.mov(dword_ptr(SCRATCH + 0x40), ecx)?;
        p.a.nop()
    })?;
    p.case("the fourth breakpoint, by its global bit", vec![no_fault(), steps(1), step_status(0, 8)], |p| {
        clear_status(p)?;
        p.a.mov(eax, SCRATCH + 0x80)?;
        p.a.mov(dr3, rax)?;
        p.a.mov(eax, 0xd000_0480_u32)?;
        p.a.mov(dr7, rax)?;
        p.a.mov(dword_ptr(SCRATCH + 0x80), ecx)?;
        p.a.nop()?;
        off(p)
    })?;
    p.case(
        "debug registers keep what they have",
        vec![
            no_fault(),
            dword("DR1", record::result(0), 0x1234),
            Check {
                what: "fixed bits of DR6",
                at: record::result(1),
                mask: u32::MAX.into(),
                want: Want::Number(0xffff_0ff0),
            },
            dword("DR7", record::result(2), 0x400),
        ],
        |p| {
            p.a.mov(eax, 0x1234)?;
            p.a.mov(dr1, rax)?;
            p.a.mov(rax, dr1)?;
            p.keep(0, eax)?;
            clear_status(p)?;
            p.a.mov(rax, dr6)?;
            p.keep(1, eax)?;
            p.a.xor(eax, eax)?;
            p.a.mov(dr7, rax)?;
            p.a.mov(rax, dr7)?;
            p.keep(2, eax)
        },
    )
}
