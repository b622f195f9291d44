//! Cases by number: an instruction in one of its encodings, with operands that favour boundaries.
//!
//! Everything of a case follows from the seed, its number and the list of instructions.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};

use crate::{
    aim,
    case::{Case, Registers},
    corpus::selectors,
    features::left_out,
    layout::{CODE, CODE_END, DATA, PAGE, STACK, WINDOW},
    random::{Element, Random},
    segments::{DOWN, Descriptor, SMALL},
    templates::{Choice, Instructions, Template, decode},
};

/// Register numbers.
const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
pub(crate) const RSP: usize = 4;
const RBP: usize = 5;

/// Linux's gate to system calls.
const SYSTEM_CALL: u8 = 0x80;

/// Components of the extended state that both sides have: x87, SSE and AVX.
pub(crate) const COMMON: u64 = 7;
/// Components that no processor has for user code, and that may be asked for all the same: beyond MPX, AVX-512, the keys,
/// AMX and APX.
pub(crate) const NOBODYS: u64 = !0x000e_03ff;

/// Most attempts to write an instruction with what was chosen at random.
const ATTEMPTS: usize = 12;

/// Makes cases.
pub struct Generator {
    seed: u64,
    instructions: Vec<Instructions>,
    /// Indices into `instructions` and into `executed` there.
    list: Vec<(usize, usize)>,
    /// Whether bytes without any plan are among the cases.
    wild: bool,
}

/// A case with what it executes.
pub struct Generated {
    /// The case.
    pub case: Case,
    /// Its instruction, as it stands where it is executed.
    pub instruction: Instruction,
}

impl Generator {
    /// A generator of cases for code of these sizes; if `only` is given, of instructions of that name or feature alone.
    pub fn new(seed: u64, bits: &[u8], only: Option<&str>) -> Self {
        let mut instructions: Vec<_> = bits.iter().map(|bits| Instructions::of(*bits)).collect();
        if let Some(name) = only {
            for instructions in &mut instructions {
                instructions.keep_only(name);
            }
        }
        let list = instructions
            .iter()
            .enumerate()
            .flat_map(|(size, instructions)| (0..instructions.executed.len()).map(move |code| (size, code)))
            .collect();
        Self { seed, instructions, list, wild: only.is_none() }
    }

    /// The instructions that cases are made of.
    pub fn instructions(&self) -> &[Instructions] {
        &self.instructions
    }

    /// How many there are, each size of code counted.
    pub const fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The case with a number; none if nothing came of it, or if it could not be ended.
    pub fn case(&self, number: u64) -> Option<Generated> {
        let mut random = Random::new(self.seed, number);
        let at = (number % self.list.len().max(1) as u64) as usize;
        let &(size, code) = self.list.get(at)?;
        let instructions = &self.instructions[size];
        let bits = instructions.bits;
        let (code, ways) = &instructions.executed[code];
        let bytes = if self.wild && random.chance(4) {
            wild_bytes(&mut random)
        } else {
            let template = random.pick(ways);
            write(&mut random, bits, &template, |instruction| instruction.code() == *code)
        };
        complete(&mut random, bits, bytes)
    }
}

/// Bytes with prefixes, and an opcode of any map.
fn wild_bytes(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    while random.chance(40) && bytes.len() < 6 {
        bytes.push(random.pick(&PREFIXES));
    }
    if random.chance(30) {
        bytes.push(0x40 | random.below(16) as u8);
    }
    match random.below(8) {
        0..3 => bytes.push(0x0f),
        3 => bytes.extend([0x0f, 0x38]),
        4 => bytes.extend([0x0f, 0x3a]),
        _ => {}
    }
    while bytes.len() < 24 {
        bytes.push(random.bits() as u8);
    }
    bytes
}

const PREFIXES: [u8; 11] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3];

