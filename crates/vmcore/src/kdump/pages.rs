//! Pages and their descriptors: compressed on several threads, written in order.
//!
//! Threads take batches in turn and hand each over through a queue of their own; the writer empties the queues in the same
//! turn. Memory is bounded by the queues, order needs no sorting, and a writer that gives up ends the threads.

use std::{
    iter,
    ops::Range,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use super::{Compression, DESCRIPTOR, Layout, compress};
use crate::{Error, Memory, PAGE, Place, Progress, Unreadable, is_zero, report};

/// Pages of a batch.
const BATCH: u64 = 64;
/// Batches that wait for the writer, a thread.
const QUEUE: usize = 4;
/// More threads than this wait for the writer rather than for each other.
const MOST_THREADS: usize = 16;

/// Pages of a batch, compressed.
struct Batch {
    /// Bytes of those that are stored, one after another.
    bytes: Vec<u8>,
    pages: Vec<Page>,
}

/// How a page is stored.
#[derive(Clone, Copy)]
enum Page {
    /// All zero: as all others of that kind.
    Zero,
    /// As it is.
    Plain,
    /// Compressed to so many bytes.
    Compressed(u32),
}

/// All batches: first address and number of pages.
fn batches(ranges: &[Range<u64>]) -> impl Iterator<Item = Range<u64>> {
    ranges.iter().flat_map(|range| {
        let end = range.end;
        iter::successors(Some(range.start), move |start| start.checked_add(BATCH * PAGE))
            .take_while(move |start| *start < end)
            .map(move |start| start..start.saturating_add(BATCH * PAGE).min(end))
    })
}

/// Writes descriptors and pages of all memory.
pub(super) fn write(
    memory: &dyn Memory,
    compression: Compression,
    layout: &Layout,
    place: &mut dyn Place,
    progress: &mut Progress<'_>,
) -> Result<(), Error> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    thread::scope(|scope| {
        let mut queues = Vec::with_capacity(threads);
        for turn in 0..threads {
            let (send, receive) = sync_channel(QUEUE);
            thread::Builder::new().name(format!("dump {turn}")).spawn_scoped(scope, move || {
                produce(memory, compression, batches(memory.ranges()).skip(turn).step_by(threads), &send);
            })?;
            queues.push(receive);
        }
        // Dropping the queues, on success or not, lets the threads end.
        consume(memory, compression, layout, &queues, place, progress)
    })
}

fn produce(
    memory: &dyn Memory,
    compression: Compression,
    batches: impl Iterator<Item = Range<u64>>,
    send: &SyncSender<Result<Batch, Unreadable>>,
) {
    let mut compressor = compression.compressor();
    let mut raw = vec![0; (BATCH * PAGE) as usize];
    let mut room = Vec::new();
    for batch in batches {
        let Some(raw) = raw.get_mut(..(batch.end - batch.start) as usize) else { return };
        let read = memory.read(batch.start, raw).map(|()| squeeze(raw, &mut compressor, &mut room));
        let failed = read.is_err();
        if send.send(read).is_err() || failed {
            return;
        }
    }
}

fn squeeze(raw: &[u8], compressor: &mut compress::Compressor, room: &mut Vec<u8>) -> Batch {
    let mut batch = Batch { bytes: Vec::new(), pages: Vec::with_capacity(BATCH as usize) };
    for page in raw.chunks_exact(PAGE as usize) {
        if is_zero(page) {
            batch.pages.push(Page::Zero);
            continue;
        }
        if compressor.page(page, room) {
            batch.bytes.extend_from_slice(room);
            batch.pages.push(Page::Compressed(room.len() as u32));
        } else {
            batch.bytes.extend_from_slice(page);
            batch.pages.push(Page::Plain);
        }
    }
    batch
}

fn consume(
    memory: &dyn Memory,
    compression: Compression,
    layout: &Layout,
    queues: &[Receiver<Result<Batch, Unreadable>>],
    place: &mut dyn Place,
    progress: &mut Progress<'_>,
) -> Result<(), Error> {
    // The page of zeros that all share comes first.
    let zero_at = layout.pages;
    place.place(zero_at, &[0; PAGE as usize])?;
    let mut page_at = zero_at + PAGE;
    let mut descriptor_at = layout.descriptors;
    let mut done = 0;
    let mut descriptors = Vec::with_capacity((BATCH * DESCRIPTOR) as usize);
    for (addresses, queue) in batches(memory.ranges()).zip(queues.iter().cycle()) {
        let Ok(batch) = queue.recv() else { return Err(Unreadable(addresses.start).into()) };
        let batch = batch?;
        let start = page_at;
        descriptors.clear();
        for page in batch.pages {
            let (at, size, flag) = match page {
                Page::Zero => (zero_at, PAGE as u32, 0),
                Page::Plain => (page_at, PAGE as u32, 0),
                Page::Compressed(size) => (page_at, size, compression.flag()),
            };
            if !matches!(page, Page::Zero) {
                page_at = page_at.saturating_add(size.into());
            }
            descriptors.extend_from_slice(&at.to_le_bytes());
            descriptors.extend_from_slice(&size.to_le_bytes());
            descriptors.extend_from_slice(&flag.to_le_bytes());
            descriptors.extend_from_slice(&0_u64.to_le_bytes()); // flags of the page's owner: not known
        }
        place.place(descriptor_at, &descriptors)?;
        descriptor_at = descriptor_at.saturating_add(descriptors.len() as u64);
        if !batch.bytes.is_empty() {
            place.place(start, &batch.bytes)?;
        }
        done += addresses.end - addresses.start;
        report(progress, done)?;
    }
    Ok(())
}
