//! Moves, conversions of size, addresses, exchanges and table look-ups: MOV, MOVZX, MOVSX, MOVSXD, MOVNTI, MOVBE, LEA, XCHG,
//! BSWAP, CBW to CQO, XLAT. SDM vol. 2.

use iced_x86::{Instruction, Mnemonic, Register};

use super::word::{Word, by_size, by_wide_size};
use crate::{
    access::Access,
    decode::{Form, Kind},
    op::{Handler, Op, ZERO},
    protection::address::{load, load_at_once, store, store_at_once},
    state::{CpuState, reg},
    trap::Trap,
};

extern "C" fn register_register<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let value = T::get(cpu, op.src);
    T::set(cpu, op.dst, value);
    Ok(())
}

extern "C" fn register_immediate<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    T::set(cpu, op.dst, T::cut(op.imm));
    Ok(())
}

extern "C" fn register_memory<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let Some(value) = load_at_once(cpu, op) else { return register_memory_with_care::<T>(cpu, op) };
    T::set(cpu, op.dst, value);
    Ok(())
}

#[cold]
extern "C" fn register_memory_with_care<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let value = load(cpu, op)?;
    T::set(cpu, op.dst, value);
    Ok(())
}

extern "C" fn memory_register<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let value = T::get(cpu, op.src);
    if store_at_once(cpu, op, value) { Ok(()) } else { memory_register_with_care::<T>(cpu, op) }
}

#[cold]
extern "C" fn memory_register_with_care<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let value = T::get(cpu, op.src);
    store(cpu, op, value)
}

extern "C" fn memory_immediate<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    if store_at_once(cpu, op, T::cut(op.imm)) { Ok(()) } else { memory_immediate_with_care::<T>(cpu, op) }
}

#[cold]
extern "C" fn memory_immediate_with_care<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    store(cpu, op, T::cut(op.imm))
}

/// A value of a smaller size `S`, extended to `T`.
#[inline(always)]
fn extend<S: Word, T: Word, const SIGNED: bool>(value: S) -> T {
    T::cut(if SIGNED { value.signed() as u64 } else { value.wide() })
}

extern "C" fn extend_register<S: Word, T: Word, const SIGNED: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let value = extend::<S, T, SIGNED>(S::get(cpu, op.src));
    T::set(cpu, op.dst, value);
    Ok(())
}

extern "C" fn extend_memory<S: Word, T: Word, const SIGNED: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let Some(value) = load_at_once(cpu, op) else { return extend_memory_with_care::<S, T, SIGNED>(cpu, op) };
    T::set(cpu, op.dst, extend::<S, T, SIGNED>(value));
    Ok(())
}

#[cold]
extern "C" fn extend_memory_with_care<S: Word, T: Word, const SIGNED: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    let value = load(cpu, op)?;
    T::set(cpu, op.dst, extend::<S, T, SIGNED>(value));
    Ok(())
}

fn select_extend<const SIGNED: bool>(form: &Form) -> Option<Handler> {
    let memory = form.kinds[1] == Kind::Memory;
    Some(match (form.sizes[1], memory) {
        (1, false) => by_wide_size!(form.sizes[0], extend_register, [u8], [SIGNED]),
        (1, true) => by_wide_size!(form.sizes[0], extend_memory, [u8], [SIGNED]),
        (2, false) => by_wide_size!(form.sizes[0], extend_register, [u16], [SIGNED]),
        (2, true) => by_wide_size!(form.sizes[0], extend_memory, [u16], [SIGNED]),
        (4, false) => by_wide_size!(form.sizes[0], extend_register, [u32], [SIGNED]),
        (4, true) => by_wide_size!(form.sizes[0], extend_memory, [u32], [SIGNED]),
        _ => return None,
    })
}

extern "C" fn load_address<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let address = op.effective_address(cpu);
    T::set(cpu, op.dst, T::cut(address));
    Ok(())
}

extern "C" fn exchange_registers<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let (first, second) = (T::get(cpu, op.dst), T::get(cpu, op.src));
    T::set(cpu, op.dst, second);
    T::set(cpu, op.src, first);
    Ok(())
}

/// XCHG of memory and a register (whose number is in `aux`): always locked.
extern "C" fn exchange_memory<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let linear = cpu.linear(op, T::SIZE as u64, Access::Write)?;
    let value = T::get(cpu, op.aux);
    let old = cpu.modify_locked(linear, |_: T| value)?;
    T::set(cpu, op.aux, old);
    Ok(())
}

extern "C" fn swap_bytes_32(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let value = u32::get(cpu, op.dst).swap_bytes();
    u32::set(cpu, op.dst, value);
    Ok(())
}

extern "C" fn swap_bytes_64(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let value = u64::get(cpu, op.dst).swap_bytes();
    u64::set(cpu, op.dst, value);
    Ok(())
}

