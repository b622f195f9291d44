//! Operations on vectors apart from where their operands are: pure functions, and the encodings that make handlers of
//! them. Each family of operations is written down once, named as its mnemonic, for all encodings.

use super::{
    Destination,
    operands::{enter_mmx, enter_sse, load, mmx, set_mmx, set_xmm, source, xmm},
};
use crate::{
    access::Value,
    decode::{Form, Kind},
    op::{Handler, Op},
    state::CpuState,
    trap::Trap,
};

/// An operation on two registers of the same kind that writes the first.
pub(super) trait Binary {
    /// On XMM registers.
    fn wide(a: u128, b: u128) -> u128;
    /// On MMX registers; for operations whose lanes do not meet, the low half of the wide one.
    #[inline(always)]
    fn narrow(a: u64, b: u64) -> u64 {
        Self::wide(u128::from(a), u128::from(b)) as u64
    }
}

/// An operation on two registers and an 8-bit immediate that writes the first register.
pub(super) trait Immediate {
    /// On XMM registers.
    fn wide(a: u128, b: u128, immediate: u8) -> u128;
    /// On MMX registers.
    #[inline(always)]
    fn narrow(a: u64, b: u64, immediate: u8) -> u64 {
        Self::wide(u128::from(a), u128::from(b), immediate) as u64
    }
}

/// An operation on three XMM registers that writes the first; the third is XMM0 where the encoding has no room for it.
pub(super) trait Ternary {
    fn wide(a: u128, b: u128, c: u128) -> u128;
}

/// An operation that spreads the low bytes of its operand over a whole XMM register.
pub(super) trait Widening {
    /// The bytes it takes.
    type Source: Value + Into<u128>;
    /// Bits of `b` above those of the source do not matter.
    fn wide(b: u128) -> u128;
}

/// A way to encode instructions: it knows where operands are, and makes handlers of operations.
pub(super) trait Encoding {
    fn binary<O: Binary>(&self) -> Option<Handler>;
    fn immediate<O: Immediate>(&self) -> Option<Handler>;
    fn ternary<O: Ternary>(&self) -> Option<Handler>;
    fn widening<O: Widening>(&self) -> Option<Handler>;
}

/// Defines an operation each, named as its mnemonic, and the choice of its handler: `binary`, `immediate`, `ternary` or
/// `widening`.
macro_rules! operations {
    (binary $($name:ident: |$a:ident, $b:ident| $wide:expr $(, $narrow:expr)?;)*) => {
        $(
            pub(super) struct $name;
            impl $crate::simd::operations::Binary for $name {
                #[inline(always)]
                fn wide($a: u128, $b: u128) -> u128 {
                    $wide
                }
                $(
                    #[inline(always)]
                    fn narrow($a: u64, $b: u64) -> u64 {
                        let ($a, $b) = (u128::from($a), u128::from($b));
                        $narrow as u64
                    }
                )?
            }
        )*
        $crate::simd::operations::operations!(choice binary $($name)*);
    };
    (immediate $($name:ident: |$a:ident, $b:ident, $immediate:ident| $wide:expr $(, $narrow:expr)?;)*) => {
        $(
            pub(super) struct $name;
            impl $crate::simd::operations::Immediate for $name {
                #[inline(always)]
                fn wide($a: u128, $b: u128, $immediate: u8) -> u128 {
                    $wide
                }
                $(
                    #[inline(always)]
                    fn narrow($a: u64, $b: u64, $immediate: u8) -> u64 {
                        let ($a, $b) = (u128::from($a), u128::from($b));
                        $narrow as u64
                    }
                )?
            }
        )*
        $crate::simd::operations::operations!(choice immediate $($name)*);
    };
    (ternary $($name:ident: |$a:ident, $b:ident, $c:ident| $wide:expr;)*) => {
        $(
            pub(super) struct $name;
            impl $crate::simd::operations::Ternary for $name {
                #[inline(always)]
                fn wide($a: u128, $b: u128, $c: u128) -> u128 {
                    $wide
                }
            }
        )*
        $crate::simd::operations::operations!(choice ternary $($name)*);
    };
    (widening $($name:ident: $source:ty, |$b:ident| $wide:expr;)*) => {
        $(
            pub(super) struct $name;
            impl $crate::simd::operations::Widening for $name {
                type Source = $source;
                #[inline(always)]
                fn wide($b: u128) -> u128 {
                    $wide
                }
            }
        )*
        $crate::simd::operations::operations!(choice widening $($name)*);
    };
    (choice $kind:ident $($name:ident)*) => {
        /// The handler of an operation of this kind.
        pub(super) fn $kind<E: $crate::simd::operations::Encoding>(
            mnemonic: iced_x86::Mnemonic,
            encoding: &E,
        ) -> Option<$crate::op::Handler> {
            match mnemonic {
                $(iced_x86::Mnemonic::$name => encoding.$kind::<$name>(),)*
                _ => None,
            }
        }
    };
}
pub(super) use operations;

