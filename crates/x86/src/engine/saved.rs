//! The saved state of a processor with what it does and what is asked of it.

use rhea_core::LoadError;
use serde::{Deserialize, Serialize};

use super::run::{Activity, Vcpu};
use crate::{saved::CpuV1, state::Request};

/// Saved form of [`Vcpu`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VcpuV1 {
    cpu: CpuV1,
    activity: Activity,
    nmi_pending: bool,
    instructions: u64,
    /// Requests that it has not seen yet.
    init: bool,
    startup: Option<u8>,
    a20_masked: bool,
}

/// Requests that are saved; the rest is asked for again where it is needed.
const LASTING: Request = Request::NMI.union(Request::INIT).union(Request::STARTUP);

impl Vcpu {
    /// Its state, between two runs.
    pub fn save(&self) -> VcpuV1 {
        let Self {
            state,
            // Made anew.
            cache: _,
            once: _,
            member: _,
            epoch: _,
            // The same on both sides.
            index: _,
            bootstrap: _,
            stop_at_exceptions: _,
            activity,
            nmi_pending,
            instructions,
        } = self;
        let asked = state.requests.peek();
        VcpuV1 {
            cpu: state.save(),
            // What a processor waits for may happen while nobody looks, and waiting may end at any time.
            activity: if *activity == Activity::Waiting { Activity::Running } else { *activity },
            nmi_pending: *nmi_pending || asked.contains(Request::NMI),
            instructions: *instructions,
            init: asked.contains(Request::INIT),
            startup: asked.contains(Request::STARTUP).then(|| state.requests.startup_vector()),
            a20_masked: state.requests.a20_masked(),
        }
    }

