//! A monitor with a few commands of its own on a real unix socket, and a plain client that sees each line.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(dead_code, reason = "each test file uses the part that it needs")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rhea_qmp::{AfterAnswer, Dispatcher, Error, EventSender, Execution, Server, SessionHandle};
use serde_json::{Map, Value, json};
use tokio::task::LocalSet;

/// Longer than anything takes unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Commands that show one trait of the server each.
struct Commands {
    events: EventSender,
    /// Lets `slow` go on.
    release: Arc<Mutex<mpsc::Receiver<()>>>,
    quit: Arc<tokio::sync::Notify>,
}

impl Dispatcher for Commands {
    fn version(&self) -> Value {
        json!({"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": "test"})
    }

    fn allows_oob(&self, command: &str) -> Option<bool> {
        match command {
            "echo" | "stop" | "slow" | "fail" | "panic" | "device_del" | "getfd" | "closefd" | "emit" | "quit"
            | "big" | "count" | "panic-later" => Some(false),
            "ping" | "slow-oob" => Some(true),
            _ => None,
        }
    }

    fn execute(&self, session: &SessionHandle, command: &str, arguments: Map<String, Value>) -> Execution {
        Execution::Done(match command {
            "echo" => Ok(Value::Object(arguments)),
            "ping" => Ok(json!({})),
            "stop" => {
                self.events.emit("STOP", None);
                Ok(json!({}))
            }
            "emit" => {
                let name = arguments["name"].as_str().expect("a name").to_owned();
                self.events.emit(&name, arguments.get("data").cloned());
                Ok(json!({}))
            }
            "fail" => Err(Error::device_not_found("nic9")),
            "panic" => panic!("a handler with a defect"),
            "panic-later" => return Execution::Later(Box::new(|| panic!("a job with a defect"))),
            "slow" | "slow-oob" => {
                let release = self.release.clone();
                let events = self.events.clone();
                return Execution::Later(Box::new(move || {
                    release.lock().recv_timeout(PATIENCE).expect("released");
                    events.emit("SLOW_DONE", None);
                    Ok(json!({"slow": true}))
                }));
            }
            "device_del" => {
                let events = self.events.clone();
                let after = move || events.emit("DEVICE_DELETED", Some(json!({"path": "/machine/x"})));
                return Execution::DoneThen(Ok(json!({})), AfterAnswer::new(after));
            }
            "getfd" => match session.take_descriptor() {
                None => Err(Error::generic("No file descriptor supplied via SCM_RIGHTS")),
                Some(descriptor) => {
                    let name = arguments["fdname"].as_str().expect("a name").to_owned();
                    session.named_descriptors().insert(name, descriptor);
                    Ok(json!({}))
                }
            },
            "closefd" => {
                let name = arguments["fdname"].as_str().expect("a name");
                match session.named_descriptors().remove(name) {
                    Some(_) => Ok(json!({})),
                    None => Err(Error::generic(format_args!("File descriptor named '{name}' not found"))),
                }
            }
            "big" => Ok(Value::String("x".repeat(arguments["size"].as_u64().expect("a size") as usize))),
            "count" => {
                let count = session.extension::<std::cell::Cell<u64>>();
                count.set(count.get() + 1);
                Ok(json!({"count": count.get(), "session": session.number()}))
            }
            "quit" => {
                self.events.emit("SHUTDOWN", Some(json!({"guest": false, "reason": "host-qmp-quit"})));
                let (events, quit) = (self.events.clone(), self.quit.clone());
                let after = move || {
                    events.close();
                    quit.notify_one();
                };
                return Execution::DoneThen(Ok(json!({})), AfterAnswer::new(after));
            }
            other => panic!("{other} was let through"),
        })
    }
}

/// A server on its own thread.
pub(crate) struct Monitor {
    directory: tempfile::TempDir,
    pub(crate) events: EventSender,
    release: mpsc::Sender<()>,
    quit: Arc<tokio::sync::Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let events = EventSender::new();
        let (release, released) = mpsc::channel();
        let quit = Arc::new(tokio::sync::Notify::new());
        let listeners = ["one", "two"].map(|name| {
            let listener = std::os::unix::net::UnixListener::bind(directory.path().join(name)).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        });
        let thread = std::thread::spawn({
            let (events, quit) = (events.clone(), quit.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                LocalSet::new().block_on(&runtime, async move {
                    let commands = Commands {
                        events: events.clone(),
                        release: Arc::new(Mutex::new(released)),
                        quit: quit.clone(),
                    };
                    let server = Server::new(Rc::new(commands), events);
                    for listener in listeners {
                        server.serve_unix_listener(tokio::net::UnixListener::from_std(listener).unwrap());
                    }
                    quit.notified().await;
                    server.shutdown(Duration::from_secs(5)).await;
                });
            }
        });
        Self { directory, events, release, quit, thread: Some(thread) }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("one")
    }

    pub(crate) fn second_path(&self) -> PathBuf {
        self.directory.path().join("two")
    }

    /// Lets one `slow` command end.
    pub(crate) fn release(&self) {
        self.release.send(()).unwrap();
    }

    /// A client before negotiation, its greeting unread.
    pub(crate) fn connect(&self) -> Wire {
        Wire::new(UnixStream::connect(self.path()).unwrap())
    }

    /// A client after negotiation.
    pub(crate) fn client(&self) -> Wire {
        self.connect().negotiated("{'execute': 'qmp_capabilities'}")
    }

    /// A client that enabled out-of-band execution.
    pub(crate) fn oob_client(&self) -> Wire {
        self.connect().negotiated("{'execute': 'qmp_capabilities', 'arguments': {'enable': ['oob']}}")
    }

    /// Waits for the server's end, as after `quit`.
    pub(crate) fn wait(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.quit.notify_one();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server panicked");
        }
    }
}

/// A client that sends what it is told and sees each line as it is.
pub(crate) struct Wire {
    pub(crate) stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Wire {
    pub(crate) fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap());
        Self { stream, lines }
    }

    pub(crate) fn negotiated(mut self, command: &str) -> Self {
        self.line();
        self.send(command);
        assert_eq!(self.line(), r#"{"return": {}}"#);
        self
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// The next message without its end, which is checked.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("an answer in time");
        line.strip_suffix("\r\n").unwrap_or_else(|| panic!("{line:?} has no proper end")).to_owned()
    }

    pub(crate) fn message(&mut self) -> Value {
        serde_json::from_str(&self.line()).expect("JSON")
    }

    /// The result of `command`; nothing else may come before it.
    pub(crate) fn ask(&mut self, command: &str) -> Value {
        self.send(command);
        self.message()
    }

    /// The text of the error that `message` gets.
    pub(crate) fn complaint(&mut self, message: impl AsRef<[u8]>) -> String {
        self.send(message);
        let answer = self.message();
        assert_eq!(answer["error"]["class"], "GenericError", "{answer}");
        answer["error"]["desc"].as_str().expect("a text").to_owned()
    }

    /// Whether the server ended the connection, with nothing more to read.
    pub(crate) fn at_end(&mut self) -> bool {
        let mut line = String::new();
        matches!(self.lines.read_line(&mut line), Ok(0))
    }

    /// Whether nothing comes for a short while.
    pub(crate) fn silent(&mut self) -> bool {
        self.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let silent = self.lines.fill_buf().is_err();
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(5));
    }
}
