//! A serial port: the 16550A UART, whose transmitter takes no time and loses nothing.
//!
//! Source: National Semiconductor PC16550D, "Universal Asynchronous Receiver/Transmitter with FIFOs" (cited as §).

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use bitfield_struct::bitfield;
use parking_lot::Mutex;
use rhea_core::{
    Device, Instant, InterruptLine, LoadError, PortIo, PortSpace, SaveState, Timer, TimerQueue, Width, trace,
};
use serde::{Deserialize, Serialize};

pub use state::UartV1;

use super::CharSink;
use crate::Saveable;

/// Characters that the receiver FIFO holds.
const FIFO: usize = 16;

/// Bits a second with a divisor of 1: a crystal of 1.8432 MHz, sixteen clocks a bit.
const BASE_RATE: u64 = 115_200;

/// A register, by offset and divisor latch access bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// Receiver buffer, transmitter holding.
    Data,
    /// Divisor latch, low byte.
    DivisorLow,
    /// Divisor latch, high byte.
    DivisorHigh,
    /// Interrupt enable.
    InterruptEnable,
    /// Interrupt identification, FIFO control.
    InterruptIdentification,
    /// Line control.
    LineControl,
    /// Modem control.
    ModemControl,
    /// Line status.
    LineStatus,
    /// Modem status.
    ModemStatus,
    /// Scratch.
    Scratch,
}

impl Register {
    /// `offset` from the base port, 0 to 7 (§8, table II).
    pub const fn at(offset: u16, divisor_latch: bool) -> Self {
        match (offset & 7, divisor_latch) {
            (0, true) => Self::DivisorLow,
            (1, true) => Self::DivisorHigh,
            (0, false) => Self::Data,
            (1, false) => Self::InterruptEnable,
            (2, _) => Self::InterruptIdentification,
            (3, _) => Self::LineControl,
            (4, _) => Self::ModemControl,
            (5, _) => Self::LineStatus,
            (6, _) => Self::ModemStatus,
            _ => Self::Scratch,
        }
    }
}

/// Interrupt enable register (§8.6).
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct InterruptEnable {
    received: bool,
    transmitter_empty: bool,
    line_status: bool,
    modem_status: bool,
    #[bits(4)]
    __: u8,
}

/// FIFO control register (§8.4).
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct FifoControl {
    enable: bool,
    reset_receiver: bool,
    reset_transmitter: bool,
    dma: bool,
    #[bits(2)]
    __: u8,
    #[bits(2)]
    trigger: u8,
}

/// Line control register (§8.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct LineControl {
    #[bits(2)]
    word_length: u8,
    stop_bits: bool,
    parity: bool,
    even: bool,
    stick: bool,
    set_break: bool,
    divisor_latch: bool,
}

/// Modem control register (§8.7).
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct ModemControl {
    dtr: bool,
    rts: bool,
    out1: bool,
    out2: bool,
    loopback: bool,
    #[bits(3)]
    __: u8,
}

/// Line status register (§8.3).
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct LineStatus {
    data_ready: bool,
    overrun: bool,
    parity_error: bool,
    framing_error: bool,
    break_interrupt: bool,
    holding_empty: bool,
    transmitter_empty: bool,
    fifo_error: bool,
}

/// Modem status register (§8.8): the inputs and whether they changed.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct ModemStatus {
    #[bits(4)]
    changed: u8,
    #[bits(4)]
    inputs: u8,
}

/// CTS, DSR and DCD: somebody is there.
const CONNECTED: u8 = 0b1011;
/// Ring indicator, as an input and as its change bit: only its end is reported.
const RING: u8 = 0b0100;

/// The cause that the interrupt identification register names (§8.5, table IV), most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    LineStatus = 0x6,
    Received = 0x4,
    Timeout = 0xc,
    TransmitterEmpty = 0x2,
    ModemStatus = 0x0,
}

/// A character in the receiver, and whether it is a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    byte: u8,
    is_break: bool,
}

/// What a write asks of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Nothing.
    Nothing,
    /// Transmit a character.
    Byte(u8),
    /// Begin or end a break.
    Break(bool),
}

