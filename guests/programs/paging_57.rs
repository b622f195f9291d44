//! Paging of five levels: how it is switched on and off, addresses of 57 bits, and the same cases as with four levels, against
//! the model in `paging_model.rs`. SDM vol. 3 §§ 2.5, 4.1.1, 4.5; Intel 335252, "5-Level Paging and 5-Level EPT".

use iced_x86::{Code, IcedError, Instruction, MemoryOperand, code_asm::*};

use super::{
    Done,
    layout::{SCRATCH, TABLES, record, selector},
    paging_cases::{Form, group, prepare, routine, say_what_was_left_out},
    paging_model::Format,
    program::{Program, dword, fault, fault_at, no_fault, number},
};

/// The root of five levels; its first entry is the root of four.
const ROOT: u32 = SCRATCH + 0x8000;
/// Tables of the mapping under test.
const FOURTH: u32 = SCRATCH + 0x9000;
const POINTERS: u32 = SCRATCH + 0xa000;
const DIRECTORY: u32 = SCRATCH + 0xb000;
const TABLE: u32 = SCRATCH + 0xc000;
/// Numbers in the root, of both halves of the address space.
const LOWER: u32 = 0xf0;
const UPPER: u32 = 0x1f0;
/// The mapping below the root.
const BELOW: u64 = 1 << 39 | 2 << 30 | 3 << 21 | 4 << 12 | 0x10;
/// CR4.LA57.
const LA57: u32 = 1 << 12;

const LOW: Form = Form {
    format: Format::FiveLevels,
    linear: (LOWER as u64) << 48 | BELOW,
    root: ROOT,
    places: &[ROOT + 8 * LOWER, FOURTH + 8, POINTERS + 2 * 8, DIRECTORY + 3 * 8, TABLE + 4 * 8],
    cr0: 0x8000_0033,
    cr4: 0x620 | LA57,
    efer: 0x501,
};

const HIGH: Form = Form {
    linear: !0 << 57 | (UPPER as u64) << 48 | BELOW,
    places: &[ROOT + 8 * UPPER, FOURTH + 8, POINTERS + 2 * 8, DIRECTORY + 3 * 8, TABLE + 4 * 8],
    ..LOW
};

pub fn write() -> Result<Vec<u8>, IcedError> {
    let mut p = Program::new(64)?;
    let (absent, end) = (p.label(), p.label());
    p.a.mov(dword_ptr(ROOT), (TABLES | 7) as i32)?;
    p.a.xor(eax, eax)?;
    p.a.cpuid()?;
    p.a.cmp(eax, 7)?;
    p.a.jb(absent)?;
    p.a.mov(eax, 7)?;
    p.a.xor(ecx, ecx)?;
    p.a.cpuid()?;
    p.a.bt(ecx, 16)?;
    p.a.jnc(absent)?;
    held(&mut p, "on")?;
    four(&mut p, "before")?;
    p.case(
        "five levels are switched on without paging",
        vec![no_fault(), dword("CR4", record::result(0), LOW.cr4)],
        |p| {
            choose(p, true)?;
            p.a.mov(rax, cr4)?;
            p.keep(0, eax)
        },
    )?;
    held(&mut p, "off")?;
    addresses(&mut p)?;
    let accesses = prepare(&mut p)?;
    for (name, form) in [("lower half", LOW), ("upper half", HIGH)] {
        let run = routine(&mut p, &form, accesses)?;
        for (size, last) in [("4 KiB", 4), ("2 MiB", 3), ("1 GiB", 2)] {
            group(&mut p, &format!("{name}, rights to pages of {size}"), &form, &form.matrix(last), run)?;
        }
        for seed in 200..202 {
            group(&mut p, &format!("{name}, walks by chance, seed {seed}"), &form, &form.chance(seed, 750), run)?;
        }
    }
    p.case("and off again", vec![no_fault(), dword("CR4", record::result(0), LOW.cr4 & !LA57)], |p| {
        choose(p, false)?;
        p.a.mov(rax, cr4)?;
        p.keep(0, eax)
    })?;
    four(&mut p, "afterwards")?;
    say_what_was_left_out(&mut p)?;
    p.a.jmp(end)?;
    p.at(absent)?;
    p.case("#GP: CR4.LA57 where CPUID does not offer it", fault(13, 0), |p| {
        p.a.mov(rax, cr4)?;
        p.a.or(eax, LA57 as i32)?;
        p.a.mov(cr4, rax)
    })?;
    p.at(end)?;
    p.end()
}

/// Goes to code of 32 bits at `address`, in compatibility mode.
fn to_compatibility_mode(p: &mut Program, address: u32) -> Done {
    p.a.push(i32::from(selector::CODE_32))?;
    p.a.push(address as i32)?;
    p.a.add_instruction(Instruction::with(Code::Retfq))
}

/// Leaves long mode, changes the levels, and comes back.
fn choose(p: &mut Program, five: bool) -> Done {
    let back = p.label();
    let pointer = p.address_of(back);
    let code = p.code(32, |a| {
        a.mov(eax, cr0)?;
        a.and(eax, 0x7fff_ffff)?;
        a.mov(cr0, eax)?;
        a.mov(eax, cr4)?;
        a.xor(eax, LA57 as i32)?;
        a.mov(cr4, eax)?;
        a.mov(eax, if five { ROOT } else { TABLES })?;
        a.mov(cr3, eax)?;
        a.mov(eax, cr0)?;
        a.or(eax, 0x8000_0000_u32 as i32)?;
        a.mov(cr0, eax)?;
        a.add_instruction(Instruction::with1(Code::Jmp_m1632, MemoryOperand::with_displ(pointer.into(), 4))?)
    })?;
    p.a.mov(dword_ptr(pointer + 4), i32::from(selector::CODE_64))?;
    to_compatibility_mode(p, code)?;
    p.at(back)
}

