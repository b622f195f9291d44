//! CRC32: the cyclic redundancy check of Castagnoli, 0x11edc6f41. SDM vol. 2.

use iced_x86::{Instruction, Mnemonic};

use super::word::{Word, by_size};
use crate::{
    access::Access,
    decode::{Form, Kind},
    op::{Handler, Op},
    state::CpuState,
    trap::Trap,
};

/// The polynomial without its highest term, lowest bit first.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What a byte gives that `n` more bytes follow: table `n`.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = byte as u32;
        let mut following = 0;
        while following < 8 {
            let mut bit = 0;
            while bit < 8 {
                remainder = remainder >> 1 ^ if remainder & 1 != 0 { POLYNOMIAL } else { 0 };
                bit += 1;
            }
            tables[following][byte] = remainder;
            following += 1;
        }
        byte += 1;
    }
    tables
}

/// The check goes on over the bytes of `data`, lowest first.
#[inline(always)]
fn accumulate<T: Word>(check: u32, data: T) -> u32 {
    let mixed = (u64::from(check) ^ data.wide()).to_le_bytes();
    let left = u64::from(check).checked_shr(T::BITS).unwrap_or(0) as u32;
    let following = TABLES[..T::SIZE].iter().rev();
    mixed.iter().zip(following).fold(left, |check, (&byte, table)| check ^ table[usize::from(byte)])
}

extern "C" fn from_register<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let check = accumulate(u32::get(cpu, op.dst), T::get(cpu, op.src));
    u32::set(cpu, op.dst, check);
    Ok(())
}

extern "C" fn from_memory<T: Word>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let linear = cpu.linear(op, T::SIZE as u64, Access::Read)?;
    let data: T = cpu.read(linear)?;
    let check = accumulate(u32::get(cpu, op.dst), data);
    u32::set(cpu, op.dst, check);
    Ok(())
}

/// The handler of CRC32.
pub(super) fn select(instruction: &Instruction, form: &Form) -> Option<Handler> {
    if instruction.mnemonic() != Mnemonic::Crc32 {
        return None;
    }
    Some(match form.kinds[1] {
        Kind::Memory => by_size!(form.sizes[1], from_memory, [], []),
        _ => by_size!(form.sizes[1], from_register, [], []),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_of_the_digits_is_the_known_one_whatever_the_size_of_the_steps() {
        let digits = b"123456789";
        let bytes = digits.iter().fold(u32::MAX, |check, &byte| accumulate(check, byte));
        assert_eq!(!bytes, 0xe306_9283);
        let low = u64::from_le_bytes(*digits.first_chunk().unwrap());
        assert_eq!(accumulate(accumulate(u32::MAX, low), b'9'), bytes);
        let words = (0..4).fold(u32::MAX, |check, i| accumulate(check, (low >> (16 * i)) as u16));
        assert_eq!(accumulate(words, b'9'), bytes);
        let dwords = (0..2).fold(u32::MAX, |check, i| accumulate(check, (low >> (32 * i)) as u32));
        assert_eq!(accumulate(dwords, b'9'), bytes);
    }
}
