//! Interrupt lines: level-carrying wires from a device to whatever takes its interrupts.

use std::{fmt, sync::Arc};

/// The far end of interrupt lines: an interrupt controller, a router, a processor pin.
pub trait InterruptSink: Send + Sync {
    /// Drives input `pin` to `level`; `true` is asserted. Called on changes and on repetitions alike.
    fn set_level(&self, pin: u32, level: bool);
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

impl fmt::Debug for InterruptLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.end {
            Some((_, pin)) => write!(f, "InterruptLine({pin})"),
            None => f.write_str("InterruptLine(unconnected)"),
        }
    }
}
