//! The block device: a disk of 512-byte sectors.
//!
//! Source: VIRTIO 1.2 §5.2 (cited as §).

use std::{
    io::{self, Read as _, Write as _},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use rhea_core::{BlockMedium, LoadError};

use super::{Buffers, DeviceType, DeviceV1, Link, Outcome, VirtioDevice, Virtqueue};

/// Bytes of a sector, whatever the block size is.
const SECTOR: u64 = 512;
/// What is copied at once between guest and medium.
const CHUNK: usize = 1 << 20;
/// Segments of one discard or write-zeroes request: as few as keep a request short.
const MOST_SEGMENTS: u32 = 4;
/// Sectors of one such segment: 1 GiB less one block.
const MOST_SECTORS: u32 = (1 << 21) - 8;
/// Entries of the queue, and so buffers of a request less header and status.
const QUEUE: u16 = 256;

/// Feature bits (§5.2.3).
const SEG_MAX: u64 = 1 << 2;
const READ_ONLY: u64 = 1 << 5;
const BLK_SIZE: u64 = 1 << 6;
const FLUSH: u64 = 1 << 9;
const DISCARD: u64 = 1 << 13;
const WRITE_ZEROES: u64 = 1 << 14;

/// Request types (§5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    In,
    Out,
    Flush,
    Identify,
    Discard,
    WriteZeroes,
    Unknown,
}

impl From<u32> for Kind {
    fn from(number: u32) -> Self {
        match number {
            0 => Self::In,
            1 => Self::Out,
            4 => Self::Flush,
            8 => Self::Identify,
            11 => Self::Discard,
            13 => Self::WriteZeroes,
            _ => Self::Unknown,
        }
    }
}

/// Status byte of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

impl From<io::Error> for Status {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::Unsupported { Self::Unsupported } else { Self::IoError }
    }
}

/// What a disk is made of.
#[derive(Clone, Debug)]
pub struct BlockOptions {
    /// Where the bytes are.
    pub medium: Arc<dyn BlockMedium>,
    /// At most 20 bytes that name the disk.
    pub serial: String,
    /// Whether the guest may not write.
    pub read_only: bool,
    /// Whether the guest may discard.
    pub discard: bool,
    /// Bytes of a block, as the guest is advised.
    pub block_size: u32,
}

/// The device.
pub struct Block {
    options: BlockOptions,
    /// The driver does not flush: each write is flushed.
    write_through: AtomicBool,
    /// What is on the way between guest and medium.
    buffer: Mutex<Vec<u8>>,
    link: OnceLock<Link>,
}

impl Block {
    /// A disk.
    pub fn new(options: BlockOptions) -> Arc<Self> {
        Arc::new(Self {
            options,
            write_through: AtomicBool::new(true),
            buffer: Mutex::default(),
            link: OnceLock::new(),
        })
    }

    /// The medium has another size: the driver is told.
    pub fn resized(&self) {
        if let Some(link) = self.link.get() {
            link.config_changed();
        }
    }

    fn sectors(&self) -> u64 {
        self.options.medium.size() / SECTOR
    }

