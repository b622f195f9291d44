//! kdump-compressed files, read back by a small reader written from the format alone.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::single_range_in_vec_init, reason = "a memory of one range is what is meant")]

mod support;

use std::{
    io::{self, Cursor, Write},
    ops::ControlFlow,
};

use proptest::prelude::*;
use rhea_vmcore::{
    Error, Flattened, Memory, PAGE, Place, Processor, Raw, Source, Unreadable, Vmcoreinfo,
    kdump::{self, Compression},
};
use support::{Ram, VMCOREINFO};

const ALL: [Compression; 3] = [Compression::Zlib, Compression::Lzo, Compression::Snappy];

fn go_on(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn write(memory: &dyn Memory, compression: Compression, place: &mut dyn Place) -> Result<(), Error> {
    let information = Vmcoreinfo::from_text(VMCOREINFO);
    let processors = [Processor { rip: 77, ..Processor::default() }];
    let source = Source { memory, processors: &processors, vmcoreinfo: information.as_ref() };
    kdump::write(&source, compression, place, &mut go_on)
}

fn raw(memory: &dyn Memory, compression: Compression) -> Vec<u8> {
    let mut raw = Raw::new(Cursor::new(Vec::new()));
    write(memory, compression, &mut raw).unwrap();
    raw.into_inner().into_inner()
}

fn flattened(memory: &dyn Memory, compression: Compression) -> Vec<u8> {
    let mut flattened = Flattened::new(Vec::new()).unwrap();
    write(memory, compression, &mut flattened).unwrap();
    flattened.into_inner()
}

fn u32_at(file: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(file[at..at + 4].try_into().unwrap())
}

fn u64_at(file: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(file[at..at + 8].try_into().unwrap())
}

/// Puts the records of a flattened stream where they belong.
fn rearrange(stream: &[u8]) -> Vec<u8> {
    let number = |at: usize| i64::from_be_bytes(stream[at..at + 8].try_into().unwrap());
    assert_eq!(&stream[..16], b"makedumpfile\0\0\0\0");
    assert_eq!((number(16), number(24)), (1, 1));
    let mut file = Vec::new();
    let mut at = 4096;
    while number(at) >= 0 {
        let (offset, size) = (number(at) as usize, number(at + 8) as usize);
        file.resize(file.len().max(offset + size), 0);
        file[offset..offset + size].copy_from_slice(&stream[at + 16..][..size]);
        at += 16 + size;
    }
    assert_eq!((number(at), number(at + 8), at + 16), (-1, -1, stream.len()));
    file
}

/// The page of a frame as a reader finds it, or none where the dump has none.
struct Reader<'a> {
    file: &'a [u8],
    /// Frames below each byte of the second bitmap.
    ranks: Vec<u64>,
}

impl<'a> Reader<'a> {
    fn new(file: &'a [u8]) -> Self {
        let mut reader = Reader { file, ranks: Vec::new() };
        let mut rank = 0;
        for at in 0..reader.bitmap_size() {
            reader.ranks.push(rank);
            rank += u64::from(reader.bitmap(1)[at].count_ones());
        }
        reader
    }

    fn bitmap_size(&self) -> usize {
        u32_at(self.file, 436) as usize / 2 * 4096
    }

    fn bitmap(&self, number: usize) -> &'a [u8] {
        let start = (1 + u32_at(self.file, 432) as usize) * 4096;
        &self.file[start + number * self.bitmap_size()..][..self.bitmap_size()]
    }

    fn page(&self, frame: u64) -> Option<Vec<u8>> {
        let at = (frame / 8) as usize;
        let byte = *self.bitmap(1).get(at)?;
        if byte >> (frame % 8) & 1 == 0 {
            return None;
        }
        let below = self.ranks[at] + u64::from((byte & ((1 << (frame % 8)) - 1)).count_ones());
        let table = (1 + u32_at(self.file, 432) + u32_at(self.file, 436)) as usize * 4096;
        let descriptor = table + below as usize * 24;
        let offset = u64_at(self.file, descriptor) as usize;
        let stored = &self.file[offset..][..u32_at(self.file, descriptor + 8) as usize];
        let mut page = vec![0; 4096];
        let size = match u32_at(self.file, descriptor + 12) {
            0 => return Some(stored.to_vec()),
            1 => {
                let mut zlib = flate2::Decompress::new(true);
                zlib.decompress(stored, &mut page, flate2::FlushDecompress::Finish).unwrap();
                zlib.total_out() as usize
            }
            2 => lzokay::decompress::decompress(stored, &mut page).unwrap(),
            4 => snap::raw::Decoder::new().decompress(stored, &mut page).unwrap(),
            other => panic!("flags {other:#x}"),
        };
        assert_eq!(size, 4096);
        Some(page)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn each_page_comes_back_in_each_format_and_form(ram in support::ram()) {
        for compression in ALL {
            let file = raw(&ram, compression);
            let rearranged = rearrange(&flattened(&ram, compression));
            // The time of the dump may differ.
            assert!(file[424..] == rearranged[424..] && file[..408] == rearranged[..408]);
            let reader = Reader::new(&file);
            assert_eq!(reader.bitmap(0), reader.bitmap(1));
            let mut frames = 0;
            for (range, bytes) in ram.pieces() {
                for (frame, page) in (range.start / PAGE..).zip(bytes.chunks(PAGE as usize)) {
                    assert_eq!(reader.page(frame).as_deref(), Some(page), "frame {frame:#x}");
                    frames += 1;
                }
                assert_eq!(reader.page(range.end / PAGE).is_some(), ram.ranges().iter().any(|other| other.start == range.end));
            }
            let set: u32 = reader.bitmap(1).iter().map(|byte| byte.count_ones()).sum();
            assert_eq!(u64::from(set), frames);
        }
    }
}

