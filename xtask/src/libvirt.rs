//! libvirt against the program: kept out of the ordinary tests, since it is installed by hand and wants namespaces of users.

use anyhow::Context;

use crate::{cargo, guest, run as run_command, target};

/// Runs it.
pub fn run() -> anyhow::Result<()> {
    let guests = guest::fetch_all().context("the guests of the tests")?;
    run_command(cargo().args(["build", "--release", "--package", "rhea"]))?;
    let mut test = cargo();
    test.args(["test", "--package", "rhea-tests", "--test", "libvirt", "--", "--test-threads=1"]);
    run_command(test.env("RHEA_BIN", target().join("release/rhea")).envs(guests.environment()))
}
