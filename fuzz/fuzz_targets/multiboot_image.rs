//! Any bytes to a multiboot image: see `crates/fuzzing`.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run multiboot_image`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    rhea_fuzzing::run("multiboot_image", data);
});
