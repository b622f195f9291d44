//! Machines with firmware that are saved in one process and go on in another: in the firmware's menu, in real mode on the way
//! to Linux, and asleep.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{collections::BTreeMap, path::Path};

use rhea_tests::{
    here::{Here, PATIENCE},
    transcript::Guest,
};
use serde_json::json;

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// The same machine in a new process.
fn receive(machine: &[String], guest: Guest, state: &Path) -> Here {
    let mut there = Here::start(&[machine, &words("-incoming defer")].concat(), guest);
    let events = json!({ "capabilities": [{ "capability": "events", "state": true }] });
    there.execute("migrate-set-capabilities", &events);
    there.execute("migrate-incoming", &json!({ "uri": format!("exec:gzip -dc <{}", state.display()) }));
    assert_eq!(there.end_of_migration(), "completed");
    there
}

/// Saves a machine, which stays.
fn save(here: &mut Here, state: &Path) {
    assert_eq!(here.migrate(&format!("exec:gzip -1 >{}", state.display())), "completed");
}

#[test]
fn the_menu_of_the_firmware_goes_on_in_another_process_and_so_does_a_reset_there() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let machine = words("-machine pc -m 64 -boot menu=on,splash-time=60000,reboot-timeout=-1");
    let asks = "Press ESC for boot menu.";
    let mut here = Here::start(&machine, Guest::Firmware);
    here.console().wait_for(asks, PATIENCE).unwrap();
    save(&mut here, &state);
    here.quit();
    let mut there = receive(&machine, Guest::Firmware, &state);
    there.runs();
    assert_eq!(there.human("sendkey esc"), "");
    there.console().wait_for("Select boot device:", PATIENCE).unwrap();
    // The ROM is whole, and so is what shows it.
    there.execute("system_reset", &json!({}));
    there.console().wait_for(asks, PATIENCE).unwrap();
    // And once more, of a machine that came from elsewhere.
    save(&mut there, &state);
    there.quit();
    let mut there = receive(&machine, Guest::Firmware, &state);
    there.runs();
    assert_eq!(there.human("sendkey esc"), "");
    there.console().wait_for("Select boot device:", PATIENCE).unwrap();
    there.quit();
}

/// What runs, by the first processor's registers.
fn running(here: &mut Here) -> &'static str {
    let registers = here.human("info registers");
    let after = |name: &str| {
        let (_, rest) = registers.split_once(name).unwrap();
        let digits = rest.trim_start().split(|c: char| !c.is_ascii_hexdigit()).next().unwrap();
        u64::from_str_radix(digits, 16).unwrap()
    };
    let (cs, cr0) = (after("CS ="), after("CR0="));
    match (cr0 & 1, cr0 >> 31, cs) {
        (0, _, 0xc000..0xe000) => "an option ROM",
        (0, _, 0xe000..) => "the firmware in real mode",
        (0, ..) => "the kernel's setup",
        (_, 0, _) => "protected mode",
        _ => "the kernel",
    }
}

#[test]
fn a_start_of_linux_goes_on_in_another_process_from_wherever_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let machine = words("-machine pc -m 192 -bios @FIRMWARE@");
    let mut here = Here::start(&[&machine[..], &words("-S")].concat(), Guest::Linux);
    let mut saved = BTreeMap::new();
    // Each step is what the guest runs between two commands.
    while !saved.contains_key("the kernel") {
        here.execute("cont", &json!({}));
        here.execute("stop", &json!({}));
        let what = running(&mut here);
        if !saved.contains_key(what) {
            let state = directory.path().join(saved.len().to_string());
            save(&mut here, &state);
            saved.insert(what, state);
        }
    }
    here.quit();
    assert!(saved.contains_key("the firmware in real mode"), "{:?}", saved.keys());
    for (what, state) in saved {
        let mut there = receive(&machine, Guest::Linux, &state);
        assert_eq!(there.status(), "paused", "{what}");
        there.execute("cont", &json!({}));
        there.console().wait_for_shell(PATIENCE).unwrap();
        let output = there.console().run("ls /sys/firmware/acpi/tables/APIC; uname -m", PATIENCE).unwrap();
        assert_eq!(output.lines, ["/sys/firmware/acpi/tables/APIC", "x86_64"], "{what}");
        if what == "the firmware in real mode" {
            there.execute("system_reset", &json!({}));
            there.console().wait_for("Booting from ROM", PATIENCE).unwrap();
            there.console().wait_for_shell(PATIENCE).unwrap();
        }
        there.quit();
    }
}

/// A guest that was saved asleep wakes in another process, and knows what it knew.
fn sleeper(machine: &str) {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let machine = words(machine);
    let mut here = Here::start(&machine, Guest::Linux);
    here.console().wait_for_shell(PATIENCE).unwrap();
    here.console().type_line("word=kept; echo mem >/sys/power/state; echo woken-$((40+2))-$word").unwrap();
    here.event("SUSPEND");
    save(&mut here, &state);
    here.quit();
    let mut there = receive(&machine, Guest::Linux, &state);
    assert_eq!(there.status(), "suspended");
    there.execute("system_wakeup", &json!({}));
    there.event("WAKEUP");
    there.console().wait_for("woken-42-kept", PATIENCE).unwrap();
    let output = there.console().run("grep -c ^processor /proc/cpuinfo", PATIENCE).unwrap();
    assert_eq!(output.lines.last().unwrap(), "2");
    there.execute("system_reset", &json!({}));
    there.console().wait_for_shell(PATIENCE).unwrap();
    there.quit();
}

#[test]
fn a_guest_asleep_wakes_in_another_process() {
    sleeper("-machine pc -m 192 -smp 2");
}

#[test]
fn a_guest_asleep_wakes_in_another_process_by_its_firmware() {
    sleeper("-machine pc -m 192 -smp 2 -bios @FIRMWARE@");
}
