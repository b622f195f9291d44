//! Where operands in memory are, and what is there: mostly where data may be, at every alignment, sometimes at the edge
//! of it and beyond.

use iced_x86::{Code, ConstantOffsets, Instruction, MemorySize, Mnemonic, OpKind, Register};

use crate::{
    case::{Case, PATCHES, Patch, Registers},
    generate::{COMMON, NOBODYS, RSP},
    layout::{self, CODE, DATA, DATA_END, PAGE, READ_ONLY, STACK, WINDOW},
    random::{Element, Random},
    segments::{CODE_16, CODE_32, CODE_64, DATA_16, DATA_32, DOWN, EXECUTE_ONLY, SELECTORS, SMALL},
};

/// Bytes of an area of XSAVE, with its header and the upper halves of YMM registers.
const AREA: usize = 832;
/// Where its header is.
const HEADER: usize = 512;

/// Whether an instruction's operand is such an area.
pub(crate) fn has_area(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        instruction.mnemonic(),
        M::Xsave | M::Xsave64 | M::Xsaveopt | M::Xsaveopt64 | M::Xsavec | M::Xsavec64 | M::Xrstor | M::Xrstor64
    )
}

/// The header of an area: such as instructions write, and such as none can have written.
fn header(random: &mut Random) -> [u8; 64] {
    let present = random.below(COMMON + 1);
    let compacted = random.chance(35);
    let mut words = [present, 0, 0, 0, 0, 0, 0, 0];
    if compacted {
        words[1] = 1 << 63 | present | random.below(COMMON + 1);
    }
    match random.below(12) {
        // Components that nobody has.
        0 => words[0] |= NOBODYS & 1 << random.below(64),
        1 => words[1] |= (NOBODYS & 1 << random.below(63)) & !(1 << 63),
        // Present and not in the format.
        2 => words[1] &= !(1 << random.below(3)),
        // Words that must be zero, or must only in the compacted format.
        3 => words[2] = random.integer(64),
        4 => words[3 + random.below(5) as usize] = random.integer(64),
        5 => words[1] = random.below(COMMON + 1),
        _ => {}
    }
    let mut bytes = [0; 64];
    for (to, from) in bytes.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    bytes
}

/// A selector of code, mostly.
fn code_selector(random: &mut Random) -> u16 {
    if random.chance(75) { random.pick(&[CODE_16, CODE_32, CODE_64, EXECUTE_ONLY]) } else { random.pick(&SELECTORS) }
}

/// Where a far transfer may go: a selector, and an offset that may well fit it.
fn far_target(random: &mut Random) -> (u16, u64) {
    let selector = code_selector(random);
    let base = if (selector == CODE_16) == random.chance(90) { WINDOW } else { 0 };
    (selector, branch_target(random) - base)
}

/// What a far return finds on the stack, in words of its operand size: for IRET with flags, and with a stack.
fn return_frame(random: &mut Random, instruction: &Instruction) -> Vec<u8> {
    let (selector, offset) = far_target(random);
    let mut words = vec![offset, u64::from(selector)];
    if instruction.mnemonic() != Mnemonic::Retf {
        let flags = if random.chance(50) { random.bits() & 0x247fd5 } else { random.bits() };
        // Mostly without a trap, so that more is seen of the target.
        words.push(if random.chance(80) { flags & !(1 << 8) } else { flags });
        let stack =
            if random.chance(80) { random.pick(&[DATA_32, DATA_16, SMALL, DOWN]) } else { random.pick(&SELECTORS) };
        words.push(STACK + random.below(PAGE) - if random.chance(50) { WINDOW } else { 0 });
        words.push(u64::from(stack));
    }
    let size = match instruction.code() {
        Code::Retfw | Code::Retfw_imm16 | Code::Iretw => 2,
        Code::Retfd | Code::Retfd_imm16 | Code::Iretd => 4,
        _ => 8,
    };
    words.iter().flat_map(|word| word.to_le_bytes().into_iter().take(size)).collect()
}

/// Where a branch may go: to what is no code, in several ways.
pub(crate) fn branch_target(random: &mut Random) -> u64 {
    random.pick(&[CODE + 0x20, CODE + PAGE, DATA + 0x40, WINDOW + 0x3000, READ_ONLY])
}

