//! Assembles the bare guest into the build's output folder.

use std::{env, error::Error, fs, path::Path};

#[path = "bare/mod.rs"]
mod bare;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=bare");
    println!("cargo::rerun-if-changed=build.rs");
    let folder = env::var("OUT_DIR")?;
    fs::write(Path::new(&folder).join("bare.bin"), bare::assemble()?)?;
    Ok(())
}
