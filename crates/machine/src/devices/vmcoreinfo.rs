//! `vmcoreinfo`: where a guest says where its kernel's description for dumps is. A machine has one at the most.
//!
//! Source: the published layout of the configuration item "etc/vmcoreinfo": 16 bytes, little-endian: what the host takes,
//! what the guest has written, size and address of an ELF note.

use std::sync::Arc;

use rhea_core::object::{Object, TypeInfo, Typed, Value};

use super::{DeviceConfig, DeviceError, Driver, Plugged};
use crate::{Machine, MachineError, state::parts::Kept};

/// The item's name.
pub(crate) const ITEM: &str = "etc/vmcoreinfo";
/// A note in an ELF core: what the host takes, and guests write.
const FORMAT_ELF: u16 = 1;

/// A place for a note of the guest's.
#[derive(Object)]
#[object(type = "vmcoreinfo", parent = "device", settings)]
struct VmcoreinfoSettings {}

pub(super) const DRIVER: Driver = Driver { info: VmcoreinfoSettings::INFO, aliases: &[], hotpluggable: false, plug };

/// The item before a guest has written it.
pub(crate) fn empty() -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&FORMAT_ELF.to_le_bytes());
    bytes
}

/// Address and size of the guest's note, if that is what the item says.
pub(crate) fn note(item: &[u8]) -> Option<(u64, u64)> {
    let (head, address) = item.split_first_chunk::<8>()?;
    let [_, _, format_low, format_high, size @ ..] = *head;
    let address = u64::from_le_bytes(address.try_into().ok()?);
    let told = u16::from_le_bytes([format_low, format_high]) == FORMAT_ELF;
    told.then_some((address, u32::from_le_bytes(size).into()))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_says_where_the_note_is_once_a_guest_has_written_it() {
        assert_eq!(note(&empty()), None);
        let written = [1, 0, 1, 0, 0x18, 0x10, 0, 0, 0, 0x40, 0x30, 2, 1, 0, 0, 0];
        assert_eq!(note(&written), Some((0x1_0230_4000, 0x1018)));
        assert_eq!(note(&written[..15]), None);
    }
}
