//! A machine as its managers see it: run state, and the changes that stop, start, reset or end it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

use parking_lot::{Condvar, Mutex};
use rhea_api::{
    Event,
    run_state::{GuestPanicAction, RunState, ShutdownCause, WatchdogAction},
};
use rhea_backends::block::BlockNodes;
use rhea_core::{AddressSpace, Clock, memory::Follower, object::Registry, trace};
use rhea_devices::{
    acpi::{hotplug::Report, pm::WakeCause},
    chipset::pci::PciBus,
    virtio::balloon::{BALLOON_PAGE, Balloon},
};

use crate::{
    board::{Board, hotplug::SlotReport},
    config::{Accelerator, Config},
    devices::Devices,
    dirty::DirtyLog,
    dump::progress::DumpProgress,
    error::MachineError,
    events::EventSink,
    held::{Held, Job},
    inbox::{GuestRequest, is_guest},
    jobs::Jobs,
    migration::Migration,
    modules::MemoryModules,
    numa::Numa,
    objects::Objects,
    parts::Parts,
    processors::Processors,
};

pub(crate) struct RunControl {
    pub state: RunState,
    /// Whether the processors may run.
    released: bool,
    /// Whether what works for devices stands still.
    gated: bool,
    /// Stopped while the guest slept.
    pub was_suspended: bool,
    /// Work that needs the machine as it is.
    pub held: Option<Held>,
    /// What is done when the guest does not tend its watchdog.
    pub on_watchdog: WatchdogAction,
}

impl RunControl {
    /// Goes on to another run state.
    pub(crate) fn enter(&mut self, state: RunState) {
        trace!(RUNSTATE_SET, "current_run_state {} new_state {}", self.state.as_str(), state.as_str());
        self.state = state;
    }
}

/// A machine.
pub struct Machine {
    config: Config,
    parts: Parts,
    board: Box<dyn Board>,
    devices: Devices,
    control: Mutex<RunControl>,
    events: EventSink,
    dump: DumpProgress,
    jobs: Arc<Jobs>,
    /// The log of written pages that belongs to no job, while it is on.
    global_log: Mutex<Option<DirtyLog>>,
    migration: Migration,
    /// It was asked to end.
    ending: AtomicBool,
    /// The status that the guest asked the program to end with.
    exit_status: AtomicU8,
    job_ended: Condvar,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Machine({:?})", self.config.board)
    }
}

impl Machine {
    /// A machine of these parts, which does not run yet and has none of the devices that were asked for.
    pub(crate) fn of_parts(config: Config, parts: Parts, board: Box<dyn Board>, events: EventSink) -> Arc<Self> {
        let control = Mutex::new(RunControl {
            state: if config.incoming { RunState::Inmigrate } else { RunState::Prelaunch },
            released: false,
            gated: false,
            was_suspended: false,
            held: None,
            on_watchdog: config.on_watchdog,
        });
        let devices = Devices::default();
        let jobs = Jobs::new(Arc::clone(&events));
        let migration = Migration::new(Arc::clone(&events), !config.start_stopped);
        Arc::new(Self {
            config,
            parts,
            board,
            devices,
            control,
            events,
            dump: DumpProgress::default(),
            jobs,
            global_log: Mutex::default(),
            migration,
            ending: AtomicBool::new(false),
            exit_status: AtomicU8::new(0),
            job_ended: Condvar::new(),
        })
    }

