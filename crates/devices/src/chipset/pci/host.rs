//! The host bridge of the 440FX: its configuration registers, among them those that say where the BIOS area is RAM.
//!
//! Source: Intel 290549, "82441FX PCI and Memory Controller (PMC)", §3.2 (cited as §).

use std::sync::{Arc, OnceLock};

use bitfield_struct::bitfield;
use parking_lot::Mutex;
use rhea_core::{Device, LoadError, SaveState, Width};

use super::{ConfigSpace, Identity, PciFunction, VIRTUAL_MACHINE};
use crate::Saveable;

pub use state::HostBridgeV1;

/// Programmable attribute map registers 0 to 6 (§3.2.18).
const PAM: u8 = 0x59;

/// System management RAM control (§3.2.21).
const SMRAM: u8 = 0x72;

/// System management RAM control.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct Smram {
    /// Which segment holds it: 2 is 0xa0000.
    #[bits(3)]
    pub c_base_seg: u8,
    /// System management RAM exists.
    pub g_smrame: bool,
    /// Nothing of this changes any more until reset.
    pub d_lck: bool,
    /// Data accesses go to the bus, also in system management mode.
    pub d_cls: bool,
    /// Shown also outside of system management mode.
    pub d_open: bool,
    #[bits(1)]
    __: u8,
}

/// What the processor's accesses to a segment of the BIOS area reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First address.
    pub base: u64,
    /// Bytes.
    pub length: u64,
    /// Whether reads reach RAM, and not the bus.
    pub read_ram: bool,
    /// Whether writes reach RAM.
    pub write_ram: bool,
}

/// What the processor's accesses to the areas of which the chip decides reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// The segments from 0xc0000 to 0xfffff.
    pub segments: [Segment; 13],
    /// Whether system management RAM is seen at 0xa0000 to 0xbffff.
    pub smram: bool,
}

/// The chip alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Northbridge {
    config: ConfigSpace,
}

impl Default for Northbridge {
    fn default() -> Self {
        Self::new()
    }
}

impl Northbridge {
    /// A chip after power-on: the BIOS area is read from the bus.
    pub fn new() -> Self {
        let identity =
            Identity { vendor: 0x8086, device: 0x1237, class: 0x06_0000, revision: 2, subsystem: VIRTUAL_MACHINE };
        let mut config = ConfigSpace::new(identity);
        // §3.2.3, §3.2.4: memory and bus master always; medium timing and fast back-to-back.
        config.set(0x04, &0x0006_u16.to_le_bytes());
        config.set(0x06, &0x0280_u16.to_le_bytes());
        // PMC configuration, deturbo counter, DRAM control and timing, attribute maps, DRAM row boundaries, hole.
        config.make_writable(0x50, &[0xff; 4]);
        config.make_writable(0x55, &[0xff; 0x14]);
        config.make_writable(0x70, &[0xff, 0xff, 0x78]);
        config.make_writable(0x90, &[0xff; 4]);
        // SMRAM: compatible space at 0xa0000, closed.
        config.set(SMRAM.into(), &[Smram::new().with_c_base_seg(2).into()]);
        Self { config }
    }

    /// The segments from 0xc0000 to 0xfffff and what they reach.
    pub fn segments(&self) -> [Segment; 13] {
        std::array::from_fn(|index| {
            // PAM0 has the BIOS area in its upper half; the others have two segments of 16 KiB each.
            let (register, half, base, length) = match index {
                0 => (PAM, 1, 0xf_0000, 0x1_0000),
                _ => (PAM + (index as u8).div_ceil(2), (index - 1) & 1, 0xc_0000 + (index as u64 - 1) * 0x4000, 0x4000),
            };
            let attribute = self.config.byte(register) >> (4 * half);
            Segment { base, length, read_ram: attribute & 1 != 0, write_ram: attribute & 2 != 0 }
        })
    }

    /// What the processor's accesses reach.
    pub fn shadow(&self) -> Shadow {
        let smram = self.smram();
        Shadow { segments: self.segments(), smram: smram.g_smrame() && smram.d_open() && smram.c_base_seg() == 2 }
    }

    /// The system management RAM control register.
    pub fn smram(&self) -> Smram {
        self.config.byte(SMRAM).into()
    }

    fn write(&mut self, offset: u8, width: Width, value: u32) {
        let before = self.smram();
        self.config.write(offset, width, value);
        let written = self.smram();
        // Locking closes it.
        let after = if before.d_lck() { before } else { written.with_d_open(written.d_open() && !written.d_lck()) };
        self.config.set(SMRAM.into(), &[after.into()]);
    }
}

mod state {
    use rhea_core::{LoadError, SaveState};

    use super::Northbridge;

    /// Saved form of [`Northbridge`].
    #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    pub struct HostBridgeV1 {
        /// Its configuration space.
        pub config: Vec<u8>,
    }

    impl SaveState for Northbridge {
        type State = HostBridgeV1;

        fn save(&self) -> HostBridgeV1 {
            let Self { config } = self;
            HostBridgeV1 { config: config.save() }
        }

        fn load(HostBridgeV1 { config }: HostBridgeV1) -> Result<Self, LoadError> {
            let mut chip = Self::new();
            chip.config.restore(&config)?;
            Ok(chip)
        }
    }
}

