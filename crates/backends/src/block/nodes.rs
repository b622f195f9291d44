//! All block nodes of the program, and the drives, which have one device each.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, Weak},
};

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Map, Value};

use super::{
    error::BlockError,
    file::HostFile,
    layer::Layer,
    node::{Edge, Footing, Node},
    null::Null,
    options::{Backing, Child, DriverSpec, MOST_LAYERS, NodeSettings, NodeSpec},
    qcow2::{Header, MAGIC, Qcow2},
    raw::Raw,
    throttle::{GroupMember, ThrottleGroup},
    usage::{BlockUse, Notice},
};

/// A drive to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriveConfig {
    /// Its id.
    pub id: String,
    /// Its node: the options of `blockdev-add`, without `driver` if the format is what the file looks like.
    pub node: Map<String, Value>,
    /// What it says it is, if the device does not say.
    pub serial: Option<String>,
    /// How fast it may be.
    pub limits: Option<DriveLimits>,
}

/// How fast a drive may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriveLimits {
    /// The group of limits that it is in; one of its own name if not given.
    pub group: Option<String>,
    /// Limits that the group is to have, by name.
    pub values: Vec<(String, i64)>,
}

/// Finds a group of limits that a manager made.
type FindGroup = Box<dyn Fn(&str) -> Option<Arc<ThrottleGroup>> + Send + Sync>;

/// A disk that one device uses and that ends with it: `-drive`.
#[derive(Debug)]
struct Drive {
    name: String,
    node: Arc<Node>,
    serial: Option<String>,
    limits: Option<GroupMember>,
}

#[derive(Default)]
struct State {
    /// What managers made, by name.
    owned: Vec<Arc<Node>>,
    /// All that may still be there.
    all: Vec<Weak<Node>>,
    drives: Vec<Drive>,
    uses: Vec<Weak<BlockUse>>,
    /// Groups of limits that came with drives.
    groups: Vec<Weak<ThrottleGroup>>,
    /// Numbers names that are made up.
    next: u64,
    /// Whether other programs may have the disks.
    inactive: bool,
}

/// All nodes and drives.
#[derive(Default)]
pub struct BlockNodes {
    state: Mutex<State>,
    /// Makes one change after another.
    change: Mutex<()>,
    find_group: OnceLock<FindGroup>,
}

/// A disk as managers see it: a drive, or a node with its device.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The drive's id.
    pub drive: Option<String>,
    /// Its bytes.
    pub node: Arc<Node>,
    /// Who uses it.
    pub usage: Option<Arc<BlockUse>>,
    /// How fast it may be.
    pub limits: Option<Arc<ThrottleGroup>>,
}

impl State {
    fn node(&self, name: &str) -> Option<Arc<Node>> {
        self.all.iter().filter_map(Weak::upgrade).find(|node| node.name() == name)
    }

    fn drive(&self, name: &str) -> Option<&Drive> {
        self.drives.iter().find(|drive| drive.name == name)
    }
}

impl BlockNodes {
    /// No nodes.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Says once where the groups of limits are that managers make.
    pub fn find_groups_by(&self, find: impl Fn(&str) -> Option<Arc<ThrottleGroup>> + Send + Sync + 'static) {
        let _ = self.find_group.set(Box::new(find));
    }

    /// The group of limits of this name.
    fn group(&self, name: &str) -> Option<Arc<ThrottleGroup>> {
        let made = self.find_group.get().and_then(|find| find(name));
        made.or_else(|| self.state.lock().groups.iter().filter_map(Weak::upgrade).find(|group| group.name() == name))
    }

    /// Puts drive `id` into its group, which is made if there is none.
    fn join(&self, id: &str, wanted: &DriveLimits) -> Result<Option<GroupMember>, BlockError> {
        let name = wanted.group.as_deref().unwrap_or(id);
        let known = self.group(name);
        let mut limits = known.as_ref().map(|group| group.limits()).unwrap_or_default();
        for (name, value) in &wanted.values {
            limits.set(name, *value)?;
        }
        limits.check()?;
        let group = match known {
            None if !limits.any() => return Ok(None),
            None => {
                let group = Arc::new(ThrottleGroup::new(name, limits)?);
                let groups = &mut self.state.lock().groups;
                groups.retain(|other| other.strong_count() > 0);
                groups.push(Arc::downgrade(&group));
                group
            }
            Some(group) => {
                if !wanted.values.is_empty() {
                    group.set_limits(limits)?;
                }
                group
            }
        };
        Ok(Some(GroupMember::new(group)))
    }

