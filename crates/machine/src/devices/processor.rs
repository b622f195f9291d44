//! `qemu64-x86_64-cpu`: a processor for a free place.

use std::sync::Arc;

use rhea_core::object::Typed;

use super::{DeviceConfig, DeviceError, Driver, Plugged};
use crate::{
    Machine, MachineError,
    board::sockets::Shown,
    objects::PlaceSettings,
    processors::{Choice, PlaceError, Removable},
    state::parts::Kept,
};

pub(super) const DRIVER: Driver = Driver { info: PlaceSettings::INFO, aliases: &[], hotpluggable: true, plug };

fn plug(machine: &Machine, config: &DeviceConfig) -> Result<Plugged, MachineError> {
    if let Some(bus) = config.bus() {
        return Err(DeviceError::NoBus(bus.to_owned()).into());
    }
    if machine.board().sockets().is_none() {
        return Err(DeviceError::NotHere(config.driver.clone()).into());
    }
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
    let node = machine.place_processor(index, Shown::Device(config.id.as_deref()))?;
    Ok(Plugged { node, bus: None, unplug: Some(Arc::new(Removable(index))), kept: Kept::Elsewhere })
}
