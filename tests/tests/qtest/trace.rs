//! Trace events: each is written to the log by what it is named after, as often as that happens, and only while it is on.

use std::{fs, path::PathBuf, time::Duration};

use rhea_tests::qtest::TestMachine;
use serde_json::json;
use tempfile::TempDir;

use crate::virtio::Driver;

const APIC: u64 = 0xfee0_0000;
const IO_APIC: u64 = 0xfec0_0000;
const HPET: u64 = 0xfed0_0000;
const BUFFER: u64 = 0x20_0000;

/// Where a machine's log goes.
struct Log {
    path: PathBuf,
    _directory: TempDir,
}

impl Log {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { path: directory.path().join("log"), _directory: directory }
    }

    fn option(&self) -> String {
        format!("file={}", self.path.display())
    }

    /// The lines about an event.
    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(&self.path).unwrap();
        text.lines().filter(|line| line.split_whitespace().nth(1) == Some(name)).map(str::to_owned).collect()
    }
}

fn switch(machine: &mut TestMachine, name: &str, enable: bool) {
    machine.qmp("trace-event-set-state", json!({ "name": name, "enable": enable }));
}

/// A configuration register of the watchdog, in slot 7.
fn watchdog(machine: &mut TestMachine, register: u32) -> u16 {
    machine.outl(0xcf8, 1 << 31 | 7 << 11 | register);
    0xcfc
}