/// Writes an instruction by a template with random operands, so that `is_it` holds if that can be had.
fn write(random: &mut Random, bits: u8, template: &Template, is_it: impl Fn(&Instruction) -> bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for attempt in 0..=ATTEMPTS {
        bytes.clear();
        match random.below(16) {
            0 => bytes.push(random.pick(&PREFIXES)),
            1 => bytes.push(random.pick(&[0x64, 0x65])),
            2 if bits != 16 => bytes.push(0x67),
            3 => bytes.push(0xf0),
            _ => {}
        }
        let modrm = match random.below(4) {
            _ if attempt == ATTEMPTS => template.modrm,
            0 => template.modrm & 0x38 | random.bits() as u8 & 0xc7,
            // Memory with the register that the template has, and any register.
            1 => template.modrm & 0x38 | random.bits() as u8 & 0x07 | (random.below(3) as u8) << 6,
            2 => random.bits() as u8 & 0x3f | template.modrm & 0xc0,
            _ => random.bits() as u8,
        };
        let plain = attempt == ATTEMPTS || attempt + 1 == ATTEMPTS;
        let choice = Choice {
            modrm,
            extension: if plain || random.chance(30) { 0 } else { random.bits() as u8 & 7 },
            vvvv: if plain { 0 } else { random.bits() as u8 & 15 },
        };
        template.bytes(bits, &choice, &mut bytes);
        bytes.extend(std::iter::repeat_with(|| random.bits() as u8).take(14));
        let instruction = decode(bits, &bytes, CODE);
        if is_it(&instruction) && left_out(&instruction).is_none() {
            break;
        }
    }
    bytes
}

/// Gives an instruction its place, its registers and its memory.
fn complete(random: &mut Random, bits: u8, mut bytes: Vec<u8>) -> Option<Generated> {
    let mut decoder = Decoder::with_ip(u32::from(bits), &bytes, CODE, DecoderOptions::NONE);
    let instruction = decoder.decode();
    let constants = decoder.get_constant_offsets(&instruction);
    if left_out(&instruction).is_some() || unknown(bits, &bytes) {
        return None;
    }
    // What is no instruction is looked at as far as the decoder did, and a little further.
    let length = if instruction.is_invalid() { bytes.len().min(15) } else { instruction.len() };
    bytes.truncate(length);
    if constants.has_immediate() && random.chance(50) {
        let (at, size) = (constants.immediate_offset(), constants.immediate_size());
        let value = random.integer(8 * size as u32).to_le_bytes();
        for (to, from) in bytes.iter_mut().skip(at).zip(&value[..size]) {
            *to = *from;
        }
    }
    let mut rip = CODE_END - length as u64;
    if random.chance(1) && !instruction.is_invalid() {
        // It goes on where nothing is.
        rip += 1 + random.below(length as u64);
        rip = rip.min(CODE_END - 1);
    }
    if constants.has_immediate2() && random.chance(80) {
        // A far pointer: where it goes, and to which segment.
        let value = aim::far_pointer(random, constants.immediate_size(), false);
        for (to, from) in bytes.iter_mut().skip(constants.immediate_offset()).zip(value) {
            *to = from;
        }
    }
    if bits == 16 {
        rip -= WINDOW;
    }
    let instruction = decode(bits, &bytes, rip);
    let mut registers = registers(random, bits, &instruction);
    registers.rip = rip;
    let mut case = Case { bits, bytes, registers, patches: Vec::new() };
    prepare(random, &mut case, &instruction);
    aim::memory(random, &mut case, &instruction, &constants);
    let end = CODE_END - case.start();
    case.bytes.truncate(end as usize);
    let whole = case.bytes.len() == length;
    let instruction = decode(bits, &case.bytes, rip);
    aim::values(random, &mut case, &instruction);
    // More parts of the state than both sides have.
    let requested = case.registers.gpr[RDX] << 32 | case.registers.gpr[RAX] & 0xffff_ffff;
    if aim::has_area(&instruction) && requested & !(COMMON | NOBODYS) != 0 {
        return None;
    }
    // The gate of system calls.
    if instruction.mnemonic() == Mnemonic::Int && instruction.immediate8() == SYSTEM_CALL {
        return None;
    }
    // A branch to itself would never end, one into its own bytes would execute what nobody chose.
    let target = instruction.near_branch_target();
    let branches = matches!(instruction.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64);
    let code_end = if bits == 16 { CODE_END - WINDOW } else { CODE_END };
    if branches && (rip..code_end).contains(&target) || !whole && enters_kernel(&case.bytes) {
        return None;
    }
    if aim::is_taken_for_split_lock(&case, &instruction) {
        return None;
    }
    let hides = (1..case.bytes.len()).any(|at| enters_kernel(&case.bytes[at..]));
    (!hides).then_some(Generated { case, instruction })
}

