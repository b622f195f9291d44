//! Decimal adjustments: AAA, AAS, AAM, AAD, DAA, DAS. SDM vol. 2. None exists in 64-bit code.
//!
//! Undefined flags follow the result where there is one, and are clear otherwise.

use iced_x86::{Instruction, Mnemonic};

use super::{
    flags::{self, AF, ARITHMETIC, CF},
    word::Word,
};
use crate::{
    decode::Form,
    op::{HIGH_BYTE, Handler, Op},
    state::{CpuState, reg},
    trap::{Exception, Trap},
};

/// AAA (`ADD`) and AAS.
extern "C" fn ascii_adjust<const ADD: bool>(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    let ax = u16::get(cpu, reg::RAX);
    let adjust = ax & 15 > 9 || cpu.rflags & AF != 0;
    let result = match (adjust, ADD) {
        (false, _) => ax,
        (true, true) => ax.wrapping_add(0x106),
        (true, false) => ax.wrapping_sub(6).wrapping_sub(0x100),
    } & 0xff0f;
    u16::set(cpu, reg::RAX, result);
    let carries = if adjust { AF | CF } else { 0 };
    flags::put(cpu, ARITHMETIC, flags::of_result(result as u8) | carries);
    Ok(())
}

/// DAA (`ADD`) and DAS.
extern "C" fn decimal_adjust<const ADD: bool>(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    let old = u8::get(cpu, reg::RAX);
    let old_carry = cpu.rflags & CF != 0;
    let (mut al, mut carry, mut auxiliary) = (old, false, false);
    if old & 15 > 9 || cpu.rflags & AF != 0 {
        let (adjusted, out) = if ADD { al.overflowing_add(6) } else { al.overflowing_sub(6) };
        (al, carry, auxiliary) = (adjusted, old_carry || out, true);
    }
    if old > 0x99 || old_carry {
        al = if ADD { al.wrapping_add(0x60) } else { al.wrapping_sub(0x60) };
        carry = true;
    }
    u8::set(cpu, reg::RAX, al);
    flags::put(cpu, ARITHMETIC, flags::of_result(al) | u64::from(carry) | if auxiliary { AF } else { 0 });
    Ok(())
}

/// AAM.
extern "C" fn split_digits(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let al = u8::get(cpu, reg::RAX);
    let base = op.imm as u8;
    let (Some(high), Some(low)) = (al.checked_div(base), al.checked_rem(base)) else {
        return Err(cpu.raise(Exception::DIVIDE));
    };
    u8::set(cpu, HIGH_BYTE, high);
    u8::set(cpu, reg::RAX, low);
    flags::put(cpu, ARITHMETIC, flags::of_result(low));
    Ok(())
}

/// AAD.
extern "C" fn join_digits(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let (low, high) = (u8::get(cpu, reg::RAX), u8::get(cpu, HIGH_BYTE));
    let result = low.wrapping_add(high.wrapping_mul(op.imm as u8));
    u16::set(cpu, reg::RAX, u16::from(result));
    flags::put(cpu, ARITHMETIC, flags::of_result(result));
    Ok(())
}

/// Handlers of this file's instructions.
pub(super) fn select(instruction: &Instruction, form: &Form) -> Option<Handler> {
    if form.bits == 64 {
        return None;
    }
    Some(match instruction.mnemonic() {
        Mnemonic::Aaa => ascii_adjust::<true>,
        Mnemonic::Aas => ascii_adjust::<false>,
        Mnemonic::Daa => decimal_adjust::<true>,
        Mnemonic::Das => decimal_adjust::<false>,
        Mnemonic::Aam => split_digits,
        Mnemonic::Aad => join_digits,
        _ => return None,
    })
}
