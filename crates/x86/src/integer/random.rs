//! RDRAND and RDSEED: random numbers, from wherever the machine has them. SDM vol. 2.

use iced_x86::{Instruction, Mnemonic};

use super::{
    flags::{self, ARITHMETIC, CF},
    word::{Word, by_wide_size},
};
use crate::{
    decode::Form,
    op::{Handler, Op},
    state::CpuState,
    trap::Trap,
};

/// A random number, and CF; with CF clear there is none right now, and the register becomes zero.
extern "C" fn random<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let value = cpu.bus.random();
    T::set(cpu, op.dst, T::cut(value.unwrap_or(0)));
    flags::put(cpu, ARITHMETIC, if value.is_some() { CF } else { 0 });
    Ok(())
}

/// Handlers of this file's instructions.
pub(super) fn select(instruction: &Instruction, form: &Form) -> Option<Handler> {
    match instruction.mnemonic() {
        Mnemonic::Rdrand | Mnemonic::Rdseed => Some(by_wide_size!(form.sizes[0], random, [], [])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::testing::Machine;

    #[test]
    fn a_number_comes_with_carry_and_none_comes_as_zero_without() {
        // rdrand rax; rdseed cx
        let mut machine = Machine::new(&[0x48, 0x0f, 0xc7, 0xf0, 0x66, 0x0f, 0xc7, 0xf9], 64);
        machine.bus.queue_random(0x0123_4567_89ab_cdef);
        machine.bus.queue_random(0x1111_2222_3333_4444);
        machine.cpu().gpr[1] = u64::MAX;
        machine.cpu().rflags |= 0x8d4;
        machine.run();
        let cpu = machine.cpu();
        assert_eq!((cpu.gpr[0], cpu.gpr[1]), (0x0123_4567_89ab_cdef, 0xffff_ffff_ffff_4444));
        assert_eq!(cpu.rflags & 0x8d5, 1);
        // rdrand eax
        let mut machine = Machine::new(&[0x0f, 0xc7, 0xf0], 64);
        machine.cpu().gpr[0] = u64::MAX;
        machine.cpu().rflags |= 0x8d5;
        machine.run();
        assert_eq!((machine.cpu().gpr[0], machine.cpu().rflags & 0x8d5), (0, 0));
    }
}
