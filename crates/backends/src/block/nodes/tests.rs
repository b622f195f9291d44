//! Tests of the graph of nodes.

use std::process::Command;

use proptest::prelude::*;
use rhea_core::{BlockMedium as _, files};
use serde_json::json;

use super::{super::throttle::Limits, *};

/// A file of `size` zeros.
fn raw(size: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(size).unwrap();
    file
}

/// Makes an image by another program, as users do it.
fn qcow2(path: &Path, size: &str, backing: Option<&Path>) {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2"]);
    if let Some(backing) = backing {
        command.arg("-F").arg("qcow2").arg("-b").arg(backing);
    }
    let made = command.arg(path).arg(size).status().expect("qemu-img (qemu-utils) is there");
    assert!(made.success());
}

fn check(path: &Path) {
    let check = Command::new("qemu-img").arg("check").arg(path).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}

#[allow(clippy::needless_pass_by_value, reason = "for json! in place")]
fn add(nodes: &BlockNodes, options: Value) -> Result<(), String> {
    nodes.add(options.as_object().unwrap()).map_err(|error| error.to_string())
}

fn drive(id: &str, node: &Value) -> DriveConfig {
    DriveConfig { id: id.to_owned(), node: node.as_object().unwrap().clone(), serial: None, limits: None }
}

fn file(path: &Path) -> Value {
    json!({ "driver": "file", "filename": path.display().to_string() })
}

#[test]
fn limits_are_those_of_the_drive_and_of_all_nodes_below() {
    let disk = raw(1 << 20);
    let nodes = BlockNodes::new();
    let mut limits = Limits::default();
    limits.set("iops-write", 1).unwrap();
    let group = Arc::new(ThrottleGroup::new("g", limits).unwrap());
    let found = Arc::clone(&group);
    nodes.find_groups_by(move |name| Some(Arc::clone(&found)).filter(|group| group.name() == name));
    let node = json!({
        "driver": "raw",
        "file": { "driver": "throttle", "throttle-group": "g", "file": file(disk.path()) }
    });
    let own = DriveLimits { group: None, values: vec![("bps-read".to_owned(), 1000)] };
    nodes.add_drive(&DriveConfig { limits: Some(own), ..drive("d", &node) }).unwrap();
    assert!(group.has_members());
    let usage = nodes.claim("d", "v").unwrap();
    assert_eq!(usage.admit(0, false, 4096), Ok(()));
    assert!(usage.admit(0, false, 4096).is_err(), "the drive's");
    assert_eq!(usage.admit(1, true, 4096), Ok(()));
    assert!(usage.admit(1, true, 4096).is_err(), "the node's");
    let told = Arc::new(Mutex::new(0));
    let count = Arc::clone(&told);
    usage.on_limits(move || *count.lock() += 1);
    group.set_limits(Limits::default()).unwrap();
    assert_eq!((usage.admit(1, true, 4096), *told.lock()), (Ok(()), 1));
    assert_eq!(nodes.disks()[0].limits.as_ref().map(|group| group.name().to_owned()), Some("d".into()));
    drop(usage);
    assert!(!group.has_members(), "the drive has ended with its device");
    let wrong = DriveLimits { group: None, values: vec![("bps-read-max".to_owned(), 1000)] };
    let refused = nodes.add_drive(&DriveConfig { limits: Some(wrong), ..drive("e", &node) });
    assert!(refused.unwrap_err().to_string().contains("require corresponding"));
    assert!(!group.has_members());
}

