//! Virtual-8086 mode: what leaves it and what stays, by IOPL, the map of I/O permissions and, where CPUID offers it, the
//! virtual interrupt flag and the map of software interrupts. SDM vol. 3 ch. 21.

use iced_x86::{IcedError, code_asm::*};

use super::{
    Done,
    layout::{RETURN_VECTOR, TSS, record},
    program::{Check, Program, Want, assemble, dword, fault, number},
};

/// Where its code is copied to: paragraph 0x900.
const SEGMENT: u32 = 0x900;
const STACK_SEGMENT: u32 = 0x1000;
const DATA_SEGMENT: u32 = 0x2000;
const VM: u32 = 1 << 17;
const VIF: u64 = 1 << 19;
const VIP: u32 = 1 << 20;
const IF: u32 = 1 << 9;
/// The map of I/O permissions, behind that of software interrupts.
const INTERRUPT_MAP: u32 = TSS + 104;
const PERMISSIONS: u32 = TSS + 136;

type Step = fn(&mut CodeAssembler) -> Done;

pub fn write() -> Result<Vec<u8>, IcedError> {
    let mut p = Program::new(32)?;
    p.a.mov(dword_ptr(TSS + 100), 136 << 16)?;
    p.a.mov(edi, PERMISSIONS)?;
    p.a.mov(ecx, 0x2001)?;
    p.a.mov(eax, 0xff)?;
    p.a.rep().stosb()?;
    stays(&mut p)?;
    leaves(&mut p)?;
    addresses(&mut p)?;
    enhanced(&mut p)?;
    p.end()
}

/// Copies code, and enters it with `flags`.
fn enter(p: &mut Program, flags: u32, write: impl FnOnce(&mut CodeAssembler) -> Done) -> Done {
    let code = assemble(16, 0, write)?;
    p.copy(&code, SEGMENT << 4)?;
    for word in [0x4000, 0x3000, DATA_SEGMENT, 0x5000, STACK_SEGMENT, 0x100, flags | VM | 2, SEGMENT, 0] {
        p.a.push(word as i32)?;
    }
    p.a.iretd()
}

/// What is done without leaving; INT 0x20, whose gate is for level 3, ends it.
fn runs(
    p: &mut Program,
    name: &str,
    flags: u32,
    more: Vec<Check>,
    step: impl FnOnce(&mut CodeAssembler) -> Done,
) -> Done {
    let mut checks = vec![number("vector", record::VECTOR, RETURN_VECTOR.into())];
    checks.extend(more);
    p.case(name, checks, |p| {
        enter(p, flags, |a| {
            step(a)?;
            a.int(RETURN_VECTOR)
        })
    })
}

/// What is refused where it stands, at the start.
fn refused(p: &mut Program, name: &str, vector: u8, error: u32, flags: u32, step: Step) -> Done {
    let mut checks = fault(vector, error);
    checks.push(dword("IP", record::IP, 0));
    checks.push(dword("CS", record::CS, SEGMENT));
    checks.push(Check { what: "VM", at: record::FLAGS, mask: VM.into(), want: Want::Number(VM.into()) });
    p.case(name, checks, |p| enter(p, flags, step))
}

fn flag(what: &'static str, at: u32, mask: u64, set: bool) -> Check {
    Check { what, at, mask, want: Want::Number(if set { mask } else { 0 }) }
}

const IOPL: u32 = 3 << 12;

