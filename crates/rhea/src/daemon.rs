//! Going into the background: the program starts itself anew, and the first one ends when the second is ready.
//!
//! A process with threads cannot be split safely, so none is: the second is told by its environment, and says that it
//! is ready on the pipe that is its standard input.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::fd::AsFd,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

const MARK: &str = "RHEA_IN_BACKGROUND";

/// Whether this is the second one.
pub fn in_background() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Starts the second one and waits until it is ready.
///
/// # Errors
/// It did not become ready; it has said why.
pub fn start() -> anyhow::Result<()> {
    let (mut ready, done) = io::pipe()?;
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let mut command = Command::new(std::env::current_exe().context("could not find this program")?);
    std::os::unix::process::CommandExt::arg0(&mut command, program);
    command.args(arguments).env(MARK, "1").stdin(Stdio::from(done));
    let mut child = command.spawn().context("could not start in the background")?;
    drop(command);
    let mut byte = [0];
    if ready.read(&mut byte)? == 0 {
        bail!("the program in the background ended: {}", child.wait()?);
    }
    Ok(())
}

/// The second one, which is not ready yet.
pub struct Background {
    /// What takes the place of the terminal: opened while there still is the right to.
    nothing: File,
}

impl Background {
    /// Leaves the terminal's session; what is said still goes there.
    ///
    /// # Errors
    /// What the host says.
    pub fn leave_terminal() -> anyhow::Result<Self> {
        // It is a leader already only if someone arranged for that.
        let _ = rustix::process::setsid();
        Ok(Self { nothing: OpenOptions::new().read(true).write(true).open("/dev/null")? })
    }

    /// Leaves the terminal behind and tells the first one that everything is set up.
    ///
    /// # Errors
    /// What the host says.
    pub fn ready(self) -> anyhow::Result<()> {
        rustix::stdio::dup2_stdout(&self.nothing)?;
        rustix::stdio::dup2_stderr(&self.nothing)?;
        let mut done = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        rustix::stdio::dup2_stdin(&self.nothing)?;
        done.write_all(&[1])?;
        Ok(())
    }
}

/// Writes the process's number; the file is complete, or not there.
///
/// # Errors
/// The file cannot be written.
pub fn write_pid_file(path: &Path) -> anyhow::Result<()> {
    let what = || format!("could not write the process's number to '{}'", path.display());
    let mut file = File::create(path).with_context(what)?;
    writeln!(file, "{}", std::process::id()).with_context(what)?;
    Ok(())
}
