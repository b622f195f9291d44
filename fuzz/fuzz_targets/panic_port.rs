//! Any bytes to the panic port: see `crates/fuzzing`.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run panic_port`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    rhea_fuzzing::run("panic_port", data);
});