/// The chip alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Uart {
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    msr: u8,
    scratch: u8,
    divisor: u16,
    overrun: bool,
    /// The break at the head of the FIFO was not reported yet.
    break_pending: bool,
    /// The transmitter became empty and nobody was told.
    empty_pending: bool,
    receiver: VecDeque<Received>,
    /// When characters below the trigger level raise the timeout interrupt.
    timeout_at: Option<Instant>,
    timed_out: bool,
}

impl Default for Uart {
    fn default() -> Self {
        Self::new()
    }
}

impl Uart {
    /// A chip after master reset (§7, table I), at 9600 bits a second.
    pub fn new() -> Self {
        Self {
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            msr: ModemStatus::new().with_inputs(CONNECTED).into(),
            scratch: 0,
            divisor: 12,
            overrun: false,
            break_pending: false,
            empty_pending: false,
            receiver: VecDeque::with_capacity(FIFO),
            timeout_at: None,
            timed_out: false,
        }
    }

    fn enables(&self) -> InterruptEnable {
        self.ier.into()
    }

    fn fifo(&self) -> FifoControl {
        self.fcr.into()
    }

    fn modem_control(&self) -> ModemControl {
        self.mcr.into()
    }

    fn capacity(&self) -> usize {
        if self.fifo().enable() { FIFO } else { 1 }
    }

    fn trigger(&self) -> usize {
        match (self.fifo().enable(), self.fifo().trigger()) {
            (false, _) | (true, 0) => 1,
            (true, 1) => 4,
            (true, 2) => 8,
            (true, _) => 14,
        }
    }

    /// Whether nothing waits in the receiver.
    pub fn is_drained(&self) -> bool {
        self.receiver.is_empty() && !self.modem_control().loopback()
    }

    /// Four times a character on the line (§8.11: the FIFO timeout).
    fn timeout(&self) -> Duration {
        let control = LineControl::from(self.lcr);
        let bits = 7 + u64::from(control.word_length()) + u64::from(control.stop_bits()) + u64::from(control.parity());
        Duration::from_nanos(4 * bits * u64::from(self.divisor.max(1)) * 1_000_000_000 / BASE_RATE)
    }

    /// The receiver changed: the timeout starts anew.
    fn touch(&mut self, now: Instant) {
        self.timed_out = false;
        let waits = self.fifo().enable() && !self.receiver.is_empty();
        self.timeout_at = waits.then(|| now.saturating_add(self.timeout()));
        let head_breaks = self.receiver.front().is_some_and(|head| head.is_break);
        self.break_pending = head_breaks;
    }

    fn push(&mut self, character: Received, now: Instant) {
        if self.receiver.len() < self.capacity() {
            self.receiver.push_back(character);
        } else {
            self.overrun = true;
            if !self.fifo().enable() {
                // §8.3: without FIFOs the new character takes the place of the old one.
                self.receiver.clear();
                self.receiver.push_back(character);
            }
        }
        self.touch(now);
    }

