//! Work that needs the machine to stand, or to stay what it is: a dump, a saved state, a migration. One at a time.

use std::{sync::Arc, time::Duration};

use rhea_api::{Event, run_state::RunState};

use crate::{
    error::MachineError,
    held::{Held, Job},
    inbox::Attention,
    machine::Machine,
};

/// What becomes of the machine after the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It goes on if it ran before.
    AsBefore,
    /// It goes on.
    Run,
    /// It stays where it is, in this state.
    Stay(RunState),
}

/// The right to do such work. The machine goes on as before when it is dropped.
pub struct Hold {
    machine: Arc<Machine>,
    job: Job,
    standing: bool,
    ran: bool,
    ended: bool,
}

impl Hold {
    /// The machine.
    pub const fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// What it is held for.
    pub const fn job(&self) -> Job {
        self.job
    }

    /// Makes the machine stand: processors, devices' threads, clock and timers. Nothing moves from now on but what comes
    /// from outside.
    pub fn stand(&mut self) {
        if self.standing {
            return;
        }
        self.standing = true;
        self.ran = self.machine.stand_for(self.job);
        // What was due when the clock stopped has happened; from now on nothing is.
        if self.machine.clock().is_told() {
            return;
        }
        self.machine.parts().timers.run_expired();
    }

    /// Whether the machine stands.
    pub const fn stands(&self) -> bool {
        self.standing
    }

    /// Whether the machine ran, or its guest slept, before it stood.
    pub const fn ran(&self) -> bool {
        self.ran
    }

    /// Whether the machine ends, and the work with it.
    pub fn called_off(&self) -> bool {
        self.machine.is_ending()
    }

    /// Ends the work: says `completed`, if anything, before the machine does `after`.
    pub fn release(mut self, completed: Option<Event>, after: After) {
        self.end(completed, after);
    }

    fn end(&mut self, completed: Option<Event>, after: After) {
        if !self.ended {
            self.ended = true;
            self.machine.release_from(self.job, self.ran, completed, after);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.end(None, After::AsBefore);
    }
}

impl Machine {
    /// Begins work that needs the machine as it is; devices stay where they are, but it may run.
    ///
    /// # Errors
    /// Other such work is under way.
    pub fn begin(self: &Arc<Self>, job: Job) -> Result<Hold, MachineError> {
        let _devices = self.devices().hold();
        let mut control = self.control().lock();
        if let Some(held) = control.held {
            return Err(MachineError::Busy(held.job));
        }
        control.held = Some(Held { job, standing: false });
        if job.keeps_devices() {
            self.parts().inbox.attend(Attention::NoEjection);
        }
        Ok(Hold { machine: Arc::clone(self), job, standing: false, ran: false, ended: false })
    }

    /// Makes the machine stand for `job`.
    ///
    /// # Errors
    /// Other such work is under way.
    pub fn hold_for(self: &Arc<Self>, job: Job) -> Result<Hold, MachineError> {
        let mut hold = self.begin(job)?;
        hold.stand();
        Ok(hold)
    }

    /// Whether the machine ran.
    fn stand_for(&self, job: Job) -> bool {
        let mut control = self.control().lock();
        control.held = Some(Held { job, standing: true });
        self.parts().inbox.attend(Attention::Host);
        let ran = self.stop_into(&mut control, job.state());
        // A machine that has not begun to run has its gate open.
        self.parts().gate.close();
        ran
    }

    fn release_from(&self, job: Job, ran: bool, completed: Option<Event>, after: After) {
        let mut control = self.control().lock();
        let standing = control.held.take().is_some_and(|held| held.standing);
        if standing {
            self.parts().gate.open();
        }
        self.parts().inbox.attend(Attention::All);
        if let Some(completed) = completed {
            self.emit(completed);
        }
        // Whoever ended the machine meanwhile, or reset it, has the last word.
        let own = !self.is_ending() && (!ran || control.state == job.state());
        match after {
            After::AsBefore if own && ran => self.resume(&mut control),
            After::Run if own && !matches!(control.state, RunState::Running | RunState::Suspended) => {
                self.resume(&mut control);
            }
            After::Stay(state) if own => control.enter(state),
            _ => {}
        }
        drop(control);
        self.job_ended().notify_all();
    }

    /// Whether stopping and starting is for others to decide.
    ///
    /// # Errors
    /// It is.
    pub(crate) fn check_free(held: Option<Held>) -> Result<(), MachineError> {
        match held {
            Some(Held { job, standing: true }) => Err(MachineError::Busy(job)),
            _ => Ok(()),
        }
    }

    /// Whether devices may come and go. They must be held.
    ///
    /// # Errors
    /// Something is under way that needs them as they are.
    pub(crate) fn check_devices_free(&self) -> Result<(), MachineError> {
        match self.control().lock().held {
            Some(held) if held.job.keeps_devices() => Err(MachineError::Busy(held.job)),
            _ => Ok(()),
        }
    }

    /// Lets work that was called off clean up: it may write to someone who does not read.
    pub(crate) fn wait_for_job(&self) {
        const PATIENCE: Duration = Duration::from_millis(500);
        let mut control = self.control().lock();
        self.job_ended().wait_while_for(&mut control, |control| control.held.is_some(), PATIENCE);
    }
}
