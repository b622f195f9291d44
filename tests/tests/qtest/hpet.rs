//! IA-PC HPET specification 1.0a (cited as §).

use std::time::Duration;

use rhea_tests::qtest::TestMachine;

const BASE: u64 = 0xfed0_0000;
const CAPABILITIES: u64 = BASE;
const CONFIGURATION: u64 = BASE + 0x10;
const STATUS: u64 = BASE + 0x20;
const COUNTER: u64 = BASE + 0xf0;
/// Nanoseconds of a tick.
const TICK: u64 = 10;

const fn timer(number: u64) -> u64 {
    BASE + 0x100 + 0x20 * number
}

const fn comparator(number: u64) -> u64 {
    timer(number) + 8
}

fn start() -> TestMachine {
    let mut machine = TestMachine::start(&[]);
    machine.intercept_in("ioapic");
    machine
}

#[test]
fn the_counter_counts_its_period_while_it_is_enabled() {
    let mut machine = start();
    // §2.3.4: femtoseconds in the upper half; three 64-bit timers, legacy replacement.
    assert_eq!(machine.readq(CAPABILITIES) >> 32, TICK * 1_000_000);
    assert_eq!(machine.readq(CAPABILITIES) & 0xbf00, 0xa200);
    machine.step(Duration::from_micros(1));
    assert_eq!(machine.readq(COUNTER), 0);
    machine.writeq(CONFIGURATION, 1);
    machine.step(Duration::from_nanos(1009));
    assert_eq!(machine.readq(COUNTER), 100);
    machine.writeq(CONFIGURATION, 0);
    machine.writeq(COUNTER, 0x1_0000_0000);
    machine.step(Duration::from_micros(1));
    assert_eq!((machine.readl(COUNTER + 4), machine.readl(COUNTER)), (1, 0));
}

#[test]
fn a_level_stands_until_its_status_is_cleared() {
    let mut machine = start();
    // §2.3.8: input 20, level, enabled.
    machine.writeq(timer(1), 20 << 9 | 6);
    machine.writeq(comparator(1), 1000);
    machine.writeq(CONFIGURATION, 1);
    machine.set_clock(1000 * TICK - 1);
    assert_eq!(machine.changes(), []);
    machine.set_clock(1000 * TICK);
    assert_eq!((machine.changes(), machine.readq(STATUS)), (vec![(20, true)], 2));
    machine.writeq(STATUS, 2);
    assert_eq!((machine.changes(), machine.readq(STATUS)), (vec![(20, false)], 0));
}

#[test]
fn an_edge_comes_at_the_tick_of_the_comparator() {
    let mut machine = start();
    machine.writeq(timer(2), 21 << 9 | 4);
    machine.writeq(comparator(2), 77);
    machine.writeq(CONFIGURATION, 1);
    machine.set_clock(77 * TICK - 1);
    assert_eq!(machine.changes(), []);
    machine.set_clock(77 * TICK);
    assert_eq!(machine.changes(), [(21, true), (21, false)]);
}

#[test]
fn a_period_drifts_not_over_a_million_ticks() {
    let mut machine = start();
    // §2.3.9.2.2: the value, then the period, by the accumulator bit; input 22.
    machine.writeq(timer(0), 22 << 9 | 0x4c);
    machine.writeq(comparator(0), 300);
    machine.writeq(comparator(0), 1000);
    machine.writeq(CONFIGURATION, 1);
    machine.set_clock(300 * TICK);
    assert_eq!(machine.changes(), [(22, true), (22, false)]);
    machine.set_clock(1_000_300 * TICK - 1);
    assert_eq!(machine.changes().len(), 2 * 999);
    machine.set_clock(1_000_300 * TICK);
    assert_eq!(machine.changes().len(), 2);
    assert_eq!(machine.readq(comparator(0)), 1_001_300);
}

#[test]
fn legacy_replacement_takes_the_lines_of_timer_and_clock() {
    let mut machine = start();
    machine.writeq(timer(0), 4);
    machine.writeq(timer(1), 4);
    machine.writeq(comparator(0), 10);
    machine.writeq(comparator(1), 20);
    machine.writeq(CONFIGURATION, 3);
    machine.changes();
    machine.set_clock(10 * TICK);
    assert_eq!(machine.changes(), [(2, true), (2, false)]);
    machine.set_clock(20 * TICK);
    assert_eq!(machine.changes(), [(8, true), (8, false)]);
}
