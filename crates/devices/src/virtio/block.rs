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

use rhea_core::{BlockMedium, LoadError, trace};

use super::{Buffers, DeviceType, DeviceV1, Link, Outcome, VirtioDevice, Virtqueue};

/// Bytes of a sector, whatever the block size is.
const SECTOR: u64 = 512;
/// Segments of one discard or write-zeroes request: as few as keep a request short.
const MOST_SEGMENTS: u32 = 4;
/// Sectors of one such segment: 1 GiB less one block.
const MOST_SECTORS: u32 = (1 << 21) - 8;
/// The most queues.
pub const MOST_QUEUES: u16 = 64;
/// The most entries of a queue.
pub const MOST_ENTRIES: u16 = 1024;
/// The most data of one request.
const MOST_DATA: usize = 64 << 20;
/// Where the configuration says whether writes wait for a flush.
const WRITE_CACHE_AT: usize = 32;

/// Feature bits (§5.2.3).
const SEG_MAX: u64 = 1 << 2;
const READ_ONLY: u64 = 1 << 5;
const BLK_SIZE: u64 = 1 << 6;
const FLUSH: u64 = 1 << 9;
const CONFIG_WRITE_CACHE: u64 = 1 << 11;
const SEVERAL_QUEUES: u64 = 1 << 12;
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
    /// Whether writes wait for a flush, unless the guest wants otherwise.
    pub write_cache: bool,
    /// Queues.
    pub queues: u16,
    /// Entries of each.
    pub entries: u16,
}

/// The device.
pub struct Block {
    options: BlockOptions,
    /// The driver knows of no flushes: each write is flushed.
    write_through: AtomicBool,
    /// The driver can say whether writes wait for a flush.
    chooses_cache: AtomicBool,
    /// Whether they do.
    write_cache: AtomicBool,
    link: OnceLock<Link>,
}

impl Block {
    /// A disk.
    pub fn new(options: BlockOptions) -> Arc<Self> {
        let write_cache = AtomicBool::new(options.write_cache);
        options.medium.set_write_cache(options.write_cache);
        Arc::new(Self {
            options,
            write_through: AtomicBool::new(true),
            chooses_cache: AtomicBool::new(false),
            write_cache,
            link: OnceLock::new(),
        })
    }

    /// The medium has another size: the driver is told.
    pub fn resized(&self) {
        if let Some(link) = self.link.get() {
            link.config_changed();
        }
    }

    /// What was put off may be done now: all queues are looked at.
    pub fn ask_again(&self) {
        if let Some(link) = self.link.get() {
            (0..usize::from(self.options.queues)).for_each(|index| link.serve(index));
        }
    }

    /// Whether the next request may be done now. If not, its queue is looked at again in time.
    fn admit(&self, index: usize, buffers: &Buffers<'_>) -> bool {
        let Some((write, bytes)) = Self::cost(buffers) else { return true };
        let Err(time) = self.options.medium.admit(index, write, bytes) else { return true };
        if let Some(link) = self.link.get() {
            link.serve_at(index, time);
        }
        false
    }

    /// Whether a request writes, and how many bytes; nothing of one that moves no data, or that is refused.
    fn cost(buffers: &Buffers<'_>) -> Option<(bool, u64)> {
        let mut reader = buffers.reader.clone();
        let mut header = [0; 16];
        reader.read_exact(&mut header).ok()?;
        let [k0, k1, k2, k3, ..] = header;
        let moved = |write, bytes: usize| (bytes <= MOST_DATA).then_some((write, bytes as u64));
        match Kind::from(u32::from_le_bytes([k0, k1, k2, k3])) {
            Kind::In => moved(false, buffers.writer.available_bytes().saturating_sub(1)),
            Kind::Out => moved(true, reader.available_bytes()),
            Kind::Discard | Kind::WriteZeroes => {
                let mut sectors = 0;
                let mut segment = [0; 16];
                for _ in 0..MOST_SEGMENTS {
                    if reader.read_exact(&mut segment).is_err() {
                        break;
                    }
                    let [_, _, _, _, _, _, _, _, count @ .., _, _, _, _] = segment;
                    sectors += u64::from(u32::from_le_bytes(count).min(MOST_SECTORS));
                }
                Some((true, sectors * SECTOR))
            }
            Kind::Flush | Kind::Identify | Kind::Unknown => None,
        }
    }

    fn sectors(&self) -> u64 {
        self.options.medium.size() / SECTOR
    }

