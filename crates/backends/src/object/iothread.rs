//! `iothread`: a thread that devices' queues can be given to.

use std::{
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use parking_lot::{Condvar, Mutex};
use rhea_core::object::{Object, PropertyError, Settings, TypeInfo, Typed, Value};

use super::CreateError;

/// How a thread looks for work before it sleeps.
#[derive(Clone, Debug, Object)]
#[object(type = "iothread", parent = "object", interfaces = ["user-creatable"], settings)]
pub struct IoThreadSettings {
    /// Longest time to look for work before sleeping, in nanoseconds; 0 is not at all.
    #[property(default = 32768, live)]
    pub poll_max_ns: i64,
    /// How fast that time grows; 0 is the program's choice.
    #[property(default = 0, live)]
    pub poll_grow: i64,
    /// How fast it shrinks; 0 is the program's choice.
    #[property(default = 0, live)]
    pub poll_shrink: i64,
    /// Most requests handed to the host at once; 0 is the program's choice.
    #[property(default = 0, live)]
    pub aio_max_batch: i64,
}

impl IoThreadSettings {
    fn check(self) -> Result<Self, PropertyError> {
        let Self { poll_max_ns, poll_grow, poll_shrink, aio_max_batch } = &self;
        let all = [
            ("poll-max-ns", poll_max_ns),
            ("poll-grow", poll_grow),
            ("poll-shrink", poll_shrink),
            ("aio-max-batch", aio_max_batch),
        ];
        match all.iter().find(|(_, value)| **value < 0) {
            None => Ok(self),
            Some((name, _)) => Err(PropertyError::Range {
                name: (*name).to_owned(),
                expected: format!("a value in range [0, {}]", i64::MAX),
            }),
        }
    }
}

type Work = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    work: Vec<Work>,
    quit: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// The thread, which lives as long as its object.
pub struct IoThread {
    settings: Mutex<IoThreadSettings>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    host_thread: i32,
}

impl IoThread {
    /// Starts a thread.
    ///
    /// # Errors
    /// Wrong properties, or a host that has no more threads.
    pub fn new(id: &str, properties: &[(String, Value)]) -> Result<Self, CreateError> {
        let settings = IoThreadSettings::given(properties)?.check()?;
        let shared = Arc::<Shared>::default();
        let (sender, receiver) = mpsc::sync_channel(1);
        let own = Arc::clone(&shared);
        let spawned = thread::Builder::new().name(format!("IO {id}")).spawn(move || {
            // Whoever started the thread waits for its number.
            let _ = sender.send(rustix::thread::gettid().as_raw_nonzero().get());
            own.serve();
        });
        let thread =
            spawned.map_err(|reason| CreateError::Host { what: "could not start a thread".to_owned(), reason })?;
        let host_thread = receiver.recv().unwrap_or_default();
        Ok(Self { settings: Mutex::new(settings), shared, thread: Some(thread), host_thread })
    }

    /// How it looks for work.
    pub fn settings(&self) -> IoThreadSettings {
        self.settings.lock().clone()
    }

    /// Its number in the host's kernel.
    pub fn host_thread(&self) -> i32 {
        self.host_thread
    }

    /// Has the thread do something, after what it was given before.
    pub fn run(&self, work: impl FnOnce() + Send + 'static) {
        self.shared.queue.lock().work.push(Box::new(work));
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn serve(&self) {
        loop {
            let work = {
                let mut queue = self.queue.lock();
                while queue.work.is_empty() && !queue.quit {
                    self.changed.wait(&mut queue);
                }
                if queue.work.is_empty() {
                    return;
                }
                std::mem::take(&mut queue.work)
            };
            work.into_iter().for_each(|work| work());
        }
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        self.shared.queue.lock().quit = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("an I/O thread panicked");
        }
    }
}

impl Object for IoThread {
    fn info(&self) -> &'static TypeInfo {
        IoThreadSettings::INFO
    }

    fn get(&self, name: &str) -> Option<Value> {
        self.settings.lock().get(name)
    }

    fn set(&self, name: &str, value: &Value) -> Result<(), PropertyError> {
        let mut settings = self.settings.lock();
        let mut wanted = settings.clone();
        wanted.assign(name, value)?;
        *settings = wanted.check()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_on_the_thread_in_order_and_before_it_ends() {
        let thread = IoThread::new("io0", &[]).unwrap();
        let (sender, receiver) = mpsc::channel();
        for number in 0..100 {
            let sender = sender.clone();
            thread.run(move || {
                let _ = sender.send((number, rustix::thread::gettid().as_raw_nonzero().get()));
            });
        }
        let host = thread.host_thread();
        drop((thread, sender));
        assert_eq!(receiver.iter().collect::<Vec<_>>(), (0..100).map(|number| (number, host)).collect::<Vec<_>>());
    }

    #[test]
    fn a_refused_value_changes_nothing() {
        let thread = IoThread::new("io0", &[("poll-max-ns".into(), 5.into())]).unwrap();
        assert!(thread.set("poll-max-ns", &Value::from(-1)).is_err());
        assert!(thread.set("poll-max-ns", &Value::from("x")).is_err());
        assert_eq!(thread.get("poll-max-ns"), Some(Value::from(5)));
        thread.set("poll-max-ns", &Value::from(6)).unwrap();
        assert_eq!(thread.settings().poll_max_ns, 6);
        assert!(IoThread::new("io1", &[("poll-grow".into(), Value::from(-1))]).is_err());
    }
}
