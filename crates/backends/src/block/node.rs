//! A node: bytes with a name, that devices use and other nodes stand on.

use std::{
    any::Any,
    fmt, io,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use rhea_core::memory::{GuestSlice, transfer};
use serde_json::{Map, Value};

use super::{
    error::BlockError,
    layer::{ImageDetails, Layer},
    options::{DetectZeroes, NodeSettings},
    throttle::ThrottleGroup,
};

/// A node.
pub struct Node {
    name: String,
    driver: &'static str,
    settings: NodeSettings,
    layer: Box<dyn Layer>,
    /// The node with its bytes, which its layer stands on.
    below: Option<Arc<Self>>,
    /// What an image takes for what is not written in it.
    backing: Option<Edge>,
    /// What it holds of those below, as long as it is there.
    _permits: Vec<Permit>,
    /// How many nodes are below it, one under another.
    depth: usize,
    /// Nodes that stand on it.
    parents: AtomicUsize,
    uses: Mutex<Vec<Arc<Use>>>,
    /// The end of the write that went farthest.
    highest_write: AtomicU64,
    /// Whether it is this program's to use, and not another's.
    active: AtomicBool,
}

/// What is said of requests to a node that another program may have.
pub(super) fn inactive() -> io::Error {
    io::Error::other("the node is inactive")
}

/// What a node stands on.
#[derive(Default)]
pub(super) struct Footing {
    /// The node with its bytes, which its layer stands on.
    pub below: Option<Arc<Node>>,
    /// What an image takes for what is not written in it.
    pub backing: Option<Edge>,
    /// What it holds of these.
    pub permits: Vec<Permit>,
}

/// How somebody uses a node.
#[derive(Debug)]
struct Use {
    /// Who, in words.
    user: String,
    /// What the node is to it.
    role: &'static str,
    writes: bool,
    shares_writing: bool,
}

impl Use {
    fn describe(&self, node: &str) -> String {
        format!("{} (uses node '{node}' as '{}' child)", self.user, self.role)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.driver, self.name)
    }
}

impl Node {
    pub(super) fn new(
        name: String,
        driver: &'static str,
        settings: NodeSettings,
        layer: Box<dyn Layer>,
        footing: Footing,
        active: bool,
    ) -> Arc<Self> {
        let Footing { below, backing, permits } = footing;
        let depth = |node: Option<&Arc<Self>>| node.map_or(0, |node| node.depth + 1);
        let depth = depth(below.as_ref()).max(depth(backing.as_ref().map(Edge::node)));
        let (parents, uses) = (AtomicUsize::new(0), Mutex::default());
        Arc::new(Self {
            name,
            driver,
            settings,
            layer,
            below,
            backing,
            _permits: permits,
            depth,
            parents,
            uses,
            highest_write: AtomicU64::new(0),
            active: AtomicBool::new(active),
        })
    }

    /// What it does with its bytes, if that is an `L`.
    pub(super) fn layer<L: Layer>(&self) -> Option<&L> {
        (&*self.layer as &dyn Any).downcast_ref()
    }

