//! Processors as managers see them: a type for each model, and what each processor tells of itself.

use std::sync::{Arc, LazyLock};

use rhea_core::object::{Object, PropertyInfo, TypeInfo, Typed, Value};
use rhea_x86::system::cpuid::{
    CpuModel, CpuidTable, Feature, FeatureSet, Register, Source, WORDS, properties, property_of_followers,
};
use serde_json::json;

use super::Processor;
use crate::{devices::error::DeviceError, error::MachineError, globals::GlobalsAmong};

/// Where a processor sits.
#[derive(Object)]
#[object(type = "x86_64-cpu", parent = "cpu", abstract, settings)]
pub(crate) struct PlaceSettings {
    /// Identifier of the local APIC; all ones if it follows from the place.
    #[property(default = u32::MAX)]
    pub apic_id: u32,
    /// Socket; -1 if not chosen.
    #[property(default = -1)]
    pub socket_id: i32,
    /// Die in the socket, of which there is one; -1 if not chosen.
    #[property(default = -1)]
    pub die_id: i32,
    /// Core in the socket; -1 if not chosen.
    #[property(default = -1)]
    pub core_id: i32,
    /// Thread in the core; -1 if not chosen.
    #[property(default = -1)]
    pub thread_id: i32,
    /// NUMA node; -1 if not chosen.
    #[property(default = -1)]
    pub node_id: i32,
}

const fn shown(name: &'static str, kind: &'static str, description: &'static str) -> PropertyInfo {
    PropertyInfo { kind, ..PropertyInfo::of::<String>(name, description).read_only() }
}

/// What processors show besides the properties of their models.
const DESCRIBING: [PropertyInfo; 3] = [
    shown("feature-words", "X86CPUFeatureWordInfo", "the words of CPUID that hold features"),
    shown("filtered-features", "X86CPUFeatureWordInfo", "features that were asked for and are not there, as words"),
    shown("unavailable-features", "strList", "features that were asked for and are not there"),
];

/// The types of processors, one for each name of a model. They are made once and stay.
pub(crate) fn types() -> &'static [&'static TypeInfo] {
    static TYPES: LazyLock<Vec<&'static TypeInfo>> = LazyLock::new(|| {
        let common: Vec<PropertyInfo> = DESCRIBING.into_iter().chain(properties().iter().copied()).collect();
        let following: Vec<PropertyInfo> = common.iter().copied().chain([*property_of_followers()]).collect();
        let (common, following): (&'static [_], &'static [_]) = (common.leak(), following.leak());
        let types = CpuModel::types().map(|(name, follows)| {
            let properties = if follows { following } else { common };
            let info = TypeInfo::plain(name.leak(), PlaceSettings::INFO.name).with(properties);
            &*Box::leak(Box::new(info))
        });
        types.collect()
    });
    &TYPES
}

/// The type of such processors.
fn type_of(model: &CpuModel) -> &'static TypeInfo {
    let name = model.type_name();
    types().iter().find(|info| info.name == name).copied().unwrap_or(PlaceSettings::INFO)
}

/// The machine's model, with what was said of all processors of the type.
///
/// # Errors
/// A property that there is not, or a value that it does not take.
pub(crate) fn model_of(asked: &CpuModel, globals: GlobalsAmong<'_>) -> Result<CpuModel, MachineError> {
    let mut model = asked.clone();
    for (name, value) in globals.of(type_of(&model))? {
        // Where a processor sits is no matter of all.
        if PlaceSettings::INFO.property(&name).is_none() {
            model.set(&name, &value).map_err(DeviceError::from)?;
        }
    }
    Ok(model)
}

/// A processor as managers see it.
struct ProcessorObject {
    info: &'static TypeInfo,
    place: PlaceSettings,
    model: CpuModel,
    cpuid: CpuidTable,
}

/// The object of a processor, which tells of itself by its model and by what CPUID answers there.
pub(crate) fn object(processor: &Processor, node: Option<u16>, model: CpuModel, cpuid: CpuidTable) -> Arc<dyn Object> {
    let place = processor.place();
    let place = PlaceSettings {
        apic_id: processor.apic_id().into(),
        socket_id: place.socket as i32,
        core_id: place.core as i32,
        thread_id: place.thread as i32,
        die_id: 0,
        node_id: node.map_or(-1, i32::from),
    };
    Arc::new(ProcessorObject { info: type_of(&model), place, model, cpuid })
}

impl Object for ProcessorObject {
    fn info(&self) -> &'static TypeInfo {
        self.info
    }

    fn get(&self, name: &str) -> Option<Value> {
        Some(match name {
            "feature-words" => words(|_, source| self.cpuid.word(source).into()),
            "filtered-features" => {
                let missing: FeatureSet = self.model.unavailable();
                words(|index, _| missing.word(index))
            }
            "unavailable-features" => json!(self.model.unavailable().names()),
            "apic-id" => json!(self.place.apic_id),
            "socket-id" => json!(self.place.socket_id),
            "die-id" => json!(self.place.die_id),
            "core-id" => json!(self.place.core_id),
            "thread-id" => json!(self.place.thread_id),
            "node-id" => json!(self.place.node_id),
            "phys-bits" => json!(self.model.physical_bits()),
            _ => match Feature::named(name) {
                // Guests are told in any case, unless somebody chose otherwise.
                Some(Feature::INVTSC) => json!(self.model.available().has(Feature::INVTSC)),
                Some(feature) => json!(self.cpuid.has(feature)),
                None => return self.model.get(name),
            },
        })
    }
}

/// The words of features that CPUID has, as managers are told of them.
fn words(bits: impl Fn(usize, Source) -> u64) -> Value {
    let words = WORDS.iter().enumerate().filter_map(|(place, word)| {
        let Source::Cpuid { function, index, register } = word.source else { return None };
        let register = match register {
            Register::Eax => "EAX",
            Register::Ebx => "EBX",
            Register::Ecx => "ECX",
            Register::Edx => "EDX",
        };
        let mut word =
            json!({ "cpuid-register": register, "cpuid-input-eax": function, "features": bits(place, word.source) });
        if let (Some(index), Some(members)) = (index, word.as_object_mut()) {
            members.insert("cpuid-input-ecx".to_owned(), json!(index));
        }
        Some(word)
    });
    words.collect()
}
