//! The monitor thread: all QMP and HMP conversations, and the commands themselves, one after another.

mod terminal;

use std::{io, rc::Rc, sync::Arc, thread::JoinHandle, time::Duration};

use rhea_backends::char::{Backend, Connection, Incoming, Output, Port};
use rhea_qmp::{EventSender, Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    task::spawn_local,
};

use crate::{commands::Context, human, options::MonitorMode};

pub use terminal::EndOfInput;

/// How long clients have to read the last messages at the end.
const FAREWELL: Duration = Duration::from_millis(500);

/// The terminal that a serial port and a monitor share.
pub struct SharedTerminal {
    /// Standard input and output.
    pub backend: Backend,
    /// What the serial port writes.
    pub output: Arc<Output>,
    /// The serial port.
    pub port: Arc<dyn Port>,
    /// What the end of input does.
    pub end_of_input: EndOfInput,
}

/// What the monitor thread serves.
pub struct Monitors {
    /// Monitors and how each speaks.
    pub backends: Vec<(Backend, MonitorMode)>,
    /// The shared terminal.
    pub terminal: Option<SharedTerminal>,
}

/// The running monitor thread.
pub struct MonitorThread {
    end: oneshot::Sender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl MonitorThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The host has no more threads.
    pub fn start(monitors: Monitors, context: Context, events: EventSender) -> io::Result<Self> {
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("monitor".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            tokio::task::LocalSet::new().block_on(&runtime, serve(monitors, context, events, ended))
        })?;
        Ok(Self { end, thread })
    }

    /// Ends all conversations, after their last messages, and waits for that.
    pub fn end(self) {
        // A thread that ended already needs not be told.
        let _ = self.end.send(());
        match self.thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!("monitors: {error}"),
            Err(_) => tracing::error!("the monitor thread panicked"),
        }
    }
}

async fn serve(
    monitors: Monitors,
    context: Context,
    events: EventSender,
    ended: oneshot::Receiver<()>,
) -> io::Result<()> {
    let server = Server::new(Rc::new(context.clone()), events);
    // Kept to the end: a socket's file goes with its backend.
    let mut backends = Vec::new();
    for (mut backend, mode) in monitors.backends {
        let (first, incoming) = backend.connections()?;
        match mode {
            MonitorMode::Control => control(&server, first, incoming),
            MonitorMode::Readline => {
                spawn_local(readline(context.clone(), first, incoming));
            }
        }
        backends.push(backend);
    }
    if let Some(terminal) = monitors.terminal {
        spawn_local(terminal::serve(terminal, context));
    }
    // The sender is dropped only with the program.
    let _ = ended.await;
    server.shutdown(FAREWELL).await;
    Ok(())
}

fn control(server: &Server, first: Option<Connection>, incoming: Option<Incoming>) {
    match first {
        Some(Connection::Unix(stream)) => drop(server.serve_unix_stream(stream)),
        Some(Connection::Tcp(stream)) => drop(server.serve_tcp_stream(stream)),
        Some(stream @ Connection::File(_)) => drop(server.serve_stream(stream)),
        None => {}
    }
    match incoming {
        Some(Incoming::Unix(listener)) => drop(server.serve_unix_listener(listener)),
        Some(Incoming::Tcp(listener)) => drop(server.serve_tcp_listener(listener)),
        None => {}
    }
}

async fn readline(context: Context, first: Option<Connection>, incoming: Option<Incoming>) {
    if let Some(connection) = first {
        spawn_local(converse(context.clone(), connection));
    }
    let Some(incoming) = incoming else { return };
    loop {
        match incoming.accept().await {
            Ok(connection) => drop(spawn_local(converse(context.clone(), connection))),
            Err(error) => {
                tracing::warn!("monitor: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(context: Context, mut connection: Connection) {
    let mut session = human::Session::default();
    let mut said = session.greeting();
    let mut bytes = [0; 1024];
    loop {
        if connection.write_all(said.as_bytes()).await.is_err() {
            return;
        }
        let ended;
        match connection.read(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(count) => (said, ended) = session.take(&context, &bytes[..count]),
        }
        if ended {
            // Nobody may be there to read it.
            let _ = connection.write_all(said.as_bytes()).await;
            return;
        }
    }
}
