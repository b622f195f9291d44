//! Interrupt lines: level-carrying wires from a device to whatever takes its interrupts.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;

/// The far end of interrupt lines: an interrupt controller, a router, a processor pin.
pub trait InterruptSink: Send + Sync {
    /// Drives input `pin` to `level`; `true` is asserted. Called on changes and on repetitions alike.
    fn set_level(&self, pin: u32, level: bool);

    /// Whether an edge at input `pin` is still to be taken by a processor, so that another one now would be lost. Who
    /// cannot tell says no.
    fn is_pending(&self, pin: u32) -> bool {
        let _ = pin;
        false
    }
}

/// One wire, as the device that drives it holds it.
#[derive(Clone)]
pub struct InterruptLine {
    end: Option<(Arc<dyn InterruptSink>, u32)>,
}

impl InterruptLine {
    /// A wire to input `pin` of `sink`.
    pub fn new(sink: Arc<dyn InterruptSink>, pin: u32) -> Self {
        Self { end: Some((sink, pin)) }
    }

    /// A wire that ends nowhere.
    pub const fn unconnected() -> Self {
        Self { end: None }
    }

    /// Drives the wire.
    pub fn set(&self, level: bool) {
        if let Some((sink, pin)) = &self.end {
            sink.set_level(*pin, level);
        }
    }

    /// Whether an edge that came over the wire is still to be taken, so that another one now would be lost.
    pub fn is_pending(&self) -> bool {
        self.end.as_ref().is_some_and(|(sink, pin)| sink.is_pending(*pin))
    }

    /// Asserts the wire.
    pub fn raise(&self) {
        self.set(true);
    }

    /// Releases the wire.
    pub fn lower(&self) {
        self.set(false);
    }

    /// A rising and a falling edge.
    pub fn pulse(&self) {
        self.raise();
        self.lower();
    }
}

/// Hears of the changes that pass a [`Tap`]: pin and new level.
pub type TapListener = Arc<dyn Fn(u32, bool) + Send + Sync>;

#[derive(Default)]
struct Tapped {
    levels: u64,
    /// How often each wire was asserted.
    rises: Vec<u64>,
    listener: Option<TapListener>,
}

/// A place on up to 64 wires where a test listens. What comes goes on unchanged.
pub struct Tap {
    pins: u32,
    state: Mutex<Tapped>,
    end: Arc<dyn InterruptSink>,
}

impl Tap {
    /// A tap before the first `pins` inputs of `end`, at most 64.
    pub fn new(pins: u32, end: Arc<dyn InterruptSink>) -> Arc<Self> {
        let pins = pins.min(64);
        let state = Tapped { rises: vec![0; pins as usize], ..Tapped::default() };
        Arc::new(Self { pins, state: Mutex::new(state), end })
    }

    /// How many wires there are.
    pub const fn pins(&self) -> u32 {
        self.pins
    }

    /// How often each wire was asserted.
    pub fn rises(&self) -> Vec<u64> {
        self.state.lock().rises.clone()
    }

    /// Tells `listener` which wires are asserted, and of changes from now on, in place of any other one; `None` ends that.
    /// It is called on the thread that drives the wire, and must not drive one itself.
    pub fn listen(&self, listener: Option<TapListener>) {
        let mut state = self.state.lock();
        if let Some(listener) = &listener {
            (0..self.pins).filter(|pin| state.levels >> pin & 1 != 0).for_each(|pin| listener(pin, true));
        }
        state.listener = listener;
    }
}

impl InterruptSink for Tap {
    fn set_level(&self, pin: u32, level: bool) {
        if pin < self.pins {
            let mut state = self.state.lock();
            let bit = 1 << pin;
            if (state.levels & bit != 0) != level {
                state.levels ^= bit;
                if let Some(rises) = state.rises.get_mut(pin as usize).filter(|_| level) {
                    *rises = rises.wrapping_add(1);
                }
                if let Some(listener) = &state.listener {
                    listener(pin, level);
                }
            }
        }
        self.end.set_level(pin, level);
    }

    fn is_pending(&self, pin: u32) -> bool {
        self.end.is_pending(pin)
    }
}

impl fmt::Debug for InterruptLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.end {
            Some((_, pin)) => write!(f, "InterruptLine({pin})"),
            None => f.write_str("InterruptLine(unconnected)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Log(Mutex<Vec<(u32, bool)>>);

    impl InterruptSink for Log {
        fn set_level(&self, pin: u32, level: bool) {
            self.0.lock().push((pin, level));
        }
    }

    #[test]
    fn a_tap_passes_all_on_and_tells_of_changes_only() {
        let (end, heard) = (Arc::new(Log::default()), Arc::new(Log::default()));
        let tap = Tap::new(4, Arc::clone(&end) as Arc<dyn InterruptSink>);
        tap.set_level(1, true);
        let log = Arc::clone(&heard);
        tap.listen(Some(Arc::new(move |pin, level| log.set_level(pin, level))));
        for (pin, level) in [(1, true), (3, true), (3, true), (1, false), (64, true)] {
            tap.set_level(pin, level);
        }
        tap.listen(None);
        tap.set_level(3, false);
        assert_eq!(*heard.0.lock(), [(1, true), (3, true), (1, false)]);
        assert_eq!(tap.rises(), [0, 1, 0, 1]);
        let passed = [(1, true), (1, true), (3, true), (3, true), (1, false), (64, true), (3, false)];
        assert_eq!(*end.0.lock(), passed);
    }
}
