//! The stack's instructions: PUSH, POP, PUSHA, POPA, PUSHF, POPF, ENTER, LEAVE. SDM vol. 2; vol. 1 § 6.
//!
//! RSP moves only when nothing can fault any more.

use iced_x86::{Instruction, Mnemonic, Register};

use super::word::{Word, by_wide_size, get_sized};
use crate::{
    access::Access,
    decode::{Form, Kind},
    op::{Handler, Op},
    protection::{stack::Stack, virtual_interrupts::InterruptFlag},
    state::{CpuState, Rflags, reg, seg},
    trap::{Exception, Trap},
};

extern "C" fn push_register<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let value = T::get(cpu, op.dst);
    if cpu.push_at_once(value) { Ok(()) } else { push_register_with_care::<T>(cpu, op) }
}

#[inline(never)]
extern "C" fn push_register_with_care<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let value = T::get(cpu, op.dst);
    cpu.push(value)
}

extern "C" fn push_immediate<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    cpu.push(T::cut(op.imm))
}

extern "C" fn push_memory<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let linear = cpu.linear(op, T::SIZE as u64, Access::Read)?;
    let value: T = cpu.read(linear)?;
    cpu.push(value)
}

extern "C" fn pop_register<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let Some(value) = cpu.top_at_once::<T>() else { return pop_register_with_care::<T>(cpu, op) };
    cpu.gpr[usize::from(reg::RSP)] = cpu.register(reg::RSP).wrapping_add(T::SIZE as u64);
    T::set(cpu, op.dst, value);
    Ok(())
}

#[inline(never)]
extern "C" fn pop_register_with_care<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    // POP RSP: the value popped wins over the increment.
    let value: T = cpu.pop()?;
    T::set(cpu, op.dst, value);
    Ok(())
}

extern "C" fn pop_memory<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let before = cpu.register(reg::RSP);
    // An address by RSP is that after the pop.
    let value: T = cpu.pop()?;
    let written = cpu.linear(op, T::SIZE as u64, Access::Write).and_then(|linear| cpu.write(linear, value));
    if written.is_err() {
        u64::set(cpu, reg::RSP, before);
    }
    written
}

extern "C" fn push_all<T: Word>(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    let mut stack = Stack::current(cpu);
    for number in 0..8 {
        let value = T::get(cpu, number);
        stack.push(cpu, value)?;
    }
    stack.commit(cpu);
    Ok(())
}

extern "C" fn pop_all<T: Word>(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    let mut stack = Stack::current(cpu);
    let mut values = [T::cut(0); 8];
    for value in values.iter_mut().rev() {
        *value = stack.pop(cpu)?;
    }
    for (number, value) in values.into_iter().enumerate() {
        if number != usize::from(reg::RSP) {
            T::set(cpu, number as u8, value);
        }
    }
    stack.commit(cpu);
    Ok(())
}

extern "C" fn push_flags<T: Word>(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    if cpu.interrupt_flag_in_image(T::SIZE)? == InterruptFlag::Virtual {
        let image = cpu.virtual_flags();
        return cpu.push(image);
    }
    let image = (cpu.flags() - Rflags::VM - Rflags::RF).bits();
    cpu.push(T::cut(image))
}

extern "C" fn pop_flags<T: Word>(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    let flag = cpu.interrupt_flag_in_image(T::SIZE)?;
    let old = cpu.rflags;
    if flag == InterruptFlag::Virtual {
        let image = cpu.stack_top::<T>(0)?.wide();
        cpu.check_virtual_flags(image)?;
        cpu.set_virtual_interrupt_flag(image & Rflags::IF.bits() != 0);
    }
    // RF is cleared whatever was popped; VM and VIP stay, and so does VIF but for the above.
    let value = cpu.pop::<T>()?.wide() & !Rflags::RF.bits();
    let old = old & !Rflags::VIF.bits() | cpu.rflags & Rflags::VIF.bits();
    let mut changeable =
        Rflags::ARITHMETIC | Rflags::TF | Rflags::DF | Rflags::NT | Rflags::RF | Rflags::AC | Rflags::ID;
    changeable.set(Rflags::IOPL, cpu.cpl == 0);
    changeable.set(Rflags::IF, u64::from(cpu.cpl) <= old >> 12 & 3);
    let mask = changeable.bits() & if T::SIZE == 2 { 0xffff } else { u64::MAX };
    cpu.rflags = old & !mask | value & mask;
    let changed = Rflags::from_bits_retain(old ^ cpu.rflags);
    if changed.intersects(Rflags::TF | Rflags::AC) {
        cpu.update_mode();
        return Err(Trap::NEXT);
    }
    // An interrupt that waited may come now.
    if changed.contains(Rflags::IF) && cpu.flags().contains(Rflags::IF) { Err(Trap::NEXT) } else { Ok(()) }
}

