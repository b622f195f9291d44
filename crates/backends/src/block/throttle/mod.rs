//! How fast disks may be: limits on bytes and on operations a second, kept by leaky buckets. All time is handed in.
//!
//! A bucket fills with what is done and leaks at the rate that is allowed in the long run. A request begins if no bucket
//! that it goes into is over its brim, whatever its own size; what it puts in above the brim has to leak out before the next
//! begins.

mod group;
mod limits;

use std::{collections::VecDeque, time::Duration};

pub use group::{GroupMember, Limited, ThrottleGroup};
pub use limits::{LIMIT_NAMES, Limit, LimitError, Limits, METERS};

/// Levels are kept in billionths, so that leaking for some nanoseconds is exact.
const BILLION: u128 = 1_000_000_000;
/// The part of a second that may be done at once where no burst is given, or within one that lasts longer.
const SLACK: u128 = 10;
/// How long others wait for someone whose turn it is and who does not come.
const PATIENCE: Duration = Duration::from_millis(20);
/// When to look again whether he came.
const SHORTLY: Duration = Duration::from_millis(1);

/// What was done and did not leak out yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bucket {
    level: u128,
    /// The same for the rate of a burst that may last longer than a second.
    burst: u128,
}

impl Bucket {
    fn leak(&mut self, limit: &Limit, elapsed: Duration) {
        let leaked = |rate: u64| u128::from(rate).saturating_mul(elapsed.as_nanos());
        self.level = self.level.saturating_sub(leaked(limit.average));
        self.burst = self.burst.saturating_sub(leaked(limit.max));
    }

    fn fill(&mut self, limit: &Limit, amount: u128) {
        if limit.average > 0 {
            self.level = self.level.saturating_add(amount);
        }
        if limit.lasts() {
            self.burst = self.burst.saturating_add(amount);
        }
    }

    /// How long until both are at their brim.
    fn wait(&self, limit: &Limit) -> Duration {
        let [average, max, length] = [limit.average, limit.max, limit.length].map(u128::from);
        if average == 0 {
            return Duration::ZERO;
        }
        let brim = if max == 0 { average * BILLION / SLACK } else { max * length * BILLION };
        let mut wait = self.level.saturating_sub(brim).div_ceil(average);
        if limit.lasts() {
            wait = wait.max(self.burst.saturating_sub(max * BILLION / SLACK).div_ceil(max));
        }
        Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
    }
}

/// Someone who asks one request after another: a disk and its queue.
pub type Asker = (usize, usize);

/// Someone who could not begin, and when he was told to ask again.
#[derive(Clone, Copy, Debug)]
struct Turn {
    asker: Asker,
    due: Duration,
}

/// Limits, and what was done lately by all who share them.
#[derive(Debug, Default)]
pub struct Throttle {
    limits: Limits,
    buckets: [Bucket; METERS],
    /// When the buckets last leaked.
    now: Duration,
    /// Those who wait, in order.
    turns: VecDeque<Turn>,
}

impl Throttle {
    /// Nothing was done yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// What is allowed.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Allows something else from now on. A limit that changes begins anew, and whoever waits is to ask again.
    pub fn set_limits(&mut self, limits: Limits, now: Duration) {
        self.leak(now);
        let meters = self.limits.meters.iter().zip(&limits.meters);
        for ((before, after), bucket) in meters.zip(&mut self.buckets) {
            if before != after {
                *bucket = Bucket::default();
            }
        }
        self.limits = limits;
        self.turns.clear();
    }

    fn leak(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.now);
        for (bucket, limit) in self.buckets.iter_mut().zip(&self.limits.meters) {
            bucket.leak(limit, elapsed);
        }
        self.now = self.now.max(now);
    }

    /// When someone is to ask again, or nothing if a request of his may begin now.
    pub fn check(&mut self, now: Duration, asker: Asker, write: bool) -> Option<Duration> {
        self.leak(now);
        // Whoever does not come does not hold up the others.
        self.turns.retain(|turn| turn.asker == asker || turn.due.saturating_add(PATIENCE) > now);
        let buckets = self.buckets.iter().zip(&self.limits.meters);
        let waits = buckets.enumerate().filter(|(meter, _)| Limits::counts(*meter, write));
        let wait = waits.map(|(_, (bucket, limit))| bucket.wait(limit)).max().unwrap_or_default();
        let others = self.turns.iter().take_while(|turn| turn.asker != asker).any(|turn| turn.due <= now);
        let due = match (wait.is_zero(), others) {
            (true, false) => return None,
            (true, true) => now.saturating_add(SHORTLY),
            (false, _) => now.saturating_add(wait),
        };
        match self.turns.iter_mut().find(|turn| turn.asker == asker) {
            Some(turn) => turn.due = due,
            None => self.turns.push_back(Turn { asker, due }),
        }
        Some(due)
    }

    /// Counts a request that begins.
    pub fn charge(&mut self, asker: Asker, write: bool, bytes: u64) {
        self.turns.retain(|turn| turn.asker != asker);
        let operations = self.limits.operations(bytes);
        for (meter, (bucket, limit)) in self.buckets.iter_mut().zip(&self.limits.meters).enumerate() {
            if Limits::counts(meter, write) {
                let amount = if Limits::counts_bytes(meter) { u128::from(bytes) * BILLION } else { operations };
                bucket.fill(limit, amount);
            }
        }
    }
}

#[cfg(test)]
mod tests;
