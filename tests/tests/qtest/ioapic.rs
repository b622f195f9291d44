//! 82093AA: Intel 290566 (cited as §).

use rhea_tests::qtest::TestMachine;

const SELECT: u64 = 0xfec0_0000;
const WINDOW: u64 = SELECT + 0x10;
const EOI: u64 = SELECT + 0x40;
const APIC: u64 = 0xfee0_0000;

fn get(machine: &mut TestMachine, register: u32) -> u32 {
    machine.writel(SELECT, register);
    machine.readl(WINDOW)
}

fn put(machine: &mut TestMachine, register: u32, value: u32) {
    machine.writel(SELECT, register);
    machine.writel(WINDOW, value);
}

fn drive(machine: &mut TestMachine, input: u8, level: bool) {
    machine.value(&format!("set_irq_in ioapic unnamed-gpio-in {input} {}", u8::from(level)));
}

/// Whether the first processor's APIC has a request of this vector.
fn requested(machine: &mut TestMachine, vector: u32) -> bool {
    machine.readl(APIC + 0x200 + u64::from(vector / 32 * 0x10)) >> (vector % 32) & 1 != 0
}

fn start() -> TestMachine {
    let mut machine = TestMachine::start(&[]);
    // SDM vol. 3A §10.4.7.1: the local APIC takes interrupts once it is enabled.
    machine.writel(APIC + 0xf0, 0x1ff);
    machine
}

#[test]
fn registers_read_as_after_power_on_and_keep_what_is_writable() {
    let mut machine = start();
    // §3.2.2: 24 entries; version 0x20, with an EOI register.
    assert_eq!((get(&mut machine, 0), get(&mut machine, 1)), (0, 0x0017_0020));
    for input in 0..24 {
        assert_eq!(get(&mut machine, 0x10 + 2 * input), 0x1_0000, "input {input}");
    }
    put(&mut machine, 0, 0xffff_ffff);
    assert_eq!(get(&mut machine, 0), 0x0f00_0000);
    put(&mut machine, 0x10, 0xffff_ffff);
    put(&mut machine, 0x11, 0xffff_ffff);
    // §3.2.4: delivery status and remote IRR are read only.
    assert_eq!((get(&mut machine, 0x10), get(&mut machine, 0x11)), (0x1_afff, 0xff00_0000));
    machine.qmp("system_reset", serde_json::json!({}));
    assert_eq!((get(&mut machine, 0x10), get(&mut machine, 0x11)), (0x1_0000, 0));
}

#[test]
fn an_edge_is_sent_once_and_one_that_was_masked_is_lost() {
    let mut machine = start();
    drive(&mut machine, 17, true);
    put(&mut machine, 0x10 + 2 * 17, 0x51);
    assert!(!requested(&mut machine, 0x51));
    drive(&mut machine, 17, false);
    drive(&mut machine, 17, true);
    assert!(requested(&mut machine, 0x51));
}

#[test]
fn a_level_is_sent_again_after_its_end_of_interrupt() {
    let mut machine = start();
    put(&mut machine, 0x10 + 2 * 18, 0x8061);
    drive(&mut machine, 18, true);
    assert!(requested(&mut machine, 0x61));
    // Remote IRR, until the EOI; the line is still asserted then.
    assert_eq!(get(&mut machine, 0x10 + 2 * 18), 0xc061);
    machine.writel(EOI, 0x61);
    assert_eq!(get(&mut machine, 0x10 + 2 * 18), 0xc061);
    drive(&mut machine, 18, false);
    machine.writel(EOI, 0x61);
    assert_eq!(get(&mut machine, 0x10 + 2 * 18), 0x8061);
}

#[test]
fn an_entry_names_the_processor() {
    let mut machine = TestMachine::start(&["-smp", "2"]);
    machine.writel(APIC + 0xf0, 0x1ff);
    put(&mut machine, 0x10 + 2 * 19, 0x71);
    put(&mut machine, 0x11 + 2 * 19, 1 << 24);
    drive(&mut machine, 19, true);
    assert!(!requested(&mut machine, 0x71));
    put(&mut machine, 0x11 + 2 * 19, 0);
    drive(&mut machine, 19, false);
    drive(&mut machine, 19, true);
    assert!(requested(&mut machine, 0x71));
}

#[test]
fn the_timer_is_input_2() {
    let mut machine = start();
    put(&mut machine, 0x14, 0x31);
    // 8254, mode 0: rises 101 ticks later.
    for (port, value) in [(0x43, 0x30), (0x40, 100), (0x40, 0)] {
        machine.outb(port, value);
    }
    machine.set_clock(crate::of_ticks(101, 1_193_182) - 1);
    assert!(!requested(&mut machine, 0x31));
    machine.set_clock(crate::of_ticks(101, 1_193_182));
    assert!(requested(&mut machine, 0x31));
}
