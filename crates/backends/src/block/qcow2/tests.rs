//! Tests of snapshots within images, with the tools of other people as judges.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{super::BlockNodes, NewSnapshot, SnapshotError};
use crate::block::Node;

fn qemu_img(arguments: &[&str]) -> String {
    let output = Command::new("qemu-img").args(arguments).output().expect("qemu-img (qemu-utils) is there");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "qemu-img {arguments:?}: {text}");
    text
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

struct Image {
    _directory: tempfile::TempDir,
    path: PathBuf,
    nodes: Arc<BlockNodes>,
    node: Option<Arc<Node>>,
}

impl Image {
    fn new(size: &str, options: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d.qcow2");
        let options = if options.is_empty() { "compat=1.1" } else { options };
        qemu_img(&["create", "-q", "-f", "qcow2", "-o", options, text(&path), size]);
        let mut image = Self { _directory: directory, path, nodes: BlockNodes::new(), node: None };
        image.open();
        image
    }

    fn open(&mut self) {
        let options: Value =
            json!({ "driver": "qcow2", "node-name": "q", "file": { "driver": "file", "filename": text(&self.path) } });
        self.nodes.add(options.as_object().unwrap()).unwrap();
        self.node = self.nodes.find("q");
    }

    fn close(&mut self) {
        self.node = None;
        self.nodes.remove("q").unwrap();
    }

    fn node(&self) -> &Arc<Node> {
        self.node.as_ref().unwrap()
    }

    fn save(&self, name: &str, state: &[u8]) -> Result<(), String> {
        let mut writer = self.node().begin_snapshot().map_err(|error| error.to_string())?;
        writer.write_all(state).map_err(|error| error.to_string())?;
        let new = NewSnapshot { name: name.to_owned(), seconds: 1_700_000_000, nanoseconds: 5, clock: 61_500_000_000 };
        writer.finish(new).map_err(|error| error.to_string())
    }

    fn go_back(&self, name: &str) {
        let snapshot = self.node().snapshot(name).unwrap();
        self.nodes.go_back(self.node(), &snapshot.id).unwrap();
    }

    fn delete(&self, name: &str) {
        let snapshot = self.node().snapshot(name).unwrap();
        self.nodes.delete_snapshot(self.node(), &snapshot.id).unwrap();
    }

    fn state(&self, name: &str) -> Vec<u8> {
        let mut state = Vec::new();
        let id = self.node().snapshot(name).unwrap().id;
        self.node().read_snapshot(&id).unwrap().read_to_end(&mut state).unwrap();
        state
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.node().size() as usize];
        self.node().read(0, &mut bytes).unwrap();
        bytes
    }

    /// Has another program look at the image as it is on the host, be it in the middle of things.
    fn check(&self) {
        self.node().flush().unwrap();
        let copy = self.path.with_extension("copy");
        fs::copy(&self.path, &copy).unwrap();
        let said = qemu_img(&["check", text(&copy)]);
        assert!(said.contains("No errors were found"), "{said}");
    }
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn another_program_sees_the_snapshots_and_goes_back_to_them() {
    let mut image = Image::new("16M", "");
    image.node().write(0, &[1; 70000]).unwrap();
    image.node().write(9 << 20, &[1; 5]).unwrap();
    let state = noise(3_000_001, 7);
    image.save("one", &state).unwrap();
    image.check();
    image.node().write(3, &[2; 70000]).unwrap();
    image.save("two", &[]).unwrap();
    image.node().write(1 << 20, &[3; 70000]).unwrap();
    image.check();
    let listed = image.node().snapshots();
    assert_eq!((listed[0].id.as_str(), listed[0].name.as_str(), listed[0].state_size), ("1", "one", 3_000_001));
    assert_eq!((listed[1].id.as_str(), listed[1].clock, listed[1].disk_size), ("2", 61_500_000_000, Some(16 << 20)));
    assert_eq!(image.state("one"), state);
    assert!(image.state("two").is_empty());
    image.close();
    let said = qemu_img(&["snapshot", "-l", text(&image.path)]);
    for part in ["one", "two", "2.86 MiB", "0000:01:01.500"] {
        assert!(said.contains(part), "{said}");
    }
    qemu_img(&["snapshot", "-a", "one", text(&image.path)]);
    image.open();
    let bytes = image.bytes();
    assert_eq!((bytes[0], bytes[69999], bytes[70001], bytes[1 << 20], bytes[(9 << 20) + 4]), (1, 1, 0, 0, 1));
    // Its program leaves the machine's state behind the disk: it goes with the next snapshot.
    image.save("three", b"state").unwrap();
    image.check();
    image.delete("one");
    image.check();
    image.go_back("two");
    image.check();
    assert_eq!(image.bytes()[3], 2);
    assert_eq!(image.state("three"), b"state");
    image.close();
    qemu_img(&["snapshot", "-d", "two", text(&image.path)]);
    assert!(qemu_img(&["check", text(&image.path)]).contains("No errors"));
}

