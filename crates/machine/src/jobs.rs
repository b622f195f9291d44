//! Jobs: work in the background that managers name, follow and dismiss.

use std::{
    fmt,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use rhea_api::{
    Event,
    job::{JobInfo, JobStatus, JobType},
};
use rhea_core::object::is_well_formed_id;

use crate::events::EventSink;

/// More jobs than this are not kept.
const MOST: usize = 1024;

/// Why a job was not made, or does not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// A name that is none.
    #[error("Invalid job ID '{0}'")]
    Name(String),
    /// Names are unique.
    #[error("Job ID '{0}' already in use")]
    Duplicate(String),
    /// Nobody dismisses them.
    #[error("There are {MOST} jobs; dismiss those that have concluded")]
    TooMany,
    /// There is none of this name.
    #[error("Job not found")]
    NoJob,
    /// Not as it stands.
    #[error("Job '{id}' in state '{}' cannot accept command verb '{verb}'", status.as_str())]
    Refused {
        /// Which.
        id: String,
        /// How it stands.
        status: JobStatus,
        /// What it was asked to do.
        verb: &'static str,
    },
}

/// A job.
#[derive(Debug)]
struct Row {
    id: String,
    kind: JobType,
    status: JobStatus,
    error: Option<String>,
    progress: Arc<Progress>,
}

/// How far a job is.
#[derive(Debug)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
    cancelled: AtomicBool,
}

impl Default for Progress {
    fn default() -> Self {
        // A job that knows nothing of itself is one piece of work.
        Self { done: AtomicU64::new(0), total: AtomicU64::new(1), cancelled: AtomicBool::new(false) }
    }
}

impl Progress {
    /// Says that so much is done of all that there is to be done, in a measure of the job's own. A break if the job was
    /// cancelled.
    pub fn at(&self, done: u64, total: u64) -> ControlFlow<()> {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        if self.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }
}

/// All jobs that were not dismissed.
pub struct Jobs {
    rows: Mutex<Vec<Row>>,
    events: EventSink,
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Jobs({:?})", self.rows.lock())
    }
}

impl Jobs {
    /// None, with `events` for what becomes of those that come.
    pub fn new(events: EventSink) -> Arc<Self> {
        Arc::new(Self { rows: Mutex::default(), events })
    }

    /// The status changes one after another, and so do the events come.
    fn set(&self, row: &mut Row, status: JobStatus) {
        row.status = status;
        (self.events)(Event::JobStatusChange { id: row.id.clone(), status });
    }

    /// Makes a job, which runs from now on: whoever has what is returned does its work.
    ///
    /// # Errors
    /// Its name is none or taken.
    pub fn begin(self: &Arc<Self>, id: &str, kind: JobType) -> Result<Job, JobError> {
        if !is_well_formed_id(id) {
            return Err(JobError::Name(id.to_owned()));
        }
        let mut rows = self.rows.lock();
        if rows.iter().any(|row| row.id == id) {
            return Err(JobError::Duplicate(id.to_owned()));
        }
        if rows.len() >= MOST {
            return Err(JobError::TooMany);
        }
        let progress = Arc::<Progress>::default();
        let mut row =
            Row { id: id.to_owned(), kind, status: JobStatus::Undefined, error: None, progress: Arc::clone(&progress) };
        self.set(&mut row, JobStatus::Created);
        self.set(&mut row, JobStatus::Running);
        rows.push(row);
        Ok(Job { jobs: Arc::clone(self), id: id.to_owned(), progress, ended: false })
    }

