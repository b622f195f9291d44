//! What the machine is: `machine.json`.

use rhea_api::machine::{GuidInfo, Handler, KvmInfo, MachineInfo, NameInfo, TargetInfo, UuidInfo};
use rhea_machine::MAX_PROCESSORS;
use rhea_qmp::Error;
use rhea_x86::system::cpuid::CpuModel;

use super::{Commands, failed};

impl Handler for Commands<'_> {
    fn query_name(&mut self) -> Result<NameInfo, Error> {
        Ok(NameInfo { name: self.context.identity.name.clone() })
    }

    fn query_uuid(&mut self) -> Result<UuidInfo, Error> {
        Ok(UuidInfo { uuid: self.context.identity.uuid.to_string() })
    }

    fn query_kvm(&mut self) -> Result<KvmInfo, Error> {
        Ok(KvmInfo { enabled: false, present: false })
    }

    fn query_target(&mut self) -> Result<TargetInfo, Error> {
        Ok(TargetInfo { arch: "x86_64".to_owned() })
    }

    fn query_vm_generation_id(&mut self) -> Result<GuidInfo, Error> {
        let guid = self.machine().generation_id().map_err(failed)?;
        Ok(GuidInfo { guid: guid.to_string() })
    }

    fn query_machines(&mut self) -> Result<Vec<MachineInfo>, Error> {
        let none = MachineInfo {
            name: "none".to_owned(),
            alias: None,
            is_default: None,
            cpu_max: 1,
            hotpluggable_cpus: false,
            numa_mem_supported: Some(false),
            deprecated: Some(false),
            default_cpu_type: None,
            default_ram_id: None,
            acpi: Some(false),
        };
        let pc = MachineInfo {
            name: "pc-i440fx-10.0".to_owned(),
            alias: Some("pc".to_owned()),
            is_default: Some(true),
            cpu_max: i64::from(MAX_PROCESSORS),
            hotpluggable_cpus: true,
            numa_mem_supported: Some(true),
            deprecated: Some(false),
            default_cpu_type: Some(CpuModel::default().type_name()),
            default_ram_id: Some("pc.ram".to_owned()),
            acpi: Some(true),
        };
        Ok(vec![none, pc])
    }
}
