//! AVX's own operations on whole elements: broadcasts, halves in and out, permutations, variable shifts and tests.
//!
//! Source: SDM vol. 2 for each instruction.

use iced_x86::Mnemonic;

use super::{
    Vex,
    operands::{Vector, each, either, enter, forms, load_vector, set_low, set_vector, short_source, source, vector},
};
use crate::{
    access::Value,
    decode::Kind,
    op::{Handler, Op},
    protection::address::{load, store},
    simd::{
        lanes::{Lane, dword, from_dwords, from_qwords, qword},
        operands::xmm,
        operations::operations,
        sse4::test_flags,
    },
    state::{CpuState, Rflags},
    trap::Trap,
};

operations! { binary
    Vpsllvd: |a, b| u32::zip(a, b, |a, b| a.checked_shl(b).unwrap_or(0));
    Vpsllvq: |a, b| u64::zip(a, b, |a, b| if b < 64 { a << b } else { 0 });
    Vpsrlvd: |a, b| u32::zip(a, b, |a, b| a.checked_shr(b).unwrap_or(0));
    Vpsrlvq: |a, b| u64::zip(a, b, |a, b| if b < 64 { a >> b } else { 0 });
    Vpsravd: |a, b| u32::zip(a, b, |a, b| ((a as i32) >> b.min(31)) as u32);
    Vpermilps: |a, b| from_dwords(std::array::from_fn(|i| dword(a, dword(b, i as u32) & 3)));
    Vpermilpd: |a, b| from_qwords(qword(a, (qword(b, 0) >> 1) as u32), qword(a, (qword(b, 1) >> 1) as u32));
}

/// Those of the operations whose choice is an immediate, one of them in the same name.
mod chosen {
    use super::{dword, from_dwords, from_qwords, operations, qword};

    operations! { immediate
        Vpblendd: |a, b, choice| from_dwords(std::array::from_fn(|i| {
            dword(if choice >> i & 1 != 0 { b } else { a }, i as u32)
        }));
        Vpermilps: |_a, b, order| from_dwords(std::array::from_fn(|i| dword(b, u32::from(order >> (2 * i)) & 3)));
        Vpermilpd: |_a, b, order| from_qwords(qword(b, u32::from(order)), qword(b, u32::from(order >> 1)));
    }
}

/// Fills a vector with one element.
trait Element: Value + Into<u128> {
    /// What an element is multiplied with to fill 128 bits.
    const EVERYWHERE: u128;
}

impl Element for u8 {
    const EVERYWHERE: u128 = u128::MAX / 0xff;
}
impl Element for u16 {
    const EVERYWHERE: u128 = u128::MAX / 0xffff;
}
impl Element for u32 {
    const EVERYWHERE: u128 = u128::MAX / 0xffff_ffff;
}
impl Element for u64 {
    const EVERYWHERE: u128 = u128::MAX / 0xffff_ffff_ffff_ffff;
}
impl Element for u128 {
    const EVERYWHERE: u128 = 1;
}

extern "C" fn broadcast<E: Element, const LONG: bool, const MEMORY: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    enter(cpu)?;
    let element: E = if MEMORY { load(cpu, op)? } else { E::from_bytes(xmm(cpu, op.aux).to_le_bytes()) };
    let value: u128 = element.into();
    let value = value.wrapping_mul(E::EVERYWHERE);
    set_vector(cpu, op.dst, [value, if LONG { value } else { 0 }]);
    Ok(())
}

/// VINSERTF128, VINSERTI128.
extern "C" fn insert_half<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let half = short_source::<MEMORY>(cpu, op)?;
    let mut value = vector(cpu, op.src);
    value[op.imm as usize & 1] = half;
    set_vector(cpu, op.dst, value);
    Ok(())
}

/// VEXTRACTF128, VEXTRACTI128.
extern "C" fn extract_half<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let half = vector(cpu, op.src)[op.imm as usize & 1];
    if MEMORY {
        return store(cpu, op, half);
    }
    set_low(cpu, op.dst, half);
    Ok(())
}

/// VPERM2F128, VPERM2I128: each half is one of four, or zero.
extern "C" fn permute_halves<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let b = source::<true, MEMORY>(cpu, op)?;
    let a = vector(cpu, op.src);
    let halves = [a[0], a[1], b[0], b[1]];
    let half = |order: u64| if order & 8 != 0 { 0 } else { halves[order as usize & 3] };
    set_vector(cpu, op.dst, [half(op.imm), half(op.imm >> 4)]);
    Ok(())
}

/// Qword `number` of a vector.
#[inline(always)]
fn qword_of(a: Vector, number: u64) -> u64 {
    qword(a[(number >> 1) as usize & 1], number as u32 & 1)
}

/// VPERMQ, VPERMPD.
extern "C" fn permute_qwords<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let b = source::<true, MEMORY>(cpu, op)?;
    let slot = |i: u32| qword_of(b, op.imm >> (2 * i));
    let value = [from_qwords(slot(0), slot(1)), from_qwords(slot(2), slot(3))];
    set_vector(cpu, op.dst, value);
    Ok(())
}