#[test]
fn nodes_stand_on_nodes_and_leave_from_the_top() {
    let disk = raw(1 << 20);
    let nodes = BlockNodes::new();
    let name = disk.path().display().to_string();
    add(&nodes, json!({ "driver": "file", "node-name": "f", "filename": name })).unwrap();
    add(&nodes, json!({ "driver": "raw", "node-name": "r", "file": "f" })).unwrap();
    assert_eq!(
        add(&nodes, json!({ "driver": "raw", "node-name": "r", "file": "f" })),
        Err("Duplicate nodes with node-name='r'".into())
    );
    assert_eq!(
        add(&nodes, json!({ "driver": "raw", "node-name": "s", "file": "x" })),
        Err("Cannot find device='x' nor node-name='x'".into())
    );
    assert_eq!(
        add(&nodes, json!({ "driver": "raw", "file": "f" })),
        Err("'node-name' must be specified for the root node".into())
    );
    assert_eq!(nodes.remove("f").unwrap_err().to_string(), "Block device f is in use");
    let usage = nodes.claim("r", "/machine/peripheral/v").unwrap();
    assert_eq!(nodes.remove("r").unwrap_err().to_string(), "Node r is in use");
    let conflict = nodes.claim("f", "w").unwrap_err().to_string();
    assert!(conflict.starts_with("Permission conflict on node 'f'"), "{conflict}");
    usage.write(512, &[7; 512]).unwrap();
    usage.flush().unwrap();
    assert!(usage.write(1 << 20, &[7]).is_err());
    let statistics = usage.statistics();
    assert_eq!((statistics.write.operations, statistics.write.bytes, statistics.write.invalid), (1, 512, 1));
    assert_eq!((statistics.highest_write, statistics.flush.operations), (1024, 1));
    assert_eq!(nodes.disks().len(), 1);
    drop(usage);
    assert_eq!(nodes.disks().len(), 0);
    nodes.remove("r").unwrap();
    nodes.remove("f").unwrap();
    assert_eq!(nodes.remove("f").unwrap_err().to_string(), "Failed to find node with node-name='f'");
    assert_eq!(nodes.nodes().len(), 0);
    assert_eq!(std::fs::read(disk.path()).unwrap()[600], 7);
}

#[test]
fn what_is_within_a_node_belongs_to_it() {
    let disk = raw(4096);
    let nodes = BlockNodes::new();
    let mut within = file(disk.path());
    within["node-name"] = "within".into();
    add(&nodes, json!({ "driver": "raw", "node-name": "r", "file": within })).unwrap();
    assert_eq!(nodes.remove("within").unwrap_err().to_string(), "Node within is not owned by the monitor");
    nodes.remove("r").unwrap();
    assert!(nodes.find("within").is_none());
}

#[test]
fn a_drive_ends_with_its_device_and_its_lock_with_it() {
    let disk = raw(4096);
    let nodes = BlockNodes::new();
    let options = json!({ "file": file(disk.path()) });
    nodes.add_drive(&drive("d", &options)).unwrap();
    let again = nodes.add_drive(&drive("d", &options)).unwrap_err();
    assert!(matches!(again, BlockError::DuplicateDrive(_)));
    let locked = nodes.add_drive(&drive("e", &options)).unwrap_err().to_string();
    assert!(locked.starts_with("Failed to get \"write\" lock"), "{locked}");
    let usage = nodes.claim("d", "v").unwrap();
    assert_eq!(nodes.claim("d", "w").unwrap_err().to_string(), "Drive 'd' is already in use by another device");
    drop(usage);
    assert_eq!(
        nodes.claim("d", "w").unwrap_err().to_string(),
        "Property 'virtio-blk-device.drive' can't find value 'd'"
    );
    nodes.add_drive(&drive("e", &options)).unwrap();
}

#[test]
fn a_file_is_written_by_one_at_a_time_and_read_by_many() {
    let disk = raw(4096);
    let nodes = BlockNodes::new();
    let open = |name: &str, read_only: bool| {
        let mut options = file(disk.path());
        options["node-name"] = name.into();
        options["read-only"] = read_only.into();
        add(&nodes, options)
    };
    open("a", false).unwrap();
    assert!(open("b", true).is_err());
    nodes.remove("a").unwrap();
    open("b", true).unwrap();
    open("c", true).unwrap();
    assert!(open("d", false).is_err());
    let usage = nodes.claim("b", "v").unwrap();
    assert!(usage.read_only() && usage.write(0, &[1; 512]).is_err());
    assert_eq!(
        add(&nodes, json!({ "driver": "raw", "node-name": "w", "file": "c" })),
        Err("Block node is read-only".into())
    );
}

#[test]
fn a_part_is_a_part() {
    let disk = raw(4096);
    let nodes = BlockNodes::new();
    let part = |name: &str, offset: u64, size: u64| {
        add(
            &nodes,
            json!({ "driver": "raw", "node-name": name, "offset": offset, "size": size, "file": file(disk.path()) }),
        )
    };
    for (offset, size, said) in [
        (0, 8192, "The sum of offset (0)"),
        (1, 100, "multiple of 512"),
        (5000, 0, "cannot be greater"),
        (u64::MAX, 512, "cannot be"),
    ] {
        assert!(part("p", offset, size).unwrap_err().contains(said));
    }
    part("p", 1024, 512).unwrap();
    let usage = nodes.claim("p", "v").unwrap();
    usage.write(0, &[9; 512]).unwrap();
    assert!(usage.write(0, &[9; 513]).is_err() && usage.read(512, &mut [0]).is_err());
    let bytes = std::fs::read(disk.path()).unwrap();
    assert_eq!((bytes[1023], bytes[1024], bytes[1535], bytes[1536]), (0, 9, 9, 0));
}

