//! The firmware of a PC and what it is told: how to boot, what memory there is, where to put tables.
//!
//! Source: the published interface of fw_cfg, names and forms of the items that firmware for it looks for.

use std::sync::Arc;

use rhea_devices::misc::{
    fw_cfg::{FwCfg, ItemError},
    rtc::IsaRtc,
};

use crate::{
    acpi::loader,
    boot::{MemoryMap, linux::Offer, multiboot},
    boot_order::{BootIndexError, BootOrder, BootPlace},
};

/// Pieces that a ROM is made of, and the most of it: it ends at 4 GiB, and other devices are below.
const PIECE: usize = 0x1_0000;
const LARGEST: usize = 8 << 20;

/// Selectors of what firmware asks for by number.
mod key {
    /// 16 bytes.
    pub(super) const UUID: u16 = 0x02;
    /// 16 bits: whether a menu is offered.
    pub(super) const BOOT_MENU: u16 = 0x0e;
    /// Address, size and contents, 32 bits for the numbers.
    pub(super) const KERNEL: [u16; 3] = [0x07, 0x08, 0x11];
    pub(super) const INITRD: [u16; 3] = [0x0a, 0x0b, 0x12];
    pub(super) const COMMAND_LINE: [u16; 3] = [0x13, 0x14, 0x15];
    pub(super) const SETUP: [u16; 3] = [0x16, 0x17, 0x18];
}

/// The port of the first serial port, 16 bits.
const SERIAL_PORT: [u8; 2] = 0x3f8_u16.to_le_bytes();

/// Bytes of the CMOS memory from which firmware learns the order of boot devices.
mod cmos {
    /// Bits 7 to 4: the third device. Bit 0: the signature of floppy disks is not looked at.
    pub(super) const BOOT_3: u8 = 0x38;
    /// Bits 3 to 0: the first device; bits 7 to 4: the second.
    pub(super) const BOOT_1_2: u8 = 0x3d;
}

/// A ROM that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("could not load PC BIOS '{name}': {length} bytes are no multiple of 64 KiB up to 8 MiB")]
pub struct RomError {
    /// Its name.
    pub name: String,
    /// Its size.
    pub length: usize,
}

/// Code for firmware to run.
#[derive(Clone, Debug)]
pub struct OptionRom {
    /// Its file's name.
    pub name: String,
    /// Its contents.
    pub image: Vec<u8>,
    /// Its place in the order in which firmware tries to boot, negative for none.
    pub boot_index: i32,
}

impl OptionRom {
    /// The configuration item in which firmware finds it.
    fn item(&self) -> String {
        format!("genroms/{}", self.name)
    }

    /// The path by which firmware knows it.
    fn path(&self) -> String {
        format!("/rom@{}", self.item())
    }
}

/// The firmware of a machine.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// What it is called.
    pub name: String,
    /// The ROM's contents.
    pub image: Vec<u8>,
    /// Option ROMs, to be run by the firmware.
    pub option_roms: Vec<OptionRom>,
    /// How to boot.
    pub boot: BootOptions,
    /// Whether the first serial port is the firmware's console.
    pub serial_console: bool,
    /// The machine's identifier.
    pub uuid: [u8; 16],
}

impl Firmware {
    /// Firmware of which nothing more is said.
    ///
    /// # Errors
    /// A size that no ROM has.
    pub fn new(name: String, image: Vec<u8>) -> Result<Self, RomError> {
        let length = image.len();
        if length == 0 || length > LARGEST || !length.is_multiple_of(PIECE) {
            return Err(RomError { name, length });
        }
        let (option_roms, boot) = (Vec::new(), BootOptions::default());
        Ok(Self { name, image, option_roms, boot, serial_console: false, uuid: [0; 16] })
    }
}

impl Firmware {
    /// Gives the option ROMs that want one a place in `order`; they have it as long as these are kept.
    ///
    /// # Errors
    /// A place is taken.
    pub(crate) fn places(&self, order: &Arc<BootOrder>) -> Result<Vec<Arc<BootPlace>>, BootIndexError> {
        let enter = |rom: &OptionRom| order.enter(format!("option ROM '{}'", rom.name), rom.path(), rom.boot_index);
        self.option_roms.iter().map(enter).collect()
    }

