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
        2 => (select(vec!["pic", "ioapic"]), 0..30_u8, any::<bool>()).prop_map(|(path, pin, level)| Access::Input(path, pin, level)),
        2 => (0..100_000_u32).prop_map(Access::Step),
    ]
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
    fn no_access_stops_the_machine_from_answering(accesses in proptest::collection::vec(access(), 1..4000)) {
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
