//! The Python library qemu.qmp and its qmp-shell, as they come from PyPI, against a running machine.
//!
//! They are installed under `target/` at the first run. Without Python or PyPI the tests fail and say what to do.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod served;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

use rhea_tests::monitor::Monitor;
use rhea_tests::python::{Python, told};
use served::{PATIENCE, Served};

/// What is installed: an exact version, so that a failure is never a change of theirs.
const PACKAGE: &str = "qemu.qmp==0.0.6";

fn python() -> Python {
    Python::install(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-clients"), PACKAGE).unwrap()
}

#[test]
fn the_python_library_manages_a_machine() {
    let python = python();
    let mut served = Served::start(&[]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/library.py");
    let output = python.command().arg(script).arg(&served.socket).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "everything went as it must\n");
    assert!(served.machine.wait(PATIENCE).unwrap().success());
}

#[test]
fn qmp_shell_manages_a_machine() {
    let python = python();
    let mut served = Served::start(&[]);
    let mut shell = python
        .command()
        .arg(python.program("qmp-shell"))
        .arg(&served.socket)
        // It keeps a history there.
        .env("HOME", served.machine.directory())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = shell.stdin.take().unwrap();
    // A blank line shows the events that came.
    input.write_all(b"query-status\nstop\n\nquery-status\ncont\nno-such-command\nmemsave val=0\n").unwrap();
    drop(input);
    let output = shell.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    let printed = String::from_utf8_lossy(&output.stdout);
    let answers: Vec<&str> = printed.lines().map(|line| line.trim_start_matches("(QEMU) ")).collect();
    let position = |what: &str| {
        let found = answers.iter().position(|line| line.contains(what));
        found.unwrap_or_else(|| panic!("no {what:?} in {printed}"))
    };
    assert!(position("Connected to QEMU ") < position(r#""status": "running""#), "{printed}");
    assert!(position(r#""status": "running""#) < position("'event': 'STOP'"), "{printed}");
    assert!(position("'event': 'STOP'") < position(r#""status": "paused""#), "{printed}");
    assert!(position(r#""status": "paused""#) < position(r#""class": "CommandNotFound""#), "{printed}");
    assert!(position(r#""class": "CommandNotFound""#) < position("Parameter 'size' is missing"), "{printed}");
    // The shell ends with its input; told to quit, it would race with the end of its connection, which it takes ill.
    let mut monitor = Monitor::new(UnixStream::connect(&served.socket).unwrap());
    monitor.send(r#"{ "execute": "qmp_capabilities" } { "execute": "quit" }"#).unwrap();
    assert!(served.machine.wait(PATIENCE).unwrap().success());
}
