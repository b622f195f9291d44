//! A guest for tests: memory with some content, and who reads it.

use std::ops::Range;

use proptest::prelude::*;
use rhea_vmcore::{Memory, PAGE, Unreadable};

/// Memory in pieces, all readable.
#[derive(Debug, Clone)]
pub struct Ram {
    ranges: Vec<Range<u64>>,
    pieces: Vec<Vec<u8>>,
}

impl Ram {
    pub fn new(pieces: Vec<(u64, Vec<u8>)>) -> Self {
        let range = |(start, bytes): &(u64, Vec<u8>)| *start..start + bytes.len() as u64;
        Self {
            ranges: pieces.iter().map(range).collect(),
            pieces: pieces.into_iter().map(|(_, bytes)| bytes).collect(),
        }
    }

    pub fn pieces(&self) -> impl Iterator<Item = (&Range<u64>, &[u8])> {
        self.ranges.iter().zip(self.pieces.iter().map(Vec::as_slice))
    }
}

impl Memory for Ram {
    fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        let end = address.checked_add(into.len() as u64).ok_or(Unreadable(address))?;
        let (range, piece) =
            self.pieces().find(|(range, _)| range.start <= address && end <= range.end).ok_or(Unreadable(address))?;
        into.copy_from_slice(&piece[(address - range.start) as usize..][..into.len()]);
        Ok(())
    }
}

/// A page of some kind: zero, all one byte, text that compresses, noise that does not.
fn page() -> impl Strategy<Value = Vec<u8>> {
    let size = PAGE as usize;
    prop_oneof![
        2 => Just(vec![0; size]),
        1 => any::<u8>().prop_map(move |byte| vec![byte; size]),
        2 => any::<u32>().prop_map(move |seed| (0..size as u32).map(|at| (at.wrapping_mul(seed | 1) >> 11) as u8 & 0x1f).collect()),
        2 => any::<u64>().prop_map(move |seed| noise(seed).take(size).collect()),
        1 => (any::<u8>(), 0..size).prop_map(move |(byte, at)| {
            let mut page = vec![0; size];
            page[at] = byte;
            page
        }),
    ]
}

/// Bytes that nothing compresses.
pub fn noise(seed: u64) -> impl Iterator<Item = u8> {
    std::iter::successors(Some(seed | 1), |state| {
        let state = state ^ state << 13;
        let state = state ^ state >> 7;
        Some(state ^ state << 17)
    })
    .map(|state| (state >> 24) as u8)
}

/// Up to four ranges of memory, somewhere.
pub fn ram() -> impl Strategy<Value = Ram> {
    let piece = (0_u64..100_000, proptest::collection::vec(page(), 1..90));
    proptest::collection::vec(piece, 1..4).prop_map(|pieces| {
        let mut next = 0;
        let place = |(gap, pages): (u64, Vec<Vec<u8>>)| {
            let start = next + gap * PAGE;
            next = start + pages.len() as u64 * PAGE;
            (start, pages.concat())
        };
        Ram::new(pieces.into_iter().map(place).collect())
    })
}

/// What a kernel would say of itself.
pub const VMCOREINFO: &[u8] = b"OSRELEASE=6.1.0-test\nPAGESIZE=4096\nNUMBER(phys_base)=23068672\n";
