//! The way between two machines: a file, a socket, a pipe or a command of the shell. Whoever waits at it can be called off.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    net::{SocketAddr, ToSocketAddrs},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::FileTypeExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
};

use rhea_core::files::{self, Access, Replacement};
use rustix::{
    event::PollFlags,
    fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat},
    io::{Errno, read, write},
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, getsockname, listen,
        socket_with, sockopt,
    },
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};

use super::{Address, Cancel};

/// Why there is no way, in words.
type Reason = String;

/// What a receiver says once it has everything and can go on.
const RECEIVED: u8 = 0x06;

/// Has waiting at `descriptor` be done by asking, so that it can be called off.
fn never_blocks(descriptor: &OwnedFd) -> io::Result<()> {
    Ok(fcntl_setfl(descriptor, fcntl_getfl(descriptor)? | OFlags::NONBLOCK)?)
}

fn is_socket(descriptor: &OwnedFd) -> bool {
    fstat(descriptor).is_ok_and(|about| FileType::from_raw_mode(about.st_mode) == FileType::Socket)
}

/// A command of the shell, which ends with us.
struct Shell {
    child: Child,
}

impl Shell {
    fn start(command: &str, input: Stdio, output: Stdio) -> Result<Self, Reason> {
        let started = Command::new("/bin/sh")
            .args(["-c", command])
            .stdin(input)
            .stdout(output)
            // Whoever calls it off ends all of it.
            .process_group(0)
            .spawn();
        let child = started.map_err(|error| format!("Could not run '/bin/sh': {}", files::reason(&error)))?;
        Ok(Self { child })
    }

    /// Waits for its end, which must be a good one.
    fn finish(&mut self, cancel: &Cancel) -> io::Result<()> {
        let pid = Pid::from_child(&self.child);
        let ended = pidfd_open(pid, PidfdFlags::empty())?;
        cancel.wait_for(ended.as_fd(), PollFlags::IN)?;
        let status: ExitStatus = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("the command failed: {status}"))) }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            // If it has ended just now, nobody is there to be killed.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

enum Sink {
    /// A new file, which gets its name once it is complete.
    Fresh(Replacement),
    /// A part of a file, a socket, a pipe.
    Direct(OwnedFd),
    Shell(Option<OwnedFd>, Shell),
}

/// The way out.
pub(super) struct Outgoing {
    sink: Sink,
    cancel: Arc<Cancel>,
}

impl Outgoing {
    /// Whether opening the way to `address` takes no time.
    pub(super) fn opens_at_once(address: &Address) -> bool {
        match address {
            Address::File { path, .. } => !path.metadata().is_ok_and(|about| about.file_type().is_fifo()),
            Address::Descriptor(_) => true,
            Address::Command(_) | Address::Unix(_) | Address::Tcp { .. } => false,
        }
    }

    /// Opens the way to `address`.
    pub(super) fn open(address: Address, cancel: Arc<Cancel>) -> Result<Self, Reason> {
        let sink = match address {
            Address::File { path, offset } => open_file(&path, offset)
                .map_err(|error| format!("Could not create '{}': {}", path.display(), files::reason(&error)))?,
            Address::Descriptor(descriptor) => Sink::Direct(descriptor),
            Address::Command(command) => {
                let mut shell = Shell::start(&command, Stdio::piped(), Stdio::inherit())?;
                let input = shell.child.stdin.take().map(OwnedFd::from);
                Sink::Shell(input, shell)
            }
            Address::Unix(path) => {
                let failed =
                    |error: io::Error| format!("Failed to connect to '{}': {}", path.display(), files::reason(&error));
                let at = SocketAddrUnix::new(&path).map_err(|error| failed(error.into()))?;
                Sink::Direct(connected(AddressFamily::UNIX, |socket| connect(socket, &at), &cancel).map_err(failed)?)
            }
            Address::Tcp { host, port } => Sink::Direct(connect_tcp(&host, port, &cancel)?),
        };
        let this = Self { sink, cancel };
        if let Some(descriptor) = this.descriptor() {
            never_blocks(descriptor).map_err(|error| files::reason(&error))?;
        }
        Ok(this)
    }

    fn descriptor(&self) -> Option<&OwnedFd> {
        match &self.sink {
            Sink::Fresh(_) => None,
            Sink::Direct(descriptor) => Some(descriptor),
            Sink::Shell(input, _) => input.as_ref(),
        }
    }