    /// Fills in all that is known once the machine is built.
    ///
    /// # Errors
    /// An option ROM with a name that is too long, or too many of them.
    pub(crate) fn introduce(&self, items: &FwCfg, map: &MemoryMap, about: &About<'_>) -> Result<(), ItemError> {
        let About { reserve_tables, reserved_end, order: places } = about;
        let BootOptions { order: _, once: _, menu, splash_time, reboot_timeout, strict } = &self.boot;
        items.set(key::UUID, self.uuid);
        items.set(key::BOOT_MENU, u16::from(*menu).to_le_bytes());
        items.add_file("etc/e820", e820(map, *reserve_tables))?;
        if let Some(end) = reserved_end {
            items.add_file("etc/reserved-memory-end", end.to_le_bytes())?;
        }
        items.add_file("etc/boot-fail-wait", reboot_timeout.unwrap_or(-1).to_le_bytes())?;
        if let Some(time) = splash_time {
            items.add_file("etc/boot-menu-wait", time.to_le_bytes())?;
        }
        if self.serial_console {
            items.add_file("etc/sercon-port", SERIAL_PORT)?;
        }
        for rom in &self.option_roms {
            items.add_file(&rom.item(), rom.image.as_slice())?;
        }
        // Who asked for a kernel gets it before anything else.
        let starts_kernels = |rom: &&OptionRom| [LINUX_LOADER, MULTIBOOT_LOADER].contains(&rom.name.as_str());
        let first = self.option_roms.iter().filter(starts_kernels).map(OptionRom::path);
        let paths: Vec<String> = first.chain(places.paths()).collect();
        items.add_file("bootorder", boot_order(&paths, *strict))?;
        Ok(())
    }

    /// Tells which kinds of devices are tried, at the first boot or at a later one.
    pub(crate) fn tell_order(&self, clock: &IsaRtc, first: bool) {
        let order = self.boot.once.as_ref().filter(|_| first).unwrap_or(&self.boot.order);
        let order = if order.is_empty() { &DEFAULT_ORDER[..] } else { order };
        let device = |index: usize| order.get(index).map_or(0, |device| *device as u8);
        clock.set_memory(cmos::BOOT_1_2, device(0) | device(1) << 4);
        clock.set_memory(cmos::BOOT_3, device(2) << 4);
    }
}

/// What firmware is told of the machine besides its memory.
pub(crate) struct About<'a> {
    /// Whether the machine keeps the end of memory below 4 GiB for itself.
    pub(crate) reserve_tables: bool,
    /// Where the memory ends in which modules may come, if they may.
    pub(crate) reserved_end: Option<u64>,
    /// What it is to try to boot, and in which order.
    pub(crate) order: &'a BootOrder,
}

/// Gives firmware the tables to place, and the script by which it does.
///
/// # Errors
/// They are too large.
pub(crate) fn give_tables(items: &FwCfg, files: loader::Files) -> Result<(), ItemError> {
    let loader::Files { root_pointer, tables, script } = files;
    items.add_file(loader::ROOT_POINTER, root_pointer)?;
    items.add_file(loader::TABLES, tables)?;
    items.add_file(loader::SCRIPT, script)?;
    Ok(())
}

/// Offers a kernel to the option ROM that starts it.
pub(crate) fn offer_kernel(items: &FwCfg, offer: Offer) {
    let Offer { setup, kernel, command_line, initrd } = offer;
    let (disk_at, disk) = initrd.unwrap_or_default();
    for ([address, size, data], at, contents) in [
        (key::SETUP, Offer::SETUP_ADDRESS, setup),
        (key::KERNEL, Offer::KERNEL_ADDRESS, kernel),
        (key::COMMAND_LINE, Offer::COMMAND_LINE_ADDRESS, command_line),
        (key::INITRD, disk_at, disk),
    ] {
        items.set(address, at.to_le_bytes());
        items.set(size, (contents.len() as u32).to_le_bytes());
        items.set(data, contents);
    }
}

/// Offers a program to the option ROM that starts it.
pub(crate) fn offer_program(items: &FwCfg, offer: multiboot::Offer) {
    let multiboot::Offer { address, workspace, contents } = offer;
    let [address_key, size_key, data_key] = key::SETUP;
    items.set(address_key, address.to_le_bytes());
    items.set(size_key, (workspace.len() as u32).to_le_bytes());
    items.set(data_key, workspace);
    let [_, size_key, data_key] = key::KERNEL;
    items.set(size_key, (contents.len() as u32).to_le_bytes());
    items.set(data_key, contents);
}

/// What is tried when nothing is said: a disk, a floppy disk, a CD.
const DEFAULT_ORDER: [BootDevice; 3] = [BootDevice::Disk, BootDevice::Cd, BootDevice::Floppy];

/// The option ROM that starts Linux.
pub const LINUX_LOADER: &str = "linuxboot.bin";

/// The option ROM that starts a multiboot program.
pub const MULTIBOOT_LOADER: &str = "multiboot.bin";

