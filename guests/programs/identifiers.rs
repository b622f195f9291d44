//! Process-context identifiers: what switches them on, that they keep address spaces apart, and what INVPCID and others make
//! the processor forget. SDM vol. 3 §§ 2.5, 4.10; vol. 2 (INVPCID, MOV to control registers).
//!
//! What may be forgotten is never demanded to be kept: each case asks for what must be gone.

use iced_x86::{Code, IcedError, Instruction, code_asm::*};

use super::{
    Done,
    layout::{RETURN_VECTOR, SCRATCH, TABLES, USER, record, selector, variable},
    program::{Check, Program, dword, fault, fault_at, no_fault, number},
};

/// A page that each of two roots maps elsewhere, and one that both map by the same tables.
const OWN: u64 = 1 << 39 | PAGE;
const SHARED: u64 = 2 << 39 | PAGE;
/// Nothing is there.
const UNMAPPED: u64 = 3 << 39;
const PAGE: u64 = 2 << 30 | 3 << 21 | 4 << 12;
/// Roots.
const FIRST: u32 = TABLES;
const SECOND: u32 = SCRATCH + 0x1_0000;
/// Tables below them, three pages each: of the first root, of the second, and of both.
const OWN_FIRST: u32 = SCRATCH;
const OWN_SECOND: u32 = SCRATCH + 0x3000;
const BOTH: u32 = SCRATCH + 0x6000;
/// Another last table.
const OTHER_TABLE: u32 = SCRATCH + 0x9000;
/// Frames; each has code that says which it is. Two are within large pages.
const OLD: u32 = 0x61_0000;
const NEW: u32 = 0x61_1000;
const OF_SECOND: u32 = 0x61_2000;
const OLD_LARGE: u32 = 0x140_4000;
const NEW_LARGE: u32 = 0x160_4000;
const FRAMES: [u32; 5] = [OLD, NEW, OF_SECOND, OLD_LARGE, NEW_LARGE];
/// Where in a page something is written.
const WRITTEN: u32 = 0x800;

const GLOBAL: u32 = 1 << 8;
const LARGE: u32 = 1 << 7;
/// CR4.
const PGE: u32 = 1 << 7;
const PCIDE: u32 = 1 << 17;

/// What is written next.
const STAMP: u32 = variable::OWN;
/// What INVPCID reads.
const DESCRIPTOR: u32 = variable::OWN + 0x10;
/// Results that nobody looks at.
const UNSEEN: u32 = 16;

pub fn write() -> Result<Vec<u8>, IcedError> {
    let mut p = Program::new(64)?;
    let (absent, no_invpcid, look, end) = (p.label(), p.label(), p.label(), p.label());
    tables(&mut p)?;
    p.a.mov(eax, 1)?;
    p.a.cpuid()?;
    p.a.bt(ecx, 17)?;
    p.a.jnc(absent)?;
    switching(&mut p)?;
    apart(&mut p, look)?;
    let plain: [(&str, Step); 4] = [
        ("MOV to CR3", |p| load(p, FIRST, 1, false)),
        ("INVLPG", |p| invalidate_page(p, OWN)),
        ("CR4.PGE", toggle_global),
        ("CR4.PCIDE", switch_off_and_on),
    ];
    for (name, step) in plain {
        own_page(&mut p, name, look, step)?;
    }
    let global: [(&str, Step); 3] =
        [("INVLPG", |p| invalidate_page(p, SHARED)), ("CR4.PGE", toggle_global), ("CR4.PCIDE", switch_off_and_on)];
    for (name, step) in global {
        global_page(&mut p, name, look, step)?;
    }
    global_page_elsewhere(&mut p, look)?;
    from_another(&mut p, "MOV to CR3", look, |p| load(p, FIRST, 1, false))?;
    from_another(&mut p, "CR4.PGE", look, toggle_global)?;
    larger(&mut p, "INVLPG", look, |p| invalidate_page(p, OWN + 0x5000))?;
    table(&mut p, "INVLPG", look, |p| invalidate_page(p, OWN))?;
    p.a.mov(eax, 7)?;
    p.a.xor(ecx, ecx)?;
    p.a.cpuid()?;
    p.a.bt(ebx, 10)?;
    p.a.jnc(no_invpcid)?;
    invpcid(&mut p, look)?;
    p.a.jmp(end)?;
    p.at(absent)?;
    p.case("#GP: CR4.PCIDE where CPUID does not offer it", fault(13, 0), |p| set_control(p, PCIDE, 0))?;
    p.at(no_invpcid)?;
    p.case("#UD: INVPCID where CPUID does not offer it", fault(6, 0), |p| invalidate(p, 2, 0, 0))?;
    p.a.jmp(end)?;
    looking(&mut p, look)?;
    p.at(end)?;
    load(&mut p, FIRST, 0, false)?;
    p.end()
}

