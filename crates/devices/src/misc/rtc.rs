//! The CMOS clock: an MC146818A at ports 0x70 and 0x71, with the 128 bytes of memory that its battery keeps.
//!
//! Source: Motorola MC146818A data sheet (cited as §); the memory's layout is that of the PC/AT.

use std::sync::{Arc, OnceLock, Weak};

use bitfield_struct::bitfield;
use parking_lot::Mutex;
use rhea_core::{Device, Instant, InterruptLine, LoadError, PortIo, PortSpace, SaveState, Timer, TimerQueue, Width};

pub use state::RtcV1;

use super::calendar::{DAY, DateTime};
use crate::Saveable;

/// Bytes of memory, the clock's registers included.
const SIZE: usize = 128;
const SECOND: u64 = 1_000_000_000;
/// The time base.
const CRYSTAL: u64 = 32_768;
/// How long before the registers change the update-in-progress bit is set: 244 us of warning and 1984 us of update
/// (§ "Update Cycle", at 32.768 kHz).
const UPDATE: u64 = 2_228_000;

/// A byte of the memory that is more than memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// Part of the time: seconds, minutes, hours, weekday, day, month, year, century.
    Time,
    /// Seconds, minutes or hours of the alarm.
    Alarm,
    /// Register A: divider and rate.
    A,
    /// Register B: modes and interrupt enables.
    B,
    /// Register C: interrupt flags; reading clears them.
    C,
    /// Register D: the battery is good.
    D,
    /// Plain memory.
    Memory,
}

impl Register {
    /// The meaning of the byte at `index`.
    pub const fn at(index: u8) -> Self {
        match index & 0x7f {
            0 | 2 | 4 | 6..=9 | CENTURY => Self::Time,
            1 | 3 | 5 => Self::Alarm,
            0xa => Self::A,
            0xb => Self::B,
            0xc => Self::C,
            0xd => Self::D,
            _ => Self::Memory,
        }
    }
}

/// Where the century is, as the FADT says.
pub const CENTURY: u8 = 0x32;

/// Register A (§ "Register A").
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct RegisterA {
    #[bits(4)]
    rate: u8,
    #[bits(3)]
    divider: u8,
    update_in_progress: bool,
}

/// Register B.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct RegisterB {
    daylight_saving: bool,
    hours_24: bool,
    binary: bool,
    square_wave: bool,
    update_enable: bool,
    alarm_enable: bool,
    periodic_enable: bool,
    set: bool,
}

/// Register C, its flags where register B has the enables.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct RegisterC {
    #[bits(4)]
    __: u8,
    update: bool,
    alarm: bool,
    periodic: bool,
    request: bool,
}

/// Flags of register C and enables of register B.
const CAUSES: u8 = 0x70;
/// Divider bits for a crystal of 32.768 kHz; others stop the clock here.
const DIVIDER_RUNS: u8 = 2;

/// The chip alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Rtc {
    index: u8,
    /// All bytes; those of the time are valid while the clock stands still.
    memory: Vec<u8>,
    a: u8,
    b: u8,
    c: u8,
    /// The clock shows `seconds` and `nanoseconds` at power-on of the machine, by calculation.
    seconds: i64,
    nanoseconds: u32,
    /// The divider was held in reset: the first second after that takes half as long.
    divider_reset: bool,
    /// Up to when the flags are right.
    seen: Instant,
}

impl Rtc {
    /// A clock that shows `seconds` since 1970 at power-on; 24 hours, BCD, no interrupts.
    pub fn new(seconds: i64) -> Self {
        Self {
            index: 0,
            memory: vec![0; SIZE],
            a: 0x26,
            b: 0x02,
            c: 0,
            seconds,
            nanoseconds: 0,
            divider_reset: false,
            seen: Instant::ZERO,
        }
    }

    /// RESET (§ "RESET"): interrupts are off; time and memory stay.
    pub fn reset(&mut self) {
        self.index = 0;
        self.b &= !u8::from(RegisterB::from(CAUSES).with_square_wave(true));
        self.c = 0;
    }

