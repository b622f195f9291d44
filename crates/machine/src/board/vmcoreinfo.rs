//! Where a guest says where its kernel's description for dumps is: an item of the channel for firmware.
//!
//! Source: the published layout of the configuration item "etc/vmcoreinfo": 16 bytes, little-endian: what the host takes,
//! what the guest has written, size and address of an ELF note.

/// The item's name.
pub(super) const ITEM: &str = "etc/vmcoreinfo";
/// A note in an ELF core: what the host takes, and guests write.
const FORMAT_ELF: u16 = 1;

/// The item before a guest has written it.
pub(super) fn empty() -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&FORMAT_ELF.to_le_bytes());
    bytes
}

/// Address and size of the guest's note, if that is what the item says.
pub(super) fn note(item: &[u8]) -> Option<(u64, u64)> {
    let (head, address) = item.split_first_chunk::<8>()?;
    let [_, _, format_low, format_high, size @ ..] = *head;
    let address = u64::from_le_bytes(address.try_into().ok()?);
    let told = u16::from_le_bytes([format_low, format_high]) == FORMAT_ELF;
    told.then_some((address, u32::from_le_bytes(size).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_says_where_the_note_is_once_a_guest_has_written_it() {
        assert_eq!(note(&empty()), None);
        let written = [1, 0, 1, 0, 0x18, 0x10, 0, 0, 0, 0x40, 0x30, 2, 1, 0, 0, 0];
        assert_eq!(note(&written), Some((0x1_0230_4000, 0x1018)));
        assert_eq!(note(&written[..15]), None);
    }
}
