//! Everything that must pass: formatting, lints, unit tests, and the tests of the whole program.

use std::process::Command;

use anyhow::Context;

use crate::{cargo, guest, run, target};

fn run_checks() -> anyhow::Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// Runs everything.
pub fn run_everything() -> anyhow::Result<()> {
    let guests = guest::fetch_all().context("the guests of the tests")?;
    install_nextest()?;
    run_checks()?;
    // Guests run in the tests of the whole program: those use the build that users get.
    run(cargo().args(["build", "--release", "--package", "rhea"]))?;
    run(cargo().args(["test", "--quiet", "--doc", "--workspace"]))?;
    run(cargo()
        .args(["nextest", "run", "--workspace"])
        .env("RHEA_BIN", target().join("release/rhea"))
        .envs(guests.environment()))
}

fn install_nextest() -> anyhow::Result<()> {
    let there = Command::new("cargo-nextest").arg("--version").output().is_ok_and(|output| output.status.success());
    if there {
        return Ok(());
    }
    run(cargo().args(["install", "--locked", "cargo-nextest"])).context("the test runner cargo-nextest")
}
