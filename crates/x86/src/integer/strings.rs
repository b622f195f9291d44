//! String instructions: MOVS, STOS, LODS, SCAS, CMPS, with and without repetition. SDM vol. 1 § 7.3.9.
//!
//! A repeated instruction keeps RCX, RSI and RDI current element by element (or chunk by chunk), so that a fault or an
//! interrupt in the middle leaves it restartable.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::{
    flags::{self, ARITHMETIC, DF, ZF},
    word::{Word, by_size, get_sized, set_sized},
};
use crate::{
    access::Access,
    decode::{Form, segment_number},
    op::{Handler, Op, Prefix},
    state::{CpuState, Rflags, reg, seg},
    trap::Trap,
};

/// Elements done one by one between two looks at what others ask of the processor.
const POLL_INTERVAL: u32 = 256;

/// What ends a repetition besides the count.
pub(crate) const ALWAYS: u8 = 0;
const WHILE_EQUAL: u8 = 1;
const WHILE_NOT_EQUAL: u8 = 2;

/// One string instruction. In its [`Op`], `segment` is that of the source and `aux` that of the destination.
pub(crate) trait StringOperation {
    /// Does one element and moves the pointers.
    fn one<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap>;

    /// Does up to `count` elements at once where that is possible, and moves the pointers; gives how many it did.
    #[inline(always)]
    fn many<T: Word>(_: &mut CpuState, _: &Op, _count: u64) -> u64 {
        0
    }
}

/// The source's offset.
#[inline(always)]
pub(crate) fn source(cpu: &CpuState, op: &Op) -> u64 {
    get_sized(cpu, reg::RSI, op.address_size)
}

/// The destination's offset.
#[inline(always)]
pub(crate) fn destination(cpu: &CpuState, op: &Op) -> u64 {
    get_sized(cpu, reg::RDI, op.address_size)
}

/// Moves RSI or RDI by one element, in the direction that DF says.
#[inline(always)]
pub(crate) fn step<T: Word>(cpu: &mut CpuState, op: &Op, register: u8) {
    let size = T::SIZE as u64;
    let old = cpu.register(register);
    let new = if cpu.rflags & DF == 0 { old.wrapping_add(size) } else { old.wrapping_sub(size) };
    set_sized(cpu, register, op.address_size, new);
}

/// How many of `count` elements lie between `offset` and the end of what the address size reaches, and the linear
/// address of the first, if the segment allows them all.
#[inline(always)]
fn chunk<T: Word>(cpu: &mut CpuState, op: &Op, segment: u8, offset: u64, count: u64, access: Access) -> (u64, u64) {
    let count = count.min(4096 / T::SIZE as u64);
    if segment == seg::FLAT && op.address_size == 8 {
        return (count, offset);
    }
    let last = super::word::mask(op.address_size);
    let count = count.min((last - offset) / T::SIZE as u64);
    if count == 0 {
        return (0, 0);
    }
    let exception = cpu.exception;
    match cpu.linear_at(segment, offset, count * T::SIZE as u64, access) {
        Ok(linear) => (count, linear),
        Err(_) => {
            // Some element is beyond the limit: they are done one by one until it is reached.
            cpu.exception = exception;
            (0, 0)
        }
    }
}

/// Whether elements may be done in chunks: upwards, and not one at a time for a debugger.
#[inline(always)]
fn chunks_allowed(cpu: &CpuState) -> bool {
    cpu.rflags & (DF | Rflags::TF.bits()) == 0
}

/// MOVS.
struct Move;
impl StringOperation for Move {
    #[inline(always)]
    fn one<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
        let offset = source(cpu, op);
        let from = cpu.linear_at(op.segment, offset, T::SIZE as u64, Access::Read)?;
        let value: T = cpu.read(from)?;
        let offset = destination(cpu, op);
        let to = cpu.linear_at(op.aux, offset, T::SIZE as u64, Access::Write)?;
        cpu.write(to, value)?;
        step::<T>(cpu, op, reg::RSI);
        step::<T>(cpu, op, reg::RDI);
        Ok(())
    }

    #[inline(always)]
    fn many<T: Word>(cpu: &mut CpuState, op: &Op, count: u64) -> u64 {
        if !chunks_allowed(cpu) {
            return 0;
        }
        let (from_offset, to_offset) = (source(cpu, op), destination(cpu, op));
        let (count, from) = chunk::<T>(cpu, op, op.segment, from_offset, count, Access::Read);
        let (count, to) = chunk::<T>(cpu, op, op.aux, to_offset, count, Access::Write);
        if count == 0 {
            return 0;
        }
        let done = cpu.copy_elements::<T>(to, from, count);
        let bytes = done * T::SIZE as u64;
        set_sized(cpu, reg::RSI, op.address_size, from_offset.wrapping_add(bytes));
        set_sized(cpu, reg::RDI, op.address_size, to_offset.wrapping_add(bytes));
        done
    }
}

