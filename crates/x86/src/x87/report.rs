//! How an unmasked x87 error is reported: as exception 16, or, with CR0.NE clear, as a PC does it. There the pin FERR# asks
//! the chipset for an interrupt, and the processor stands before the next instruction that waits for errors until it gets
//! one, or until the chipset says by IGNNE# that it is to go on.
//!
//! Sources: SDM vol. 1 § 8.7; vol. 3 § 2.5 (NE).

use super::control::ERROR_SUMMARY;
use crate::{
    state::{CpuState, Cr0},
    trap::{Exception, Trap},
};

impl CpuState {
    /// Reports the error that is pending to an instruction that waits for errors; `Ok` if that is to be executed all the
    /// same.
    #[cold]
    pub(crate) fn report_x87_error(&mut self) -> Result<(), Trap> {
        if self.cr0_has(Cr0::NE) {
            return Err(self.raise(Exception::X87_ERROR));
        }
        if !self.x87_error_shown {
            self.x87_error_shown = true;
            self.bus.set_x87_error(true);
        }
        if self.bus.ignores_x87_errors() { Ok(()) } else { Err(Trap::FROZEN) }
    }

    /// Releases FERR# once no error is pending: after whatever may have cleared it.
    #[inline]
    pub(crate) fn settle_x87_error(&mut self) {
        if self.x87_error_shown && self.x87.status & ERROR_SUMMARY == 0 {
            self.x87_error_shown = false;
            self.bus.set_x87_error(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{
        Exit,
        testing::{CODE, Machine, Stop},
    };

    /// fldcw [rsi]; fldz; fld1; fdivrp; fnop; fnclex; hlt
    const DIVIDE: &[u8] = &[0xd9, 0x2e, 0xd9, 0xee, 0xd9, 0xe8, 0xde, 0xf1, 0xd9, 0xd0, 0xdb, 0xe2];
    const AT_WAITING: u64 = CODE + 8;

    fn machine(code: &[u8]) -> Machine {
        let mut machine = Machine::new(code, 64);
        machine.memory.write(crate::engine::testing::DATA, &[0x7b, 0x03]);
        machine.cpu().x87.initialize();
        machine.cpu().cr0 &= !Cr0::NE.bits();
        machine
    }

    #[test]
    fn an_error_is_shown_and_the_next_waiting_instruction_waits() {
        let mut machine = machine(DIVIDE);
        for _ in 0..3 {
            assert_eq!(machine.vcpu.run(), Exit::Waiting);
            assert_eq!((machine.cpu().rip, machine.bus.x87_error()), (AT_WAITING, true));
            machine.cpu().requests.ask(crate::state::Request::WAKE);
        }
        machine.bus.set_ignored(true);
        assert_eq!(machine.run(), Stop::Halted);
        assert!(!machine.bus.x87_error(), "FNCLEX");
    }

    #[test]
    fn an_interrupt_comes_before_the_instruction_that_waits() {
        let mut machine = machine(DIVIDE);
        machine.vcpu.stop_at_exceptions(false);
        machine.set_gate(0x75, 0x9000);
        // The handler: fnclex; iretq
        machine.memory.write(0x9000, &[0xdb, 0xe2, 0x48, 0xcf]);
        machine.cpu().rflags |= crate::state::Rflags::IF.bits();
        assert_eq!(machine.vcpu.run(), Exit::Waiting);
        machine.bus.queue_interrupt(0x75);
        let requests = machine.cpu().requests.clone();
        requests.interrupt.store(true, std::sync::atomic::Ordering::SeqCst);
        requests.ask(crate::state::Request::INTERRUPT);
        assert_eq!(machine.run(), Stop::Halted);
        assert_eq!((machine.cpu().rip, machine.bus.x87_error()), (CODE + DIVIDE.len() as u64 + 1, false));
    }

    #[test]
    fn whatever_clears_the_error_releases_the_pin() {
        // fninit; fnsave [rsi]; fnstenv [rsi]; fxrstor [rbx]
        for code in [&[0xdb, 0xe3][..], &[0xdd, 0x36], &[0xd9, 0x36], &[0x0f, 0xae, 0x0b]] {
            let mut machine = machine(code);
            machine.cpu().gpr[3] = 0x2_0000;
            machine.cpu().x87.load_control(0x37b);
            machine.cpu().x87.load_status(4);
            machine.cpu().x87_error_shown = true;
            machine.bus.set_ignored(true);
            crate::bus::SystemBus::set_x87_error(&*machine.bus, true);
            assert_eq!(machine.run(), Stop::Halted);
            assert!(!machine.bus.x87_error(), "{code:x?}");
        }
    }

    #[test]
    fn mmx_instructions_wait_for_errors_too() {
        // paddb mm0, mm1
        let mut machine = machine(&[0x0f, 0xfc, 0xc1]);
        machine.cpu().x87.load_control(0x37b);
        machine.cpu().x87.load_status(4);
        assert_eq!(machine.vcpu.run(), Exit::Waiting);
        machine.bus.set_ignored(true);
        assert_eq!(machine.run(), Stop::Waiting);
        machine.cpu().requests.ask(crate::state::Request::WAKE);
        assert_eq!(machine.run(), Stop::Halted);
    }
}