#[test]
fn an_image_in_a_part_never_grows_out_of_it() {
    const PART: u64 = 1 << 20;
    let whole = raw(PART + 65536);
    let made = tempfile::NamedTempFile::new().unwrap();
    qcow2(made.path(), "16M", None);
    let image = std::fs::read(made.path()).unwrap();
    let mut bytes = vec![0xa5; (PART + 65536) as usize];
    bytes[..image.len()].copy_from_slice(&image);
    std::fs::write(whole.path(), &bytes).unwrap();
    let nodes = BlockNodes::new();
    let part = json!({ "driver": "raw", "size": PART, "file": file(whole.path()) });
    add(&nodes, json!({ "driver": "qcow2", "node-name": "q", "file": part })).unwrap();
    let disk = nodes.claim("q", "d").unwrap();
    let results: Vec<_> = (0..16).map(|at| disk.write(at << 20, &vec![1; 65536])).collect();
    assert!(results[0].is_ok() && results.iter().any(Result::is_err), "{results:?}");
    drop(disk);
    nodes.remove("q").unwrap();
    assert!(std::fs::read(whole.path()).unwrap()[PART as usize..].iter().all(|byte| *byte == 0xa5));
}

#[test]
fn an_image_may_be_a_descriptor_that_was_passed() {
    let disk = raw(1 << 20);
    let sets = &files::DESCRIPTOR_SETS;
    let set = sets.add(std::fs::File::open(disk.path()).unwrap().into(), None, None).unwrap().set;
    let nodes = BlockNodes::new();
    let name = format!("/dev/fdset/{set}");
    let options = json!({ "driver": "raw", "node-name": "n", "file": file(Path::new(&name)) });
    assert!(add(&nodes, options.clone()).is_err(), "it cannot be written");
    sets.add(disk.reopen().unwrap().into(), Some(set), None).unwrap();
    add(&nodes, options.clone()).unwrap();
    sets.remove(set, None).unwrap();
    let usage = nodes.claim("n", "v").unwrap();
    usage.write(512, &[9; 512]).unwrap();
    usage.flush().unwrap();
    drop(usage);
    nodes.remove("n").unwrap();
    assert_eq!(std::fs::read(disk.path()).unwrap()[512], 9);
    assert_eq!(add(&nodes, options).unwrap_err(), format!("Could not open '{name}': No such file or directory"));
}

#[test]
fn a_raw_image_holds_the_bytes_where_they_were_written_with_and_without_the_hosts_cache() {
    // A temporary directory may be in memory, which knows no other way than the cache.
    let here = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    for direct in [false, true] {
        let path = here.path().join("disk");
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        let nodes = BlockNodes::new();
        let options = json!({ "driver": "raw", "node-name": "n", "cache": { "direct": direct }, "discard": "unmap", "file": file(&path) });
        if let Err(error) = add(&nodes, options) {
            assert!(direct && error.contains("cache cannot be left out"), "{error}");
            continue;
        }
        let usage = nodes.claim("n", "v").unwrap();
        usage.write(4096, &[7; 8192]).unwrap();
        usage.write(16384 + 512, &[8; 1024]).unwrap();
        usage.write_zeroes(4608, 512, true).unwrap();
        usage.flush().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!((bytes[4095], bytes[4096], bytes[4607], bytes[4608], bytes[5119], bytes[5120]), (0, 7, 7, 0, 0, 7));
        assert_eq!((bytes[16384], bytes[16896], bytes[17919], bytes[17920]), (0, 8, 8, 0));
        let mut back = vec![0; 8192];
        usage.read(4096, &mut back).unwrap();
        assert_eq!((back[0], back[600], back[8191]), (7, 0, 7));
        usage.discard(0, 4096).unwrap();
        assert_eq!((usage.size(), bytes.len()), (1 << 20, 1 << 20));
    }
}

