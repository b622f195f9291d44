//! MC146818A (cited as §). Its interrupt is input 8 of the I/O APIC.

use std::time::Duration;

use rhea_tests::qtest::TestMachine;

use crate::of_ticks;

const LINE: u32 = 8;
const CRYSTAL: u64 = 32_768;
const MS: u64 = 1_000_000;

fn get(machine: &mut TestMachine, index: u8) -> u8 {
    machine.outb(0x70, index);
    machine.inb(0x71)
}

fn put(machine: &mut TestMachine, index: u8, value: u8) {
    machine.outb(0x70, index);
    machine.outb(0x71, value);
}

/// A clock that was set at power-on, its divider held in reset until then: the first second ends half a second later
/// (§ "Divider Control").
fn start(register_b: u8, time: [u8; 7]) -> TestMachine {
    let mut machine = TestMachine::start(&[]);
    machine.intercept_in("ioapic");
    put(&mut machine, 0xb, register_b | 0x80);
    put(&mut machine, 0xa, 0x76);
    let [century, year, month, day, hour, minute, second] = time;
    for (index, value) in [(0, second), (2, minute), (4, hour), (7, day), (8, month), (9, year), (0x32, century)] {
        put(&mut machine, index, value);
    }
    put(&mut machine, 0xb, register_b);
    put(&mut machine, 0xa, 0x26);
    get(&mut machine, 0xc);
    machine
}

fn time(machine: &mut TestMachine) -> [u8; 7] {
    [0x32, 9, 8, 7, 4, 2, 0].map(|index| get(machine, index))
}

#[test]
fn the_first_second_after_the_divider_starts_takes_half_as_long() {
    let mut machine = start(0x02, [0x20, 0x24, 0x02, 0x28, 0x23, 0x59, 0x58]);
    machine.set_clock(500 * MS - 1);
    assert_eq!(get(&mut machine, 0), 0x58);
    machine.set_clock(500 * MS);
    assert_eq!(get(&mut machine, 0), 0x59);
    machine.set_clock(1500 * MS - 1);
    assert_eq!(time(&mut machine), [0x20, 0x24, 0x02, 0x28, 0x23, 0x59, 0x59]);
    machine.set_clock(1500 * MS);
    assert_eq!(time(&mut machine), [0x20, 0x24, 0x02, 0x29, 0, 0, 0]);
}

#[test]
fn a_century_ends_in_binary_as_in_decimal() {
    let mut machine = start(0x06, [19, 99, 12, 31, 23, 59, 59]);
    machine.set_clock(500 * MS);
    assert_eq!(time(&mut machine), [20, 0, 1, 1, 0, 0, 0]);
}

#[test]
fn a_clock_of_12_hours_marks_the_afternoon() {
    let mut machine = start(0x00, [0x20, 0x24, 0x01, 0x01, 0x11, 0x59, 0x59]);
    machine.set_clock(500 * MS);
    assert_eq!(get(&mut machine, 4), 0x92);
    machine.step(Duration::from_secs(3600));
    assert_eq!(get(&mut machine, 4), 0x81);
}

#[test]
fn update_in_progress_warns_of_the_next_second() {
    let mut machine = start(0x02, [0x20, 0x24, 0x01, 0x01, 0, 0, 0]);
    // § "Update Cycle": 244 us ahead of a cycle that takes 1984 us.
    machine.set_clock(500 * MS - 2_229_000);
    assert_eq!(get(&mut machine, 0xa), 0x26);
    machine.set_clock(500 * MS - 2_227_000);
    assert_eq!(get(&mut machine, 0xa), 0xa6);
    machine.set_clock(500 * MS);
    assert_eq!(get(&mut machine, 0xa), 0x26);
}

#[test]
fn the_update_interrupt_comes_every_second_once_it_was_read() {
    let mut machine = start(0x12, [0x20, 0x24, 0x01, 0x01, 0, 0, 0]);
    for second in 0..3 {
        machine.set_clock(500 * MS + 1000 * MS * second - 1);
        assert_eq!(machine.changes(), []);
        machine.set_clock(500 * MS + 1000 * MS * second);
        assert_eq!(machine.changes(), [(LINE, true)]);
        // § "Register C": reading clears; the flags of other causes are set too.
        assert_eq!(get(&mut machine, 0xc) & 0xb0, 0x90);
        assert_eq!(machine.changes(), [(LINE, false)]);
        assert_eq!(get(&mut machine, 0xc), 0);
    }
}

#[test]
fn the_alarm_goes_off_at_its_second_only() {
    let mut machine = start(0x02, [0x20, 0x24, 0x01, 0x01, 0, 0, 0]);
    // 00:01:10, whatever the hour (§ "Alarm": 0xc0 to 0xff match all).
    for (index, value) in [(1, 0x10), (3, 0x01), (5, 0xc0), (0xb, 0x22)] {
        put(&mut machine, index, value);
    }
    for hour in 0..2 {
        let at = (hour * 3600 + 70) * 1000 * MS - 500 * MS;
        machine.set_clock(at - 1);
        assert_eq!(machine.changes(), []);
        machine.set_clock(at);
        assert_eq!(machine.changes(), [(LINE, true)]);
        assert_eq!(get(&mut machine, 0xc) & 0xa0, 0xa0);
        machine.changes();
    }
}

