//! The script by which firmware puts the tables where it has room: files to load, pointers to correct, sums to make.
//!
//! Source: the published interface of fw_cfg's table loader; ACPI 5.0 § 5.2 for where tables point.

use super::Tables;

/// Names of the items: the root pointer, all other tables, and the script.
pub const ROOT_POINTER: &str = "etc/acpi/rsdp";
/// As above.
pub const TABLES: &str = "etc/acpi/tables";
/// As above.
pub const SCRIPT: &str = "etc/table-loader";

/// Bytes of a command, and of a name in it.
const COMMAND: usize = 128;
const NAME: usize = 56;

/// Commands.
const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;

/// Where a file goes: anywhere below 4 GiB, or where the root pointer is looked for.
const ZONE_HIGH: u8 = 1;
const ZONE_F_SEGMENT: u8 = 2;

/// Fields of tables and of the root pointer (ACPI 5.0 § 5.2.5.3, § 5.2.6, § 5.2.9).
const LENGTH: usize = 4;
const CHECKSUM: u32 = 9;
const HEADER: usize = 36;
const FIRMWARE_CTRL: u32 = 36;
const DSDT: u32 = 40;
const XSDT_ADDRESS: usize = 24;
const FIRST_CHECKSUM: (u32, u32) = (8, 20);
const EXTENDED_CHECKSUM: (u32, u32) = (32, 36);

/// What firmware gets.
pub struct Files {
    /// The root pointer, which points into the tables by their offset.
    pub root_pointer: Vec<u8>,
    /// The FACS, and behind it all other tables, pointing by offsets.
    pub tables: Vec<u8>,
    /// What is to be done with them.
    pub script: Vec<u8>,
}

/// Bytes of the FACS, which the other tables follow.
pub const FACS_LENGTH: u32 = 64;

/// Makes the files of tables that were built for a FACS at 0 and the others at [`FACS_LENGTH`].
pub fn files(built: Tables) -> Files {
    let Tables { root_pointer, mut facs, tables } = built;
    facs.resize(FACS_LENGTH as usize, 0);
    let tables = [facs, tables].concat();
    let mut script = Script::default();
    script.allocate(ROOT_POINTER, 16, ZONE_F_SEGMENT);
    script.allocate(TABLES, FACS_LENGTH, ZONE_HIGH);
    let xsdt = word(&root_pointer, XSDT_ADDRESS);
    for at in (HEADER..word(&tables, xsdt as usize + LENGTH) as usize).step_by(8) {
        let entry = xsdt + at as u32;
        script.point(TABLES, entry, 8);
        let table = word(&tables, entry as usize);
        // The FADT is the first; one of the user's is left as it is.
        if at == HEADER {
            script.point(TABLES, table + FIRMWARE_CTRL, 4);
            script.point(TABLES, table + DSDT, 4);
            script.sum(TABLES, table + CHECKSUM, table, word(&tables, table as usize + LENGTH));
        }
    }
    script.sum(TABLES, xsdt + CHECKSUM, xsdt, word(&tables, xsdt as usize + LENGTH));
    script.point(ROOT_POINTER, XSDT_ADDRESS as u32, 8);
    for (at, length) in [FIRST_CHECKSUM, EXTENDED_CHECKSUM] {
        script.sum(ROOT_POINTER, at, 0, length);
    }
    Files { root_pointer, tables, script: script.0 }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map(|bytes| u32::from_le_bytes(*bytes)).unwrap_or_default()
}

#[derive(Default)]
struct Script(Vec<u8>);

impl Script {
    fn command(&mut self, number: u32, parts: &[&[u8]]) {
        let start = self.0.len();
        self.0.extend(number.to_le_bytes());
        parts.iter().for_each(|part| self.0.extend(*part));
        self.0.resize(start + COMMAND, 0);
    }

    /// Loads a file to an address that is a multiple of `alignment`.
    fn allocate(&mut self, file: &str, alignment: u32, zone: u8) {
        self.command(ALLOCATE, &[&name(file), &alignment.to_le_bytes(), &[zone]]);
    }

    /// Adds the address of the tables to the `size` bytes at `at` of a file.
    fn point(&mut self, file: &str, at: u32, size: u8) {
        self.command(ADD_POINTER, &[&name(file), &name(TABLES), &at.to_le_bytes(), &[size]]);
    }

