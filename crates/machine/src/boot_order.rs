//! The order in which firmware tries what it could boot: numbered places, each of which one device has at the most.
//!
//! Source: IEEE 1275-1994 and its PCI Bus Binding 2.1, § 2.2, for the paths by which firmware knows devices.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use rhea_devices::chipset::pci::SlotFunction;

/// The path of the first PCI bus: its configuration address port on the bus of ports.
pub(crate) const FIRST_PCI_BUS: &str = "/pci@i0cf8";

/// Adds a function on a PCI bus to the bus's path, by what kind of thing it is.
pub(crate) fn pci_path(bus: &str, kind: &str, at: SlotFunction) -> String {
    let SlotFunction { slot, function } = at;
    match function {
        0 => format!("{bus}/{kind}@{slot:x}"),
        _ => format!("{bus}/{kind}@{slot:x},{function:x}"),
    }
}

/// A place that is taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The bootindex {index} has already been used: {owner} has it, and {other} cannot have it too")]
pub struct BootIndexError {
    /// Its number.
    index: i32,
    /// Who has it.
    owner: String,
    /// Who wanted it.
    other: String,
}

/// Who has a place.
struct Candidate {
    name: String,
    path: String,
}

/// The places of a machine that are taken.
#[derive(Default)]
pub struct BootOrder(Mutex<BTreeMap<i32, Candidate>>);

impl BootOrder {
    /// A place for what people call `name` and firmware finds at `path`. No place if `index` is negative.
    ///
    /// # Errors
    /// The place is taken.
    pub(crate) fn enter(
        self: &Arc<Self>,
        name: String,
        path: String,
        index: i32,
    ) -> Result<Arc<BootPlace>, BootIndexError> {
        let place = Arc::new(BootPlace { order: Arc::clone(self), name, path, index: Mutex::new(-1) });
        place.move_to(index)?;
        Ok(place)
    }

    /// The paths of those that have places, the first to be tried first.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.0.lock().values().map(|candidate| candidate.path.clone()).collect()
    }
}

/// The place of one device. It is free again when this is dropped.
pub(crate) struct BootPlace {
    order: Arc<BootOrder>,
    name: String,
    path: String,
    index: Mutex<i32>,
}

impl BootPlace {
    /// Its number, negative for none.
    pub(crate) fn index(&self) -> i32 {
        *self.index.lock()
    }

    /// Takes another place, or none if `index` is negative. Firmware hears of it when it starts again.
    ///
    /// # Errors
    /// The place is taken; the device keeps the one that it had.
    pub(crate) fn move_to(&self, index: i32) -> Result<(), BootIndexError> {
        let mut own = self.index.lock();
        let mut places = self.order.0.lock();
        if index == *own {
            return Ok(());
        }
        if let Some(owner) = places.get(&index) {
            return Err(BootIndexError { index, owner: owner.name.clone(), other: self.name.clone() });
        }
        places.remove(&*own);
        if index >= 0 {
            places.insert(index, Candidate { name: self.name.clone(), path: self.path.clone() });
        }
        *own = index;
        Ok(())
    }
}

impl Drop for BootPlace {
    fn drop(&mut self) {
        self.order.0.lock().remove(self.index.get_mut());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(order: &Arc<BootOrder>, name: &str, index: i32) -> Result<Arc<BootPlace>, BootIndexError> {
        order.enter(name.to_owned(), format!("/{name}"), index)
    }

    #[test]
    fn paths_come_by_their_numbers_and_none_twice() {
        let order = Arc::<BootOrder>::default();
        let second = place(&order, "second", 7).unwrap();
        let first = place(&order, "first", 0).unwrap();
        let _without = place(&order, "without", -1).unwrap();
        assert_eq!(order.paths(), ["/first", "/second"]);
        assert_eq!(
            place(&order, "third", 7).err().unwrap().to_string(),
            "The bootindex 7 has already been used: second has it, and third cannot have it too"
        );
        assert!(first.move_to(7).is_err() && first.index() == 0);
        first.move_to(8).unwrap();
        assert_eq!(order.paths(), ["/second", "/first"]);
        drop(second);
        assert_eq!(order.paths(), ["/first"]);
        assert!(place(&order, "third", 7).is_ok());
    }

    #[test]
    fn a_function_is_named_by_slot_and_by_function_if_that_is_not_the_first() {
        let bridge = pci_path(FIRST_PCI_BUS, "pci-bridge", SlotFunction { slot: 0x1e, function: 0 });
        assert_eq!(
            pci_path(&bridge, "scsi", SlotFunction { slot: 5, function: 3 }),
            "/pci@i0cf8/pci-bridge@1e/scsi@5,3"
        );
    }

    proptest! {
        #[test]
        fn as_many_have_a_place_as_say_so(moves in prop::collection::vec((0_usize..6, -2_i32..6), 0..40)) {
            let order = Arc::<BootOrder>::default();
            let places: Vec<_> = (0..6).map(|i| place(&order, &i.to_string(), -1).unwrap()).collect();
            for (which, index) in moves {
                let before = places[which].index();
                let after = if places[which].move_to(index).is_ok() { index } else { before };
                prop_assert_eq!(places[which].index(), after);
            }
            let mut told: Vec<_> = places.iter().filter(|place| place.index() >= 0).collect();
            told.sort_by_key(|place| place.index());
            let told: Vec<_> = told.into_iter().map(|place| place.path.clone()).collect();
            prop_assert_eq!(order.paths(), told);
        }
    }
}