/// A selector, with what an upper half may hold that does not count.
pub(crate) fn selector(random: &mut Random) -> u64 {
    let above = if random.chance(30) { random.bits() & !0xffff } else { 0 };
    above | u64::from(random.pick(&SELECTORS))
}

/// Whether an instruction reads a selector from its last operand.
pub(crate) fn takes_selector(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    match instruction.mnemonic() {
        M::Mov => instruction.op0_register().is_segment_register(),
        M::Lar | M::Lsl | M::Verr | M::Verw => true,
        _ => false,
    }
}

/// A far pointer with an offset of so many bytes: to data, or to something that may be a branch's target.
pub(crate) fn far_pointer(random: &mut Random, size: usize, data: bool) -> Vec<u8> {
    let (selector, offset) = if data { (selector(random) as u16, branch_target(random)) } else { far_target(random) };
    let mut bytes = offset.to_le_bytes()[..size.min(8)].to_vec();
    bytes.extend(selector.to_le_bytes());
    bytes
}

/// An address for an operand of so many bytes.
fn target(random: &mut Random, size: u64) -> u64 {
    let alignment = size.next_power_of_two().clamp(1, 64);
    let size = size.clamp(1, 2 * PAGE);
    let inside = DATA + random.below(2 * PAGE - size + 1);
    match random.below(40) {
        0..20 => inside & !(alignment - 1),
        20..28 => inside,
        // Across the border of the two pages.
        28..31 => DATA + PAGE - random.below(size + 1),
        // Across the end, right before it, and before the beginning.
        31 => DATA_END - random.below(size + 1),
        32 => DATA_END - size,
        33 => DATA - random.below(size + 1),
        34 => (READ_ONLY + random.below(PAGE)) & !(alignment - 1),
        35 => READ_ONLY - random.below(size + 1),
        36 => random.pick(&[WINDOW, WINDOW + 0x3000, CODE, CODE + 0x800, 0, u64::MAX - 7, 1 << 47, (1 << 47) - 8]),
        37 => random.integer(64),
        _ => inside & !15,
    }
}

/// The base of a segment.
fn segment_base(registers: &Registers, bits: u8, segment: Register) -> u64 {
    match segment {
        Register::FS => registers.fs_base,
        Register::GS => registers.gs_base,
        _ if bits == 16 => WINDOW,
        _ => 0,
    }
}

/// What goes into a register so that its low `size` bytes are `value`.
fn set_low(random: &mut Random, register: &mut u64, size: usize, value: u64, bits: u8) {
    let mask = if size >= 8 { u64::MAX } else { (1 << (8 * size)) - 1 };
    // What lies above the address size does not count, whatever it is.
    let above = if bits == 64 && random.chance(50) { random.bits() } else { 0 };
    *register = above & !mask | value & mask;
}

/// Sets registers and the displacement so that operands in memory are where they may well be.
pub(crate) fn memory(random: &mut Random, case: &mut Case, instruction: &Instruction, constants: &ConstantOffsets) {
    for i in 0..instruction.op_count() {
        let size = match instruction.mnemonic() {
            _ if has_area(instruction) => AREA as u64,
            Mnemonic::Bt | Mnemonic::Btc | Mnemonic::Btr | Mnemonic::Bts => 64,
            _ => instruction.memory_size().size() as u64,
        };
        let (number, address_size, segment) = match instruction.op_kind(i) {
            OpKind::Memory => {
                let target = target(random, size);
                explicit(random, case, instruction, constants, target);
                continue;
            }
            OpKind::MemorySegSI => (6, 2, instruction.memory_segment()),
            OpKind::MemorySegESI => (6, 4, instruction.memory_segment()),
            OpKind::MemorySegRSI => (6, 8, instruction.memory_segment()),
            OpKind::MemorySegDI => (7, 2, instruction.memory_segment()),
            OpKind::MemorySegEDI => (7, 4, instruction.memory_segment()),
            OpKind::MemorySegRDI => (7, 8, instruction.memory_segment()),
            OpKind::MemoryESDI => (7, 2, Register::ES),
            OpKind::MemoryESEDI => (7, 4, Register::ES),
            OpKind::MemoryESRDI => (7, 8, Register::ES),
            _ => continue,
        };
        let at = target(random, size).wrapping_sub(segment_base(&case.registers, case.bits, segment));
        set_low(random, &mut case.registers.gpr[number], address_size, at, case.bits);
    }
}

