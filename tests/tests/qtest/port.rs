//! The test port itself: every request of its protocol, good and bad.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use rhea_tests::{process::Machine, qtest::TestMachine, transcript::Guest};
use rustix::process::{Signal, kill_process};
use serde_json::json;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn the_machine_says_that_it_runs_while_its_clock_stands_still() {
    let mut machine = TestMachine::start(&[]);
    let status = machine.qmp("query-status", json!({}));
    assert_eq!((&status["running"], &status["status"]), (&json!(true), &json!("running")));
    assert_eq!(machine.now(), 0);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(machine.now(), 0);
    machine.qmp("stop", json!({}));
    machine.qmp("cont", json!({}));
    assert_eq!(machine.now(), 0);
}

#[test]
fn processors_are_there_and_do_nothing() {
    let mut machine = TestMachine::start(&["-smp", "2"]);
    let before = machine.qmp("human-monitor-command", json!({ "command-line": "info registers" }));
    machine.step(Duration::from_secs(1));
    assert_eq!(machine.qmp("human-monitor-command", json!({ "command-line": "info registers" })), before);
    assert_eq!(machine.qmp("query-cpus-fast", json!({})).as_array().map(Vec::len), Some(2));
}

#[test]
fn memory_is_read_and_written_in_every_form() {
    let mut machine = TestMachine::start(&[]);
    assert_eq!(machine.ask("endianness"), "OK little");
    assert_eq!(machine.ask("writeq 0x100000 0x1122334455667788"), "OK");
    assert_eq!(machine.ask("readb 0x100000"), "OK 0x0000000000000088");
    assert_eq!(machine.ask("readw 1048577"), "OK 0x0000000000006677");
    assert_eq!(machine.ask("readl 04000002"), "OK 0x0000000033445566");
    assert_eq!(machine.ask("readq 0x100000"), "OK 0x1122334455667788");
    // Bits above the width are dropped.
    assert_eq!(machine.ask("writeb 0x100007 0x1ff"), "OK");
    assert_eq!(machine.ask("writew 0x100005 0x5ff2f"), "OK");
    assert_eq!(machine.ask("writel 0x100000 -1"), "OK");
    assert_eq!(machine.ask("read 0x100000 8"), "OK 0xffffffff442fffff");
    assert_eq!(machine.ask("write 0x100000 6 0x0102fe"), "OK");
    assert_eq!(machine.ask("read 0x100000 8"), "OK 0x0102fe000000ffff");
    assert_eq!(machine.ask("b64write 0x100001 2 YWI="), "OK");
    assert_eq!(machine.ask("b64read 0x100000 4"), "OK AWFiAA==");
    assert_eq!(machine.ask("memset 0x100000 3 0x5a"), "OK");
    assert_eq!(machine.ask("read 0x100000 4"), "OK 0x5a5a5a00");
}

#[test]
fn where_nothing_answers_memory_reads_zero_and_ports_all_ones() {
    let mut machine = TestMachine::start(&[]);
    assert_eq!(machine.ask("readq 0xd0000000"), "OK 0x0000000000000000");
    assert_eq!(machine.ask("writeb 0 0x77"), "OK");
    assert_eq!(machine.ask("read 0xffffffffffffffff 2"), "OK 0x0077");
    assert_eq!(machine.ask("inb 0x278"), "OK 0x00ff");
    assert_eq!(machine.ask("inw 0x278"), "OK 0xffff");
    assert_eq!(machine.ask("inl 0x278"), "OK 0xffffffff");
    assert_eq!(machine.ask("outl 0x278 1"), "OK");
}