/// Whether bytes are what the decoder is not told to know, and a processor may: EVEX, XOP.
fn unknown(bits: u8, bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some((first, more)) = rest.split_first() {
        if PREFIXES.contains(first) || bits == 64 && first >> 4 == 4 {
            rest = more;
        } else {
            return match first {
                0x62 => bits == 64 || more.first().is_some_and(|next| next >> 6 == 3),
                0x8f => more.first().is_some_and(|next| next & 0x1f >= 8),
                // 3DNow!, and what the decoder knows as invalid in the groups that hypervisors and enclaves use.
                0x0f => matches!(more, [0x0f | 0x01 | 0xc7, ..]) && decode(bits, bytes, CODE).is_invalid(),
                0xc4..=0xc7 => decode(bits, bytes, CODE).is_invalid(),
                _ => false,
            };
        }
    }
    true
}

/// Whether bytes begin with a call of the kernel: what lies behind an instruction is not to be one, in case both sides
/// disagree about where it ends.
fn enters_kernel(bytes: &[u8]) -> bool {
    matches!(bytes, [0x0f, 0x05 | 0x34, ..] | [0xcd, SYSTEM_CALL, ..])
}

fn registers(random: &mut Random, bits: u8, instruction: &Instruction) -> Registers {
    let mut registers = Registers::ZERO;
    for register in &mut registers.gpr {
        *register = match random.below(8) {
            0..4 => random.integer(64),
            4 | 5 => random.integer(32),
            6 => random.integer(16),
            _ => DATA + random.below(2 * PAGE),
        };
    }
    let stack = match random.below(20) {
        0 => STACK + random.below(24),
        1 => STACK + PAGE - random.below(24),
        2 => STACK + random.below(PAGE),
        _ => STACK + 0x400 + 8 * random.below(0x100),
    };
    let base = if bits == 16 { WINDOW } else { 0 };
    registers.gpr[RSP] = stack - base;
    registers.rflags = 0x202
        | random.bits() & 0x8d5
        | u64::from(random.chance(25)) << 10
        | u64::from(random.chance(5)) << 18
        | u64::from(random.chance(10)) << 21
        | u64::from(random.chance(5)) << 14
        | u64::from(random.chance(4)) << 8;
    registers.mxcsr = if random.chance(40) { 0x1f80 } else { random.bits() as u32 & 0xffff };
    x87(random, &mut registers, instruction);
    let kind = match instruction.memory_size().element_type() {
        iced_x86::MemorySize::Float32 => Element::Single,
        iced_x86::MemorySize::Float64 => Element::Double,
        iced_x86::MemorySize::Float16 => Element::Half,
        _ => random.element(),
    };
    for vector in &mut registers.vector {
        let kind = if random.chance(10) { random.element() } else { kind };
        *vector = [random.vector(kind), random.vector(kind)];
    }
    registers.selectors = selectors(bits);
    if bits == 64 {
        registers.fs_base = random.pick(&[0, DATA, DATA + 0x123, 0x7fff_ffff_f000, !0xfff]);
        registers.gs_base = random.pick(&[0, DATA, DATA - 8]);
    } else {
        registers.fs_base = Descriptor::of(SMALL).map_or(0, |descriptor| u64::from(descriptor.base));
        registers.gs_base = Descriptor::of(DOWN).map_or(0, |descriptor| u64::from(descriptor.base));
    }
    if bits != 64 {
        for register in &mut registers.gpr {
            *register &= 0xffff_ffff;
        }
        registers.gpr[8..].fill(0);
        registers.vector[8..].fill([0; 2]);
    }
    registers
}

