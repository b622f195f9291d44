//! One backend for several users: whoever types there chooses one of them with Ctrl-a c.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use super::{
    CharDevice, Hook,
    device::{FrontEnd, Port},
};

const HELP: &str = "\r\nC-a h    print this help\r\nC-a x    exit\r\nC-a b    send a break\r\n\
                    C-a c    switch between console and monitor\r\nC-a C-a  send C-a\r\n";
const ESCAPE: u8 = 0x01;

/// Most typed bytes kept for a user that has no room, so that the escape key behind them is still seen.
const HELD_LIMIT: usize = 4096;

/// Most users of one backend.
const MOST_SEATS: usize = 16;

/// A shared backend.
pub(super) struct Mux {
    base: FrontEnd,
    seats: Arc<Seats>,
}

impl Mux {
    /// Shares `base`. `exit` is done when somebody types the key for it.
    pub(super) fn new(base: FrontEnd, exit: Arc<Mutex<Option<Hook>>>) -> Self {
        let seats = Arc::new(Seats { base: Arc::downgrade(base.device()), state: Mutex::default(), exit });
        base.connect(Arc::clone(&seats) as Arc<dyn Port>);
        Self { base, seats }
    }

    pub(super) fn base(&self) -> &CharDevice {
        self.base.device()
    }

    pub(super) fn seats(&self) -> &Arc<Seats> {
        &self.seats
    }

    pub(super) fn write(&self, bytes: &[u8]) {
        self.base.write(bytes);
    }
}

/// The users: the base's port.
pub(super) struct Seats {
    base: Weak<CharDevice>,
    state: Mutex<State>,
    exit: Arc<Mutex<Option<Hook>>>,
}

#[derive(Default)]
struct State {
    seats: Vec<Seat>,
    focus: Option<usize>,
    escaped: bool,
    room: Option<Hook>,
}

#[derive(Clone, Default)]
enum Seat {
    #[default]
    Free,
    Claimed,
    Connected(User),
}

#[derive(Clone)]
struct User {
    port: Arc<dyn Port>,
    /// Typed for it, and not taken yet.
    held: VecDeque<u8>,
}

impl State {
    fn port(&self, seat: usize) -> Option<Arc<dyn Port>> {
        match self.seats.get(seat) {
            Some(Seat::Connected(user)) => Some(Arc::clone(&user.port)),
            _ => None,
        }
    }

    fn focused(&self) -> Option<Arc<dyn Port>> {
        self.port(self.focus?)
    }

    fn held(&mut self, seat: usize) -> Option<&mut VecDeque<u8>> {
        match self.seats.get_mut(seat) {
            Some(Seat::Connected(user)) => Some(&mut user.held),
            _ => None,
        }
    }

    /// The user after the one that is chosen.
    fn next(&self) -> Option<usize> {
        let count = self.seats.len();
        let from = self.focus.map_or(0, |focus| focus + 1);
        (0..count).map(|step| (from + step) % count).find(|&seat| matches!(self.seats[seat], Seat::Connected(_)))
    }
}

impl Seats {
    /// A place for one more user.
    pub(super) fn claim(&self) -> Option<usize> {
        let mut state = self.state.lock();
        let free = state.seats.iter().position(|seat| matches!(seat, Seat::Free));
        let seat = match free {
            Some(seat) => seat,
            None if state.seats.len() < MOST_SEATS => {
                state.seats.push(Seat::Free);
                state.seats.len() - 1
            }
            None => return None,
        };
        state.seats[seat] = Seat::Claimed;
        Some(seat)
    }

    pub(super) fn are_taken(&self) -> bool {
        self.state.lock().seats.iter().any(|seat| !matches!(seat, Seat::Free))
    }

    /// Connects a user. The first one is who is talked to.
    pub(super) fn connect(self: &Arc<Self>, seat: usize, port: &Arc<dyn Port>) {
        let seats = Arc::downgrade(self);
        port.on_room(Box::new(move || {
            if let Some(seats) = seats.upgrade() {
                seats.wake();
            }
        }));
        let mut state = self.state.lock();
        if let Some(place) = state.seats.get_mut(seat) {
            *place = Seat::Connected(User { port: Arc::clone(port), held: VecDeque::new() });
        }
        let first = state.focus.is_none();
        if first {
            state.focus = Some(seat);
        }
        drop(state);
        if first {
            port.focus(true);
        }
        self.wake();
    }

