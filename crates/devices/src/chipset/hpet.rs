//! The high precision event timer: a 100 MHz counter with three comparators.
//!
//! Source: Intel, "IA-PC HPET Specification" 1.0a (cited as §).

use std::sync::{Arc, Weak};

use bitfield_struct::bitfield;
use parking_lot::Mutex;
use rhea_core::{
    Device, Instant, InterruptLine, InterruptSink, LoadError, Mmio, SaveState, Timer, TimerQueue, Width, trace,
};
use serde::{Deserialize, Serialize};

pub use state::HpetV1;

use crate::{
    Saveable,
    lost_ticks::{Owed, OwedTickPolicy, OwesTicks, Taken},
};

/// Ticks that come one by one when the host is late; more of them melt into one.
const REPLAYED: usize = 64;

/// Where its window is, of 1 KiB.
pub const DEFAULT_BASE: u64 = 0xfed0_0000;
/// Femtoseconds a tick.
pub const PERIOD: u64 = 10_000_000;
/// Nanoseconds a tick.
const TICK: u64 = PERIOD / 1_000_000;
/// Comparators.
pub const TIMERS: usize = 3;
/// §2.3.4: revision 1, three timers of 64 bits, legacy replacement.
const CAPABILITIES: u64 = PERIOD << 32 | 0x8086 << 16 | 1 << 15 | 1 << 13 | (TIMERS as u64 - 1) << 8 | 1;

/// General configuration register (§2.3.5).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Configuration {
    enabled: bool,
    legacy: bool,
    #[bits(62)]
    __: u64,
}

/// Timer N configuration and capability register (§2.3.8), but its upper half.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct TimerConfiguration {
    __: bool,
    level: bool,
    interrupt: bool,
    periodic: bool,
    periodic_capable: bool,
    size_64: bool,
    value_set: bool,
    __: bool,
    force_32: bool,
    #[bits(5)]
    route: u8,
    #[bits(18)]
    __: u32,
}

/// What the guest may write of it.
const WRITABLE: u32 = 0x3f4e;

/// A 64-bit register, as its offset decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// General capabilities and identification.
    Capabilities,
    /// General configuration.
    Configuration,
    /// General interrupt status.
    Status,
    /// Main counter.
    Counter,
    /// Configuration of a timer.
    Timer(usize),
    /// Comparator of a timer.
    Comparator(usize),
    /// What is reserved, or of the message interrupts that are not here.
    Reserved,
}

impl Register {
    /// The register at an 8-byte aligned offset.
    pub const fn at(offset: u64) -> Self {
        let timer = (offset.wrapping_sub(0x100) / 0x20) as usize;
        match offset {
            0x000 => Self::Capabilities,
            0x010 => Self::Configuration,
            0x020 => Self::Status,
            0x0f0 => Self::Counter,
            0x100.. if timer < TIMERS => match offset & 0x18 {
                0x00 => Self::Timer(timer),
                0x08 => Self::Comparator(timer),
                _ => Self::Reserved,
            },
            _ => Self::Reserved,
        }
    }
}

/// One comparator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparator {
    configuration: u32,
    value: u64,
    period: u64,
    /// Ticks that came while the one before still waited to be taken, and are to be delivered yet; none in states that older
    /// programs saved.
    #[serde(default)]
    owed: u32,
}

impl Comparator {
    fn configuration(self) -> TimerConfiguration {
        self.configuration.into()
    }

    fn mask(self) -> u64 {
        if self.configuration().force_32() { 0xffff_ffff } else { u64::MAX }
    }

    /// Ticks until the next match when the counter is `counter`; none within reach of 64 bits.
    fn distance(self, counter: u64) -> Option<u64> {
        match self.value.wrapping_sub(counter) & self.mask() {
            0 => self.mask().checked_add(1),
            distance => Some(distance),
        }
    }

    /// The counter went on by `elapsed` from `counter`: whether it matched.
    fn advance(&mut self, counter: u64, elapsed: u64) -> bool {
        let Some(late) = self.distance(counter).and_then(|distance| elapsed.checked_sub(distance)) else {
            return false;
        };
        if self.configuration().periodic() && self.period != 0 {
            let periods = late / self.period + 1;
            self.value = self.value.wrapping_add(periods.wrapping_mul(self.period)) & self.mask();
        }
        true
    }
}

