//! The BIOS area from 0xc0000 to 0xfffff and the ROM of firmware, whose end it shows: what the host bridge's attribute maps
//! make of it. Intel 290549 § 3.2.18; the ROM also ends at 4 GiB, where processors start (Intel 290550 § 2.2.6).

use std::sync::Arc;

use parking_lot::Mutex;
use rhea_core::{
    AddressSpace, Mmio, Ram, Width,
    memory::{RegionId, Target},
};
use rhea_devices::chipset::pci::{HostBridge, Segment, Shadow};
use rhea_x86::state::Request;

use crate::{MachineError, firmware::Firmware, processors::Processors};

/// The BIOS area.
pub(crate) const AREA: (u64, u64) = (0xc_0000, 0x4_0000);
/// Where system management RAM is, behind the frame buffer's window.
const SMRAM: (u64, u64) = (0xa_0000, 0x2_0000);
/// Bytes of the end of a ROM that the area shows.
const SHOWN: u64 = 0x2_0000;
/// End of the area, and where a ROM ends a second time.
const ENDS: [u64; 2] = [AREA.0 + AREA.1, 1 << 32];
/// Above RAM, below nothing.
const PRIORITY: i32 = 2;

/// RAM behind the areas that the host bridge decides of.
#[derive(Clone)]
struct Piece {
    base: u64,
    length: u64,
    ram: Arc<Ram>,
    offset: u64,
}

/// What a segment shows that is not simply RAM.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shows {
    /// RAM, which drops writes.
    ReadOnlyRam,
    /// The bus: ROM, or nothing.
    Bus,
    /// The bus, while writes reach the RAM behind.
    BusOverRam,
}

impl Shows {
    const fn of(segment: &Segment) -> Option<Self> {
        match (segment.read_ram, segment.write_ram) {
            (true, true) => None,
            (true, false) => Some(Self::ReadOnlyRam),
            (false, false) => Some(Self::Bus),
            (false, true) => Some(Self::BusOverRam),
        }
    }
}

/// The area.
pub(super) struct BiosArea {
    memory: Arc<AddressSpace>,
    processors: Arc<Processors>,
    behind: Vec<Piece>,
    rom: Option<Arc<Ram>>,
    mapped: Mutex<Vec<RegionId>>,
}

impl BiosArea {
    /// Puts the ROM, if there is one, below 4 GiB, and from now on shows in the area what `bridge` says. To be made once RAM
    /// is in `memory`.
    ///
    /// # Errors
    /// The host has no memory for the ROM.
    pub(super) fn new(
        memory: &Arc<AddressSpace>,
        processors: &Arc<Processors>,
        firmware: Option<&Firmware>,
        bridge: &HostBridge,
    ) -> Result<Arc<Self>, MachineError> {
        let rom = firmware.map(|firmware| read_only(memory, firmware)).transpose()?;
        let area = Arc::new(Self {
            memory: Arc::clone(memory),
            processors: Arc::clone(processors),
            behind: [AREA, SMRAM].into_iter().flat_map(|area| pieces(memory, area)).collect(),
            rom,
            mapped: Mutex::default(),
        });
        let shown = Arc::clone(&area);
        bridge.on_shadow(Box::new(move |shadow| shown.show(shadow)));
        Ok(area)
    }

    /// Writes to the RAM behind the area, whatever the area shows.
    pub(super) fn write_behind(&self, address: u64, bytes: &[u8]) {
        for (at, &byte) in (address..).zip(bytes) {
            write_piece(&self.behind, at, byte);
        }
    }

    /// The RAM at `length` bytes from `base`.
    fn behind(&self, base: u64, length: u64) -> impl Iterator<Item = Piece> {
        let end = base + length;
        self.behind.iter().filter_map(move |piece| {
            let from = piece.base.max(base);
            let to = (piece.base + piece.length).min(end);
            let offset = piece.offset + from.saturating_sub(piece.base);
            (from < to).then(|| Piece { base: from, length: to - from, ram: Arc::clone(&piece.ram), offset })
        })
    }

    /// The ROM where it is seen at `length` bytes from `base`: where it begins there, and where in the ROM that is.
    fn rom_at(&self, base: u64, length: u64) -> Option<(u64, u64, &Arc<Ram>)> {
        let rom = self.rom.as_ref()?;
        let first = ENDS[0] - rom.len().min(SHOWN);
        let from = base.max(first);
        (from < base + length).then(|| (from, rom.len() - (ENDS[0] - from), rom))
    }

