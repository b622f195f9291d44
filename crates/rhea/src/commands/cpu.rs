//! Processors: `cpu.json`.

use std::sync::Arc;

use rhea_api::{
    cpu::{CpuInfo, CpuInfoBranch, CpuInfoFast, CpuInfoX86, CpuInstanceProperties, Handler},
    machine::SysEmuTarget,
};
use rhea_core::object::Tree;
use rhea_machine::Processor;
use rhea_qmp::Error;

use super::Commands;

impl Handler for Commands<'_> {
    fn query_cpus(&mut self) -> Result<Vec<CpuInfo>, Error> {
        let (tree, list) = (self.tree(), self.machine().processors().list());
        list.iter()
            .map(|processor| {
                let seen = processor.with(|vcpu| (vcpu.idle(), vcpu.state().linear_instruction_pointer()));
                let (halted, pc) = seen.ok_or_else(|| Error::generic("the machine is ending"))?;
                Ok(CpuInfo {
                    cpu: processor.index() as i64,
                    current: processor.index() == 0,
                    halted,
                    qom_path: path(tree, processor),
                    thread_id: i64::from(processor.host_thread()),
                    props: Some(self.properties(processor)),
                    arch: CpuInfoBranch::X86(CpuInfoX86 { pc: pc as i64 }),
                })
            })
            .collect()
    }

    fn query_cpus_fast(&mut self) -> Result<Vec<CpuInfoFast>, Error> {
        let (tree, list) = (self.tree(), self.machine().processors().list());
        Ok(list
            .iter()
            .map(|processor| CpuInfoFast {
                cpu_index: processor.index() as i64,
                qom_path: path(tree, processor),
                thread_id: i64::from(processor.host_thread()),
                props: Some(self.properties(processor)),
                target: SysEmuTarget::X86_64,
            })
            .collect())
    }

    fn cpu(&mut self, _: i64) -> Result<(), Error> {
        // Says of itself that it does nothing: the choice of a processor belongs to each command.
        Ok(())
    }
}

/// Where the processor is in the tree of objects.
fn path(tree: &Tree, processor: &Arc<Processor>) -> String {
    processor.node().map_or_else(String::new, |node| tree.path(node))
}

impl Commands<'_> {
    fn properties(&self, processor: &Arc<Processor>) -> CpuInstanceProperties {
        let place = processor.place();
        CpuInstanceProperties {
            node_id: self.machine().numa().processor(processor.index()).map(i64::from),
            socket_id: Some(i64::from(place.socket)),
            die_id: None,
            core_id: Some(i64::from(place.core)),
            thread_id: Some(i64::from(place.thread)),
        }
    }
}
