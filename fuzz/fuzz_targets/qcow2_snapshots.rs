//! Snapshots within an image with any bytes changed: see `crates/fuzzing`.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run qcow2_snapshots`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    rhea_fuzzing::run("qcow2_snapshots", data);
});
