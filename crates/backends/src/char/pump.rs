//! Moves bytes between a device and its backend's connection.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
};

use super::{Backend, Connection, Incoming};

/// Output that waits for its reader at the most. A guest that writes into a terminal nobody reads loses what is past it.
const OUTPUT_LIMIT: usize = 1 << 20;

/// What a device has written and the backend has not taken yet.
#[derive(Default)]
pub struct Output {
    bytes: Mutex<VecDeque<u8>>,
    changed: Notify,
}

impl Output {
    /// An empty queue.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Appends `bytes`, as many as there is room for; never waits.
    pub fn push(&self, bytes: &[u8]) {
        let mut queue = self.bytes.lock();
        let room = OUTPUT_LIMIT.saturating_sub(queue.len());
        queue.extend(&bytes[..bytes.len().min(room)]);
        drop(queue);
        self.changed.notify_one();
    }

    /// Waits until something is there, and takes it all.
    pub async fn take(&self) -> Vec<u8> {
        loop {
            let taken = std::mem::take(&mut *self.bytes.lock());
            if !taken.is_empty() {
                return taken.into();
            }
            self.changed.notified().await;
        }
    }

    /// Takes what is there.
    pub fn drain(&self) -> Vec<u8> {
        std::mem::take(&mut *self.bytes.lock()).into()
    }
}

/// A device's end: what takes the bytes that come in.
pub trait Port: Send + Sync {
    /// Takes bytes, as many as there is room for, and says how many that were.
    fn receive(&self, bytes: &[u8]) -> usize;

    /// Registers whom to tell when there is room again.
    fn on_room(&self, wake: Box<dyn Fn() + Send + Sync>);
}

/// Serves a device by its backend, for ever: one connection at a time. Output while there is none is dropped.
pub async fn pump(mut backend: Backend, output: Arc<Output>, port: Arc<dyn Port>) {
    let room = Arc::new(Notify::new());
    let waker = Arc::clone(&room);
    port.on_room(Box::new(move || waker.notify_one()));
    let (mut connection, incoming) = match backend.connections() {
        Ok(connections) => connections,
        Err(error) => {
            tracing::error!("{}: {error}", backend.filename());
            return;
        }
    };
    loop {
        match connection.take() {
            Some(open) => converse(open, &output, &*port, &room).await,
            None => match &incoming {
                Some(incoming) => connection = next(incoming, &output).await,
                None => loop {
                    output.take().await;
                },
            },
        }
    }
}

async fn next(incoming: &Incoming, output: &Output) -> Option<Connection> {
    loop {
        tokio::select! {
            accepted = incoming.accept() => match accepted {
                Ok(connection) => return Some(connection),
                Err(error) => tracing::warn!("accept: {error}"),
            },
            _ = output.take() => {}
        }
    }
}

/// Serves one connection until the other side ends it. The end of a file's or terminal's input leaves its output.
async fn converse(connection: Connection, output: &Output, port: &dyn Port, room: &Notify) {
    let socket = !matches!(connection, Connection::File(_));
    let (mut reader, mut writer) = tokio::io::split(connection);
    let input = async {
        let mut bytes = [0; 4096];
        loop {
            match reader.read(&mut bytes).await {
                Ok(0) | Err(_) => break,
                Ok(count) => deliver(&bytes[..count], port, room).await,
            }
        }
        if !socket {
            std::future::pending::<()>().await;
        }
    };
    let out = async {
        loop {
            let bytes = output.take().await;
            if writer.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = input => {
            // What was said before the end is still delivered.
            let _ = writer.write_all(&output.drain()).await;
        }
        () = out => {}
    }
}

async fn deliver(mut bytes: &[u8], port: &dyn Port, room: &Notify) {
    while !bytes.is_empty() {
        let taken = port.receive(bytes);
        bytes = &bytes[taken..];
        if taken == 0 {
            room.notified().await;
        }
    }
}
