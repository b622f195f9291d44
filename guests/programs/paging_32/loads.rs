//! What 32-bit paging keeps in the processor, the four pointers of three levels, and what CR4.PSE makes of entries of two
//! levels. SDM vol. 3 § 4.3, 4.4.1.

use iced_x86::code_asm::*;

use super::{LEGACY, PAE, ROOT, tables};
use crate::programs::{
    Done,
    layout::record,
    paging_cases::ALL,
    paging_model::{FRAME, PS},
    program::{Program, dword, fault, fault_at, no_fault, number},
};

const PAGING: u32 = 1 << 31;
const PGE: u32 = 1 << 7;
/// CR4 without PSE and PAE.
const PLAIN: u32 = 0x600;
/// Where in a page the marks are, and what they are.
const OFFSET: u32 = 0x20;
const MARK: u32 = 0x600d_600d;
const OTHER_MARK: u32 = 0x0bad_0bad;
/// The page in the last quarter of the address space, by three levels.
const WIDE: u32 = 0xc000_4000 + OFFSET;
/// The same by two.
const NARROW: u32 = 0xc020_4000 + OFFSET;
/// Small pages for the first 4 MiB.
const SMALL: u32 = ROOT + 0x4000;

pub fn write(p: &mut Program) -> Done {
    p.a.mov(dword_ptr(FRAME as u32 + OFFSET), MARK as i32)?;
    pointers(p)?;
    page_sizes(p)?;
    off(p)
}

/// Turns paging on, with what `cr4` says.
fn on(p: &mut Program, cr4_bits: u32) -> Done {
    p.a.mov(eax, cr4_bits)?;
    p.a.mov(cr4, eax)?;
    p.a.mov(eax, ROOT)?;
    p.a.mov(cr3, eax)?;
    p.a.mov(eax, cr0)?;
    p.a.or(eax, PAGING as i32)?;
    p.a.mov(cr0, eax)
}

fn off(p: &mut Program) -> Done {
    p.a.mov(eax, cr0)?;
    p.a.and(eax, !PAGING as i32)?;
    p.a.mov(cr0, eax)
}

/// Writes the last of the four pointers, in the table at `table`.
fn set_pointer(p: &mut Program, table: u32, value: u64) -> Done {
    p.a.mov(dword_ptr(table + 24), value as i32)?;
    p.a.mov(dword_ptr(table + 28), (value >> 32) as i32)
}

fn pointers(p: &mut Program) -> Done {
    const GOOD: u64 = (ROOT + 0x2000) as u64 | 1;
    tables(p, PAE.format)?;
    p.a.mov(dword_ptr(ROOT + 0x2000), ((ROOT + 0x3000) | ALL as u32) as i32)?;
    p.a.mov(dword_ptr(ROOT + 0x3000 + 8 * 4), (FRAME | ALL) as i32)?;
    set_pointer(p, ROOT, GOOD)?;
    on(p, PAE.cr4)?;
    let seen = || vec![no_fault(), dword("what is read", record::result(0), MARK)];
    let look = |p: &mut Program| {
        p.a.mov(ecx, dword_ptr(WIDE))?;
        p.keep(0, ecx)
    };
    p.case("three levels: pointers are those that were loaded with CR3", seen(), |p| {
        set_pointer(p, ROOT, 0)?;
        p.a.mov(ebx, WIDE)?;
        p.a.invlpg(ptr(ebx))?;
        look(p)
    })?;
    let mut checks = fault(14, 0);
    checks.push(number("CR2", record::CR2, WIDE.into()));
    p.case("#PF: three levels: and others once CR3 is loaded", checks, |p| {
        p.a.mov(eax, ROOT)?;
        p.a.mov(cr3, eax)?;
        look(p)
    })?;
    for bit in [1, 2, 5, 8, 63] {
        set_pointer(p, ROOT, GOOD)?;
        p.a.mov(eax, ROOT)?;
        p.a.mov(cr3, eax)?;
        let at = p.label();
        p.case(&format!("#GP: three levels: CR3 with bit {bit} of a pointer"), fault_at(13, 0, at), |p| {
            set_pointer(p, ROOT, GOOD | 1 << bit)?;
            p.a.mov(eax, ROOT)?;
            p.here(at)?;
            p.a.mov(cr3, eax)
        })?;
        p.case(&format!("three levels: nothing of that was loaded, bit {bit}"), seen(), look)?;
        p.case(&format!("three levels: CR3 with bit {bit} of a pointer that is not present"), vec![no_fault()], |p| {
            set_pointer(p, ROOT, GOOD & !1 | 1 << bit)?;
            p.a.mov(eax, ROOT)?;
            p.a.mov(cr3, eax)
        })?;
    }
    for bit in [3, 4, 9, 11] {
        p.case(&format!("three levels: bit {bit} of a pointer says nothing"), seen(), |p| {
            set_pointer(p, ROOT, GOOD | 1 << bit)?;
            p.a.mov(eax, ROOT)?;
            p.a.mov(cr3, eax)?;
            look(p)
        })?;
    }
    let at = p.label();
    p.case("#GP: three levels: CR4.PGE with a bad pointer", fault_at(13, 0, at), |p| {
        set_pointer(p, ROOT, GOOD | 1 << 1)?;
        p.a.mov(eax, PAE.cr4 | PGE)?;
        p.here(at)?;
        p.a.mov(cr4, eax)
    })?;
    off(p)?;
    let at = p.label();
    p.case("#GP: three levels: CR0.PG with a bad pointer", fault_at(13, 0, at), |p| {
        p.a.mov(eax, cr0)?;
        p.a.or(eax, PAGING as i32)?;
        p.here(at)?;
        p.a.mov(cr0, eax)
    })?;
    p.case("three levels: a table of pointers at a multiple of 32", seen(), |p| {
        for word in 0..6 {
            p.a.mov(eax, dword_ptr(ROOT + 4 * word))?;
            p.a.mov(dword_ptr(ROOT + 0x20 + 4 * word), eax)?;
        }
        set_pointer(p, ROOT + 0x20, GOOD)?;
        set_pointer(p, ROOT, 0)?;
        on(p, PAE.cr4)?;
        p.a.mov(eax, ROOT + 0x20)?;
        p.a.mov(cr3, eax)?;
        look(p)
    })?;
    off(p)
}

