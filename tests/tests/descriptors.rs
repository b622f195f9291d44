//! Descriptors that clients pass, over real sockets: whose they are, how long they live, and what they are good for.

#![allow(clippy::unwrap_used)]

mod served;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use rhea_qmp::client::{Client, ClientError};
use rhea_tests::monitor::Monitor;
use rhea_tests::process::{Machine, linux};
use rhea_tests::transcript::Guest;
use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::json;
use served::{PATIENCE, Served};

fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> String {
    match result.unwrap_err() {
        ClientError::Command(error) => error.desc,
        other => panic!("{other}"),
    }
}

#[test]
fn a_named_descriptor_belongs_to_one_session_and_ends_with_it() {
    let served = Served::start(&[]);
    let mut one = Client::connect(&served.socket).unwrap();
    let mut other = Client::connect(&served.socket).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    one.execute_with_descriptors("getfd", json!({ "fdname": "pipe" }), &[writer.as_fd()]).unwrap();
    drop(writer);
    let missing = refusal(other.execute("closefd", json!({ "fdname": "pipe" })));
    assert_eq!(missing, "File descriptor named 'pipe' not found");
    // The program has the only writing end: the pipe ends when the session does.
    drop(one);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_name_taken_again_closes_what_had_it() {
    let served = Served::start(&[]);
    let mut client = Client::connect(&served.socket).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    client.execute_with_descriptors("getfd", json!({ "fdname": "x" }), &[writer.as_fd()]).unwrap();
    drop(writer);
    let (_reader, another) = std::io::pipe().unwrap();
    client.execute_with_descriptors("getfd", json!({ "fdname": "x" }), &[another.as_fd()]).unwrap();
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

#[test]
fn sets_are_everybodys_and_outlive_the_session_that_made_them() {
    let served = Served::start(&["-machine", "pc", "-m", "64", "-S"]);
    let path = served.machine.directory().join("set");
    let mut one = Client::connect(&served.socket).unwrap();
    let file = OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
    let added = one.execute_with_descriptors("add-fd", json!({ "opaque": "note" }), &[file.as_fd()]).unwrap();
    drop((one, file));
    let mut other = Client::connect(&served.socket).unwrap();
    let listed = other.execute("query-fdsets", json!({})).unwrap();
    assert_eq!(listed, json!([{ "fdset-id": 0, "fds": [{ "fd": added["fd"], "opaque": "note" }] }]));
    // By another name than it had, and even without one.
    let moved = served.machine.directory().join("moved");
    fs::rename(&path, &moved).unwrap();
    let save = json!({ "val": 0, "size": 8192, "filename": "/dev/fdset/0" });
    other.execute("pmemsave", save.clone()).unwrap();
    assert_eq!(fs::metadata(&moved).unwrap().len(), 8192);
    other.execute("remove-fd", json!({ "fdset-id": 0, "fd": added["fd"] })).unwrap();
    let gone = refusal(other.execute("pmemsave", save));
    assert_eq!(gone, "Could not open '/dev/fdset/0': No such file or directory");
}

#[test]
fn a_backend_writes_through_a_set_even_after_it_is_gone() {
    let served = Served::start(&[]);
    let mut client = Client::connect(&served.socket).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    client.execute_with_descriptors("add-fd", json!({ "fdset-id": 4 }), &[writer.as_fd()]).unwrap();
    drop(writer);
    let backend = json!({ "type": "ringbuf", "data": { "logfile": "/dev/fdset/4", "logappend": true } });
    client.execute("chardev-add", json!({ "id": "log", "backend": backend })).unwrap();
    client.execute("remove-fd", json!({ "fdset-id": 4 })).unwrap();
    assert_eq!(client.execute("query-fdsets", json!({})).unwrap(), json!([]));
    client.execute("chardev-remove", json!({ "id": "log" })).unwrap();
    // The backend had the last writing end.
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

#[test]
fn several_descriptors_of_one_message_are_taken_in_order() {
    let served = Served::start(&[]);
    let mut client = Client::connect(&served.socket).unwrap();
    let (mut first, a) = std::io::pipe().unwrap();
    let (_second, b) = std::io::pipe().unwrap();
    client.execute_with_descriptors("getfd", json!({ "fdname": "a" }), &[a.as_fd(), b.as_fd()]).unwrap();
    drop((a, b));
    client.execute("closefd", json!({ "fdname": "a" })).unwrap();
    assert_eq!(first.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_descriptor_given_to_a_backend_is_its_own() {
    let served = Served::start(&["-chardev", "null,id=unused"]);
    let mut client = Client::connect(&served.socket).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    client.execute_with_descriptors("getfd", json!({ "fdname": "conn" }), &[theirs.as_fd()]).unwrap();
    drop(theirs);
    let address = json!({ "type": "fd", "data": { "str": "conn" } });
    let backend = json!({ "type": "socket", "data": { "addr": address, "server": false } });
    client.execute("chardev-add", json!({ "id": "named", "backend": backend })).unwrap();
    drop(client);
    let mut other = Client::connect(&served.socket).unwrap();
    other.execute("chardev-remove", json!({ "id": "named" })).unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!((&ours).read(&mut [0]).unwrap(), 0, "the end of the stream, now that the backend is gone");
}

#[test]
fn a_connection_handed_to_a_monitor_is_a_session() {
    let served = Served::start(&[]);
    let mut client = Client::connect(&served.socket).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    client.execute_with_descriptors("getfd", json!({ "fdname": "conn" }), &[theirs.as_fd()]).unwrap();
    let hand = json!({ "protocol": "compat_monitor0", "fdname": "conn" });
    client.execute("add_client", hand).unwrap();
    let mut handed = Client::new(ours).unwrap();
    assert_eq!(handed.execute("query-kvm", json!({})).unwrap()["present"], json!(false));
}

#[test]
fn kernel_and_initial_file_system_may_be_inherited() {
    let (kernel, initrd) = linux().unwrap();
    let (kernel, initrd) = (File::open(kernel).unwrap(), File::open(initrd).unwrap());
    let mut arguments: Vec<String> =
        ["-machine", "pc", "-m", "256", "-S"].iter().map(|word| (*word).to_owned()).collect();
    for (option, file, set) in [("-kernel", &kernel, 1), ("-initrd", &initrd, 2)] {
        fcntl_setfd(file, FdFlags::empty()).unwrap();
        arguments.extend(["-add-fd".to_owned(), format!("fd={},set={set}", file.as_raw_fd())]);
        arguments.extend([option.to_owned(), format!("/dev/fdset/{set}")]);
    }
    let (_machine, connections) = Machine::start(&arguments, Guest::None).unwrap();
    let mut client = Client::new(connections.monitor).unwrap();
    assert_eq!(client.execute("query-status", json!({})).unwrap()["status"], "prelaunch");
    let (mut missing, _) = Machine::start(&["-kernel".to_owned(), "/dev/fdset/1".to_owned()], Guest::None).unwrap();
    assert!(!missing.wait(PATIENCE).unwrap().success());
    assert_eq!(missing.said(), "rhea: Could not open '/dev/fdset/1': No such file or directory\n");
}

#[test]
fn inherited_descriptors_serve_as_monitor_and_as_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("listening");
    let listener = UnixListener::bind(&path).unwrap();
    let mut file = File::create(directory.path().join("out")).unwrap();
    file.write_all(b"head ").unwrap();
    // For the program to inherit.
    fcntl_setfd(&listener, FdFlags::empty()).unwrap();
    fcntl_setfd(&file, FdFlags::empty()).unwrap();
    let arguments = [
        "-chardev".to_owned(),
        format!("socket,id=clients,fd={},server=on,wait=off", listener.as_raw_fd()),
        "-mon".to_owned(),
        "chardev=clients,mode=control".to_owned(),
        "-add-fd".to_owned(),
        format!("fd={},set=2,opaque=log", file.as_raw_fd()),
        "-chardev".to_owned(),
        "ringbuf,id=ring,logfile=/dev/fdset/2,logappend=on".to_owned(),
    ];
    let (_machine, connections) = Machine::start(&arguments, Guest::None).unwrap();
    Monitor::new(connections.monitor).receive(PATIENCE).unwrap();
    drop(listener);
    let mut client = Client::connect(&path).unwrap();
    let listed = client.execute("query-chardev", json!({})).unwrap();
    let row = |label: &str| listed.as_array().unwrap().iter().find(|row| row["label"] == label).unwrap().clone();
    assert_eq!(row("clients")["filename"], format!("unix:{},server=on", path.display()));
    assert_eq!(client.execute("query-fdsets", json!({})).unwrap()[0]["fds"][0]["opaque"], "log");
}
