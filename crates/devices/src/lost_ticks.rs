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
const MOST: u32 = 64;

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

/// The ticks that a timer owes on one line. They are not saved: how late a host is is no state of its guest.
#[derive(Clone, Default)]
pub(crate) struct Owed {
    taken: Option<Arc<Taken>>,
    ticks: u32,
}

impl Owed {
    /// As `policy` says, for a timer that hears of `taken`.
    pub(crate) fn new(policy: OwedTickPolicy, taken: &Arc<Taken>) -> Self {
        Self { taken: (policy == OwedTickPolicy::Slew).then(|| Arc::clone(taken)), ticks: 0 }
    }

    /// A tick comes, and is about to be driven: it is owed if it would be lost.
    pub(crate) fn come(&mut self, line: &InterruptLine) {
        let Some(taken) = &self.taken else { return };
        if line.is_pending() {
            self.ticks = (self.ticks + 1).min(MOST);
        }
        if self.ticks > 0 {
            taken.awaited.store(true, Ordering::Release);
        }
    }

    /// An interrupt was taken: drives the line for a tick that is owed, if that is not lost again, and leaves it at `level`.
    pub(crate) fn deliver(&mut self, line: &InterruptLine, level: bool) {
        let Some(taken) = self.taken.as_ref().filter(|_| self.ticks > 0) else { return };
        if !line.is_pending() {
            self.ticks -= 1;
            line.lower();
            line.raise();
            line.set(level);
        }
        if self.ticks > 0 {
            taken.awaited.store(true, Ordering::Release);
        }
    }

    /// The timer was set anew: what it owed was of its former life.
    pub(crate) const fn forget(&mut self) {
        self.ticks = 0;
    }
}