#[test]
fn counts_of_few_bits_are_enough_or_refused() {
    for (bits, most) in [(1, 0), (2, 2), (4, 14), (64, 20)] {
        let image = Image::new("4M", &format!("refcount_bits={bits}"));
        image.node().write(0, &[1; 200_000]).unwrap();
        for number in 0..20 {
            let made = image.save(&format!("s{number}"), &[number as u8; 10]);
            assert_eq!(made.is_ok(), number < most, "{bits} bits, {number}: {made:?}");
            if let Err(said) = made {
                assert!(said.starts_with("Error while creating snapshot on 'q': the image counts"), "{said}");
            }
        }
        image.check();
        assert_eq!(image.node().snapshots().len(), most.min(20));
        image.node().write(100, &[9; 10]).unwrap();
        image.check();
        for number in 0..most.min(20) {
            image.delete(&format!("s{number}"));
        }
        image.check();
    }
}

#[test]
fn images_of_all_kinds_keep_what_they_stand_on_and_what_is_compressed() {
    let directory = tempfile::tempdir().unwrap();
    let raw = directory.path().join("raw");
    fs::write(&raw, noise(1 << 20, 3).repeat(4)).unwrap();
    let base = directory.path().join("base");
    for kind in ["-c", "-q"] {
        for options in ["compat=0.10", "cluster_size=512", "cluster_size=2M"] {
            qemu_img(&["convert", kind, "-O", "qcow2", "-o", options, text(&raw), text(&base)]);
            let mut image = Image::new("4M", "");
            image.close();
            fs::copy(&base, &image.path).unwrap();
            image.open();
            let before = image.bytes();
            image.save("s", &noise(100_000, 4)).unwrap();
            image.check();
            image.node().write(1000, &[7; 300_000]).unwrap();
            image.node().write_zeroes(2 << 20, 1 << 20, false).unwrap();
            image.node().write_zeroes(3 << 20, 1 << 20, true).unwrap();
            image.check();
            assert_eq!(image.state("s"), noise(100_000, 4));
            image.go_back("s");
            image.check();
            assert!(image.bytes() == before, "{kind} {options}");
            image.node().write((2 << 20) + 5, &[7; 300_000]).unwrap();
            image.delete("s");
            image.check();
        }
    }
    // One that stands on another.
    let mut image = Image::new("4M", "");
    image.close();
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", text(&base), text(&image.path)]);
    image.open();
    image.save("s", &[]).unwrap();
    image.node().write(0, &[1; 512]).unwrap();
    image.go_back("s");
    image.check();
    assert!(image.bytes() == fs::read(&raw).unwrap());
}

#[test]
fn a_snapshot_remembers_the_size_of_the_disk() {
    let image = Image::new("1M", "");
    image.node().write(0, &[1; 512]).unwrap();
    image.save("small", b"s").unwrap();
    image.nodes.resize("q", 3 << 30).unwrap();
    image.node().write((3 << 30) - 512, &[2; 512]).unwrap();
    image.save("large", b"l").unwrap();
    image.check();
    image.go_back("small");
    assert_eq!((image.node().size(), image.state("large")), (1 << 20, b"l".to_vec()));
    image.check();
    image.go_back("large");
    assert_eq!((image.node().size(), image.state("small")), (3 << 30, b"s".to_vec()));
    let mut last = [0; 512];
    image.node().read((3 << 30) - 512, &mut last).unwrap();
    assert_eq!(last, [2; 512]);
    image.check();
    // A disk that shrinks keeps what it had.
    image.nodes.resize("q", 512).unwrap();
    image.check();
    image.save("least", b"x").unwrap();
    image.check();
    image.go_back("large");
    image.node().read((3 << 30) - 512, &mut last).unwrap();
    assert_eq!((last, image.state("least")), ([2; 512], b"x".to_vec()));
    image.check();
}

