//! Virtual processors as threads: each runs its guest, makes way for others when asked, and sleeps while it is halted.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI32, Ordering},
    },
    thread::{self, JoinHandle, Thread},
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rhea_core::object::NodeId;
use rhea_devices::chipset::lapic::ProcessorPins;
use rhea_x86::{
    engine::{Exit, Vcpu},
    state::{Request, Requests},
};

type Job = Box<dyn FnOnce(&mut Vcpu) + Send>;

/// Where a processor sits in its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Socket number.
    pub socket: u32,
    /// Core number inside the socket.
    pub core: u32,
    /// Thread number inside the core.
    pub thread: u32,
}

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
    /// A processor that does not run yet.
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

    /// Has `work` done on the processor's own thread, between two instructions, and waits for the result. `None` if
    /// the thread has ended.
    pub fn with<T: Send + 'static>(&self, work: impl FnOnce(&mut Vcpu) -> T + Send + 'static) -> Option<T> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        {
            let mut control = self.control.lock();
            if control.quit {
                return None;
            }
            control.jobs.push_back(Box::new(move |vcpu| {
                // The receiver waits below; it cannot have gone.
                let _ = sender.send(work(vcpu));
            }));
        }
        self.ask(Request::EXIT);
        self.changed.notify_all();
        receiver.recv().ok()
    }

    fn pause(&self) {
        self.control.lock().pauses += 1;
        self.ask(Request::EXIT);
    }

    fn wait_until_paused(&self) {
        let mut control = self.control.lock();
        while !control.paused && !control.quit {
            self.changed.wait(&mut control);
        }
    }

    fn resume(&self) {
        let mut control = self.control.lock();
        control.pauses = control.pauses.saturating_sub(1);
        drop(control);
        self.changed.notify_all();
    }

    fn quit(&self) {
        self.control.lock().quit = true;
        self.ask(Request::EXIT);
        self.changed.notify_all();
    }

    /// The thread's body.
    fn run(&self, vcpu: &mut Vcpu, on_shutdown: &(dyn Fn(usize) + Send + Sync)) {
        self.host_thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Release);
        while self.make_way(vcpu) {
            match vcpu.run() {
                // Exceptions end a run in tests only.
                Exit::Asked | Exit::Exception => {}
                Exit::Halted | Exit::WaitingForStartup => self.sleep(),
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

/// All processors of a machine.
#[derive(Default)]
pub struct Processors {
    list: Vec<Arc<Processor>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Processors {
    /// The processors `list`, whose threads do not run yet.
    pub fn new(list: Vec<Arc<Processor>>) -> Self {
        Self { list, threads: Mutex::default() }
    }

    /// All of them, by number.
    pub fn list(&self) -> &[Arc<Processor>] {
        &self.list
    }

    /// Starts the threads, paused once: [`release`](Self::release) lets them run. `on_shutdown` is called on the
    /// thread of a processor that shut down.
    ///
    /// # Errors
    /// The host has no more threads.
    pub fn start(&self, vcpus: Vec<Box<Vcpu>>, on_shutdown: &Arc<dyn Fn(usize) + Send + Sync>) -> io::Result<()> {
        for (processor, mut vcpu) in self.list.iter().zip(vcpus) {
            processor.pause();
            let on_shutdown = Arc::clone(on_shutdown);
            let own = Arc::clone(processor);
            let name = format!("CPU {}/TCG", processor.index);
            let handle = thread::Builder::new().name(name).spawn(move || own.run(&mut vcpu, &*on_shutdown))?;
            // Set once, here, before anyone else can reach the processor.
            let _ = processor.thread.set(handle.thread().clone());
            self.threads.lock().push(handle);
            processor.wait_until_paused();
        }
        Ok(())
    }

    /// Makes all processors stand still until the guard is dropped.
    pub fn pause(&self) -> Paused<'_> {
        self.hold();
        Paused { processors: self }
    }

    /// Like [`pause`](Self::pause), until [`release`](Self::release).
    pub fn hold(&self) {
        for processor in &self.list {
            processor.pause();
        }
        for processor in &self.list {
            processor.wait_until_paused();
        }
    }

    /// Takes back one [`hold`](Self::hold).
    pub fn release(&self) {
        for processor in &self.list {
            processor.resume();
        }
    }

    /// Ends all threads and waits for them.
    pub fn quit(&self) {
        for processor in &self.list {
            processor.quit();
        }
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a processor thread panicked");
            }
        }
    }
}

/// Proof that all processors stand still.
pub struct Paused<'a> {
    processors: &'a Processors,
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.processors.release();
    }
}
