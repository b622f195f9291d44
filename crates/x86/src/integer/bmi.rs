//! Bit manipulation in general registers, mostly with a VEX prefix: ANDN, BEXTR, BLSI, BLSMSK, BLSR, BZHI, MULX, PDEP, PEXT,
//! RORX, SARX, SHLX, SHRX. SDM vol. 2; they need no vector state to be enabled.
//!
//! Of the flags that the manuals leave undefined, PF follows the result and AF is cleared.

use iced_x86::{Instruction, Mnemonic};

use super::{
    flags::{self, ARITHMETIC, CF},
    undefined,
    word::Word,
};
use crate::{
    access::Access,
    decode::{Form, Kind},
    engine::Mode,
    op::{Handler, Op},
    state::{CpuState, reg},
    trap::Trap,
};

/// An operation on two operands that writes a third one.
trait Operation {
    /// The result.
    fn apply<T: Word>(a: T, b: T) -> T;
    /// CF, where the operation changes flags: the others are those of the result, and OF is cleared.
    #[inline(always)]
    fn carry<T: Word>(_a: T, _b: T) -> Option<bool> {
        None
    }
}

/// Defines an operation each: the result and, if it changes flags, CF, from the operands as 64-bit numbers; `$type` is
/// their type.
macro_rules! operations {
    ($($name:ident<$type:ident>: |$a:ident, $b:ident| $result:expr $(, $carry:expr)?;)*) => {
        $(
            struct $name;
            impl Operation for $name {
                #[inline(always)]
                fn apply<$type: Word>(a: $type, b: $type) -> $type {
                    let ($a, $b) = (a.wide(), b.wide());
                    $type::cut($result)
                }
                $(
                    #[inline(always)]
                    fn carry<$type: Word>(a: $type, b: $type) -> Option<bool> {
                        let ($a, $b) = (a.wide(), b.wide());
                        Some($carry)
                    }
                )?
            }
        )*
    };
}

operations! {
    Andn<T>: |a, b| !a & b, { let _ = (a, b); false };
    Bextr<T>: |a, b| extract(a, b), { let _ = (a, b); false };
    Bzhi<T>: |a, b| a & below(b & 0xff), { let _ = a; b & 0xff >= u64::from(T::BITS) };
    Blsi<T>: |a, _b| a & a.wrapping_neg(), { let _ = _b; a != 0 };
    Blsmsk<T>: |a, _b| a ^ a.wrapping_sub(1), { let _ = _b; a == 0 };
    Blsr<T>: |a, _b| a & a.wrapping_sub(1), { let _ = _b; a == 0 };
    Pdep<T>: |a, b| deposit(a, b);
    Pext<T>: |a, b| gather(a, b);
    Shlx<T>: |a, b| a << (b & u64::from(T::BITS - 1));
    Shrx<T>: |a, b| a >> (b & u64::from(T::BITS - 1));
    Sarx<T>: |a, b| (T::cut(a).signed() >> (b & u64::from(T::BITS - 1))) as u64;
    Rorx<T>: |a, b| rotate_right(a, b as u32, T::BITS);
}

/// Ones below bit `number`.
#[inline(always)]
fn below(number: u64) -> u64 {
    if number < 64 { (1 << number) - 1 } else { u64::MAX }
}

/// The bits of `a` from the number in the low byte of `control` on, as many as its second byte says.
#[inline(always)]
fn extract(a: u64, control: u64) -> u64 {
    a.checked_shr(control as u32 & 0xff).unwrap_or(0) & below(control >> 8 & 0xff)
}

/// The low bits of `a`, each put where `mask` has its next one.
#[inline(always)]
fn deposit(mut a: u64, mut mask: u64) -> u64 {
    let mut result = 0;
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        if a & 1 != 0 {
            result |= lowest;
        }
        a >>= 1;
        mask ^= lowest;
    }
    result
}

/// The bits of `a` where `mask` has ones, moved together.
#[inline(always)]
fn gather(a: u64, mut mask: u64) -> u64 {
    let (mut result, mut bit) = (0, 1_u64);
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        if a & lowest != 0 {
            result |= bit;
        }
        bit = bit.wrapping_shl(1);
        mask ^= lowest;
    }
    result
}

#[inline(always)]
fn rotate_right(a: u64, count: u32, bits: u32) -> u64 {
    if bits == 64 { a.rotate_right(count & 63) } else { u64::from((a as u32).rotate_right(count & 31)) }
}

