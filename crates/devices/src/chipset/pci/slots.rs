//! The slots of a bus and the functions in them.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::RwLock;
use rhea_core::InterruptLine;

use super::{AddError, ConfigSpace, PciFunction, SlotFunction, interrupt::PirqRouter};

/// A function as its bus holds it.
struct Plugged {
    /// What its user called it.
    id: Option<String>,
    function: Arc<dyn PciFunction>,
}

/// A function on a bus, as its configuration space says now.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Where.
    pub at: SlotFunction,
    /// What its user called it.
    pub id: Option<String>,
    /// Its configuration space.
    pub config: ConfigSpace,
    /// What is behind it, if it is a bridge.
    pub behind: Option<Vec<Self>>,
}

/// 32 slots of 8 functions, with the interrupt wires that they share.
pub struct Slots {
    functions: RwLock<BTreeMap<SlotFunction, Plugged>>,
    router: Arc<PirqRouter>,
}

impl Slots {
    /// Empty slots. Pin p of slot s drives the end of number s + p + `rotation`, modulo four.
    pub(super) fn new(ends: [InterruptLine; 4], rotation: usize) -> Arc<Self> {
        Arc::new(Self { functions: RwLock::default(), router: PirqRouter::new(ends, rotation) })
    }

    /// Puts a function into a slot that its user calls `id`.
    ///
    /// # Errors
    /// A place that is taken or that there is not.
    pub fn plug(&self, at: SlotFunction, id: Option<String>, function: Arc<dyn PciFunction>) -> Result<(), AddError> {
        if at.slot > 31 || at.function > 7 {
            return Err(AddError::OutOfRange(at.slot, at.function));
        }
        let mut functions = self.functions.write();
        if functions.contains_key(&at) {
            return Err(AddError::Taken(at.slot, at.function));
        }
        functions.insert(at, Plugged { id, function });
        Ok(())
    }

    /// Takes a function away.
    pub fn remove(&self, at: SlotFunction) -> Option<Arc<dyn PciFunction>> {
        self.functions.write().remove(&at).map(|plugged| plugged.function)
    }

    /// The function at a place.
    pub fn function(&self, at: SlotFunction) -> Option<Arc<dyn PciFunction>> {
        self.functions.read().get(&at).map(|plugged| Arc::clone(&plugged.function))
    }

    /// All functions, by place.
    pub fn functions(&self) -> Vec<(SlotFunction, Arc<dyn PciFunction>)> {
        self.functions.read().iter().map(|(at, plugged)| (*at, Arc::clone(&plugged.function))).collect()
    }

    /// All functions as they are now, by place.
    pub fn list(&self) -> Vec<Listed> {
        let functions = self.functions.read();
        let list = functions.iter().map(|(at, Plugged { id, function })| Listed {
            at: *at,
            id: id.clone(),
            config: function.config(),
            behind: function.bridge().map(|bridge| bridge.slots().list()),
        });
        list.collect()
    }

    /// The first slot in which nothing is, from `first` on.
    pub fn free_slot(&self, first: u8) -> Option<SlotFunction> {
        let functions = self.functions.read();
        (first..32)
            .find(|&slot| functions.keys().all(|at| at.slot != slot))
            .map(|slot| SlotFunction { slot, function: 0 })
    }

    /// The wire for the function at `at` to drive its pin `pin` (0 for INTA#).
    pub fn interrupt(&self, at: SlotFunction, pin: u8) -> InterruptLine {
        self.router.line(at, pin)
    }

    /// The function at a place on bus `number`, which is one behind the bridges in these slots.
    pub(super) fn behind(&self, number: u8, at: SlotFunction) -> Option<Arc<dyn PciFunction>> {
        let bridges = self.functions();
        let bridges = bridges.iter().filter_map(|(_, function)| function.bridge());
        for bridge in bridges {
            let (secondary, subordinate) = bridge.numbers();
            if secondary != 0 && secondary == number {
                return bridge.slots().function(at);
            }
            if secondary != 0 && (secondary..=subordinate).contains(&number) {
                return bridge.slots().behind(number, at);
            }
        }
        None
    }
}
