//! The Python library qemu.qmp and its qmp-shell, as they come from PyPI, against a running machine.
//!
//! They are installed under `target/` at the first run. Without Python or PyPI the tests fail and say what to do.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod served;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rhea_tests::monitor::Monitor;
use served::{PATIENCE, Served};

/// What is installed: an exact version, so that a failure is never a change of theirs.
const PACKAGE: &str = "qemu.qmp==0.0.6";

const ADVICE: &str = "needed are python3 with venv or pip (Debian: apt-get install python3-venv) and a way to PyPI \
                      or a mirror of it (see 'pip help config')";

/// A Python that has the library.
struct Python {
    directory: PathBuf,
}

impl Python {
    /// Installs the library, unless that was done before.
    fn install() -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-clients");
        fs::create_dir_all(&directory).unwrap();
        // Tests run at the same time, each in a process of its own.
        let lock = File::create(directory.join("lock")).unwrap();
        lock.lock().unwrap();
        let python = Self { directory };
        let made = python.directory.join("made");
        if fs::read_to_string(&made).is_ok_and(|package| package == PACKAGE) {
            return python;
        }
        let venv = python.directory.join("venv");
        let libraries = python.directory.join("libraries");
        for old in [&venv, &libraries] {
            if old.exists() {
                fs::remove_dir_all(old).unwrap();
            }
        }
        let in_venv = run(Command::new("python3").args(["-m", "venv"]).arg(&venv))
            .and_then(|()| run(Command::new(venv.join("bin/python")).args(["-m", "pip", "install", PACKAGE])));
        if let Err(first) = in_venv {
            // Debian's python3 comes without venv, but may have pip.
            let _ = fs::remove_dir_all(&venv);
            let plain =
                run(Command::new("python3").args(["-m", "pip", "install", PACKAGE, "--target"]).arg(&libraries));
            if let Err(second) = plain {
                panic!("could not install {PACKAGE}\n{first}\n{second}\n{ADVICE}");
            }
        }
        fs::write(made, PACKAGE).unwrap();
        python
    }

    /// Python, with whatever it needs to find the library.
    fn command(&self) -> Command {
        let in_venv = self.directory.join("venv/bin/python");
        if in_venv.exists() {
            return Command::new(in_venv);
        }
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", self.directory.join("libraries"));
        command
    }

    /// The program qmp-shell.
    fn qmp_shell(&self) -> PathBuf {
        let in_venv = self.directory.join("venv/bin/qmp-shell");
        if in_venv.exists() { in_venv } else { self.directory.join("libraries/bin/qmp-shell") }
    }
}

/// Runs a step of the installation; what it printed is the error.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", told(&output))) }
}

fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_python_library_manages_a_machine() {
    let python = Python::install();
    let mut served = Served::start(&[]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/library.py");
    let output = python.command().arg(script).arg(&served.socket).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "everything went as it must\n");
    assert!(served.machine.wait(PATIENCE).unwrap().success());
}

#[test]
fn qmp_shell_manages_a_machine() {
    let python = Python::install();
    let mut served = Served::start(&[]);
    let mut shell = python
        .command()
        .arg(python.qmp_shell())
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
