//! An option ROM that starts Linux through its 16-bit entry, after firmware: it fetches what the fw_cfg device offers.
//!
//! Source: BIOS Boot Specification 1.01, appendix A and § 3.3 for the ROM's headers; Linux `Documentation/arch/x86/boot.rst`,
//! "Running the kernel"; the published interface of fw_cfg, with its DMA.

// The assembler's registers and memory operands are its vocabulary: dozens of short names.
#![allow(clippy::wildcard_imports)]

use iced_x86::{IcedError, code_asm::*};

/// Bytes of a block, in which a ROM's size is counted: this one has one.
const BLOCK: usize = 512;
/// Where in the ROM the header for Plug and Play is, the product's name, and the code.
const PLUG_AND_PLAY: u8 = 0x20;
const PRODUCT: u8 = 0x40;
const CODE: u8 = 0x60;

/// The segment in which the kernel's setup and the stack are, and the stack's top in it: what the kernel is told of its
/// heap ends below that.
const SEGMENT: u32 = 0x1000;
const STACK: u32 = 0xe000;
/// Bytes behind the kernel's boot sector's start at which it is entered, as a difference of segments.
const ENTRY: u32 = 0x20;

/// Ports of the fw_cfg device: selector, data, and the two halves of the address of a transfer.
const SELECTOR: u32 = 0x510;
const DMA_HIGH: u32 = 0x514;
const DMA_LOW: u32 = 0x518;
/// Control word of a transfer: select an item and read it. The answer's lowest bit says that it failed.
const SELECT_AND_READ: u32 = 8 | 2;

/// Items: where a part goes, how long it is, and what it is.
struct Part {
    address: u32,
    size: u32,
    data: u32,
}

const KERNEL: Part = Part { address: 0x07, size: 0x08, data: 0x11 };
const INITRD: Part = Part { address: 0x0a, size: 0x0b, data: 0x12 };
const COMMAND_LINE: Part = Part { address: 0x13, size: 0x14, data: 0x15 };
const SETUP: Part = Part { address: 0x16, size: 0x17, data: 0x18 };

fn header() -> Vec<u8> {
    let mut rom = vec![0x55, 0xaa, 1];
    // Firmware calls this to initialize the ROM: there is nothing to do.
    rom.push(0xcb);
    rom.resize(0x1a, 0);
    rom.extend([PLUG_AND_PLAY, 0]);
    rom.resize(PLUG_AND_PLAY.into(), 0);
    rom.extend(*b"$PnP");
    // Revision 1 of the structure, of two paragraphs; no other follows; reserved; its sum, made below.
    rom.extend([1, 2, 0, 0, 0, 0]);
    // No device, no maker; the product's name; the class of a boot device; it may boot.
    rom.extend([0, 0, 0, 0, 0, 0, PRODUCT, 0, 0, 0, 0, 0x04]);
    // No boot connection and no disconnection; the bootstrap entry.
    rom.extend([0, 0, 0, 0, CODE, 0]);
    rom.resize(PRODUCT.into(), 0);
    let sum = rom[PLUG_AND_PLAY.into()..].iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    rom[usize::from(PLUG_AND_PLAY) + 9] = sum.wrapping_neg();
    rom.extend(*b"Linux of -kernel\0");
    rom.resize(CODE.into(), 0);
    rom
}

/// The loader's code. BP points to 16 bytes of the stack, the descriptor of a transfer.
fn code() -> Result<CodeAssembler, IcedError> {
    let mut a = CodeAssembler::new(16)?;
    let (mut load, mut number, mut done, mut failed) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    let mut next = a.create_label();
    a.cli()?;
    a.cld()?;
    a.mov(ax, SEGMENT)?;
    a.mov(ss, ax)?;
    a.mov(sp, STACK - 16)?;
    a.mov(bp, sp)?;
    for Part { address, size, data } in [SETUP, COMMAND_LINE, KERNEL, INITRD] {
        a.mov(bx, address)?;
        a.mov(si, size)?;
        a.mov(di, data)?;
        a.call(load)?;
    }
    // The kernel's 16-bit part, with all segments where it is (boot.rst, "Running the kernel").
    a.mov(ax, SETUP.address)?;
    a.call(number)?;
    a.shr(eax, 4)?;
    a.mov(ds, ax)?;
    a.mov(es, ax)?;
    a.mov(fs, ax)?;
    a.mov(gs, ax)?;
    a.mov(ss, ax)?;
    a.mov(sp, STACK)?;
    a.add(ax, ENTRY)?;
    a.push(ax)?;
    a.xor(ax, ax)?;
    a.push(ax)?;
    a.retf()?;

    // Fetches a part: BX, SI and DI are its items.
    a.set_label(&mut load)?;
    a.mov(ax, si)?;
    a.call(number)?;
    a.test(eax, eax)?;
    a.jz(done)?;
    a.bswap(eax)?;
    a.mov(dword_ptr(bp + 4), eax)?;
    a.mov(ax, bx)?;
    a.call(number)?;
    a.bswap(eax)?;
    a.mov(dword_ptr(bp + 12), eax)?;
    a.mov(dword_ptr(bp + 8), 0)?;
    a.movzx(eax, di)?;
    a.shl(eax, 16)?;
    a.or(eax, SELECT_AND_READ as i32)?;
    a.bswap(eax)?;
    a.mov(dword_ptr(bp), eax)?;
    a.xor(eax, eax)?;
    a.mov(dx, DMA_HIGH)?;
    a.out(dx, eax)?;
    a.movzx(eax, bp)?;
    a.add(eax, (SEGMENT << 4) as i32)?;
    a.bswap(eax)?;
    a.mov(dx, DMA_LOW)?;
    a.out(dx, eax)?;
    // The transfer is over when this returns.
    a.mov(eax, dword_ptr(bp))?;
    a.bswap(eax)?;
    a.test(al, 1)?;
    a.jnz(failed)?;
    a.set_label(&mut done)?;
    a.ret()?;

    // Nothing to boot here: the firmware goes on to the next.
    a.set_label(&mut failed)?;
    a.int(0x18)?;
    a.jmp(failed)?;

    // The number that item AX is, into EAX. CX and DX are changed.
    a.set_label(&mut number)?;
    a.mov(dx, SELECTOR)?;
    a.out(dx, ax)?;
    a.inc(dx)?;
    a.mov(cx, 4_u32)?;
    a.set_label(&mut next)?;
    a.in_(al, dx)?;
    a.ror(eax, 8)?;
    a.loop_(next)?;
    a.ret()?;
    Ok(a)
}

/// The ROM's bytes: they sum to zero.
pub fn assemble() -> Result<Vec<u8>, IcedError> {
    let mut rom = header();
    rom.extend(code()?.assemble(CODE.into())?);
    rom.resize(BLOCK, 0);
    let sum = rom.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    rom[BLOCK - 1] = sum.wrapping_neg();
    Ok(rom)
}
