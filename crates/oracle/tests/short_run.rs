//! A short run against the host's processor.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::process::Command;

#[test]
fn the_host_and_the_interpreter_agree() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_rhea-oracle")).args(["--seconds", "10"]).output().expect("the oracle starts");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "mismatches, above");
}
