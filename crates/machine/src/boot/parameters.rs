//! The page of boot parameters ("zero page") that a 64-bit start is handed. Linux `Documentation/arch/x86/zero-page.rst`.

use super::MemoryMap;

/// Where it goes.
pub const ADDRESS: u64 = 0x9_0000;
/// Its size.
pub const SIZE: usize = 4096;

const ACPI_RSDP_ADDR: usize = 0x70;
const E820_ENTRIES: usize = 0x1e8;
const E820_TABLE: usize = 0x2d0;
const E820_LIMIT: usize = 128;

/// A page that tells of the memory map and the ACPI root pointer, and nothing else yet.
pub fn page(map: &MemoryMap, root_pointer: u64) -> Vec<u8> {
    let mut page = vec![0; SIZE];
    put(&mut page, ACPI_RSDP_ADDR, &root_pointer.to_le_bytes());
    let entries = map.entries().iter().take(E820_LIMIT);
    put(&mut page, E820_ENTRIES, &[entries.len() as u8]);
    for (i, entry) in entries.enumerate() {
        let at = E820_TABLE + 20 * i;
        put(&mut page, at, &entry.base.to_le_bytes());
        put(&mut page, at + 8, &entry.length.to_le_bytes());
        put(&mut page, at + 16, &(entry.kind as u32).to_le_bytes());
    }
    page
}

/// Puts `bytes` into a page at `at`.
pub fn put(page: &mut [u8], at: usize, bytes: &[u8]) {
    page[at..at + bytes.len()].copy_from_slice(bytes);
}
