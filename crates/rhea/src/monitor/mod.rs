//! The monitor thread: all QMP and HMP conversations, and the commands themselves, one after another.

use std::{io, rc::Rc, thread::JoinHandle, time::Duration};

use rhea_backends::char::{Connection, Conversations, FrontEnd, Lease};
use rhea_qmp::{EventSender, Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    task::spawn_local,
};

use crate::{
    commands::Context,
    human::{self, Job, Step},
    options::MonitorMode,
};

/// How long clients have to read the last messages at the end.
const FAREWELL: Duration = Duration::from_millis(500);

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
    pub fn start(monitors: Vec<(FrontEnd, MonitorMode)>, context: Context, events: EventSender) -> io::Result<Self> {
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
    monitors: Vec<(FrontEnd, MonitorMode)>,
    context: Context,
    events: EventSender,
    ended: oneshot::Receiver<()>,
) -> io::Result<()> {
    let server = Server::new(Rc::new(context.clone()), events);
    let mut listeners = Vec::new();
    for (front, mode) in monitors {
        let conversations = front.conversations();
        listeners.push(match mode {
            MonitorMode::Control => spawn_local(control(server.clone(), conversations)),
            MonitorMode::Readline => spawn_local(readline(context.clone(), conversations)),
        });
    }
    // The sender is dropped only with the program.
    let _ = ended.await;
    for listener in listeners {
        listener.abort();
    }
    server.shutdown(FAREWELL).await;
    Ok(())
}

/// Serves all clients of a QMP monitor.
async fn control(server: Server, mut conversations: Conversations) {
    loop {
        let Lease { connection, mark } = conversations.next().await;
        let session = match connection {
            // A unix socket can pass descriptors.
            Connection::Unix(stream) => server.serve_unix_stream(stream),
            Connection::Tcp(stream) => server.serve_tcp_stream(stream),
            other => server.serve_stream(other),
        };
        spawn_local(async move {
            // However it ends, it has ended.
            let _ = session.await;
            drop(mark);
        });
    }
}

/// Serves all users of a monitor for people.
async fn readline(context: Context, mut conversations: Conversations) {
    loop {
        let Lease { connection, mark } = conversations.next().await;
        let context = context.clone();
        spawn_local(async move {
            converse(context, connection).await;
            drop(mark);
        });
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
        said.clear();
        let mut typed = match connection.read(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(count) => &bytes[..count],
        };
        loop {
            match session.take(&context, &mut typed, &mut said) {
                Step::Done => break,
                Step::Wait(unfinished) => {
                    if connection.write_all(said.as_bytes()).await.is_err() {
                        return;
                    }
                    said.clear();
                    let (work, after) = unfinished.into_parts();
                    let printed = elsewhere(work).await;
                    session.finish(&printed, &mut said);
                    drop(after);
                }
                Step::End => {
                    // Nobody may be there to read it.
                    let _ = connection.write_all(said.as_bytes()).await;
                    return;
                }
            }
        }
    }
}

/// Has `work` done on a thread of its own, while other conversations go on.
async fn elsewhere(work: Job) -> String {
    let (done, result) = oneshot::channel();
    let started = std::thread::Builder::new().name("job".to_owned()).spawn(move || {
        // The conversation may have ended.
        let _ = done.send(work());
    });
    match started {
        Ok(_) => result.await.unwrap_or_else(|_| "Error: the command failed inside Rhea\r\n".to_owned()),
        Err(error) => format!("Error: Could not start a thread: {error}\r\n"),
    }
}
