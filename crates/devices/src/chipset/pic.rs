//! The interrupt controllers of the AT: two 8259A in cascade, with the edge/level registers of the PIIX.
//!
//! Source: Intel 231468, "8259A Programmable Interrupt Controller" (cited as §); ELCR: Intel 290550, "82371SB (PIIX3)".

use std::sync::Arc;

use bitfield_struct::bitfield;
use parking_lot::Mutex;
use rhea_core::{Device, InterruptLine, InterruptSink, LoadError, PortIo, PortSpace, SaveState, Width, trace};
use serde::{Deserialize, Serialize};

pub use state::{ControllerV1, PairV1};

use crate::Saveable;

/// Input of the first controller at which the second one hangs.
const CASCADE: u8 = 2;

/// Initialization command word 1 (§ "Initialization Command Words").
#[bitfield(u8)]
struct Icw1 {
    ic4: bool,
    single: bool,
    /// Call address interval: of the 8080 only.
    interval: bool,
    /// Level triggered mode: the ELCR stands in for it on a PIIX.
    level: bool,
    #[bits(4)]
    __: u8,
}

/// Initialization command word 4.
#[bitfield(u8)]
struct Icw4 {
    microprocessor: bool,
    auto_eoi: bool,
    #[bits(2)]
    buffered: u8,
    special_fully_nested: bool,
    #[bits(3)]
    __: u8,
}

/// Operation command word 2 (§ "Operation Command Words").
#[bitfield(u8)]
struct Ocw2 {
    #[bits(3)]
    level: u8,
    #[bits(2)]
    select: u8,
    eoi: bool,
    specific_level: bool,
    rotate: bool,
}

/// Operation command word 3.
#[bitfield(u8)]
struct Ocw3 {
    read_in_service: bool,
    read_register: bool,
    poll: bool,
    #[bits(2)]
    select: u8,
    special_mask: bool,
    enable_special_mask: bool,
    #[bits(1)]
    __: u8,
}

/// Which command word a write to the data port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expect {
    /// The interrupt mask (OCW1).
    Mask,
    /// ICW2: the vector base.
    VectorBase,
    /// ICW3: where the cascade is.
    Cascade,
    /// ICW4: modes.
    Modes,
}

/// A port of one controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// A0 = 0.
    Command,
    /// A0 = 1.
    Data,
}

impl Register {
    /// `offset` from the controller's base port, 0 or 1.
    pub const fn at(offset: u16) -> Self {
        if offset & 1 == 0 { Self::Command } else { Self::Data }
    }
}

/// One 8259A.
#[derive(Clone, Debug, PartialEq)]
pub struct Controller {
    /// Inputs as they are driven.
    lines: u8,
    irr: u8,
    isr: u8,
    imr: u8,
    /// Edge/level control: a set bit is a level-triggered input.
    elcr: u8,
    /// The input of lowest priority; the next one has the highest.
    lowest: u8,
    vector_base: u8,
    expect: Expect,
    needs_icw4: bool,
    single: bool,
    read_in_service: bool,
    poll: bool,
    special_mask: bool,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    special_fully_nested: bool,
    /// Whether this one has the cascade on input 2.
    master: bool,
}

impl Controller {
    const fn new(master: bool) -> Self {
        Self {
            lines: 0,
            irr: 0,
            isr: 0,
            imr: 0,
            elcr: 0,
            lowest: 7,
            vector_base: 0,
            expect: Expect::Mask,
            needs_icw4: false,
            single: false,
            read_in_service: false,
            poll: false,
            special_mask: false,
            auto_eoi: false,
            rotate_on_auto_eoi: false,
            special_fully_nested: false,
            master,
        }
    }

    /// Inputs whose request follows the level: those of the ELCR, and the cascade.
    const fn level_inputs(&self) -> u8 {
        if self.master { self.elcr | 1 << CASCADE } else { self.elcr }
    }

