//! Makes Rust of the schema before the crate is compiled; a fault in the schema is a fault of the build.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};

use rhea_qapi::Schema;

fn main() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=missing-handlers.txt");

    let missing = std::fs::read_to_string(here.join("missing-handlers.txt"))?;
    let names =
        missing.lines().filter_map(|line| line.split('#').next()).map(str::trim).filter(|name| !name.is_empty());
    let schema = here.join("../../schema/qapi-schema.json");
    make(&schema, &names.map(str::to_owned).collect(), &out.join("api.rs"))?;

    // All of the schema, for the tests: what has no handler today must compile on the day it gets one.
    make(&schema, &BTreeSet::new(), &out.join("whole.rs"))?;

    // The generator's own proof: every construct of the language, compiled and used by the crate's tests.
    make(&here.join("tests/constructs/constructs.json"), &BTreeSet::new(), &out.join("constructs.rs"))?;
    Ok(())
}

fn make(schema: &Path, missing: &BTreeSet<String>, into: &Path) -> Result<(), Box<dyn Error>> {
    let schema = schema.canonicalize().map_err(|reason| format!("{}: {reason}", schema.display()))?;
    println!("cargo::rerun-if-changed={}", schema.display());
    let loaded = Schema::load(&schema).and_then(|loaded| {
        for module in &loaded.modules {
            println!("cargo::rerun-if-changed={}", module.path.display());
        }
        loaded.configured(&BTreeSet::new())
    });
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(faults) => {
            // Every file may hold the mend.
            if let Some(folder) = schema.parent() {
                println!("cargo::rerun-if-changed={}", folder.display());
            }
            for fault in &faults {
                eprintln!("{fault}\n");
            }
            return Err(format!("the schema has {} fault(s)", faults.len()).into());
        }
    };
    std::fs::write(into, rhea_qapi::generate(&loaded, missing)?.code)?;
    Ok(())
}
