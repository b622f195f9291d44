//! Bytes between guest RAM and files of the host, without a copy.
//!
//! The host's kernel reads and writes guest memory by its addresses, so this may be unsafe.
#![allow(unsafe_code)]

use std::{cell::RefCell, fs::File, io, os::fd::AsRawFd as _};

use vm_memory::{VolatileSlice, bitmap::Bitmap as _};

use super::WriteLogSlice;

/// A part of guest RAM.
pub type GuestSlice<'a> = VolatileSlice<'a, WriteLogSlice<'a>>;

/// The most parts that the host takes at once (`IOV_MAX` of Linux).
const MOST_PARTS: usize = 1024;
/// What is copied at once where there is no other way.
const CHUNK: usize = 1 << 20;

/// Bytes of all parts.
pub fn length(parts: &[GuestSlice<'_>]) -> u64 {
    parts.iter().map(|part| part.len() as u64).sum()
}

#[derive(Clone, Copy)]
enum Direction {
    FromFile,
    ToFile,
}

/// Has the kernel move bytes at `offset` of `file`, beginning with byte `skip` of the first of `parts`.
fn step(file: &File, offset: u64, parts: &[GuestSlice<'_>], skip: usize, direction: Direction) -> io::Result<usize> {
    let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // The guards keep the memory where it is.
    let guards: Vec<_> = parts.iter().take(MOST_PARTS).map(|part| (part.ptr_guard_mut(), part.len())).collect();
    let mut vectors: Vec<libc::iovec> = guards
        .iter()
        .map(|(guard, length)| libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: *length })
        .collect();
    if let Some(first) = vectors.first_mut() {
        let skip = skip.min(first.iov_len);
        first.iov_base = first.iov_base.wrapping_byte_add(skip);
        first.iov_len -= skip;
    }
    let count = vectors.len() as i32;
    // SAFETY: each vector is a part of guest RAM that `parts` keeps mapped, and which nobody takes for memory that only
    // one thread touches; the kernel bears concurrent writes to it. The descriptor is open.
    let moved = unsafe {
        match direction {
            Direction::FromFile => libc::preadv(file.as_raw_fd(), vectors.as_ptr(), count, offset),
            Direction::ToFile => libc::pwritev(file.as_raw_fd(), vectors.as_ptr(), count, offset),
        }
    };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}

fn move_all(file: &File, offset: u64, parts: &[GuestSlice<'_>], direction: Direction) -> io::Result<()> {
    let (mut at, mut left, mut skip) = (offset, parts, 0);
    while let Some(first) = left.first() {
        if first.len() == skip {
            left = left.get(1..).unwrap_or(&[]);
            skip = 0;
            continue;
        }
        match step(file, at, left, skip, direction) {
            // Behind the end of a file there are zeros.
            Ok(0) if matches!(direction, Direction::FromFile) => return clear(left, skip),
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(moved) => {
                at += moved as u64;
                let mut moved = moved;
                while moved > 0 {
                    let Some(part) = left.first() else { break };
                    let done = moved.min(part.len() - skip);
                    if matches!(direction, Direction::FromFile) {
                        part.bitmap().mark_dirty(skip, done);
                    }
                    moved -= done;
                    skip += done;
                    if skip == part.len() {
                        left = left.get(1..).unwrap_or(&[]);
                        skip = 0;
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn clear(parts: &[GuestSlice<'_>], mut skip: usize) -> io::Result<()> {
    let zeros = [0_u8; 4096];
    for part in parts {
        while skip < part.len() {
            let piece = part.offset(skip).map_err(io::Error::other)?;
            let count = piece.len().min(zeros.len());
            piece.copy_from(zeros.get(..count).unwrap_or(&[]));
            skip += count;
        }
        skip = 0;
    }
    Ok(())
}

/// Fills parts of guest RAM with what is at `offset` of `file`, and with zeros behind its end.
///
/// # Errors
/// What the host says.
pub fn read_at(file: &File, offset: u64, into: &[GuestSlice<'_>]) -> io::Result<()> {
    move_all(file, offset, into, Direction::FromFile)
}

/// Writes parts of guest RAM to `offset` of `file`.
///
/// # Errors
/// What the host says.
pub fn write_at(file: &File, offset: u64, from: &[GuestSlice<'_>]) -> io::Result<()> {
    move_all(file, offset, from, Direction::ToFile)
}

thread_local! {
    /// What is on its way between guest RAM and something that is no plain file.
    static ON_THE_WAY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Goes through parts of guest RAM in pieces that are copied: `work` gets the place, counted from the beginning, and a
/// buffer, between which and the guest the bytes go in the direction that `to_guest` says.
fn in_pieces(
    parts: &[GuestSlice<'_>],
    to_guest: bool,
    mut work: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    let total = length(parts);
    // Taken, not borrowed: the work may come here again.
    let mut memory = ON_THE_WAY.with(RefCell::take);
    let mut one = |offset: u64, piece: &mut [u8]| -> io::Result<()> {
        if to_guest {
            work(offset, piece)?;
            scatter(parts, offset, piece);
            return Ok(());
        }
        gather(parts, offset, piece);
        work(offset, piece)
    };
    let mut result = Ok(());
    let mut offset = 0;
    while offset < total && result.is_ok() {
        let count = (total - offset).min(CHUNK as u64) as usize;
        if memory.len() < count {
            memory.resize(count, 0);
        }
        result = one(offset, memory.get_mut(..count).unwrap_or(&mut []));
        offset += count as u64;
    }
    ON_THE_WAY.with(|kept| kept.replace(memory));
    result
}

/// The parts of `parts` from byte `offset` on, each with the range of `buffer` that belongs to it.
fn overlaps<'a, 'b>(
    parts: &'b [GuestSlice<'a>],
    offset: u64,
    length: usize,
) -> impl Iterator<Item = (GuestSlice<'a>, std::ops::Range<usize>)> + use<'a, 'b> {
    let (mut before, mut done) = (0_u64, 0);
    parts.iter().filter_map(move |part| {
        let start = offset.saturating_add(done as u64).saturating_sub(before) as usize;
        before += part.len() as u64;
        if start >= part.len() || done >= length {
            return None;
        }
        let count = (part.len() - start).min(length - done);
        let piece = part.subslice(start, count).ok()?;
        done += count;
        Some((piece, done - count..done))
    })
}

fn scatter(parts: &[GuestSlice<'_>], offset: u64, from: &[u8]) {
    for (part, range) in overlaps(parts, offset, from.len()) {
        part.copy_from(from.get(range).unwrap_or(&[]));
    }
}

fn gather(parts: &[GuestSlice<'_>], offset: u64, into: &mut [u8]) {
    for (part, range) in overlaps(parts, offset, into.len()) {
        part.copy_to(into.get_mut(range).unwrap_or(&mut []));
    }
}

/// Fills parts of guest RAM with what `read` gives: it is called with a place, counted from the beginning, and what to fill.
///
/// # Errors
/// That of `read`.
pub fn fill(into: &[GuestSlice<'_>], read: impl FnMut(u64, &mut [u8]) -> io::Result<()>) -> io::Result<()> {
    in_pieces(into, true, read)
}

/// Gives what is in parts of guest RAM to `write`, with its place counted from the beginning.
///
/// # Errors
/// That of `write`.
pub fn drain(from: &[GuestSlice<'_>], mut write: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
    in_pieces(from, false, |offset, piece| write(offset, piece))
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::fs::FileExt as _, sync::Arc};

    use proptest::prelude::*;
    use vm_memory::{GuestAddress, GuestMemoryBackend as _};

    use super::*;
    use crate::memory::{AddressSpace, Dma, Ram, Target};

    fn memory() -> (Arc<AddressSpace>, Arc<Dma>) {
        let space = Arc::new(AddressSpace::new());
        let ram = Ram::new("test", 0x40_0000).unwrap();
        space.map(0, 0x40_0000, 0, Target::Ram { ram, offset: 0, writable: true });
        let dma = Dma::new(Arc::clone(&space));
        (space, dma)
    }

    fn file(bytes: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!("rhea-transfer-{:?}", std::thread::current().id()));
        let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn bytes_go_to_their_parts_with_and_without_a_copy(
            cuts in prop::collection::vec((0_u64..0x3f_0000, 0_usize..5000), 0..40),
            offset in 0_u64..3000,
            size in 0_usize..60_000,
        ) {
            let (space, dma) = memory();
            let bytes: Vec<u8> = (0..size).map(|index| (index * 7 + index / 256) as u8).collect();
            let file = file(&bytes);
            let ram = dma.memory();
            // Parts that do not meet: each in its own page and more.
            let cuts: Vec<(u64, usize)> =
                cuts.iter().enumerate().map(|(index, (_, length))| (index as u64 * 8192, *length)).collect();
            let parts: Vec<_> = cuts.iter().flat_map(|(address, length)| ram.get_slices(GuestAddress(*address), *length)).map(Result::unwrap).collect();
            let total: usize = cuts.iter().map(|(_, length)| length).sum();
            prop_assert_eq!(length(&parts), total as u64);
            let expected: Vec<u8> = (0..total).map(|index| bytes.get(offset as usize + index).copied().unwrap_or(0)).collect();
            for copied in [false, true] {
                for (address, length) in &cuts {
                    space.write(*address, &vec![0xee; *length]);
                }
                if copied {
                    fill(&parts, |at, piece| {
                        piece.copy_from_slice(&expected[at as usize..][..piece.len()]);
                        Ok(())
                    }).unwrap();
                } else {
                    read_at(&file, offset, &parts).unwrap();
                }
                let mut seen = Vec::new();
                drain(&parts, |at, piece| {
                    assert_eq!(at as usize, seen.len());
                    seen.extend_from_slice(piece);
                    Ok(())
                }).unwrap();
                let wrong = seen.iter().zip(&expected).position(|(seen, expected)| seen != expected);
                prop_assert_eq!((wrong, seen.len(), copied), (None, total, copied));
            }
            write_at(&file, 100, &parts).unwrap();
            let mut back = vec![0; total];
            file.read_exact_at(&mut back, 100).unwrap();
            prop_assert!(back == expected);
        }
    }
}
