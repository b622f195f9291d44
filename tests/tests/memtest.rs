//! The memory tester memtest86+ in a small machine, of 64 and of 32 bits: it watches its own serial console.
//!
//! Its last test waits for minutes to see whether memory forgets. So a run ends where that begins, unless `RHEA_PASSES`
//! says how many whole passes it is to make.

use std::time::Duration;

use rhea_tests::{
    guest::{Console, ConsoleError},
    process::Machine,
    transcript::Guest,
};

/// How long the tests that compute may take on a slow and busy host.
const PATIENCE: Duration = Duration::from_secs(280);

/// What the screen, written anew every two seconds, says as long as there are none.
const NO_ERRORS: &str = "Errors: 0  ";
/// The test behind the last one that computes; it stands on the screen for minutes.
const LAST: &str = "#10 [Bit fade test";

fn test_memory(guest: Guest) -> Result<(), Box<dyn std::error::Error>> {
    let passes = std::env::var("RHEA_PASSES").ok().and_then(|passes| passes.parse().ok()).unwrap_or(0_u32);
    let arguments = ["-m", "8"].map(str::to_owned);
    let (machine, connections) = Machine::start(&arguments, guest)?;
    let mut console = Console::new(connections.console.ok_or("no console")?)?;
    let shown = |error: ConsoleError, console: &Console| {
        let log = console.log();
        let last = log.char_indices().rev().nth(2000).map_or(0, |(at, _)| at);
        format!("{error}\n{}\n{}", machine.said(), &log[last..])
    };
    console.wait_for(LAST, PATIENCE).map_err(|error| shown(error, &console))?;
    console.wait_for(NO_ERRORS, PATIENCE).map_err(|error| shown(error, &console))?;
    for pass in 1..=passes {
        let counted = format!("Pass:  {pass}        {NO_ERRORS}");
        console.wait_for(&counted, 4 * PATIENCE).map_err(|error| shown(error, &console))?;
    }
    Ok(())
}

#[test]
fn memory_of_a_64_bit_machine_has_no_errors() -> Result<(), Box<dyn std::error::Error>> {
    test_memory(Guest::Memtest)
}

#[test]
fn memory_of_a_32_bit_machine_has_no_errors() -> Result<(), Box<dyn std::error::Error>> {
    test_memory(Guest::Memtest32)
}
