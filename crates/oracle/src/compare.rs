//! Whether both sides agree, where the manuals say what is to come out.
//!
//! Sources: SDM vol. 2, each instruction's "Flags Affected"; SDM vol. 1 § 8.1.8 (the x87's pointers).

use iced_x86::{Instruction, Mnemonic, RflagsBits};

use crate::{
    aim,
    case::{Case, Outcome, Registers},
    features, layout,
    segments::CODE_64,
};

/// Something that is not compared, or not to the bit.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// What.
    pub what: &'static str,
    /// Who leaves it open.
    pub source: &'static str,
}

/// What manuals do not say, or say otherwise, and one processor does.
const MEASURED: &str = "measured on a Xeon of family 6, model A7H";

/// Where processors may differ, or do.
pub const LEFT_OPEN: [Open; 18] = [
    Open {
        what: "flags that are undefined, and those of shifts by more than the operand has bits",
        source: "SDM vol. 2, Flags Affected",
    },
    Open {
        what: "results of SHLD and SHRD of 16 bits by more than 16, and of BSWAP of 16 bits",
        source: "SDM vol. 2: undefined",
    },
    Open {
        what: "the x87's pointers and opcode in FNSTENV, FNSAVE, FXSAVE, XSAVE: kept by some for unmasked exceptions only",
        source: "SDM vol. 1 § 8.1.8",
    },
    Open {
        what: "FSIN, FCOS, FSINCOS, FPTAN, FPATAN, F2XM1, FYL2X, FYL2XP1: one unit in the last place, and whether that is \
               inexact; nothing beyond the range of F2XM1 and FYL2XP1",
        source: "SDM vol. 1 § 8.3.10; vol. 2: undefined",
    },
    Open {
        what: "RCP and RSQRT, beside a processor that is not Intel's: 2 to the power of -11 of the result",
        source: "SDM vol. 2, RCPPS: a bound alone",
    },
    Open {
        what: "PUSH of a segment register with 32 bits: the upper half may stay as it is, and count for alignment or not",
        source: "SDM vol. 2, PUSH",
    },
    Open {
        what: "which of several faults of memory is told, and of which byte, where an instruction makes several accesses: \
               FLDENV, FRSTOR, FNSTENV, FNSAVE, FXSAVE, XSAVE and their kin, 80-bit numbers, ENTER, PUSHA, POPA, BOUND, \
               far and near CALL, far JMP, RETF, IRET, far pointers, masked moves and gathers",
        source: "SDM vol. 3 § 6.9: the order within a class is the processor's",
    },
    Open {
        what: "a misaligned operand that is also beyond its segment: #GP, #AC or #SS",
        source: "SDM vol. 3 § 6.9: the order within a class is the processor's",
    },
    Open { what: "operands that wrap at 4 GiB", source: "SDM vol. 3 § 5.3" },
    Open {
        what: "POPA, FSTP and FBSTP of 80 bits, and CALL of what is no address: what was popped or written before the fault",
        source: MEASURED,
    },
    Open {
        what: "MASKMOVQ and MASKMOVDQU without a chosen byte, and with AC set: whether they fault",
        source: "SDM vol. 2, MASKMOVQ",
    },
    Open { what: "XSAVE and its kin: whether parts of the area that are not asked for may fault", source: MEASURED },
    Open {
        what: "VCVTPS2PH and DPPS: MXCSR's flags at a fault, or at an exception of one of several operations",
        source: MEASURED,
    },
    Open {
        what: "XRSTOR of the compacted format with reserved bits in MXCSR: what was loaded before the fault",
        source: MEASURED,
    },
    Open {
        what: "XSAVE and its kin of components in their initial state: whether the processor takes them for such",
        source: "SDM vol. 1 § 13.6",
    },
    Open {
        what: "RETF that releases parameters from a stack of 16 bits: a carry into the upper half of ESP, where the manual \
               has SP alone",
        source: MEASURED,
    },
    Open { what: "bytes that are undefined and more than 15: #UD or #GP", source: MEASURED },
    Open {
        what: "string instructions in 64-bit code that count in ECX and fault at their first element: the upper half of RCX",
        source: MEASURED,
    },
];

