//! Requests as drivers make them, good and bad.

use std::time::Instant;

use parking_lot::Mutex;
use proptest::prelude::*;
use rhea_core::Width;

use super::{
    super::queue::tests::{AVAILABLE, DATA, DESCRIPTORS, Driver},
    *,
};

/// A disk of 64 sectors in memory, which counts flushes.
#[derive(Debug)]
struct Memory {
    bytes: Mutex<Vec<u8>>,
    flushes: Mutex<u32>,
    /// Whether everything has to wait.
    waits: AtomicBool,
    /// What asked to begin.
    asked: Mutex<Vec<(usize, bool, u64)>>,
}

impl BlockMedium for Memory {
    fn size(&self) -> u64 {
        self.bytes.lock().len() as u64
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        data.copy_from_slice(&self.bytes.lock()[offset as usize..][..data.len()]);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.bytes.lock()[offset as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }

    fn admit(&self, lane: usize, write: bool, bytes: u64) -> Result<(), Instant> {
        self.asked.lock().push((lane, write, bytes));
        if self.waits.load(Ordering::Acquire) { Err(Instant::now()) } else { Ok(()) }
    }

    fn flush(&self) -> io::Result<()> {
        *self.flushes.lock() += 1;
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.write_zeroes(offset, length, true)
    }

    fn write_zeroes(&self, offset: u64, length: u64, _: bool) -> io::Result<()> {
        self.bytes.lock()[offset as usize..][..length as usize].fill(0);
        Ok(())
    }
}

struct Bench {
    driver: Driver,
    queue: Arc<Virtqueue>,
    medium: Arc<Memory>,
    block: Arc<Block>,
}

fn bench(read_only: bool) -> Bench {
    let driver = Driver::new();
    let queue = driver.queue();
    let medium = Arc::new(Memory {
        bytes: Mutex::new(vec![0x11; 64 * 512]),
        flushes: Mutex::new(0),
        waits: AtomicBool::new(false),
        asked: Mutex::default(),
    });
    let options = BlockOptions {
        medium: Arc::clone(&medium) as _,
        serial: "disk-1".to_owned(),
        read_only,
        discard: true,
        block_size: 512,
        write_cache: true,
        queues: 1,
        entries: 8,
    };
    Bench { driver, queue, medium, block: Block::new(options) }
}

impl Bench {
    /// Makes a request with a header, `out` bytes behind it and room for `into` bytes, and gives its status.
    fn request(&mut self, kind: u32, sector: u64, out: &[u8], into: u32) -> u8 {
        let space = &self.driver.space;
        space.write_value(DATA, Width::Qword, kind.into());
        space.write_value(DATA + 8, Width::Qword, sector);
        space.write(DATA + 0x100, out);
        space.write_value(DATA + 0x8000, Width::Byte, 0xff);
        let mut buffers = vec![(DATA, 16, false)];
        if !out.is_empty() {
            buffers.push((DATA + 0x100, out.len() as u32, false));
        }
        if into > 0 {
            buffers.push((DATA + 0x4000, into, true));
        }
        buffers.push((DATA + 0x8000, 1, true));
        self.driver.offer(&buffers);
        self.block.serve(0, &self.queue);
        self.driver.space.read_value(DATA + 0x8000, Width::Byte) as u8
    }
}

#[test]
fn sectors_are_written_and_read_and_without_flushes_each_write_is_flushed() {
    let mut bench = bench(false);
    assert_eq!(bench.request(1, 3, &[0x42; 1024], 0), 0);
    assert_eq!(bench.medium.bytes.lock()[1535..1537], [0x11, 0x42]);
    assert_eq!(*bench.medium.flushes.lock(), 1);
    assert_eq!(bench.request(0, 4, &[], 1024), 0);
    assert_eq!(bench.driver.used().1, 1025);
    assert_eq!(bench.driver.space.read_value(DATA + 0x4000 + 511, Width::Word), 0x1142);
    bench.block.activate(FLUSH);
    assert_eq!(bench.request(1, 3, &[0x43; 512], 0), 0);
    assert_eq!(*bench.medium.flushes.lock(), 1);
    assert_eq!(bench.request(4, 0, &[], 0), 0);
    assert_eq!(*bench.medium.flushes.lock(), 2);
}

#[test]
fn what_may_not_begin_yet_stays_in_the_queue_and_is_done_whole_later() {
    let mut bench = bench(false);
    bench.block.activate(FLUSH);
    bench.medium.waits.store(true, Ordering::Release);
    assert_eq!(bench.request(1, 3, &[0x42; 1024], 0), 0xff);
    bench.block.serve(0, &bench.queue);
    assert_eq!((bench.driver.used().0, bench.medium.bytes.lock()[1536]), (0, 0x11));
    bench.medium.waits.store(false, Ordering::Release);
    bench.block.serve(0, &bench.queue);
    assert_eq!((bench.driver.used().0, bench.medium.bytes.lock()[1536]), (1, 0x42));
    assert_eq!(bench.medium.asked.lock().split_off(0), [(0, true, 1024); 3]);
    // What moves no data begins always.
    bench.medium.waits.store(true, Ordering::Release);
    assert_eq!((bench.request(4, 0, &[], 0), bench.request(8, 0, &[], 20)), (0, 0));
    bench.medium.waits.store(false, Ordering::Release);
    assert_eq!(bench.request(0, 0, &[], 512), 0);
    let mut segments = [0; 32];
    segments[8] = 3;
    segments[24] = 5;
    assert_eq!(bench.request(13, 0, &segments, 0), 0);
    assert_eq!(*bench.medium.asked.lock(), [(0, false, 512), (0, true, 8 * 512)]);
}

#[test]
fn what_lies_past_the_end_or_is_cut_wrongly_fails() {
    let mut bench = bench(false);
    for (kind, sector, out, into) in [
        (0, 63, 0, 1024),
        (0, 64, 0, 512),
        (0, u64::MAX, 0, 512),
        (0, u64::MAX / 512, 0, 512),
        (0, 0, 0, 511),
        (1, 63, 1024, 0),
        (1, 1 << 55, 512, 0),
        (11, 0, 15, 0),
        (11, 0, 0, 0),
    ] {
        assert_eq!(bench.request(kind, sector, &vec![0; out], into), 1, "{kind} {sector} {out} {into}");
    }
    assert_eq!(bench.request(99, 0, &[], 512), 2);
    assert!(bench.medium.bytes.lock().iter().all(|&byte| byte == 0x11));
}

#[test]
fn segments_are_discarded_and_zeroed() {
    let mut bench = bench(false);
    let segment = |sector: u64, count: u32, flags: u32| {
        [&sector.to_le_bytes()[..], &count.to_le_bytes(), &flags.to_le_bytes()].concat()
    };
    assert_eq!(bench.request(13, 0, &[segment(1, 2, 0), segment(5, 1, 1)].concat(), 0), 0);
    let zeros = bench.medium.bytes.lock().iter().filter(|&&byte| byte == 0).count();
    assert_eq!(zeros, 3 * 512);
    assert_eq!(bench.request(11, 0, &segment(10, 1, 0), 0), 0);
    assert_eq!(bench.request(11, 0, &segment(10, 1, 1), 0), 2);
    assert_eq!(bench.request(13, 0, &segment(10, 1, 2), 0), 2);
    assert_eq!(bench.request(13, 0, &segment(63, 2, 0), 0), 1);
}

#[test]
fn a_disk_that_is_not_to_be_written_is_not() {
    let mut bench = bench(true);
    assert_eq!(bench.request(1, 0, &[0; 512], 0), 1);
    assert_eq!(bench.request(0, 0, &[], 512), 0);
    assert_eq!(bench.block.features() & READ_ONLY, READ_ONLY);
    assert_eq!(bench.request(8, 0, &[], 20), 0);
    let mut name = [0; 8];
    bench.driver.space.read(DATA + 0x4000, &mut name);
    assert_eq!(&name, b"disk-1\0\0");
}

#[test]
fn a_request_without_room_for_its_status_breaks_the_queue() {
    let mut bench = bench(false);
    bench.driver.offer(&[(DATA, 16, false)]);
    bench.block.serve(0, &bench.queue);
    assert_eq!(bench.driver.used().0, 0);
    bench.block.serve(0, &bench.queue);
}

#[test]
fn save_then_load_is_the_identity() {
    let (bench, other) = (bench(false), bench(false));
    bench.block.activate(FLUSH);
    let state = bench.block.save();
    assert_ne!(other.block.save(), state);
    other.block.restore(&state).unwrap();
    assert_eq!(other.block.save(), state);
    assert!(other.block.restore(&DeviceV1::Stateless).is_err());
    bench.block.reset();
    assert_eq!(bench.block.save(), Block::new(other.block.options.clone()).save());
}

#[test]
fn the_driver_may_choose_whether_writes_wait_for_a_flush() {
    let mut bench = bench(false);
    bench.block.activate(FLUSH | CONFIG_WRITE_CACHE);
    let mut config = [0; 60];
    bench.block.read_config(0, &mut config);
    assert_eq!(config[WRITE_CACHE_AT], 1);
    assert_eq!(bench.request(1, 0, &[1; 512], 0), 0);
    assert_eq!(*bench.medium.flushes.lock(), 0);
    bench.block.write_config(WRITE_CACHE_AT, &[0]);
    // Nothing else can be written.
    bench.block.write_config(0, &[0xff; 8]);
    assert_eq!(bench.request(1, 0, &[1; 512], 0), 0);
    assert_eq!(*bench.medium.flushes.lock(), 1);
    bench.block.reset();
    bench.block.write_config(WRITE_CACHE_AT, &[0]);
    bench.block.read_config(0, &mut config);
    assert_eq!((config[WRITE_CACHE_AT], config[0]), (1, 64));
}

#[test]
fn data_in_many_pieces_goes_where_it_belongs() {
    let mut bench = bench(false);
    let space = Arc::clone(&bench.driver.space);
    space.write_value(DATA, Width::Qword, 1);
    space.write_value(DATA + 8, Width::Qword, 2);
    let data: Vec<u8> = (0..1024).map(|index| (index * 3 + index / 256) as u8).collect();
    space.write(DATA + 16, &data[..100]);
    space.write(DATA + 0x5000, &data[100..700]);
    space.write(DATA + 0x2000, &data[700..]);
    // The header and the first data share a buffer.
    bench.driver.offer(&[
        (DATA, 116, false),
        (DATA + 0x5000, 600, false),
        (DATA + 0x2000, 324, false),
        (DATA + 0x8000, 1, true),
    ]);
    bench.block.serve(0, &bench.queue);
    assert_eq!(bench.medium.bytes.lock()[1024..2048], data[..]);
    space.write_value(DATA, Width::Qword, 0);
    // The status shares one with the last data.
    bench.driver.offer(&[(DATA, 16, false), (DATA + 0x7000, 1000, true), (DATA + 0x9000, 25, true)]);
    bench.block.serve(0, &bench.queue);
    let mut back = [0; 1024];
    space.read(DATA + 0x7000, &mut back[..1000]);
    space.read(DATA + 0x9000, &mut back[1000..]);
    assert_eq!((&back[..], bench.driver.used().1), (&data[..], 1025));
    assert_eq!(space.read_value(DATA + 0x9000 + 24, Width::Byte), 0);
}

proptest! {
    #[test]
    fn requests_of_any_shape_end_and_change_no_disk_that_is_not_to_be_written(
        descriptors in prop::collection::vec(
            (
                prop_oneof![DATA..DATA + 0x9000, Just(DATA), 0xf_ff00_u64..0x10_0100, any::<u64>()],
                prop_oneof![Just(16_u32), Just(1), Just(0), Just(512), 0_u32..0x2000, any::<u32>()],
                0_u16..8,
                0_u16..10,
            ),
            8,
        ),
        heads in prop::collection::vec(0_u16..10, 1..8),
        kind in prop::sample::select(vec![0_u64, 1, 4, 8, 11, 13, 99]),
        sector in prop_oneof![0_u64..70, any::<u64>()],
        read_only in any::<bool>(),
    ) {
        let bench = bench(read_only);
        let space = &bench.driver.space;
        space.write_value(DATA, Width::Qword, kind);
        space.write_value(DATA + 8, Width::Qword, sector);
        for (index, (address, length, flags, next)) in descriptors.iter().enumerate() {
            let at = DESCRIPTORS + 16 * index as u64;
            space.write_value(at, Width::Qword, *address);
            space.write_value(at + 8, Width::Dword, (*length).into());
            space.write_value(at + 12, Width::Word, (*flags).into());
            space.write_value(at + 14, Width::Word, (*next).into());
        }
        for (index, head) in heads.iter().enumerate() {
            space.write_value(AVAILABLE + 4 + 2 * index as u64, Width::Word, (*head).into());
        }
        space.write_value(AVAILABLE + 2, Width::Word, heads.len() as u64);
        bench.block.serve(0, &bench.queue);
        let bytes = bench.medium.bytes.lock();
        prop_assert_eq!(bytes.len(), 64 * 512);
        prop_assert!(!read_only || bytes.iter().all(|byte| *byte == 0x11));
    }
}
