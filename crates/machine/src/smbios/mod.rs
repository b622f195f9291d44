//! SMBIOS tables: what a machine is called and what it is made of, for people and for the software that manages it.
//!
//! Source: DMTF DSP0134, "System Management BIOS Reference Specification", 2.8 and 3.0 (cited as §).

mod entry;
mod error;
mod given;
mod structure;
#[cfg(test)]
mod tests;

pub use entry::EntryPoint;
pub use error::SmbiosError;
pub use given::{GivenStructure, StructureError};

use structure::Structure;

/// Names of the files in which firmware finds the entry point, in which it corrects the tables' address, and the tables.
pub(crate) const ANCHOR_ITEM: &str = "etc/smbios/smbios-anchor";
/// As above.
pub(crate) const TABLES_ITEM: &str = "etc/smbios/smbios-tables";

/// Names that structures have; each has some of them. What is not given is a name of ours, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Who made it.
    pub manufacturer: Option<String>,
    /// What it is called.
    pub product: Option<String>,
    /// Which one of those.
    pub version: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Asset tag, for its owner.
    pub asset: Option<String>,
    /// Stock keeping unit.
    pub sku: Option<String>,
    /// What it is one of.
    pub family: Option<String>,
    /// Where in the chassis, or in which bank, it is.
    pub location: Option<String>,
    /// Part number.
    pub part: Option<String>,
}

/// The firmware (§7.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BiosNames {
    /// Who made it.
    pub vendor: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// When it was released: month, day and year, as in 11/23/2026.
    pub date: Option<String>,
    /// Its release in numbers.
    pub release: Option<(u8, u8)>,
    /// Whether it says that it is UEFI.
    pub uefi: bool,
}

/// Processors (§7.5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessorNames {
    /// Their names.
    pub names: Names,
    /// What sockets are called, before their number.
    pub socket_prefix: Option<String>,
    /// Highest speed, in MHz.
    pub max_speed: Option<u16>,
    /// Speed at the start, in MHz.
    pub current_speed: Option<u16>,
    /// Their identification; what CPUID tells if not given.
    pub id: Option<u64>,
    /// Family, by the table of §7.5.2.
    pub family: Option<u16>,
}

/// Memory devices (§7.18).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryNames {
    /// Their names.
    pub names: Names,
    /// What they are called, before their number.
    pub locator_prefix: Option<String>,
    /// Speed, in millions of transfers a second.
    pub speed: Option<u16>,
}

/// What the tables are to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Smbios {
    /// The machine's identifier.
    pub uuid: [u8; 16],
    /// The firmware; its own words if not given and there is one.
    pub bios: Option<BiosNames>,
    /// The system (§7.2).
    pub system: Names,
    /// The board (§7.3); none if not given.
    pub board: Option<Names>,
    /// The chassis (§7.4).
    pub chassis: Names,
    /// Processors.
    pub processor: ProcessorNames,
    /// Memory devices.
    pub memory: MemoryNames,
    /// Texts for whoever looks for them (§7.12).
    pub oem_strings: Vec<String>,
    /// Structures that take the place of all those of their type.
    pub given: Vec<GivenStructure>,
    /// Which entry point leads to the tables.
    pub entry_point: EntryPoint,
}

/// What the machine is.
pub(crate) struct Facts<'a> {
    /// Whether there is firmware, which tells of itself.
    pub(crate) firmware: bool,
    /// For each socket whether a processor is in it.
    pub(crate) sockets: &'a [bool],
    /// Cores in a socket, and threads in a core.
    pub(crate) cores: u32,
    /// As above.
    pub(crate) threads: u32,
    /// What processors tell of themselves: EDX and EAX of CPUID's leaf 1.
    pub(crate) processor: u64,
    /// Base and length of RAM below and above 4 GiB, without empty ranges.
    pub(crate) ram: &'a [(u64, u64)],
    /// The most memory that there can be.
    pub(crate) most_ram: u64,
}

