//! MONITOR and MWAIT: what ends waiting, between two processors and on one. SDM vol. 2, MONITOR and MWAIT; vol. 3 § 8.10.

use iced_x86::{IcedError, code_asm::*};

use super::{
    Done,
    interrupts::{DIVIDE, INITIAL_COUNT, LVT_TIMER, MASKED},
    layout::{SCRATCH, USER, record, selector, variable},
    processors::{apic_write, run, start},
    program::{Program, dword, fault, no_fault},
};

/// The line that is waited for.
const LINE: u32 = SCRATCH + 0x1000;
/// Rounds that the processors hand the line to each other.
const ROUNDS: u32 = 2000;

pub fn write() -> Result<Vec<u8>, IcedError> {
    let mut p = Program::new(64)?;
    p.a.mov(dword_ptr(variable::RETURNS + 4), 0xffff_0000_u32 as i32)?;
    for word in 2..8 {
        p.a.mov(dword_ptr(variable::RETURNS + 4 * word), -1)?;
    }
    start(&mut p)?;
    p.a.mov(dword_ptr(variable::END_AT_APIC), 1)?;
    told_of(&mut p)?;
    refused(&mut p)?;
    alone(&mut p)?;
    together(&mut p)?;
    p.end()
}

fn told_of(p: &mut Program) -> Done {
    let checks = vec![
        dword("smallest line", record::result(0), 64),
        dword("largest line", record::result(1), 64),
        dword("extensions, and interrupts", record::result(2), 3),
    ];
    p.case("CPUID tells of lines and extensions", checks, |p| {
        p.a.mov(eax, 5)?;
        p.a.xor(ecx, ecx)?;
        p.a.cpuid()?;
        p.keep(0, eax)?;
        p.keep(1, ebx)?;
        p.keep(2, ecx)
    })
}

fn refused(p: &mut Program) -> Done {
    p.case("#GP: MONITOR with extensions", fault(13, 0), |p| {
        p.a.mov(eax, LINE)?;
        p.a.mov(ecx, 1)?;
        p.a.monitor()
    })?;
    p.case("#GP: MWAIT with unknown extensions", fault(13, 0), |p| {
        p.a.mov(ecx, 2)?;
        p.a.mwait()
    })?;
    p.case("#UD: MWAIT in user code", fault(6, 0), |p| {
        p.a.mov(edi, USER + 0x10_0000)?;
        for (at, byte) in [0x0f, 0x01, 0xc9].into_iter().enumerate() {
            p.a.mov(byte_ptr(edi + at as u32), byte)?;
        }
        p.enter_user(selector::USER_CODE_64, USER + 0x10_0000, 2)
    })
}

/// Arms the monitor on the line; RAX and RCX are lost.
fn watch(p: &mut Program) -> Done {
    p.a.mov(eax, LINE)?;
    p.a.xor(ecx, ecx)?;
    p.a.xor(edx, edx)?;
    p.a.monitor()
}

fn alone(p: &mut Program) -> Done {
    p.case("a store between the two is seen", vec![no_fault()], |p| {
        watch(p)?;
        p.a.mov(dword_ptr(LINE), 7)?;
        p.a.mwait()
    })?;
    apic_write(p, DIVIDE, 0xb)?;
    let checks = vec![no_fault(), dword("interrupts", variable::LOGGED, 1)];
    p.case("an interrupt ends waiting", checks, |p| {
        let (again, out) = (p.label(), p.label());
        apic_write(p, LVT_TIMER, 0x70)?;
        apic_write(p, INITIAL_COUNT, 1_000_000)?;
        p.a.sti()?;
        p.here(again)?;
        watch(p)?;
        p.a.cmp(dword_ptr(variable::LOGGED), 0)?;
        p.a.jne(out)?;
        p.a.mwait()?;
        p.a.jmp(again)?;
        p.at(out)?;
        p.a.cli()
    })?;
    let checks = vec![
        no_fault(),
        dword("interrupts while they are masked", record::result(0), 0),
        dword("interrupts", variable::LOGGED, 1),
    ];
    p.case("and does so masked, if that is asked for", checks, |p| {
        let (again, out) = (p.label(), p.label());
        apic_write(p, LVT_TIMER, 0x71)?;
        apic_write(p, INITIAL_COUNT, 1_000_000)?;
        p.here(again)?;
        watch(p)?;
        // Requested already? Vector 0x71 is in the fourth dword.
        p.a.mov(eax, 0xfee0_0230_u32)?;
        p.a.test(dword_ptr(eax), 1 << 17)?;
        p.a.jne(out)?;
        p.a.mov(ecx, 1)?;
        p.a.mwait()?;
        p.a.jmp(again)?;
        p.at(out)?;
        p.a.mov(eax, dword_ptr(variable::LOGGED))?;
        p.keep(0, eax)?;
        p.a.sti()?;
        p.a.nop()?;
        p.a.cli()?;
        apic_write(p, LVT_TIMER, MASKED)
    })
}

/// One side: waits until the number in the line has the parity `own`, and makes it one more.
fn side(p: &mut Program, own: u32) -> Result<CodeLabel, IcedError> {
    let [routine, again, mine] = std::array::from_fn(|_| p.label());
    p.at(routine)?;
    p.a.mov(ebx, ROUNDS)?;
    p.at(again)?;
    watch(p)?;
    p.a.mov(eax, dword_ptr(LINE))?;
    p.a.and(eax, 1)?;
    p.a.cmp(eax, own as i32)?;
    p.a.je(mine)?;
    p.a.mwait()?;
    p.a.jmp(again)?;
    p.at(mine)?;
    p.a.inc(dword_ptr(LINE))?;
    p.a.dec(ebx)?;
    p.a.jnz(again)?;
    p.a.ret()?;
    Ok(routine)
}

fn together(p: &mut Program) -> Done {
    let (over, idle) = (p.label(), p.label());
    p.a.jmp(over)?;
    p.at(idle)?;
    p.a.ret()?;
    let even = side(p, 0)?;
    let odd = side(p, 1)?;
    p.at(over)?;
    let checks = vec![no_fault(), dword("stores", LINE, 2 * ROUNDS)];
    p.case("two processors wake each other", checks, |p| {
        p.a.mov(dword_ptr(LINE), 0)?;
        run(p, &[even, odd], idle)
    })
}
