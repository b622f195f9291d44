//! 8254: Intel 231164 (cited as §). Counter 0 is input 2 of the I/O APIC.

use rhea_tests::qtest::TestMachine;

use crate::of_ticks;

const FREQUENCY: u64 = 1_193_182;
const LINE: u32 = 2;

/// What is written at power-on is loaded one tick later.
fn start(control: u8, count: u16) -> TestMachine {
    let mut machine = TestMachine::start(&[]);
    machine.intercept_in("ioapic");
    machine.outb(0x43, control);
    let [low, high] = count.to_le_bytes();
    machine.outb(0x40, low);
    machine.outb(0x40, high);
    machine
}

/// Goes to just before a tick, and then to it; gives what changed only there.
fn at_tick(machine: &mut TestMachine, tick: u64) -> Vec<(u32, bool)> {
    machine.changes();
    machine.set_clock(of_ticks(tick, FREQUENCY) - 1);
    assert_eq!(machine.changes(), [], "before tick {tick}");
    machine.set_clock(of_ticks(tick, FREQUENCY));
    machine.changes()
}

fn count(machine: &mut TestMachine, port: u16) -> u16 {
    let low = machine.inb(port);
    u16::from_le_bytes([low, machine.inb(port)])
}

#[test]
fn mode_0_rises_when_the_count_has_run_out() {
    let mut machine = start(0x30, 100);
    assert!(!machine.line_level(LINE));
    assert_eq!(at_tick(&mut machine, 101), [(LINE, true)]);
    machine.step(std::time::Duration::from_millis(200));
    assert_eq!(machine.changes(), []);
}

#[test]
fn mode_2_is_low_for_the_last_tick_of_each_period() {
    let mut machine = start(0x34, 1000);
    assert!(machine.line_level(LINE));
    for period in 1..4 {
        assert_eq!(at_tick(&mut machine, 1000 * period), [(LINE, false)]);
        assert_eq!(at_tick(&mut machine, 1000 * period + 1), [(LINE, true)]);
    }
}

#[test]
fn mode_2_keeps_its_rate_over_a_minute() {
    // 11932 ticks, the 100 Hz of old kernels.
    let mut machine = start(0x34, 11932);
    machine.changes();
    let minute = 60 * FREQUENCY;
    machine.set_clock(of_ticks(minute, FREQUENCY));
    let rises = machine.changes().iter().filter(|change| change.1).count();
    assert_eq!(rises as u64, (minute - 1) / 11932);
}

#[test]
fn mode_3_is_a_square_wave_and_an_odd_count_is_high_for_one_tick_more() {
    let mut machine = start(0x36, 1001);
    for period in 0..3 {
        let from = 1 + 1001 * period;
        assert_eq!(at_tick(&mut machine, from + 501), [(LINE, false)]);
        assert_eq!(at_tick(&mut machine, from + 1001), [(LINE, true)]);
    }
}

#[test]
fn a_latched_count_stands_still_until_it_is_read() {
    let mut machine = start(0x34, 100);
    machine.set_clock(of_ticks(11, FREQUENCY));
    // § "Counter Latch Command".
    machine.outb(0x43, 0x00);
    machine.set_clock(of_ticks(21, FREQUENCY));
    assert_eq!((count(&mut machine, 0x40), count(&mut machine, 0x40)), (90, 80));
}

#[test]
fn read_back_gives_status_then_count() {
    let mut machine = start(0x34, 100);
    machine.set_clock(of_ticks(11, FREQUENCY));
    // § "Read-Back Command": count and status of counter 0.
    machine.outb(0x43, 0xc2);
    assert_eq!(machine.inb(0x40), 0xb4);
    assert_eq!(count(&mut machine, 0x40), 90);
}

#[test]
fn the_speakers_counter_runs_while_its_gate_is_open() {
    let mut machine = TestMachine::start(&[]);
    machine.outb(0x61, 0);
    // Mode 0, 1000 ticks.
    for (port, value) in [(0x43, 0xb0), (0x42, 0xe8), (0x42, 0x03)] {
        machine.outb(port, value);
    }
    machine.set_clock(of_ticks(2000, FREQUENCY));
    // PIIX3 §2.5.4: bit 5 of port 0x61 is the counter's output.
    assert_eq!(machine.inb(0x61) & 0x20, 0);
    machine.outb(0x61, 1);
    machine.set_clock(of_ticks(2000 + 999, FREQUENCY));
    assert_eq!(machine.inb(0x61) & 0x20, 0);
    machine.set_clock(of_ticks(2000 + 1001, FREQUENCY));
    assert_eq!(machine.inb(0x61) & 0x21, 0x21);
}
