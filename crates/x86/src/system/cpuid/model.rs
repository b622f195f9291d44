//! A processor model: what it is asked to be, and what of it there is.
//!
//! Features that the engine lacks stay in the model, where managers see that they were asked for, but not in its CPUID.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _};

use rhea_core::object::{PropertyError, PropertyInfo, PropertyKind, Value, read_value};

use super::{
    EXTENDED,
    features::{ENGINE, Feature, FeatureSet, Source},
    models::{self, Caches, Row},
    settings,
};

/// The model of a machine of which nothing is said.
pub const DEFAULT_MODEL: &str = "qemu64";

/// Bytes of a vendor in leaf 0.
const VENDOR_LENGTH: usize = 12;
/// Bytes of a processor's name in leaves 8000_0002H to 8000_0004H.
const ID_LENGTH: usize = 48;

/// Why a model cannot be that way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// A property that it does not have, or a value that is none of the property's.
    #[error(transparent)]
    Property(#[from] PropertyError),
    /// A number that does not fit into CPUID.
    #[error("parameter '{name}' can be at most {most}")]
    Most {
        /// The property.
        name: &'static str,
        /// The largest value.
        most: u64,
    },
    /// A vendor of the wrong length.
    #[error("value of property 'vendor' must consist of exactly 12 characters")]
    Vendor,
    /// A name that is too long.
    #[error("value of property 'model-id' must consist of at most 48 bytes")]
    Id,
    /// Physical addresses of impossible length.
    #[error("phys-bits should be between 32 and 52 (but is {0})")]
    PhysicalBits(u32),
    /// Features were asked for that are not there, and they must be.
    #[error("TCG doesn't support requested features: {0}")]
    Unsupported(String),
}

/// What stands behind a name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// A model with fixed features.
    Row(&'static Row),
    /// Nothing at all, to be described by what is added.
    Base,
    /// All that there is.
    Max,
    /// What the host has: only with KVM, which is not there. Described as [`Origin::Max`].
    Host,
}

/// Models that are no rows, by name.
const SPECIAL: [(&str, Origin); 3] = [("base", Origin::Base), ("max", Origin::Max), ("host", Origin::Host)];

impl Origin {
    const fn follows(self) -> bool {
        matches!(self, Self::Max | Self::Host)
    }
}

/// The type of processors of the model `name`.
fn type_name(name: &str) -> String {
    format!("{name}-x86_64-cpu")
}

/// How a processor identifies itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Identity {
    /// Twelve bytes, or none.
    pub vendor: String,
    pub family: u32,
    pub model: u32,
    pub stepping: u32,
    pub model_id: String,
}

/// A model that managers can choose, as they are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name.
    pub name: &'static str,
    /// The name that it is a second name of.
    pub alias_of: Option<&'static str>,
    /// Whether it means the same processor everywhere and always.
    pub fixed: bool,
    /// Whether it means the same processor on every host.
    pub migration_safe: bool,
    /// What it asks for and does not get.
    pub unavailable: Vec<String>,
}

/// A processor model, with what was changed about it.
#[derive(Clone, Debug)]
pub struct CpuModel {
    name: &'static str,
    pub(super) origin: Origin,
    /// Features that it asks for.
    pub(super) features: FeatureSet,
    /// Those of them, and of the others, that somebody chose by name.
    pub(super) chosen: FeatureSet,
    pub(super) identity: Identity,
    /// What was set of [`settings::SETTINGS`].
    pub(super) settings: BTreeMap<&'static str, Value>,
}

impl Default for CpuModel {
    fn default() -> Self {
        Self::named(DEFAULT_MODEL).unwrap_or_else(|| Self::new("base", Origin::Base))
    }
}

impl CpuModel {
    /// The model of a name.
    pub fn named(name: &str) -> Option<Self> {
        if let Some((name, origin)) = SPECIAL.into_iter().find(|(known, _)| *known == name) {
            return Some(Self::new(name, origin));
        }
        let (name, _) = models::names().find(|(known, _)| *known == name)?;
        Some(Self::new(name, Origin::Row(models::find(name)?)))
    }

