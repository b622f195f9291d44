//! Slots of a machine: what becomes of it when the guest lets go of one, or reports about it.

use rhea_api::{
    Event,
    acpi::{ACPIOSTInfo, ACPISlotType},
};
use rhea_devices::acpi::hotplug::Report;

use crate::{board::hotplug::SlotReport, error::MachineError, inbox::SlotKind, machine::Machine};

impl Machine {
    /// The guest's last report of each slot.
    ///
    /// # Errors
    /// The machine has no ACPI.
    pub fn slot_reports(&self) -> Result<Vec<ACPIOSTInfo>, MachineError> {
        const NO_ACPI: MachineError = MachineError::Unsupported("command is not supported, missing ACPI device");
        let hotplug = self.board().hotplug().ok_or(NO_ACPI)?;
        Ok(hotplug.reports().into_iter().filter_map(|report| self.told(report)).collect())
    }

    /// A report as managers see it; nobody reports of PCI slots.
    fn told(&self, report: SlotReport) -> Option<ACPIOSTInfo> {
        let SlotReport { kind, slot, report: Report { event, status } } = report;
        let slot_type = match kind {
            SlotKind::Cpu => ACPISlotType::Cpu,
            SlotKind::Dimm => ACPISlotType::Dimm,
            SlotKind::Pci => return None,
        };
        let occupant = self.board().hotplug().and_then(|hotplug| hotplug.occupant(kind, slot));
        let device = occupant.and_then(|node| self.objects().device_id(node));
        let (slot, source, status) = (slot.to_string(), event.into(), status.into());
        Some(ACPIOSTInfo { device, slot, slot_type, source, status })
    }

    /// The guest reported of a slot.
    pub(crate) fn reported(&self, report: SlotReport) {
        if let Some(info) = self.told(report) {
            self.emit(Event::AcpiDeviceOst { info });
        }
    }

    /// The guest let go of a slot.
    pub(crate) fn ejected(&self, kind: SlotKind, slot: u32) {
        let Some(hotplug) = self.board().hotplug() else { return };
        if kind == SlotKind::Pci {
            return self.pci_ejected(slot >> 8, slot as u8);
        }
        match hotplug.occupant(kind, slot) {
            Some(node) => self.finish_removal(node),
            // What belongs to the board is not taken away.
            None => hotplug.stays(kind, slot),
        }
    }
}
