//! SSE4A: fields of bits taken out of and put into the low half of a register, and stores of one number past the caches.
//!
//! Source: APM vol. 4, EXTRQ, INSERTQ, MOVNTSD, MOVNTSS. What it leaves undefined is as if it were defined: the upper half
//! stays, and of a field that goes beyond the lower half those bits count that are inside. Stores are plain ones here.

use iced_x86::Mnemonic;

use super::{
    lanes::{qword, with_low_qword},
    operands::{enter_sse, set_xmm, store, xmm},
};
use crate::{
    decode::{Form, Kind},
    op::{Handler, Op},
    state::CpuState,
    trap::Trap,
};

/// A field: the number of its lowest bit, and ones as many as it has bits.
#[derive(Clone, Copy)]
struct Field {
    index: u32,
    mask: u64,
}

impl Field {
    /// From the six low bits of a length and an index; a length of zero is 64.
    fn new(length: u64, index: u64) -> Self {
        let length = length as u32 & 63;
        let mask = if length == 0 { u64::MAX } else { (1 << length) - 1 };
        Self { index: index as u32 & 63, mask }
    }

    /// From a register's half that has the length in its first byte and the index in the second.
    fn of(control: u64) -> Self {
        Self::new(control, control >> 8)
    }

    fn extract(self, from: u64) -> u64 {
        from >> self.index & self.mask
    }

    fn insert(self, into: u64, value: u64) -> u64 {
        let place = self.mask << self.index;
        into & !place | value << self.index & place
    }
}

fn put(cpu: &mut CpuState, op: &Op, change: impl FnOnce(u64) -> u64) {
    let old = xmm(cpu, op.dst);
    set_xmm(cpu, op.dst, with_low_qword(old, change(qword(old, 0))));
}

extern "C" fn extract_by_immediates(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    put(cpu, op, |old| Field::new(op.imm, op.disp).extract(old));
    Ok(())
}

extern "C" fn extract_by_register(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let field = Field::of(qword(xmm(cpu, op.src), 0));
    put(cpu, op, |old| field.extract(old));
    Ok(())
}

extern "C" fn insert_by_immediates(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let value = qword(xmm(cpu, op.src), 0);
    put(cpu, op, |old| Field::new(op.imm, op.disp).insert(old, value));
    Ok(())
}

extern "C" fn insert_by_register(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let source = xmm(cpu, op.src);
    put(cpu, op, |old| Field::of(qword(source, 1)).insert(old, qword(source, 0)));
    Ok(())
}

extern "C" fn store_single(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let value = xmm(cpu, op.src) as u32;
    store(cpu, op, value)
}

extern "C" fn store_double(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_sse(cpu)?;
    let value = qword(xmm(cpu, op.src), 0);
    store(cpu, op, value)
}

/// The handler of an instruction of SSE4A.
pub(super) fn select(mnemonic: Mnemonic, form: &Form) -> Option<Handler> {
    Some(match mnemonic {
        Mnemonic::Extrq if form.kinds[1] == Kind::Immediate => extract_by_immediates,
        Mnemonic::Extrq => extract_by_register,
        Mnemonic::Insertq if form.kinds[2] == Kind::Immediate => insert_by_immediates,
        Mnemonic::Insertq => insert_by_register,
        Mnemonic::Movntss => store_single,
        Mnemonic::Movntsd => store_double,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::engine::testing::{DATA, Machine, Stop, run};

    /// The bit of `value` at `number`, or none beyond its end.
    fn bit(value: u64, number: u64) -> u64 {
        if number < 64 { value >> number & 1 } else { 0 }
    }

    /// Bit by bit: what EXTRQ gives.
    fn extracted(from: u64, length: u64, index: u64) -> u64 {
        let length = if length & 63 == 0 { 64 } else { length & 63 };
        (0..length).map(|i| bit(from, (index & 63) + i) << i).sum()
    }

    /// Bit by bit: what INSERTQ gives.
    fn inserted(into: u64, value: u64, length: u64, index: u64) -> u64 {
        let length = if length & 63 == 0 { 64 } else { length & 63 };
        let index = index & 63;
        (0..64)
            .map(|i| if (index..index + length).contains(&i) { bit(value, i - index) << i } else { into & 1 << i })
            .sum()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn fields_are_those_bits(a: u128, b: u128, length: u8, index: u8) {
            let (l, i) = (u64::from(length), u64::from(index));
            // extrq xmm0, length, index; extrq xmm1, xmm2; insertq xmm3, xmm4, length, index; insertq xmm5, xmm6
            let code = [
                0x66, 0x0f, 0x78, 0xc0, length, index,
                0x66, 0x0f, 0x79, 0xca,
                0xf2, 0x0f, 0x78, 0xdc, length, index,
                0xf2, 0x0f, 0x79, 0xee,
            ];
            let cpu = run(&code, 64, |cpu| {
                for number in [0, 1, 3, 5] {
                    cpu.xmm[number] = a;
                }
                cpu.xmm[2] = b << 16 | u128::from(index) << 8 | u128::from(length);
                cpu.xmm[4] = b;
                cpu.xmm[6] = u128::from(index) << 72 | u128::from(length) << 64 | u128::from(b as u64);
            });
            let upper = a >> 64 << 64;
            let extracted = upper | u128::from(extracted(a as u64, l, i));
            let inserted = upper | u128::from(inserted(a as u64, b as u64, l, i));
            prop_assert_eq!((cpu.xmm[0], cpu.xmm[1]), (extracted, extracted));
            prop_assert_eq!((cpu.xmm[3], cpu.xmm[5]), (inserted, inserted));
        }
    }

    #[test]
    fn one_number_is_stored_anywhere() {
        // movntss [rsi+1], xmm0; movntsd [rsi+9], xmm0
        let mut machine = Machine::new(&[0xf3, 0x0f, 0x2b, 0x46, 1, 0xf2, 0x0f, 0x2b, 0x46, 9], 64);
        machine.cpu().xmm[0] = 0x9999_8877_6655_4433_2211;
        assert_eq!(machine.run(), Stop::Halted);
        let expected = [0, 0x11, 0x22, 0x33, 0x44, 0, 0, 0, 0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0];
        assert_eq!(machine.read::<18>(DATA), expected);
    }
}
