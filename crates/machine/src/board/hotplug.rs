//! What comes and goes on a PC: the registers for it, what is in which slot, and how the main thread hears of it.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use rhea_core::{Device, PortSpace, object::NodeId};
use rhea_devices::acpi::{
    hotplug::{CpuHotplug, HotplugSink, MemoryHotplug, PciHotplug, Report, event},
    pm::Pm,
};

use crate::{
    acpi::HotplugBus,
    inbox::{GuestRequest, Inbox, SlotKind},
};

/// The last report of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotReport {
    /// What goes into the slot.
    pub kind: SlotKind,
    /// Its number.
    pub slot: u32,
    /// The report.
    pub report: Report,
}

/// The registers of hotplug, and who is in their slots.
pub struct Hotplug {
    /// Of processors, by index.
    pub processors: Arc<CpuHotplug>,
    /// Of memory modules.
    pub memory: Arc<MemoryHotplug>,
    /// Of PCI devices.
    pub pci: Arc<PciHotplug>,
    occupants: Mutex<BTreeMap<(SlotKind, u32), NodeId>>,
    buses: Mutex<Vec<HotplugBus>>,
}

impl Hotplug {
    /// Registers in `ports` that raise events of `power`, for the processors with these APIC ids, of which the first
    /// `present` are there, and for `slots` memory modules.
    pub fn new(
        power: &Arc<Pm>,
        inbox: &Arc<Inbox>,
        ports: &PortSpace,
        apic_ids: &[u32],
        present: usize,
        slots: u32,
    ) -> Self {
        let raise = |event| -> Arc<dyn Fn() + Send + Sync> {
            let power = Arc::clone(power);
            Arc::new(move || power.raise_gpe(event))
        };
        let sink = |kind| -> Arc<dyn HotplugSink> { Arc::new(ToInbox { kind, inbox: Arc::clone(inbox) }) };
        let processors = CpuHotplug::new(raise(event::PROCESSORS), apic_ids, present);
        let memory = MemoryHotplug::new(raise(event::MEMORY), slots);
        let pci = PciHotplug::new(raise(event::PCI));
        processors.set_sink(sink(SlotKind::Cpu));
        memory.set_sink(sink(SlotKind::Dimm));
        pci.set_sink(sink(SlotKind::Pci));
        processors.map(ports);
        memory.map(ports);
        pci.map(ports);
        Self { processors, memory, pci, occupants: Mutex::default(), buses: Mutex::default() }
    }

    /// From now on, what comes is news for the guest.
    pub fn power_on(&self) {
        self.processors.power_on();
        self.memory.power_on();
        self.pci.power_on();
    }

    /// All that a reset resets.
    pub fn devices(&self) -> [Arc<dyn Device>; 3] {
        [Arc::clone(&self.processors) as _, Arc::clone(&self.memory) as _, Arc::clone(&self.pci) as _]
    }

    /// A further bus on which PCI devices come and go, behind the bridges in the slots `path`, the one on the first bus
    /// first: its number in the registers, if there is one left. The tables tell of it from the next reset on.
    pub fn add_bus(&self, path: Vec<u8>) -> Option<u32> {
        let number = self.pci.register_bus()?;
        self.buses.lock().push(HotplugBus { number, path });
        Some(number)
    }

    /// The buses that were added.
    pub(crate) fn buses(&self) -> Vec<HotplugBus> {
        self.buses.lock().clone()
    }

    /// Says which device is in a slot: it is the one that leaves when the guest lets go of the slot.
    pub fn occupy(&self, kind: SlotKind, slot: u32, node: NodeId) {
        self.occupants.lock().insert((kind, slot), node);
    }

    /// Says that there is none any more.
    pub fn vacate(&self, kind: SlotKind, slot: u32) {
        self.occupants.lock().remove(&(kind, slot));
    }

    /// The device in a slot, if it was said.
    pub fn occupant(&self, kind: SlotKind, slot: u32) -> Option<NodeId> {
        self.occupants.lock().get(&(kind, slot)).copied()
    }

    /// What the guest was asked for, or let go of, is not taken away: it is not asked any more, and finds it there again.
    pub fn stays(&self, kind: SlotKind, slot: u32) {
        match kind {
            SlotKind::Cpu => self.processors.cancel_removal(slot),
            SlotKind::Dimm => self.memory.cancel_removal(slot),
            // Nothing is kept that the guest may let go of.
            SlotKind::Pci => {}
        }
    }

    /// What the guest reported last: memory modules, then processors.
    pub fn reports(&self) -> Vec<SlotReport> {
        let list = |kind, reports: Vec<Report>| {
            let row = move |(slot, report)| SlotReport { kind, slot, report };
            (0..).zip(reports).map(row)
        };
        list(SlotKind::Dimm, self.memory.reports()).chain(list(SlotKind::Cpu, self.processors.reports())).collect()
    }
}

/// Hands on what the guest does to the main thread, in order.
struct ToInbox {
    kind: SlotKind,
    inbox: Arc<Inbox>,
}

impl HotplugSink for ToInbox {
    fn ejected(&self, slot: u32) {
        self.inbox.leave(GuestRequest::Ejected(self.kind, slot));
    }

    fn reported(&self, slot: u32, event: u32, status: u32) {
        self.inbox.leave(GuestRequest::Reported { kind: self.kind, slot, event, status });
    }
}