/// STOS.
struct Store;
impl StringOperation for Store {
    #[inline(always)]
    fn one<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
        let offset = destination(cpu, op);
        let to = cpu.linear_at(op.aux, offset, T::SIZE as u64, Access::Write)?;
        let value = T::get(cpu, reg::RAX);
        cpu.write(to, value)?;
        step::<T>(cpu, op, reg::RDI);
        Ok(())
    }

    #[inline(always)]
    fn many<T: Word>(cpu: &mut CpuState, op: &Op, count: u64) -> u64 {
        if !chunks_allowed(cpu) {
            return 0;
        }
        let offset = destination(cpu, op);
        let (count, to) = chunk::<T>(cpu, op, op.aux, offset, count, Access::Write);
        if count == 0 {
            return 0;
        }
        let value = T::get(cpu, reg::RAX);
        let done = cpu.fill_elements(to, count, value);
        set_sized(cpu, reg::RDI, op.address_size, offset.wrapping_add(done * T::SIZE as u64));
        done
    }
}

/// LODS.
struct Load;
impl StringOperation for Load {
    #[inline(always)]
    fn one<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
        let offset = source(cpu, op);
        let from = cpu.linear_at(op.segment, offset, T::SIZE as u64, Access::Read)?;
        let value: T = cpu.read(from)?;
        T::set(cpu, reg::RAX, value);
        step::<T>(cpu, op, reg::RSI);
        Ok(())
    }
}

#[inline(always)]
fn compare<T: Word>(cpu: &mut CpuState, left: T, right: T) {
    let (result, borrow) = left.subtract_borrow(right, false);
    flags::put(cpu, ARITHMETIC, flags::of_difference(left, right, result, borrow));
}

/// SCAS.
struct Scan;
impl StringOperation for Scan {
    #[inline(always)]
    fn one<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
        let offset = destination(cpu, op);
        let from = cpu.linear_at(op.aux, offset, T::SIZE as u64, Access::Read)?;
        let value: T = cpu.read(from)?;
        let accumulator = T::get(cpu, reg::RAX);
        compare(cpu, accumulator, value);
        step::<T>(cpu, op, reg::RDI);
        Ok(())
    }
}

/// CMPS.
struct Compare;
impl StringOperation for Compare {
    #[inline(always)]
    fn one<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
        // Where both would fault, the one at rDI does.
        let offset = destination(cpu, op);
        let from = cpu.linear_at(op.aux, offset, T::SIZE as u64, Access::Read)?;
        let right: T = cpu.read(from)?;
        let offset = source(cpu, op);
        let from = cpu.linear_at(op.segment, offset, T::SIZE as u64, Access::Read)?;
        let left: T = cpu.read(from)?;
        compare(cpu, left, right);
        step::<T>(cpu, op, reg::RSI);
        step::<T>(cpu, op, reg::RDI);
        Ok(())
    }
}

/// Without a prefix: one element.
pub(crate) extern "C" fn once<S: StringOperation, T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    S::one::<T>(cpu, op)
}