    fn b(&self) -> RegisterB {
        self.b.into()
    }

    fn runs(&self) -> bool {
        !self.b().set() && RegisterA::from(self.a).divider() == DIVIDER_RUNS
    }

    /// Nanoseconds of the clock since `seconds`.
    const fn total(&self, now: Instant) -> u64 {
        now.as_nanos().saturating_add(self.nanoseconds as u64)
    }

    const fn time(&self, now: Instant) -> i64 {
        self.seconds.saturating_add((self.total(now) / SECOND) as i64)
    }

    /// How far the clock is ahead of one that nobody has set since `base` at power-on.
    pub const fn offset_from(&self, base: i64) -> i64 {
        self.seconds.saturating_sub(base)
    }

    /// When the clock's second number `second` begins.
    fn moment(&self, second: i64) -> Instant {
        let whole = u64::try_from(second.saturating_sub(self.seconds)).unwrap_or(0);
        Instant::from_nanos(whole.saturating_mul(SECOND).saturating_sub(self.nanoseconds.into()))
    }

    fn encode(&self, value: i64) -> u8 {
        let value = value.rem_euclid(100) as u8;
        if self.b().binary() { value } else { ((value / 10) << 4) | (value % 10) }
    }

    fn decode(&self, value: u8) -> i64 {
        i64::from(if self.b().binary() { value } else { (value >> 4) * 10 + (value & 0xf) })
    }

    fn encode_hour(&self, hour: i64) -> u8 {
        if self.b().hours_24() {
            return self.encode(hour);
        }
        let afternoon = if hour >= 12 { 0x80 } else { 0 };
        afternoon | self.encode((hour + 11) % 12 + 1)
    }

    fn decode_hour(&self, value: u8) -> i64 {
        if self.b().hours_24() {
            return self.decode(value);
        }
        let hour = self.decode(value & 0x7f);
        let hour = if hour == 12 { 0 } else { hour };
        if value & 0x80 != 0 { hour + 12 } else { hour }
    }

    /// A byte of the time while the clock runs.
    fn field(&self, index: u8, now: Instant) -> u8 {
        let time = DateTime::from_seconds(self.time(now));
        match index {
            0 => self.encode(time.second),
            2 => self.encode(time.minute),
            4 => self.encode_hour(time.hour),
            6 => self.encode(time.weekday()),
            7 => self.encode(time.day),
            8 => self.encode(time.month),
            9 => self.encode(time.year),
            _ => self.encode(time.year.div_euclid(100)),
        }
    }

    fn store_time(&mut self, now: Instant) {
        for index in [0, 2, 4, 6, 7, 8, 9, CENTURY] {
            self.memory[usize::from(index)] = self.field(index, now);
        }
    }

    /// Sets the clock from the bytes of the time; values out of range become the nearest in it.
    fn take_time(&mut self, now: Instant) {
        let byte = |index: u8| self.memory[usize::from(index)];
        let year = self.decode(byte(CENTURY)) * 100 + self.decode(byte(9));
        let time = DateTime {
            year: year.clamp(0, 9999),
            month: self.decode(byte(8)).clamp(1, 12),
            day: self.decode(byte(7)).clamp(1, 31),
            hour: self.decode_hour(byte(4)).clamp(0, 23),
            minute: self.decode(byte(2)).clamp(0, 59),
            second: self.decode(byte(0)).clamp(0, 59),
        };
        if std::mem::take(&mut self.divider_reset) {
            let until = (SECOND / 2 + SECOND - now.as_nanos() % SECOND) % SECOND;
            self.nanoseconds = until as u32;
        }
        self.seconds = time.seconds().saturating_sub((self.total(now) / SECOND) as i64);
    }

    /// Ticks of the crystal between two periodic interrupts (§ table 5), if they are on.
    const fn period(&self) -> Option<u64> {
        match self.a & 0xf {
            0 => None,
            1 => Some(128),
            2 => Some(256),
            rate => Some(1 << (rate - 1)),
        }
    }

