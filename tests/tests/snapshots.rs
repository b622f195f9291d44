//! Snapshots of a running Debian guest: another process goes on from one, and a program that is killed while it makes one
//! leaves an image without faults.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rhea_tests::{guest::Console, monitor::Monitor, process::Machine, transcript::Guest};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

/// How long anything may take: the machine that runs the tests may be busy.
const PATIENCE: Duration = Duration::from_secs(240);

struct Images {
    directory: tempfile::TempDir,
}

impl Images {
    fn new() -> Self {
        let images = Self { directory: tempfile::tempdir().unwrap() };
        let made =
            Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(images.disk()).arg("64M").status();
        assert!(made.unwrap().success());
        images
    }

    fn disk(&self) -> PathBuf {
        self.directory.path().join("disk.qcow2")
    }

    /// Whether the image is sound; `leaks` are room that is lost, and no fault.
    fn check(&self, leaks: bool) {
        let output = Command::new("qemu-img").arg("check").arg(self.disk()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let sound = output.status.success() || (leaks && output.status.code() == Some(3));
        assert!(sound, "{said}{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Whether the file system on the disk is sound.
    fn check_files(&self) {
        let raw = self.directory.path().join("raw");
        let converted = Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(self.disk()).arg(&raw).status();
        assert!(converted.unwrap().success());
        let output = Command::new("e2fsck").arg("-fn").arg(&raw).output().expect("e2fsck (e2fsprogs) is there");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

/// A machine with the disk.
struct Running {
    machine: Machine,
    monitor: Monitor,
    console: Console,
}

impl Running {
    fn start(images: &Images, more: &[&str]) -> Self {
        let drive = format!("file={},format=qcow2,if=virtio", images.disk().display());
        let arguments = ["-m", "128", "-smp", "2", "-drive", &drive];
        let arguments: Vec<String> = arguments.iter().chain(more).map(|&argument| argument.to_owned()).collect();
        let (machine, connections) = Machine::start(&arguments, Guest::Linux).unwrap();
        let mut monitor = Monitor::new(connections.monitor);
        monitor.receive(PATIENCE).unwrap();
        let console = Console::new(connections.console.unwrap()).unwrap();
        let mut running = Self { machine, monitor, console };
        running.qmp("qmp_capabilities", &json!({}));
        running
    }

    fn send(&mut self, command: &str, arguments: &Value) {
        self.monitor.send(&json!({ "execute": command, "arguments": arguments }).to_string()).unwrap();
    }

    fn reply(&mut self) -> Value {
        loop {
            let message = self.monitor.receive(PATIENCE).unwrap();
            if message.get("event").is_none() {
                return message;
            }
        }
    }

    fn qmp(&mut self, command: &str, arguments: &Value) -> Value {
        self.send(command, arguments);
        let reply = self.reply();
        reply.get("return").unwrap_or_else(|| panic!("{command} {arguments}: {reply}")).clone()
    }

    fn human(&mut self, line: &str) {
        assert_eq!(self.qmp("human-monitor-command", &json!({ "command-line": line })), "", "{line}");
    }

    fn shell(&mut self, command: &str) -> Vec<String> {
        self.console.run(command, PATIENCE).unwrap().lines
    }

    fn quit(mut self) {
        self.qmp("quit", &json!({}));
        assert!(self.machine.wait(PATIENCE).unwrap().success());
    }
}

/// Boots, makes a file system and begins a computation that reads and writes it; saved in the middle of that.
fn saved(images: &Images) -> String {
    let mut guest = Running::start(images, &[]);
    guest.console.wait_for_shell(PATIENCE).unwrap();
    guest.shell("virtio; mke2fs /dev/vda > /dev/null && mount /dev/vda /tmp");
    guest.shell("dd if=/dev/urandom of=/tmp/noise bs=64k count=16 2>/dev/null; sync");
    let work =
        "x=start; for i in $(seq 40); do x=$( (echo $x; cat /tmp/noise) | sha1sum); echo $x > /tmp/step.$i; sync; done";
    guest.shell(&format!("word=known; ({work}; echo $x > /tmp/result; sync) > /dev/null 2>&1 &"));
    guest.shell("while [ ! -e /tmp/step.3 ]; do :; done");
    guest.human("savevm one");
    // This one goes on to its end, which is what the others are to come to.
    let sum = guest.shell("wait; cat /tmp/result");
    assert_eq!(guest.shell("ls /tmp | grep -c step"), ["40"]);
    guest.quit();
    images.check(false);
    assert_eq!(sum.len(), 1, "{sum:?}");
    sum.concat()
}

#[test]
fn another_process_goes_on_from_a_snapshot_and_finishes_what_was_begun() {
    let images = Images::new();
    let sum = saved(&images);
    for _ in 0..2 {
        let mut guest = Running::start(&images, &["-loadvm", "one"]);
        // The shell is where it was: it was taken over before.
        assert_eq!(guest.shell("echo $word; [ -e /tmp/step.30 ] || echo young"), ["known", "young"]);
        assert_eq!(guest.shell("wait; cat /tmp/result"), [sum.as_str()]);
        assert_eq!(guest.shell("umount /tmp; echo $?"), ["0"]);
        guest.quit();
        images.check(false);
        images.check_files();
    }
    let refused = Command::new(rhea_tests::process::program().unwrap())
        .args(["-nodefaults", "-display", "none", "-m", "64", "-loadvm", "one", "-drive"])
        .arg(format!("file={},format=qcow2,if=virtio", images.disk().display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("the state does not fit this machine"), "{said}");
}

/// A second monitor, spoken to at once.
struct Second(BufReader<UnixStream>);

impl Second {
    fn connect(path: &Path) -> Self {
        let mut second = Self(BufReader::new(UnixStream::connect(path).unwrap()));
        second.line();
        second.ask("qmp_capabilities");
        second
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn ask(&mut self, command: &str) -> Value {
        writeln!(self.0.get_mut(), "{}", json!({ "execute": command })).unwrap();
        loop {
            let message = self.line();
            if message.get("event").is_none() {
                return message["return"].clone();
            }
        }
    }
}

#[test]
fn a_program_that_is_killed_while_it_saves_leaves_an_image_without_faults_and_others_are_answered_meanwhile() {
    let images = Images::new();
    saved(&images);
    let socket = images.directory.path().join("second");
    let qmp = format!("unix:{},server=on,wait=off", socket.display());
    let mut during = Vec::new();
    for round in 0..12_u64 {
        let mut guest = Running::start(&images, &["-loadvm", "one", "-qmp", &qmp]);
        guest.shell("echo there");
        let mut second = Second::connect(&socket);
        let line = ["savevm two", "loadvm one", "delvm two", "savevm one"][round as usize % 4];
        let begun = Instant::now();
        guest.send("human-monitor-command", &json!({ "command-line": line }));
        // Each round a little later, while another monitor asks how it is.
        while begun.elapsed() < Duration::from_millis(round * 17) {
            let asked = Instant::now();
            if second.ask("query-status")["status"] == "save-vm" {
                during.push(asked.elapsed());
            }
            thread::yield_now();
        }
        kill_process(guest.machine.id(), Signal::KILL).unwrap();
        guest.machine.wait(PATIENCE).unwrap();
        // What the guest was given room for just then may be lost.
        images.check(true);
        let listed = Command::new("qemu-img").args(["snapshot", "-l"]).arg(images.disk()).output().unwrap();
        assert!(String::from_utf8_lossy(&listed.stdout).contains(" one "), "after {line}");
    }
    during.sort();
    let last = during.len().saturating_sub(1);
    println!("query-status during a save: {} answers, slowest but 1 % {:?}", during.len(), during.get(last * 99 / 100));
    assert!(!during.is_empty(), "nobody was answered during a save");
}
