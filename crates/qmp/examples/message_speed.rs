//! How fast a monitor answers over a unix socket: round trips one by one, and commands a second when they are pipelined.
//!
//! `cargo run --release -p rhea-qmp --example message_speed`

use std::error::Error as StdError;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rhea_qmp::{Dispatcher, EventSender, Execution, Server, SessionHandle};
use serde_json::{Map, Value, json};
use tokio::task::LocalSet;

/// Round trips measured.
const ROUND_TRIPS: usize = 50_000;
/// Commands sent without waiting.
const PIPELINED: usize = 1_000_000;

struct Status;

impl Dispatcher for Status {
    fn version(&self) -> Value {
        json!({"qemu": {"major": 10, "minor": 0, "micro": 0}, "package": ""})
    }

    fn allows_oob(&self, command: &str) -> Option<bool> {
        (command == "query-status").then_some(false)
    }

    fn execute(&self, _: &SessionHandle, _: &str, _: Map<String, Value>) -> Execution {
        Execution::Done(Ok(json!({"status": "running", "singlestep": false, "running": true})))
    }
}

fn serve(stream: UnixStream) -> Result<(), Box<dyn StdError>> {
    stream.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let server = Server::new(Rc::new(Status), EventSender::new());
        let session = server.serve_unix_stream(tokio::net::UnixStream::from_std(stream)?);
        Ok(session.await?)
    })
}

fn main() -> Result<(), Box<dyn StdError>> {
    let (mut client, ours) = UnixStream::pair()?;
    let server = std::thread::spawn(move || serve(ours).map_err(|error| error.to_string()));
    let mut lines = BufReader::new(client.try_clone()?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    client.write_all(b"{\"execute\": \"qmp_capabilities\"}")?;
    lines.read_line(&mut line)?;

    let command = b"{\"execute\": \"query-status\", \"id\": 1}\r\n";
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let start = Instant::now();
        client.write_all(command)?;
        line.clear();
        lines.read_line(&mut line)?;
        times.push(start.elapsed());
    }
    times.sort();
    let mean = times.iter().sum::<Duration>() / u32::try_from(ROUND_TRIPS)?;
    let (median, slow) = (times[ROUND_TRIPS / 2], times[ROUND_TRIPS * 99 / 100]);
    println!("round trip: median {median:?}, mean {mean:?}, 99th percentile {slow:?}");

    let start = Instant::now();
    let mut writer = client.try_clone()?;
    let sender = std::thread::spawn(move || {
        let batch = command.repeat(1000);
        (0..PIPELINED / 1000).try_for_each(|_| writer.write_all(&batch))
    });
    let mut answered = 0;
    let mut buffer = vec![0; 1 << 18];
    let mut stream = lines.into_inner();
    while answered < PIPELINED {
        let count = stream.read(&mut buffer)?;
        answered += buffer[..count].iter().filter(|byte| **byte == b'\n').count();
    }
    let elapsed = start.elapsed();
    println!("pipelined: {:.0} commands a second", PIPELINED as f64 / elapsed.as_secs_f64());

    sender.join().map_err(|_| "the sender failed")??;
    client.shutdown(std::net::Shutdown::Both)?;
    server.join().map_err(|_| "the server failed")??;
    Ok(())
}
