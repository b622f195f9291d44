//! Images in QEMU's format, read and written by the `imago` library over nodes of ours.
//!
//! Source: "The qcow2 image format", docs/interop/qcow2.txt of QEMU, for the fields of the header.

#![allow(unsafe_code, reason = "the library's trait for storage has unsafe methods")]

mod editor;
mod snapshots;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use imago::{
    DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder as _, Storage,
    format::PreallocateMode,
    io_buffers::{IoVector, IoVectorMut},
    qcow2::Qcow2 as Image,
    raw::Raw,
    storage::{self, drivers::CommonStorageHelper},
};
use parking_lot::RwLock;
use serde_json::json;

use super::{
    BlockError,
    layer::{ImageDetails, Layer},
    node::{Edge, Node, inactive},
};

pub use editor::{Fields, ImageFile, SnapshotError};
pub use snapshots::{NewSnapshot, Reader, Snapshot, Writer, delete, go_back, read_snapshots};

/// Zeros that are written at once where the format knows no better way.
const ZEROS: u64 = 64 << 10;

/// The first bytes of an image.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";

/// The header of an image, as far as others ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    version: u32,
    cluster_bits: u32,
    size: u64,
    backing: Option<String>,
    backing_format: Option<String>,
    incompatible: u64,
    compatible: u64,
    refcount_order: u32,
    refcount_table: u64,
    refcount_table_clusters: u32,
    compression: u8,
}

/// Bits of the features.
const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const EXTENDED_L2: u64 = 1 << 4;
const LAZY_REFCOUNTS: u64 = 1 << 0;

/// The extension of the header that names the format of the backing image.
const BACKING_FORMAT: u32 = 0xe279_2aca;
/// The longest name of a backing image.
const LONGEST_NAME: u32 = 1023;

impl Header {
    /// Reads it from the image's file.
    ///
    /// # Errors
    /// No such image.
    pub fn read(file: &Node) -> Result<Self, BlockError> {
        let refused = || BlockError::Format("qcow2");
        let get = |offset: u64, data: &mut [u8]| file.read(offset, data).map_err(|_| refused());
        let mut fixed = [0; 112];
        get(0, &mut fixed)?;
        let word = |at: usize| {
            let bytes = fixed.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u32::from_be_bytes)
        };
        let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
        let version = word(4);
        if !fixed.starts_with(&MAGIC) || !(2..=3).contains(&version) {
            return Err(refused());
        }
        let modern = version >= 3;
        let length = if modern { word(100) } else { 72 };
        let cluster_bits = word(20);
        if !(9..=21).contains(&cluster_bits) || u64::from(length) > 1 << cluster_bits {
            return Err(refused());
        }
        let (name_at, name_length) = (long(8), word(16));
        let backing = if name_at == 0 || name_length == 0 {
            None
        } else if name_length > LONGEST_NAME {
            return Err(refused());
        } else {
            let mut name = vec![0; name_length as usize];
            get(name_at, &mut name)?;
            Some(String::from_utf8(name).map_err(|_| refused())?)
        };
        // Extensions: type, length, data in multiples of 8, up to type 0, within the first cluster.
        let (mut at, mut backing_format) = (u64::from(length), None);
        while at + 8 <= 1 << cluster_bits {
            let mut start = [0; 8];
            get(at, &mut start)?;
            let [t0, t1, t2, t3, size @ ..] = start;
            let (kind, size) = (u32::from_be_bytes([t0, t1, t2, t3]), u32::from_be_bytes(size));
            match kind {
                0 => break,
                BACKING_FORMAT if size <= 15 => {
                    let mut name = vec![0; size as usize];
                    get(at + 8, &mut name)?;
                    backing_format = String::from_utf8(name).ok();
                }
                _ => {}
            }
            at += 8 + u64::from(size).next_multiple_of(8);
        }
        Ok(Self {
            version,
            cluster_bits,
            size: long(24),
            backing,
            backing_format,
            incompatible: if modern { long(72) } else { 0 },
            compatible: if modern { long(80) } else { 0 },
            refcount_order: if modern { word(96) } else { 4 },
            refcount_table: long(48),
            refcount_table_clusters: word(56),
            compression: fixed.get(104).copied().filter(|_| modern && length > 104).unwrap_or(0),
        })
    }

    /// Whether the reference counts know the clusters of the header and of the counts themselves. Otherwise something to be
    /// written would be put in their place.
    ///
    /// # Errors
    /// They do not.
    pub fn check_counts(&self, file: &Node) -> Result<(), BlockError> {
        let damaged =
            || BlockError::Options(format!("'{}': the image's reference counts are damaged", file.filename()));
        let cluster = 1_u64 << self.cluster_bits;
        let placed = |at: u64| at != 0 && at.is_multiple_of(cluster) && at < file.size();
        let get = |at: u64, data: &mut [u8]| file.read(at, data).map_err(|_| damaged());
        if !placed(self.refcount_table) || self.refcount_table_clusters == 0 || self.refcount_order > 6 {
            return Err(damaged());
        }
        let mut entry = [0; 8];
        get(self.refcount_table, &mut entry)?;
        let block = u64::from_be_bytes(entry);
        if !placed(block) {
            return Err(damaged());
        }
        let bits = 1_u64 << self.refcount_order;
        let counted = cluster * 8 / bits;
        for at in [0, self.refcount_table, block] {
            let index = at / cluster;
            if index >= counted {
                // Another block's matter; the image was written to a good deal before.
                continue;
            }
            let mut count = [0; 8];
            let first = index * bits / 8;
            get(block + first, &mut count)?;
            let is_counted = if bits < 8 {
                u64::from(count[0]) >> (index * bits % 8) & ((1 << bits) - 1) != 0
            } else {
                count.iter().take((bits / 8) as usize).any(|byte| *byte != 0)
            };
            if !is_counted {
                return Err(damaged());
            }
        }
        Ok(())
    }

    /// The name of the image that it stands on.
    pub fn backing(&self) -> Option<&str> {
        self.backing.as_deref()
    }

    /// And its format, if it says so.
    pub fn backing_format(&self) -> Option<&str> {
        self.backing_format.as_deref()
    }
}

