//! Time as a value: the machine's clock and the timers that stand on it.
//!
//! The clock counts nanoseconds of the machine's own time. It stands still while the machine is stopped, and under a
//! test accelerator it moves only when told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

/// A moment of the machine's time: nanoseconds since power-on, stopped time not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instant(u64);

impl Instant {
    /// Power-on.
    pub const ZERO: Self = Self(0);

    /// The moment `nanoseconds` after power-on.
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Nanoseconds since power-on.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// `duration` later, at most the end of time.
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// The time since `earlier`, zero if that is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// How many whole ticks of a `frequency` in hertz have passed since power-on.
    pub const fn ticks(self, frequency: u64) -> u64 {
        (self.0 as u128 * frequency as u128 / 1_000_000_000) as u64
    }

    /// The first moment at which [`ticks`](Self::ticks) is `ticks`, at most the end of time.
    pub const fn of_ticks(ticks: u64, frequency: u64) -> Self {
        let nanoseconds = (ticks as u128 * 1_000_000_000).div_ceil(frequency as u128);
        Self(if nanoseconds > u64::MAX as u128 { u64::MAX } else { nanoseconds as u64 })
    }
}

enum Source {
    /// Follows the host's monotonic clock: machine time was `at` when the host's was `host`.
    Running {
        at: u64,
        host: std::time::Instant,
    },
    Stopped {
        at: u64,
    },
    /// Moves only when told.
    Told {
        at: u64,
    },
}

/// The machine's clock.
pub struct Clock {
    source: Mutex<Source>,
}

impl Clock {
    /// A clock at power-on that stands still until [`start`](Self::start).
    pub fn new() -> Arc<Self> {
        Arc::new(Self { source: Mutex::new(Source::Stopped { at: 0 }) })
    }

    /// A clock at power-on that never moves by itself, started or not: for tests that count every nanosecond.
    pub fn told() -> Arc<Self> {
        Arc::new(Self { source: Mutex::new(Source::Told { at: 0 }) })
    }

    /// The machine's time now.
    pub fn now(&self) -> Instant {
        match *self.source.lock() {
            Source::Running { at, host } => Instant(at.saturating_add(host.elapsed().as_nanos() as u64)),
            Source::Stopped { at } | Source::Told { at } => Instant(at),
        }
    }

    /// Whether the clock moves by itself.
    pub fn is_running(&self) -> bool {
        matches!(*self.source.lock(), Source::Running { .. })
    }

    /// Whether the clock moves only when told.
    pub fn is_told(&self) -> bool {
        matches!(*self.source.lock(), Source::Told { .. })
    }

    /// Lets the clock follow the host's from here on.
    pub fn start(&self) {
        let mut source = self.source.lock();
        if let Source::Stopped { at } = *source {
            *source = Source::Running { at, host: std::time::Instant::now() };
        }
    }

    /// Makes the clock stand still.
    pub fn stop(&self) {
        let mut source = self.source.lock();
        if let Source::Running { at, host } = *source {
            *source = Source::Stopped { at: at.saturating_add(host.elapsed().as_nanos() as u64) };
        }
    }

    /// Moves the clock to `now`; used by the test accelerator and when a saved machine is loaded.
    pub fn set(&self, now: Instant) {
        let mut source = self.source.lock();
        *source = match *source {
            Source::Running { .. } => Source::Running { at: now.0, host: std::time::Instant::now() },
            Source::Stopped { .. } => Source::Stopped { at: now.0 },
            Source::Told { .. } => Source::Told { at: now.0 },
        };
    }
}

type Callback = dyn Fn(Instant) + Send + Sync;
type Expiry = Weak<Callback>;

#[derive(Default)]
struct Queue {
    order: BTreeSet<(Instant, u64)>,
    armed: BTreeMap<u64, (Instant, Expiry)>,
}

impl Queue {
    fn disarm(&mut self, id: u64) -> Option<Expiry> {
        let (at, callback) = self.armed.remove(&id)?;
        self.order.remove(&(at, id));
        Some(callback)
    }
}

