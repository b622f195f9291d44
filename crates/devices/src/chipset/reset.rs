//! Ways to reset the PC, and its A20 gate: the reset control register (port 0xcf9) and system control port A (0x92).
//!
//! Source: Intel 290550, "82371SB (PIIX3)", §2.5.4.1 (reset control); IBM PS/2 Hardware Interface Technical Reference,
//! "System Control Port A".

use std::sync::Arc;

use bitfield_struct::bitfield;
use parking_lot::Mutex;
use rhea_core::{Device, LoadError, PortIo, PortSpace, SaveState, Width};

pub use state::ResetV1;

use crate::Saveable;

/// Port of the reset control register.
const RESET_CONTROL: u16 = 0xcf9;
/// System control port A.
const CONTROL_A: u16 = 0x92;

/// Reset control register.
#[bitfield(u8)]
struct ResetControl {
    #[bits(1)]
    __: u8,
    /// Of the whole system, not of the processor alone.
    system: bool,
    /// Its rising edge resets.
    reset: bool,
    #[bits(5)]
    __: u8,
}

/// System control port A.
#[bitfield(u8)]
struct ControlA {
    /// Its rising edge resets the processor.
    fast_reset: bool,
    a20: bool,
    /// Kept, without effect: a lock of the password memory, and lamps.
    #[bits(6)]
    other: u8,
}

/// What a write asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Nothing.
    Nothing,
    /// A reset.
    Reset,
    /// Address line 20 as given.
    A20(bool),
}

/// The two registers alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Registers {
    control: u8,
    control_a: u8,
}

impl Default for Registers {
    fn default() -> Self {
        Self::new()
    }
}

impl Registers {
    /// After power-on, with the A20 gate open.
    pub const fn new() -> Self {
        Self { control: 0, control_a: ControlA::new().with_a20(true).0 }
    }

    /// A write to the reset control register.
    pub fn write_control(&mut self, value: u8) -> Request {
        let was = ResetControl::from(self.control).reset();
        let control = ResetControl::from(value);
        self.control = ResetControl::new().with_system(control.system()).with_reset(control.reset()).into();
        if control.reset() && !was { Request::Reset } else { Request::Nothing }
    }

    /// A write to system control port A.
    pub fn write_control_a(&mut self, value: u8) -> Request {
        let (was, is) = (ControlA::from(self.control_a), ControlA::from(value));
        self.control_a = value;
        if is.fast_reset() && !was.fast_reset() {
            Request::Reset
        } else if is.a20() != was.a20() {
            Request::A20(is.a20())
        } else {
            Request::Nothing
        }
    }
}

mod state {
    use super::Registers;

    saved_state!(Registers => ResetV1 { control: u8, control_a: u8 } if |s| s.control & !6 == 0);
}

type OnReset = Arc<dyn Fn() + Send + Sync>;
type OnA20 = Arc<dyn Fn(bool) + Send + Sync>;

/// The two registers at their ports.
#[derive(rhea_core::object::Object)]
#[object(type = "port92", parent = "isa-device")]
pub struct ResetPorts {
    chip: Mutex<Registers>,
    on_reset: OnReset,
    on_a20: OnA20,
}

impl ResetPorts {
    /// Ports that call `on_reset` when the guest asks for a reset, and `on_a20` when it moves the A20 gate. Both are
    /// called from the processor's thread, without a lock.
    pub fn new(on_reset: OnReset, on_a20: OnA20) -> Arc<Self> {
        Arc::new(Self { chip: Mutex::new(Registers::new()), on_reset, on_a20 })
    }

    /// Puts the ports 0xcf9 and 0x92 into `ports`.
    pub fn map(self: &Arc<Self>, ports: &PortSpace) {
        ports.map(RESET_CONTROL, 1, Arc::new(ControlPort(Arc::clone(self))));
        ports.map(CONTROL_A, 1, Arc::new(ControlAPort(Arc::clone(self))));
    }

    fn carry_out(&self, request: Request) {
        match request {
            Request::Nothing => {}
            Request::Reset => (self.on_reset)(),
            Request::A20(open) => (self.on_a20)(open),
        }
    }
}

impl Device for ResetPorts {
    /// The gate itself is the board's to reset.
    fn reset(&self) {
        *self.chip.lock() = Registers::new();
    }
}

impl Saveable for ResetPorts {
    type Chip = Registers;
    const KIND: &'static str = "port92";

    fn save(&self) -> ResetV1 {
        self.chip.lock().save()
    }

    fn restore(&self, state: ResetV1) -> Result<(), LoadError> {
        *self.chip.lock() = Registers::load(state)?;
        Ok(())
    }
}

struct ControlPort(Arc<ResetPorts>);

impl PortIo for ControlPort {
    fn name(&self) -> &str {
        "piix-reset-control"
    }

    fn read(&self, _: u16, _: Width) -> u32 {
        self.0.chip.lock().control.into()
    }

    fn write(&self, _: u16, _: Width, value: u32) {
        let request = self.0.chip.lock().write_control(value as u8);
        self.0.carry_out(request);
    }
}

struct ControlAPort(Arc<ResetPorts>);

impl PortIo for ControlAPort {
    fn name(&self) -> &str {
        "port92"
    }

    fn read(&self, _: u16, _: Width) -> u32 {
        self.0.chip.lock().control_a.into()
    }

    fn write(&self, _: u16, _: Width, value: u32) {
        let request = self.0.chip.lock().write_control_a(value as u8);
        self.0.carry_out(request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> (PortSpace, Arc<ResetPorts>, Arc<Mutex<Vec<&'static str>>>) {
        let log = Arc::new(Mutex::new(Vec::new()));
        let (on_reset, on_a20) = (Arc::clone(&log), Arc::clone(&log));
        let device = ResetPorts::new(
            Arc::new(move || on_reset.lock().push("reset")),
            Arc::new(move |open| on_a20.lock().push(if open { "open" } else { "closed" })),
        );
        let ports = PortSpace::new();
        device.map(&ports);
        (ports, device, log)
    }

    #[test]
    fn the_rising_edge_of_the_reset_bit_resets_once() {
        let (ports, device, log) = board();
        ports.write(0xcf9, Width::Byte, 2);
        assert!(log.lock().is_empty());
        ports.write(0xcf9, Width::Byte, 0xf7);
        ports.write(0xcf9, Width::Byte, 6);
        assert_eq!((ports.read(0xcf9, Width::Byte), log.lock().len()), (6, 1));
        ports.write(0xcf9, Width::Byte, 0);
        ports.write(0xcf9, Width::Byte, 4);
        assert_eq!(log.lock().len(), 2);
        device.reset();
        assert_eq!(ports.read(0xcf9, Width::Byte), 0);
    }

    #[test]
    fn port_a_moves_the_gate_and_resets() {
        let (ports, _, log) = board();
        assert_eq!(ports.read(0x92, Width::Byte), 2);
        for value in [2, 0, 0xc0, 2, 3, 3] {
            ports.write(0x92, Width::Byte, value);
        }
        assert_eq!(*log.lock(), ["closed", "open", "reset"]);
    }

    #[test]
    fn a_saved_state_comes_back() {
        let (ports, device, _) = board();
        ports.write(0x92, Width::Byte, 0x40);
        let state = device.save();
        device.reset();
        device.restore(state).unwrap();
        assert_eq!(ports.read(0x92, Width::Byte), 0x40);
        assert!(device.restore(ResetV1 { control: 1, control_a: 0 }).is_err());
    }
}