fn page_sizes(p: &mut Program) -> Done {
    tables(p, LEGACY.format)?;
    p.a.mov(edi, SMALL)?;
    p.a.mov(eax, ALL as u32)?;
    p.a.mov(ecx, 0x400)?;
    let next = p.label();
    p.at(next)?;
    p.a.stosd()?;
    p.a.add(eax, 0x1000)?;
    p.a.dec(ecx)?;
    p.a.jnz(next)?;
    p.a.mov(dword_ptr(ROOT), (SMALL | ALL as u32) as i32)?;
    p.a.mov(dword_ptr(ROOT + 0x1000 + 4 * 0x204), (FRAME | ALL) as i32)?;
    p.a.mov(dword_ptr(ROOT + 0x20_4000 + OFFSET), OTHER_MARK as i32)?;
    // As a table it is that at ROOT + 0x1000, as a page the 4 MiB from ROOT on.
    let both = (ROOT + 0x1000) | (ALL | PS) as u32;
    for (name, cr4_bits, mark) in
        [("without CR4.PSE PS says nothing", PLAIN, MARK), ("with CR4.PSE it is a page", LEGACY.cr4, OTHER_MARK)]
    {
        let checks = vec![no_fault(), dword("what is read", record::result(0), mark)];
        p.case(&format!("two levels: {name}"), checks, |p| {
            p.a.mov(dword_ptr(ROOT + 4 * 0x300), both as i32)?;
            on(p, cr4_bits)?;
            p.a.mov(ecx, dword_ptr(NARROW))?;
            p.keep(0, ecx)?;
            off(p)
        })?;
    }
    let absent = p.label();
    p.a.mov(eax, 1)?;
    p.a.cpuid()?;
    p.a.bt(edx, 17)?;
    p.a.jnc(absent)?;
    // Where this machine has no memory.
    let checks = vec![no_fault(), dword("whether the lower memory was read", record::result(0), 0)];
    p.case("two levels: bit 13 of a page is bit 32 of its address", checks, |p| {
        let large = FRAME & !0x3f_ffff | ALL | PS | 1 << 13;
        p.a.mov(dword_ptr(ROOT + 4 * 0x300), large as i32)?;
        on(p, LEGACY.cr4)?;
        p.a.xor(eax, eax)?;
        p.a.cmp(dword_ptr(NARROW), MARK as i32)?;
        p.a.sete(al)?;
        p.keep(0, eax)?;
        off(p)
    })?;
    p.at(absent)
}
