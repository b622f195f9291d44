//! Dumps of a running Debian guest, opened by the programs for which they are made: crash, makedumpfile and drgn.
//!
//! The guest's kernel is placed at random (KASLR), and there is no debugging information: whatever a reader finds, it finds
//! by what the dump says of itself.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::fd::AsFd,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use rhea_tests::python::{Python, told};
use rhea_tests::{guest::Console, monitor::Monitor, process::Machine, transcript::Guest};
use serde_json::{Value, json};

/// How long anything may take: the machine that runs the tests may be busy.
const PATIENCE: Duration = Duration::from_secs(120);
/// What is installed: an exact version, so that a failure is never a change of theirs.
const DRGN: &str = "drgn==0.3.0";
/// Pages that are compared with those of pmemsave: firmware tables, the kernel, user memory, the end.
const PAGES: [u64; 6] = [0xf_0000, 0x100_0000, 0x234_5000, 0x7ff_f000, 0xc00_0000, 0xfff_0000];
const PAGE: usize = 4096;

/// A guest that has booted.
struct Booted {
    machine: Machine,
    monitor: Monitor,
    console: Console,
    release: String,
}

impl Booted {
    fn start(arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let (machine, connections) = Machine::start(&arguments, Guest::Linux).unwrap();
        let mut monitor = Monitor::new(connections.monitor);
        monitor.receive(PATIENCE).unwrap();
        let mut console = Console::new(connections.console.unwrap()).unwrap();
        console.wait_for_shell(PATIENCE).unwrap();
        let release = console.run("uname -r", PATIENCE).unwrap().lines.concat();
        let mut booted = Self { machine, monitor, console, release };
        booted.run("qmp_capabilities", &json!({}));
        booted
    }

    fn send(&mut self, command: &str, arguments: &Value) {
        self.monitor.send(&json!({ "execute": command, "arguments": arguments }).to_string()).unwrap();
    }

    /// The next reply, with the names of the events before it.
    fn reply(&mut self) -> (Value, Vec<String>) {
        let mut events = Vec::new();
        loop {
            let message = self.monitor.receive(PATIENCE).unwrap();
            match message.get("event").and_then(Value::as_str) {
                Some(event) => events.push(event.to_owned()),
                None => return (message, events),
            }
        }
    }

    fn run(&mut self, command: &str, arguments: &Value) -> Vec<String> {
        self.send(command, arguments);
        let (reply, events) = self.reply();
        assert!(reply.get("return").is_some(), "{command} {arguments}: {reply}");
        events
    }

    fn event(&mut self) -> Value {
        let message = self.monitor.receive(PATIENCE).unwrap();
        assert!(message.get("event").is_some(), "{message}");
        message
    }

    fn goes_on(&mut self) {
        assert_eq!(self.console.run("echo $((6*7))", PATIENCE).unwrap().lines, ["42"]);
    }
}

