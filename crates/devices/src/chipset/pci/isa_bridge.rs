//! The ISA bridge of the PIIX3: its configuration registers, and the routing of PCI interrupts to ISA ones.
//!
//! Source: Intel 290550, "82371SB PCI ISA IDE Xcelerator (PIIX3)", §2.2 (cited as §).

use std::sync::Arc;

use parking_lot::Mutex;
use rhea_core::{Device, InterruptLine, InterruptSink, LoadError, SaveState, Width};

use super::{ConfigSpace, Identity, PciFunction, VIRTUAL_MACHINE};
use crate::Saveable;

pub use state::IsaBridgeV1;

/// PIRQRC\[A:D\], the route control registers (§2.2.10).
const PIRQRC: u8 = 0x60;
/// Interrupts that a PIRQ may be routed to; the others are reserved.
const ROUTABLE: u16 = 0b1101_1110_1111_1000;

/// The chip alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Piix3 {
    config: ConfigSpace,
    /// Levels of PIRQA# to PIRQD#, asserted or not.
    pirq: u8,
}

impl Default for Piix3 {
    fn default() -> Self {
        Self::new()
    }
}

impl Piix3 {
    /// A chip after power-on: no PIRQ is routed.
    pub fn new() -> Self {
        let identity =
            Identity { vendor: 0x8086, device: 0x7000, class: 0x06_0100, revision: 0, subsystem: VIRTUAL_MACHINE };
        let mut config = ConfigSpace::new(identity);
        // §2.2.3, §2.2.4: I/O, memory and bus master always; medium timing. Function 0 of several.
        config.set(0x04, &0x0007_u16.to_le_bytes());
        config.set(0x06, &0x0200_u16.to_le_bytes());
        config.set(0x0e, &[0x80]);
        let registers: [(usize, u8, u8); 17] = [
            // ISA I/O recovery timer, X-bus chip select.
            (0x4c, 0x4d, 0xff),
            (0x4e, 0x03, 0xff),
            (0x4f, 0x00, 0x01),
            (0x60, 0x80, 0x8f),
            (0x61, 0x80, 0x8f),
            (0x62, 0x80, 0x8f),
            (0x63, 0x80, 0x8f),
            // Top of memory, miscellaneous status, motherboard device interrupts and DMA.
            (0x69, 0x02, 0xfe),
            (0x6a, 0x00, 0x91),
            (0x70, 0x80, 0xef),
            (0x76, 0x0c, 0x8f),
            (0x77, 0x0c, 0x8f),
            (0x78, 0x02, 0xff),
            (0x80, 0x00, 0x7f),
            (0x82, 0x00, 0x0f),
            // SMI control and enables: kept, there is no system management mode.
            (0xa0, 0x08, 0x1f),
            (0xa2, 0x00, 0xff),
        ];
        for (offset, value, writable) in registers {
            config.set(offset, &[value]);
            config.make_writable(offset, &[writable]);
        }
        Self { config, pirq: 0 }
    }

    /// The ISA interrupts that PCI ones assert, a bit each.
    pub fn interrupts(&self) -> u16 {
        let asserted = (0..4).filter(|pirq| self.pirq & 1 << pirq != 0);
        asserted
            .map(|pirq| self.config.byte(PIRQRC + pirq))
            .filter(|route| route & 0x80 == 0)
            .fold(0, |set, route| set | 1 << (route & 0xf) & ROUTABLE)
    }

    /// Drives PIRQA# (0) to PIRQD# (3).
    pub fn set_pirq(&mut self, pirq: u32, level: bool) {
        if pirq < 4 {
            self.pirq = self.pirq & !(1 << pirq) | u8::from(level) << pirq;
        }
    }
}

mod state {
    use rhea_core::{LoadError, SaveState};

    use super::Piix3;

    /// Saved form of [`Piix3`].
    #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    pub struct IsaBridgeV1 {
        /// Its configuration space.
        pub config: Vec<u8>,
        /// Levels of the PIRQs.
        pub pirq: u8,
    }

    impl SaveState for Piix3 {
        type State = IsaBridgeV1;

        fn save(&self) -> IsaBridgeV1 {
            let Self { config, pirq } = self;
            IsaBridgeV1 { config: config.save(), pirq: *pirq }
        }

        fn load(IsaBridgeV1 { config, pirq }: IsaBridgeV1) -> Result<Self, LoadError> {
            let mut chip = Self::new();
            chip.config.restore(&config)?;
            if pirq > 0xf {
                return Err(LoadError::invalid("Piix3", "more than four PCI interrupts"));
            }
            chip.pirq = pirq;
            Ok(chip)
        }
    }
}