    /// Its name; one that begins with `#` was made up.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its driver.
    pub fn driver(&self) -> &'static str {
        self.driver
    }

    /// How it was opened.
    pub fn settings(&self) -> &NodeSettings {
        &self.settings
    }

    /// What its bytes are named on the host: a file's name, or else JSON that describes it.
    pub fn filename(&self) -> String {
        self.layer.filename().unwrap_or_else(|| format!("json:{}", self.description()))
    }

    /// What it is, in JSON.
    pub fn description(&self) -> Value {
        let mut members = Map::from_iter([("driver".to_owned(), self.driver.into())]);
        match self.layer.description() {
            Some(more) => members.extend(more),
            None => {
                members.insert("filename".to_owned(), self.filename().into());
            }
        }
        members.into()
    }

    /// The node with its bytes, if it is a format or a filter.
    pub fn below(&self) -> Option<&Arc<Self>> {
        self.below.as_ref()
    }

    /// The limits within which it is used, if it is there for these.
    pub fn group(&self) -> Option<&Arc<ThrottleGroup>> {
        self.layer.group()
    }

    /// The limits of it and of all that it passes its bytes on to.
    pub(super) fn groups(self: &Arc<Self>) -> impl Iterator<Item = &Arc<ThrottleGroup>> {
        std::iter::successors(Some(self), |node| node.below()).filter_map(|node| node.group())
    }

    /// The image that it stands on.
    pub fn backing(&self) -> Option<&Arc<Self>> {
        self.backing.as_ref().map(Edge::node)
    }

    /// How many nodes are below it, one under another.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// How many images are below it.
    pub fn backing_depth(&self) -> usize {
        self.backing().map_or(0, |backing| backing.backing_depth() + 1)
    }

    /// Whether it must not be written.
    pub fn read_only(&self) -> bool {
        self.settings.read_only
    }

    /// Whether it is this program's to use. Otherwise another may have it, and requests are refused.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// Writes what is held back, and lets other programs have it. What stands on it went before.
    pub(super) fn inactivate(&self) -> Result<(), BlockError> {
        if !self.is_active() {
            return Ok(());
        }
        let failed = |source| BlockError::Write { node: self.name.clone(), source };
        self.flush().map_err(failed)?;
        self.layer.inactivate().map_err(failed)?;
        self.active.store(false, Ordering::Release);
        Ok(())
    }

    /// Takes it back, as other programs left it. What it stands on went before.
    pub(super) fn activate(&self) -> Result<(), BlockError> {
        if self.is_active() {
            return Ok(());
        }
        self.layer.activate()?;
        self.active.store(true, Ordering::Release);
        Ok(())
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.layer.size()
    }

    /// Bytes that it takes on the host.
    pub fn allocated(&self) -> u64 {
        self.layer.allocated()
    }

    /// The end of the write that went farthest.
    pub fn highest_write(&self) -> u64 {
        self.highest_write.load(Ordering::Acquire)
    }

    /// What is particular to its image.
    pub fn image(&self) -> ImageDetails {
        self.layer.image()
    }

    pub(super) fn has_parents(&self) -> bool {
        self.parents.load(Ordering::Acquire) > 0
    }

    pub(super) fn is_used(&self) -> bool {
        !self.uses.lock().is_empty()
    }

    /// Fills `data` from `offset` on.
    ///
    /// # Errors
    /// What the host says.
    pub fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.layer.read(offset, data)
    }

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// What the host says, or a node that must not be written.
    pub fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        self.highest_write.fetch_max(offset.saturating_add(data.len() as u64), Ordering::AcqRel);
        if self.settings.detect_zeroes != DetectZeroes::Off && data.iter().all(|byte| *byte == 0) {
            let unmap = self.settings.detect_zeroes == DetectZeroes::Unmap;
            return self.layer.write_zeroes(offset, data.len() as u64, unmap);
        }
        self.layer.write(offset, data)
    }

    /// Fills parts of guest RAM from `offset` on.
    ///
    /// # Errors
    /// What the host says.
    pub fn read_to_guest(&self, offset: u64, into: &[GuestSlice<'_>]) -> io::Result<()> {
        self.layer.read_to_guest(offset, into)
    }

    /// Writes parts of guest RAM at `offset`.
    ///
    /// # Errors
    /// What the host says, or a node that must not be written.
    pub fn write_from_guest(&self, offset: u64, from: &[GuestSlice<'_>]) -> io::Result<()> {
        self.check_writable()?;
        if self.settings.detect_zeroes != DetectZeroes::Off {
            return transfer::drain(from, |at, piece| self.write(offset + at, piece));
        }
        self.highest_write.fetch_max(offset.saturating_add(transfer::length(from)), Ordering::AcqRel);
        self.layer.write_from_guest(offset, from)
    }

    /// Makes all that was written survive the end of the program, and of the host unless it is not to.
    ///
    /// # Errors
    /// What the host says.
    pub fn flush(&self) -> io::Result<()> {
        if self.settings.read_only || !self.is_active() {
            return Ok(());
        }
        self.layer.flush()
    }

    /// A range is not needed any more.
    ///
    /// # Errors
    /// What the host says, or a node that must not be written.
    pub fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.check_writable()?;
        if self.settings.unmap { self.layer.discard(offset, length) } else { Ok(()) }
    }

    /// Makes a range read as zeros.
    ///
    /// # Errors
    /// What the host says, or a node that must not be written.
    pub fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        self.check_writable()?;
        self.layer.write_zeroes(offset, length, unmap && self.settings.unmap)
    }

    /// Changes the size.
    ///
    /// # Errors
    /// What the host says, or a node that must not be written or has its size for good.
    pub fn resize(&self, size: u64) -> io::Result<()> {
        self.check_writable()?;
        self.layer.resize(size)
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.settings.read_only {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if self.is_active() { Ok(()) } else { Err(inactive()) }
    }

    /// Registers a use, and the same use by itself of what it passes all on to.
    pub(super) fn permit(
        self: &Arc<Self>,
        user: String,
        role: &'static str,
        writes: bool,
        shares_writing: bool,
    ) -> Result<Vec<Permit>, BlockError> {
        let wanted = Arc::new(Use { user, role, writes, shares_writing });
        {
            let mut uses = self.uses.lock();
            for other in uses.iter() {
                let (writer, keeper) = if wanted.writes && !other.shares_writing {
                    (&wanted, other)
                } else if other.writes && !wanted.shares_writing {
                    (other, &wanted)
                } else {
                    continue;
                };
                return Err(BlockError::Conflict {
                    node: self.name.clone(),
                    writer: writer.describe(&self.name),
                    other: keeper.describe(&self.name),
                });
            }
            uses.push(Arc::clone(&wanted));
        }
        let mut permits = vec![Permit { node: Arc::downgrade(self), granted: wanted }];
        if self.layer.passes_on()
            && let Some(below) = self.below()
        {
            permits.extend(below.permit(format!("node '{}'", self.name), "file", writes, shares_writing)?);
        }
        Ok(permits)
    }
}

/// A use of a node, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    node: Weak<Node>,
    granted: Arc<Use>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(node) = self.node.upgrade() {
            node.uses.lock().retain(|other| !Arc::ptr_eq(other, &self.granted));
        }
    }
}

/// What one node stands on: it keeps the other from being removed.
#[derive(Debug)]
pub struct Edge(Arc<Node>);

impl Edge {
    /// Stands on `node`.
    pub fn new(node: Arc<Node>) -> Self {
        node.parents.fetch_add(1, Ordering::AcqRel);
        Self(node)
    }

    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        &self.0
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.0.parents.fetch_sub(1, Ordering::AcqRel);
    }
}
