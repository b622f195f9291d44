//! Tests of saved machines: with a device of every driver, and with what does not fit.

use std::sync::Arc;

use rhea_backends::char::Options as CharOptions;
use rhea_core::{Width, state::Value};
use serde_json::{Value as Json, json};

use super::{
    Description, StateError,
    parts::Incoming,
    stream::{Kind, StateReader, StateWriter},
};
use crate::{
    Accelerator, Backends, BoardKind, Config, DeviceConfig, Machine, TestAccess, Topology, devices::device_types,
    held::Job, hold::Hold, objects::ObjectConfig,
};

const IDENTIFIER: &str = "b3c1f7e2-04d9-4f6a-8e15-7c92ad60b3f1";

fn device(driver: &str, id: Option<&str>, properties: &[(&str, Json)]) -> DeviceConfig {
    let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    DeviceConfig { driver: driver.to_owned(), id: id.map(str::to_owned), properties }
}

/// A device of every driver, and some twice.
fn devices() -> Vec<DeviceConfig> {
    vec![
        device("pci-bridge", Some("bridge"), &[]),
        device("isa-serial", None, &[("chardev", json!("null0"))]),
        device("virtio-rng-pci", None, &[("bus", json!("bridge"))]),
        device("virtio-rng-pci-non-transitional", None, &[]),
        device("virtio-rng-pci-transitional", None, &[]),
        device("virtio-blk-pci", None, &[("drive", json!("disk0")), ("num-queues", json!(3))]),
        device("virtio-blk-pci-non-transitional", None, &[("drive", json!("disk1"))]),
        device("virtio-blk-pci-transitional", None, &[("drive", json!("disk2"))]),
        device("virtio-balloon-pci", None, &[]),
        device("virtio-serial-pci", Some("serial"), &[]),
        device("virtio-serial-pci-non-transitional", None, &[]),
        device("virtio-serial-pci-transitional", None, &[]),
        device("virtconsole", None, &[("chardev", json!("null1")), ("bus", json!("serial.0"))]),
        device("virtserialport", Some("port"), &[("chardev", json!("null2")), ("bus", json!("serial.0"))]),
        device("vmgenid", None, &[("guid", json!(IDENTIFIER))]),
        device("qemu64-x86_64-cpu", None, &[("socket-id", json!(2)), ("core-id", json!(0)), ("thread-id", json!(0))]),
        device("pc-dimm", Some("dimm"), &[("memdev", json!("more"))]),
        device("vmcoreinfo", None, &[]),
        device("pvpanic", None, &[]),
        device("isa-debugcon", None, &[("chardev", json!("null3"))]),
        device("isa-debug-exit", None, &[]),
        device("pc-testdev", None, &[]),
        device("pci-testdev", None, &[]),
        device("i6300esb", Some("watchdog"), &[]),
    ]
}

fn config(devices: Vec<DeviceConfig>) -> Config {
    let mut config = Config::new(BoardKind::Pc, 16 << 20);
    config.accelerator = Accelerator::Qtest;
    config.topology = Topology { cpus: 2, sockets: 4, cores: 1, threads: 1 };
    (config.memory.slots, config.memory.maximum) = (2, 64 << 20);
    let properties = vec![("size".to_owned(), json!(16 << 20))];
    config.objects.push(ObjectConfig { kind: "memory-backend-ram".into(), id: "more".into(), properties });
    for name in ["disk0", "disk1", "disk2"] {
        let node = json!({ "driver": "null-co", "node-name": name, "size": 1 << 20 });
        config.nodes.extend(node.as_object().cloned());
    }
    config.devices = devices;
    config
}

fn machine(config: Config) -> Arc<Machine> {
    let backends = Backends::new().unwrap();
    for id in ["null0", "null1", "null2", "null3"] {
        backends.chars.add(id, &CharOptions::Null.into(), None).unwrap();
    }
    Machine::new(config, backends, Arc::new(|_| ())).unwrap()
}

fn save(machine: &Arc<Machine>) -> Vec<u8> {
    machine.hold_for(Job::Save).unwrap().save_devices(Vec::new()).unwrap()
}

fn load(machine: &Arc<Machine>, state: &[u8]) -> Result<(), String> {
    let hold = machine.hold_for(Job::Load).unwrap();
    hold.load_devices(state).map(drop).map_err(|error| error.to_string())
}

