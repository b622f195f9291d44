//! Registers of processors that come and go: a selector, the status of the processor it selects, and commands.
//!
//! Source: the published "CPU hotplug interface" of this kind of PC, at port 0xaf00, in its form with a selector.

use std::sync::Arc;

use rhea_core::Width;
use serde::{Deserialize, Serialize};

pub use state::CpuRegistersV1;

use super::{Controller, Raise, Registers, Slot, Slotted, Told};

/// First port.
pub const BASE: u16 = 0xaf00;
/// Ports.
pub const LENGTH: u16 = 0x0c;

/// Offsets of the registers.
pub mod register {
    /// Written: the selector. Read: the upper half of what the command gives.
    pub const SELECTOR: u16 = 0;
    /// Status when read, control when written.
    pub const FLAGS: u16 = 4;
    /// What [`DATA`] means.
    pub const COMMAND: u16 = 5;
    /// What the command gives or takes.
    pub const DATA: u16 = 8;
}

/// Values of the command register.
pub mod command {
    /// Selects the next processor, from the selected one on, about which there is news; data is the selector.
    pub const NEXT_WITH_EVENT: u8 = 0;
    /// Data takes the event of a report.
    pub const REPORT_EVENT: u8 = 1;
    /// Data takes the status of a report, and so ends it.
    pub const REPORT_STATUS: u8 = 2;
    /// Data is the processor's APIC id.
    pub const APIC_ID: u8 = 3;
}

/// The most processors: more than any APIC can tell apart.
const LIMIT: usize = 4096;

/// A possible processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processor {
    apic_id: u32,
    slot: Slot,
}

/// The registers alone.
#[derive(Clone, Debug, PartialEq)]
pub struct CpuRegisters {
    selector: u32,
    command: u8,
    processors: Vec<Processor>,
}

mod state {
    use super::{CpuRegisters, LIMIT, Processor};

    saved_state!(CpuRegisters => CpuRegistersV1 { selector: u32, command: u8, processors: Vec<Processor> }
        if |s| s.processors.len() <= LIMIT && s.processors.iter().all(|processor| processor.slot.is_valid()));
}

impl CpuRegisters {
    fn new(apic_ids: &[u32], present: usize) -> Self {
        let processor =
            |(index, &apic_id)| Processor { apic_id, slot: if index < present { Slot::OCCUPIED } else { Slot::EMPTY } };
        let processors = apic_ids.iter().take(LIMIT).enumerate().map(processor).collect();
        Self { selector: 0, command: command::NEXT_WITH_EVENT, processors }
    }

    fn selected(&self) -> Option<&Processor> {
        self.processors.get(self.selector as usize)
    }

    /// The first processor with news, from the selected one on and round.
    fn next_with_event(&self) -> Option<u32> {
        let (before, after) = self.processors.split_at_checked(self.selector as usize)?;
        let index = match after.iter().position(|processor| processor.slot.has_event()) {
            Some(index) => before.len() + index,
            None => before.iter().position(|processor| processor.slot.has_event())?,
        };
        u32::try_from(index).ok()
    }
}

impl Registers for CpuRegisters {
    const BASE: u16 = BASE;
    const LENGTH: u32 = LENGTH as u32;
    const KIND: &'static str = "cpu-hotplug";

    fn read(&mut self, offset: u16, _: Width) -> u32 {
        let Some(processor) = self.selected() else { return 0 };
        match (offset, self.command) {
            (register::FLAGS, _) => processor.slot.status(),
            (register::DATA, command::NEXT_WITH_EVENT) => self.selector,
            (register::DATA, command::APIC_ID) => processor.apic_id,
            // No command here gives more than 32 bits, nor does anything answer elsewhere.
            _ => 0,
        }
    }

    fn write(&mut self, offset: u16, _: Width, value: u32) -> Vec<Told> {
        if offset == register::SELECTOR {
            self.selector = value;
            return Vec::new();
        }
        let (index, command) = (self.selector, self.command);
        let Some(slot) = self.slot(index) else { return Vec::new() };
        match (offset, command) {
            (register::FLAGS, _) if slot.control(value) => return vec![Told::Ejected(index)],
            (register::COMMAND, _) => {
                self.command = value as u8;
                if self.command == command::NEXT_WITH_EVENT {
                    self.selector = self.next_with_event().unwrap_or(index);
                }
            }
            (register::DATA, command::REPORT_EVENT) => slot.report.event = value,
            (register::DATA, command::REPORT_STATUS) => {
                slot.report.status = value;
                return vec![Told::Reported(index, slot.report)];
            }
            _ => {}
        }
        Vec::new()
    }

