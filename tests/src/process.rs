//! The program as a child process: found, started with its monitor and console connected to us, and ended.
//!
//! We listen and the program connects, as a client of ours would have it with `server=off`. So there is no moment at which the
//! sockets are not there yet, nothing to poll for, and nothing of the first console output is lost.

use std::fs::{self, File};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tempfile::TempDir;

use crate::transcript::Guest;

/// How long the program may take to connect to us.
const CONNECT: Duration = Duration::from_secs(30);

/// A running program with its monitor and console not yet spoken to.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    directory: TempDir,
}

/// The connections that the program has opened to us.
#[derive(Debug)]
pub struct Connections {
    /// The QMP monitor.
    pub monitor: UnixStream,
    /// The first serial port, unless there is no guest to use it.
    pub console: Option<UnixStream>,
}

/// The connections that a program under test has opened to us.
#[derive(Debug)]
pub struct TestConnections {
    /// The test port.
    pub port: UnixStream,
    /// The QMP monitor.
    pub monitor: UnixStream,
}

/// Why there is no machine.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program has not been built.
    #[error("{0} is not there: build it with `cargo build -p rhea`, or set RHEA_BIN to the program")]
    NoProgram(PathBuf),
    /// The guest has not been fetched.
    #[error("{0} is not there: fetch it with `cargo xtask fetch`, or set {1}")]
    NoGuest(PathBuf, &'static str),
    /// The program ended before it was wanted.
    #[error("the program ended with {status} before it connected:\n{said}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// What it printed.
        said: String,
    },
    /// What comes before the program failed.
    #[error("'{command}' failed:\n{said}")]
    Unprepared {
        /// The command.
        command: String,
        /// What it printed.
        said: String,
    },
    /// The program did something too late.
    #[error("the program did not {0} within {1:?}")]
    Late(&'static str, Duration),
    /// The host failed us.
    #[error("the host: {0}")]
    Host(#[from] io::Error),
}

impl Machine {
    /// Starts the program with `arguments` (`@DIR@` replaced) and a monitor, and with a console if there is a guest.
    pub fn start(arguments: &[String], guest: Guest) -> Result<(Self, Connections), ProcessError> {
        Self::start_prepared(&[], arguments, guest)
    }

    /// As [`start`](Self::start), after the shell commands `prepare` in the directory of the run.
    pub fn start_prepared(
        prepare: &[String],
        arguments: &[String],
        guest: Guest,
    ) -> Result<(Self, Connections), ProcessError> {
        let program = program()?;
        // Socket paths are limited to 107 bytes, so the directory must not lie deep.
        let directory = tempfile::Builder::new().prefix("rhea-").tempdir_in("/tmp")?;
        for command in prepare {
            let output = Command::new("sh").arg("-c").arg(command).current_dir(directory.path()).output()?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(ProcessError::Unprepared { command: command.clone(), said });
            }
        }
        let monitor_path = directory.path().join("monitor");
        let monitor = UnixListener::bind(&monitor_path)?;
        let mut command = Command::new(&program);
        command.arg("-nodefaults").args(["-display", "none"]);
        command.arg("-chardev").arg(format!("socket,id=rhea-monitor,path={}", monitor_path.display()));
        command.args(["-mon", "chardev=rhea-monitor,mode=control"]);
        let console = match guest {
            Guest::None => None,
            _ => {
                let path = directory.path().join("console");
                command.arg("-chardev").arg(format!("socket,id=rhea-console,path={}", path.display()));
                command.args(["-serial", "chardev:rhea-console"]);
                Some(UnixListener::bind(path)?)
            }
        };
        match guest {
            Guest::Linux | Guest::Linux32 => {
                let (kernel, initrd) = if guest == Guest::Linux { linux()? } else { linux_32()? };
                command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
                command.args(["-append", "console=ttyS0 quiet loglevel=1"]);
            }
            Guest::Memtest | Guest::Memtest32 => {
                let tester = match guest {
                    Guest::Memtest => fetched("RHEA_TEST_MEMTEST", "memtest86+x64.bin")?,
                    _ => fetched("RHEA_TEST_MEMTEST_32", "memtest86+ia32.bin")?,
                };
                command.arg("-kernel").arg(tester).args(["-append", "console=ttyS0,115200"]);
            }
            Guest::Firmware => {
                command.arg("-bios").arg(firmware()?);
            }
            Guest::Embedded | Guest::None => {}
        }
        let replacement = directory.path().to_string_lossy();
        for argument in arguments {
            let argument = argument.replace("@DIR@", &replacement);
            command.arg(match argument.as_str() {
                "@FIRMWARE@" => firmware()?.into_os_string(),
                _ => argument.into(),
            });
        }
        let said = File::create(directory.path().join("said"))?;
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        let mut machine = Self { child: command.spawn()?, directory };
        let deadline = Instant::now() + CONNECT;
        let monitor = machine.accept(&monitor, deadline)?;
        let console = console.map(|console| machine.accept(&console, deadline)).transpose()?;
        Ok((machine, Connections { monitor, console }))
    }

    /// Starts the program as the device tests of others start it: by a name with `-system-` in it, under the accelerator
    /// `qtest`, with a test port and a monitor.
    pub fn start_under_test(arguments: &[String]) -> Result<(Self, TestConnections), ProcessError> {
        let directory = tempfile::Builder::new().prefix("rhea-").tempdir_in("/tmp")?;
        let program_path = directory.path().join("rhea-system-x86_64");
        std::os::unix::fs::symlink(fs::canonicalize(program()?)?, &program_path)?;
        let (port_path, monitor_path) = (directory.path().join("port"), directory.path().join("monitor"));
        let (port, monitor) = (UnixListener::bind(&port_path)?, UnixListener::bind(&monitor_path)?);
        let log = directory.path().join("log");
        let mut command = Command::new(&program_path);
        command.arg("-qtest").arg(format!("unix:{}", port_path.display())).arg("-qtest-log").arg(&log);
        command.arg("-chardev").arg(format!("socket,path={},id=char0", monitor_path.display()));
        command.args(["--mon", "chardev=char0,mode=control", "-display", "none", "--audio", "none"]);
        let replacement = directory.path().to_string_lossy();
        command.args(arguments.iter().map(|argument| argument.replace("@DIR@", &replacement)));
        command.args(["-accel", "qtest"]);
        let said = File::create(directory.path().join("said"))?;
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        let mut machine = Self { child: command.spawn()?, directory };
        let deadline = Instant::now() + CONNECT;
        let port = machine.accept(&port, deadline)?;
        let monitor = machine.accept(&monitor, deadline)?;
        Ok((machine, TestConnections { port, monitor }))
    }

    /// The number of the process.
    pub fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The directory of this run, which `@DIR@` means.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What the program printed on its standard output and error.
    pub fn said(&self) -> String {
        let bytes = fs::read(self.directory.path().join("said")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for the program to end.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus, ProcessError> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        let ended = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).map_err(io::Error::from)?;
        let deadline = Instant::now() + patience;
        if !poll_until(&mut [PollFd::new(&ended, PollFlags::IN)], deadline)? {
            return Err(ProcessError::Late("end", patience));
        }
        Ok(self.child.wait()?)
    }

    fn accept(&mut self, listener: &UnixListener, deadline: Instant) -> Result<UnixStream, ProcessError> {
        let ended = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).map_err(io::Error::from)?;
        let mut watched = [PollFd::new(listener, PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
        if !poll_until(&mut watched, deadline)? {
            return Err(ProcessError::Late("connect", CONNECT));
        }
        if watched[0].revents().contains(PollFlags::IN) {
            return Ok(listener.accept()?.0);
        }
        let status = self.child.wait()?;
        Err(ProcessError::Ended { status, said: self.said() })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A failed test must not leave its machine behind. Both fail only for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until one of the descriptors is ready; false at the deadline.
fn poll_until(watched: &mut [PollFd<'_>], deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(watched, Some(&timeout)) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The program: what RHEA_BIN names, or else the one built into the same target directory as this test.
pub fn program() -> Result<PathBuf, ProcessError> {
    let program = match std::env::var_os("RHEA_BIN") {
        Some(path) => PathBuf::from(path),
        None => target_directory()?.join("rhea"),
    };
    if program.is_file() { Ok(program) } else { Err(ProcessError::NoProgram(program)) }
}

/// Kernel and initial file system of the Linux guest: RHEA_TEST_KERNEL and RHEA_TEST_INITRD, or else what was fetched.
pub fn linux() -> Result<(PathBuf, PathBuf), ProcessError> {
    Ok((fetched("RHEA_TEST_KERNEL", "vmlinuz")?, fetched("RHEA_TEST_INITRD", "initrd")?))
}

/// The firmware: RHEA_TEST_FIRMWARE, or else what was fetched.
pub fn firmware() -> Result<PathBuf, ProcessError> {
    fetched("RHEA_TEST_FIRMWARE", "bios-256k.bin")
}

/// The same of the guest of 32 bits: RHEA_TEST_KERNEL_32 and RHEA_TEST_INITRD_32.
pub fn linux_32() -> Result<(PathBuf, PathBuf), ProcessError> {
    Ok((fetched("RHEA_TEST_KERNEL_32", "vmlinuz-32")?, fetched("RHEA_TEST_INITRD_32", "initrd-32")?))
}

/// A guest's file: the one that `variable` names, or else the one of this name that was fetched.
fn fetched(variable: &'static str, name: &str) -> Result<PathBuf, ProcessError> {
    let path = match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => target_directory()?.join("../guests").join(name),
    };
    if path.is_file() { Ok(path) } else { Err(ProcessError::NoGuest(path, variable)) }
}

/// `target/debug` for a test in `target/debug/deps`.
fn target_directory() -> io::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let profile = test.parent().and_then(Path::parent);
    profile.map(Path::to_owned).ok_or_else(|| io::Error::other("this test lies in no target directory"))
}
