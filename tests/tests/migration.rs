//! Machines that move: a guest in the middle of a computation over its disk goes on in a new process and finishes it right;
//! and whatever happens on the way, one of the two goes on.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, Instant};

use rhea_tests::here::{Here, PATIENCE};
use rhea_tests::process::Machine;
use rhea_tests::transcript::Guest;
use serde_json::json;

/// How many moves the test of moves makes; `cargo xtask soak` asks for a hundred.
const MOVES: &str = "RHEA_MOVES";

/// A chain of checksums, each of which goes to the disk and comes back from there, until somebody says that it is enough. It
/// says when it is under way.
fn computation(seed: u32) -> String {
    format!(
        "rm -f /tmp/enough; (i=0; s=seed{seed}; while [ ! -e /tmp/enough ]; do \
         echo $s $i | sha256sum | head -c 64 | dd of=/dev/vda bs=512 seek=$i conv=fsync 2>/dev/null; \
         s=$(dd if=/dev/vda bs=512 skip=$i count=1 2>/dev/null | head -c 64); i=$((i+1)); \
         [ $i = 5 ] && echo under-way-$((6*7)); done; echo \"result-$i-$s-\") &"
    )
}

/// What comes of it after so many steps, by the host's tools.
fn expected(seed: u32, steps: u32) -> String {
    let script = format!(
        "i=0; s=seed{seed}; while [ $i -lt {steps} ]; do s=$(echo $s $i | sha256sum | head -c 64); i=$((i+1)); done; \
         echo $s"
    );
    let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_computation_over_a_disk_goes_on_elsewhere_and_ends_right() {
    let moves = std::env::var(MOVES).map_or(3, |text| text.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().to_str().unwrap();
    let image = format!("{at}/disk.qcow2");
    assert!(Command::new("qemu-img").args(["create", "-q", "-f", "qcow2", &image, "16M"]).status().unwrap().success());
    let drive = format!("file={image},format=qcow2,if=virtio");
    let machine = ["-machine", "pc", "-m", "256", "-smp", "2", "-drive", &drive].map(str::to_owned);
    let receiving = |uri: &str| [&machine[..], &["-incoming".to_owned(), uri.to_owned()]].concat();

    let mut here = Here::start(&machine, Guest::Linux);
    here.console().wait_for_shell(PATIENCE).unwrap();
    assert_eq!(here.console().run("virtio", PATIENCE).unwrap().status, 0);
    let (mut downtimes, began) = (Vec::new(), Instant::now());
    for number in 0..moves {
        here.console().type_line(&computation(number)).unwrap();
        here.console().wait_for("under-way-42", PATIENCE).unwrap();
        here.execute("migrate-set-parameters", &json!({ "max-bandwidth": 0 }));
        let mut there = match number % 4 {
            0 | 3 => {
                let (to, from) = if number % 4 == 0 {
                    (format!("file:{at}/state"), format!("file:{at}/state"))
                } else {
                    (format!("exec:gzip -1 >{at}/state.gz"), format!("exec:gzip -dc <{at}/state.gz"))
                };
                assert_eq!(here.migrate(&to), "completed");
                Here::start(&receiving(&from), Guest::Linux)
            }
            1 => {
                let uri = format!("unix:{at}/socket");
                let there = Here::start(&receiving(&uri), Guest::Linux);
                assert_eq!(here.migrate(&uri), "completed");
                there
            }
            _ => {
                let mut there = Here::start(&receiving("tcp:127.0.0.1:0"), Guest::Linux);
                let listens = there.execute("query-migrate", &json!({}));
                let port = listens["socket-address"][0]["port"].as_str().unwrap();
                assert_eq!(here.migrate(&format!("tcp:127.0.0.1:{port}")), "completed");
                there
            }
        };
        assert_eq!(here.status(), "postmigrate");
        downtimes.push(here.execute("query-migrate", &json!({}))["downtime"].as_i64().unwrap());
        here.quit();
        there.runs();
        there.console().type_line("touch /tmp/enough").unwrap();
        there.console().wait_for("result-", PATIENCE).unwrap();
        let steps = there.console().wait_for("-", PATIENCE).unwrap();
        let result = there.console().wait_for("-", PATIENCE).unwrap();
        assert_eq!(result, expected(number, steps.parse().unwrap()), "after {steps} steps, move {number}");
        assert_eq!(there.status(), "running");
        here = there;
    }
    here.quit();
    assert!(Command::new("qemu-img").args(["check", "-q", &image]).status().unwrap().success());
    downtimes.sort_unstable();
    let (median, most) = (downtimes[downtimes.len() / 2], downtimes[downtimes.len() - 1]);
    println!("{moves} moves in {:?}; the machine stood for {median} ms, {most} ms at the most", began.elapsed());
}

/// A saved machine that runs the guest within the program.
fn saved(path: &str) -> Vec<u8> {
    let machine = ["-machine", "pc", "-m", "16"].map(str::to_owned);
    let mut here = Here::start(&machine, Guest::Embedded);
    assert_eq!(here.migrate(&format!("file:{path}")), "completed");
    here.quit();
    fs::read(path).unwrap()
}

/// Places in something of `length` bytes that are the same at every run.
fn places(length: usize, count: usize) -> impl Iterator<Item = usize> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % length
    })
    .take(count)
}

#[test]
fn a_cut_or_damaged_state_ends_the_receiver_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().to_str().unwrap();
    let state = saved(&format!("{at}/state"));
    let wrong = format!("{at}/wrong");
    let received = |memory: &str| {
        let machine = ["-machine", "pc", "-m", memory, "-incoming", &format!("file:{wrong}")].map(str::to_owned);
        let (mut machine, _connections) = match Machine::start(&machine, Guest::None) {
            Ok(started) => started,
            // It may have ended before it spoke to us.
            Err(error) => return error.to_string(),
        };
        assert_eq!(machine.wait(PATIENCE).unwrap().code(), Some(1));
        machine.said()
    };
    for cut in places(state.len(), 6).chain([0, 8, 12]) {
        fs::write(&wrong, &state[..cut]).unwrap();
        let said = received("16");
        assert!(said.contains("cut off at byte"), "{cut}: {said}");
    }
    for flipped in places(state.len(), 6) {
        let mut damaged = state.clone();
        damaged[flipped] ^= 0x10;
        fs::write(&wrong, &damaged).unwrap();
        let said = received("16");
        assert!(said.contains("load of migration failed: "), "{flipped}: {said}");
    }
    fs::write(&wrong, &state).unwrap();
    let said = received("32");
    assert!(said.contains("see -m"), "{said}");
}

#[test]
fn a_sender_whose_receiver_goes_away_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().to_str().unwrap();
    let length = saved(&format!("{at}/state")).len();
    let path = format!("{at}/socket");
    let listener = UnixListener::bind(&path).unwrap();
    let machine = ["-machine", "pc", "-m", "16"].map(str::to_owned);
    let mut here = Here::start(&machine, Guest::Embedded);
    // The last one reads everything and does not say that it has it.
    for take in places(length, 8).map(|take| take as u64).chain([0, u64::MAX]) {
        here.send(&format!("unix:{path}"));
        let (receiver, _) = listener.accept().unwrap();
        // A sender that is done shows its end by nothing more: then it waits for us.
        receiver.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut taken = Vec::new();
        let _ = (&receiver).take(take).read_to_end(&mut taken);
        drop(receiver);
        assert_eq!(here.end_of_migration(), "failed", "after {take} bytes");
        assert_eq!(here.status(), "running");
    }
    // And it can still be moved.
    assert_eq!(here.migrate("exec:cat >/dev/null"), "completed");
    here.quit();
}
