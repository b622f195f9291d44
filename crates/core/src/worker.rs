//! A thread that does pieces of work when it is asked to, and that may look for work by itself before it sleeps.
//!
//! Looking saves the time of waking up. How long it looks adapts: longer while what it waited for came soon enough to be
//! seen, shorter when nothing came for long.

use std::{
    collections::VecDeque,
    fmt, hint, io,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

/// What is done again and again.
pub trait Work: Send + Sync {
    /// Does what there is to do.
    fn run(&self);

    /// Whether there is something to do that nobody asked for.
    fn is_ready(&self) -> bool {
        false
    }

    /// From now on, and until told otherwise, the thread looks for itself, so that nobody needs to ask.
    fn attend(&self, _attended: bool) {}
}

impl<F: Fn() + Send + Sync> Work for F {
    fn run(&self) {
        self();
    }
}

/// A piece of work of a thread.
pub struct Task {
    work: Box<dyn Work>,
    /// Asked for, and not begun.
    waiting: AtomicBool,
    /// It said when it goes on: it is not looked at before that.
    put_off: AtomicBool,
}

/// The shortest time to look for work, once it looks at all.
const FIRST_LOOK: u64 = 4000;
/// By how much the time grows unless told otherwise.
const GROWTH: u64 = 2;

/// How long to look for work before sleeping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Polling {
    /// At the most, in nanoseconds; 0 is not at all.
    pub most: u64,
    /// The factor by which the time grows; 0 is the usual one.
    pub grow: u64,
    /// The divisor by which it shrinks; 0 is to nothing at once.
    pub shrink: u64,
}

impl Polling {
    /// How long to look next, after having looked for `looked` and waited for `waited` nanoseconds in all.
    fn next(&self, looked: u64, waited: u64) -> u64 {
        if waited <= looked {
            // It was seen in time.
            looked.min(self.most)
        } else if waited > self.most {
            looked.checked_div(self.shrink).unwrap_or(0)
        } else {
            let factor = if self.grow == 0 { GROWTH } else { self.grow };
            let longer = if looked == 0 { FIRST_LOOK } else { looked.saturating_mul(factor) };
            longer.min(self.most)
        }
    }
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Arc<Task>>,
    /// What is to be done at a time, each once.
    timed: Vec<(Instant, Weak<Task>)>,
    ended: bool,
}

impl State {
    /// Has everything done whose time has come.
    fn expire(&mut self, now: Instant) {
        let Self { tasks, timed, ended: _ } = self;
        timed.retain(|(at, task)| {
            let due = *at <= now;
            if due
                && let Some(task) = task.upgrade()
                && !task.waiting.swap(true, Ordering::AcqRel)
            {
                tasks.push_back(task);
            }
            !due
        });
    }

    /// When the next thing is to be done.
    fn next_time(&self) -> Option<Instant> {
        self.timed.iter().map(|(at, _)| *at).min()
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Something was asked for, or the thread is to end: seen without the lock.
    asked: AtomicBool,
    /// What it looks at when it looks for work.
    watched: Mutex<Vec<Weak<Task>>>,
    most: AtomicU64,
    grow: AtomicU64,
    shrink: AtomicU64,
}

/// The thread, as those hold it who give it work. It ends when nobody holds it any more.
pub struct Worker {
    shared: Arc<Shared>,
    host_thread: i32,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Worker")
    }
}

impl Worker {
    /// Starts a thread called `name`. It does not look for work yet.
    ///
    /// # Errors
    /// The host has no more threads.
    pub fn start(name: &str) -> io::Result<Arc<Self>> {
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        let (sender, receiver) = mpsc::sync_channel(1);
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Whoever started the thread waits for its number.
            let _ = sender.send(rustix::thread::gettid().as_raw_nonzero().get());
            own.serve();
        })?;
        let host_thread = receiver.recv().unwrap_or_default();
        Ok(Arc::new(Self { shared, host_thread }))
    }

    /// Its number in the host's kernel.
    pub fn host_thread(&self) -> i32 {
        self.host_thread
    }

    /// Says how long to look for work from now on.
    pub fn set_polling(&self, polling: Polling) {
        let Polling { most, grow, shrink } = polling;
        self.shared.most.store(most, Ordering::Relaxed);
        self.shared.grow.store(grow, Ordering::Relaxed);
        self.shared.shrink.store(shrink, Ordering::Relaxed);
    }

    /// A piece of work, for any thread.
    pub fn task(work: impl Work + 'static) -> Arc<Task> {
        let (waiting, put_off) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Task { work: Box::new(work), waiting, put_off })
    }

    /// Looks at a task, too, when looking for work, as long as somebody has it.
    pub fn watch(&self, task: &Arc<Task>) {
        let mut watched = self.shared.watched.lock();
        watched.retain(|other| other.strong_count() > 0);
        watched.push(Arc::downgrade(task));
    }

    /// Has a task done soon; once, if it was asked for before and is not begun yet.
    pub fn ask(&self, task: &Arc<Task>) {
        if !task.waiting.swap(true, Ordering::AcqRel) {
            self.shared.state.lock().tasks.push_back(Arc::clone(task));
            self.shared.asked.store(true, Ordering::Release);
            self.shared.changed.notify_one();
        }
    }

    /// Has a task done at `time`, and not at another that was said before. Until then nobody looks whether it is ready; it
    /// may still be asked for, and is to say again when it goes on.
    pub fn ask_at(&self, task: &Arc<Task>, time: Instant) {
        task.put_off.store(true, Ordering::Release);
        let mut state = self.shared.state.lock();
        let other = |known: &Weak<Task>| known.strong_count() > 0 && !std::ptr::eq(known.as_ptr(), Arc::as_ptr(task));
        state.timed.retain(|(_, known)| other(known));
        state.timed.push((time, Arc::downgrade(task)));
        self.shared.asked.store(true, Ordering::Release);
        self.shared.changed.notify_one();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.state.lock().ended = true;
        self.shared.asked.store(true, Ordering::Release);
        self.shared.changed.notify_all();
    }
}