/// The chip alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Hpet {
    configuration: u64,
    status: u64,
    /// The counter at the tick `seen`; it stands still while the chip is not enabled.
    counter: u64,
    seen: u64,
    timers: [Comparator; TIMERS],
}

impl Default for Hpet {
    fn default() -> Self {
        Self::new()
    }
}

impl Hpet {
    /// A chip after power-on: the counter stands at zero; comparators are all ones (§2.3.9.1).
    pub fn new() -> Self {
        let timer = Comparator { value: u64::MAX, ..Comparator::default() };
        Self { configuration: 0, status: 0, counter: 0, seen: 0, timers: [timer; TIMERS] }
    }

    fn configuration(&self) -> Configuration {
        self.configuration.into()
    }

    /// Whether timers 0 and 1 stand in for the interval timer and the clock (§2.3.5, LEG_RT_CNF).
    pub fn is_legacy(&self) -> bool {
        self.configuration().legacy()
    }

    /// Lets time pass: the timers that pulse their line, a bit each.
    pub fn advance(&mut self, now: Instant) -> u8 {
        let tick = now.as_nanos() / TICK;
        let elapsed = tick.saturating_sub(self.seen);
        self.seen = self.seen.max(tick);
        if !self.configuration().enabled() || elapsed == 0 {
            return 0;
        }
        let mut pulses = 0;
        for (number, timer) in self.timers.iter_mut().enumerate() {
            if timer.advance(self.counter, elapsed) {
                let configuration = timer.configuration();
                if configuration.level() {
                    self.status |= 1 << number;
                } else if configuration.interrupt() {
                    pulses |= 1 << number;
                }
            }
        }
        self.counter = self.counter.wrapping_add(elapsed);
        pulses
    }

    /// The level of a timer's interrupt, where it is level-triggered.
    pub fn level(&self, timer: usize) -> bool {
        let enabled = self.timers.get(timer).is_some_and(|timer| timer.configuration().interrupt());
        enabled && self.configuration().enabled() && self.status & 1 << timer != 0
    }

    /// Whether a timer pulses its line again and again.
    pub fn is_periodic(&self, timer: usize) -> bool {
        self.timers.get(timer).is_some_and(|timer| timer.configuration().periodic() && !timer.configuration().level())
    }

    /// The ticks that are owed of a timer.
    fn owed(&mut self, timer: usize) -> Option<&mut u32> {
        self.timers.get_mut(timer).map(|timer| &mut timer.owed)
    }

    /// Timers are set anew: what they owed was of their former life.
    fn forget_owed(&mut self) {
        self.timers.iter_mut().for_each(|timer| timer.owed = 0);
    }

    /// The I/O APIC input of a timer while it is not a legacy one.
    pub fn route(&self, timer: usize) -> u8 {
        self.timers.get(timer).map_or(0, |timer| timer.configuration().route())
    }

    /// When the next interrupt is due: the adapter sets its timer to this. Time must have advanced to now.
    pub fn next_event(&self) -> Option<Instant> {
        if !self.configuration().enabled() {
            return None;
        }
        let waiting = self.timers.iter().enumerate().filter(|(number, timer)| {
            let configuration = timer.configuration();
            configuration.interrupt() && !(configuration.level() && self.status & 1 << number != 0)
        });
        let distance = waiting.filter_map(|(_, timer)| timer.distance(self.counter)).min()?;
        Some(Instant::from_nanos(self.seen.checked_add(distance)?.checked_mul(TICK)?))
    }

    /// The main counter at a moment that time need not have advanced to.
    pub const fn counter(&self, now: Instant) -> u64 {
        if self.configuration & 1 == 0 {
            return self.counter;
        }
        self.counter.wrapping_add((now.as_nanos() / TICK).saturating_sub(self.seen))
    }

    /// A read of a whole register; time must have advanced to now.
    pub fn read(&self, register: Register) -> u64 {
        match register {
            Register::Capabilities => CAPABILITIES,
            Register::Configuration => self.configuration,
            Register::Status => self.status,
            Register::Counter => self.counter,
            Register::Timer(number) => self.timers.get(number).map_or(0, |timer| {
                timer.configuration().with_periodic_capable(true).with_size_64(true).into_bits().into()
            }),
            Register::Comparator(number) => self.timers.get(number).map_or(0, |timer| timer.value & timer.mask()),
            Register::Reserved => 0,
        }
    }

