//! Blocks: runs of decoded instructions that end at a branch, at a page's end, or when they are long enough.

use iced_x86::{Code, Decoder, DecoderError, FlowControl, Instruction, Mnemonic, RflagsBits};

use super::mode::Mode;
use crate::{
    access::{Access, PageWatch},
    decode::decode,
    engine::RamRange,
    op::{Op, Prefix, ZERO},
    state::{CpuState, seg},
    system::cpuid::instructions::Instructions,
    trap::{Exception, Trap},
};

/// Most instructions of a block.
pub(super) const LONGEST: usize = 64;

/// Bytes looked at to decode one block; one that would go on past them ends before.
const WINDOW: usize = 256;

/// Bytes that a block was decoded from.
pub(super) type Window = [u8; WINDOW];

/// Longest instruction in bytes.
const LONGEST_INSTRUCTION: usize = 15;

/// A page that a block depends on.
#[derive(Clone, Debug)]
pub(super) struct CodePage {
    /// Where the host has its first byte: it names the page, whatever address the guest sees it at.
    pub(super) host: usize,
    pub(super) watch: PageWatch,
    range: RamRange,
    physical: u64,
}

impl CodePage {
    /// The page of RAM at a guest physical address, watched from now on.
    pub(super) fn at(cpu: &CpuState, physical: u64) -> Option<Self> {
        let physical = physical & !0xfff;
        let range = cpu.engine.ram.find(physical)?;
        let watch = PageWatch::new(&range.ram, range.offset_of(physical))?;
        Some(Self { host: range.host_of(physical), watch, range: range.clone(), physical })
    }

    /// Copies code from `offset` inside the page; gives the number of bytes.
    fn fetch(&self, offset: usize, bytes: &mut [u8]) -> usize {
        let length = bytes.len().min(0x1000 - offset);
        let at = self.range.offset_of(self.physical) + offset as u64;
        if self.range.ram.read(at, &mut bytes[..length]) { length } else { 0 }
    }

    /// Marks `length` bytes from `offset` as code; whether the page held none before.
    fn mark(&self, offset: usize, length: usize) -> bool {
        let (first, last) = (offset / 64, (offset + length.max(1) - 1).min(0xfff) / 64);
        self.watch.mark((u64::MAX >> (63 - last)) & (u64::MAX << first))
    }
}

/// Where to decode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The instruction pointer.
    pub(super) rip: u64,
    /// Its linear address.
    pub(super) linear: u64,
    /// Its guest physical address.
    pub(super) physical: u64,
    pub(super) mode: Mode,
}

/// What was decoded, besides the operations.
#[derive(Debug)]
pub(super) struct Decoded {
    /// Bytes of the instructions.
    pub(super) length: usize,
    /// The second page of an instruction that crosses into it.
    pub(super) second: Option<CodePage>,
    /// Whether all of it came from RAM.
    pub(super) in_ram: bool,
    /// Bytes of it on the first page.
    on_first: usize,
    /// Instructions; there may be one more operation, which goes on at the next block.
    pub(super) instructions: usize,
    /// The block ends in a branch whose target is always the same, or one of two.
    pub(super) direct: bool,
}

/// Bytes of code, read from RAM or, byte by byte, from a device.
fn fetch(cpu: &CpuState, page: Option<&CodePage>, physical: u64, bytes: &mut [u8]) -> usize {
    let offset = (physical & 0xfff) as usize;
    match page {
        Some(page) => page.fetch(offset, bytes),
        None => {
            let length = bytes.len().min(0x1000 - offset).min(LONGEST_INSTRUCTION);
            for (i, byte) in bytes[..length].iter_mut().enumerate() {
                *byte = cpu.read_at(physical + i as u64);
            }
            length
        }
    }
}

