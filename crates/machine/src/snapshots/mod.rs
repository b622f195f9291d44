//! Snapshots of the whole machine: its state in one of its disks, and those disks as they were then.

pub(crate) mod error;

use std::{
    io::BufReader,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rhea_api::run_state::RunState;
use rhea_backends::block::{BlockError, NewSnapshot, Node};

use self::error::{LONGEST_NAME, SnapshotError};
use crate::{
    error::MachineError,
    held::Job,
    hold::{After, Hold},
    jobs::Progress,
    machine::Machine,
    state::StateError,
};

/// Which snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotChoice {
    /// Its name.
    pub tag: String,
    /// Node of the disk with the machine's state; the first that can hold it if not given.
    pub vmstate: Option<String>,
    /// Nodes of the disks; all that can be written if not given.
    pub devices: Option<Vec<String>>,
}

/// A disk and what it is called.
struct Disk {
    name: String,
    node: Arc<Node>,
}

impl SnapshotChoice {
    /// The snapshot `tag` of all disks.
    pub fn of_all(tag: impl Into<String>) -> Self {
        Self { tag: tag.into(), vmstate: None, devices: None }
    }

    /// The disks that it is of, all of which take snapshots.
    fn disks(&self, machine: &Machine) -> Result<Vec<Disk>, MachineError> {
        let blocks = machine.blocks();
        let disks: Vec<Disk> = match &self.devices {
            None => blocks.writable().into_iter().map(|(name, node)| Disk { name, node }).collect(),
            Some(names) if names.is_empty() => return Err(SnapshotError::NoDevices.into()),
            Some(names) => {
                let mut disks: Vec<Disk> = Vec::new();
                for name in names {
                    let node = blocks.find(name).ok_or_else(|| SnapshotError::NoNode(name.clone()))?;
                    if node.read_only() {
                        return Err(SnapshotError::ReadOnly(name.clone()).into());
                    }
                    // One that is named twice is one.
                    if disks.iter().all(|disk| !Arc::ptr_eq(&disk.node, &node)) {
                        disks.push(Disk { name: name.clone(), node });
                    }
                }
                disks
            }
        };
        match disks.iter().find(|disk| !disk.node.takes_snapshots()) {
            Some(disk) => Err(SnapshotError::Unsupported(disk.name.clone()).into()),
            None => Ok(disks),
        }
    }

    /// Takes the disk with the machine's state out of `disks`.
    fn state_disk(&self, disks: &mut Vec<Disk>) -> Result<Disk, SnapshotError> {
        let at = match &self.vmstate {
            None => 0,
            Some(name) => {
                let named = |disk: &Disk| disk.name == *name || disk.node.name() == name;
                disks.iter().position(named).ok_or_else(|| SnapshotError::NoStateNode(name.clone()))?
            }
        };
        if disks.is_empty() { Err(SnapshotError::NoStateDisk) } else { Ok(disks.remove(at)) }
    }
}

impl Machine {
    /// Makes a snapshot. The machine stands meanwhile, and goes on if it ran. One of the same name is an error, unless the new
    /// one is to `replace` it.
    ///
    /// # Errors
    /// A disk that takes none, a name that is taken, or what the host says. Then all disks are as they were.
    pub fn save_snapshot(
        self: &Arc<Self>,
        choice: &SnapshotChoice,
        replace: bool,
        progress: &Progress,
    ) -> Result<(), MachineError> {
        if !(1..=LONGEST_NAME).contains(&choice.tag.len()) {
            return Err(SnapshotError::Name.into());
        }
        let mut hold = self.begin(Job::Save)?;
        let mut disks = choice.disks(self)?;
        let state_disk = choice.state_disk(&mut disks)?;
        let all = || disks.iter().chain([&state_disk]);
        let old: Vec<(Arc<Node>, String)> =
            all().filter_map(|disk| Some((Arc::clone(&disk.node), named(&disk.node, &choice.tag)?))).collect();
        if !old.is_empty() && !replace {
            return Err(SnapshotError::Exists(choice.tag.clone()).into());
        }
        hold.stand();
        let mut made = Vec::new();
        let result = self.write_snapshot(&hold, &choice.tag, &state_disk.node, &disks, progress, &mut made);
        // What is there of one that was not made goes; otherwise what it replaces.
        for (node, id) in if result.is_ok() { old } else { made } {
            self.blocks().delete_snapshot(&node, &id)?;
        }
        result
    }

