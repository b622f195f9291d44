//! The interrupt wires of the PCI slots: each slot's pins INTA# to INTD#, rotated from slot to slot, on four shared wires.
//!
//! Source: PCI Local Bus Specification 3.0 §2.2.6; the rotation is the board's, and said again in the ACPI tables.

use std::sync::Arc;

use parking_lot::Mutex;
use rhea_core::{InterruptLine, InterruptSink};

use super::SlotFunction;

/// Functions of a bus.
const FUNCTIONS: usize = 256;
/// Pins of a function, and wires that they share.
const PINS: usize = 4;
/// Inputs that one word of [`Wire`] holds.
const WORD: usize = 64;

/// The functions that assert one wire: a bit for every pin of every function.
#[derive(Clone, Copy, Default)]
struct Wire([u64; FUNCTIONS * PINS / WORD]);

/// Takes the pins of all slots together to the four PIRQ wires. A wire is asserted while any pin on it is. Nothing of
/// it is saved: functions drive their pins again when they are loaded.
pub struct PirqRouter {
    wires: Mutex<[Wire; PINS]>,
    ends: [InterruptLine; PINS],
    /// The wire of pin 0 of slot 0.
    rotation: usize,
}

impl PirqRouter {
    /// Wires that drive `ends`; pin 0 of slot 0 is on the one of number `rotation`.
    pub fn new(ends: [InterruptLine; PINS], rotation: usize) -> Arc<Self> {
        Arc::new(Self { wires: Mutex::default(), ends, rotation })
    }

    /// The line for the function at `at` to drive its pin, 0 for INTA#.
    pub fn line(self: &Arc<Self>, at: SlotFunction, pin: u8) -> InterruptLine {
        let function = u32::from(at.slot & 31) << 3 | u32::from(at.function & 7);
        InterruptLine::new(Arc::clone(self) as Arc<dyn InterruptSink>, function * PINS as u32 + u32::from(pin & 3))
    }
}

impl InterruptSink for PirqRouter {
    /// `input` is slot and function times four, plus the pin.
    fn set_level(&self, input: u32, level: bool) {
        let input = input as usize % (FUNCTIONS * PINS);
        let (slot, pin) = (input / (8 * PINS), input % PINS);
        let wire = (slot + pin + self.rotation) % PINS;
        let mut wires = self.wires.lock();
        let Wire(words) = &mut wires[wire];
        let (word, bit) = (&mut words[input / WORD], 1 << (input % WORD));
        *word = if level { *word | bit } else { *word & !bit };
        let asserted = words.iter().any(|&word| word != 0);
        self.ends[wire].set(asserted);
    }
}
