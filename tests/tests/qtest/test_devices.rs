//! The devices that test programs use: `pc-testdev`, `pci-testdev` and `isa-debugcon`, by their published interfaces.

use rhea_tests::qtest::TestMachine;
use serde_json::json;

#[test]
fn a_port_of_the_test_device_drives_its_interrupt() {
    let mut machine = TestMachine::start(&["-device", "pc-testdev"]);
    machine.intercept_in("ioapic");
    machine.outb(0x200e, 1);
    machine.outb(0x2011, 1);
    machine.outb(0x200e, 0);
    assert_eq!(machine.changes(), [(14, true), (17, true), (14, false)]);
}

#[test]
fn the_register_and_the_memory_of_the_test_device_take_all_widths() {
    let mut machine = TestMachine::start(&["-device", "pc-testdev"]);
    machine.outl(0xe0, 0x4433_2211);
    machine.outb(0xe9, 0xaa);
    assert_eq!((machine.inl(0xe8), machine.inw(0xe2)), (0x4433_aa11, 0x4433));
    machine.outl(0xe4, 0x1000);
    machine.writel(0xff00_0000, 0x1234_5678);
    assert_eq!(machine.read(0xff00_0001, 2), [0x56, 0x34]);
}

#[test]
fn the_pci_function_counts_writes_in_both_windows() {
    let mut machine = TestMachine::start(&["-device", "pci-testdev,addr=5"]);
    let mut set = |register: u32, value: u32| {
        machine.outl(0xcf8, 1 << 31 | 5 << 11 | register);
        machine.outl(0xcfc, value);
    };
    set(0x10, 0xe000_0000);
    set(0x14, 0xc000);
    set(0x04, 3);
    machine.write(0xe000_0000, &[0]);
    let (offset, data) = (machine.readl(0xe000_0004), machine.readl(0xe000_0008));
    machine.write(0xe000_0000 + u64::from(offset), &[data as u8]);
    assert_eq!(machine.readl(0xe000_000c), 1);
    assert_eq!(machine.read(0xe000_0010, 16), b"mmio-no-eventfd\0");
    machine.outb(0xc000, 0);
    let (offset, data) = (machine.inl(0xc004) as u16, machine.inl(0xc008) as u8);
    machine.outb(0xc000 + offset, data);
    assert_eq!((machine.inb(0xc001), machine.inl(0xc00c)), (1, 1));
    machine.outb(0xc000, 200);
    assert_eq!(machine.inb(0xc001), 0);
}

#[test]
fn what_is_written_to_a_debug_console_is_in_its_backend() {
    let devices = ["-chardev", "ringbuf,id=text", "-device", "isa-debugcon,chardev=text,iobase=0x402,readback=0x5a"];
    let mut machine = TestMachine::start(&devices);
    assert_eq!((machine.inb(0x402), machine.inb(0xe9)), (0x5a, 0xe9));
    for byte in *b"seen" {
        machine.outb(0x402, byte);
    }
    // The port of another console is that one's.
    machine.outb(0xe9, b'!');
    assert_eq!(machine.qmp("ringbuf-read", json!({ "device": "text", "size": 100 })), json!("seen"));
}
