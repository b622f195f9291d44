//! The interrupt wires of the board: each may have several drivers. Those of the ISA bus go to the 8259A pair and to the
//! I/O APIC, the others to that alone.

use std::sync::Arc;

use parking_lot::Mutex;
use rhea_core::{InterruptLine, InterruptSink};

/// Drivers that one wire can have.
const DRIVERS: u32 = 64;

/// A wire with several drivers: asserted while any of them asserts it.
pub struct SharedWire {
    state: Mutex<Drivers>,
    ends: Vec<InterruptLine>,
}

#[derive(Default)]
struct Drivers {
    levels: u64,
    count: u32,
}

impl SharedWire {
    /// A wire that drives all of `ends`.
    pub fn new(ends: Vec<InterruptLine>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), ends })
    }

    /// One more driver. Beyond 64 the last two share their level.
    pub fn driver(self: &Arc<Self>) -> InterruptLine {
        let mut state = self.state.lock();
        let pin = state.count.min(DRIVERS - 1);
        state.count = pin + 1;
        InterruptLine::new(Arc::clone(self) as Arc<dyn InterruptSink>, pin)
    }
}

impl SharedWire {
    /// Tells the ends the level once more: they have had another state meanwhile.
    pub fn drive(&self) {
        let level = self.state.lock().levels != 0;
        self.ends.iter().for_each(|end| end.set(level));
    }
}

impl InterruptSink for SharedWire {
    fn set_level(&self, pin: u32, level: bool) {
        let mut state = self.state.lock();
        let bit = 1 << (pin % DRIVERS);
        let before = state.levels != 0;
        state.levels = if level { state.levels | bit } else { state.levels & !bit };
        let after = state.levels != 0;
        // Devices drive their line at each access; only changes go on to the controllers.
        if before != after {
            self.ends.iter().for_each(|end| end.set(after));
        }
    }

    fn is_pending(&self, _: u32) -> bool {
        self.ends.iter().any(InterruptLine::is_pending)
    }
}

/// The sixteen ISA interrupts of a PC, and the inputs that the I/O APIC has beyond them. At the I/O APIC, interrupt 0 is
/// input 2, as the MADT says.
pub struct IsaInterrupts {
    wires: [Arc<SharedWire>; 16],
    /// Inputs 16 to 23 of the I/O APIC.
    beyond: [Arc<SharedWire>; 8],
}

impl IsaInterrupts {
    /// Wires to the inputs of `pic` and `io_apic`.
    pub fn new(pic: &Arc<dyn InterruptSink>, io_apic: &Arc<dyn InterruptSink>) -> Self {
        let wires = std::array::from_fn(|irq| {
            let input = if irq == 0 { 2 } else { irq };
            let mut ends = vec![InterruptLine::new(Arc::clone(pic), irq as u32)];
            // Input 2 of the pair is its cascade; there is no such wire.
            if irq != 2 {
                ends.push(InterruptLine::new(Arc::clone(io_apic), input as u32));
            }
            SharedWire::new(ends)
        });
        let beyond = std::array::from_fn(|index| {
            SharedWire::new(vec![InterruptLine::new(Arc::clone(io_apic), 16 + index as u32)])
        });
        Self { wires, beyond }
    }

    /// Has each ISA wire tell its ends its level once more, but for those of timers: their edges come from within, and a
    /// controller that was reset has forgotten the level.
    pub fn drive(&self) {
        const TIMERS: [usize; 2] = [0, 8];
        let wires = self.wires.iter().enumerate().filter(|(irq, _)| !TIMERS.contains(irq));
        wires.for_each(|(_, wire)| wire.drive());
    }

    /// A line for one device to drive interrupt `irq`: from 16 to 23, an input of the I/O APIC; unconnected above.
    pub fn line(&self, irq: usize) -> InterruptLine {
        self.wires.iter().chain(&self.beyond).nth(irq).map_or(InterruptLine::unconnected(), SharedWire::driver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Levels(Mutex<u32>);

    impl InterruptSink for Levels {
        fn set_level(&self, pin: u32, level: bool) {
            let mut levels = self.0.lock();
            *levels = *levels & !(1 << pin) | u32::from(level) << pin;
        }
    }

    #[test]
    fn a_wire_stays_asserted_until_its_last_driver_lets_go() {
        let (pic, io_apic) = (Arc::new(Levels::default()), Arc::new(Levels::default()));
        let isa = IsaInterrupts::new(&(Arc::clone(&pic) as _), &(Arc::clone(&io_apic) as _));
        let (a, b) = (isa.line(9), isa.line(9));
        a.raise();
        b.raise();
        b.raise();
        a.lower();
        assert_eq!((*pic.0.lock(), *io_apic.0.lock()), (1 << 9, 1 << 9));
        b.lower();
        assert_eq!((*pic.0.lock(), *io_apic.0.lock()), (0, 0));
    }

    #[test]
    fn interrupt_0_is_input_2_of_the_io_apic_and_those_above_15_are_its_alone() {
        let (pic, io_apic) = (Arc::new(Levels::default()), Arc::new(Levels::default()));
        let isa = IsaInterrupts::new(&(Arc::clone(&pic) as _), &(Arc::clone(&io_apic) as _));
        isa.line(0).raise();
        isa.line(16).raise();
        isa.line(24).raise();
        assert_eq!((*pic.0.lock(), *io_apic.0.lock()), (1, 4 | 1 << 16));
    }
}
