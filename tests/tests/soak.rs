//! A thousand rounds of what clients do all day: nothing may be left behind, be it descriptors, threads or memory.

#![allow(clippy::unwrap_used)]

mod served;

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rhea_qmp::{Event, client::Client};
use serde_json::{Value, json};
use served::{PATIENCE, Served};

const ROUNDS: usize = 1000;
/// Rounds after which everything has been allocated that stays.
const WARM_UP: usize = 100;
/// How much memory may differ for reasons that are not ours: the allocator's.
const TOLERANCE: u64 = 2048;

/// What a process holds of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    threads: usize,
}

fn holdings(process: i32) -> Holdings {
    let count = |what: &str| fs::read_dir(format!("/proc/{process}/{what}")).unwrap().count();
    Holdings { descriptors: count("fd"), threads: count("task") }
}

/// Memory of the process that is its own, in KiB.
fn memory(process: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Waits until the process holds what it held; sessions end a moment after their clients.
fn settle(process: i32, expected: Holdings) {
    let deadline = Instant::now() + PATIENCE;
    while holdings(process) != expected {
        assert!(Instant::now() < deadline, "{:?} instead of {expected:?}", holdings(process));
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Goes through `round` a thousand times and compares what the program holds.
fn soak(arguments: &[&str], mut round: impl FnMut(&Served, &mut Client<UnixStream>, usize)) {
    let served = Served::start(arguments);
    let process = served.machine.id().as_raw_nonzero().get();
    let mut client = Client::connect(&served.socket).unwrap();
    client.execute("query-status", json!({})).unwrap();
    let before = holdings(process);
    for number in 0..WARM_UP {
        round(&served, &mut client, number);
    }
    settle(process, before);
    let memory_before = memory(process);
    for number in WARM_UP..ROUNDS {
        round(&served, &mut client, number);
    }
    settle(process, before);
    let memory_after = memory(process);
    assert!(memory_after <= memory_before + TOLERANCE, "from {memory_before} to {memory_after} KiB");
}

#[test]
fn descriptors_come_and_go() {
    soak(&["-machine", "pc", "-m", "64", "-S"], |_, client, number| {
        let (_reader, writer) = std::io::pipe().unwrap();
        let name = json!({ "fdname": "pipe" });
        client.execute_with_descriptors("getfd", name.clone(), &[writer.as_fd()]).unwrap();
        client.execute_with_descriptors("getfd", name.clone(), &[writer.as_fd()]).unwrap();
        client.execute("closefd", name).unwrap();
        // One that no command takes.
        client.execute_with_descriptors("query-status", json!({}), &[writer.as_fd()]).unwrap();
        let set = json!({ "fdset-id": number % 3 });
        let added = client.execute_with_descriptors("add-fd", set.clone(), &[writer.as_fd()]).unwrap();
        client.execute_with_descriptors("add-fd", set.clone(), &[writer.as_fd()]).unwrap();
        let save = json!({ "val": 0, "size": 16, "filename": format!("/dev/fdset/{}", number % 3) });
        client.execute("pmemsave", save).unwrap();
        client.execute("remove-fd", json!({ "fdset-id": added["fdset-id"], "fd": added["fd"] })).unwrap();
        client.execute("remove-fd", set).unwrap();
        // The last one that nobody took ends with the next that comes.
        client.execute_with_descriptors("getfd", json!({ "fdname": "last" }), &[writer.as_fd()]).unwrap();
        client.execute("closefd", json!({ "fdname": "last" })).unwrap();
    });
}

#[test]
fn memory_modules_come_and_go() {
    soak(&["-machine", "pc", "-m", "64,slots=2,maxmem=1G", "-S"], |_, client, number| {
        let kind = ["memory-backend-ram", "memory-backend-memfd"][number % 2];
        let backend = json!({ "qom-type": kind, "id": "mem0", "size": 4 << 20, "prealloc": true });
        client.execute("object-add", backend).unwrap();
        client.execute("device_add", json!({ "driver": "pc-dimm", "id": "dimm0", "memdev": "mem0" })).unwrap();
        client.execute("device_del", json!({ "id": "dimm0" })).unwrap();
        // The guest does not run: a reset ends what waits for it.
        client.execute("system_reset", json!({})).unwrap();
        client.execute("object-del", json!({ "id": "mem0" })).unwrap();
    });
}

#[test]
fn character_backends_come_and_go() {
    soak(&[], |served, client, _| {
        let path = |name: &str| served.machine.directory().join(name);
        let address = |name: &str| json!({ "type": "unix", "data": { "path": path(name) } });
        let backends = [
            ("null", json!({ "type": "null", "data": {} })),
            ("ring", json!({ "type": "ringbuf", "data": { "size": 4096 } })),
            ("file", json!({ "type": "file", "data": { "out": path("out"), "logfile": path("log") } })),
            ("pty", json!({ "type": "pty", "data": {} })),
            ("server", json!({ "type": "socket", "data": { "addr": address("socket"), "server": true } })),
            ("client", json!({ "type": "socket", "data": { "addr": address("socket"), "server": false } })),
            (
                "again",
                json!({ "type": "socket", "data": { "addr": address("none"), "server": false, "reconnect": 1 } }),
            ),
            ("mux", json!({ "type": "mux", "data": { "chardev": "server" } })),
        ];
        for (id, backend) in &backends {
            client.execute("chardev-add", json!({ "id": id, "backend": backend })).unwrap();
        }
        client.execute("ringbuf-write", json!({ "device": "ring", "data": "some bytes" })).unwrap();
        client.execute("ringbuf-read", json!({ "device": "ring", "size": 4 })).unwrap();
        let (_ours, theirs) = UnixStream::pair().unwrap();
        client.execute_with_descriptors("getfd", json!({ "fdname": "conn" }), &[theirs.as_fd()]).unwrap();
        // The mux hands it on to its base; the client of above may be there first.
        let _ = client.execute("add_client", json!({ "protocol": "mux", "fdname": "conn" }));
        for (id, _) in backends.iter().rev() {
            client.execute("chardev-remove", json!({ "id": id })).unwrap();
        }
        assert_eq!(client.execute("query-chardev", json!({})).unwrap().as_array().unwrap().len(), 2);
    });
}

#[test]
fn monitors_connect_and_drop() {
    let more = ["-monitor", "unix:@DIR@/people,server=on,wait=off"];
    soak(&more, |served, client, number| {
        // With the door slammed, after negotiation, with a descriptor in hand, and in the middle of a message.
        drop(UnixStream::connect(&served.socket).unwrap());
        let mut other = Client::connect(&served.socket).unwrap();
        let (_reader, writer) = std::io::pipe().unwrap();
        other.execute_with_descriptors("getfd", json!({ "fdname": "x" }), &[writer.as_fd()]).unwrap();
        if number % 2 == 0 {
            other.send(&json!({ "execute": "query-commands" })).unwrap();
        }
        drop(other);
        let mut people = UnixStream::connect(served.machine.directory().join("people")).unwrap();
        people.read_exact(&mut [0; 4]).unwrap();
        drop(people);
        client.execute("query-status", json!({})).unwrap();
    });
}

/// The event that a device is gone, and no other event.
fn gone(client: &mut Client<UnixStream>, data: &Value) {
    let event = client.wait_event("DEVICE_DELETED", Instant::now() + PATIENCE).unwrap();
    assert_eq!(event.data.as_ref(), Some(data));
    let others = client.take_events();
    assert!(others.is_empty(), "{others:?}");
}

fn processors(client: &mut Client<UnixStream>) -> usize {
    client.execute("query-cpus-fast", json!({})).unwrap().as_array().unwrap().len()
}

#[test]
fn processors_come_and_go_before_the_guest_begins() {
    soak(&["-machine", "pc", "-m", "64", "-smp", "1,maxcpus=4", "-S"], |_, client, number| {
        let place = |socket: usize| json!({ "driver": "qemu64-x86_64-cpu", "id": format!("cpu{socket}"), "socket-id": socket, "core-id": 0, "thread-id": 0 });
        let (one, other) = (1 + number % 3, 1 + (number + 1) % 3);
        client.execute("device_add", place(one)).unwrap();
        client.execute("cpu-add", json!({ "id": other })).unwrap();
        client.execute("device_add", place(other)).unwrap_err();
        assert_eq!(processors(client), 3);
        client.execute("query-cpus", json!({})).unwrap();
        client.execute("device_del", json!({ "id": format!("cpu{one}") })).unwrap();
        gone(client, &json!({ "device": format!("cpu{one}"), "path": format!("/machine/peripheral/cpu{one}") }));
        let cpus = client.execute("query-cpus-fast", json!({})).unwrap();
        let path = &cpus[1]["qom-path"];
        client.execute("device_del", json!({ "id": path })).unwrap();
        gone(client, &json!({ "path": path }));
        assert_eq!(processors(client), 1);
    });
}

#[test]
fn processors_that_the_guest_keeps_go_with_a_reset() {
    soak(&["-machine", "pc", "-m", "64", "-smp", "1,maxcpus=2", "-accel", "qtest"], |_, client, _| {
        let place =
            json!({ "driver": "qemu64-x86_64-cpu", "id": "second", "socket-id": 1, "core-id": 0, "thread-id": 0 });
        client.execute("device_add", place).unwrap();
        client.execute("device_del", json!({ "id": "second" })).unwrap();
        client.execute("device_del", json!({ "id": "second" })).unwrap_err();
        assert_eq!(processors(client), 2);
        client.execute("system_reset", json!({})).unwrap();
        client.wait_event("RESET", Instant::now() + PATIENCE).unwrap();
        gone(client, &json!({ "device": "second", "path": "/machine/peripheral/second" }));
        assert_eq!(processors(client), 1);
    });
}

#[test]
fn block_nodes_come_and_go() {
    soak(&["-machine", "none"], |served, client, number| {
        let path = served.machine.directory().join("disk.raw");
        if number == 0 {
            fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
        }
        let file = json!({ "driver": "file", "node-name": "file", "filename": path });
        client.execute("blockdev-add", file.clone()).unwrap();
        client.execute("blockdev-add", json!({ "driver": "raw", "node-name": "raw", "file": "file" })).unwrap();
        assert!(client.execute("blockdev-add", file).is_err());
        assert!(client.execute("blockdev-add", json!({ "driver": "qcow2", "node-name": "q", "file": "raw" })).is_err());
        let within = json!({ "driver": "raw", "node-name": "part", "size": 512,
            "file": { "driver": "null-co", "size": 4096 } });
        client.execute("blockdev-add", within).unwrap();
        assert_eq!(client.execute("query-named-block-nodes", json!({})).unwrap().as_array().unwrap().len(), 4);
        for node in ["part", "raw", "file"] {
            client.execute("blockdev-del", json!({ "node-name": node })).unwrap();
        }
        assert_eq!(client.execute("query-named-block-nodes", json!({})).unwrap(), json!([]));
    });
}

/// Names of the devices that went since the last look, in order; what else happened is counted.
fn departed(client: &mut Client<UnixStream>) -> (Vec<String>, usize) {
    client.execute("query-status", json!({})).unwrap();
    let (gone, others): (Vec<_>, Vec<_>) =
        client.take_events().into_iter().partition(|event| event.name == "DEVICE_DELETED");
    let name = |event: &Event| event.data.as_ref().unwrap()["device"].as_str().unwrap_or_default().to_owned();
    (gone.iter().map(name).collect(), others.len())
}

/// An image that several devices may have one after another.
struct Disk {
    _file: tempfile::NamedTempFile,
    node: String,
}

impl Disk {
    fn new() -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let path = file.path().display();
        let node = format!("driver=raw,node-name=node0,file.driver=file,file.filename={path}");
        Self { _file: file, node }
    }
}

fn add_devices(client: &mut Client<UnixStream>) {
    client.execute("object-add", json!({ "qom-type": "rng-builtin", "id": "rng0" })).unwrap();
    let ring = json!({ "type": "ringbuf", "data": { "size": 4096 } });
    client.execute("chardev-add", json!({ "id": "ring0", "backend": ring })).unwrap();
    for device in [
        json!({ "driver": "virtio-blk-pci", "id": "disk0", "drive": "node0", "bus": "bridge0" }),
        json!({ "driver": "virtio-rng-pci", "id": "random0", "rng": "rng0" }),
        json!({ "driver": "virtio-balloon-pci", "id": "balloon0", "bus": "bridge0" }),
        json!({ "driver": "virtio-serial-pci", "id": "serial0" }),
        json!({ "driver": "virtserialport", "id": "port0", "chardev": "ring0", "bus": "serial0.0" }),
    ] {
        client.execute("device_add", device).unwrap();
    }
    // What cannot be leaves nothing either.
    for device in [
        json!({ "driver": "virtio-blk-pci", "drive": "node0" }),
        json!({ "driver": "virtio-rng-pci", "rng": "rng0", "addr": "1" }),
        json!({ "driver": "virtconsole", "chardev": "ring0" }),
    ] {
        client.execute("device_add", device).unwrap_err();
    }
}

fn remove_backends(client: &mut Client<UnixStream>) {
    client.execute("object-del", json!({ "id": "rng0" })).unwrap();
    client.execute("chardev-remove", json!({ "id": "ring0" })).unwrap();
}

#[test]
fn devices_come_and_go_before_the_guest_runs() {
    let disk = Disk::new();
    let machine = ["-machine", "pc", "-m", "64", "-S", "-device", "pci-bridge,id=bridge0", "-blockdev", &disk.node];
    soak(&machine, |_, client, _| {
        add_devices(client);
        for id in ["disk0", "random0", "balloon0", "serial0"] {
            client.execute("device_del", json!({ "id": id })).unwrap();
        }
        let expected = ["disk0", "random0", "balloon0", "port0", "serial0"].map(str::to_owned).to_vec();
        assert_eq!(departed(client), (expected, 0));
        remove_backends(client);
    });
}

#[test]
fn devices_that_the_guest_keeps_go_with_a_reset() {
    let disk = Disk::new();
    let node = ["-blockdev", &disk.node];
    let machine =
        [&["-machine", "pc", "-m", "64", "-accel", "qtest", "-device", "pci-bridge,id=bridge0"][..], &node].concat();
    soak(&machine, |_, client, _| {
        add_devices(client);
        for id in ["disk0", "random0", "balloon0", "serial0"] {
            client.execute("device_del", json!({ "id": id })).unwrap();
            client.execute("device_del", json!({ "id": id })).unwrap_err();
        }
        assert_eq!(departed(client), (Vec::new(), 0));
        client.execute("system_reset", json!({})).unwrap();
        let (mut names, others) = departed(client);
        names.sort();
        assert_eq!((names.join(" "), others), ("balloon0 disk0 port0 random0 serial0".to_owned(), 1));
        remove_backends(client);
    });
}