/// An image.
#[derive(Debug)]
pub struct Qcow2 {
    full_backing: Option<String>,
    /// Giving up room must not meet reads and writes that are under way.
    state: RwLock<State>,
    file: Edge,
    backing: Option<Arc<Node>>,
    writable: bool,
}

/// What is known of an image.
#[derive(Debug)]
struct State {
    header: Header,
    snapshots: Vec<Snapshot>,
    /// The library's hands on it; none while somebody else may change it.
    access: Option<FormatAccess<NodeStorage>>,
}

impl Qcow2 {
    /// The image in `file`, over `backing`, of which `full_backing` is the name. It is not opened yet.
    pub fn new(
        header: Header,
        file: &Arc<Node>,
        backing: Option<&Arc<Node>>,
        full_backing: Option<String>,
        writable: bool,
    ) -> Self {
        Self {
            full_backing,
            state: RwLock::new(State { header, snapshots: Vec::new(), access: None }),
            file: Edge::new(Arc::clone(file)),
            backing: backing.cloned(),
            writable,
        }
    }

    /// What it is in.
    pub fn file(&self) -> &Arc<Node> {
        self.file.node()
    }

    /// Opens it, as it now is in its file.
    ///
    /// # Errors
    /// No such image, or one with parts that nothing here knows.
    pub fn reopen(&self) -> Result<(), BlockError> {
        let mut state = self.state.write();
        let file = self.file();
        let error = |source| BlockError::File { path: file.filename().into(), source };
        let header = Header::read(file)?;
        if self.writable {
            header.check_counts(file)?;
        }
        let below = match &self.backing {
            None => None,
            Some(node) => {
                let raw = Raw::open_image(NodeStorage::new(Arc::clone(node)), false).map_err(error)?;
                Some(FormatAccess::new(raw))
            }
        };
        let builder = Image::<_, FormatAccess<NodeStorage>>::builder(NodeStorage::new(Arc::clone(file)));
        let builder = builder.write(self.writable).backing(below);
        let image = builder.open(DenyImplicitOpenGate::default()).map_err(error)?;
        let snapshots = Fields::read(file).and_then(|fields| read_snapshots(file, &fields));
        let (snapshots, _) = snapshots.unwrap_or_else(|error| {
            tracing::warn!("{}: {error}", file.filename());
            Default::default()
        });
        *state = State { header, snapshots, access: Some(FormatAccess::new(image)) };
        Ok(())
    }

    /// Writes what is remembered, and forgets it. Requests are refused until it is opened again.
    ///
    /// # Errors
    /// What the host says. Then it is open still.
    pub fn close(&self) -> io::Result<()> {
        let mut state = self.state.write();
        if let Some(access) = state.access.as_ref().filter(|_| self.writable) {
            write_back(access)?;
        }
        if let Some(size) = state.access.as_ref().map(FormatAccess::size) {
            state.header.size = size;
        }
        state.access = None;
        Ok(())
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.state.read().access.is_some()
    }

    /// The snapshots in it.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.state.read().snapshots.clone()
    }

    fn with<T>(&self, work: impl FnOnce(&FormatAccess<NodeStorage>) -> io::Result<T>) -> io::Result<T> {
        work(self.state.read().access.as_ref().ok_or_else(inactive)?)
    }

    fn zero_by_hand(&self, offset: u64, length: u64) -> io::Result<()> {
        let zeros = vec![0; length.min(ZEROS) as usize];
        let mut done = 0;
        while done < length {
            let part = zeros.get(..(length - done).min(ZEROS) as usize).unwrap_or_default();
            self.write(offset + done, part)?;
            done += part.len() as u64;
        }
        Ok(())
    }

    /// Works on it while nobody else does.
    fn alone<T>(&self, work: impl FnOnce(&mut FormatAccess<NodeStorage>) -> io::Result<T>) -> io::Result<T> {
        work(self.state.write().access.as_mut().ok_or_else(inactive)?)
    }
}

