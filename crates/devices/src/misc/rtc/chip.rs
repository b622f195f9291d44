//! The chip of the CMOS clock: registers, date and time of day, alarm, and the 128 bytes of memory that its battery keeps.
//!
//! Source: Motorola MC146818A data sheet (cited as §); the memory's layout is that of the PC/AT.

use bitfield_struct::bitfield;
use rhea_core::Instant;
use serde::{Deserialize, Serialize};

pub use state::RtcV1;

use super::super::calendar::{DAY, DateTime};
use crate::lost_ticks::LostTickPolicy;

/// Bytes of memory, the clock's registers included.
const SIZE: usize = 128;
const SECOND: u64 = 1_000_000_000;
/// The time base.
pub(super) const CRYSTAL: u64 = 32_768;
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
    pub(super) periodic_enable: bool,
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
    pub(super) periodic: bool,
    request: bool,
}

/// Flags of register C and enables of register B.
const CAUSES: u8 = 0x70;
/// Divider bits for a crystal of 32.768 kHz; others stop the clock here.
const DIVIDER_RUNS: u8 = 2;

/// Now, by both the times that the chip goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// The machine's time, which stops with it: the periodic interrupt goes by it.
    pub machine: Instant,
    /// What the date and the time of day follow. It may be set back.
    pub date: Instant,
}

/// The date follows the machine's time.
impl From<Instant> for Moment {
    fn from(now: Instant) -> Self {
        Self { machine: now, date: now }
    }
}

/// The chip alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Rtc {
    index: u8,
    /// All bytes; those of the time are valid while the clock stands still.
    memory: Vec<u8>,
    pub(super) a: u8,
    b: u8,
    pub(super) c: u8,
    /// The clock shows `seconds` and `nanoseconds` at the beginning of what it follows, by calculation.
    seconds: i64,
    nanoseconds: u32,
    /// The divider was held in reset: the first second after that takes half as long.
    divider_reset: bool,
    /// Up to when the flags are right.
    pub(super) seen: Moment,
    pub(super) policy: LostTickPolicy,
    /// Where between two ticks of the slowest rate the beat of the periodic interrupt is, in ticks of the crystal.
    pub(super) phase: u64,
    /// Periodic interrupts that the guest did not take in time and is to get.
    pub(super) owed: u32,
    /// When the next of those comes, in ticks of the crystal.
    pub(super) due: Option<u64>,
}