/// Has the guest use some devices, so that they are not as after power-on.
fn use_some(machine: &Arc<Machine>) {
    let access = TestAccess::new(machine);
    for (port, value) in [(0x43, 0x34), (0x40, 0x10), (0x40, 0x27), (0x70, 0x0b), (0x71, 0x42), (0x3f9, 3)] {
        access.port_write(port, Width::Byte, value);
    }
    for (port, value) in [(0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0xfa)] {
        access.port_write(port, Width::Byte, value);
    }
    for slot in 2..16 {
        access.port_write(0xcf8, Width::Dword, 0x8000_0004 | slot << 11);
        access.port_write(0xcfc, Width::Word, 7);
        access.port_write(0xcf8, Width::Dword, 0x8000_0010 | slot << 11);
        access.port_write(0xcfc, Width::Dword, 0xc000 + 0x100 * slot);
        // The status of virtio's legacy interface.
        access.port_write(0xc000 + 0x100 * slot as u16 + 0x12, Width::Byte, 3);
    }
    access.store(0xfed0_0010, Width::Dword, 3);
    access.store(0xfee0_00f0, Width::Dword, 0x1ff);
    access.run_until(access.now().saturating_add(std::time::Duration::from_micros(12_345))).unwrap();
    machine.processors().get(1).unwrap().with(|vcpu| vcpu.state_mut().gpr[3] = 77).unwrap();
}

/// A saved machine in which the part at `place` is changed.
fn with_part(state: &[u8], place: &str, change: impl Fn(&mut Vec<(Value, Value)>) -> bool) -> Vec<u8> {
    let mut reader = StateReader::new(state).unwrap();
    let mut writer = StateWriter::new(Vec::new()).unwrap();
    while let Some((kind, payload)) = reader.next().unwrap() {
        let mut value: Value = ciborium::from_reader(payload).unwrap();
        let Value::Map(members) = &mut value else { panic!("{value:?}") };
        let here = members.iter().any(|(name, value)| {
            kind == Kind::Part && name.as_text() == Some("part") && value.as_text() == Some(place)
        });
        if !here || change(members) {
            let mut bytes = Vec::new();
            ciborium::into_writer(&value, &mut bytes).unwrap();
            writer.frame(kind, &bytes).unwrap();
        }
    }
    writer.finish().unwrap()
}

fn member<'a>(members: &'a mut [(Value, Value)], name: &str) -> &'a mut Value {
    &mut members.iter_mut().find(|(key, _)| key.as_text() == Some(name)).unwrap().1
}

#[test]
fn there_is_a_device_of_every_driver_to_try() {
    let tried = devices();
    for (info, _) in device_types() {
        // Those for some drivers in guests differ in their features alone.
        let name = info.name.trim_end_matches("-transitional").trim_end_matches("-non");
        // So do models of processors.
        let tried = name.ends_with("-x86_64-cpu") || tried.iter().any(|device| device.driver == name);
        assert!(tried, "{name} is not tried");
    }
}

#[test]
fn a_machine_with_every_device_comes_back_in_another() {
    let (first, second) = (machine(config(devices())), machine(config(devices())));
    use_some(&first);
    let state = save(&first);
    assert_ne!(save(&second), state);
    load(&second, &state).unwrap();
    assert_eq!(second.clock().now(), first.clock().now());
    assert_eq!(second.processors().get(1).unwrap().with(|vcpu| vcpu.state().gpr[3]), Some(77));
    let again = save(&second);
    let (a, b) = (parts(&state), parts(&again));
    for ((place, one), (_, other)) in a.iter().zip(&b) {
        // The clock of date and time has seen the host's go on.
        assert!(one == other || place == "rtc", "{place}: {one:?} is now {other:?}");
    }
    assert_eq!(a.len(), b.len());
    // And both go on in the same way.
    let until = first.clock().now().saturating_add(std::time::Duration::from_millis(50));
    let deadlines: Vec<_> = [&first, &second]
        .map(|machine| {
            let access = TestAccess::new(machine);
            access.run_until(until).unwrap();
            (access.next_deadline(), access.port_read(0x20, Width::Byte), access.port_read(0x40, Width::Byte))
        })
        .into();
    assert_eq!(deadlines[0], deadlines[1]);
}

/// The places of parts that differ.
fn different(one: &[u8], other: &[u8]) -> Vec<String> {
    let (one, other) = (parts(one), parts(other));
    assert_eq!(one.len(), other.len());
    one.into_iter().zip(other).filter(|(one, other)| one != other).map(|(one, _)| one.0).collect()
}

fn parts(state: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut reader = StateReader::new(state).unwrap();
    let mut parts = Vec::new();
    while let Some((_, payload)) = reader.next().unwrap() {
        let value: Value = ciborium::from_reader(payload).unwrap();
        let mut members = value.into_map().unwrap();
        let place = members.iter().position(|(key, _)| key.as_text() == Some("part"));
        let place = place.map_or(String::new(), |at| members.swap_remove(at).1.into_text().unwrap());
        parts.push((place, payload.to_vec()));
    }
    parts
}

