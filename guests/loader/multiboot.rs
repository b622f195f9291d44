//! The option ROM that starts a multiboot program: it fetches a workspace, writes the firmware's map of memory into the
//! information there, and from 32-bit code fetches the parts to where they go.
//!
//! Source: Multiboot Specification 0.6.96 § 3.2 and § 3.3; ACPI 5.0 § 15.1 for the firmware's map.

use iced_x86::{Code, IcedError, Instruction, code_asm::*};

use super::{CODE, DMA_HIGH, DMA_LOW, Done, KERNEL, READ, Routines, SELECT_AND_READ, SETUP, finish, header};

const BLOCKS: u8 = 2;
/// Where in the ROM the 32-bit code is.
const CODE_32: u32 = 0x200;

/// Bytes below the workspace that are the stack; segments start there.
const STACK: u32 = 0x400;

/// The workspace, by offsets from the segments' start. Who offers the program makes it so.
mod workspace {
    use super::STACK;

    /// The descriptor of a transfer.
    pub(super) const TRANSFER: u32 = STACK;
    /// Behind the descriptors of segments: limit and address of their table.
    pub(super) const TABLE_REGISTER: u32 = STACK + 0x28;
    pub(super) const ENTRY: u32 = STACK + 0x30;
    pub(super) const INFORMATION_ADDRESS: u32 = STACK + 0x34;
    /// The address of the parts: for each its own address, its bytes in the file, and those in memory, 32 bits each. One of no
    /// bytes in memory ends them.
    pub(super) const PARTS_ADDRESS: u32 = STACK + 0x38;
    /// The map of memory, as § 3.3 has it.
    pub(super) const MAP: u32 = STACK + 0x40;
    pub(super) const RANGE: u32 = 24;
    pub(super) const RANGES: u32 = 128;
    /// The information structure.
    pub(super) const INFORMATION: u32 = MAP + RANGE * RANGES;
}

/// Offsets in the information structure (§ 3.3).
const LOWER: u32 = 4;
const UPPER: u32 = 8;
const MAP_LENGTH: u32 = 44;

/// Selectors of flat 32-bit segments.
const FLAT_CODE: u32 = 8;
const FLAT_DATA: u32 = 0x10;

/// What EAX has at the start (§ 3.2).
const LOADER_MAGIC: u32 = 0x2bad_b002;

/// What asks the firmware for its map of memory, and is its answer.
const QUERY: u32 = 0xe820;
const SIGNATURE: u32 = 0x534d_4150;

/// Up to where the 32-bit code takes over.
fn real_mode() -> Result<CodeAssembler, IcedError> {
    let mut a = CodeAssembler::new(16)?;
    let routines = Routines::new(&mut a);
    a.cli()?;
    a.cld()?;
    a.mov(ax, SETUP.address)?;
    a.call(routines.number)?;
    a.sub(eax, STACK as i32)?;
    a.shr(eax, 4)?;
    a.mov(ss, ax)?;
    a.mov(sp, STACK - 16)?;
    a.mov(bp, sp)?;
    a.mov(ds, ax)?;
    a.mov(es, ax)?;
    routines.call_fetch(&mut a, SETUP)?;
    // Addresses are not cut from now on.
    a.mov(ax, 0x2401_u32)?;
    a.int(0x15)?;
    memory_map(&mut a)?;
    a.cli()?;
    a.xor(ebp, ebp)?;
    a.mov(bp, ds)?;
    a.shl(ebp, 4)?;
    a.xor(eax, eax)?;
    a.mov(ax, cs)?;
    a.shl(eax, 4)?;
    a.add(eax, CODE_32 as i32)?;
    a.mov(ecx, FLAT_CODE)?;
    a.push(ecx)?;
    a.push(eax)?;
    a.lgdt(ptr(workspace::TABLE_REGISTER))?;
    a.mov(eax, cr0)?;
    a.or(al, 1)?;
    a.mov(cr0, eax)?;
    a.add_instruction(Instruction::with(Code::Retfd))?;
    routines.place(&mut a)?;
    Ok(a)
}