    /// Drives an input. An edge stays requested until it is acknowledged, also when the line falls before: devices here
    /// may pulse their line, which no real device of an AT does for less than an acknowledge takes.
    fn set_line(&mut self, input: u8, level: bool) {
        let bit = 1 << (input & 7);
        let was = self.lines & bit != 0;
        if level {
            self.lines |= bit;
            if !was || self.level_inputs() & bit != 0 {
                self.irr |= bit;
            }
        } else {
            self.lines &= !bit;
            if self.level_inputs() & bit != 0 {
                self.irr &= !bit;
            }
        }
    }

    /// Distance from the highest priority of the best input in `set`, 8 if it is empty.
    const fn priority(&self, set: u8) -> u32 {
        set.rotate_right((self.lowest as u32 + 1) & 7).trailing_zeros()
    }

    const fn input_of(&self, priority: u32) -> u8 {
        (self.lowest + 1 + priority as u8) & 7
    }

    /// The input that asks the processor now, if any.
    const fn request(&self) -> Option<u8> {
        let mut blocking = self.isr;
        if self.special_mask {
            blocking &= !self.imr;
        }
        if self.special_fully_nested && self.master {
            // § "The Special Fully Nested Mode": the slave is not locked out by its own interrupt in service.
            blocking &= !(1 << CASCADE);
        }
        let priority = self.priority(self.irr & !self.imr);
        if priority < self.priority(blocking) { Some(self.input_of(priority)) } else { None }
    }

    fn acknowledge(&mut self, input: u8) {
        let bit = 1 << input;
        if self.auto_eoi {
            if self.rotate_on_auto_eoi {
                self.lowest = input;
            }
        } else {
            self.isr |= bit;
        }
        if self.level_inputs() & bit == 0 {
            self.irr &= !bit;
        }
    }

    fn write(&mut self, register: Register, value: u8) {
        match (register, self.expect) {
            (Register::Command, _) if value & 0x10 != 0 => self.initialize(Icw1::from(value)),
            (Register::Command, _) if value & 0x08 != 0 => self.operate(Ocw3::from(value)),
            (Register::Command, _) => self.end_or_rotate(Ocw2::from(value)),
            (Register::Data, Expect::Mask) => self.imr = value,
            (Register::Data, Expect::VectorBase) => {
                self.vector_base = value & 0xf8;
                self.expect = match (self.single, self.needs_icw4) {
                    (false, _) => Expect::Cascade,
                    (true, true) => Expect::Modes,
                    (true, false) => Expect::Mask,
                };
            }
            // The board wires the cascade; what ICW3 says of it changes nothing.
            (Register::Data, Expect::Cascade) => {
                self.expect = if self.needs_icw4 { Expect::Modes } else { Expect::Mask };
            }
            (Register::Data, Expect::Modes) => {
                let icw4 = Icw4::from(value);
                self.auto_eoi = icw4.auto_eoi();
                self.special_fully_nested = icw4.special_fully_nested();
                self.expect = Expect::Mask;
            }
        }
    }

    /// § "Initialization Command Words": the edge sense is reset, the mask cleared, input 7 gets the lowest priority.
    fn initialize(&mut self, icw1: Icw1) {
        *self = Self {
            lines: self.lines,
            irr: self.lines & self.level_inputs(),
            elcr: self.elcr,
            vector_base: self.vector_base,
            expect: Expect::VectorBase,
            needs_icw4: icw1.ic4(),
            single: icw1.single(),
            ..Self::new(self.master)
        };
    }

    fn operate(&mut self, ocw3: Ocw3) {
        if ocw3.enable_special_mask() {
            self.special_mask = ocw3.special_mask();
        }
        self.poll = ocw3.poll();
        if ocw3.read_register() {
            self.read_in_service = ocw3.read_in_service();
        }
    }

