//! One of the targets of `crates/fuzzing`, the one that the environment names.
//!
//! `mkdir -p fuzz/corpus/pit && FUZZ_TARGET=pit RUSTC_BOOTSTRAP=1 cargo fuzz run target fuzz/corpus/pit`

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use rhea_fuzzing::Target;

static CHOSEN: OnceLock<Target> = OnceLock::new();

fn chosen() -> Target {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    Target::named(&name).unwrap_or_else(|| {
        let names: Vec<&str> = rhea_fuzzing::TARGETS.iter().map(|target| target.name).collect();
        panic!("FUZZ_TARGET is one of: {}", names.join(", "))
    })
}

fuzz_target!(
    init: {
        CHOSEN.get_or_init(chosen);
    },
    |data: &[u8]| {
        (CHOSEN.get_or_init(chosen).run)(data);
    }
);
