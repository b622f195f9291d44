//! One counter of the 8254: a 16-bit down counter with six modes, as a function of time.
//!
//! Source: Intel 231164, "8254 Programmable Interval Timer" (cited as §). Time is in ticks of CLK; a tick is the time
//! between two falling edges, and what is written during tick t is loaded at t + 1.

use serde::{Deserialize, Serialize};

pub use self::state::CounterV1;

/// How the CPU reaches the 16 bits (§ "Control Word Format", RW1 and RW0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Least significant byte only.
    Low,
    /// Most significant byte only.
    High,
    /// Least significant byte first, then the other.
    Both,
}

/// The six modes (§ "Mode Definitions").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// 0: OUT rises at the terminal count.
    Terminal,
    /// 1: OUT is low for the count after a rise of GATE.
    OneShot,
    /// 2: OUT is low one tick in a period.
    Rate,
    /// 3: OUT is high half the period.
    Square,
    /// 4: OUT is low for one tick at the terminal count.
    SoftwareStrobe,
    /// 5: as 4, started by a rise of GATE.
    HardwareStrobe,
}

impl Mode {
    /// The three mode bits; 6 and 7 are 2 and 3 again.
    pub const fn decode(bits: u8) -> Self {
        match bits & 7 {
            0 => Self::Terminal,
            1 => Self::OneShot,
            2 | 6 => Self::Rate,
            3 | 7 => Self::Square,
            4 => Self::SoftwareStrobe,
            _ => Self::HardwareStrobe,
        }
    }

    const fn periodic(self) -> bool {
        matches!(self, Self::Rate | Self::Square)
    }

    const fn triggered(self) -> bool {
        matches!(self, Self::OneShot | Self::HardwareStrobe)
    }
}

/// One counter alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Counter {
    mode: Mode,
    /// The mode bits as written, for the status byte.
    mode_bits: u8,
    access: Access,
    bcd: bool,
    gate: bool,
    /// First byte of a count written in two.
    first_byte: Option<u8>,
    /// Whether the next read gives the most significant byte.
    read_high: bool,
    latch: Option<u16>,
    status: Option<u8>,
    /// The count register; 0 stands for none since the control word.
    count: u32,
    /// The count in effect: the period in modes 2 and 3.
    loaded: u32,
    /// What the counting element held at `base`.
    from: u32,
    /// The tick at which counting began; may lie before power-on by arithmetic.
    base: i64,
    running: bool,
    /// Whether the terminal count has passed (modes 0 and 4).
    done: bool,
    /// The level of OUT until `base`.
    before: bool,
}

impl Default for Counter {
    fn default() -> Self {
        Self::new(true)
    }
}

impl Counter {
    /// A counter after power-on (undefined by the datasheet; here mode 3 without a count) whose GATE is at `gate`.
    pub const fn new(gate: bool) -> Self {
        Self {
            mode: Mode::Square,
            mode_bits: 3,
            access: Access::Both,
            bcd: false,
            gate,
            first_byte: None,
            read_high: false,
            latch: None,
            status: None,
            count: 0,
            loaded: 0,
            from: 0,
            base: 0,
            running: false,
            done: false,
            before: true,
        }
    }

    const fn modulus(&self) -> i64 {
        if self.bcd { 10_000 } else { 0x1_0000 }
    }

    const fn elapsed(&self, tick: i64) -> i64 {
        let elapsed = tick - self.base;
        if self.running && elapsed > 0 { elapsed } else { 0 }
    }

    /// The tick within the period, and the length of its high part (modes 2 and 3).
    const fn phase(&self, tick: i64) -> (i64, i64) {
        let period = if self.loaded == 0 { 1 } else { self.loaded as i64 };
        let high = if matches!(self.mode, Mode::Rate) { period - 1 } else { (period + 1) / 2 };
        (self.elapsed(tick) % period, high)
    }

    /// Takes a count that was written into effect at the end of the period (mode 2) or half period (mode 3).
    fn sync(&mut self, tick: i64) {
        if !self.mode.periodic() || !self.running || self.loaded == self.count || self.count == 0 {
            return;
        }
        // The first boundary after the count was written: `from` holds the ticks that had elapsed then.
        let period = i64::from(self.loaded);
        let written = i64::from(self.from);
        let round = written - written % period;
        let high = (period + 1) / 2;
        let (boundary, starts_high) = match self.mode {
            Mode::Square if written % period < high && high < period => (round + high, false),
            _ => (round + period, true),
        };
        if self.elapsed(tick) >= boundary {
            self.base += boundary;
            self.loaded = self.count;
            if !starts_high {
                self.base -= (i64::from(self.loaded) + 1) / 2;
            }
            self.from = 0;
        }
    }

    fn synced(&self, tick: i64) -> Self {
        let mut counter = self.clone();
        counter.sync(tick);
        counter
    }

