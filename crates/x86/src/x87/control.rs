//! The x87 control and status words, the tags, and the instructions that only touch those.
//!
//! Sources: SDM vol. 1 § 8.1.3 to 8.1.8, § 8.3.10 to 8.3.12; SDM vol. 2 for each instruction.

use iced_x86::Mnemonic;

pub(super) use crate::protection::address::{load, store};
use crate::{
    decode::{Form, Kind},
    op::{Handler, Op},
    state::{CpuState, Cr0, X87},
    trap::{Exception, Trap},
};

/// Status word: the six exception flags.
pub(super) const EXCEPTIONS: u16 = 0x3f;
/// Status word: stack fault.
pub(super) const STACK_FAULT: u16 = 1 << 6;
/// Status word: an unmasked exception is pending.
pub(super) const ERROR_SUMMARY: u16 = 1 << 7;
/// Status word: busy; mirrors the error summary since the 80387.
const BUSY: u16 = 1 << 15;
/// Condition code bit 1: which way a result was rounded, or which way the stack ran over.
pub(super) const C1: u16 = 1 << 9;
/// Status word: where TOP is.
const TOP_SHIFT: u32 = 11;
const TOP_MASK: u16 = 7 << TOP_SHIFT;

/// Control word bits that can be written; bit 6 always reads as one.
const CONTROL_MASK: u16 = 0x1f3f;
const CONTROL_FIXED: u16 = 0x40;

/// Control word after FNINIT: all masked, 64 bits of precision, to nearest.
const CONTROL_INITIAL: u16 = 0x37f;

impl X87 {
    /// The state after FNINIT, with registers of zero.
    pub const INITIAL: Self = Self {
        registers: [0; 8],
        control: CONTROL_INITIAL,
        status: 0,
        top: 0,
        valid: 0,
        last_opcode: 0,
        last_instruction: 0,
        last_data: 0,
        last_cs: 0,
        last_ds: 0,
    };

    /// The status word as the guest sees it.
    pub fn status_word(&self) -> u16 {
        self.status & !TOP_MASK | u16::from(self.top & 7) << TOP_SHIFT
    }

    /// Takes over a status word; whether an exception is pending follows from its flags and the masks.
    pub fn load_status(&mut self, word: u16) {
        self.top = (word >> TOP_SHIFT) as u8 & 7;
        self.status = word & !TOP_MASK;
        self.summarize();
    }

    /// Takes over a control word; it may unmask, or mask, an exception that is pending.
    pub fn load_control(&mut self, word: u16) {
        self.control = word & CONTROL_MASK | CONTROL_FIXED;
        self.summarize();
    }

    /// The full tag word: two bits a physical register.
    pub fn tag_word(&self) -> u16 {
        (0..8).fold(0, |word, i| word | self.tag(i) << (2 * i))
    }

    /// Takes over a full tag word, of which only "empty" matters: the rest follows from the registers.
    pub fn load_tags(&mut self, word: u16) {
        self.valid = (0..8).fold(0, |valid, i| valid | u8::from(word >> (2 * i) & 3 != 3) << i);
    }

    /// 0 valid, 1 zero, 2 special (infinity, NaN, denormal, unsupported), 3 empty.
    fn tag(&self, number: usize) -> u16 {
        let register = self.registers[number & 7];
        let (exponent, significand) = ((register >> 64) as u16 & 0x7fff, register as u64);
        if self.valid >> (number & 7) & 1 == 0 {
            3
        } else if exponent == 0 && significand == 0 {
            1
        } else if exponent == 0 || exponent == 0x7fff || significand >> 63 == 0 {
            2
        } else {
            0
        }
    }

    /// Makes ES and B follow flags and masks.
    pub(super) fn summarize(&mut self) {
        if self.status & !self.control & EXCEPTIONS != 0 {
            self.status |= ERROR_SUMMARY | BUSY;
        } else {
            self.status &= !(ERROR_SUMMARY | BUSY);
        }
    }

    /// FNINIT: as [`INITIAL`](Self::INITIAL), but the registers keep what they hold.
    pub fn initialize(&mut self) {
        *self = Self { registers: self.registers, ..Self::INITIAL };
    }
}

/// Lets a control instruction pass that does not wait for pending exceptions.
#[inline(always)]
pub(super) fn enter_control(cpu: &mut CpuState) -> Result<(), Trap> {
    if cpu.cr0 & (Cr0::EM.bits() | Cr0::TS.bits()) != 0 {
        return unavailable(cpu);
    }
    Ok(())
}

/// Lets any other x87 instruction pass: a pending unmasked exception comes first.
#[inline(always)]
pub(super) fn enter(cpu: &mut CpuState) -> Result<(), Trap> {
    if cpu.cr0 & (Cr0::EM.bits() | Cr0::TS.bits()) | u64::from(cpu.x87.status & ERROR_SUMMARY) != 0 {
        return unavailable(cpu);
    }
    Ok(())
}