/// Decodes the block at `place`, whose page is `page` if that is RAM, and appends its operations to `ops`.
///
/// # Errors
/// A page fault, when the first instruction goes on in a page that cannot be fetched from; #GP(0) when it is too long.
pub(super) fn decode_block(
    cpu: &mut CpuState,
    place: Place,
    page: Option<&CodePage>,
    bytes: &mut Window,
    ops: &mut Vec<Op>,
) -> Result<Decoded, Trap> {
    let available = fetch(cpu, page, place.physical, bytes);
    let most = if place.mode.contains(Mode::SINGLE) || page.is_none() { 1 } else { LONGEST };
    let bits = u32::from(place.mode.code_bits());
    let mut instructions = [Instruction::default(); LONGEST];
    let mut count = 0;
    let mut length = 0;
    let mut second = None;
    let mut ended = false;
    let mut direct = false;
    let mut in_ram = page.is_some();
    let offered = cpu.instructions();
    let mut decoder = Decoder::with_ip(bits, &bytes[..available], place.rip, offered.options());
    let mut crosses = false;
    let mut too_long = false;
    while count < most && decoder.can_decode() {
        let instruction = &mut instructions[count];
        decoder.decode_out(instruction);
        if instruction.is_invalid() {
            let incomplete = decoder.last_error() == DecoderError::NoMoreBytes;
            // A block of its own for what goes on in the next page, and for what is too long to be an instruction.
            crosses = count == 0 && incomplete && available < LONGEST_INSTRUCTION;
            too_long = instruction.len() >= LONGEST_INSTRUCTION;
            if crosses || count > 0 && (incomplete || too_long) {
                break;
            }
        }
        refuse_what_is_not_offered(&offered, instruction);
        // What is invalid counts with the bytes that were looked at, so that a change of them is noticed.
        length += instruction.len().max(1);
        count += 1;
        let flow = instruction.flow_control();
        if flow != FlowControl::Next {
            (ended, direct) = (true, is_direct(flow));
            break;
        }
    }
    if crosses {
        second = fetch_across(cpu, place, bytes, available)?;
        in_ram &= second.is_some();
        let instruction = &mut instructions[0];
        let mut decoder = Decoder::with_ip(bits, &bytes[..LONGEST_INSTRUCTION], place.rip, offered.options());
        decoder.decode_out(instruction);
        too_long = instruction.is_invalid() && instruction.len() >= LONGEST_INSTRUCTION;
        refuse_what_is_not_offered(&offered, instruction);
        length = instruction.len().max(1);
        count = 1;
        let flow = instruction.flow_control();
        (ended, direct) = (flow != FlowControl::Next, is_direct(flow));
    }
    if too_long && count == 1 {
        // SDM vol. 3 § 6.15: more than 15 bytes.
        return Err(cpu.raise(Exception::general_protection(0)));
    }
    let instructions = &instructions[..count];
    let live = live_flags(instructions, place.mode);
    let mut offset = 0;
    for (instruction, live) in instructions.iter().zip(live) {
        let mut op = decode(instruction, place.mode, live);
        op.offset = offset;
        offset += u16::from(op.length);
        ops.push(op);
    }
    if !ended {
        direct = true;
        ops.push(fall_through(offset, place.mode));
    }
    Ok(Decoded { length, second, in_ram, on_first: length.min(available), instructions: count, direct })
}

/// Makes an instruction that the processor does not have one that is invalid.
fn refuse_what_is_not_offered(offered: &Instructions, instruction: &mut Instruction) {
    if !offered.has(instruction.code()) {
        instruction.set_code(Code::INVALID);
    }
}

/// Whether a branch leads to the same one or two places every time.
fn is_direct(flow: FlowControl) -> bool {
    matches!(flow, FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch | FlowControl::Call)
}

/// Completes the bytes of an instruction that goes on in the next page. Gives that page, if it is RAM.
fn fetch_across(
    cpu: &mut CpuState,
    place: Place,
    bytes: &mut Window,
    available: usize,
) -> Result<Option<CodePage>, Trap> {
    let limit = u64::from(cpu.segments[usize::from(seg::CS)].limit);
    if !place.mode.contains(Mode::FLAT_CS) && place.rip + available as u64 > limit {
        // The end of the segment comes before what is wrong with the page there.
        return Err(cpu.raise(Exception::general_protection(0)));
    }
    let mut next = (place.linear & !0xfff).wrapping_add(0x1000);
    if place.mode.code_bits() != 64 {
        next &= 0xffff_ffff;
    }
    let physical = cpu.translate(next, Access::Execute, cpu.privilege())?;
    let page = CodePage::at(cpu, physical);
    fetch(cpu, page.as_ref(), physical, &mut bytes[available..LONGEST_INSTRUCTION]);
    Ok(page)
}

impl Decoded {
    /// Marks what was decoded as code, so that writes to it are seen from now on. Gives the pages, as the host has them,
    /// that held no code before.
    pub(super) fn mark(&self, place: Place, page: &CodePage) -> [Option<usize>; 2] {
        let first = page.mark((place.physical & 0xfff) as usize, self.on_first).then_some(page.host);
        let second = self.second.as_ref().filter(|second| second.mark(0, self.length - self.on_first));
        [first, second.map(|second| second.host)]
    }

