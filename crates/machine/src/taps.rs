//! Where tests listen to interrupt lines, by the type of the part that they lead to or come from.

use std::sync::Arc;

use parking_lot::Mutex;
use rhea_core::{InterruptSink, Tap};

/// Which wires of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Those that lead to it.
    In,
    /// Those that it drives.
    Out,
}

struct Place {
    side: Side,
    name: &'static str,
    tap: Arc<Tap>,
}

/// All taps of a machine.
#[derive(Default)]
pub struct Taps {
    places: Mutex<Vec<Place>>,
}

impl Taps {
    /// What the wires to the inputs of `end`, of the type `name`, are to lead to: `end`, through a tap.
    pub fn inputs(&self, name: &'static str, pins: u32, end: Arc<dyn InterruptSink>) -> Arc<dyn InterruptSink> {
        self.tap(Side::In, name, pins, end)
    }

    /// What the part `name` is to drive in place of `end`: `end`, through a tap.
    pub fn outputs(&self, name: &'static str, pins: u32, end: Arc<dyn InterruptSink>) -> Arc<dyn InterruptSink> {
        self.tap(Side::Out, name, pins, end)
    }

    fn tap(&self, side: Side, name: &'static str, pins: u32, end: Arc<dyn InterruptSink>) -> Arc<dyn InterruptSink> {
        let tap = Tap::new(pins, end);
        self.places.lock().push(Place { side, name, tap: Arc::clone(&tap) });
        tap
    }

    /// Whether the part `name` has a tap at either side.
    pub fn knows(&self, name: &str) -> bool {
        self.places.lock().iter().any(|place| place.name == name)
    }

    /// How often the inputs of each part were asserted, by the part's name.
    pub fn counts(&self) -> Vec<(&'static str, Vec<u64>)> {
        let places = self.places.lock();
        let inputs = places.iter().filter(|place| place.side == Side::In);
        inputs.map(|place| (place.name, place.tap.rises())).collect()
    }

    /// The tap at one side of the part `name`.
    pub fn find(&self, side: Side, name: &str) -> Option<Arc<Tap>> {
        let places = self.places.lock();
        places.iter().find(|place| place.side == side && place.name == name).map(|place| Arc::clone(&place.tap))
    }
}