impl Task {
    fn run(&self) {
        self.waiting.store(false, Ordering::Release);
        self.put_off.store(false, Ordering::Release);
        self.work.run();
    }

    fn is_ready(&self) -> bool {
        !self.put_off.load(Ordering::Acquire) && self.work.is_ready()
    }
}

impl Shared {
    fn polling(&self) -> Polling {
        let get = |value: &AtomicU64| value.load(Ordering::Relaxed);
        Polling { most: get(&self.most), grow: get(&self.grow), shrink: get(&self.shrink) }
    }

    fn serve(&self) {
        let mut look = 0;
        loop {
            while let Some(task) = self.take() {
                task.run();
            }
            if self.state.lock().ended {
                return;
            }
            let polling = self.polling();
            let start = Instant::now();
            let looked = if polling.most == 0 { 0 } else { look };
            let found = looked > 0 && self.look(start, Duration::from_nanos(looked));
            if !found {
                self.sleep();
            }
            if polling.most > 0 {
                let waited = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                look = polling.next(looked, if found { 0 } else { waited });
            }
        }
    }

    fn take(&self) -> Option<Arc<Task>> {
        let mut state = self.state.lock();
        if !state.timed.is_empty() {
            state.expire(Instant::now());
        }
        let task = state.tasks.pop_front();
        if task.is_none() {
            self.asked.store(false, Ordering::Release);
        }
        task
    }

    /// Looks for work for so long at the most; whether there is some.
    fn look(&self, start: Instant, long: Duration) -> bool {
        let next = self.state.lock().next_time();
        let long = next.map_or(long, |next| long.min(next.saturating_duration_since(start)));
        let watched: Vec<Arc<Task>> = self.watched.lock().iter().filter_map(Weak::upgrade).collect();
        watched.iter().for_each(|task| task.work.attend(true));
        let mut found = false;
        while !found && !self.asked.load(Ordering::Acquire) && start.elapsed() < long {
            for task in &watched {
                if task.is_ready() {
                    task.run();
                    found = true;
                }
            }
            hint::spin_loop();
        }
        for task in &watched {
            task.work.attend(false);
            // What came before others knew that they have to ask.
            if task.is_ready() {
                task.run();
                found = true;
            }
        }
        found || self.asked.load(Ordering::Acquire)
    }