    /// Characters from the line: how many fit. None while the chip is looped back.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) -> usize {
        if self.modem_control().loopback() {
            return 0;
        }
        let room = self.capacity().saturating_sub(self.receiver.len());
        let taken = room.min(bytes.len());
        for &byte in bytes.iter().take(taken) {
            self.push(Received { byte, is_break: false }, now);
        }
        taken
    }

    /// A break on the line: a zero character, marked.
    pub fn receive_break(&mut self, now: Instant) {
        if !self.modem_control().loopback() {
            self.push(Received { byte: 0, is_break: true }, now);
        }
    }

    /// When the timeout interrupt comes: the adapter sets its timer to this.
    pub const fn next_event(&self) -> Option<Instant> {
        self.timeout_at
    }

    /// Lets time pass.
    pub fn advance(&mut self, now: Instant) {
        if self.timeout_at.is_some_and(|at| at <= now) {
            self.timeout_at = None;
            self.timed_out = true;
        }
    }

    fn cause(&self) -> Option<Cause> {
        let enables = self.enables();
        if enables.line_status() && (self.overrun || self.break_pending) {
            Some(Cause::LineStatus)
        } else if enables.received() && self.receiver.len() >= self.trigger() {
            Some(Cause::Received)
        } else if enables.received() && self.timed_out {
            Some(Cause::Timeout)
        } else if enables.transmitter_empty() && self.empty_pending {
            Some(Cause::TransmitterEmpty)
        } else if enables.modem_status() && ModemStatus::from(self.msr).changed() != 0 {
            Some(Cause::ModemStatus)
        } else {
            None
        }
    }

    /// The level of the interrupt line of a PC's port: OUT2 is its gate.
    pub fn interrupt(&self) -> bool {
        self.modem_control().out2() && self.cause().is_some()
    }

    /// A read.
    pub fn read(&mut self, offset: u16, now: Instant) -> u8 {
        self.advance(now);
        match Register::at(offset, LineControl::from(self.lcr).divisor_latch()) {
            Register::Data => {
                let character = self.receiver.pop_front();
                self.touch(now);
                character.map_or(0, |character| character.byte)
            }
            Register::DivisorLow => self.divisor as u8,
            Register::DivisorHigh => (self.divisor >> 8) as u8,
            Register::InterruptEnable => self.ier,
            Register::InterruptIdentification => {
                let cause = self.cause();
                if cause == Some(Cause::TransmitterEmpty) {
                    self.empty_pending = false;
                }
                let fifos = if self.fifo().enable() { 0xc0 } else { 0 };
                fifos | cause.map_or(1, |cause| cause as u8)
            }
            Register::LineControl => self.lcr,
            Register::ModemControl => self.mcr,
            Register::LineStatus => {
                let status = LineStatus::new()
                    .with_data_ready(!self.receiver.is_empty())
                    .with_overrun(self.overrun)
                    .with_framing_error(self.break_pending)
                    .with_break_interrupt(self.break_pending)
                    .with_holding_empty(true)
                    .with_transmitter_empty(true)
                    .with_fifo_error(self.fifo().enable() && self.receiver.iter().any(|character| character.is_break));
                (self.overrun, self.break_pending) = (false, false);
                if let Some(head) = self.receiver.front_mut() {
                    head.is_break = false;
                }
                status.into()
            }
            Register::ModemStatus => {
                let status = self.msr;
                self.msr = ModemStatus::from(status).with_changed(0).into();
                status
            }
            Register::Scratch => self.scratch,
        }
    }

    /// A write.
    pub fn write(&mut self, offset: u16, value: u8, now: Instant) -> Output {
        self.advance(now);
        match Register::at(offset, LineControl::from(self.lcr).divisor_latch()) {
            Register::Data => {
                self.empty_pending = true;
                if !self.modem_control().loopback() {
                    return Output::Byte(value);
                }
                self.push(Received { byte: value, is_break: false }, now);
            }
            Register::DivisorLow => self.divisor = self.divisor & 0xff00 | u16::from(value),
            Register::DivisorHigh => self.divisor = self.divisor & 0xff | u16::from(value) << 8,
            Register::InterruptEnable => {
                let was = self.enables().transmitter_empty();
                self.ier = value & 0xf;
                if !was && self.enables().transmitter_empty() {
                    // The transmitter is empty: whoever enables the interrupt is told at once.
                    self.empty_pending = true;
                }
            }
            Register::InterruptIdentification => self.control_fifos(value.into(), now),
            Register::LineControl => {
                let was = LineControl::from(self.lcr).set_break();
                self.lcr = value;
                let is = LineControl::from(value).set_break();
                if was != is {
                    return Output::Break(is);
                }
            }
            Register::ModemControl => {
                self.mcr = value & 0x1f;
                self.follow_modem_lines();
            }
            // §8.3, §8.8: writes are for factory tests.
            Register::LineStatus | Register::ModemStatus => {}
            Register::Scratch => self.scratch = value,
        }
        Output::Nothing
    }

    fn control_fifos(&mut self, control: FifoControl, now: Instant) {
        let switched = control.enable() != self.fifo().enable();
        self.fcr =
            if control.enable() { control.with_reset_receiver(false).with_reset_transmitter(false).into() } else { 0 };
        if switched || control.enable() && control.reset_receiver() {
            self.receiver.clear();
            self.touch(now);
        }
    }

    /// §8.7: looped back, the modem inputs are the chip's own outputs.
    fn follow_modem_lines(&mut self) {
        let control = self.modem_control();
        let inputs = if control.loopback() {
            u8::from(control.rts())
                | u8::from(control.dtr()) << 1
                | u8::from(control.out1()) << 2
                | u8::from(control.out2()) << 3
        } else {
            CONNECTED
        };
        let old = ModemStatus::from(self.msr);
        let differ = old.inputs() ^ inputs;
        let changed = differ & !RING | differ & old.inputs() & RING;
        self.msr = ModemStatus::new().with_inputs(inputs).with_changed(old.changed() | changed).into();
    }
}