    fn show(&self, shadow: &Shadow) {
        let mut regions = Vec::new();
        if shadow.smram {
            regions.extend(self.behind(SMRAM.0, SMRAM.1).map(|piece| piece.region(true)));
        }
        for (base, length, shows) in runs(&shadow.segments) {
            match shows {
                Shows::ReadOnlyRam => regions.extend(self.behind(base, length).map(|piece| piece.region(false))),
                Shows::Bus => {
                    let rom = self.rom_at(base, length);
                    let end = rom.map_or(base + length, |(from, ..)| from);
                    if end > base {
                        regions.push((base, end - base, PRIORITY, Target::Mmio(Arc::new(OpenBus))));
                    }
                    if let Some((from, offset, rom)) = rom {
                        let target = Target::Ram { ram: Arc::clone(rom), offset, writable: false };
                        regions.push((from, base + length - from, PRIORITY, target));
                    }
                }
                Shows::BusOverRam => {
                    let rom = self.rom_at(base, length);
                    let rom = rom.map(|(from, offset, rom)| (from, offset, Arc::clone(rom)));
                    let over = Over { base, rom, ram: self.behind(base, length).collect() };
                    regions.push((base, length, PRIORITY, Target::Mmio(Arc::new(over))));
                }
            }
        }
        let mut mapped = self.mapped.lock();
        *mapped = self.memory.replace(&mapped, regions);
        drop(mapped);
        for processor in self.processors.list() {
            processor.requests().ask(Request::FLUSH);
        }
    }
}

impl Piece {
    fn region(self, writable: bool) -> (u64, u64, i32, Target) {
        (self.base, self.length, PRIORITY, Target::Ram { ram: self.ram, offset: self.offset, writable })
    }
}

/// The ROM with the firmware's image in it, mapped where it ends at 4 GiB.
fn read_only(memory: &AddressSpace, firmware: &Firmware) -> Result<Arc<Ram>, MachineError> {
    let length = firmware.image.len() as u64;
    let host = |reason| MachineError::Host { what: "could not make the ROM".to_owned(), reason };
    let rom = Ram::new("pc.bios", length).map_err(host)?;
    // It is as long as the image.
    let _ = rom.write(0, &firmware.image);
    let target = Target::Ram { ram: Arc::clone(&rom), offset: 0, writable: false };
    memory.map(ENDS[1] - length, length, PRIORITY, target);
    Ok(rom)
}

/// The RAM that is mapped in an area.
fn pieces(memory: &AddressSpace, (base, length): (u64, u64)) -> Vec<Piece> {
    let view = memory.view();
    let pieces = view.ranges().iter().filter_map(|range| {
        let Target::Ram { ram, .. } = &range.target else { return None };
        let from = range.base.max(base);
        let end = range.last.saturating_add(1).min(base + length);
        let offset = range.offset + from.saturating_sub(range.base);
        (from < end).then(|| Piece { base: from, length: end - from, ram: Arc::clone(ram), offset })
    });
    pieces.collect()
}

/// Segments that are not simply RAM; neighbours that show the same are one.
fn runs(segments: &[Segment]) -> Vec<(u64, u64, Shows)> {
    let mut ordered: Vec<&Segment> = segments.iter().collect();
    ordered.sort_by_key(|segment| segment.base);
    let mut runs: Vec<(u64, u64, Shows)> = Vec::new();
    for segment in ordered {
        let Some(shows) = Shows::of(segment) else { continue };
        match runs.last_mut() {
            Some((base, length, last)) if *last == shows && *base + *length == segment.base => {
                *length += segment.length;
            }
            _ => runs.push((segment.base, segment.length, shows)),
        }
    }
    runs
}

fn write_piece(pieces: &[Piece], address: u64, byte: u8) {
    let found = pieces.iter().find(|piece| address.wrapping_sub(piece.base) < piece.length);
    if let Some(piece) = found {
        // A region longer than its RAM has nothing behind its end.
        let _ = piece.ram.write(piece.offset + (address - piece.base), &[byte]);
    }
}

/// A part of the area in which nothing answers.
struct OpenBus;

impl Mmio for OpenBus {
    fn name(&self) -> &str {
        "bios-area"
    }

    fn read(&self, _: u64, width: Width) -> u64 {
        width.ones()
    }

    fn write(&self, _: u64, _: Width, _: u64) {}
}

/// The bus for reads, over RAM that takes writes: firmware copies itself so.
struct Over {
    base: u64,
    /// Where the ROM begins in it, and where in the ROM that is.
    rom: Option<(u64, u64, Arc<Ram>)>,
    ram: Vec<Piece>,
}

impl Mmio for Over {
    fn name(&self) -> &str {
        "bios-shadow"
    }

