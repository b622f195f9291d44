//! The way of a PCI device from and to its slot.

use std::sync::Arc;

use rhea_core::object::{NodeId, Object, PropertyKind, Typed, Unsuitable, Value};
use rhea_devices::chipset::pci::{PciBus, PciFunction, SlotFunction, Slots};

use super::{DeviceConfig, DeviceError, Devices, Plugged, Removal, Unplug, pci_bus::PciSlots};
use crate::{Machine, MachineError, boot_order::pci_path, state::part::Kept};

/// Place of a function on its bus; none for the first slot that is free. In words `5` or `5.1`, in hexadecimal; as a
/// number eight times the slot and the function, or -1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PciAddress(pub Option<SlotFunction>);

impl PropertyKind for PciAddress {
    const NAME: &'static str = "str";

    fn to_value(&self) -> Value {
        Value::from(self.0.map_or(-1, |at| i32::from(at.slot) << 3 | i32::from(at.function)))
    }

    fn from_value(value: &Value) -> Result<Self, Unsuitable> {
        const WANTED: Unsuitable = Unsuitable::Range("a PCI address, such as 5 or 5.1 in hexadecimal");
        match (value, value.as_i64()) {
            (Value::String(text), _) => Self::from_text(text).ok_or(WANTED),
            (_, Some(-1)) => Ok(Self(None)),
            (_, Some(number @ 0..=255)) => {
                Ok(Self(Some(SlotFunction { slot: (number >> 3) as u8, function: (number & 7) as u8 })))
            }
            (Value::Number(_), _) => Err(WANTED),
            _ => Err(Unsuitable::Type("string")),
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        let (slot, function) = text.split_once('.').unwrap_or((text, "0"));
        let hexadecimal = |text: &str| {
            let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
            // What `from_str_radix` takes besides digits.
            if digits.starts_with('+') { None } else { u8::from_str_radix(digits, 16).ok() }
        };
        match (hexadecimal(slot)?, hexadecimal(function)?) {
            (slot @ 0..=31, function @ 0..=7) => Some(Self(Some(SlotFunction { slot, function }))),
            _ => None,
        }
    }
}

/// Where a device is to go.
pub(super) struct PciPlace {
    node: NodeId,
    bus: Arc<PciSlots>,
    pub at: SlotFunction,
}

impl PciPlace {
    /// The slots of the bus, with their interrupt wires.
    pub fn slots(&self) -> &Arc<Slots> {
        &self.bus.slots
    }

    /// The path by which firmware knows a device there that is of this kind.
    pub fn firmware_path(&self, kind: &str) -> String {
        pci_path(&self.bus.firmware_path, kind, self.at)
    }

    /// How the tables lead to a bus behind a bridge in this place, if they can.
    pub fn path_behind(&self) -> Option<Vec<u8>> {
        let path = self.bus.path.iter().copied().chain([self.at.slot]);
        (self.bus.number.is_some() && self.at.function == 0).then(|| path.collect())
    }
}

/// A link of a device's object: its name, the type it leads to, and where it leads.
pub(super) type Link = (&'static str, &'static str, NodeId);

impl Machine {
    /// Where the device is to go: at `address`, or in the first free slot.
    pub(super) fn pci_place(&self, config: &DeviceConfig, address: PciAddress) -> Result<PciPlace, DeviceError> {
        let (node, bus) = self.find_bus::<PciSlots>(config, "PCI", |_| true)?;
        let at = address.0.or_else(|| bus.free_slot()).ok_or_else(|| DeviceError::NoSlot(config.driver.clone()))?;
        if self.devices().under_way() {
            if bus.number.is_none() {
                let path = self.objects().tree().path(node);
                return Err(DeviceError::FixedBus(path.rsplit('/').next().unwrap_or_default().to_owned()));
            }
            let first = bus.slots.function(SlotFunction { function: 0, ..at });
            if at.function != 0 && first.is_some() {
                return Err(DeviceError::LateFunction(at.slot));
            }
        }
        Ok(PciPlace { node, bus, at })
    }