/// With IOPL 3, what handles flags just does.
fn stays(p: &mut Program) -> Done {
    let state = vec![
        dword("IP", record::IP, 2),
        dword("CS", record::CS, SEGMENT),
        dword("SP", record::SP, 0x100),
        dword("SS", record::SS, STACK_SEGMENT),
        dword("ES", record::V86, 0x5000),
        dword("DS", record::V86 + 8, DATA_SEGMENT),
        dword("FS", record::V86 + 16, 0x3000),
        dword("GS", record::V86 + 24, 0x4000),
        flag("VM", record::FLAGS, VM.into(), true),
    ];
    runs(p, "an interrupt saves all segments", IOPL, state, |_| Ok(()))?;
    runs(p, "IOPL 3: STI", IOPL, vec![flag("IF", record::FLAGS, IF.into(), true)], |a| {
        a.sti()?;
        a.nop()
    })?;
    runs(p, "IOPL 3: CLI", IOPL | IF, vec![flag("IF", record::FLAGS, IF.into(), false)], |a| a.cli())?;
    runs(
        p,
        "IOPL 3: POPF changes IF, not IOPL or VM",
        IOPL,
        vec![dword("flags", record::FLAGS, VM | IOPL | IF | 3)],
        |a| {
            a.push(0x203)?;
            a.popf()
        },
    )?;
    runs(p, "IOPL 3: PUSHF shows the flags", IOPL, vec![dword("AX", 0x2_0000, 0x3002)], |a| {
        a.pushfd()?;
        a.pop(eax)?;
        a.mov(dword_ptr(0_u16), eax)
    })?;
    runs(p, "IOPL 3: IRET", IOPL, vec![flag("IF", record::FLAGS, IF.into(), true)], |a| {
        a.push(0x203)?;
        a.push(SEGMENT as i32)?;
        a.push(0x30)?;
        a.iret()?;
        for _ in 0..0x30 {
            a.nop()?;
        }
        Ok(())
    })?;
    runs(p, "far CALL and RET", IOPL, vec![dword("word", 0x2_0000, 0x1234)], |a| {
        a.mov(word_ptr(0_u16), 0x1234)?;
        a.push(SEGMENT as i32)?;
        a.push(0x20)?;
        a.retf()?;
        for _ in 0..0x20 {
            a.nop()?;
        }
        Ok(())
    })
}

/// What is refused: with IOPL below 3, or always.
fn leaves(p: &mut Program) -> Done {
    let by_iopl: [(&str, Step); 7] = [
        ("CLI", |a| a.cli()),
        ("STI", |a| a.sti()),
        ("PUSHF", |a| a.pushf()),
        ("POPF", |a| a.popf()),
        ("IRET", |a| a.iret()),
        ("INT", |a| a.int(RETURN_VECTOR)),
        ("PUSHFD", |a| a.pushfd()),
    ];
    for (name, step) in by_iopl {
        refused(p, &format!("#GP: IOPL 2: {name}"), 13, 0, 2 << 12, step)?;
    }
    let always: [(&str, u8, Step); 12] = [
        ("#GP: HLT", 13, |a| a.hlt()),
        ("#GP: CLTS", 13, |a| a.clts()),
        ("#GP: MOV from CR0", 13, |a| a.mov(eax, cr0)),
        ("#GP: MOV from DR7", 13, |a| a.mov(eax, dr7)),
        ("#GP: LMSW", 13, |a| a.lmsw(ax)),
        ("#GP: INVD", 13, |a| a.invd()),
        ("#GP: RDMSR", 13, |a| a.rdmsr()),
        ("#GP: LGDT", 13, |a| a.db(&[0x0f, 0x01, 0x16, 0, 0])),
        ("#UD: LLDT", 6, |a| a.lldt(ax)),
        ("#UD: STR", 6, |a| a.str(ax)),
        ("#UD: ARPL", 6, |a| a.arpl(ax, bx)),
        ("#UD: VERR", 6, |a| a.verr(ax)),
    ];
    for (name, vector, step) in always {
        refused(p, name, vector, 0, IOPL, step)?;
    }
    refused(p, "#GP: INT3 through a gate of level 0", 13, 3 * 8 + 2, 0, |a| a.int3())?;
    refused(p, "#GP: INT through a gate of level 0", 13, 0x21 * 8 + 2, IOPL, |a| a.int(0x21))?;
    refused(p, "#GP: IN that the map does not let, whatever IOPL", 13, 0, IOPL, |a| a.in_(al, 0x61))?;
    p.a.mov(byte_ptr(PERMISSIONS + 0x61 / 8), 0xfd)?;
    runs(p, "IN that the map lets", IOPL, Vec::new(), |a| a.in_(al, 0x61))
}

/// Segments are paragraphs of 64 KiB.
fn addresses(p: &mut Program) -> Done {
    runs(p, "a segment's base is 16 times its number", IOPL, vec![dword("memory", 0x4_5670, 0x5a5a_1234)], |a| {
        a.mov(ax, 0x4567)?;
        a.mov(ds, ax)?;
        a.mov(dword_ptr(0_u16), 0x5a5a_1234)
    })?;
    refused(p, "#GP: a word across the end of a segment", 13, 0, IOPL, |a| a.mov(ax, word_ptr(0xffff_u16)))?;
    refused(p, "#SS: a word across the end of the stack", 12, 0, IOPL, |a| a.mov(ax, word_ptr(0xffff_u16).ss()))?;
    runs(p, "addresses go on behind 1 MiB", IOPL, vec![dword("header", 0x2_0000, 0x1bad_b002)], |a| {
        a.mov(ax, 0xffff)?;
        a.mov(es, ax)?;
        a.mov(eax, dword_ptr(0x10_u16).es())?;
        a.mov(dword_ptr(0_u16), eax)
    })
}