#[test]
fn an_image_that_another_program_has_is_left_alone() {
    let image = Image::new("1M", "");
    image.save("s", b"s").unwrap();
    image.nodes.inactivate().unwrap();
    let inactive = "Node 'q' is inactive";
    assert_eq!(image.save("t", b"t").unwrap_err(), inactive);
    assert_eq!(image.nodes.go_back(image.node(), "1").unwrap_err().to_string(), inactive);
    assert_eq!(image.nodes.delete_snapshot(image.node(), "1").unwrap_err().to_string(), inactive);
    image.nodes.activate().unwrap();
    image.go_back("s");
    image.check();
}

#[test]
fn what_is_given_up_leaves_the_image_as_it_was() {
    let image = Image::new("4M", "");
    image.node().write(0, &[1; 100_000]).unwrap();
    image.node().flush().unwrap();
    let mut writer = image.node().begin_snapshot().unwrap();
    writer.write_all(&noise(5 << 20, 1)).unwrap();
    assert!(image.node().write(0, &[9]).is_err(), "nobody writes meanwhile");
    let copy = image.path.with_extension("copy");
    fs::copy(&image.path, &copy).unwrap();
    drop(writer);
    let said = qemu_img(&["check", text(&copy)]);
    assert!(said.contains("No errors"), "a program that is killed loses nothing: {said}");
    image.node().write(50_000, &[2; 100_000]).unwrap();
    image.check();
    assert!(image.node().snapshots().is_empty());
    let gone = image.nodes.delete_snapshot(image.node(), "1").unwrap_err().to_string();
    assert_eq!(gone, "Error while deleting snapshot on 'q': there is no such snapshot");
    let gone = image.nodes.go_back(image.node(), "1").unwrap_err().to_string();
    assert_eq!(gone, "Error while loading snapshot on 'q': there is no such snapshot");
}

#[test]
fn what_is_no_image_has_no_snapshots() {
    let nodes = BlockNodes::new();
    let options = json!({ "driver": "null-co", "node-name": "n", "size": 512 });
    nodes.add(options.as_object().unwrap()).unwrap();
    let node = nodes.find("n").unwrap();
    let said = node.begin_snapshot().map(drop).unwrap_err().to_string();
    assert_eq!(
        (said.as_str(), node.takes_snapshots()),
        ("Device 'n' is writable but does not support snapshots", false)
    );
}

/// A file in memory that ends after a number of writes, as one does whose program was killed.
struct Killed {
    bytes: parking_lot::Mutex<Vec<u8>>,
    left: std::sync::atomic::AtomicUsize,
}