    /// Makes `length` bytes from `start` on sum to zero by the one at `at`.
    fn sum(&mut self, file: &str, at: u32, start: u32, length: u32) {
        self.command(ADD_CHECKSUM, &[&name(file), &at.to_le_bytes(), &start.to_le_bytes(), &length.to_le_bytes()]);
    }
}

fn name(text: &str) -> [u8; NAME] {
    let mut name = [0; NAME];
    name.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acpi::{Platform, build};

    /// Firmware that does what a script says.
    struct Firmware {
        memory: Vec<u8>,
        places: Vec<(String, usize)>,
    }

    fn text(bytes: &[u8]) -> String {
        bytes.iter().take_while(|byte| **byte != 0).map(|byte| *byte as char).collect()
    }

    fn carry_out(files: &Files) -> Firmware {
        let (mut memory, mut places): (Vec<u8>, Vec<(String, usize)>) = (vec![0; 0x1_0010], Vec::new());
        let place = |places: &[(String, usize)], name: &[u8]| {
            let name = text(name);
            places.iter().find(|(known, _)| *known == name).unwrap().1
        };
        for command in files.script.chunks(COMMAND) {
            let file = &command[4..60];
            let at = |from: usize| word(command, from) as usize;
            match word(command, 0) {
                ALLOCATE => {
                    let contents = if text(file) == TABLES { &files.tables } else { &files.root_pointer };
                    memory.resize(memory.len().next_multiple_of(at(60)), 0);
                    places.push((text(file), memory.len()));
                    memory.extend(contents);
                }
                ADD_POINTER => {
                    let field = place(&places, file) + at(116);
                    let to = word(&memory, field) as usize + place(&places, &command[60..116]);
                    memory[field..field + 4].copy_from_slice(&(to as u32).to_le_bytes());
                }
                ADD_CHECKSUM => {
                    let base = place(&places, file);
                    let range = &memory[base + at(64)..][..at(68)];
                    let sum = range.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
                    let field = &mut memory[base + at(60)];
                    *field = field.wrapping_sub(sum);
                }
                other => panic!("command {other}"),
            }
        }
        Firmware { memory, places }
    }

    #[test]
    fn firmware_that_carries_the_script_out_has_every_table_in_reach_and_with_its_sum() {
        let platform = Platform {
            processors: Vec::new(),
            memory_slots: 0,
            hotplug_buses: Vec::new(),
            pci_window: 0xc000_0000,
            high_pci_window: None,
            affinity: None,
            generation_id: None,
            panic_port: None,
            sleep_states: Vec::new(),
            hpet: true,
            given: vec![b"MINE\x09\0\0\0\xce".to_vec()],
        };
        let files = files(build(&platform, 0, FACS_LENGTH));
        assert!(files.script.len().is_multiple_of(COMMAND));
        let Firmware { memory, places } = carry_out(&files);
        let sum = |bytes: &[u8]| bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
        let root = places[0].1;
        assert_eq!((sum(&memory[root..root + 20]), sum(&memory[root..root + 36])), (0, 0));
        let xsdt = word(&memory, root + XSDT_ADDRESS) as usize;
        let length = word(&memory, xsdt + LENGTH) as usize;
        assert_eq!((&memory[xsdt..xsdt + 4], sum(&memory[xsdt..xsdt + length])), (&b"XSDT"[..], 0));
        let mut found = Vec::new();
        for at in (HEADER..length).step_by(8) {
            let table = word(&memory, xsdt + at) as usize;
            let length = word(&memory, table + LENGTH) as usize;
            assert_eq!(sum(&memory[table..table + length]), 0, "{:?}", &memory[table..table + 4]);
            found.push(text(&memory[table..table + 4]));
            if memory[table..].starts_with(b"FACP") {
                let (facs, dsdt) = (word(&memory, table + 36) as usize, word(&memory, table + 40) as usize);
                assert_eq!((&memory[facs..facs + 4], facs % 64), (&b"FACS"[..], 0));
                assert_eq!(&memory[dsdt..dsdt + 4], b"DSDT");
            }
        }
        assert_eq!(found, ["FACP", "APIC", "HPET", "MINE"]);
    }
}
