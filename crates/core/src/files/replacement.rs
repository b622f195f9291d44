//! A file that takes its name only once it is complete: until then an older file of that name stays, and what was written
//! is gone if its writer gives up.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// A file on its way.
#[derive(Debug)]
pub struct Replacement {
    file: File,
    /// Where it is written: beside its later name, so that it can be moved there in one go.
    temporary: PathBuf,
    name: PathBuf,
    complete: bool,
}

/// Other programs may write beside us: names that are taken are passed over, so many times.
const ATTEMPTS: u32 = 100;

impl Replacement {
    /// Begins a file that will be `name`. Only its owner may read it, unless a file that is there says otherwise.
    ///
    /// # Errors
    /// What the host says.
    pub fn begin(name: impl AsRef<Path>) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Through symbolic links, so that they stay.
        let name = fs::canonicalize(&name).unwrap_or_else(|_| name.as_ref().to_owned());
        let last = name.file_name().ok_or(io::ErrorKind::NotFound)?;
        let old = fs::metadata(&name).ok();
        for _ in 0..ATTEMPTS {
            let mut temporary = last.to_owned();
            temporary.push(format!(".{}-{}.part", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
            let temporary = name.with_file_name(temporary);
            match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&temporary) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(file) => {
                    let this = Self { file, temporary, name, complete: false };
                    if let Some(old) = old {
                        this.file.set_permissions(old.permissions())?;
                    }
                    return Ok(this);
                }
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// What is written to.
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// What the host says; then nothing is left of it.
    pub fn complete(mut self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.name)?;
        self.complete = true;
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.complete {
            // Its directory may be gone, and the file with it.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::PermissionsExt};

    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("rhea-replacement-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn names(directory: &Path) -> Vec<String> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn the_old_file_stays_until_the_new_one_is_complete() {
        let directory = directory("old");
        let name = directory.join("dump");
        fs::write(&name, "old").unwrap();
        fs::set_permissions(&name, fs::Permissions::from_mode(0o640)).unwrap();
        drop(Replacement::begin(&name).unwrap());
        let replacement = Replacement::begin(&name).unwrap();
        replacement.file().write_all(b"new").unwrap();
        assert_eq!(fs::read_to_string(&name).unwrap(), "old");
        replacement.complete().unwrap();
        assert_eq!(fs::read_to_string(&name).unwrap(), "new");
        assert_eq!(fs::metadata(&name).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(names(&directory), ["dump"]);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_link_stays_a_link_and_a_vanished_directory_is_an_error() {
        let directory = directory("link");
        fs::write(directory.join("file"), "").unwrap();
        std::os::unix::fs::symlink("file", directory.join("link")).unwrap();
        let replacement = Replacement::begin(directory.join("link")).unwrap();
        replacement.file().write_all(b"through").unwrap();
        replacement.complete().unwrap();
        assert_eq!(fs::read_to_string(directory.join("file")).unwrap(), "through");
        assert!(fs::symlink_metadata(directory.join("link")).unwrap().is_symlink());
        let replacement = Replacement::begin(directory.join("new")).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(replacement.complete().unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(Replacement::begin(directory.join("new")).is_err());
        assert!(Replacement::begin("").is_err());
    }
}