    /// The names of all models, without regard to case by alphabet, but the special ones last.
    pub fn names() -> Vec<&'static str> {
        let mut names: Vec<_> = models::names().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.extend(["base", "host", "max"]);
        names
    }

    /// The type of processors of each of the [`names`](Self::names), and whether those follow what there is.
    pub fn types() -> impl Iterator<Item = (String, bool)> {
        // Their features, which would take a while, are not asked for.
        let follows = |name| SPECIAL.into_iter().any(|(known, origin)| known == name && origin.follows());
        Self::names().into_iter().map(move |name| (type_name(name), follows(name)))
    }

    fn new(name: &'static str, origin: Origin) -> Self {
        let (features, identity) = match origin {
            Origin::Row(row) => {
                let mut features = row.features();
                features.set(Feature::HYPERVISOR, true);
                let (family, model, stepping) = row.signature;
                let vendor = row.vendor.signature().to_owned();
                (features, Identity { vendor, family, model, stepping, model_id: row.id.to_owned() })
            }
            Origin::Base => (FeatureSet::EMPTY, Identity::default()),
            Origin::Max | Origin::Host => {
                let model_id = "Rhea TCG CPU".to_owned();
                let identity =
                    Identity { vendor: "AuthenticAMD".to_owned(), family: 15, model: 107, stepping: 1, model_id };
                (movable(), identity)
            }
        };
        Self { name, origin, features, chosen: FeatureSet::EMPTY, identity, settings: BTreeMap::new() }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it is called at length.
    pub fn description(&self) -> Cow<'static, str> {
        match self.origin {
            Origin::Row(row) if row.name == self.name => row.id.trim().into(),
            Origin::Row(row) if row.name.strip_suffix("-v1") == Some(self.name) => {
                "(alias configured by machine type)".into()
            }
            Origin::Row(row) => format!("(alias of {})", row.name).into(),
            Origin::Base => "base CPU model type with no features enabled".into(),
            Origin::Max => "Enables all features supported by the accelerator in the current host".into(),
            Origin::Host => "processor with all supported host features (only with KVM)".into(),
        }
    }

    /// Whether it needs an accelerator that is not there.
    pub fn needs_kvm(&self) -> bool {
        matches!(self.origin, Origin::Host)
    }

    /// Whether it follows what there is.
    pub fn follows(&self) -> bool {
        self.origin.follows()
    }

    /// How managers are told of it.
    pub fn definition(&self) -> Definition {
        let alias_of = match self.origin {
            Origin::Row(row) if row.name != self.name => Some(row.name),
            _ => None,
        };
        let unavailable = if self.needs_kvm() { vec!["kvm".to_owned()] } else { self.unavailable().names() };
        let fixed = matches!(self.origin, Origin::Base);
        Definition { name: self.name, alias_of, fixed, migration_safe: !self.follows(), unavailable }
    }

    /// The value of a property, as it was asked for.
    pub fn get(&self, name: &str) -> Option<Value> {
        let identity = &self.identity;
        Some(match name {
            "vendor" => identity.vendor.as_str().into(),
            "family" => identity.family.into(),
            "model" => identity.model.into(),
            "stepping" => identity.stepping.into(),
            "model-id" => identity.model_id.as_str().into(),
            "level" | "min-level" => self.level().into(),
            "xlevel" | "min-xlevel" => self.extended_level().into(),
            "migratable" if !self.follows() => return None,
            _ => match Feature::named(name) {
                Some(feature) => self.features.has(feature).into(),
                None => {
                    let setting = settings::find(name)?;
                    self.settings.get(name).cloned().unwrap_or_else(setting.default)
                }
            },
        })
    }

    /// Sets a property.
    ///
    /// # Errors
    /// It has no such property, or the property takes no such value.
    pub fn set(&mut self, name: &str, value: &Value) -> Result<(), ModelError> {
        let number = |known: &'static str, most: u64| match read_value::<u64>(known, value)? {
            number if number > most => Err(ModelError::Most { name: known, most }),
            number => Ok(number as u32),
        };
        match name {
            "vendor" => {
                let vendor: String = read_value(name, value)?;
                // Nothing is a vendor too: that of `base`, and of what vendors have in common.
                if !vendor.is_empty() && vendor.len() != VENDOR_LENGTH {
                    return Err(ModelError::Vendor);
                }
                self.identity.vendor = vendor;
            }
            // SDM vol. 2 CPUID, "Version information": four bits and eight more; four and four; four.
            "family" => self.identity.family = number("family", 0xf + 0xff)?,
            "model" => self.identity.model = number("model", 0xff)?,
            "stepping" => self.identity.stepping = number("stepping", 0xf)?,
            "model-id" => {
                let id: String = read_value(name, value)?;
                if id.len() > ID_LENGTH {
                    return Err(ModelError::Id);
                }
                self.identity.model_id = id;
            }
            _ => match Feature::named(name) {
                Some(feature) => {
                    self.features.set(feature, read_value(name, value)?);
                    self.chosen.set(feature, true);
                }
                None => self.set_setting(name, value)?,
            },
        }
        Ok(())
    }

    fn set_setting(&mut self, name: &str, value: &Value) -> Result<(), ModelError> {
        let missing = || PropertyError::NotFound { object: self.type_name(), name: name.to_owned() };
        let setting = settings::find(name).ok_or_else(missing)?;
        let info = &setting.info;
        match info.kind {
            <bool as PropertyKind>::NAME => drop(read_value::<bool>(name, value)?),
            <String as PropertyKind>::NAME => drop(read_value::<String>(name, value)?),
            <u8 as PropertyKind>::NAME => drop(read_value::<u8>(name, value)?),
            <u16 as PropertyKind>::NAME => drop(read_value::<u16>(name, value)?),
            <u32 as PropertyKind>::NAME => drop(read_value::<u32>(name, value)?),
            _ => drop(read_value::<u64>(name, value)?),
        }
        match info.name {
            "phys-bits" => {
                let bits = u32::try_from(value.as_u64().unwrap_or(0)).unwrap_or(u32::MAX);
                if bits != 0 && !(32..=52).contains(&bits) {
                    return Err(ModelError::PhysicalBits(bits));
                }
            }
            "migratable" => {
                if !self.follows() {
                    return Err(missing().into());
                }
                if !self.chosen.has(Feature::INVTSC) {
                    self.features.set(Feature::INVTSC, value == &Value::Bool(false));
                }
            }
            _ => {}
        }
        self.settings.insert(info.name, value.clone());
        Ok(())
    }

    /// Sets a property to what a word of a command line stands for.
    ///
    /// # Errors
    /// As of [`set`](Self::set).
    pub fn set_word(&mut self, name: &str, word: &str) -> Result<(), ModelError> {
        let info = self.property(name)?;
        let value = (info.from_text)(word).ok_or_else(|| {
            let expected = match info.kind {
                <bool as PropertyKind>::NAME => "'on' or 'off'",
                "int" => "uint64",
                kind => kind,
            };
            PropertyError::Range { name: name.to_owned(), expected: expected.to_owned() }
        })?;
        self.set(name, &value)
    }

    /// The property `name`.
    ///
    /// # Errors
    /// There is none.
    pub fn property(&self, name: &str) -> Result<&'static PropertyInfo, PropertyError> {
        let mut all = settings::properties().iter();
        let own = self.follows().then(settings::property_of_followers).into_iter();
        let found = all.find(|info| info.name == name).or_else(|| own.into_iter().find(|info| info.name == name));
        found.ok_or_else(|| PropertyError::NotFound { object: self.type_name(), name: name.to_owned() })
    }

    /// The name of the type of such processors.
    pub fn type_name(&self) -> String {
        type_name(self.name)
    }

    /// A setting that is on or off.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.get(name).and_then(|value| value.as_bool()).unwrap_or(false)
    }

    /// A setting that is a number.
    pub(super) fn number(&self, name: &str) -> u64 {
        let setting = || settings::find(name).map(|setting| (setting.default)());
        self.settings.get(name).cloned().or_else(setting).and_then(|value| value.as_u64()).unwrap_or(0)
    }

    /// What of its features there is.
    pub fn available(&self) -> FeatureSet {
        self.features & ENGINE
    }

    /// What it asks for and does not get. Registers that come with a feature are not told of besides it, unless somebody
    /// asked for them by name; nor is what only KVM has.
    pub fn unavailable(&self) -> FeatureSet {
        let all = self.features - ENGINE;
        let mut missing = all;
        for feature in all.iter() {
            let implied = matches!(feature.source(), Source::Msr(_)) || feature.is_kvm();
            if implied && !self.chosen.has(feature) {
                missing.set(feature, false);
            }
        }
        missing
    }

    /// What there is to say before such a processor is made: warnings of what it does not get.
    ///
    /// # Errors
    /// Something is missing that was to be enforced.
    pub fn check(&self) -> Result<Vec<String>, ModelError> {
        let missing = self.unavailable();
        if self.flag("enforce") && !missing.is_empty() {
            return Err(ModelError::Unsupported(missing.iter().fold(String::new(), |mut text, feature| {
                let comma = if text.is_empty() { "" } else { ", " };
                let _ = write!(text, "{comma}{feature}");
                text
            })));
        }
        if !self.flag("check") {
            return Ok(Vec::new());
        }
        let idle = self.settings.iter().filter(|(name, value)| {
            // To hide KVM where there is none is no wish that fails.
            settings::find(name).is_some_and(|setting| !setting.acts && (setting.default)() != **value)
                && **name != "kvm"
        });
        let features = missing.iter().map(|feature| format!("TCG doesn't support requested feature: {feature}"));
        Ok(features.chain(idle.map(|(name, _)| format!("CPU property '{name}' has no effect with TCG"))).collect())
    }

    /// The last basic leaf.
    pub(super) fn level(&self) -> u32 {
        let from = match self.origin {
            Origin::Row(row) => row.levels.0,
            Origin::Base => 0,
            Origin::Max | Origin::Host => 0xd,
        };
        self.last_leaf("level", "min-level", from, 0)
    }

    /// The last extended leaf; 0 if there is none.
    pub(super) fn extended_level(&self) -> u32 {
        let from = match self.origin {
            Origin::Row(row) => row.levels.1,
            Origin::Base => 0,
            Origin::Max | Origin::Host => EXTENDED | 0x1e,
        };
        self.last_leaf("xlevel", "min-xlevel", from, EXTENDED)
    }

    fn last_leaf(&self, fixed: &str, least: &str, from: u32, range: u32) -> u32 {
        match self.number(fixed) as u32 {
            u32::MAX => {
                let needed = if self.flag("full-cpuid-auto-level") {
                    let functions = self.features.iter().filter_map(Feature::function);
                    functions.filter(|function| function & EXTENDED == range && function >> 30 & 1 == 0).max()
                } else {
                    None
                };
                from.max(self.number(least) as u32).max(needed.unwrap_or(0))
            }
            fixed => fixed,
        }
    }

    /// Bits of a physical address.
    pub fn physical_bits(&self) -> u32 {
        match self.number("phys-bits") as u32 {
            0 if self.features.has(Feature::LM) => 40,
            0 if self.features.has(Feature::PAE) => 36,
            0 => 32,
            bits => bits,
        }
    }

    /// Whether 64-bit code runs on it.
    pub fn is_64_bit(&self) -> bool {
        self.available().has(Feature::LM)
    }

    pub(super) fn caches(&self) -> Caches {
        match self.origin {
            Origin::Row(row) => row.caches,
            _ => Caches::Usual,
        }
    }
}

