//! The interval timer: an 8254 with counter 0 on interrupt line 0, and the port 0x61 that gates its counter 2.
//!
//! Source: Intel 231164, "8254 Programmable Interval Timer" (cited as §); port 0x61: Intel 290550, "82371SB (PIIX3)",
//! NMI Status and Control Register.

use std::sync::{Arc, Weak};

use bitfield_struct::bitfield;
use parking_lot::Mutex;
use rhea_core::{
    Device, Instant, InterruptLine, LoadError, PortIo, PortSpace, SaveState, Timer, TimerQueue, Width, trace,
};

pub use super::pit_counter::{Access, Counter, CounterV1, Mode};
pub use state::PitV1;

use crate::{
    Saveable,
    lost_ticks::{Owed, OwedTickPolicy, OwesTicks, Taken},
};

/// Ticks of CLK a second.
pub const FREQUENCY: u64 = 1_193_182;

/// Nanoseconds between two refresh requests, by which bit 4 of port 0x61 toggles.
const REFRESH: u64 = 15_085;

/// Edges of OUT that are replayed one by one when the timer ran late; more of them melt into one.
const REPLAYED: usize = 128;

/// What an access to one of the four ports means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// The port of a counter.
    Counter(usize),
    /// The control word.
    Control,
}

impl Register {
    /// `offset` from the base port, 0 to 3.
    pub const fn at(offset: u16) -> Self {
        match offset & 3 {
            3 => Self::Control,
            counter => Self::Counter(counter as usize),
        }
    }
}

/// NMI status and control, port 0x61.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct SystemControl {
    gate_2: bool,
    speaker: bool,
    /// PERR and IOCHK enables: kept, nothing raises them.
    #[bits(2)]
    error_enables: u8,
    refresh: bool,
    output_2: bool,
    #[bits(2)]
    errors: u8,
}

/// The chip alone, with the gate of counter 2 and the speaker bit beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Pit {
    counters: [Counter; 3],
    /// Bits 0 to 3 of port 0x61 as written.
    control: u8,
    /// Ticks of counter 0 that came while the one before still waited to be taken, and are to be delivered yet.
    owed: u32,
}

impl Default for Pit {
    fn default() -> Self {
        Self::new()
    }
}

const fn tick(now: Instant) -> i64 {
    now.ticks(FREQUENCY) as i64
}

impl Pit {
    /// A chip after power-on: no counter counts; the gates of 0 and 1 are tied high.
    pub const fn new() -> Self {
        Self { counters: [Counter::new(true), Counter::new(true), Counter::new(false)], control: 0, owed: 0 }
    }

    /// A write to one of the four ports.
    pub fn write(&mut self, register: Register, value: u8, now: Instant) {
        let tick = tick(now);
        match register {
            Register::Counter(number) => {
                if let Some(counter) = self.counters.get_mut(number) {
                    counter.write(value, tick);
                }
            }
            Register::Control if value >> 6 == 3 => self.read_back(value, tick),
            Register::Control => {
                if let Some(counter) = self.counters.get_mut(usize::from(value >> 6)) {
                    if value & 0x30 == 0 {
                        counter.latch_count(tick);
                    } else {
                        counter.program(value);
                    }
                }
            }
        }
    }

    /// § "Read-Back Command": bits 5 and 4 are active low.
    fn read_back(&mut self, value: u8, tick: i64) {
        for (number, counter) in self.counters.iter_mut().enumerate() {
            if value & 2 << number != 0 {
                if value & 0x20 == 0 {
                    counter.latch_count(tick);
                }
                if value & 0x10 == 0 {
                    counter.latch_status(tick);
                }
            }
        }
    }

    /// A read of one of the four ports; the control port is write-only and reads as zero.
    pub fn read(&mut self, register: Register, now: Instant) -> u8 {
        match register {
            Register::Counter(number) => self.counters.get_mut(number).map_or(0, |counter| counter.read(tick(now))),
            Register::Control => 0,
        }
    }

    /// A write to port 0x61.
    pub fn write_control(&mut self, value: u8, now: Instant) {
        self.control = value & 0xf;
        self.counters[2].set_gate(SystemControl::from(value).gate_2(), tick(now));
    }

    /// A read of port 0x61.
    pub fn read_control(&self, now: Instant) -> u8 {
        SystemControl::from(self.control)
            .with_refresh((now.as_nanos() / REFRESH) & 1 != 0)
            .with_output_2(self.output(2, now))
            .into()
    }

    /// Whether a counter ticks again and again: modes 2 and 3.
    pub fn is_periodic(&self, counter: usize) -> bool {
        self.counters.get(counter).is_some_and(Counter::is_periodic)
    }