    /// A write of the bits in `mask` of a register; time must have advanced to now.
    pub fn write(&mut self, register: Register, value: u64, mask: u64) {
        let merged = |old: u64| old & !mask | value & mask;
        match register {
            Register::Configuration => self.configuration = merged(self.configuration) & 3,
            // §2.3.6: ones clear.
            Register::Status => self.status &= !(value & mask),
            Register::Counter if !self.configuration().enabled() => self.counter = merged(self.counter),
            Register::Timer(number) => {
                let Some(timer) = self.timers.get_mut(number) else { return };
                let writable = mask as u32 & WRITABLE;
                timer.configuration = timer.configuration & !writable | value as u32 & writable;
                timer.value &= timer.mask();
                timer.period &= timer.mask();
                if !timer.configuration().level() {
                    self.status &= !(1 << number);
                }
            }
            Register::Comparator(number) => {
                let Some(timer) = self.timers.get_mut(number) else { return };
                let configuration = timer.configuration();
                if !configuration.periodic() || configuration.value_set() {
                    timer.value = merged(timer.value) & timer.mask();
                }
                if configuration.periodic() {
                    timer.period = merged(timer.period) & timer.mask();
                }
                timer.configuration = configuration.with_value_set(false).into();
            }
            Register::Capabilities | Register::Counter | Register::Reserved => {}
        }
    }
}

mod state {
    use super::{Comparator, Hpet, TIMERS, WRITABLE};
    use crate::lost_ticks::MOST;

    saved_state!(Hpet => HpetV1 {
        configuration: u64, status: u64, counter: u64, seen: u64, timers: [Comparator; TIMERS],
    } if |s| s.configuration < 4 && s.status < 1 << TIMERS && s.timers.iter().all(|timer| {
        timer.configuration & !WRITABLE == 0 && timer.value & !timer.mask() == 0 && timer.period & !timer.mask() == 0
            && timer.owed <= MOST
    }));
}

/// Pins of the [`Hpet`] adapter as an [`InterruptSink`], and its outputs in their place: interrupt 0, of the interval timer.
pub const PIN_TIMER: u32 = 0;
/// Interrupt 8, of the CMOS clock.
pub const PIN_CLOCK: u32 = 1;

struct Inner {
    chip: Hpet,
    /// The levels of the interval timer and the clock.
    inputs: [bool; 2],
    armed: Option<Instant>,
    owed: Owed,
}

/// The timer in memory. Interrupts 0 and 8 pass through it, so that it can stand in for their devices: the interval timer
/// drives its pin 0 and the clock its pin 1.
#[derive(rhea_core::object::Object)]
#[object(type = "hpet", parent = "sys-bus-device")]
pub struct MmioHpet {
    /// What becomes of ticks that the guest does not take in time.
    #[property(name = "lost_tick_policy", default = OwedTickPolicy::Slew)]
    lost_tick_policy: OwedTickPolicy,
    inner: Mutex<Inner>,
    legacy: [InterruptLine; 2],
    /// Where the timers may interrupt otherwise, by number of the I/O APIC input.
    routes: Vec<(u8, InterruptLine)>,
    timer: Timer,
}

impl MmioHpet {
    /// A timer that drives interrupts 0 and 8 by `legacy` and can be routed to the inputs (0 to 31) of `routes`. `taken`
    /// tells that interrupts are taken.
    pub fn new(
        timers: &Arc<TimerQueue>,
        legacy: [InterruptLine; 2],
        routes: Vec<(u8, InterruptLine)>,
        lost_tick_policy: OwedTickPolicy,
        taken: &Arc<Taken>,
    ) -> Arc<Self> {
        let mut chip = Hpet::new();
        chip.advance(timers.clock().now());
        let owed = Owed::new(lost_tick_policy, taken);
        let hpet = Arc::new_cyclic(|weak: &Weak<Self>| {
            let weak = Weak::clone(weak);
            let timer = timers.timer(move |now| {
                if let Some(hpet) = weak.upgrade() {
                    hpet.with(now, |_| ());
                }
            });
            let inner = Mutex::new(Inner { chip, inputs: [false; 2], armed: None, owed });
            Self { lost_tick_policy, inner, legacy, routes, timer }
        });
        let weak: Weak<Self> = Arc::downgrade(&hpet);
        taken.add(weak);
        hpet
    }

