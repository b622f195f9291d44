//! What managers type and point at: keys and movements that reach the guest through its keyboard and mouse, at moments
//! of the machine's clock.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use rhea_core::{Instant, Timer, TimerQueue};
use rhea_devices::input::{Buttons, Ps2};

/// Presses and releases that may wait.
const MOST: usize = 1024;

/// More keys wait than there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many keys wait to be typed")]
pub struct TooManyKeys;

/// A press or a release that waits for its moment.
struct Stroke {
    at: Instant,
    key: u8,
    down: bool,
}

#[derive(Default)]
struct State {
    strokes: VecDeque<Stroke>,
    buttons: Buttons,
}

/// Keyboard and mouse, from the side of who uses them.
pub struct Input {
    device: Arc<Ps2>,
    state: Mutex<State>,
    timer: Timer,
}

impl Input {
    /// The user's side of `device`.
    pub fn new(device: &Arc<Ps2>, timers: &Arc<TimerQueue>) -> Arc<Self> {
        Arc::new_cyclic(|weak: &Weak<Self>| {
            let weak = Weak::clone(weak);
            let timer = timers.timer(move |now| {
                if let Some(input) = weak.upgrade() {
                    input.type_until(now);
                }
            });
            Self { device: Arc::clone(device), state: Mutex::default(), timer }
        })
    }

    /// Presses `keys` one after another, holds them all, and releases them in the other order; once everything that was
    /// to be typed before is done.
    ///
    /// # Errors
    /// Too much waits.
    pub fn type_keys(&self, keys: &[u8], hold: Duration) -> Result<(), TooManyKeys> {
        let now = self.timer.now();
        {
            let mut state = self.state.lock();
            if keys.len().saturating_mul(2).saturating_add(state.strokes.len()) > MOST {
                return Err(TooManyKeys);
            }
            let start = state.strokes.back().map_or(now, |last| last.at.max(now));
            let end = start.saturating_add(hold);
            state.strokes.extend(keys.iter().map(|&key| Stroke { at: start, key, down: true }));
            state.strokes.extend(keys.iter().rev().map(|&key| Stroke { at: end, key, down: false }));
        }
        self.type_until(now);
        Ok(())
    }

    fn type_until(&self, now: Instant) {
        let mut state = self.state.lock();
        while let Some(stroke) = state.strokes.front().filter(|stroke| stroke.at <= now) {
            self.device.key(stroke.key, stroke.down);
            state.strokes.pop_front();
        }
        self.timer.set_or_cancel(state.strokes.front().map(|stroke| stroke.at));
    }

    /// Moves the mouse right and down, and its wheel towards the user.
    pub fn move_mouse(&self, right: i32, down: i32, wheel: i32) {
        let state = self.state.lock();
        self.device.pointer(right, down, wheel, state.buttons);
    }

    /// Says which of the mouse's buttons are down.
    pub fn set_buttons(&self, buttons: Buttons) {
        let mut state = self.state.lock();
        state.buttons = buttons;
        self.device.pointer(0, 0, 0, buttons);
    }
}

#[cfg(test)]
mod tests {
    use rhea_core::{Clock, InterruptLine, PortSpace, Width};

    use super::*;

    fn bench() -> (Arc<TimerQueue>, Arc<Input>, PortSpace) {
        let timers = TimerQueue::new(Clock::told());
        let line = InterruptLine::unconnected;
        let device = Ps2::new(line(), line(), Arc::new(|| ()), Arc::new(|_| ()));
        let ports = PortSpace::new();
        device.map(&ports);
        (Arc::clone(&timers), Input::new(&device, &timers), ports)
    }

    fn read(ports: &PortSpace) -> Vec<u8> {
        std::iter::from_fn(|| {
            let full = ports.read(0x64, Width::Byte) & 1 != 0;
            full.then(|| ports.read(0x60, Width::Byte) as u8)
        })
        .collect()
    }

    #[test]
    fn keys_are_pressed_in_order_held_and_released_backwards() {
        let (timers, input, ports) = bench();
        input.type_keys(&[0x1d, 0x38], Duration::from_millis(100)).unwrap();
        input.type_keys(&[0x1e], Duration::from_millis(10)).unwrap();
        let after = |milliseconds| Instant::ZERO.saturating_add(Duration::from_millis(milliseconds));
        // The controller translates to set 1, in which a release is the number with bit 7 set.
        assert_eq!(read(&ports), [0x1d, 0x38]);
        timers.run_until(after(99));
        assert_eq!(read(&ports), [0_u8; 0]);
        timers.run_until(after(100));
        assert_eq!(read(&ports), [0xb8, 0x9d, 0x1e]);
        timers.run_until(after(200));
        assert_eq!(read(&ports), [0x9e]);
    }

    #[test]
    fn more_keys_than_there_is_room_for_are_refused() {
        let (_timers, input, _ports) = bench();
        assert_eq!(input.type_keys(&[0x1e; 600], Duration::ZERO), Err(TooManyKeys));
        assert_eq!(input.type_keys(&[0x1e; 500], Duration::from_secs(1)), Ok(()));
        assert_eq!(input.type_keys(&[0x1e; 500], Duration::from_secs(1)), Err(TooManyKeys));
    }
}