#[inline(always)]
fn swapped<T: Word>(value: T) -> T {
    T::cut(value.wide().swap_bytes() >> (64 - T::BITS))
}

/// MOVBE from memory.
extern "C" fn load_swapped<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let linear = cpu.linear(op, T::SIZE as u64, Access::Read)?;
    let value: T = cpu.read(linear)?;
    T::set(cpu, op.dst, swapped(value));
    Ok(())
}

/// MOVBE to memory.
extern "C" fn store_swapped<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let linear = cpu.linear(op, T::SIZE as u64, Access::Write)?;
    let value = T::get(cpu, op.src);
    cpu.write(linear, swapped(value))
}

/// BSWAP of 16 bits is undefined; processors clear the register.
extern "C" fn swap_bytes_16(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    u16::set(cpu, op.dst, 0);
    Ok(())
}

/// CBW, CWDE, CDQE: sign-extends the lower half of the accumulator.
extern "C" fn widen_accumulator<S: Word, T: Word>(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    let value = T::cut(S::get(cpu, reg::RAX).signed() as u64);
    T::set(cpu, reg::RAX, value);
    Ok(())
}

/// CWD, CDQ, CQO: fills DX, EDX or RDX with the accumulator's sign.
extern "C" fn sign_to_data<T: Word>(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    let value = if T::get(cpu, reg::RAX).sign() { u64::MAX } else { 0 };
    T::set(cpu, reg::RDX, T::cut(value));
    Ok(())
}

/// XLAT: AL from the table at the memory operand (whose index the decoder left out).
extern "C" fn table_lookup(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let entry = Op { disp: op.disp.wrapping_add(cpu.register(reg::RAX) & 0xff), ..*op };
    let linear = cpu.linear(&entry, 1, Access::Read)?;
    let value = cpu.read(linear)?;
    u8::set(cpu, reg::RAX, value);
    Ok(())
}

fn is_general(register: Register) -> bool {
    register == Register::None || register.is_gpr()
}

/// Handlers of this file's instructions.
pub(super) fn select(instruction: &Instruction, form: &Form, op: &mut Op) -> Option<Handler> {
    let size = form.sizes[0];
    Some(match instruction.mnemonic() {
        Mnemonic::Mov => {
            if !is_general(instruction.op0_register()) || !is_general(instruction.op1_register()) {
                return None;
            }
            match (form.kinds[0], form.kinds[1]) {
                (Kind::Register, Kind::Register) => by_size!(size, register_register, [], []),
                (Kind::Register, Kind::Immediate) => by_size!(size, register_immediate, [], []),
                (Kind::Register, Kind::Memory) => by_size!(size, register_memory, [], []),
                (Kind::Memory, Kind::Register) => by_size!(size, memory_register, [], []),
                (Kind::Memory, Kind::Immediate) => by_size!(size, memory_immediate, [], []),
                _ => return None,
            }
        }
        Mnemonic::Movnti => by_wide_size!(size, memory_register, [], []),
        Mnemonic::Movzx => return select_extend::<false>(form),
        Mnemonic::Movsx => return select_extend::<true>(form),
        // With an operand size of 16 or 32 bits nothing is extended.
        Mnemonic::Movsxd if form.sizes[0] == form.sizes[1] || size == 2 => match form.kinds[1] {
            Kind::Memory => by_wide_size!(size, register_memory, [], []),
            _ => by_wide_size!(size, register_register, [], []),
        },
        Mnemonic::Movsxd => return select_extend::<true>(form),
        Mnemonic::Lea => by_wide_size!(size, load_address, [], []),
        Mnemonic::Xchg => match (form.kinds[0], form.kinds[1]) {
            (Kind::Register, Kind::Register) => by_size!(size, exchange_registers, [], []),
            (Kind::Memory, _) => {
                op.aux = op.src;
                by_size!(form.sizes[1], exchange_memory, [], [])
            }
            _ => {
                op.aux = op.dst;
                by_size!(size, exchange_memory, [], [])
            }
        },
        Mnemonic::Movbe if form.kinds[0] == Kind::Memory => by_wide_size!(size, store_swapped, [], []),
        Mnemonic::Movbe => by_wide_size!(size, load_swapped, [], []),
        Mnemonic::Bswap => match size {
            2 => swap_bytes_16,
            4 => swap_bytes_32,
            _ => swap_bytes_64,
        },
        Mnemonic::Cbw => widen_accumulator::<u8, u16>,
        Mnemonic::Cwde => widen_accumulator::<u16, u32>,
        Mnemonic::Cdqe => widen_accumulator::<u32, u64>,
        Mnemonic::Cwd => sign_to_data::<u16>,
        Mnemonic::Cdq => sign_to_data::<u32>,
        Mnemonic::Cqo => sign_to_data::<u64>,
        Mnemonic::Xlatb => {
            op.index = ZERO;
            table_lookup
        }
        _ => return None,
    })
}
