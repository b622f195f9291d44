//! What the date of the CMOS clock starts from and follows.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use rhea_core::{HostTime, Instant};

use super::chip::Moment;
use crate::lost_ticks::LostTickPolicy;

/// What the clock shows at power-on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Base {
    /// The host's time in UTC.
    #[default]
    Utc,
    /// The host's time as clocks on the wall show it.
    LocalTime,
    /// A date, in seconds since 1970.
    Date(i64),
}

/// What the clock follows from then on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Follows {
    /// The host's clock, also when somebody sets that, and while the machine is stopped.
    #[default]
    Host,
    /// The host's time that never jumps, also while the machine is stopped.
    Steady,
    /// The machine's time, which stops with it.
    Machine,
}

/// How the clock is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RtcOptions {
    /// What it shows at power-on.
    pub base: Base,
    /// What it follows.
    pub follows: Follows,
    /// What becomes of periodic interrupts that the guest does not take in time.
    pub lost_tick_policy: LostTickPolicy,
}

/// The source of the date.
pub(super) struct Dates {
    base: Base,
    pub(super) follows: Follows,
    host: Arc<dyn HostTime>,
    /// The host's time at power-on.
    power_on: Duration,
    /// What the steady time was when the date followed that was zero.
    steady_zero: Mutex<Duration>,
}

/// Nanoseconds, up to the year 2554.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn seconds(seconds: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000
}

impl Dates {
    pub(super) fn new(options: &RtcOptions, host: Arc<dyn HostTime>) -> Self {
        let RtcOptions { base, follows, lost_tick_policy: _ } = *options;
        let (power_on, steady_zero) = (host.since_1970(), Mutex::new(host.steady()));
        Self { base, follows, host, power_on, steady_zero }
    }

    /// Now, where the machine's time is `machine`.
    pub(super) fn now(&self, machine: Instant) -> Moment {
        let date = match self.follows {
            Follows::Machine => machine,
            Follows::Steady => {
                Instant::from_nanos(nanoseconds(self.host.steady().saturating_sub(*self.steady_zero.lock())))
            }
            Follows::Host => Instant::from_nanos(nanoseconds(self.host.since_1970())),
        };
        Moment { machine, date }
    }

    /// What the clock shows where what it follows begins, in nanoseconds since 1970.
    pub(super) fn at_zero(&self) -> i128 {
        let shown = self.base(self.power_on);
        match self.follows {
            Follows::Machine | Follows::Steady => shown,
            Follows::Host => shown - self.power_on.as_nanos() as i128,
        }
    }

    /// What a clock on the same base shows now that follows the host and was never set, in nanoseconds since 1970.
    pub(super) fn unset(&self) -> i128 {
        self.base(self.host.since_1970())
    }

    /// The base, while the host's clock is at `host`.
    fn base(&self, host: Duration) -> i128 {
        let now = host.as_nanos() as i128;
        match self.base {
            Base::Utc => now,
            Base::LocalTime => now + seconds(self.host.local_offset()),
            Base::Date(date) => seconds(date) + now - self.power_on.as_nanos() as i128,
        }
    }

    /// A clock that was saved at `saved` goes on from there. The host's clock is the same for all, and the machine's time
    /// was saved too.
    pub(super) fn go_on_from(&self, saved: Moment) {
        let steady = self.host.steady();
        *self.steady_zero.lock() = steady.saturating_sub(Duration::from_nanos(saved.date.as_nanos()));
    }
}
