//! Dumps in the kdump-compressed format: each page compressed for itself, all zero pages stored once.
//!
//! Blocks of a page each: the header; the sub-header with the notes; two bitmaps of pages (those that exist, those that
//! are in the dump: here the same); a descriptor for each page; the pages.
//! Source: the disk dump format, version 6, as makedumpfile writes it and crash reads it.

mod compress;
mod lzo;
mod noise;
mod pages;

pub use compress::Compression;

use std::{ops::Range, time::UNIX_EPOCH};

use crate::{
    Error, PAGE, Place, Progress, Source, UtsName,
    memory::{check_pages, total},
    notes, report,
};

const SIGNATURE: &[u8; 8] = b"KDUMP   ";
const VERSION: u32 = 6;
/// Bytes of the header before the list of tasks, which stays empty.
const HEADER: usize = 464;
const SUB_HEADER: usize = 104;
/// Bytes of a page's descriptor.
const DESCRIPTOR: u64 = 24;
/// Frames that a block of a bitmap tells of.
const FRAMES_A_BLOCK: u64 = PAGE * 8;
/// Frames that are numbered at most: bitmaps of 64 TiB of addresses.
const MOST_FRAMES: u64 = 1 << 34;
/// Blocks of a bitmap that are written at once.
const BITMAP_RUN: u64 = 64;

/// Where the parts of a file stand, all in bytes.
struct Layout {
    /// Blocks of the sub-header and the notes.
    sub_header_blocks: u32,
    /// Blocks of both bitmaps.
    bitmap_blocks: u32,
    bitmaps: u64,
    descriptors: u64,
    pages: u64,
    frames: u64,
}

impl Layout {
    fn of(ranges: &[Range<u64>], notes: usize) -> Result<Self, Error> {
        let end = ranges.last().map_or(0, |range| range.end);
        let frames = end / PAGE;
        if frames > MOST_FRAMES {
            return Err(Error::TooHigh(end));
        }
        let sub_header = (SUB_HEADER as u64).saturating_add(notes as u64).div_ceil(PAGE);
        let sub_header_blocks = u32::try_from(sub_header).map_err(|_| Error::Notes(notes))?;
        let bitmap_blocks = u32::try_from(2 * frames.div_ceil(FRAMES_A_BLOCK)).map_err(|_| Error::TooHigh(end))?;
        let bitmaps = (1 + u64::from(sub_header_blocks)) * PAGE;
        let descriptors = bitmaps + u64::from(bitmap_blocks) * PAGE;
        let pages = descriptors + (total(ranges) / PAGE) * DESCRIPTOR;
        Ok(Self { sub_header_blocks, bitmap_blocks, bitmaps, descriptors, pages, frames })
    }
}

/// Writes a dump, compressing on several threads.
///
/// # Errors
///
/// If there is no memory, it cannot be read or described, the destination fails or progress calls it off.
pub fn write(
    source: &Source<'_>,
    compression: Compression,
    place: &mut dyn Place,
    progress: &mut Progress<'_>,
) -> Result<(), Error> {
    let ranges = source.memory.ranges();
    check_pages(ranges)?;
    let notes = notes::encode(source);
    let layout = Layout::of(ranges, notes.len())?;
    report(progress, 0)?;
    place.place(0, &header(source, compression, &layout))?;
    place.place(PAGE, &sub_header(source, &layout, &notes))?;
    bitmaps(ranges, &layout, place)?;
    pages::write(source.memory, compression, &layout, place, progress)?;
    Ok(place.finish()?)
}

/// Fields one after another, little-endian.
struct Fields(Vec<u8>);

impl Fields {
    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
}

fn header(source: &Source<'_>, compression: Compression, layout: &Layout) -> Vec<u8> {
    let Source { memory, processors, vmcoreinfo } = *source;
    let uts = vmcoreinfo.map_or_else(UtsName::unknown, |information| information.uts(memory, processors));
    let now = UNIX_EPOCH.elapsed().unwrap_or_default();
    let mut fields = Fields(Vec::with_capacity(PAGE as usize));
    fields.0.extend_from_slice(SIGNATURE);
    fields.u32(VERSION);
    fields.0.extend_from_slice(uts.as_bytes());
    fields.0.resize(408, 0); // the time is aligned to eight bytes
    fields.u64(now.as_secs());
    fields.u64(now.subsec_micros().into());
    fields.u32(compression.flag());
    fields.u32(PAGE as u32);
    fields.u32(layout.sub_header_blocks);
    fields.u32(layout.bitmap_blocks);
    // What does not fit is in the sub-header.
    fields.u32(u32::try_from(layout.frames).unwrap_or(u32::MAX));
    fields.u32(0); // total RAM, blocks of the device, blocks written: of no meaning since dumps are files
    fields.u32(0);
    fields.u32(0);
    fields.u32(0); // the processor that panicked: none did
    fields.u32(u32::try_from(processors.len()).unwrap_or(u32::MAX));
    debug_assert_eq!(fields.0.len(), HEADER);
    fields.0.resize(PAGE as usize, 0);
    fields.0
}

