//! A device under fuzzing, and the rules that hold for all of them.

use std::{fmt::Debug, time::Duration};

use rhea_core::{Instant, LoadError};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{bench::Bench, bytes::Bytes};

/// No clock goes on for longer than this: 36 years.
const END_OF_TIME: Instant = Instant::from_nanos(1 << 60);

/// A device.
pub(crate) trait Subject {
    /// Its saved form.
    type State: Serialize + DeserializeOwned + PartialEq + Debug;

    /// Its ports: first one, and how many.
    const PORTS: &'static [(u16, u16)] = &[];
    /// Its memory: address, and how many bytes.
    const MEMORY: &'static [(u64, u64)] = &[];
    /// Its inputs.
    const PINS: u32 = 0;
    /// Whether a reset leaves in it what was put in: then it is not compared with a new one.
    const RESET_KEEPS_PARTS: bool = false;
    /// Whether bytes are used for [`other`](Self::other).
    const OTHER: bool = false;

    fn new(bench: &Bench) -> Self;

    fn reset(&self);

    fn save(&self) -> Self::State;

    fn restore(&self, state: Self::State) -> Result<(), LoadError>;

    /// After a reset, a state as it would be had it been new, given what a reset leaves alone.
    fn after_reset(_before: &Self::State, new: Self::State) -> Self::State {
        new
    }

    fn set_pin(&self, _pin: u32, _level: bool) {}