    pub(super) fn leave(&self, seat: usize) {
        let mut state = self.state.lock();
        if let Some(place) = state.seats.get_mut(seat) {
            *place = Seat::Free;
        }
        let mut turned_to = None;
        if state.focus == Some(seat) {
            state.focus = state.next();
            turned_to = state.focused();
        }
        drop(state);
        if let Some(port) = turned_to {
            port.focus(true);
        }
        self.wake();
    }

    /// Input that was held up may go on.
    fn wake(&self) {
        let room = self.state.lock().room.clone();
        if let Some(room) = room {
            room();
        }
    }

    /// Gives users what was held for them.
    fn release(&self) {
        let count = self.state.lock().seats.len();
        for seat in 0..count {
            let mut state = self.state.lock();
            let (Some(port), Some(held)) = (state.port(seat), state.held(seat)) else { continue };
            let mut held = std::mem::take(held);
            drop(state);
            if held.is_empty() {
                continue;
            }
            let taken = port.receive(held.make_contiguous());
            held.drain(..taken);
            if let Some(place) = self.state.lock().held(seat) {
                *place = held;
            }
        }
    }

    /// Gives bytes to the user that is chosen, or holds them; says how many.
    fn deliver(&self, bytes: &[u8]) -> usize {
        let mut state = self.state.lock();
        // Before there is a user, everything waits.
        let Some(seat) = state.focus else { return 0 };
        let (Some(port), Some(held)) = (state.port(seat), state.held(seat)) else { return 0 };
        let behind_others = !held.is_empty();
        drop(state);
        let taken = if behind_others { 0 } else { port.receive(bytes) };
        let mut state = self.state.lock();
        let Some(held) = state.held(seat) else { return bytes.len() };
        let kept = (bytes.len() - taken).min(HELD_LIMIT.saturating_sub(held.len()));
        held.extend(&bytes[taken..taken + kept]);
        taken + kept
    }

    fn print(&self, text: &str) {
        if let Some(base) = self.base.upgrade() {
            base.write(text.as_bytes());
        }
    }

    /// What follows the escape key.
    fn command(&self, key: u8) {
        match key {
            b'h' | b'?' => self.print(HELP),
            b'x' => {
                let exit = self.exit.lock().clone();
                if let Some(exit) = exit {
                    exit();
                }
            }
            b'b' => self.receive_break(),
            b'c' => {
                let mut state = self.state.lock();
                let (left, next) = (state.focused(), state.next());
                state.focus = next;
                let turned_to = state.focused();
                drop(state);
                self.print("\r\n");
                for (port, on) in [(left, false), (turned_to, true)] {
                    if let Some(port) = port {
                        port.focus(on);
                    }
                }
            }
            _ => {}
        }
    }
}

impl Port for Seats {
    fn receive(&self, bytes: &[u8]) -> usize {
        // Only one task ever calls this, so that what is held cannot be overtaken.
        self.release();
        let mut done = 0;
        while let Some(&byte) = bytes.get(done) {
            let mut state = self.state.lock();
            let literal = state.escaped && byte == ESCAPE;
            if state.escaped && !literal {
                state.escaped = false;
                drop(state);
                done += 1;
                self.command(byte);
                continue;
            }
            if byte == ESCAPE && !literal {
                state.escaped = true;
                done += 1;
                continue;
            }
            drop(state);
            let rest = &bytes[done..];
            let run = match rest.iter().position(|&byte| byte == ESCAPE) {
                _ if literal => &rest[..1],
                Some(end) => &rest[..end],
                None => rest,
            };
            let taken = self.deliver(run);
            done += taken;
            if literal && taken == 1 {
                self.state.lock().escaped = false;
            }
            if taken < run.len() {
                break;
            }
        }
        done
    }