/// In long mode the levels stay as they are.
fn held(p: &mut Program, change: &str) -> Done {
    let at = p.label();
    p.case(&format!("#GP: five levels {change} in 64-bit mode"), fault_at(13, 0, at), |p| {
        p.a.mov(rax, cr4)?;
        p.a.xor(eax, LA57 as i32)?;
        p.here(at)?;
        p.a.mov(cr4, rax)
    })?;
    let code = p.code(32, |a| a.mov(cr4, eax))?;
    let mut checks = fault(13, 0);
    checks.extend([dword("instruction pointer", record::IP, code), dword("CS", record::CS, selector::CODE_32.into())]);
    p.case(&format!("#GP: five levels {change} in compatibility mode"), checks, |p| {
        p.a.mov(rax, cr4)?;
        p.a.xor(eax, LA57 as i32)?;
        to_compatibility_mode(p, code)
    })
}

fn read(p: &mut Program, address: u64) -> Done {
    p.a.mov(rbx, address)?;
    p.a.mov(al, byte_ptr(rbx))
}

/// With four levels addresses have 48 bits; what registers hold has 57 all the same.
fn four(p: &mut Program, when: &str) -> Done {
    for address in [1 << 47, 1 << 48, 1 << 55, 0xffff_0000_0000_0000, LOW.linear, HIGH.linear] {
        p.case(&format!("#GP: four levels, {when}: {address:#x}"), fault(13, 0), |p| read(p, address))?;
    }
    let mut checks = fault(14, 0);
    checks.push(number("CR2", record::CR2, 0xffff_8000_0000_0000));
    p.case(&format!("#PF: four levels, {when}: the upper half"), checks, |p| read(p, 0xffff_8000_0000_0000))
}

fn addresses(p: &mut Program) -> Done {
    for address in [1 << 47, 1 << 48, 1 << 55, 0xff_ffff_ffff_ffff, 0xff00_0000_0000_0000, 0xffff_7fff_ffff_ffff] {
        let mut checks = fault(14, 0);
        checks.push(number("CR2", record::CR2, address));
        p.case(&format!("#PF: five levels: a read of {address:#x}"), checks, |p| read(p, address))?;
    }
    let mut checks = fault(14, 2);
    checks.push(number("CR2", record::CR2, 1 << 54));
    p.case("#PF: five levels: a write", checks, |p| {
        p.a.mov(rbx, 1_u64 << 54)?;
        p.a.mov(byte_ptr(rbx), al)
    })?;
    for address in [1 << 56, 1 << 57, 1 << 63, 0xfeff_ffff_ffff_ffff, 0x100_0000_0000_0000, 0xfe00_0000_0000_0000] {
        p.case(&format!("#GP: five levels: a read of {address:#x}"), fault(13, 0), |p| read(p, address))?;
    }
    p.case("#SS: five levels: a read by RBP", fault(12, 0), |p| {
        p.a.mov(rbp, 1_u64 << 56)?;
        p.a.mov(al, byte_ptr(rbp))
    })?;
    // NXE is on: the code says that it was a fetch.
    let mut checks = fault(14, 0x10);
    checks.extend([number("CR2", record::CR2, 1 << 50), number("RIP", record::IP, 1 << 50)]);
    p.case("#PF: five levels: a jump to what is not there", checks, |p| {
        p.a.mov(rbx, 1_u64 << 50)?;
        p.a.jmp(rbx)
    })?;
    let at = p.label();
    p.case("#GP: five levels: a jump to what is not canonical", fault_at(13, 0, at), |p| {
        p.a.mov(rbx, 1_u64 << 56)?;
        p.here(at)?;
        p.a.jmp(rbx)
    })?;
    let at = p.label();
    p.case("#GP: five levels: IRET to what is not canonical", fault_at(13, 0, at), |p| {
        p.a.mov(rdx, rsp)?;
        p.a.mov(rbx, 1_u64 << 56)?;
        p.a.push(i32::from(selector::DATA))?;
        p.a.push(rdx)?;
        p.a.push(2)?;
        p.a.push(i32::from(selector::CODE_64))?;
        p.a.push(rbx)?;
        p.here(at)?;
        p.a.iretq()
    })?;
    // The address after which SYSCALL goes on.
    const LSTAR: u32 = 0xc000_0082;
    p.case("five levels: MSRs hold addresses of 57 bits", vec![no_fault()], |p| p.write_msr(LSTAR, 1 << 55))?;
    p.case("#GP: five levels: and no others", fault(13, 0), |p| p.write_msr(LSTAR, 1 << 56))?;
    for address in [1_u64 << 55, 1 << 56] {
        p.case(&format!("five levels: INVLPG of {address:#x}"), vec![no_fault()], |p| {
            p.a.mov(rbx, address)?;
            p.a.invlpg(ptr(rbx))
        })?;
    }
    Ok(())
}
