//! Option ROMs that start, after firmware, the kernel that the fw_cfg device offers: what they have in common.
//!
//! Source: BIOS Boot Specification 1.01, appendix A and § 3.3 for a ROM's headers; the published interface of fw_cfg, with its
//! DMA.

// The assembler's registers and memory operands are its vocabulary: dozens of short names.
#![allow(clippy::wildcard_imports)]

mod linux;
mod multiboot;

use iced_x86::{IcedError, code_asm::*};

/// Bytes of a block, in which a ROM's size is counted.
const BLOCK: usize = 512;
/// Where in a ROM the header for Plug and Play is, the product's name, and the code.
const PLUG_AND_PLAY: u8 = 0x20;
const PRODUCT: u8 = 0x40;
const CODE: u8 = 0x60;

/// Ports of the fw_cfg device: selector, data, and the two halves of the address of a transfer.
const SELECTOR: u32 = 0x510;
const DMA_HIGH: u32 = 0x514;
const DMA_LOW: u32 = 0x518;
/// Control word of a transfer: read, and select an item before. The answer's lowest bit says that it failed.
const READ: u32 = 2;
const SELECT_AND_READ: u32 = 8 | READ;

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

type Done = Result<(), IcedError>;

/// Makes a ROM.
type Assemble = fn() -> Result<Vec<u8>, IcedError>;

/// The ROMs by the names of their files.
pub const ALL: &[(&str, Assemble)] = &[("linux.bin", linux::assemble), ("multiboot.bin", multiboot::assemble)];

/// What a ROM of so many blocks starts with. The product's name ends with a zero.
fn header(blocks: u8, product: &[u8]) -> Vec<u8> {
    let mut rom = vec![0x55, 0xaa, blocks];
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
    rom.extend(product);
    assert!(rom.len() <= CODE.into(), "the name is too long");
    rom.resize(CODE.into(), 0);
    rom
}

/// The ROM of so many blocks: its bytes sum to zero.
fn finish(mut rom: Vec<u8>, blocks: u8) -> Vec<u8> {
    let length = usize::from(blocks) * BLOCK;
    assert!(rom.len() < length, "the ROM is too long");
    rom.resize(length, 0);
    let sum = rom.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    rom[length - 1] = sum.wrapping_neg();
    rom
}

/// Routines of 16-bit code.
struct Routines {
    /// Fetches a part: BX, SI and DI are its items. BP points to 16 bytes of the stack, the descriptor of a transfer.
    fetch: CodeLabel,
    /// The number that item AX is, into EAX. CX and DX are changed.
    number: CodeLabel,
}

impl Routines {
    fn new(a: &mut CodeAssembler) -> Self {
        Self { fetch: a.create_label(), number: a.create_label() }
    }

    fn call_fetch(&self, a: &mut CodeAssembler, Part { address, size, data }: Part) -> Done {
        a.mov(bx, address)?;
        a.mov(si, size)?;
        a.mov(di, data)?;
        a.call(self.fetch)
    }

    /// Puts the routines here.
    fn place(mut self, a: &mut CodeAssembler) -> Done {
        let (mut done, mut failed, mut next) = (a.create_label(), a.create_label(), a.create_label());
        a.set_label(&mut self.fetch)?;
        a.mov(ax, si)?;
        a.call(self.number)?;
        a.test(eax, eax)?;
        a.jz(done)?;
        a.bswap(eax)?;
        a.mov(dword_ptr(bp + 4), eax)?;
        a.mov(ax, bx)?;
        a.call(self.number)?;
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
        a.mov(ax, ss)?;
        a.shl(eax, 4)?;
        a.movzx(edx, bp)?;
        a.add(eax, edx)?;
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

        a.set_label(&mut self.number)?;
        a.mov(dx, SELECTOR)?;
        a.out(dx, ax)?;
        a.inc(dx)?;
        a.mov(cx, 4_u32)?;
        a.set_label(&mut next)?;
        a.in_(al, dx)?;
        a.ror(eax, 8)?;
        a.loop_(next)?;
        a.ret()
    }
}
