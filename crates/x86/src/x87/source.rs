//! Memory operands of the x87, by their formats.
//!
//! Sources: SDM vol. 1 § 4.2 (formats), § 4.7 and § 8.2 (packed decimals).

use super::control::load;
use crate::{
    access::Access,
    float::{Format, Number},
    op::Op,
    state::CpuState,
    trap::Trap,
};

/// A format of numbers in memory.
pub(super) trait Source {
    /// Whether every value is loaded without exceptions.
    const EXACT: bool;
    /// Reads the memory operand.
    fn fetch(cpu: &mut CpuState, op: &Op) -> Result<Number, Trap>;
}

/// Single precision.
pub(super) struct Real32;
impl Source for Real32 {
    const EXACT: bool = false;

    fn fetch(cpu: &mut CpuState, op: &Op) -> Result<Number, Trap> {
        Ok(Number::unpack(Format::SINGLE, u64::from(load::<u32>(cpu, op)?)))
    }
}

/// Double precision.
pub(super) struct Real64;
impl Source for Real64 {
    const EXACT: bool = false;

    fn fetch(cpu: &mut CpuState, op: &Op) -> Result<Number, Trap> {
        Ok(Number::unpack(Format::DOUBLE, load(cpu, op)?))
    }
}

/// A word.
pub(super) struct Integer16;
impl Source for Integer16 {
    const EXACT: bool = true;

    fn fetch(cpu: &mut CpuState, op: &Op) -> Result<Number, Trap> {
        Ok(Number::from_integer(i64::from(load::<u16>(cpu, op)? as i16)))
    }
}

/// A dword.
pub(super) struct Integer32;
impl Source for Integer32 {
    const EXACT: bool = true;

    fn fetch(cpu: &mut CpuState, op: &Op) -> Result<Number, Trap> {
        Ok(Number::from_integer(i64::from(load::<u32>(cpu, op)? as i32)))
    }
}

/// A qword.
pub(super) struct Integer64;
impl Source for Integer64 {
    const EXACT: bool = true;

    fn fetch(cpu: &mut CpuState, op: &Op) -> Result<Number, Trap> {
        Ok(Number::from_integer(load::<u64>(cpu, op)? as i64))
    }
}

/// Eighty bits as they are.
pub(super) struct Extended;
impl Extended {
    pub(super) fn fetch_bits(cpu: &mut CpuState, op: &Op) -> Result<u128, Trap> {
        let linear = cpu.linear(op, 10, Access::Read)?;
        cpu.check_parts(linear, 8)?;
        let low: u64 = cpu.read(linear)?;
        let high: u16 = cpu.read(linear.wrapping_add(8))?;
        Ok(u128::from(low) | u128::from(high) << 64)
    }
}

/// Eighteen decimal digits and a sign; digits above 9 count as what their bits say.
pub(super) struct PackedDecimal;
impl Source for PackedDecimal {
    const EXACT: bool = true;

    fn fetch(cpu: &mut CpuState, op: &Op) -> Result<Number, Trap> {
        let bits = Extended::fetch_bits(cpu, op)?;
        let magnitude = (0..18).rev().fold(0i64, |sum, i| 10 * sum + (bits >> (4 * i) & 15) as i64);
        Ok(Number::from_integer(magnitude).with_sign(bits >> 79 & 1 != 0))
    }
}
