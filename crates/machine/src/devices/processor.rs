//! `qemu64-x86_64-cpu` and its kin: a processor of the machine's model for a free place.

use std::sync::Arc;

use rhea_core::object::{Typed, Value};
use rhea_x86::system::cpuid::CpuModel;

use super::{DeviceConfig, DeviceError, Driver, Plugged};
use crate::{
    Machine, MachineError,
    board::sockets::Shown,
    processors::{self, PlaceSettings, Removable},
    state::part::Kept,
    topology::{Choice, PlaceError},
};

/// The drivers: one a model.
pub(super) fn drivers() -> impl Iterator<Item = Driver> {
    processors::types().iter().map(|info| Driver { info, aliases: &[], hotpluggable: true, plug })
}

fn plug(machine: &Machine, config: &DeviceConfig) -> Result<Plugged, MachineError> {
    if let Some(bus) = config.bus() {
        return Err(DeviceError::NoBus(bus.to_owned()).into());
    }
    if machine.board().sockets().is_none() {
        return Err(DeviceError::NotHere(config.driver.clone()).into());
    }
    let model = model(machine, config)?;
    let settings: PlaceSettings = config.settings().map_err(DeviceError::from)?;
    let index = machine.config().topology.choose(Choice {
        apic_id: Some(settings.apic_id).filter(|&id| id != u32::MAX),
        // What is negative was not chosen.
        socket: u32::try_from(settings.socket_id).ok(),
        die: u32::try_from(settings.die_id).ok(),
        core: u32::try_from(settings.core_id).ok(),
        thread: u32::try_from(settings.thread_id).ok(),
    })?;
    let node = machine.numa().processor(index).unwrap_or(0);
    if u32::try_from(settings.node_id).is_ok_and(|wanted| wanted != u32::from(node)) {
        return Err(PlaceError::Node(node).into());
    }
    let node = machine.place_processor(index, Some(&model), Shown::Device(config.id.as_deref()))?;
    Ok(Plugged { node, bus: None, unplug: Some(Arc::new(Removable(index))), kept: Kept::Elsewhere })
}

/// The machine's model, with what was said of this processor alone.
fn model(machine: &Machine, config: &DeviceConfig) -> Result<CpuModel, MachineError> {
    let mut model = machine.config().processor.clone();
    let own = model.type_name();
    if config.driver != own {
        return Err(DeviceError::Model(own).into());
    }
    let mut changed = false;
    for (name, value) in &config.properties {
        if name == "bus" || PlaceSettings::INFO.property(name).is_some() {
            continue;
        }
        match value {
            // A word stands for a value of any kind, as on a command line.
            Value::String(word) => model.set_word(name, word),
            value => model.set(name, value),
        }
        .map_err(DeviceError::from)?;
        changed = true;
    }
    if changed {
        for warning in model.check().map_err(DeviceError::from)? {
            tracing::warn!("{own}: {warning}");
        }
    }
    Ok(model)
}
