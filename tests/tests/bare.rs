//! Bare programs that test the processor from inside: each runs as a multiboot kernel and says how it went.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use rhea_guests::TEST_PROGRAMS;
use rhea_tests::{
    monitor::Monitor,
    process::{Machine, firmware, program},
    transcript::Guest,
};
use serde_json::{Value, json};

/// How long anything may take: the machine that runs the tests may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

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
    for model in ["qemu64", "max"] {
        passes("unknown", &["-cpu", model]);
    }
}

#[test]
fn paging() {
    for model in ["qemu64", "max"] {
        passes("paging", &["-cpu", model]);
        passes("paging-32", &["-cpu", model]);
        passes("paging-57", &["-cpu", model]);
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
fn interrupts_of_lowest_priority() {
    passes("lowest-priority", &["-smp", "4", "-device", "virtio-rng-pci"]);
}

#[test]
fn identifiers_of_address_spaces() {
    for model in ["qemu64", "max"] {
        passes("identifiers", &["-cpu", model]);
    }
}

#[test]
fn x87_errors_without_exceptions() {
    passes("coprocessor", &[]);
}

#[test]
fn waiting_for_stores() {
    passes("monitor", &["-smp", "2", "-cpu", "max"]);
}

#[test]
fn tasks_and_segments_in_32_bits() {
    passes("tasks", &[]);
}

#[test]
fn debug_exceptions() {
    passes("debugging", &[]);
    passes("debugging-32", &[]);
}

#[test]
fn virtual_8086_mode() {
    passes("virtual8086", &["-cpu", "max"]);
}

#[test]
fn virtual_interrupts() {
    for name in ["virtual-interrupts-32", "virtual-interrupts"] {
        for model in ["max", "max,-vme"] {
            passes(name, &["-cpu", model]);
        }
    }
}

#[test]
fn code_that_changes_and_operands_across_pages() {
    passes("modifying", &[]);
}

/// What loaders hand over, without firmware and through an option ROM of firmware.
#[test]
fn a_program_has_its_command_line_modules_and_memory_with_and_without_firmware() {
    let directory = tempfile::Builder::new().prefix("rhea-").tempdir_in("/tmp").unwrap();
    let module = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, format!("{text}\0").into_bytes()).unwrap();
        path.to_string_lossy().into_owned()
    };
    // The second one is longer than a page.
    let long = "y".repeat(5000);
    let (first, second) = (module("first", "what is in it"), module("second", &long));
    let modules = format!("{first} with words,{second}");
    let firmware = firmware().unwrap().to_string_lossy().into_owned();
    for more in [&[][..], &["-bios", firmware.as_str()]] {
        let arguments = [&["-append", "-v quiet", "-initrd", &modules][..], more].concat();
        passes("handover", &arguments);
        let (_, said) = run("handover", &arguments);
        assert!(said.contains("/handover -v quiet\r\nloader: rhea\r\n"), "{more:?}: {said}");
        assert!(said.contains(&format!("module: {first} with words: what is in it\r\n")), "{more:?}");
        assert!(said.contains(&format!("module: {second}: {long}\r\n")), "{more:?}");
    }
}

/// Programs find the processor after firmware as they find it without.
#[test]
fn programs_through_firmware() {
    let firmware = firmware().unwrap().to_string_lossy().into_owned();
    for name in ["exceptions", "interrupts"] {
        passes(name, &["-bios", &firmware]);
    }
}

#[test]
fn a_triple_fault_is_a_reset() {
    let (status, said) = run("shutdown", &[]);
    assert_eq!((status, said.as_str()), (Some(0), "nothing comes behind this line\r\n"));
}

/// With `-no-shutdown` the program stays when the guest ended it, and keeps the status for its own end.
#[test]
fn the_status_that_a_guest_chose_waits_for_the_end_of_the_program() {
    let image = tempfile::Builder::new().prefix("rhea-").tempdir_in("/tmp").unwrap();
    let path = image.path().join("unknown");
    fs::write(&path, TEST_PROGRAMS.iter().find(|program| program.name == "unknown").unwrap().image).unwrap();
    let arguments = ["-no-shutdown", "-S", "-m", "64", "-device", "isa-debug-exit,iosize=4", "-kernel"];
    let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
    arguments.push(path.to_string_lossy().into_owned());
    let (mut machine, connections) = Machine::start(&arguments, Guest::None).unwrap();
    let mut monitor = Monitor::new(connections.monitor);
    assert!(monitor.receive(PATIENCE).unwrap().get("QMP").is_some());
    for (command, answers) in [
        ("qmp_capabilities", vec!["return"]),
        ("cont", vec!["RESUME", "return", "SHUTDOWN", "STOP"]),
        ("quit", vec!["SHUTDOWN", "return"]),
    ] {
        monitor.send(&json!({ "execute": command }).to_string()).unwrap();
        for _ in &answers {
            let message = monitor.receive(PATIENCE).unwrap();
            let kind = message.get("event").and_then(Value::as_str).unwrap_or("return").to_owned();
            assert!(answers.contains(&kind.as_str()), "{command}: {message}");
        }
    }
    assert_eq!(machine.wait(PATIENCE).unwrap().code(), Some(1), "{}", machine.said());
}