/// All timers of a machine. They run one at a time, on any thread that asks; any thread may set and cancel.
pub struct TimerQueue {
    clock: Arc<Clock>,
    queue: Mutex<Queue>,
    /// Held while one timer runs, so that the clock is moved between timers only.
    step: Mutex<()>,
    next_id: AtomicU64,
    waker: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl TimerQueue {
    /// A queue on `clock`.
    pub fn new(clock: Arc<Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            queue: Mutex::default(),
            step: Mutex::new(()),
            next_id: AtomicU64::new(0),
            waker: OnceLock::new(),
        })
    }

    /// The clock that the timers follow.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// What to call when the next deadline came nearer; the thread that runs timers wakes up on it. Set once.
    pub fn on_earlier_deadline(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.waker.set(Box::new(wake));
    }

    /// A timer that calls `callback` with the time when it expires. It is not set yet.
    pub fn timer(self: &Arc<Self>, callback: impl Fn(Instant) + Send + Sync + 'static) -> Timer {
        Timer {
            queue: Arc::clone(self),
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            callback: Arc::new(callback),
        }
    }

    /// Keeps timers from running until the guard is dropped: devices get other states. Not to be called by a timer.
    pub fn pause(&self) -> MutexGuard<'_, ()> {
        self.step.lock()
    }

    /// The earliest deadline, if any timer is set.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.queue.lock().order.first().map(|&(at, _)| at)
    }

    /// Runs every timer whose deadline is not after the clock's time, earliest first. Callbacks may set timers again.
    pub fn run_expired(&self) {
        let now = self.clock.now();
        while self.run_one(|_| now) {}
    }

    /// Moves a clock that is told its time to `target`, and every timer on the way runs exactly at its deadline, with the
    /// clock at that time. A `target` in the past runs what is due and leaves the clock as it is.
    pub fn run_until(&self, target: Instant) {
        let advance = |next: Option<Instant>| {
            let now = self.clock.now();
            let to = next.map_or(target, |deadline| deadline.min(target)).max(now);
            self.clock.set(to);
            to
        };
        while self.run_one(advance) {}
    }

    /// Runs the first timer if it is due at the time that `now` makes of the next deadline.
    fn run_one(&self, now: impl Fn(Option<Instant>) -> Instant) -> bool {
        let _step = self.step.lock();
        let now = now(self.next_deadline());
        let Some(callback) = self.pop_expired(now) else { return false };
        if let Some(callback) = callback.upgrade() {
            callback(now);
        }
        true
    }

    fn pop_expired(&self, now: Instant) -> Option<Expiry> {
        let mut queue = self.queue.lock();
        let &(at, id) = queue.order.first()?;
        if at > now { None } else { queue.disarm(id) }
    }
}

/// A timer of one device.
pub struct Timer {
    queue: Arc<TimerQueue>,
    id: u64,
    callback: Arc<Callback>,
}

impl Timer {
    /// The machine's time now.
    pub fn now(&self) -> Instant {
        self.queue.clock.now()
    }

    /// Lets the timer expire at `deadline`, in place of any deadline set before.
    pub fn set(&self, deadline: Instant) {
        let earlier = {
            let mut queue = self.queue.queue.lock();
            let first = queue.order.first().map(|&(at, _)| at);
            queue.disarm(self.id);
            queue.armed.insert(self.id, (deadline, Arc::downgrade(&self.callback)));
            queue.order.insert((deadline, self.id));
            first.is_none_or(|first| deadline < first)
        };
        if earlier && let Some(wake) = self.queue.waker.get() {
            wake();
        }
    }

    /// Sets or cancels, as a chip says when it next has something to do.
    pub fn set_or_cancel(&self, deadline: Option<Instant>) {
        match deadline {
            Some(deadline) => self.set(deadline),
            None => self.cancel(),
        }
    }

    /// Takes back the deadline.
    pub fn cancel(&self) {
        self.queue.queue.lock().disarm(self.id);
    }