/// Tables, and what leads to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tables {
    /// The structures, one after another.
    pub(crate) structures: Vec<u8>,
    /// How many they are.
    count: u16,
    /// Bytes of the largest.
    largest: usize,
    /// Whether the entry point is the one of 64 bits.
    wide: bool,
}

/// What we say of who made it.
const MAKER: &str = "Rhea";
const PRODUCT: &str = "Standard PC (i440FX + PIIX, 1996)";
const MACHINE: &str = "pc-i440fx-10.0";
/// Release date of what does the work of firmware here; systems look at the year to know how old a machine is.
const DATE: &str = "11/23/2026";

/// Types of structures (§7).
mod kind {
    pub(super) const BIOS: u8 = 0;
    pub(super) const SYSTEM: u8 = 1;
    pub(super) const BOARD: u8 = 2;
    pub(super) const CHASSIS: u8 = 3;
    pub(super) const PROCESSOR: u8 = 4;
    pub(super) const OEM_STRINGS: u8 = 11;
    pub(super) const MEMORY_ARRAY: u8 = 16;
    pub(super) const MEMORY_DEVICE: u8 = 17;
    pub(super) const MAPPED_ADDRESS: u8 = 19;
    pub(super) const BOOT: u8 = 32;
    pub(super) const END: u8 = 127;
}

/// The first handle of a type: types up to 19 have 256 numbers each, as people know them from other machines.
const fn handle(kind: u8) -> u16 {
    match kind {
        kind::OEM_STRINGS => 0x0e00,
        _ => (kind as u16) << 8,
    }
}

/// Handles of structures that others refer to.
const CHASSIS: u16 = handle(kind::CHASSIS);
const ARRAY: u16 = 0x1000;
const DEVICES: u16 = 0x1100;
const MAPPED: u16 = 0x1300;
/// No handle: nothing of the kind is told (§7.5, §7.17).
const NOTHING: u16 = 0xffff;
const NO_ERRORS: u16 = 0xfffe;

/// The largest memory device that is told of.
const DEVICE_SIZE: u64 = 2 << 40;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

impl Smbios {
    /// Builds the tables of a machine, for an address that has `room`.
    ///
    /// # Errors
    /// They cannot be, or are too large.
    pub(crate) fn build(&self, facts: &Facts<'_>, room: usize) -> Result<Tables, SmbiosError> {
        let narrow = self.structures(facts, false)?;
        let fits = narrow.structures.len() <= usize::from(u16::MAX) && narrow.largest <= usize::from(u16::MAX);
        let tables = match self.entry_point {
            EntryPoint::Narrow if !fits => return Err(SmbiosError::Entry(narrow.structures.len())),
            EntryPoint::Narrow => narrow,
            EntryPoint::Auto if fits => narrow,
            EntryPoint::Auto | EntryPoint::Wide => self.structures(facts, true)?,
        };
        let length = tables.structures.len();
        if length > room {
            return Err(SmbiosError::Large { length, room });
        }
        Ok(tables)
    }

    fn structures(&self, facts: &Facts<'_>, wide: bool) -> Result<Tables, SmbiosError> {
        let mut tables = Tables { structures: Vec::new(), count: 0, largest: 0, wide };
        let mut put = |kind: u8, all: Vec<Structure>| {
            // Those of the user's take the place of ours.
            let replaced = self.given.iter().any(|given| given.kind() == kind);
            for structure in all.into_iter().filter(|_| !replaced) {
                tables.put(&structure.finish(kind)?);
            }
            Ok(())
        };
        put(kind::BIOS, self.bios(facts.firmware))?;
        put(kind::SYSTEM, vec![self.system()])?;
        put(kind::BOARD, self.board.iter().map(board).collect())?;
        put(kind::CHASSIS, vec![chassis(&self.chassis)])?;
        put(kind::PROCESSOR, self.processors(facts, wide))?;
        put(kind::OEM_STRINGS, self.oem_strings()?)?;
        put(kind::MEMORY_ARRAY, vec![memory_array(facts)])?;
        put(kind::MEMORY_DEVICE, self.memory_devices(facts))?;
        put(kind::MAPPED_ADDRESS, mapped_addresses(facts))?;
        put(kind::BOOT, vec![boot_information()])?;
        for given in &self.given {
            tables.put(given.bytes());
        }
        tables.put(&Structure::new(kind::END, 0x7f00).finish(kind::END)?);
        Ok(tables)
    }