/// What a boot device is, by the letter that users give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BootDevice {
    /// `a`, `b`: a floppy disk.
    Floppy = 1,
    /// `c`: a hard disk.
    Disk = 2,
    /// `d`: a CD.
    Cd = 3,
    /// `n` to `p`: the network.
    Network = 4,
}

impl BootDevice {
    /// The device of a letter.
    pub const fn of(letter: char) -> Option<Self> {
        Some(match letter {
            'a' | 'b' => Self::Floppy,
            'c' => Self::Disk,
            'd' => Self::Cd,
            'n'..='p' => Self::Network,
            _ => return None,
        })
    }
}

/// How to boot, as `-boot` says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootOptions {
    /// Kinds of device, the first to be tried first. None: what firmware thinks best.
    pub order: Vec<BootDevice>,
    /// The same for the first boot alone.
    pub once: Option<Vec<BootDevice>>,
    /// Whether a menu is offered.
    pub menu: bool,
    /// How long the menu is offered, in milliseconds.
    pub splash_time: Option<u16>,
    /// After how many milliseconds a boot without success is tried again; -1 for never.
    pub reboot_timeout: Option<i32>,
    /// Nothing is tried that is not in the list.
    pub strict: bool,
}

/// The order of the boot devices, the first to be tried first, by the names that firmware knows them by.
fn boot_order(paths: &[String], strict: bool) -> Vec<u8> {
    let mut text = paths.join("\n");
    if strict {
        text.push_str(if text.is_empty() { "HALT" } else { "\nHALT" });
    }
    if !text.is_empty() {
        text.push('\0');
    }
    text.into_bytes()
}

/// The map of memory as firmware is told it: what is RAM. The end below 4 GiB is none if the machine keeps it for itself.
fn e820(map: &MemoryMap, reserve_tables: bool) -> Vec<u8> {
    const RAM: u32 = 1;
    const RESERVED: u32 = 2;
    let end = if reserve_tables { map.facs() } else { map.below_4g() };
    let entries = [(0, end, RAM), (end, map.below_4g().saturating_sub(end), RESERVED), (1 << 32, map.above_4g(), RAM)];
    let present = entries.into_iter().filter(|(_, length, _)| *length > 0);
    let bytes = present.flat_map(|(base, length, kind): (u64, u64, u32)| {
        let mut entry = [0; 20];
        entry[..8].copy_from_slice(&base.to_le_bytes());
        entry[8..16].copy_from_slice(&length.to_le_bytes());
        entry[16..].copy_from_slice(&kind.to_le_bytes());
        entry
    });
    bytes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rom_has_a_size_that_roms_have() {
        let rom = |length| Firmware::new("x".to_owned(), vec![0; length]);
        assert!(rom(0x1_0000).is_ok() && rom(0x4_0000).is_ok());
        for bad in [0, 1, 0xffff, 0x2_0001, 9 << 20] {
            assert!(rom(bad).is_err(), "{bad:#x}");
        }
        assert_eq!(
            rom(5).unwrap_err().to_string(),
            "could not load PC BIOS 'x': 5 bytes are no multiple of 64 KiB up to 8 MiB"
        );
    }

    #[test]
    fn the_order_of_boot_is_lines_that_may_end_in_a_halt() {
        assert_eq!(boot_order(&[], false), b"");
        assert_eq!(boot_order(&[], true), b"HALT\0");
        let paths = ["/rom@genroms/a".to_owned(), "/pci@i0cf8/scsi@4/disk@0,0".to_owned()];
        assert_eq!(boot_order(&paths, true), b"/rom@genroms/a\n/pci@i0cf8/scsi@4/disk@0,0\nHALT\0");
    }

    #[test]
    fn memory_is_told_as_ram_but_for_what_the_machine_keeps() {
        let words = |bytes: &[u8]| -> Vec<(u64, u64, u32)> {
            let word = |entry: &[u8], at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().unwrap());
            let kind = |entry: &[u8]| u32::from_le_bytes(entry[16..].try_into().unwrap());
            bytes.chunks(20).map(|entry| (word(entry, 0), word(entry, 8), kind(entry))).collect()
        };
        let map = MemoryMap::new(0xc000_0000, 1 << 30, 0);
        assert_eq!(words(&e820(&map, false)), [(0, 0xc000_0000, 1), (1 << 32, 1 << 30, 1)]);
        let kept = words(&e820(&map, true));
        assert_eq!(kept[0], (0, map.facs(), 1));
        assert_eq!(kept[1], (map.facs(), 0xc000_0000 - map.facs(), 2));
    }
}