/// RFLAGS that are compared: the arithmetic flags, DF, NT, AC and ID, TF, IF and IOPL.
const COMPARED: u64 = 0x24_7fd5;
const CF: u64 = 1 << 0;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;

/// Whose answers those of the interpreter are compared with. The interpreter plays a processor of Intel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// A processor of Intel's.
    Intel,
    /// Another.
    Other,
}

impl Judge {
    /// This host's processor.
    pub fn host() -> Self {
        if features::host_is_intel() { Self::Intel } else { Self::Other }
    }
}

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// In what.
    pub place: String,
    /// What the host's processor gave.
    pub native: String,
    /// What the interpreter gave.
    pub interpreted: String,
}

/// What is not compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undefined {
    /// Bits of RFLAGS.
    pub flags: u64,
    /// Bits of the x87 status word.
    pub status: u16,
    /// General registers, a bit each.
    pub registers: u16,
    /// General registers whose upper half is not compared, a bit each.
    pub upper_halves: u16,
    /// Of RSP no more than the low 16 bits are compared.
    pub stack_carry: bool,
    /// Vectors of single precision may be off by 2 to the power of -11 from those of another vendor.
    pub approximate: bool,
    /// Numbers in x87 registers may be off by one unit in the last place.
    pub last_place: bool,
    /// The flags of MXCSR are not compared.
    pub control: bool,
    /// x87 registers are not compared.
    pub x87: bool,
    /// XMM and YMM registers are not compared.
    pub vectors: bool,
    /// Memory: from, to.
    pub memory: Vec<(u64, u64)>,
}

/// The count of a shift or rotation, as far as the processor looks at it.
fn count(case: &Case, instruction: &Instruction) -> u64 {
    let last = instruction.op_count().saturating_sub(1);
    let count = if instruction.op_kind(last) == iced_x86::OpKind::Register {
        case.registers.gpr[1]
    } else {
        instruction.immediate(last)
    };
    count & if operand_bits(instruction) == 64 { 63 } else { 31 }
}

fn operand_bits(instruction: &Instruction) -> u64 {
    let register = instruction.op0_register().size() as u64;
    8 * if instruction.op0_kind() == iced_x86::OpKind::Register {
        register
    } else {
        instruction.memory_size().size() as u64
    }
}

