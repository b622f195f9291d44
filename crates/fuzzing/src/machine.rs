//! Saved machines that are cut, damaged or wrong, loaded into a small machine: each is refused or loaded, and the machine
//! can be saved, and given a good state, after it.

use std::sync::Arc;

use rhea_core::state::Value;
use rhea_machine::{
    Accelerator, Backends, BoardKind, Config, DeviceConfig, Machine, TestAccess,
    held::Job,
    hold::Hold,
    state::stream::{Kind, StateReader, StateWriter},
};

use crate::bytes::Bytes;

/// Drivers of the devices in the machine.
const DRIVERS: [&str; 7] =
    ["virtio-rng-pci", "virtio-balloon-pci", "virtio-serial-pci", "i6300esb", "vmgenid", "vmcoreinfo", "pci-bridge"];

fn machine() -> Arc<Machine> {
    let device = |driver: &str| DeviceConfig { driver: driver.to_owned(), id: None, properties: Vec::new() };
    let mut config = Config::new(BoardKind::Pc, 2 << 20);
    config.accelerator = Accelerator::Qtest;
    config.devices = DRIVERS.map(device).into();
    let backends = Backends::new().expect("the host has threads");
    Machine::new(config, backends, Arc::new(|_| ())).expect("the machine can be")
}

fn save(hold: &Hold) -> Vec<u8> {
    hold.save_devices(Vec::new()).unwrap_or_else(|error| panic!("{error}"))
}

/// Saved machines of all kinds; counts their bytes.
pub(crate) fn state_stream(data: &[u8]) -> u64 {
    let mut bytes = Bytes::new(data);
    let machine = machine();
    let hold = machine.hold_for(Job::Load).expect("nothing else is under way");
    let (good, access) = (save(&hold), TestAccess::new(&machine));
    let mut count = 0;
    while !bytes.is_empty() {
        let stream = match bytes.byte() % 8 {
            0 => good[..bytes.below(good.len() as u64) as usize].to_vec(),
            1 => [&good[..12], bytes.take(200)].concat(),
            2 => {
                let mut damaged = good.clone();
                for _ in 0..1 + bytes.byte() % 8 {
                    let at = bytes.below(damaged.len() as u64) as usize;
                    damaged[at] = bytes.byte();
                }
                damaged
            }
            _ => changed(&good, &mut bytes),
        };
        count += stream.len() as u64;
        if hold.load_devices(&stream[..]).is_ok() {
            access.settle();
        }
        // Whatever it was, the machine has a state, and takes a good one.
        save(&hold);
        hold.load_devices(&good[..]).unwrap_or_else(|error| panic!("{error}"));
    }
    drop(hold);
    machine.processors().quit();
    count
}

/// A good state with other values in some of its frames, or without them, whose checksums are right.
fn changed(good: &[u8], bytes: &mut Bytes<'_>) -> Vec<u8> {
    let mut reader = StateReader::new(good).unwrap();
    let mut writer = StateWriter::new(Vec::new()).unwrap();
    let mut frames: Vec<(Kind, Vec<u8>)> = Vec::new();
    while let Some((kind, payload)) = reader.next().unwrap() {
        frames.push((kind, payload.to_vec()));
    }
    for _ in 0..1 + bytes.byte() % 3 {
        let at = bytes.below(frames.len() as u64) as usize;
        let mut value: Value = ciborium::from_reader(&frames[at].1[..]).unwrap();
        let mut chosen = bytes.below(leaves(&value));
        change(&mut value, &mut chosen, bytes);
        frames[at].1.clear();
        ciborium::into_writer(&value, &mut frames[at].1).unwrap();
    }
    if bytes.byte() == 0 {
        frames.remove(bytes.below(frames.len() as u64) as usize);
    }
    for (kind, payload) in frames {
        writer.frame(kind, &payload).unwrap();
    }
    writer.finish().unwrap()
}

fn leaves(value: &Value) -> u64 {
    match value {
        Value::Array(values) => values.iter().map(leaves).sum(),
        Value::Map(members) => members.iter().map(|(_, value)| leaves(value)).sum(),
        _ => 1,
    }
}

/// Changes leaf number `chosen`.
fn change(value: &mut Value, chosen: &mut u64, bytes: &mut Bytes<'_>) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| change(value, chosen, bytes)),
        Value::Map(members) => members.iter_mut().for_each(|(_, value)| change(value, chosen, bytes)),
        leaf => {
            if *chosen == 0 {
                *leaf = match (&*leaf, bytes.byte() % 8) {
                    (Value::Bool(on), _) => Value::Bool(!on),
                    (_, 0) => Value::Null,
                    (_, 1) => Value::from(-(bytes.value() as i64 >> 1)),
                    (_, 2) => Value::Array(vec![Value::from(bytes.value()); 3]),
                    _ => Value::from(bytes.value()),
                };
            }
            *chosen = chosen.wrapping_sub(1);
        }
    }
}