    /// Makes a node, and those within it.
    ///
    /// # Errors
    /// What is wrong with the options, or with a file. Then nothing was made.
    pub fn add(&self, options: &Map<String, Value>) -> Result<(), BlockError> {
        let spec = NodeSpec::read(options)?;
        let name = spec.name.as_ref().ok_or(BlockError::Nameless)?;
        let _one = self.change.lock();
        if self.state.lock().drive(name).is_some() {
            return Err(BlockError::DriveName(name.clone()));
        }
        let node = self.open(&spec)?;
        self.state.lock().owned.push(node);
        Ok(())
    }

    /// Makes a drive of a node that is its own.
    ///
    /// # Errors
    /// The id is taken; otherwise as for [`add`](Self::add).
    pub fn add_drive(&self, config: &DriveConfig) -> Result<(), BlockError> {
        let DriveConfig { id, node, serial, limits } = config;
        let _one = self.change.lock();
        {
            let state = self.state.lock();
            if state.drive(id).is_some() {
                return Err(BlockError::DuplicateDrive(id.clone()));
            }
            if state.node(id).is_some() {
                return Err(BlockError::Duplicate(id.clone()));
            }
        }
        let mut options = node.clone();
        if !options.contains_key("driver") {
            let file = options.get("file").and_then(|file| file.get("filename")).and_then(Value::as_str);
            let path = PathBuf::from(file.ok_or_else(|| BlockError::Missing("file".to_owned()))?);
            options.insert("driver".to_owned(), probe(&path)?.into());
        }
        let node = self.open(&NodeSpec::read(&options)?)?;
        let limits = limits.as_ref().map(|limits| self.join(id, limits)).transpose()?.flatten();
        self.state.lock().drives.push(Drive { name: id.clone(), node, serial: serial.clone(), limits });
        Ok(())
    }