    /// Ends it: who reads has read everything, and says so if the way leads back.
    pub(super) fn complete(mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::Fresh(_) => {}
            Sink::Direct(descriptor) if is_socket(descriptor) => {
                let mut answer = [0];
                return match (Source { descriptor, cancel: &self.cancel }).read(&mut answer)? {
                    1 if answer[0] == RECEIVED => Ok(()),
                    _ => Err(io::Error::other("the receiver did not take the machine")),
                };
            }
            Sink::Direct(_) => {}
            Sink::Shell(input, shell) => {
                *input = None;
                return shell.finish(&self.cancel);
            }
        }
        match self.sink {
            Sink::Fresh(replacement) => replacement.complete(),
            Sink::Direct(_) | Sink::Shell(..) => Ok(()),
        }
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(super::cancel::called_off());
        }
        let descriptor = match &self.sink {
            Sink::Fresh(replacement) => return (&mut replacement.file()).write(bytes),
            Sink::Direct(descriptor) | Sink::Shell(Some(descriptor), _) => descriptor,
            Sink::Shell(None, _) => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        loop {
            match write(descriptor, bytes) {
                Ok(count) => return Ok(count),
                Err(Errno::AGAIN) => self.cancel.wait_for(descriptor.as_fd(), PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open_file(path: &Path, offset: u64) -> io::Result<Sink> {
    let there = path.metadata().ok();
    let plain = there.as_ref().is_none_or(std::fs::Metadata::is_file) && !files::is_passed(path);
    if plain && offset == 0 {
        return Replacement::begin(path).map(Sink::Fresh);
    }
    if there.is_some_and(|about| about.is_dir()) {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut file = files::open(path, if plain { Access::Create } else { Access::Replace })?;
    if plain {
        file.set_len(offset)?;
    }
    if offset > 0 {
        file.seek(SeekFrom::Start(offset))?;
    }
    Ok(Sink::Direct(file.into()))
}

/// A socket of `family` that `begin` has connected, which may take its time.
fn connected(
    family: AddressFamily,
    begin: impl FnOnce(&OwnedFd) -> rustix::io::Result<()>,
    cancel: &Cancel,
) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match begin(&socket) {
        Ok(()) => Ok(socket),
        Err(Errno::INPROGRESS | Errno::AGAIN) => {
            cancel.wait_for(socket.as_fd(), PollFlags::OUT)?;
            sockopt::socket_error(&socket)??;
            Ok(socket)
        }
        Err(error) => Err(error.into()),
    }
}

fn resolve(host: &str, port: u16, all: &str) -> Result<Vec<SocketAddr>, Reason> {
    let name = if host.is_empty() { all } else { host };
    let found = (name, port).to_socket_addrs();
    let found: Vec<_> =
        found.map_err(|error| format!("address resolution failed for {host}:{port}: {error}"))?.collect();
    if found.is_empty() { Err(format!("address resolution failed for {host}:{port}")) } else { Ok(found) }
}

const fn family(address: &SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

fn connect_tcp(host: &str, port: u16, cancel: &Cancel) -> Result<OwnedFd, Reason> {
    let mut latest = String::new();
    for address in resolve(host, port, "localhost")? {
        match connected(family(&address), |socket| connect(socket, &address), cancel) {
            Ok(socket) => {
                // What is written is large enough by itself; a host that cannot change it loses nothing.
                let _ = sockopt::set_tcp_nodelay(&socket, true);
                return Ok(socket);
            }
            Err(error) => latest = format!("Failed to connect to '{host}:{port}': {}", files::reason(&error)),
        }
        if cancel.is_cancelled() {
            break;
        }
    }
    Err(latest)
}

/// Where somebody may come from.
pub(super) enum Entrance {
    /// A socket that listens, and its file.
    Listening(OwnedFd, Option<PathBuf>),
    /// They are here already.
    Open(Incoming),
}

impl Entrance {
    /// Opens it.
    pub(super) fn open(address: Address) -> Result<Self, Reason> {
        match address {
            Address::File { path, offset } => {
                let failed =
                    |error: io::Error| format!("Could not open '{}': {}", path.display(), files::reason(&error));
                let mut file: File = files::open(&path, Access::Read).map_err(failed)?;
                if offset > 0 {
                    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
                }
                Ok(Self::Open(Incoming { descriptor: file.into(), shell: None }))
            }
            Address::Descriptor(descriptor) => Ok(Self::Open(Incoming { descriptor, shell: None })),
            Address::Command(command) => {
                let mut shell = Shell::start(&command, Stdio::null(), Stdio::piped())?;
                let output = shell.child.stdout.take().ok_or("the command has no output")?;
                Ok(Self::Open(Incoming { descriptor: output.into(), shell: Some(shell) }))
            }
            Address::Unix(path) => {
                let failed = |error: io::Error| {
                    format!("Failed to bind socket to '{}': {}", path.display(), files::reason(&error))
                };
                // What another program left there, which nobody listens at.
                if path.metadata().is_ok_and(|about| about.file_type().is_socket()) {
                    std::fs::remove_file(&path).map_err(failed)?;
                }
                let at = SocketAddrUnix::new(&path).map_err(|error| failed(error.into()))?;
                let socket = listening(AddressFamily::UNIX, |socket| bind(socket, &at)).map_err(failed)?;
                Ok(Self::Listening(socket, Some(path)))
            }
            Address::Tcp { host, port } => {
                let mut latest = String::new();
                for address in resolve(&host, port, "0.0.0.0")? {
                    match listening(family(&address), |socket| {
                        sockopt::set_socket_reuseaddr(socket, true)?;
                        bind(socket, &address)
                    }) {
                        Ok(socket) => return Ok(Self::Listening(socket, None)),
                        Err(error) => {
                            latest = format!("Failed to listen at '{host}:{port}': {}", files::reason(&error));
                        }
                    }
                }
                Err(latest)
            }
        }
    }

    /// Where others reach it, if it listens: host and port, or a path.
    pub(super) fn address(&self) -> Option<Result<SocketAddr, PathBuf>> {
        let Self::Listening(socket, path) = self else { return None };
        if let Some(path) = path {
            return Some(Err(path.clone()));
        }
        SocketAddr::try_from(getsockname(socket).ok()?).ok().map(Ok)
    }

    /// Waits until somebody has come.
    pub(super) fn accept(self, cancel: &Cancel) -> io::Result<Incoming> {
        let (socket, path) = match self {
            Self::Open(incoming) => return Ok(incoming),
            Self::Listening(socket, path) => (socket, path),
        };
        let descriptor = loop {
            cancel.wait_for(socket.as_fd(), PollFlags::IN)?;
            match accept_with(&socket, SocketFlags::CLOEXEC) {
                Ok(descriptor) => break descriptor,
                // They have gone again.
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Err(error.into()),
            }
        };
        if let Some(path) = path {
            // Gone already is as good.
            let _ = std::fs::remove_file(path);
        }
        Ok(Incoming { descriptor, shell: None })
    }
}

fn listening(family: AddressFamily, place: impl FnOnce(&OwnedFd) -> rustix::io::Result<()>) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    place(&socket)?;
    listen(&socket, 1)?;
    Ok(socket)
}

/// The way in.
pub(super) struct Incoming {
    descriptor: OwnedFd,
    shell: Option<Shell>,
}

/// Reads from a descriptor until called off.
pub(super) struct Source<'a> {
    descriptor: &'a OwnedFd,
    cancel: &'a Cancel,
}

impl Incoming {
    /// What comes.
    pub(super) fn source<'a>(&'a self, cancel: &'a Cancel) -> io::Result<Source<'a>> {
        never_blocks(&self.descriptor)?;
        Ok(Source { descriptor: &self.descriptor, cancel })
    }

    /// Everything has come: whoever sent it must agree.
    pub(super) fn finish(&mut self, cancel: &Cancel) -> io::Result<()> {
        let Some(shell) = &mut self.shell else { return Ok(()) };
        // What else it says is of no interest, but it must be able to say it.
        let mut rest = [0; 4096];
        while (Source { descriptor: &self.descriptor, cancel }).read(&mut rest)? > 0 {}
        shell.finish(cancel)
    }

    /// Tells the sender, if the way leads back, that the machine is here.
    pub(super) fn confirm(&self) {
        if is_socket(&self.descriptor) {
            // Whoever is gone does not wait for it: one byte does not wait, either.
            let _ = write(&self.descriptor, &[RECEIVED]);
        }
    }
}

impl Read for Source<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.cancel.is_cancelled() {
                return Err(super::cancel::called_off());
            }
            match read(self.descriptor, &mut *bytes) {
                Ok(count) => return Ok(count),
                Err(Errno::AGAIN) => self.cancel.wait_for(self.descriptor.as_fd(), PollFlags::IN)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