extern "C" fn enter<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let depth = op.disp & 31;
    let size = T::SIZE as u64;
    let mask = cpu.stack_mask();
    let mut stack = Stack::current(cpu);
    let frame = T::get(cpu, reg::RBP);
    stack.push(cpu, frame)?;
    let top = stack.pointer;
    if depth > 0 {
        for level in 1..depth {
            let address = cpu.register(reg::RBP).wrapping_sub(level * size) & mask;
            let linear = cpu.linear_at(seg::SS, address, size, Access::Read)?;
            let link: T = cpu.read(linear)?;
            stack.push(cpu, link)?;
        }
        stack.push(cpu, T::cut(top))?;
    }
    stack.pointer = stack.pointer.wrapping_sub(op.imm & 0xffff) & mask;
    // The new top must be writable, though nothing is written (SDM: a push there would fault later, in the open).
    let linear = cpu.linear_at(seg::SS, stack.pointer, size, Access::Write)?;
    cpu.probe_write(linear, size)?;
    stack.commit(cpu);
    T::set(cpu, reg::RBP, T::cut(top));
    Ok(())
}

extern "C" fn leave<T: Word>(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    let before = cpu.register(reg::RSP);
    let frame = cpu.register(reg::RBP);
    cpu.set_stack_pointer(frame);
    match cpu.pop::<T>() {
        Ok(value) => {
            T::set(cpu, reg::RBP, value);
            Ok(())
        }
        Err(trap) => {
            u64::set(cpu, reg::RSP, before);
            Err(trap)
        }
    }
}

/// BOUND: #BR unless the signed index lies between the two bounds in memory.
extern "C" fn bound(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let size = op.size;
    // Each bound is an operand of its own.
    let first = cpu.linear(op, u64::from(size), Access::Read)?;
    let second = op.effective_address(cpu).wrapping_add(u64::from(size));
    let second = if op.address_size == 2 { second & 0xffff } else { second & 0xffff_ffff };
    let second = cpu.linear_at(op.segment, second, u64::from(size), Access::Read)?;
    let index = get_sized(cpu, op.dst, size);
    let (index, lower, upper) = if size == 2 {
        let lower: u16 = cpu.read(first)?;
        let upper: u16 = cpu.read(second)?;
        ((index as u16).signed(), lower.signed(), upper.signed())
    } else {
        let lower: u32 = cpu.read(first)?;
        let upper: u32 = cpu.read(second)?;
        ((index as u32).signed(), lower.signed(), upper.signed())
    };
    if index < lower || index > upper {
        return Err(cpu.raise(Exception::BOUND));
    }
    Ok(())
}

/// Handlers of this file's instructions.
pub(super) fn select(instruction: &Instruction, form: &Form, op: &mut Op) -> Option<Handler> {
    let segment = |register: Register| register.is_segment_register();
    let size = instruction.stack_pointer_increment().unsigned_abs() as u8;
    Some(match instruction.mnemonic() {
        Mnemonic::Push if segment(instruction.op0_register()) => return None,
        Mnemonic::Push => match form.kinds[0] {
            Kind::Register => by_wide_size!(size, push_register, [], []),
            Kind::Immediate => by_wide_size!(size, push_immediate, [], []),
            _ => by_wide_size!(size, push_memory, [], []),
        },
        Mnemonic::Pop if segment(instruction.op0_register()) => return None,
        Mnemonic::Pop => match form.kinds[0] {
            Kind::Register => by_wide_size!(size, pop_register, [], []),
            _ => by_wide_size!(size, pop_memory, [], []),
        },
        Mnemonic::Pusha if form.bits != 64 => push_all::<u16>,
        Mnemonic::Pushad if form.bits != 64 => push_all::<u32>,
        Mnemonic::Popa if form.bits != 64 => pop_all::<u16>,
        Mnemonic::Popad if form.bits != 64 => pop_all::<u32>,
        Mnemonic::Pushf => push_flags::<u16>,
        Mnemonic::Pushfd => push_flags::<u32>,
        Mnemonic::Pushfq => push_flags::<u64>,
        Mnemonic::Popf => pop_flags::<u16>,
        Mnemonic::Popfd => pop_flags::<u32>,
        Mnemonic::Popfq => pop_flags::<u64>,
        Mnemonic::Enter => match instruction.code() {
            iced_x86::Code::Enterw_imm16_imm8 => enter::<u16>,
            iced_x86::Code::Enterd_imm16_imm8 => enter::<u32>,
            _ => enter::<u64>,
        },
        Mnemonic::Leave => match instruction.code() {
            iced_x86::Code::Leavew => leave::<u16>,
            iced_x86::Code::Leaved => leave::<u32>,
            _ => leave::<u64>,
        },
        Mnemonic::Bound if form.bits != 64 => {
            op.size = form.sizes[0];
            bound
        }
        _ => return None,
    })
}
