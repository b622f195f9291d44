//! Images in QEMU's format, read and written by the `imago` library over nodes of ours.

#![allow(unsafe_code, reason = "the library's trait for storage has unsafe methods")]

mod editor;
mod error;
mod header;
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

use super::{
    error::BlockError,
    layer::{ImageDetails, Layer},
    node::{Edge, Node, inactive},
};

pub use editor::{Fields, ImageFile};
pub use error::SnapshotError;
pub use header::{Header, MAGIC};
pub use snapshots::{NewSnapshot, Reader, Snapshot, Writer, delete, go_back, read_snapshots};

/// Zeros that are written at once where the format knows no better way.
const ZEROS: u64 = 64 << 10;

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
            state.header.set_size(size);
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
        state.access.as_ref().map_or_else(|| state.header.size(), FormatAccess::size)
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

    fn filename(&self) -> Option<String> {
        Some(self.file().filename())
    }

    fn inactivate(&self) -> io::Result<()> {
        self.close()
    }

    fn activate(&self) -> Result<(), BlockError> {
        self.reopen()
    }

    fn image(&self) -> ImageDetails {
        let header = &self.state.read().header;
        ImageDetails {
            cluster_size: Some(header.cluster()),
            backing: header.backing().map(str::to_owned),
            full_backing: self.full_backing.clone(),
            backing_format: header.backing_format().map(str::to_owned),
            dirty: Some(header.is_dirty()),
            specific: Some(header.details()),
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
