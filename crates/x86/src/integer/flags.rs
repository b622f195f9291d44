//! The arithmetic flags, and the instructions that only move or change flags. SDM vol. 1 § 3.4.3.1, appendix A.

use iced_x86::{Instruction, Mnemonic};

use super::word::Word;
use crate::{
    access::Access,
    decode::{Form, Kind},
    op::{Handler, Op},
    state::{CpuState, Rflags},
    trap::Trap,
};

/// Carry.
pub const CF: u64 = Rflags::CF.bits();
/// Parity.
pub const PF: u64 = Rflags::PF.bits();
/// Auxiliary carry.
pub const AF: u64 = Rflags::AF.bits();
/// Zero.
pub const ZF: u64 = Rflags::ZF.bits();
/// Sign.
pub const SF: u64 = Rflags::SF.bits();
/// Direction.
pub const DF: u64 = Rflags::DF.bits();
/// Overflow.
pub const OF: u64 = Rflags::OF.bits();
/// All six.
pub const ARITHMETIC: u64 = Rflags::ARITHMETIC.bits();

/// SF, ZF and PF of a result.
#[inline(always)]
pub fn of_result<T: Word>(result: T) -> u64 {
    let low = result.wide() as u32;
    // Bit n of the constant tells whether the nibble n has even parity.
    let parity = 0x9669_u32 >> ((low ^ low >> 4) & 15) & 1;
    u64::from(parity) << 2 | u64::from(result.wide() == 0) << 6 | u64::from(result.sign()) << 7
}

/// All flags of the sum `result` of `left` and `right`.
#[inline(always)]
pub fn of_sum<T: Word>(left: T, right: T, result: T, carry: bool) -> u64 {
    let (a, b, r) = (left.wide(), right.wide(), result.wide());
    let overflow = (a ^ r) & (b ^ r);
    of_result(result) | u64::from(carry) | (a ^ b ^ r) & AF | (overflow >> (T::BITS - 1) & 1) << 11
}

/// All flags of the difference `result` of `left` and `right`.
#[inline(always)]
pub fn of_difference<T: Word>(left: T, right: T, result: T, borrow: bool) -> u64 {
    let (a, b, r) = (left.wide(), right.wide(), result.wide());
    let overflow = (a ^ b) & (a ^ r);
    of_result(result) | u64::from(borrow) | (a ^ b ^ r) & AF | (overflow >> (T::BITS - 1) & 1) << 11
}

/// Replaces the flags of `mask`.
#[inline(always)]
pub fn put(cpu: &mut CpuState, mask: u64, flags: u64) {
    cpu.rflags = cpu.rflags & !mask | flags;
}

/// Whether condition `C` of SETcc, CMOVcc and Jcc holds (SDM vol. 1 appendix B).
#[inline(always)]
pub fn condition<const C: u8>(flags: u64) -> bool {
    let less = (flags >> 4 ^ flags) & SF != 0;
    let met = match C >> 1 {
        0 => flags & OF != 0,
        1 => flags & CF != 0,
        2 => flags & ZF != 0,
        3 => flags & (CF | ZF) != 0,
        4 => flags & SF != 0,
        5 => flags & PF != 0,
        6 => less,
        _ => less | (flags & ZF != 0),
    };
    met ^ (C & 1 != 0)
}

/// Chooses the instance of a handler whose first constant is the condition.
macro_rules! by_condition {
    ($number:expr, $handler:ident, [$($types:ty),*], [$($after:tt),*]) => {{
        let handler: $crate::op::Handler = match $number {
            0 => $handler::<$($types,)* 0 $(, $after)*>,
            1 => $handler::<$($types,)* 1 $(, $after)*>,
            2 => $handler::<$($types,)* 2 $(, $after)*>,
            3 => $handler::<$($types,)* 3 $(, $after)*>,
            4 => $handler::<$($types,)* 4 $(, $after)*>,
            5 => $handler::<$($types,)* 5 $(, $after)*>,
            6 => $handler::<$($types,)* 6 $(, $after)*>,
            7 => $handler::<$($types,)* 7 $(, $after)*>,
            8 => $handler::<$($types,)* 8 $(, $after)*>,
            9 => $handler::<$($types,)* 9 $(, $after)*>,
            10 => $handler::<$($types,)* 10 $(, $after)*>,
            11 => $handler::<$($types,)* 11 $(, $after)*>,
            12 => $handler::<$($types,)* 12 $(, $after)*>,
            13 => $handler::<$($types,)* 13 $(, $after)*>,
            14 => $handler::<$($types,)* 14 $(, $after)*>,
            _ => $handler::<$($types,)* 15 $(, $after)*>,
        };
        handler
    }};
}
pub(crate) use by_condition;

/// The number of an instruction's condition, as the opcode has it.
pub fn condition_number(instruction: &Instruction) -> Option<u8> {
    use iced_x86::ConditionCode::{a, ae, b, be, e, g, ge, l, le, ne, no, np, ns, o, p, s};
    Some(match instruction.condition_code() {
        iced_x86::ConditionCode::None => return None,
        o => 0,
        no => 1,
        b => 2,
        ae => 3,
        e => 4,
        ne => 5,
        be => 6,
        a => 7,
        s => 8,
        ns => 9,
        p => 10,
        np => 11,
        l => 12,
        ge => 13,
        le => 14,
        g => 15,
    })
}

