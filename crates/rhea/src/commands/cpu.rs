//! Processors: `cpu.json`.

use std::sync::Arc;

use rhea_api::{
    cpu::{CpuInfo, CpuInfoBranch, CpuInfoFast, CpuInfoX86, CpuInstanceProperties, Handler, HotpluggableCPU},
    machine::SysEmuTarget,
};
use rhea_core::object::Tree;
use rhea_machine::{Place, Processor, objects::PROCESSOR_TYPE};
use rhea_qmp::Error;

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
        // From the last place down, as clients know it.
        Ok(places
            .into_iter()
            .rev()
            .map(|place| HotpluggableCPU {
                r#type: PROCESSOR_TYPE.to_owned(),
                vcpus_count: 1,
                props: self.properties(place.index, place.place),
                qom_path: place.processor.map(|processor| path(tree, &processor)),
            })
            .collect())
    }
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