    fn with<T>(&self, now: Instant, change: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.inner.lock();
        // Where the host is late, ticks come one by one.
        for _ in 0..REPLAYED {
            match inner.chip.next_event() {
                Some(event) if event <= now => self.pulse(&mut inner, event),
                _ => break,
            }
        }
        self.pulse(&mut inner, now);
        let result = change(&mut inner);
        self.drive(&inner);
        let event = inner.chip.next_event();
        if inner.armed != event {
            inner.armed = event;
            self.timer.set_or_cancel(event);
        }
        result
    }

    /// Lets time pass, and pulses the lines of the timers that matched.
    fn pulse(&self, inner: &mut Inner, now: Instant) {
        let Inner { chip, owed, .. } = inner;
        let pulses = chip.advance(now);
        for timer in (0..TIMERS).filter(|timer| pulses & 1 << timer != 0) {
            let Some(line) = self.output(chip, timer) else { continue };
            if chip.is_periodic(timer)
                && let Some(ticks) = chip.owed(timer)
            {
                owed.come(ticks, line);
            }
            line.pulse();
        }
    }

    fn output(&self, chip: &Hpet, timer: usize) -> Option<&InterruptLine> {
        if chip.is_legacy() && timer < 2 {
            return self.legacy.get(timer);
        }
        let route = chip.route(timer);
        self.routes.iter().find(|(input, _)| *input == route).map(|(_, line)| line)
    }

    fn drive(&self, inner: &Inner) {
        let Inner { chip, inputs, .. } = inner;
        for (number, line) in self.legacy.iter().enumerate() {
            line.set(if chip.is_legacy() { chip.level(number) } else { inputs[number] });
        }
        let routed = if chip.is_legacy() { 2 } else { 0 }..TIMERS;
        for (input, line) in &self.routes {
            line.set(routed.clone().any(|timer| chip.route(timer) == *input && chip.level(timer)));
        }
    }

    /// The upper half of the timers' configuration: which inputs they can be routed to.
    fn route_capabilities(&self) -> u64 {
        self.routes.iter().fold(0, |set, (input, _)| set | 1 << (input & 31)) << 32
    }
}

impl OwesTicks for MmioHpet {
    fn taken(&self) {
        let mut inner = self.inner.lock();
        let Inner { chip, owed, .. } = &mut *inner;
        for timer in 0..TIMERS {
            if let Some(line) = self.output(chip, timer)
                && let Some(ticks) = chip.owed(timer)
            {
                owed.deliver(ticks, line, false);
            }
        }
    }
}

impl InterruptSink for MmioHpet {
    /// While this timer stands in for those others, nobody waits for them.
    fn is_pending(&self, pin: u32) -> bool {
        let legacy = self.inner.lock().chip.is_legacy();
        !legacy && self.legacy.get(pin as usize).is_some_and(InterruptLine::is_pending)
    }

    fn set_level(&self, pin: u32, level: bool) {
        let mut inner = self.inner.lock();
        if let Some(input) = inner.inputs.get_mut(pin as usize) {
            *input = level;
            self.drive(&inner);
        }
    }
}

impl Mmio for MmioHpet {
    fn name(&self) -> &str {
        "hpet"
    }

    fn read(&self, offset: u64, _: Width) -> u64 {
        let register = Register::at(offset & !7);
        let now = self.timer.now();
        let value = match register {
            // Guests tell the time by it.
            Register::Counter => self.inner.lock().chip.counter(now),
            _ => self.with(now, |inner| inner.chip.read(register)),
        };
        let value = if let Register::Timer(_) = register { value | self.route_capabilities() } else { value };
        let value = value >> (8 * (offset & 7));
        trace!(HPET_RAM_READ, "addr 0x{offset:x} value 0x{value:x}");
        value
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        trace!(HPET_RAM_WRITE, "addr 0x{offset:x} value 0x{value:x} size {}", width.bytes());
        let shift = 8 * (offset & 7);
        self.with(self.timer.now(), |inner| {
            let register = Register::at(offset & !7);
            if matches!(register, Register::Configuration | Register::Timer(_) | Register::Comparator(_)) {
                inner.chip.forget_owed();
            }
            inner.chip.write(register, value << shift, width.ones() << shift);
        });
    }
}