    fn end_or_rotate(&mut self, ocw2: Ocw2) {
        let input = match (ocw2.eoi(), ocw2.specific_level()) {
            (true, false) => {
                // Special mask mode: masked levels in service are not touched by a non-specific EOI.
                let served = if self.special_mask { self.isr & !self.imr } else { self.isr };
                match self.priority(served) {
                    8.. => return,
                    priority => self.input_of(priority),
                }
            }
            (false, false) => {
                self.rotate_on_auto_eoi = ocw2.rotate();
                return;
            }
            (_, true) => ocw2.level(),
        };
        if ocw2.eoi() {
            self.isr &= !(1 << input);
        }
        if ocw2.rotate() {
            self.lowest = input;
        }
    }

    fn read(&mut self, register: Register) -> u8 {
        if self.poll {
            // § "Poll Command": the read is the acknowledge.
            self.poll = false;
            return match self.request() {
                Some(input) => {
                    self.acknowledge(input);
                    0x80 | input
                }
                None => 0,
            };
        }
        match register {
            Register::Data => self.imr,
            Register::Command if self.read_in_service => self.isr,
            Register::Command => self.irr,
        }
    }
}

/// Which controller of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Inputs 0 to 7, at port 0x20.
    Master,
    /// Inputs 8 to 15, at port 0xa0.
    Slave,
}

/// The pair alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    master: Controller,
    slave: Controller,
}

impl Default for Pair {
    fn default() -> Self {
        Self::new()
    }
}

impl Pair {
    /// A pair after power-on: nothing masked, nothing requested, vectors at 0.
    pub const fn new() -> Self {
        Self { master: Controller::new(true), slave: Controller::new(false) }
    }

    fn unit(&mut self, unit: Unit) -> &mut Controller {
        match unit {
            Unit::Master => &mut self.master,
            Unit::Slave => &mut self.slave,
        }
    }

    fn settle(&mut self) {
        let asks = self.slave.request().is_some();
        self.master.set_line(CASCADE, asks);
    }

    /// Drives input `pin`, 0 to 15; input 2 is the cascade and not to be driven.
    pub fn set_level(&mut self, pin: u32, level: bool) {
        match pin {
            0..8 if pin != u32::from(CASCADE) => self.master.set_line(pin as u8, level),
            8..16 => {
                self.slave.set_line(pin as u8 - 8, level);
                self.settle();
            }
            _ => {}
        }
    }

    /// Whether an edge at input `pin` waits, and not behind a mask.
    pub const fn is_requested(&self, pin: u32) -> bool {
        let (unit, bit) = match pin {
            0..8 => (&self.master, 1 << pin),
            8..16 => (&self.slave, 1 << (pin - 8)),
            _ => return false,
        };
        unit.irr & !unit.imr & !unit.level_inputs() & bit != 0
    }

    /// The level of INTR.
    pub const fn pending(&self) -> bool {
        self.master.request().is_some()
    }

    /// The processor's acknowledge cycle: the vector. A request that went away meanwhile is input 7 (§ "Level Triggered
    /// Mode": the default IR7), of either controller.
    pub fn acknowledge(&mut self) -> u8 {
        let Some(input) = self.master.request() else { return self.master.vector_base | 7 };
        self.master.acknowledge(input);
        if input != CASCADE {
            return self.master.vector_base | input;
        }
        let input = match self.slave.request() {
            Some(input) => {
                self.slave.acknowledge(input);
                input
            }
            None => 7,
        };
        self.settle();
        self.slave.vector_base | input
    }

    /// A write to a controller's port.
    pub fn write(&mut self, unit: Unit, register: Register, value: u8) {
        self.unit(unit).write(register, value);
        self.settle();
    }

    /// A read of a controller's port; with side effects in poll mode only.
    pub fn read(&mut self, unit: Unit, register: Register) -> u8 {
        let value = self.unit(unit).read(register);
        self.settle();
        value
    }

    /// The edge/level register of a controller.
    pub fn edge_level(&mut self, unit: Unit) -> u8 {
        self.unit(unit).elcr
    }

    /// Sets the edge/level register; inputs 0, 1, 2, 8 and 13 are always edge-triggered.
    pub fn set_edge_level(&mut self, unit: Unit, value: u8) {
        let mask = match unit {
            Unit::Master => 0xf8,
            Unit::Slave => 0xde,
        };
        let controller = self.unit(unit);
        let changed = controller.elcr ^ value & mask;
        controller.elcr = value & mask;
        // An input that became level-triggered requests what its line says.
        let level = changed & controller.elcr;
        controller.irr = controller.irr & !level | controller.lines & level;
        self.settle();
    }
}

