//! How a dump of the guest's memory stands.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use rhea_api::dump::{DumpQueryResult, DumpStatus};

/// How long the end of the program waits for a dump that was called off: it may write to someone who does not read.
const PATIENCE: Duration = Duration::from_millis(500);

/// How the latest dump stands; read at any time, from any thread.
#[derive(Debug)]
pub struct DumpProgress {
    status: Mutex<DumpStatus>,
    ended: Condvar,
    completed: AtomicU64,
    total: AtomicU64,
    cancelled: AtomicBool,
}

impl Default for DumpProgress {
    fn default() -> Self {
        Self {
            status: Mutex::new(DumpStatus::None),
            ended: Condvar::new(),
            completed: AtomicU64::new(0),
            total: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
        }
    }
}

impl DumpProgress {
    /// How it stands.
    pub fn query(&self) -> DumpQueryResult {
        let status = *self.status.lock();
        let number = |value: &AtomicU64| value.load(Ordering::Relaxed) as i64;
        DumpQueryResult { status, completed: number(&self.completed), total: number(&self.total) }
    }

    pub(super) fn begin(&self, total: u64) {
        let mut status = self.status.lock();
        self.completed.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        *status = DumpStatus::Active;
    }

    /// So many bytes are written; whether it is to go on.
    pub(super) fn reached(&self, completed: u64) -> ControlFlow<()> {
        self.completed.store(completed, Ordering::Relaxed);
        if self.cancelled.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    pub(super) fn end(&self, result: DumpStatus) -> DumpQueryResult {
        *self.status.lock() = result;
        self.ended.notify_all();
        self.query()
    }

    /// Calls a dump off: the machine ends.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Lets a dump that was called off clean up.
    pub(crate) fn wait_for_end(&self) {
        let mut status = self.status.lock();
        self.ended.wait_while_for(&mut status, |status| *status == DumpStatus::Active, PATIENCE);
    }
}