    fn config(&self) -> [u8; 60] {
        let mut config = [0; 60];
        let mut put = |offset: usize, bytes: &[u8]| config[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(0, &self.sectors().to_le_bytes());
        put(12, &u32::from(self.options.entries.saturating_sub(2)).to_le_bytes());
        put(20, &self.options.block_size.to_le_bytes());
        put(WRITE_CACHE_AT, &[self.write_cache.load(Ordering::Acquire).into()]);
        put(34, &self.options.queues.to_le_bytes());
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
        if end > self.sectors() * SECTOR || !length.is_multiple_of(SECTOR) || length > MOST_DATA as u64 {
            return Err(Status::IoError);
        }
        Ok(start)
    }

    /// Where a segment is that needs no data.
    fn segment(&self, sector: u64, length: u64) -> Result<u64, Status> {
        let start = sector.checked_mul(SECTOR).ok_or(Status::IoError)?;
        let end = start.checked_add(length).ok_or(Status::IoError)?;
        if end > self.sectors() * SECTOR { Err(Status::IoError) } else { Ok(start) }
    }

    fn request(&self, buffers: &mut Buffers<'_>) -> Option<Status> {
        // The status is the last byte that the device writes; a chain without one is not answered.
        let length = buffers.writer.available_bytes().checked_sub(1)?;
        let mut last = buffers.writer.split_at(length).ok()?;
        let status = self.perform(buffers, length).err().unwrap_or(Status::Ok);
        trace!(VIRTIO_BLK_REQ_COMPLETE, "status {status:?} length {length}");
        last.write_all(&[status as u8]).ok()?;
        // §2.7.8.2: only what was written without a gap is told.
        let complete = buffers.writer.available_bytes() == buffers.behind;
        buffers.behind = if complete { buffers.behind + 1 } else { 0 };
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
                let start = self.range(sector, length as u64).inspect_err(|_| medium.refused(false))?;
                medium.read_to_guest(start, &buffers.writable_parts(0, length)?)?;
                buffers.behind = length;
                Ok(())
            }
            Kind::Out => {
                let length = buffers.reader.available_bytes();
                let checked = self.check_writable().and_then(|()| self.range(sector, length as u64));
                let start = checked.inspect_err(|_| medium.refused(true))?;
                medium.write_from_guest(start, &buffers.readable_parts(header.len(), length)?)?;
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
            let start = self.segment(sector, length)?;
            match kind {
                Kind::Discard => self.options.medium.discard(start, length)?,
                _ => self.options.medium.write_zeroes(start, length, unmap)?,
            }
        }
        Ok(())
    }

    fn set_write_cache(&self, on: bool) {
        self.write_cache.store(on, Ordering::Release);
        self.options.medium.set_write_cache(on);
    }

    fn check_writable(&self) -> Result<(), Status> {
        if self.options.read_only { Err(Status::IoError) } else { Ok(()) }
    }

    /// §5.2.6.2: to a driver that does not flush, done is done.
    fn written(&self) -> Result<(), Status> {
        let waits = !self.write_through.load(Ordering::Acquire) && self.write_cache.load(Ordering::Acquire);
        if !waits {
            self.options.medium.flush()?;
        }
        Ok(())
    }
}

/// Saved form of [`Block`]: what it stands on is not part of it.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct BlockV1 {
    write_through: bool,
    chooses_cache: bool,
    write_cache: bool,
}

impl VirtioDevice for Block {
    fn device_type(&self) -> DeviceType {
        DeviceType { name: "virtio-blk-pci", id: 2, transitional: 0x1001, class: 0x01_0000 }
    }

    fn queues(&self) -> Vec<u16> {
        vec![self.options.entries; usize::from(self.options.queues.clamp(1, MOST_QUEUES))]
    }

    fn features(&self) -> u64 {
        let read_only = if self.options.read_only { READ_ONLY } else { WRITE_ZEROES };
        let discard = if self.options.discard && !self.options.read_only { DISCARD } else { 0 };
        let several = if self.options.queues > 1 { SEVERAL_QUEUES } else { 0 };
        SEG_MAX | BLK_SIZE | FLUSH | CONFIG_WRITE_CACHE | several | read_only | discard
    }

    fn config_size(&self) -> usize {
        60
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        for (to, from) in data.iter_mut().zip(self.config().into_iter().skip(offset)) {
            *to = from;
        }
    }

    fn write_config(&self, offset: usize, data: &[u8]) {
        // §5.2.5: the only field that the driver may write, once it has agreed to.
        let value = WRITE_CACHE_AT.checked_sub(offset).and_then(|at| data.get(at));
        if let Some(value) = value
            && self.chooses_cache.load(Ordering::Acquire)
        {
            self.set_write_cache(value & 1 != 0);
        }
    }

    fn attach(&self, link: Link) {
        let _ = self.link.set(link);
    }

    fn activate(&self, features: u64) {
        self.write_through.store(features & (FLUSH | CONFIG_WRITE_CACHE) == 0, Ordering::Release);
        self.chooses_cache.store(features & CONFIG_WRITE_CACHE != 0, Ordering::Release);
    }

    fn reset(&self) {
        self.write_through.store(true, Ordering::Release);
        self.chooses_cache.store(false, Ordering::Release);
        self.set_write_cache(self.options.write_cache);
    }

    fn save(&self) -> DeviceV1 {
        let Self { options: _, write_through, chooses_cache, write_cache, link: _ } = self;
        DeviceV1::Block(BlockV1 {
            write_through: write_through.load(Ordering::Acquire),
            chooses_cache: chooses_cache.load(Ordering::Acquire),
            write_cache: write_cache.load(Ordering::Acquire),
        })
    }

    fn restore(&self, state: &DeviceV1) -> Result<(), LoadError> {
        let DeviceV1::Block(BlockV1 { write_through, chooses_cache, write_cache }) = state else {
            return Err(LoadError::invalid("Block", "the state of another device"));
        };
        self.write_through.store(*write_through, Ordering::Release);
        self.chooses_cache.store(*chooses_cache, Ordering::Release);
        self.set_write_cache(*write_cache);
        Ok(())
    }

    fn serve(&self, index: usize, queue: &Virtqueue) {
        let mut refused = false;
        queue.serve(|buffers| {
            if !self.admit(index, buffers) {
                return Outcome::NotNow;
            }
            match self.request(buffers) {
                Some(_) => {
                    // Data that did not come is not counted: the driver looks at the status.
                    Outcome::Done
                }
                None => {
                    refused = true;
                    Outcome::NotNow
                }
            }
        });
        if refused {
            queue.break_down();
        }
    }
}

#[cfg(test)]
mod tests;