    fn config(&self) -> [u8; 60] {
        let mut config = [0; 60];
        let mut put = |offset: usize, bytes: &[u8]| config[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(0, &self.sectors().to_le_bytes());
        put(12, &u32::from(QUEUE - 2).to_le_bytes());
        put(20, &self.options.block_size.to_le_bytes());
        put(34, &1_u16.to_le_bytes());
        put(36, &MOST_SECTORS.to_le_bytes());
        put(40, &MOST_SEGMENTS.to_le_bytes());
        put(44, &(self.options.block_size / SECTOR as u32).to_le_bytes());
        put(48, &MOST_SECTORS.to_le_bytes());
        put(52, &MOST_SEGMENTS.to_le_bytes());
        put(56, &[1]);
        config
    }

    /// Where `length` bytes from `sector` are, if all of them are on the disk.
    fn range(&self, sector: u64, length: u64) -> Result<u64, Status> {
        let start = sector.checked_mul(SECTOR).ok_or(Status::IoError)?;
        let end = start.checked_add(length).ok_or(Status::IoError)?;
        if end > self.sectors() * SECTOR || !length.is_multiple_of(SECTOR) { Err(Status::IoError) } else { Ok(start) }
    }

    fn request(&self, buffers: &mut Buffers<'_>) -> Option<Status> {
        // The status is the last byte that the device writes; a chain without one is not answered.
        let length = buffers.writer.available_bytes().checked_sub(1)?;
        let mut last = buffers.writer.split_at(length).ok()?;
        let status = self.perform(buffers, length).err().unwrap_or(Status::Ok);
        if status != Status::Ok {
            tracing::debug!("block request: {status:?}");
        }
        last.write_all(&[status as u8]).ok()?;
        // §2.7.8.2: only what was written without a gap is told.
        buffers.behind = usize::from(buffers.writer.available_bytes() == 0);
        Some(status)
    }

    fn perform(&self, buffers: &mut Buffers<'_>, length: usize) -> Result<(), Status> {
        let mut header = [0; 16];
        buffers.reader.read_exact(&mut header)?;
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        let medium = &self.options.medium;
        match Kind::from(u32::from_le_bytes([k0, k1, k2, k3])) {
            Kind::In => {
                let start = self.range(sector, length as u64)?;
                let mut buffer = self.buffer.lock();
                buffer.resize(CHUNK, 0);
                for offset in (0..length).step_by(CHUNK) {
                    let part = buffer.get_mut(..CHUNK.min(length - offset)).ok_or(Status::IoError)?;
                    medium.read(start + offset as u64, part)?;
                    buffers.writer.write_all(part)?;
                }
                Ok(())
            }
            Kind::Out => {
                self.check_writable()?;
                let length = buffers.reader.available_bytes();
                let start = self.range(sector, length as u64)?;
                let mut buffer = self.buffer.lock();
                buffer.resize(CHUNK, 0);
                for offset in (0..length).step_by(CHUNK) {
                    let part = buffer.get_mut(..CHUNK.min(length - offset)).ok_or(Status::IoError)?;
                    buffers.reader.read_exact(part)?;
                    medium.write(start + offset as u64, part)?;
                }
                self.written()
            }
            Kind::Flush => Ok(medium.flush()?),
            Kind::Identify => {
                let mut name = [0; 20];
                for (to, from) in name.iter_mut().zip(self.options.serial.bytes()) {
                    *to = from;
                }
                Ok(buffers.writer.write_all(&name[..length.min(20)])?)
            }
            kind @ (Kind::Discard | Kind::WriteZeroes) => {
                if kind == Kind::Discard && !self.options.discard {
                    return Err(Status::Unsupported);
                }
                self.check_writable()?;
                self.segments(buffers, kind)?;
                self.written()
            }
            Kind::Unknown => Err(Status::Unsupported),
        }
    }

    /// §5.2.6.2: segments of sector, count and flags.
    fn segments(&self, buffers: &mut Buffers<'_>, kind: Kind) -> Result<(), Status> {
        let length = buffers.reader.available_bytes();
        if length == 0 || !length.is_multiple_of(16) || length / 16 > MOST_SEGMENTS as usize {
            return Err(Status::IoError);
        }
        for _ in 0..length / 16 {
            let mut segment = [0; 16];
            buffers.reader.read_exact(&mut segment)?;
            let [s0, s1, s2, s3, s4, s5, s6, s7, count @ .., f0, f1, f2, f3] = segment;
            let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
            let (count, flags) = (u32::from_le_bytes(count), u32::from_le_bytes([f0, f1, f2, f3]));
            let unmap = flags & 1 != 0;
            if flags & !1 != 0 || (unmap && kind == Kind::Discard) {
                return Err(Status::Unsupported);
            }
            if count > MOST_SECTORS {
                return Err(Status::IoError);
            }
            let length = u64::from(count) * SECTOR;
            let start = self.range(sector, length)?;
            match kind {
                Kind::Discard => self.options.medium.discard(start, length)?,
                _ => self.options.medium.write_zeroes(start, length, unmap)?,
            }
        }
        Ok(())
    }

    fn check_writable(&self) -> Result<(), Status> {
        if self.options.read_only { Err(Status::IoError) } else { Ok(()) }
    }

    /// §5.2.6.2: to a driver that does not flush, done is done.
    fn written(&self) -> Result<(), Status> {
        if self.write_through.load(Ordering::Acquire) {
            self.options.medium.flush()?;
        }
        Ok(())
    }
}

/// Saved form of [`Block`]: what it stands on is not part of it.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct BlockV1 {
    write_through: bool,
}

impl VirtioDevice for Block {
    fn device_type(&self) -> DeviceType {
        DeviceType { id: 2, transitional: 0x1001, class: 0x01_0000 }
    }

    fn queues(&self) -> Vec<u16> {
        vec![QUEUE]
    }

    fn features(&self) -> u64 {
        let read_only = if self.options.read_only { READ_ONLY } else { WRITE_ZEROES };
        let discard = if self.options.discard && !self.options.read_only { DISCARD } else { 0 };
        SEG_MAX | BLK_SIZE | FLUSH | read_only | discard
    }

    fn config_size(&self) -> usize {
        60
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        for (to, from) in data.iter_mut().zip(self.config().into_iter().skip(offset)) {
            *to = from;
        }
    }

    fn attach(&self, link: Link) {
        let _ = self.link.set(link);
    }

    fn activate(&self, features: u64) {
        self.write_through.store(features & FLUSH == 0, Ordering::Release);
    }

    fn reset(&self) {
        self.write_through.store(true, Ordering::Release);
    }

    fn save(&self) -> DeviceV1 {
        let Self { options: _, write_through, buffer: _, link: _ } = self;
        DeviceV1::Block(BlockV1 { write_through: write_through.load(Ordering::Acquire) })
    }

    fn restore(&self, state: &DeviceV1) -> Result<(), LoadError> {
        let DeviceV1::Block(BlockV1 { write_through }) = state else {
            return Err(LoadError::invalid("Block", "the state of another device"));
        };
        self.write_through.store(*write_through, Ordering::Release);
        Ok(())
    }

    fn serve(&self, _: usize, queue: &Virtqueue) {
        let mut refused = false;
        queue.serve(|buffers| match self.request(buffers) {
            Some(_) => {
                // Data that did not come is not counted: the driver looks at the status.
                Outcome::Done
            }
            None => {
                refused = true;
                Outcome::NotNow
            }
        });
        if refused {
            queue.break_down();
        }
    }
}

#[cfg(test)]
mod tests;