    /// Waits until something is asked for, its time has come, or the thread is to end.
    fn sleep(&self) {
        let mut state = self.state.lock();
        while state.tasks.is_empty() && !state.ended {
            match state.next_time() {
                None => self.changed.wait(&mut state),
                Some(next) => {
                    self.changed.wait_until(&mut state, next);
                    state.expire(Instant::now());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_done_after_it_was_last_asked_for() {
        let worker = Worker::start("test").unwrap();
        let (sender, receiver) = mpsc::channel();
        let task = Worker::task(move || sender.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap());
        for _ in 0..100 {
            worker.ask(&task);
            assert_eq!(receiver.recv_timeout(Duration::from_secs(5)).unwrap(), worker.host_thread());
        }
        drop((worker, task));
        assert!(receiver.recv_timeout(Duration::from_secs(5)).is_err(), "the thread ends, and its tasks with it");
    }

    #[test]
    fn a_task_is_done_at_its_time_and_the_last_time_counts() {
        let worker = Worker::start("test").unwrap();
        let (sender, receiver) = mpsc::channel();
        let task = Worker::task(move || sender.send(Instant::now()).unwrap());
        let start = Instant::now();
        let time = start + Duration::from_millis(30);
        worker.ask_at(&task, start + Duration::from_secs(3600));
        worker.ask_at(&task, time);
        assert!(receiver.recv_timeout(Duration::from_secs(5)).unwrap() >= time);
        assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err(), "once");
        // Asked for meanwhile, it is done at once, and again at its time.
        let time = Instant::now() + Duration::from_millis(100);
        worker.ask_at(&task, time);
        worker.ask(&task);
        assert!(receiver.recv_timeout(Duration::from_secs(5)).is_ok());
        assert!(receiver.recv_timeout(Duration::from_secs(5)).unwrap() >= time);
        // A task that nobody has any more is forgotten, and the thread ends at once.
        worker.ask_at(&task, Instant::now() + Duration::from_secs(3600));
        drop((task, worker));
        assert_eq!(receiver.recv_timeout(Duration::from_secs(5)), Err(mpsc::RecvTimeoutError::Disconnected));
    }

    #[test]
    fn what_is_put_off_is_not_looked_at() {
        let worker = Worker::start("test").unwrap();
        let (done, receiver) = mpsc::channel();
        let (waiting, attended) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let task = Worker::task(Silent { waiting: Arc::clone(&waiting), attended: Arc::clone(&attended), done });
        worker.watch(&task);
        let time = Instant::now() + Duration::from_millis(300);
        worker.ask_at(&task, time);
        waiting.store(1, Ordering::Release);
        worker.set_polling(Polling { most: 1_000_000_000, grow: 1000, shrink: 0 });
        // Others keep the thread looking.
        let other = Worker::task(|| {});
        while Instant::now() < time - Duration::from_millis(100) {
            worker.ask(&other);
            assert!(receiver.try_recv().is_err() || Instant::now() >= time);
            thread::sleep(Duration::from_millis(1));
        }
        assert!(receiver.recv_timeout(Duration::from_secs(5)).is_ok());
        assert!(Instant::now() >= time);
    }

    /// Work that is there without being asked for, and whether somebody looks.
    struct Silent {
        waiting: Arc<AtomicU64>,
        attended: Arc<AtomicBool>,
        done: mpsc::Sender<bool>,
    }

    impl Work for Silent {
        fn run(&self) {
            if self.waiting.swap(0, Ordering::AcqRel) > 0 {
                self.done.send(self.attended.load(Ordering::Acquire)).unwrap();
            }
        }

        fn is_ready(&self) -> bool {
            self.waiting.load(Ordering::Acquire) > 0
        }

        fn attend(&self, attended: bool) {
            self.attended.store(attended, Ordering::Release);
        }
    }

    #[test]
    fn a_thread_that_looks_finds_what_nobody_asked_for_and_stops_looking() {
        let worker = Worker::start("test").unwrap();
        let (done, receiver) = mpsc::channel();
        let (waiting, attended) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let task = Worker::task(Silent { waiting: Arc::clone(&waiting), attended: Arc::clone(&attended), done });
        worker.watch(&task);
        worker.set_polling(Polling { most: 200_000_000, grow: 1000, shrink: 0 });
        // The first wait makes it look, as it is short.
        for _ in 0..3 {
            worker.ask(&task);
            thread::sleep(Duration::from_millis(2));
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while !attended.load(Ordering::Acquire) {
            worker.ask(&task);
            assert!(Instant::now() < deadline, "it never looks");
            thread::sleep(Duration::from_millis(1));
        }
        waiting.store(1, Ordering::Release);
        assert!(receiver.recv_timeout(Duration::from_secs(5)).is_ok());
        let (other, polled) = (Worker::start("other").unwrap(), Worker::task(|| {}));
        other.set_polling(Polling { most: 200_000_000, grow: 1000, shrink: 0 });
        for _ in 0..10 {
            other.ask(&polled);
            thread::sleep(Duration::from_millis(1));
        }
        let place = format!("/proc/self/task/{}", other.host_thread());
        drop(other);
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::path::Path::new(&place).exists() {
            assert!(Instant::now() < deadline, "it does not end while it looks");
            thread::sleep(Duration::from_millis(1));
        }
        worker.set_polling(Polling::default());
        let deadline = Instant::now() + Duration::from_secs(10);
        while attended.load(Ordering::Acquire) {
            assert!(Instant::now() < deadline, "it looks for ever");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn the_time_to_look_grows_and_shrinks() {
        let polling = Polling { most: 32768, grow: 0, shrink: 0 };
        assert_eq!(polling.next(0, 1000), FIRST_LOOK);
        assert_eq!(polling.next(FIRST_LOOK, 10_000), 2 * FIRST_LOOK);
        assert_eq!(polling.next(8000, 100), 8000, "it was long enough");
        assert_eq!(polling.next(32000, 32500), 32768);
        assert_eq!(polling.next(32768, 1_000_000), 0);
        assert_eq!(Polling { shrink: 4, ..polling }.next(32768, 1_000_000), 8192);
        assert_eq!(Polling { grow: 3, ..polling }.next(4000, 20_000), 12000);
        assert_eq!(Polling { most: 100, ..polling }.next(0, 50), 100);
    }
}