type Step = fn(&mut Program) -> Done;

/// Fills roots, tables and frames.
fn tables(p: &mut Program) -> Done {
    p.a.mov(esi, FIRST)?;
    p.a.mov(edi, SECOND)?;
    p.a.mov(ecx, 0x400)?;
    p.a.rep().movsd()?;
    let chains = [(FIRST, 1, OWN_FIRST), (SECOND, 1, OWN_SECOND), (FIRST, 2, BOTH), (SECOND, 2, BOTH)];
    for (root, index, chain) in chains {
        for (place, value) in
            [(root + 8 * index, chain), (chain + 8 * 2, chain + 0x1000), (chain + 0x1000 + 8 * 3, chain + 0x2000)]
        {
            p.a.mov(dword_ptr(place), (value | 3) as i32)?;
        }
    }
    // MOV EAX, number; RET.
    for frame in FRAMES {
        p.a.mov(byte_ptr(frame), 0xb8)?;
        p.a.mov(dword_ptr(frame + 1), frame as i32)?;
        p.a.mov(byte_ptr(frame + 5), 0xc3)?;
    }
    p.a.mov(dword_ptr(STAMP), 1)
}

/// Has the page of a chain be a frame.
fn map(p: &mut Program, chain: u32, frame: u32, flags: u32) -> Done {
    p.a.mov(dword_ptr(chain + 0x2000 + 8 * 4), (frame | 3 | flags) as i32)
}

/// What a chain has at the level of large pages: the last table, or such a page.
fn map_large(p: &mut Program, chain: u32, value: u32) -> Done {
    p.a.mov(dword_ptr(chain + 0x1000 + 8 * 3), (value | 3) as i32)
}

/// The routine at `look` finds out where the page at RBX is by reading, executing and writing; what it finds goes to R8.
fn looking(p: &mut Program, look: CodeLabel) -> Done {
    p.at(look)?;
    p.a.mov(eax, dword_ptr(rbx + 1))?;
    p.a.mov(dword_ptr(r8), eax)?;
    p.a.call(rbx)?;
    p.a.mov(dword_ptr(r8 + 8), eax)?;
    p.a.inc(dword_ptr(STAMP))?;
    p.a.mov(ecx, dword_ptr(STAMP))?;
    p.a.mov(dword_ptr(rbx + WRITTEN), ecx)?;
    for frame in FRAMES {
        let not_this = p.label();
        p.a.cmp(dword_ptr(frame + WRITTEN), ecx)?;
        p.a.jne(not_this)?;
        p.a.mov(dword_ptr(r8 + 16), frame as i32)?;
        p.at(not_this)?;
    }
    p.a.ret()
}

fn look_at(p: &mut Program, look: CodeLabel, linear: u64, index: u32) -> Done {
    p.a.mov(rbx, linear)?;
    p.a.mov(r8d, record::result(index))?;
    p.a.call(look)
}

/// What a look that stored from `index` on is to have found.
fn sees(index: u32, frame: u32) -> [Check; 3] {
    [
        dword("what is read", record::result(index), frame),
        dword("what is executed", record::result(index + 1), frame),
        dword("what is written", record::result(index + 2), frame),
    ]
}

fn looks(found: &[(u32, u32)]) -> Vec<Check> {
    let mut checks = vec![no_fault()];
    checks.extend(found.iter().flat_map(|&(index, frame)| sees(index, frame)));
    checks
}

/// MOV to CR3; `keep` is bit 63.
fn load(p: &mut Program, root: u32, identifier: u32, keep: bool) -> Done {
    p.a.mov(rax, u64::from(root | identifier) | u64::from(keep) << 63)?;
    p.a.mov(cr3, rax)
}