/// The operand that may be in memory; otherwise it is register `number`.
#[inline(always)]
fn operand<T: Word, const MEMORY: bool>(cpu: &mut CpuState, op: &Op, number: u8) -> Result<T, Trap> {
    if MEMORY {
        let linear = cpu.linear(op, T::SIZE as u64, Access::Read)?;
        cpu.read(linear)
    } else {
        Ok(T::get(cpu, number))
    }
}

#[inline(always)]
fn finish<O: Operation, T: Word>(cpu: &mut CpuState, op: &Op, a: T, b: T) {
    let result = O::apply(a, b);
    T::set(cpu, op.dst, result);
    if let Some(carry) = O::carry(a, b) {
        flags::put(cpu, ARITHMETIC, flags::of_result(result) | if carry { CF } else { 0 });
    }
}

/// The second operand may be in memory, the third is a register: absent, and without meaning, in BLSI and its kin.
extern "C" fn second<O: Operation, T: Word, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let a = operand::<T, MEMORY>(cpu, op, op.src)?;
    let b = T::get(cpu, op.aux);
    finish::<O, T>(cpu, op, a, b);
    Ok(())
}

/// The third operand may be in memory.
extern "C" fn third<O: Operation, T: Word, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let b = operand::<T, MEMORY>(cpu, op, op.aux)?;
    let a = T::get(cpu, op.src);
    finish::<O, T>(cpu, op, a, b);
    Ok(())
}

/// The second operand may be in memory, the third is an immediate.
extern "C" fn by_immediate<O: Operation, T: Word, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let a = operand::<T, MEMORY>(cpu, op, op.src)?;
    finish::<O, T>(cpu, op, a, T::cut(op.imm & 0xff));
    Ok(())
}

/// MULX: where both halves go to one register, it is the upper one that stays.
extern "C" fn multiply<O: Operation, T: Word, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let b = operand::<T, MEMORY>(cpu, op, op.aux)?;
    let product = u128::from(T::get(cpu, reg::RDX).wide()) * u128::from(b.wide());
    T::set(cpu, op.src, T::cut(product as u64));
    T::set(cpu, op.dst, T::cut((product >> T::BITS) as u64));
    Ok(())
}

/// Chooses among the four instances of a handler.
macro_rules! instance {
    ($handler:ident, $operation:ident, $form:expr, $memory:expr) => {
        match ($form.sizes[0], $form.kinds[$memory]) {
            (8, Kind::Memory) => $handler::<$operation, u64, true>,
            (8, _) => $handler::<$operation, u64, false>,
            (_, Kind::Memory) => $handler::<$operation, u32, true>,
            _ => $handler::<$operation, u32, false>,
        }
    };
}