    fn periodic_runs(&self) -> bool {
        RegisterA::from(self.a).divider() == DIVIDER_RUNS
    }

    /// The first second after `second` at which the alarm goes off; bytes from 0xc0 match everything.
    fn next_alarm(&self, second: i64) -> Option<i64> {
        let [seconds, minutes, hours] = [1, 3, 5].map(|index: usize| self.memory[index]);
        let wanted = |byte: u8, value: i64| (byte < 0xc0).then_some(value);
        let wanted_hour = wanted(hours, self.decode_hour(hours));
        let wanted_minute = wanted(minutes, self.decode(minutes));
        let wanted_second = wanted(seconds, self.decode(seconds));
        let first = second.checked_add(1)?;
        let matches = |wanted: Option<i64>, value: i64| wanted.is_none_or(|wanted| wanted == value);
        let mut at = first;
        // At most a day's hours, an hour's minutes and a minute's seconds are looked at.
        while at <= first.checked_add(DAY)? {
            let time = at.rem_euclid(DAY);
            if !matches(wanted_hour, time / 3600) {
                at = at + 3600 - time % 3600;
            } else if !matches(wanted_minute, time / 60 % 60) {
                at = at + 60 - time % 60;
            } else if !matches(wanted_second, time % 60) {
                at += 1;
            } else {
                return Some(at);
            }
        }
        None
    }

    /// Lets time pass: sets the flags of what happened.
    pub fn advance(&mut self, now: Instant) {
        if now <= self.seen {
            return;
        }
        let mut flags = RegisterC::from(self.c);
        if self.runs() {
            let (from, to) = (self.time(self.seen), self.time(now));
            flags.set_update(flags.update() || to > from);
            let alarm = to > from && !flags.alarm() && self.next_alarm(from).is_some_and(|at| at <= to);
            flags.set_alarm(flags.alarm() || alarm);
        }
        if let Some(period) = self.period().filter(|_| self.periodic_runs()) {
            let passed = now.ticks(CRYSTAL) / period > self.seen.ticks(CRYSTAL) / period;
            flags.set_periodic(flags.periodic() || passed);
        }
        self.c = flags.into();
        self.seen = now;
    }

    /// The level of the interrupt line.
    pub const fn interrupt(&self) -> bool {
        self.b & self.c & CAUSES != 0
    }

    /// When the line next rises by itself: the adapter sets its timer to this.
    pub fn next_event(&self, now: Instant) -> Option<Instant> {
        if self.interrupt() {
            return None;
        }
        let b = self.b();
        let second = self.time(now);
        let update = (b.update_enable() && self.runs()).then(|| self.moment(second.saturating_add(1)));
        let alarm = || self.next_alarm(second).map(|at| self.moment(at));
        let alarm = if b.alarm_enable() && self.runs() { alarm() } else { None };
        let periodic = self.period().filter(|_| b.periodic_enable() && self.periodic_runs());
        let periodic = periodic.map(|period| Instant::of_ticks((now.ticks(CRYSTAL) / period + 1) * period, CRYSTAL));
        [update, alarm, periodic].into_iter().flatten().min()
    }

    /// A write to port 0x70: which byte the other port reaches. Bit 7 is the NMI mask.
    pub const fn select(&mut self, value: u8) {
        self.index = value;
    }

    /// Whether the guest masks NMIs by bit 7 of port 0x70.
    pub const fn nmi_masked(&self) -> bool {
        self.index & 0x80 != 0
    }

    /// A read of port 0x71.
    pub fn read(&mut self, now: Instant) -> u8 {
        self.advance(now);
        let index = self.index & 0x7f;
        match Register::at(index) {
            Register::Time if self.runs() => self.field(index, now),
            Register::Time | Register::Alarm | Register::Memory => self.memory[usize::from(index)],
            Register::A => {
                let updating = self.runs() && self.total(now) % SECOND >= SECOND - UPDATE;
                RegisterA::from(self.a).with_update_in_progress(updating).into()
            }
            Register::B => self.b,
            Register::C => {
                let flags = RegisterC::from(self.c).with_request(self.interrupt());
                self.c = 0;
                flags.into()
            }
            Register::D => 0x80,
        }
    }

