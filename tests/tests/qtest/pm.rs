//! Power management: ACPI 5.0 §4.8 and 82371AB (PIIX4) ch. 7. The SCI is input 9 of the I/O APIC.

use std::time::Duration;

use rhea_tests::qtest::TestMachine;
use serde_json::json;

use crate::of_ticks;

const FREQUENCY: u64 = 3_579_545;
const STATUS: u16 = 0x600;
const ENABLE: u16 = 0x602;
const CONTROL: u16 = 0x604;
const TIMER: u16 = 0x608;
const SCI: u32 = 9;

/// ACPI mode, as the FADT's command switches it on (§4.7.2.5).
fn start(arguments: &[&str]) -> TestMachine {
    let mut machine = TestMachine::start(arguments);
    machine.intercept_in("ioapic");
    machine.outb(0xb2, 0xf1);
    assert_eq!(machine.inw(CONTROL) & 1, 1);
    machine
}

#[test]
fn the_timer_counts_24_bits() {
    let mut machine = TestMachine::start(&[]);
    for tick in [1, 1000, 0xff_ffff] {
        machine.set_clock(of_ticks(tick, FREQUENCY) - 1);
        assert_eq!(u64::from(machine.inl(TIMER)), tick - 1);
        machine.set_clock(of_ticks(tick, FREQUENCY));
        assert_eq!(u64::from(machine.inl(TIMER)), tick);
    }
    machine.set_clock(of_ticks(0x100_0005, FREQUENCY));
    assert_eq!(machine.inl(TIMER), 5);
}

#[test]
fn a_change_of_the_timers_top_bit_raises_the_sci() {
    let mut machine = start(&[]);
    // §4.8.3.1: TMR_EN.
    machine.outw(ENABLE, 1);
    for turn in 1..3 {
        machine.set_clock(of_ticks(turn << 23, FREQUENCY) - 1);
        assert_eq!((machine.changes(), machine.inw(STATUS) & 1), (vec![], 0));
        machine.set_clock(of_ticks(turn << 23, FREQUENCY));
        assert_eq!((machine.changes(), machine.inw(STATUS) & 1), (vec![(SCI, true)], 1));
        machine.outw(STATUS, 1);
        assert_eq!(machine.changes(), [(SCI, false)]);
    }
}

#[test]
fn the_power_button_is_an_event() {
    let mut machine = start(&[]);
    machine.outw(ENABLE, 1 << 8);
    machine.qmp("system_powerdown", json!({}));
    assert_eq!(machine.inw(STATUS) & 1 << 8, 1 << 8);
    assert_eq!(machine.changes(), [(SCI, true)]);
    machine.outw(STATUS, 1 << 8);
    assert_eq!(machine.changes(), [(SCI, false)]);
}

#[test]
fn soft_off_ends_the_program() {
    let mut machine = TestMachine::start(&[]);
    // §4.8.3.2: SLP_EN with the sleep type of S5, which is 0 here.
    machine.outw(CONTROL, 1 << 13);
    let data = machine.event("SHUTDOWN");
    assert_eq!((&data["guest"], &data["reason"]), (&json!(true), &json!("guest-shutdown")));
    assert!(machine.process().wait(Duration::from_secs(10)).unwrap().success());
}

#[test]
fn sleep_type_1_suspends() {
    let mut machine = start(&[]);
    machine.outw(CONTROL, 1 << 13 | 1 << 10);
    machine.event("SUSPEND");
    assert_eq!(machine.qmp("query-status", json!({}))["status"], "suspended");
}

#[test]
fn sleep_type_2_says_that_the_guest_is_on_its_disk_and_ends_the_program() {
    let mut machine = start(&[]);
    machine.outw(CONTROL, 1 << 13 | 2 << 10);
    machine.event("SUSPEND_DISK");
    let data = machine.event("SHUTDOWN");
    assert_eq!((&data["guest"], &data["reason"]), (&json!(true), &json!("guest-shutdown")));
    assert!(machine.process().wait(Duration::from_secs(10)).unwrap().success());
}

#[test]
fn suspend_to_disk_leaves_the_machine_there_where_that_is_wanted() {
    let mut machine = start(&["-no-shutdown"]);
    machine.outw(CONTROL, 1 << 13 | 2 << 10);
    machine.event("SUSPEND_DISK");
    machine.event("SHUTDOWN");
    machine.event("STOP");
    assert_eq!(machine.qmp("query-status", json!({}))["status"], "shutdown");
}

/// Whether the tables in the guest's memory have an object of this name: a NameOp in front of it (ACPI §20.2.5.1).
fn tables_have(machine: &mut TestMachine, state: &[u8; 4]) -> bool {
    let name: Vec<u8> = [b"\x08", &state[..]].concat();
    // They are at the top of memory.
    machine.read(56 << 20, 8 << 20).windows(5).any(|window| window == name)
}

#[test]
fn sleep_states_are_in_the_tables_unless_they_are_disabled() {
    let mut machine = TestMachine::start(&["-m", "64"]);
    assert!([b"_S3_", b"_S4_", b"_S5_"].iter().all(|state| tables_have(&mut machine, state)));
    let mut machine =
        TestMachine::start(&["-m", "64", "-global", "PIIX4_PM.disable_s3=1", "-global", "PIIX4_PM.disable_s4=1"]);
    assert_eq!([b"_S3_", b"_S4_", b"_S5_"].map(|state| tables_have(&mut machine, state)), [false, false, true]);
    let path = machine.qmp("qom-list", json!({ "path": "/machine/unattached" }));
    let named = |kind: &str| {
        let all = path.as_array().unwrap();
        let found = all.iter().find(|object| object["type"] == format!("child<{kind}>")).unwrap();
        format!("/machine/unattached/{}", found["name"].as_str().unwrap())
    };
    let get = json!({ "path": named("PIIX4_PM"), "property": "disable_s4" });
    assert_eq!(machine.qmp("qom-get", get), json!(1));
}