/// VPERMD, VPERMPS: the first source has the numbers, the second one the elements.
extern "C" fn permute_dwords<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let b = source::<true, MEMORY>(cpu, op)?;
    let pick = |order: u128| {
        from_dwords(std::array::from_fn(|i| {
            let number = dword(order, i as u32);
            dword(b[(number >> 2) as usize & 1], number)
        }))
    };
    let order = vector(cpu, op.src);
    set_vector(cpu, op.dst, order.map(pick));
    Ok(())
}

/// Which bits a test looks at.
trait Tested {
    const MASK: u128;
}

struct All;
impl Tested for All {
    const MASK: u128 = u128::MAX;
}
struct SignsOfSingles;
impl Tested for SignsOfSingles {
    const MASK: u128 = (u128::MAX / 0xffff_ffff) << 31;
}
struct SignsOfDoubles;
impl Tested for SignsOfDoubles {
    const MASK: u128 = 1 << 127 | 1 << 63;
}

/// VPTEST, VTESTPS, VTESTPD.
extern "C" fn test<T: Tested, const LONG: bool, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let b = source::<LONG, MEMORY>(cpu, op)?;
    let a = vector(cpu, op.dst);
    let half = |i: usize| test_flags(a[i] & T::MASK, b[i] & T::MASK);
    let flags = if LONG { half(0) & half(1) } else { half(0) };
    cpu.rflags = cpu.rflags & !Rflags::ARITHMETIC.bits() | flags;
    Ok(())
}

/// VMOVSHDUP, VMOVSLDUP, VMOVDDUP of whole vectors.
trait Doubling {
    fn double(a: u128) -> u128;
}

struct OddDwords;
impl Doubling for OddDwords {
    #[inline(always)]
    fn double(a: u128) -> u128 {
        from_dwords([dword(a, 1), dword(a, 1), dword(a, 3), dword(a, 3)])
    }
}
struct EvenDwords;
impl Doubling for EvenDwords {
    #[inline(always)]
    fn double(a: u128) -> u128 {
        from_dwords([dword(a, 0), dword(a, 0), dword(a, 2), dword(a, 2)])
    }
}
struct LowQword;
impl Doubling for LowQword {
    #[inline(always)]
    fn double(a: u128) -> u128 {
        from_qwords(qword(a, 0), qword(a, 0))
    }
}

extern "C" fn double<D: Doubling, const LONG: bool, const MEMORY: bool>(
    cpu: &mut CpuState,
    op: &Op,
) -> Result<(), Trap> {
    enter(cpu)?;
    let b = if MEMORY { load_vector::<LONG>(cpu, op)? } else { vector(cpu, op.aux) };
    set_vector(cpu, op.dst, each::<LONG>(b, b, |b, _| D::double(b)));
    Ok(())
}

/// The handler of one of these instructions.
pub(super) fn select(mnemonic: Mnemonic, vex: &Vex<'_>) -> Option<Handler> {
    let memory = vex.memory;
    Some(match mnemonic {
        Mnemonic::Vpbroadcastb => forms!(vex, broadcast, u8),
        Mnemonic::Vpbroadcastw => forms!(vex, broadcast, u16),
        Mnemonic::Vpbroadcastd | Mnemonic::Vbroadcastss => forms!(vex, broadcast, u32),
        Mnemonic::Vpbroadcastq | Mnemonic::Vbroadcastsd => forms!(vex, broadcast, u64),
        Mnemonic::Vbroadcastf128 | Mnemonic::Vbroadcasti128 => forms!(vex, broadcast, u128),
        // The short form doubles 64 bits, which is what memory is read of.
        Mnemonic::Vmovddup if !vex.long => forms!(vex, broadcast, u64),
        Mnemonic::Vmovddup => forms!(vex, double, LowQword),
        Mnemonic::Vmovshdup => forms!(vex, double, OddDwords),
        Mnemonic::Vmovsldup => forms!(vex, double, EvenDwords),
        Mnemonic::Vinsertf128 | Mnemonic::Vinserti128 => either!(memory, insert_half),
        Mnemonic::Vextractf128 | Mnemonic::Vextracti128 => either!(memory, extract_half),
        Mnemonic::Vperm2f128 | Mnemonic::Vperm2i128 => either!(memory, permute_halves),
        Mnemonic::Vpermq | Mnemonic::Vpermpd => either!(memory, permute_qwords),
        Mnemonic::Vpermd | Mnemonic::Vpermps => either!(memory, permute_dwords),
        Mnemonic::Vptest => forms!(vex, test, All),
        Mnemonic::Vtestps => forms!(vex, test, SignsOfSingles),
        Mnemonic::Vtestpd => forms!(vex, test, SignsOfDoubles),
        _ if vex.form.kinds.contains(&Kind::Immediate) => return chosen::immediate(mnemonic, vex),
        _ => return binary(mnemonic, vex),
    })
}