    /// The counting element.
    fn value(&self, tick: i64) -> u16 {
        let counter = self.synced(tick);
        let value = match counter.mode {
            Mode::Rate => i64::from(counter.loaded) - counter.phase(tick).0,
            Mode::Square => {
                let (phase, high) = counter.phase(tick);
                let even = i64::from(counter.loaded & !1);
                even - 2 * if phase < high { phase } else { phase - high }
            }
            _ => i64::from(counter.from) - counter.elapsed(tick),
        };
        let value = value.rem_euclid(self.modulus()) as u16;
        if self.bcd {
            (0..4).fold(0, |bcd, digit| bcd | (value / 10_u16.pow(digit) % 10) << (4 * digit))
        } else {
            value
        }
    }

    /// Whether OUT rises again and again: modes 2 and 3.
    pub const fn is_periodic(&self) -> bool {
        self.mode.periodic()
    }

    /// The level of OUT.
    pub fn output(&self, tick: i64) -> bool {
        let counter = self.synced(tick);
        if counter.running && tick < counter.base {
            return counter.before;
        }
        let elapsed = counter.elapsed(tick);
        let from = i64::from(counter.from);
        match counter.mode {
            Mode::Terminal => counter.done || counter.running && elapsed >= from,
            Mode::OneShot => !(counter.running && elapsed < from),
            Mode::Rate | Mode::Square if counter.running && counter.loaded > 1 => {
                let (phase, high) = counter.phase(tick);
                phase < high
            }
            Mode::Rate | Mode::Square => true,
            Mode::SoftwareStrobe | Mode::HardwareStrobe => !(counter.running && !counter.done && elapsed == from),
        }
    }

    /// The first tick after `tick` at which OUT may change.
    pub fn next_edge(&self, tick: i64) -> Option<i64> {
        let counter = self.synced(tick);
        if !counter.running {
            return None;
        }
        if tick < counter.base {
            return Some(counter.base);
        }
        let from = i64::from(counter.from);
        let elapsed = counter.elapsed(tick);
        let terminal = counter.base + from;
        match counter.mode {
            Mode::Terminal if counter.done => None,
            Mode::Terminal | Mode::OneShot => (elapsed < from).then_some(terminal),
            // A period of one tick has no edges, but ends: the next count may.
            Mode::Rate | Mode::Square if counter.loaded < 2 => (counter.loaded != counter.count).then_some(tick + 1),
            Mode::Rate | Mode::Square => {
                let (phase, high) = counter.phase(tick);
                let next = if phase < high { high } else { i64::from(counter.loaded) };
                Some(tick + next - phase)
            }
            Mode::SoftwareStrobe | Mode::HardwareStrobe if counter.done || elapsed > from => None,
            Mode::SoftwareStrobe | Mode::HardwareStrobe if elapsed == from => Some(terminal + 1),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => Some(terminal),
        }
    }

    /// A control word for this counter: access, mode and BCD bits of it (§ "Control Word Format").
    pub fn program(&mut self, control: u8) {
        let access = match control >> 4 & 3 {
            1 => Access::Low,
            2 => Access::High,
            _ => Access::Both,
        };
        *self = Self {
            mode: Mode::decode(control >> 1),
            mode_bits: control >> 1 & 7,
            access,
            bcd: control & 1 != 0,
            ..Self::new(self.gate)
        };
    }

    /// A byte written to the counter's port.
    pub fn write(&mut self, value: u8, tick: i64) {
        let raw = match (self.access, self.first_byte) {
            (Access::Low, _) => u16::from(value),
            (Access::High, _) => u16::from(value) << 8,
            (Access::Both, None) => {
                self.first_byte = Some(value);
                if self.mode == Mode::Terminal {
                    // § "Mode 0": the first byte stops the counting and sets OUT low.
                    self.from = self.held(tick);
                    self.running = false;
                    self.done = false;
                }
                return;
            }
            (Access::Both, Some(low)) => u16::from_le_bytes([low, value]),
        };
        self.first_byte = None;
        let count = if self.bcd {
            let digit = |shift: u32| u32::from(raw >> shift & 0xf);
            (digit(12) * 1000 + digit(8) * 100 + digit(4) * 10 + digit(0)) % 10_000
        } else {
            u32::from(raw)
        };
        let count = if count == 0 { self.modulus() as u32 } else { count };
        self.sync(tick);
        let first = self.count == 0;
        self.count = count;
        match self.mode {
            Mode::Terminal | Mode::SoftwareStrobe => {
                self.loaded = count;
                self.from = count;
                self.before = self.mode == Mode::SoftwareStrobe;
                self.base = tick + 1;
                self.done = false;
                self.running = self.gate;
            }
            Mode::Rate | Mode::Square if first || !self.running => {
                self.loaded = count;
                self.start(tick);
                self.running = self.gate;
            }
            Mode::Rate | Mode::Square => self.from = self.elapsed(tick) as u32,
            Mode::OneShot | Mode::HardwareStrobe => {}
        }
        if self.mode.periodic() && self.running {
            self.shorten(tick);
        }
    }