impl Device for MmioHpet {
    fn reset(&self) {
        let now = self.timer.now();
        self.with(now, |inner| {
            inner.chip = Hpet::new();
            // The counter stands, so that where in time it stands does not matter.
            inner.chip.advance(now);
        });
    }
}

impl Saveable for MmioHpet {
    type Chip = Hpet;
    const KIND: &'static str = "hpet";

    fn save(&self) -> HpetV1 {
        self.inner.lock().chip.save()
    }

    fn restore(&self, state: HpetV1) -> Result<(), LoadError> {
        let hpet = Hpet::load(state)?;
        self.with(self.timer.now(), |inner| {
            let Inner { chip, owed, .. } = inner;
            *chip = hpet;
            chip.timers.iter_mut().for_each(|timer| owed.take_over(&mut timer.owed));
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rhea_core::Clock;

    use super::*;

    /// Changes of the lines, and their levels.
    #[derive(Default)]
    struct Log(Mutex<(Vec<(u32, bool)>, u32)>);

    impl InterruptSink for Log {
        fn set_level(&self, pin: u32, level: bool) {
            let mut log = self.0.lock();
            if (log.1 & 1 << pin != 0) != level {
                log.1 ^= 1 << pin;
                log.0.push((pin, level));
            }
        }
    }

    struct Bench {
        clock: Arc<Clock>,
        timers: Arc<TimerQueue>,
        hpet: Arc<MmioHpet>,
        log: Arc<Log>,
    }

    impl Bench {
        fn new() -> Self {
            let clock = Clock::new();
            let timers = TimerQueue::new(Arc::clone(&clock));
            let log = Arc::new(Log::default());
            let line = |pin| InterruptLine::new(Arc::clone(&log) as _, pin);
            let hpet =
                MmioHpet::new(&timers, [line(0), line(8)], vec![(20, line(20))], OwedTickPolicy::Slew, &Arc::default());
            Self { clock, timers, hpet, log }
        }

        fn write(&self, offset: u64, value: u64) {
            self.hpet.write(offset, Width::Dword, value);
        }

        fn read(&self, offset: u64) -> u64 {
            self.hpet.read(offset, Width::Qword)
        }

        fn run_to(&self, nanoseconds: u64) {
            self.clock.set(Instant::from_nanos(nanoseconds));
            self.timers.run_expired();
        }

        fn log(&self) -> Vec<(u32, bool)> {
            std::mem::take(&mut self.log.0.lock().0)
        }
    }

    const PULSE_0: [(u32, bool); 2] = [(0, true), (0, false)];

    #[test]
    fn the_counter_counts_while_enabled_and_is_set_while_not() {
        let bench = Bench::new();
        assert_eq!(bench.read(0), 0x0098_9680_8086_a201);
        bench.run_to(1000);
        assert_eq!(bench.read(0xf0), 0);
        bench.write(0xf4, 1);
        bench.write(0x10, 1);
        bench.run_to(2000);
        assert_eq!(bench.read(0xf0), 0x1_0000_0064);
        bench.write(0xf0, 0);
        bench.write(0x10, 0);
        bench.run_to(3000);
        assert_eq!(bench.read(0xf0), 0x1_0000_0064);
    }

    #[test]
    fn a_one_shot_timer_pulses_at_its_comparator() {
        let bench = Bench::new();
        bench.write(0x100, 0x4);
        bench.write(0x10, 3);
        bench.hpet.write(0x108, Width::Qword, 500);
        bench.run_to(4999);
        assert_eq!(bench.log(), []);
        bench.run_to(5000);
        assert_eq!(bench.log(), PULSE_0);
        bench.run_to(500_000);
        assert_eq!(bench.log(), []);
    }

    #[test]
    fn a_periodic_timer_adds_its_period_to_the_comparator() {
        let bench = Bench::new();
        bench.write(0x10, 3);
        bench.write(0x100, 0x14c);
        bench.write(0x108, 100);
        bench.write(0x108, 50);
        bench.run_to(1000);
        assert_eq!((bench.log(), bench.read(0x108)), (PULSE_0.into(), 150));
        // Late by several periods: a pulse each, and the beat is kept.
        bench.run_to(2700);
        assert_eq!((bench.log(), bench.read(0x108)), (PULSE_0.repeat(3), 300));
        assert_eq!(bench.timers.next_deadline(), Some(Instant::from_nanos(3000)));
    }

    #[test]
    fn a_32_bit_timer_matches_at_each_turn_of_the_lower_half() {
        let bench = Bench::new();
        bench.write(0x10, 3);
        bench.write(0x100, 0x104);
        bench.hpet.write(0x108, Width::Qword, 0xff_0000_0010);
        assert_eq!(bench.read(0x108), 0x10);
        bench.run_to(160);
        bench.run_to(160 + (10 << 32));
        assert_eq!(bench.log().len(), 4);
    }

    #[test]
    fn a_level_stands_until_its_status_is_cleared() {
        let bench = Bench::new();
        bench.write(0x140, 20 << 9 | 6);
        assert_eq!(bench.read(0x140) >> 32, 1 << 20);
        bench.write(0x148, 10);
        bench.write(0x14c, 0);
        bench.write(0x10, 1);
        bench.run_to(100);
        assert_eq!((bench.log(), bench.read(0x20)), (vec![(20, true)], 4));
        bench.write(0x20, 4);
        assert_eq!((bench.log(), bench.read(0x20)), (vec![(20, false)], 0));
    }

    #[test]
    fn legacy_replacement_cuts_off_the_interval_timer_and_the_clock() {
        let bench = Bench::new();
        bench.hpet.set_level(PIN_CLOCK, true);
        assert_eq!(bench.log(), [(8, true)]);
        bench.write(0x10, 2);
        assert_eq!(bench.log(), [(8, false)]);
        bench.hpet.set_level(PIN_TIMER, true);
        assert_eq!(bench.log(), []);
        bench.write(0x10, 0);
        assert_eq!(bench.log(), [(0, true), (8, true)]);
    }

    #[test]
    fn reset_equals_new() {
        let bench = Bench::new();
        bench.write(0x100, 0x14c);
        bench.write(0x108, 100);
        bench.write(0x10, 3);
        bench.hpet.reset();
        assert_eq!(bench.hpet.inner.lock().chip, Hpet::new());
        assert_eq!(bench.timers.next_deadline(), None);
    }

    proptest! {
        #[test]
        fn any_access_is_harmless(ops in prop::collection::vec((any::<bool>(), 0u64..0x180, 0u32..4, any::<u64>(), 0u64..1 << 40), 0..100)) {
            let bench = Bench::new();
            let mut now = 0;
            for (write, offset, width, value, wait) in ops {
                now += wait;
                bench.run_to(now);
                let width = Width::of(1 << width).unwrap();
                if write { bench.hpet.write(offset, width, value) } else { bench.hpet.read(offset, width); }
                let chip = bench.hpet.inner.lock().chip.clone();
                prop_assert_eq!(Hpet::load(chip.save()).unwrap(), chip);
            }
        }

        #[test]
        fn small_steps_equal_one_large_step(
            first in 1u64..500, period in 1u64..100, short: bool, times in prop::collection::vec(1u64..2000, 1..20),
        ) {
            let mut small = Hpet::new();
            small.write(Register::Timer(0), 0x4c | u64::from(short) << 8, u64::MAX);
            small.write(Register::Comparator(0), first, u64::MAX);
            small.write(Register::Comparator(0), period, u64::MAX);
            small.write(Register::Configuration, 1, u64::MAX);
            let mut large = small.clone();
            let (mut now, mut pulses) = (0, 0);
            for time in times {
                now += time;
                pulses |= small.advance(Instant::from_nanos(now));
            }
            prop_assert_eq!(pulses, large.advance(Instant::from_nanos(now)));
            prop_assert_eq!(small, large);
        }
    }
}