/// Sets and clears bits of CR4.
fn set_control(p: &mut Program, set: u32, clear: u32) -> Done {
    p.a.mov(rax, cr4)?;
    p.a.or(eax, set as i32)?;
    p.a.and(eax, !clear as i32)?;
    p.a.mov(cr4, rax)
}

fn toggle_global(p: &mut Program) -> Done {
    set_control(p, 0, PGE)?;
    set_control(p, PGE, 0)
}

/// Identifiers are switched on again only from the first.
fn switch_off_and_on(p: &mut Program) -> Done {
    set_control(p, 0, PCIDE)?;
    load(p, FIRST, 0, false)?;
    set_control(p, PCIDE, 0)
}

fn invalidate_page(p: &mut Program, linear: u64) -> Done {
    p.a.mov(rbx, linear)?;
    p.a.invlpg(ptr(rbx))
}

fn invalidate(p: &mut Program, kind: u64, identifier: u64, linear: u64) -> Done {
    for (offset, value) in [(0, identifier), (8, linear)] {
        p.a.mov(rax, value)?;
        p.a.mov(qword_ptr(DESCRIPTOR + offset), rax)?;
    }
    p.a.mov(rax, kind)?;
    p.a.invpcid(rax, xmmword_ptr(DESCRIPTOR))
}

/// From nothing known, in the first address space.
fn afresh(p: &mut Program) -> Done {
    toggle_global(p)?;
    load(p, FIRST, 1, false)
}

/// What may and may not be loaded into control registers.
fn switching(p: &mut Program) -> Done {
    for (name, bits) in [("its cache bits", 0x18), ("the lowest bit", 1), ("bit 11", 1 << 11)] {
        let at = p.label();
        p.case(&format!("#GP: CR4.PCIDE while CR3 has {name}"), fault_at(13, 0, at), |p| {
            load(p, FIRST, bits, false)?;
            p.a.mov(rax, cr4)?;
            p.a.or(eax, PCIDE as i32)?;
            p.here(at)?;
            p.a.mov(cr4, rax)
        })?;
    }
    load(p, FIRST, 0, false)?;
    p.case("#GP: CR3 bit 63 without CR4.PCIDE", fault(13, 0), |p| load(p, FIRST, 0, true))?;
    p.case("CR4.PCIDE from the first identifier", vec![no_fault()], |p| set_control(p, PCIDE | PGE, 0))?;
    let checks = vec![no_fault(), number("CR3", record::result(0), u64::from(FIRST | 0xabc))];
    p.case("CR3 keeps the identifier, and not bit 63", checks, |p| {
        load(p, FIRST, 0xabc, true)?;
        p.a.mov(rax, cr3)?;
        p.a.mov(qword_ptr(record::result(0)), rax)
    })?;
    for bit in [51, 62] {
        p.case(&format!("#GP: CR3 bit {bit}"), fault(13, 0), |p| {
            p.a.mov(rax, u64::from(FIRST) | 1 << bit)?;
            p.a.mov(cr3, rax)
        })?;
    }
    let leave = p.code(32, |a| a.mov(cr0, eax))?;
    let mut checks = fault(13, 0);
    checks.extend([dword("instruction pointer", record::IP, leave), dword("CS", record::CS, selector::CODE_32.into())]);
    p.case("#GP: the end of paging while identifiers are on", checks, |p| {
        p.a.mov(rax, cr0)?;
        p.a.btr(eax, 31)?;
        p.a.push(i32::from(selector::CODE_32))?;
        p.a.push(leave as i32)?;
        p.a.add_instruction(Instruction::with(Code::Retfq))
    })
}

