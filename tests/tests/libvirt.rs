//! libvirt as distributions ship it, against the program: its daemon, and its client `virsh`.
//!
//! The daemon runs as that of one user, keeps all that it has in a directory of the test, and needs no service of the host.
//! Without libvirt the tests fail and say what to install.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rhea_tests::guest::Console;
use rhea_tests::process::{linux, program};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

/// How long anything may take: the machine that runs the tests may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

const ADVICE: &str = "needed are libvirt's daemon, its driver for QEMU and its client \
                      (Debian: apt-get install libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients)";

/// Where daemons are, which is not on every user's path.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A daemon, which ends with the test.
struct Libvirt {
    directory: TempDir,
    daemon: Option<Pid>,
}

impl Libvirt {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["home", "run", "config/libvirt", "cache", "data"] {
            fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        let logs = "stdio_handler = \"file\"\nsecurity_driver = \"none\"\n";
        fs::write(directory.path().join("config/libvirt/qemu.conf"), logs).unwrap();
        let mut libvirt = Self { directory, daemon: None };
        let number = libvirt.path("daemon.pid");
        // It returns once the daemon serves.
        let mut start = libvirt.command("libvirtd");
        let start = start.args(["--daemon", "--pid-file", &number]).stdin(Stdio::null());
        let started = start.status().unwrap_or_else(|error| panic!("{start:?}: {error}\n{ADVICE}"));
        assert!(started.success(), "{start:?}: {started}\n{ADVICE}");
        let number = fs::read_to_string(number).unwrap().trim().parse().unwrap();
        libvirt.daemon = Pid::from_raw(number);
        libvirt
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// A program as a user's own. A daemon that root starts is the system's, so root is called something else.
    fn command(&self, name: &str) -> Command {
        let mut command = if geteuid().is_root() {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-user=1000", "--map-group=1000", "--", name]);
            command
        } else {
            Command::new(name)
        };
        command.env_clear().env("PATH", PATH);
        for (variable, name) in [
            ("HOME", "home"),
            ("XDG_RUNTIME_DIR", "run"),
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_CACHE_HOME", "cache"),
            ("XDG_DATA_HOME", "data"),
        ] {
            command.env(variable, self.path(name));
        }
        command
    }

    fn ask(&self, words: &[&str]) -> Result<String, String> {
        let mut command = self.command("virsh");
        command.args(["--connect", "qemu:///session"]).args(words);
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}\n{ADVICE}"));
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
    }

    /// What `virsh` prints.
    fn virsh(&self, words: &[&str]) -> String {
        self.ask(words).unwrap_or_else(|error| panic!("virsh {words:?}: {error}\n{}", self.log()))
    }

    /// Asks until the answer holds `text`: what it tells of comes from the guest, in its own time.
    fn virsh_until(&self, words: &[&str], text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.virsh(words);
            if answer.contains(text) {
                return;
            }
            assert!(Instant::now() < deadline, "virsh {words:?} never said '{text}', but: {answer}");
        }
    }

    /// How the program was started, and what it said.
    fn log(&self) -> String {
        fs::read_to_string(self.path("cache/libvirt/qemu/log/rhea.log")).unwrap_or_default()
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        let _ = self.ask(&["destroy", "rhea"]);
        if let Some(daemon) = self.daemon {
            let _ = kill_process(daemon, Signal::TERM);
        }
    }
}

fn image(path: &str) {
    let made = Command::new("qemu-img").args(["create", "-q", "-f", "qcow2", path, "64M"]).status();
    assert!(made.unwrap().success(), "{path}");
}

/// Runs a line in the guest's shell, which must succeed; gives what it prints.
fn run(console: &mut Console, line: &str) -> Vec<String> {
    let output = console.run(line, PATIENCE).unwrap_or_else(|error| panic!("{line}: {error}\n{}", console.log()));
    assert_eq!(output.status, 0, "{line}: {:?}", output.lines);
    output.lines
}

#[test]
fn it_learns_what_the_program_can_do() {
    let libvirt = Libvirt::start();
    let program = program().unwrap();
    let told =
        libvirt.virsh(&["domcapabilities", "--emulatorbin", &program.display().to_string(), "--virttype", "qemu"]);
    for expected in [
        "<domain>qemu</domain>",
        "<machine>pc-i440fx-10.0</machine>",
        "<vcpu max='255'/>",
        "<model usable='yes' vendor='Intel'>Nehalem</model>",
        "<mode name='maximum' supported='yes'>",
        "<iothreads supported='yes'/>",
        "<value>memfd</value>",
        "<genid supported='yes'/>",
        "<rng supported='yes'>",
    ] {
        assert!(told.contains(expected), "{expected} is not in\n{told}");
    }
}

