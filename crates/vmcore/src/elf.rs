//! Dumps as ELF cores of 64 bits.
//!
//! Program headers follow the file header at once (makedumpfile reads them at offset 64 only), then the notes, then memory
//! from the next page on. Without paging each range of RAM is one segment at its physical address. With paging segments
//! are what the processors' page tables map, all pointing into the same copy of memory.
//! Source: System V ABI, "ELF Header", "Program Header"; extended numbering (`PN_XNUM`) as core files use it.

use std::ops::Range;

use crate::{
    Error, Mapping, Mappings, PAGE, Progress, Sink, Source, clip, is_zero, memory::check_order, notes, report,
};

const HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
const SECTION_HEADER: u64 = 64;
const ET_CORE: u16 = 4;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Read, write and execute: what the guest may do with its memory is not said.
const FLAGS: u32 = 7;
/// Number of program headers that means: it is in the first section header.
const PN_XNUM: u16 = 0xffff;
/// Bytes copied at a time: small enough to stay in a processor's cache.
const CHUNK: usize = 256 * 1024;
/// Zeros shorter than this are written: a hole costs a file system more than it saves.
const HOLE: usize = 4096;

/// Which memory is written, and at which addresses.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// Only physical addresses in this window; all when absent.
    pub window: Option<Range<u64>>,
    /// At virtual addresses, as the processors' page tables say.
    pub paging: bool,
}

/// Writes a core.
///
/// # Errors
///
/// If there is no memory in the window, memory cannot be read, the destination fails or progress calls it off.
pub fn write(
    source: &Source<'_>,
    layout: &Layout,
    sink: &mut dyn Sink,
    progress: &mut Progress<'_>,
) -> Result<(), Error> {
    let ranges = clip(source.memory.ranges(), layout.window.as_ref());
    check_order(&ranges)?;
    let notes = notes::encode(source);
    let note_size = u64::try_from(notes.len()).map_err(|_| Error::Notes(notes.len()))?;
    report(progress, 0)?;

    let segments = if layout.paging {
        let mappings = Mappings::of(source.memory, source.processors);
        if mappings.truncated() {
            tracing::warn!(
                "the guest maps more than a dump describes; what is left out is there at physical addresses"
            );
        }
        virtual_segments(&ranges, mappings.as_slice())
    } else {
        physical_segments(&ranges)
    };
    let headers = segments.len() as u64 + 1;
    let sections = u64::from(headers >= u64::from(PN_XNUM));
    let section_at = HEADER + headers * PROGRAM_HEADER;
    let notes_at = section_at + sections * SECTION_HEADER;
    let memory_at = (notes_at + note_size).next_multiple_of(PAGE);

    let mut head = Head::new(sink);
    file_header(&mut head, headers, if sections == 0 { 0 } else { section_at });
    program_header(&mut head, PT_NOTE, notes_at, 0, 0, note_size)?;
    for segment in &segments {
        let offset = memory_at.saturating_add(segment.offset);
        program_header(&mut head, PT_LOAD, offset, segment.virtual_address, segment.physical_address, segment.length)?;
    }
    if sections != 0 {
        section_header(&mut head, headers)?;
    }
    head.bytes(&notes);
    head.flush()?;
    sink.put(&[0; PAGE as usize][..(memory_at - notes_at - note_size) as usize])?;
    memory(source, &ranges, sink, progress)?;
    Ok(sink.finish()?)
}

/// A segment whose offset counts from the first byte of memory in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Load {
    offset: u64,
    virtual_address: u64,
    physical_address: u64,
    length: u64,
}

/// Each range with the offset that its memory gets.
fn placed(ranges: &[Range<u64>]) -> impl Iterator<Item = (u64, &Range<u64>)> {
    ranges.iter().scan(0_u64, |next, range| {
        let offset = *next;
        *next = next.saturating_add(range.end - range.start);
        Some((offset, range))
    })
}

fn physical_segments(ranges: &[Range<u64>]) -> Vec<Load> {
    let load = |(offset, range): (u64, &Range<u64>)| Load {
        offset,
        virtual_address: 0,
        physical_address: range.start,
        length: range.end - range.start,
    };
    placed(ranges).map(load).collect()
}

/// What is mapped, and after that what no page table reaches: still there for who reads physical addresses.
fn virtual_segments(ranges: &[Range<u64>], mappings: &[Mapping]) -> Vec<Load> {
    let placed: Vec<(u64, &Range<u64>)> = placed(ranges).collect();
    let mut loads = Vec::new();
    let mut reached = Vec::new();
    for mapping in mappings {
        let end = mapping.physical.saturating_add(mapping.length);
        // Ranges ascend: the first that ends beyond the mapping's start, and those that begin before its end.
        let first = placed.partition_point(|(_, range)| range.end <= mapping.physical);
        for (offset, range) in placed.iter().skip(first).take_while(|(_, range)| range.start < end) {
            let (start, end) = (range.start.max(mapping.physical), range.end.min(end));
            reached.push(start..end);
            loads.push(Load {
                offset: offset.saturating_add(start - range.start),
                virtual_address: mapping.virtual_address.wrapping_add(start - mapping.physical),
                physical_address: start,
                length: end - start,
            });
        }
    }
    reached.sort_unstable_by_key(|part| part.start);
    let mut parts = reached.into_iter().peekable();
    for (offset, range) in placed {
        let mut at = range.start;
        let mut rest = |from: u64, to: u64| {
            if from < to {
                loads.push(Load {
                    offset: offset.saturating_add(from - range.start),
                    virtual_address: 0,
                    physical_address: from,
                    length: to - from,
                });
            }
        };
        while let Some(part) = parts.next_if(|part| part.start < range.end) {
            rest(at, part.start);
            at = at.max(part.end);
        }
        rest(at, range.end);
    }
    loads
}