    /// A write to port 0x71.
    pub fn write(&mut self, value: u8, now: Instant) {
        self.advance(now);
        let index = self.index & 0x7f;
        let ran = self.runs();
        match Register::at(index) {
            Register::Time if ran => {
                self.store_time(now);
                self.memory[usize::from(index)] = value;
                self.take_time(now);
            }
            Register::Time | Register::Alarm | Register::Memory => self.memory[usize::from(index)] = value,
            Register::A => {
                let new = RegisterA::from(value).with_update_in_progress(false);
                self.change_modes(now, |chip| chip.a = new.into());
                self.divider_reset |= new.divider() != DIVIDER_RUNS;
                if self.runs() && !ran {
                    self.take_time(now);
                }
            }
            Register::B => {
                // § "Register B": SET clears the update interrupt enable.
                let new = RegisterB::from(value);
                let new = if new.set() { new.with_update_enable(false) } else { new };
                self.change_modes(now, |chip| chip.b = new.into());
                if self.runs() && !ran {
                    self.take_time(now);
                }
            }
            Register::C | Register::D => {}
        }
    }

    /// Stores the time where the change makes the clock stand still.
    fn change_modes(&mut self, now: Instant, change: impl FnOnce(&mut Self)) {
        if self.runs() {
            // In the format that holds while the clock stands still.
            let running = self.clone();
            change(self);
            if !self.runs() {
                let modes = (self.a, self.b);
                let format = u8::from(RegisterB::new().with_binary(true).with_hours_24(true));
                (self.a, self.b) = (running.a, running.b & !format | modes.1 & format);
                self.store_time(now);
                (self.a, self.b) = modes;
            }
        } else {
            change(self);
        }
    }

    /// Puts a byte into plain memory, as the board or firmware does; the clock's registers are not reached.
    pub fn set_memory(&mut self, index: u8, value: u8) {
        if Register::at(index) == Register::Memory {
            self.memory[usize::from(index & 0x7f)] = value;
        }
    }
}

mod state {
    use rhea_core::Instant;

    use super::{Rtc, SECOND, SIZE};

    /// Seconds in ten thousand years: no clock shows more.
    const FARTHEST: i64 = 400_000_000_000;

    saved_state!(Rtc => RtcV1 {
        index: u8, memory: Vec<u8>, a: u8, b: u8, c: u8, seconds: i64, nanoseconds: u32, divider_reset: bool,
        seen: Instant,
    } if |s| s.memory.len() == SIZE && s.a < 0x80 && s.c & !0x70 == 0 && u64::from(s.nanoseconds) < SECOND
        && s.seconds.abs() <= FARTHEST);
}

/// The clock at its ISA ports.
#[derive(rhea_core::object::Object)]
#[object(type = "mc146818rtc", parent = "isa-device")]
pub struct IsaRtc {
    chip: Mutex<Rtc>,
    /// What the clock would have shown at power-on had nobody set it.
    base: i64,
    line: InterruptLine,
    timer: Timer,
    changed: OnceLock<Box<dyn Fn(i64) + Send + Sync>>,
}

impl IsaRtc {
    /// A clock that shows `seconds` since 1970 at power-on and interrupts on `line` (interrupt 8).
    pub fn new(timers: &Arc<TimerQueue>, line: InterruptLine, seconds: i64) -> Arc<Self> {
        Arc::new_cyclic(|weak: &Weak<Self>| {
            let weak = Weak::clone(weak);
            let timer = timers.timer(move |_| {
                if let Some(rtc) = weak.upgrade() {
                    rtc.with(|_, _| ());
                }
            });
            Self { chip: Mutex::new(Rtc::new(seconds)), base: seconds, line, timer, changed: OnceLock::new() }
        })
    }

