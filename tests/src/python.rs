//! Libraries of Python as they come from PyPI, for tests that try them against the program.
//!
//! They are installed under `target/` at the first run. Without Python or PyPI the tests fail and say what to do.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ADVICE: &str = "needed are python3 with venv or pip (Debian: apt-get install python3-venv) and a way to PyPI \
                      or a mirror of it (see 'pip help config')";

/// A Python that has a library.
#[derive(Debug)]
pub struct Python {
    directory: PathBuf,
}

impl Python {
    /// Installs `package`, an exact version, into `directory`, unless that was done before.
    ///
    /// # Errors
    /// What could not be done, and what is needed.
    pub fn install(directory: &Path, package: &str) -> Result<Self, String> {
        let python = Self { directory: directory.to_owned() };
        python.make(package).map_err(|error| format!("could not install {package}\n{error}\n{ADVICE}"))?;
        Ok(python)
    }

    fn make(&self, package: &str) -> Result<(), String> {
        let plain = |error: io::Error| format!("{}: {error}", self.directory.display());
        fs::create_dir_all(&self.directory).map_err(plain)?;
        // Tests run at the same time, each in a process of its own.
        let lock = File::create(self.directory.join("lock")).map_err(plain)?;
        lock.lock().map_err(plain)?;
        let made = self.directory.join("made");
        if fs::read_to_string(&made).is_ok_and(|made| made == package) {
            return Ok(());
        }
        let venv = self.directory.join("venv");
        let libraries = self.directory.join("libraries");
        for old in [&venv, &libraries] {
            if old.exists() {
                fs::remove_dir_all(old).map_err(plain)?;
            }
        }
        let in_venv = run(Command::new("python3").args(["-m", "venv"]).arg(&venv))
            .and_then(|()| run(Command::new(venv.join("bin/python")).args(["-m", "pip", "install", package])));
        if let Err(first) = in_venv {
            // Debian's python3 comes without venv, but may have pip.
            let _ = fs::remove_dir_all(&venv);
            run(Command::new("python3").args(["-m", "pip", "install", package, "--target"]).arg(&libraries))
                .map_err(|second| format!("{first}\n{second}"))?;
        }
        fs::write(made, package).map_err(plain)
    }

    /// Python, with whatever it needs to find the library.
    pub fn command(&self) -> Command {
        let in_venv = self.directory.join("venv/bin/python");
        if in_venv.exists() {
            return Command::new(in_venv);
        }
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", self.directory.join("libraries"));
        command
    }

    /// A program that came with the library.
    pub fn program(&self, name: &str) -> PathBuf {
        let in_venv = self.directory.join("venv/bin").join(name);
        if in_venv.exists() { in_venv } else { self.directory.join("libraries/bin").join(name) }
    }
}

/// Runs a step of the installation; what it printed is the error.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", told(&output))) }
}

/// How a program ended, and what it said.
pub fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}