impl Undefined {
    /// What the manuals leave open of an instruction that went well.
    pub fn of(case: &Case, instruction: &Instruction) -> Self {
        use Mnemonic as M;
        let mut undefined = Self::default();
        let bits = instruction.rflags_undefined();
        for (from, to) in [
            (RflagsBits::CF, CF),
            (RflagsBits::PF, PF),
            (RflagsBits::AF, AF),
            (RflagsBits::ZF, ZF),
            (RflagsBits::SF, SF),
            (RflagsBits::OF, OF),
        ] {
            if bits & from != 0 {
                undefined.flags |= to;
            }
        }
        for (from, to) in [(RflagsBits::C0, 8), (RflagsBits::C1, 9), (RflagsBits::C2, 10), (RflagsBits::C3, 14)] {
            if bits & from != 0 {
                undefined.status |= 1 << to;
            }
        }
        let size = operand_bits(instruction);
        match instruction.mnemonic() {
            M::Rol | M::Ror | M::Rcl | M::Rcr => {
                undefined.flags = if count(case, instruction) > 1 { OF } else { 0 };
            }
            M::Shl | M::Sal | M::Shr | M::Sar => {
                let count = count(case, instruction);
                undefined.flags = match count {
                    0 => 0,
                    1 => AF,
                    _ => AF | OF,
                };
                if count >= size && instruction.mnemonic() != M::Sar {
                    undefined.flags |= CF;
                }
            }
            M::Shld | M::Shrd => {
                let count = count(case, instruction);
                undefined.flags = match count {
                    0 => 0,
                    1 => AF,
                    _ => AF | OF,
                };
                if count > size {
                    undefined.flags = CF | PF | AF | ZF | SF | OF;
                    undefined.result(case, instruction);
                }
            }
            // A selector may be written as 16 bits, whatever the operand size (SDM vol. 2, PUSH).
            M::Push
                if instruction.op0_register().is_segment_register() && instruction.stack_pointer_increment() == -4 =>
            {
                let base = if case.bits == 16 { layout::WINDOW } else { 0 };
                let mask = if case.bits == 16 { 0xffff } else { 0xffff_ffff };
                let at = base + (case.registers.gpr[4].wrapping_sub(4) & mask);
                undefined.memory.push((at + 2, at + 4));
            }
            // Approximations, each vendor's own: at most 1.5 * 2^-12 off.
            M::Rcpps | M::Rcpss | M::Rsqrtps | M::Rsqrtss | M::Vrcpps | M::Vrcpss | M::Vrsqrtps | M::Vrsqrtss => {
                undefined.approximate = true;
            }
            M::Fsin | M::Fcos | M::Fsincos | M::Fptan | M::Fpatan | M::Fyl2x => undefined.transcendental(),
            M::F2xm1 | M::Fyl2xp1 => {
                undefined.transcendental();
                // Beyond these bounds the result is undefined.
                let top = usize::from(case.registers.status >> 11 & 7);
                let exponent = (case.registers.x87[top] >> 64) as u16 & 0x7fff;
                let largest = if instruction.mnemonic() == M::F2xm1 { 0x3ffe } else { 0x3ffc };
                if exponent > largest {
                    undefined.x87 = true;
                    undefined.status = !0;
                }
            }
            // On a stack of 16 bits SP is what grows (SDM vol. 2, RET), but what it releases may carry into ESP.
            M::Retf if instruction.op_count() == 1 => undefined.stack_carry = case.bits == 16,
            // A 16-bit operand.
            M::Bswap if size == 16 => undefined.result(case, instruction),
            M::Fnstenv | M::Fnsave | M::Fxsave | M::Fxsave64 => undefined.pointers(case, instruction),
            _ if instruction.op0_kind() == iced_x86::OpKind::Memory && aim::has_area(instruction) => {
                undefined.pointers(case, instruction);
                undefined.initial(case, instruction);
            }
            _ => {}
        }
        undefined
    }

    /// The x87's pointers and opcode, where an instruction saves them.
    fn pointers(&mut self, case: &Case, instruction: &Instruction) {
        use Mnemonic as M;
        let Some(at) = aim::address(case, instruction, 0) else { return };
        let (from, to) = match (instruction.mnemonic(), instruction.memory_size().size()) {
            (M::Fnstenv | M::Fnsave, 14 | 94) => (6, 14),
            (M::Fnstenv | M::Fnsave, _) => (12, 28),
            _ => (6, 24),
        };
        self.memory.push((at.wrapping_add(from), at.wrapping_add(to)));
    }

    /// Components in their initial state, which a processor may take for such or not (SDM vol. 1 § 13.6), where an
    /// instruction saves them and their bits.
    fn initial(&mut self, case: &Case, instruction: &Instruction) {
        use Mnemonic as M;
        let Some(at) = aim::address(case, instruction, 0) else { return };
        let registers = &case.registers;
        let mut open = |from: u64, to: u64| self.memory.push((at.wrapping_add(from), at.wrapping_add(to)));
        let compact = matches!(instruction.mnemonic(), M::Xsavec | M::Xsavec64);
        let x87 = (registers.control, registers.status, registers.valid, registers.x87) == (0x37f, 0, 0, [0; 8]);
        let sse = registers.vector.iter().all(|halves| halves[0] == 0) && (!compact || registers.mxcsr == 0x1f80);
        let avx = registers.vector.iter().all(|halves| halves[1] == 0);
        for (initial, parts) in [(x87, &[(0, 24), (32, 160)][..]), (sse, &[(24, 32), (160, 416)]), (avx, &[(576, 832)])]
        {
            if initial {
                parts.iter().for_each(|(from, to)| open(*from, *to));
                open(512, 513);
            }
        }
    }