    /// Firmware says itself what it is, unless it is told to.
    fn bios(&self, firmware: bool) -> Vec<Structure> {
        // Characteristics are not told (bit 3 of the first word); it is a virtual machine (bit 4 of the last byte), and may be
        // updated (bit 2), or be UEFI (bit 3).
        const UNTOLD: u64 = 1 << 3;
        const LAST: u8 = 1 << 4 | 1 << 2;
        let ours = BiosNames {
            vendor: Some(MAKER.to_owned()),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            date: Some(DATE.to_owned()),
            ..BiosNames::default()
        };
        let Some(said) = self.bios.as_ref().or_else(|| (!firmware).then_some(&ours)) else { return Vec::new() };
        // What is not said of ours stays.
        let or = |said: &Option<String>, own: &Option<String>| {
            said.clone().or_else(|| own.clone().filter(|_| !firmware)).unwrap_or_default()
        };
        let (major, minor) = said.release.unwrap_or_default();
        let structure = Structure::new(kind::BIOS, handle(kind::BIOS))
            .string(&or(&said.vendor, &ours.vendor))
            .string(&or(&said.version, &ours.version))
            .word(0xe800)
            .string(&or(&said.date, &ours.date))
            .byte(0)
            .qword(UNTOLD)
            .bytes(&[0, LAST | u8::from(said.uefi) << 3])
            // The embedded controller has no release.
            .bytes(&[major, minor, 0xff, 0xff]);
        vec![structure]
    }

    fn system(&self) -> Structure {
        let Names { manufacturer, product, version, serial, sku, family, .. } = &self.system;
        let [first @ .., d, e] = [0..4, 4..6, 6..8, 8..12, 12..16].map(|range| self.uuid[range].to_vec());
        // The first three fields have their low byte first (§7.2.1).
        let first = first.into_iter().flat_map(|field| field.into_iter().rev());
        let uuid: Vec<u8> = first.chain(d).chain(e).collect();
        Structure::new(kind::SYSTEM, handle(kind::SYSTEM))
            .string(text(manufacturer, MAKER))
            .string(text(product, PRODUCT))
            .string(text(version, MACHINE))
            .string(text(serial, ""))
            .bytes(&uuid)
            // Woken by its power switch.
            .byte(6)
            .string(text(sku, ""))
            .string(text(family, ""))
    }