/// The listener for changes of what accesses reach.
type OnShadow = Box<dyn Fn(&Shadow) + Send + Sync>;

/// The host bridge as function 0 of slot 0.
#[derive(rhea_core::object::Object)]
#[object(type = "i440FX", parent = "pci-device")]
pub struct HostBridge {
    chip: Mutex<Northbridge>,
    on_shadow: OnceLock<OnShadow>,
}

impl HostBridge {
    /// A host bridge.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { chip: Mutex::new(Northbridge::new()), on_shadow: OnceLock::new() })
    }

    /// What to call, under the bridge's lock, when accesses reach something else than before; it is called for what they
    /// reach now. Set once.
    pub fn on_shadow(&self, callback: OnShadow) {
        let chip = self.chip.lock();
        callback(&chip.shadow());
        let _ = self.on_shadow.set(callback);
    }

    /// Opens the BIOS area as RAM, as firmware does once it has copied itself there.
    pub fn open_bios_area(&self) {
        self.with(|chip| {
            chip.write(PAM, Width::Byte, 0x30);
            (1..7).for_each(|register| chip.write(PAM + register, Width::Byte, 0x33));
        });
    }

    fn with(&self, change: impl FnOnce(&mut Northbridge)) {
        let mut chip = self.chip.lock();
        let before = chip.shadow();
        change(&mut chip);
        let after = chip.shadow();
        if before != after
            && let Some(callback) = self.on_shadow.get()
        {
            callback(&after);
        }
    }
}

impl PciFunction for HostBridge {
    fn read_config(&self, offset: u8, width: Width) -> u32 {
        self.chip.lock().config.read(offset, width)
    }

    fn write_config(&self, offset: u8, width: Width, value: u32) {
        self.with(|chip| chip.write(offset, width, value));
    }

    fn config(&self) -> ConfigSpace {
        self.chip.lock().config.clone()
    }
}

impl Device for HostBridge {
    fn reset(&self) {
        self.with(|chip| *chip = Northbridge::new());
    }
}

impl Saveable for HostBridge {
    type Chip = Northbridge;
    const KIND: &'static str = "i440FX";

    fn save(&self) -> HostBridgeV1 {
        self.chip.lock().save()
    }

    fn restore(&self, state: HostBridgeV1) -> Result<(), LoadError> {
        let chip = Northbridge::load(state)?;
        self.with(|old| *old = chip);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attribute_maps_tell_of_their_segments_when_they_change() {
        let bridge = HostBridge::new();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&heard);
        bridge.on_shadow(Box::new(move |shadow| {
            let ram = shadow.segments.iter().filter(|s| s.read_ram || s.write_ram);
            log.lock().push(ram.map(|s| (s.base, s.read_ram, s.write_ram)).collect::<Vec<_>>());
        }));
        bridge.write_config(0x59, Width::Byte, 0x30);
        bridge.write_config(0x59, Width::Byte, 0x30);
        bridge.write_config(0x5a, Width::Byte, 0x12);
        bridge.write_config(0x5f, Width::Byte, 0x10);
        bridge.reset();
        let bios = (0xf_0000, true, true);
        let (c0, c4, ec) = ((0xc_0000, false, true), (0xc_4000, true, false), (0xe_c000, true, false));
        assert_eq!(*heard.lock(), [vec![], vec![bios], vec![bios, c0, c4], vec![bios, c0, c4, ec], vec![]]);
        assert_eq!(*bridge.chip.lock(), Northbridge::new());
        assert_eq!(bridge.read_config(0, Width::Dword), 0x1237_8086);
    }

    #[test]
    fn the_bios_area_as_firmware_leaves_it_is_ram_to_its_last_byte() {
        let bridge = HostBridge::new();
        bridge.open_bios_area();
        assert!(bridge.chip.lock().segments().iter().all(|segment| segment.read_ram && segment.write_ram));
        assert_eq!(bridge.read_config(0x58, Width::Dword), 0x3333_3000);
        assert_eq!(bridge.read_config(0x5c, Width::Dword), 0x3333_3333);
    }

    #[test]
    fn management_ram_is_seen_while_it_is_there_and_open() {
        let bridge = HostBridge::new();
        for (value, seen) in [(0x02, false), (0x42, false), (0x0a, false), (0x4a, true), (0x0a, false)] {
            bridge.write_config(0x72, Width::Byte, value);
            assert_eq!(bridge.chip.lock().shadow().smram, seen, "{value:#x}");
        }
    }

    #[test]
    fn a_locked_smram_is_closed_and_stays_until_reset() {
        let bridge = HostBridge::new();
        bridge.write_config(0x72, Width::Byte, 0x4a);
        assert!(bridge.chip.lock().smram().d_open());
        bridge.write_config(0x72, Width::Byte, 0x5a);
        assert_eq!(bridge.read_config(0x72, Width::Byte), 0x1a);
        bridge.write_config(0x70, Width::Dword, 0x0040_0000);
        assert_eq!(bridge.read_config(0x72, Width::Byte), 0x1a);
        bridge.reset();
        assert_eq!(bridge.read_config(0x72, Width::Byte), 0x02);
    }

    #[test]
    fn save_then_load_is_the_identity() {
        let mut chip = Northbridge::new();
        chip.config.write(0x5a, Width::Dword, u32::MAX);
        assert_eq!(Northbridge::load(chip.save()).unwrap(), chip);
    }
}