    /// The level of a counter's OUT pin.
    pub fn output(&self, counter: usize, now: Instant) -> bool {
        self.counters.get(counter).is_some_and(|counter| counter.output(tick(now)))
    }

    /// When a counter's OUT may next change, if ever: the adapter sets its timer to this.
    pub fn next_edge(&self, counter: usize, now: Instant) -> Option<Instant> {
        let edge = self.counters.get(counter)?.next_edge(tick(now))?;
        Some(Instant::of_ticks(u64::try_from(edge).ok()?, FREQUENCY))
    }
}

mod state {
    use rhea_core::{LoadError, SaveState};

    use super::{Counter, CounterV1, Pit};
    use crate::lost_ticks::MOST;

    /// Saved form of [`Pit`].
    #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    pub struct PitV1 {
        /// The three counters.
        pub counters: [CounterV1; 3],
        /// Port 0x61, the bits that are kept.
        pub control: u8,
        /// Ticks that are owed; none in states that older programs saved.
        #[serde(default)]
        pub owed: u32,
    }

    impl SaveState for Pit {
        type State = PitV1;

        fn save(&self) -> PitV1 {
            let Self { counters, control, owed } = self;
            PitV1 { counters: counters.each_ref().map(SaveState::save), control: *control, owed: *owed }
        }

        fn load(state: PitV1) -> Result<Self, LoadError> {
            let PitV1 { counters: [a, b, c], control, owed } = state;
            if control > 0xf || c.gate != (control & 1 != 0) {
                return Err(LoadError::invalid("Pit", "the gate of counter 2 and port 0x61 disagree"));
            }
            if owed > MOST {
                return Err(LoadError::invalid("Pit", "more ticks than are ever owed"));
            }
            Ok(Self { counters: [Counter::load(a)?, Counter::load(b)?, Counter::load(c)?], control, owed })
        }
    }
}

struct Inner {
    chip: Pit,
    /// Up to when the interrupt line has followed OUT of counter 0.
    driven: Instant,
    /// The level that it has.
    level: bool,
    owed: Owed,
}

impl Inner {
    fn drive(&mut self, line: &InterruptLine, level: bool) {
        if level && !self.level && self.chip.is_periodic(0) {
            self.owed.come(&mut self.chip.owed, line);
        }
        self.level = level;
        line.set(level);
    }
}

/// The timer at its ISA ports 0x40 to 0x43 and 0x61.
#[derive(rhea_core::object::Object)]
#[object(type = "isa-pit", parent = "isa-device")]
pub struct IsaPit {
    /// What becomes of ticks that the guest does not take in time.
    #[property(name = "lost_tick_policy", default = OwedTickPolicy::Slew)]
    lost_tick_policy: OwedTickPolicy,
    inner: Mutex<Inner>,
    line: InterruptLine,
    timer: Timer,
}

impl IsaPit {
    /// A timer on the machine's `timers` that drives `line` with OUT of counter 0. `taken` tells that interrupts are taken.
    pub fn new(
        timers: &Arc<TimerQueue>,
        line: InterruptLine,
        lost_tick_policy: OwedTickPolicy,
        taken: &Arc<Taken>,
    ) -> Arc<Self> {
        let owed = Owed::new(lost_tick_policy, taken);
        let pit = Arc::new_cyclic(|weak: &Weak<Self>| {
            let weak = Weak::clone(weak);
            let timer = timers.timer(move |now| {
                if let Some(pit) = weak.upgrade() {
                    pit.with(now, |_| ());
                }
            });
            let inner = Mutex::new(Inner { chip: Pit::new(), driven: timer.now(), level: false, owed });
            Self { lost_tick_policy, inner, line, timer }
        });
        let weak: Weak<Self> = Arc::downgrade(&pit);
        taken.add(weak);
        pit
    }

    /// Puts the ports into `ports`.
    pub fn map(self: &Arc<Self>, ports: &PortSpace) {
        ports.map(0x40, 4, Arc::clone(self) as Arc<dyn PortIo>);
        ports.map(0x61, 1, Arc::new(ControlPort(Arc::clone(self))));
    }

    /// Lets the line follow what passed until `now`, changes the chip, and sets line and timer to what follows.
    fn with<T>(&self, now: Instant, change: impl FnOnce(&mut Pit) -> T) -> T {
        let mut inner = self.inner.lock();
        for _ in 0..REPLAYED {
            match inner.chip.next_edge(0, inner.driven) {
                Some(edge) if edge <= now => {
                    let level = inner.chip.output(0, edge);
                    inner.drive(&self.line, level);
                    inner.driven = edge;
                }
                _ => break,
            }
        }
        let result = change(&mut inner.chip);
        inner.level = inner.chip.output(0, now);
        self.line.set(inner.level);
        inner.driven = now;
        self.timer.set_or_cancel(inner.chip.next_edge(0, now));
        result
    }
}

