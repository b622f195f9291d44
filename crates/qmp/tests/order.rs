//! Who hears what, and in which order: events, results, commands that take long, and the end.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::json;
use support::{Monitor, Wire, eventually};

#[test]
fn an_event_of_a_command_precedes_its_result() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    let event = client.ask("{'execute': 'stop', 'id': 1}");
    assert_eq!(event["event"], "STOP");
    assert_eq!(event.get("data"), None);
    assert!(event["timestamp"]["seconds"].as_i64() > Some(1_700_000_000));
    assert!(event["timestamp"]["microseconds"].as_i64() < Some(1_000_000));
    assert_eq!(client.message(), json!({"return": {}, "id": 1}));
}

#[test]
fn an_event_after_a_command_follows_its_result() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    client.send("{'execute': 'device_del', 'id': 1}{'execute': 'ping', 'id': 2}");
    assert_eq!(client.message(), json!({"return": {}, "id": 1}));
    assert_eq!(client.message()["event"], "DEVICE_DELETED");
    assert_eq!(client.message(), json!({"return": {}, "id": 2}));
}

#[test]
fn quit_is_event_result_end() {
    let monitor = Monitor::start();
    let mut other = monitor.client();
    let mut client = monitor.client();
    // What follows is not run.
    client.send("{'execute': 'quit', 'id': 1}{'execute': 'ping', 'id': 2}");
    let event = client.message();
    assert_eq!(event["event"], "SHUTDOWN");
    assert_eq!(event["data"], json!({"guest": false, "reason": "host-qmp-quit"}));
    assert_eq!(client.message(), json!({"return": {}, "id": 1}));
    assert!(client.at_end());
    assert_eq!(other.message()["event"], "SHUTDOWN");
    assert!(other.at_end());
    monitor.wait();
}

#[test]
fn events_go_to_all_negotiated_sessions_of_all_monitors_and_no_others() {
    let monitor = Monitor::start();
    let mut first = monitor.client();
    let second = std::os::unix::net::UnixStream::connect(monitor.second_path()).unwrap();
    let mut second = Wire::new(second).negotiated("{'execute': 'qmp_capabilities'}");
    let mut fresh = monitor.connect();
    fresh.line();
    monitor.events.emit("RESUME", None);
    assert_eq!(first.message()["event"], "RESUME");
    assert_eq!(second.message()["event"], "RESUME");
    assert_eq!(fresh.ask("{'execute': 'qmp_capabilities'}"), json!({"return": {}}));
    assert!(fresh.silent());
}

#[test]
fn events_from_many_threads_arrive_whole_and_in_each_threads_order() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let events = monitor.events.clone();
            std::thread::spawn(move || {
                for number in 0..500 {
                    let data = json!({"thread": thread, "number": number});
                    events.emit("TICK", Some(data.clone()));
                }
            })
        })
        .collect();
    let mut next = [0; 4];
    for _ in 0..2000 {
        let event = client.message();
        let thread = event["data"]["thread"].as_u64().unwrap() as usize;
        assert_eq!(event["data"]["number"], next[thread]);
        next[thread] += 1;
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn commands_behind_a_slow_one_wait_and_other_sessions_do_not() {
    let monitor = Monitor::start();
    let mut slow = monitor.client();
    let mut other = monitor.client();
    slow.send("{'execute': 'slow', 'id': 1}{'execute': 'ping', 'id': 2}{'execute': 1, 'id': 3}");
    assert_eq!(other.ask("{'execute': 'ping'}"), json!({"return": {}}));
    assert!(slow.silent());
    monitor.release();
    assert_eq!(slow.message()["event"], "SLOW_DONE");
    assert_eq!(slow.message(), json!({"return": {"slow": true}, "id": 1}));
    assert_eq!(slow.message(), json!({"return": {}, "id": 2}));
    assert_eq!(slow.message()["id"], 3);
}

#[test]
fn an_out_of_band_command_overtakes() {
    let monitor = Monitor::start();
    let mut client = monitor.oob_client();
    client.send("{'execute': 'slow', 'id': 1}{'execute': 'echo', 'id': 2}{'exec-oob': 'ping', 'id': 3}");
    assert_eq!(client.message(), json!({"return": {}, "id": 3}));
    // So do the errors of out-of-band commands; those of the others wait.
    client.send("{'exec-oob': 'warp', 'id': 4}{'execute': 'warp', 'id': 5}{'exec-oob': 'echo', 'id': 6}");
    assert_eq!(client.message()["id"], 4);
    assert_eq!(client.message()["id"], 6);
    monitor.release();
    assert_eq!(client.message()["event"], "SLOW_DONE");
    assert_eq!(client.message()["id"], 1);
    assert_eq!(client.message()["id"], 2);
    assert_eq!(client.message()["id"], 5);
}

#[test]
fn a_slow_out_of_band_command_does_not_hold_up_the_row() {
    let monitor = Monitor::start();
    let mut client = monitor.oob_client();
    client.send("{'exec-oob': 'slow-oob', 'id': 1}{'execute': 'ping', 'id': 2}");
    assert_eq!(client.message(), json!({"return": {}, "id": 2}));
    monitor.release();
    assert_eq!(client.message()["event"], "SLOW_DONE");
    assert_eq!(client.message()["id"], 1);
}

#[test]
fn many_commands_behind_a_slow_one_are_all_answered() {
    let monitor = Monitor::start();
    let mut client = monitor.oob_client();
    client.send("{'execute': 'slow'}");
    let mut writer = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        for id in 0..5000 {
            write!(writer, "{{'execute': 'ping', 'id': {id}}}").unwrap();
        }
    });
    std::thread::sleep(Duration::from_millis(20));
    monitor.release();
    assert_eq!(client.message()["event"], "SLOW_DONE");
    assert_eq!(client.message(), json!({"return": {"slow": true}}));
    for id in 0..5000 {
        assert_eq!(client.message(), json!({"return": {}, "id": id}));
    }
    sender.join().unwrap();
}

