//! A virtual processor as a thread: it runs its guest, makes way for others when asked, and sleeps while it is halted.

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI32, Ordering},
        mpsc::{self, Receiver},
    },
    task::{Wake, Waker},
    thread::{self, Thread},
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rhea_core::{
    LoadError, SaveError, Stateful,
    object::NodeId,
    state::{Value, from_value, to_value},
};
use rhea_devices::chipset::lapic::ProcessorPins;
use rhea_x86::{
    engine::{Exit, Vcpu, VcpuV1},
    state::{Request, Requests},
};

use crate::topology::Place;

type Job = Box<dyn FnOnce(&mut Vcpu) + Send>;

#[derive(Default)]
struct Control {
    /// How many want the processor to stand still.
    pauses: u32,
    /// Whether it does.
    paused: bool,
    quit: bool,
    jobs: VecDeque<Job>,
}

/// One virtual processor, as the rest of the machine holds it.
pub struct Processor {
    index: usize,
    apic_id: u8,
    place: Place,
    requests: Arc<Requests>,
    control: Mutex<Control>,
    changed: Condvar,
    thread: OnceLock<Thread>,
    host_thread: AtomicI32,
    node: OnceLock<NodeId>,
}

impl Processor {
    /// A processor that does not run yet: it has no thread.
    pub fn new(index: usize, apic_id: u8, place: Place) -> Arc<Self> {
        Arc::new(Self {
            index,
            apic_id,
            place,
            requests: Arc::default(),
            control: Mutex::default(),
            changed: Condvar::new(),
            thread: OnceLock::new(),
            host_thread: AtomicI32::new(0),
            node: OnceLock::new(),
        })
    }

    /// Its number, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The identifier of its local APIC.
    pub fn apic_id(&self) -> u8 {
        self.apic_id
    }

    /// Where it sits.
    pub fn place(&self) -> Place {
        self.place
    }

    /// What it is asked for.
    pub fn requests(&self) -> &Arc<Requests> {
        &self.requests
    }

    /// The host's number of its thread, 0 before it has one.
    pub fn host_thread(&self) -> i32 {
        self.host_thread.load(Ordering::Acquire)
    }

    /// Where it is in the tree of objects, once it is there.
    pub fn node(&self) -> Option<NodeId> {
        self.node.get().copied()
    }

    /// Says where it is in the tree. Once.
    pub(crate) fn set_node(&self, node: NodeId) {
        let _ = self.node.set(node);
    }

    /// Wakes the thread if it sleeps; requests are seen without this while it runs.
    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn ask(&self, request: Request) {
        self.requests.ask(request);
        self.wake();
    }

    /// Something that it may wait for has happened.
    pub fn look_again(&self) {
        self.ask(Request::WAKE);
    }

