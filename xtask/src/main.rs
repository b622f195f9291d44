//! The repository's own chores: fetch what tests need, run everything, measure.

mod bench;
mod guest;
mod libvirt;
mod packages;
mod soak;
mod test;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, bail};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  fetch   fetch what guests in tests are made of (Debian's kernels, busybox, memtest86+ and SeaBIOS) into target/guests
  test    fetch, then run everything: formatting, lints, unit tests, transcripts, guest boots, clients
  soak    move a busy guest from process to process a hundred times, over files, sockets and commands,
          and let memtest86+ make a whole pass
  libvirt have libvirt manage a guest of ours; it must be installed: docs/libvirt.md tells what and how
  oracle  execute cases of instructions on this host's processor and in the interpreter, and compare; `oracle --help` has more
  bench   measure Rhea, beside qemu-system-x86_64 where that is installed";

fn main() -> ExitCode {
    let result = match std::env::args().nth(1).as_deref() {
        Some("fetch") => guest::fetch_all().map(drop),
        Some("test") => test::run_everything(),
        Some("soak") => soak::run(),
        Some("libvirt") => libvirt::run(),
        Some("bench") => bench::run(),
        Some("oracle") => {
            run(cargo().args(["run", "--quiet", "--package", "rhea-oracle", "--"]).args(std::env::args().skip(2)))
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// Where builds and what was fetched go.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Runs a command and fails with its name if it does.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| format!("could not start {shown}"))?;
    if !status.success() {
        bail!("{shown} failed: {status}");
    }
    Ok(())
}

/// This build's cargo.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}
