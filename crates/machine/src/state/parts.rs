//! The parts of a machine whose state is saved, in the order in which they are loaded.
//!
//! Devices come first and interrupt controllers after them: while devices drive their outputs, the controllers see edges
//! that they are to forget. Then the wires are driven once more, for what came from outside while the machine was saved;
//! then processors, which forget what the controllers asked of them meanwhile; and last the machine's own state. A part is
//! named by its place, which stays the same whatever came and went before.

use std::{collections::BTreeMap, io::Write, sync::Arc};

use rhea_core::state::Value;
use rhea_devices::chipset::pci::Slots;
use serde::{Deserialize, Serialize};

use super::{
    contents::{decode, encode},
    error::StateError,
    part::{BoardParts, Part},
    run::{self, GoesOn, RunV1},
    stream::{Kind, StateWriter},
};
use crate::{hold::Hold, machine::Machine};

/// A part as it is saved.
#[derive(Debug, Serialize, Deserialize)]
struct PartV1 {
    part: String,
    #[serde(rename = "type")]
    kind: String,
    version: u32,
    state: Value,
}

/// Place of the machine's own state.
const MACHINE: &str = "machine";

/// What came of a saved machine.
#[derive(Default)]
pub struct Incoming {
    parts: BTreeMap<String, PartV1>,
}

impl Incoming {
    /// Whether nothing came yet.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Takes what a frame holds.
    ///
    /// # Errors
    /// It is of another form, or there already.
    pub fn push(&mut self, payload: &[u8]) -> Result<(), StateError> {
        let part: PartV1 = decode(payload)?;
        match self.parts.insert(part.part.clone(), part) {
            Some(twice) => Err(StateError::Twice(twice.part)),
            None => Ok(()),
        }
    }

    /// The states of the parts before the wires are driven and after, in their order.
    fn values(&self, before: &[Part], after: &[Part]) -> Result<Vec<&Value>, StateError> {
        let all = || before.iter().chain(after);
        if let Some(surplus) =
            self.parts.values().find(|part| part.part != MACHINE && all().all(|known| known.place != part.part))
        {
            return Err(StateError::Surplus { place: surplus.part.clone(), kind: surplus.kind.clone() });
        }
        all().map(|part| self.get(part)).collect()
    }

    fn get(&self, part: &Part) -> Result<&Value, StateError> {
        let (place, here) = (part.place.clone(), part.what.kind());
        let Some(found) = self.parts.get(&part.place) else {
            return Err(StateError::Missing { place, kind: here });
        };
        if found.kind != here {
            return Err(StateError::OtherKind { place, there: found.kind.clone(), here });
        }
        let known = part.what.version();
        if found.version == known {
            Ok(&found.state)
        } else {
            Err(StateError::Version { place, found: found.version, known })
        }
    }
}

/// Functions in `slots` of the bus `bus`, and what is behind those that are bridges.
fn functions(bus: &str, slots: &Slots, parts: &mut Vec<Part>) {
    for (at, function) in slots.functions() {
        let place = format!("{bus}/{:02x}.{}", at.slot, at.function);
        let behind = function.bridge().map(|bridge| Arc::clone(bridge.slots()));
        parts.push(Part::new(place.clone(), function));
        if let Some(slots) = behind {
            functions(&place, &slots, parts);
        }
    }
}

impl Machine {
    /// All parts but the machine itself: those before the wires are driven again, and those after.
    fn state_parts(&self) -> (Vec<Part>, Vec<Part>) {
        let BoardParts { devices: mut before, controllers } = self.board().parts();
        if let Some(bus) = self.pci() {
            before.push(Part::new("pci.0", Arc::clone(bus) as _));
            functions("pci.0", bus.slots(), &mut before);
        }
        before.extend(self.devices().own_parts());
        before.extend(controllers);
        let after = self.processors().list();
        let after =
            after.iter().map(|processor| Part::new(format!("cpu.{}", processor.index()), Arc::clone(processor) as _));
        (before, after.collect())
    }