    /// The deadline, while one is set.
    pub fn deadline(&self) -> Option<Instant> {
        self.queue.queue.lock().armed.get(&self.id).map(|armed| armed.0)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Arc<TimerQueue> {
        TimerQueue::new(Clock::new())
    }

    #[test]
    fn timers_run_in_order_of_their_deadlines() {
        let queue = queue();
        let log = Arc::new(Mutex::new(Vec::new()));
        let timers: Vec<_> = [30, 10, 20]
            .into_iter()
            .map(|at| {
                let log = Arc::clone(&log);
                let timer = queue.timer(move |_| log.lock().push(at));
                timer.set(Instant::from_nanos(at));
                timer
            })
            .collect();
        assert_eq!(queue.next_deadline(), Some(Instant::from_nanos(10)));
        queue.clock().set(Instant::from_nanos(25));
        queue.run_expired();
        assert_eq!(*log.lock(), [10, 20]);
        drop(timers);
        assert_eq!(queue.next_deadline(), None);
    }

    #[test]
    fn a_deadline_set_again_replaces_the_first() {
        let queue = queue();
        let count = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&count);
        let timer = queue.timer(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        timer.set(Instant::from_nanos(5));
        timer.set(Instant::from_nanos(50));
        timer.set(Instant::from_nanos(5));
        queue.clock().set(Instant::from_nanos(100));
        queue.run_expired();
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_waker_hears_of_earlier_deadlines_only() {
        let queue = queue();
        let count = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&count);
        queue.on_earlier_deadline(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let (a, b) = (queue.timer(|_| ()), queue.timer(|_| ()));
        a.set(Instant::from_nanos(10));
        b.set(Instant::from_nanos(20));
        b.set(Instant::from_nanos(5));
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_stopped_clock_stands_still_and_goes_on_from_there() {
        let clock = Clock::new();
        clock.start();
        std::thread::sleep(Duration::from_millis(2));
        clock.stop();
        let at = clock.now();
        assert!(at >= Instant::from_nanos(2_000_000));
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(clock.now(), at);
        clock.start();
        assert!(clock.now() >= at);
    }

    #[test]
    fn each_timer_on_the_way_runs_exactly_at_its_deadline() {
        let queue = TimerQueue::new(Clock::told());
        queue.clock().start();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (seen, clock) = (Arc::clone(&log), Arc::clone(queue.clock()));
        let slow = queue.timer(move |now| seen.lock().push(("slow", now.as_nanos(), clock.now().as_nanos())));
        let seen = Arc::clone(&log);
        // Each of its runs sets it again, 40 later.
        let again: Arc<OnceLock<Timer>> = Arc::default();
        let own = Arc::downgrade(&again);
        let fast = queue.timer(move |now| {
            seen.lock().push(("fast", now.as_nanos(), now.as_nanos()));
            if let Some(own) = own.upgrade() {
                own.get().unwrap().set(now.saturating_add(Duration::from_nanos(40)));
            }
        });
        let fast = again.get_or_init(|| fast);
        fast.set(Instant::from_nanos(40));
        slow.set(Instant::from_nanos(100));
        queue.run_until(Instant::from_nanos(125));
        assert_eq!(*log.lock(), [("fast", 40, 40), ("fast", 80, 80), ("slow", 100, 100), ("fast", 120, 120)]);
        assert_eq!(queue.clock().now(), Instant::from_nanos(125));
        queue.run_until(Instant::from_nanos(5));
        assert_eq!(
            (queue.clock().now(), queue.next_deadline()),
            (Instant::from_nanos(125), Some(Instant::from_nanos(160)))
        );
    }

    #[test]
    fn a_clock_that_is_told_its_time_does_not_start() {
        let clock = Clock::told();
        clock.start();
        assert!(clock.is_told() && !clock.is_running());
        clock.set(Instant::from_nanos(7));
        clock.stop();
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(clock.now(), Instant::from_nanos(7));
    }

    #[test]
    fn ticks_and_their_first_moments_agree() {
        for frequency in [3_579_545, 1_193_182, 14_318_180, 32_768] {
            for ticks in [0, 1, 2, 1000, 123_456_789] {
                let first = Instant::of_ticks(ticks, frequency);
                assert_eq!(first.ticks(frequency), ticks);
                if ticks > 0 {
                    assert_eq!(Instant::from_nanos(first.as_nanos() - 1).ticks(frequency), ticks - 1);
                }
            }
        }
    }
}