    /// Removes a node that nobody uses.
    ///
    /// # Errors
    /// There is none of this name, it belongs to another, or it is in use.
    pub fn remove(&self, name: &str) -> Result<(), BlockError> {
        let _one = self.change.lock();
        let mut state = self.state.lock();
        let Some(node) = state.node(name) else { return Err(BlockError::NoNode(name.to_owned())) };
        if node.is_used() && !node.has_parents() {
            return Err(BlockError::InUse(name.to_owned()));
        }
        let Some(at) = state.owned.iter().position(|owned| Arc::ptr_eq(owned, &node)) else {
            return Err(BlockError::NotOwned(name.to_owned()));
        };
        if node.has_parents() {
            return Err(BlockError::HasParents(name.to_owned()));
        }
        let owned = state.owned.remove(at);
        state.all.retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(&owned)));
        drop(state);
        // Its file is closed here, or when those end who look at it just now.
        drop((node, owned));
        self.state.lock().all.retain(|other| other.strong_count() > 0);
        Ok(())
    }

    /// Gives a drive or a node to a device, of which `device` is the path or what is known of it.
    ///
    /// # Errors
    /// There is none of this name, or another has it.
    pub fn claim(self: &Arc<Self>, name: &str, device: &str) -> Result<Arc<BlockUse>, BlockError> {
        let _one = self.change.lock();
        let uses = self.uses();
        let (drive, node, serial, limits) = {
            let state = self.state.lock();
            match state.drive(name) {
                Some(_) if uses.iter().any(|usage| usage.drive() == Some(name)) => {
                    return Err(BlockError::DriveInUse(name.to_owned()));
                }
                Some(drive) => (
                    Some(name.to_owned()),
                    Arc::clone(&drive.node),
                    drive.serial.clone(),
                    drive.limits.as_ref().map(|member| Arc::clone(member.group())),
                ),
                None => (None, state.node(name).ok_or_else(|| BlockError::NoDrive(name.to_owned()))?, None, None),
            }
        };
        let limits = limits.into_iter().chain(node.groups().map(Arc::clone)).collect();
        let permits = node.permit(format!("block device '{device}'"), "root", !node.read_only(), false)?;
        let ended = drive.clone().map(|drive| {
            let nodes = Arc::downgrade(self);
            let end = move || nodes.upgrade().into_iter().for_each(|nodes| nodes.end_drive(&drive));
            Box::new(end) as Notice
        });
        let usage = BlockUse::new(drive, serial, node, device, permits, limits, ended);
        let mut state = self.state.lock();
        state.uses.retain(|other| other.strong_count() > 0);
        state.uses.push(Arc::downgrade(&usage));
        Ok(usage)
    }

    /// A drive's device is gone, and so is the drive.
    fn end_drive(&self, name: &str) {
        let mut state = self.state.lock();
        let at = state.drives.iter().position(|drive| drive.name == name);
        let ended = at.map(|at| state.drives.remove(at));
        drop(state);
        drop(ended);
    }

    /// The node of this name, or of the drive of this name.
    pub fn find(&self, name: &str) -> Option<Arc<Node>> {
        let state = self.state.lock();
        state.node(name).or_else(|| state.drive(name).map(|drive| Arc::clone(&drive.node)))
    }

    /// Changes the size of a node or drive, and tells its device.
    ///
    /// # Errors
    /// There is none of this name, or it cannot have this size.
    pub fn resize(&self, name: &str, size: u64) -> Result<(), BlockError> {
        let _one = self.change.lock();
        let node = self.find(name).ok_or_else(|| BlockError::NoChild(name.to_owned()))?;
        if node.read_only() {
            return Err(BlockError::ReadOnly);
        }
        if node.has_parents() {
            return Err(BlockError::HasParents(node.name().to_owned()));
        }
        if !size.is_multiple_of(512) {
            return Err(BlockError::Options("The size of a disk is a multiple of 512".to_owned()));
        }
        node.resize(size).map_err(BlockError::Resize)?;
        self.tell_sizes();
        Ok(())
    }

    /// All nodes, in the order in which they were made.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.state.lock().all.iter().filter_map(Weak::upgrade).collect()
    }

    /// All that are used. The last to hold one ends its drive, for which the state is locked: never let go of these
    /// while it is.
    fn uses(&self) -> Vec<Arc<BlockUse>> {
        self.state.lock().uses.iter().filter_map(Weak::upgrade).collect()
    }

    /// Drives, and nodes with a device.
    pub fn disks(&self) -> Vec<Disk> {
        let uses = self.uses();
        let state = self.state.lock();
        let drives = state.drives.iter().map(|drive| Disk {
            drive: Some(drive.name.clone()),
            node: Arc::clone(&drive.node),
            usage: uses.iter().find(|usage| usage.drive() == Some(&drive.name)).cloned(),
            limits: drive.limits.as_ref().map(GroupMember::group).or_else(|| drive.node.groups().next()).cloned(),
        });
        let used = uses.iter().filter(|usage| usage.drive().is_none()).map(|usage| {
            let node = Arc::clone(usage.node());
            let limits = node.groups().next().cloned();
            Disk { drive: None, node, usage: Some(Arc::clone(usage)), limits }
        });
        drives.chain(used).collect()
    }

    /// Makes all that was written to any node survive the end of the program.
    pub fn flush(&self) {
        for node in self.nodes() {
            if let Err(error) = node.flush() {
                tracing::error!("{}: {error}", node.filename());
            }
        }
    }

    /// Lets other programs have the disks: writes what is held back, gives up locks and forgets what images say of
    /// themselves. Requests are refused from then on; whoever calls this has seen to it that none is under way. Nodes that
    /// are made later are not this program's either, until [`activate`](Self::activate).
    ///
    /// # Errors
    /// Something could not be written. Then the disks are this program's still.
    pub fn inactivate(&self) -> Result<(), BlockError> {
        let _one = self.change.lock();
        let nodes = self.nodes();
        // Nodes that stand on others were made after them.
        for (done, node) in nodes.iter().rev().enumerate() {
            if let Err(reason) = node.inactivate() {
                let gone = nodes.iter().skip(nodes.len() - done);
                return gone.map(|node| node.activate()).find(Result::is_err).unwrap_or(Err(reason));
            }
        }
        self.state.lock().inactive = true;
        Ok(())
    }

    /// Whether the disks are given away.
    pub fn are_inactive(&self) -> bool {
        self.state.lock().inactive
    }

    /// Takes the disks, or takes them back: locks them, and reads anew what images say of themselves.
    ///
    /// # Errors
    /// Another program has one, or left it such that it cannot be used. Then none is this program's.
    pub fn activate(&self) -> Result<(), BlockError> {
        let _one = self.change.lock();
        if !self.state.lock().inactive {
            return Ok(());
        }
        let nodes = self.nodes();
        for (done, node) in nodes.iter().enumerate() {
            if let Err(reason) = node.activate() {
                for node in nodes.iter().take(done).rev() {
                    if let Err(error) = node.inactivate() {
                        tracing::error!("{error}");
                    }
                }
                return Err(reason);
            }
        }
        self.state.lock().inactive = false;
        self.tell_sizes();
        Ok(())
    }

    /// Has changes wait for each other.
    pub(super) fn one_change(&self) -> MutexGuard<'_, ()> {
        self.change.lock()
    }

    /// Tells the users of nodes that these may have another size now. Whoever uses one by way of others looks, too.
    pub(super) fn tell_sizes(&self) {
        self.uses().iter().for_each(|usage| usage.resized());
    }

    /// Opens a node, and registers it and those within it.
    fn open(&self, spec: &NodeSpec) -> Result<Arc<Node>, BlockError> {
        self.open_at(spec, 0)
    }

    fn open_at(&self, spec: &NodeSpec, depth: usize) -> Result<Arc<Node>, BlockError> {
        if depth >= MOST_LAYERS {
            return Err(BlockError::TooDeep);
        }
        if let Some(name) = &spec.name {
            let state = self.state.lock();
            if state.node(name).is_some() {
                return Err(BlockError::Duplicate(name.clone()));
            }
            if state.drive(name).is_some() {
                return Err(BlockError::DriveName(name.clone()));
            }
        }
        let mut settings = spec.settings;
        let mut footing = Footing::default();
        let active = !self.state.lock().inactive;
        let name = spec.name.clone().unwrap_or_else(|| self.made_up());
        let layer: Box<dyn Layer> = match &spec.driver {
            DriverSpec::File { path, locking, .. } => {
                let (file, read_only) = HostFile::open(path, *locking, &settings, active)?;
                settings.read_only = read_only;
                Box::new(file)
            }
            DriverSpec::Null { size, .. } => Box::new(Null { size: *size }),
            DriverSpec::Raw { file, offset, size } => {
                let file = self.child(file, &mut settings, depth)?;
                check_part(&file, *offset, *size)?;
                footing.below = Some(Arc::clone(&file));
                Box::new(Raw::new(Edge::new(file), *offset, *size))
            }
            DriverSpec::Throttle { group, file } => {
                let group = self.group(group).ok_or_else(|| BlockError::NoGroup(group.clone()))?;
                let file = self.child(file, &mut settings, depth)?;
                footing.below = Some(Arc::clone(&file));
                Box::new(Raw::within(Edge::new(file), GroupMember::new(group)))
            }
            DriverSpec::Qcow2 { file, backing: below } => {
                let file = self.child(file, &mut settings, depth)?;
                let header = Header::read(&file)?;
                let mut full = None;
                let under = match below {
                    Backing::None => None,
                    Backing::Node(child) => {
                        let mut ignored = NodeSettings { read_only: true, ..settings };
                        Some(self.child(child, &mut ignored, depth)?)
                    }
                    Backing::Image => match header.backing() {
                        None => None,
                        Some(name) => {
                            let path = beside(&file, name);
                            full = Some(path.display().to_string());
                            Some(self.implied(&path, header.backing_format(), &settings, depth)?)
                        }
                    },
                };
                let user = format!("node '{name}'");
                if let Some(under) = &under {
                    footing.permits.extend(under.permit(user.clone(), "backing", false, false)?);
                }
                footing.permits.extend(file.permit(user, "file", !settings.read_only, false)?);
                let image = Qcow2::new(header, &file, under.as_ref(), full, !settings.read_only);
                if active {
                    image.reopen()?;
                }
                footing.backing = under.map(Edge::new);
                footing.below = Some(file);
                Box::new(image)
            }
        };
        let node = Node::new(name, spec.driver_name(), settings, layer, footing, active);
        if node.depth() >= MOST_LAYERS {
            return Err(BlockError::TooDeep);
        }
        let mut state = self.state.lock();
        state.all.retain(|other| other.strong_count() > 0);
        state.all.push(Arc::downgrade(&node));
        Ok(node)
    }

    /// What a node stands on. A node that is to be written cannot stand on one that is not.
    fn child(&self, child: &Child, settings: &mut NodeSettings, depth: usize) -> Result<Arc<Node>, BlockError> {
        let node = match child {
            Child::Name(name) => self.find(name).ok_or_else(|| BlockError::NoChild(name.clone()))?,
            Child::Own(spec) => self.open_at(spec, depth + 1)?,
        };
        if node.read_only() && !settings.read_only {
            if !settings.auto_read_only && !node.settings().auto_read_only {
                return Err(BlockError::ReadOnly);
            }
            settings.read_only = true;
        }
        Ok(node)
    }

    /// The image that another says it stands on.
    fn implied(
        &self,
        path: &Path,
        format: Option<&str>,
        above: &NodeSettings,
        depth: usize,
    ) -> Result<Arc<Node>, BlockError> {
        let settings = NodeSettings { read_only: true, unmap: false, ..*above };
        let driver = DriverSpec::File { path: path.to_owned(), locking: true, device: false };
        let file = Child::Own(Box::new(NodeSpec { name: None, settings, driver }));
        let driver =
            match format.map_or_else(|| probe(path), |format| Ok(if format == "raw" { "raw" } else { "qcow2" }))? {
                "raw" => DriverSpec::Raw { file, offset: 0, size: None },
                _ => DriverSpec::Qcow2 { file, backing: Backing::Image },
            };
        self.open_at(&NodeSpec { name: None, settings, driver }, depth + 1)
    }

    fn made_up(&self) -> String {
        let mut state = self.state.lock();
        state.next += 1;
        format!("#block{:03}", state.next)
    }
}

