//! A part of a machine whose state is saved, and where it is.

use std::sync::Arc;

use rhea_core::Stateful;

/// A part and its place.
pub(crate) struct Part {
    pub place: String,
    pub what: Arc<dyn Stateful>,
}

impl Part {
    pub(crate) fn new(place: impl Into<String>, what: Arc<dyn Stateful>) -> Self {
        Self { place: place.into(), what }
    }
}

/// The parts of a board, but for the functions on its PCI bus and its processors.
#[derive(Default)]
pub(crate) struct BoardParts {
    /// Those that drive wires.
    pub devices: Vec<Part>,
    /// Those at the wires' ends.
    pub controllers: Vec<Part>,
}

/// Where the state of a device that somebody asked for is kept.
pub(crate) enum Kept {
    /// With that of its bus, or of the board.
    Elsewhere,
    /// By itself, at a place of this name.
    Own(&'static str, Arc<dyn Stateful>),
}