extern "C" fn set_register<const C: u8>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let value = condition::<C>(cpu.rflags);
    u8::set(cpu, op.dst, u8::from(value));
    Ok(())
}

extern "C" fn set_memory<const C: u8>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let value = condition::<C>(cpu.rflags);
    let linear = cpu.linear(op, 1, Access::Write)?;
    cpu.write(linear, u8::from(value))
}

extern "C" fn move_register<T: Word, const C: u8>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    // The register is written in any case: 32 bits clear the upper half even if the condition is not met.
    let number = if condition::<C>(cpu.rflags) { op.src } else { op.dst };
    let value = T::get(cpu, number);
    T::set(cpu, op.dst, value);
    Ok(())
}

extern "C" fn move_memory<T: Word, const C: u8>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let linear = cpu.linear(op, T::SIZE as u64, Access::Read)?;
    let found: T = cpu.read(linear)?;
    let value = if condition::<C>(cpu.rflags) { found } else { T::get(cpu, op.dst) };
    T::set(cpu, op.dst, value);
    Ok(())
}

extern "C" fn clear_carry(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    cpu.rflags &= !CF;
    Ok(())
}

extern "C" fn set_carry(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    cpu.rflags |= CF;
    Ok(())
}

extern "C" fn complement_carry(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    cpu.rflags ^= CF;
    Ok(())
}

extern "C" fn clear_direction(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    cpu.rflags &= !DF;
    Ok(())
}

extern "C" fn set_direction(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    cpu.rflags |= DF;
    Ok(())
}

/// LAHF.
extern "C" fn load_ah(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    let flags = cpu.rflags & (SF | ZF | AF | PF | CF) | Rflags::FIXED.bits();
    cpu.gpr[0] = cpu.gpr[0] & !0xff00 | flags << 8;
    Ok(())
}

/// SAHF.
extern "C" fn store_ah(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    let mask = SF | ZF | AF | PF | CF;
    let flags = cpu.gpr[0] >> 8 & mask;
    put(cpu, mask, flags);
    Ok(())
}

/// SALC: AL from the carry.
extern "C" fn al_from_carry(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    let value = if cpu.rflags & CF != 0 { 0xff } else { 0 };
    u8::set(cpu, 0, value);
    Ok(())
}

/// Handlers of SETcc, CMOVcc and the instructions about flags.
pub(super) fn select(instruction: &Instruction, form: &Form) -> Option<Handler> {
    Some(match instruction.mnemonic() {
        Mnemonic::Clc => clear_carry,
        Mnemonic::Stc => set_carry,
        Mnemonic::Cmc => complement_carry,
        Mnemonic::Cld => clear_direction,
        Mnemonic::Std => set_direction,
        Mnemonic::Lahf => load_ah,
        Mnemonic::Sahf => store_ah,
        Mnemonic::Salc if form.bits != 64 => al_from_carry,
        _ => {
            let number = condition_number(instruction)?;
            match (instruction.mnemonic(), form.kinds) {
                (
                    Mnemonic::Seto
                    | Mnemonic::Setno
                    | Mnemonic::Setb
                    | Mnemonic::Setae
                    | Mnemonic::Sete
                    | Mnemonic::Setne
                    | Mnemonic::Setbe
                    | Mnemonic::Seta
                    | Mnemonic::Sets
                    | Mnemonic::Setns
                    | Mnemonic::Setp
                    | Mnemonic::Setnp
                    | Mnemonic::Setl
                    | Mnemonic::Setge
                    | Mnemonic::Setle
                    | Mnemonic::Setg,
                    [kind, ..],
                ) => match kind {
                    Kind::Register => by_condition!(number, set_register, [], []),
                    _ => by_condition!(number, set_memory, [], []),
                },
                (
                    Mnemonic::Cmovo
                    | Mnemonic::Cmovno
                    | Mnemonic::Cmovb
                    | Mnemonic::Cmovae
                    | Mnemonic::Cmove
                    | Mnemonic::Cmovne
                    | Mnemonic::Cmovbe
                    | Mnemonic::Cmova
                    | Mnemonic::Cmovs
                    | Mnemonic::Cmovns
                    | Mnemonic::Cmovp
                    | Mnemonic::Cmovnp
                    | Mnemonic::Cmovl
                    | Mnemonic::Cmovge
                    | Mnemonic::Cmovle
                    | Mnemonic::Cmovg,
                    [_, kind, ..],
                ) => match (kind, form.sizes[0]) {
                    (Kind::Register, 2) => by_condition!(number, move_register, [u16], []),
                    (Kind::Register, 4) => by_condition!(number, move_register, [u32], []),
                    (Kind::Register, _) => by_condition!(number, move_register, [u64], []),
                    (_, 2) => by_condition!(number, move_memory, [u16], []),
                    (_, 4) => by_condition!(number, move_memory, [u32], []),
                    _ => by_condition!(number, move_memory, [u64], []),
                },
                _ => return None,
            }
        }
    })
}