/// Instructions without VEX: the first operand is the destination too, and operands in memory are aligned.
pub(super) struct Legacy<'a> {
    pub(super) form: &'a Form,
    pub(super) destination: Destination,
}

impl Encoding for Legacy<'_> {
    fn binary<O: Binary>(&self) -> Option<Handler> {
        Some(match (self.destination, self.form.kinds[1], self.form.sizes[1]) {
            (Destination::Xmm, Kind::Register, _) => wide::<O, false>,
            (Destination::Xmm, Kind::Memory, _) => wide::<O, true>,
            (Destination::Xmm, Kind::Immediate, _) => wide_by_count::<O>,
            (Destination::Mmx, Kind::Register, _) => narrow::<O>,
            (Destination::Mmx, Kind::Memory, 4) => narrow_memory::<O, u32>,
            (Destination::Mmx, Kind::Memory, _) => narrow_memory::<O, u64>,
            (Destination::Mmx, Kind::Immediate, _) => narrow_by_count::<O>,
            _ => return None,
        })
    }

    fn immediate<O: Immediate>(&self) -> Option<Handler> {
        Some(match (self.destination, self.form.kinds[1]) {
            (Destination::Xmm, Kind::Register) => wide_immediate::<O, false>,
            (Destination::Xmm, Kind::Memory) => wide_immediate::<O, true>,
            (Destination::Mmx, Kind::Register) => narrow_immediate::<O, false>,
            (Destination::Mmx, Kind::Memory) => narrow_immediate::<O, true>,
            _ => return None,
        })
    }

    fn ternary<O: Ternary>(&self) -> Option<Handler> {
        Some(if self.form.kinds[1] == Kind::Memory { with_xmm0::<O, true> } else { with_xmm0::<O, false> })
    }

    fn widening<O: Widening>(&self) -> Option<Handler> {
        Some(if self.form.kinds[1] == Kind::Memory { widen_memory::<O> } else { widen_register::<O> })
    }
}

extern "C" fn wide<O: Binary, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b = source::<MEMORY>(cpu, op)?;
    let a = xmm(cpu, op.dst);
    set_xmm(cpu, op.dst, O::wide(a, b));
    Ok(())
}

/// A shift by an immediate.
extern "C" fn wide_by_count<O: Binary>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let a = xmm(cpu, op.dst);
    set_xmm(cpu, op.dst, O::wide(a, u128::from(op.imm as u8)));
    Ok(())
}

extern "C" fn narrow<O: Binary>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_mmx(cpu)?;
    let value = O::narrow(mmx(cpu, op.dst), mmx(cpu, op.src));
    set_mmx(cpu, op.dst, value);
    Ok(())
}

extern "C" fn narrow_memory<O: Binary, T: Value + Into<u64>>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_mmx(cpu)?;
    let b: T = load(cpu, op)?;
    let value = O::narrow(mmx(cpu, op.dst), b.into());
    set_mmx(cpu, op.dst, value);
    Ok(())
}

/// A shift by an immediate.
extern "C" fn narrow_by_count<O: Binary>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_mmx(cpu)?;
    let value = O::narrow(mmx(cpu, op.dst), u64::from(op.imm as u8));
    set_mmx(cpu, op.dst, value);
    Ok(())
}

extern "C" fn wide_immediate<O: Immediate, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b = source::<MEMORY>(cpu, op)?;
    let a = xmm(cpu, op.dst);
    set_xmm(cpu, op.dst, O::wide(a, b, op.imm as u8));
    Ok(())
}

extern "C" fn narrow_immediate<O: Immediate, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_mmx(cpu)?;
    let b = if MEMORY { load(cpu, op)? } else { mmx(cpu, op.src) };
    let value = O::narrow(mmx(cpu, op.dst), b, op.imm as u8);
    set_mmx(cpu, op.dst, value);
    Ok(())
}

extern "C" fn with_xmm0<O: Ternary, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b = source::<MEMORY>(cpu, op)?;
    let (a, c) = (xmm(cpu, op.dst), xmm(cpu, 0));
    set_xmm(cpu, op.dst, O::wide(a, b, c));
    Ok(())
}

extern "C" fn widen_register<O: Widening>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b = xmm(cpu, op.src);
    set_xmm(cpu, op.dst, O::wide(b));
    Ok(())
}

extern "C" fn widen_memory<O: Widening>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let b: O::Source = load(cpu, op)?;
    set_xmm(cpu, op.dst, O::wide(b.into()));
    Ok(())
}
