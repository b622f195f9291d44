//! Saved machines with any change: see `crates/fuzzing`.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run state_stream`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    rhea_fuzzing::run("state_stream", data);
});