/// Asks the firmware for its map, and writes that and what follows from it into the information.
fn memory_map(a: &mut CodeAssembler) -> Done {
    let (mut next, mut other, mut high, mut mapped) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    // A range stands behind its length.
    let first = workspace::MAP + 4;
    a.xor(ebx, ebx)?;
    a.mov(di, first)?;
    a.set_label(&mut next)?;
    a.mov(eax, QUERY)?;
    a.mov(edx, SIGNATURE)?;
    a.mov(ecx, 20_u32)?;
    a.int(0x15)?;
    a.jc(mapped)?;
    a.cmp(eax, SIGNATURE as i32)?;
    a.jne(mapped)?;
    a.mov(dword_ptr(di - 4), 20)?;
    // Usable memory from 0 on, and from 1 MiB on.
    a.cmp(dword_ptr(di + 16), 1)?;
    a.jne(other)?;
    a.cmp(dword_ptr(di + 4), 0)?;
    a.jne(other)?;
    a.mov(eax, dword_ptr(di + 8))?;
    a.shr(eax, 10)?;
    a.cmp(dword_ptr(di), 0)?;
    a.jne(high)?;
    a.mov(dword_ptr(workspace::INFORMATION + LOWER), eax)?;
    a.set_label(&mut high)?;
    a.cmp(dword_ptr(di), 0x10_0000)?;
    a.jne(other)?;
    a.mov(dword_ptr(workspace::INFORMATION + UPPER), eax)?;
    a.set_label(&mut other)?;
    a.add(di, workspace::RANGE as i32)?;
    a.cmp(di, (first + workspace::RANGE * workspace::RANGES) as i32)?;
    a.jae(mapped)?;
    a.test(ebx, ebx)?;
    a.jnz(next)?;
    a.set_label(&mut mapped)?;
    a.sub(di, first as i32)?;
    a.movzx(eax, di)?;
    a.mov(dword_ptr(workspace::INFORMATION + MAP_LENGTH), eax)
}

/// EBP is the address of the segments' start.
fn protected_mode() -> Result<CodeAssembler, IcedError> {
    let mut a = CodeAssembler::new(32)?;
    let (mut part, mut rest, mut start, mut failed) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    a.mov(eax, FLAT_DATA)?;
    for segment in [ds, es, fs, gs, ss] {
        a.mov(segment, ax)?;
    }
    a.lea(esp, dword_ptr(ebp + STACK))?;
    // Firmware leaves the register of the local table as it was at reset, which is one with descriptors.
    a.xor(eax, eax)?;
    a.lldt(ax)?;
    a.mov(esi, dword_ptr(ebp + workspace::PARTS_ADDRESS))?;
    // The parts follow each other in one item, which is selected once.
    a.mov(ebx, KERNEL.data << 16 | SELECT_AND_READ)?;
    a.set_label(&mut part)?;
    a.mov(edi, dword_ptr(esi))?;
    a.mov(ecx, dword_ptr(esi + 4))?;
    a.mov(edx, dword_ptr(esi + 8))?;
    a.add(esi, 12)?;
    a.test(edx, edx)?;
    a.jz(start)?;
    a.sub(edx, ecx)?;
    a.push(edx)?;
    a.jecxz(rest)?;
    for (offset, value) in [(12, edi), (4, ecx), (0, ebx)] {
        a.mov(eax, value)?;
        a.bswap(eax)?;
        a.mov(dword_ptr(ebp + workspace::TRANSFER + offset), eax)?;
    }
    a.mov(dword_ptr(ebp + workspace::TRANSFER + 8_u32), 0)?;
    a.mov(ebx, READ)?;
    a.xor(eax, eax)?;
    a.mov(edx, DMA_HIGH)?;
    a.out(dx, eax)?;
    a.lea(eax, dword_ptr(ebp + workspace::TRANSFER))?;
    a.bswap(eax)?;
    a.mov(edx, DMA_LOW)?;
    a.out(dx, eax)?;
    a.test(byte_ptr(ebp + workspace::TRANSFER + 3_u32), 1)?;
    a.jnz(failed)?;
    a.add(edi, ecx)?;
    a.set_label(&mut rest)?;
    // What the file does not have of it is zero.
    a.pop(ecx)?;
    a.xor(eax, eax)?;
    a.rep().stosb()?;
    a.jmp(part)?;
    a.set_label(&mut start)?;
    a.mov(eax, LOADER_MAGIC)?;
    a.mov(ebx, dword_ptr(ebp + workspace::INFORMATION_ADDRESS))?;
    a.jmp(dword_ptr(ebp + workspace::ENTRY))?;
    // The firmware cannot go on any more.
    a.set_label(&mut failed)?;
    a.hlt()?;
    a.jmp(failed)?;
    Ok(a)
}

/// The ROM's bytes.
pub fn assemble() -> Result<Vec<u8>, IcedError> {
    let mut rom = header(BLOCKS, b"Multiboot of -kernel\0");
    rom.extend(real_mode()?.assemble(CODE.into())?);
    assert!(rom.len() <= CODE_32 as usize, "the 16-bit code is too long: {}", rom.len());
    rom.resize(CODE_32 as usize, 0);
    rom.extend(protected_mode()?.assemble(CODE_32.into())?);
    Ok(finish(rom, BLOCKS))
}