mod state {
    use super::{Controller, Expect, Pair};

    saved_state!(Controller => ControllerV1 {
        lines: u8, irr: u8, isr: u8, imr: u8, elcr: u8, lowest: u8, vector_base: u8, expect: Expect, needs_icw4: bool,
        single: bool, read_in_service: bool, poll: bool, special_mask: bool, auto_eoi: bool, rotate_on_auto_eoi: bool,
        special_fully_nested: bool, master: bool,
    } if |s| s.lowest < 8 && s.vector_base & 7 == 0);

    /// Saved form of [`Pair`].
    #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    pub struct PairV1 {
        /// The controller of inputs 0 to 7.
        pub master: ControllerV1,
        /// The controller of inputs 8 to 15.
        pub slave: ControllerV1,
    }

    impl rhea_core::SaveState for Pair {
        type State = PairV1;

        fn save(&self) -> PairV1 {
            let Self { master, slave } = self;
            PairV1 { master: master.save(), slave: slave.save() }
        }

        fn load(state: PairV1) -> Result<Self, rhea_core::LoadError> {
            let PairV1 { master, slave } = state;
            if !master.master || slave.master {
                return Err(rhea_core::LoadError::invalid("Pair", "the wrong controller has the cascade"));
            }
            Ok(Self { master: Controller::load(master)?, slave: Controller::load(slave)? })
        }
    }
}

/// The pair at its ISA ports. Its inputs are pins 0 to 15 of an [`InterruptSink`]; its output is INTR.
#[derive(rhea_core::object::Object)]
#[object(type = "isa-i8259", parent = "isa-device")]
pub struct Pic {
    /// The pair, and the level that INTR has.
    inner: Mutex<(Pair, bool)>,
    intr: InterruptLine,
}

impl Pic {
    /// A pair that drives `intr`.
    pub fn new(intr: InterruptLine) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::new((Pair::new(), false)), intr })
    }

    /// Puts the ports 0x20, 0xa0 and 0x4d0 into `ports`.
    pub fn map(self: &Arc<Self>, ports: &PortSpace) {
        let unit = |unit| Arc::new(UnitPorts { pic: Arc::clone(self), unit });
        ports.map(0x20, 2, unit(Unit::Master));
        ports.map(0xa0, 2, unit(Unit::Slave));
        ports.map(0x4d0, 2, Arc::new(EdgeLevelPorts(Arc::clone(self))));
    }

    /// Whether INTR is asserted.
    pub fn pending(&self) -> bool {
        self.inner.lock().0.pending()
    }

    /// The processor takes the interrupt: its vector.
    pub fn acknowledge(&self) -> u8 {
        self.with(Pair::acknowledge)
    }

    /// As [`acknowledge`](Self::acknowledge), if INTR is asserted.
    pub fn acknowledge_pending(&self) -> Option<u8> {
        self.with(|chip| chip.pending().then(|| chip.acknowledge()))
    }

    fn with<T>(&self, change: impl FnOnce(&mut Pair) -> T) -> T {
        let mut inner = self.inner.lock();
        let (chip, intr) = &mut *inner;
        let result = change(chip);
        let pending = chip.pending();
        if *intr != pending {
            *intr = pending;
            self.intr.set(pending);
        }
        result
    }
}

impl InterruptSink for Pic {
    fn set_level(&self, pin: u32, level: bool) {
        trace!(PIC_SET_IRQ, "irq {pin} level {}", u8::from(level));
        self.with(|chip| chip.set_level(pin, level));
    }

    fn is_pending(&self, pin: u32) -> bool {
        self.inner.lock().0.is_requested(pin)
    }
}

impl Device for Pic {
    fn reset(&self) {
        self.with(|chip| *chip = Pair::new());
    }
}