    /// All jobs, the latest first.
    pub fn list(&self) -> Vec<JobInfo> {
        let rows = self.rows.lock();
        let number = |value: &AtomicU64| i64::try_from(value.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        let info = |row: &Row| JobInfo {
            id: row.id.clone(),
            r#type: row.kind,
            status: row.status,
            current_progress: number(&row.progress.done),
            total_progress: number(&row.progress.total),
            error: row.error.clone(),
        };
        rows.iter().rev().map(info).collect()
    }

    /// Forgets one that has ended.
    ///
    /// # Errors
    /// There is none of this name, or it has not ended.
    pub fn dismiss(&self, id: &str) -> Result<(), JobError> {
        let mut rows = self.rows.lock();
        let at = rows.iter().position(|row| row.id == id).ok_or(JobError::NoJob)?;
        let refused = rows.get(at).filter(|row| row.status != JobStatus::Concluded);
        if let Some(row) = refused {
            return Err(JobError::Refused { id: id.to_owned(), status: row.status, verb: "dismiss" });
        }
        let mut row = rows.remove(at);
        self.set(&mut row, JobStatus::Null);
        Ok(())
    }

    /// Has one end as soon as it can.
    ///
    /// # Errors
    /// There is none of this name, or it has ended.
    pub fn cancel(&self, id: &str) -> Result<(), JobError> {
        let rows = self.rows.lock();
        let row = rows.iter().find(|row| row.id == id).ok_or(JobError::NoJob)?;
        if row.status != JobStatus::Running {
            return Err(JobError::Refused { id: id.to_owned(), status: row.status, verb: "cancel" });
        }
        row.progress.cancelled.store(true, Ordering::Release);
        Ok(())
    }

    /// Refuses to do with a job what none of them waits for.
    ///
    /// # Errors
    /// Always.
    pub fn refuse(&self, id: &str, verb: &'static str) -> Result<(), JobError> {
        let rows = self.rows.lock();
        let row = rows.iter().find(|row| row.id == id).ok_or(JobError::NoJob)?;
        Err(JobError::Refused { id: id.to_owned(), status: row.status, verb })
    }

    fn end(&self, id: &str, result: Result<(), String>) {
        let mut rows = self.rows.lock();
        let Some(row) = rows.iter_mut().find(|row| row.id == id) else { return };
        match result {
            Ok(()) => {
                row.progress.done.store(row.progress.total.load(Ordering::Relaxed), Ordering::Relaxed);
                self.set(row, JobStatus::Waiting);
                self.set(row, JobStatus::Pending);
            }
            Err(error) => {
                row.error = Some(error);
                self.set(row, JobStatus::Aborting);
            }
        }
        self.set(row, JobStatus::Concluded);
    }
}

/// A job in the hands of who does its work.
#[derive(Debug)]
pub struct Job {
    jobs: Arc<Jobs>,
    id: String,
    progress: Arc<Progress>,
    ended: bool,
}

impl Job {
    /// Does the work, which looks now and then whether it was cancelled.
    pub fn run<E: fmt::Display>(mut self, work: impl FnOnce(&Progress) -> Result<(), E>) {
        let result = if self.progress.is_cancelled() {
            Err("the job was cancelled".to_owned())
        } else {
            work(&self.progress).map_err(|error| error.to_string())
        };
        self.ended = true;
        self.jobs.end(&self.id, result);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.ended {
            self.jobs.end(&self.id, Err("nobody does its work".to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs() -> (Arc<Jobs>, Arc<Mutex<Vec<String>>>) {
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        let sink = move |event| {
            let Event::JobStatusChange { id, status } = event else { panic!("{event:?}") };
            heard.lock().push(format!("{id} {}", status.as_str()));
        };
        (Jobs::new(Arc::new(sink)), said)
    }

    #[test]
    fn a_job_is_told_of_listed_and_dismissed() {
        let (jobs, said) = jobs();
        let job = jobs.begin("a", JobType::SnapshotSave).unwrap();
        assert_eq!(jobs.begin("a", JobType::SnapshotLoad).unwrap_err().to_string(), "Job ID 'a' already in use");
        assert_eq!(jobs.begin("!", JobType::SnapshotLoad).unwrap_err().to_string(), "Invalid job ID '!'");
        let refused = "Job 'a' in state 'running' cannot accept command verb 'dismiss'";
        assert_eq!(jobs.dismiss("a").unwrap_err().to_string(), refused);
        job.run(|_| Ok::<(), String>(()));
        let failed = jobs.begin("b", JobType::SnapshotLoad).unwrap();
        failed.run(|_| Err("it was not to be"));
        let list = jobs.list();
        assert_eq!((list[0].id.as_str(), list[0].error.as_deref()), ("b", Some("it was not to be")));
        assert_eq!((list[1].id.as_str(), list[1].current_progress, &list[1].error), ("a", 1, &None));
        jobs.dismiss("a").unwrap();
        assert_eq!(jobs.dismiss("a").unwrap_err().to_string(), "Job not found");
        assert_eq!(
            *said.lock(),
            [
                "a created",
                "a running",
                "a waiting",
                "a pending",
                "a concluded",
                "b created",
                "b running",
                "b aborting",
                "b concluded",
                "a null"
            ]
        );
    }

    #[test]
    fn a_cancelled_job_and_one_that_nobody_does_end_with_an_error() {
        let (jobs, _) = jobs();
        let job = jobs.begin("a", JobType::SnapshotSave).unwrap();
        jobs.cancel("a").unwrap();
        job.run(|_| -> Result<(), String> { panic!("it was cancelled") });
        let refused = "Job 'a' in state 'concluded' cannot accept command verb 'cancel'";
        assert_eq!(jobs.cancel("a").unwrap_err().to_string(), refused);
        drop(jobs.begin("b", JobType::SnapshotSave).unwrap());
        assert!(jobs.list().iter().all(|job| job.status == JobStatus::Concluded && job.error.is_some()));
        assert!(jobs.refuse("a", "complete").is_err() && jobs.refuse("c", "complete").is_err());
    }

    #[test]
    fn jobs_that_nobody_dismisses_are_not_without_number() {
        let (jobs, _) = jobs();
        for number in 0..MOST {
            jobs.begin(&format!("j{number}"), JobType::SnapshotDelete).unwrap().run(|_| Ok::<(), String>(()));
        }
        assert!(matches!(jobs.begin("more", JobType::SnapshotDelete), Err(JobError::TooMany)));
        jobs.dismiss("j7").unwrap();
        assert!(jobs.begin("more", JobType::SnapshotDelete).is_ok());
    }
}
