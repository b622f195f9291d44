//! Character backends as their users on the host see them: shared terminals, pipes, sockets that come and go.

#![allow(clippy::unwrap_used)]

mod served;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::Instant;

use rhea_qmp::client::Client;
use rhea_tests::process::program;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};
use served::{PATIENCE, Served};

/// Reads until `text` has come.
fn read_until(stream: &mut impl Read, text: &str) -> String {
    let mut seen = String::new();
    let mut byte = [0];
    while !seen.contains(text) {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "the end came before {text:?}: {seen:?}");
        seen.push(char::from(byte[0]));
    }
    seen
}

fn row(client: &mut Client<UnixStream>, label: &str) -> Value {
    let listed = client.execute("query-chardev", json!({})).unwrap();
    listed.as_array().unwrap().iter().find(|row| row["label"] == label).unwrap().clone()
}

/// Waits until backend `label` has this name.
fn wait_for_name(client: &mut Client<UnixStream>, label: &str, name: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let filename = row(client, label)["filename"].as_str().unwrap().to_owned();
        if name(&filename) {
            return filename;
        }
        assert!(Instant::now() < deadline, "'{label}' is still {filename}");
    }
}

#[test]
fn a_shared_socket_has_the_serial_port_first_and_the_monitor_behind_control_a_c() {
    let served = Served::start(&[
        "-machine",
        "pc",
        "-m",
        "64",
        "-S",
        "-chardev",
        "socket,id=shared,path=@DIR@/shared,server=on,wait=off,mux=on",
        "-serial",
        "chardev:shared",
        "-mon",
        "chardev=shared,mode=readline",
    ]);
    let mut client = Client::connect(&served.socket).unwrap();
    let mut terminal = UnixStream::connect(served.machine.directory().join("shared")).unwrap();
    terminal.set_read_timeout(Some(PATIENCE)).unwrap();
    // What is typed first is for the serial port; nobody echoes it.
    terminal.write_all(b"for the guest\x01c").unwrap();
    let greeting = read_until(&mut terminal, "(rhea) ");
    assert!(greeting.starts_with("\r\n") && !greeting.contains("guest"), "{greeting:?}");
    terminal.write_all(b"info status\n").unwrap();
    assert!(read_until(&mut terminal, "(rhea) ").contains("VM status: paused (prelaunch)"));
    terminal.write_all(b"\x01h").unwrap();
    read_until(&mut terminal, "C-a b    send a break");
    assert_eq!(row(&mut client, "shared-base")["frontend-open"], json!(true));
    assert!(row(&mut client, "shared-base")["filename"].as_str().unwrap().starts_with("unix:"));
    terminal.write_all(b"\x01c\x01x").unwrap();
    client.wait_closed(Instant::now() + PATIENCE).unwrap();
}

#[test]
fn a_mux_over_a_backend_serves_several_monitors() {
    let served = Served::start(&[
        "-chardev",
        "socket,id=base,path=@DIR@/base,server=on,wait=off",
        "-chardev",
        "mux,id=shared,chardev=base",
        "-mon",
        "chardev=shared,mode=control",
        "-mon",
        "chardev=shared,mode=readline",
    ]);
    let terminal = UnixStream::connect(served.machine.directory().join("base")).unwrap();
    terminal.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut reader, mut writer) = (terminal.try_clone().unwrap(), terminal);
    writer.write_all(b"{'execute': 'qmp_capabilities'}").unwrap();
    read_until(&mut reader, "{\"return\": {}}\r\n");
    writer.write_all(b"\x01c").unwrap();
    read_until(&mut reader, "(rhea) ");
    writer.write_all(b"\x01c{'execute': 'query-kvm'}").unwrap();
    read_until(&mut reader, "\"present\": false");
}

#[test]
fn a_client_socket_comes_back_when_its_server_does() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server");
    let chardev = format!("socket,id=again,path={},reconnect-ms=20", path.display());
    // Nobody listens yet.
    let served = Served::start(&["-chardev", &chardev, "-mon", "chardev=again,mode=control"]);
    let mut client = Client::connect(&served.socket).unwrap();
    assert_eq!(row(&mut client, "again")["filename"], format!("disconnected:unix:{}", path.display()));
    for _ in 0..3 {
        let listener = UnixListener::bind(&path).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let mut session = Client::new(stream).unwrap();
        session.execute("query-status", json!({})).unwrap();
        wait_for_name(&mut client, "again", |name| name == format!("unix:{}", path.display()));
        drop((session, listener));
        std::fs::remove_file(&path).unwrap();
        wait_for_name(&mut client, "again", |name| name.starts_with("disconnected:"));
    }
}

