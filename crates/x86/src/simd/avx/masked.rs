//! Moves of those elements that a mask chooses: VMASKMOV, VPMASKMOV, and gathers, whose elements have an address each.
//!
//! Source: SDM vol. 2 for each instruction; § 2.3.12 (vector SIB). Elements that are not chosen touch no memory and raise
//! no fault; VMASKMOV and VPMASKMOV take any alignment (§ 2.4, type 6). A gather that faults has done with the elements before, which its mask then says.

use iced_x86::Mnemonic;

use super::{
    Vex,
    operands::{Vector, enter, set_vector, vector},
};
use crate::{
    access::{Access, Value},
    decode::Kind,
    op::{Handler, Op},
    simd::lanes::{dword, qword},
    state::CpuState,
    trap::Trap,
};

/// An element of 32 or 64 bits.
trait Element: Value + Into<u128> {
    /// Bytes.
    const BYTES: u64 = Self::SIZE as u64;
    /// How many there are in 128 bits.
    const COUNT: usize = 16 / Self::SIZE;
    /// All bits of one.
    const ONES: u128 = u128::MAX >> (128 - 8 * Self::SIZE);

    /// Element `number` of a vector.
    fn of(a: Vector, number: usize) -> Self;

    /// `a` with element `number` replaced.
    #[inline(always)]
    fn put(self, mut a: Vector, number: usize) -> Vector {
        let shift = 8 * Self::SIZE * (number % Self::COUNT);
        let half = &mut a[(number / Self::COUNT) & 1];
        *half = *half & !(Self::ONES << shift) | self.into() << shift;
        a
    }

    /// Whether the sign of element `number` is set.
    #[inline(always)]
    fn chosen(mask: Vector, number: usize) -> bool {
        let bit = 8 * Self::SIZE * (number % Self::COUNT + 1) - 1;
        mask[(number / Self::COUNT) & 1] >> bit & 1 != 0
    }
}

impl Element for u32 {
    #[inline(always)]
    fn of(a: Vector, number: usize) -> Self {
        dword(a[(number / 4) & 1], number as u32)
    }
}

impl Element for u64 {
    #[inline(always)]
    fn of(a: Vector, number: usize) -> Self {
        qword(a[(number / 2) & 1], number as u32)
    }
}

/// Cuts an offset in a segment to the size of addresses.
#[inline(always)]
fn cut(op: &Op, offset: u64) -> u64 {
    if op.address_size == 8 { offset } else { offset & 0xffff_ffff }
}

extern "C" fn masked_load<E: Element, const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let mask = vector(cpu, op.src);
    let offset = op.effective_address(cpu);
    let mut value = [0; 2];
    for i in (0..if LONG { 2 * E::COUNT } else { E::COUNT }).filter(|&i| E::chosen(mask, i)) {
        let place = cut(op, offset.wrapping_add(E::BYTES * i as u64));
        let linear = cpu.linear_of_any_alignment(op.segment, place, E::BYTES, Access::Read)?;
        value = cpu.read::<E>(linear)?.put(value, i);
    }
    set_vector(cpu, op.dst, value);
    Ok(())
}

extern "C" fn masked_store<E: Element, const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let (mask, value) = (vector(cpu, op.src), vector(cpu, op.aux));
    let offset = op.effective_address(cpu);
    let count = if LONG { 2 * E::COUNT } else { E::COUNT };
    let mut places = [0; 8];
    // All faults come before the first write.
    for (i, linear) in places.iter_mut().enumerate().take(count).filter(|&(i, _)| E::chosen(mask, i)) {
        let place = cut(op, offset.wrapping_add(E::BYTES * i as u64));
        *linear = cpu.linear_of_any_alignment(op.segment, place, E::BYTES, Access::Write)?;
        cpu.probe_write(*linear, E::BYTES)?;
    }
    for (i, linear) in places.into_iter().enumerate().take(count).filter(|&(i, _)| E::chosen(mask, i)) {
        cpu.write(linear, E::of(value, i))?;
    }
    Ok(())
}