    /// The types of objects.
    pub(crate) fn types(&self) -> &'static Registry {
        self.objects().tree().types()
    }

    /// What the machine was asked to be.
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Switches the log of written pages on or off that belongs to no job.
    pub fn set_global_dirty_log(&self, on: bool) {
        let mut log = self.global_log.lock();
        match (on, log.is_some()) {
            (true, false) => *log = DirtyLog::start(&self.parts, Follower::Global),
            (false, true) => *log = None,
            _ => {}
        }
    }

    /// Migrations of this machine.
    pub fn migration(&self) -> &Migration {
        &self.migration
    }

    pub(crate) fn control(&self) -> &Mutex<RunControl> {
        &self.control
    }

    pub(crate) fn job_ended(&self) -> &Condvar {
        &self.job_ended
    }

    /// The status that the program is to end with: what the guest asked for, if it did.
    pub fn exit_status(&self) -> u8 {
        self.exit_status.load(Ordering::Acquire)
    }

    /// Whether it was asked to end.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    pub(crate) fn devices(&self) -> &Devices {
        &self.devices
    }

    pub(crate) fn board(&self) -> &dyn Board {
        &*self.board
    }

    /// Guest physical memory.
    pub fn memory(&self) -> &Arc<AddressSpace> {
        &self.parts.memory
    }

    /// The tree of objects.
    pub fn objects(&self) -> &Arc<Objects> {
        &self.parts.objects
    }

    /// Block nodes and drives.
    pub fn blocks(&self) -> &Arc<BlockNodes> {
        &self.parts.backends.blocks
    }

    /// Nodes of processors and memory.
    pub fn numa(&self) -> &Numa {
        &self.parts.numa
    }

    /// Memory modules.
    pub fn modules(&self) -> &MemoryModules {
        &self.parts.modules
    }

    /// The processors.
    pub fn processors(&self) -> &Processors {
        &self.parts.processors
    }

    /// The machine's clock.
    pub fn clock(&self) -> &Arc<Clock> {
        self.parts.timers.clock()
    }

    /// Bytes of memory, that of modules included.
    fn memory_size(&self) -> u64 {
        self.config.ram + self.modules().plugged()
    }

    /// Tells of the balloon's changes.
    pub(crate) fn follow_balloon(&self, balloon: &Balloon) {
        let (events, ram, modules) = (Arc::clone(&self.events), self.config.ram, Arc::clone(&self.parts.modules));
        let change = move |pages| events(Event::BalloonChange { actual: left(ram + modules.plugged(), pages) });
        balloon.on_change(Box::new(change));
    }

    /// Tells when the guest sets its clock.
    pub(crate) fn follow_clock(&self) {
        if let Some((clock, path)) = self.board.clock() {
            let (events, path) = (Arc::clone(&self.events), path.to_owned());
            clock
                .on_set_time(Box::new(move |offset| events(Event::RtcChange { offset, qom_path: Some(path.clone()) })));
        }
    }

    /// Forgets the ticks of the clock that the guest is still to get.
    pub fn reset_reinjection(&self) {
        if let Some((clock, _)) = self.board.clock() {
            clock.reset_reinjection();
        }
    }

    /// Memory that the guest is left with by its balloon; nothing without a balloon.
    pub fn balloon(&self) -> Option<i64> {
        let balloon = self.balloon_device()?;
        Some(left(self.memory_size(), balloon.actual()))
    }

    /// Asks the guest to leave itself `size` bytes, or all it has if that is less; `false` without a balloon.
    pub fn set_balloon(&self, size: u64) -> bool {
        let Some(balloon) = self.balloon_device() else { return false };
        let pages = self.memory_size().saturating_sub(size) / BALLOON_PAGE;
        balloon.set_target(u32::try_from(pages).unwrap_or(u32::MAX));
        true
    }

    /// The PCI bus, if the board has one.
    pub fn pci(&self) -> Option<&Arc<PciBus>> {
        self.board.pci()
    }

    /// The run state.
    pub fn state(&self) -> RunState {
        self.control.lock().state
    }

    /// Lets the machine run if it was not to wait.
    pub fn power_on(&self) {
        if !self.config.start_stopped && !self.config.incoming {
            self.go_on(&mut self.control.lock());
        }
    }

    /// Work in the background.
    pub fn jobs(&self) -> &Arc<Jobs> {
        &self.jobs
    }

    /// How the latest dump stands.
    pub fn dump_progress(&self) -> &DumpProgress {
        &self.dump
    }

    pub(crate) fn emit(&self, event: Event) {
        (self.events)(event);
    }

    /// Lets clock and processors go on, and says so.
    pub(crate) fn resume(&self, control: &mut RunControl) {
        if control.was_suspended {
            control.was_suspended = false;
            control.enter(RunState::Suspended);
            self.clock().start();
            self.open_gate(control);
            self.emit(Event::Resume);
            return;
        }
        self.emit(Event::Resume);
        self.go_on(control);
    }

    fn go_on(&self, control: &mut RunControl) {
        control.enter(RunState::Running);
        self.devices.set_under_way();
        if let Some(hotplug) = self.board.hotplug() {
            hotplug.power_on();
        }
        self.clock().start();
        self.open_gate(control);
        self.release(control);
        self.parts.inbox.wake();
    }

    /// Lets the processors run, if anything runs them.
    fn release(&self, control: &mut RunControl) {
        if !control.released && self.config.accelerator != Accelerator::Qtest {
            control.released = true;
            self.processors().release();
        }
    }

    /// Stops processors and clock, without an event.
    fn halt(&self, control: &mut RunControl) {
        if control.released {
            control.released = false;
            self.processors().hold();
        }
        if !control.gated {
            control.gated = true;
            self.parts.gate.close();
        }
        self.clock().stop();
    }

    fn open_gate(&self, control: &mut RunControl) {
        if control.gated {
            control.gated = false;
            self.parts.gate.open();
        }
    }

    /// Stops the machine. A machine that does not run stays as it is.
    ///
    /// # Errors
    /// Something is under way for which the machine stands.
    pub fn stop(&self) -> Result<(), MachineError> {
        let mut control = self.control.lock();
        if control.state == RunState::Inmigrate {
            self.migration.set_runs_at_once(false);
            return Ok(());
        }
        Self::check_free(control.held)?;
        self.stop_into(&mut control, RunState::Paused);
        Ok(())
    }

    /// Stops the machine in `state`, if it runs; whether it did.
    pub(crate) fn stop_into(&self, control: &mut RunControl, state: RunState) -> bool {
        match control.state {
            RunState::Running => {}
            RunState::Suspended => control.was_suspended = true,
            _ => return false,
        }
        self.halt(control);
        control.enter(state);
        self.emit(Event::Stop);
        true
    }

    /// Lets the machine go on.
    ///
    /// # Errors
    /// A guest that has ended must be reset first, and something may be under way for which the machine stands. Disks that
    /// were given away may not be there any more.
    pub fn cont(&self) -> Result<(), MachineError> {
        let mut control = self.control.lock();
        if control.state == RunState::Inmigrate {
            self.migration.set_runs_at_once(true);
            return Ok(());
        }
        Self::check_free(control.held)?;
        match control.state {
            RunState::Running | RunState::Suspended => Ok(()),
            RunState::Shutdown | RunState::InternalError | RunState::GuestPanicked => Err(MachineError::ResetRequired),
            _ => {
                if self.blocks().are_inactive() {
                    self.blocks().activate().map_err(MachineError::Disks)?;
                }
                self.resume(&mut control);
                Ok(())
            }
        }
    }

    /// Resets the machine, or ends it if a reset is to end it. Events are emitted before this returns.
    ///
    /// # Errors
    /// The software could not be loaded again, or the machine's state is being saved or loaded.
    pub fn reset(&self, reason: ShutdownCause) -> Result<(), MachineError> {
        if self.config.no_reboot {
            self.shut_down(reason);
            return Ok(());
        }
        let _held = self.devices.hold();
        let mut control = self.control.lock();
        match control.held {
            Some(Held { job: Job::Dump, .. }) => {}
            held => Self::check_free(held)?,
        }
        let paused = self.processors().pause();
        let gone = self.take_pending_away();
        let result = self.board.reset(self.processors());
        self.emit(Event::Reset { guest: is_guest(reason), reason });
        for event in gone {
            self.emit(event);
        }
        control.was_suspended = false;
        match control.state {
            // A dump lets it go on by itself, and so does who has received another machine.
            RunState::Running | RunState::SaveVm | RunState::Inmigrate => {}
            RunState::Suspended => {
                control.enter(RunState::Running);
                self.release(&mut control);
            }
            _ => control.enter(RunState::Prelaunch),
        }
        drop(paused);
        result
    }

    /// Presses the power button.
    pub fn power_down(&self) {
        let _control = self.control.lock();
        trace!(QEMU_SYSTEM_POWERDOWN_REQUEST, "");
        self.emit(Event::Powerdown);
        self.board.power_button();
    }

    /// Wakes a suspended guest.
    ///
    /// # Errors
    /// The guest is not suspended.
    pub fn wake_up(&self, cause: WakeCause) -> Result<(), MachineError> {
        trace!(SYSTEM_WAKEUP_REQUEST, "reason={cause:?}");
        let mut control = self.control.lock();
        if control.state != RunState::Suspended {
            return Err(MachineError::NotSuspended);
        }
        self.board.wake(self.processors(), cause)?;
        self.emit(Event::Wakeup);
        control.enter(RunState::Running);
        self.release(&mut control);
        self.parts.inbox.wake();
        Ok(())
    }

    /// A non-maskable interrupt for every processor that takes one.
    ///
    /// # Errors
    /// The board has no such thing.
    pub fn inject_nmi(&self) -> Result<(), MachineError> {
        let _control = self.control.lock();
        self.board.nmi()
    }

    /// Ends the machine: the main loop returns. Says so before this returns.
    pub fn quit(&self, reason: ShutdownCause) {
        let mut control = self.control.lock();
        self.halt(&mut control);
        self.ending.store(true, Ordering::Release);
        // What stood for a while does not go on.
        if Self::check_free(control.held).is_err() {
            control.enter(RunState::Shutdown);
        }
        self.dump.cancel();
        trace!(QEMU_SYSTEM_SHUTDOWN_REQUEST, "reason={}", reason.as_str());
        self.migration.end();
        self.emit(Event::Shutdown { guest: is_guest(reason), reason });
        self.parts.inbox.leave(GuestRequest::Quit);
    }

    /// Asks the main loop for a shutdown, from where nothing may wait: a signal, a device.
    pub fn request(&self, request: GuestRequest) {
        self.parts.inbox.leave(request);
    }

    /// The guest ended.
    fn shut_down(&self, reason: ShutdownCause) {
        if !self.config.no_shutdown || !is_guest(reason) {
            self.quit(reason);
            return;
        }
        let mut control = self.control.lock();
        if control.state == RunState::Shutdown {
            return;
        }
        self.halt(&mut control);
        self.emit(Event::Shutdown { guest: true, reason });
        control.enter(RunState::Shutdown);
        self.emit(Event::Stop);
    }

    /// The guest says that it panicked.
    fn panicked(&self) {
        let action = match self.config.on_panic {
            GuestPanicAction::Poweroff if self.config.no_shutdown => GuestPanicAction::Pause,
            action => action,
        };
        self.emit(Event::GuestPanicked { action, info: None });
        if action == GuestPanicAction::Run {
            return;
        }
        let mut control = self.control.lock();
        if control.state != RunState::GuestPanicked {
            self.halt(&mut control);
            control.enter(RunState::GuestPanicked);
            self.emit(Event::Stop);
        }
        drop(control);
        if action == GuestPanicAction::Poweroff {
            self.quit(ShutdownCause::GuestPanic);
        }
    }

    /// Says what is done from now on when the guest does not tend its watchdog.
    pub fn set_watchdog_action(&self, action: WatchdogAction) {
        self.control.lock().on_watchdog = action;
    }

    /// The guest did not tend its watchdog.
    fn watchdog_expired(&self) {
        let action = self.control.lock().on_watchdog;
        trace!(WATCHDOG_PERFORM_ACTION, "action={}", action.as_str());
        self.emit(Event::Watchdog { action });
        match action {
            WatchdogAction::Reset => self.request(GuestRequest::Reset(ShutdownCause::GuestReset)),
            WatchdogAction::Shutdown => self.power_down(),
            WatchdogAction::Poweroff => self.quit(ShutdownCause::GuestShutdown),
            WatchdogAction::Pause => {
                self.stop_into(&mut self.control.lock(), RunState::Watchdog);
            }
            WatchdogAction::Debug => tracing::warn!("the guest did not tend its watchdog"),
            WatchdogAction::None => {}
            WatchdogAction::InjectNmi => {
                // A board with a watchdog has it.
                let _ = self.inject_nmi();
            }
        }
    }

    fn suspend(&self) {
        let mut control = self.control.lock();
        if control.state == RunState::Running {
            if control.released {
                control.released = false;
                self.processors().hold();
            }
            control.enter(RunState::Suspended);
            self.emit(Event::Suspend);
        }
    }

    /// Runs timers and what the guest asks for until the machine ends; then its processors have ended too.
    pub fn main_loop(&self) {
        loop {
            self.parts.timers.run_expired();
            let now = self.clock().now();
            let timeout = match self.parts.timers.next_deadline() {
                Some(at) if self.clock().is_running() => Some(at.since(now)),
                _ => None,
            };
            match self.parts.inbox.wait(timeout) {
                None => {}
                Some(GuestRequest::Reset(reason)) => {
                    if let Err(error) = self.reset(reason) {
                        tracing::error!("reset: {error}");
                        self.quit(ShutdownCause::HostError);
                    }
                }
                Some(GuestRequest::Shutdown(reason)) => self.shut_down(reason),
                Some(GuestRequest::Exit(status)) => {
                    self.exit_status.store(status, Ordering::Release);
                    self.shut_down(ShutdownCause::GuestShutdown);
                }
                Some(GuestRequest::Suspend) => self.suspend(),
                Some(GuestRequest::SuspendToDisk) => {
                    // It wrote itself to its disk: this machine has done its work.
                    self.emit(Event::SuspendDisk);
                    self.shut_down(ShutdownCause::GuestShutdown);
                }
                Some(GuestRequest::Wake(cause)) => match self.wake_up(cause) {
                    // Alarms go off for those who are awake, too.
                    Ok(()) | Err(MachineError::NotSuspended) => {}
                    Err(error) => tracing::error!("waking up: {error}"),
                },
                Some(GuestRequest::WatchdogExpired) => self.watchdog_expired(),
                Some(GuestRequest::Panicked) => self.panicked(),
                Some(GuestRequest::Ejected(kind, slot)) => self.ejected(kind, slot),
                Some(GuestRequest::Reported { kind, slot, event, status }) => {
                    self.reported(SlotReport { kind, slot, report: Report { event, status } });
                }
                Some(GuestRequest::Quit) => break,
            }
        }
        self.dump.wait_for_end();
        self.wait_for_job();
        self.processors().quit();
    }
}

/// What `pages` in the balloon leave of `ram` bytes. The number is the guest's own.
fn left(ram: u64, pages: u32) -> i64 {
    ram.saturating_sub(u64::from(pages) * BALLOON_PAGE) as i64
}
