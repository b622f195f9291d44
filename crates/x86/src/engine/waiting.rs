//! A processor that waits for a store, and who is told of that store.

use std::{
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
    task::Waker,
};

use rhea_core::Ram;

use super::run::{Activity, Vcpu};

/// Has somebody woken by stores to what a processor waits for, until it is dropped.
#[derive(Debug)]
pub struct StoreWatch {
    ram: Arc<Ram>,
    waker: Waker,
}

impl Vcpu {
    /// Has `waker` woken when what the processor waits for is stored to, or may have been; now, if it has been already.
    /// `None` if it waits for no store.
    pub fn watch(&self, waker: &Waker) -> Option<StoreWatch> {
        if self.activity != Activity::Waiting {
            return None;
        }
        let page = self.state.engine.monitor.page()?;
        page.ram().add_sleeper(waker.clone());
        let watch = StoreWatch { ram: Arc::clone(page.ram()), waker: waker.clone() };
        // A store either finds the sleeper or is found here.
        fence(Ordering::SeqCst);
        if page.stale() {
            waker.wake_by_ref();
        }
        Some(watch)
    }
}

impl Drop for StoreWatch {
    fn drop(&mut self) {
        self.ram.remove_sleeper(&self.waker);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc,
        task::Wake,
        thread::{self, Thread},
        time::Duration,
    };

    use super::*;
    use crate::{
        engine::{
            Exit,
            testing::{CODE, DATA, Machine, Stop},
        },
        state::{Request, Requests, Rflags, reg},
        system::cpuid::Feature,
        trap::Exception,
    };

    const RAX: usize = reg::RAX as usize;
    const RCX: usize = reg::RCX as usize;
    /// mov rax, rsi; monitor; mwait
    const WAIT: &[u8] = &[0x48, 0x89, 0xf0, 0x0f, 0x01, 0xc8, 0x0f, 0x01, 0xc9];

    /// A machine that waits at the line of [`DATA`].
    fn waiting() -> Machine {
        let mut machine = Machine::new(WAIT, 64);
        assert_eq!(machine.run(), Stop::Waiting);
        assert_eq!(machine.cpu().rip, CODE + 9);
        machine
    }

    #[test]
    fn a_store_to_the_line_ends_waiting_and_one_beside_it_does_not() {
        let mut machine = waiting();
        machine.memory.write(DATA - 1, &[1]);
        machine.memory.write(DATA + 64, &[1]);
        assert_eq!(machine.run(), Stop::Waiting);
        machine.memory.write(DATA + 63, &[1]);
        assert_eq!(machine.run(), Stop::Halted);
    }

    #[test]
    fn a_store_of_another_processor_ends_waiting_also_through_a_translation_made_before() {
        let mut machine = Machine::new(WAIT, 64);
        let mut other = machine.second_processor();
        // mov [rdi + 128], al; mov [rdi], al
        machine.memory.write(CODE + 0x1000, &[0x88, 0x87, 0x80, 0, 0, 0, 0xf4, 0x88, 0x07, 0xf4]);
        other.state_mut().rip = CODE + 0x1000;
        assert_eq!(other.run(), Exit::Halted);
        assert_eq!(machine.run(), Stop::Waiting);
        other.start();
        assert_eq!(other.run(), Exit::Halted);
        assert_eq!(machine.run(), Stop::Halted);
    }

    #[test]
    fn a_store_between_the_two_is_not_slept_over() {
        // mov rax, rsi; monitor; mov [rsi], al; mwait
        let mut machine = Machine::new(&[0x48, 0x89, 0xf0, 0x0f, 0x01, 0xc8, 0x88, 0x06, 0x0f, 0x01, 0xc9], 64);
        assert_eq!(machine.run(), Stop::Halted);
    }

    #[test]
    fn without_a_monitor_before_it_there_is_no_waiting() {
        // mwait; mov rax, rsi; monitor; mwait; mwait
        let code = [&[0x0f, 0x01, 0xc9], WAIT, &[0x0f, 0x01, 0xc9]].concat();
        let mut machine = Machine::new(&code, 64);
        assert_eq!((machine.run(), machine.cpu().rip), (Stop::Waiting, CODE + 12));
        machine.cpu().requests.ask(Request::WAKE);
        assert_eq!(machine.run(), Stop::Halted);
    }

    #[test]
    fn lines_of_devices_are_not_waited_for() {
        let mut machine = Machine::new(&[0x0f, 0x01, 0xc8, 0x0f, 0x01, 0xc9], 64);
        machine.cpu().gpr[RAX] = 0x3000_0000;
        assert_eq!(machine.run(), Stop::Halted);
    }

