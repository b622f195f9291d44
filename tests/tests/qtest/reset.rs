//! Ways to reset: the reset control register (PIIX3 §2.5.8, port 0xcf9) and system control port A (port 0x92).

use rhea_tests::qtest::TestMachine;
use serde_json::json;

/// Something that a reset changes.
fn mark(machine: &mut TestMachine) {
    machine.outb(0x21, 0x5a);
    assert_eq!(machine.inb(0x21), 0x5a);
}

fn expect_reset(machine: &mut TestMachine) {
    let data = machine.event("RESET");
    assert_eq!((&data["guest"], &data["reason"]), (&json!(true), &json!("guest-reset")));
    assert_ne!(machine.inb(0x21), 0x5a);
}

#[test]
fn the_reset_control_register_resets_on_the_rising_edge_of_its_bit() {
    let mut machine = TestMachine::start(&[]);
    for value in [4, 6] {
        mark(&mut machine);
        machine.outb(0xcf9, 2);
        machine.outb(0xcf9, value);
        expect_reset(&mut machine);
    }
}

#[test]
fn system_control_port_a_resets() {
    let mut machine = TestMachine::start(&[]);
    mark(&mut machine);
    machine.outb(0x92, 0x02);
    machine.outb(0x92, 0x03);
    expect_reset(&mut machine);
}

#[test]
fn a_reset_leaves_the_clock_and_what_the_manager_asked_for() {
    let mut machine = TestMachine::start(&[]);
    machine.set_clock(12345);
    mark(&mut machine);
    machine.qmp("system_reset", json!({}));
    assert_ne!(machine.inb(0x21), 0x5a);
    assert_eq!(machine.now(), 12345);
    assert_eq!(machine.qmp("query-status", json!({}))["status"], "running");
}

#[test]
fn without_reboot_a_reset_ends_the_program() {
    let mut machine = TestMachine::start(&["-no-reboot"]);
    machine.outb(0xcf9, 6);
    assert_eq!(machine.event("SHUTDOWN")["reason"], "guest-reset");
    assert!(machine.process().wait(std::time::Duration::from_secs(10)).unwrap().success());
}

#[test]
fn lines_that_rise_by_the_reset_are_forgotten() {
    let mut machine = TestMachine::start(&[]);
    // Mode 0 holds the timer's output low; without a mode it is high.
    machine.outb(0x43, 0x30);
    machine.qmp("system_reset", json!({}));
    machine.outb(0x20, 0x0a);
    assert_eq!(machine.inb(0x20), 0);
}