    /// Puts the ports 0x70 and 0x71 into `ports`.
    pub fn map(self: &Arc<Self>, ports: &PortSpace) {
        ports.map(0x70, 2, Arc::clone(self) as Arc<dyn PortIo>);
    }

    /// Whom to tell when the guest has set the clock: by how many seconds it is ahead of one never set. Called without
    /// the clock's lock. Set once.
    pub fn on_set_time(&self, callback: Box<dyn Fn(i64) + Send + Sync>) {
        let _ = self.changed.set(callback);
    }

    /// Sets a byte of plain memory.
    pub fn set_memory(&self, index: u8, value: u8) {
        self.chip.lock().set_memory(index, value);
    }

    /// Says in the memory how much RAM there is, as firmware reads it: `below` bytes under 4 GiB, `above` over it.
    pub fn set_memory_size(&self, below: u64, above: u64) {
        const KIB: u64 = 1024;
        const MIB: u64 = 1024 * KIB;
        let base = (below / KIB).min(640);
        let extended = (below.saturating_sub(MIB) / KIB).min(0xffff);
        let over_16m = (below.saturating_sub(16 * MIB) / (64 * KIB)).min(0xffff);
        let over_4g = (above / (64 * KIB)).min(0xff_ffff);
        let fields =
            [(0x15, base, 2), (0x17, extended, 2), (0x30, extended, 2), (0x34, over_16m, 2), (0x5b, over_4g, 3)];
        let mut chip = self.chip.lock();
        for (index, value, bytes) in fields {
            for byte in 0..bytes {
                chip.set_memory(index + byte, (value >> (8 * byte)) as u8);
            }
        }
    }

    /// Whether the guest masks NMIs by bit 7 of port 0x70.
    pub fn nmi_masked(&self) -> bool {
        self.chip.lock().nmi_masked()
    }

    fn with<T>(&self, change: impl FnOnce(&mut Rtc, Instant) -> T) -> T {
        let now = self.timer.now();
        let mut chip = self.chip.lock();
        let before = chip.offset_from(self.base);
        chip.advance(now);
        let result = change(&mut chip, now);
        self.line.set(chip.interrupt());
        self.timer.set_or_cancel(chip.next_event(now));
        let after = chip.offset_from(self.base);
        drop(chip);
        if before != after
            && let Some(callback) = self.changed.get()
        {
            callback(after);
        }
        result
    }
}

impl PortIo for IsaRtc {
    fn read(&self, offset: u16, _: Width) -> u32 {
        // The index port is write-only.
        if offset == 0 { 0xff } else { self.with(Rtc::read).into() }
    }

    fn write(&self, offset: u16, _: Width, value: u32) {
        if offset == 0 {
            self.chip.lock().select(value as u8);
        } else {
            self.with(|chip, now| chip.write(value as u8, now));
        }
    }
}

impl Device for IsaRtc {
    fn reset(&self) {
        self.with(|chip, _| chip.reset());
    }
}

impl Saveable for IsaRtc {
    type Chip = Rtc;

    fn save(&self) -> RtcV1 {
        self.chip.lock().save()
    }

