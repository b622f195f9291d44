//! 16550A (cited as §), the first port: 0x3f8, input 4 of the I/O APIC.

use std::{
    fs,
    time::{Duration, Instant},
};

use rhea_tests::qtest::TestMachine;

const BASE: u16 = 0x3f8;
const LINE: u32 = 4;

/// 8 bits at 9600 baud; `modem` and `enables` as given.
fn start(serial: &str, modem: u8, enables: u8) -> TestMachine {
    let mut machine = TestMachine::start(&["-serial", serial]);
    machine.intercept_in("ioapic");
    for (register, value) in [(3, 0x83), (0, 12), (1, 0), (3, 0x03), (4, modem), (1, enables)] {
        machine.outb(BASE + register, value);
    }
    machine
}

#[test]
fn registers_and_divisor_latch_keep_what_is_written() {
    let mut machine = start("null", 0, 0);
    machine.outb(BASE + 7, 0x5a);
    assert_eq!((machine.inb(BASE + 7), machine.inb(BASE + 3)), (0x5a, 3));
    machine.outb(BASE + 3, 0x83);
    assert_eq!((machine.inb(BASE), machine.inb(BASE + 1)), (12, 0));
    machine.outb(BASE + 3, 3);
    // §8.3: both empty bits, no data.
    assert_eq!((machine.inb(BASE + 1), machine.inb(BASE + 5)), (0, 0x60));
}

#[test]
fn what_is_sent_comes_out() {
    let mut machine = start("file:@DIR@/serial", 0, 0);
    for byte in *b"sent\n" {
        machine.outb(BASE, byte);
    }
    let path = machine.process().directory().join("serial");
    let since = Instant::now();
    while !fs::read(&path).is_ok_and(|bytes| bytes == b"sent\n") {
        assert!(since.elapsed() < Duration::from_secs(20), "{:?}", fs::read(&path));
        // A question to the machine and its answer: time for the thread of the backends.
        machine.now();
    }
}

#[test]
fn the_empty_transmitter_interrupts_until_it_is_identified() {
    let mut machine = start("null", 0x08, 0x02);
    assert_eq!(machine.changes(), [(LINE, true)]);
    // §8.5: identification 2, which ends it.
    assert_eq!(machine.inb(BASE + 2) & 0x0f, 0x02);
    assert_eq!(machine.changes(), [(LINE, false)]);
    assert_eq!(machine.inb(BASE + 2) & 0x0f, 0x01);
}

#[test]
fn looped_back_it_receives_what_it_sends() {
    let mut machine = start("null", 0x18, 0x01);
    machine.outb(BASE, 0x42);
    // §8.7: OUT2 gates the interrupt of a PC, looped back or not.
    assert_eq!(machine.changes(), [(LINE, true)]);
    assert_eq!((machine.inb(BASE + 5) & 1, machine.inb(BASE + 2) & 0x0f), (1, 0x04));
    assert_eq!(machine.inb(BASE), 0x42);
    assert_eq!(machine.changes(), [(LINE, false)]);
    // §8.8: OUT2 reads back as DCD.
    assert_eq!(machine.inb(BASE + 6) & 0xf0, 0x80);
}

#[test]
fn a_fifo_below_its_trigger_interrupts_after_four_characters_times() {
    let mut machine = start("null", 0x18, 0x01);
    // §8.4: FIFOs on, trigger at 14.
    machine.outb(BASE + 2, 0xc1);
    machine.outb(BASE, 0x42);
    assert_eq!(machine.changes(), []);
    // §8.11: four characters of ten bits at 9600 baud.
    let timeout = 4 * 10 * 1_000_000_000 / 9600;
    machine.set_clock(timeout - 1);
    assert_eq!(machine.changes(), []);
    machine.set_clock(timeout);
    assert_eq!(machine.changes(), [(LINE, true)]);
    assert_eq!(machine.inb(BASE + 2), 0xcc);
    machine.inb(BASE);
    assert_eq!(machine.changes(), [(LINE, false)]);
}