/// Handlers of this file's instructions.
pub(super) fn select(instruction: &Instruction, form: &Form) -> Option<Handler> {
    let handler: Handler = match instruction.mnemonic() {
        Mnemonic::Andn => instance!(third, Andn, form, 2),
        Mnemonic::Pdep => instance!(third, Pdep, form, 2),
        Mnemonic::Pext => instance!(third, Pext, form, 2),
        Mnemonic::Mulx => instance!(multiply, Andn, form, 2),
        Mnemonic::Bextr => instance!(second, Bextr, form, 1),
        Mnemonic::Bzhi => instance!(second, Bzhi, form, 1),
        Mnemonic::Blsi => instance!(second, Blsi, form, 1),
        Mnemonic::Blsmsk => instance!(second, Blsmsk, form, 1),
        Mnemonic::Blsr => instance!(second, Blsr, form, 1),
        Mnemonic::Shlx => instance!(second, Shlx, form, 1),
        Mnemonic::Shrx => instance!(second, Shrx, form, 1),
        Mnemonic::Sarx => instance!(second, Sarx, form, 1),
        Mnemonic::Rorx => instance!(by_immediate, Rorx, form, 1),
        _ => return None,
    };
    // There is no VEX prefix in real and virtual-8086 mode.
    let protected = form.mode.contains(Mode::PROTECTED) && !form.mode.contains(Mode::VIRTUAL_8086);
    Some(if protected { handler } else { undefined })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        engine::testing::{DATA, Machine, Stop, run, run_to_exception},
        state::Rflags,
        trap::Exception,
    };

    #[test]
    fn fields_are_extracted_up_to_the_end_of_the_register() {
        assert_eq!(Bextr::apply(0xfedc_ba98_u32, 0x0804), 0xa9);
        assert_eq!(Bextr::apply(0xfedc_ba98_u32, 0xff1c), 0xf);
        assert_eq!(Bextr::apply(0xfedc_ba98_u32, 0xff20), 0);
        assert_eq!(Bextr::apply(u64::MAX, 0x4000), u64::MAX);
        // A length of zero.
        assert_eq!(Bextr::apply(u64::MAX, 0xff_0000), 0);
    }

    #[test]
    fn high_bits_are_kept_if_the_index_is_beyond_them() {
        assert_eq!((Bzhi::apply(u32::MAX, 31), Bzhi::carry(u32::MAX, 31)), (0x7fff_ffff, Some(false)));
        assert_eq!((Bzhi::apply(u32::MAX, 32), Bzhi::carry(u32::MAX, 32)), (u32::MAX, Some(true)));
        assert_eq!((Bzhi::apply(u64::MAX, 0x100), Bzhi::carry(u64::MAX, 0x100)), (0, Some(false)));
    }

    #[test]
    fn bits_are_deposited_and_gathered() {
        assert_eq!(deposit(0b1011, 0xf0f0), 0xb0);
        assert_eq!(deposit(u64::MAX, 1 << 63 | 1), 1 << 63 | 1);
        assert_eq!(gather(0x1234_5678, 0xff00_fff0), 0x12567);
        assert_eq!(gather(u64::MAX, u64::MAX), u64::MAX);
    }

    proptest! {
        #[test]
        fn what_was_gathered_can_be_put_back(a: u64, mask: u64) {
            prop_assert_eq!(deposit(gather(a, mask), mask), a & mask);
            prop_assert_eq!(gather(deposit(a, mask), mask), a & below(u64::from(mask.count_ones())));
        }
    }

    #[test]
    fn counts_of_shifts_wrap_and_flags_stay() {
        // sarx eax, [rsi], ecx; shlx rbx, rdx, rcx; rorx r8d, edx, 36
        let code =
            [&[0xc4, 0xe2, 0x72, 0xf7, 0x06][..], &[0xc4, 0xe2, 0xf1, 0xf7, 0xda], &[0xc4, 0x63, 0x7b, 0xf0, 0xc2, 36]]
                .concat();
        let mut machine = Machine::new(&code, 64);
        assert!(machine.ram.write(DATA, &[0, 0, 0, 0x80]));
        let cpu = machine.cpu();
        (cpu.gpr[0], cpu.gpr[1], cpu.gpr[2]) = (u64::MAX, 36, 0x1_0000_0001);
        cpu.rflags |= Rflags::ARITHMETIC.bits();
        assert_eq!(machine.run(), Stop::Halted);
        let cpu = machine.cpu();
        assert_eq!((cpu.gpr[0], cpu.gpr[3], cpu.gpr[8]), (0xf800_0000, 1 << 36, 0x1000_0000));
        assert!(cpu.flags().contains(Rflags::ARITHMETIC));
    }

    #[test]
    fn a_product_to_one_register_keeps_its_upper_half() {
        // mulx rax, rax, rbx
        let cpu = run(&[0xc4, 0xe2, 0xfb, 0xf6, 0xc3], 64, |cpu| (cpu.gpr[2], cpu.gpr[3]) = (u64::MAX, 4));
        assert_eq!(cpu.gpr[0], 3);
        // mulx ecx, eax, ebx
        let cpu = run(&[0xc4, 0xe2, 0x7b, 0xf6, 0xcb], 32, |cpu| (cpu.gpr[2], cpu.gpr[3]) = (0xffff_ffff, 4));
        assert_eq!((cpu.gpr[0], cpu.gpr[1]), (0xffff_fffc, 3));
    }

    #[test]
    fn a_vex_prefix_is_none_in_real_mode_and_must_be_of_128_bits() {
        // andn eax, eax, eax
        assert_eq!(run_to_exception(&[0xc4, 0xe2, 0x78, 0xf2, 0xc0], 16, |_| {}).1, Exception::INVALID_OPCODE);
        run(&[0xc4, 0xe2, 0x78, 0xf2, 0xc0], 32, |_| {});
        for code in [
            &[0xc4, 0xe2, 0x7c, 0xf2, 0xc0][..],
            &[0x66, 0xc4, 0xe2, 0x78, 0xf2, 0xc0],
            &[0xf0, 0xc4, 0xe2, 0x78, 0xf2, 0xc0],
        ] {
            assert_eq!(run_to_exception(code, 64, |_| {}).1, Exception::INVALID_OPCODE, "{code:02x?}");
        }
    }
}
