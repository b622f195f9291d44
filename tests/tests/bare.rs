//! Bare programs that test the processor from inside: each runs as a multiboot kernel and says how it went.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{
    fs,
    process::{Command, Stdio},
};

use rhea_guests::TEST_PROGRAMS;
use rhea_tests::process::program;

/// Runs a program with `arguments`; gives its status and what it printed.
fn run(name: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let program_image = TEST_PROGRAMS.iter().find(|program| program.name == name).unwrap().image;
    let directory = tempfile::Builder::new().prefix("rhea-").tempdir_in("/tmp").unwrap();
    let path = directory.path().join(name);
    fs::write(&path, program_image).unwrap();
    let output = Command::new(program().unwrap())
        .args(["-nodefaults", "-display", "none", "-m", "64", "-serial", "stdio", "-no-reboot"])
        .args(["-device", "isa-debug-exit", "-kernel"])
        .arg(&path)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said)
}

/// A program is right in each of its cases.
fn passes(name: &str, arguments: &[&str]) {
    let (status, said) = run(name, arguments);
    let failed: Vec<&str> = said.lines().filter(|line| !line.starts_with("ok ")).collect();
    assert_eq!(status, Some(1), "{}", failed.join("\n"));
    assert!(said.contains(" cases, 0 failures"), "{said}");
}

#[test]
fn exceptions() {
    for model in ["qemu64", "Nehalem"] {
        passes("exceptions", &["-cpu", model]);
    }
}

#[test]
fn unknown_instructions_and_registers() {
    passes("unknown", &[]);
}

#[test]
fn paging() {
    for model in ["qemu64", "max"] {
        passes("paging", &["-cpu", model]);
    }
}

#[test]
fn the_order_of_memory_on_several_processors() {
    for count in ["2", "4"] {
        passes("ordering", &["-smp", count]);
    }
}

#[test]
fn interrupts_and_timers() {
    passes("interrupts", &[]);
    passes("interrupts", &["-smp", "2", "-cpu", "max"]);
}

#[test]
fn tasks_and_segments_in_32_bits() {
    passes("tasks", &[]);
}

#[test]
fn virtual_8086_mode() {
    passes("virtual8086", &[]);
}

#[test]
fn code_that_changes_and_operands_across_pages() {
    passes("modifying", &[]);
}