/// With CR4.VME (§ 21.3).
fn enhanced(p: &mut Program) -> Done {
    let absent = p.label();
    p.a.mov(eax, 1)?;
    p.a.cpuid()?;
    p.a.bt(edx, 1)?;
    p.a.jnc(absent)?;
    p.a.mov(eax, cr4)?;
    p.a.or(eax, 1)?;
    p.a.mov(cr4, eax)?;
    // Of the software interrupts, 0x40 stays within: to 0900:0080.
    p.a.mov(edi, INTERRUPT_MAP)?;
    p.a.mov(ecx, 32)?;
    p.a.mov(eax, 0xff)?;
    p.a.rep().stosb()?;
    p.a.mov(byte_ptr(INTERRUPT_MAP + 0x40 / 8), 0xfe)?;
    p.a.mov(dword_ptr(0x40_u32 * 4), ((SEGMENT << 16) | 0x80) as i32)?;
    // With IOPL 0 what is not redirected is refused: INT 0x20 does not end a case, HLT does.
    let mut within = |name: &str, flags: u32, more: Vec<Check>, step: Step| {
        let mut checks = fault(13, 0);
        checks.extend(more);
        p.case(name, checks, |p| {
            enter(p, flags, |a| {
                step(a)?;
                a.hlt()
            })
        })
    };
    within(
        "VME: STI sets VIF",
        0,
        vec![flag("VIF", record::FLAGS, VIF, true), flag("IF", record::FLAGS, IF.into(), false)],
        |a| a.sti(),
    )?;
    within(
        "VME: CLI clears VIF",
        VIF as u32 | IF,
        vec![flag("VIF", record::FLAGS, VIF, false), flag("IF", record::FLAGS, IF.into(), true)],
        |a| a.cli(),
    )?;
    within(
        "VME: PUSHF shows VIF as IF, and IOPL as 3",
        VIF as u32,
        vec![Check { what: "flags", at: 0x2_0000, mask: 0xffff, want: Want::Number(0x3202) }],
        |a| {
            a.pushf()?;
            a.pop(ax)?;
            a.mov(word_ptr(0_u16), ax)
        },
    )?;
    within(
        "VME: POPF takes IF as VIF",
        0,
        vec![flag("VIF", record::FLAGS, VIF, true), flag("IOPL", record::FLAGS, IOPL.into(), false)],
        |a| {
            a.push(0x3203)?;
            a.popf()
        },
    )?;
    within(
        "VME: INT by the table of real mode",
        VIF as u32,
        vec![
            dword("IP", record::IP, 0x80),
            flag("VIF", record::FLAGS, VIF, false),
            dword("SP", record::SP, 0x100 - 6),
            dword("IP that is saved", (STACK_SEGMENT << 4) + 0x100 - 6, SEGMENT << 16 | 2),
            Check {
                what: "flags that are saved",
                at: (STACK_SEGMENT << 4) + 0x100 - 2,
                mask: 0xffff,
                want: Want::Number(0x3202),
            },
        ],
        |a| {
            a.int(0x40)?;
            for _ in 2..0x80 {
                a.nop()?;
            }
            Ok(())
        },
    )?;
    within("VME: IRET takes IF as VIF", 0, vec![flag("VIF", record::FLAGS, VIF, true)], |a| {
        a.push(0x202)?;
        a.push(SEGMENT as i32)?;
        a.push(0x20)?;
        a.iret()?;
        for _ in 0..0x20 {
            a.nop()?;
        }
        Ok(())
    })?;
    refused(p, "#GP: VME: STI while an interrupt is pending", 13, 0, VIP, |a| a.sti())?;
    refused(p, "#GP: VME: INT that the map does not redirect", 13, 0, 0, |a| a.int(RETURN_VECTOR))?;
    refused(p, "#GP: VME: PUSHFD", 13, 0, 0, |a| a.pushfd())?;
    p.a.mov(eax, cr4)?;
    p.a.and(eax, !1)?;
    p.a.mov(cr4, eax)?;
    p.at(absent)
}
