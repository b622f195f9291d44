//! What a device under fuzzing stands on: a clock that is told its time, ports, memory, and lines whose levels are seen.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use rhea_core::{AddressSpace, Clock, InterruptLine, InterruptSink, Mmio, PortSpace, Ram, TimerQueue, memory::Target};
use rhea_devices::{
    char::CharSink,
    chipset::{
        lapic::ProcessorPins,
        pci::{Message, MessageSink},
    },
};

/// Bytes of RAM, from address zero.
pub(crate) const RAM: u64 = 0x2_0000;

/// Where outputs of all kinds end. Levels of wires are kept, all else is forgotten.
#[derive(Default)]
pub(crate) struct Ends {
    levels: AtomicU64,
}

impl Ends {
    pub(crate) fn levels(&self) -> u64 {
        self.levels.load(Ordering::Relaxed)
    }
}

impl InterruptSink for Ends {
    fn set_level(&self, pin: u32, level: bool) {
        let bit = 1 << (pin % 64);
        if level {
            self.levels.fetch_or(bit, Ordering::Relaxed);
        } else {
            self.levels.fetch_and(!bit, Ordering::Relaxed);
        }
    }
}

impl MessageSink for Ends {
    fn send(&self, _: Message) {}
}

impl CharSink for Ends {
    fn write(&self, _: &[u8]) {}
}

impl ProcessorPins for Ends {
    fn interrupt(&self, level: bool) {
        self.set_level(0, level);
    }

    fn nmi(&self) {}

    fn init(&self) {}

    fn startup(&self, _: u8) {}
}

/// What one device stands on.
pub(crate) struct Bench {
    /// Which of several ways to make the device.
    pub(crate) variant: u8,
    pub(crate) timers: Arc<TimerQueue>,
    pub(crate) ports: Arc<PortSpace>,
    pub(crate) memory: Arc<AddressSpace>,
    pub(crate) ends: Arc<Ends>,
    ram: Arc<Ram>,
}

impl Bench {
    pub(crate) fn new(variant: u8) -> Self {
        let ram = Ram::new("ram", RAM).expect("memory of a fuzzed device");
        Self::on(variant, Clock::told(), ram)
    }

    /// Another one at the same time and with the same RAM.
    pub(crate) fn twin(&self) -> Self {
        Self::on(self.variant, Arc::clone(self.timers.clock()), Arc::clone(&self.ram))
    }

    fn on(variant: u8, clock: Arc<Clock>, ram: Arc<Ram>) -> Self {
        let memory = Arc::new(AddressSpace::new());
        memory.map(0, RAM, 0, Target::Ram { ram: Arc::clone(&ram), offset: 0, writable: true });
        let timers = TimerQueue::new(clock);
        Self { variant, timers, ports: Arc::default(), memory, ends: Arc::default(), ram }
    }

    /// A wire whose level is seen.
    pub(crate) fn line(&self, pin: u32) -> InterruptLine {
        InterruptLine::new(Arc::clone(&self.ends) as Arc<dyn InterruptSink>, pin)
    }

    pub(crate) fn map(&self, base: u64, length: u64, device: Arc<dyn Mmio>) {
        self.memory.map(base, length, 1, Target::Mmio(device));
    }
}
