//! How models stand to each other, what they have in common, and how they are spelled out.
//!
//! Models are compared as they are asked for, not by what this engine leaves of them: compared with `max`, the most that
//! there is, a model that is identical or a subset loses nothing here. What counts:
//!
//! - the features, as sets;
//! - the last basic and extended leaf, the bits of a physical address, and settings that a guest can see, as numbers;
//! - the identity. Without a vendor it is below all others. Of one vendor, the lower family, model and stepping is below
//!   the higher. Those of different vendors have nothing in common.
//!
//! `max` can be told to show any number and any identity: where it was not told, it is above all that others were.

use std::cmp::Ordering;

use rhea_core::object::Value;

use super::{CpuModel, ModelError, features::Feature, model::Identity};

/// How one model stands to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// A guest cannot tell them apart.
    Identical,
    /// The other has all of it, and more.
    Subset,
    /// It has all of the other, and more.
    Superset,
    /// Each has something that the other lacks.
    Incompatible,
}

/// Settings that a guest can see, besides last leaves and the bits of an address.
const SEEN: [&str; 4] = ["l3-cache", "cpuid-0xb", "tcg-cpuid", "level-func7"];

/// The comparison of one aspect: whether the first fits into the second, and the second into the first.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Fits {
    into: bool,
    around: bool,
}

impl From<Ordering> for Fits {
    fn from(order: Ordering) -> Self {
        Self { into: order != Ordering::Greater, around: order != Ordering::Less }
    }
}

/// A number that a guest can see and that may be fixed.
struct Number {
    /// The property that fixes it.
    name: &'static str,
    /// The property that gives the least that it may be.
    least: Option<&'static str>,
    value: fn(&CpuModel) -> u32,
}

const LEVEL: Number = Number { name: "level", least: Some("min-level"), value: CpuModel::level };
const EXTENDED_LEVEL: Number = Number { name: "xlevel", least: Some("min-xlevel"), value: CpuModel::extended_level };
const PHYSICAL_BITS: Number = Number { name: "phys-bits", least: None, value: CpuModel::physical_bits };

impl Number {
    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.least.into_iter().chain([self.name])
    }
}

/// What a model shows of one aspect.
struct Shown<T> {
    is: T,
    /// Whether it could as well show any other.
    any: bool,
}

impl<T: PartialEq> Shown<T> {
    fn is_in(&self, outer: &Self, below: fn(&T, &T) -> bool) -> bool {
        match (self.any, outer.any) {
            (false, true) => true,
            (true, false) => self.is == outer.is,
            _ => below(&self.is, &outer.is),
        }
    }

    fn fits([one, two]: &[Self; 2], below: fn(&T, &T) -> bool) -> Fits {
        Fits { into: one.is_in(two, below), around: two.is_in(one, below) }
    }

    fn common([one, two]: [Self; 2], greatest_below: fn(T, T) -> T) -> T {
        match (one.any, two.any) {
            (true, false) => two.is,
            (false, true) => one.is,
            _ => greatest_below(one.is, two.is),
        }
    }
}

impl CpuModel {
    /// How it stands to `other`, and the properties in which they differ.
    pub fn compare(&self, other: &Self) -> (Relation, Vec<String>) {
        let mut differing = Vec::new();
        let mut all = Fits { into: true, around: true };
        let mut count = |fits: Fits, names: &mut Vec<String>| {
            all.into &= fits.into;
            all.around &= fits.around;
            if fits != (Fits { into: true, around: true }) {
                differing.append(names);
            }
        };
        let identities = [self, other].map(CpuModel::shown_identity);
        count(Shown::fits(&identities, Identity::is_below), &mut self.identity.differing(&other.identity));
        let (ours, theirs) = (self.features, other.features);
        let fits = Fits { into: ours.is_subset(&theirs), around: theirs.is_subset(&ours) };
        count(fits, &mut ((ours - theirs) | (theirs - ours)).names());
        for number in [LEVEL, EXTENDED_LEVEL, PHYSICAL_BITS] {
            let numbers = [self, other].map(|model| model.shown_number(&number));
            count(Shown::fits(&numbers, u32::le), &mut vec![number.name.to_owned()]);
        }
        for name in SEEN {
            let rank =
                |model: &Self| model.get(name).and_then(|value| value.as_u64().or(value.as_bool().map(u64::from)));
            count(rank(self).cmp(&rank(other)).into(), &mut vec![name.to_owned()]);
        }
        let relation = match all {
            Fits { into: true, around: true } => Relation::Identical,
            Fits { into: true, around: false } => Relation::Subset,
            Fits { into: false, around: true } => Relation::Superset,
            Fits { into: false, around: false } => Relation::Incompatible,
        };
        (relation, differing)
    }

    fn shown_number(&self, number: &Number) -> Shown<u32> {
        let told = number.names().any(|name| self.settings.contains_key(name));
        Shown { is: (number.value)(self), any: self.follows() && !told }
    }

