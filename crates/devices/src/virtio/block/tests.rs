//! Requests as drivers make them, good and bad.

use parking_lot::Mutex;
use rhea_core::Width;

use super::{
    super::queue::tests::{DATA, Driver},
    *,
};

/// A disk of 64 sectors in memory, which counts flushes.
#[derive(Debug)]
struct Memory {
    bytes: Mutex<Vec<u8>>,
    flushes: Mutex<u32>,
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
    let medium = Arc::new(Memory { bytes: Mutex::new(vec![0x11; 64 * 512]), flushes: Mutex::new(0) });
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
