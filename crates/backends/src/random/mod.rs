//! Sources of random bytes for guests: the host's generator, and files such as a hardware generator.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use rhea_core::{
    RandomSource,
    files::{self, Access},
};
use rustix::rand::{GetRandomFlags, getrandom};

/// `rng-builtin`: the host kernel's generator.
#[derive(Debug, Default)]
pub struct Builtin;

impl RandomSource for Builtin {
    fn fill(&self, mut data: &mut [u8]) -> io::Result<()> {
        while !data.is_empty() {
            match getrandom(&mut *data, GetRandomFlags::empty()) {
                Ok(count) => data = &mut data[count..],
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// `rng-random`: a file that gives random bytes.
#[derive(Debug)]
pub struct RandomFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl RandomFile {
    /// The file that is read if none is named.
    pub const DEFAULT: &'static str = "/dev/urandom";

    /// Opens a file.
    ///
    /// # Errors
    /// What the host says.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_owned();
        Ok(Self { file: Mutex::new(files::open(&path, Access::Read)?), path })
    }

    /// Which file it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl RandomSource for RandomFile {
    fn fill(&self, data: &mut [u8]) -> io::Result<()> {
        self.file.lock().read_exact(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_differ_from_one_time_to_the_next() {
        for source in [&Builtin as &dyn RandomSource, &RandomFile::open(RandomFile::DEFAULT).unwrap()] {
            let (mut first, mut second) = ([0; 600], [0; 600]);
            source.fill(&mut first).unwrap();
            source.fill(&mut second).unwrap();
            assert_ne!(first, second);
        }
    }

    #[test]
    fn a_file_that_ends_is_an_error_and_one_that_is_not_there_too() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(RandomFile::open(file.path()).unwrap().fill(&mut [0; 4]).is_err());
        assert!(RandomFile::open("/nowhere/random").is_err());
    }
}