    fn shown_identity(&self) -> Shown<Identity> {
        let told = || Self::named(self.name()).is_none_or(|new| new.identity != self.identity);
        Shown { is: self.identity.clone(), any: self.follows() && !told() }
    }

    /// The most that it has in common with `other`, told as a change of `base`.
    pub fn baseline(&self, other: &Self) -> Self {
        let mut common = Self::base();
        common.features = self.features & other.features;
        common.identity = Shown::common([self, other].map(Self::shown_identity), |one, two| one.common(&two));
        for number in [LEVEL, EXTENDED_LEVEL, PHYSICAL_BITS] {
            let numbers = [self, other].map(|model| model.shown_number(&number));
            common.show(&number, Shown::common(numbers, u32::min));
        }
        for name in SEEN {
            let rank = |value: &Value| value.as_u64().or(value.as_bool().map(u64::from));
            let values = [self, other].map(|model| model.get(name));
            let lower = values.into_iter().flatten().min_by_key(rank);
            if let Some(value) = lower.filter(|value| common.get(name).as_ref() != Some(value)) {
                common.put(name, value);
            }
        }
        common
    }

    /// The same processor told as a change of `base`, so that it means the same everywhere.
    pub fn to_static(&self) -> Self {
        self.baseline(self)
    }

    fn base() -> Self {
        // `base` is one of the names.
        Self::named("base").unwrap_or_default()
    }

    fn put(&mut self, name: &'static str, value: Value) {
        self.settings.insert(name, value);
    }

    /// Makes a number `wanted`: by its least value if that is enough.
    fn show(&mut self, number: &Number, wanted: u32) {
        for name in number.names() {
            if (number.value)(self) != wanted {
                self.put(name, wanted.into());
            }
        }
    }

    /// Every property that tells a change of `base` from `base`, and all features, be they there or not.
    pub fn static_properties(&self) -> Vec<(&'static str, Value)> {
        let fixed = ["vendor", "family", "model", "stepping", "model-id", "min-level", "min-xlevel"];
        let features = Feature::all().map(Feature::name);
        let changed = self.settings.keys().copied().filter(|name| !fixed.contains(name));
        let names = fixed.into_iter().chain(changed).chain(features);
        names.filter_map(|name| Some((name, self.get(name)?))).collect()
    }

    /// Every property that it has, a feature by each of its names.
    pub fn all_properties(&self) -> Vec<(&'static str, Value)> {
        let own = self.follows().then(super::property_of_followers);
        let all = super::properties().iter().chain(own);
        all.filter_map(|info| Some((info.name, self.get(info.name)?))).collect()
    }

    /// The same with properties set.
    ///
    /// # Errors
    /// A property or value that it does not have.
    pub fn with<'a>(mut self, properties: impl IntoIterator<Item = (&'a str, &'a Value)>) -> Result<Self, ModelError> {
        for (name, value) in properties {
            self.set(name, value)?;
        }
        Ok(self)
    }
}

impl Identity {
    fn is_below(&self, other: &Self) -> bool {
        self.vendor.is_empty() && (other.vendor != self.vendor || self <= other)
            || self.vendor == other.vendor && self <= other
    }

    /// The greatest that is below both.
    fn common(&self, other: &Self) -> Self {
        let lower = if self.is_below(other) { self } else { other };
        if lower.is_below(self) && lower.is_below(other) { lower.clone() } else { Self::default() }
    }

