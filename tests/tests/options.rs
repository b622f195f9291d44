//! The command line, and several monitors and clients at once, some of them unfriendly.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod served;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{Config, TestRunner};
use rhea_tests::monitor::Monitor;
use rhea_tests::process::program;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::{Value, json};
use served::{PATIENCE, Served};

fn rhea(arguments: &[&str]) -> Output {
    Command::new(program().unwrap()).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn out(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

/// A session that is ready for commands.
struct Client(Monitor);

impl Client {
    fn new(stream: UnixStream) -> Self {
        let mut monitor = Monitor::new(stream);
        let greeting = monitor.receive(PATIENCE).unwrap();
        assert!(greeting.get("QMP").is_some(), "{greeting}");
        let mut client = Self(monitor);
        assert_eq!(client.execute("qmp_capabilities"), json!({}));
        client
    }

    fn connect(path: &Path) -> Self {
        Self::new(UnixStream::connect(path).unwrap())
    }

    /// The result of a command; no event may come before it.
    fn execute(&mut self, command: &str) -> Value {
        self.0.send(&json!({ "execute": command }).to_string()).unwrap();
        let mut answer = self.0.receive(PATIENCE).unwrap();
        assert!(answer.get("return").is_some(), "{command}: {answer}");
        answer["return"].take()
    }

    fn event(&mut self, name: &str) {
        let message = self.0.receive(PATIENCE).unwrap();
        assert_eq!(message["event"], name, "{message}");
    }
}

#[test]
fn a_wrong_command_line_is_one_line_that_names_it() {
    let cases: &[(&[&str], &str)] = &[
        (&["-no-such-option"], "-no-such-option"),
        (&["stray"], "stray"),
        (&["-machine", "no-such-machine"], "no-such-machine"),
        (&["-machine", "pc,no-such-property=on"], "no-such-property"),
        (&["-cpu", "no-such-cpu"], "no-such-cpu"),
        (&["-accel", "kvm"], "kvm"),
        (&["-m", "lots"], "lots"),
        (&["-m", "0"], "-m"),
        (&["-smp", "0"], "cpus"),
        (&["-smp", "4,maxcpus=2"], "maxcpus"),
        (&["-smp", "100000"], "-smp"),
        (&["-uuid", "none"], "none"),
        (&["-kernel", "/nowhere/kernel"], "/nowhere/kernel"),
        (&["-kernel", "/etc/hostname"], "/etc/hostname"),
        (&["-append", "quiet"], "-kernel"),
        (&["-qmp"], "-qmp"),
        (&["-qmp", "carrier-pigeon:7"], "carrier-pigeon"),
        (&["-qmp", "unix:/nowhere/qmp,server=on,wait=off"], "/nowhere/qmp"),
        (&["-qmp", "unix:/nowhere/qmp"], "/nowhere/qmp"),
        (&["-chardev", "socket,id=one"], "path"),
        (&["-chardev", "null"], "id"),
        (&["-chardev", "null,id=one", "-chardev", "null,id=one"], "one"),
        (&["-mon", "chardev=missing,mode=control"], "missing"),
        (&["-serial", "chardev:missing"], "missing"),
        (&["-display", "no-such-display"], "no-such-display"),
    ];
    for (arguments, named) in cases {
        let output = rhea(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        assert_eq!((out(&output), err(&output).lines().count()), ("", 1), "{arguments:?}: {}", err(&output));
        assert!(err(&output).starts_with("rhea: ") && err(&output).contains(named), "{arguments:?}: {}", err(&output));
    }
}

#[test]
fn what_is_said_of_all_devices_is_held_against_those_there_are() {
    let quit = |global: &str| {
        let mut child = Command::new(program().unwrap())
            .args([
                "-nodefaults",
                "-display",
                "none",
                "-S",
                "-qmp",
                "stdio",
                "-device",
                "virtio-rng-pci",
                "-global",
                global,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.as_mut().unwrap().write_all(b"{'execute':'qmp_capabilities'}{'execute':'quit'}");
        let output = child.wait_with_output().unwrap();
        (output.status.code(), err(&output).to_owned())
    };
    for global in ["virtio-rng-pci.vectors=1", "virtio-balloon-pci.vectors=1"] {
        assert_eq!(quit(global), (Some(0), String::new()));
    }
    for (global, status, said) in [
        (
            "virtio-rng-pci.colour=red",
            1,
            "can't apply global virtio-rng-pci.colour=red: Property 'virtio-rng-pci.colour' not found",
        ),
        ("virtio-rng-pci.vectors=soon", 1, "can't apply global virtio-rng-pci.vectors=soon"),
        ("mc146818rtc.date=1", 1, "Property 'mc146818rtc.date' not found"),
        ("mc146818rtc.lost_tick_policy=never", 1, "can't apply global mc146818rtc.lost_tick_policy=never"),
        ("warp-drive.speed=9", 0, "global warp-drive.speed has invalid class name"),
    ] {
        let (code, text) = quit(global);
        assert!(code == Some(status) && text.contains(said), "{global}: {code:?} {text}");
    }
}

#[test]
fn each_option_explains_its_parameters() {
    for (option, said) in [
        ("-m", "  slots=<num> - slots for memory added later (default: 0)"),
        ("-smp", "smp-opts options:"),
        ("-chardev", "  ringbuf"),
        ("-machine", "pc-i440fx-10.0"),
    ] {
        let output = rhea(&[option, "help"]);
        assert!(output.status.success() && out(&output).contains(said), "{option}: {}", out(&output));
    }
    assert!(out(&rhea(&["-machine", "pc,help"])).contains("  memory-backend=<str>"));
}

#[test]
fn help_and_version_are_printed_and_nothing_is_started() {
    let version = rhea(&["-version"]);
    assert_eq!((version.status.code(), err(&version)), (Some(0), ""));
    assert!(out(&version).starts_with("Rhea emulator version "), "{}", out(&version));
    let help = rhea(&["-help"]);
    assert_eq!((help.status.code(), err(&help)), (Some(0), ""));
    for option in ["-machine", "-m ", "-smp", "-kernel", "-qmp", "-chardev", "-daemonize", "-pidfile"] {
        assert!(out(&help).contains(option), "no {option} in {}", out(&help));
    }
    for (option, names) in [("-machine", ["none", "pc"]), ("-cpu", ["qemu64", "max"]), ("-accel", ["tcg", "tcg"])] {
        let list = rhea(&[option, "help"]);
        assert_eq!((list.status.code(), err(&list)), (Some(0), ""), "{option}");
        let first_words: Vec<&str> = out(&list).lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert!(names.iter().all(|name| first_words.contains(name)), "{option}: {}", out(&list));
    }
}

/// A process of which only the number is known; it does not outlive the test.
struct Background(Pid);

impl Drop for Background {
    fn drop(&mut self) {
        // Fails if it has ended, as it should.
        let _ = kill_process(self.0, Signal::KILL);
    }
}

#[test]
fn a_daemon_has_written_its_number_when_its_parent_ends() {
    let directory = tempfile::Builder::new().prefix("rhea-").tempdir_in("/tmp").unwrap();
    let (number, socket) = (directory.path().join("pid"), directory.path().join("qmp"));
    let qmp = format!("unix:{},server=on,wait=off", socket.display());
    // As libvirt asks what a program can do. The end of its output is waited for as well: the daemon must not keep it.
    let output = rhea(&[
        "-machine",
        "none",
        "-S",
        "-no-user-config",
        "-nodefaults",
        "-nographic",
        "-qmp",
        &qmp,
        "-pidfile",
        number.to_str().unwrap(),
        "-daemonize",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let text = fs::read_to_string(&number).unwrap();
    assert!(text.ends_with('\n'), "{text:?}");
    let pid = Pid::from_raw(text.trim().parse().unwrap()).unwrap();
    let background = Background(pid);
    let end = pidfd_open(pid, PidfdFlags::empty()).unwrap();

    let mut client = Client::connect(&socket);
    assert_eq!(client.execute("query-status")["running"], json!(false));
    client.0.send("{'execute': 'quit'}").unwrap();
    client.0.receive_to_end(PATIENCE).unwrap();
    let timeout = PATIENCE.try_into().unwrap();
    assert_eq!(poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&timeout)), Ok(1));
    std::mem::forget(background);
    assert!(!number.exists());
}

#[test]
fn a_daemon_takes_over_the_descriptors_of_its_sets() {
    let directory = tempfile::Builder::new().prefix("rhea-").tempdir_in("/tmp").unwrap();
    let (number, socket, log) =
        (directory.path().join("pid"), directory.path().join("qmp"), directory.path().join("log"));
    let file = fs::File::create(&log).unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let qmp = format!("unix:{},server=on,wait=off", socket.display());
    let set = format!("fd={},set=3,opaque=serial", file.as_raw_fd());
    let mut arguments = vec!["-machine", "none", "-nodefaults", "-nographic", "-qmp", &qmp, "-add-fd", &set];
    arguments.extend(["-pidfile", number.to_str().unwrap(), "-chardev", "file,id=log,path=/dev/fdset/3", "-daemonize"]);
    let output = rhea(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let pid = fs::read_to_string(&number).unwrap().trim().parse().unwrap();
    let background = Background(Pid::from_raw(pid).unwrap());
    let mut client = Client::connect(&socket);
    let sets = client.execute("query-fdsets");
    assert_eq!((&sets[0]["fdset-id"], &sets[0]["fds"][0]["opaque"]), (&json!(3), &json!("serial")), "{sets}");
    client.0.send("{'execute': 'quit'}").unwrap();
    client.0.receive_to_end(PATIENCE).unwrap();
    std::mem::forget(background);
    // One that is not there is named, by the daemon as well.
    let output = rhea(&["-machine", "none", "-nodefaults", "-nographic", "-add-fd", "fd=999,set=1", "-daemonize"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("-add-fd: descriptor 999"), "{}", err(&output));
}

#[test]
fn a_daemon_that_cannot_start_says_so_before_its_parent_ends() {
    let output =
        rhea(&["-nodefaults", "-display", "none", "-qmp", "unix:/nowhere/qmp,server=on,wait=off", "-daemonize"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("/nowhere/qmp"), "{}", err(&output));
}

#[test]
fn every_client_of_every_monitor_hears_what_happens() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let tcp = format!("tcp:127.0.0.1:{port},server=on,wait=off");
    let served = Served::start(&[
        "-qmp",
        "unix:@DIR@/second,server=on,wait=off",
        "-qmp",
        &tcp,
        "-monitor",
        "unix:@DIR@/hmp,server=on,wait=off",
    ]);
    let second = served.machine.directory().join("second");
    let mut clients: Vec<Client> =
        [&served.socket, &served.socket, &served.socket, &second, &second].map(|path| Client::connect(path)).into();

    clients[0].0.send("{'execute': 'stop'}").unwrap();
    for client in &mut clients {
        client.event("STOP");
    }
    assert_eq!(clients[0].0.receive(PATIENCE).unwrap(), json!({ "return": {} }));
    // One that leaves takes nobody with it.
    drop(clients.remove(1));
    assert_eq!(clients[1].execute("query-status")["status"], "paused");

    let mut over_tcp = BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap());
    over_tcp.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    over_tcp.get_mut().write_all(b"{'execute': 'qmp_capabilities'}{'execute': 'cont'}").unwrap();
    let mut lines = over_tcp.lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    assert!(lines.next().unwrap().get("QMP").is_some());
    assert_eq!(lines.next().unwrap(), json!({ "return": {} }));
    assert_eq!(lines.next().unwrap()["event"], "RESUME");
    for client in &mut clients {
        client.event("RESUME");
    }

    // People beside programs.
    let mut human = UnixStream::connect(served.machine.directory().join("hmp")).unwrap();
    human.set_read_timeout(Some(PATIENCE)).unwrap();
    human.write_all(b"info status\n").unwrap();
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains("VM status: running") {
        let mut bytes = [0; 512];
        let count = human.read(&mut bytes).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&bytes[..count]);
    }
}

#[test]
fn a_monitor_listens_on_a_descriptor_that_it_inherits() {
    let directory = tempfile::Builder::new().prefix("rhea-").tempdir_in("/tmp").unwrap();
    let path = directory.path().join("qmp");
    let listener = UnixListener::bind(&path).unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let chardev = format!("socket,id=charmonitor,fd={},server=on,wait=off", listener.as_raw_fd());
    let mut child = Command::new(program().unwrap())
        .args(["-nodefaults", "-display", "none", "-S", "-chardev", &chardev])
        .args(["-mon", "chardev=charmonitor,id=monitor,mode=control"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    // A manager connects before anyone accepts.
    let mut client = Client::connect(&path);
    assert_eq!(client.execute("query-status")["status"], "prelaunch");
    client.0.send("{'execute': 'quit'}").unwrap();
    client.0.receive_to_end(PATIENCE).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_monitor_on_the_standard_input_and_output_answers_there() {
    let mut child = Command::new(program().unwrap())
        .args(["-nodefaults", "-display", "none", "-S", "-qmp", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"{'execute': 'qmp_capabilities'}{'execute': 'query-status'}{'execute': 'quit'}\n").unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let messages: Vec<Value> = lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert!(child.wait().unwrap().success());
    assert_eq!(messages.len(), 5, "{messages:?}");
    assert_eq!(messages[2]["return"]["status"], "prelaunch");
    assert_eq!(messages[3]["event"], "SHUTDOWN");
    assert_eq!(messages[4], json!({ "return": {} }));
}

/// Bytes that no client should send: anything at all, and what looks like JSON.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![
        vec(any::<u8>(), 0..64),
        Just(b"{'execute': 'qmp_capabilities'}".to_vec()),
        Just(b"{\"execute\": \"query-status\", \"arguments\": {".to_vec()),
        Just(b"{'execute':'human-monitor-command','arguments':{'command-line':'\\u0000\\n info".to_vec()),
        Just(b"[".repeat(3000)),
        Just(b"{\"a\":".repeat(1500)),
        Just(b"1e999,-,NaN,\xff\xfe\x00]}}}\"".to_vec()),
    ];
    vec(fragment, 1..6).prop_map(|fragments| fragments.concat())
}

#[test]
fn garbage_from_one_client_does_not_disturb_another() {
    let served = Served::start(&["-S"]);
    let mut good = Client::connect(&served.socket);
    let mut runner = TestRunner::new(Config { cases: 100, failure_persistence: None, ..Config::default() });
    let good = std::cell::RefCell::new(&mut good);
    let result = runner.run(&vec(garbage(), 1..4), |chunks| {
        let mut bad = UnixStream::connect(&served.socket).unwrap();
        for chunk in &chunks {
            // It may have been shown the door.
            let _ = bad.write_all(chunk);
            assert_eq!(good.borrow_mut().execute("query-status")["status"], "prelaunch");
        }
        Ok(())
    });
    result.unwrap();
}

/// A line of /proc/PID/status, in KiB, of the process at the other end.
fn memory(stream: &UnixStream, name: &str) -> u64 {
    let pid = rustix::net::sockopt::socket_peercred(stream).unwrap().pid;
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_message_without_an_end_and_a_client_that_does_not_read_cost_a_bounded_amount_of_memory() {
    const MIB: usize = 1 << 20;
    let served = Served::start(&["-S"]);
    let mut good = Client::connect(&served.socket);
    let mut endless = UnixStream::connect(&served.socket).unwrap();
    let before = memory(&endless, "VmRSS");
    endless.write_all(b"{\"execute\": \"").unwrap();
    for _ in 0..160 {
        if endless.write_all(&vec![b'a'; MIB]).is_err() {
            break;
        }
        good.execute("query-status");
    }
    let mut deaf = UnixStream::connect(&served.socket).unwrap();
    deaf.write_all(b"{'execute': 'qmp_capabilities'}").unwrap();
    deaf.set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    let batch = b"{'execute': 'query-qmp-schema'}".repeat(100);
    for _ in 0..100 {
        // The server stops reading, or closes the connection.
        if deaf.write_all(&batch).is_err() {
            break;
        }
        good.execute("query-status");
    }
    good.execute("query-status");
    let grown = memory(&endless, "VmHWM").saturating_sub(before) / 1024;
    assert!(grown < 320, "grown by {grown} MiB");
}
