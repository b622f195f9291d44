//! All types of objects that the program knows.

use std::sync::LazyLock;

use rhea_core::object::{BASE_TYPES, Registry, TypeInfo, Typed};

use crate::{
    board::{none, pc},
    devices::{self, character},
    processors::object,
};

/// All types of the program.
pub fn types() -> &'static Registry {
    static TYPES: LazyLock<Registry> = LazyLock::new(|| {
        let mut lists = LISTS.to_vec();
        lists.push(object::types());
        Registry::new(&lists)
    });
    &TYPES
}

/// The lists that the types come from, besides that of the processors, which is longer than anybody writes down.
const LISTS: &[&[&TypeInfo]] = &[
    BASE_TYPES,
    rhea_backends::object::TYPES,
    rhea_devices::TYPES,
    devices::BASES,
    character::TYPES,
    devices::TYPES,
    OWN,
];

/// The types of this crate.
const OWN: &[&TypeInfo] = &[
    &TypeInfo::abstract_type("x86-machine", "machine"),
    &TypeInfo::abstract_type("generic-pc-machine", "x86-machine"),
    pc::PcSettings::INFO,
    none::NoneSettings::INFO,
    pc::PciHost::INFO,
    object::PlaceSettings::INFO,
    &TypeInfo::plain("tcg-accel", "accel"),
    &TypeInfo::plain("qtest-accel", "accel"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_types_of_the_program_are_sound() {
        let mut lists = LISTS.to_vec();
        lists.push(object::types());
        assert_eq!(types().faults(&lists), Vec::<String>::new());
    }
}
