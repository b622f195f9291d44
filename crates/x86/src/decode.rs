//! From bytes to operations: the form of an instruction's operands, and the choice of its handler.

use iced_x86::{Instruction, OpKind, Register};

use crate::{
    engine::Mode,
    op::{HIGH_BYTE, Handler, Op, Prefix, ZERO},
    state::{CpuState, seg},
    trap::{Exception, Trap},
};

/// Kinds of operand, as handlers are chosen by them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// No such operand.
    #[default]
    None,
    /// A register.
    Register,
    /// Memory.
    Memory,
    /// An immediate.
    Immediate,
    /// A near branch target.
    Branch,
    /// A far pointer.
    FarPointer,
}

/// What a handler is chosen by, besides the mnemonic.
#[derive(Clone, Copy, Debug, Default)]
pub struct Form {
    /// Kinds of operands 0 to 3.
    pub kinds: [Kind; 4],
    /// Size in bytes of operands 0 to 3 (of what is in memory, or of the register); 0 for others.
    pub sizes: [u8; 4],
    /// Whether any of the flags that the instruction writes is read before it is written again.
    pub flags_live: bool,
    /// Code size of the mode: 16, 32 or 64.
    pub bits: u8,
    /// The whole mode: a handler is decoded for one mode only.
    pub mode: Mode,
}

/// Number of a register inside its kind; high byte registers are [`HIGH_BYTE`] on.
pub fn register_number(register: Register) -> u8 {
    match register {
        Register::AH => HIGH_BYTE,
        Register::CH => HIGH_BYTE + 1,
        Register::DH => HIGH_BYTE + 2,
        Register::BH => HIGH_BYTE + 3,
        Register::None => ZERO,
        // Numbers of byte registers count the high bytes too.
        _ if register.is_gpr8() => register.full_register().number() as u8,
        _ => register.number() as u8,
    }
}

/// Number of a segment register.
pub fn segment_number(register: Register) -> u8 {
    match register {
        Register::ES => seg::ES,
        Register::CS => seg::CS,
        Register::SS => seg::SS,
        Register::DS => seg::DS,
        Register::FS => seg::FS,
        Register::GS => seg::GS,
        _ => seg::FLAT,
    }
}

/// Fills what every family reads in the same way: operand kinds and sizes, register numbers, the memory operand,
/// the immediate and prefixes. The handler is `handler` until a family chooses its own.
pub fn lower(instruction: &Instruction, bits: u8, handler: Handler) -> (Op, Form) {
    let mut form = Form { bits, flags_live: true, ..Form::default() };
    let mut op = Op {
        handler,
        imm: 0,
        disp: 0,
        base: ZERO,
        index: ZERO,
        scale: 0,
        segment: seg::FLAT,
        address_size: bits / 8,
        dst: 0,
        src: 0,
        aux: 0,
        size: 0,
        length: instruction.len() as u8,
        offset: 0,
        prefix: if instruction.has_lock_prefix() {
            Prefix::Lock
        } else if instruction.has_repne_prefix() {
            Prefix::Repne
        } else if instruction.has_rep_prefix() {
            Prefix::Rep
        } else {
            Prefix::None
        },
    };
    for i in 0..instruction.op_count().min(4) {
        let slot = i as usize;
        let kind = instruction.op_kind(i);
        form.kinds[slot] = match kind {
            OpKind::Register => {
                let register = instruction.op_register(i);
                form.sizes[slot] = register.size() as u8;
                let number =
                    if register.is_segment_register() { segment_number(register) } else { register_number(register) };
                match i {
                    0 => op.dst = number,
                    1 => op.src = number,
                    2 => op.aux = number,
                    // A fourth register is encoded as an immediate.
                    _ => op.imm = u64::from(number),
                }
                Kind::Register
            }
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                op.imm = instruction.near_branch_target();
                Kind::Branch
            }
            OpKind::FarBranch16 => {
                op.imm = u64::from(instruction.far_branch16());
                op.disp = u64::from(instruction.far_branch_selector());
                Kind::FarPointer
            }
            OpKind::FarBranch32 => {
                op.imm = u64::from(instruction.far_branch32());
                op.disp = u64::from(instruction.far_branch_selector());
                Kind::FarPointer
            }
            OpKind::Immediate8
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64 => {
                op.imm = instruction.immediate(i);
                Kind::Immediate
            }
            OpKind::Immediate8_2nd => {
                op.disp = u64::from(instruction.immediate8_2nd());
                Kind::Immediate
            }
            _ => {
                form.sizes[slot] = instruction.memory_size().size() as u8;
                lower_implicit(instruction, kind, &mut op);
                Kind::Memory
            }
        };
        if kind == OpKind::Memory {
            lower_memory(instruction, &mut op, bits);
        }
    }
    op.size = form.sizes[0];
    (op, form)
}