    /// A function whose results are only almost exact (SDM vol. 1 § 8.3.10), so that it may count as exact as well.
    fn transcendental(&mut self) {
        self.last_place = true;
        // PE, UE and, since they may be unmasked, ES and B; C1.
        self.status |= 0x82b0;
    }

    /// What a fault leaves open.
    fn of_fault(case: &Case, instruction: &Instruction, native: &Outcome) -> Self {
        use Mnemonic as M;
        let mut undefined = Self::default();
        match instruction.mnemonic() {
            // The return address may have been written already when the target turns out to be none.
            M::Call if native.vector == 13 => {
                let base = if case.bits == 16 { layout::WINDOW } else { 0 };
                let mask = [0xffff, 0xffff_ffff, u64::MAX][usize::from(case.bits / 32)];
                let top = base.wrapping_add(case.registers.gpr[4] & mask);
                undefined.memory.push((top.wrapping_sub(16), top));
            }
            // What came before the fault may have been popped, or stored.
            M::Popa | M::Popad => undefined.registers = !(1 << 4),
            M::Fstp | M::Fbstp => undefined.result(case, instruction),
            // The conversion's exceptions may be noted before the store faults.
            M::Vcvtps2ph => undefined.control = true,
            // Of several operations with an exception each, not all may have been tried.
            M::Dpps | M::Dppd | M::Vdpps | M::Vdppd if native.vector == 19 => undefined.control = true,
            // In the compacted format reserved bits of MXCSR may be seen after other parts have been loaded.
            M::Xrstor | M::Xrstor64 if native.vector == 13 && is_compacted(case, instruction) => {
                (undefined.x87, undefined.vectors, undefined.status) = (true, true, !0);
            }
            // The count may have been cut to 32 bits already, and was in instructions that end with their page.
            _ if case.bits == 64 && instruction.is_string_instruction() && has_32_bit_count(instruction) => {
                undefined.upper_halves = 1 << 1;
            }
            _ => {}
        }
        undefined
    }

    fn result(&mut self, case: &Case, instruction: &Instruction) {
        if instruction.op0_kind() == iced_x86::OpKind::Register {
            self.registers |= 1 << (instruction.op0_register().full_register().number() & 15);
        } else if let Some(at) = aim::address(case, instruction, 0) {
            self.memory.push((at, at.wrapping_add(instruction.memory_size().size() as u64)));
        }
    }
}

/// Whether an area's header says that it is of the compacted format.
fn is_compacted(case: &Case, instruction: &Instruction) -> bool {
    let header = aim::address(case, instruction, 0).and_then(|at| layout::word_at(at.wrapping_add(520)));
    header.is_some_and(|word| case.word_before(word) >> 63 != 0)
}

/// Whether a string instruction is repeated, and counts in ECX.
fn has_32_bit_count(instruction: &Instruction) -> bool {
    use iced_x86::OpKind as K;
    let repeated = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    let short = |kind| matches!(kind, K::MemorySegESI | K::MemorySegEDI | K::MemoryESEDI);
    repeated && instruction.op_kinds().any(short)
}

/// A number whose distance from another is that of the numbers in units of the last place: where the exponent grows by
/// one, the significand falls to a half of what would come next; denormal numbers have the smallest exponent.
const fn units(register: u128) -> u128 {
    let exponent = register >> 64 & 0x7fff;
    let below = if exponent == 0 { 0 } else { (exponent - 1) << 63 };
    (register >> 79 << 100) + below + (register & u64::MAX as u128)
}

/// Whether all lanes of single precision are the same, or almost.
fn close(a: u128, b: u128) -> bool {
    (0..4).all(|lane| {
        let (a, b) = ((a >> (32 * lane)) as u32, (b >> (32 * lane)) as u32);
        let (x, y) = (f32::from_bits(a), f32::from_bits(b));
        a == b || x.is_normal() && y.is_normal() && (x - y).abs() <= x.abs() / 2048.0
    })
}

