//! What takes too long for every run of the tests: a guest in the middle of a computation moves a hundred times, and
//! memtest86+ makes a whole pass.

use anyhow::Context;

use crate::{cargo, guest, run as run_command, target};

/// How often it moves.
const MOVES: &str = "100";

/// Runs it, and says how long it took.
pub fn run() -> anyhow::Result<()> {
    let guests = guest::fetch_all().context("the guests of the tests")?;
    run_command(cargo().args(["build", "--release", "--package", "rhea"]))?;
    let test = |name: &str| {
        let mut command = cargo();
        command.args(["test", "--package", "rhea-tests", "--test", name, "--", "--nocapture"]);
        command.env("RHEA_BIN", target().join("release/rhea")).envs(guests.environment());
        command
    };
    run_command(
        test("migration")
            .args(["--exact", "a_computation_over_a_disk_goes_on_elsewhere_and_ends_right"])
            .env("RHEA_MOVES", MOVES),
    )?;
    run_command(test("memtest").env("RHEA_PASSES", "1"))
}