impl OwesTicks for IsaPit {
    fn taken(&self) {
        let mut inner = self.inner.lock();
        let Inner { chip, level, owed, .. } = &mut *inner;
        owed.deliver(&mut chip.owed, &self.line, *level);
    }
}

impl PortIo for IsaPit {
    fn name(&self) -> &str {
        "pit"
    }

    fn read(&self, offset: u16, _: Width) -> u32 {
        let now = self.timer.now();
        let value = self.inner.lock().chip.read(Register::at(offset), now);
        trace!(PIT_IOPORT_READ, "addr 0x{offset:x} val 0x{value:x}");
        value.into()
    }

    fn write(&self, offset: u16, _: Width, value: u32) {
        trace!(PIT_IOPORT_WRITE, "addr 0x{offset:x} val 0x{value:x}");
        let (now, register) = (self.timer.now(), Register::at(offset));
        self.with(now, |chip| chip.write(register, value as u8, now));
        // A latch command looks at the counter and leaves it as it is.
        let latch = register == Register::Control && value & 0x30 == 0;
        let of_timer = register == Register::Counter(0) || register == Register::Control && value & 0xc0 == 0;
        if of_timer && !latch {
            // What it owed was of its former life.
            self.inner.lock().chip.owed = 0;
        }
    }
}

impl Device for IsaPit {
    fn reset(&self) {
        self.with(self.timer.now(), |chip| *chip = Pit::new());
    }
}

impl Saveable for IsaPit {
    type Chip = Pit;
    const KIND: &'static str = "isa-pit";

    fn save(&self) -> PitV1 {
        self.inner.lock().chip.save()
    }

    fn restore(&self, state: PitV1) -> Result<(), LoadError> {
        let pit = Pit::load(state)?;
        self.with(self.timer.now(), |chip| *chip = pit);
        let mut inner = self.inner.lock();
        let Inner { chip, owed, .. } = &mut *inner;
        owed.take_over(&mut chip.owed);
        Ok(())
    }
}

struct ControlPort(Arc<IsaPit>);

impl PortIo for ControlPort {
    fn name(&self) -> &str {
        "pcspk"
    }

    fn read(&self, _: u16, _: Width) -> u32 {
        let now = self.0.timer.now();
        self.0.inner.lock().chip.read_control(now).into()
    }

