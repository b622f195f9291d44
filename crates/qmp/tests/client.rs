//! Both clients against a real monitor, on a real socket.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rhea_qmp::ErrorClass;
use rhea_qmp::client::{AsyncClient, Client, ClientError, Message, Untimed};
use serde_json::{Value, json};
use support::{Monitor, PATIENCE};

fn patience() -> Instant {
    Instant::now() + PATIENCE
}

#[test]
fn connects_negotiates_and_runs_commands() {
    let monitor = Monitor::start();
    let mut client = Client::connect(monitor.path()).unwrap();
    assert_eq!(client.greeting()["capabilities"], json!(["oob"]));
    assert_eq!(client.execute("echo", json!({"a": [1, "ü"]})).unwrap(), json!({"a": [1, "ü"]}));
    assert_eq!(client.execute("ping", Value::Null).unwrap(), json!({}));
    let error = client.execute("fail", json!({})).unwrap_err();
    assert_eq!(error.command_error().unwrap().class, ErrorClass::DeviceNotFound);
    let error = client.execute("warp", json!({})).unwrap_err();
    assert_eq!(error.to_string(), "The command warp has not been found");
}

#[test]
fn events_wait_until_asked_for() {
    let monitor = Monitor::start();
    let mut client = Client::connect(monitor.path()).unwrap();
    client.execute("stop", Value::Null).unwrap();
    client.execute("emit", json!({"name": "RESUME"})).unwrap();
    client.execute("emit", json!({"name": "RTC_CHANGE", "data": {"offset": 3}})).unwrap();
    let event = client.wait_event("RTC_CHANGE", patience()).unwrap();
    assert_eq!(event.data.unwrap()["offset"], 3);
    let names: Vec<_> = client.take_events().into_iter().map(|event| event.name).collect();
    assert_eq!(names, ["STOP", "RESUME"]);
    let start = Instant::now();
    let none = client.wait_event("STOP", start + Duration::from_millis(50));
    assert!(matches!(none, Err(ClientError::TimedOut)));
    assert!(start.elapsed() >= Duration::from_millis(50));
    // The connection is none the worse for it.
    assert_eq!(client.execute("ping", Value::Null).unwrap(), json!({}));
}

#[test]
fn a_command_given_up_does_not_confuse_the_next() {
    let monitor = Monitor::start();
    let mut client = Client::connect(monitor.path()).unwrap();
    let soon = Instant::now() + Duration::from_millis(30);
    assert!(matches!(client.execute_until("slow", json!({}), soon), Err(ClientError::TimedOut)));
    monitor.release();
    assert_eq!(client.execute("ping", json!({})).unwrap(), json!({}));
}

#[test]
fn out_of_band_needs_the_capability() {
    let monitor = Monitor::start();
    let stream = std::os::unix::net::UnixStream::connect(monitor.path()).unwrap();
    let mut client = Client::with_capabilities(stream, &["oob"]).unwrap();
    assert_eq!(client.execute_out_of_band("ping", json!({})).unwrap(), json!({}));
    let mut plain = Client::connect(monitor.path()).unwrap();
    let error = plain.execute_out_of_band("ping", json!({})).unwrap_err();
    assert_eq!(error.to_string(), "QMP input member 'exec-oob' is unexpected");
}

#[test]
fn descriptors_go_along_with_a_command() {
    let monitor = Monitor::start();
    let mut client = Client::connect(monitor.path()).unwrap();
    let (_end, writer) = std::io::pipe().unwrap();
    client.execute_with_descriptors("getfd", json!({"fdname": "p"}), &[writer.as_fd()]).unwrap();
    client.execute("closefd", json!({"fdname": "p"})).unwrap();
    client.execute("getfd", json!({"fdname": "p"})).unwrap_err();
}

#[test]
fn quit_ends_the_connection() {
    let monitor = Monitor::start();
    let mut client = Client::connect(monitor.path()).unwrap();
    client.execute("quit", json!({})).unwrap();
    client.wait_closed(patience()).unwrap();
    assert_eq!(client.take_events()[0].name, "SHUTDOWN");
    assert!(client.execute("ping", json!({})).is_err());
}

#[test]
fn halves_work_on_two_threads() {
    let monitor = Monitor::start();
    let client = Client::connect(monitor.path()).unwrap();
    let (mut sender, mut receiver) = client.split(std::os::unix::net::UnixStream::try_clone).unwrap();
    let thread = std::thread::spawn(move || {
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.push(receiver.receive(None).unwrap());
        }
        seen
    });
    sender.send(&json!({"execute": "stop", "id": "s"})).unwrap();
    let seen = thread.join().unwrap();
    assert!(matches!(&seen[0], Message::Event(event) if event.name == "STOP"));
    assert_eq!(seen[1], Message::Return { value: json!({}), id: Some(json!("s")) });
}

#[test]
fn any_stream_will_do() {
    let monitor = Monitor::start();
    let stream = std::os::unix::net::UnixStream::connect(monitor.path()).unwrap();
    let mut client = Client::new(Untimed(stream)).unwrap();
    assert_eq!(client.execute("ping", json!({})).unwrap(), json!({}));
}

#[test]
fn a_server_that_speaks_something_else_is_an_error() {
    for (bytes, closed) in [(&b"SSH-2.0-OpenSSH\r\n"[..], false), (b"{}", false), (b"[1]", false), (b"", true)] {
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut theirs, bytes).unwrap();
        drop(theirs);
        let error = Client::new(ours).map(drop).unwrap_err();
        assert_eq!(matches!(error, ClientError::Closed), closed, "{error}");
    }
}

#[test]
fn the_asynchronous_client_does_the_same() {
    let monitor = Monitor::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = AsyncClient::connect(monitor.path()).await.unwrap();
        assert_eq!(client.greeting()["capabilities"], json!(["oob"]));
        assert_eq!(client.execute("echo", json!({"a": 1})).await.unwrap(), json!({"a": 1}));
        client.execute("fail", Value::Null).await.unwrap_err();
        client.execute("stop", Value::Null).await.unwrap();
        assert_eq!(client.wait_event("STOP", patience()).await.unwrap().name, "STOP");
        let soon = Instant::now() + Duration::from_millis(20);
        assert!(matches!(client.wait_event("STOP", soon).await, Err(ClientError::TimedOut)));
        client.execute_out_of_band("ping", Value::Null).await.unwrap_err();
        monitor.events.emit("RESUME", None);
        assert!(matches!(client.receive().await.unwrap(), Message::Event(event) if event.name == "RESUME"));
        client.execute("quit", Value::Null).await.unwrap();
        assert!(matches!(client.receive().await, Err(ClientError::Closed)));
    });
}