impl super::editor::ImageFile for &Killed {
    fn size(&self) -> u64 {
        self.bytes.lock().len() as u64
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> std::io::Result<()> {
        let bytes = self.bytes.lock();
        for (at, byte) in data.iter_mut().enumerate() {
            *byte = bytes.get(offset as usize + at).copied().unwrap_or(0);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        use std::sync::atomic::Ordering;
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.checked_sub(1).ok_or(std::io::ErrorKind::BrokenPipe)?, Ordering::Relaxed);
        let mut bytes = self.bytes.lock();
        let end = offset as usize + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(data);
        Ok(())
    }

    fn flush(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn discard(&self, _: u64, _: u64) -> std::io::Result<()> {
        Ok(())
    }
}

type Change<'a> = &'a dyn Fn(&Killed) -> Result<(), SnapshotError>;

#[test]
fn the_end_at_any_write_leaves_an_image_without_errors_or_leaks() {
    let mut image = Image::new("1G", "cluster_size=4k");
    for at in 0..40 {
        image.node().write(at * (5 << 20), &[at as u8; 10_000]).unwrap();
    }
    image.save("a", &noise(50_000, 1)).unwrap();
    image.node().write(7 << 20, &[1; 100_000]).unwrap();
    image.save("b", &noise(50_000, 1)).unwrap();
    image.node().write(9 << 20, &[2; 100_000]).unwrap();
    image.close();
    let bytes = fs::read(&image.path).unwrap();
    let new = || NewSnapshot { name: "c".to_owned(), seconds: 1, nanoseconds: 0, clock: 0 };
    let changes: [Change; 3] = [
        &|file| {
            let mut writer = super::Writer::new(file)?;
            let _ = writer.write_all(&noise(3 << 20, 2));
            writer.finish(new())
        },
        &|file| super::go_back(file, "1"),
        &|file| super::delete(file, "1"),
    ];
    for change in changes {
        for writes in 0.. {
            let left = std::sync::atomic::AtomicUsize::new(writes);
            let file = Killed { bytes: parking_lot::Mutex::new(bytes.clone()), left };
            let done = change(&file).is_ok();
            if done || writes % 7 == 0 {
                fs::write(&image.path, &*file.bytes.lock()).unwrap();
                let said = qemu_img(&["check", text(&image.path)]);
                assert!(said.contains("No errors were found"), "after {writes}: {said}");
            }
            if done {
                break;
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write { at: usize, length: usize, value: u8 },
    Zero { at: usize, length: usize, unmap: bool },
    Save(u8),
    Back(u8),
    Delete(u8),
    Reopen,
}

const DISK: usize = 3 << 20;

fn step() -> impl Strategy<Value = Step> {
    let range = || (0..DISK, 1_usize..200_000);
    prop_oneof![
        4 => (range(), any::<u8>()).prop_map(|((at, length), value)| Step::Write { at, length, value }),
        1 => (range(), any::<bool>()).prop_map(|((at, length), unmap)| Step::Zero { at, length, unmap }),
        2 => (0_u8..4).prop_map(Step::Save),
        1 => (0_u8..4).prop_map(Step::Back),
        1 => (0_u8..4).prop_map(Step::Delete),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_history_is_that_of_a_model(
        steps in prop::collection::vec(step(), 1..30),
        options in prop::sample::select(vec!["cluster_size=64k", "cluster_size=4k", "cluster_size=512,refcount_bits=64", "compat=0.10", "refcount_bits=8,cluster_size=1k"]),
    ) {
        let mut image = Image::new("3M", options);
        let mut disk = vec![0_u8; DISK];
        let mut saved: Vec<(String, Vec<u8>, Vec<u8>)> = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            match *step {
                Step::Write { at, length, value } => {
                    let data = &mut disk[at..(at + length).min(DISK)];
                    data.fill(value);
                    image.node().write(at as u64, data).unwrap();
                }
                Step::Zero { at, length, unmap } => {
                    let end = (at + length).min(DISK);
                    disk[at..end].fill(0);
                    image.node().write_zeroes(at as u64, (end - at) as u64, unmap).unwrap();
                }
                Step::Save(name) => {
                    let name = format!("s{name}");
                    if saved.iter().all(|(other, ..)| *other != name) {
                        let state = noise(number * 10_000, number as u64);
                        image.save(&name, &state).unwrap();
                        saved.push((name, disk.clone(), state));
                    }
                }
                Step::Back(name) => {
                    if let Some((name, was, _)) = saved.iter().find(|(other, ..)| *other == format!("s{name}")) {
                        image.go_back(name);
                        disk.clone_from(was);
                    }
                }
                Step::Delete(name) => {
                    if let Some(at) = saved.iter().position(|(other, ..)| *other == format!("s{name}")) {
                        image.delete(&saved.remove(at).0);
                    }
                }
                Step::Reopen => {
                    image.close();
                    image.open();
                }
            }
            prop_assert!(image.bytes() == disk);
        }
        image.check();
        for (name, _, state) in &saved {
            prop_assert!(image.state(name) == *state);
        }
        image.close();
        for (name, was, _) in &saved {
            qemu_img(&["snapshot", "-a", name, text(&image.path)]);
            let raw = image.path.with_extension("raw");
            qemu_img(&["convert", "-O", "raw", text(&image.path), text(&raw)]);
            prop_assert!(fs::read(&raw).unwrap() == *was);
        }
    }
}
