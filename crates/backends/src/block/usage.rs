//! A node as one device uses it, with a count of what it did.

use std::{
    fmt, io,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rhea_core::{
    BlockMedium,
    memory::{GuestSlice, transfer},
};

use super::{
    node::{Node, Permit, inactive},
    throttle::{Limited, ThrottleGroup},
};

/// What was done, and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Operations that were done.
    pub operations: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Time that they took.
    pub time: Duration,
    /// Operations that the host could not do.
    pub failed: u64,
    /// Operations that nobody could do, as the guest asked for them.
    pub invalid: u64,
}

/// What a device did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockStatistics {
    /// Reads.
    pub read: Count,
    /// Writes.
    pub write: Count,
    /// Flushes.
    pub flush: Count,
    /// What was given up.
    pub unmap: Count,
    /// The end of the write that went farthest.
    pub highest_write: u64,
    /// Time since something was done, if anything was.
    pub idle: Option<Duration>,
}

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Data to the guest.
    Read,
    /// Data from the guest.
    Write,
    /// What was written stays.
    Flush,
    /// What was written may go.
    Unmap,
}

#[derive(Debug, Default)]
struct Accounting {
    totals: BlockStatistics,
    last: Option<Instant>,
}

impl Accounting {
    fn count(&mut self, operation: Operation) -> &mut Count {
        match operation {
            Operation::Read => &mut self.totals.read,
            Operation::Write => &mut self.totals.write,
            Operation::Flush => &mut self.totals.flush,
            Operation::Unmap => &mut self.totals.unmap,
        }
    }
}

/// A node in the hands of a device; it is free again when this is dropped.
pub struct BlockUse {
    /// The drive that this is, which ends with it.
    drive: Option<String>,
    serial: Option<String>,
    node: Arc<Node>,
    device: Mutex<String>,
    _permits: Vec<Permit>,
    accounting: Mutex<Accounting>,
    /// What the end of it ends, too.
    on_end: Option<Notice>,
    /// Whether writes wait for a flush.
    write_cache: AtomicBool,
    /// Tells the device of another size.
    on_resize: Mutex<Option<Notice>>,
    /// How fast it may be: groups in the order of their addresses.
    limits: Vec<Arc<ThrottleGroup>>,
    /// Tells the device that what had to wait may begin.
    on_limits: Mutex<Option<Notice>>,
}

/// Tells somebody that something has changed.
pub(super) type Notice = Box<dyn Fn() + Send + Sync>;

impl fmt::Debug for BlockUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockUse({:?})", self.node)
    }
}

impl BlockUse {
    pub(super) fn new(
        drive: Option<String>,
        serial: Option<String>,
        node: Arc<Node>,
        device: &str,
        permits: Vec<Permit>,
        mut limits: Vec<Arc<ThrottleGroup>>,
        on_end: Option<Notice>,
    ) -> Arc<Self> {
        let device = Mutex::new(device.to_owned());
        limits.sort_by_key(Arc::as_ptr);
        limits.dedup_by(|one, other| Arc::ptr_eq(one, other));
        let usage = Arc::new(Self {
            drive,
            serial,
            node,
            device,
            _permits: permits,
            accounting: Mutex::default(),
            on_end,
            on_resize: Mutex::default(),
            write_cache: AtomicBool::new(true),
            limits,
            on_limits: Mutex::default(),
        });
        let limited: Weak<dyn Limited> = Arc::<Self>::downgrade(&usage);
        usage.limits.iter().for_each(|group| group.tell(Weak::clone(&limited)));
        usage
    }

    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The drive's id, if it is one.
    pub fn drive(&self) -> Option<&str> {
        self.drive.as_deref()
    }

    /// What the drive says it is.
    pub fn serial(&self) -> Option<&str> {
        self.serial.as_deref()
    }

    /// The device.
    pub fn device(&self) -> String {
        self.device.lock().clone()
    }

    /// Says what the device is called, once it is known.
    pub fn set_device(&self, device: impl Into<String>) {
        *self.device.lock() = device.into();
    }