#[test]
fn what_is_no_image_is_refused() {
    let disk = raw(4096);
    let nodes = BlockNodes::new();
    let options = |path: &Path| json!({ "driver": "qcow2", "node-name": "q", "file": file(path) });
    assert_eq!(add(&nodes, options(disk.path())), Err("Image is not in qcow2 format".into()));
    assert_eq!(
        add(&nodes, options(Path::new("/no/such/disk"))),
        Err("Could not open '/no/such/disk': No such file or directory".into())
    );
    assert_eq!(nodes.nodes().len(), 0);
}

#[test]
fn an_image_stands_on_the_one_that_it_names_and_writes_into_itself() {
    let directory = tempfile::tempdir().unwrap();
    let (base, top) = (directory.path().join("base"), directory.path().join("top"));
    qcow2(&base, "1M", None);
    qcow2(&top, "1M", Some(Path::new("base")));
    let nodes = BlockNodes::new();
    add(&nodes, json!({ "driver": "qcow2", "node-name": "b", "file": file(&base) })).unwrap();
    nodes.claim("b", "v").unwrap().write(65536, &[1; 4096]).unwrap();
    nodes.remove("b").unwrap();
    let before = std::fs::read(&base).unwrap();
    add(&nodes, json!({ "driver": "qcow2", "node-name": "t", "file": file(&top) })).unwrap();
    let usage = nodes.claim("t", "v").unwrap();
    assert_eq!((usage.node().backing_depth(), nodes.nodes().len()), (1, 4));
    let image = usage.node().image();
    assert_eq!((image.cluster_size, image.backing.as_deref()), (Some(65536), Some("base")));
    usage.write(65536 + 512, &[2; 512]).unwrap();
    let mut back = [0; 1536];
    usage.read(65536, &mut back).unwrap();
    assert_eq!((back[0], back[512], back[1024]), (1, 2, 1));
    drop(usage);
    nodes.remove("t").unwrap();
    assert_eq!((std::fs::read(&base).unwrap(), nodes.nodes().len()), (before, 0));
    check(&top);
    // Without it, there are zeros.
    add(&nodes, json!({ "driver": "qcow2", "node-name": "t", "backing": null, "read-only": true, "file": file(&top) }))
        .unwrap();
    nodes.claim("t", "v").unwrap().read(0, &mut back).unwrap();
    assert_eq!(back, [0; 1536]);
}

#[test]
fn images_that_stand_on_each_other_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (directory.path().join("first"), directory.path().join("second"));
    qcow2(&second, "1M", None);
    qcow2(&first, "1M", Some(Path::new("second")));
    qcow2(&second, "1M", Some(Path::new("first")));
    let nodes = BlockNodes::new();
    let options = json!({ "driver": "qcow2", "node-name": "q", "read-only": true, "file": file(&first) });
    assert_eq!(add(&nodes, options), Err("Too many nodes stand on each other".into()));
    for number in 0..100 {
        let below =
            if number == 0 { json!({ "driver": "null-co", "size": 512 }) } else { format!("n{}", number - 1).into() };
        if let Err(error) = add(&nodes, json!({ "driver": "raw", "node-name": format!("n{number}"), "file": below })) {
            assert_eq!((error.as_str(), number), ("Too many nodes stand on each other", 63));
            return;
        }
    }
    panic!("there is no end");
}

#[test]
fn a_qcow2_image_keeps_what_was_flushed_and_stays_sound() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.qcow2");
    qcow2(&path, "64M", None);
    let nodes = BlockNodes::new();
    nodes.add_drive(&drive("d", &json!({ "file": file(&path), "discard": "unmap" }))).unwrap();
    let usage = nodes.claim("d", "v").unwrap();
    assert_eq!((usage.node().driver(), usage.size()), ("qcow2", 64 << 20));
    let mut seed = 1_u64;
    for _ in 0..200 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let offset = (seed >> 20) % ((64 << 20) - 65536) / 512 * 512;
        usage.write(offset, &[seed as u8; 4096]).unwrap();
        if seed & 0x700 == 0 {
            usage.write_zeroes(offset, 65536, seed & 0x800 == 0).unwrap();
        }
    }
    usage.write(1 << 20, &[0x5a; 65536]).unwrap();
    usage.flush().unwrap();
    // As after a kill: another process reads what is in the file, and nothing is cleaned up.
    let copy = directory.path().join("copy.qcow2");
    std::fs::copy(&path, &copy).unwrap();
    check(&copy);
    add(&nodes, json!({ "driver": "qcow2", "node-name": "c", "file": file(&copy) })).unwrap();
    let mut back = [0; 65536];
    nodes.claim("c", "w").unwrap().read(1 << 20, &mut back).unwrap();
    assert_eq!(back, [0x5a; 65536]);
    usage.node().resize(128 << 20).unwrap();
    assert_eq!(usage.size(), 128 << 20);
    usage.write((128 << 20) - 512, &[3; 512]).unwrap();
    drop(usage);
    check(&path);
}