#[test]
fn large_transfers_come_whole_and_larger_ones_are_refused() {
    let mut machine = TestMachine::start(&[]);
    let bytes: Vec<u8> = (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    machine.write(0x20_0000, &bytes);
    assert!(machine.read(0x20_0000, bytes.len()) == bytes);
    for line in
        ["read 0 16777217", "b64read 0 0x7fffffffffffffff", "memset 0 0xffffffffffffffff 0", "write 0 16777217 0x0"]
    {
        assert!(machine.ask(line).starts_with("FAIL "), "{line}");
    }
    machine.send("write 0 1 0x");
    for _ in 0..34 {
        machine.send(&"0".repeat(1 << 20));
    }
    machine.send("\n");
    assert!(machine.reply("a line without end").starts_with("FAIL "));
    assert_eq!(machine.ask("endianness"), "OK little");
}

#[test]
fn what_is_no_request_fails_and_the_next_one_is_answered() {
    let mut machine = TestMachine::start(&[]);
    assert_eq!(machine.ask("frobnicate 1 2"), "FAIL Unknown command 'frobnicate'");
    for line in [
        "",
        "inb",
        "inb 1 2",
        "inq 0x70",
        "inb x",
        "inb 0x10000",
        "outb 0x70",
        "read 0",
        "write 0 4 zz",
        "b64write 0 4 !!",
        "clock_step -1",
        "clock_step soon",
        "clock_set",
        "irq_intercept_in",
        "irq_intercept_in nowhere",
        "set_irq_in ioapic other 1 1",
        "set_irq_in ioapic unnamed-gpio-in 24 1",
        "set_irq_in nowhere unnamed-gpio-in 1 1",
    ] {
        assert!(machine.ask(line).starts_with("FAIL "), "{line}");
    }
    machine.send("\u{fffd}\u{0}é\n");
    assert!(machine.reply("bytes").starts_with("FAIL "));
    assert_eq!(machine.ask("endianness"), "OK little");
}

#[test]
fn the_clock_moves_when_told_and_never_back() {
    let mut machine = TestMachine::start(&[]);
    assert_eq!(machine.ask("clock_set 1000"), "OK 1000");
    assert_eq!(machine.ask("clock_step 234"), "OK 1234");
    assert_eq!(machine.ask("clock_set 1000"), "FAIL 1234");
    assert_eq!(machine.ask("clock_set 1234"), "OK 1234");
    let mut empty = TestMachine::start(&["-machine", "none"]);
    assert!(empty.ask("clock_step").starts_with("FAIL "));
    assert_eq!(empty.ask("clock_step 5"), "OK 5");
}

#[test]
fn only_one_part_is_listened_to_and_lines_are_told_ahead_of_the_reply() {
    let mut machine = TestMachine::start(&[]);
    machine.intercept_in("ioapic");
    machine.intercept_in("ioapic");
    assert!(machine.ask("irq_intercept_in isa-i8259").starts_with("FAIL "));
    machine.value("set_irq_in ioapic unnamed-gpio-in 17 1");
    assert_eq!(machine.changes(), [(17, true)]);
    machine.value("set_irq_in ioapic unnamed-gpio-in 17 1");
    assert_eq!(machine.changes(), []);
    machine.value("set_irq_in ioapic unnamed-gpio-in 17 0");
    assert_eq!(machine.changes(), [(17, false)]);
}

#[test]
fn a_terminating_signal_and_quit_end_with_success() {
    let mut machine = TestMachine::start(&[]);
    kill_process(machine.process().id(), Signal::TERM).unwrap();
    assert!(machine.process().wait(SOON).unwrap().success());
    let mut machine = TestMachine::start(&[]);
    machine.qmp("quit", json!({}));
    assert!(machine.process().wait(SOON).unwrap().success());
    // A step that takes long is not waited for.
    let mut machine = TestMachine::start(&[]);
    machine.outb(0x43, 0x34);
    machine.outb(0x40, 2);
    machine.outb(0x40, 0);
    machine.send("clock_step 1000000000000000\n");
    kill_process(machine.process().id(), Signal::TERM).unwrap();
    assert!(machine.process().wait(SOON).unwrap().success());
}

#[test]
fn the_log_holds_both_sides() {
    let mut machine = TestMachine::start(&[]);
    machine.outb(0x80, 0x12);
    assert_eq!(machine.ask("bad"), "FAIL Unknown command 'bad'");
    let log = fs::read_to_string(machine.process().directory().join("log")).unwrap();
    let said: Vec<&str> = log.lines().filter_map(|line| line.split_once("] ")).map(|(_, said)| said).collect();
    assert_eq!(said, ["OPENED", "outb 0x80 0x12", "OK", "bad", "FAIL Unknown command 'bad'"]);
    assert!(log.contains("[R +0.") && log.contains("[S +0."));
}

#[test]
fn of_several_accelerators_the_first_usable_one_is_taken() {
    for arguments in
        [&["-accel", "kvm"] as &[_], &["-accel", "qtest", "-accel", "tcg"], &["-accel", "kvm", "-accel", "nothing"]]
    {
        assert_eq!(TestMachine::start(arguments).now(), 0);
    }
    let mut machine = TestMachine::start(&["-accel", "tcg"]);
    assert!(machine.ask("clock_step 5").starts_with("FAIL "));
}

#[test]
fn every_machine_can_be_under_test() {
    for name in ["pc", "none", "pc-i440fx-10.0"] {
        let mut machine = TestMachine::start(&["-machine", name]);
        assert_eq!(machine.ask("endianness"), "OK little");
        assert_eq!(machine.qmp("query-status", json!({}))["status"], "running");
    }
}

#[test]
fn a_part_without_outputs_is_listened_to_in_silence() {
    let mut machine = TestMachine::start(&[]);
    machine.intercept_out("ioapic");
    machine.value("set_irq_in ioapic unnamed-gpio-in 17 1");
    assert_eq!(machine.changes(), []);
}

#[test]
fn one_client_after_another_is_served_and_none_hears_what_another_listened_to() {
    let arguments = ["-accel", "qtest", "-qtest", "unix:@DIR@/port,server=on,wait=off"].map(str::to_owned);
    let (machine, _connections) = Machine::start(&arguments, Guest::None).unwrap();
    for round in 0..200 {
        let mut stream = UnixStream::connect(machine.directory().join("port")).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut replies = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
        stream.write_all(b"set_irq_in ioapic unnamed-gpio-in 17 1\nclock_step 1\n").unwrap();
        assert_eq!([replies.next().unwrap(), replies.next().unwrap()], ["OK".to_owned(), format!("OK {}", round + 1)]);
        stream.write_all(b"irq_intercept_in ioapic\nset_irq_in ioapic unnamed-gpio-in 17 0\n").unwrap();
        let expected = ["IRQ raise 17", "OK", "IRQ lower 17", "OK"].map(str::to_owned);
        // The timer's output is high from the start.
        let heard: Vec<_> = replies.by_ref().filter(|line| line != "IRQ raise 2").take(4).collect();
        assert_eq!(heard, expected);
        // Some leave in the middle of a request.
        stream.write_all(b"write 0 4 0x").unwrap();
    }
}

#[test]
fn parts_are_found_by_their_paths() {
    for path in ["ioapic", "i440fx/ioapic", "/machine/i440fx/ioapic"] {
        let mut machine = TestMachine::start(&[]);
        machine.intercept_in(path);
        machine.value(&format!("set_irq_in {path} unnamed-gpio-in 17 1"));
        assert_eq!(machine.changes(), [(17, true)], "{path}");
    }
    let mut machine = TestMachine::start(&[]);
    // It has no inputs.
    assert!(machine.ask("set_irq_in fw_cfg unnamed-gpio-in 0 1").starts_with("FAIL "));
    assert!(machine.ask("irq_intercept_in /machine/nothing").starts_with("FAIL Unknown device"));
}