mod state {
    use std::collections::VecDeque;

    use rhea_core::Instant;

    use super::{FIFO, Received, Uart};

    saved_state!(Uart => UartV1 {
        ier: u8, fcr: u8, lcr: u8, mcr: u8, msr: u8, scratch: u8, divisor: u16, overrun: bool, break_pending: bool,
        empty_pending: bool, receiver: VecDeque<Received>, timeout_at: Option<Instant>, timed_out: bool,
    } if |s| s.ier < 0x10 && s.fcr & 0x06 == 0 && s.mcr < 0x20
        && s.receiver.len() <= if s.fcr & 1 != 0 { FIFO } else { 1 });
}

struct Inner {
    chip: Uart,
    /// The host was refused characters and waits for room.
    refused: bool,
    armed: Option<Instant>,
}

/// A serial port: where it is, and what it is connected to.
#[derive(Clone, Debug, rhea_core::object::Object)]
#[object(type = "isa-serial", parent = "isa-device", settings)]
pub struct SerialSettings {
    /// Its number, 0 to 3, from which ports and interrupt follow; the next one if not given.
    #[property(default = SerialSettings::NEXT)]
    pub index: u32,
    /// First of the eight I/O ports; as usual for its number if not given.
    #[property(default = SerialSettings::USUAL)]
    pub iobase: u32,
    /// ISA interrupt; as usual for its number if not given.
    #[property(default = SerialSettings::USUAL)]
    pub irq: u32,
    /// Id of the character backend.
    #[property]
    pub chardev: Option<String>,
}

impl SerialSettings {
    /// The number after that of the last port.
    pub const NEXT: u32 = u32::MAX;
    /// What is usual for the port's number.
    pub const USUAL: u32 = u32::MAX;
}

/// A serial port at its eight ISA ports.
pub struct Serial {
    inner: Mutex<Inner>,
    line: InterruptLine,
    timer: Timer,
    sink: Arc<dyn CharSink>,
    room: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Serial {
    /// A port that interrupts on `line` and sends to `sink`.
    pub fn new(timers: &Arc<TimerQueue>, line: InterruptLine, sink: Arc<dyn CharSink>) -> Arc<Self> {
        Arc::new_cyclic(|weak: &Weak<Self>| {
            let weak = Weak::clone(weak);
            let timer = timers.timer(move |now| {
                if let Some(serial) = weak.upgrade() {
                    serial.with(|chip, _| chip.advance(now));
                }
            });
            let inner = Mutex::new(Inner { chip: Uart::new(), refused: false, armed: None });
            Self { inner, line, timer, sink, room: OnceLock::new() }
        })
    }

    /// Puts the port at `base` (0x3f8 for the first one).
    pub fn map(self: &Arc<Self>, ports: &PortSpace, base: u16) {
        ports.map(base, 8, Arc::clone(self) as Arc<dyn PortIo>);
    }

    /// What to call when there is room again after [`receive`](Self::receive) took less than it was given. Called from
    /// the thread that made room, without the port's lock. Set once.
    pub fn on_room(&self, callback: Box<dyn Fn() + Send + Sync>) {
        let _ = self.room.set(callback);
    }

    /// Characters for the guest: how many the port took. The rest is to be offered again when there is room.
    pub fn receive(&self, bytes: &[u8]) -> usize {
        let now = self.timer.now();
        let mut inner = self.inner.lock();
        let taken = inner.chip.receive(bytes, now);
        inner.refused |= taken < bytes.len();
        self.drive(&mut inner);
        taken
    }

    /// A break from the host's side.
    pub fn break_received(&self) {
        let now = self.timer.now();
        self.with(|chip, _| chip.receive_break(now));
    }

    fn with<T>(&self, change: impl FnOnce(&mut Uart, Instant) -> T) -> T {
        let now = self.timer.now();
        let mut inner = self.inner.lock();
        let result = change(&mut inner.chip, now);
        self.drive(&mut inner);
        let room = inner.refused && inner.chip.is_drained();
        if room {
            inner.refused = false;
        }
        drop(inner);
        if room && let Some(callback) = self.room.get() {
            callback();
        }
        result
    }

    fn drive(&self, inner: &mut Inner) {
        self.line.set(inner.chip.interrupt());
        let event = inner.chip.next_event();
        if inner.armed != event {
            inner.armed = event;
            self.timer.set_or_cancel(event);
        }
    }
}

impl PortIo for Serial {
    fn name(&self) -> &str {
        "serial"
    }

