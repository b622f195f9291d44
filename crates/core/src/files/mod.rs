//! Files of the host by name: the one place that opens them.
//!
//! `/dev/fdset/N` is a name too: it stands for a descriptor that a client has passed into set N (see [`sets`]).

mod inherited;
mod replacement;
pub mod sets;

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    path::Path,
};

pub use inherited::{inherited, record_inherited};
pub use replacement::Replacement;
pub use sets::DESCRIPTOR_SETS;

/// What a name is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading what is there.
    Read,
    /// Reading and writing what is there.
    ReadWrite,
    /// Reading and writing what is there, or a new file.
    Create,
    /// Writing a new file, in place of one that is there.
    Replace,
    /// Writing behind what is there, or a new file.
    Append,
}

/// Opens the file `path` of the host, or the descriptor that it stands for.
///
/// A passed descriptor is handed out as its client has opened it: it is neither truncated nor moved to another place.
///
/// # Errors
/// What the host says. A set without a descriptor of matching access denies permission.
pub fn open(path: impl AsRef<Path>, access: Access) -> io::Result<File> {
    let path = path.as_ref();
    if let Some(found) = DESCRIPTOR_SETS.open(path, access) {
        return found.map(File::from);
    }
    let mut options = OpenOptions::new();
    match access {
        Access::Read => options.read(true),
        Access::ReadWrite => options.read(true).write(true),
        Access::Create => options.read(true).write(true).create(true).truncate(false),
        Access::Replace => options.write(true).create(true).truncate(true),
        Access::Append => options.append(true).create(true),
    };
    options.open(path)
}

/// Whether `path` stands for a descriptor of a set, which has no place among other files.
pub fn is_passed(path: impl AsRef<Path>) -> bool {
    path.as_ref().to_str().is_some_and(|path| path.starts_with(sets::PREFIX))
}

/// Reads all of the file `path`.
///
/// # Errors
/// What the host says.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path, Access::Read)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The host's reason as others print it, without its number.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_set_is_opened_like_a_file_and_outlives_the_name_of_its_file() {
        let directory = std::env::temp_dir().join(format!("rhea-files-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("kernel");
        std::fs::write(&path, b"bzImage").unwrap();
        let added = DESCRIPTOR_SETS.add(File::open(&path).unwrap().into(), None, None).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        let name = format!("/dev/fdset/{}", added.set);
        assert_eq!(read(&name).unwrap(), b"bzImage");
        assert_eq!(open(&name, Access::Replace).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        DESCRIPTOR_SETS.remove(added.set, None).unwrap();
        assert_eq!(open(&name, Access::Read).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn ordinary_names_are_replaced_or_appended_to() {
        let path = std::env::temp_dir().join(format!("rhea-files-{}-plain", std::process::id()));
        for (access, expected) in [(Access::Replace, "new"), (Access::Append, "newnew"), (Access::Replace, "new")] {
            open(&path, access).unwrap().write_all(b"new").unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(reason(&open(&path, Access::Read).unwrap_err()), "No such file or directory");
    }
}
