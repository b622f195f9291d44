//! Guest memory: `memory.json`.

use std::{path::PathBuf, sync::Arc};

use rhea_api::memory::{
    BalloonInfo, Handler, HostMemPolicy, Memdev, MemoryDeviceInfo, MemoryInfo, PCDIMMDeviceInfo,
    PCDIMMDeviceInfoWrapper,
};
use rhea_backends::object::{MemoryBackend, Policy};
use rhea_machine::modules::MemoryModule;
use rhea_qmp::{Error, ErrorClass, reply::Later};

use super::{Commands, failed};

impl Handler for Commands<'_> {
    fn memsave(&mut self, val: i64, size: i64, filename: String, cpu_index: Option<i64>) -> Result<Later<()>, Error> {
        let processor = self.processor(cpu_index.unwrap_or(0))?;
        let size = self.size(size)?;
        let machine = Arc::clone(self.machine());
        // An address is 64 bits; JSON's integers have a sign.
        let from = val as u64;
        Ok(Box::new(move || machine.save_virtual(processor, from, size, &PathBuf::from(filename)).map_err(failed)))
    }

    fn pmemsave(&mut self, val: i64, size: i64, filename: String) -> Result<Later<()>, Error> {
        let size = self.size(size)?;
        let machine = Arc::clone(self.machine());
        let from = val as u64;
        Ok(Box::new(move || machine.save_physical(from, size, &PathBuf::from(filename)).map_err(failed)))
    }

    fn query_memdev(&mut self) -> Result<Vec<Memdev>, Error> {
        let all = self.machine().objects().all::<MemoryBackend>().into_iter();
        Ok(all.map(|(id, backend)| memdev(id, &backend)).collect())
    }

    fn query_memory_devices(&mut self) -> Result<Vec<MemoryDeviceInfo>, Error> {
        let tree = self.tree();
        let info = |module: MemoryModule| {
            let state = tree.device(module.device).unwrap_or_default();
            let data = PCDIMMDeviceInfo {
                id: self.machine().objects().device_id(module.device),
                addr: module.address as i64,
                size: module.size as i64,
                slot: module.slot.into(),
                node: module.node.into(),
                memdev: tree.path(module.backend),
                hotplugged: state.hotplugged,
                hotpluggable: state.hotpluggable,
            };
            MemoryDeviceInfo::Dimm(PCDIMMDeviceInfoWrapper { data })
        };
        Ok(self.machine().modules().list().into_iter().map(info).collect())
    }

    fn query_memory_size_summary(&mut self) -> Result<MemoryInfo, Error> {
        let machine = self.machine();
        Ok(MemoryInfo { base_memory: machine.config().ram, plugged_memory: Some(machine.modules().plugged()) })
    }

    fn query_balloon(&mut self) -> Result<BalloonInfo, Error> {
        Ok(BalloonInfo { actual: self.machine().balloon().ok_or_else(not_active)? })
    }

    fn balloon(&mut self, value: i64) -> Result<(), Error> {
        // Whether there is one comes first, as clients know it.
        self.machine().balloon().ok_or_else(not_active)?;
        let size = u64::try_from(value).ok().filter(|&size| size > 0);
        let size = size.ok_or_else(|| Error::generic("Parameter 'value' expects a size"))?;
        if self.machine().set_balloon(size) { Ok(()) } else { Err(not_active()) }
    }
}

fn memdev(id: String, backend: &MemoryBackend) -> Memdev {
    let settings = backend.settings();
    Memdev {
        id: Some(id),
        size: backend.ram().len(),
        merge: settings.merge,
        dump: settings.dump,
        prealloc: settings.prealloc,
        share: Some(settings.share),
        reserve: Some(settings.reserve),
        host_nodes: settings.host_nodes.0.into_iter().collect(),
        policy: match settings.policy {
            Policy::Default => HostMemPolicy::Default,
            Policy::Preferred => HostMemPolicy::Preferred,
            Policy::Bind => HostMemPolicy::Bind,
            Policy::Interleave => HostMemPolicy::Interleave,
        },
    }
}

/// No balloon.
fn not_active() -> Error {
    Error::new(ErrorClass::DeviceNotActive, "No balloon device has been activated")
}

impl Commands<'_> {
    fn size(&self, size: i64) -> Result<u64, Error> {
        u64::try_from(size).map_err(|_| Error::generic("Parameter 'size' expects a size: it cannot be negative"))
    }
}