    fn read(&self, offset: u16, _: Width) -> u32 {
        let value = self.with(|chip, now| chip.read(offset, now));
        trace!(SERIAL_READ, "read addr 0x{offset:02x} val 0x{value:02x}");
        value.into()
    }

    fn write(&self, offset: u16, _: Width, value: u32) {
        trace!(SERIAL_WRITE, "write addr 0x{offset:02x} val 0x{value:02x}");
        match self.with(|chip, now| chip.write(offset, value as u8, now)) {
            Output::Nothing => {}
            Output::Byte(byte) => self.sink.write(&[byte]),
            Output::Break(on) => self.sink.set_break(on),
        }
    }
}

impl Device for Serial {
    fn reset(&self) {
        self.with(|chip, _| *chip = Uart::new());
    }
}

impl Saveable for Serial {
    type Chip = Uart;
    const KIND: &'static str = "isa-serial";

    fn save(&self) -> UartV1 {
        self.inner.lock().chip.save()
    }

    fn restore(&self, state: UartV1) -> Result<(), LoadError> {
        let uart = Uart::load(state)?;
        self.with(|chip, _| *chip = uart);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rhea_core::Clock;

    use super::*;

    const NOW: Instant = Instant::ZERO;

    fn chip(writes: &[(u16, u8)]) -> Uart {
        let mut chip = Uart::new();
        for &(offset, value) in writes {
            chip.write(offset, value, NOW);
        }
        chip
    }

    #[test]
    fn the_transmitter_is_always_empty_and_says_so_once_a_write() {
        let mut chip = chip(&[(4, 8), (1, 2)]);
        assert!(chip.interrupt());
        assert_eq!(chip.read(2, NOW), 2);
        assert!(!chip.interrupt());
        assert_eq!(chip.read(2, NOW), 1);
        assert_eq!(chip.write(0, b'x', NOW), Output::Byte(b'x'));
        assert!(chip.interrupt());
        assert_eq!(chip.read(5, NOW), 0x60);
    }

    #[test]
    fn the_fifo_interrupts_at_its_trigger_and_below_it_after_four_characters_time() {
        let mut chip = chip(&[(3, 3), (4, 8), (1, 1), (2, 0x81)]);
        assert_eq!(chip.receive(&[1; 7], NOW), 7);
        assert!(!chip.interrupt());
        assert_eq!(chip.receive(&[2; 1], NOW), 1);
        assert_eq!(chip.read(2, NOW), 0xc4);
        chip.read(0, NOW);
        assert!(!chip.interrupt());
        // 40 bits at 9600 a second.
        let due = chip.next_event().unwrap();
        assert_eq!(due.as_nanos(), 4_166_666);
        chip.advance(due);
        assert_eq!(chip.read(2, due), 0xcc);
        chip.read(0, due);
        assert_eq!(chip.read(2, due), 0xc1);
    }

    #[test]
    fn what_does_not_fit_stays_with_the_host() {
        let mut chip = chip(&[(2, 1)]);
        assert_eq!(chip.receive(&[0; 40], NOW), 16);
        assert_eq!(chip.receive(&[0; 40], NOW), 0);
        assert_eq!(chip.read(5, NOW), 0x61);
        chip.write(2, 0, NOW);
        assert_eq!(chip.receive(b"ab", NOW), 1);
        assert_eq!(chip.read(0, NOW), b'a');
    }

    #[test]
    fn looped_back_the_chip_hears_itself_and_nobody_else() {
        let mut chip = chip(&[(4, 0x1f), (0, b'q')]);
        assert_eq!(chip.receive(b"z", NOW), 0);
        assert_eq!(chip.read(0, NOW), b'q');
        assert_eq!(chip.read(6, NOW) & 0xf0, 0xf0);
        chip.write(4, 0x12, NOW);
        assert_eq!(chip.read(6, NOW), 0b0001_1110);
        assert_eq!(chip.write(0, 1, NOW), Output::Nothing);
        chip.write(0, 2, NOW);
        assert_eq!(chip.read(5, NOW) & 3, 3);
        assert_eq!(chip.read(0, NOW), 2);
    }

    #[test]
    fn a_break_is_a_marked_zero_and_a_line_status_interrupt() {
        let mut chip = chip(&[(4, 8), (1, 5), (2, 1)]);
        chip.receive(b"a", NOW);
        chip.receive_break(NOW);
        assert_eq!(chip.read(2, NOW), 0xc4);
        assert_eq!(chip.read(5, NOW), 0xe1);
        chip.read(0, NOW);
        assert_eq!(chip.read(2, NOW), 0xc6);
        assert_eq!(chip.read(5, NOW), 0xf9);
        assert_eq!((chip.read(5, NOW), chip.read(0, NOW)), (0x61, 0));
    }

    #[test]
    fn out2_gates_the_interrupt() {
        let mut chip = chip(&[(1, 2)]);
        assert!(!chip.interrupt());
        chip.write(4, 8, NOW);
        assert!(chip.interrupt());
    }

    #[test]
    fn the_divisor_latch_hides_data_and_enables() {
        let mut chip = chip(&[(3, 0x80), (0, 1), (1, 2), (3, 3), (1, 1), (7, 0x5a)]);
        assert_eq!((chip.read(1, NOW), chip.read(7, NOW)), (1, 0x5a));
        chip.write(3, 0x83, NOW);
        assert_eq!((chip.read(0, NOW), chip.read(1, NOW)), (1, 2));
    }

    #[derive(Default)]
    struct Sent(Mutex<Vec<u8>>);

    impl CharSink for Sent {
        fn write(&self, bytes: &[u8]) {
            self.0.lock().extend(bytes);
        }
    }

    #[test]
    fn room_is_reported_when_the_guest_has_read_what_was_there() {
        let timers = TimerQueue::new(Clock::new());
        let sent = Arc::new(Sent::default());
        let serial = Serial::new(&timers, InterruptLine::unconnected(), Arc::clone(&sent) as _);
        let ports = PortSpace::new();
        serial.map(&ports, 0x3f8);
        let calls = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&calls);
        serial.on_room(Box::new(move || *counter.lock() += 1));
        assert_eq!(serial.receive(b"hi"), 1);
        assert_eq!(ports.read(0x3f8, Width::Byte), u32::from(b'h'));
        assert_eq!(*calls.lock(), 1);
        ports.read(0x3f8, Width::Byte);
        assert_eq!(*calls.lock(), 1);
        ports.write(0x3f8, Width::Byte, b'o'.into());
        assert_eq!(*sent.0.lock(), b"o");
        serial.receive(b"x");
        ports.write(0x3fa, Width::Byte, 1);
        ports.write(0x3ff, Width::Byte, 1);
        serial.reset();
        assert_eq!(serial.inner.lock().chip, Uart::new());
    }

    proptest! {
        #[test]
        fn any_access_is_harmless(ops in prop::collection::vec((0u16..12, any::<u8>(), 0u64..10_000_000), 0..200)) {
            let mut chip = Uart::new();
            let mut now = 0;
            for (op, value, wait) in ops {
                now += wait;
                let now = Instant::from_nanos(now);
                match op {
                    0..8 if wait & 1 == 0 => { chip.read(op, now); }
                    0..8 => { chip.write(op, value, now); }
                    8 => chip.receive_break(now),
                    9 => chip.advance(now),
                    _ => { prop_assert!(chip.receive(&[value; 20], now) <= FIFO); }
                }
                prop_assert_eq!(&Uart::load(chip.save()).unwrap(), &chip);
            }
        }
    }
}
