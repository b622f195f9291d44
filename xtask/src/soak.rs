//! What takes too long for every run of the tests: a guest in the middle of a computation moves a hundred times.

use anyhow::Context;

use crate::{cargo, guest, run as run_command, target};

/// How often it moves.
const MOVES: &str = "100";

/// Runs it, and says how long it took.
pub fn run() -> anyhow::Result<()> {
    let guest = guest::fetch().context("the guests of the tests")?;
    run_command(cargo().args(["build", "--release", "--package", "rhea"]))?;
    run_command(
        cargo()
            .args(["test", "--package", "rhea-tests", "--test", "migration", "--"])
            .args(["--nocapture", "--exact", "a_computation_over_a_disk_goes_on_elsewhere_and_ends_right"])
            .env("RHEA_MOVES", MOVES)
            .env("RHEA_BIN", target().join("release/rhea"))
            .env("RHEA_TEST_KERNEL", guest.kernel)
            .env("RHEA_TEST_INITRD", guest.initrd),
    )
}