    fn write(&self, _: u16, _: Width, value: u32) {
        let now = self.0.timer.now();
        self.0.with(now, |chip| chip.write_control(value as u8, now));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rhea_core::{Clock, InterruptSink};

    use super::*;

    const fn at(tick: u64) -> Instant {
        Instant::of_ticks(tick, FREQUENCY)
    }

    fn counter(control: u8, count: u16, tick: u64) -> Pit {
        let mut pit = Pit::new();
        pit.write(Register::Control, control, at(tick));
        for byte in count.to_le_bytes() {
            pit.write(Register::Counter(usize::from(control >> 6)), byte, at(tick));
        }
        pit
    }

    fn levels(pit: &Pit, ticks: std::ops::Range<u64>) -> String {
        ticks.map(|tick| if pit.output(0, at(tick)) { '^' } else { '_' }).collect()
    }

    fn value(pit: &mut Pit, tick: u64) -> u16 {
        pit.write(Register::Control, 0, at(tick));
        let low = pit.read(Register::Counter(0), at(tick));
        u16::from_le_bytes([low, pit.read(Register::Counter(0), at(tick))])
    }

    #[test]
    fn mode_0_rises_n_plus_1_ticks_after_the_count_and_counts_on() {
        let mut pit = counter(0x30, 3, 10);
        assert_eq!(levels(&pit, 10..17), "____^^^");
        assert_eq!(value(&mut pit, 12), 2);
        assert_eq!(value(&mut pit, 15), 0xffff);
    }

    #[test]
    fn mode_0_stops_while_the_gate_is_low_and_restarts_by_a_count() {
        let mut pit = Pit::new();
        pit.write_control(1, at(0));
        pit.write(Register::Control, 0xb0, at(0));
        pit.write(Register::Counter(2), 10, at(0));
        pit.write(Register::Counter(2), 0, at(0));
        pit.write_control(0, at(5));
        assert!(!pit.output(2, at(500)));
        pit.write_control(1, at(500));
        assert!(!pit.output(2, at(505)));
        assert!(pit.output(2, at(506)));
        assert_eq!(pit.read_control(at(506)) & 0x21, 0x21);
        // The first byte of a new count sets OUT low again.
        pit.write(Register::Counter(2), 2, at(510));
        assert!(!pit.output(2, at(600)));
        pit.write(Register::Counter(2), 0, at(600));
        assert!(pit.output(2, at(603)));
    }

    #[test]
    fn mode_1_is_low_for_the_count_after_each_rise_of_the_gate() {
        let mut pit = Pit::new();
        pit.write(Register::Control, 0x92, at(0));
        pit.write(Register::Counter(2), 3, at(0));
        assert!(pit.output(2, at(5)));
        pit.write_control(1, at(10));
        let out = |pit: &Pit, tick| pit.output(2, at(tick));
        assert!(out(&pit, 10) && !out(&pit, 11) && !out(&pit, 13) && out(&pit, 14));
        // A retrigger within the pulse makes it longer.
        pit.write_control(0, at(20));
        pit.write_control(1, at(21));
        pit.write_control(0, at(22));
        pit.write_control(1, at(23));
        assert!(!out(&pit, 22) && !out(&pit, 23) && !out(&pit, 26) && out(&pit, 27));
    }

    #[test]
    fn mode_2_is_low_in_the_last_tick_of_each_period() {
        let mut pit = counter(0x34, 3, 0);
        assert_eq!(levels(&pit, 0..10), "^^^_^^_^^_");
        assert_eq!((value(&mut pit, 1), value(&mut pit, 3), value(&mut pit, 4)), (3, 1, 3));
        assert_eq!(pit.next_edge(0, at(1)), Some(at(3)));
        assert_eq!(pit.next_edge(0, at(3)), Some(at(4)));
    }

    #[test]
    fn a_new_count_in_mode_2_takes_effect_at_the_end_of_the_period() {
        let mut pit = counter(0x34, 4, 0);
        pit.write(Register::Counter(0), 2, at(6));
        pit.write(Register::Counter(0), 0, at(6));
        // Periods from 1: 1-4, 5-8, then of two ticks.
        assert_eq!(levels(&pit, 5..13), "^^^_^_^_");
    }

    #[test]
    fn a_count_of_one_has_no_edges_until_another_follows() {
        let mut pit = counter(0x34, 1, 0);
        assert_eq!(pit.next_edge(0, at(5)), None);
        pit.write(Register::Counter(0), 2, at(5));
        pit.write(Register::Counter(0), 0, at(5));
        assert_eq!(pit.next_edge(0, at(5)), Some(at(6)));
        assert_eq!(levels(&pit, 5..10), "^^_^_");
    }

    #[test]
    fn mode_3_is_high_one_tick_longer_for_odd_counts() {
        let mut pit = counter(0x36, 5, 0);
        assert_eq!(levels(&pit, 1..11), "^^^__^^^__");
        let values: Vec<_> = (1..6).map(|tick| value(&mut pit, tick)).collect();
        assert_eq!(values, [4, 2, 0, 4, 2]);
        let mut pit = counter(0x36, 4, 0);
        assert_eq!(levels(&pit, 1..9), "^^__^^__");
        assert_eq!((value(&mut pit, 1), value(&mut pit, 2), value(&mut pit, 3)), (4, 2, 4));
    }

    #[test]
    fn a_new_count_in_mode_3_takes_effect_at_the_end_of_the_half_period() {
        let mut pit = counter(0x36, 8, 0);
        for byte in [4, 0] {
            pit.write(Register::Counter(0), byte, at(2));
        }
        assert_eq!(levels(&pit, 1..11), "^^^^__^^__");
    }

    #[test]
    fn mode_4_strobes_once_for_one_tick() {
        let pit = counter(0x38, 3, 0);
        assert_eq!(levels(&pit, 0..8), "^^^^_^^^");
        assert_eq!(pit.next_edge(0, at(4)), Some(at(5)));
        assert_eq!(pit.next_edge(0, at(5)), None);
    }

    #[test]
    fn mode_5_strobes_after_a_rise_of_the_gate() {
        let mut pit = counter(0xba, 3, 0);
        assert_eq!(pit.next_edge(2, at(50)), None);
        pit.write_control(1, at(100));
        assert_eq!(pit.next_edge(2, at(101)), Some(at(104)));
        assert!(!pit.output(2, at(104)) && pit.output(2, at(105)));
    }

    #[test]
    fn bcd_counts_in_decimal_digits() {
        let mut pit = counter(0x31, 0x0100, 0);
        assert_eq!(value(&mut pit, 2), 0x0099);
        let mut zero = counter(0x31, 0, 0);
        assert_eq!(value(&mut zero, 2), 0x9999);
    }

    #[test]
    fn read_back_latches_status_before_the_count_and_once() {
        let mut pit = counter(0x34, 100, 0);
        pit.write(Register::Control, 0xc2, at(0));
        // OUT high, null count until the load, both bytes, mode 2.
        assert_eq!(pit.read(Register::Counter(0), at(0)), 0xf4);
        assert_eq!(pit.read(Register::Counter(0), at(0)), 100);
        pit.read(Register::Counter(0), at(0));
        pit.write(Register::Control, 0xd2, at(11));
        pit.write(Register::Control, 0xd2, at(21));
        assert_eq!(pit.read(Register::Counter(0), at(30)), 90);
    }

    #[test]
    fn polling_channel_2_through_port_61_sees_the_high_byte_fall_evenly() {
        let mut pit = Pit::new();
        pit.write_control(1, at(0));
        pit.write(Register::Control, 0xb0, at(0));
        pit.write(Register::Counter(2), 0xff, at(0));
        pit.write(Register::Counter(2), 0xff, at(0));
        for step in 1..200u64 {
            let now = at(step * 256 + 2);
            pit.read(Register::Counter(2), now);
            assert_eq!(u64::from(pit.read(Register::Counter(2), now)), 0xff - step);
        }
    }

    struct Edges(Mutex<(bool, u32)>);

    impl InterruptSink for Edges {
        fn set_level(&self, _: u32, level: bool) {
            let mut state = self.0.lock();
            state.1 += u32::from(level && !state.0);
            state.0 = level;
        }
    }

    #[test]
    fn the_line_has_one_rising_edge_a_period_also_when_the_timer_runs_late() {
        let clock = Clock::new();
        let timers = TimerQueue::new(Arc::clone(&clock));
        let edges = Arc::new(Edges(Mutex::new((true, 0))));
        let pit =
            IsaPit::new(&timers, InterruptLine::new(Arc::clone(&edges) as _, 0), OwedTickPolicy::Slew, &Arc::default());
        let ports = PortSpace::new();
        pit.map(&ports);
        ports.write(0x43, Width::Byte, 0x34);
        ports.write(0x40, Width::Byte, 0xe8);
        ports.write(0x40, Width::Byte, 3);
        edges.0.lock().1 = 0;
        for period in 1..=5u64 {
            clock.set(at(1 + period * 1000 + 500));
            timers.run_expired();
            assert_eq!(u64::from(edges.0.lock().1), period);
        }
        pit.reset();
        assert_eq!(pit.inner.lock().chip, Pit::new());
        assert_eq!(timers.next_deadline(), None);
    }

    fn operation(pit: &mut Pit, op: u8, value: u8, now: Instant) {
        match op % 6 {
            counter @ 0..3 => pit.write(Register::Counter(counter.into()), value, now),
            3 => pit.write(Register::Control, value, now),
            4 => pit.write_control(value, now),
            _ => {
                pit.read(Register::at(value.into()), now);
            }
        }
    }

    proptest! {
        #[test]
        fn many_small_steps_equal_one_large_step(
            ops in prop::collection::vec((0u8..5, any::<u8>(), 0u64..300), 1..20),
            span in 1u64..2000,
        ) {
            let mut pit = Pit::new();
            let mut tick = 0;
            for (op, value, wait) in ops {
                tick += wait;
                operation(&mut pit, op, value, at(tick));
            }
            // Looking at the outputs on the way, as edges are due, gives what looking tick by tick gives.
            for counter in 0..3 {
                let (mut level, mut next) = (pit.output(counter, at(tick)), pit.next_edge(counter, at(tick)));
                for now in tick + 1..tick + span {
                    if next == Some(at(now)) {
                        level = pit.output(counter, at(now));
                        next = pit.next_edge(counter, at(now));
                    }
                    prop_assert_eq!(level, pit.output(counter, at(now)), "counter {} at {}", counter, now);
                }
            }
        }

        #[test]
        fn any_access_at_any_time_is_harmless(
            ops in prop::collection::vec((any::<u8>(), any::<u8>(), 0u64..u64::MAX / 64), 0..64),
        ) {
            let mut pit = Pit::new();
            let mut now = 0;
            for (op, value, wait) in ops {
                now += wait;
                let now = Instant::from_nanos(now);
                operation(&mut pit, op, value, now);
                for counter in 0..3 {
                    if let Some(edge) = pit.next_edge(counter, now) {
                        prop_assert!(edge > now);
                    }
                }
                prop_assert_eq!(&Pit::load(pit.save()).unwrap(), &pit);
            }
        }
    }
}
