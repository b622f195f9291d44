//! An open disk image.

use std::{
    fmt, io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use imago::{
    FormatAccess, FormatDriverBuilder, PermissiveImplicitOpenGate, StorageOpenOptions, file::File, qcow2::Qcow2,
    raw::Raw,
};
use parking_lot::RwLock;
use rhea_core::{
    BlockMedium,
    files::{self, Access},
};
use rustix::fs::{FlockOperation, flock};

/// How an image is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The disk's bytes and nothing else.
    Raw,
    /// QEMU's format, version 2 or 3.
    Qcow2,
}

impl Format {
    /// The format of this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "raw" => Some(Self::Raw),
            "qcow2" => Some(Self::Qcow2),
            _ => None,
        }
    }

    /// What the file's first bytes look like.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of(path: &Path) -> Result<Self, OpenError> {
        let error = |source| OpenError::File { path: path.to_owned(), source };
        let mut magic = [0; 4];
        let file = files::open(path, Access::Read).map_err(error)?;
        // At its place: a descriptor that was passed is read by others too.
        let read = file.read_at(&mut magic, 0).map_err(error)?;
        Ok(if read == 4 && magic == *b"QFI\xfb" { Self::Qcow2 } else { Self::Raw })
    }
}

/// What to open, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The file.
    pub path: PathBuf,
    /// Its layout.
    pub format: Format,
    /// Whether it must not be written.
    pub read_only: bool,
    /// Whether to go past the host's cache.
    pub direct: bool,
    /// Whether a flush may leave data in the host's cache: what survives the program, but not the host.
    pub no_flush: bool,
    /// Whether others may have it open too.
    pub shared: bool,
}

impl Options {
    /// The usual way to open a file.
    pub fn new(path: impl Into<PathBuf>, format: Format) -> Self {
        Self { path: path.into(), format, read_only: false, direct: false, no_flush: false, shared: false }
    }
}

/// Why an image cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The host, or what is in the file.
    #[error("Could not open '{}': {}", path.display(), files::reason(source))]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another program writes it.
    #[error("Failed to get {mode} lock: another program has '{}' open", path.display())]
    Locked {
        /// What the lock is for.
        mode: &'static str,
        /// Which.
        path: PathBuf,
    },
}

/// An open image.
pub struct Image {
    options: Options,
    /// Giving up room must not meet reads and writes that are under way.
    access: RwLock<FormatAccess<File>>,
    /// Holds the lock on the file.
    _lock: std::fs::File,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({})", self.options.path.display())
    }
}

impl Image {
    /// Opens an image, and the images that it stands on.
    ///
    /// # Errors
    /// A file that is not there, not of the format, or in use.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let error = |source| OpenError::File { path: options.path.clone(), source };
        let writable = !options.read_only;
        let access = if writable { Access::ReadWrite } else { Access::Read };
        let lock = files::open(&options.path, access).map_err(error)?;
        if !options.shared {
            let (operation, mode) = match writable {
                true => (FlockOperation::NonBlockingLockExclusive, "\"write\""),
                false => (FlockOperation::NonBlockingLockShared, "shared \"write\""),
            };
            match flock(&lock, operation) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(OpenError::Locked { mode, path: options.path.clone() });
                }
                Err(source) => return Err(error(source.into())),
            }
        }
        let storage = StorageOpenOptions::new().write(writable).direct(options.direct);
        let gate = PermissiveImplicitOpenGate::default();
        // A descriptor that was passed is all there is of its file; another is opened as its kind of image is.
        let passed = files::is_passed(&options.path).then(|| lock.try_clone()).transpose().map_err(error)?;
        let passed = passed.map(|file| File::from_open_file(file, storage.clone())).transpose().map_err(error)?;
        let access = match options.format {
            Format::Raw => {
                let builder = match passed {
                    Some(file) => Raw::builder(file),
                    None => Raw::<File>::builder_path(&options.path),
                };
                let builder = builder.write(writable).storage_open_options(storage);
                FormatAccess::new(builder.open(gate).map_err(error)?)
            }
            Format::Qcow2 => {
                let builder = match passed {
                    Some(file) => Qcow2::builder(file),
                    None => Qcow2::<File>::builder_path(&options.path),
                };
                let builder = builder.write(writable).storage_open_options(storage);
                FormatAccess::new(builder.open(gate).map_err(error)?)
            }
        };
        Ok(Self { options: options.clone(), access: RwLock::new(access), _lock: lock })
    }

    /// How it was opened.
    pub fn options(&self) -> &Options {
        &self.options
    }
}

impl BlockMedium for Image {
    fn size(&self) -> u64 {
        self.access.read().size()
    }

    fn read_only(&self) -> bool {
        self.options.read_only
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.access.read().read(data, offset)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.access.read().write(data, offset)
    }

    fn flush(&self) -> io::Result<()> {
        if self.options.read_only {
            return Ok(());
        }
        let access = self.access.read();
        access.flush()?;
        if self.options.no_flush { Ok(()) } else { access.sync() }
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        match self.access.write().discard_to_any(offset, length) {
            // It is advice: a file system that cannot follow it is no failure.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            result => result,
        }
    }

    fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        if unmap {
            return self.access.write().discard_to_zero(offset, length);
        }
        self.access.read().write_zeroes(offset, length)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A file of `size` zeros.
    fn raw(size: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        file
    }

    #[test]
    fn an_image_may_be_a_descriptor_that_was_passed() {
        let file = raw(1 << 20);
        let sets = &files::DESCRIPTOR_SETS;
        let name = |set: i64| PathBuf::from(format!("/dev/fdset/{set}"));
        let reading = sets.add(std::fs::File::open(file.path()).unwrap().into(), None, None).unwrap().set;
        assert!(Image::open(&Options::new(name(reading), Format::Raw)).is_err(), "it cannot be written");
        sets.add(file.reopen().unwrap().into(), Some(reading), None).unwrap();
        assert_eq!(Format::of(&name(reading)).unwrap(), Format::Raw);
        let image = Image::open(&Options::new(name(reading), Format::Raw)).unwrap();
        sets.remove(reading, None).unwrap();
        image.write(512, &[9; 512]).unwrap();
        image.flush().unwrap();
        assert_eq!((image.size(), std::fs::read(file.path()).unwrap()[512]), (1 << 20, 9));
        let gone = Image::open(&Options::new(name(reading), Format::Qcow2)).unwrap_err().to_string();
        assert_eq!(gone, format!("Could not open '/dev/fdset/{reading}': No such file or directory"));
    }

    #[test]
    fn a_raw_image_holds_the_bytes_where_they_were_written() {
        let file = raw(1 << 20);
        let image = Image::open(&Options::new(file.path(), Format::Raw)).unwrap();
        assert_eq!(image.size(), 1 << 20);
        image.write(4096, &[7; 1024]).unwrap();
        image.write_zeroes(4608, 512, true).unwrap();
        image.flush().unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        assert_eq!((bytes[4095], bytes[4096], bytes[4607], bytes[4608], bytes[5119]), (0, 7, 7, 0, 0));
        let mut back = [0; 1024];
        image.read(4096, &mut back).unwrap();
        assert_eq!((back[0], back[600]), (7, 0));
        image.discard(0, 4096).unwrap();
        assert!(image.write((1 << 20) - 1, &[1, 2]).is_err());
        assert_eq!(file.as_file().metadata().unwrap().len(), 1 << 20);
    }

    #[test]
    fn an_image_is_written_by_one_at_a_time() {
        let file = raw(4096);
        let options = Options::new(file.path(), Format::Raw);
        let image = Image::open(&options).unwrap();
        assert!(matches!(Image::open(&options), Err(OpenError::Locked { .. })));
        assert!(Image::open(&Options { read_only: true, ..options.clone() }).is_err());
        drop(image);
        let first = Image::open(&Options { read_only: true, ..options.clone() }).unwrap();
        Image::open(&Options { read_only: true, ..options }).unwrap();
        assert!(first.write(0, &[1]).is_err());
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let file = raw(4096);
        assert!(Image::open(&Options::new(file.path(), Format::Qcow2)).is_err());
        let error = Image::open(&Options::new("/nowhere/disk", Format::Raw)).unwrap_err().to_string();
        assert!(error.starts_with("Could not open '/nowhere/disk': "), "{error}");
        assert_eq!(Format::of(file.path()).unwrap(), Format::Raw);
    }

    #[test]
    fn a_qcow2_image_keeps_what_was_flushed_and_stays_sound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.qcow2");
        // The image is made by another program, as users do it.
        let made = Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&path).arg("64M").status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("qemu-img is not there: install qemu-utils");
            return;
        }
        assert_eq!(Format::of(&path).unwrap(), Format::Qcow2);
        let image = Image::open(&Options::new(&path, Format::Qcow2)).unwrap();
        assert_eq!(image.size(), 64 << 20);
        let mut seed = 1_u64;
        for _ in 0..200 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let offset = (seed >> 20) % ((64 << 20) - 65536) / 512 * 512;
            image.write(offset, &[seed as u8; 4096]).unwrap();
            if seed & 0x700 == 0 {
                image.write_zeroes(offset, 65536, seed & 0x800 == 0).unwrap();
            }
        }
        image.write(1 << 20, &[0x5a; 65536]).unwrap();
        image.flush().unwrap();
        // As after a kill: another process reads what is in the file, and nothing is cleaned up.
        let copy = directory.path().join("copy.qcow2");
        std::fs::copy(&path, &copy).unwrap();
        std::mem::forget(image);
        let check = Command::new("qemu-img").arg("check").arg(&copy).output().unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
        let image = Image::open(&Options::new(&copy, Format::Qcow2)).unwrap();
        let mut back = [0; 65536];
        image.read(1 << 20, &mut back).unwrap();
        assert_eq!(back, [0x5a; 65536]);
    }
}