/// A gather of elements `E` by numbers `N`; `LONG` is about the longer of the two vectors.
extern "C" fn gather<E: Element, N: Number, const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let count = if LONG { 32 } else { 16 } / E::SIZE.max(N::SIZE);
    let base = cpu.register(op.base).wrapping_add(op.disp);
    let numbers = vector(cpu, op.index);
    for i in 0..count {
        let mask = vector(cpu, op.aux);
        if !E::chosen(mask, i) {
            continue;
        }
        let offset = base.wrapping_add(N::signed(numbers, i) << (op.scale & 3));
        let linear = cpu.linear_at(op.segment, cut(op, offset), E::BYTES, Access::Read)?;
        let element: E = cpu.read(linear)?;
        let gathered = element.put(vector(cpu, op.dst), i);
        set_vector(cpu, op.dst, gathered);
        set_vector(cpu, op.aux, E::from_bytes([0; 16]).put(mask, i));
    }
    // What is beyond the elements becomes zero.
    let mut value = vector(cpu, op.dst);
    if count * E::SIZE <= 16 {
        value[1] = 0;
    }
    if count * E::SIZE == 8 {
        value[0] &= u128::from(u64::MAX);
    }
    set_vector(cpu, op.dst, value);
    set_vector(cpu, op.aux, [0; 2]);
    Ok(())
}

/// A number that an element's address is computed of.
trait Number: Element {
    /// Number `i` of a vector, sign-extended.
    fn signed(numbers: Vector, i: usize) -> u64;
}

impl Number for u32 {
    #[inline(always)]
    fn signed(numbers: Vector, i: usize) -> u64 {
        i64::from(Self::of(numbers, i) as i32) as u64
    }
}

impl Number for u64 {
    #[inline(always)]
    fn signed(numbers: Vector, i: usize) -> u64 {
        Self::of(numbers, i)
    }
}

/// The handler of a masked move.
pub(super) fn select(mnemonic: Mnemonic, vex: &Vex<'_>) -> Option<Handler> {
    let stores = vex.form.kinds[0] == Kind::Memory;
    Some(match (mnemonic, stores, vex.long) {
        (Mnemonic::Vmaskmovps | Mnemonic::Vpmaskmovd, false, false) => masked_load::<u32, false>,
        (Mnemonic::Vmaskmovps | Mnemonic::Vpmaskmovd, false, true) => masked_load::<u32, true>,
        (Mnemonic::Vmaskmovps | Mnemonic::Vpmaskmovd, true, false) => masked_store::<u32, false>,
        (Mnemonic::Vmaskmovps | Mnemonic::Vpmaskmovd, true, true) => masked_store::<u32, true>,
        (Mnemonic::Vmaskmovpd | Mnemonic::Vpmaskmovq, false, false) => masked_load::<u64, false>,
        (Mnemonic::Vmaskmovpd | Mnemonic::Vpmaskmovq, false, true) => masked_load::<u64, true>,
        (Mnemonic::Vmaskmovpd | Mnemonic::Vpmaskmovq, true, false) => masked_store::<u64, false>,
        (Mnemonic::Vmaskmovpd | Mnemonic::Vpmaskmovq, true, true) => masked_store::<u64, true>,
        (Mnemonic::Vpgatherdd | Mnemonic::Vgatherdps, _, false) => gather::<u32, u32, false>,
        (Mnemonic::Vpgatherdd | Mnemonic::Vgatherdps, _, true) => gather::<u32, u32, true>,
        (Mnemonic::Vpgatherdq | Mnemonic::Vgatherdpd, _, false) => gather::<u64, u32, false>,
        (Mnemonic::Vpgatherdq | Mnemonic::Vgatherdpd, _, true) => gather::<u64, u32, true>,
        (Mnemonic::Vpgatherqd | Mnemonic::Vgatherqps, _, false) => gather::<u32, u64, false>,
        (Mnemonic::Vpgatherqd | Mnemonic::Vgatherqps, _, true) => gather::<u32, u64, true>,
        (Mnemonic::Vpgatherqq | Mnemonic::Vgatherqpd, _, false) => gather::<u64, u64, false>,
        (Mnemonic::Vpgatherqq | Mnemonic::Vgatherqpd, _, true) => gather::<u64, u64, true>,
        _ => return None,
    })
}