    /// Brings `base` near in a periodic mode, so that ticks since then fit `from`.
    fn shorten(&mut self, tick: i64) {
        if self.loaded > 0 {
            let elapsed = self.elapsed(tick);
            let whole = elapsed - elapsed % i64::from(self.loaded);
            self.base += whole;
            self.from = self.elapsed(tick) as u32;
        }
    }

    /// The counting element in binary, as it is kept while counting stands still.
    fn held(&self, tick: i64) -> u32 {
        let left = i64::from(self.from) - self.elapsed(tick);
        if left > 0 { left as u32 } else { left.rem_euclid(self.modulus()) as u32 }
    }

    fn start(&mut self, tick: i64) {
        self.before = self.output(tick);
        self.base = tick + 1;
        self.from = if self.mode.periodic() { 0 } else { self.count };
        self.done = false;
        self.running = true;
    }

    /// Drives GATE.
    pub fn set_gate(&mut self, gate: bool, tick: i64) {
        if gate == self.gate {
            return;
        }
        self.sync(tick);
        self.gate = gate;
        if self.count == 0 {
            return;
        }
        match self.mode {
            Mode::Terminal | Mode::SoftwareStrobe if gate => {
                if !self.running && self.first_byte.is_none() {
                    self.before = self.output(tick);
                    self.base = tick;
                    self.running = true;
                }
            }
            Mode::Terminal | Mode::SoftwareStrobe => {
                if self.running {
                    self.done |= self.elapsed(tick) >= i64::from(self.from);
                    self.from = self.held(tick);
                    self.running = false;
                }
            }
            Mode::OneShot | Mode::HardwareStrobe | Mode::Rate | Mode::Square if gate => {
                self.loaded = self.count;
                self.start(tick);
            }
            // § "Mode 2", "Mode 3": GATE low stops the counting and sets OUT high at once.
            Mode::Rate | Mode::Square => self.running = false,
            Mode::OneShot | Mode::HardwareStrobe => {}
        }
    }

    /// The level of GATE.
    pub const fn gate(&self) -> bool {
        self.gate
    }

    /// Latches the count, if none is latched (§ "Counter Latch Command").
    pub fn latch_count(&mut self, tick: i64) {
        if self.latch.is_none() {
            self.latch = Some(self.value(tick));
        }
    }

    /// Latches the status byte, if none is latched (§ "Read-Back Command").
    pub fn latch_status(&mut self, tick: i64) {
        if self.status.is_none() {
            let access = match self.access {
                Access::Low => 1,
                Access::High => 2,
                Access::Both => 3,
            };
            let counter = self.synced(tick);
            let null = counter.count == 0
                || counter.loaded != counter.count
                || counter.running && tick < counter.base
                || counter.mode.triggered() && !counter.running;
            let out = u8::from(self.output(tick)) << 7;
            self.status = Some(out | u8::from(null) << 6 | access << 4 | self.mode_bits << 1 | u8::from(self.bcd));
        }
    }

    /// A read of the counter's port: latched status, latched count, or the count as it is.
    pub fn read(&mut self, tick: i64) -> u8 {
        if let Some(status) = self.status.take() {
            return status;
        }
        let [low, high] = self.latch.unwrap_or_else(|| self.value(tick)).to_le_bytes();
        let (value, last) = match self.access {
            Access::Low => (low, true),
            Access::High => (high, true),
            Access::Both if self.read_high => (high, true),
            Access::Both => (low, false),
        };
        self.read_high = self.access == Access::Both && !last;
        if last {
            self.latch = None;
        }
        value
    }
}

mod state {
    use super::{Access, Counter, Mode};

    /// Ticks of 2^64 nanoseconds: no time of a counter lies farther out.
    const FARTHEST: i64 = 1 << 55;

    saved_state!(Counter => CounterV1 {
        mode: Mode, mode_bits: u8, access: Access, bcd: bool, gate: bool, first_byte: Option<u8>, read_high: bool,
        latch: Option<u16>, status: Option<u8>, count: u32, loaded: u32, from: u32, base: i64, running: bool, done: bool,
        before: bool,
    } if |s| Mode::decode(s.mode_bits) == s.mode && s.mode_bits < 8 && s.count <= 0x1_0000 && s.loaded <= 0x1_0000
        && s.from <= 0x2_0000 && (-FARTHEST..=FARTHEST).contains(&s.base) && (!s.running || s.loaded > 0));
}