impl Rtc {
    /// A clock that shows `seconds` since 1970 at the beginning of what it follows; 24 hours, BCD, no interrupts.
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
            seen: Moment::default(),
            policy: LostTickPolicy::default(),
            phase: 0,
            owed: 0,
            due: None,
        }
    }

    /// The same to the nanosecond, and put into operation now.
    pub fn starting_at(nanoseconds: i128, now: Moment) -> Self {
        let second = i128::from(SECOND);
        let seconds = i64::try_from(nanoseconds.div_euclid(second)).unwrap_or(0);
        Self { nanoseconds: nanoseconds.rem_euclid(second) as u32, seen: now, ..Self::new(seconds) }
    }

    /// What is to become of periodic interrupts that the guest does not take in time.
    pub const fn set_policy(&mut self, policy: LostTickPolicy) {
        self.policy = policy;
    }

    /// RESET (§ "RESET"): interrupts are off; time and memory stay.
    pub fn reset(&mut self) {
        self.index = 0;
        self.b &= !u8::from(RegisterB::from(CAUSES).with_square_wave(true));
        self.c = 0;
        self.phase = 0;
        self.forget_owed();
    }

    pub(super) fn b(&self) -> RegisterB {
        self.b.into()
    }

    fn runs(&self) -> bool {
        !self.b().set() && self.divider_runs()
    }

    pub(super) fn divider_runs(&self) -> bool {
        RegisterA::from(self.a).divider() == DIVIDER_RUNS
    }

    /// Nanoseconds of the clock since `seconds`.
    const fn total(&self, now: Moment) -> u64 {
        now.date.as_nanos().saturating_add(self.nanoseconds as u64)
    }

    const fn time(&self, now: Moment) -> i64 {
        self.seconds.saturating_add((self.total(now) / SECOND) as i64)
    }

    /// Up to when the flags are right.
    pub const fn seen(&self) -> Moment {
        self.seen
    }

    /// What the clock shows, in nanoseconds since 1970.
    pub const fn shown(&self, now: Moment) -> i128 {
        self.seconds as i128 * SECOND as i128 + self.total(now) as i128
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
    fn field(&self, index: u8, now: Moment) -> u8 {
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

    fn store_time(&mut self, now: Moment) {
        for index in [0, 2, 4, 6, 7, 8, 9, CENTURY] {
            self.memory[usize::from(index)] = self.field(index, now);
        }
    }

    /// Sets the clock from the bytes of the time; values out of range become the nearest in it.
    fn take_time(&mut self, now: Moment) {
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
            let until = (SECOND / 2 + SECOND - now.date.as_nanos() % SECOND) % SECOND;
            self.nanoseconds = until as u32;
        }
        self.seconds = time.seconds().saturating_sub((self.total(now) / SECOND) as i64);
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
    pub fn advance(&mut self, now: Moment) {
        if self.runs() && now.date > self.seen.date {
            let mut flags = RegisterC::from(self.c);
            let (from, to) = (self.time(self.seen), self.time(now));
            flags.set_update(flags.update() || to > from);
            let alarm = to > from && !flags.alarm() && self.next_alarm(from).is_some_and(|at| at <= to);
            flags.set_alarm(flags.alarm() || alarm);
            self.c = flags.into();
        }
        self.seen.date = now.date;
        if now.machine > self.seen.machine {
            self.pass_ticks(now);
            self.seen.machine = now.machine;
        }
    }

    /// The level of the interrupt line.
    pub const fn interrupt(&self) -> bool {
        self.b & self.c & CAUSES != 0
    }

    /// When the line next rises by itself: the adapter sets its timer to this.
    pub fn next_event(&self, now: Moment) -> Option<Instant> {
        if self.interrupt() {
            return None;
        }
        [self.next_date_event(now), self.next_tick(now)].into_iter().flatten().min()
    }

    /// When, if what the date follows goes on as the machine's time does, the date itself next raises the line.
    pub fn next_date_event(&self, now: Moment) -> Option<Instant> {
        let b = self.b();
        if self.interrupt() || !self.runs() {
            return None;
        }
        let second = self.time(now);
        let update = b.update_enable().then(|| second.saturating_add(1));
        let alarm = if b.alarm_enable() { self.next_alarm(second) } else { None };
        let first = update.into_iter().chain(alarm).min()?;
        Some(now.machine.saturating_add(self.moment(first).since(now.date)))
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
    pub fn read(&mut self, now: Moment) -> u8 {
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
                if flags.periodic() {
                    self.take_tick(now);
                }
                flags.into()
            }
            Register::D => 0x80,
        }
    }

    /// A write to port 0x71; whether it set the clock.
    pub fn write(&mut self, value: u8, now: Moment) -> bool {
        self.advance(now);
        let index = self.index & 0x7f;
        let ran = self.runs();
        match Register::at(index) {
            Register::Time if ran => {
                self.store_time(now);
                self.memory[usize::from(index)] = value;
                self.take_time(now);
                return true;
            }
            Register::Time | Register::Alarm | Register::Memory => self.memory[usize::from(index)] = value,
            Register::A => {
                let new = RegisterA::from(value).with_update_in_progress(false);
                self.change_modes(now, |chip| chip.a = new.into());
                self.divider_reset |= new.divider() != DIVIDER_RUNS;
            }
            Register::B => {
                // § "Register B": SET clears the update interrupt enable.
                let new = RegisterB::from(value);
                let new = if new.set() { new.with_update_enable(false) } else { new };
                self.change_modes(now, |chip| chip.b = new.into());
            }
            Register::C | Register::D => {}
        }
        let starts = self.runs() && !ran;
        if starts {
            self.take_time(now);
        }
        starts
    }

    /// Stores the time where the change makes the clock stand still.
    fn change_modes(&mut self, now: Moment, change: impl FnOnce(&mut Self)) {
        let period = self.period();
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
        self.change_period(period);
    }

    /// Puts a byte into plain memory, as the board or firmware does; the clock's registers are not reached.
    pub fn set_memory(&mut self, index: u8, value: u8) {
        if Register::at(index) == Register::Memory {
            self.memory[usize::from(index & 0x7f)] = value;
        }
    }
}

mod state {
    use super::{super::periodic::LONGEST, LostTickPolicy, Moment, Rtc, SECOND, SIZE};

    /// Seconds in ten thousand years: no clock shows more.
    const FARTHEST: u64 = 400_000_000_000;

    saved_state!(Rtc => RtcV1 {
        index: u8, memory: Vec<u8>, a: u8, b: u8, c: u8, seconds: i64, nanoseconds: u32, divider_reset: bool,
        seen: Moment, policy: LostTickPolicy, phase: u64, owed: u32, due: Option<u64>,
    } if |s| s.memory.len() == SIZE && s.a < 0x80 && s.c & !0x70 == 0 && u64::from(s.nanoseconds) < SECOND
        && s.seconds.unsigned_abs() <= FARTHEST && s.phase < LONGEST);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rhea_core::SaveState;