/// No translation of one identifier serves another.
fn apart(p: &mut Program, look: CodeLabel) -> Done {
    let found = [(0, OLD), (3, OF_SECOND), (6, OLD), (9, OF_SECOND), (12, OLD)];
    p.case("two address spaces in turns", looks(&found), |p| {
        map(p, OWN_FIRST, OLD, 0)?;
        map(p, OWN_SECOND, OF_SECOND, 0)?;
        afresh(p)?;
        for (number, (index, _)) in found.iter().enumerate() {
            let root = if number % 2 == 0 { FIRST } else { SECOND };
            load(p, root, 1 + number as u32 % 2, number > 1)?;
            look_at(p, look, OWN, *index)?;
        }
        Ok(())
    })?;
    p.case("bit 63 for an identifier that was never used", looks(&[(0, OF_SECOND)]), |p| {
        afresh(p)?;
        look_at(p, look, OWN, UNSEEN)?;
        load(p, SECOND, 0xfff, true)?;
        look_at(p, look, OWN, 0)
    })?;
    p.case("the first identifier is one like others", looks(&[(0, OLD), (3, OF_SECOND), (6, OLD)]), |p| {
        afresh(p)?;
        for (index, root, identifier) in [(0, FIRST, 0), (3, SECOND, 2), (6, FIRST, 0)] {
            load(p, root, identifier, true)?;
            look_at(p, look, OWN, index)?;
        }
        Ok(())
    })
}

/// A page of the running address space.
fn own_page(p: &mut Program, name: &str, look: CodeLabel, step: impl FnOnce(&mut Program) -> Done) -> Done {
    p.case(&format!("{name}: a page of the running address space"), looks(&[(0, NEW)]), |p| {
        map(p, OWN_FIRST, OLD, 0)?;
        afresh(p)?;
        look_at(p, look, OWN, UNSEEN)?;
        map(p, OWN_FIRST, NEW, 0)?;
        step(p)?;
        look_at(p, look, OWN, 0)
    })
}

fn global_page(p: &mut Program, name: &str, look: CodeLabel, step: impl FnOnce(&mut Program) -> Done) -> Done {
    p.case(&format!("{name}: a global page"), looks(&[(0, NEW)]), |p| {
        map(p, BOTH, OLD, GLOBAL)?;
        afresh(p)?;
        look_at(p, look, SHARED, UNSEEN)?;
        map(p, BOTH, NEW, GLOBAL)?;
        step(p)?;
        look_at(p, look, SHARED, 0)
    })
}

/// INVLPG drops global translations, whatever identifier they were made under.
fn global_page_elsewhere(p: &mut Program, look: CodeLabel) -> Done {
    p.case("INVLPG: a global page of another identifier", looks(&[(0, NEW), (3, NEW)]), |p| {
        map(p, BOTH, OLD, GLOBAL)?;
        afresh(p)?;
        look_at(p, look, SHARED, UNSEEN)?;
        load(p, SECOND, 2, true)?;
        look_at(p, look, SHARED, UNSEEN)?;
        map(p, BOTH, NEW, GLOBAL)?;
        invalidate_page(p, SHARED)?;
        look_at(p, look, SHARED, 0)?;
        load(p, FIRST, 1, true)?;
        look_at(p, look, SHARED, 3)
    })
}

/// A page of the first address space, told from the second.
fn from_another(p: &mut Program, name: &str, look: CodeLabel, step: impl FnOnce(&mut Program) -> Done) -> Done {
    p.case(&format!("{name}: a page of another address space"), looks(&[(0, NEW)]), |p| {
        map(p, OWN_FIRST, OLD, 0)?;
        afresh(p)?;
        look_at(p, look, OWN, UNSEEN)?;
        load(p, SECOND, 2, true)?;
        look_at(p, look, OWN, UNSEEN)?;
        map(p, OWN_FIRST, NEW, 0)?;
        step(p)?;
        load(p, FIRST, 1, true)?;
        look_at(p, look, OWN, 0)
    })
}

/// A page of 2 MiB goes as a whole.
fn larger(p: &mut Program, name: &str, look: CodeLabel, step: impl FnOnce(&mut Program) -> Done) -> Done {
    p.case(&format!("{name}: elsewhere in a page of 2 MiB"), looks(&[(0, NEW_LARGE)]), |p| {
        map_large(p, OWN_FIRST, (OLD_LARGE & !0x1f_ffff) | LARGE)?;
        afresh(p)?;
        look_at(p, look, OWN, UNSEEN)?;
        map_large(p, OWN_FIRST, (NEW_LARGE & !0x1f_ffff) | LARGE)?;
        step(p)?;
        look_at(p, look, OWN, 0)
    })?;
    map_large(p, OWN_FIRST, OWN_FIRST + 0x2000)
}

