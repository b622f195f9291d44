//! Migration: the machine to another process, another host or a file, while its guest runs on, and back.

mod address;
mod cancel;
mod channel;
mod incoming;
mod outgoing;
mod settings;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use rhea_api::{
    Event,
    migration::{MigrationStats, MigrationStatus},
};
use rhea_core::memory::PAGE;

pub use self::{
    address::Address,
    cancel::Cancel,
    outgoing::Departure,
    settings::{Capability, Parameters},
};
use crate::events::EventSink;

/// What was done with memory, read at any time from any thread.
#[derive(Debug, Default)]
struct Figures {
    total: AtomicU64,
    remaining: AtomicU64,
    transferred: AtomicU64,
    /// Bytes written before the machine stood.
    before: AtomicU64,
    zeros: AtomicU64,
    others: AtomicU64,
    passes: AtomicU64,
    /// Pages changed in a second.
    dirtied: AtomicU64,
    /// Bytes in a second.
    speed: AtomicU64,
}

impl Figures {
    fn clear(&self) {
        let Self { total, remaining, transferred, before, zeros, others, passes, dirtied, speed } = self;
        for number in [total, remaining, transferred, before, zeros, others, passes, dirtied, speed] {
            number.store(0, Ordering::Relaxed);
        }
    }

    fn stats(&self) -> MigrationStats {
        let number = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let signed = |value: &AtomicU64| number(value) as i64;
        let speed = number(&self.speed);
        let (transferred, before) = (number(&self.transferred), number(&self.before));
        let before = if before == 0 { transferred } else { before };
        MigrationStats {
            transferred: transferred as i64,
            remaining: signed(&self.remaining),
            total: signed(&self.total),
            duplicate: signed(&self.zeros),
            normal: signed(&self.others),
            normal_bytes: signed(&self.others).saturating_mul(PAGE as i64),
            dirty_pages_rate: signed(&self.dirtied),
            mbps: speed as f64 * 8.0 / 1e6,
            dirty_sync_count: signed(&self.passes),
            postcopy_requests: 0,
            page_size: PAGE as i64,
            multifd_bytes: 0,
            pages_per_second: speed / PAGE,
            precopy_bytes: before,
            downtime_bytes: transferred.saturating_sub(before),
            postcopy_bytes: 0,
            dirty_sync_missed_zero_copy: 0,
        }
    }
}

#[derive(Debug)]
struct State {
    status: MigrationStatus,
    /// When it was begun.
    began: Instant,
    /// How long it took, once it has ended.
    took: Option<Duration>,
    setup: Option<Duration>,
    downtime: Option<Duration>,
    expected_downtime: Option<Duration>,
    error: Option<String>,
    /// This side sends.
    outgoing: bool,
    /// Somebody let it go on after the machine stood.
    go_on: bool,
    listens: Option<Result<SocketAddr, PathBuf>>,
    cancel: Option<Arc<Cancel>>,
}

/// How a migration stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its status.
    pub status: MigrationStatus,
    /// What was done with memory, by the side that sends.
    pub stats: Option<MigrationStats>,
    /// How long it has taken so far.
    pub total: Option<Duration>,
    /// How long the machine would stand.
    pub expected_downtime: Option<Duration>,
    /// How long the machine stood.
    pub downtime: Option<Duration>,
    /// How long it took to open the way.
    pub setup: Option<Duration>,
    /// Why it failed.
    pub error: Option<String>,
    /// Where the receiving side listens: host and port, or a path.
    pub listens: Option<Result<SocketAddr, PathBuf>>,
}

/// The migrations of a machine: the one under way or the latest, and what they go by.
pub struct Migration {
    state: Mutex<State>,
    changed: Condvar,
    figures: Figures,
    parameters: Mutex<Parameters>,
    capabilities: Mutex<Vec<Capability>>,
    events: EventSink,
    /// A machine that is received runs as soon as it is there, if it ran before.
    runs_at_once: AtomicBool,
    /// A machine was asked for that has not come yet.
    awaits: AtomicBool,
    /// The program ends: nobody is told any more.
    ending: AtomicBool,
    /// Why the program cannot go on.
    fatal: Mutex<Option<String>>,
}

