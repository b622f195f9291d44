//! A machine as a test drives it from outside: ports, memory, clock and interrupt lines, with no processor in between.

use std::sync::Arc;

use rhea_core::{AddressSpace, Instant, InterruptSink, PortSpace, Tap, TapListener, Width};
use rhea_x86::bus::SystemBus;

use crate::{
    Machine,
    taps::{Side, Taps},
};

/// What a test asked for that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TestError {
    /// The guest runs, and time with it.
    #[error("the clock runs by itself; only under the accelerator qtest it is told its time")]
    ClockRuns,
    /// A step to the next timer when none is set.
    #[error("cannot advance clock to the next deadline because there is no pending deadline")]
    NoDeadline,
    /// No such part.
    #[error("Unknown device '{0}'")]
    Unknown(String),
    /// No such input.
    #[error("'{path}' has no input {pin}")]
    NoPin {
        /// The part.
        path: String,
        /// The input.
        pin: u64,
    },
}

/// The way in.
#[derive(Clone)]
pub struct TestAccess {
    machine: Arc<Machine>,
    /// As the first processor sees the machine: with its local APIC.
    bus: Option<Arc<dyn SystemBus>>,
}

impl TestAccess {
    /// The way into `machine`.
    pub fn new(machine: &Arc<Machine>) -> Self {
        Self { machine: Arc::clone(machine), bus: machine.board().first_processor_bus() }
    }

    fn memory(&self) -> &AddressSpace {
        &self.machine.parts().memory
    }

    fn ports(&self) -> &PortSpace {
        &self.machine.parts().ports
    }

    fn taps(&self) -> &Taps {
        &self.machine.parts().taps
    }

    /// An IN.
    pub fn port_read(&self, port: u16, width: Width) -> u32 {
        self.ports().read(port, width)
    }

    /// An OUT.
    pub fn port_write(&self, port: u16, width: Width, value: u32) {
        self.ports().write(port, width, value);
    }

    /// A load from physical memory by the first processor.
    pub fn load(&self, address: u64, width: Width) -> u64 {
        match &self.bus {
            Some(bus) => bus.memory_read(address, width),
            None => self.memory().read_value(address, width),
        }
    }

    /// A store to physical memory by the first processor.
    pub fn store(&self, address: u64, width: Width, value: u64) {
        match &self.bus {
            Some(bus) => bus.memory_write(address, width, value),
            None => self.memory().write_value(address, width, value),
        }
    }

    /// Fills `data` from physical memory.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        self.memory().read(address, data);
    }

    /// Writes `data` to physical memory.
    pub fn write(&self, address: u64, data: &[u8]) {
        self.memory().write(address, data);
    }

    /// The machine's time.
    pub fn now(&self) -> Instant {
        self.machine.clock().now()
    }

    /// Lets time pass until `target`, each timer on the way running at its deadline.
    ///
    /// # Errors
    /// The clock is not ours to move.
    pub fn run_until(&self, target: Instant) -> Result<(), TestError> {
        if !self.machine.clock().is_told() {
            return Err(TestError::ClockRuns);
        }
        self.machine.parts().timers.run_until(target);
        Ok(())
    }

    /// The next timer's deadline.
    ///
    /// # Errors
    /// No timer is set.
    pub fn next_deadline(&self) -> Result<Instant, TestError> {
        self.machine.parts().timers.next_deadline().ok_or(TestError::NoDeadline)
    }

    /// Runs what is due now already; so an answer that follows comes after all that its request caused.
    pub fn settle(&self) {
        if self.machine.clock().is_told() {
            self.machine.parts().timers.run_expired();
        }
    }

    /// The type of the part at `path`, which is that type itself or leads through the tree of objects.
    fn part(&self, path: &str) -> Result<String, TestError> {
        if self.taps().knows(path) {
            return Ok(path.to_owned());
        }
        let tree = self.machine.objects().tree();
        let object = tree.resolve(path).ok().and_then(|node| tree.object(node));
        object.map(|object| object.info().name.to_owned()).ok_or_else(|| TestError::Unknown(path.to_owned()))
    }

    /// Tells `listener` of every change of the lines at one side of the part `path`; the tap hears no other listener. A
    /// part without lines at that side has no tap there, and nothing to tell.
    ///
    /// # Errors
    /// There is no such part.
    pub fn listen(&self, side: Side, path: &str, listener: TapListener) -> Result<Option<Arc<Tap>>, TestError> {
        let tap = self.taps().find(side, &self.part(path)?);
        if let Some(tap) = &tap {
            tap.listen(Some(listener));
        }
        Ok(tap)
    }

    /// Drives input `pin` of the part `path`.
    ///
    /// # Errors
    /// There is no such input.
    pub fn set_input(&self, path: &str, pin: u64, level: bool) -> Result<(), TestError> {
        let no_pin = || TestError::NoPin { path: path.to_owned(), pin };
        let tap = self.taps().find(Side::In, &self.part(path)?).ok_or_else(no_pin)?;
        let number = u32::try_from(pin).ok().filter(|&number| number < tap.pins());
        let number = number.ok_or_else(no_pin)?;
        tap.set_level(number, level);
        Ok(())
    }
}