#[test]
fn tcp_connections_are_named_by_both_ends_and_come_back() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let chardev = format!("socket,id=again,host=127.0.0.1,port={port},reconnect-ms=20");
    let served = Served::start(&["-machine", "pc", "-m", "64", "-S", "-chardev", &chardev, "-serial", "chardev:again"]);
    let mut client = Client::connect(&served.socket).unwrap();
    for _ in 0..2 {
        let (stream, theirs) = listener.accept().unwrap();
        wait_for_name(&mut client, "again", |name| name == format!("tcp:{theirs} <-> 127.0.0.1:{port}"));
        drop(stream);
    }
}

#[test]
fn who_closes_the_terminal_of_a_first_minute_ends_it() {
    let mut child = Command::new(program().unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut printed = child.stdout.take().unwrap();
    read_until(&mut printed, "Rhea");
    drop(child.stdin.take());
    // To its end, which comes with the program's.
    std::io::copy(&mut printed, &mut std::io::sink()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn named_pipes_carry_a_monitor() {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (directory.path().join("pipe.in"), directory.path().join("pipe.out"));
    for path in [&input, &output] {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }
    let chardev = format!("pipe,id=pipe,path={}", directory.path().join("pipe").display());
    let _served = Served::start(&["-chardev", &chardev, "-mon", "chardev=pipe,mode=control"]);
    let mut writer = OpenOptions::new().write(true).open(&input).unwrap();
    let mut reader = BufReader::new(File::open(&output).unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.contains("\"QMP\""), "{line}");
    writer.write_all(b"{'execute': 'qmp_capabilities'}").unwrap();
    line.clear();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "{\"return\": {}}\r\n");
}

#[test]
fn a_pseudo_terminal_is_announced_and_carries_a_monitor() {
    let served = Served::start(&["-chardev", "pty,id=tty", "-mon", "chardev=tty,mode=readline"]);
    let mut client = Client::connect(&served.socket).unwrap();
    let filename = row(&mut client, "tty")["filename"].as_str().unwrap().to_owned();
    let name = filename.strip_prefix("pty:").unwrap();
    let said = served.machine.said();
    assert!(said.contains(&format!("char device redirected to {name} (label tty)")), "{said}");
    let mut terminal = OpenOptions::new().read(true).write(true).open(name).unwrap();
    read_until(&mut terminal, "(rhea) ");
    terminal.write_all(b"info kvm\r").unwrap();
    read_until(&mut terminal, "kvm support: disabled");
}

#[test]
fn a_server_that_waits_is_added_when_its_client_comes_and_others_go_on() {
    let served = Served::start(&[]);
    let path = served.machine.directory().join("waiting");
    let socket = served.socket.clone();
    let address = json!({ "type": "unix", "data": { "path": path } });
    let backend = json!({ "type": "socket", "data": { "addr": address, "server": true, "wait": true } });
    let adding = std::thread::spawn(move || {
        let mut client = Client::connect(socket).unwrap();
        client.execute("chardev-add", json!({ "id": "waiting", "backend": backend })).unwrap();
    });
    let deadline = Instant::now() + PATIENCE;
    while !path.exists() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    let mut other = Client::connect(&served.socket).unwrap();
    let labels = other.execute("query-chardev", json!({})).unwrap();
    assert!(labels.as_array().unwrap().iter().all(|row| row["label"] != "waiting"));
    let _client = UnixStream::connect(&path).unwrap();
    adding.join().unwrap();
    row(&mut other, "waiting");
}

#[test]
fn input_of_a_file_reaches_the_monitor_and_output_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let (input, output, log) =
        (directory.path().join("input"), directory.path().join("output"), directory.path().join("log"));
    std::fs::write(&input, "info kvm\n").unwrap();
    let chardev = format!(
        "file,id=file,path={},input-path={},logfile={},mux=on",
        output.display(),
        input.display(),
        log.display()
    );
    let _served = Served::start(&["-chardev", &chardev, "-mon", "chardev=file,mode=readline"]);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let written = std::fs::read_to_string(&output).unwrap();
        if written.contains("kvm support: disabled") {
            assert!(std::fs::read_to_string(&log).unwrap().starts_with(&written[..20]));
            return;
        }
        assert!(Instant::now() < deadline, "{written:?}");
        std::thread::yield_now();
    }
}
