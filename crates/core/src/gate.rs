//! A gate before work that must stand still while the machine does: threads go in for a piece of work, and closing waits
//! until nobody is inside.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

#[derive(Debug, Default)]
struct State {
    /// How many want it closed.
    closed: u32,
    inside: u32,
}

/// The gate.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    /// An open gate.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Waits while the gate is closed, and goes in until the guard is dropped. Not to be called by who is inside.
    pub fn enter(&self) -> Inside<'_> {
        let mut state = self.state.lock();
        while state.closed > 0 {
            self.changed.wait(&mut state);
        }
        state.inside += 1;
        Inside(self)
    }

    /// Closes the gate and waits until nobody is inside. Each close needs its [`open`](Self::open).
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed += 1;
        while state.inside > 0 {
            self.changed.wait(&mut state);
        }
    }

    /// Takes back one [`close`](Self::close).
    pub fn open(&self) {
        let mut state = self.state.lock();
        state.closed = state.closed.saturating_sub(1);
        drop(state);
        self.changed.notify_all();
    }
}

/// Someone inside.
#[derive(Debug)]
pub struct Inside<'a>(&'a Gate);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.state.lock().inside -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
        time::Duration,
    };

    use super::*;

    #[test]
    fn closing_waits_for_those_inside_and_keeps_others_out() {
        let gate = Gate::new();
        let inside = gate.enter();
        let closed = Arc::new(AtomicBool::new(false));
        let closer = {
            let (gate, closed) = (Arc::clone(&gate), Arc::clone(&closed));
            thread::spawn(move || {
                gate.close();
                closed.store(true, Ordering::SeqCst);
            })
        };
        thread::sleep(Duration::from_millis(20));
        assert!(!closed.load(Ordering::SeqCst));
        drop(inside);
        closer.join().unwrap();
        let entered = Arc::new(AtomicBool::new(false));
        let late = {
            let (gate, entered) = (Arc::clone(&gate), Arc::clone(&entered));
            thread::spawn(move || {
                let _inside = gate.enter();
                entered.store(true, Ordering::SeqCst);
            })
        };
        thread::sleep(Duration::from_millis(20));
        assert!(!entered.load(Ordering::SeqCst));
        gate.open();
        late.join().unwrap();
        assert!(entered.load(Ordering::SeqCst));
    }
}