/// Everything that there is and that a guest can take along to another host.
fn movable() -> FeatureSet {
    let mut features = ENGINE;
    // The other host's counter may have another rate.
    features.set(Feature::INVTSC, false);
    features
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> CpuModel {
        CpuModel::named(name).unwrap()
    }

    #[test]
    fn the_usual_models_are_there() {
        for name in ["qemu64", "kvm64", "486", "Nehalem", "Skylake-Client-IBRS", "EPYC-v3", "Opteron_G5", "base", "max"]
        {
            assert_eq!(model(name).name(), name);
        }
        assert!(CpuModel::named("Nehalem-v77").is_none());
        assert_eq!(CpuModel::names().len(), 154);
        assert_eq!(model("EPYC-IBPB").definition().alias_of, Some("EPYC-v2"));
        assert_eq!(model("EPYC").definition().alias_of, Some("EPYC-v1"));
        assert_eq!(model("EPYC-v1").definition().alias_of, None);
    }

    #[test]
    fn what_the_default_asks_for_is_there() {
        assert!(CpuModel::default().unavailable().is_empty() && model("max").unavailable().is_empty());
        assert_eq!(CpuModel::default().check(), Ok(vec![]));
        assert_eq!(model("host").definition().unavailable, ["kvm"]);
    }

    #[test]
    fn what_is_missing_is_warned_of_or_an_error_or_passed_over() {
        let mut penryn = model("Penryn");
        penryn.set_word("vmx", "on").unwrap();
        penryn.set_word("est", "on").unwrap();
        let warnings = [
            "TCG doesn't support requested feature: CPUID.01H:ECX.est [bit 7]",
            "TCG doesn't support requested feature: CPUID.01H:ECX.vmx [bit 5]",
        ];
        let mut said = penryn.check().unwrap();
        said.sort();
        assert_eq!(said, warnings);
        penryn.set_word("check", "off").unwrap();
        assert_eq!(penryn.check(), Ok(vec![]));
        penryn.set_word("enforce", "on").unwrap();
        assert!(
            penryn.check().unwrap_err().to_string().starts_with("TCG doesn't support requested features: CPUID.01H")
        );
        penryn.set_word("vmx", "off").unwrap();
        penryn.set_word("est", "off").unwrap();
        assert_eq!(penryn.check(), Ok(vec![]));
    }

    #[test]
    fn settings_without_an_effect_are_told_of() {
        let mut model = CpuModel::default();
        for (name, word) in [("kvm", "off"), ("hv-relaxed", "on"), ("pmu", "off"), ("kvm_pv_eoi", "on")] {
            model.set_word(name, word).unwrap();
        }
        assert_eq!(
            model.check().unwrap(),
            [
                "TCG doesn't support requested feature: CPUID.40000001H:EAX.kvm-pv-eoi [bit 6]",
                "CPU property 'hv-relaxed' has no effect with TCG"
            ]
        );
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        for (name, word, text) in [
            ("avx", "maybe", "Parameter 'avx' expects 'on' or 'off'"),
            ("family", "x", "Parameter 'family' expects uint64"),
            ("family", "300", "parameter 'family' can be at most 270"),
            ("model", "256", "parameter 'model' can be at most 255"),
            ("stepping", "16", "parameter 'stepping' can be at most 15"),
            ("vendor", "abc", "value of property 'vendor' must consist of exactly 12 characters"),
            ("phys-bits", "60", "phys-bits should be between 32 and 52 (but is 60)"),
            ("wings", "on", "Property 'qemu64-x86_64-cpu.wings' not found"),
            ("migratable", "on", "Property 'qemu64-x86_64-cpu.migratable' not found"),
            ("feature-words", "3", "Property 'qemu64-x86_64-cpu.feature-words' not found"),
        ] {
            let mut model = CpuModel::default();
            assert_eq!(model.set_word(name, word).unwrap_err().to_string(), text);
            let twice = model.set_word(name, word).unwrap_err().to_string();
            assert_eq!(twice, text);
        }
        let long = "x".repeat(49);
        assert_eq!(CpuModel::default().set_word("model-id", &long), Err(ModelError::Id));
        for (name, value) in [("avx", Value::from("on")), ("level", Value::from(-1)), ("check", Value::from(1))] {
            assert!(CpuModel::default().set(name, &value).is_err(), "{name}");
        }
    }

    #[test]
    fn every_property_can_be_read_and_set_to_what_it_is() {
        for name in ["qemu64", "max", "base", "EPYC-Genoa"] {
            let mut model = model(name);
            for info in settings::properties() {
                let value = model.get(info.name).unwrap_or_else(|| panic!("{}", info.name));
                assert_eq!(model.set(info.name, &value), Ok(()), "{}", info.name);
                assert_eq!(model.get(info.name), Some(value));
            }
        }
    }

    #[test]
    fn levels_follow_features_unless_fixed() {
        let mut model = model("486");
        assert_eq!((model.level(), model.extended_level()), (1, 0));
        model.set_word("smep", "on").unwrap();
        model.set_word("nx", "on").unwrap();
        assert_eq!((model.level(), model.extended_level()), (7, EXTENDED | 1));
        model.set_word("level", "4").unwrap();
        model.set_word("full-cpuid-auto-level", "off").unwrap();
        assert_eq!((model.level(), model.extended_level()), (4, 0));
    }

    #[test]
    fn max_may_be_told_to_have_what_cannot_move() {
        let mut max = model("max");
        assert_eq!((max.get("invtsc"), max.get("migratable")), (Some(false.into()), Some(true.into())));
        max.set_word("migratable", "off").unwrap();
        assert_eq!(max.features, ENGINE);
    }
}