#[test]
fn it_manages_a_guest_through_its_life() {
    let libvirt = Libvirt::start();
    let (kernel, initrd) = linux().unwrap();
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/libvirt.xml")).unwrap();
    let text = [("@PROGRAM@", program().unwrap()), ("@KERNEL@", kernel), ("@INITRD@", initrd)]
        .into_iter()
        .fold(text, |text, (name, path)| text.replace(name, &fs::canonicalize(path).unwrap().display().to_string()))
        .replace("@DIR@", &libvirt.directory.path().display().to_string());
    let domain = libvirt.path("domain.xml");
    fs::write(&domain, text).unwrap();
    image(&libvirt.path("disk.qcow2"));
    image(&libvirt.path("second.qcow2"));
    let listener = UnixListener::bind(libvirt.path("console")).unwrap();
    // The program is connected once it runs.
    let connected = || Console::new(listener.accept().unwrap().0).unwrap();
    let state = |expected: &str| assert_eq!(libvirt.virsh(&["domstate", "rhea", "--reason"]), expected);

    libvirt.virsh(&["define", &domain]);
    libvirt.virsh(&["start", "rhea"]);
    let mut console = connected();
    console.wait_for_shell(PATIENCE).unwrap_or_else(|error| panic!("{error}\n{}", console.log()));
    state("running (booted)");
    for option in
        ["-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny", "-overcommit", "hpet=off"]
    {
        assert!(libvirt.log().contains(option), "{option} was not tried:\n{}", libvirt.log());
    }
    run(&mut console, "virtio >/dev/null 2>&1; test -b /dev/vda && test \"$(cat /sys/block/vda/serial)\" = first");
    run(&mut console, "! grep -q hpet /proc/timer_list && ! test -e /sys/firmware/acpi/tables/HPET");

    // Stopping and going on.
    libvirt.virsh(&["suspend", "rhea"]);
    state("paused (user)");
    libvirt.virsh(&["resume", "rhea"]);
    state("running (unpaused)");

    // Going back in time, by a snapshot in the disk.
    run(&mut console, "touch /before");
    libvirt.virsh(&["snapshot-create-as", "rhea", "then"]);
    assert!(libvirt.virsh(&["snapshot-list", "rhea"]).contains("running"));
    run(&mut console, "touch /after");
    libvirt.virsh(&["snapshot-revert", "rhea", "then"]);
    console = connected();
    run(&mut console, "test -e /before && ! test -e /after");
    libvirt.virsh(&["snapshot-delete", "rhea", "then"]);

    // Memory: what the guest says of it, and less of it.
    libvirt.virsh_until(&["dommemstat", "rhea"], "unused ");
    libvirt.virsh(&["setmem", "rhea", "400M", "--live"]);
    libvirt.virsh_until(&["dommemstat", "rhea"], "actual 409600\n");
    libvirt.virsh_until(&["dominfo", "rhea"], " 409600 KiB");

    // One processor more.
    assert_eq!(libvirt.virsh(&["vcpucount", "rhea", "--live", "--current"]), "2");
    libvirt.virsh(&["setvcpus", "rhea", "3", "--live"]);
    assert_eq!(libvirt.virsh(&["vcpucount", "rhea", "--live", "--current"]), "3");
    run(&mut console, "until test -e /sys/devices/system/cpu/cpu2; do :; done");

    // A module of memory, and a disk that comes and goes.
    let dimm = libvirt.path("dimm.xml");
    fs::write(&dimm, "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>")
        .unwrap();
    libvirt.virsh(&["attach-device", "rhea", &dimm, "--live"]);
    libvirt.virsh_until(&["dominfo", "rhea"], " 655360 KiB");
    let second = libvirt.path("second.xml");
    let source = libvirt.path("second.qcow2");
    let disk = "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='@'/><target dev='vdb' bus='virtio'/></disk>";
    fs::write(&second, disk.replace('@', &source)).unwrap();
    libvirt.virsh(&["attach-device", "rhea", &second, "--live"]);
    run(
        &mut console,
        "until test -b /dev/vdb; do :; done; echo hello >/dev/vdb; sync; IFS= read -r word </dev/vdb; test \"$word\" = hello",
    );
    assert!(!libvirt.virsh(&["domblkstat", "rhea", "vdb"]).contains("wr_req 0\n"));
    libvirt.virsh(&["blockresize", "rhea", "vdb", "80M"]);
    run(&mut console, "until test \"$(cat /sys/block/vdb/size)\" = 163840; do :; done");
    libvirt.virsh(&["detach-device", "rhea", &second, "--live"]);
    run(&mut console, "while test -e /sys/block/vdb; do :; done");
    libvirt.virsh_until(&["domblklist", "rhea", "--details"], "vda");
    assert!(!libvirt.virsh(&["domblklist", "rhea"]).contains("vdb"));

    // Its memory as a file, and words that are not libvirt's own.
    let core = libvirt.path("core");
    libvirt.virsh(&["dump", "rhea", &core, "--memory-only"]);
    assert!(fs::read(&core).unwrap().starts_with(b"\x7fELF"));
    let status = libvirt.virsh(&["qemu-monitor-command", "rhea", "{\"execute\":\"query-status\"}"]);
    assert!(status.contains("\"running\":true"), "{status}");
    assert!(libvirt.virsh(&["qemu-monitor-command", "rhea", "--hmp", "info status"]).contains("VM status: running"));

    // Put away and brought back, by hand and by libvirt's own care.
    run(&mut console, "touch /kept");
    let saved = libvirt.path("saved");
    libvirt.virsh(&["save", "rhea", &saved]);
    state("shut off (saved)");
    libvirt.virsh(&["restore", &saved]);
    console = connected();
    run(&mut console, "test -e /kept && test -e /sys/devices/system/cpu/cpu2");
    libvirt.virsh(&["managedsave", "rhea"]);
    state("shut off (saved)");
    libvirt.virsh(&["start", "rhea"]);
    console = connected();
    run(&mut console, "test -e /kept");

    // From the beginning, and the end.
    libvirt.virsh(&["reset", "rhea"]);
    console.wait_for("Linux version", PATIENCE).unwrap();
    console.wait_for_shell(PATIENCE).unwrap_or_else(|error| panic!("{error}\n{}", console.log()));
    run(&mut console, "! test -e /kept");
    console.type_line("poweroff -f").unwrap();
    libvirt.virsh_until(&["domstate", "rhea", "--reason"], "shut off (shutdown)");
    libvirt.virsh(&["start", "rhea"]);
    drop(connected());
    libvirt.virsh(&["destroy", "rhea"]);
    state("shut off (destroyed)");
    libvirt.virsh(&["undefine", "rhea"]);
}