    fn on_room(&self, wake: Box<dyn Fn() + Send + Sync>) {
        self.state.lock().room = Some(Arc::from(wake));
    }

    fn receive_break(&self) {
        let port = self.state.lock().focused();
        if let Some(port) = port {
            port.receive_break();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes `room` bytes, then none until there is room again.
    struct Listener {
        heard: Mutex<Vec<u8>>,
        room: Mutex<usize>,
    }

    impl Listener {
        fn new(room: usize) -> Arc<Self> {
            Arc::new(Self { heard: Mutex::default(), room: Mutex::new(room) })
        }

        fn text(&self) -> String {
            String::from_utf8(self.heard.lock().clone()).unwrap()
        }
    }

    impl Port for Listener {
        fn receive(&self, bytes: &[u8]) -> usize {
            let mut room = self.room.lock();
            let taken = bytes.len().min(*room);
            *room -= taken;
            self.heard.lock().extend(&bytes[..taken]);
            taken
        }

        fn on_room(&self, _: Box<dyn Fn() + Send + Sync>) {}

        fn receive_break(&self) {
            self.heard.lock().extend(b"<break>");
        }

        fn focus(&self, on: bool) {
            self.heard.lock().extend(if on { b"<on>".as_slice() } else { b"<off>" });
        }
    }

    fn seats(exit: Option<Hook>) -> Arc<Seats> {
        Arc::new(Seats { base: Weak::new(), state: Mutex::default(), exit: Arc::new(Mutex::new(exit)) })
    }

    fn sit(seats: &Arc<Seats>, listener: &Arc<Listener>) -> usize {
        let seat = seats.claim().unwrap();
        seats.connect(seat, &(Arc::clone(listener) as Arc<dyn Port>));
        seat
    }

    #[test]
    fn control_a_c_goes_round_and_twice_control_a_is_itself() {
        let (seats, console, monitor) = (seats(None), Listener::new(100), Listener::new(100));
        sit(&seats, &console);
        sit(&seats, &monitor);
        assert_eq!(seats.receive(b"a\x01"), 2);
        assert_eq!(seats.receive(b"cb\x01\x01\x01cd\x01b"), 9);
        assert_eq!(console.text(), "<on>a<off><on>d<break>");
        assert_eq!(monitor.text(), "<on>b\x01<off>");
    }

    #[test]
    fn who_leaves_is_followed_by_the_next_and_gives_up_the_place() {
        let (seats, console, monitor) = (seats(None), Listener::new(100), Listener::new(100));
        let seat = sit(&seats, &console);
        sit(&seats, &monitor);
        seats.leave(seat);
        seats.receive(b"x");
        assert_eq!(monitor.text(), "<on>x");
        assert_eq!(seats.claim(), Some(seat));
    }

    #[test]
    fn the_exit_key_exits() {
        let exited = Arc::new(Mutex::new(0));
        let count = Arc::clone(&exited);
        let seats = seats(Some(Arc::new(move || *count.lock() += 1)));
        assert_eq!(seats.receive(b"x"), 0, "nobody is there yet");
        // A user without room does not keep the key from being seen.
        sit(&seats, &Listener::new(0));
        assert_eq!(seats.receive(b"x\x01x"), 3);
        assert_eq!(*exited.lock(), 1);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_doubled_when_the_user_is_slow(
            input in prop::collection::vec(prop::sample::select(vec![b'a', b'd', ESCAPE]), 0..60),
            rooms in prop::collection::vec(0usize..4, 1..40),
        ) {
            let (fast, at_once) = (seats(None), Listener::new(1000));
            sit(&fast, &at_once);
            prop_assert_eq!(fast.receive(&input), input.len());
            let (slow, bit_by_bit) = (seats(None), Listener::new(0));
            sit(&slow, &bit_by_bit);
            let mut done = 0;
            for room in rooms.into_iter().chain([1000]) {
                *bit_by_bit.room.lock() += room;
                done += slow.receive(&input[done..]);
            }
            prop_assert_eq!(done, input.len());
            prop_assert_eq!(at_once.text(), bit_by_bit.text());
        }
    }
}