    /// Says how to tell the device that its size has changed.
    pub fn on_resize(&self, notice: impl Fn() + Send + Sync + 'static) {
        *self.on_resize.lock() = Some(Box::new(notice));
    }

    pub(super) fn resized(&self) {
        if let Some(notice) = &*self.on_resize.lock() {
            notice();
        }
    }

    /// Says how to tell the device that its limits have changed.
    pub fn on_limits(&self, notice: impl Fn() + Send + Sync + 'static) {
        *self.on_limits.lock() = Some(Box::new(notice));
    }

    /// Whether writes wait for a flush, as the guest sees it.
    pub fn write_cache(&self) -> bool {
        self.write_cache.load(Ordering::Acquire)
    }

    /// What was done so far.
    pub fn statistics(&self) -> BlockStatistics {
        let accounting = self.accounting.lock();
        BlockStatistics { idle: accounting.last.map(|last| last.elapsed()), ..accounting.totals }
    }

    fn account(
        &self,
        operation: Operation,
        offset: u64,
        length: u64,
        work: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let end = offset.checked_add(length);
        if end.is_none_or(|end| end > self.node.size()) {
            self.invalid(operation);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "past the end of the disk"));
        }
        let start = Instant::now();
        let result = if self.node.is_active() { work() } else { Err(inactive()) };
        let now = Instant::now();
        let mut accounting = self.accounting.lock();
        accounting.last = Some(now);
        let count = accounting.count(operation);
        match &result {
            Ok(()) => {
                count.operations += 1;
                count.bytes = count.bytes.saturating_add(length);
                count.time += now - start;
                if operation == Operation::Write {
                    let highest = &mut accounting.totals.highest_write;
                    *highest = (*highest).max(end.unwrap_or(0));
                }
            }
            Err(_) => count.failed += 1,
        }
        result
    }

    /// The guest asked for something that cannot be.
    fn invalid(&self, operation: Operation) {
        self.accounting.lock().count(operation).invalid += 1;
    }
}

impl Limited for BlockUse {
    fn limits_changed(&self) {
        if let Some(notice) = &*self.on_limits.lock() {
            notice();
        }
    }
}

impl BlockMedium for BlockUse {
    fn size(&self) -> u64 {
        self.node.size()
    }

    fn read_only(&self) -> bool {
        self.node.read_only()
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.account(Operation::Read, offset, data.len() as u64, || self.node.read(offset, data))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.account(Operation::Write, offset, data.len() as u64, || self.node.write(offset, data))
    }

    fn read_to_guest(&self, offset: u64, into: &[GuestSlice<'_>]) -> io::Result<()> {
        let length = transfer::length(into);
        self.account(Operation::Read, offset, length, || self.node.read_to_guest(offset, into))
    }

    fn write_from_guest(&self, offset: u64, from: &[GuestSlice<'_>]) -> io::Result<()> {
        let length = transfer::length(from);
        self.account(Operation::Write, offset, length, || self.node.write_from_guest(offset, from))
    }

    fn admit(&self, lane: usize, write: bool, bytes: u64) -> Result<(), Instant> {
        if self.limits.is_empty() {
            return Ok(());
        }
        ThrottleGroup::admit(&self.limits, (std::ptr::from_ref(self).addr(), lane), write, bytes)
    }

    fn refused(&self, write: bool) {
        self.invalid(if write { Operation::Write } else { Operation::Read });
    }

    fn set_write_cache(&self, on: bool) {
        self.write_cache.store(on, Ordering::Release);
    }

    fn flush(&self) -> io::Result<()> {
        self.account(Operation::Flush, 0, 0, || self.node.flush())
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.account(Operation::Unmap, offset, length, || self.node.discard(offset, length))
    }

    fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        self.account(Operation::Write, offset, length, || self.node.write_zeroes(offset, length, unmap))
    }
}

impl Drop for BlockUse {
    fn drop(&mut self) {
        if let Some(end) = &self.on_end {
            end();
        }
    }
}
