//! Work in the background, and snapshots: `job.json`.

use std::{
    fmt,
    sync::{Arc, mpsc},
    thread,
};

use rhea_api::job::{Handler, JobInfo, JobType};
use rhea_machine::{Machine, MachineError, SnapshotChoice, jobs::Progress};
use rhea_qmp::Error;

use super::Commands;

impl Handler for Commands<'_> {
    fn query_jobs(&mut self) -> Result<Vec<JobInfo>, Error> {
        Ok(self.machine().jobs().list())
    }

    fn job_dismiss(&mut self, id: String) -> Result<(), Error> {
        self.machine().jobs().dismiss(&id).map_err(Error::generic)
    }

    fn job_cancel(&mut self, id: String) -> Result<(), Error> {
        self.machine().jobs().cancel(&id).map_err(Error::generic)
    }

    fn job_complete(&mut self, id: String) -> Result<(), Error> {
        self.machine().jobs().refuse(&id, "complete").map_err(Error::generic)
    }

    fn job_finalize(&mut self, id: String) -> Result<(), Error> {
        self.machine().jobs().refuse(&id, "finalize").map_err(Error::generic)
    }

    fn snapshot_save(
        &mut self,
        job_id: String,
        tag: String,
        vmstate: String,
        devices: Vec<String>,
    ) -> Result<(), Error> {
        let choice = SnapshotChoice { tag, vmstate: Some(vmstate), devices: Some(devices) };
        self.start(&job_id, JobType::SnapshotSave, move |machine, progress| {
            machine.save_snapshot(&choice, false, progress)
        })
    }

    fn snapshot_load(
        &mut self,
        job_id: String,
        tag: String,
        vmstate: String,
        devices: Vec<String>,
    ) -> Result<(), Error> {
        let choice = SnapshotChoice { tag, vmstate: Some(vmstate), devices: Some(devices) };
        self.start(&job_id, JobType::SnapshotLoad, move |machine, _| machine.load_snapshot(&choice))
    }

    fn snapshot_delete(&mut self, job_id: String, tag: String, devices: Vec<String>) -> Result<(), Error> {
        let choice = SnapshotChoice { tag, vmstate: None, devices: Some(devices) };
        self.start(&job_id, JobType::SnapshotDelete, move |machine, _| machine.delete_snapshot(&choice))
    }
}

impl Commands<'_> {
    /// Begins a job whose work is done on a thread of its own, once the command was answered.
    fn start(
        &mut self,
        id: &str,
        kind: JobType,
        work: impl FnOnce(&Arc<Machine>, &Progress) -> Result<(), MachineError> + Send + 'static,
    ) -> Result<(), Error> {
        let machine = Arc::clone(self.machine());
        let job = machine.jobs().begin(id, kind).map_err(Error::generic)?;
        let (answered, wait_for_answer) = mpsc::channel::<()>();
        let run = move || {
            // The other end says nothing: it goes away.
            let _ = wait_for_answer.recv();
            job.run(|progress| work(&machine, progress));
        };
        let no_thread =
            |error: std::io::Error| Error::generic(fmt::format(format_args!("Could not start a thread: {error}")));
        thread::Builder::new().name("job".to_owned()).spawn(run).map_err(no_thread)?;
        self.after_answer(move || drop(answered));
        Ok(())
    }
}
