//! `rhea shell SOCKET`: an interactive QMP client.

use std::process::ExitCode;

/// Runs the shell.
pub fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    anyhow::bail!("shell: {arguments:?}")
}
