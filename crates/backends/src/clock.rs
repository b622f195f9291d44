//! The clocks of this host.

use std::time::{Duration, Instant, SystemTime};

use rhea_core::HostTime;

/// The clocks of this host.
#[derive(Debug)]
pub struct HostClock {
    start: Instant,
}

impl HostClock {
    /// The clocks; the steady one counts from now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for HostClock {
    fn default() -> Self {
        Self::new()
    }
}

impl HostTime for HostClock {
    fn since_1970(&self) -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    fn local_offset(&self) -> i64 {
        chrono::Local::now().offset().local_minus_utc().into()
    }

    fn steady(&self) -> Duration {
        self.start.elapsed()
    }
}
