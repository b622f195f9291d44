//! The ISA bus as devices are put on it.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;
use rhea_core::{
    Device,
    object::{Object, PropertyError, TypeInfo, Value},
};
use rhea_devices::{
    char::uart::{Serial, SerialSettings},
    chipset::wires::IsaInterrupts,
};

use super::{character::connect_serial, error::DeviceError};
use crate::{error::MachineError, parts::Parts, state::part::Part};

/// The type of the bus.
pub(super) const BUS: &TypeInfo = &TypeInfo::plain("ISA", "bus");

/// Ports and interrupt of each serial port of a PC.
const SERIAL: [(u32, u32); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)];
/// Ports of a serial port.
const SERIAL_PORTS: u32 = 8;

/// The bus, with the serial ports on it.
pub(crate) struct IsaBus {
    interrupts: IsaInterrupts,
    serials: Mutex<Vec<(SerialSettings, Arc<Serial>)>>,
    /// Other devices that a reset resets, by type: one of each.
    others: Mutex<BTreeMap<&'static str, Arc<dyn Device>>>,
}

impl IsaBus {
    /// A bus with these interrupts.
    pub(crate) fn new(interrupts: IsaInterrupts) -> Arc<Self> {
        Arc::new(Self { interrupts, serials: Mutex::default(), others: Mutex::default() })
    }

    /// The interrupts.
    pub(crate) const fn interrupts(&self) -> &IsaInterrupts {
        &self.interrupts
    }

    /// Puts the one device of its kind on the bus: it is reset with it.
    ///
    /// # Errors
    /// There is one already.
    pub(super) fn add_single(&self, kind: &'static str, device: Arc<dyn Device>) -> Result<(), DeviceError> {
        match self.others.lock().entry(kind) {
            Entry::Occupied(_) => Err(DeviceError::Refused(format!("at most one {kind} device is permitted"))),
            Entry::Vacant(place) => {
                place.insert(device);
                Ok(())
            }
        }
    }

    /// The serial ports, to be saved.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let serials = self.serials.lock();
        let part = |(settings, serial): &(SerialSettings, Arc<Serial>)| {
            Part::new(format!("isa-serial.{}", settings.index), Arc::clone(serial) as _)
        };
        serials.iter().map(part).collect()
    }

    /// Makes a serial port; what of its place was not said is chosen, and stands in the settings that come back.
    ///
    /// # Errors
    /// No such place, one that is taken, or no such backend.
    pub(crate) fn add_serial(
        &self,
        parts: &Parts,
        mut settings: SerialSettings,
    ) -> Result<SerialSettings, MachineError> {
        let refused = |text: String| MachineError::from(DeviceError::Refused(text));
        let mut serials = self.serials.lock();
        // Ports in their usual places follow the last of them.
        let next = serials.iter().map(|(other, _)| other.index.saturating_add(1)).max().unwrap_or(0);
        if settings.index == SerialSettings::NEXT {
            settings.index = next;
        }
        let usual = SERIAL.get(settings.index as usize);
        let (base, irq) = usual
            .copied()
            .ok_or_else(|| refused(format!("Max. supported number of ISA serial ports is {}.", SERIAL.len())))?;
        if settings.iobase == SerialSettings::USUAL {
            settings.iobase = base;
        }
        if settings.irq == SerialSettings::USUAL {
            settings.irq = irq;
        }
        let range = |name: &str, expected: &str| {
            let (name, expected) = (name.to_owned(), expected.to_owned());
            MachineError::from(DeviceError::from(PropertyError::Range { name, expected }))
        };
        if settings.irq > 15 {
            return Err(range("irq", "an ISA interrupt: 0 to 15"));
        }
        let first = u16::try_from(settings.iobase).ok().filter(|first| u32::from(*first) + SERIAL_PORTS <= 0x1_0000);
        let first = first.ok_or_else(|| range("iobase", "a port"))?;
        if serials.iter().any(|(other, _)| other.iobase.abs_diff(settings.iobase) < SERIAL_PORTS) {
            return Err(refused(format!("there is a serial port at port {:#x} already", settings.iobase)));
        }
        let backend = settings.chardev.clone().filter(|id| !id.is_empty());
        let backend = backend.ok_or_else(|| DeviceError::from(PropertyError::Missing("chardev")))?;
        let line = self.interrupts.line(settings.irq as usize);
        let make = |sink| Serial::new(&parts.timers, line, sink);
        let serial = connect_serial(&parts.backends.chars, &backend, make)?;
        serial.map(&parts.ports, first);
        serials.push((settings.clone(), serial));
        Ok(settings)
    }
}

impl Device for IsaBus {
    fn reset(&self) {
        for (_, serial) in self.serials.lock().iter() {
            serial.reset();
        }
        for device in self.others.lock().values() {
            device.reset();
        }
    }
}

impl Object for IsaBus {
    fn info(&self) -> &'static TypeInfo {
        BUS
    }

    fn get(&self, _: &str) -> Option<Value> {
        None
    }
}
