//! The host's own clocks, as far as a guest's date goes by them.

use std::{sync::Arc, time::Duration};

use crate::Clock;

/// The host's clocks.
pub trait HostTime: Send + Sync {
    /// Time since 1970, UTC. It jumps when somebody sets the host's clock.
    fn since_1970(&self) -> Duration;

    /// By how many seconds clocks on the wall are ahead of UTC.
    fn local_offset(&self) -> i64;

    /// Time since some moment. It never jumps.
    fn steady(&self) -> Duration;
}

/// A host on which time passes as the machine's clock says, for tests that count every nanosecond.
pub struct ToldHostTime {
    clock: Arc<Clock>,
    start: Duration,
    local_offset: i64,
}

impl ToldHostTime {
    /// Time as `host` has it now, in whole seconds, going on with `clock`.
    pub fn new(clock: Arc<Clock>, host: &dyn HostTime) -> Self {
        let start = Duration::from_secs(host.since_1970().as_secs());
        Self { clock, start, local_offset: host.local_offset() }
    }
}

impl HostTime for ToldHostTime {
    fn since_1970(&self) -> Duration {
        self.start.saturating_add(self.steady())
    }

    fn local_offset(&self) -> i64 {
        self.local_offset
    }

    fn steady(&self) -> Duration {
        Duration::from_nanos(self.clock.now().as_nanos())
    }
}
