//! What a timer does about ticks that its guest did not take in time.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use rhea_core::{InterruptLine, property_words};

property_words! {
    /// What a timer does about ticks that its guest did not take in time.
    #[derive(serde::Serialize, serde::Deserialize)]
    pub enum LostTickPolicy: "LostTickPolicy" {
        /// Forgets them and keeps to its beat, as hardware does.
        Discard = "discard",
        /// Lets all that follow come later by what was missed.
        Delay = "delay",
        /// Makes one of them.
        Merge = "merge",
        /// Delivers all of them, at a higher rate.
        Slew = "slew",
    }
}

property_words! {
    /// What a timer without a status register does about ticks that came while the one before still waited to be taken.
    pub enum OwedTickPolicy: "LostTickPolicy" {
        /// Delivers them as soon as those before were taken: a guest whose processors had to wait for the host still counts
        /// all of them.
        Slew = "slew",
        /// Forgets them, as hardware does.
        Discard = "discard",
    }
}

/// Most ticks that are owed: a guest that takes none for longer is not late but does not listen.
pub(crate) const MOST: u32 = 64;

/// Tells timers that processors take interrupts, if any of them waits for that.
#[derive(Default)]
pub struct Taken {
    awaited: AtomicBool,
    timers: Mutex<Vec<Weak<dyn OwesTicks>>>,
}

/// A timer that delivers ticks later than they came.
pub trait OwesTicks: Send + Sync {
    /// A processor took some interrupt. Called without any lock.
    fn taken(&self);
}

impl Taken {
    /// Has `timer` hear of it.
    pub fn add(&self, timer: Weak<dyn OwesTicks>) {
        self.timers.lock().push(timer);
    }

    /// A processor took an interrupt.
    pub fn say(&self) {
        // Mostly nobody waits, and no more than a look is needed.
        if self.awaited.load(Ordering::Acquire) && self.awaited.swap(false, Ordering::AcqRel) {
            let timers = self.timers.lock().clone();
            timers.iter().filter_map(Weak::upgrade).for_each(|timer| timer.taken());
        }
    }
}

/// How a timer delivers the ticks that it owes on one line. How many those are is part of its chip's state: a guest that is
/// saved or moved meanwhile still counts all of them.
#[derive(Clone, Default)]
pub(crate) struct Owed {
    taken: Option<Arc<Taken>>,
}

impl Owed {
    /// As `policy` says, for a timer that hears of `taken`.
    pub(crate) fn new(policy: OwedTickPolicy, taken: &Arc<Taken>) -> Self {
        Self { taken: (policy == OwedTickPolicy::Slew).then(|| Arc::clone(taken)) }
    }

    /// A tick comes, and is about to be driven: it is added to the `ticks` that are owed if it would be lost.
    pub(crate) fn come(&self, ticks: &mut u32, line: &InterruptLine) {
        let Some(taken) = &self.taken else { return };
        if line.is_pending() {
            *ticks = (*ticks + 1).min(MOST);
        }
        if *ticks > 0 {
            taken.awaited.store(true, Ordering::Release);
        }
    }

    /// An interrupt was taken: drives the line for one of the `ticks` that are owed, if that is not lost again, and leaves it
    /// at `level`.
    pub(crate) fn deliver(&self, ticks: &mut u32, line: &InterruptLine, level: bool) {
        let Some(taken) = self.taken.as_ref().filter(|_| *ticks > 0) else { return };
        if !line.is_pending() {
            *ticks -= 1;
            line.lower();
            line.raise();
            line.set(level);
        }
        if *ticks > 0 {
            taken.awaited.store(true, Ordering::Release);
        }
    }