    fn processors(&self, facts: &Facts<'_>, wide: bool) -> Vec<Structure> {
        const OTHER: u16 = 1;
        const MEGAHERTZ: u16 = 2000;
        const ENABLED: u8 = 1 << 6 | 1;
        let ProcessorNames { names, socket_prefix, max_speed, current_speed, id, family } = &self.processor;
        let id = id.unwrap_or(facts.processor);
        let family = family.unwrap_or(OTHER);
        let (cores, threads) = (facts.cores, facts.cores.saturating_mul(facts.threads));
        // Numbers that a byte does not hold are in the words behind, where there are any (§7.5).
        let byte = |number: u32| u8::try_from(number).unwrap_or(u8::MAX);
        let word = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let socket = |(number, present): (usize, &bool)| {
            let name = format!("{} {number:x}", text(socket_prefix, "CPU"));
            let structure = Structure::new(kind::PROCESSOR, handle(kind::PROCESSOR).saturating_add(number as u16))
                .string(&name)
                // A central processor.
                .byte(3)
                .byte(u8::try_from(family).ok().filter(|family| *family != 0xff).unwrap_or(0xfe))
                .string(text(&names.manufacturer, MAKER))
                .qword(id)
                .string(text(&names.version, MACHINE))
                // Voltage and external clock are not known.
                .byte(0)
                .word(0)
                .word(max_speed.unwrap_or(MEGAHERTZ))
                .word(current_speed.unwrap_or(MEGAHERTZ))
                .byte(if *present { ENABLED } else { 0 })
                // Its socket is of another kind, its caches are not told of.
                .byte(OTHER as u8)
                .word(NOTHING)
                .word(NOTHING)
                .word(NOTHING)
                .string(text(&names.serial, ""))
                .string(text(&names.asset, ""))
                .string(text(&names.part, ""))
                .bytes(&[byte(cores), byte(cores), byte(threads)])
                // Characteristics: not known.
                .word(1 << 1)
                .word(family);
            if wide { structure.word(word(cores)).word(word(cores)).word(word(threads)) } else { structure }
        };
        facts.sockets.iter().enumerate().map(socket).collect()
    }

    fn oem_strings(&self) -> Result<Vec<Structure>, SmbiosError> {
        let told: Vec<&String> = self.oem_strings.iter().filter(|text| !text.is_empty()).collect();
        if told.is_empty() {
            return Ok(Vec::new());
        }
        let count = u8::try_from(told.len()).map_err(|_| SmbiosError::Strings(told.len()))?;
        let structure = Structure::new(kind::OEM_STRINGS, handle(kind::OEM_STRINGS)).byte(count);
        Ok(vec![told.into_iter().fold(structure, |structure, text| structure.and_string(text))])
    }

    fn memory_devices(&self, facts: &Facts<'_>) -> Vec<Structure> {
        const DIMM: u8 = 9;
        const RAM: u8 = 7;
        const OTHER: u16 = 1 << 1;
        /// The size is in the field behind.
        const MORE: u16 = 0x7fff;
        const IN_KIB: u16 = 1 << 15;
        let MemoryNames { names, locator_prefix, speed } = &self.memory;
        let speed = speed.unwrap_or(0);
        let device = |(number, size): (usize, u64)| {
            let (in_kib, in_mib) = (u16::try_from(size / KIB), u16::try_from(size / MIB));
            let short = match (in_kib, in_mib) {
                (Ok(kib), _) if kib < MORE && !size.is_multiple_of(MIB) => kib | IN_KIB,
                (_, Ok(mib)) if mib < MORE => mib,
                _ => MORE,
            };
            let long = if short == MORE { (size / MIB) as u32 } else { 0 };
            Structure::new(kind::MEMORY_DEVICE, DEVICES.saturating_add(number as u16))
                .word(ARRAY)
                .word(NO_ERRORS)
                // Widths are not known.
                .word(NOTHING)
                .word(NOTHING)
                .word(short)
                .byte(DIMM)
                .byte(0)
                .string(&format!("{} {number}", text(locator_prefix, "DIMM")))
                .string(text(&names.location, ""))
                .byte(RAM)
                .word(OTHER)
                .word(speed)
                .string(text(&names.manufacturer, MAKER))
                .string(text(&names.serial, ""))
                .string(text(&names.asset, ""))
                .string(text(&names.part, ""))
                .byte(0)
                .dword(long)
                .word(speed)
                // Voltages are not known.
                .word(0)
                .word(0)
                .word(0)
        };
        devices(facts).into_iter().enumerate().map(device).collect()
    }
}

fn text<'a>(given: &'a Option<String>, own: &'a str) -> &'a str {
    given.as_deref().unwrap_or(own)
}

