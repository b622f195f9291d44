//! 8042 keyboard controller: IBM PS/2 Hardware Interface Technical Reference (cited as §). Inputs 1 and 12.

use rhea_tests::qtest::TestMachine;

const DATA: u16 = 0x60;
const COMMAND: u16 = 0x64;

fn start() -> TestMachine {
    let mut machine = TestMachine::start(&[]);
    machine.intercept_in("ioapic");
    machine
}

#[test]
fn the_self_test_passes() {
    let mut machine = start();
    machine.outb(COMMAND, 0xaa);
    // § "Controller Status Register": output buffer full.
    assert_eq!(machine.inb(COMMAND) & 1, 1);
    assert_eq!(machine.inb(DATA), 0x55);
    assert_eq!(machine.inb(COMMAND) & 1, 0);
}

#[test]
fn the_command_byte_is_kept() {
    let mut machine = start();
    machine.outb(COMMAND, 0x60);
    machine.outb(DATA, 0x25);
    machine.outb(COMMAND, 0x20);
    assert_eq!(machine.inb(DATA), 0x25);
}

#[test]
fn the_keyboard_answers_with_an_interrupt() {
    let mut machine = start();
    machine.outb(COMMAND, 0x60);
    machine.outb(DATA, 0x01);
    machine.outb(DATA, 0xf2);
    let mut answer = Vec::new();
    while machine.inb(COMMAND) & 1 != 0 {
        assert!(machine.line_level(1));
        answer.push(machine.inb(DATA));
    }
    // § "Keyboard Commands", Read ID: acknowledge, then two bytes.
    assert_eq!(answer, [0xfa, 0xab, 0x83]);
    assert!(!machine.line_level(1));
}

#[test]
fn the_mouse_has_an_interrupt_of_its_own() {
    let mut machine = start();
    machine.outb(COMMAND, 0x60);
    machine.outb(DATA, 0x03);
    machine.outb(COMMAND, 0xd4);
    machine.outb(DATA, 0xf2);
    assert!(machine.line_level(12) && !machine.line_level(1));
    assert_eq!((machine.inb(COMMAND) & 0x21, machine.inb(DATA), machine.inb(DATA)), (0x21, 0xfa, 0x00));
    assert!(!machine.line_level(12));
}

#[test]
fn a_pulse_on_the_reset_line_resets() {
    let mut machine = start();
    machine.outb(COMMAND, 0xfe);
    assert_eq!(machine.event("RESET")["guest"], true);
}