    fn reset(&mut self) {
        self.selector = 0;
        self.command = command::NEXT_WITH_EVENT;
        self.processors.iter_mut().for_each(|processor| processor.slot.reset());
    }

    fn fits(&self, saved: &Self) -> bool {
        let ids = |registers: &Self| registers.processors.iter().map(|processor| processor.apic_id).collect::<Vec<_>>();
        ids(self) == ids(saved)
    }
}

impl Slotted for CpuRegisters {
    fn slot(&mut self, index: u32) -> Option<&mut Slot> {
        self.processors.get_mut(index as usize).map(|processor| &mut processor.slot)
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.processors.iter().map(|processor| &processor.slot)
    }
}

/// The registers of processors, at their ports.
pub type CpuHotplug = Controller<CpuRegisters>;

impl CpuHotplug {
    /// Registers for all possible processors, by index, of which the first `present` are there. `raise` raises
    /// [`event::PROCESSORS`](super::event::PROCESSORS).
    pub fn new(raise: Raise, apic_ids: &[u32], present: usize) -> Arc<Self> {
        Self::of(CpuRegisters::new(apic_ids, present), raise)
    }

    /// The APIC ids of all possible processors, by index.
    pub fn apic_ids(&self) -> Vec<u32> {
        self.look(|registers| registers.processors.iter().map(|processor| processor.apic_id).collect())
    }

