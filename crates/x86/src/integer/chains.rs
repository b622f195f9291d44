//! Arithmetic on numbers of many words: ADCX and ADOX, which each carry through one flag alone. SDM vol. 2.

use iced_x86::{Instruction, Mnemonic};

use super::{
    flags::{self, CF, OF},
    word::Word,
};
use crate::{
    access::Access,
    decode::{Form, Kind},
    op::{Handler, Op},
    state::CpuState,
    trap::Trap,
};

extern "C" fn add<T: Word, const FLAG: u64, const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let addend = if MEMORY {
        let linear = cpu.linear(op, T::SIZE as u64, Access::Read)?;
        cpu.read(linear)?
    } else {
        T::get(cpu, op.src)
    };
    let (sum, carry) = T::get(cpu, op.dst).add_carry(addend, cpu.rflags & FLAG != 0);
    T::set(cpu, op.dst, sum);
    flags::put(cpu, FLAG, if carry { FLAG } else { 0 });
    Ok(())
}

/// Handlers of this file's instructions.
pub(super) fn select(instruction: &Instruction, form: &Form) -> Option<Handler> {
    Some(match (instruction.mnemonic(), form.sizes[0], form.kinds[1] == Kind::Memory) {
        (Mnemonic::Adcx, 8, false) => add::<u64, CF, false>,
        (Mnemonic::Adcx, 8, true) => add::<u64, CF, true>,
        (Mnemonic::Adcx, _, false) => add::<u32, CF, false>,
        (Mnemonic::Adcx, _, true) => add::<u32, CF, true>,
        (Mnemonic::Adox, 8, false) => add::<u64, OF, false>,
        (Mnemonic::Adox, 8, true) => add::<u64, OF, true>,
        (Mnemonic::Adox, _, false) => add::<u32, OF, false>,
        (Mnemonic::Adox, _, true) => add::<u32, OF, true>,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use crate::engine::testing::run;

    #[test]
    fn each_chain_carries_through_its_own_flag() {
        // adcx eax, ecx; adox rbx, rdx
        let code = [0x66, 0x0f, 0x38, 0xf6, 0xc1, 0xf3, 0x48, 0x0f, 0x38, 0xf6, 0xda];
        let cpu = run(&code, 64, |cpu| {
            (cpu.gpr[0], cpu.gpr[1], cpu.gpr[2], cpu.gpr[3]) = (u64::MAX, 0, u64::MAX, 0);
            cpu.rflags |= 0x0d5;
        });
        assert_eq!((cpu.gpr[0], cpu.gpr[3], cpu.rflags & 0x8d5), (0, u64::MAX, 0x0d5));
        let cpu = run(&code, 64, |cpu| {
            (cpu.gpr[0], cpu.gpr[1], cpu.gpr[2], cpu.gpr[3]) = (1, 1, u64::MAX, 0);
            cpu.rflags |= 0x801;
        });
        assert_eq!((cpu.gpr[0], cpu.gpr[3], cpu.rflags & 0x8d5), (3, 0, 0x800));
    }
}