impl Saveable for Pic {
    type Chip = Pair;
    const KIND: &'static str = "isa-i8259";

    fn save(&self) -> PairV1 {
        self.inner.lock().0.save()
    }

    fn restore(&self, state: PairV1) -> Result<(), LoadError> {
        let pair = Pair::load(state)?;
        self.with(|chip| *chip = pair);
        Ok(())
    }
}

struct UnitPorts {
    pic: Arc<Pic>,
    unit: Unit,
}

impl PortIo for UnitPorts {
    fn name(&self) -> &str {
        "pic"
    }

    fn read(&self, offset: u16, _: Width) -> u32 {
        let value = self.pic.with(|chip| chip.read(self.unit, Register::at(offset)));
        trace!(PIC_IOPORT_READ, "{:?} addr 0x{offset:x} val 0x{value:x}", self.unit);
        value.into()
    }

    fn write(&self, offset: u16, _: Width, value: u32) {
        trace!(PIC_IOPORT_WRITE, "{:?} addr 0x{offset:x} val 0x{value:x}", self.unit);
        self.pic.with(|chip| chip.write(self.unit, Register::at(offset), value as u8));
    }
}

struct EdgeLevelPorts(Arc<Pic>);

impl EdgeLevelPorts {
    const fn unit(offset: u16) -> Unit {
        if offset == 0 { Unit::Master } else { Unit::Slave }
    }
}

impl PortIo for EdgeLevelPorts {
    fn name(&self) -> &str {
        "elcr"
    }

    fn read(&self, offset: u16, _: Width) -> u32 {
        self.0.inner.lock().0.edge_level(Self::unit(offset)).into()
    }

