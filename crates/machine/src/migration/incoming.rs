//! The side that receives: the machine stands until another has come to be it.

use std::{
    io::BufReader,
    sync::{Arc, atomic::Ordering},
    thread,
};

use rhea_api::{migration::MigrationStatus, run_state::RunState};
use rhea_core::files;

use super::{Address, Cancel, Capability, Refused, channel::Entrance};
use crate::{
    held::Job,
    hold::{After, Hold},
    inbox::GuestRequest,
    machine::Machine,
    state::StateError,
};

/// Bytes that are read at a time.
const BUFFER: usize = 128 << 10;

/// A machine that is about to come.
struct Arrival {
    hold: Hold,
    entrance: Entrance,
    cancel: Arc<Cancel>,
}

impl Machine {
    /// Receives a machine from `address`, in the background. If that fails, the program ends, or waits to be told of
    /// another one.
    ///
    /// # Errors
    /// This machine was not made to receive one, or receives already; or nobody can come from there.
    pub fn receive(self: &Arc<Self>, address: Address, end_on_error: bool) -> Result<(), Refused> {
        if !self.config().incoming {
            return Err(Refused::because("'-incoming' was not specified on the command line"));
        }
        if self.state() != RunState::Inmigrate || !self.migration().awaits.swap(false, Ordering::SeqCst) {
            return Err(Refused::because("The incoming migration has already been started"));
        }
        let begun = self.await_arrival(address).and_then(|arrival| {
            let machine = Arc::clone(self);
            let run = move || machine.take_in(arrival, end_on_error);
            let started = thread::Builder::new().name("migration".to_owned()).spawn(run);
            started.map(drop).map_err(|error| format!("Could not start a thread: {}", files::reason(&error)))
        });
        begun.map_err(|reason| {
            self.migration().awaits.store(true, Ordering::SeqCst);
            Refused(reason)
        })
    }

    fn await_arrival(self: &Arc<Self>, address: Address) -> Result<Arrival, String> {
        let hold = self.hold_for(Job::Load).map_err(|error| error.to_string())?;
        let entrance = Entrance::open(address)?;
        let cancel = Cancel::new().map_err(|error| files::reason(&error))?;
        self.migration().begin(false, Some(Arc::clone(&cancel)));
        self.migration().state.lock().listens = entrance.address();
        Ok(Arrival { hold, entrance, cancel })
    }

    /// Waits for the machine, and becomes it.
    fn take_in(&self, arrival: Arrival, end_on_error: bool) {
        let Arrival { hold, entrance, cancel } = arrival;
        let migration = self.migration();
        match self.load_from(&hold, entrance, &cancel) {
            Ok(after) => {
                hold.release(None, after);
                migration.ended(MigrationStatus::Completed, None, None);
            }
            Err(reason) => {
                // It is what it was before, and waits.
                hold.release(None, After::AsBefore);
                let ending = self.is_ending();
                if !end_on_error && !ending {
                    tracing::warn!("load of migration failed: {reason}");
                    migration.awaits_another(reason);
                    return;
                }
                migration.ended(MigrationStatus::Failed, None, Some(reason.clone()));
                if !ending {
                    *migration.fatal.lock() = Some(format!("load of migration failed: {reason}"));
                    self.request(GuestRequest::Quit);
                }
            }
        }
    }

    /// Loads what comes; how this machine goes on.
    fn load_from(&self, hold: &Hold, entrance: Entrance, cancel: &Cancel) -> Result<After, String> {
        let migration = self.migration();
        let host = |error: std::io::Error| files::reason(&error);
        let mut incoming = entrance.accept(cancel).map_err(host)?;
        migration.proceed(MigrationStatus::Active);
        let source = BufReader::with_capacity(BUFFER, incoming.source(cancel).map_err(host)?);
        let goes_on = hold.load_whole(source).map_err(|error: StateError| error.to_string())?;
        incoming.finish(cancel).map_err(host)?;
        let runs = goes_on.state == RunState::Running && migration.runs_at_once.load(Ordering::SeqCst);
        if runs || !migration.has(Capability::LateBlockActivate) {
            self.blocks().activate().map_err(|error| error.to_string())?;
        }
        incoming.confirm();
        Ok(match goes_on.state {
            _ if runs => After::Run,
            RunState::Running
            | RunState::Suspended
            | RunState::SaveVm
            | RunState::RestoreVm
            | RunState::Inmigrate
            | RunState::FinishMigrate
            | RunState::Postmigrate => After::Stay(RunState::Paused),
            state => After::Stay(state),
        })
    }
}