fn write_back(access: &FormatAccess<NodeStorage>) -> io::Result<()> {
    access.flush()?;
    access.sync()
}

impl Drop for Qcow2 {
    fn drop(&mut self) {
        // The tables that are remembered belong into the file.
        if let Err(error) = self.close() {
            tracing::error!("{}: {error}", self.file().filename());
        }
    }
}

impl Layer for Qcow2 {
    fn size(&self) -> u64 {
        let state = self.state.read();
        state.access.as_ref().map_or(state.header.size, FormatAccess::size)
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.with(|access| access.read(data, offset))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|access| access.write(data, offset))
    }

    fn flush(&self) -> io::Result<()> {
        // One that is not open holds nothing back.
        self.state.read().access.as_ref().map_or(Ok(()), write_back)
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        match self.alone(|access| access.discard_to_any(offset, length)) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            result => result,
        }
    }

    fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        let result = if unmap {
            self.alone(|access| access.discard_to_zero(offset, length))
        } else {
            self.with(|access| access.write_zeroes(offset, length))
        };
        match result {
            // Old images have no clusters of zeros.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.zero_by_hand(offset, length),
            result => result,
        }
    }

    fn resize(&self, size: u64) -> io::Result<()> {
        self.alone(|access| {
            access.resize(size, PreallocateMode::None)?;
            write_back(access)
        })
    }

    fn allocated(&self) -> u64 {
        self.file().allocated()
    }

    fn image(&self) -> ImageDetails {
        let Header {
            refcount_table: _,
            refcount_table_clusters: _,
            size: _,
            version,
            cluster_bits,
            backing,
            backing_format,
            incompatible,
            compatible,
            refcount_order,
            compression,
        } = &self.state.read().header;
        let data = if *version == 2 {
            json!({ "compat": "0.10", "compression-type": "zlib", "refcount-bits": 16 })
        } else {
            json!({
                "compat": "1.1",
                "compression-type": if *compression == 1 { "zstd" } else { "zlib" },
                "lazy-refcounts": compatible & LAZY_REFCOUNTS != 0,
                "refcount-bits": 1_u64 << refcount_order.min(&6),
                "corrupt": incompatible & CORRUPT != 0,
                "extended-l2": incompatible & EXTENDED_L2 != 0,
            })
        };
        ImageDetails {
            cluster_size: Some(1 << cluster_bits),
            backing: backing.clone(),
            full_backing: self.full_backing.clone(),
            backing_format: backing_format.clone(),
            dirty: Some(incompatible & DIRTY != 0),
            specific: Some(json!({ "type": "qcow2", "data": data })),
        }
    }
}

/// A node as the library takes it: a place for bytes that grows.
struct NodeStorage {
    file: Edge,
    helper: CommonStorageHelper,
}

impl NodeStorage {
    fn new(node: Arc<Node>) -> Self {
        Self { file: Edge::new(node), helper: CommonStorageHelper::default() }
    }

    fn node(&self) -> &Arc<Node> {
        self.file.node()
    }
}

impl fmt::Debug for NodeStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeStorage({})", self.node().name())
    }
}

impl fmt::Display for NodeStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.node().name())
    }
}

// SAFETY of the unsafe methods: what they ask of their callers, that nobody else touches a range meanwhile, is there for
// the library's own bookkeeping; nothing here relies on it.
impl Storage for NodeStorage {
    fn size(&self) -> io::Result<u64> {
        Ok(self.node().size())
    }

    fn resolve_relative_path<P: AsRef<Path>>(&self, _: P) -> io::Result<PathBuf> {
        Err(io::ErrorKind::Unsupported.into())
    }

    unsafe fn pure_readv(&self, buffers: IoVectorMut<'_>, mut offset: u64) -> io::Result<()> {
        for mut buffer in buffers.into_inner() {
            self.node().read(offset, &mut buffer)?;
            offset += buffer.len() as u64;
        }
        Ok(())
    }

    unsafe fn pure_writev(&self, buffers: IoVector<'_>, mut offset: u64) -> io::Result<()> {
        for buffer in buffers.into_inner() {
            self.node().write(offset, &buffer)?;
            offset += buffer.len() as u64;
        }
        Ok(())
    }

    unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.node().write_zeroes(offset, length, true)
    }

    unsafe fn pure_write_allocated_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.node().write_zeroes(offset, length, false)
    }

    unsafe fn pure_discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.node().discard(offset, length)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.node().flush()
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        &self.helper
    }

    fn resize(&self, size: u64, _: storage::PreallocateMode) -> io::Result<()> {
        self.node().resize(size)
    }
}