    /// Puts a function into its place, and its object into the tree; one that `leaves` may go again.
    pub(super) fn plug_pci(
        &self,
        config: &DeviceConfig,
        place: &PciPlace,
        function: Arc<dyn PciFunction>,
        object: Arc<dyn Object>,
        links: &[Link],
        leaves: bool,
    ) -> Result<Plugged, MachineError> {
        let PciPlace { node: bus, bus: on, at } = place;
        let PciSlots { slots, bridge, number, path: _, firmware_path: _ } = &**on;
        slots.plug(*at, config.id.clone(), function)?;
        let entered = self.objects().plug(config.id.as_deref(), object).and_then(|node| {
            let tree = self.objects().tree();
            let links = links.iter().copied().chain([("parent_bus", PciBus::INFO.name, *bus)]);
            let linked = links.map(|(name, kind, target)| tree.link(node, name, kind, Some(target)));
            linked.collect::<Result<(), _>>().map(|()| node).inspect_err(|_| drop(tree.remove(node)))
        });
        let node = entered.inspect_err(|_| drop(slots.remove(*at)))?;
        if let Some(bridge) = bridge {
            bridge.forward();
        }
        if let (Some(number), true) = (*number, leaves) {
            self.devices().pci.lock().insert((number, at.slot, at.function), node);
            // The guest looks for the functions of a slot once there is the first of them.
            if let (Some(hotplug), 0) = (self.board().hotplug(), at.function) {
                hotplug.pci.insert(number, at.slot);
            }
        }
        let unplug = Arc::new(OnPci { slots: Arc::clone(slots), at: *at, number: *number });
        Ok(Plugged { node, bus: Some(*bus), unplug: Some(unplug), kept: Kept::Elsewhere })
    }

    /// The guest let go of a slot: all that is in it goes.
    pub(crate) fn pci_ejected(&self, bus: u32, slot: u8) {
        self.finish_removals(|| {
            // Something that came after the guest let go stays.
            if self.board().hotplug().is_none_or(|hotplug| hotplug.pci.is_present(bus, slot)) {
                return Vec::new();
            }
            self.devices().in_pci_slot(bus, slot)
        });
    }
}

impl Devices {
    /// All functions that are in a slot and may go.
    fn in_pci_slot(&self, bus: u32, slot: u8) -> Vec<NodeId> {
        self.pci.lock().range((bus, slot, 0)..=(bus, slot, u8::MAX)).map(|(_, node)| *node).collect()
    }

    /// What goes along with a device: the functions of a PCI slot go together.
    pub(super) fn leaves_with(&self, node: NodeId) -> Vec<NodeId> {
        let place = self.pci.lock().iter().find(|(_, other)| **other == node).map(|(place, _)| *place);
        place.map_or_else(|| vec![node], |(bus, slot, _)| self.in_pci_slot(bus, slot))
    }
}

/// How a PCI device leaves: with all that is in its slot.
struct OnPci {
    slots: Arc<Slots>,
    at: SlotFunction,
    /// The number of its bus in the hotplug registers.
    number: Option<u32>,
}

impl Unplug for OnPci {
    fn request(&self, machine: &Machine) -> Result<Removal, MachineError> {
        let SlotFunction { slot, .. } = self.at;
        // What is in a slot without its first function was never seen.
        if self.slots.function(SlotFunction { slot, function: 0 }).is_none() {
            return Ok(Removal::Now);
        }
        let first = |number| machine.devices().pci.lock().contains_key(&(number, slot, 0));
        match (machine.board().hotplug(), self.number) {
            (Some(hotplug), Some(number)) if first(number) => {
                hotplug.pci.request_removal(number, slot);
                Ok(Removal::Pending)
            }
            _ => Err(DeviceError::NotHotpluggable(format!("PCI slot {slot}")).into()),
        }
    }

    /// Its windows are gone, and its queues rest.
    fn remove(&self, machine: &Machine) {
        let SlotFunction { slot, function } = self.at;
        if let Some(function) = self.slots.remove(self.at) {
            function.reset();
        }
        if let Some(number) = self.number {
            machine.devices().pci.lock().remove(&(number, slot, function));
            if let (Some(hotplug), 0) = (machine.board().hotplug(), function) {
                hotplug.pci.remove(number, slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_address_is_hexadecimal_words_or_a_number() {
        let at = |slot, function| Ok(PciAddress(Some(SlotFunction { slot, function })));
        for (value, expected) in [
            (json!("5"), at(5, 0)),
            (json!("0x5.0x1"), at(5, 1)),
            (json!("1f.7"), at(31, 7)),
            (json!(41), at(5, 1)),
            (json!(-1), Ok(PciAddress(None))),
        ] {
            assert_eq!(PciAddress::from_value(&value), expected, "{value}");
        }
        for bad in
            [json!("20"), json!("5.8"), json!(""), json!("+5"), json!("5.1.2"), json!(256), json!(-2), json!(1.5)]
        {
            assert!(matches!(PciAddress::from_value(&bad), Err(Unsuitable::Range(_))), "{bad}");
        }
        assert!(matches!(PciAddress::from_value(&json!(true)), Err(Unsuitable::Type(_))));
    }

    proptest! {
        #[test]
        fn an_address_comes_back_from_its_number(number in -1_i32..256) {
            prop_assert_eq!(PciAddress::from_value(&json!(number)).unwrap().to_value(), json!(number));
        }

        #[test]
        fn no_word_panics(text in ".{0,12}") {
            let _ = PciAddress::from_text(&text);
        }
    }
}
