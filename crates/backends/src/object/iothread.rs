//! `iothread`: a thread that devices' queues can be given to.

use std::sync::Arc;

use parking_lot::Mutex;
use rhea_core::{
    Polling, Worker,
    object::{Object, PropertyError, Settings, TypeInfo, Typed, Value},
};

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
    fn polling(&self) -> Polling {
        // They were checked.
        let [most, grow, shrink] =
            [self.poll_max_ns, self.poll_grow, self.poll_shrink].map(|value| u64::try_from(value).unwrap_or(0));
        Polling { most, grow, shrink }
    }

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

/// The thread, which ends when neither its object nor a device that it serves is there any more.
pub struct IoThread {
    settings: Mutex<IoThreadSettings>,
    worker: Arc<Worker>,
}

impl IoThread {
    /// Starts a thread.
    ///
    /// # Errors
    /// Wrong properties, or a host that has no more threads.
    pub fn new(id: &str, properties: &[(String, Value)]) -> Result<Self, CreateError> {
        let settings = IoThreadSettings::given(properties)?.check()?;
        let started = Worker::start(&format!("IO {id}"));
        let worker =
            started.map_err(|reason| CreateError::Host { what: "could not start a thread".to_owned(), reason })?;
        worker.set_polling(settings.polling());
        Ok(Self { settings: Mutex::new(settings), worker })
    }

    /// How it looks for work.
    pub fn settings(&self) -> IoThreadSettings {
        self.settings.lock().clone()
    }

    /// Its number in the host's kernel.
    pub fn host_thread(&self) -> i32 {
        self.worker.host_thread()
    }

    /// The thread, for a device.
    pub fn worker(&self) -> &Arc<Worker> {
        &self.worker
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
        self.worker.set_polling(settings.polling());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