    fn write(&self, offset: u16, _: Width, value: u32) {
        self.0.with(|chip| chip.set_edge_level(Self::unit(offset), value as u8));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ready() -> Pair {
        let mut pair = Pair::new();
        for (unit, base, icw3) in [(Unit::Master, 0x30, 4), (Unit::Slave, 0x38, 2)] {
            pair.write(unit, Register::Command, 0x11);
            for value in [base, icw3, 1] {
                pair.write(unit, Register::Data, value);
            }
        }
        pair
    }

    fn eoi(pair: &mut Pair, unit: Unit) {
        pair.write(unit, Register::Command, 0x20);
    }

    #[test]
    fn the_highest_priority_goes_first_and_blocks_lower_ones_until_its_eoi() {
        let mut pair = ready();
        pair.set_level(5, true);
        pair.set_level(1, true);
        assert_eq!(pair.acknowledge(), 0x31);
        assert!(!pair.pending());
        eoi(&mut pair, Unit::Master);
        assert!(pair.pending());
        assert_eq!(pair.acknowledge(), 0x35);
    }

    #[test]
    fn an_edge_is_requested_once_and_a_level_as_long_as_it_stands() {
        let mut pair = ready();
        pair.set_edge_level(Unit::Slave, 0xff);
        assert_eq!(pair.edge_level(Unit::Slave), 0xde);
        pair.set_level(3, true);
        pair.set_level(11, true);
        // Input 2 carries the slave and stands before input 3.
        assert_eq!(pair.acknowledge(), 0x3b);
        eoi(&mut pair, Unit::Slave);
        eoi(&mut pair, Unit::Master);
        assert_eq!(pair.acknowledge(), 0x3b);
        pair.set_level(11, false);
        eoi(&mut pair, Unit::Slave);
        eoi(&mut pair, Unit::Master);
        assert_eq!(pair.acknowledge(), 0x33);
        eoi(&mut pair, Unit::Master);
        assert!(!pair.pending());
    }

    #[test]
    fn a_request_that_went_away_is_input_7_and_not_in_service() {
        let mut pair = ready();
        pair.set_level(4, true);
        pair.write(Unit::Master, Register::Data, 0xff);
        assert_eq!(pair.acknowledge(), 0x37);
        pair.write(Unit::Master, Register::Command, 0x0b);
        assert_eq!(pair.read(Unit::Master, Register::Command), 0);
    }

    #[test]
    fn rotation_on_a_specific_eoi_makes_that_input_the_lowest() {
        let mut pair = ready();
        pair.set_level(0, true);
        pair.set_level(1, true);
        assert_eq!(pair.acknowledge(), 0x30);
        pair.write(Unit::Master, Register::Command, 0xe0);
        pair.set_level(0, false);
        pair.set_level(0, true);
        assert_eq!(pair.acknowledge(), 0x31);
    }

    #[test]
    fn special_mask_mode_lets_lower_priorities_through_a_masked_one_in_service() {
        let mut pair = ready();
        pair.set_level(1, true);
        pair.acknowledge();
        pair.set_level(6, true);
        assert!(!pair.pending());
        pair.write(Unit::Master, Register::Command, 0x68);
        pair.write(Unit::Master, Register::Data, 0x02);
        assert_eq!(pair.acknowledge(), 0x36);
        // The non-specific EOI leaves the masked one alone.
        eoi(&mut pair, Unit::Master);
        pair.write(Unit::Master, Register::Command, 0x0b);
        assert_eq!(pair.read(Unit::Master, Register::Command), 0x02);
    }

    #[test]
    fn special_fully_nested_mode_nests_the_slave() {
        let mut pair = ready();
        pair.set_level(12, true);
        pair.acknowledge();
        pair.set_level(8, true);
        assert!(!pair.pending());
        let mut pair = ready();
        pair.write(Unit::Master, Register::Command, 0x11);
        for value in [0x30, 4, 0x11] {
            pair.write(Unit::Master, Register::Data, value);
        }
        pair.set_level(12, true);
        pair.acknowledge();
        pair.set_level(8, true);
        assert_eq!(pair.acknowledge(), 0x38);
    }

    #[test]
    fn auto_eoi_leaves_nothing_in_service() {
        let mut pair = ready();
        pair.write(Unit::Master, Register::Command, 0x11);
        for value in [0x30, 4, 3] {
            pair.write(Unit::Master, Register::Data, value);
        }
        pair.set_level(0, true);
        pair.set_level(1, true);
        assert_eq!(pair.acknowledge(), 0x30);
        assert_eq!(pair.acknowledge(), 0x31);
    }

    #[test]
    fn a_poll_acknowledges() {
        let mut pair = ready();
        pair.set_level(6, true);
        pair.write(Unit::Master, Register::Command, 0x0c);
        assert_eq!(pair.read(Unit::Master, Register::Command), 0x86);
        assert!(!pair.pending());
        pair.write(Unit::Master, Register::Command, 0x0c);
        assert_eq!(pair.read(Unit::Master, Register::Command), 0);
        assert_eq!(pair.read(Unit::Master, Register::Command), 0);
    }

    #[test]
    fn reset_equals_new() {
        let pic = Pic::new(InterruptLine::unconnected());
        let ports = PortSpace::new();
        pic.map(&ports);
        ports.write(0x20, Width::Byte, 0x11);
        ports.write(0x21, Width::Byte, 0x48);
        ports.write(0x4d1, Width::Byte, 0xff);
        pic.set_level(12, true);
        pic.reset();
        assert_eq!(pic.inner.lock().0, Pair::new());
    }

    proptest! {
        #[test]
        fn anything_written_keeps_the_pair_whole(ops in prop::collection::vec((0u8..5, any::<u8>()), 0..200)) {
            let mut pair = Pair::new();
            for (op, value) in ops {
                let unit = if value & 1 == 0 { Unit::Master } else { Unit::Slave };
                let register = Register::at(value.into());
                match op {
                    0 => pair.write(unit, Register::at(u16::from(value >> 1)), value),
                    1 => { pair.read(unit, register); }
                    2 => pair.set_level(u32::from(value & 31), value & 0x80 != 0),
                    3 => { pair.acknowledge(); }
                    _ => pair.set_edge_level(unit, value),
                }
                prop_assert_eq!(&Pair::load(pair.save()).unwrap(), &pair);
            }
        }
    }
}
