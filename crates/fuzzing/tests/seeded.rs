//! Runs each fuzz target with a million accesses, made from bytes that are the same each time.

use std::{process::ExitCode, time::Instant};

use libtest_mimic::{Arguments, Trial};
use rhea_fuzzing::{TARGETS, Target};

const ACCESSES: u64 = 1_000_000;
/// Bytes of one run of a target.
const CHUNK: usize = 1 << 15;

/// Bytes of the SplitMix64 generator.
fn fill(seed: &mut u64, bytes: &mut [u8]) {
    for bytes in bytes.chunks_mut(8) {
        *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = *seed;
        value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.copy_from_slice(&(value ^ value >> 31).to_le_bytes()[..bytes.len()]);
    }
}

fn run(target: Target) {
    let started = Instant::now();
    let (mut seed, mut bytes, mut accesses) = (0, vec![0; CHUNK], 0);
    while accesses < ACCESSES {
        fill(&mut seed, &mut bytes);
        let more = (target.run)(&bytes);
        assert!(more > 0, "bytes lead to accesses");
        accesses += more;
    }
    println!("{}: {accesses} accesses in {:?}", target.name, started.elapsed());
}

fn main() -> ExitCode {
    let trials = TARGETS.iter().map(|&target| {
        Trial::test(target.name, move || {
            run(target);
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