#[test]
fn the_periodic_interrupt_keeps_its_rate_at_every_setting() {
    for rate in 1..16_u8 {
        let mut machine = TestMachine::start(&[]);
        machine.intercept_in("ioapic");
        put(&mut machine, 0xa, 0x20 | rate);
        put(&mut machine, 0xb, 0x42);
        // § table 5: the two fastest settings are those of rates 8 and 9.
        let period = if rate < 3 { 128 << (rate - 1) } else { 1 << (rate - 1) };
        for tick in 1..=3 {
            machine.set_clock(of_ticks(tick * period, CRYSTAL) - 1);
            assert_eq!(machine.changes(), [], "rate {rate}");
            machine.set_clock(of_ticks(tick * period, CRYSTAL));
            assert_eq!(machine.changes(), [(LINE, true)], "rate {rate}");
            assert_eq!(get(&mut machine, 0xc) & 0xc0, 0xc0);
            machine.changes();
        }
    }
}

#[test]
fn a_clock_that_is_set_or_held_stands_still() {
    let mut machine = start(0x02, [0x20, 0x24, 0x01, 0x01, 0, 0, 0]);
    put(&mut machine, 0xb, 0x82);
    machine.step(Duration::from_secs(100));
    assert_eq!(time(&mut machine), [0x20, 0x24, 0x01, 0x01, 0, 0, 0]);
}

#[test]
fn memory_is_kept_over_a_reset() {
    let mut machine = TestMachine::start(&[]);
    put(&mut machine, 0x50, 0xa5);
    machine.qmp("system_reset", serde_json::json!({}));
    assert_eq!(get(&mut machine, 0x50), 0xa5);
    // § "Register D": the battery is good.
    assert_eq!(get(&mut machine, 0xd), 0x80);
}

/// A clock that shows 28 February 2020, 23:59:50, with what else `option` says.
fn dated(option: &str) -> TestMachine {
    let mut machine = TestMachine::start(&["-rtc", &format!("base=2020-02-28T23:59:50{option}")]);
    machine.intercept_in("ioapic");
    machine
}

#[test]
fn a_date_on_the_command_line_is_what_the_clock_starts_from() {
    for source in ["", ",clock=host", ",clock=rt", ",clock=vm"] {
        let mut machine = dated(source);
        machine.set_clock(10_000 * MS - 1);
        assert_eq!(time(&mut machine), [0x20, 0x20, 0x02, 0x28, 0x23, 0x59, 0x59]);
        machine.set_clock(10_000 * MS);
        assert_eq!(time(&mut machine), [0x20, 0x20, 0x02, 0x29, 0, 0, 0]);
    }
}

#[test]
fn setting_the_clock_says_by_how_much_it_is_off_and_at_most_once_a_second() {
    let mut machine = dated("");
    machine.set_clock(5000 * MS);
    // The hour: 22:59:55, then 21:59:55, then what it was. The second event and the third come as one.
    for hour in [0x22, 0x21, 0x23] {
        put(&mut machine, 4, hour);
    }
    let first = machine.event("RTC_CHANGE");
    assert_eq!(first["offset"], -3600);
    assert_eq!(first["qom-path"].as_str().map(|path| path.starts_with("/machine/")), Some(true));
    assert_eq!(machine.event("RTC_CHANGE")["offset"], 0);
}

/// Moments, in ticks of the crystal, at which the line rose up to `end`, for a guest that takes interrupts at once but
/// for the time from 20 to 83.
fn rises(policy: &str, end: u64) -> Vec<u64> {
    let mut machine = TestMachine::start(&["-global", &format!("mc146818rtc.lost_tick_policy={policy}")]);
    machine.intercept_in("ioapic");
    // A period of 16 ticks.
    put(&mut machine, 0xa, 0x25);
    put(&mut machine, 0xb, 0x42);
    let mut rises = Vec::new();
    for now in 1..=end {
        machine.set_clock(of_ticks(now, CRYSTAL));
        if machine.changes().contains(&(LINE, true)) {
            rises.push(now);
        }
        if !(20..83).contains(&now) {
            get(&mut machine, 0xc);
            machine.changes();
        }
    }
    rises
}

#[test]
fn interrupts_that_were_not_taken_in_time_go_by_the_policy() {
    // The one at 32 waits; those at 48, 64 and 80 are lost.
    assert_eq!(rises("discard", 130), [16, 32, 96, 112, 128]);
    assert_eq!(rises("delay", 130), [16, 32, 99, 115]);
    assert_eq!(rises("merge", 130), [16, 32, 84, 96, 112, 128]);
    assert_eq!(rises("slew", 130), [16, 32, 87, 91, 95, 96, 112, 128]);
}

#[test]
fn a_backlog_is_forgotten_on_request() {
    let mut machine = TestMachine::start(&["-rtc", "driftfix=slew"]);
    machine.intercept_in("ioapic");
    put(&mut machine, 0xa, 0x25);
    put(&mut machine, 0xb, 0x42);
    machine.set_clock(of_ticks(83, CRYSTAL));
    machine.qmp("rtc-reset-reinjection", serde_json::json!({}));
    get(&mut machine, 0xc);
    machine.changes();
    machine.set_clock(of_ticks(96, CRYSTAL) - 1);
    assert_eq!(machine.changes(), []);
    machine.set_clock(of_ticks(96, CRYSTAL));
    assert_eq!(machine.changes(), [(LINE, true)]);
}