/// What makes an event happen on a machine under test, and how often.
type Row = (&'static str, usize, fn(&mut TestMachine));

const ROWS: &[Row] = &[
    ("acpi_gpe_en_ioport_readb", 1, |machine| {
        machine.inb(0xafe2);
    }),
    ("acpi_gpe_en_ioport_writeb", 1, |machine| machine.outb(0xafe3, 0)),
    ("acpi_gpe_sts_ioport_readb", 1, |machine| {
        machine.inb(0xafe0);
    }),
    ("acpi_gpe_sts_ioport_writeb", 1, |machine| machine.outb(0xafe1, 0)),
    // SDM vol. 3 §10.6.1: vector 0x30 to itself.
    ("apic_deliver_irq", 1, |machine| machine.writel(APIC + 0x300, 0x4_4030)),
    // Pressed and let go.
    ("apic_local_deliver", 2, |machine| drop(machine.qmp("inject-nmi", json!({})))),
    ("apic_register_read", 1, |machine| {
        machine.readl(APIC + 0x20);
    }),
    ("apic_register_write", 1, |machine| machine.writel(APIC + 0xf0, 0x1ff)),
    ("cpu_in", 1, |machine| {
        machine.inl(0x9000);
    }),
    ("cpu_out", 1, |machine| machine.outw(0x9000, 1)),
    ("fw_cfg_read", 1, |machine| {
        machine.inb(0x511);
    }),
    ("fw_cfg_select", 1, |machine| machine.outw(0x510, 0)),
    ("handle_hmp_command", 1, |machine| {
        machine.qmp("human-monitor-command", json!({ "command-line": "info status" }));
    }),
    // The one that switches it off again is a command as well.
    ("handle_qmp_command", 2, |machine| drop(machine.qmp("query-status", json!({})))),
    ("hpet_ram_read", 1, |machine| {
        machine.readl(HPET);
    }),
    ("hpet_ram_write", 1, |machine| machine.writel(HPET + 0x20, 0)),
    ("ioapic_mem_read", 1, |machine| {
        machine.readl(IO_APIC);
    }),
    ("ioapic_mem_write", 1, |machine| machine.writel(IO_APIC, 0)),
    // The serial port says that its transmitter is empty.
    ("ioapic_set_irq", 1, |machine| {
        machine.outb(0x3fc, 8);
        machine.outb(0x3f9, 2);
    }),
    ("memory_region_ops_read", 1, |machine| {
        machine.readl(HPET);
    }),
    ("memory_region_ops_write", 1, |machine| machine.writel(HPET + 0x20, 0)),
    ("monitor_protocol_event_emit", 1, |machine| drop(machine.qmp("stop", json!({})))),
    ("pci_cfg_read", 1, |machine| {
        machine.inl(0xcfc);
    }),
    ("pci_cfg_write", 1, |machine| machine.outl(0xcfc, 0)),
    ("pckbd_kbd_read_data", 1, |machine| {
        machine.inb(0x60);
    }),
    ("pckbd_kbd_read_status", 1, |machine| {
        machine.inb(0x64);
    }),
    ("pckbd_kbd_write_command", 1, |machine| machine.outb(0x64, 0x20)),
    ("pckbd_kbd_write_data", 1, |machine| machine.outb(0x60, 0xf4)),
    ("pic_ioport_read", 1, |machine| {
        machine.inb(0x21);
    }),
    ("pic_ioport_write", 1, |machine| machine.outb(0xa1, 0xff)),
    // It says so no more.
    ("pic_set_irq", 1, |machine| machine.outb(0x3f9, 0)),
    ("pit_ioport_read", 1, |machine| {
        machine.inb(0x40);
    }),
    ("pit_ioport_write", 1, |machine| machine.outb(0x40, 0)),
    ("qemu_system_powerdown_request", 1, |machine| drop(machine.qmp("system_powerdown", json!({})))),
    ("rtc_ioport_read", 1, |machine| {
        machine.inb(0x71);
    }),
    ("rtc_ioport_write", 1, |machine| machine.outb(0x70, 0x0d)),
    ("runstate_set", 1, |machine| drop(machine.qmp("cont", json!({})))),
    ("serial_read", 1, |machine| {
        machine.inb(0x3fd);
    }),
    ("serial_write", 1, |machine| machine.outb(0x3ff, 0x55)),
    // It does not sleep, and is told so.
    ("system_wakeup_request", 1, |machine| {
        machine.qmp("human-monitor-command", json!({ "command-line": "system_wakeup" }));
    }),
    ("virtio_balloon_to_target", 1, |machine| drop(machine.qmp("balloon", json!({ "value": 64 << 20 })))),
    // 6300ESB §14: timer 1 and 2 run out one after the other, 2^20 ticks of a millisecond each.
    ("watchdog_perform_action", 1, |machine| {
        let port = watchdog(machine, 0x68);
        machine.outb(port, 2);
        for _ in 0..3 {
            machine.step(Duration::from_secs(1100));
        }
        machine.event("WATCHDOG");
    }),
];

/// Those that the drivers of virtio devices and the end of the machine make.
const OTHERS: [&str; 6] = [
    "qemu_system_shutdown_request",
    "virtio_blk_req_complete",
    "virtio_notify",
    "virtio_queue_notify",
    "virtio_rng_pushed",
    "virtio_set_status",
];

#[test]
fn each_event_is_written_by_what_it_is_named_after_and_only_while_it_is_on() {
    let log = Log::new();
    let mut machine = TestMachine::start(&[
        "-trace",
        &log.option(),
        "-chardev",
        "null,id=s",
        "-serial",
        "chardev:s",
        "-device",
        "virtio-balloon-pci",
        "-device",
        "i6300esb,addr=7",
        "-watchdog-action",
        "none",
    ]);
    let mut faults = Vec::new();
    for &(name, times, act) in ROWS {
        switch(&mut machine, name, true);
        let before = log.lines(name).len();
        act(&mut machine);
        // What another thread writes is there with the answer to what waits for it.
        machine.now();
        switch(&mut machine, name, false);
        let lines = log.lines(name).split_off(before);
        if lines.len() != times {
            faults.push(format!("{name}: {times} wanted, got {lines:#?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // All of it again, and nothing is on.
    let before = fs::metadata(&log.path).unwrap().len();
    for &(name, _, act) in ROWS.iter().filter(|(name, ..)| *name != "watchdog_perform_action") {
        act(&mut machine);
        assert_eq!(fs::metadata(&log.path).unwrap().len(), before, "{name}");
    }
    let tried: Vec<&str> = ROWS.iter().map(|(name, ..)| *name).chain(OTHERS).collect();
    let all = machine.qmp("trace-event-get-state", json!({ "name": "*" }));
    let names = all.as_array().unwrap().iter().map(|event| event["name"].as_str().unwrap());
    let untried: Vec<&str> = names.filter(|name| !tried.contains(name)).collect();
    assert!(untried.is_empty(), "{untried:?}");
}

#[test]
fn drivers_of_virtio_devices_are_followed() {
    let log = Log::new();
    let mut driver = Driver::start("virtio-rng-pci", &["-trace", &log.option()], 0, 1);
    switch(&mut driver.machine, "virtio_*", true);
    driver.offer(0, &[(BUFFER, 64, true)]);
    driver.served(0);
    driver.wait_for_interrupt();
    driver.reset();
    switch(&mut driver.machine, "virtio_*", false);
    for name in ["virtio_queue_notify", "virtio_rng_pushed", "virtio_notify", "virtio_set_status"] {
        assert_eq!(log.lines(name).len(), 1, "{name}");
    }
    assert!(log.lines("virtio_rng_pushed")[0].ends_with("64 bytes pushed"));
}

#[test]
fn requests_of_disks_and_the_end_of_the_machine_are_followed_from_the_start() {
    let log = Log::new();
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(1 << 20).unwrap();
    let drive = format!("file={},format=raw,if=none,id=d", disk.path().display());
    let patterns = format!("virtio_blk_*,{}", log.option());
    let arguments =
        ["-drive", &drive, "-D", "/dev/null", "-trace", &patterns, "-d", "trace:qemu_system_shutdown_request"];
    let mut driver = Driver::start("virtio-blk-pci,drive=d", &arguments, 0, 1);
    // A read of the first sector (VIRTIO 1.2 §5.2.6).
    driver.machine.write(BUFFER, &[0; 16]);
    driver.offer(0, &[(BUFFER, 16, false), (BUFFER + 0x1000, 512, true), (BUFFER + 0x2000, 1, true)]);
    driver.served(0);
    assert_eq!(log.lines("virtio_blk_req_complete").len(), 1);
    driver.machine.qmp("quit", json!({}));
    assert!(driver.machine.process().wait(Duration::from_secs(10)).unwrap().success());
    assert_eq!(log.lines("qemu_system_shutdown_request").len(), 1);
}
