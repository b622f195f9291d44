//! Guest memory as a dump sees it: ranges of physical addresses that can be read.

use std::ops::Range;

use crate::Error;

/// Bytes of a page; all formats here count in them.
pub const PAGE: u64 = 4096;

/// Memory that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("guest memory at {0:#x} cannot be read")]
pub struct Unreadable(pub u64);

/// The guest's physical memory. Several threads read it at once.
pub trait Memory: Sync {
    /// Ranges of RAM, ascending, disjoint, made of whole pages.
    fn ranges(&self) -> &[Range<u64>];

    /// Copies memory from `address` on. All of it lies in one of the ranges, or this fails.
    ///
    /// # Errors
    ///
    /// If any of it is outside of RAM.
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable>;
}

/// The ranges of `memory` within `window`, in whole pages as they are.
#[must_use]
pub fn clip(ranges: &[Range<u64>], window: Option<&Range<u64>>) -> Vec<Range<u64>> {
    let whole = 0..u64::MAX;
    let window = window.unwrap_or(&whole);
    let cut = |range: &Range<u64>| range.start.max(window.start)..range.end.min(window.end);
    ranges.iter().map(cut).filter(|range| range.start < range.end).collect()
}

/// Bytes of the ranges together.
#[must_use]
pub fn total(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end.saturating_sub(range.start)).fold(0, u64::saturating_add)
}

/// Whether all bytes are zero.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    // Most pages that are not zero show it in their first words; the rest goes in blocks that the compiler makes wide.
    let (blocks, rest) = bytes.as_chunks::<64>();
    blocks.iter().all(|block| block.iter().fold(0, |sum, byte| sum | byte) == 0) && rest.iter().all(|&byte| byte == 0)
}

/// Refuses ranges that are empty, unordered or overlapping.
pub(crate) fn check_order(ranges: &[Range<u64>]) -> Result<(), Error> {
    let mut end = 0;
    for range in ranges {
        if range.start < end || range.end <= range.start {
            return Err(Error::Layout(range.start));
        }
        end = range.end;
    }
    if ranges.is_empty() { Err(Error::NoMemory) } else { Ok(()) }
}

/// Refuses ranges that are not made of whole pages.
pub(crate) fn check_pages(ranges: &[Range<u64>]) -> Result<(), Error> {
    check_order(ranges)?;
    match ranges.iter().find(|range| range.start % PAGE != 0 || range.end % PAGE != 0) {
        Some(range) => Err(Error::Layout(range.start)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_cuts_ranges_and_drops_those_outside() {
        let ranges = [0..0xa_0000, 0x10_0000..0x20_0000, 0x1_0000_0000..0x1_0001_0000];
        assert_eq!(clip(&ranges, Some(&(0x8_0000..0x18_0000))), [0x8_0000..0xa_0000, 0x10_0000..0x18_0000]);
        assert_eq!(clip(&ranges, None), ranges);
        assert!(clip(&ranges, Some(&(0xa_0000..0xb_0000))).is_empty());
    }

    #[test]
    fn one_set_bit_anywhere_is_not_zero() {
        let mut bytes = [0; 200];
        assert!(is_zero(&bytes));
        for at in 0..bytes.len() {
            bytes[at] = 0x10;
            assert!(!is_zero(&bytes), "at {at}");
            bytes[at] = 0;
        }
    }

    #[test]
    fn order_and_whole_pages_are_asked_for() {
        assert!(matches!(check_order(&[]), Err(Error::NoMemory)));
        assert!(matches!(check_order(&[0..8, 4..12]), Err(Error::Layout(4))));
        assert!(matches!(check_pages(&[0..8]), Err(Error::Layout(0))));
        assert!(check_pages(&[0..4096, 4096..8192]).is_ok());
    }
}