fn board(names: &Names) -> Structure {
    const HOSTS_OTHERS: u8 = 1;
    const MOTHERBOARD: u8 = 0x0a;
    let Names { manufacturer, product, version, serial, asset, location, .. } = names;
    Structure::new(kind::BOARD, handle(kind::BOARD))
        .string(text(manufacturer, MAKER))
        .string(text(product, PRODUCT))
        .string(text(version, MACHINE))
        .string(text(serial, ""))
        .string(text(asset, ""))
        .byte(HOSTS_OTHERS)
        .string(text(location, ""))
        .word(CHASSIS)
        .byte(MOTHERBOARD)
        .byte(0)
}

fn chassis(names: &Names) -> Structure {
    const OTHER: u8 = 1;
    /// Of boot, power supply and temperature.
    const SAFE: u8 = 3;
    const UNKNOWN: u8 = 2;
    let Names { manufacturer, version, serial, asset, sku, .. } = names;
    Structure::new(kind::CHASSIS, CHASSIS)
        .string(text(manufacturer, MAKER))
        .byte(OTHER)
        .string(text(version, MACHINE))
        .string(text(serial, ""))
        .string(text(asset, ""))
        .bytes(&[SAFE, SAFE, SAFE, UNKNOWN])
        .dword(0)
        // Height, power cords, and what is in it by elements of no bytes.
        .bytes(&[0, 0, 0, 0])
        .string(text(sku, ""))
}

/// All memory, in devices.
fn devices(facts: &Facts<'_>) -> Vec<u64> {
    let mut left: u64 = facts.ram.iter().fold(0, |sum, (_, length)| sum.saturating_add(*length));
    let mut devices = Vec::new();
    while left > 0 {
        let size = left.min(DEVICE_SIZE);
        devices.push(size);
        left -= size;
    }
    devices
}

fn memory_array(facts: &Facts<'_>) -> Structure {
    const OTHER: u8 = 1;
    const SYSTEM: u8 = 3;
    const CORRECTED: u8 = 6;
    /// The size is in the field behind.
    const MORE: u32 = 1 << 31;
    let most = facts.most_ram;
    let short = u32::try_from(most / KIB).ok().filter(|size| *size < MORE);
    Structure::new(kind::MEMORY_ARRAY, ARRAY)
        .bytes(&[OTHER, SYSTEM, CORRECTED])
        .dword(short.unwrap_or(MORE))
        .word(NO_ERRORS)
        .word(devices(facts).len() as u16)
        .qword(if short.is_some() { 0 } else { most })
}

fn mapped_addresses(facts: &Facts<'_>) -> Vec<Structure> {
    /// The addresses are in the fields behind.
    const MORE: u32 = u32::MAX;
    let range = |(number, &(base, length)): (usize, &(u64, u64))| {
        let last = base.saturating_add(length).saturating_sub(1);
        let short = |address: u64| u32::try_from(address / KIB).ok().filter(|kib| *kib < MORE);
        let structure = Structure::new(kind::MAPPED_ADDRESS, MAPPED.saturating_add(number as u16));
        match (short(base), short(last)) {
            (Some(first), Some(end)) => structure.dword(first).dword(end).word(ARRAY).byte(1).qword(0).qword(0),
            _ => structure.dword(MORE).dword(MORE).word(ARRAY).byte(1).qword(base).qword(last),
        }
    };
    facts.ram.iter().enumerate().map(range).collect()
}

fn boot_information() -> Structure {
    // Reserved, and no errors.
    Structure::new(kind::BOOT, handle(kind::BOOT)).bytes(&[0; 7])
}

impl Tables {
    fn put(&mut self, structure: &[u8]) {
        self.count = self.count.saturating_add(1);
        self.largest = self.largest.max(structure.len());
        self.structures.extend(structure);
    }

    /// The entry point that leads to the structures at `address`.
    pub(crate) fn entry_point(&self, address: u32) -> Vec<u8> {
        if self.wide {
            entry::wide(self.structures.len() as u32, address.into())
        } else {
            entry::narrow(self.count, self.largest as u16, self.structures.len() as u16, address)
        }
    }
}
