//! Events on their way to clients: stamped, rate-limited, and queued for every session, from any thread.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;

use crate::message::{Event, append_event};
use crate::outbox::Outbox;

/// The least time between two events of a rate-limited kind.
pub const RATE_LIMIT: Duration = Duration::from_secs(1);

/// Rate-limited events. Those with a key are limited apart for each value of that member of their data.
const RATE_LIMITED: [(&str, Option<&str>); 7] = [
    ("BALLOON_CHANGE", None),
    ("MEMORY_DEVICE_SIZE_CHANGE", Some("qom-path")),
    ("QUORUM_FAILURE", None),
    ("QUORUM_REPORT_BAD", Some("node-name")),
    ("RTC_CHANGE", None),
    ("VSERPORT_CHANGE", Some("id")),
    ("WATCHDOG", None),
];

/// Most kinds that are held back at a time; beyond that, events go out unlimited rather than be lost.
const MOST_HELD: usize = 4096;

/// What an event is limited by: its name, and the value of its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind {
    name: &'static str,
    key: Option<String>,
}

impl Kind {
    fn of(event: &Event) -> Option<Self> {
        let (name, key) = RATE_LIMITED.iter().find(|(name, _)| *name == event.name)?;
        let key = key.map(|key| {
            let value = event.data.as_ref().and_then(|data| data.get(key));
            value.map(ToString::to_string).unwrap_or_default()
        });
        Some(Self { name, key })
    }
}

/// What happened lately to events of one kind.
struct Window {
    /// When the next one may go out.
    ends: Instant,
    /// The latest that had to wait.
    held: Option<Event>,
}

/// Lets at most one event of a rate-limited kind through at a time, and keeps the latest of the others for later.
#[derive(Default)]
pub struct RateLimiter {
    windows: HashMap<Kind, Window>,
}

impl RateLimiter {
    /// Gives `event` back if it may go out at `now`; otherwise keeps it in place of the one kept before.
    pub fn admit(&mut self, event: Event, now: Instant) -> Option<Event> {
        let Some(kind) = Kind::of(&event) else { return Some(event) };
        if let Some(window) = self.windows.get_mut(&kind) {
            if window.held.is_some() || now < window.ends {
                window.held = Some(event);
                return None;
            }
            window.ends = now + RATE_LIMIT;
            return Some(event);
        }
        if self.windows.len() == MOST_HELD {
            self.windows.retain(|_, window| window.held.is_some() || now < window.ends);
        }
        if self.windows.len() < MOST_HELD {
            self.windows.insert(kind, Window { ends: now + RATE_LIMIT, held: None });
        }
        Some(event)
    }

    /// The events whose wait is over at `now`, oldest first.
    pub fn due(&mut self, now: Instant) -> Vec<Event> {
        let mut due = Vec::new();
        self.windows.retain(|_, window| {
            if now < window.ends {
                return true;
            }
            match window.held.take() {
                Some(event) => {
                    due.push(event);
                    window.ends = now + RATE_LIMIT;
                    true
                }
                None => false,
            }
        });
        due.sort_by_key(|event| (event.seconds, event.microseconds));
        due
    }

    /// When something that is held back is next due.
    pub fn next_due(&self) -> Option<Instant> {
        self.windows.values().filter(|window| window.held.is_some()).map(|window| window.ends).min()
    }

    /// Everything that is held back, due or not, oldest first.
    pub fn drain(&mut self) -> Vec<Event> {
        let mut held: Vec<Event> = self.windows.drain().filter_map(|(_, window)| window.held).collect();
        held.sort_by_key(|event| (event.seconds, event.microseconds));
        held
    }
}

/// Called with each event as it goes out, on whichever thread that happens.
pub type Listener = Box<dyn Fn(&Event) + Send + Sync>;

#[derive(Default)]
struct State {
    sessions: Vec<Weak<Outbox>>,
    listeners: Vec<Arc<Listener>>,
    limiter: RateLimiter,
    closing: bool,
}

#[derive(Default)]
struct Hub {
    state: Mutex<State>,
    /// Told when something is held back and the earliest time at which it is due may have changed.
    held: Notify,
}

/// Where events enter: cheap to copy, usable on any thread, and never waits for a client.
///
/// An event is in every session's queue when `emit` returns, so what a command emits precedes its result.
#[derive(Clone, Default)]
pub struct EventSender {
    hub: Arc<Hub>,
}

impl EventSender {
    /// A sender with no sessions yet: a server attaches them.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends the event `name` to all negotiated sessions, now or when its rate limit allows.
    pub fn emit(&self, name: &str, data: Option<Value>) {
        let (seconds, microseconds) = timestamp(SystemTime::now());
        let event = Event { name: name.to_owned(), data, seconds, microseconds };
        let mut state = self.hub.state.lock();
        match state.limiter.admit(event, Instant::now()) {
            Some(event) => state.deliver(&event),
            None => self.hub.held.notify_one(),
        }
    }

    /// Has `listener` called with each event. It must not emit events itself.
    pub fn listen(&self, listener: Listener) {
        self.hub.state.lock().listeners.push(Arc::new(listener));
    }

    /// Ends all sessions, those to come included, once what is queued for them is written. Held-back events go out first.
    pub fn close(&self) {
        let mut state = self.hub.state.lock();
        for event in state.limiter.drain() {
            state.deliver(&event);
        }
        state.closing = true;
        for outbox in state.sessions.iter().filter_map(Weak::upgrade) {
            outbox.close();
        }
    }