    /// Has `work` done on the processor's own thread, between two instructions, and waits for the result. `None` if
    /// the thread has ended.
    pub fn with<T: Send + 'static>(&self, work: impl FnOnce(&mut Vcpu) -> T + Send + 'static) -> Option<T> {
        self.begin(work)?.recv().ok()
    }

    /// As [`with`](Self::with), but does not wait: the result comes through the channel, or its end if the thread ends.
    pub(super) fn begin<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Vcpu) -> T + Send + 'static,
    ) -> Option<Receiver<T>> {
        let (sender, receiver) = mpsc::sync_channel(1);
        {
            let mut control = self.control.lock();
            if control.quit {
                return None;
            }
            control.jobs.push_back(Box::new(move |vcpu| {
                // Whoever asked may have gone.
                let _ = sender.send(work(vcpu));
            }));
        }
        self.ask(Request::EXIT);
        self.changed.notify_all();
        Some(receiver)
    }

    /// Asks it to stand still, `times` times.
    pub(super) fn pause(&self, times: u32) {
        self.control.lock().pauses += times;
        self.ask(Request::EXIT);
    }

    pub(super) fn wait_until_paused(&self) {
        let mut control = self.control.lock();
        while !control.paused {
            self.changed.wait(&mut control);
        }
    }

    pub(super) fn resume(&self) {
        let mut control = self.control.lock();
        control.pauses = control.pauses.saturating_sub(1);
        drop(control);
        self.changed.notify_all();
    }

    /// Asks the thread to end.
    pub(super) fn quit(&self) {
        self.control.lock().quit = true;
        self.ask(Request::EXIT);
        self.changed.notify_all();
    }

    /// The thread's body.
    pub(super) fn run(self: &Arc<Self>, vcpu: &mut Vcpu, on_shutdown: &(dyn Fn(usize) + Send + Sync)) {
        let _ended = Ended(self);
        // Before it may sleep, so that nobody fails to wake it.
        let _ = self.thread.set(thread::current());
        self.host_thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Release);
        let waker = Waker::from(Arc::clone(self));
        while self.make_way(vcpu) {
            match vcpu.run() {
                // Exceptions end a run in tests only.
                Exit::Asked | Exit::Exception => {}
                Exit::Halted | Exit::WaitingForStartup => self.sleep(),
                Exit::Waiting => {
                    let _watch = vcpu.watch(&waker);
                    self.sleep();
                }
                // The others may need the host's processor that this one is on.
                Exit::Contended => thread::yield_now(),
                Exit::Shutdown => {
                    on_shutdown(self.index);
                    // A processor that shut down does nothing until a reset, which comes as a job.
                    while !self.requests.peek().contains(Request::EXIT) {
                        thread::park();
                    }
                }
            }
        }
    }

    /// Does the jobs and stands still while others want that; `false` when the thread is to end.
    fn make_way(&self, vcpu: &mut Vcpu) -> bool {
        let mut control = self.control.lock();
        loop {
            while let Some(job) = control.jobs.pop_front() {
                MutexGuard::unlocked(&mut control, || job(vcpu));
            }
            if control.quit || control.pauses == 0 {
                control.paused = control.quit;
                if control.quit {
                    self.changed.notify_all();
                }
                return !control.quit;
            }
            if !control.paused {
                control.paused = true;
                self.changed.notify_all();
            }
            self.changed.wait(&mut control);
        }
    }

    fn sleep(&self) {
        while !self.requests.any() {
            thread::park();
        }
    }
}

/// A store to what it waits for.
impl Wake for Processor {
    fn wake(self: Arc<Self>) {
        self.look_again();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.look_again();
    }
}

/// Nobody waits for a thread that has ended, in whatever way.
struct Ended<'a>(&'a Processor);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut control = self.0.control.lock();
        control.quit = true;
        control.paused = true;
        let jobs = std::mem::take(&mut control.jobs);
        drop(control);
        drop(jobs);
        self.0.changed.notify_all();
    }
}

impl Stateful for Processor {
    fn kind(&self) -> &'static str {
        "x86_64-cpu"
    }

    fn version(&self) -> u32 {
        1
    }

    fn save_value(&self) -> Result<Value, SaveError> {
        let gone = || SaveError { part: self.kind(), reason: "the machine is ending".to_owned() };
        to_value(self.kind(), &self.with(|vcpu| vcpu.save()).ok_or_else(gone)?)
    }

    fn load_value(&self, state: &Value) -> Result<(), LoadError> {
        let saved: VcpuV1 = from_value(self.kind(), state)?;
        let gone = || LoadError::invalid(self.kind(), "the machine is ending");
        self.with(move |vcpu| vcpu.load(saved)).ok_or_else(gone)?
    }
}

impl ProcessorPins for Processor {
    fn interrupt(&self, level: bool) {
        self.requests.interrupt.store(level, Ordering::SeqCst);
        if level {
            self.ask(Request::INTERRUPT);
        }
    }

    fn nmi(&self) {
        self.ask(Request::NMI);
    }

    fn init(&self) {
        self.ask(Request::INIT);
    }

    fn startup(&self, vector: u8) {
        self.requests.ask_startup(vector);
        self.wake();
    }
}