    #[test]
    fn an_interrupt_ends_waiting_also_if_it_is_masked_and_that_was_asked_for() {
        // Before MWAIT comes MOV ECX, 1 or MOV ECX, 0.
        for (extensions, end) in [(0, Stop::Waiting), (1, Stop::Halted)] {
            let code = [&WAIT[..6], &[0xb9, extensions, 0, 0, 0], &WAIT[6..]].concat();
            let mut machine = Machine::new(&code, 64);
            machine.cpu().requests.interrupt.store(true, Ordering::SeqCst);
            assert_eq!(machine.run(), end, "{extensions}");
        }
        let mut machine = waiting();
        machine.set_gate(0x40, 0x9000);
        machine.memory.write(0x9000, &[0xf4]);
        machine.cpu().rflags |= Rflags::IF.bits();
        machine.bus.queue_interrupt(0x40);
        machine.cpu().requests.interrupt.store(true, Ordering::SeqCst);
        assert_eq!(machine.run(), Stop::Halted);
        assert_eq!(machine.cpu().rip, 0x9001);
    }

    #[test]
    fn what_is_not_allowed_faults() {
        for (code, rcx, exception) in [
            (0xc8, 1, Exception::general_protection(0)),
            (0xc8, 1 << 32, Exception::general_protection(0)),
            (0xc9, 2, Exception::general_protection(0)),
            (0xc9, 1 << 32, Exception::general_protection(0)),
        ] {
            let mut machine = Machine::new(&[0x0f, 0x01, code], 64);
            machine.cpu().gpr[RCX] = rcx;
            assert_eq!(machine.run(), Stop::Exception(exception), "{code:x} {rcx:x}");
            machine.cpu().cpl = 3;
            assert_eq!(machine.run(), Stop::Exception(Exception::INVALID_OPCODE), "{code:x}");
        }
        let mut machine = Machine::new(&[0x0f, 0x01, 0xc8], 64);
        machine.cpu().gpr[RAX] = 0x40_0000_0000;
        assert!(matches!(machine.run(), Stop::Exception(Exception { vector: 14, .. })));
        let mut machine = Machine::new(&[0x0f, 0x01, 0xc9], 64);
        machine.cpu().cpuid.set_feature(Feature::MONITOR, true);
        machine.cpu().msr.misc_enable = 1;
        assert_eq!(machine.run(), Stop::Exception(Exception::INVALID_OPCODE));
    }

    #[test]
    fn a_processor_that_waits_is_saved_as_one_that_runs() {
        let made = || {
            let mut machine = Machine::new(WAIT, 64);
            for feature in [Feature::LM, Feature::NX] {
                machine.cpu().cpuid.set_feature(feature, true);
            }
            machine
        };
        let (mut machine, mut second) = (made(), made());
        assert_eq!(machine.run(), Stop::Waiting);
        second.vcpu.load(machine.vcpu.save()).unwrap();
        assert!(!second.vcpu.idle());
        assert_eq!(second.run(), Stop::Halted);
    }

    /// Wakes as the machine does it.
    struct Sleeper(Arc<Requests>, Thread);

    impl Wake for Sleeper {
        fn wake(self: Arc<Self>) {
            self.0.ask(Request::WAKE);
            self.1.unpark();
        }
    }

    /// Two processors hand a counter to and fro, each asleep while the other has it. A wake-up that is lost stops them.
    #[test]
    fn two_processors_wake_each_other_ten_thousand_times() {
        // again: mov rax, rsi; monitor; mov eax, [rsi]; cmp eax, edx; je take; mwait; jmp again;
        // take: add dword [rdi], 1; ... counts in R8, ends at 5000
        let code = [
            0x48, 0x89, 0xf0, // again: mov rax, rsi
            0x31, 0xc9, // xor ecx, ecx
            0x0f, 0x01, 0xc8, // monitor
            0x8b, 0x06, // mov eax, [rsi]
            0x39, 0xd0, // cmp eax, edx
            0x74, 0x05, // je take
            0x0f, 0x01, 0xc9, // mwait
            0xeb, 0xed, // jmp again
            0x83, 0xc2, 0x02, // take: add edx, 2
            0xff, 0x06, // inc dword [rsi]
            0x41, 0xff, 0xc8, // dec r8d
            0x75, 0xe3, // jnz again
        ];
        let mut machine = Machine::new(&code, 64);
        machine.cpu().gpr[8] = 5000;
        let mut second = machine.second_processor();
        second.state_mut().gpr[usize::from(reg::RDX)] = 1;
        let Machine { vcpu, ram, .. } = machine;
        let (done, ended) = mpsc::channel();
        for mut vcpu in [vcpu, second] {
            let done = done.clone();
            thread::spawn(move || {
                let requests = Arc::clone(&vcpu.state().requests);
                let waker = Waker::from(Arc::new(Sleeper(Arc::clone(&requests), thread::current())));
                loop {
                    match vcpu.run() {
                        Exit::Waiting => {
                            let _watch = vcpu.watch(&waker);
                            while !requests.any() {
                                thread::park();
                            }
                        }
                        Exit::Contended => thread::yield_now(),
                        Exit::Asked => {}
                        exit => return done.send(exit).unwrap(),
                    }
                }
            });
        }
        for _ in 0..2 {
            assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(Exit::Halted));
        }
        let mut count = [0; 4];
        assert!(ram.read(DATA, &mut count));
        assert_eq!(u32::from_le_bytes(count), 10_000);
    }
}
