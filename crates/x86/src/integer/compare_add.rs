//! CMPccXADD: compares a number in memory with a register, and adds another register to it if the condition holds, in one.
//!
//! Source: SDM vol. 2, CMPccXADD. It is always locked.

use iced_x86::{Instruction, Mnemonic};

use super::{
    flags::{self, ARITHMETIC, by_condition, condition, condition_number},
    word::Word,
};
use crate::{
    access::Access,
    decode::Form,
    op::{Handler, Op},
    state::CpuState,
    trap::{Exception, Trap},
};

/// The flags of `memory` compared with `register`.
#[inline(always)]
fn compared<T: Word>(memory: T, register: T) -> u64 {
    let (difference, borrow) = memory.subtract_borrow(register, false);
    flags::of_difference(memory, register, difference, borrow)
}

extern "C" fn compare_add<T: Word, const C: u8>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let linear = cpu.linear(op, T::SIZE as u64, Access::Write)?;
    if linear % T::SIZE as u64 != 0 {
        return Err(cpu.raise(Exception::general_protection(0)));
    }
    let (register, added) = (T::get(cpu, op.src), T::get(cpu, op.aux));
    let found = cpu.modify_locked(linear, |memory: T| {
        if condition::<C>(compared(memory, register)) { memory.add_carry(added, false).0 } else { memory }
    })?;
    T::set(cpu, op.src, found);
    flags::put(cpu, ARITHMETIC, compared(found, register));
    Ok(())
}

/// The handler of CMPccXADD.
pub(super) fn select(instruction: &Instruction, form: &Form) -> Option<Handler> {
    use Mnemonic as M;
    if !matches!(
        instruction.mnemonic(),
        M::Cmpoxadd
            | M::Cmpnoxadd
            | M::Cmpbxadd
            | M::Cmpnbxadd
            | M::Cmpzxadd
            | M::Cmpnzxadd
            | M::Cmpbexadd
            | M::Cmpnbexadd
            | M::Cmpsxadd
            | M::Cmpnsxadd
            | M::Cmppxadd
            | M::Cmpnpxadd
            | M::Cmplxadd
            | M::Cmpnlxadd
            | M::Cmplexadd
            | M::Cmpnlexadd
    ) {
        return None;
    }
    let number = condition_number(instruction)?;
    Some(if form.sizes[0] == 8 {
        by_condition!(number, compare_add, [u64], [])
    } else {
        by_condition!(number, compare_add, [u32], [])
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::{
        engine::testing::{DATA, Machine, Stop},
        trap::Exception,
    };

    /// cmpCCxadd [rsi], ecx or rcx, edx or rdx
    fn code(condition: u8, wide: bool) -> [u8; 5] {
        [0xc4, 0xe2, if wide { 0xe9 } else { 0x69 }, 0xe0 | condition, 0x0e]
    }

    /// The condition in words of numbers, not of flags.
    fn holds(condition: u8, a: u64, b: u64, bits: u32) -> bool {
        let sign = |value: u64| (value << (64 - bits)) as i64 >> (64 - bits);
        let difference = a.wrapping_sub(b) << (64 - bits) >> (64 - bits);
        let exact = i128::from(sign(a)) - i128::from(sign(b));
        let holds = match condition >> 1 {
            0 => exact != i128::from(sign(difference)),
            1 => a < b,
            2 => a == b,
            3 => a <= b,
            4 => sign(difference) < 0,
            5 => (difference as u8).count_ones().is_multiple_of(2),
            6 => exact < 0,
            _ => exact <= 0,
        };
        holds != (condition & 1 != 0)
    }

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), 0..4_u64, Just(1 << 63), Just(0x8000_0000), Just(0x7fff_ffff), Just(u64::MAX)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn the_sum_is_stored_when_the_condition_holds(
            condition in 0..16_u8, wide: bool, memory in number(), register in number(), added in number(), same: bool,
        ) {
            let register = if same { memory } else { register };
            let (bits, mask) = if wide { (64, u64::MAX) } else { (32, 0xffff_ffff) };
            let mut machine = Machine::new(&code(condition, wide), 64);
            assert!(machine.ram.write(DATA, &memory.to_le_bytes()));
            machine.cpu().gpr[1] = register;
            machine.cpu().gpr[2] = added;
            prop_assert_eq!(machine.run(), Stop::Halted);
            let (a, b) = (memory & mask, register & mask);
            let sum = memory & !mask | memory.wrapping_add(added) & mask;
            let expected = if holds(condition, a, b, bits) { sum } else { memory };
            prop_assert_eq!(u64::from_le_bytes(machine.read(DATA)), expected);
            prop_assert_eq!(machine.cpu().gpr[1], a);
            let zero_and_carry = machine.cpu().rflags & 0x41;
            prop_assert_eq!(zero_and_carry, u64::from(a == b) << 6 | u64::from(a < b));
        }
    }

    #[test]
    fn a_number_that_is_not_aligned_is_refused() {
        for (wide, at) in [(false, 2), (true, 4)] {
            let mut machine = Machine::new(&code(4, wide), 64);
            machine.cpu().gpr[6] = DATA + at;
            assert_eq!(machine.run(), Stop::Exception(Exception::general_protection(0)));
        }
    }
}