/// What a program printed; its failure is the test's.
fn printed(what: &str, command: &mut Command) -> String {
    let output: Output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| {
        panic!("{what}: {command:?}: {error} (needed are Debian's packages crash and makedumpfile)")
    });
    assert!(output.status.success(), "{what}: {command:?}: {}", told(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn each_kind_of_dump_is_opened_by_its_readers() {
    let drgn = Python::install(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("drgn"), DRGN).unwrap();
    let mut guest = Booted::start(&["-m", "256", "-smp", "2", "-device", "vmcoreinfo"]);
    let directory = guest.machine.directory().to_owned();
    let at = |name: &str| directory.join(name).display().to_string();
    guest.run("stop", &json!({}));
    let sums: Vec<String> = PAGES
        .iter()
        .map(|&page| {
            guest.run("pmemsave", &json!({ "val": page, "size": PAGE, "filename": at("page") }));
            let sum = printed("pmemsave", Command::new("sha256sum").arg(at("page")));
            format!("{page:x} {}", sum.split_whitespace().next().unwrap())
        })
        .collect();
    let wanted = format!("{0}\n{0}\n{1}\n", guest.release, sums.join("\n"));

    for (name, format, paging) in [
        ("core", "elf", false),
        ("mapped", "elf", true),
        ("zlib", "kdump-zlib", false),
        ("lzo", "kdump-lzo", false),
        ("snappy", "kdump-snappy", false),
        ("raw-zlib", "kdump-raw-zlib", false),
        ("raw-lzo", "kdump-raw-lzo", false),
        ("raw-snappy", "kdump-raw-snappy", false),
    ] {
        let file = at(name);
        let arguments = json!({ "paging": paging, "protocol": format!("file:{file}"), "format": format });
        assert_eq!(guest.run("dump-guest-memory", &arguments), ["DUMP_COMPLETED"]);

        let release = printed(name, Command::new("crash").args(["--osrelease", &file]));
        assert_eq!(release.trim(), guest.release, "{name}: crash");

        let look = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/look.py");
        let pages = PAGES.iter().map(|page| format!("{page:x}"));
        assert_eq!(printed(name, drgn.command().arg(look).arg(&file).args(pages)), wanted, "{name}: drgn");

        // It unflattens each stream; Debian's does not read pages of Snappy.
        let mut file = file;
        if format.starts_with("kdump") && !format.starts_with("kdump-raw") {
            let flat = File::open(&file).unwrap();
            file += ".file";
            let output = Command::new("makedumpfile").args(["-R", &file]).stdin(flat).output().unwrap();
            assert!(output.status.success(), "{name}: {}", told(&output));
            assert_same_file(&file, &at(name), name);
        }
        if !format.ends_with("snappy") {
            let log = at("log");
            printed(name, Command::new("makedumpfile").args(["--dump-dmesg", &file, &log]));
            let text = fs::read_to_string(&log).unwrap();
            assert!(text.contains(&format!("Linux version {}", guest.release)), "{name}: {text}");
            fs::remove_file(log).unwrap();
        }
        fs::remove_file(&file).unwrap();
    }
    guest.run("cont", &json!({}));
    guest.goes_on();
}

/// That `file` is what crash calls a dump too.
fn assert_same_file(file: &str, flat: &str, name: &str) {
    let [one, other] = [file, flat].map(|path| printed(name, Command::new("crash").args(["--osrelease", path])));
    assert_eq!(one, other, "{name}");
}

/// Through a pipe that nobody reads at first a dump is under way for as long as we like.
#[test]
fn while_a_dump_is_written_the_monitor_answers_and_nothing_else_stops_or_starts_the_guest() {
    let mut guest = Booted::start(&["-m", "128"]);
    let (mut from, to) = io::pipe().unwrap();
    let getfd = r#"{ "execute": "getfd", "arguments": { "fdname": "pipe" } }"#;
    guest.monitor.send_with(getfd, to.as_fd()).unwrap();
    assert!(guest.reply().0.get("return").is_some());
    drop(to);
    let dump = json!({ "paging": false, "protocol": "fd:pipe", "detach": true });
    assert_eq!(guest.run("dump-guest-memory", &dump), ["STOP"]);
    for command in ["stop", "cont"] {
        guest.send(command, &json!({}));
        let (reply, events) = guest.reply();
        assert_eq!(reply["error"]["desc"], "There is a dump in process, please wait.");
        assert!(events.is_empty());
    }
    guest.send("query-dump", &json!({}));
    let progress = guest.reply().0;
    assert_eq!(progress["return"]["status"], "active");
    let mut times: Vec<Duration> = (0..500)
        .map(|_| {
            let start = Instant::now();
            guest.send("query-status", &json!({}));
            assert_eq!(guest.reply().0["return"]["status"], "save-vm");
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("query-status during a dump: median {:?}, 99th percentile {:?}", times[250], times[495]);

    let mut core = Vec::new();
    from.read_to_end(&mut core).unwrap();
    let completed = guest.event();
    assert_eq!(completed["event"], "DUMP_COMPLETED");
    assert_eq!(completed["data"]["result"]["status"], "completed");
    assert_eq!(guest.event()["event"], "RESUME");
    assert_eq!(&core[1..4], b"ELF");
    assert!(core.len() as u64 > completed["data"]["result"]["total"].as_u64().unwrap());
    guest.goes_on();
}

#[test]
fn a_reader_that_goes_away_fails_the_dump_and_the_guest_goes_on() {
    let mut guest = Booted::start(&["-m", "128"]);
    let (from, to) = io::pipe().unwrap();
    let getfd = r#"{ "execute": "getfd", "arguments": { "fdname": "pipe" } }"#;
    guest.monitor.send_with(getfd, to.as_fd()).unwrap();
    assert!(guest.reply().0.get("return").is_some());
    drop((from, to));
    guest.send("dump-guest-memory", &json!({ "paging": false, "protocol": "fd:pipe", "format": "kdump-zlib" }));
    let (reply, events) = guest.reply();
    assert_eq!(reply["error"]["desc"], "dump: failed to write: Broken pipe");
    assert_eq!(events, ["STOP", "DUMP_COMPLETED", "RESUME"]);
    guest.goes_on();
}

#[test]
fn a_directory_that_vanishes_fails_the_dump_and_leaves_nothing() {
    let mut guest = Booted::start(&["-m", "128"]);
    // Whoever takes the directory away may come after the last page, on a busy host: then once more.
    let completed = (0..10).find_map(|round| {
        let directory = guest.machine.directory().join(format!("away{round}"));
        fs::create_dir(&directory).unwrap();
        let dump = json!({ "paging": false, "protocol": format!("file:{}/core", directory.display()), "detach": true,
                           "format": "kdump-zlib" });
        assert_eq!(guest.run("dump-guest-memory", &dump), ["STOP"]);
        while fs::remove_dir_all(&directory).is_err() {}
        let completed = guest.event();
        assert!(!directory.exists());
        let late = completed["data"]["result"]["status"] == "completed";
        if late {
            assert_eq!(guest.event()["event"], "RESUME");
        }
        (!late).then_some(completed)
    });
    let completed = completed.expect("a dump that was not done yet");
    assert_eq!(completed["data"]["result"]["status"], "failed");
    assert_eq!(completed["data"]["error"], "dump: failed to write: No such file or directory");
    assert_eq!(guest.event()["event"], "RESUME");
    guest.goes_on();
}

/// The end of the program waits for no reader.
#[test]
fn a_machine_that_is_told_to_quit_gives_its_dump_up() {
    let mut guest = Booted::start(&["-m", "128"]);
    let (from, to) = io::pipe().unwrap();
    let getfd = r#"{ "execute": "getfd", "arguments": { "fdname": "pipe" } }"#;
    guest.monitor.send_with(getfd, to.as_fd()).unwrap();
    assert!(guest.reply().0.get("return").is_some());
    guest.run("dump-guest-memory", &json!({ "paging": false, "protocol": "fd:pipe", "detach": true }));
    guest.run("quit", &json!({}));
    assert!(guest.machine.wait(PATIENCE).unwrap().success());
    drop((from, to));
    io::stdout().flush().unwrap();
}
