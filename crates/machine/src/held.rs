//! What a machine can be held for: work that needs it to stand, or to stay what it is.

use std::fmt;

use rhea_api::run_state::RunState;

/// What is done with the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Its memory is written for debuggers.
    Dump,
    /// Its state is saved.
    Save,
    /// A saved state is loaded.
    Load,
    /// It moves to another place.
    Migration,
}

impl Job {
    /// The run state of a machine that stands for it.
    pub(crate) const fn state(self) -> RunState {
        match self {
            Self::Dump | Self::Save => RunState::SaveVm,
            Self::Load => RunState::RestoreVm,
            Self::Migration => RunState::FinishMigrate,
        }
    }

    /// Whether devices must not come or go meanwhile.
    pub(crate) const fn keeps_devices(self) -> bool {
        !matches!(self, Self::Dump)
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dump => "There is a dump in process, please wait.",
            Self::Save => "The machine's state is being saved, please wait.",
            Self::Load => "A state of the machine is being loaded, please wait.",
            Self::Migration => "There's a migration process in progress",
        })
    }
}

/// What the machine knows of the work under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub job: Job,
    /// Whether the machine stands for it.
    pub standing: bool,
}