    /// `ticks` are owed from before this timer was: they wait for an interrupt to be taken, or are forgotten if that is the
    /// policy.
    pub(crate) fn take_over(&self, ticks: &mut u32) {
        match &self.taken {
            Some(taken) if *ticks > 0 => taken.awaited.store(true, Ordering::Release),
            Some(_) => {}
            None => *ticks = 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use rhea_core::{Clock, Instant, InterruptSink, Mmio as _, PortIo as _, Saveable, TimerQueue, Width};

    use super::*;
    use crate::chipset::{hpet::MmioHpet, pit::IsaPit};

    /// A controller with one edge-triggered input, whose guest takes interrupts when it is told to.
    #[derive(Default)]
    struct Controller {
        level: AtomicBool,
        waits: AtomicBool,
        taken: AtomicU32,
    }

    impl InterruptSink for Controller {
        fn set_level(&self, _: u32, level: bool) {
            if level && !self.level.swap(level, Ordering::SeqCst) {
                self.waits.store(true, Ordering::SeqCst);
            }
            self.level.store(level, Ordering::SeqCst);
        }

        fn is_pending(&self, _: u32) -> bool {
            self.waits.load(Ordering::SeqCst)
        }
    }

    /// A timer of one kind with its controller, on a clock of its own.
    struct Bench<T> {
        clock: Arc<Clock>,
        timers: Arc<TimerQueue>,
        controller: Arc<Controller>,
        said: Arc<Taken>,
        timer: Arc<T>,
    }

    impl<T: Saveable> Bench<T> {
        fn new(make: impl FnOnce(&Arc<TimerQueue>, InterruptLine, &Arc<Taken>) -> Arc<T>) -> Self {
            let (clock, controller, said) = (Clock::new(), Arc::new(Controller::default()), Arc::default());
            let timers = TimerQueue::new(Arc::clone(&clock));
            let timer = make(&timers, InterruptLine::new(Arc::clone(&controller) as _, 0), &said);
            Self { clock, timers, controller, said, timer }
        }

        fn run_to_milliseconds(&self, milliseconds: u64) {
            self.clock.set(Instant::from_nanos(milliseconds * 1_000_000));
            self.timers.run_expired();
        }

        /// The guest takes what waits, until nothing does; how often that was.
        fn take_all(&self) -> u32 {
            let before = self.controller.taken.load(Ordering::SeqCst);
            while self.controller.waits.swap(false, Ordering::SeqCst) {
                self.controller.taken.fetch_add(1, Ordering::SeqCst);
                self.said.say();
            }
            self.controller.taken.load(Ordering::SeqCst) - before
        }

        /// Goes on from `old`, whose controller had an interrupt waiting.
        fn go_on_from(&self, old: &Self) {
            self.run_to_milliseconds(20);
            self.timer.restore(old.timer.save()).unwrap();
            // The controllers are restored too.
            self.controller.waits.store(old.controller.waits.load(Ordering::SeqCst), Ordering::SeqCst);
        }
    }

    fn pit(policy: OwedTickPolicy) -> Bench<IsaPit> {
        Bench::new(|timers, line, said| IsaPit::new(timers, line, policy, said))
    }

    /// Counter 0 ticks each millisecond; the guest takes nothing for twenty.
    fn late_pit() -> Bench<IsaPit> {
        let bench = pit(OwedTickPolicy::Slew);
        for (offset, value) in [(3, 0x34), (0, 0xa9), (0, 0x04)] {
            bench.timer.write(offset, Width::Byte, value);
        }
        // OUT rises with the control word.
        bench.take_all();
        bench.run_to_milliseconds(20);
        bench
    }

    fn hpet(policy: OwedTickPolicy) -> Bench<MmioHpet> {
        Bench::new(|timers, line, said| {
            let nowhere = InterruptLine::new(Arc::new(Controller::default()), 0);
            MmioHpet::new(timers, [nowhere.clone(), nowhere], vec![(20, line)], policy, said)
        })
    }

    /// Timer 1 ticks each millisecond on input 20; the guest takes nothing for twenty.
    fn late_hpet() -> Bench<MmioHpet> {
        let bench = hpet(OwedTickPolicy::Slew);
        // Interrupts, periodic, the value is set; 100 ticks are a microsecond.
        for (offset, value) in [(0x120, 20 << 9 | 0b100_1100), (0x128, 100_000), (0x10, 1)] {
            bench.timer.write(offset, Width::Qword, value);
        }
        bench.run_to_milliseconds(20);
        bench
    }

    #[test]
    fn a_guest_that_is_moved_still_counts_all_ticks() {
        let (old, new) = (late_pit(), pit(OwedTickPolicy::Slew));
        new.go_on_from(&old);
        assert_eq!((old.take_all(), new.take_all()), (20, 20));

        let (old, new) = (late_hpet(), hpet(OwedTickPolicy::Slew));
        new.go_on_from(&old);
        assert_eq!((old.take_all(), new.take_all()), (20, 20));
    }

    #[test]
    fn a_timer_that_forgets_ticks_takes_over_none() {
        let new = pit(OwedTickPolicy::Discard);
        new.go_on_from(&late_pit());
        assert_eq!(new.take_all(), 1);
        let new = hpet(OwedTickPolicy::Discard);
        new.go_on_from(&late_hpet());
        assert_eq!(new.take_all(), 1);
    }

    #[test]
    fn a_timer_that_is_set_anew_owes_nothing_and_saves_that() {
        let old = late_pit();
        old.timer.write(3, Width::Byte, 0x34);
        assert_eq!(old.timer.save().owed, 0);
        assert_eq!(old.take_all(), 1);
    }

    #[test]
    fn more_than_is_ever_owed_is_refused_and_older_states_owe_nothing() {
        let bench = late_pit();
        let mut state = bench.timer.save();
        assert!(state.owed > 0);
        state.owed = MOST + 1;
        assert!(bench.timer.restore(state.clone()).is_err());
        let rhea_core::state::Value::Map(mut members) = rhea_core::state::to_value("pit", &state).unwrap() else {
            panic!("a map");
        };
        members.retain(|(name, _)| name.as_text() != Some("owed"));
        let older = rhea_core::state::from_value("pit", &rhea_core::state::Value::Map(members)).unwrap();
        bench.timer.restore(older).unwrap();
        assert_eq!(bench.timer.save().owed, 0);
    }
}
