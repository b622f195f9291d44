//! The first processor's local APIC through its window: Intel SDM vol. 3A, ch. 10 (cited as §).

use rhea_tests::qtest::TestMachine;

const BASE: u64 = 0xfee0_0000;

fn requested(machine: &mut TestMachine, vector: u32) -> bool {
    machine.readl(BASE + 0x200 + u64::from(vector / 32 * 0x10)) >> (vector % 32) & 1 != 0
}

/// Enabled, its timer undivided (§10.5.4: a tick is a nanosecond here).
fn start(timer_entry: u32) -> TestMachine {
    let mut machine = TestMachine::start(&[]);
    machine.writel(BASE + 0xf0, 0x1ff);
    machine.writel(BASE + 0x3e0, 0xb);
    machine.writel(BASE + 0x320, timer_entry);
    machine
}

#[test]
fn identification_tells_a_local_apic_of_the_first_processor() {
    let mut machine = TestMachine::start(&[]);
    assert_eq!(machine.readl(BASE + 0x20) >> 24, 0);
    // §10.4.8: integrated APICs have versions from 0x10 to 0x15.
    let version = machine.readl(BASE + 0x30);
    assert!((0x10..=0x15).contains(&(version & 0xff)), "{version:#x}");
    assert!((3..=6).contains(&(version >> 16 & 0xff)), "{version:#x}");
}

#[test]
fn the_timer_counts_down_once() {
    let mut machine = start(0x51);
    machine.writel(BASE + 0x380, 1000);
    machine.set_clock(400);
    assert_eq!(machine.readl(BASE + 0x390), 600);
    machine.set_clock(999);
    assert!(!requested(&mut machine, 0x51));
    machine.set_clock(1000);
    assert!(requested(&mut machine, 0x51));
    machine.set_clock(5000);
    assert_eq!(machine.readl(BASE + 0x390), 0);
}

#[test]
fn a_periodic_timer_starts_again_by_itself() {
    let mut machine = start(0x2_0052);
    machine.writel(BASE + 0x380, 1000);
    machine.set_clock(2300);
    assert_eq!(machine.readl(BASE + 0x390), 700);
    assert!(requested(&mut machine, 0x52));
}

#[test]
fn the_divider_slows_the_timer() {
    let mut machine = start(0x51);
    // §10.5.4, figure 10-10: 0b1010 is 128.
    machine.writel(BASE + 0x3e0, 0xa);
    machine.writel(BASE + 0x380, 10);
    machine.set_clock(1279);
    assert!(!requested(&mut machine, 0x51));
    machine.set_clock(1280);
    assert!(requested(&mut machine, 0x51));
}

#[test]
fn a_processor_interrupts_itself() {
    let mut machine = start(0x1_0000);
    // §10.6.1: shorthand "self", fixed, vector 0x45.
    machine.writel(BASE + 0x300, 0x4_0045);
    assert!(requested(&mut machine, 0x45));
}

#[test]
fn vectors_below_16_are_errors() {
    let mut machine = start(0x1_0000);
    machine.writel(BASE + 0x300, 0x4_0005);
    // §10.5.3: written before it is read; "send illegal vector" is bit 5.
    machine.writel(BASE + 0x280, 0);
    assert_eq!(machine.readl(BASE + 0x280) & 0x20, 0x20);
}
