//! Processors: `cpu.json`.

use std::sync::Arc;

use rhea_api::{
    cpu::{
        CpuDefinitionInfo, CpuInfo, CpuInfoBranch, CpuInfoFast, CpuInfoX86, CpuInstanceProperties,
        CpuModelBaselineInfo, CpuModelCompareInfo, CpuModelCompareResult, CpuModelExpansionInfo, CpuModelExpansionType,
        CpuModelInfo, Handler, HotpluggableCPU,
    },
    machine::SysEmuTarget,
};
use rhea_core::object::{PropertyError, Tree};
use rhea_machine::{Place, Processor, types};
use rhea_qmp::Error;
use rhea_x86::system::cpuid::{CpuModel, ModelError, Relation};
use serde_json::Value;

use super::{Commands, failed};

impl Handler for Commands<'_> {
    fn query_cpus(&mut self) -> Result<Vec<CpuInfo>, Error> {
        let (tree, list) = (self.tree(), self.machine().processors().list());
        Ok(list
            .iter()
            .filter_map(|processor| {
                // One that leaves at this moment is not listed.
                let (halted, pc) = processor.with(|vcpu| (vcpu.idle(), vcpu.state().linear_instruction_pointer()))?;
                Some(CpuInfo {
                    cpu: processor.index() as i64,
                    current: processor.index() == 0,
                    halted,
                    qom_path: path(tree, processor),
                    thread_id: i64::from(processor.host_thread()),
                    props: Some(self.properties(processor.index(), processor.place())),
                    arch: CpuInfoBranch::X86(CpuInfoX86 { pc: pc as i64 }),
                })
            })
            .collect())
    }

    fn query_cpus_fast(&mut self) -> Result<Vec<CpuInfoFast>, Error> {
        let (tree, list) = (self.tree(), self.machine().processors().list());
        Ok(list
            .iter()
            .map(|processor| CpuInfoFast {
                cpu_index: processor.index() as i64,
                qom_path: path(tree, processor),
                thread_id: i64::from(processor.host_thread()),
                props: Some(self.properties(processor.index(), processor.place())),
                target: SysEmuTarget::X86_64,
            })
            .collect())
    }

    fn cpu(&mut self, _: i64) -> Result<(), Error> {
        // Says of itself that it does nothing: the choice of a processor belongs to each command.
        Ok(())
    }

    fn cpu_add(&mut self, id: i64) -> Result<(), Error> {
        self.machine().add_processor(id).map_err(failed)
    }

    fn query_hotpluggable_cpus(&mut self) -> Result<Vec<HotpluggableCPU>, Error> {
        let (tree, places) = (self.tree(), self.machine().processor_places().map_err(failed)?);
        let kind = self.machine().config().processor.type_name();
        // From the last place down, as clients know it.
        Ok(places
            .into_iter()
            .rev()
            .map(|place| HotpluggableCPU {
                r#type: kind.clone(),
                vcpus_count: 1,
                props: self.properties(place.index, place.place),
                qom_path: place.processor.map(|processor| path(tree, &processor)),
            })
            .collect())
    }

    fn query_cpu_definitions(&mut self) -> Result<Vec<CpuDefinitionInfo>, Error> {
        let models = CpuModel::names().into_iter().filter_map(CpuModel::named);
        Ok(models
            .map(|model| {
                let definition = model.definition();
                CpuDefinitionInfo {
                    name: definition.name.to_owned(),
                    migration_safe: Some(definition.migration_safe),
                    r#static: definition.fixed,
                    unavailable_features: Some(definition.unavailable),
                    typename: model.type_name(),
                    alias_of: definition.alias_of.map(str::to_owned),
                    deprecated: Some(false),
                }
            })
            .collect())
    }

    fn query_cpu_model_expansion(
        &mut self,
        r#type: CpuModelExpansionType,
        model: CpuModelInfo,
    ) -> Result<CpuModelExpansionInfo, Error> {
        let wanted = read_model("model", &model)?;
        let model = match r#type {
            CpuModelExpansionType::Static => static_info(&wanted.to_static()),
            CpuModelExpansionType::Full => {
                // The place in the machine is not chosen.
                let place = types().get("x86_64-cpu").map_or(&[][..], |info| info.properties);
                let place = place.iter().filter_map(|property| Some((property.name, property.default?())));
                model_info(wanted.name(), wanted.all_properties().into_iter().chain(place))
            }
        };
        Ok(CpuModelExpansionInfo { model, deprecated_props: None })
    }

    fn query_cpu_model_comparison(
        &mut self,
        modela: CpuModelInfo,
        modelb: CpuModelInfo,
    ) -> Result<CpuModelCompareInfo, Error> {
        let (one, two) = (read_model("modela", &modela)?, read_model("modelb", &modelb)?);
        let (relation, responsible_properties) = one.compare(&two);
        let result = match relation {
            Relation::Identical => CpuModelCompareResult::Identical,
            Relation::Subset => CpuModelCompareResult::Subset,
            Relation::Superset => CpuModelCompareResult::Superset,
            Relation::Incompatible => CpuModelCompareResult::Incompatible,
        };
        Ok(CpuModelCompareInfo { result, responsible_properties })
    }

    fn query_cpu_model_baseline(
        &mut self,
        modela: CpuModelInfo,
        modelb: CpuModelInfo,
    ) -> Result<CpuModelBaselineInfo, Error> {
        let (one, two) = (read_model("modela", &modela)?, read_model("modelb", &modelb)?);
        Ok(CpuModelBaselineInfo { model: static_info(&one.baseline(&two)) })
    }
}

