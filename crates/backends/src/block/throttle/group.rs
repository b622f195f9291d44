//! A group: limits that several disks share, on the host's monotonic clock.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{LimitError, Limits, Throttle};

/// Nobody is told to come back later than this.
const LONGEST: Duration = Duration::from_secs(3600);

/// Who is to hear that limits have changed.
pub trait Limited: Send + Sync {
    /// They have.
    fn limits_changed(&self);
}

/// A group.
pub struct ThrottleGroup {
    name: String,
    /// Where its time begins.
    start: Instant,
    throttle: Mutex<Throttle>,
    /// How many nodes and drives are in it.
    members: AtomicUsize,
    /// Disks that are to be told when the limits change.
    disks: Mutex<Vec<Weak<dyn Limited>>>,
}

impl fmt::Debug for ThrottleGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ThrottleGroup({})", self.name)
    }
}

impl ThrottleGroup {
    /// A group with limits, which are checked.
    ///
    /// # Errors
    /// What they cannot be.
    pub fn new(name: &str, limits: Limits) -> Result<Self, LimitError> {
        limits.check()?;
        Ok(Self {
            name: name.to_owned(),
            start: Instant::now(),
            throttle: Mutex::new(Throttle::new(limits)),
            members: AtomicUsize::new(0),
            disks: Mutex::default(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The limits.
    pub fn limits(&self) -> Limits {
        *self.throttle.lock().limits()
    }

    /// Other limits from now on: whoever waits looks again.
    ///
    /// # Errors
    /// What they cannot be; then they stay.
    pub fn set_limits(&self, limits: Limits) -> Result<(), LimitError> {
        limits.check()?;
        self.throttle.lock().set_limits(limits, self.start.elapsed());
        let disks: Vec<_> = self.disks.lock().iter().filter_map(Weak::upgrade).collect();
        disks.iter().for_each(|disk| disk.limits_changed());
        Ok(())
    }

    /// Whether a node or a drive is in it.
    pub fn has_members(&self) -> bool {
        self.members.load(Ordering::Acquire) > 0
    }

    /// Tells a disk of changes.
    pub(in crate::block) fn tell(&self, disk: Weak<dyn Limited>) {
        let mut disks = self.disks.lock();
        disks.retain(|other| other.strong_count() > 0);
        disks.push(disk);
    }

    /// Asks all of several groups, which are in the order of their addresses and different, whether a request may begin.
    pub(in crate::block) fn admit(
        groups: &[Arc<Self>],
        asker: super::Asker,
        write: bool,
        bytes: u64,
    ) -> Result<(), Instant> {
        // In the same order by everybody, so that nobody waits for each other.
        let mut held: Vec<_> = groups.iter().map(|group| (group.throttle.lock(), group.start)).collect();
        let now = Instant::now();
        let mut wait = Duration::ZERO;
        for (throttle, start) in &mut held {
            let own = now.saturating_duration_since(*start);
            if let Some(due) = throttle.check(own, asker, write) {
                wait = wait.max(due.saturating_sub(own)).min(LONGEST);
            }
        }
        if !wait.is_zero() {
            return Err(now + wait);
        }
        held.iter_mut().for_each(|(throttle, _)| throttle.charge(asker, write, bytes));
        Ok(())
    }
}

/// Being in a group, which keeps it from being removed.
#[derive(Debug)]
pub struct GroupMember(Arc<ThrottleGroup>);

impl GroupMember {
    /// Joins a group.
    pub fn new(group: Arc<ThrottleGroup>) -> Self {
        group.members.fetch_add(1, Ordering::AcqRel);
        Self(group)
    }

    /// The group.
    pub fn group(&self) -> &Arc<ThrottleGroup> {
        &self.0
    }
}

impl Drop for GroupMember {
    fn drop(&mut self) {
        self.0.members.fetch_sub(1, Ordering::AcqRel);
    }
}