    fn restore(&self, state: RtcV1) -> Result<(), LoadError> {
        let rtc = Rtc::load(state)?;
        self.with(|chip, _| *chip = rtc);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rhea_core::Clock;

    use super::*;

    /// 13 February 2009, 23:31:30, a Friday.
    const BASE: i64 = 1_234_567_890;

    const fn ms(milliseconds: u64) -> Instant {
        Instant::from_nanos(milliseconds * 1_000_000)
    }

    fn get(rtc: &mut Rtc, index: u8, now: Instant) -> u8 {
        rtc.select(index);
        rtc.read(now)
    }

    fn put(rtc: &mut Rtc, index: u8, value: u8, now: Instant) {
        rtc.select(index);
        rtc.write(value, now);
    }

    fn shown(rtc: &mut Rtc, now: Instant) -> [u8; 8] {
        [CENTURY, 9, 8, 7, 6, 4, 2, 0].map(|index| get(rtc, index, now))
    }

    #[test]
    fn time_is_shown_in_bcd_or_binary_and_in_24_or_12_hours() {
        let mut rtc = Rtc::new(BASE);
        assert_eq!(shown(&mut rtc, ms(30_999)), [0x20, 0x09, 0x02, 0x13, 6, 0x23, 0x32, 0x00]);
        put(&mut rtc, 0xb, 0x06, ms(31_000));
        assert_eq!(shown(&mut rtc, ms(31_000)), [20, 9, 2, 13, 6, 23, 32, 1]);
        put(&mut rtc, 0xb, 0x00, ms(31_000));
        assert_eq!(get(&mut rtc, 4, ms(31_000)), 0x91);
        assert_eq!(get(&mut rtc, 4, ms(31_000 + 3_600_000)), 0x12);
    }

    #[test]
    fn update_in_progress_warns_before_the_second_changes() {
        let mut rtc = Rtc::new(BASE);
        let at = |micros: u64| Instant::from_nanos(micros * 1000);
        assert_eq!(get(&mut rtc, 0xa, at(997_771)), 0x26);
        assert_eq!(get(&mut rtc, 0xa, at(997_773)), 0xa6);
        assert_eq!(get(&mut rtc, 0, at(999_999)), 0x30);
        assert_eq!((get(&mut rtc, 0xa, at(1_000_000)), get(&mut rtc, 0, at(1_000_000))), (0x26, 0x31));
    }

    #[test]
    fn setting_goes_by_the_set_bit_and_starts_half_a_second_before_the_next() {
        let mut rtc = Rtc::new(BASE);
        put(&mut rtc, 0xb, 0x82, ms(100));
        put(&mut rtc, 0xa, 0x76, ms(100));
        assert_eq!(get(&mut rtc, 0, ms(90_000)), 0x30);
        for (index, value) in [(CENTURY, 0x19), (9, 0x99), (8, 0x12), (7, 0x31), (4, 0x23), (2, 0x59), (0, 0x59)] {
            put(&mut rtc, index, value, ms(90_000));
        }
        put(&mut rtc, 0xa, 0x26, ms(90_300));
        put(&mut rtc, 0xb, 0x02, ms(90_300));
        assert_eq!(get(&mut rtc, 0, ms(90_799)), 0x59);
        assert_eq!(shown(&mut rtc, ms(90_800)), [0x20, 0, 1, 1, 7, 0, 0, 0]);
    }

    #[test]
    fn update_and_alarm_interrupt_at_their_second() {
        let mut rtc = Rtc::new(BASE);
        for (index, value) in [(1, 0x35), (3, 0xff), (5, 0xc0), (0xb, 0x22)] {
            put(&mut rtc, index, value, ms(0));
        }
        assert_eq!(rtc.next_event(ms(0)), Some(ms(5000)));
        rtc.advance(ms(4999));
        assert!(!rtc.interrupt());
        rtc.advance(ms(5000));
        assert!(rtc.interrupt());
        // The periodic flag is set too, though its interrupt is not enabled.
        assert_eq!(get(&mut rtc, 0xc, ms(5000)), 0xf0);
        assert!(!rtc.interrupt());
        assert_eq!(rtc.next_event(ms(5000)), Some(ms(65_000)));
        put(&mut rtc, 0xb, 0x12, ms(5500));
        assert_eq!(rtc.next_event(ms(5500)), Some(ms(6000)));
    }

    #[test]
    fn an_alarm_that_is_no_time_of_day_never_comes() {
        let mut rtc = Rtc::new(BASE);
        for (index, value) in [(1, 0x00), (3, 0x75), (5, 0x12), (0xb, 0x22)] {
            put(&mut rtc, index, value, ms(0));
        }
        assert_eq!(rtc.next_event(ms(0)), None);
    }

    #[test]
    fn periodic_interrupts_come_at_their_rate() {
        let mut rtc = Rtc::new(BASE);
        put(&mut rtc, 0xb, 0x42, ms(0));
        let mut now = ms(0);
        for _ in 0..1024 {
            now = rtc.next_event(now).unwrap();
            rtc.advance(now);
            assert_eq!(get(&mut rtc, 0xc, now) & 0xc0, 0xc0);
        }
        assert_eq!(now, ms(1000));
    }

    #[test]
    fn reset_turns_interrupts_off_and_keeps_time_and_memory() {
        let timers = TimerQueue::new(Clock::new());
        let rtc = IsaRtc::new(&timers, InterruptLine::unconnected(), BASE);
        let ports = PortSpace::new();
        rtc.map(&ports);
        rtc.reset();
        assert_eq!(*rtc.chip.lock(), Rtc::new(BASE));
        for (index, value) in [(0xb, 0x72), (0x40, 7)] {
            ports.write(0x70, Width::Byte, index);
            ports.write(0x71, Width::Byte, value);
        }
        rtc.reset();
        assert_eq!(timers.next_deadline(), None);
        ports.write(0x70, Width::Byte, 0xc0);
        assert!(rtc.nmi_masked());
        assert_eq!(ports.read(0x71, Width::Byte), 7);
    }

    #[test]
    fn setting_the_time_is_reported_as_the_offset() {
        let clock = Clock::new();
        let timers = TimerQueue::new(Arc::clone(&clock));
        let rtc = IsaRtc::new(&timers, InterruptLine::unconnected(), BASE);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&heard);
        rtc.on_set_time(Box::new(move |offset| log.lock().push(offset)));
        clock.set(ms(10_000));
        rtc.write(0, Width::Byte, 2);
        rtc.write(1, Width::Byte, 0x32);
        assert_eq!(*heard.lock(), [60]);
    }