#[cold]
fn unavailable(cpu: &mut CpuState) -> Result<(), Trap> {
    if cpu.cr0 & (Cr0::EM.bits() | Cr0::TS.bits()) != 0 {
        return Err(cpu.raise(Exception::DEVICE_NOT_AVAILABLE));
    }
    cpu.report_x87_error()
}

extern "C" fn initialize(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    enter_control(cpu)?;
    cpu.x87.initialize();
    cpu.settle_x87_error();
    Ok(())
}

extern "C" fn store_control(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_control(cpu)?;
    let word = cpu.x87.control;
    store(cpu, op, word)
}

extern "C" fn store_status(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_control(cpu)?;
    let word = cpu.x87.status_word();
    store(cpu, op, word)
}

extern "C" fn status_to_ax(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter_control(cpu)?;
    let word = cpu.x87.status_word();
    let register = &mut cpu.gpr[usize::from(op.dst & 15)];
    *register = *register & !0xffff | u64::from(word);
    Ok(())
}

extern "C" fn load_control(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    let word = load(cpu, op)?;
    cpu.x87.load_control(word);
    cpu.settle_x87_error();
    Ok(())
}

extern "C" fn clear_exceptions(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    enter_control(cpu)?;
    cpu.x87.status &= !(EXCEPTIONS | STACK_FAULT | ERROR_SUMMARY | BUSY);
    cpu.settle_x87_error();
    Ok(())
}

/// WAIT looks at MP instead of EM.
extern "C" fn wait(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    if cpu.cr0_has(Cr0::MP | Cr0::TS) {
        return Err(cpu.raise(Exception::DEVICE_NOT_AVAILABLE));
    }
    if cpu.x87.status & ERROR_SUMMARY != 0 {
        return cpu.report_x87_error();
    }
    Ok(())
}

extern "C" fn nothing(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    enter(cpu)
}

/// FNENI, FNDISI and FNSETPM, which only the 8087 and 80287 know.
extern "C" fn nothing_unwaited(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    enter_control(cpu)
}

extern "C" fn increment_top(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    cpu.x87.top = cpu.x87.top.wrapping_add(1) & 7;
    cpu.x87.status &= !C1;
    Ok(())
}

extern "C" fn decrement_top(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    cpu.x87.top = cpu.x87.top.wrapping_sub(1) & 7;
    cpu.x87.status &= !C1;
    Ok(())
}

extern "C" fn free<const POP: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    enter(cpu)?;
    cpu.x87.valid &= !(1 << (cpu.x87.top.wrapping_add(op.dst) & 7));
    cpu.x87.status &= !C1;
    if POP {
        cpu.x87.valid &= !(1 << (cpu.x87.top & 7));
        cpu.x87.top = cpu.x87.top.wrapping_add(1) & 7;
    }
    Ok(())
}

/// The handler of a control instruction.
pub(super) fn select(mnemonic: Mnemonic, form: &Form) -> Option<Handler> {
    Some(match mnemonic {
        Mnemonic::Fninit => initialize,
        Mnemonic::Fnstcw => store_control,
        Mnemonic::Fnstsw if form.kinds[0] == Kind::Register => status_to_ax,
        Mnemonic::Fnstsw => store_status,
        Mnemonic::Fldcw => load_control,
        Mnemonic::Fnclex => clear_exceptions,
        Mnemonic::Wait => wait,
        Mnemonic::Fnop => nothing,
        Mnemonic::Fneni | Mnemonic::Fndisi | Mnemonic::Fnsetpm => nothing_unwaited,
        Mnemonic::Fincstp => increment_top,
        Mnemonic::Fdecstp => decrement_top,
        Mnemonic::Ffree => free::<false>,
        Mnemonic::Ffreep => free::<true>,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_follow_the_registers() {
        let mut x87 = X87::INITIAL;
        assert_eq!(x87.tag_word(), 0xffff);
        x87.valid = 0b1111;
        x87.registers[1] = 0x3fff_8000_0000_0000_0000;
        x87.registers[2] = 0x7fff_8000_0000_0000_0000;
        x87.registers[3] = 0x0000_0000_0000_0000_0001;
        assert_eq!(x87.tag_word(), 0xffa1);
        x87.load_tags(0x3fff);
        assert_eq!(x87.valid, 0b1000_0000);
    }

    #[test]
    fn unmasking_a_raised_flag_makes_it_pending() {
        let mut x87 = X87::INITIAL;
        x87.load_status(0x2804);
        assert_eq!((x87.top, x87.status), (5, 4));
        x87.load_control(0x033b);
        assert_eq!(x87.status_word(), 0xa884);
        x87.load_control(0xffff);
        assert_eq!((x87.control, x87.status_word()), (0x1f7f, 0x2804));
    }
}
