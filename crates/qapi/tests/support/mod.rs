//! Schemas written for a test.

// Each test file uses its part.
#![allow(dead_code)]

use std::path::PathBuf;

use rhea_qapi::{Fault, Schema};

/// Loads a schema of several files, the first of which is the root.
pub fn load_files(files: &[(&str, &str)]) -> Result<Schema, Vec<Fault>> {
    let folder = tempfile::tempdir().expect("a folder for the schema");
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
        std::fs::write(path, text).expect("the schema is written");
    }
    let root = files.first().map(|(name, _)| PathBuf::from(name)).expect("a root");
    Schema::load(&folder.path().join(root))
}

/// Loads a schema of one file.
pub fn load(text: &str) -> Result<Schema, Vec<Fault>> {
    load_files(&[("schema.json", text)])
}

/// Loads a schema that must be sound.
pub fn sound(text: &str) -> Schema {
    match load(text) {
        Ok(schema) => schema,
        Err(faults) => panic!("{}", faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n")),
    }
}