#[test]
fn a_panic_in_a_command_is_an_error_of_that_command_only() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    for command in ["panic", "panic-later"] {
        let answer = client.ask(&format!("{{'execute': '{command}', 'id': 9}}"));
        assert_eq!(answer["error"]["class"], "GenericError");
        assert_eq!(answer["id"], 9);
    }
    assert_eq!(client.ask("{'execute': 'ping'}"), json!({"return": {}}));
}

#[test]
fn an_error_keeps_its_class() {
    let monitor = Monitor::start();
    let answer = monitor.client().ask("{'execute': 'fail'}");
    assert_eq!(answer, json!({"error": {"class": "DeviceNotFound", "desc": "Device 'nic9' not found"}}));
}

#[test]
fn a_rate_limited_event_comes_at_once_and_then_its_last_value_a_second_later() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    let start = Instant::now();
    for actual in 1..=50 {
        monitor.events.emit("BALLOON_CHANGE", Some(json!({"actual": actual})));
    }
    monitor.events.emit("STOP", None);
    assert_eq!(client.message()["data"]["actual"], 1);
    assert_eq!(client.message()["event"], "STOP");
    assert_eq!(client.message()["data"]["actual"], 50);
    assert!(start.elapsed() >= Duration::from_millis(990), "{:?}", start.elapsed());
    assert!(client.silent());
}

#[test]
fn a_held_back_event_goes_out_before_the_end() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    client.send("{'execute': 'emit', 'arguments': {'name': 'RTC_CHANGE', 'data': {'offset': 1}}}");
    client.send("{'execute': 'emit', 'arguments': {'name': 'RTC_CHANGE', 'data': {'offset': 2}}}");
    assert_eq!(client.message()["data"]["offset"], 1);
    assert_eq!(client.message(), json!({"return": {}}));
    assert_eq!(client.message(), json!({"return": {}}));
    client.send("{'execute': 'quit'}");
    assert_eq!(client.message()["event"], "SHUTDOWN");
    assert_eq!(client.message(), json!({"return": {}}));
    assert_eq!(client.message()["data"]["offset"], 2);
    assert!(client.at_end());
}

#[test]
fn a_client_that_does_not_read_loses_only_its_own_connection() {
    let monitor = Monitor::start();
    let mut deaf = monitor.client();
    let mut other = monitor.client();
    let data = json!({"text": "x".repeat(10_000)});
    for _ in 0..1000 {
        monitor.events.emit("TICK", Some(data.clone()));
        assert_eq!(other.message()["event"], "TICK");
    }
    assert_eq!(other.ask("{'execute': 'ping'}"), json!({"return": {}}));
    // What was on its way can still be read, then the connection is at its end.
    let mut seen = 0;
    let mut line = Vec::new();
    let mut lines = std::io::BufReader::new(deaf.stream.try_clone().unwrap());
    while std::io::BufRead::read_until(&mut lines, b'\n', &mut line).unwrap_or(0) > 0 {
        seen += 1;
    }
    assert!(seen < 1000, "{seen}");
    assert!(deaf.stream.write_all(b" ").is_err());
}