#[test]
fn a_state_that_does_not_fit_is_refused_by_name_and_changes_nothing() {
    let first = machine(config(devices()));
    use_some(&first);
    let state = save(&first);
    let refuse = |config: Config, reason: &str| {
        let other = machine(config);
        let before = save(&other);
        assert_eq!(load(&other, &state).unwrap_err(), reason);
        assert!(before == save(&other), "{reason}: something changed");
    };
    let without = |driver: &str| devices().into_iter().filter(|device| device.driver != driver).collect();
    refuse(
        config(without("i6300esb")),
        "the state has 'i6300esb' at 'pci.0/0d.0', and this machine nothing: see -device",
    );
    refuse(
        config(without("qemu64-x86_64-cpu")),
        "the state does not fit this machine: it has the processors 0, 1, 2, and this machine 0, 1: see -smp and -device",
    );
    refuse(
        config(without("pc-dimm")),
        "the state does not fit this machine: it has memory 'more' at address 0x100000000, which this machine does not: \
         see -m and -device pc-dimm",
    );
    let small = Config { ram: 8 << 20, ..config(devices()) };
    refuse(
        small,
        "the state does not fit this machine: its memory 'pc.ram' has 16777216 bytes, and this machine's 8388608: see -m",
    );
    let mut more = devices();
    more.push(device("i6300esb", None, &[("addr", json!("1e"))]));
    refuse(config(more), "this machine has 'i6300esb' at 'pci.0/1e.0', and the state nothing: see -device");
    let mut other = devices();
    other.retain(|device| device.driver != "i6300esb");
    other.push(device("virtio-rng-pci", None, &[]));
    refuse(config(other), "the state has 'i6300esb' at 'pci.0/0d.0', and this machine 'virtio-rng-pci': see -device");
}

#[test]
fn a_part_that_is_refused_late_leaves_all_others_as_they_were() {
    let (first, second) = (machine(config(devices())), machine(config(devices())));
    use_some(&first);
    let (state, before) = (save(&first), save(&second));
    let refused = |state: &[u8], reason: &str| {
        let error = load(&second, state).unwrap_err();
        assert!(error.contains(reason), "{error}");
        assert_eq!(different(&before, &save(&second)), Vec::<String>::new(), "{reason}");
    };
    let none = |_: &mut Vec<(Value, Value)>| false;
    refused(&with_part(&state, "cpu.1", none), "this machine has 'x86_64-cpu' at 'cpu.1', and the state nothing");
    refused(&with_part(&state, "machine", none), "it does not say how the machine goes on");
    let empty = |members: &mut Vec<(Value, Value)>| {
        *member(members, "state") = Value::Map(Vec::new());
        true
    };
    refused(&with_part(&state, "cpu.2", empty), "'cpu.2': saved state of 'x86_64-cpu': of another form");
    refused(&with_part(&state, "machine", empty), "'machine': saved state of 'machine': of another form");
    let newer = |members: &mut Vec<(Value, Value)>| {
        *member(members, "version") = Value::from(2);
        true
    };
    refused(&with_part(&state, "ioapic", newer), "the state of 'ioapic' has version 2, and only 1 is known");
}

#[test]
fn a_frame_with_something_behind_its_part_or_a_part_twice_is_refused() {
    let mut incoming = Incoming::default();
    assert!(matches!(incoming.push(&[0xff]), Err(StateError::Form(_))));
    assert!(matches!(incoming.push(&[]), Err(StateError::Form(_))));
    let state = save(&machine(config(Vec::new())));
    let (_, payload) = parts(&state).pop().unwrap();
    incoming.push(&payload).unwrap();
    assert!(matches!(incoming.push(&payload), Err(StateError::Twice(_))));
    let longer = [payload, vec![0]].concat();
    assert!(matches!(Incoming::default().push(&longer), Err(StateError::Form(_))));
}

#[test]
fn nothing_else_happens_to_a_machine_that_is_held() {
    let machine = machine(config(Vec::new()));
    machine.power_on();
    let hold: Hold = machine.hold_for(Job::Save).unwrap();
    assert!(hold.ran() && hold.stands());
    let busy = "The machine's state is being saved, please wait.";
    for result in [
        machine.stop(),
        machine.cont(),
        machine.reset(rhea_api::run_state::ShutdownCause::HostQmpSystemReset),
        machine.device_add(device("virtio-rng-pci", None, &[])),
        machine.device_del("port").map(drop),
        machine.hold_for(Job::Dump).map(drop),
    ] {
        assert_eq!(result.unwrap_err().to_string(), busy);
    }
    drop(hold);
    assert_eq!(machine.state(), rhea_api::run_state::RunState::Running);
    machine.device_add(device("virtio-rng-pci", None, &[])).unwrap();
    assert_eq!(Description::of(&machine).processors, [0, 1]);
}