/// Why a command about migrations was refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

impl Refused {
    pub(crate) fn because(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl Migration {
    pub(crate) fn new(events: EventSink, runs_at_once: bool) -> Self {
        let state = State {
            status: MigrationStatus::None,
            began: Instant::now(),
            took: None,
            setup: None,
            downtime: None,
            expected_downtime: None,
            error: None,
            outgoing: false,
            go_on: false,
            listens: None,
            cancel: None,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            figures: Figures::default(),
            parameters: Mutex::default(),
            capabilities: Mutex::default(),
            events,
            runs_at_once: AtomicBool::new(runs_at_once),
            awaits: AtomicBool::new(true),
            ending: AtomicBool::new(false),
            fatal: Mutex::default(),
        }
    }

    /// How the migration under way stands, or the latest one; nothing if there was none.
    pub fn standing(&self) -> Option<Standing> {
        let state = self.state.lock();
        let seen = state.status != MigrationStatus::None;
        let counted = state.outgoing && !matches!(state.status, MigrationStatus::Setup | MigrationStatus::Failed);
        seen.then(|| Standing {
            status: state.status,
            stats: counted.then(|| self.figures.stats()),
            total: state.outgoing.then(|| state.took.unwrap_or_else(|| state.began.elapsed())),
            expected_downtime: state.expected_downtime,
            downtime: state.downtime,
            setup: state.setup,
            error: state.error.clone(),
            listens: state.listens.clone(),
        })
    }

    /// What migrations go by.
    pub fn parameters(&self) -> Parameters {
        *self.parameters.lock()
    }

    /// Changes what migrations go by.
    pub fn set_parameters(&self, parameters: Parameters) {
        *self.parameters.lock() = parameters;
    }

    /// Whether a capability is on.
    pub fn has(&self, capability: Capability) -> bool {
        self.capabilities.lock().contains(&capability)
    }

    /// Switches capabilities on or off.
    ///
    /// # Errors
    /// A migration is under way.
    pub fn set_capabilities(&self, changes: &[(Capability, bool)]) -> Result<(), Refused> {
        if self.is_under_way() {
            return Err(Refused::because("There's a migration process in progress"));
        }
        let mut capabilities = self.capabilities.lock();
        for (capability, on) in changes {
            capabilities.retain(|known| known != capability);
            if *on {
                capabilities.push(*capability);
            }
        }
        Ok(())
    }

    /// Whether one is under way.
    pub fn is_under_way(&self) -> bool {
        is_under_way(self.state.lock().status)
    }

    /// Calls off what is being sent, if anything is.
    pub fn cancel(&self) {
        let mut state = self.state.lock();
        if !state.outgoing || !is_under_way(state.status) || state.status == MigrationStatus::Cancelling {
            return;
        }
        self.enter(&mut state, MigrationStatus::Cancelling);
        if let Some(cancel) = &state.cancel {
            cancel.cancel();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Ends whatever is under way: the program ends.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
        if let Some(cancel) = &self.state.lock().cancel {
            cancel.cancel();
        }
        self.changed.notify_all();
    }

    /// Whether the migration waits at `from`, while the machine stands, to be told to [`go_on`](Self::go_on).
    ///
    /// # Errors
    /// It does not.
    pub fn check_waiting(&self, from: MigrationStatus) -> Result<(), Refused> {
        if from == MigrationStatus::PreSwitchover && self.state.lock().status == from {
            return Ok(());
        }
        Err(Refused(format!("Migration is not in expected state: {from}")))
    }

    /// Lets a migration go on that waits. One that has ended meanwhile stays as it is.
    pub fn go_on(&self) {
        let mut state = self.state.lock();
        state.go_on |= state.status == MigrationStatus::PreSwitchover;
        drop(state);
        self.changed.notify_all();
    }

    /// Whether a machine that is received runs at once.
    pub(crate) fn set_runs_at_once(&self, runs: bool) {
        self.runs_at_once.store(runs, Ordering::SeqCst);
    }

    /// Why the program cannot go on, if so.
    pub fn take_fatal(&self) -> Option<String> {
        self.fatal.lock().take()
    }

    fn enter(&self, state: &mut State, status: MigrationStatus) {
        state.status = status;
        if self.has(Capability::Events) && !self.ending.load(Ordering::SeqCst) {
            (self.events)(Event::Migration { status });
        }
    }

    /// Begins one; another may have been before.
    fn begin(&self, outgoing: bool, cancel: Option<Arc<Cancel>>) {
        let mut state = self.state.lock();
        *state = State {
            status: MigrationStatus::Setup,
            began: Instant::now(),
            took: None,
            setup: None,
            downtime: None,
            expected_downtime: None,
            error: None,
            outgoing,
            go_on: false,
            listens: None,
            cancel,
        };
        self.figures.clear();
        self.enter(&mut state, MigrationStatus::Setup);
    }

    /// Goes on to `status`, unless it was called off meanwhile.
    fn proceed(&self, status: MigrationStatus) {
        let mut state = self.state.lock();
        if state.status != MigrationStatus::Cancelling {
            if status == MigrationStatus::Active {
                state.setup = Some(state.began.elapsed());
            }
            self.enter(&mut state, status);
        }
    }

    fn pass(&self) {
        let pass = self.figures.passes.fetch_add(1, Ordering::Relaxed) + 1;
        if self.has(Capability::Events) {
            (self.events)(Event::MigrationPass { pass: pass as i64 });
        }
    }

    /// Waits until somebody lets it go on, or calls it off.
    fn wait_for_go_on(&self, ending: impl Fn() -> bool) {
        let mut state = self.state.lock();
        while state.status == MigrationStatus::PreSwitchover && !state.go_on && !ending() {
            self.changed.wait(&mut state);
        }
    }

    fn ended(&self, status: MigrationStatus, downtime: Option<Duration>, error: Option<String>) {
        self.conclude(&mut self.state.lock(), status, downtime, error);
    }

    /// No machine came, and the program waits for another.
    fn awaits_another(&self, reason: String) {
        let mut state = self.state.lock();
        // Before anybody hears of it, since they may send another at once; that one then waits for the lock.
        self.awaits.store(true, Ordering::SeqCst);
        self.conclude(&mut state, MigrationStatus::Failed, None, Some(reason));
    }

    fn conclude(&self, state: &mut State, status: MigrationStatus, downtime: Option<Duration>, error: Option<String>) {
        state.took = Some(state.began.elapsed());
        state.downtime = downtime;
        state.expected_downtime = None;
        state.error = error;
        state.cancel = None;
        self.enter(state, status);
    }
}

const fn is_under_way(status: MigrationStatus) -> bool {
    !matches!(
        status,
        MigrationStatus::None | MigrationStatus::Completed | MigrationStatus::Failed | MigrationStatus::Cancelled
    )
}

#[cfg(test)]
mod tests {
    use std::sync::{OnceLock, Weak};

    use super::*;

    #[test]
    fn who_hears_that_no_machine_came_can_send_another() {
        let asked = Arc::new(OnceLock::<Weak<Migration>>::new());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let events: EventSink = {
            let (asked, heard) = (Arc::clone(&asked), Arc::clone(&heard));
            Arc::new(move |event| {
                let migration = asked.get().and_then(Weak::upgrade).unwrap();
                if let Event::Migration { status } = event {
                    heard.lock().push((status, migration.awaits.load(Ordering::SeqCst)));
                }
            })
        };
        let migration = Arc::new(Migration::new(events, true));
        asked.set(Arc::downgrade(&migration)).unwrap();
        migration.set_capabilities(&[(Capability::Events, true)]).unwrap();
        migration.awaits.store(false, Ordering::SeqCst);
        migration.begin(false, None);
        migration.awaits_another("nobody".to_owned());
        assert_eq!(*heard.lock(), [(MigrationStatus::Setup, false), (MigrationStatus::Failed, true)]);
        assert_eq!(migration.standing().unwrap().error.as_deref(), Some("nobody"));
    }
}