/// With a prefix: until the count in RCX is used up, or the comparison ends it.
pub(crate) extern "C" fn repeat<S: StringOperation, T: Word, const WHILE: u8>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    let mut to_poll = POLL_INTERVAL;
    let before = cpu.rflags;
    loop {
        let count = get_sized(cpu, reg::RCX, op.address_size);
        if count == 0 {
            return Ok(());
        }
        let mut done = S::many::<T>(cpu, op, count);
        if done == 0 {
            if let Err(trap) = S::one::<T>(cpu, op) {
                // At a fault flags are what they were before the instruction (SDM vol. 2, REP).
                cpu.rflags = before;
                return Err(trap);
            }
            done = 1;
            to_poll -= 1;
        } else {
            to_poll = 0;
        }
        set_sized(cpu, reg::RCX, op.address_size, count - done);
        let equal = cpu.rflags & ZF != 0;
        if count == done || WHILE == WHILE_EQUAL && !equal || WHILE == WHILE_NOT_EQUAL && equal {
            return Ok(());
        }
        let traps = cpu.rflags & Rflags::TF.bits() != 0 || cpu.engine.breakpoints.hits != 0;
        if traps || to_poll == 0 && cpu.requests.any() {
            // Between elements, too: the comparison that ends it is the one that tells.
            cpu.rflags = before;
            return Err(Trap::AGAIN);
        }
        if to_poll == 0 {
            to_poll = POLL_INTERVAL;
        }
    }
}

/// Fills what string handlers read of an operation.
pub(crate) fn lower_string(instruction: &Instruction, form: &Form, op: &mut Op) {
    for i in 0..instruction.op_count() {
        op.address_size = match instruction.op_kind(i) {
            OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => 2,
            OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => 4,
            OpKind::MemorySegRSI | OpKind::MemorySegRDI | OpKind::MemoryESRDI => 8,
            _ => continue,
        };
    }
    let segment = segment_number(instruction.memory_segment());
    op.segment = if form.bits == 64 && segment < seg::FS { seg::FLAT } else { segment };
    op.aux = if form.bits == 64 { seg::FLAT } else { seg::ES };
}

/// Chooses the instance of a string handler for a size in bytes.
macro_rules! string_handler {
    ($operation:ty, $size:expr, $prefix:expr) => {
        match $prefix {
            Prefix::Rep | Prefix::Repne => by_size!($size, repeat, [$operation], [ALWAYS]),
            _ => by_size!($size, once, [$operation], []),
        }
    };
}

/// The same for instructions whose repetition ends by a comparison.
macro_rules! comparing_handler {
    ($operation:ty, $size:expr, $prefix:expr) => {
        match $prefix {
            Prefix::Rep => by_size!($size, repeat, [$operation], [WHILE_EQUAL]),
            Prefix::Repne => by_size!($size, repeat, [$operation], [WHILE_NOT_EQUAL]),
            _ => by_size!($size, once, [$operation], []),
        }
    };
}

/// Handlers of this file's instructions.
pub(super) fn select(instruction: &Instruction, form: &Form, op: &mut Op) -> Option<Handler> {
    if !instruction.is_string_instruction() {
        return None;
    }
    let size = match instruction.mnemonic() {
        Mnemonic::Movsb | Mnemonic::Stosb | Mnemonic::Lodsb | Mnemonic::Scasb | Mnemonic::Cmpsb => 1,
        Mnemonic::Movsw | Mnemonic::Stosw | Mnemonic::Lodsw | Mnemonic::Scasw | Mnemonic::Cmpsw => 2,
        Mnemonic::Movsd | Mnemonic::Stosd | Mnemonic::Lodsd | Mnemonic::Scasd | Mnemonic::Cmpsd => 4,
        Mnemonic::Movsq | Mnemonic::Stosq | Mnemonic::Lodsq | Mnemonic::Scasq | Mnemonic::Cmpsq => 8,
        _ => return None,
    };
    lower_string(instruction, form, op);
    op.size = size;
    Some(match instruction.mnemonic() {
        Mnemonic::Movsb | Mnemonic::Movsw | Mnemonic::Movsd | Mnemonic::Movsq => {
            string_handler!(Move, size, op.prefix)
        }
        Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq => {
            string_handler!(Store, size, op.prefix)
        }
        Mnemonic::Lodsb | Mnemonic::Lodsw | Mnemonic::Lodsd | Mnemonic::Lodsq => {
            string_handler!(Load, size, op.prefix)
        }
        Mnemonic::Scasb | Mnemonic::Scasw | Mnemonic::Scasd | Mnemonic::Scasq => {
            comparing_handler!(Scan, size, op.prefix)
        }
        _ => comparing_handler!(Compare, size, op.prefix),
    })
}