fn explicit(random: &mut Random, case: &mut Case, instruction: &Instruction, constants: &ConstantOffsets, target: u64) {
    let base = instruction.memory_base();
    let index = instruction.memory_index();
    let segment = segment_base(&case.registers, case.bits, instruction.memory_segment());
    let displacement = instruction.memory_displacement64();
    let scale = u64::from(instruction.memory_index_scale());
    let want = target.wrapping_sub(segment);
    let gpr = &mut case.registers.gpr;
    let bits = case.bits;
    if instruction.is_vsib() {
        for element in case.registers.vector[index.number() & 15].iter_mut() {
            let lanes = if instruction.is_vsib32() { 32 } else { 64 };
            let mut lane = 0;
            *element = 0;
            while lane < 128 {
                let offset = random.below(256).wrapping_sub(128) & (u64::MAX >> (64 - lanes));
                *element |= u128::from(offset) << lane;
                lane += lanes;
            }
        }
        if base != Register::None {
            set_low(random, &mut gpr[base.number() & 15], base.size(), want.wrapping_sub(displacement), bits);
        }
        return;
    }
    match (base, index) {
        (Register::RIP | Register::EIP, _) | (Register::None, Register::None) => {
            if !constants.has_displacement() || random.chance(10) {
                return;
            }
            let relative = base != Register::None;
            let next = instruction.next_ip();
            let value = if relative { want.wrapping_sub(next) } else { want };
            let (at, size) = (constants.displacement_offset(), constants.displacement_size());
            for (to, from) in case.bytes.iter_mut().skip(at).zip(&value.to_le_bytes()[..size.min(8)]) {
                *to = *from;
            }
        }
        // XLAT.
        (base, Register::AL) => {
            let value = want.wrapping_sub(gpr[0] & 0xff);
            set_low(random, &mut gpr[base.number() & 15], base.size(), value, bits);
        }
        (base, Register::None) => {
            set_low(random, &mut gpr[base.number() & 15], base.size(), want.wrapping_sub(displacement), bits);
        }
        (Register::None, index) => {
            set_low(random, &mut gpr[index.number() & 15], index.size(), want.wrapping_sub(displacement) / scale, bits);
        }
        (base, index) if base.number() == index.number() => {
            let value = want.wrapping_sub(displacement) / (scale + 1);
            set_low(random, &mut gpr[base.number() & 15], base.size(), value, bits);
        }
        (base, index) => {
            let offset = random.integer(16).wrapping_sub(random.integer(15));
            set_low(random, &mut gpr[index.number() & 15], index.size(), offset, bits);
            let value = want.wrapping_sub(displacement).wrapping_sub(offset.wrapping_mul(scale));
            set_low(random, &mut gpr[base.number() & 15], base.size(), value, bits);
        }
    }
}

/// The linear address of an operand in memory, as far as it can be told.
pub(crate) fn address(case: &Case, instruction: &Instruction, operand: u32) -> Option<u64> {
    instruction.try_virtual_address(operand, 0, |register, element, _| {
        let registers = &case.registers;
        if register.is_segment_register() {
            return Some(segment_base(registers, case.bits, register));
        }
        if register.is_vector_register() {
            let vector = registers.vector[register.number() & 15][0];
            let lanes = if instruction.is_vsib32() { 32 } else { 64 };
            return Some((vector >> (lanes * element).min(127)) as u64);
        }
        if register == Register::AL {
            return Some(registers.gpr[0] & 0xff);
        }
        let value = registers.gpr.get(register.number())?;
        Some(match register.size() {
            2 => value & 0xffff,
            4 => value & 0xffff_ffff,
            _ => *value,
        })
    })
}