/// Whether the manuals leave open which of two faults of memory comes, or which byte it tells of.
fn allowed(case: &Case, instruction: &Instruction, native: &Outcome, interpreted: &Outcome) -> bool {
    use Mnemonic as M;
    let start = case.registers.rip;
    // The write of a selector as 16 bits is aligned more often.
    if instruction.op0_register().is_segment_register() && interpreted.vector == 17 && case.bits != 64 {
        return true;
    }
    if matches!(instruction.mnemonic(), M::Maskmovq | M::Maskmovdqu | M::Vmaskmovdqu)
        && interpreted.registers.rip != start
    {
        // With no byte chosen, and with AC set, it is up to the processor whether it faults.
        return native.registers.rip == start;
    }
    // The lower bound may be looked at before the upper one is read.
    if instruction.mnemonic() == M::Bound && native.vector == 5 {
        return interpreted.registers.rip == start;
    }
    // More than 15 bytes, and undefined as well.
    if instruction.is_invalid() && case.bytes.len() == 15 {
        return matches!(native.vector, 6 | 13) && matches!(interpreted.vector, 6 | 13);
    }
    // Parts of the area may be asked for that are neither stored nor loaded.
    if aim::has_area(instruction) && [native, interpreted].iter().any(|it| it.vector == 14 && it.registers.rip == start)
    {
        return true;
    }
    let of_memory = |outcome: &Outcome| outcome.registers.rip == start && matches!(outcome.vector, 11..=14 | 17);
    if !of_memory(native) || !of_memory(interpreted) {
        return false;
    }
    let in_parts = matches!(
        instruction.mnemonic(),
        M::Fldenv
            | M::Fnstenv
            | M::Frstor
            | M::Fnsave
            | M::Fxsave
            | M::Fxsave64
            | M::Fxrstor
            | M::Fxrstor64
            | M::Enter
            | M::Pusha
            | M::Pushad
            | M::Popa
            | M::Popad
            | M::Bound
            | M::Call
            | M::Jmp
            | M::Retf
            | M::Iret
            | M::Iretd
            | M::Iretq
            | M::Lds
            | M::Les
            | M::Lss
            | M::Lfs
            | M::Lgs
            | M::Fld
            | M::Fstp
            | M::Fbld
            | M::Fbstp
            | M::Maskmovq
            | M::Maskmovdqu
            | M::Vmaskmovdqu
            | M::Vmaskmovps
            | M::Vmaskmovpd
            | M::Vpmaskmovd
            | M::Vpmaskmovq
            | M::Vpgatherdd
            | M::Vpgatherdq
            | M::Vpgatherqd
            | M::Vpgatherqq
            | M::Vgatherdps
            | M::Vgatherdpd
            | M::Vgatherqps
            | M::Vgatherqpd
    ) || aim::has_area(instruction);
    // SDM vol. 3 § 5.3: whether an operand may wrap at 4 GiB.
    let wraps = case.bits != 64 && native.cr2 >= 0xffff_ff00;
    // A segment of 16-bit code whose operand is misaligned, too.
    let misaligned_beyond =
        case.bits != 64 && matches!(native.vector, 13 | 17) && matches!(interpreted.vector, 12 | 13);
    in_parts || wraps || misaligned_beyond
}

