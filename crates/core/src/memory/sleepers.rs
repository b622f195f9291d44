//! Who sleeps until marked RAM is written: processors that wait for a store of others.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
};

/// The sleepers of one piece of RAM.
#[derive(Debug, Default)]
pub(super) struct Sleepers {
    /// How many there are: a write looks here first.
    count: AtomicUsize,
    wakers: Mutex<Vec<Waker>>,
}

impl Sleepers {
    fn wakers(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more. What was written before is for the sleeper to look at afterwards.
    pub(super) fn add(&self, waker: Waker) {
        let mut wakers = self.wakers();
        wakers.push(waker);
        self.count.store(wakers.len(), Ordering::SeqCst);
    }

    /// One less.
    pub(super) fn remove(&self, waker: &Waker) {
        let mut wakers = self.wakers();
        if let Some(at) = wakers.iter().position(|other| other.will_wake(waker)) {
            wakers.swap_remove(at);
        }
        self.count.store(wakers.len(), Ordering::SeqCst);
    }

    /// Wakes them all: those who wait for another page look at it and go on sleeping.
    #[inline]
    pub(super) fn wake(&self) {
        if self.count.load(Ordering::SeqCst) != 0 {
            self.wakers().iter().for_each(Waker::wake_by_ref);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, atomic::AtomicU32},
        task::Wake,
    };

    use super::*;
    use crate::{Ram, memory::PAGE};

    #[derive(Default)]
    struct Sleeper(AtomicU32);

    impl Wake for Sleeper {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn sleepers_wake_when_a_marked_grain_is_written_and_only_while_they_sleep() {
        let ram = Ram::new("test", 2 * PAGE).unwrap();
        let sleepers: [Arc<Sleeper>; 2] = Default::default();
        let wakers = sleepers.clone().map(Waker::from);
        let page = ram.page(PAGE).unwrap();
        let write = |at| {
            page.code.store(1 << 2, Ordering::SeqCst);
            assert!(ram.write(PAGE + at, &[1]));
            sleepers.each_ref().map(|sleeper| sleeper.0.load(Ordering::SeqCst))
        };
        assert_eq!(write(0x80), [0, 0]);
        ram.add_sleeper(wakers[0].clone());
        ram.add_sleeper(wakers[1].clone());
        assert_eq!(write(0x7f), [0, 0]);
        assert_eq!(write(0x80), [1, 1]);
        ram.remove_sleeper(&wakers[0]);
        assert_eq!(write(0xbf), [1, 2]);
        ram.remove_sleeper(&wakers[0]);
        ram.remove_sleeper(&wakers[1]);
        assert_eq!(write(0x80), [1, 2]);
    }
}
