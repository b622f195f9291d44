//! `rhea shell` against a running machine: as a script, and on a terminal.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod served;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use rhea_tests::monitor::Monitor;
use rhea_tests::process::program;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use served::{PATIENCE, Served};

fn shell(address: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program().unwrap());
    command.arg("shell").arg(address);
    command
}

/// Starts a shell whose input and output are ours.
fn start(address: impl AsRef<std::ffi::OsStr>) -> Child {
    shell(address).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs lines to the end of the input.
fn script(address: impl AsRef<std::ffi::OsStr>, lines: &str) -> Output {
    let mut child = start(address);
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn a_script_runs_in_order_and_sees_the_events() {
    let mut served = Served::start(&["-name", "scripted"]);
    let output = script(
        &served.socket,
        "# who is there?\nquery-name\n\nstop\n{ 'execute': 'cont', 'id': 'mine' }\n  stop  \nquery-status\nquit\n",
    );
    let expected = "\
{\"name\": \"scripted\"}
event STOP
{}
event RESUME
{}
event STOP
{}
";
    let (commands, end) = out(&output).split_once("{\"running\"").unwrap_or_else(|| panic!("{output:?}"));
    assert_eq!(commands, expected);
    let end: Vec<&str> = end.lines().skip(1).collect();
    assert_eq!(end, ["event SHUTDOWN {\"guest\": false, \"reason\": \"host-qmp-quit\"}", "{}"]);
    assert_eq!((err(&output), output.status.code()), ("", Some(0)));
    assert!(served.machine.wait(PATIENCE).unwrap().success());
}

#[test]
fn what_fails_is_told_and_the_rest_still_runs() {
    let served = Served::start(&[]);
    let output = script(&served.socket, "no-such-command\nmemsave val\nmemsave val=0 size=[\nquery-kvm");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(out(&output).lines().count(), 1, "{}", out(&output));
    assert!(out(&output).contains("\"enabled\": false"), "{}", out(&output));
    let errors = "\
error CommandNotFound: The command no-such-command has not been found
error: 'val' is not of the form name=value
error: a quote or bracket is not closed
";
    assert_eq!(err(&output), errors);
}

#[test]
fn arguments_are_read_as_the_schema_has_them() {
    let served = Served::start(&["-S"]);
    let file = served.machine.directory().join("page");
    let output = script(&served.socket, &format!("pmemsave val=0x1000 size=16 filename={}\n", file.display()));
    assert_eq!((out(&output), err(&output), output.status.code()), ("{}\n", "", Some(0)));
    assert_eq!(std::fs::metadata(file).unwrap().len(), 16);
    let text = script(&served.socket, "human-monitor-command command-line=\"info status\"\n");
    assert!(out(&text).starts_with("VM status: paused"), "{}", out(&text));
}

#[test]
fn events_are_printed_while_the_script_says_nothing() {
    let served = Served::start(&[]);
    let mut child = start(&served.socket);
    let mut input = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    input.write_all(b"query-name\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "{}");
    let other = script(&served.socket, "stop\n");
    assert_eq!(out(&other), "event STOP\n{}\n");
    assert_eq!(lines.next().unwrap().unwrap(), "event STOP");
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_connection_that_breaks_is_a_failure_if_there_is_more_to_do() {
    let mut served = Served::start(&[]);
    let mut child = start(&served.socket);
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"quit\n").unwrap();
    assert!(served.machine.wait(PATIENCE).unwrap().success());
    input.write_all(b"query-status\n").unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(err(&output).lines().count(), 1, "{}", err(&output));
}

#[test]
fn a_monitor_on_a_port_is_reached() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let qmp = format!("tcp:127.0.0.1:{port},server=on,wait=off");
    let _served = Served::start(&["-qmp", &qmp]);
    let output = script(format!("127.0.0.1:{port}"), "query-kvm\n");
    assert_eq!((err(&output), output.status.code()), ("", Some(0)));
}

#[test]
fn where_nobody_answers_is_one_line() {
    for arguments in [&["/nowhere/qmp"][..], &["127.0.0.1:1"], &[], &["/nowhere/qmp", "more"]] {
        let output = Command::new(program().unwrap()).arg("shell").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!((out(&output), err(&output).lines().count()), ("", 1), "{}", err(&output));
    }
}

/// A terminal with a shell on it.
struct Terminal {
    shell: Child,
    keys: File,
    printed: mpsc::Receiver<Vec<u8>>,
    /// What was printed since the last wait, without what moves and colours.
    text: String,
}

impl Terminal {
    fn new(address: &Path, state: &Path) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let size = rustix::termios::Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&slave, size).unwrap();
        let shell = shell(address)
            .env("TERM", "xterm")
            .env("XDG_STATE_HOME", state)
            .env_remove("NO_COLOR")
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave)
            .spawn()
            .unwrap();
        let mut reader = File::from(master);
        let keys = reader.try_clone().unwrap();
        let mut reports = reader.try_clone().unwrap();
        let (sink, printed) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The end of a terminal shows as an error.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                // The editor asks where the cursor is.
                if bytes[..count].windows(4).any(|part| part == b"\x1b[6n") {
                    let _ = reports.write_all(b"\x1b[1;1R");
                }
                if sink.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { shell, keys, printed, text: String::new() }
    }

    fn keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `text` is shown; colours and cursor movements do not count.
    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut raw = Vec::new();
        loop {
            let shown = format!("{}{}", self.text, plain(&raw));
            if let Some(at) = shown.find(text) {
                self.text = shown[at + text.len()..].to_owned();
                return;
            }
            match self.printed.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => raw.extend(bytes),
                Err(error) => panic!("no {text:?} ({error}) in {shown:?}"),
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail only for a shell that has ended.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// The text without escape sequences.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\u{1b}' {
            plain.push(character);
        } else if characters.next() == Some('[') {
            characters.find(|end| matches!(end, '@'..='~'));
        }
    }
    plain
}

#[test]
fn on_a_terminal_tab_completes_events_show_and_lines_are_remembered() {
    let mut served = Served::start(&[]);
    let state = served.machine.directory().join("state");
    let mut terminal = Terminal::new(&served.socket, &state);
    terminal.wait_for("Connected to a monitor of version ");
    terminal.wait_for("qmp>");
    terminal.keys("query-kv\t");
    terminal.wait_for("query-kvm");
    terminal.keys("\r");
    terminal.wait_for("\"enabled\": false");
    terminal.wait_for("qmp>");
    terminal.keys("query-sta");
    terminal.wait_for("query-sta");

    // What another client does shows while a line is being typed.
    let mut other = Monitor::new(UnixStream::connect(&served.socket).unwrap());
    other.receive(PATIENCE).unwrap();
    other.send("{'execute': 'qmp_capabilities'}{'execute': 'stop'}").unwrap();
    terminal.wait_for("event STOP");
    terminal.keys("tus\r");
    terminal.wait_for("\"status\": \"paused\"");
    terminal.keys("cont now=yes\r");
    terminal.wait_for("error GenericError: ");

    // The end of the machine is the end of the shell, with nothing typed.
    other.send("{'execute': 'quit'}").unwrap();
    terminal.wait_for("event SHUTDOWN");
    terminal.wait_for("the monitor closed the connection");
    assert!(terminal.shell.wait().unwrap().success());
    assert!(served.machine.wait(PATIENCE).unwrap().success());
    let history = std::fs::read_to_string(state.join("rhea/shell-history")).unwrap();
    assert_eq!(history.lines().map(str::trim_end).collect::<Vec<_>>(), ["query-kvm", "query-status", "cont now=yes"]);
}