/// The model that argument `argument` describes.
fn read_model(argument: &str, info: &CpuModelInfo) -> Result<CpuModel, Error> {
    let model =
        CpuModel::named(&info.name).ok_or_else(|| Error::generic(format!("CPU model '{}' not found", info.name)))?;
    let nothing = serde_json::Map::new();
    let properties = match &info.props {
        None => &nothing,
        Some(Value::Object(members)) => members,
        Some(_) => {
            return Err(Error::generic(format!("Invalid parameter type for '{argument}.props', expected: object")));
        }
    };
    let properties = properties.iter().map(|(name, value)| (name.as_str(), value));
    model.with(properties).map_err(|error| {
        let place = |name: String| format!("{argument}.props.{name}");
        Error::generic(match error {
            ModelError::Property(PropertyError::Type { name, expected }) => {
                PropertyError::Type { name: place(name), expected }.to_string()
            }
            ModelError::Property(PropertyError::Range { name, expected }) => {
                PropertyError::Range { name: place(name), expected }.to_string()
            }
            other => other.to_string(),
        })
    })
}

/// A model in the form that names all its properties.
fn model_info(name: &str, properties: impl IntoIterator<Item = (&'static str, Value)>) -> CpuModelInfo {
    let properties = properties.into_iter().map(|(name, value)| (name.to_owned(), value));
    CpuModelInfo { name: name.to_owned(), props: Some(Value::Object(properties.collect())) }
}

/// A change of `base` in that form.
fn static_info(model: &CpuModel) -> CpuModelInfo {
    model_info(model.name(), model.static_properties())
}

/// Where the processor is in the tree of objects.
fn path(tree: &Tree, processor: &Arc<Processor>) -> String {
    processor.node().map_or_else(String::new, |node| tree.path(node))
}

impl Commands<'_> {
    fn properties(&self, index: usize, place: Place) -> CpuInstanceProperties {
        CpuInstanceProperties {
            node_id: self.machine().numa().processor(index).map(i64::from),
            socket_id: Some(i64::from(place.socket)),
            die_id: None,
            core_id: Some(i64::from(place.core)),
            thread_id: Some(i64::from(place.thread)),
        }
    }
}
