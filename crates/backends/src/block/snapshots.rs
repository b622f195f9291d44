//! Snapshots of disks: which nodes have them, and how they are made, gone back to and deleted.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use super::{
    BlockError,
    node::Node,
    nodes::{BlockNodes, Disk},
    qcow2::{self, NewSnapshot, Qcow2, Snapshot, SnapshotError},
};

impl Node {
    /// The image that holds its bytes, if it is one, or one within limits.
    fn own_image(&self) -> Option<&Qcow2> {
        match self.group() {
            Some(_) => self.below()?.own_image(),
            None => self.layer(),
        }
    }

    /// Whether snapshots of it can be made.
    pub fn takes_snapshots(&self) -> bool {
        !self.read_only() && self.own_image().is_some()
    }

    /// Its snapshots, in the order in which they were made.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.own_image().map(Qcow2::snapshots).unwrap_or_default()
    }

    /// Its snapshot of this name, or else of this number.
    pub fn snapshot(&self, name: &str) -> Option<Snapshot> {
        let snapshots = self.snapshots();
        let named = snapshots.iter().find(|snapshot| snapshot.name == name);
        named.or_else(|| snapshots.iter().find(|snapshot| snapshot.id == name)).cloned()
    }

    fn snapshot_error(&self, what: &'static str, reason: SnapshotError) -> BlockError {
        BlockError::Snapshot { what, node: self.name().to_owned(), reason }
    }

    /// Its image, if snapshots in it can be made and deleted just now.
    fn changeable_image(&self) -> Result<&Qcow2, BlockError> {
        let image = self.own_image().filter(|_| !self.read_only());
        let image = image.ok_or_else(|| BlockError::NoSnapshots(self.name().to_owned()))?;
        if !self.is_active() {
            return Err(BlockError::Inactive(self.name().to_owned()));
        }
        Ok(image)
    }

    fn change_snapshots(
        &self,
        what: &'static str,
        work: impl FnOnce(&Arc<Self>) -> Result<(), SnapshotError>,
    ) -> Result<(), BlockError> {
        let image = self.changeable_image()?;
        image.close().map_err(|reason| self.snapshot_error(what, reason.into()))?;
        let worked = work(image.file()).map_err(|reason| self.snapshot_error(what, reason));
        image.reopen().and(worked)
    }

    /// Begins a snapshot. Until it is made or given up requests are refused; whoever calls this has seen to it that none
    /// comes.
    ///
    /// # Errors
    /// It is nothing that has snapshots, or its image is damaged.
    pub fn begin_snapshot(self: &Arc<Self>) -> Result<SnapshotWriter, BlockError> {
        const WHAT: &str = "creating";
        let image = self.changeable_image()?;
        image.close().map_err(|reason| self.snapshot_error(WHAT, reason.into()))?;
        let begun = qcow2::Writer::new(Arc::clone(image.file()));
        // From here on the end of it opens the image again.
        let mut snapshot = SnapshotWriter { node: Arc::clone(self), writer: None };
        snapshot.writer = Some(begun.map_err(|reason| self.snapshot_error(WHAT, reason))?);
        Ok(snapshot)
    }

    /// The machine's state in the snapshot with number `id`.
    ///
    /// # Errors
    /// There is none.
    pub fn read_snapshot(&self, id: &str) -> Result<impl Read + use<>, BlockError> {
        let image = self.own_image().ok_or_else(|| BlockError::NoSnapshots(self.name().to_owned()))?;
        let reader = qcow2::Reader::new(Arc::clone(image.file()), id);
        reader.map_err(|reason| self.snapshot_error("loading", reason))
    }
}

impl BlockNodes {
    /// The disks that can be written, with their names: drives, nodes with a device, and nodes that nobody uses.
    pub fn writable(&self) -> Vec<(String, Arc<Node>)> {
        let named = |disk: Disk| (disk.drive.unwrap_or_else(|| disk.node.name().to_owned()), disk.node);
        let mut disks: Vec<(String, Arc<Node>)> = self.disks().into_iter().map(named).collect();
        for node in self.nodes() {
            if !node.has_parents() && !node.is_used() && disks.iter().all(|(_, other)| !Arc::ptr_eq(other, &node)) {
                disks.push((node.name().to_owned(), node));
            }
        }
        disks.retain(|(_, node)| !node.read_only());
        disks
    }

    /// Makes the bytes of a node what they were in the snapshot with number `id`, and tells its user of another size.
    /// Whoever calls this has seen to it that no requests come.
    ///
    /// # Errors
    /// There is none, or its image is damaged. Then nothing has changed.
    pub fn go_back(&self, node: &Node, id: &str) -> Result<(), BlockError> {
        let _one = self.one_change();
        node.change_snapshots("loading", |file| qcow2::go_back(Arc::clone(file), id))?;
        self.tell_sizes();
        Ok(())
    }

    /// Deletes the snapshot with number `id` of a node. Whoever calls this has seen to it that no requests come.
    ///
    /// # Errors
    /// There is none, or its image is damaged. Then nothing has changed.
    pub fn delete_snapshot(&self, node: &Node, id: &str) -> Result<(), BlockError> {
        let _one = self.one_change();
        node.change_snapshots("deleting", |file| qcow2::delete(Arc::clone(file), id))
    }
}

/// A snapshot that is being made: takes the machine's state. If it is dropped before it is finished, the image is as it was.
pub struct SnapshotWriter {
    node: Arc<Node>,
    writer: Option<qcow2::Writer<Arc<Node>>>,
}

impl SnapshotWriter {
    /// Makes the snapshot; the node takes requests again.
    ///
    /// # Errors
    /// What the host says, or that there is no room. Then the image is as it was.
    pub fn finish(mut self, new: NewSnapshot) -> Result<(), BlockError> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let made = writer.finish(new).map_err(|reason| self.node.snapshot_error("creating", reason));
        made.and_then(|()| self.reopen())
    }

    fn reopen(&self) -> Result<(), BlockError> {
        self.node.own_image().map_or(Ok(()), Qcow2::reopen)
    }
}

impl Write for SnapshotWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.writer.as_mut().map_or(Ok(0), |writer| writer.write(data))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if self.node.own_image().is_some_and(|image| !image.is_open())
            && let Err(error) = self.reopen()
        {
            tracing::error!("{error}");
        }
    }
}