    /// Processor `index` came.
    pub fn insert(&self, index: u32) {
        self.change(|registers, tell| {
            let Some(slot) = registers.slot(index) else { return false };
            slot.insert(tell);
            tell
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rhea_core::{Device, SaveState};

    use super::{
        super::{Report, bench::Bench},
        *,
    };
    use crate::Saveable;

    fn bench() -> (Bench, Arc<CpuHotplug>) {
        let bench = Bench::default();
        let hotplug = CpuHotplug::new(bench.raise(), &[0, 1, 4, 5], 2);
        bench.connect(&hotplug);
        (bench, hotplug)
    }

    fn flags(bench: &Bench, index: u32) -> u32 {
        bench.ports.write(BASE, Width::Dword, index);
        bench.ports.read(BASE + register::FLAGS, Width::Byte)
    }

    /// What a scan that starts at the first processor finds, if anything.
    fn scan(bench: &Bench) -> Option<u32> {
        bench.ports.write(BASE, Width::Dword, 0);
        bench.ports.write(BASE + register::COMMAND, Width::Byte, 0);
        let news = bench.ports.read(BASE + register::FLAGS, Width::Byte) & 6 != 0;
        news.then(|| bench.ports.read(BASE + register::DATA, Width::Dword))
    }

    #[test]
    fn a_processor_that_comes_is_found_once_and_tells_its_apic_id() {
        let (bench, hotplug) = bench();
        assert_eq!(scan(&bench), None);
        hotplug.insert(2);
        assert_eq!((bench.raised(), scan(&bench)), (1, Some(2)));
        assert_eq!(bench.ports.read(BASE + register::FLAGS, Width::Byte), 3);
        bench.ports.write(BASE + register::COMMAND, Width::Byte, 3);
        assert_eq!(bench.ports.read(BASE + register::DATA, Width::Dword), 4);
        assert_eq!(bench.ports.read(BASE, Width::Dword), 0);
        bench.ports.write(BASE + register::FLAGS, Width::Byte, 2);
        assert_eq!((scan(&bench), flags(&bench, 2)), (None, 1));
    }

    #[test]
    fn the_scan_goes_on_from_the_selected_processor_and_round() {
        let (bench, hotplug) = bench();
        hotplug.insert(2);
        hotplug.request_removal(1);
        bench.ports.write(BASE, Width::Dword, 2);
        bench.ports.write(BASE + register::COMMAND, Width::Byte, 0);
        assert_eq!(bench.ports.read(BASE + register::DATA, Width::Dword), 2);
        bench.ports.write(BASE, Width::Dword, 3);
        bench.ports.write(BASE + register::COMMAND, Width::Byte, 0);
        assert_eq!(bench.ports.read(BASE + register::DATA, Width::Dword), 1);
    }

    #[test]
    fn a_processor_that_the_guest_lets_go_of_is_gone_for_it_at_once() {
        let (bench, hotplug) = bench();
        hotplug.request_removal(1);
        assert_eq!((bench.raised(), flags(&bench, 1)), (1, 5));
        bench.ports.write(BASE + register::FLAGS, Width::Byte, 4);
        assert_eq!(flags(&bench, 1), 1);
        for _ in 0..2 {
            bench.ports.write(BASE + register::FLAGS, Width::Byte, 8);
        }
        assert_eq!((bench.heard(), flags(&bench, 1)), (vec![Told::Ejected(1)], 0));
        assert!(hotplug.is_present(1));
        hotplug.remove(1);
        assert!(!hotplug.is_present(1));
        // What is not there cannot be asked for.
        hotplug.request_removal(1);
        assert_eq!((bench.raised(), flags(&bench, 1)), (0, 0));
    }

    #[test]
    fn a_processor_that_stays_is_back_for_the_guest() {
        let (bench, hotplug) = bench();
        hotplug.request_removal(0);
        flags(&bench, 0);
        bench.ports.write(BASE + register::FLAGS, Width::Byte, 8);
        assert_eq!(flags(&bench, 0), 0);
        hotplug.cancel_removal(0);
        assert_eq!((flags(&bench, 0), hotplug.is_present(0)), (1, true));
    }

    #[test]
    fn a_report_is_heard_when_its_status_comes() {
        let (bench, hotplug) = bench();
        bench.ports.write(BASE, Width::Dword, 3);
        for (command, data) in [(1, 0x103), (2, 0x84)] {
            bench.ports.write(BASE + register::COMMAND, Width::Byte, command);
            bench.ports.write(BASE + register::DATA, Width::Dword, data);
        }
        let report = Report { event: 0x103, status: 0x84 };
        assert_eq!(bench.heard(), [Told::Reported(3, report)]);
        assert_eq!(hotplug.reports(), [Report::default(), Report::default(), Report::default(), report]);
    }

    #[test]
    fn what_is_selected_past_the_last_processor_is_nothing() {
        let (bench, hotplug) = bench();
        for index in [4, u32::MAX] {
            assert_eq!(flags(&bench, index), 0);
            bench.ports.write(BASE + register::COMMAND, Width::Byte, 3);
            bench.ports.write(BASE + register::FLAGS, Width::Byte, 8);
            assert_eq!(bench.ports.read(BASE + register::DATA, Width::Dword), 0);
        }
        hotplug.insert(4);
        assert_eq!((bench.heard(), bench.raised(), scan(&bench)), (vec![], 0, None));
    }

    #[test]
    fn before_power_on_a_processor_is_simply_there() {
        let bench = Bench::default();
        let hotplug = CpuHotplug::new(bench.raise(), &[0, 1], 1);
        hotplug.map(&bench.ports);
        hotplug.insert(1);
        assert_eq!((bench.raised(), flags(&bench, 1)), (0, 1));
    }

    proptest! {
        #[test]
        fn any_access_is_harmless(ops in prop::collection::vec((0u8..7, 0u16..14, 0u32..3, 0u32..12), 0..200)) {
            let (bench, hotplug) = bench();
            for (op, offset, width, value) in ops {
                let width = Width::of(1 << width).unwrap();
                match op {
                    0..3 => bench.ports.write(BASE + offset, width, value),
                    3 => { bench.ports.read(BASE + offset, width); }
                    4 => hotplug.insert(value),
                    5 => hotplug.request_removal(value),
                    _ => hotplug.remove(value),
                }
                let state = hotplug.save();
                prop_assert_eq!(CpuRegisters::load(state.clone()).unwrap().save(), state.clone());
                hotplug.restore(state).unwrap();
            }
            for index in 0..4 {
                hotplug.cancel_removal(index);
                if hotplug.is_present(index) != (index < 2) {
                    if index < 2 { hotplug.insert(index) } else { hotplug.remove(index) }
                }
            }
            hotplug.reset();
            prop_assert_eq!(hotplug.look(CpuRegisters::clone), CpuRegisters::new(&[0, 1, 4, 5], 2));
        }
    }

    #[test]
    fn a_state_of_other_processors_is_refused() {
        let (_, hotplug) = bench();
        let other = CpuHotplug::new(Arc::new(|| ()), &[0, 1], 2);
        assert!(hotplug.restore(other.save()).is_err());
        let mut state = hotplug.save();
        state.processors[3].slot.inserting = true;
        assert!(hotplug.restore(state).is_err());
    }
}