/// What differs; nothing if both agree.
pub fn differences(
    judge: Judge,
    case: &Case,
    instruction: &Instruction,
    native: &Outcome,
    interpreted: &Outcome,
) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut differ = |place: &dyn std::fmt::Display, native: &dyn std::fmt::Display, other: &dyn std::fmt::Display| {
        found.push(Difference { place: place.to_string(), native: native.to_string(), interpreted: other.to_string() });
    };
    let completed = native.registers.rip != case.registers.rip;
    let undefined =
        if completed { Undefined::of(case, instruction) } else { Undefined::of_fault(case, instruction, native) };
    let exception = |outcome: &Outcome| {
        // Linux hides which addresses of its own there are.
        let error =
            if outcome.vector == 14 && outcome.cr2 >= (1 << 47) - 4096 { outcome.error | 1 } else { outcome.error };
        (outcome.vector, error, outcome.cr2)
    };
    let (ours, theirs) = (exception(interpreted), exception(native));
    if ours != theirs && allowed(case, instruction, native, interpreted) {
        return found;
    }
    if ours != theirs {
        let text =
            |(vector, error, cr2): (u8, u32, u64)| format!("vector {vector}, error {error:#x}, address {cr2:#x}");
        differ(&"exception", &text(theirs), &text(ours));
    }
    let (a, b) = (&native.registers, &interpreted.registers);
    for (number, (x, y)) in a.gpr.iter().zip(&b.gpr).enumerate() {
        // Leaving 64-bit code leaves the upper halves undefined.
        let halved = case.bits == 64 && a.selectors[1] != CODE_64 || undefined.upper_halves >> number & 1 != 0;
        let mask = match (undefined.stack_carry && number == 4, halved) {
            (true, _) => 0xffff,
            (false, true) => 0xffff_ffff,
            (false, false) => !0,
        };
        if x & mask != y & mask && undefined.registers >> number & 1 == 0 {
            differ(&crate::text::GENERAL[number], &format!("{x:#x}"), &format!("{y:#x}"));
        }
    }
    let control = |registers: &Registers| u64::from(registers.mxcsr & if undefined.control { !0x3f } else { !0 });
    let x87 = u64::from(!undefined.x87);
    let x87_control = if undefined.vectors { 0 } else { u16::MAX };
    let flags = |registers: &Registers| registers.rflags & COMPARED & !undefined.flags;
    for (place, x, y) in [
        ("rip", a.rip, b.rip),
        ("rflags", flags(a), flags(b)),
        ("fs.base", a.fs_base, b.fs_base),
        ("gs.base", a.gs_base, b.gs_base),
        ("mxcsr", control(a), control(b)),
        ("x87 control", u64::from(a.control & x87_control), u64::from(b.control & x87_control)),
        ("x87 status", u64::from(a.status & !undefined.status), u64::from(b.status & !undefined.status)),
        ("x87 valid", u64::from(a.valid) * x87, u64::from(b.valid) * x87),
    ] {
        if x != y {
            differ(&place, &format!("{x:#x}"), &format!("{y:#x}"));
        }
    }
    for (number, (x, y)) in a.x87.iter().zip(&b.x87).enumerate() {
        let near = undefined.last_place && units(*x).abs_diff(units(*y)) <= 1;
        if x != y && !near && !undefined.x87 {
            differ(&format!("R{number}"), &format!("{x:#x}"), &format!("{y:#x}"));
        }
    }
    for (number, (x, y)) in a.vector.iter().zip(&b.vector).enumerate() {
        for (name, x, y) in [("xmm", x[0], y[0]), ("upper ymm", x[1], y[1])] {
            if x != y && !undefined.vectors && !(undefined.approximate && judge == Judge::Other && close(x, y)) {
                differ(&format!("{name}{number}"), &format!("{x:#034x}"), &format!("{y:#034x}"));
            }
        }
    }
    // A return to user code makes one null selector of all, and so does Linux's after the fault.
    let segments = |registers: &Registers| registers.selectors.map(|it| if it & !3 == 0 { 0 } else { it });
    if segments(a) != segments(b) {
        differ(&"segments", &format!("{:x?}", a.selectors), &format!("{:x?}", b.selectors));
    }
    let mut words: Vec<u32> = native.memory.iter().chain(&interpreted.memory).map(|entry| entry.0).collect();
    words.sort_unstable();
    words.dedup();
    for word in words {
        let address = layout::address_of(word as usize);
        let mask = (0..8_u64).fold(u64::MAX, |mask, i| {
            let at = address + i;
            let open = undefined.memory.iter().any(|(from, to)| (*from..*to).contains(&at));
            if open { mask & !(0xff << (8 * i)) } else { mask }
        });
        let (x, y) = (native.word(word) & mask, interpreted.word(word) & mask);
        if x != y {
            differ(&format!("memory at {address:#x}"), &format!("{x:#018x}"), &format!("{y:#018x}"));
        }
    }
    found
}