/// Collects headers into larger writes.
struct Head<'a> {
    bytes: Vec<u8>,
    sink: &'a mut dyn Sink,
}

impl<'a> Head<'a> {
    fn new(sink: &'a mut dyn Sink) -> Self {
        Self { bytes: Vec::with_capacity(64 * 1024), sink }
    }

    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes what is there, once it is worth a write.
    fn drain(&mut self) -> Result<(), Error> {
        if self.bytes.len() >= 48 * 1024 { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.sink.put(&self.bytes)?;
        self.bytes.clear();
        Ok(())
    }
}

fn file_header(head: &mut Head<'_>, headers: u64, sections_at: u64) {
    // Class 64 bits, little-endian, version 1, System V.
    head.bytes(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    head.u16(ET_CORE);
    head.u16(EM_X86_64);
    head.u32(1);
    head.u64(0); // no entry
    head.u64(HEADER);
    head.u64(sections_at);
    head.u32(0);
    head.u16(HEADER as u16);
    head.u16(PROGRAM_HEADER as u16);
    head.u16(u16::try_from(headers).unwrap_or(PN_XNUM));
    head.u16(SECTION_HEADER as u16);
    head.u16(u16::from(sections_at != 0));
    head.u16(0); // no names of sections
}

fn program_header(
    head: &mut Head<'_>,
    kind: u32,
    offset: u64,
    virtual_address: u64,
    physical_address: u64,
    length: u64,
) -> Result<(), Error> {
    head.u32(kind);
    head.u32(if kind == PT_LOAD { FLAGS } else { 0 });
    head.u64(offset);
    head.u64(virtual_address);
    head.u64(physical_address);
    head.u64(length); // in the file
    head.u64(length); // in memory
    head.u64(if kind == PT_LOAD { 0 } else { 4 });
    head.drain()
}

/// The first section header: holds the number of program headers that the file header cannot.
fn section_header(head: &mut Head<'_>, headers: u64) -> Result<(), Error> {
    head.u32(0);
    head.u32(0);
    for _ in 0..4 {
        head.u64(0);
    }
    head.u32(0); // link
    // Mappings are bounded far below this.
    head.u32(u32::try_from(headers).unwrap_or(u32::MAX));
    head.u64(0);
    head.u64(0);
    head.drain()
}

/// Memory itself, zeros as such.
fn memory(
    source: &Source<'_>,
    ranges: &[Range<u64>],
    sink: &mut dyn Sink,
    progress: &mut Progress<'_>,
) -> Result<(), Error> {
    let mut buffer = vec![0; CHUNK];
    let mut done = 0_u64;
    let mut zeros = 0_u64;
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let size = (range.end - at).min(CHUNK as u64);
            let Some(chunk) = buffer.get_mut(..size as usize) else { break };
            source.memory.read(at, chunk)?;
            for run in runs(chunk) {
                if run.zero {
                    zeros += run.bytes.len() as u64;
                    continue;
                }
                if zeros > 0 {
                    sink.zeros(std::mem::take(&mut zeros))?;
                }
                sink.put(run.bytes)?;
            }
            at += size;
            done += size;
            report(progress, done)?;
        }
    }
    if zeros > 0 {
        sink.zeros(zeros)?;
    }
    Ok(())
}

/// Bytes that are all zero, or not to be looked at closer.
struct Run<'a> {
    zero: bool,
    bytes: &'a [u8],
}

/// A chunk in runs of zero blocks and of others, as long as they get.
fn runs(chunk: &[u8]) -> impl Iterator<Item = Run<'_>> {
    let mut rest = chunk;
    std::iter::from_fn(move || {
        let mut blocks = rest.chunks(HOLE).map(|block| (is_zero(block), block.len()));
        let (zero, mut length) = blocks.next()?;
        length += blocks.take_while(|(next, _)| *next == zero).map(|(_, length)| length).sum::<usize>();
        let (bytes, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(Run { zero, bytes })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_as_long_as_they_get_and_lose_nothing() {
        let mut chunk = vec![0; 5 * HOLE + 10];
        chunk[HOLE] = 1;
        chunk[3 * HOLE - 1] = 1;
        chunk[5 * HOLE + 9] = 1;
        let got: Vec<(bool, usize)> = runs(&chunk).map(|run| (run.zero, run.bytes.len())).collect();
        assert_eq!(got, [(true, HOLE), (false, 2 * HOLE), (true, 2 * HOLE), (false, 10)]);
    }

    #[test]
    fn memory_that_no_page_table_reaches_keeps_a_segment() {
        let ranges = [0x1000..0x5000, 0x8000..0x9000];
        let mapping = Mapping { virtual_address: 0xffff_8000_0000_0000, physical: 0x2000, length: 0x6800 };
        let loads = virtual_segments(&ranges, &[mapping]);
        let load = |offset, virtual_address, physical_address, length| Load {
            offset,
            virtual_address,
            physical_address,
            length,
        };
        assert_eq!(
            loads,
            [
                load(0x1000, 0xffff_8000_0000_0000, 0x2000, 0x3000),
                load(0x4000, 0xffff_8000_0000_6000, 0x8000, 0x800),
                load(0, 0, 0x1000, 0x1000),
                load(0x4800, 0, 0x8800, 0x800),
            ]
        );
    }
}
