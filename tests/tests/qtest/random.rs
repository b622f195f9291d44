//! Any access at all: nothing that a guest could write stops the machine from answering.

use std::{fmt::Write as _, time::Duration};

use proptest::{prelude::*, sample::select};
use rhea_tests::qtest::TestMachine;
use serde_json::json;

/// Bytes of replies that may wait in the socket while more is sent.
const BATCH: usize = 500;

#[derive(Clone, Debug)]
enum Access {
    In(char, u16),
    Out(char, u16, u32),
    Load(char, u64),
    Store(char, u64, u64),
    Bytes(u64, u16),
    Input(&'static str, u8, bool),
    Step(u32),
}

impl Access {
    fn line(&self) -> String {
        match self {
            Self::In(width, port) => format!("in{width} {port:#x}"),
            Self::Out(width, port, value) => format!("out{width} {port:#x} {value:#x}"),
            Self::Load(width, address) => format!("read{width} {address:#x}"),
            Self::Store(width, address, value) => format!("write{width} {address:#x} {value:#x}"),
            Self::Bytes(address, length) => format!("read {address:#x} {length}"),
            Self::Input(path, pin, level) => format!("set_irq_in {path} unnamed-gpio-in {pin} {}", u8::from(*level)),
            Self::Step(time) => format!("clock_step {time}"),
        }
    }
}

/// Where devices are, and a few ports where none is.
fn port() -> impl Strategy<Value = u16> {
    let devices = [
        0x20, 0x40, 0x60, 0x70, 0x80, 0x92, 0xa0, 0xb2, 0xe9, 0x3f8, 0x402, 0x4d0, 0x510, 0x514, 0x600, 0x608, 0xcf8,
        0xcfc, 0xafe0, 0xfffe,
    ];
    prop_oneof![8 => (select(devices.to_vec()), 0..8_u16).prop_map(|(base, offset)| base | offset), 1 => any::<u16>()]
}

fn address() -> impl Strategy<Value = u64> {
    let windows =
        [0_u64, 0xa_0000, 0xf_0000, 0x7ff_fff8, 0xfec0_0000, 0xfed0_0000, 0xfee0_0000, 0xffff_fff8, u64::MAX - 7];
    prop_oneof![8 => (select(windows.to_vec()), 0..0x400_u64).prop_map(|(base, offset)| base.saturating_add(offset)), 1 => any::<u64>()]
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0..256_u64, (0..64_u32).prop_map(|bit| 1 << bit), Just(u64::MAX)]
}

fn access() -> impl Strategy<Value = Access> {
    let port_width = || select(vec!['b', 'w', 'l']);
    let width = || select(vec!['b', 'w', 'l', 'q']);
    prop_oneof![
        4 => (port_width(), port()).prop_map(|(width, port)| Access::In(width, port)),
        8 => (port_width(), port(), value()).prop_map(|(width, port, value)| Access::Out(width, port, value as u32)),
        4 => (width(), address()).prop_map(|(width, address)| Access::Load(width, address)),
        8 => (width(), address(), value()).prop_map(|(width, address, value)| Access::Store(width, address, value)),
        1 => (address(), any::<u16>()).prop_map(|(address, length)| Access::Bytes(address, length & 0x3ff)),
        2 => (select(vec!["isa-i8259", "ioapic"]), 0..30_u8, any::<bool>()).prop_map(|(path, pin, level)| Access::Input(path, pin, level)),
        2 => (0..100_000_u32).prop_map(Access::Step),
    ]
}

/// An access, or several that reach one register behind others.
fn group() -> impl Strategy<Value = Vec<Access>> {
    let clock = (0..14_u32, any::<u8>())
        .prop_map(|(index, value)| vec![Access::Out('b', 0x70, index), Access::Out('b', 0x71, value.into())]);
    let functions = select(vec![0, 8, 11, 5 << 3, 6 << 3]);
    let configuration = (functions, 0..256_u32, value()).prop_map(|(function, register, value)| {
        vec![Access::Out('l', 0xcf8, 1 << 31 | function << 8 | register & 0xfc), Access::Out('l', 0xcfc, value as u32)]
    });
    let io_apic = (0..0x40_u64, value()).prop_map(|(index, value)| {
        vec![Access::Store('l', 0xfec0_0000, index), Access::Store('l', 0xfec0_0010, value)]
    });
    prop_oneof![20 => access().prop_map(|access| vec![access]), 1 => clock, 1 => configuration, 1 => io_apic]
}

/// Up to about `most` accesses.
fn accesses(most: usize) -> impl Strategy<Value = Vec<Access>> {
    proptest::collection::vec(group(), 1..most).prop_map(|groups| groups.concat())
}