    /// Adds a session's queue; it is forgotten when the session drops it.
    pub(crate) fn attach(&self, outbox: &Arc<Outbox>) {
        let mut state = self.hub.state.lock();
        state.sessions.retain(|session| session.strong_count() > 0);
        state.sessions.push(Arc::downgrade(outbox));
        if state.closing {
            outbox.close();
        }
    }

    /// Sends held-back events as they fall due, without end.
    pub(crate) async fn run_timer(self) {
        loop {
            let next = {
                let mut state = self.hub.state.lock();
                for event in state.limiter.due(Instant::now()) {
                    state.deliver(&event);
                }
                state.limiter.next_due()
            };
            match next {
                Some(next) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(next.into()) => {}
                        () = self.hub.held.notified() => {}
                    }
                }
                None => self.hub.held.notified().await,
            }
        }
    }
}

impl State {
    fn deliver(&mut self, event: &Event) {
        tracing::debug!(event = event.name, "event");
        let mut message = Vec::with_capacity(128);
        append_event(&mut message, event);
        for outbox in self.sessions.iter().filter_map(Weak::upgrade) {
            outbox.push_event(&message);
        }
        for listener in &self.listeners {
            listener(event);
        }
    }
}

/// Seconds and microseconds since 1970, or -1 and -1 where the clock is set to before that.
fn timestamp(now: SystemTime) -> (i64, i64) {
    match now.duration_since(UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(-1), i64::from(since.subsec_micros())),
        Err(_) => (-1, -1),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(name: &str, data: Value, second: i64) -> Event {
        Event { name: name.to_owned(), data: Some(data), seconds: second, microseconds: 0 }
    }

    fn balloon(actual: i64) -> Event {
        event("BALLOON_CHANGE", json!({"actual": actual}), actual)
    }

    const HALF: Duration = Duration::from_millis(500);

    #[test]
    fn the_first_goes_at_once_and_the_last_of_the_rest_after_a_second() {
        let mut limiter = RateLimiter::default();
        let start = Instant::now();
        assert_eq!(limiter.admit(balloon(1), start), Some(balloon(1)));
        assert_eq!(limiter.next_due(), None);
        assert_eq!(limiter.admit(balloon(2), start), None);
        assert_eq!(limiter.admit(balloon(3), start + HALF), None);
        assert_eq!(limiter.next_due(), Some(start + RATE_LIMIT));
        assert_eq!(limiter.due(start + RATE_LIMIT - Duration::from_nanos(1)), []);
        assert_eq!(limiter.due(start + RATE_LIMIT), [balloon(3)]);
        // That one opens a second of its own.
        assert_eq!(limiter.admit(balloon(4), start + RATE_LIMIT + HALF), None);
        assert_eq!(limiter.due(start + 2 * RATE_LIMIT), [balloon(4)]);
        assert_eq!(limiter.admit(balloon(5), start + 3 * RATE_LIMIT), Some(balloon(5)));
    }

    #[test]
    fn a_timer_that_comes_late_neither_loses_nor_reorders() {
        let mut limiter = RateLimiter::default();
        let start = Instant::now();
        assert!(limiter.admit(balloon(1), start).is_some());
        assert_eq!(limiter.admit(balloon(2), start), None);
        assert_eq!(limiter.admit(balloon(3), start + 5 * RATE_LIMIT), None);
        assert_eq!(limiter.due(start + 5 * RATE_LIMIT), [balloon(3)]);
    }

    #[test]
    fn other_events_are_not_limited() {
        let mut limiter = RateLimiter::default();
        let now = Instant::now();
        for second in 0..10 {
            assert!(limiter.admit(event("STOP", Value::Null, second), now).is_some());
        }
    }

    #[test]
    fn ports_and_devices_are_limited_each_for_itself() {
        let mut limiter = RateLimiter::default();
        let now = Instant::now();
        let port = |id: &str, open: bool| event("VSERPORT_CHANGE", json!({"id": id, "open": open}), 0);
        assert!(limiter.admit(port("a", true), now).is_some());
        assert!(limiter.admit(port("b", true), now).is_some());
        assert!(limiter.admit(port("a", false), now).is_none());
        assert!(limiter.admit(port("b", false), now).is_none());
        assert_eq!(limiter.drain().len(), 2);
    }

    #[test]
    fn what_is_held_back_comes_out_at_the_end_in_order() {
        let mut limiter = RateLimiter::default();
        let now = Instant::now();
        let clock = |second| event("RTC_CHANGE", json!({"offset": second}), second);
        for second in [1, 2] {
            limiter.admit(balloon(second), now);
            limiter.admit(clock(second + 10), now);
        }
        assert_eq!(limiter.drain(), [balloon(2), clock(12)]);
        assert_eq!(limiter.drain(), []);
    }

    #[test]
    fn many_kinds_take_bounded_memory_and_lose_nothing() {
        let mut limiter = RateLimiter::default();
        let now = Instant::now();
        let port = |id: usize| event("VSERPORT_CHANGE", json!({"id": id}), 0);
        for id in 0..2 * MOST_HELD {
            assert!(limiter.admit(port(id), now).is_some());
        }
        assert_eq!(limiter.windows.len(), MOST_HELD);
        // Windows that are over make room.
        assert!(limiter.admit(port(0), now + RATE_LIMIT).is_some());
        assert!(limiter.admit(port(3 * MOST_HELD), now + RATE_LIMIT).is_some());
        assert!(limiter.windows.len() <= 2, "{}", limiter.windows.len());
    }

    #[test]
    fn a_clock_before_1970_is_minus_one() {
        assert_eq!(timestamp(UNIX_EPOCH + Duration::from_micros(1_500_001)), (1, 500_001));
        assert_eq!(timestamp(UNIX_EPOCH - Duration::from_secs(1)), (-1, -1));
    }
}