    /// Takes a saved state, between two runs. The level of its INTR pin is driven by others.
    ///
    /// # Errors
    /// A state that no processor of this model reaches; then nothing has changed.
    pub fn load(&mut self, saved: VcpuV1) -> Result<(), LoadError> {
        let VcpuV1 { cpu, activity, nmi_pending, instructions, init, startup, a20_masked } = saved;
        self.state.load(cpu)?;
        (self.activity, self.nmi_pending, self.instructions) = (activity, nmi_pending, instructions);
        let requests = &self.state.requests;
        // What was asked for while others were loaded is not meant.
        let _ = requests.take(LASTING);
        if init {
            requests.ask(Request::INIT);
        }
        if let Some(vector) = startup {
            requests.ask_startup(vector);
        }
        requests.set_a20(!a20_masked);
        // Memory is another, and so is what code was decoded from it.
        self.memory_changed();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rhea_core::state::{Value, from_value, to_value};

    use super::{
        super::testing::{CODE, DATA, Machine, Stop},
        *,
    };
    use crate::{
        integer::tests::execute,
        state::{Efer, Rflags, Segment, reg, seg},
        system::cpuid::Feature,
        trap::{Exception, Trap},
    };

    /// A machine of `bits`-bit code whose model has what that needs.
    fn machine(code: &[u8], bits: u8) -> Machine {
        let mut machine = Machine::new(code, bits);
        for feature in [Feature::LM, Feature::NX, Feature::SYSCALL] {
            machine.cpu().cpuid.set_feature(feature, true);
        }
        machine
    }

    /// A bit of everything that looks at its state.
    const CODE_64: &[u8] = &[
        0x50, 0x9c, 0x9d, 0x58, // push, pushf, popf, pop
        0xd9, 0xe8, 0xd9, 0xc0, 0xde, 0xc1, 0xdd, 0xd8, // fld1, fld, faddp, fstp
        0x0f, 0x58, 0xc1, 0xf2, 0x0f, 0x5a, 0xc0, // addps, cvtsd2ss
        0x0f, 0x20, 0xc0, 0x0f, 0x22, 0xc0, // mov rax, cr0; mov cr0, rax
        0x8e, 0xd8, 0x8c, 0xd8, // mov ds, ax; mov eax, ds
        0x0f, 0x01, 0xd0, // xgetbv
        0x0f, 0x05, // syscall
    ];

    #[test]
    fn a_processor_goes_on_in_another_where_it_stood() {
        // add rax, rbx; hlt; inc rax
        let mut first = machine(&[0x48, 0x01, 0xd8, 0xf4, 0x48, 0xff, 0xc0], 64);
        (first.cpu().gpr[usize::from(reg::RAX)], first.cpu().gpr[usize::from(reg::RBX)]) = (1, 2);
        first.cpu().ymm_high[9] = 5;
        (first.cpu().xmm[5], first.cpu().x87.registers[3]) = (u128::MAX - 7, 0x4000_8000_0000_0000_0001);
        first.cpu().msr.kernel_gs_base = 0xffff_8000_0000_0000;
        assert_eq!(first.run(), Stop::Halted);
        let saved = first.vcpu.save();
        let value = to_value("cpu", &saved).unwrap();

        let mut second = machine(&[0x90, 0x90, 0x90, 0x90, 0x48, 0xff, 0xc0], 64);
        second.cpu().rip = CODE + 1;
        second.vcpu.load(from_value("cpu", &value).unwrap()).unwrap();
        assert_eq!(second.vcpu.save(), saved);
        assert!(second.vcpu.idle());
        second.vcpu.start();
        assert_eq!(second.run(), Stop::Halted);
        assert_eq!((second.cpu().register(reg::RAX), second.cpu().rip), (4, CODE + 8));
    }

    #[test]
    fn a_debug_exception_that_a_loaded_stack_segment_holds_back_comes_in_the_other() {
        // mov ss, [rdi]; inc eax; nop
        const CODE_WATCHED: &[u8] = &[0x8e, 0x17, 0xff, 0xc0, 0x90];
        let mut first = machine(CODE_WATCHED, 64);
        first.memory.write(DATA, &[0x10, 0]);
        (first.cpu().dr[1], first.cpu().dr[7]) = (DATA, 0x400 | 1 << 3 | 3 << 20);
        first.cpu().update_mode();
        assert_eq!(execute(&mut first, &CODE_WATCHED[..2]), Err(Trap::NEXT));
        first.cpu().rip += 2;
        let mut second = machine(CODE_WATCHED, 64);
        second.vcpu.load(first.vcpu.save()).unwrap();
        assert_eq!(second.vcpu.save(), first.vcpu.save());
        assert_eq!(second.run(), Stop::Exception(Exception::DEBUG));
        let cpu = second.cpu();
        assert_eq!((cpu.register(reg::RAX), cpu.rip, cpu.dr[6] & 15), (1, CODE + 4, 2));
        // Nor is a breakpoint met on the instruction that is held.
        (first.cpu().dr[1], first.cpu().dr[7]) = (CODE + 2, 0x400 | 1 << 3);
        first.cpu().engine.breakpoints.hits = 0;
        let mut third = machine(CODE_WATCHED, 64);
        third.vcpu.load(first.vcpu.save()).unwrap();
        assert_eq!(third.run(), Stop::Halted);
    }

    #[test]
    fn what_was_asked_of_it_is_asked_again_and_nothing_else() {
        let first = machine(&[], 64);
        first.vcpu.state().requests.ask(Request::NMI);
        first.vcpu.state().requests.ask_startup(0x9a);
        let saved = first.vcpu.save();
        let mut second = machine(&[], 64);
        second.vcpu.state().requests.ask(Request::INIT);
        second.vcpu.load(saved.clone()).unwrap();
        assert_eq!(second.vcpu.save(), saved);
        let asked = second.vcpu.state().requests.peek();
        assert!(asked.contains(Request::STARTUP) && !asked.intersects(Request::INIT | Request::NMI));
    }

    #[test]
    fn states_that_no_processor_reaches_are_refused_and_change_nothing() {
        let bad: [fn(&mut Machine); 12] = [
            |machine| machine.cpu().cpuid.set_feature(Feature::SMEP, true),
            |machine| machine.cpu().cpl = 4,
            |machine| machine.cpu().rflags = 0,
            |machine| machine.cpu().cr0 &= !1,
            |machine| machine.cpu().efer &= !Efer::LMA.bits(),
            |machine| machine.cpu().gdtr.base = 1 << 63,
            |machine| machine.cpu().x87.top = 8,
            |machine| machine.cpu().mxcsr = 1 << 16,
            |machine| machine.cpu().xcr0 = 7,
            |machine| machine.cpu().msr.lstar = 1 << 50,
            |machine| machine.cpu().engine.breakpoints.hits = 1 << 4,
            |machine| machine.cpu().engine.breakpoints.stack_loaded = true,
        ];
        for (index, change) in bad.into_iter().enumerate() {
            let mut first = machine(&[], 64);
            change(&mut first);
            let mut second = machine(&[], 64);
            let before = second.vcpu.save();
            assert!(second.vcpu.load(first.vcpu.save()).is_err(), "{index}");
            assert_eq!(second.vcpu.save(), before);
        }
    }

    /// Changes the number in place `chosen` of `value`.
    fn change(value: &mut Value, chosen: &mut usize, to: u64) {
        match value {
            Value::Array(values) => values.iter_mut().for_each(|value| change(value, chosen, to)),
            Value::Map(members) => members.iter_mut().for_each(|(_, value)| change(value, chosen, to)),
            leaf => {
                if *chosen == 0 {
                    *leaf = match leaf {
                        Value::Bool(on) => Value::Bool(!*on),
                        _ => Value::from(to),
                    };
                }
                *chosen = chosen.wrapping_sub(1);
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_runs(
            bits in prop::sample::select(vec![16_u8, 32, 64]),
            changes in prop::collection::vec((0..332_usize, any::<u64>(), 0..64_u32), 1..6),
            vector in any::<u8>(),
        ) {
            let mut machine = machine(CODE_64, bits);
            let mut value = to_value("cpu", &machine.vcpu.save()).unwrap();
            for (mut place, to, shift) in changes {
                change(&mut value, &mut place, to >> shift);
            }
            let Ok(saved) = from_value::<VcpuV1>("cpu", &value) else { return Ok(()) };
            if machine.vcpu.load(saved).is_err() {
                return Ok(());
            }
            // Whoever is interrupted or reset is not stepped any more.
            machine.vcpu.nmi_pending = false;
            let _ = machine.vcpu.state().requests.take(LASTING);
            for round in 0..24 {
                // A step at a time.
                machine.cpu().rflags |= Rflags::TF.bits();
                machine.cpu().update_mode();
                if machine.vcpu.idle() {
                    machine.vcpu.start();
                }
                machine.vcpu.run();
                if round == 12 {
                    let _ = machine.cpu().deliver_interrupt(vector);
                }
            }
            let saved = machine.vcpu.save();
            prop_assert_eq!(machine.vcpu.save(), saved);
        }
    }

    #[test]
    fn hidden_parts_of_segments_are_kept() {
        let mut first = machine(&[], 16);
        let odd = Segment { base: 0xf_0000, limit: 0xffff_ffff, attributes: 0xc093, selector: 0x1234 };
        first.cpu().segments[usize::from(seg::DS)] = odd;
        let mut second = machine(&[], 32);
        second.vcpu.load(first.vcpu.save()).unwrap();
        assert_eq!(second.cpu().segments[usize::from(seg::DS)], odd);
        assert_eq!(second.cpu().mode().code_bits(), 16);
    }
}