    fn values(parts: &[Part]) -> Result<Vec<Value>, StateError> {
        let value = |part: &Part| {
            let place = || part.place.clone();
            part.what.save_value().map_err(|reason| StateError::NotSaved { place: place(), reason })
        };
        parts.iter().map(value).collect()
    }

    fn put(&self, before: &[Part], after: &[Part], values: &[&Value]) -> Result<(), StateError> {
        let (early, late) = values.split_at_checked(before.len()).unwrap_or((values, &[]));
        let load = |(part, value): (&Part, &&Value)| {
            let place = || part.place.clone();
            part.what.load_value(value).map_err(|reason| StateError::Refused { place: place(), reason })
        };
        before.iter().zip(early).try_for_each(load)?;
        self.board().drive_wires();
        after.iter().zip(late).try_for_each(load)
    }
}

impl Hold {
    /// Writes all parts of the machine, which stands.
    ///
    /// # Errors
    /// One that cannot be saved, or what the host says.
    pub fn write_parts<W: Write>(&self, writer: &mut StateWriter<W>) -> Result<(), StateError> {
        if !self.stands() {
            return Err(StateError::NotStanding);
        }
        let machine = self.machine();
        let _still = machine.parts().timers.pause();
        let (before, after) = machine.state_parts();
        let own = RunV1::of(machine, self.ran());
        for part in before.into_iter().chain(after) {
            let place = || part.place.clone();
            let state = part.what.save_value().map_err(|reason| StateError::NotSaved { place: place(), reason })?;
            let saved =
                PartV1 { part: place(), kind: part.what.kind().to_owned(), version: part.what.version(), state };
            writer.frame(Kind::Part, &encode(&saved)?)?;
        }
        let state = own.save().map_err(|reason| StateError::NotSaved { place: MACHINE.to_owned(), reason })?;
        let saved = PartV1 { part: MACHINE.to_owned(), kind: run::KIND.to_owned(), version: run::VERSION, state };
        writer.frame(Kind::Part, &encode(&saved)?)?;
        Ok(())
    }

    /// Whether what came is of the parts of the machine, which stands.
    ///
    /// # Errors
    /// A part too many or too few, or of another kind or version.
    pub(super) fn check_parts(&self, incoming: &Incoming) -> Result<(), StateError> {
        if !self.stands() {
            return Err(StateError::NotStanding);
        }
        let (before, after) = self.machine().state_parts();
        incoming.values(&before, &after).map(drop)
    }

    /// Gives all parts of the machine, which stands, the states that came.
    ///
    /// # Errors
    /// A part too many or too few, or a state that its part does not take: then all have the state that they had.
    pub fn load_parts(&self, incoming: &Incoming) -> Result<GoesOn, StateError> {
        if !self.stands() {
            return Err(StateError::NotStanding);
        }
        let machine = self.machine();
        let _still = machine.parts().timers.pause();
        let (before, after) = machine.state_parts();
        let values = incoming.values(&before, &after)?;
        let own = incoming.parts.get(MACHINE).ok_or(StateError::Order("it does not say how the machine goes on"))?;
        if own.version != run::VERSION {
            let place = MACHINE.to_owned();
            return Err(StateError::Version { place, found: own.version, known: run::VERSION });
        }
        let refused = |reason| StateError::Refused { place: MACHINE.to_owned(), reason };
        let own = RunV1::load(&own.state).map_err(refused)?;
        let leaving = own.leaving(machine).map_err(refused)?;

        // From here on things change, and go back if one of them does not.
        let (clock, old) = (machine.clock().now(), (Machine::values(&before)?, Machine::values(&after)?));
        machine.clock().set(own.clock());
        if let Err(error) = machine.put(&before, &after, &values) {
            machine.clock().set(clock);
            let old: Vec<&Value> = old.0.iter().chain(&old.1).collect();
            if let Err(error) = machine.put(&before, &after, &old) {
                tracing::error!("what the machine was cannot be put back: {error}");
            }
            return Err(error);
        }
        Ok(own.put(machine, &leaving))
    }
}