#[test]
fn a_thousand_nodes_that_come_and_go_leave_no_descriptor() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.qcow2");
    qcow2(&path, "1M", None);
    let nodes = BlockNodes::new();
    let open = || {
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter(|entry| std::fs::read_link(entry.as_ref().unwrap().path()).is_ok_and(|target| target == path))
            .count()
    };
    for _ in 0..1000 {
        add(&nodes, json!({ "driver": "qcow2", "node-name": "q", "file": file(&path) })).unwrap();
        assert!(add(&nodes, json!({ "driver": "qcow2", "node-name": "q", "file": file(&path) })).is_err());
        drop(nodes.claim("q", "v").unwrap());
        nodes.remove("q").unwrap();
    }
    assert_eq!((open(), nodes.nodes().len(), nodes.state.lock().all.len()), (0, 0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_image_of_any_header_is_read_or_refused(changes in prop::collection::vec((0usize..600, any::<u8>()), 1..8)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let plain = {
            static PLAIN: OnceLock<Vec<u8>> = OnceLock::new();
            PLAIN.get_or_init(|| {
                qcow2(&path, "1M", None);
                std::fs::read(&path).unwrap()
            })
        };
        let mut bytes = plain.clone();
        for (at, value) in changes {
            bytes[at] = value;
        }
        std::fs::write(&path, bytes).unwrap();
        let nodes = BlockNodes::new();
        if add(&nodes, json!({ "driver": "qcow2", "node-name": "q", "file": file(&path) })).is_ok() {
            let usage = nodes.claim("q", "v").unwrap();
            let _ = usage.read(0, &mut [0; 512]);
            let _ = usage.write(0, &[1; 512]);
        }
    }
}

#[test]
fn disks_change_hands() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("d.qcow2");
    qcow2(&path, "1M", None);
    let bytes = raw(1 << 20);
    let ours = BlockNodes::new();
    let image = json!({ "driver": "qcow2", "node-name": "q", "file": file(&path) });
    let plain = json!({ "driver": "raw", "node-name": "r", "file": file(bytes.path()) });
    add(&ours, image.clone()).unwrap();
    add(&ours, plain.clone()).unwrap();
    let usage = ours.claim("q", "v").unwrap();
    usage.write(0, &[1; 512]).unwrap();
    let plain_usage = ours.claim("r", "w").unwrap();
    plain_usage.write(0, &[1; 512]).unwrap();
    // Another program that waits for them.
    let theirs = BlockNodes::new();
    theirs.inactivate().unwrap();
    add(&theirs, image).unwrap();
    add(&theirs, plain).unwrap();
    let other = theirs.claim("q", "v").unwrap();
    assert_eq!((other.size(), other.node().is_active()), (1 << 20, false));
    assert!(theirs.activate().unwrap_err().to_string().contains("Failed to get \"write\" lock"));
    assert!(other.write(0, &[9; 512]).is_err() && theirs.find("r").unwrap().write(0, &[9; 512]).is_err());

    ours.inactivate().unwrap();
    let mut read = [0; 512];
    for usage in [&usage, &plain_usage] {
        let refused = usage.write(0, &[9; 512]).unwrap_err();
        assert_eq!(refused.to_string(), "the node is inactive");
        assert!(usage.read(0, &mut read).is_err());
        usage.node().flush().unwrap();
    }
    assert!(ours.resize("q", 2 << 20).is_err());
    theirs.activate().unwrap();
    other.read(0, &mut read).unwrap();
    assert_eq!(read, [1; 512]);
    other.write(512, &[2; 512]).unwrap();
    theirs.resize("q", 2 << 20).unwrap();
    assert!(ours.activate().is_err(), "they have it");
    theirs.inactivate().unwrap();
    let told = Arc::new(Mutex::new(0));
    let count = Arc::clone(&told);
    usage.on_resize(move || *count.lock() += 1);
    ours.activate().unwrap();
    usage.read(512, &mut read).unwrap();
    assert_eq!((read, usage.size(), *told.lock()), ([2; 512], 2 << 20, 1));
    drop((ours, usage, plain_usage));
    check(&path);
}