/// Whether Linux would take a fault of this instruction for that of a locked access to two lines of the cache, and try it
/// again for ever. IRET in 64-bit code loads AC before it pops the stack pointer and SS: those words may bring the fault of
/// a misaligned access while the flags that Linux sees have no AC.
pub(crate) fn is_taken_for_split_lock(case: &Case, instruction: &Instruction) -> bool {
    use Mnemonic as M;
    let size = match instruction.mnemonic() {
        M::Iret => 2,
        M::Iretd => 4,
        M::Iretq => 8,
        _ => return false,
    };
    let stack = case.registers.gpr[RSP];
    const AC: u8 = 1 << 2;
    let flags = stack.wrapping_add(2 * size + 2);
    let loads =
        layout::word_at(flags).is_none_or(|word| case.word_before(word).to_le_bytes()[flags as usize & 7] & AC != 0);
    case.bits == 64 && size != 2 && stack & (size - 1) != 0 && loads
}

/// Adds a patch, cut to the pages that a case can change.
fn patch(case: &mut Case, address: u64, mut bytes: Vec<u8>) {
    let mut from = address;
    while !bytes.is_empty() && layout::word_at(from).is_none() {
        bytes.remove(0);
        from = from.wrapping_add(1);
    }
    let fits = (0..bytes.len()).take_while(|i| layout::word_at(from.wrapping_add(*i as u64)).is_some()).count();
    // The two pages of data and that of the stack are apart.
    let same = |i: &usize| (layout::word_at(from + *i as u64) < layout::word_at(STACK)) == (from < STACK);
    let fits = (0..fits).take_while(same).count();
    bytes.truncate(fits);
    if !bytes.is_empty() && case.patches.len() < PATCHES {
        case.patches.push(Patch { address: from, bytes });
    }
}

/// What operands in memory hold: values of their type.
pub(crate) fn values(random: &mut Random, case: &mut Case, instruction: &Instruction) {
    use Mnemonic as M;
    let size = instruction.memory_size();
    for i in 0..instruction.op_count() {
        let explicit = instruction.op_kind(i) == OpKind::Memory;
        let implicit =
            (OpKind::MemorySegSI as u32..=OpKind::MemoryESRDI as u32).contains(&(instruction.op_kind(i) as u32));
        if !explicit && !implicit {
            continue;
        }
        let Some(at) = address(case, instruction, i) else { continue };
        let bytes = if implicit { text(random) } else { contents(random, case, instruction, size) };
        patch(case, at, bytes);
    }
    if instruction.mnemonic() == M::Cmpxchg && random.chance(50) {
        let first = case.patches.first().map(|patch| patch.bytes.clone()).unwrap_or_default();
        if let Some(value) = first.get(..8) {
            case.registers.gpr[0] = value.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        } else {
            let destination = instruction.op0_register().full_register();
            if destination.is_gpr() {
                case.registers.gpr[0] = case.registers.gpr[destination.number() & 15];
            }
        }
    }
    if matches!(instruction.mnemonic(), M::Cmpxchg8b | M::Cmpxchg16b) && random.chance(60) {
        let half = if instruction.mnemonic() == M::Cmpxchg8b { 4 } else { 8 };
        let bytes = case.patches.first().map(|patch| patch.bytes.clone()).unwrap_or_default();
        for (register, bytes) in [0, 2].into_iter().zip(bytes.chunks_exact(half)) {
            case.registers.gpr[register] = bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        }
    }
    if case.bits != 64 {
        for register in &mut case.registers.gpr {
            *register &= 0xffff_ffff;
        }
    }
    if instruction.mnemonic() == M::Pop && instruction.op0_register().is_segment_register() {
        let base = if case.bits == 16 { WINDOW } else { 0 };
        let stack = (base + case.registers.gpr[RSP]) & if case.bits == 64 { u64::MAX } else { 0xffff_ffff };
        let bytes = selector(random).to_le_bytes().to_vec();
        patch(case, stack, bytes);
        return;
    }
    if matches!(instruction.mnemonic(), M::Retf | M::Iret | M::Iretd | M::Iretq) && random.chance(90) {
        let base = if case.bits == 16 { WINDOW } else { 0 };
        let stack = (base + case.registers.gpr[RSP]) & if case.bits == 64 { u64::MAX } else { 0xffff_ffff };
        let frame = return_frame(random, instruction);
        patch(case, stack, frame);
        return;
    }
    let returns = matches!(instruction.mnemonic(), M::Ret | M::Leave | M::Pop);
    if returns && random.chance(75) {
        let base = if case.bits == 16 { WINDOW } else { 0 };
        let target = branch_target(random) - base;
        let stack = (base + case.registers.gpr[RSP]) & if case.bits == 64 { u64::MAX } else { 0xffff_ffff };
        patch(case, stack, target.to_le_bytes().to_vec());
    }
}

