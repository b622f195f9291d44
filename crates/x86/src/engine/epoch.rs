//! How processors agree that a page holds code: none may keep a way to write it unseen.
//!
//! A processor that decodes from a page marks it, raises the epoch, and asks the others to drop their write
//! translations. What it decodes before all that run have acknowledged is executed, but not kept: another may still
//! have written meanwhile, unseen. A processor that does not run counts as having acknowledged; it drops its write
//! translations before it runs again. So nobody waits.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use crate::state::{Request, Requests};

/// The agreement of one machine's processors on what is code.
#[derive(Debug, Default)]
pub struct CodeEpoch {
    current: AtomicU64,
    members: RwLock<Vec<Arc<Seat>>>,
}

/// One processor's part.
#[derive(Debug)]
struct Seat {
    requests: Arc<Requests>,
    /// The last epoch acknowledged; [`RESTING`] while the processor does not run.
    acknowledged: AtomicU64,
}

const RESTING: u64 = u64::MAX;

/// A processor's membership, which ends with it.
#[derive(Debug)]
pub(crate) struct Member {
    epoch: Arc<CodeEpoch>,
    seat: Arc<Seat>,
}

impl Member {
    /// Joins; not running yet.
    pub(crate) fn join(epoch: Arc<CodeEpoch>, requests: Arc<Requests>) -> Self {
        let seat = Arc::new(Seat { requests, acknowledged: AtomicU64::new(RESTING) });
        epoch.members.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&seat));
        Self { epoch, seat }
    }

    /// Begins to run. The epoch to [`acknowledge`](Self::acknowledge) after write translations were dropped.
    pub(crate) fn enter(&self) -> u64 {
        self.seat.acknowledged.store(0, Ordering::SeqCst);
        self.epoch.current.load(Ordering::SeqCst)
    }

    /// The current epoch, to be read before write translations are dropped.
    pub(crate) fn current(&self) -> u64 {
        self.epoch.current.load(Ordering::SeqCst)
    }

    /// All write translations made before `epoch` was read have been dropped.
    pub(crate) fn acknowledge(&self, epoch: u64) {
        self.seat.acknowledged.store(epoch, Ordering::SeqCst);
    }

    /// Stops running.
    pub(crate) fn leave(&self) {
        self.seat.acknowledged.store(RESTING, Ordering::SeqCst);
    }

    /// A page was marked as code, and this processor has no write translation of it.
    pub(crate) fn announce(&self) {
        let before = self.epoch.current.fetch_add(1, Ordering::SeqCst);
        for seat in self.epoch.members.read().unwrap_or_else(PoisonError::into_inner).iter() {
            if !Arc::ptr_eq(seat, &self.seat) {
                seat.requests.ask(Request::CODE_PAGES);
            }
        }
        // Own translations were dropped for the page; those for pages that others marked meanwhile were not.
        let _ = self.seat.acknowledged.compare_exchange(before, before + 1, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Whether no running processor can still write, unseen, to a page that was marked until now. This processor
    /// itself must have been asked to acknowledge what it has not yet.
    pub(crate) fn agreed(&self) -> bool {
        let current = self.epoch.current.load(Ordering::SeqCst);
        self.epoch
            .members
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .all(|seat| seat.acknowledged.load(Ordering::SeqCst) >= current)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut members = self.epoch.members.write().unwrap_or_else(PoisonError::into_inner);
        members.retain(|seat| !Arc::ptr_eq(seat, &self.seat));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> (Member, Member) {
        let epoch = Arc::new(CodeEpoch::default());
        let member = || Member::join(Arc::clone(&epoch), Arc::new(Requests::default()));
        (member(), member())
    }

    fn run(member: &Member) {
        let epoch = member.enter();
        member.acknowledge(epoch);
    }

    #[test]
    fn a_resting_processor_does_not_hold_up_the_others() {
        let (a, _b) = two();
        run(&a);
        a.announce();
        assert!(a.agreed());
    }

    #[test]
    fn a_running_processor_must_acknowledge_first() {
        let (a, b) = two();
        run(&a);
        run(&b);
        assert!(a.agreed());
        a.announce();
        assert!(!a.agreed());
        assert!(!b.agreed());
        assert_eq!(b.seat.requests.take(Request::CODE_PAGES), Request::CODE_PAGES);
        assert_eq!(a.seat.requests.take(Request::all()), Request::empty());
        b.acknowledge(b.current());
        assert!(a.agreed());
        a.announce();
        assert!(!a.agreed());
        b.leave();
        assert!(a.agreed());
    }

    #[test]
    fn announcing_does_not_acknowledge_what_others_announced() {
        let (a, b) = two();
        run(&a);
        run(&b);
        b.announce();
        a.announce();
        b.acknowledge(b.current());
        assert!(!b.agreed());
        a.acknowledge(a.current());
        assert!(a.agreed());
    }

    #[test]
    fn a_processor_that_is_gone_is_not_waited_for() {
        let (a, b) = two();
        run(&a);
        run(&b);
        a.announce();
        drop(b);
        assert!(a.agreed());
    }
}
