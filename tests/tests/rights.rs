//! What the program takes of its host, and what it gives up before a guest runs.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod served;

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use rhea_tests::monitor::Monitor;
use rhea_tests::process::program;
use rustix::process::geteuid;
use serde_json::{Value, json};
use served::{PATIENCE, Served};

/// What a manager always asks for.
const EVERYTHING: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

fn connect(served: &Served) -> Monitor {
    let mut monitor = Monitor::new(UnixStream::connect(&served.socket).unwrap());
    monitor.receive(PATIENCE).unwrap();
    execute(&mut monitor, "qmp_capabilities", &json!({}));
    monitor
}

fn execute(monitor: &mut Monitor, command: &str, arguments: &Value) -> Value {
    monitor.send(&json!({ "execute": command, "arguments": arguments }).to_string()).unwrap();
    loop {
        let answer = monitor.receive(PATIENCE).unwrap();
        if answer.get("event").is_none() {
            return answer;
        }
    }
}

/// Line `name` of what the host says of the program's threads, each once.
fn of_threads(served: &Served, name: &str) -> Vec<String> {
    let tasks = format!("/proc/{}/task", served.machine.id().as_raw_nonzero());
    let mut values: Vec<String> = fs::read_dir(tasks)
        .unwrap()
        .map(|task| {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        })
        .collect();
    values.sort();
    values.dedup();
    values
}

/// What the program says when it ends at once, which must be in failure.
fn refusal(arguments: &[&str]) -> String {
    let mut command = Command::new(program().unwrap());
    let output =
        command.args(["-machine", "none", "-display", "none"]).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_sandboxed_machine_works_and_starts_no_programs() {
    let served = Served::start(&["-sandbox", EVERYTHING, "-smp", "2"]);
    let mut monitor = connect(&served);
    assert_eq!(of_threads(&served, "Seccomp:"), ["2"], "each thread is filtered");
    assert_eq!(of_threads(&served, "NoNewPrivs:"), ["1"]);
    let refused = execute(&mut monitor, "migrate", &json!({ "uri": "exec:cat >/dev/null" }));
    let refused = match refused.get("error") {
        Some(error) => error["desc"].to_string(),
        // It is found out on the way.
        None => loop {
            let standing = execute(&mut monitor, "query-migrate", &json!({}));
            match standing["return"]["status"].as_str().unwrap() {
                "failed" => break standing["return"]["error-desc"].to_string(),
                "completed" => panic!("{standing}"),
                _ => {}
            }
        },
    };
    assert!(refused.contains("not permitted"), "{refused}");
    // What takes new threads and files is still there.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("core");
    let dump = json!({ "paging": false, "protocol": format!("file:{}", path.display()) });
    assert_eq!(execute(&mut monitor, "dump-guest-memory", &dump)["return"], json!({}));
    assert!(fs::read(path).unwrap().starts_with(b"\x7fELF"));
    assert_eq!(execute(&mut monitor, "query-status", &json!({}))["return"]["running"], json!(true));
}

#[test]
fn without_a_sandbox_nothing_is_filtered() {
    let served = Served::start(&["-sandbox", "off"]);
    assert_eq!(of_threads(&served, "Seccomp:"), ["0"]);
}

#[test]
fn the_process_has_the_name_that_it_was_given() {
    let served = Served::start(&["-name", "web,process=a-very-long-name-for-a-process"]);
    let name = fs::read_to_string(format!("/proc/{}/comm", served.machine.id().as_raw_nonzero())).unwrap();
    assert_eq!(name, "a-very-long-nam\n");
}

#[test]
fn rights_are_given_up_by_who_has_them() {
    if geteuid().is_root() {
        let root = tempfile::tempdir().unwrap();
        let place = format!("user=65534:65533,chroot={}", root.path().display());
        let served = Served::start(&["-run-with", &place]);
        assert_eq!(of_threads(&served, "Uid:"), ["65534 65534 65534 65534"]);
        assert_eq!(of_threads(&served, "Gid:"), ["65533 65533 65533 65533"]);
        assert_eq!(of_threads(&served, "Groups:"), ["65533"]);
        let seen = fs::read_link(format!("/proc/{}/root", served.machine.id().as_raw_nonzero())).unwrap();
        assert_eq!(seen, fs::canonicalize(root.path()).unwrap());
    } else {
        assert!(refusal(&["-run-with", "user=0:0"]).contains("-run-with user: EPERM"));
        assert!(refusal(&["-run-with", "chroot=/"]).contains("-run-with chroot=/: Operation not permitted"));
    }
    assert!(refusal(&["-run-with", "user=nobody-of-that-name"]).contains("user 'nobody-of-that-name' does not exist"));
    assert!(refusal(&["-run-with", "chroot=/nowhere"]).contains("-run-with chroot=/nowhere"));
}

#[test]
fn messages_have_before_them_what_was_asked_for() {
    let plain = refusal(&["-kernel", "/nowhere/kernel"]);
    assert_eq!(plain, "rhea: Could not open '/nowhere/kernel': No such file or directory\n");
    let named = refusal(&["-name", "web", "-msg", "guest-name=on", "-kernel", "/nowhere/kernel"]);
    assert_eq!(named, format!("web {plain}"));
    let timed = refusal(&["-msg", "timestamp=on", "-kernel", "/nowhere/kernel"]);
    let (time, rest) = timed.split_once(' ').unwrap();
    assert_eq!((time.len(), time.ends_with('Z'), rest), (27, true, plain.as_str()));
}
