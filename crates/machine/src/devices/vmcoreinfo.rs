//! `vmcoreinfo`: a place where a guest says where its kernel's description for dumps is. A machine has one at the most.

use std::sync::Arc;

use rhea_core::object::{Object, TypeInfo, Typed, Value};

use super::{DeviceConfig, DeviceError, Driver, Plugged};
use crate::{Machine, MachineError, state::part::Kept};

/// A place for a note of the guest's.
#[derive(Object)]
#[object(type = "vmcoreinfo", parent = "device", settings)]
struct VmcoreinfoSettings {}

pub(super) const DRIVER: Driver = Driver { info: VmcoreinfoSettings::INFO, aliases: &[], hotpluggable: false, plug };

fn plug(machine: &Machine, config: &DeviceConfig) -> Result<Plugged, MachineError> {
    config.settings::<VmcoreinfoSettings>().map_err(DeviceError::from)?;
    if let Some(bus) = config.bus() {
        return Err(DeviceError::NoBus(bus.to_owned()).into());
    }
    machine.board().add_vmcoreinfo()?;
    // Nobody else has the id: that was looked at.
    let node = machine.objects().plug(config.id.as_deref(), Arc::new(VmcoreinfoObject))?;
    Ok(Plugged { node, bus: None, unplug: None, kept: Kept::Elsewhere })
}

struct VmcoreinfoObject;

impl Object for VmcoreinfoObject {
    fn info(&self) -> &'static TypeInfo {
        VmcoreinfoSettings::INFO
    }

    fn get(&self, _: &str) -> Option<Value> {
        None
    }
}