#[test]
fn a_client_that_sends_much_before_it_reads_gets_all_its_answers() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    let mut writer = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        for _ in 0..200 {
            writer.write_all(b"{'execute': 'big', 'arguments': {'size': 100000}}").unwrap();
        }
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    std::thread::sleep(Duration::from_millis(100));
    let mut other = monitor.client();
    assert_eq!(other.ask("{'execute': 'ping'}"), json!({"return": {}}));
    for _ in 0..200 {
        assert_eq!(client.message()["return"].as_str().map(str::len), Some(100_000));
    }
    assert!(client.at_end());
    sender.join().unwrap();
}

#[test]
fn what_was_sent_before_the_end_of_input_is_answered() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    client.send("{'execute': 'slow', 'id': 1}{'execute': 'ping', 'id': 2}");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    monitor.release();
    assert_eq!(client.message()["event"], "SLOW_DONE");
    assert_eq!(client.message()["id"], 1);
    assert_eq!(client.message()["id"], 2);
    assert!(client.at_end());
}

#[test]
fn a_flooding_client_does_not_starve_another() {
    let monitor = Monitor::start();
    let mut flood = monitor.client();
    let mut other = monitor.client();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut writer = flood.stream.try_clone().unwrap();
    let sender = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let batch = "{'execute': 'ping'}".repeat(1000);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                if writer.write_all(batch.as_bytes()).is_err() {
                    break;
                }
            }
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        }
    });
    let reader = std::thread::spawn(move || {
        while !flood.at_end() {
            flood.line();
        }
    });
    for _ in 0..50 {
        let start = Instant::now();
        assert_eq!(other.ask("{'execute': 'ping'}"), json!({"return": {}}));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    sender.join().unwrap();
    drop(reader);
}

#[test]
fn sessions_have_their_own_numbers_and_memory() {
    let monitor = Monitor::start();
    let mut first = monitor.client();
    let mut second = monitor.client();
    let a = first.ask("{'execute': 'count'}");
    let b = second.ask("{'execute': 'count'}");
    assert_eq!(first.ask("{'execute': 'count'}")["return"]["count"], 2);
    assert_eq!(a["return"]["count"], 1);
    assert_eq!(b["return"]["count"], 1);
    assert_ne!(a["return"]["session"], b["return"]["session"]);
}

fn send_with_descriptors(client: &Wire, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    let sent = sendmsg(client.stream.as_fd(), &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap();
    assert_eq!(sent, bytes.len());
}

#[test]
fn descriptors_come_with_messages_and_end_with_the_session() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    let getfd = |name: &str| format!("{{'execute': 'getfd', 'arguments': {{'fdname': '{name}'}}}}");
    assert_eq!(client.complaint(getfd("a")), "No file descriptor supplied via SCM_RIGHTS");
    let pipes: Vec<_> = (0..3).map(|_| std::io::pipe().unwrap()).collect();
    let (mut ends, writers): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();

    send_with_descriptors(&client, getfd("a").as_bytes(), &[writers[0].as_fd()]);
    assert_eq!(client.message(), json!({"return": {}}));
    // Ahead of its command, as some clients do.
    send_with_descriptors(&client, b" ", &[writers[1].as_fd()]);
    assert_eq!(client.ask(&getfd("b")), json!({"return": {}}));
    // One that no command takes is closed when the next one comes.
    send_with_descriptors(&client, b"{'execute': 'ping'}", &[writers[2].as_fd()]);
    assert_eq!(client.message(), json!({"return": {}}));
    send_with_descriptors(&client, b" ", &[writers[0].as_fd()]);
    assert_eq!(client.ask(&getfd("c")), json!({"return": {}}));
    assert_eq!(client.complaint(getfd("d")), "No file descriptor supplied via SCM_RIGHTS");
    drop(writers);
    let mut buffer = [0];
    assert_eq!(std::io::Read::read(&mut ends[2], &mut buffer).unwrap(), 0);

    assert_eq!(client.ask("{'execute': 'closefd', 'arguments': {'fdname': 'b'}}"), json!({"return": {}}));
    assert_eq!(std::io::Read::read(&mut ends[1], &mut buffer).unwrap(), 0);
    // Another session does not see them.
    let mut other = monitor.client();
    let answer = other.ask("{'execute': 'closefd', 'arguments': {'fdname': 'a'}}");
    assert_eq!(answer["error"]["desc"], "File descriptor named 'a' not found");
    drop(client);
    assert_eq!(std::io::Read::read(&mut ends[0], &mut buffer).unwrap(), 0);
}

