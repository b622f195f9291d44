//! The side that sends: memory is copied while the guest runs, again and again what it changes, until the rest is so little
//! that the machine may stand for it.

use std::{
    io::{BufWriter, Write},
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use rhea_api::{
    migration::{MigrationStatus, ZeroPageDetection},
    run_state::RunState,
};
use rhea_core::{
    Ram,
    memory::{Bitmap, Follower, PAGE},
};

use super::{Address, Cancel, Capability, Migration, Refused, channel::Outgoing};
use crate::{
    dirty::DirtyLog,
    held::Job,
    hold::{After, Hold},
    machine::Machine,
    state::{
        StateError,
        ram::{PageWriter, blocks, total},
        stream::StateWriter,
    },
};

/// Bytes that are collected for one write; pages go out by themselves.
const BUFFER: usize = 64 << 10;
/// In so long a time the bandwidth is kept.
const WINDOW: Duration = Duration::from_millis(100);

/// Where it goes: opened already, or still to be.
enum Way {
    Open(Outgoing),
    Closed(Address),
}

/// A machine that is about to be sent.
pub struct Departure {
    hold: Hold,
    way: Way,
    cancel: Arc<Cancel>,
}

impl Departure {
    /// Begins a migration of `machine` to `address`.
    ///
    /// # Errors
    /// The machine cannot be sent now, or there is no way to the address.
    pub fn begin(machine: &Arc<Machine>, address: Address) -> Result<Self, Refused> {
        match machine.state() {
            RunState::Inmigrate => return Err(Refused::because("Guest is waiting for an incoming migration")),
            RunState::Postmigrate => {
                return Err(Refused::because("Can't migrate the vm that was paused due to previous migration"));
            }
            _ => {}
        }
        let hold = machine.begin(Job::Migration).map_err(|error| Refused(error.to_string()))?;
        let cancel = Cancel::new().map_err(|error| Refused(rhea_core::files::reason(&error)))?;
        let way = if Outgoing::opens_at_once(&address) {
            let opened = Outgoing::open(address, Arc::clone(&cancel));
            Way::Open(opened.inspect_err(|reason| machine.migration().failed_to_begin(reason)).map_err(Refused)?)
        } else {
            Way::Closed(address)
        };
        machine.migration().begin(true, Some(Arc::clone(&cancel)));
        Ok(Self { hold, way, cancel })
    }

    /// Sends it, on a thread of its own.
    pub fn start(self) {
        let machine = Arc::clone(self.hold.machine());
        let started = thread::Builder::new().name("migration".to_owned()).spawn(move || self.run());
        if let Err(error) = started {
            let reason = format!("Could not start a thread: {}", rhea_core::files::reason(&error));
            machine.migration().ended(MigrationStatus::Failed, None, Some(reason));
        }
    }

    /// Sends it.
    pub fn run(self) {
        let Self { hold, way, cancel } = self;
        let machine = Arc::clone(hold.machine());
        let migration = machine.migration();
        let mut sending = Sending { hold, cancel, stands_since: None, inactive: false };
        let result = match way {
            Way::Open(way) => Ok(way),
            Way::Closed(address) => Outgoing::open(address, Arc::clone(&sending.cancel)),
        };
        let result = result.and_then(|way| sending.send(migration, way).map_err(|error| error.to_string()));
        let downtime = sending.stands_since.map(|since| since.elapsed());
        match result {
            Ok(()) => {
                sending.hold.release(None, After::Stay(RunState::Postmigrate));
                migration.ended(MigrationStatus::Completed, downtime, None);
            }
            Err(reason) => {
                let after = sending.take_back();
                let cancelled = sending.cancel.is_cancelled();
                sending.hold.release(None, after);
                if cancelled {
                    migration.ended(MigrationStatus::Cancelled, None, None);
                } else {
                    tracing::warn!("migration: {reason}");
                    migration.ended(MigrationStatus::Failed, None, Some(reason));
                }
            }
        }
    }
}

impl Migration {
    /// One that was asked for did not come about.
    fn failed_to_begin(&self, reason: &str) {
        let mut state = self.state.lock();
        (state.status, state.outgoing) = (MigrationStatus::Failed, true);
        (state.took, state.error) = (Some(Duration::ZERO), Some(reason.to_owned()));
    }
}

/// Pages of a block that are still to be written.
struct Pending {
    ram: Arc<Ram>,
    pages: Bitmap,
}

struct Sending {
    hold: Hold,
    cancel: Arc<Cancel>,
    stands_since: Option<Instant>,
    /// The disks are not ours any more.
    inactive: bool,
}

impl Sending {
    fn send(&mut self, migration: &Migration, way: Outgoing) -> Result<(), StateError> {
        let machine = Arc::clone(self.hold.machine());
        let log = DirtyLog::start(machine.parts(), Follower::Migration).ok_or(StateError::NotStanding)?;
        let mut writer = StateWriter::new(BufWriter::with_capacity(BUFFER, way))?;
        self.hold.write_description(&mut writer)?;
        let all = |ram: Arc<Ram>| {
            let count = if ram.writable() { ram.len() / PAGE } else { 0 };
            Pending { ram, pages: Bitmap::all(count) }
        };
        let list = blocks(&machine);
        migration.figures.total.store(total(&list), Ordering::Relaxed);
        let mut pending: Vec<Pending> = list.into_iter().map(all).collect();
        let mut pages = PageWriter::new();
        let mut pace = Pace::new();
        migration.pass();
        migration.proceed(MigrationStatus::Active);
        loop {
            self.write_pages(migration, &mut writer, &mut pages, &mut pending, Some(&mut pace))?;
            if machine.state() != RunState::Running {
                break;
            }
            let began = Instant::now();
            collect(&log, &mut pending);
            let left = remaining(&pending);
            pace.note_changed(migration, left, began);
            let parameters = migration.parameters();
            let speed = match parameters.switchover_bandwidth {
                0 => pace.speed().max(1),
                known => known,
            };
            let expected = left.saturating_mul(1000) / speed;
            migration.state.lock().expected_downtime = Some(Duration::from_millis(expected));
            if expected <= parameters.downtime_limit {
                break;
            }
            migration.pass();
        }
        self.hold.stand();
        self.stands_since = Some(Instant::now());
        migration.figures.before.store(writer.bytes(), Ordering::Relaxed);
        if migration.has(Capability::PauseBeforeSwitchover) {
            migration.proceed(MigrationStatus::PreSwitchover);
            migration.wait_for_go_on(|| self.hold.called_off());
        }
        if self.cancel.is_cancelled() || self.hold.called_off() {
            return Err(StateError::CalledOff);
        }
        migration.proceed(MigrationStatus::Device);
        collect(&log, &mut pending);
        migration.pass();
        self.write_pages(migration, &mut writer, &mut pages, &mut pending, None)?;
        self.hold.write_parts(&mut writer)?;
        machine.blocks().inactivate().map_err(|error| StateError::Disks(error.to_string()))?;
        self.inactive = true;
        let bytes = writer.bytes();
        let way = writer.finish()?.into_inner().map_err(|error| StateError::from(error.into_error()))?;
        migration.figures.transferred.store(bytes, Ordering::Relaxed);
        migration.figures.remaining.store(0, Ordering::Relaxed);
        Ok(way.complete()?)
    }

    fn write_pages<W: Write>(
        &self,
        migration: &Migration,
        writer: &mut StateWriter<W>,
        pages: &mut PageWriter,
        pending: &mut [Pending],
        mut pace: Option<&mut Pace>,
    ) -> Result<(), StateError> {
        let figures = &migration.figures;
        let mut left = remaining(pending);
        for (number, Pending { ram, pages: wanted }) in pending.iter_mut().enumerate() {
            let mut from = 0;
            loop {
                figures.remaining.store(left, Ordering::Relaxed);
                if self.hold.called_off() || self.cancel.is_cancelled() {
                    return Err(StateError::CalledOff);
                }
                let parameters = migration.parameters();
                pages.detect_zeros = parameters.zero_pages != ZeroPageDetection::None;
                let before = writer.bytes();
                let count = pages.write_some(writer, (number, ram), wanted, &mut from)?;
                if count == 0 {
                    break;
                }
                left = left.saturating_sub(count * PAGE);
                figures.transferred.store(writer.bytes(), Ordering::Relaxed);
                figures.zeros.store(pages.zeros, Ordering::Relaxed);
                figures.others.store(pages.others, Ordering::Relaxed);
                if let Some(pace) = &mut pace {
                    pace.keep(writer.bytes() - before, parameters.max_bandwidth, &self.cancel)?;
                    figures.speed.store(pace.speed(), Ordering::Relaxed);
                }
            }
        }
        figures.remaining.store(left, Ordering::Relaxed);
        Ok(())
    }

    /// Takes the disks back if they were given away. How the machine goes on.
    fn take_back(&mut self) -> After {
        if !self.inactive {
            return After::AsBefore;
        }
        match self.hold.machine().blocks().activate() {
            Ok(()) => After::AsBefore,
            Err(error) => {
                // Whoever has them now has the machine, too.
                tracing::error!("the disks cannot be taken back: {error}");
                After::Stay(RunState::Postmigrate)
            }
        }
    }
}

fn remaining(pending: &[Pending]) -> u64 {
    pending.iter().map(|block| block.pages.count() * PAGE).sum()
}

/// Adds what was written since the last time.
fn collect(log: &DirtyLog, pending: &mut [Pending]) {
    for (ram, written) in log.take() {
        let block = pending.iter_mut().find(|block| Arc::ptr_eq(&block.ram, &ram));
        if let Some(Pending { pages, .. }) = block {
            written.iter().for_each(|page| pages.insert(page));
        }
    }
}

/// Keeps to a bandwidth, and measures how fast it goes.
struct Pace {
    began: Instant,
    written: u64,
    window: Instant,
    in_window: u64,
    /// When changed pages were last collected.
    collected: Instant,
}

impl Pace {
    fn new() -> Self {
        let now = Instant::now();
        Self { began: now, written: 0, window: now, in_window: 0, collected: now }
    }

    /// After `count` bytes were written: waits if that was more than `bandwidth` bytes a second allow.
    fn keep(&mut self, count: u64, bandwidth: u64, cancel: &Cancel) -> std::io::Result<()> {
        self.written += count;
        self.in_window += count;
        let spent = self.window.elapsed();
        if bandwidth > 0 {
            let due = Duration::from_secs_f64(self.in_window as f64 / bandwidth as f64);
            if let Some(early) = due.checked_sub(spent).filter(|early| *early > Duration::from_millis(1)) {
                cancel.pause(early)?;
            }
        }
        if self.window.elapsed() >= WINDOW {
            (self.window, self.in_window) = (Instant::now(), 0);
        }
        Ok(())
    }

    /// Bytes a second.
    fn speed(&self) -> u64 {
        let seconds = self.began.elapsed().as_secs_f64().max(1e-6);
        (self.written as f64 / seconds) as u64
    }

    fn note_changed(&mut self, migration: &Migration, bytes: u64, now: Instant) {
        let seconds = now.duration_since(self.collected).as_secs_f64().max(1e-3);
        self.collected = now;
        let rate = (bytes / PAGE) as f64 / seconds;
        migration.figures.dirtied.store(rate as u64, Ordering::Relaxed);
    }
}