#[test]
fn headers_say_what_readers_look_for() {
    let ram = Ram::new(vec![(0, vec![0; 0xa_0000]), (0x10_0000, vec![5; 0x10_0000])]);
    let file = raw(&ram, Compression::Snappy);
    assert_eq!(&file[..8], b"KDUMP   ");
    assert_eq!(u32_at(&file, 8), 6);
    assert_eq!(&file[12..18], b"Linux\0");
    assert_eq!(&file[12 + 130..][..11], b"6.1.0-test\0");
    assert_eq!(&file[12 + 260..][..7], b"x86_64\0");
    assert_eq!([424, 428, 436, 440, 460].map(|at| u32_at(&file, at)), [4, 4096, 2, 0x200, 1]);
    assert_eq!(u64_at(&file, 4096), 23_068_672);
    let text = u64_at(&file, 4096 + 32) as usize;
    assert_eq!(&file[text..text + u64_at(&file, 4096 + 40) as usize], VMCOREINFO);
    let notes = u64_at(&file, 4096 + 48) as usize;
    assert_eq!((u32_at(&file, notes), u32_at(&file, notes + 4), u32_at(&file, notes + 8)), (5, 336, 1));
    assert_eq!(u64_at(&file, 4096 + 96), 0x200);
}

#[test]
fn all_pages_of_zeros_are_one_and_noise_is_stored_as_it_is() {
    let zeros = Ram::new(vec![(0, vec![0; 0x100_0000])]);
    assert!(raw(&zeros, Compression::Zlib).len() < 0x3_0000);
    let noise = Ram::new(vec![(0, support::noise(3).take(0x10_0000).collect())]);
    for compression in ALL {
        let file = raw(&noise, compression);
        let table = 4 * 4096;
        assert!((0..256).all(|frame| u32_at(&file, table + frame * 24 + 12) == 0), "{compression:?}");
    }
}

#[test]
fn memory_far_up_is_found_there() {
    let far = 1 << 40;
    let ram = Ram::new(vec![(0x1000, vec![1; 4096]), (far, vec![2; 8192])]);
    let file = raw(&ram, Compression::Lzo);
    let reader = Reader::new(&file);
    assert_eq!(reader.page(far / PAGE + 1), Some(vec![2; 4096]));
    assert_eq!(reader.page(0), None);
}

/// Takes so many bytes and no more.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_destination_that_fails_ends_the_dump_and_its_threads() {
    let ram = Ram::new(vec![(0, support::noise(5).take(0x80_0000).collect())]);
    for room in [4096, 20_000, 1_000_000] {
        let mut flattened = Flattened::new(Full(room)).unwrap();
        let error = write(&ram, Compression::Zlib, &mut flattened).unwrap_err();
        assert!(matches!(&error, Error::Write(reason) if reason.kind() == io::ErrorKind::StorageFull), "{error}");
    }
}

/// RAM that fails in the middle.
struct Torn([std::ops::Range<u64>; 1]);

impl Memory for Torn {
    fn ranges(&self) -> &[std::ops::Range<u64>] {
        &self.0
    }

    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        if address >= 0x40_0000 {
            return Err(Unreadable(address));
        }
        into.fill(9);
        Ok(())
    }
}

#[test]
fn memory_that_cannot_be_read_is_an_error() {
    let mut flattened = Flattened::new(io::sink()).unwrap();
    let result = write(&Torn([0..0x80_0000]), Compression::Snappy, &mut flattened);
    assert!(matches!(result, Err(Error::Unreadable(Unreadable(0x40_0000)))));
}

#[test]
fn progress_counts_all_bytes_and_may_call_it_off() {
    let ram = Ram::new(vec![(0, vec![1; 0x20_0000])]);
    let source = Source { memory: &ram, processors: &[], vmcoreinfo: None };
    let mut counts = Vec::new();
    let mut count = |done| {
        counts.push(done);
        ControlFlow::Continue(())
    };
    kdump::write(&source, Compression::Lzo, &mut Flattened::new(io::sink()).unwrap(), &mut count).unwrap();
    assert!(counts.is_sorted());
    assert_eq!(counts.last(), Some(&0x20_0000));
    let mut stop = |done| if done > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let result = kdump::write(&source, Compression::Lzo, &mut Flattened::new(io::sink()).unwrap(), &mut stop);
    assert!(matches!(result, Err(Error::Cancelled)));
}
