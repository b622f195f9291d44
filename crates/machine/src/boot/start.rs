//! What a start without firmware needs in memory: a descriptor table, and for 64 bits page tables that map the first 4 GiB
//! to themselves.

use rhea_core::AddressSpace;

/// Where the descriptor table is.
pub const GDT: u64 = 0x8_0000;
/// Its limit.
pub const GDT_LIMIT: u16 = 8 * 4 - 1;
/// Where the page tables are: the first is the root.
pub const PAGE_TABLES: u64 = 0x8_1000;

const PRESENT_WRITABLE: u64 = 0b11;
const LARGE: u64 = 1 << 7;

/// Flat data (SDM vol. 3 § 3.4.5).
const DATA: u64 = 0x00cf_9300_0000_ffff;

/// Descriptors of a 32-bit start: selector 0x10 is flat code, 0x18 flat data.
pub const PROTECTED_DESCRIPTORS: [u64; 4] = [0, 0, 0x00cf_9b00_0000_ffff, DATA];

/// Writes a descriptor table for a 32-bit start in place of the one for 64 bits.
pub fn write_protected_descriptors(memory: &AddressSpace) {
    write_words(memory, GDT, &PROTECTED_DESCRIPTORS);
}

/// Writes what a 64-bit start needs.
pub fn write_tables(memory: &AddressSpace) {
    // Selector 0x10 is 64-bit code, 0x18 data (SDM vol. 3 § 3.4.5).
    let descriptors: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, DATA];
    write_words(memory, GDT, &descriptors);
    let pointers = PAGE_TABLES + 0x1000;
    let directories = PAGE_TABLES + 0x2000;
    write_words(memory, PAGE_TABLES, &page(|i| if i == 0 { pointers | PRESENT_WRITABLE } else { 0 }));
    write_words(memory, pointers, &page(|i| if i < 4 { (directories + 0x1000 * i) | PRESENT_WRITABLE } else { 0 }));
    for gigabyte in 0..4 {
        let entries = page(|i| gigabyte << 30 | i << 21 | LARGE | PRESENT_WRITABLE);
        write_words(memory, directories + 0x1000 * gigabyte, &entries);
    }
}

fn page(entry: impl Fn(u64) -> u64) -> Vec<u64> {
    (0..512).map(entry).collect()
}

fn write_words(memory: &AddressSpace, address: u64, words: &[u64]) {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory.write(address, &bytes);
}
