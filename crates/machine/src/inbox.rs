//! What the main loop is asked to do: by the guest through its devices, and by timers that come due.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::{Condvar, Mutex};
use rhea_api::run_state::ShutdownCause;
use rhea_devices::acpi::pm::WakeCause;

/// What goes into a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SlotKind {
    /// A PCI device; the slot is the bus's number in the hotplug registers times 256, and the slot on it.
    Pci,
    /// A processor; the slot is its index.
    Cpu,
    /// A memory module.
    Dimm,
}

/// A change of the whole machine that started with the guest, or with the host's signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestRequest {
    /// Reset.
    Reset(ShutdownCause),
    /// Power off.
    Shutdown(ShutdownCause),
    /// Suspend to RAM.
    Suspend,
    /// Suspend to disk.
    SuspendToDisk,
    /// Wake up, if it sleeps.
    Wake(WakeCause),
    /// It panicked.
    Panicked,
    /// It asked for the end of this program, with a status.
    Exit(u8),
    /// It did not tend its watchdog.
    WatchdogExpired,
    /// It let go of what is in a slot.
    Ejected(SlotKind, u32),
    /// It reported about a slot (ACPI 5.0 § 6.3.5).
    Reported {
        /// What goes into the slot.
        kind: SlotKind,
        /// Which slot.
        slot: u32,
        /// The event that the report is about.
        event: u32,
        /// How it went.
        status: u32,
    },
    /// Leave the main loop now.
    Quit,
}

impl GuestRequest {
    /// Whether it comes from the host.
    fn is_of_host(&self) -> bool {
        match self {
            Self::Quit => true,
            Self::Reset(reason) | Self::Shutdown(reason) => !is_guest(*reason),
            _ => false,
        }
    }

    fn is_report(&self) -> bool {
        matches!(self, Self::Reported { .. })
    }

    /// Whether it is about the whole machine.
    fn is_whole(&self) -> bool {
        !matches!(self, Self::Reported { .. } | Self::Ejected(..) | Self::Wake(_))
    }
}

/// Which requests are attended to; the others wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Attention {
    /// All.
    #[default]
    All,
    /// All but those by which devices leave.
    NoEjection,
    /// Those of the host: the machine stands.
    Host,
}

impl Attention {
    fn is_for(self, request: &GuestRequest) -> bool {
        match self {
            Self::All => true,
            Self::NoEjection => !matches!(request, GuestRequest::Ejected(..)),
            Self::Host => request.is_of_host(),
        }
    }
}

#[derive(Default)]
struct State {
    requests: VecDeque<GuestRequest>,
    attention: Attention,
    /// The earliest deadline came nearer.
    woken: bool,
}

/// Requests to the main loop; any thread may leave one.
#[derive(Default)]
pub struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

/// More requests than this cannot wait: a guest that asks faster than it is served asks for the same again.
const LIMIT: usize = 16;
/// More reports about slots than this cannot wait: they are one or two for each that is plugged or unplugged.
const MOST_REPORTS: usize = 1024;

impl Inbox {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Leaves a request.
    pub fn leave(&self, request: GuestRequest) {
        let mut state = self.state.lock();
        let waiting = |like: fn(&GuestRequest) -> bool| state.requests.iter().filter(|other| like(other)).count();
        let room = match request {
            GuestRequest::Quit => true,
            // There are only so many slots, and each is let go of once; a sleeper wakes up once.
            GuestRequest::Ejected(..) | GuestRequest::Wake(_) => !state.requests.contains(&request),
            GuestRequest::Reported { .. } => waiting(GuestRequest::is_report) < MOST_REPORTS,
            _ => waiting(GuestRequest::is_whole) < LIMIT,
        };
        if room {
            state.requests.push_back(request);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Has only some requests attended to.
    pub(crate) fn attend(&self, attention: Attention) {
        let mut state = self.state.lock();
        state.attention = attention;
        state.woken = true;
        drop(state);
        self.changed.notify_one();
    }

    /// The requests that wait.
    pub(crate) fn waiting(&self) -> Vec<GuestRequest> {
        self.state.lock().requests.iter().copied().collect()
    }

    /// Puts other requests of the guest in place of those that wait; those of the host stay.
    pub(crate) fn replace(&self, requests: impl IntoIterator<Item = GuestRequest>) {
        let mut state = self.state.lock();
        state.requests.retain(GuestRequest::is_of_host);
        state.requests.extend(requests);
    }

    /// Makes the main loop look at the timers again.
    pub fn wake(&self) {
        self.state.lock().woken = true;
        self.changed.notify_one();
    }

    /// The next request, or `None` after `timeout` (for ever without one) or a [`wake`](Self::wake).
    pub fn wait(&self, timeout: Option<Duration>) -> Option<GuestRequest> {
        let mut state = self.state.lock();
        let next = |state: &State| state.requests.iter().position(|request| state.attention.is_for(request));
        if next(&state).is_none() && !state.woken {
            match timeout {
                Some(timeout) => {
                    self.changed.wait_for(&mut state, timeout);
                }
                None => self.changed.wait(&mut state),
            }
        }
        state.woken = false;
        next(&state).and_then(|at| state.requests.remove(at))
    }
}

/// Whether the guest itself is the cause.
pub(crate) fn is_guest(reason: ShutdownCause) -> bool {
    matches!(
        reason,
        ShutdownCause::GuestShutdown
            | ShutdownCause::GuestReset
            | ShutdownCause::GuestPanic
            | ShutdownCause::SubsystemReset
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_reports_leaves_room_for_everything_else() {
        let inbox = Inbox::default();
        for slot in 0..3000 {
            inbox.leave(GuestRequest::Reported { kind: SlotKind::Cpu, slot, event: 3, status: 0 });
            inbox.leave(GuestRequest::Ejected(SlotKind::Pci, slot % 2));
            inbox.leave(GuestRequest::Suspend);
        }
        let taken: Vec<GuestRequest> = std::iter::from_fn(|| inbox.wait(Some(Duration::ZERO))).collect();
        assert_eq!(taken.iter().filter(|request| request.is_report()).count(), MOST_REPORTS);
        assert_eq!(taken.iter().filter(|request| request.is_whole()).count(), LIMIT);
        assert_eq!(taken.iter().filter(|request| matches!(request, GuestRequest::Ejected(..))).count(), 2);
    }
}
