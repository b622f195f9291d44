//! The SMBIOS tables of a PC: what the board knows for them, and where they go. DMTF DSP0134 §5.2.

use rhea_devices::misc::fw_cfg::{FwCfg, ItemError};
use rhea_x86::system::cpuid::{CpuModel, Topology as CpuidTopology};

use super::{bios::BiosArea, ram::HIGH_RAM};
use crate::{
    boot::MemoryMap,
    config::Config,
    smbios::{ANCHOR_ITEM, Facts, SmbiosError, TABLES_ITEM, Tables},
};

/// Where the entry point goes, and the tables, up to the end of the area in which both are looked for.
const ENTRY_POINT: u64 = 0xf_0040;
const TABLES: u32 = 0xf_0080;
const ROOM: usize = 0x10_0000 - TABLES as usize;
/// The most that firmware is given.
const MOST: usize = 1 << 20;

/// Builds the tables of a machine.
///
/// # Errors
/// They are too large.
pub(super) fn build(config: &Config, map: &MemoryMap, model: &CpuModel) -> Result<Tables, SmbiosError> {
    let topology = &config.topology;
    let mut sockets = vec![false; topology.sockets as usize];
    for index in 0..topology.cpus {
        if let Some(present) = sockets.get_mut(topology.place(index).socket as usize) {
            *present = true;
        }
    }
    let place = CpuidTopology { apic_id: 0, package: topology.package(), tsc_khz: 0, apic_khz: 0 };
    let told = model.table(place).get(1, 0);
    let ram = [(0, map.below_4g()), (HIGH_RAM, map.above_4g())];
    let ram: Vec<(u64, u64)> = ram.into_iter().filter(|(_, length)| *length > 0).collect();
    let facts = Facts {
        firmware: config.firmware.is_some(),
        sockets: &sockets,
        cores: topology.cores,
        threads: topology.threads,
        processor: u64::from(told.edx) << 32 | u64::from(told.eax),
        ram: &ram,
        most_ram: config.ram.max(config.memory.maximum),
    };
    config.smbios.build(&facts, if facts.firmware { MOST } else { ROOM })
}

/// Puts the tables where operating systems look for them.
pub(super) fn place(tables: &Tables, bios: &BiosArea) {
    bios.write_behind(ENTRY_POINT, &tables.entry_point(TABLES));
    bios.write_behind(TABLES.into(), &tables.structures);
}

/// Gives firmware the tables, and the entry point, in which it fills in where it has put them.
///
/// # Errors
/// There is no place for another item.
pub(super) fn give(tables: &Tables, items: &FwCfg) -> Result<(), ItemError> {
    items.add_file(ANCHOR_ITEM, tables.entry_point(0))?;
    items.add_file(TABLES_ITEM, tables.structures.as_slice())?;
    Ok(())
}