    #[test]
    fn the_memory_says_how_much_ram_there_is() {
        let timers = TimerQueue::new(Clock::new());
        let rtc = IsaRtc::new(&timers, InterruptLine::unconnected(), BASE);
        rtc.set_memory_size(512 << 20, 1 << 30);
        let mut chip = rtc.chip.lock();
        let bytes = [0x15, 0x16, 0x17, 0x18, 0x34, 0x35, 0x5b, 0x5c, 0x5d].map(|index| get(&mut chip, index, ms(0)));
        assert_eq!(bytes, [0x80, 2, 0xff, 0xff, 0, 0x1f, 0, 0x40, 0]);
    }

    proptest! {
        #[test]
        fn any_access_is_harmless(ops in prop::collection::vec((any::<bool>(), 0u8..0x40, any::<u8>(), 0u64..1 << 45), 0..100)) {
            let mut rtc = Rtc::new(BASE);
            let mut now = 0;
            for (write, index, value, wait) in ops {
                now += wait;
                let now = Instant::from_nanos(now);
                if write { put(&mut rtc, index, value, now) } else { get(&mut rtc, index, now); }
                rtc.advance(now);
                if let Some(event) = rtc.next_event(now) {
                    prop_assert!(event > now);
                }
                prop_assert_eq!(&Rtc::load(rtc.save()).unwrap(), &rtc);
            }
        }

        #[test]
        fn flags_in_small_steps_equal_one_large_step(b in 0u8..0x80, rate in 0u8..16, times in prop::collection::vec(1u64..3_000_000_000, 1..20)) {
            let mut small = Rtc::new(BASE);
            put(&mut small, 1, 0x33, ms(0));
            put(&mut small, 3, 0xff, ms(0));
            put(&mut small, 5, 0xff, ms(0));
            put(&mut small, 0xa, 0x20 | rate, ms(0));
            put(&mut small, 0xb, b, ms(0));
            let mut large = small.clone();
            let mut now = 0;
            for time in times {
                now += time;
                small.advance(Instant::from_nanos(now));
            }
            large.advance(Instant::from_nanos(now));
            prop_assert_eq!(small, large);
        }
    }
}
