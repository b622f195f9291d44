//! Any bytes to the exit port: see `crates/fuzzing`.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run exit_port`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    rhea_fuzzing::run("exit_port", data);
});
