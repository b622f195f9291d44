//! The four integer sizes of the processor: registers by number, and the arithmetic that handlers are generic over.

use crate::{access::Value, op::HIGH_BYTE, state::CpuState};

/// An integer of 8, 16, 32 or 64 bits that a general register can hold.
pub trait Word: Value {
    /// Size in bits.
    const BITS: u32;
    /// The low bits of `value`.
    fn cut(value: u64) -> Self;
    /// Zero-extended.
    fn wide(self) -> u64;
    /// Sign-extended.
    fn signed(self) -> i64;
    /// The sum with a carry in, and whether it carried out.
    fn add_carry(self, other: Self, carry: bool) -> (Self, bool);
    /// The difference with a borrow in, and whether it borrowed.
    fn subtract_borrow(self, other: Self, borrow: bool) -> (Self, bool);
    /// Reads register `number`.
    fn get(cpu: &CpuState, number: u8) -> Self;
    /// Writes register `number`: 32 bits clear the upper half, 8 and 16 bits leave the rest alone.
    fn set(cpu: &mut CpuState, number: u8, value: Self);

    /// The most significant bit.
    #[inline(always)]
    fn sign(self) -> bool {
        self.signed() < 0
    }
}

macro_rules! word {
    ($type:ty, $signed:ty, $get:expr, $set:expr) => {
        impl Word for $type {
            const BITS: u32 = <$type>::BITS;

            #[inline(always)]
            fn cut(value: u64) -> Self {
                value as $type
            }

            #[inline(always)]
            fn wide(self) -> u64 {
                u64::from(self)
            }

            #[inline(always)]
            fn signed(self) -> i64 {
                i64::from(self as $signed)
            }

            #[inline(always)]
            fn add_carry(self, other: Self, carry: bool) -> (Self, bool) {
                let (sum, first) = self.overflowing_add(other);
                let (sum, second) = sum.overflowing_add(<$type>::from(carry));
                (sum, first | second)
            }

            #[inline(always)]
            fn subtract_borrow(self, other: Self, borrow: bool) -> (Self, bool) {
                let (difference, first) = self.overflowing_sub(other);
                let (difference, second) = difference.overflowing_sub(<$type>::from(borrow));
                (difference, first | second)
            }

            #[inline(always)]
            fn get(cpu: &CpuState, number: u8) -> Self {
                $get(cpu, number)
            }

            #[inline(always)]
            fn set(cpu: &mut CpuState, number: u8, value: Self) {
                $set(cpu, number, value);
            }
        }
    };
}

word!(
    u8,
    i8,
    |cpu: &CpuState, number: u8| {
        if number < HIGH_BYTE {
            cpu.gpr[usize::from(number & 31)] as u8
        } else {
            (cpu.gpr[usize::from((number - HIGH_BYTE) & 3)] >> 8) as u8
        }
    },
    |cpu: &mut CpuState, number: u8, value: u8| {
        if number < HIGH_BYTE {
            let register = &mut cpu.gpr[usize::from(number & 31)];
            *register = *register & !0xff | u64::from(value);
        } else {
            let register = &mut cpu.gpr[usize::from((number - HIGH_BYTE) & 3)];
            *register = *register & !0xff00 | u64::from(value) << 8;
        }
    }
);
word!(
    u16,
    i16,
    |cpu: &CpuState, number: u8| cpu.gpr[usize::from(number & 31)] as u16,
    |cpu: &mut CpuState, number: u8, value: u16| {
        let register = &mut cpu.gpr[usize::from(number & 31)];
        *register = *register & !0xffff | u64::from(value);
    }
);
word!(
    u32,
    i32,
    |cpu: &CpuState, number: u8| cpu.gpr[usize::from(number & 31)] as u32,
    |cpu: &mut CpuState, number: u8, value: u32| cpu.gpr[usize::from(number & 31)] = u64::from(value)
);
word!(
    u64,
    i64,
    |cpu: &CpuState, number: u8| cpu.gpr[usize::from(number & 31)],
    |cpu: &mut CpuState, number: u8, value: u64| cpu.gpr[usize::from(number & 31)] = value
);

/// The low `size` bytes of a register, for handlers that serve several address sizes.
#[inline(always)]
pub fn get_sized(cpu: &CpuState, number: u8, size: u8) -> u64 {
    cpu.register(number) & mask(size)
}

/// Writes the low `size` bytes of a register, as an instruction of that size does.
#[inline(always)]
pub fn set_sized(cpu: &mut CpuState, number: u8, size: u8, value: u64) {
    match size {
        8 => u64::set(cpu, number, value),
        4 => u32::set(cpu, number, value as u32),
        2 => u16::set(cpu, number, value as u16),
        _ => u8::set(cpu, number, value as u8),
    }
}

/// All ones in the low `size` bytes.
#[inline(always)]
pub fn mask(size: u8) -> u64 {
    match size {
        8 => u64::MAX,
        4 => 0xffff_ffff,
        2 => 0xffff,
        _ => 0xff,
    }
}

/// Chooses the instance of a generic handler for a size in bytes: `by_size!(size, handler, [first type arguments],
/// [later arguments])`.
macro_rules! by_size {
    ($size:expr, $handler:ident, [$($before:ty),*], [$($after:tt),*]) => {{
        let handler: $crate::op::Handler = match $size {
            1 => $handler::<$($before,)* u8 $(, $after)*>,
            2 => $handler::<$($before,)* u16 $(, $after)*>,
            4 => $handler::<$($before,)* u32 $(, $after)*>,
            8 => $handler::<$($before,)* u64 $(, $after)*>,
            _ => return None,
        };
        handler
    }};
}
/// Like `by_size!` for what has no 8-bit form.
macro_rules! by_wide_size {
    ($size:expr, $handler:ident, [$($before:ty),*], [$($after:tt),*]) => {{
        let handler: $crate::op::Handler = match $size {
            2 => $handler::<$($before,)* u16 $(, $after)*>,
            4 => $handler::<$($before,)* u32 $(, $after)*>,
            8 => $handler::<$($before,)* u64 $(, $after)*>,
            _ => return None,
        };
        handler
    }};
}
pub(crate) use {by_size, by_wide_size};