    fn differing(&self, other: &Self) -> Vec<String> {
        [
            ("vendor", self.vendor == other.vendor),
            ("family", self.family == other.family),
            ("model", self.model == other.model),
            ("stepping", self.stepping == other.stepping),
            ("model-id", self.model_id == other.model_id),
        ]
        .into_iter()
        .filter(|(_, same)| !same)
        .map(|(name, _)| name.to_owned())
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::system::cpuid::features::ENGINE;

    fn model(name: &str) -> CpuModel {
        CpuModel::named(name).unwrap()
    }

    fn relation(one: &str, two: &str) -> Relation {
        model(one).compare(&model(two)).0
    }

    #[test]
    fn models_stand_as_their_makers_say() {
        for (one, two, expected) in [
            ("EPYC", "EPYC-v1", Relation::Identical),
            ("Nehalem", "Westmere", Relation::Subset),
            ("Haswell", "Haswell-noTSX", Relation::Superset),
            ("Broadwell", "Haswell", Relation::Superset),
            ("EPYC-IBPB", "EPYC", Relation::Superset),
            ("Nehalem", "Opteron_G3", Relation::Incompatible),
            ("base", "486", Relation::Subset),
            ("max", "qemu64", Relation::Superset),
            ("Nehalem", "max", Relation::Subset),
            ("Skylake-Server", "max", Relation::Incompatible),
            ("max", "host", Relation::Identical),
        ] {
            assert_eq!(relation(one, two), expected, "{one} {two} {:?}", model(one).compare(&model(two)));
        }
    }

    #[test]
    fn what_max_was_told_to_show_it_shows() {
        let told = |name, value: u32| model("max").with([(name, &Value::from(value))]).unwrap();
        for (name, value) in [("level", 7), ("xlevel", 0x8000_0008), ("phys-bits", 36), ("family", 6)] {
            let (one, two) = (model("max"), told(name, value));
            assert_eq!(two.compare(&one), (Relation::Subset, vec![name.to_owned()]));
            for (one, two) in [(&one, &two), (&two, &one)] {
                assert_eq!(one.baseline(two).compare(&told(name, value)).0, Relation::Identical, "{name}");
            }
        }
        assert_eq!(told("level", 0x20).compare(&model("max")), (Relation::Subset, vec!["level".to_owned()]));
    }

    #[test]
    fn what_differs_is_named() {
        let changed = model("qemu64").with([("cx16", &Value::Bool(false))]).unwrap();
        assert_eq!(model("qemu64").compare(&changed), (Relation::Superset, vec!["cx16".to_owned()]));
        let renamed = model("qemu64").with([("stepping", &Value::from(2))]).unwrap();
        assert_eq!(model("qemu64").compare(&renamed), (Relation::Subset, vec!["stepping".to_owned()]));
    }

    #[test]
    fn what_runs_here_is_what_fits_into_max() {
        for name in CpuModel::names() {
            let model = model(name);
            let fits = matches!(model.compare(&self::model("max")).0, Relation::Identical | Relation::Subset);
            // Registers that come with a missing feature are missing with it.
            assert_eq!(fits, (model.features - ENGINE).is_empty(), "{name}");
            assert_eq!(fits, model.unavailable().is_empty(), "{name}");
        }
    }

    #[test]
    fn vendors_have_no_identity_in_common() {
        let common = model("Nehalem").baseline(&model("EPYC"));
        assert_eq!(common.get("vendor"), Some("".into()));
        assert_eq!(common.get("popcnt"), Some(true.into()));
        let common = model("Nehalem").baseline(&model("Skylake-Client"));
        assert_eq!((common.get("model"), common.get("model-id")), (Some(26.into()), model("Nehalem").get("model-id")));
    }

    fn any_model() -> impl Strategy<Value = CpuModel> {
        let names = CpuModel::names();
        let count = Feature::all().count();
        let changes = proptest::collection::vec((0..count, any::<bool>()), 0..6);
        let numbers = proptest::collection::vec(
            (
                prop::sample::select(vec!["family", "model", "stepping", "phys-bits", "level", "xlevel", "min-level"]),
                0_u32..64,
            ),
            0..3,
        );
        let flags = proptest::collection::vec(
            (prop::sample::select(vec!["l3-cache", "tcg-cpuid", "migratable"]), any::<bool>()),
            0..2,
        );
        // Two that follow what there is are otherwise seldom compared.
        let name = prop_oneof![2 => prop::sample::select(names), 1 => Just("max")];
        (name, changes, numbers, flags).prop_map(|(name, changes, numbers, flags)| {
            let mut model = model(name);
            for (index, value) in changes {
                let feature = Feature::all().nth(index).unwrap();
                model.set(feature.name(), &value.into()).unwrap();
            }
            // What it does not take is left as it is.
            for (name, value) in numbers {
                let _ = model.set(name, &value.into());
            }
            for (name, value) in flags {
                let _ = model.set(name, &value.into());
            }
            model
        })
    }

    proptest! {
        #[test]
        fn comparing_turns_around(one in any_model(), two in any_model()) {
            let turned = match one.compare(&two).0 {
                Relation::Subset => Relation::Superset,
                Relation::Superset => Relation::Subset,
                same => same,
            };
            prop_assert_eq!(two.compare(&one).0, turned);
            prop_assert_eq!(one.compare(&one), (Relation::Identical, vec![]));
            prop_assert_eq!(one.compare(&two).1.is_empty(), turned == Relation::Identical);
        }

        #[test]
        fn a_baseline_is_in_both_and_what_is_in_the_other_is_the_baseline(one in any_model(), two in any_model()) {
            let common = one.baseline(&two);
            for model in [&one, &two] {
                let (relation, names) = common.compare(model);
                prop_assert!(matches!(relation, Relation::Identical | Relation::Subset), "{relation:?} {names:?}");
            }
            if matches!(one.compare(&two).0, Relation::Identical | Relation::Subset) {
                let (relation, names) = common.compare(&one);
                prop_assert_eq!(relation, Relation::Identical, "{:?}", names);
            }
        }

        #[test]
        fn spelling_out_changes_nothing_and_can_be_repeated(model in any_model()) {
            let spelled = model.to_static();
            prop_assert_eq!(spelled.compare(&model), (Relation::Identical, vec![]));
            let properties = spelled.static_properties();
            let again = CpuModel::base().with(properties.iter().map(|(name, value)| (*name, value))).unwrap();
            prop_assert_eq!(again.compare(&model), (Relation::Identical, vec![]));
            prop_assert_eq!(again.to_static().static_properties(), properties);
        }
    }
}
