//! PCI buses as devices are put on them.

use std::sync::Arc;

use rhea_core::object::{Object, TypeInfo, Typed, Value};
use rhea_devices::chipset::pci::{Bridge, PciBus, SlotFunction, Slots};

use crate::boot_order::FIRST_PCI_BUS;

/// A PCI bus in the tree.
pub(crate) struct PciSlots {
    pub(super) slots: Arc<Slots>,
    /// What it is behind.
    pub(super) bridge: Option<Arc<Bridge>>,
    /// Its number in the hotplug registers, if devices come and go there.
    pub(super) number: Option<u32>,
    /// The slots of the bridges that lead there, the one on the first bus first.
    pub(super) path: Vec<u8>,
    /// Its path as firmware knows it.
    pub(super) firmware_path: String,
}

impl PciSlots {
    /// The first bus.
    pub(crate) fn first(bus: &PciBus) -> Arc<Self> {
        let (slots, firmware_path) = (Arc::clone(bus.slots()), FIRST_PCI_BUS.to_owned());
        Arc::new(Self { slots, bridge: None, number: Some(0), path: Vec::new(), firmware_path })
    }

    /// The bus behind a bridge.
    pub(super) fn behind(bridge: &Arc<Bridge>, firmware_path: String, number: Option<u32>, path: Vec<u8>) -> Arc<Self> {
        let slots = Arc::clone(bridge.slots());
        Arc::new(Self { slots, bridge: Some(Arc::clone(bridge)), number, path, firmware_path })
    }

    /// The first slot that is free.
    pub(super) fn free_slot(&self) -> Option<SlotFunction> {
        // Slot 0 behind a bridge is left free: a hot-plug controller would be there.
        self.slots.free_slot(u8::from(self.bridge.is_some()))
    }
}

impl Object for PciSlots {
    fn info(&self) -> &'static TypeInfo {
        PciBus::INFO
    }

    fn get(&self, _: &str) -> Option<Value> {
        None
    }
}