/// A string of few different bytes, so that comparisons find equal ones.
fn text(random: &mut Random) -> Vec<u8> {
    let byte = random.pick(&[0_u8, 0x41, 0xff]);
    let mut bytes = vec![byte; 64];
    if random.chance(70) {
        let at = random.below(64) as usize;
        bytes[at] ^= 1 << random.below(8);
    }
    bytes
}

fn contents(random: &mut Random, case: &Case, instruction: &Instruction, size: MemorySize) -> Vec<u8> {
    use Mnemonic as M;
    let base = if case.bits == 16 { WINDOW } else { 0 };
    let element = size.element_type();
    let area = has_area(instruction);
    let count = if area { AREA } else { size.size().clamp(1, 512) };
    let mut bytes = Vec::with_capacity(count + 16);
    match instruction.mnemonic() {
        M::Lds | M::Les | M::Lss | M::Lfs | M::Lgs | M::Jmp | M::Call
            if matches!(size, MemorySize::SegPtr16 | MemorySize::SegPtr32 | MemorySize::SegPtr64) =>
        {
            let data = !matches!(instruction.mnemonic(), M::Jmp | M::Call);
            return far_pointer(random, size.size() - 2, data);
        }
        _ if takes_selector(instruction) => return selector(random).to_le_bytes().to_vec(),
        M::Jmp | M::Call if random.chance(75) => {
            bytes.extend((branch_target(random) - base).to_le_bytes());
            return bytes;
        }
        M::Bound => {
            bytes.extend((random.integer(15) as u32).to_le_bytes());
            bytes.extend((random.integer(31) as u32).to_le_bytes());
            return bytes;
        }
        _ => {}
    }
    while bytes.len() < count {
        match element {
            MemorySize::Float32 => bytes.extend((random.float(8, 23) as u32).to_le_bytes()),
            MemorySize::Float64 => bytes.extend(random.float(11, 52).to_le_bytes()),
            MemorySize::Float16 => bytes.extend((random.float(5, 10) as u16).to_le_bytes()),
            MemorySize::Float80 => bytes.extend(&random.extended().to_le_bytes()[..10]),
            MemorySize::Bcd => bytes.extend(decimal(random)),
            _ => match element.size() {
                1 | 2 | 4 | 8 => {
                    let value = random.integer(8 * element.size() as u32);
                    bytes.extend(&value.to_le_bytes()[..element.size()]);
                }
                _ => {
                    let kind = if random.chance(10) { Element::Half } else { random.element() };
                    bytes.extend(random.vector(kind).to_le_bytes());
                }
            },
        }
    }
    if area && bytes.len() >= AREA && random.chance(95) {
        bytes[HEADER..HEADER + 64].copy_from_slice(&header(random));
    }
    match instruction.mnemonic() {
        M::Ldmxcsr | M::Vldmxcsr if random.chance(75) => bytes[2..4].fill(0),
        M::Fxrstor | M::Fxrstor64 | M::Xrstor | M::Xrstor64 if random.chance(85) && bytes.len() >= 28 => {
            bytes[26..28].fill(0);
        }
        _ => {}
    }
    bytes
}

/// Packed decimal digits, sometimes such that are none.
fn decimal(random: &mut Random) -> [u8; 10] {
    let mut bytes = [0; 10];
    for byte in &mut bytes[..9] {
        *byte = (random.below(10) | random.below(10) << 4) as u8;
    }
    bytes[9] = random.pick(&[0, 0x80]);
    bytes
}
