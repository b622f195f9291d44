//! 8259A: Intel 231468 (cited as §).

use rhea_tests::qtest::TestMachine;

/// INTR, the only output.
const INTR: u32 = 0;

fn drive(machine: &mut TestMachine, input: u8, level: bool) {
    machine.value(&format!("set_irq_in isa-i8259 unnamed-gpio-in {input} {}", u8::from(level)));
}

/// Initialized as PCs do it: cascade on input 2, vectors from 0x20 and 0x28, nothing masked.
fn start() -> TestMachine {
    let mut machine = TestMachine::start(&[]);
    for (port, icw) in [(0x20, [0x11, 0x20, 4, 1]), (0xa0, [0x11, 0x28, 2, 1])] {
        machine.outb(port, icw[0]);
        for word in &icw[1..] {
            machine.outb(port + 1, *word);
        }
        machine.outb(port + 1, 0);
    }
    machine.intercept_out("isa-i8259");
    machine
}

/// OCW3 with the poll bit, then a read, which acknowledges (§ "Poll Command").
fn poll(machine: &mut TestMachine, port: u16) -> u8 {
    machine.outb(port, 0x0c);
    machine.inb(port)
}

fn register(machine: &mut TestMachine, port: u16, command: u8) -> u8 {
    machine.outb(port, command);
    machine.inb(port)
}

#[test]
fn an_edge_is_requested_acknowledged_and_served() {
    let mut machine = start();
    drive(&mut machine, 3, true);
    assert_eq!(machine.changes(), [(INTR, true)]);
    // § "Reading the 8259A Status": IRR by 0x0a, ISR by 0x0b.
    assert_eq!((register(&mut machine, 0x20, 0x0a), register(&mut machine, 0x20, 0x0b)), (8, 0));
    assert_eq!(poll(&mut machine, 0x20), 0x83);
    assert_eq!(machine.changes(), [(INTR, false)]);
    assert_eq!((register(&mut machine, 0x20, 0x0a), register(&mut machine, 0x20, 0x0b)), (0, 8));
    machine.outb(0x20, 0x20);
    assert_eq!(register(&mut machine, 0x20, 0x0b), 0);
    // The line is high still, and no edge.
    assert_eq!((machine.changes(), poll(&mut machine, 0x20) & 0x80), (vec![], 0));
}

#[test]
fn what_is_masked_waits_in_the_request_register() {
    let mut machine = start();
    machine.outb(0x21, 0x10);
    assert_eq!(machine.inb(0x21), 0x10);
    drive(&mut machine, 4, true);
    assert_eq!((machine.changes(), register(&mut machine, 0x20, 0x0a)), (vec![], 0x10));
    machine.outb(0x21, 0);
    assert_eq!(machine.changes(), [(INTR, true)]);
}

#[test]
fn a_lower_number_interrupts_a_higher_one_and_not_the_other_way() {
    let mut machine = start();
    drive(&mut machine, 5, true);
    assert_eq!(poll(&mut machine, 0x20), 0x85);
    drive(&mut machine, 6, true);
    assert_eq!(machine.changes(), [(INTR, true), (INTR, false)]);
    drive(&mut machine, 1, true);
    assert_eq!(machine.changes(), [(INTR, true)]);
    assert_eq!(poll(&mut machine, 0x20), 0x81);
    // § "EOI": unspecific ends the highest in service first.
    machine.outb(0x20, 0x20);
    assert_eq!(register(&mut machine, 0x20, 0x0b), 0x20);
    machine.outb(0x20, 0x20);
    assert_eq!(poll(&mut machine, 0x20), 0x86);
}

#[test]
fn the_slave_comes_through_input_2() {
    let mut machine = start();
    drive(&mut machine, 11, true);
    assert_eq!(machine.changes(), [(INTR, true)]);
    assert_eq!((poll(&mut machine, 0x20), poll(&mut machine, 0xa0)), (0x82, 0x83));
    assert_eq!((register(&mut machine, 0x20, 0x0b), register(&mut machine, 0xa0, 0x0b)), (4, 8));
}

#[test]
fn a_level_asks_again_after_its_end_of_interrupt() {
    let mut machine = start();
    // PIIX3 §2.5.5: edge or level, for each input but those of timer, keyboard, cascade, clock and coprocessor.
    machine.outb(0x4d0, 0xff);
    machine.outb(0x4d1, 0xff);
    assert_eq!((machine.inb(0x4d0), machine.inb(0x4d1)), (0xf8, 0xde));
    drive(&mut machine, 5, true);
    assert_eq!(poll(&mut machine, 0x20), 0x85);
    machine.outb(0x20, 0x20);
    assert_eq!(poll(&mut machine, 0x20), 0x85);
    drive(&mut machine, 5, false);
    machine.outb(0x20, 0x20);
    assert_eq!(poll(&mut machine, 0x20) & 0x80, 0);
}
