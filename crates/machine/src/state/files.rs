//! Saved devices in files.

use std::{
    fs::File,
    io::{self, BufReader, Write},
    path::Path,
    sync::Arc,
};

use rhea_api::run_state::RunState;
use rhea_core::files::{self, Access, Replacement};

use super::StateError;
use crate::{error::MachineError, held::Job, hold::After, machine::Machine};

/// A file that is written.
enum Output {
    /// One that takes its name once it is complete.
    Fresh(Replacement),
    /// A device, a pipe, a client's descriptor.
    Direct(File),
}

impl Output {
    fn open(path: &Path) -> Result<Self, MachineError> {
        let in_place = files::is_passed(path) || path.metadata().is_ok_and(|data| !data.is_file() && !data.is_dir());
        let opened = if in_place {
            files::open(path, Access::Replace).map(Self::Direct)
        } else if path.is_dir() {
            Err(io::ErrorKind::IsADirectory.into())
        } else {
            Replacement::begin(path).map(Self::Fresh)
        };
        opened.map_err(|error| MachineError::Open { path: path.to_owned(), reason: files::reason(&error) })
    }

    fn write(self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Fresh(replacement) => {
                let mut file = replacement.file();
                file.write_all(bytes)?;
                replacement.complete()
            }
            Self::Direct(mut file) => file.write_all(bytes),
        }
    }
}

impl Machine {
    /// Writes the state of all devices to a file. The machine stands while it is taken. One that stood before
    /// `gives_disks_free` then, so that another can go on with them; it takes them back when it goes on itself.
    ///
    /// # Errors
    /// A device that cannot be saved, other work with the machine, or what the host says of the file.
    pub fn save_devices_to(self: &Arc<Self>, path: &Path, gives_disks_free: bool) -> Result<(), MachineError> {
        let output = Output::open(path)?;
        let hold = self.hold_for(Job::Save)?;
        let saved = hold.save_devices(Vec::new());
        let failed =
            |reason: io::Error| MachineError::Host { what: format!("could not write '{}'", path.display()), reason };
        if hold.ran() {
            // The guest does not wait for the file.
            hold.release(None, After::AsBefore);
            return output.write(&saved?).map_err(failed);
        }
        output.write(&saved?).map_err(failed)?;
        if gives_disks_free {
            self.blocks().inactivate()?;
        }
        Ok(())
    }

    /// Loads the state of all devices from a file into this machine, which is not to run.
    ///
    /// # Errors
    /// A machine that runs, other work with it, a file that cannot be read, or a state that is damaged or not of this
    /// machine, which then keeps the one that it had.
    pub fn load_devices_from(self: &Arc<Self>, path: &Path) -> Result<(), MachineError> {
        const RUNS: MachineError = MachineError::Unsupported("Cannot update device state while vm is running");
        if matches!(self.state(), RunState::Running | RunState::Suspended) {
            return Err(RUNS);
        }
        let opened = files::open(path, Access::Read);
        let file =
            opened.map_err(|error| MachineError::Open { path: path.to_owned(), reason: files::reason(&error) })?;
        let hold = self.hold_for(Job::Load)?;
        if hold.ran() {
            return Err(RUNS);
        }
        let goes_on = hold.load_devices(BufReader::new(file))?;
        hold.release(None, After::Stay(goes_on.at_rest()));
        Ok(())
    }
}

impl From<StateError> for MachineError {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}