proptest! {
    #![proptest_config(ProptestConfig {
        // Each is a machine of its own.
        cases: ProptestConfig::default().cases.div_ceil(4),
        max_shrink_iters: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_access_stops_the_machine_from_answering(accesses in accesses(4000)) {
        let mut machine = TestMachine::start(&[
            "-m", "128", "-smp", "2", "-no-shutdown", "-serial", "null",
            "-device", "virtio-rng-pci,addr=5", "-device", "virtio-balloon-pci,addr=6",
        ]);
        machine.intercept_in("ioapic");
        // Registers of both at ports, where random accesses find them.
        for (slot, ports) in [(5, 0xc000), (6, 0xc100)] {
            for (register, value) in [(0x10, ports), (0x04, 7)] {
                machine.outl(0xcf8, 1 << 31 | slot << 11 | register);
                machine.outl(0xcfc, value);
            }
        }
        for batch in accesses.chunks(BATCH) {
            let mut text = String::new();
            for access in batch {
                writeln!(text, "{}", access.line()).unwrap();
            }
            machine.send(&text);
            for access in batch {
                let reply = machine.reply(&access.line());
                let bad_pin = matches!(access, Access::Input(_, 16.., _));
                prop_assert!(reply.starts_with("OK") || bad_pin, "{}: {}", access.line(), reply);
            }
        }
        machine.qmp("query-status", json!({}));
        machine.qmp("system_reset", json!({}));
        prop_assert_eq!(machine.ask("endianness"), "OK little");
        machine.qmp("quit", json!({}));
        prop_assert!(machine.process().wait(Duration::from_secs(20)).unwrap().success());
        let said = machine.process().said();
        prop_assert!(!said.contains("panicked"), "{}", said);
    }
}

/// What a guest sees of every device, but the clock's time and the memory that its battery keeps.
fn picture(machine: &mut TestMachine) -> Vec<String> {
    let mut lines = Vec::new();
    let bytes = [0x20..0x22, 0xa0..0xa2, 0x4d0..0x4d2, 0x61..0x62, 0x64..0x65, 0x60..0x61, 0x92..0x93, 0xcf9..0xcfa];
    let bytes =
        bytes.into_iter().chain([0x3f8..0x400, 0x600..0x640, 0xafe0..0xafe4, 0xb2..0xb4, 0x511..0x512]).flatten();
    lines.extend(bytes.map(|port| format!("inb {port:#x}")));
    // Counters of the timer by read-back, status and count; requests and services of the interrupt controllers by OCW3.
    lines.push("outb 0x43 0xce".to_owned());
    lines.extend([0x40, 0x41, 0x42].into_iter().flat_map(|port| vec![format!("inb {port:#x}"); 3]));
    for port in [0x20, 0xa0] {
        lines.extend(
            [0x0a, 0x0b].into_iter().flat_map(|word| [format!("outb {port:#x} {word}"), format!("inb {port:#x}")]),
        );
    }
    lines.extend(["outb 0x70 0xc", "inb 0x71"].map(str::to_owned));
    lines.extend((0..0x160).step_by(8).map(|offset| format!("readq {:#x}", 0xfed0_0000_u64 + offset)));
    lines.extend((0..0x400).step_by(16).map(|offset| format!("readl {:#x}", 0xfee0_0000_u64 + offset)));
    for index in 0..0x40 {
        lines.extend([format!("writel 0xfec00000 {index}"), "readl 0xfec00010".to_owned()]);
    }
    for function in [0, 8, 11, 5 << 3, 6 << 3] {
        lines.extend((0..256).step_by(4).flat_map(|register| {
            [format!("outl 0xcf8 {:#x}", 1_u32 << 31 | function << 8 | register), "inl 0xcfc".to_owned()]
        }));
    }
    machine.send(&(lines.join("\n") + "\n"));
    lines.into_iter().map(|line| format!("{line}: {}", machine.reply(&line))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.div_ceil(8),
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_reset_forgets_all_that_was_done(accesses in accesses(1000)) {
        let start = || TestMachine::start(&[
            "-m", "128", "-no-shutdown", "-serial", "null", "-device", "pvpanic", "-action", "panic=none",
            "-device", "virtio-rng-pci,addr=5", "-device", "virtio-balloon-pci,addr=6",
        ]);
        let (mut used, mut new) = (start(), start());
        // Inputs that a test holds are no device's, and stay.
        for access in accesses.iter().filter(|access| !matches!(access, Access::Input(..))) {
            used.ask(&access.line());
        }
        let now = used.now();
        new.set_clock(now);
        let pictures = [&mut used, &mut new].map(|machine| {
            // What devices asked of the machine is done by another thread, one after another: when it comes to this, the
            // rest is done.
            machine.ask("outb 0x505 1");
            machine.event("GUEST_PANICKED");
            machine.qmp("system_reset", json!({}));
            picture(machine)
        });
        for (after, expected) in pictures[0].iter().zip(&pictures[1]) {
            prop_assert_eq!(after, expected);
        }
    }
}