/// Segment and address size of an operand that the registers SI, DI or BX point to. Where an instruction has two such
/// operands, the segment is that of the one which can be overridden.
fn lower_implicit(instruction: &Instruction, kind: OpKind, op: &mut Op) {
    let (size, overridable) = match kind {
        OpKind::MemorySegSI | OpKind::MemorySegDI => (2, true),
        OpKind::MemorySegESI | OpKind::MemorySegEDI => (4, true),
        OpKind::MemorySegRSI | OpKind::MemorySegRDI => (8, true),
        OpKind::MemoryESDI => (2, false),
        OpKind::MemoryESEDI => (4, false),
        OpKind::MemoryESRDI => (8, false),
        _ => return,
    };
    op.address_size = size;
    if overridable {
        op.segment = segment_number(instruction.memory_segment());
    } else if op.segment == seg::FLAT {
        op.segment = seg::ES;
    }
}

/// Replaces a segment that is flat in `mode` by the one that costs nothing.
fn flatten(op: &mut Op, mode: Mode) {
    let flat = match op.segment {
        seg::ES => mode.contains(Mode::FLAT_ES),
        seg::SS => mode.contains(Mode::FLAT_SS),
        seg::DS => mode.contains(Mode::FLAT_DS),
        // A write through CS must fault outside 64-bit mode, so it is never flat there.
        seg::CS => mode.contains(Mode::CODE_64),
        _ => false,
    };
    if flat {
        op.segment = seg::FLAT;
    }
}

/// What no family knows.
extern "C" fn undefined(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    Err(cpu.raise(Exception::INVALID_OPCODE))
}

type Select = fn(&Instruction, &Form, &mut Op) -> Option<Handler>;

/// Families of instructions, in the order in which they are asked.
pub(crate) const FAMILIES: [Select; 5] =
    [crate::integer::select, crate::system::select, crate::protection::select, crate::simd::select, crate::x87::select];

/// The operation of an instruction in `mode`. `flags_live` says whether anything reads the flags that it writes.
pub fn decode(instruction: &Instruction, mode: Mode, flags_live: bool) -> Op {
    let (mut op, mut form) = lower(instruction, mode.code_bits(), undefined);
    form.flags_live = flags_live;
    form.mode = mode;
    flatten(&mut op, mode);
    if instruction.is_invalid() {
        return op;
    }
    for family in FAMILIES {
        if let Some(handler) = family(instruction, &form, &mut op) {
            op.handler = handler;
            flatten(&mut op, mode);
            break;
        }
    }
    op
}

fn lower_memory(instruction: &Instruction, op: &mut Op, bits: u8) {
    let base = instruction.memory_base();
    op.disp = instruction.memory_displacement64();
    op.scale = instruction.memory_index_scale().trailing_zeros() as u8;
    op.index = register_number(instruction.memory_index());
    // For RIP-relative operands iced has added RIP to the displacement already.
    op.base = if matches!(base, Register::RIP | Register::EIP) { ZERO } else { register_number(base) };
    let index = instruction.memory_index();
    op.address_size = match (base, index) {
        // A vector as index says nothing of the size.
        (Register::None, index) if index.is_vector_register() => {
            if instruction.memory_displ_size() == 8 {
                8
            } else {
                4
            }
        }
        (Register::None, Register::None) => match instruction.memory_displ_size() {
            2 => 2,
            8 => 8,
            4 if bits == 64 => 8,
            _ => 4,
        },
        (Register::None, index) => index.size() as u8,
        (base, _) => base.size() as u8,
    };
    let segment = segment_number(instruction.memory_segment());
    op.segment = if bits == 64 && segment < seg::FS { seg::FLAT } else { segment };
}