    /// An access that is none to ports or memory.
    fn other(&self, _bench: &Bench, _bytes: &mut Bytes<'_>) {}
}

/// Reads bytes as a course of events in a device's life; gives how many accesses there were.
pub(crate) fn run<S: Subject>(data: &[u8]) -> u64 {
    let mut bytes = Bytes::new(data);
    let mut bench = Bench::new(bytes.byte());
    let mut subject = S::new(&bench);
    let mut accesses = 0;
    let mut levels = vec![false; S::PINS as usize];
    while !bytes.is_empty() {
        match bytes.byte() {
            0..=0xdf => {
                access(&bench, &subject, &mut levels, &mut bytes);
                accesses += 1;
            }
            0xe0..=0xf8 => {
                let step = u64::from(bytes.byte()) << (bytes.byte() % 40);
                let now = bench.timers.clock().now().saturating_add(Duration::from_nanos(step));
                bench.timers.clock().set(now.min(END_OF_TIME));
                bench.timers.run_expired();
            }
            0xf9..=0xfa => check_reset(&bench, &subject),
            0xfb..=0xfd => (bench, subject) = check_saved(&bench, &subject, &levels),
            _ => corrupt(&bench, &subject, &mut bytes),
        }
    }
    check_reset(&bench, &subject);
    check_saved(&bench, &subject, &levels);
    accesses
}

fn access<S: Subject>(bench: &Bench, subject: &S, levels: &mut [bool], bytes: &mut Bytes<'_>) {
    let kinds = [!S::PORTS.is_empty(), !S::MEMORY.is_empty(), S::PINS > 0, S::OTHER];
    let kinds: Vec<usize> = (0..kinds.len()).filter(|&kind| kinds[kind]).collect();
    match bytes.pick(&kinds) {
        0 => {
            let (base, length) = bytes.pick(S::PORTS);
            let port = base.wrapping_add(bytes.below(length.into()) as u16);
            let width = bytes.width().min(rhea_core::Width::Dword);
            if bytes.byte() & 3 == 0 {
                bench.ports.read(port, width);
            } else {
                bench.ports.write(port, width, bytes.value() as u32);
            }
        }
        1 => {
            let (base, length) = bytes.pick(S::MEMORY);
            let address = base + bytes.below(length);
            let width = bytes.width();
            if bytes.byte() & 3 == 0 {
                bench.memory.read_value(address, width);
            } else {
                bench.memory.write_value(address, width, bytes.value());
            }
        }
        2 => {
            let pin = bytes.below(S::PINS.into()) as usize;
            levels[pin] = bytes.byte() & 1 != 0;
            subject.set_pin(pin as u32, levels[pin]);
        }
        _ => subject.other(bench, bytes),
    }
}

/// Panics with what differs.
fn assert_same<T: Serialize + PartialEq>(found: &T, wanted: &T, when: &str) {
    if found != wanted {
        let of = |state: &T| serde_json::to_value(state).expect("a state can be written");
        let mut differences = Vec::new();
        differ("", &of(found), &of(wanted), &mut differences);
        panic!("{when}: {}", differences.join(", "));
    }
}

fn differ(place: &str, found: &Value, wanted: &Value, differences: &mut Vec<String>) {
    match (found, wanted) {
        (Value::Array(found), Value::Array(wanted)) if found.len() == wanted.len() => {
            for (index, (found, wanted)) in found.iter().zip(wanted).enumerate() {
                differ(&format!("{place}[{index}]"), found, wanted, differences);
            }
        }
        (Value::Object(found), Value::Object(wanted)) if found.keys().eq(wanted.keys()) => {
            for ((name, found), wanted) in found.iter().zip(wanted.values()) {
                differ(&format!("{place}.{name}"), found, wanted, differences);
            }
        }
        _ if found == wanted => {}
        _ => differences.push(format!("{place} is {found}, not {wanted}")),
    }
}

/// A reset device equals a new one.
fn check_reset<S: Subject>(bench: &Bench, subject: &S) {
    let before = subject.save();
    subject.reset();
    if S::RESET_KEEPS_PARTS {
        let once = subject.save();
        subject.reset();
        assert_same(&subject.save(), &once, "after a second reset");
        return;
    }
    let new = S::new(&bench.twin());
    assert_same(&subject.save(), &S::after_reset(&before, new.save()), "after a reset");
}

/// A state put back is the same state, here and in another device, which goes on in place of the first.
fn check_saved<S: Subject>(bench: &Bench, subject: &S, levels: &[bool]) -> (Bench, S) {
    let state = subject.save();
    let written = serde_json::to_string(&state).expect("a state can be written");
    let read = || serde_json::from_str::<S::State>(&written).expect("a state can be read again");
    assert_same(&read(), &state, "written and read");
    subject.restore(read()).unwrap_or_else(|error| panic!("{error}: {state:?}"));
    assert_same(&subject.save(), &state, "put back");
    let other_bench = bench.twin();
    let other = S::new(&other_bench);
    // Whoever drives the inputs still does.
    for (pin, level) in levels.iter().enumerate().filter(|(_, level)| **level) {
        other.set_pin(pin as u32, *level);
    }
    other.restore(read()).unwrap_or_else(|error| panic!("{error}: {state:?}"));
    assert_same(&other.save(), &state, "put into another");
    assert_eq!(other_bench.ends.levels(), bench.ends.levels(), "lines of {state:?}");
    assert_eq!(other_bench.timers.next_deadline(), bench.timers.next_deadline(), "the moment waited for by {state:?}");
    (other_bench, other)
}

/// A state in which one value is another: refused, or as good as any.
fn corrupt<S: Subject>(bench: &Bench, subject: &S, bytes: &mut Bytes<'_>) {
    let mut state = serde_json::to_value(subject.save()).expect("a state can be written");
    let leaves = count(&state);
    let mut chosen = bytes.below(leaves);
    change(&mut state, &mut chosen, bytes);
    if let Ok(state) = serde_json::from_value::<S::State>(state)
        && subject.restore(state).is_ok()
    {
        bench.timers.run_expired();
    }
}

fn count(value: &Value) -> u64 {
    match value {
        Value::Array(values) => values.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        _ => 1,
    }
}

/// Changes leaf number `chosen`.
fn change(value: &mut Value, chosen: &mut u64, bytes: &mut Bytes<'_>) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| change(value, chosen, bytes)),
        Value::Object(members) => members.values_mut().for_each(|value| change(value, chosen, bytes)),
        leaf => {
            if *chosen == 0 {
                *leaf = match (&*leaf, bytes.byte() % 8) {
                    (Value::Bool(on), _) => Value::Bool(!on),
                    (_, 0) => Value::Null,
                    (_, 1) => Value::from(-(bytes.value() as i64 >> 1)),
                    _ => Value::from(bytes.value()),
                };
            }
            *chosen = chosen.wrapping_sub(1);
        }
    }
}
