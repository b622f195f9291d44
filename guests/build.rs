//! Assembles the bare guests and the loaders of kernels into the build's output folder.

use std::{env, error::Error, fmt::Write as _, fs, path::Path};

#[path = "bare/mod.rs"]
mod bare;
#[path = "loader/mod.rs"]
mod loader;
#[path = "programs/mod.rs"]
mod programs;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=bare");
    println!("cargo::rerun-if-changed=loader");
    println!("cargo::rerun-if-changed=programs");
    println!("cargo::rerun-if-changed=build.rs");
    let folder = env::var("OUT_DIR")?;
    let folder = Path::new(&folder);
    fs::write(folder.join("bare.bin"), bare::assemble()?)?;
    for (name, assemble) in loader::ALL {
        fs::write(folder.join(name), assemble()?)?;
    }
    let mut list = String::from("&[");
    for (name, write) in programs::ALL {
        let path = folder.join(format!("{name}.bin"));
        fs::write(&path, write().map_err(|error| format!("{name}: {error}"))?)?;
        writeln!(list, "TestProgram {{ name: {name:?}, image: include_bytes!({path:?}) }},")?;
    }
    list.push(']');
    fs::write(folder.join("programs.rs"), list)?;
    Ok(())
}
