//! Any bytes to the registers by which PCI devices come and go: see `crates/fuzzing`.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run hotplug_pci`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    rhea_fuzzing::run("hotplug_pci", data);
});
