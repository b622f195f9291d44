//! What the main loop is asked to do: by the guest through its devices, and by timers that come due.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::{Condvar, Mutex};
use rhea_api::run_state::ShutdownCause;

/// A change of the whole machine that started with the guest, or with the host's signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestRequest {
    /// Reset.
    Reset(ShutdownCause),
    /// Power off.
    Shutdown(ShutdownCause),
    /// Suspend to RAM.
    Suspend,
    /// Leave the main loop now.
    Quit,
}

#[derive(Default)]
struct State {
    requests: VecDeque<GuestRequest>,
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

impl Inbox {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Leaves a request.
    pub fn leave(&self, request: GuestRequest) {
        let mut state = self.state.lock();
        if state.requests.len() < LIMIT || request == GuestRequest::Quit {
            state.requests.push_back(request);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Makes the main loop look at the timers again.
    pub fn wake(&self) {
        self.state.lock().woken = true;
        self.changed.notify_one();
    }

    /// The next request, or `None` after `timeout` (for ever without one) or a [`wake`](Self::wake).
    pub fn wait(&self, timeout: Option<Duration>) -> Option<GuestRequest> {
        let mut state = self.state.lock();
        if state.requests.is_empty() && !state.woken {
            match timeout {
                Some(timeout) => {
                    self.changed.wait_for(&mut state, timeout);
                }
                None => self.changed.wait(&mut state),
            }
        }
        state.woken = false;
        state.requests.pop_front()
    }
}