    /// Writes a snapshot: last of all to the disk with the machine's state, which makes it one.
    fn write_snapshot(
        &self,
        hold: &Hold,
        tag: &str,
        state_disk: &Arc<Node>,
        others: &[Disk],
        progress: &Progress,
        made: &mut Vec<(Arc<Node>, String)>,
    ) -> Result<(), MachineError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let new = || NewSnapshot {
            name: tag.to_owned(),
            // The format's own limit, of the year 2106.
            seconds: u32::try_from(now.as_secs()).unwrap_or(u32::MAX),
            nanoseconds: now.subsec_nanos(),
            clock: self.clock().now().as_nanos(),
        };
        let mut snapshot = state_disk.begin_snapshot()?;
        let mut tell = |done, total| progress.at(done, total);
        hold.save_whole(&mut snapshot, &mut tell).map_err(|reason| match reason {
            StateError::CalledOff if progress.is_cancelled() => SnapshotError::Cancelled,
            reason => SnapshotError::NotSaved(reason),
        })?;
        for Disk { node, .. } in others {
            node.begin_snapshot()?.finish(new())?;
            if let Some(latest) = node.snapshots().pop() {
                made.push((Arc::clone(node), latest.id));
            }
        }
        Ok(snapshot.finish(new())?)
    }

    /// Goes back to a snapshot: disks and machine. The machine goes on if it ran.
    ///
    /// # Errors
    /// There is none of this name on all disks, or it is not of this machine: then nothing has changed. What goes wrong later
    /// leaves a machine that must be reset.
    pub fn load_snapshot(self: &Arc<Self>, choice: &SnapshotChoice) -> Result<(), MachineError> {
        let mut hold = self.begin(Job::Load)?;
        let mut disks = choice.disks(self)?;
        let state_disk = choice.state_disk(&mut disks)?;
        disks.insert(0, state_disk);
        let missing = || SnapshotError::Missing(choice.tag.clone());
        let snapshots = disks.iter().map(|disk| disk.node.snapshot(&choice.tag).ok_or_else(missing));
        let snapshots: Vec<_> = snapshots.collect::<Result<_, _>>()?;
        let (disk, snapshot) = disks.first().zip(snapshots.first()).ok_or(SnapshotError::NoStateDisk)?;
        if snapshot.state_size == 0 {
            return Err(SnapshotError::DiskOnly.into());
        }
        let state = || -> Result<_, BlockError> { Ok(BufReader::new(disk.node.read_snapshot(&snapshot.id)?)) };
        hold.stand();
        hold.check(state()?).map_err(SnapshotError::State)?;
        let mut changed = false;
        let result: Result<(), MachineError> = (|| {
            for (disk, snapshot) in disks.iter().zip(&snapshots) {
                self.blocks().go_back(&disk.node, &snapshot.id)?;
                changed = true;
            }
            hold.load_whole(state()?).map_err(SnapshotError::State)?;
            Ok(())
        })();
        match result {
            Err(reason) if changed => {
                hold.release(None, After::Stay(RunState::InternalError));
                Err(SnapshotError::Broken(reason.to_string()).into())
            }
            result => result,
        }
    }

    /// Deletes a snapshot from disks; those that have none of this name stay as they are. The machine may run.
    ///
    /// # Errors
    /// A disk that takes none, or what the host says.
    pub fn delete_snapshot(self: &Arc<Self>, choice: &SnapshotChoice) -> Result<(), MachineError> {
        let _hold = self.begin(Job::Save)?;
        let disks = choice.disks(self)?;
        // Devices wait with their requests meanwhile.
        let gate = &self.parts().gate;
        gate.close();
        let result = disks.iter().try_for_each(|disk| match named(&disk.node, &choice.tag) {
            Some(id) => self.blocks().delete_snapshot(&disk.node, &id),
            None => Ok(()),
        });
        gate.open();
        Ok(result?)
    }
}

/// The number of the snapshot of this name.
fn named(node: &Node, tag: &str) -> Option<String> {
    node.snapshot(tag).map(|snapshot| snapshot.id)
}