    use super::*;

    /// 13 February 2009, 23:31:30, a Friday.
    const BASE: i64 = 1_234_567_890;

    fn ms(milliseconds: u64) -> Moment {
        Instant::from_nanos(milliseconds * 1_000_000).into()
    }

    const POLICIES: [LostTickPolicy; 4] =
        [LostTickPolicy::Discard, LostTickPolicy::Delay, LostTickPolicy::Merge, LostTickPolicy::Slew];

    fn get(rtc: &mut Rtc, index: u8, now: Moment) -> u8 {
        rtc.select(index);
        rtc.read(now)
    }

    fn put(rtc: &mut Rtc, index: u8, value: u8, now: Moment) {
        rtc.select(index);
        rtc.write(value, now);
    }

    fn shown(rtc: &mut Rtc, now: Moment) -> [u8; 8] {
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
        let at = |micros: u64| Moment::from(Instant::from_nanos(micros * 1000));
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
        assert_eq!(rtc.next_event(ms(0)), Some(ms(5000).machine));
        rtc.advance(ms(4999));
        assert!(!rtc.interrupt());
        rtc.advance(ms(5000));
        assert!(rtc.interrupt());
        // The periodic flag is set too, though its interrupt is not enabled.
        assert_eq!(get(&mut rtc, 0xc, ms(5000)), 0xf0);
        assert!(!rtc.interrupt());
        assert_eq!(rtc.next_event(ms(5000)), Some(ms(65_000).machine));
        put(&mut rtc, 0xb, 0x12, ms(5500));
        assert_eq!(rtc.next_event(ms(5500)), Some(ms(6000).machine));
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
            now = rtc.next_event(now).unwrap().into();
            rtc.advance(now);
            assert_eq!(get(&mut rtc, 0xc, now) & 0xc0, 0xc0);
        }
        assert_eq!(now, ms(1000));
    }

    #[test]
    fn what_the_date_follows_may_jump_and_alarms_on_the_way_go_off() {
        let mut rtc = Rtc::new(BASE);
        // 23:40 each day.
        for (index, value) in [(1, 0x00), (3, 0x40), (5, 0x23), (0xb, 0x22)] {
            put(&mut rtc, index, value, ms(0));
        }
        let jumped = |seconds: u64| Moment { machine: ms(10).machine, date: ms(seconds * 1000).date };
        rtc.advance(jumped(509));
        assert!(!rtc.interrupt());
        assert_eq!(rtc.next_event(jumped(509)), Some(ms(1010).machine));
        // Back by an hour, and on to where it was: nothing happens twice or too early.
        rtc.advance(jumped(0));
        rtc.advance(jumped(509));
        assert!(!rtc.interrupt());
        rtc.advance(jumped(600));
        assert!(rtc.interrupt());
        assert_eq!(shown(&mut rtc, jumped(600))[5..], [0x23, 0x41, 0x30]);
    }

    proptest! {
        #[test]
        fn any_access_is_harmless(policy in 0usize..4, ops in prop::collection::vec((any::<bool>(), 0u8..0x40, any::<u8>(), 0u64..1 << 45), 0..100)) {
            let mut rtc = Rtc::new(BASE);
            rtc.set_policy(POLICIES[policy]);
            let mut now = 0;
            for (write, index, value, wait) in ops {
                now += wait;
                let now = Moment::from(Instant::from_nanos(now));
                if write { put(&mut rtc, index, value, now) } else { get(&mut rtc, index, now); }
                rtc.advance(now);
                if let Some(event) = rtc.next_event(now) {
                    prop_assert!(event > now.machine);
                }
                prop_assert_eq!(&Rtc::load(rtc.save()).unwrap(), &rtc);
            }
        }

        #[test]
        fn flags_in_small_steps_equal_one_large_step(policy in 0usize..4, b in 0u8..0x80, rate in 0u8..16, times in prop::collection::vec(1u64..3_000_000_000, 1..20)) {
            let mut small = Rtc::new(BASE);
            small.set_policy(POLICIES[policy]);
            put(&mut small, 1, 0x33, ms(0));
            put(&mut small, 3, 0xff, ms(0));
            put(&mut small, 5, 0xff, ms(0));
            put(&mut small, 0xa, 0x20 | rate, ms(0));
            put(&mut small, 0xb, b, ms(0));
            let mut large = small.clone();
            let mut now = 0;
            for time in times {
                now += time;
                small.advance(Instant::from_nanos(now).into());
            }
            large.advance(Instant::from_nanos(now).into());
            prop_assert_eq!(small, large);
        }
    }
}