fn sub_header(source: &Source<'_>, layout: &Layout, notes: &[u8]) -> Vec<u8> {
    let Source { memory, processors, vmcoreinfo } = *source;
    let notes_at = PAGE + SUB_HEADER as u64;
    let information = vmcoreinfo.map(|information| {
        let text = information.text();
        (notes_at + notes::vmcoreinfo_offset(notes, text) as u64, text.len() as u64)
    });
    let (text_at, text_size) = information.unwrap_or_default();
    let base = vmcoreinfo.and_then(|information| information.phys_base(memory, processors)).unwrap_or_default();
    let mut fields = Fields(Vec::with_capacity(SUB_HEADER + notes.len()));
    fields.u64(base);
    fields.u32(1); // level of the dump: zero pages are left out, as the shared one
    fields.u32(0); // not split over files
    fields.u64(0); // first and last frame of a split
    fields.u64(0);
    fields.u64(text_at);
    fields.u64(text_size);
    fields.u64(notes_at);
    fields.u64(notes.len() as u64);
    fields.u64(0); // nothing was erased
    fields.u64(0);
    fields.u64(0); // first and last frame of a split, in 64 bits
    fields.u64(0);
    fields.u64(layout.frames);
    debug_assert_eq!(fields.0.len(), SUB_HEADER);
    fields.0.extend_from_slice(notes);
    fields.0.resize(layout.sub_header_blocks as usize * PAGE as usize, 0);
    fields.0
}

/// Both bitmaps: the same bits twice.
fn bitmaps(ranges: &[Range<u64>], layout: &Layout, place: &mut dyn Place) -> Result<(), Error> {
    let blocks = u64::from(layout.bitmap_blocks) / 2;
    for half in [0, blocks] {
        let mut block = 0;
        while block < blocks {
            let count = (blocks - block).min(BITMAP_RUN);
            let bits = bitmap(ranges, block * FRAMES_A_BLOCK, count);
            place.place(layout.bitmaps + (half + block) * PAGE, &bits)?;
            block += count;
        }
    }
    Ok(())
}

/// The bits of `blocks` blocks from the frame `first` on.
fn bitmap(ranges: &[Range<u64>], first: u64, blocks: u64) -> Vec<u8> {
    let mut bits = vec![0_u8; (blocks * PAGE) as usize];
    let end = first + blocks * FRAMES_A_BLOCK;
    for range in ranges {
        let mut frame = (range.start / PAGE).max(first);
        let stop = (range.end / PAGE).min(end);
        while frame < stop {
            let Some(byte) = bits.get_mut(((frame - first) / 8) as usize) else { break };
            if frame.is_multiple_of(8) && stop - frame >= 8 {
                *byte = 0xff;
                frame += 8;
            } else {
                *byte |= 1 << (frame % 8);
                frame += 1;
            }
        }
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_cannot_be_numbered_is_refused() {
        let far = MOST_FRAMES * PAGE;
        assert!(matches!(Layout::of(&[far..far + PAGE], 0), Err(Error::TooHigh(_))));
        assert!(Layout::of(&[far - PAGE..far], 0).is_ok());
        assert!(matches!(Layout::of(&[0..PAGE], 1 << 50), Err(Error::Notes(_))));
    }

    proptest! {
        #[test]
        fn a_bit_is_set_where_a_frame_is(a in 0_u64..40_000, b in 1_u64..40_000, c in 1_u64..40_000, d in 1_u64..40_000) {
            let frames = [a..a + b, a + b + c..a + b + c + d];
            let ranges = frames.clone().map(|range| range.start * PAGE..range.end * PAGE);
            let first = FRAMES_A_BLOCK;
            let bits = bitmap(&ranges, first, 2);
            for frame in first..first + 2 * FRAMES_A_BLOCK {
                let at = frame - first;
                let set = bits[(at / 8) as usize] >> (at % 8) & 1 == 1;
                assert_eq!(set, frames.iter().any(|range| range.contains(&frame)), "frame {frame}");
            }
        }
    }
}
