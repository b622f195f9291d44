//! Any bytes at all: no panic, the same answers however they are cut, and a way back.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/stream.rs"]
mod stream;
mod support;

use proptest::prelude::{Strategy, any, prop, proptest};
use proptest::prop_oneof;
use stream::check;
use support::Monitor;

/// Pieces of QMP in no sensible order, so that random input gets past the first byte.
const PIECES: [&str; 48] = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "'",
    "\\",
    " ",
    "\n",
    "\r\n",
    "\t",
    "\\u12",
    "\\ud800",
    "\\udc00",
    "\\n",
    "\\\"",
    "'execute'",
    "\"execute\"",
    "'exec-oob'",
    "'arguments'",
    "'id'",
    "'ping'",
    "'qmp_capabilities'",
    "'enable'",
    "'oob'",
    "{'execute': 'ping'}",
    "{'execute': 'qmp_capabilities'}",
    "{'exec-oob': 'ping', 'id': 1}",
    "{'execute': 'qmp_capabilities', 'arguments': {'enable': ['oob']}}",
    "'execute': 'ping', ",
    "true",
    "false",
    "null",
    "nul",
    "-1",
    "0",
    "01",
    "1.5",
    "1e400",
    "18446744073709551616",
    "+1",
    "//",
    "\u{feff}",
    "é",
    "😀",
    "\u{0}",
];

fn qmp_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(&PIECES[..]).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn qmp_like_streams_hold_the_rules(bytes in qmp_like(), cuts in any::<u64>()) {
        check(&bytes, cuts);
    }

    #[test]
    fn random_streams_hold_the_rules(bytes in prop::collection::vec(any::<u8>(), 0..300), cuts in any::<u64>()) {
        check(&bytes, cuts);
    }
}

#[test]
fn seeds_hold_the_rules() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seeds");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let seed = std::fs::read(entry.unwrap().path()).unwrap();
        for cuts in 0..64 {
            check(&seed, cuts);
        }
        count += 1;
    }
    assert!(count >= 8, "{count} seeds");
}

/// The most memory that this process has had, in KiB.
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse().unwrap()
}

#[test]
fn endless_garbage_takes_no_endless_memory_and_blocks_nobody() {
    let monitor = Monitor::start();
    let mut other = monitor.client();
    let before = peak_memory();
    for piece in ["{'execute': 'x", "[\"x\", ", "\\", "\u{0}", "[[[[[[[[", "9999999"] {
        let mut garbage = monitor.connect();
        garbage.line();
        // Answers are read, or the client would be held up.
        let mut answers = garbage.stream.try_clone().unwrap();
        let reader = std::thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
        garbage.send("['");
        let block = piece.repeat((1 << 20) / piece.len());
        for round in 0..80 {
            garbage.send(&block);
            if round % 20 == 0 {
                assert_eq!(other.ask("{'execute': 'ping'}")["return"], serde_json::json!({}));
            }
        }
        garbage.stream.shutdown(std::net::Shutdown::Both).unwrap();
        reader.join().unwrap().unwrap();
    }
    let grown = peak_memory() - before;
    assert!(grown < 400 << 10, "{grown} KiB");
}

#[test]
fn large_commands_behind_a_slow_one_take_bounded_memory() {
    let monitor = Monitor::start();
    let mut client = monitor.oob_client();
    client.send("{'execute': 'slow'}");
    let text = "x".repeat(1 << 20);
    let before = peak_memory();
    let mut writer = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let command = format!("{{'execute': 'ping', 'id': ['{text}']}}");
        for _ in 0..150 {
            std::io::Write::write_all(&mut writer, command.as_bytes()).unwrap();
        }
    });
    std::thread::sleep(std::time::Duration::from_millis(300));
    let grown = peak_memory() - before;
    assert!(grown < 32 << 10, "{grown} KiB");
    monitor.release();
    assert_eq!(client.message()["event"], "SLOW_DONE");
    assert_eq!(client.message()["return"]["slow"], true);
    for _ in 0..150 {
        assert_eq!(client.message()["return"], serde_json::json!({}));
    }
    sender.join().unwrap();
}
