//! A processor's way to the rest of the machine: its own local APIC first, then memory and ports.

use std::sync::Arc;

use rhea_core::{AddressSpace, Clock, Instant, Mmio, PortSpace, Width};
use rhea_devices::chipset::{
    coprocessor::CoprocessorErrors,
    lapic::{LocalApic, MSR_TSC_DEADLINE},
};
use rhea_x86::bus::SystemBus;
use rustix::rand::{GetRandomFlags, getrandom};

/// Bytes of a local APIC's window.
const APIC_WINDOW: u64 = 4096;

/// What one processor sees.
pub struct ProcessorBus {
    /// Its local APIC.
    pub apic: Arc<LocalApic>,
    /// Memory.
    pub memory: Arc<AddressSpace>,
    /// Ports.
    pub ports: Arc<PortSpace>,
    /// The machine's clock, from which the time stamp counter is made: it counts nanoseconds.
    pub clock: Arc<Clock>,
    /// Where its pins FERR# and IGNNE# go, if anywhere.
    pub coprocessor: Option<Arc<CoprocessorErrors>>,
}

impl ProcessorBus {
    fn apic_offset(&self, address: u64) -> Option<u64> {
        let base = self.apic.window()?;
        address.checked_sub(base).filter(|&offset| offset < APIC_WINDOW)
    }
}

impl SystemBus for ProcessorBus {
    fn port_read(&self, port: u16, width: Width) -> u32 {
        self.ports.read(port, width)
    }

    fn port_write(&self, port: u16, width: Width, value: u32) {
        self.ports.write(port, width, value);
    }

    fn memory_read(&self, address: u64, width: Width) -> u64 {
        match self.apic_offset(address) {
            Some(offset) => self.apic.read(offset, width) & width.ones(),
            None => self.memory.read_value(address, width),
        }
    }

    fn memory_write(&self, address: u64, width: Width, value: u64) {
        match self.apic_offset(address) {
            Some(offset) => self.apic.write(offset, width, value & width.ones()),
            None => self.memory.write_value(address, width, value),
        }
    }

    fn acknowledge_interrupt(&self) -> Option<u8> {
        self.apic.acknowledge()
    }

    fn tsc(&self) -> u64 {
        self.clock.now().as_nanos()
    }

    fn random(&self) -> Option<u64> {
        let mut bytes = [0; 8];
        let filled = getrandom(&mut bytes, GetRandomFlags::NONBLOCK).ok()?;
        (filled == bytes.len()).then(|| u64::from_le_bytes(bytes))
    }

    fn task_priority(&self) -> u8 {
        self.apic.cr8()
    }

    fn set_task_priority(&self, priority: u8) {
        self.apic.set_cr8(priority);
    }

    fn set_tsc_deadline(&self, deadline: u64, at: u64) {
        self.apic.set_tsc_deadline(deadline, Instant::from_nanos(at));
    }

    fn apic_msr_read(&self, msr: u32) -> Option<u64> {
        if msr == MSR_TSC_DEADLINE {
            return Some(self.apic.tsc_deadline());
        }
        self.apic.read_msr(msr).ok()
    }

    fn apic_msr_write(&self, msr: u32, value: u64) -> Option<()> {
        self.apic.write_msr(msr, value).ok()
    }

    fn set_x87_error(&self, asserted: bool) {
        if let Some(coprocessor) = &self.coprocessor {
            coprocessor.set_error(asserted);
        }
    }

    fn ignores_x87_errors(&self) -> bool {
        self.coprocessor.as_ref().is_some_and(|coprocessor| coprocessor.ignored())
    }
}
