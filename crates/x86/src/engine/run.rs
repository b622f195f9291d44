//! One processor: the loop that finds code and runs it.

use std::sync::Arc;

use iced_x86::{Decoder, DecoderOptions};
use rhea_core::memory::AddressSpace;

use crate::{
    bus::SystemBus,
    op::Op,
    state::{CpuState, Request, Requests, Segment, seg},
    system::cpuid::CpuidTable,
    trap::Trap,
};

/// What a processor is made of.
pub struct VcpuConfig {
    /// Its number in the machine.
    pub index: usize,
    /// The machine around it.
    pub bus: Arc<dyn SystemBus>,
    /// The machine's memory.
    pub memory: Arc<AddressSpace>,
    /// CPUID as the guest sees it.
    pub cpuid: CpuidTable,
    /// What others ask of it.
    pub requests: Arc<Requests>,
    /// Whether it runs after a reset; the others wait for a start-up IPI.
    pub bootstrap: bool,
}

/// Why [`Vcpu::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// [`Request::EXIT`] was asked for.
    Asked,
    /// The processor waits for an interrupt: call again when anything is asked of it.
    Halted,
    /// It shut down; only a reset helps.
    Shutdown,
    /// It waits for a start-up IPI: call again when anything is asked of it.
    WaitingForStartup,
    /// An exception was raised, and the processor was told to stop at those.
    Exception,
}

/// One processor.
pub struct Vcpu {
    state: CpuState,
    stop_at_exceptions: bool,
}

impl Vcpu {
    /// A processor in its reset state.
    pub fn new(config: VcpuConfig) -> Box<Self> {
        let view = Arc::clone(&config.memory.view());
        let tlb = [crate::tlb::TlbSet::new(), crate::tlb::TlbSet::new()];
        let mut state = CpuState {
            gpr: [0; 32],
            rip: 0,
            rflags: 2,
            cpl: 0,
            interrupt_shadow: false,
            nmi_blocked: false,
            mode: 0,
            segments: [Segment::default(); 8],
            cr0: 0,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            ldtr: Segment::default(),
            tr: Segment::default(),
            gdtr: Default::default(),
            idtr: Default::default(),
            dr: [0; 8],
            xmm: [0; 16],
            mxcsr: 0x1f80,
            x87: crate::state::X87 {
                registers: [0; 8],
                control: 0x37f,
                status: 0,
                top: 0,
                valid: 0,
                last_opcode: 0,
                last_instruction: 0,
                last_data: 0,
                last_cs: 0,
                last_ds: 0,
            },
            msr: Default::default(),
            exception: crate::trap::Exception::INVALID_OPCODE,
            tlb,
            cpuid: config.cpuid,
            engine: Default::default(),
            view,
            memory: config.memory,
            bus: config.bus,
            requests: config.requests,
        };
        state.configure_paging();
        state.engine.ram = super::ram::RamMap::new(&state.view);
        Box::new(Self { state, stop_at_exceptions: false })
    }

    /// The processor's state.
    pub fn state(&self) -> &CpuState {
        &self.state
    }

    /// The processor's state, to change it.
    pub fn state_mut(&mut self) -> &mut CpuState {
        &mut self.state
    }

    /// The state alone.
    pub fn into_state(self: Box<Self>) -> Box<CpuState> {
        Box::new(self.state)
    }

    /// Whether [`run`](Self::run) returns at an exception instead of delivering it.
    pub fn stop_at_exceptions(&mut self, stop: bool) {
        self.stop_at_exceptions = stop;
    }

    /// Runs the guest until something else is to be done.
    pub fn run(&mut self) -> Exit {
        loop {
            if self.state.requests.any() && self.state.requests.take(Request::EXIT) == Request::EXIT {
                return Exit::Asked;
            }
            let result = self.step();
            match result {
                Ok(()) => {}
                Err(Trap::HALT) => return Exit::Halted,
                Err(Trap::SHUTDOWN) => return Exit::Shutdown,
                Err(_) => return Exit::Exception,
            }
        }
    }

    /// Decodes and runs one instruction.
    fn step(&mut self) -> Result<(), Trap> {
        let cpu = &mut self.state;
        let mode = cpu.mode();
        let base = if mode.code_bits() == 64 { 0 } else { cpu.segments[usize::from(seg::CS)].base };
        let mut bytes = [0; 15];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = cpu.read_system(base.wrapping_add(cpu.rip).wrapping_add(i as u64))?;
        }
        let start = cpu.rip;
        let mut decoder = Decoder::with_ip(u32::from(mode.code_bits()), &bytes, start, DecoderOptions::NONE);
        let instruction = decoder.decode();
        let op: Op = crate::decode::decode(&instruction, mode, true);
        let next = start.wrapping_add(u64::from(op.length)) & mode.pointer_mask();
        let result = (op.handler)(cpu, &op);
        match result {
            Ok(()) if instruction.flow_control() == iced_x86::FlowControl::Next => cpu.rip = next,
            Ok(()) | Err(Trap::JUMP | Trap::AGAIN) => {}
            Err(Trap::NEXT) => cpu.rip = next,
            Err(trap) => {
                if trap == Trap::HALT {
                    cpu.rip = next;
                }
                return Err(trap);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::testing;

    #[test]
    fn a_machine_runs_to_hlt_and_stops_at_an_undefined_instruction() {
        // f4 is appended by the machine; 0f 0b is UD2.
        let mut machine = testing::Machine::new(&[0x0f, 0x0b], 64);
        assert_eq!(machine.run(), testing::Stop::Exception(crate::trap::Exception::INVALID_OPCODE));
        assert_eq!(machine.cpu().rip, testing::CODE);
    }
}