/// The bridge as function 0 of slot 1. Its pins as an [`InterruptSink`] are PIRQA# to PIRQD#.
#[derive(rhea_core::object::Object)]
#[object(type = "PIIX3", parent = "pci-device")]
pub struct IsaBridge {
    chip: Mutex<Piix3>,
    /// ISA interrupts 0 to 15.
    lines: [InterruptLine; 16],
}

impl IsaBridge {
    /// A bridge that drives `lines`, one for each ISA interrupt and of its own.
    pub fn new(lines: [InterruptLine; 16]) -> Arc<Self> {
        Arc::new(Self { chip: Mutex::new(Piix3::new()), lines })
    }

    fn with(&self, change: impl FnOnce(&mut Piix3)) {
        let mut chip = self.chip.lock();
        let before = chip.interrupts();
        change(&mut chip);
        let after = chip.interrupts();
        for (irq, line) in self.lines.iter().enumerate() {
            if (before ^ after) & 1 << irq != 0 {
                line.set(after & 1 << irq != 0);
            }
        }
    }
}

impl InterruptSink for IsaBridge {
    fn set_level(&self, pin: u32, level: bool) {
        self.with(|chip| chip.set_pirq(pin, level));
    }
}

impl PciFunction for IsaBridge {
    fn read_config(&self, offset: u8, width: Width) -> u32 {
        self.chip.lock().config.read(offset, width)
    }

    fn write_config(&self, offset: u8, width: Width, value: u32) {
        self.with(|chip| chip.config.write(offset, width, value));
    }

    fn config(&self) -> ConfigSpace {
        self.chip.lock().config.clone()
    }
}

impl Device for IsaBridge {
    fn reset(&self) {
        self.with(|chip| *chip = Piix3::new());
    }
}

impl Saveable for IsaBridge {
    type Chip = Piix3;
    const KIND: &'static str = "PIIX3";

    fn save(&self) -> IsaBridgeV1 {
        self.chip.lock().save()
    }

    fn restore(&self, state: IsaBridgeV1) -> Result<(), LoadError> {
        let chip = Piix3::load(state)?;
        self.with(|old| *old = chip);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::Levels, *};

    #[test]
    fn a_pci_interrupt_goes_where_its_register_says_and_is_shared_there() {
        let levels = Arc::new(Levels(Mutex::new(0)));
        let bridge =
            IsaBridge::new(std::array::from_fn(|irq| InterruptLine::new(Arc::clone(&levels) as _, irq as u32)));
        bridge.set_level(0, true);
        bridge.set_level(1, true);
        assert_eq!(*levels.0.lock(), 0);
        bridge.write_config(0x60, Width::Word, 0x0b0b);
        assert_eq!(*levels.0.lock(), 1 << 11);
        bridge.set_level(0, false);
        assert_eq!(*levels.0.lock(), 1 << 11);
        bridge.write_config(0x61, Width::Byte, 0x05);
        assert_eq!(*levels.0.lock(), 1 << 5);
        // Interrupt 8 is reserved.
        bridge.write_config(0x61, Width::Byte, 0x08);
        assert_eq!(*levels.0.lock(), 0);
        let chip = bridge.chip.lock().clone();
        assert_eq!(Piix3::load(chip.save()).unwrap(), chip);
        bridge.reset();
        assert_eq!(*bridge.chip.lock(), Piix3::new());
    }

    #[test]
    fn it_is_function_0_of_several() {
        let bridge = IsaBridge::new([const { InterruptLine::unconnected() }; 16]);
        assert_eq!(bridge.read_config(0, Width::Dword), 0x7000_8086);
        assert_eq!(bridge.read_config(0x0e, Width::Byte), 0x80);
        assert_eq!(bridge.read_config(0x60, Width::Dword), 0x8080_8080);
    }
}