/// A part must be in what it is a part of.
fn check_part(file: &Node, offset: u64, size: Option<u64>) -> Result<(), BlockError> {
    let there = file.size();
    if offset > there {
        return Err(BlockError::Options(format!(
            "Offset ({offset}) cannot be greater than size of the containing file ({there})"
        )));
    }
    let Some(size) = size else { return Ok(()) };
    if offset.checked_add(size).is_none_or(|end| end > there) {
        return Err(BlockError::Options(format!(
            "The sum of offset ({offset}) and size ({size}) has to be smaller or equal to the  actual size of the containing file ({there})"
        )));
    }
    if !size.is_multiple_of(512) {
        return Err(BlockError::Options("Specified size is not multiple of 512".to_owned()));
    }
    Ok(())
}

/// What the first bytes of a file look like.
fn probe(path: &Path) -> Result<&'static str, BlockError> {
    use std::os::unix::fs::FileExt as _;

    use rhea_core::files::{self, Access};
    let error = |source| BlockError::File { path: path.to_owned(), source };
    let mut magic = [0; 4];
    let file = files::open(path, Access::Read).map_err(error)?;
    // At its place: a descriptor that was passed is read by others too.
    let read = file.read_at(&mut magic, 0).map_err(error)?;
    Ok(if read == 4 && magic == MAGIC { "qcow2" } else { "raw" })
}

/// Where the image `name` is that the image in `file` names.
fn beside(file: &Node, name: &str) -> PathBuf {
    let name = name.strip_prefix("file:").unwrap_or(name);
    let file = std::iter::successors(Some(file), |node| node.group().and(node.below()).map(Arc::as_ref)).last();
    let own = PathBuf::from(file.map(Node::filename).unwrap_or_default());
    own.parent().map_or_else(|| PathBuf::from(name), |directory| directory.join(name))
}

#[cfg(test)]
mod tests;