#[test]
fn pipelined_descriptors_reach_their_commands_in_order() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    let pipes: Vec<_> = (0..5).map(|_| std::io::pipe().unwrap()).collect();
    for (number, (_, writer)) in pipes.iter().enumerate() {
        let command = format!("{{'execute': 'getfd', 'arguments': {{'fdname': '{number}'}}}}");
        send_with_descriptors(&client, command.as_bytes(), &[writer.as_fd()]);
    }
    for _ in 0..5 {
        assert_eq!(client.message(), json!({"return": {}}));
    }
    for (number, (mut end, writer)) in pipes.into_iter().enumerate() {
        drop(writer);
        let command = format!("{{'execute': 'closefd', 'arguments': {{'fdname': '{number}'}}}}");
        assert_eq!(client.ask(&command), json!({"return": {}}));
        assert_eq!(std::io::Read::read(&mut end, &mut [0]).unwrap(), 0);
    }
}

#[test]
fn a_hundred_descriptors_sent_for_nothing_are_closed() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    let (mut end, writer) = std::io::pipe().unwrap();
    for _ in 0..100 {
        send_with_descriptors(&client, b" ", &[writer.as_fd(), writer.as_fd(), writer.as_fd(), writer.as_fd()]);
    }
    assert_eq!(client.ask("{'execute': 'ping'}"), json!({"return": {}}));
    drop(writer);
    drop(client);
    eventually("the last copy's end", || matches!(std::io::Read::read(&mut end, &mut [0]), Ok(0)));
}

#[test]
fn a_deaf_client_does_not_hold_up_the_end() {
    let monitor = Monitor::start();
    let mut deaf = monitor.client();
    let mut client = monitor.client();
    deaf.send("{'execute': 'big', 'arguments': {'size': 5000000}}");
    assert_eq!(client.ask("{'execute': 'ping'}"), json!({"return": {}}));
    let start = Instant::now();
    client.send("{'execute': 'quit'}");
    assert_eq!(client.message()["event"], "SHUTDOWN");
    assert_eq!(client.message(), json!({"return": {}}));
    assert!(client.at_end());
    monitor.wait();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn too_many_clients_are_turned_away_and_room_is_made_again() {
    let monitor = Monitor::start();
    let mut clients: Vec<_> = (0..rhea_qmp::server::MOST_SESSIONS).map(|_| monitor.client()).collect();
    assert!(monitor.connect().at_end());
    clients.pop();
    eventually("a free place", || {
        let mut client = monitor.connect();
        // Turned away or greeted.
        !client.at_end()
    });
    assert_eq!(clients[0].ask("{'execute': 'ping'}"), json!({"return": {}}));
}

#[test]
fn a_tcp_monitor_does_the_same() {
    struct Nothing;
    impl rhea_qmp::Dispatcher for Nothing {
        fn version(&self) -> serde_json::Value {
            json!("none")
        }
        fn allows_oob(&self, _: &str) -> Option<bool> {
            None
        }
        fn execute(
            &self,
            _: &rhea_qmp::SessionHandle,
            command: &str,
            _: serde_json::Map<String, serde_json::Value>,
        ) -> rhea_qmp::Execution {
            panic!("there is no {command}")
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let events = rhea_qmp::EventSender::new();
        let server = rhea_qmp::Server::new(std::rc::Rc::new(Nothing), events.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        server.serve_tcp_listener(listener);
        let client = tokio::task::spawn_blocking(move || {
            let mut client = rhea_qmp::client::Client::connect_tcp(address).unwrap();
            let error = client.execute("warp", json!({})).unwrap_err();
            assert_eq!(error.to_string(), "The command warp has not been found");
            assert_eq!(client.greeting()["version"], "none");
            events.emit("STOP", None);
            client.wait_event("STOP", Instant::now() + support::PATIENCE).unwrap();
            events.close();
            client.wait_closed(Instant::now() + support::PATIENCE).unwrap();
        });
        client.await.unwrap();
        server.shutdown(Duration::from_secs(1)).await;
        assert_eq!(server.sessions(), 0);
    });
}
