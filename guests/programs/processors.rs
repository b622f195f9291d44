//! Starting the other processors, and having them work. SDM vol. 3 § 9.4; fw_cfg for how many there are.

use iced_x86::{Code, IcedError, Instruction, code_asm::*};

use super::{
    Done,
    layout::{GDT, IDT, SCRATCH, TABLES, selector, variable},
    program::{Program, assemble},
};

const TRAMPOLINE: u32 = 0x8000;
/// Ends of the processors' stacks, from that of number 1 on.
const STACKS: u32 = SCRATCH + 0x80_0000;
/// Variables.
pub const COUNT: u32 = variable::OWN;
const ARRIVED: u32 = variable::OWN + 4;
const GENERATION: u32 = variable::OWN + 8;
const FINISHED: u32 = variable::OWN + 12;
/// What each processor is to call, 8 bytes each.
const WORK: u32 = variable::OWN + 0x20;
const BARRIER: u32 = variable::OWN + 16;

pub const ICR_LOW: u32 = 0xfee0_0300;
pub const ICR_HIGH: u32 = 0xfee0_0310;

/// Stores a number into a register of the local APIC.
pub fn apic_write(p: &mut Program, register: u32, value: u32) -> Done {
    p.a.mov(eax, register)?;
    p.a.mov(dword_ptr(eax), value as i32)
}

/// Reads a register of the local APIC into EAX.
pub fn apic_read(p: &mut Program, register: u32) -> Done {
    p.a.mov(eax, register)?;
    p.a.mov(eax, dword_ptr(eax))
}

/// Starts all other processors, which then wait for work; the number of all is at [`COUNT`].
pub fn start(p: &mut Program) -> Done {
    // Item 5 is how many processors there are.
    p.a.mov(edx, 0x510)?;
    p.a.mov(eax, 5)?;
    p.a.out(dx, ax)?;
    p.a.inc(edx)?;
    p.a.in_(al, dx)?;
    p.a.movzx(ecx, al)?;
    p.a.mov(dword_ptr(COUNT), ecx)?;
    let trampoline = trampoline(p)?;
    p.copy(&trampoline, TRAMPOLINE)?;
    p.a.mov(dword_ptr(ARRIVED), 1)?;
    apic_write(p, 0xfee0_00f0, 0x1ff)?;
    // INIT and start-up, to all but oneself.
    apic_write(p, ICR_LOW, 0x000c_4500)?;
    apic_write(p, ICR_LOW, 0x000c_4600 | TRAMPOLINE >> 12)?;
    let wait = p.label();
    p.here(wait)?;
    p.a.pause()?;
    p.a.mov(eax, dword_ptr(ARRIVED))?;
    p.a.cmp(eax, dword_ptr(COUNT))?;
    p.a.jb(wait)
}

/// From real mode to where work is waited for.
fn trampoline(p: &mut Program) -> Result<Vec<u8>, IcedError> {
    let (waits, over) = (p.label(), p.label());
    let there = p.address_of(waits);
    let idt = p.pointer(0xfff, IDT);
    let long = p.code(64, |a| {
        a.mov(eax, u32::from(selector::DATA))?;
        for segment in [ds, es, ss] {
            a.mov(segment, ax)?;
        }
        a.lidt(ptr(idt))?;
        a.jmp(qword_ptr(there))
    })?;
    let protected = p.code(32, |a| {
        a.mov(eax, u32::from(selector::DATA))?;
        a.mov(ds, ax)?;
        a.mov(eax, 0x620)?;
        a.mov(cr4, eax)?;
        a.mov(eax, TABLES)?;
        a.mov(cr3, eax)?;
        a.mov(ecx, 0xc000_0080_u32)?;
        a.rdmsr()?;
        a.or(eax, 0x901)?;
        a.wrmsr()?;
        a.mov(eax, 0x8000_0033_u32)?;
        a.mov(cr0, eax)?;
        a.add_instruction(Instruction::with_far_branch(Code::Jmp_ptr1632, selector::CODE_64, long)?)
    })?;
    // The number of each is its place in the order of arrival.
    p.a.jmp(over)?;
    p.at(waits)?;
    p.a.mov(eax, 1)?;
    p.a.lock().xadd(dword_ptr(ARRIVED), eax)?;
    p.a.mov(r15d, eax)?;
    p.a.shl(eax, 16)?;
    p.a.add(eax, STACKS as i32)?;
    p.a.mov(esp, eax)?;
    apic_write(p, 0xfee0_00f0, 0x1ff)?;
    p.a.xor(r14d, r14d)?;
    let again = p.label();
    p.at(again)?;
    p.a.pause()?;
    p.a.mov(eax, dword_ptr(GENERATION))?;
    p.a.cmp(eax, r14d)?;
    p.a.je(again)?;
    p.a.mov(r14d, eax)?;
    p.a.call(qword_ptr(r15 * 8 + WORK))?;
    p.a.lock().inc(dword_ptr(FINISHED))?;
    p.a.jmp(again)?;
    p.at(over)?;
    let pointer_at = TRAMPOLINE + 0x40;
    let mut bytes = assemble(16, TRAMPOLINE, |a| {
        a.cli()?;
        a.xor(ax, ax)?;
        a.mov(ds, ax)?;
        a.add_instruction(Instruction::with1(
            Code::Lgdt_m1632_16,
            iced_x86::MemoryOperand::with_displ(pointer_at.into(), 2),
        )?)?;
        a.mov(eax, cr0)?;
        a.or(eax, 1)?;
        a.mov(cr0, eax)?;
        a.add_instruction(Instruction::with_far_branch(Code::Jmp_ptr1632, selector::CODE_32, protected)?)
    })?;
    assert!(bytes.len() <= 0x40, "{} bytes", bytes.len());
    bytes.resize(0x40, 0);
    bytes.extend((selector::END - 1).to_le_bytes());
    bytes.extend(GDT.to_le_bytes());
    Ok(bytes)
}

/// Has the processors call routines, this one the first of them; those without one call `idle`.
pub fn run(p: &mut Program, routines: &[CodeLabel], idle: CodeLabel) -> Done {
    for number in 0..8 {
        let routine = routines.get(number as usize).copied().unwrap_or(idle);
        let address = p.address_of(routine);
        p.a.mov(eax, dword_ptr(address))?;
        p.a.mov(dword_ptr(WORK + 8 * number), eax)?;
    }
    p.a.mov(dword_ptr(FINISHED), 0)?;
    p.a.mov(dword_ptr(BARRIER), 0)?;
    p.a.lock().inc(dword_ptr(GENERATION))?;
    p.a.call(qword_ptr(WORK))?;
    let wait = p.label();
    p.a.mov(ecx, dword_ptr(COUNT))?;
    p.a.dec(ecx)?;
    p.here(wait)?;
    p.a.pause()?;
    p.a.mov(eax, dword_ptr(FINISHED))?;
    p.a.cmp(eax, ecx)?;
    p.a.jb(wait)
}

/// Waits until `count` processors are here.
pub fn meet(p: &mut Program, count: u32) -> Done {
    let wait = p.label();
    p.a.lock().inc(dword_ptr(BARRIER))?;
    p.here(wait)?;
    p.a.pause()?;
    p.a.cmp(dword_ptr(BARRIER), count as i32)?;
    p.a.jb(wait)
}