    fn read(&self, offset: u64, width: Width) -> u64 {
        let address = self.base + offset;
        let mut bytes = [0xff; 8];
        if let Some((from, at, rom)) = &self.rom
            && let Some(inside) = address.checked_sub(*from)
            && let Some(bytes) = bytes.get_mut(..width.bytes())
        {
            // The ROM ends where the area does, and with it every access.
            let _ = rom.read(at + inside, bytes);
        }
        u64::from_le_bytes(bytes) & width.ones()
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        for (address, byte) in (self.base + offset..).zip(value.to_le_bytes()).take(width.bytes()) {
            write_piece(&self.ram, address, byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rhea_devices::chipset::pci::PciFunction;

    use super::*;

    const RAM: u64 = 2 << 20;

    fn area(image: Option<Vec<u8>>) -> (Arc<AddressSpace>, Arc<HostBridge>, Arc<BiosArea>) {
        let memory = Arc::new(AddressSpace::new());
        let ram = Ram::new("pc.ram", RAM).unwrap();
        memory.map(0, RAM, 0, Target::Ram { ram, offset: 0, writable: true });
        let bridge = HostBridge::new();
        let processors = Processors::new(Arc::new(|_| ()));
        let firmware = image.map(|image| Firmware::new("test".to_owned(), image).unwrap());
        let area = BiosArea::new(&memory, &processors, firmware.as_ref(), &bridge).unwrap();
        (memory, bridge, area)
    }

    fn rom() -> Vec<u8> {
        (0..0x4_0000_u32).map(|at| (at >> 12) as u8 | 0x80).collect()
    }

    fn byte(memory: &AddressSpace, address: u64) -> u8 {
        memory.read_value(address, Width::Byte) as u8
    }

    #[test]
    fn at_power_on_the_area_ends_in_the_rom_as_memory_below_4_gib_does() {
        let (memory, ..) = area(Some(rom()));
        for (address, holds) in [
            (0xb_ffff, 0),
            (0xc_0000, 0xff),
            (0xd_ffff, 0xff),
            (0xe_0000, 0xa0),
            (0xf_fff0, 0xbf),
            (0xfffc_0000, 0x80),
            (0xffff_fff0, 0xbf),
        ] {
            assert_eq!(byte(&memory, address), holds, "{address:#x}");
        }
        memory.write(0xffff_0000, &[1]);
        memory.write(0xf_0000, &[1]);
        assert_eq!((byte(&memory, 0xffff_0000), byte(&memory, 0xf_0000)), (0xb0, 0xb0));
    }

    #[test]
    fn firmware_copies_itself_to_the_ram_behind_and_closes_it() {
        let (memory, bridge, _) = area(Some(rom()));
        // Reads from ROM, writes to RAM.
        bridge.write_config(0x59, Width::Byte, 0x20);
        memory.write(0xf_1234, &[1, 2, 3]);
        assert_eq!(memory.read_value(0xf_1234, Width::Dword), 0xb1b1_b1b1);
        // Reads and writes reach RAM, then reads alone.
        bridge.write_config(0x59, Width::Byte, 0x30);
        assert_eq!(memory.read_value(0xf_1234, Width::Dword), 0x0003_0201);
        bridge.write_config(0x59, Width::Byte, 0x10);
        memory.write(0xf_1234, &[9]);
        assert_eq!(byte(&memory, 0xf_1234), 1);
        bridge.write_config(0x59, Width::Byte, 0);
        assert_eq!(byte(&memory, 0xf_1234), 0xb1);
    }

    #[test]
    fn without_firmware_the_bus_is_open_and_the_ram_behind_can_be_filled() {
        let (memory, bridge, area) = area(None);
        assert_eq!(byte(&memory, 0xf_fff0), 0xff);
        area.write_behind(0xf_0000, b"RSD PTR ");
        assert_eq!(byte(&memory, 0xf_0000), 0xff);
        bridge.open_bios_area();
        let mut found = [0; 8];
        memory.read(0xf_0000, &mut found);
        assert_eq!(&found, b"RSD PTR ");
        // All of it is RAM again: one range.
        assert_eq!(memory.view().ranges().len(), 1);
    }

    #[test]
    fn open_management_ram_covers_the_window_of_the_frame_buffer() {
        let (memory, bridge, _) = area(None);
        memory.map(SMRAM.0, SMRAM.1, 1, Target::Mmio(Arc::new(OpenBus)));
        memory.write(0xa_0000, &[1]);
        assert_eq!(byte(&memory, 0xa_0000), 0xff);
        bridge.write_config(0x72, Width::Byte, 0x4a);
        memory.write(0xa_0000, &[1]);
        assert_eq!(byte(&memory, 0xa_0000), 1);
        bridge.write_config(0x72, Width::Byte, 0x0a);
        assert_eq!(byte(&memory, 0xa_0000), 0xff);
    }

    proptest! {
        #[test]
        fn each_segment_shows_what_its_attributes_say(attributes in prop::collection::vec(any::<u8>(), 7), at in 0_u64..0x4_0000) {
            let (memory, bridge, area) = area(Some(rom()));
            for (register, value) in (0x59..).zip(&attributes) {
                bridge.write_config(register, Width::Byte, (*value).into());
            }
            let address = AREA.0 + at;
            let segment = match at >> 14 {
                12.. => attributes[0] >> 4,
                number => attributes[1 + number as usize / 2] >> (4 * (number & 1)),
            };
            area.write_behind(address, &[0x55]);
            memory.write(address, &[0x66]);
            let on_bus = if address < 0xe_0000 { 0xff } else { (at >> 12) as u8 | 0x80 };
            let in_ram = if segment & 2 != 0 { 0x66 } else { 0x55 };
            let expected = if segment & 1 != 0 { in_ram } else { on_bus };
            prop_assert_eq!(byte(&memory, address), expected, "{:#x} {:x?}", address, attributes);
            bridge.open_bios_area();
            prop_assert_eq!(byte(&memory, address), in_ram);
        }
    }
}