/// What is known of tables goes with the page.
fn table(p: &mut Program, name: &str, look: CodeLabel, step: impl FnOnce(&mut Program) -> Done) -> Done {
    p.case(&format!("{name}: another table of the page"), looks(&[(0, NEW)]), |p| {
        map(p, OWN_FIRST, OLD, 0)?;
        p.a.mov(dword_ptr(OTHER_TABLE + 8 * 4), (NEW | 3) as i32)?;
        afresh(p)?;
        look_at(p, look, OWN, UNSEEN)?;
        map_large(p, OWN_FIRST, OTHER_TABLE)?;
        step(p)?;
        look_at(p, look, OWN, 0)
    })?;
    map_large(p, OWN_FIRST, OWN_FIRST + 0x2000)
}

fn invpcid(p: &mut Program, look: CodeLabel) -> Done {
    let kinds: [(&str, Step); 4] = [
        ("INVPCID of an address", |p| invalidate(p, 0, 1, OWN)),
        ("INVPCID of an identifier", |p| invalidate(p, 1, 1, 0)),
        ("INVPCID of all with global pages", |p| invalidate(p, 2, 0, 0)),
        ("INVPCID of all", |p| invalidate(p, 3, 0, 0)),
    ];
    for (name, step) in kinds {
        own_page(p, name, look, step)?;
        from_another(p, name, look, step)?;
        table(p, name, look, step)?;
        larger(p, name, look, step)?;
    }
    larger(p, "INVPCID of an address", look, |p| invalidate(p, 0, 1, OWN + 0x5000))?;
    global_page(p, "INVPCID of all with global pages", look, |p| invalidate(p, 2, 0, 0))?;
    load(p, FIRST, 0, false)?;
    for (name, kind, identifier, linear) in [
        ("a kind that is not there", 4, 0, 0),
        ("a kind with upper bits", 1 << 32, 0, 0),
        ("an identifier of 13 bits", 0, 0x1000, OWN),
        ("a reserved bit of an identifier alone", 1, 1 << 63, 0),
        ("a reserved bit with all and global pages", 2, 1 << 12, 0),
        ("a reserved bit with all", 3, 1 << 32, 0),
        ("an address that is not canonical", 0, 0, 1 << 62),
    ] {
        p.case(&format!("#GP: INVPCID of {name}"), fault(13, 0), |p| invalidate(p, kind, identifier, linear))?;
    }
    for (name, kind) in [("an identifier", 1), ("all with global pages", 2), ("all", 3)] {
        p.case(&format!("INVPCID of {name} asks nothing of the address"), vec![no_fault()], |p| {
            invalidate(p, kind, 5, 1 << 62)
        })?;
    }
    let mut checks = fault(14, 0);
    checks.push(number("CR2", record::CR2, UNMAPPED));
    p.case("#PF: INVPCID of what is not there", checks, |p| {
        p.a.mov(rbx, UNMAPPED)?;
        p.a.mov(eax, 2)?;
        p.a.invpcid(rax, xmmword_ptr(rbx))
    })?;
    let code = p.user(64, |a| {
        a.invpcid(rax, xmmword_ptr(USER))?;
        a.int(RETURN_VECTOR)
    })?;
    p.case("#GP: INVPCID at level 3", fault(13, 0), |p| p.enter_user(selector::USER_CODE_64, code, 2))?;
    set_control(p, 0, PCIDE)?;
    for (name, kind, identifier) in [("an address", 0, 1), ("an identifier", 1, 0xfff)] {
        let checks = fault(13, 0);
        p.case(&format!("#GP: without CR4.PCIDE: INVPCID of {name} of another"), checks, |p| {
            invalidate(p, kind, identifier, OWN)
        })?;
    }
    for (name, kind) in [("an address", 0), ("an identifier", 1), ("all with global pages", 2), ("all", 3)] {
        p.case(&format!("without CR4.PCIDE: INVPCID of {name}"), looks(&[(0, NEW)]), |p| {
            map(p, OWN_FIRST, OLD, 0)?;
            load(p, FIRST, 0, false)?;
            look_at(p, look, OWN, UNSEEN)?;
            map(p, OWN_FIRST, NEW, 0)?;
            invalidate(p, kind, 0, OWN)?;
            look_at(p, look, OWN, 0)
        })?;
    }
    Ok(())
}
