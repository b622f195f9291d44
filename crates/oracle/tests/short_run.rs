//! A short run against the host's processor, with a seed of its own each time.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::process::Command;

#[test]
fn the_host_and_the_interpreter_agree() {
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_secs() / 86_400);
    let output = Command::new(env!("CARGO_BIN_EXE_rhea-oracle"))
        .args(["--seconds", "10", "--seed", &seed.to_string()])
        .output()
        .expect("the oracle starts");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "mismatches, above");
}