fn x87(random: &mut Random, registers: &mut Registers, instruction: &Instruction) {
    registers.control = if random.chance(40) {
        0x37f
    } else {
        let precision = random.pick(&[0, 2, 3]);
        let masks = if random.chance(50) { 0x3f } else { random.bits() as u16 & 0x3f };
        masks | 0x40 | precision << 8 | (random.below(4) as u16) << 10
    };
    let mut flags = if random.chance(60) { 0 } else { random.bits() as u16 & 0x7f };
    if random.chance(85) {
        flags &= registers.control | 0x40;
    }
    let pending = flags & !registers.control & 0x3f != 0;
    registers.status = flags | random.bits() as u16 & 0x4700 | (random.below(8) as u16) << 11;
    if pending {
        registers.status |= 0x8080;
    }
    registers.valid = match random.below(8) {
        0 => 0,
        1 | 2 => random.bits() as u16 & 0xff,
        _ => 0xff,
    };
    let mmx = (0..instruction.op_count()).any(|i| instruction.op_register(i).is_mm());
    let element = random.element();
    for register in &mut registers.x87 {
        *register = if mmx { 0xffff << 64 | random.vector(element) & u128::from(u64::MAX) } else { random.extended() };
    }
}

/// Registers that an instruction gives a meaning of their own.
fn prepare(random: &mut Random, case: &mut Case, instruction: &Instruction) {
    use Mnemonic as M;
    let base = if case.bits == 16 { WINDOW } else { 0 };
    let gpr = &mut case.registers.gpr;
    if instruction.has_rep_prefix() || instruction.has_repne_prefix() {
        gpr[RCX] = match random.below(20) {
            0 => 0,
            1 | 2 => random.below(600),
            3 => random.integer(64),
            _ => random.below(24),
        };
    }
    match instruction.mnemonic() {
        M::Shl | M::Shr | M::Sal | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shld | M::Shrd => {
            let count = random.pick(&[0, 1, 7, 8, 9, 15, 16, 17, 18, 31, 32, 33, 34, 63, 64, 65]);
            if random.chance(70) {
                gpr[RCX] = gpr[RCX] & !0xff | count;
            }
        }
        M::Div | M::Idiv => match random.below(4) {
            0 => gpr[RDX] = 0,
            1 => gpr[RDX] = ((gpr[RAX] as i64) >> 63) as u64,
            2 => {
                gpr[RDX] = random.below(256);
                gpr[RAX] &= 0xff_ffff;
            }
            _ => {}
        },
        // The parts that both sides have.
        _ if aim::has_area(instruction) => {
            let more = if random.chance(30) { random.bits() & NOBODYS } else { 0 };
            (gpr[RAX], gpr[RDX]) = (random.below(8) | more & 0xffff_ffff, more >> 32);
        }
        M::Loop | M::Loope | M::Loopne | M::Jcxz | M::Jecxz | M::Jrcxz => {
            gpr[RCX] = random.pick(&[0, 1, 2, 0x1_0000, 0x1_0001, 1 << 32, (1 << 32) + 1, gpr[RCX]]);
        }
        M::Enter | M::Leave if random.chance(85) => gpr[RBP] = STACK + 0x800 + random.below(0x400) - base,
        M::Pcmpestri | M::Pcmpestrm | M::Pcmpestri64 | M::Pcmpestrm64 => {
            gpr[RAX] = random.below(24).wrapping_sub(4);
            gpr[RDX] = random.below(24).wrapping_sub(4);
        }
        M::Bt | M::Bts | M::Btr | M::Btc if instruction.op1_kind() == OpKind::Register && random.chance(80) => {
            let number = instruction.op1_register().full_register().number() & 15;
            gpr[number] = random.below(512).wrapping_sub(256);
        }
        M::Mov | M::Lar | M::Lsl if instruction.op1_kind() == OpKind::Register && aim::takes_selector(instruction) => {
            gpr[instruction.op1_register().full_register().number() & 15] = aim::selector(random);
        }
        M::Verr | M::Verw if instruction.op0_kind() == OpKind::Register => {
            gpr[instruction.op0_register().full_register().number() & 15] = aim::selector(random);
        }
        M::Call | M::Jmp if instruction.op0_kind() == OpKind::Register && random.chance(75) => {
            gpr[instruction.op0_register().number() & 15] = aim::branch_target(random) - base;
        }
        _ => {}
    }
    if case.bits != 64 {
        for register in gpr {
            *register &= 0xffff_ffff;
        }
    }
}
