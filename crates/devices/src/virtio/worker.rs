//! A thread that serves queues: of one device or of several, one queue at a time.

use std::{
    collections::VecDeque,
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use parking_lot::{Condvar, Mutex};
use rhea_core::Gate;

/// What a worker does when it is asked to.
type Work = Box<dyn Fn() + Send + Sync>;

/// A piece of work that may be asked for again and again.
pub struct Task {
    work: Work,
    /// Asked for, and not begun.
    waiting: AtomicBool,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Arc<Task>>,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The thread, as those hold it who give it work. It ends when nobody holds it any more.
pub struct Worker {
    shared: Arc<Shared>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Worker")
    }
}

impl Worker {
    /// Starts a thread called `name`, which stands still while `gate` is closed.
    ///
    /// # Errors
    /// The host has no more threads.
    pub fn start(name: &str, gate: Arc<Gate>) -> io::Result<Arc<Self>> {
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        thread::Builder::new().name(name.to_owned()).spawn(move || own.run(&gate))?;
        Ok(Arc::new(Self { shared }))
    }

    /// A task of this thread.
    pub fn task(work: impl Fn() + Send + Sync + 'static) -> Arc<Task> {
        Arc::new(Task { work: Box::new(work), waiting: AtomicBool::new(false) })
    }

    /// Has a task done soon; once, if it was asked for before and is not begun yet.
    pub fn ask(&self, task: &Arc<Task>) {
        if !task.waiting.swap(true, Ordering::AcqRel) {
            self.shared.state.lock().tasks.push_back(Arc::clone(task));
            self.shared.changed.notify_one();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.state.lock().ended = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn run(&self, gate: &Gate) {
        while let Some(task) = self.next() {
            let _inside = gate.enter();
            task.waiting.store(false, Ordering::Release);
            (task.work)();
        }
    }

    fn next(&self) -> Option<Arc<Task>> {
        let mut state = self.state.lock();
        loop {
            if state.ended {
                return None;
            }
            if let Some(task) = state.tasks.pop_front() {
                return Some(task);
            }
            self.changed.wait(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[test]
    fn a_task_is_done_after_it_was_last_asked_for_and_not_while_the_gate_is_closed() {
        let gate = Gate::new();
        let worker = Worker::start("test", Arc::clone(&gate)).unwrap();
        let (sender, receiver) = mpsc::channel();
        let task = Worker::task(move || sender.send(()).unwrap());
        worker.ask(&task);
        receiver.recv_timeout(Duration::from_secs(5)).unwrap();
        gate.close();
        worker.ask(&task);
        worker.ask(&task);
        assert!(receiver.recv_timeout(Duration::from_millis(20)).is_err());
        gate.open();
        receiver.recv_timeout(Duration::from_secs(5)).unwrap();
        assert!(receiver.recv_timeout(Duration::from_millis(20)).is_err());
    }
}
