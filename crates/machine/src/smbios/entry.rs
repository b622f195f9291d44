//! The entry points, by which software finds the tables in the last 64 KiB of the first MiB. DSP0134 §5.2.

use rhea_core::property_words;

property_words! {
    /// Which entry point there is.
    pub enum EntryPoint: "SmbiosEntryPointType" {
        /// The old one as long as it reaches the tables.
        Auto = "auto",
        /// The old one, for tables of up to 65535 bytes below 4 GiB.
        Narrow = "32",
        /// The new one.
        Wide = "64",
    }
}

/// Where the fields are that are filled in last.
const NARROW_CHECKSUM: usize = 0x04;
const INTERMEDIATE: usize = 0x10;
const INTERMEDIATE_CHECKSUM: usize = 0x15;
const WIDE_CHECKSUM: usize = 0x05;

/// The entry point of 2.1 (§5.2.1).
pub(super) fn narrow(count: u16, largest: u16, length: u16, address: u32) -> Vec<u8> {
    let mut bytes = b"_SM_\0\x1f\x02\x08".to_vec();
    bytes.extend(largest.to_le_bytes());
    // Revision of the entry point, and bytes of which it makes no use.
    bytes.extend([0; 6]);
    bytes.extend(b"_DMI_\0");
    bytes.extend(length.to_le_bytes());
    bytes.extend(address.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    // Revision 2.8, in decimal digits.
    bytes.push(0x28);
    complete(&mut bytes, INTERMEDIATE, INTERMEDIATE_CHECKSUM);
    complete(&mut bytes, 0, NARROW_CHECKSUM);
    bytes
}

/// The entry point of 3.0 (§5.2.2).
pub(super) fn wide(length: u32, address: u64) -> Vec<u8> {
    let mut bytes = b"_SM3_\0\x18\x03\x00\x00\x01\x00".to_vec();
    bytes.extend(length.to_le_bytes());
    bytes.extend(address.to_le_bytes());
    complete(&mut bytes, 0, WIDE_CHECKSUM);
    bytes
}

/// Makes all bytes from `start` on sum to zero by the one at `checksum`, which is zero.
fn complete(bytes: &mut [u8], start: usize, checksum: usize) {
    let sum = bytes.iter().skip(start).fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    if let Some(byte) = bytes.get_mut(checksum) {
        *byte = sum.wrapping_neg();
    }
}