    /// Whether memory still holds the bytes that it was decoded from.
    pub(super) fn current(&self, place: Place, page: &CodePage, bytes: &Window) -> bool {
        let mut again = [0; WINDOW];
        let length = self.length.min(WINDOW);
        let (first, rest) = again[..length].split_at_mut(self.on_first.min(length));
        page.fetch((place.physical & 0xfff) as usize, first);
        if let Some(second) = &self.second {
            second.fetch(0, rest);
        }
        again[..length] == bytes[..length]
    }
}

/// For each instruction, whether anything reads the arithmetic flags that it writes. What comes after the block may read
/// all of them.
fn live_flags(instructions: &[Instruction], mode: Mode) -> [bool; LONGEST] {
    const ALL: u32 =
        RflagsBits::CF | RflagsBits::PF | RflagsBits::AF | RflagsBits::ZF | RflagsBits::SF | RflagsBits::OF;
    let mut result = [true; LONGEST];
    if mode.contains(Mode::STRICT) {
        return result;
    }
    let mut live = ALL;
    for (instruction, result) in instructions.iter().zip(&mut result).rev() {
        if instruction.flow_control() != FlowControl::Next {
            // The target, or a handler of the guest's, may read everything.
            live = ALL;
            continue;
        }
        let written = instruction.rflags_modified() & ALL;
        *result = written & live != 0;
        if always_writes_flags(instruction) {
            live &= !written;
        }
        live |= instruction.rflags_read() & ALL;
    }
    result
}

/// Whether the flags that an instruction may write are written in every case.
fn always_writes_flags(instruction: &Instruction) -> bool {
    use Mnemonic::{
        Cmpsb, Cmpsd, Cmpsq, Cmpsw, Rcl, Rcr, Rol, Ror, Sal, Sar, Scasb, Scasd, Scasq, Scasw, Shl, Shld, Shr, Shrd,
    };
    match instruction.mnemonic() {
        // A count of zero leaves the flags alone.
        Rcl | Rcr | Rol | Ror | Sal | Sar | Shl | Shld | Shr | Shrd => false,
        Cmpsb | Cmpsd | Cmpsq | Cmpsw | Scasb | Scasd | Scasq | Scasw => {
            !instruction.has_rep_prefix() && !instruction.has_repne_prefix()
        }
        _ => true,
    }
}

/// Ends a block that does not end in a branch: execution goes on `offset` bytes after its start.
fn fall_through(offset: u16, mode: Mode) -> Op {
    Op {
        handler: go_on,
        imm: mode.pointer_mask(),
        disp: 0,
        base: ZERO,
        index: ZERO,
        scale: 0,
        segment: seg::FLAT,
        address_size: 8,
        dst: 0,
        src: 0,
        aux: 0,
        size: 0,
        length: 0,
        offset,
        prefix: Prefix::None,
    }
}

extern "C" fn go_on(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    cpu.rip = cpu.rip.wrapping_add(u64::from(op.offset)) & op.imm;
    Ok(())
}

#[cfg(test)]
mod tests {
    use iced_x86::DecoderOptions;

    use super::*;

    fn live(code: &[u8]) -> Vec<bool> {
        let instructions: Vec<_> = Decoder::new(64, code, DecoderOptions::NONE).iter().collect();
        live_flags(&instructions, Mode::CODE_64)[..instructions.len()].to_vec()
    }

    #[test]
    fn flags_that_are_overwritten_before_they_are_read_are_dead() {
        // add eax,1; add eax,1; mov ebx,eax
        assert_eq!(live(&[0x83, 0xc0, 1, 0x83, 0xc0, 1, 0x89, 0xc3]), [false, true, false]);
        // add eax,1; adc ebx,1; inc ecx: ADC reads what ADD wrote, INC leaves CF of ADC to whoever comes next.
        assert_eq!(live(&[0x83, 0xc0, 1, 0x83, 0xd3, 1, 0xff, 0xc1]), [true, true, true]);
    }

    #[test]
    fn a_shift_that_may_be_by_zero_keeps_earlier_flags_alive() {
        // add eax,1; shl eax,cl
        assert_eq!(live(&[0x83, 0xc0, 1, 0xd3, 0xe0]), [true, true]);
        // add eax,1; repe cmpsb
        assert_eq!(live(&[0x83, 0xc0, 1, 0xf3, 0xa6]), [true, true]);
        // add eax,1; cmpsb
        assert_eq!(live(&[0x83, 0xc0, 1, 0xa6]), [false, true]);
    }

    #[test]
    fn a_branch_keeps_the_flags_before_it_alive() {
        // add eax,1; jmp $
        assert!(live(&[0x83, 0xc0, 1, 0xeb, 0xfe])[0]);
    }
}
