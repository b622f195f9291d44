//! Sets of descriptors that clients have passed: they belong to the program, and are opened as `/dev/fdset/N`.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use parking_lot::Mutex;
use rustix::{
    fs::{OFlags, fcntl_getfl},
    io::{Errno, fcntl_dupfd_cloexec},
};

use super::Access;

/// The sets of this program, which all monitors share.
pub static DESCRIPTOR_SETS: DescriptorSets = DescriptorSets::new();

/// What the names of sets begin with.
pub(super) const PREFIX: &str = "/dev/fdset/";

/// Sets of descriptors by number.
#[derive(Debug)]
pub struct DescriptorSets {
    sets: Mutex<BTreeMap<i64, Vec<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    descriptor: OwnedFd,
    note: Option<String>,
}

/// Where a descriptor was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// Number of the set.
    pub set: i64,
    /// Number of the descriptor in this program.
    pub descriptor: i32,
}

/// A set, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its number.
    pub set: i64,
    /// Its descriptors, each with its client's note.
    pub descriptors: Vec<(i32, Option<String>)>,
}

/// What cannot be done with sets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// Sets count from 0.
    #[error("Parameter 'fdset-id' expects a non-negative value")]
    Negative,
    /// No such set, or no such descriptor in it.
    #[error("File descriptor named '{0}' not found")]
    NotFound(String),
}

impl DescriptorSets {
    const fn new() -> Self {
        Self { sets: Mutex::new(BTreeMap::new()) }
    }

    /// Puts `descriptor` into set `set`, or into a new one.
    ///
    /// # Errors
    /// A negative number.
    pub fn add(&self, descriptor: OwnedFd, set: Option<i64>, note: Option<String>) -> Result<Added, SetError> {
        let mut sets = self.sets.lock();
        let set = match set {
            Some(set) if set < 0 => return Err(SetError::Negative),
            Some(set) => set,
            // The lowest that is free: a program has fewer sets than there are numbers.
            None => (0..).find(|number| !sets.contains_key(number)).unwrap_or_default(),
        };
        let number = descriptor.as_raw_fd();
        sets.entry(set).or_default().push(Entry { descriptor, note });
        Ok(Added { set, descriptor: number })
    }

    /// Closes one descriptor of a set, or all. Whoever has opened it keeps it. A set ends with its last descriptor.
    ///
    /// # Errors
    /// No such set or descriptor.
    pub fn remove(&self, set: i64, descriptor: Option<i64>) -> Result<(), SetError> {
        let mut sets = self.sets.lock();
        let missing = || {
            SetError::NotFound(match descriptor {
                Some(number) => format!("fdset-id:{set}, fd:{number}"),
                None => format!("fdset-id:{set}"),
            })
        };
        let entries = sets.get_mut(&set).ok_or_else(missing)?;
        match descriptor {
            None => entries.clear(),
            Some(number) => {
                let at = entries.iter().position(|entry| i64::from(entry.descriptor.as_raw_fd()) == number);
                entries.remove(at.ok_or_else(missing)?);
            }
        }
        if entries.is_empty() {
            sets.remove(&set);
        }
        Ok(())
    }

    /// The sets, the highest number first.
    pub fn list(&self) -> Vec<Listed> {
        let sets = self.sets.lock();
        let shown = |entry: &Entry| (entry.descriptor.as_raw_fd(), entry.note.clone());
        let listed =
            sets.iter().map(|(&set, entries)| Listed { set, descriptors: entries.iter().map(shown).collect() });
        listed.rev().collect()
    }

    /// A copy of a descriptor that suits `access`, if `path` is the name of a set.
    pub(super) fn open(&self, path: &Path, access: Access) -> Option<io::Result<OwnedFd>> {
        let name = path.to_str()?.strip_prefix(PREFIX)?;
        Some(self.copy(name, access).map_err(io::Error::from))
    }

    fn copy(&self, name: &str, access: Access) -> Result<OwnedFd, Errno> {
        let set: i64 = name.parse().map_err(|_| Errno::INVAL)?;
        let sets = self.sets.lock();
        let entries = sets.get(&set).ok_or(Errno::NOENT)?;
        let wanted = match access {
            Access::Read => OFlags::RDONLY,
            Access::ReadWrite | Access::Create => OFlags::RDWR,
            Access::Replace | Access::Append => OFlags::WRONLY,
        };
        // One that can do just that; else one that can do both.
        let suits = |mode: OFlags| {
            entries
                .iter()
                .find(|entry| fcntl_getfl(entry.descriptor.as_fd()).is_ok_and(|flags| flags & OFlags::ACCMODE == mode))
        };
        let entry = suits(wanted).or_else(|| suits(OFlags::RDWR)).ok_or(Errno::ACCESS)?;
        fcntl_dupfd_cloexec(&entry.descriptor, 0)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Write},
    };

    use super::*;

    fn pipe() -> (OwnedFd, OwnedFd) {
        let (reader, writer) = io::pipe().unwrap();
        (reader.into(), writer.into())
    }

    #[test]
    fn sets_get_the_lowest_free_number_and_end_with_their_last_descriptor() {
        let sets = DescriptorSets::new();
        let (a, b) = pipe();
        let first = sets.add(a, None, None).unwrap();
        let second = sets.add(b, None, Some("note".into())).unwrap();
        assert_eq!((first.set, second.set), (0, 1));
        assert_eq!(sets.add(pipe().0, Some(-1), None), Err(SetError::Negative));
        let other = sets.add(pipe().0, Some(0), None).unwrap();
        let listed = sets.list();
        assert_eq!(listed[0], Listed { set: 1, descriptors: vec![(second.descriptor, Some("note".into()))] });
        assert_eq!(listed[1].descriptors, [(first.descriptor, None), (other.descriptor, None)]);
        sets.remove(0, Some(first.descriptor.into())).unwrap();
        sets.remove(0, Some(other.descriptor.into())).unwrap();
        let gone = sets.remove(0, None).unwrap_err().to_string();
        assert_eq!(gone, "File descriptor named 'fdset-id:0' not found");
        let gone = sets.remove(1, Some(77_777)).unwrap_err().to_string();
        assert_eq!(gone, "File descriptor named 'fdset-id:1, fd:77777' not found");
        assert_eq!(sets.add(pipe().0, None, None).unwrap().set, 0);
    }

    #[test]
    fn the_descriptor_that_suits_the_access_is_copied_and_lives_on() {
        let sets = DescriptorSets::new();
        let (reader, writer) = pipe();
        sets.add(reader, Some(3), None).unwrap();
        sets.add(writer, Some(3), None).unwrap();
        let open = |access| sets.open(Path::new("/dev/fdset/3"), access).unwrap();
        let mut reading = File::from(open(Access::Read).unwrap());
        let mut writing = File::from(open(Access::Replace).unwrap());
        assert_eq!(open(Access::ReadWrite).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        sets.remove(3, None).unwrap();
        writing.write_all(b"on").unwrap();
        drop(writing);
        let mut text = String::new();
        reading.read_to_string(&mut text).unwrap();
        assert_eq!(text, "on");
    }

    #[test]
    fn names_of_sets_are_numbers() {
        let sets = DescriptorSets::new();
        let kind = |name: &str| sets.open(Path::new(name), Access::Read).map(|found| found.unwrap_err().kind());
        assert_eq!(kind("/dev/fdset/x"), Some(io::ErrorKind::InvalidInput));
        assert_eq!(kind("/dev/fdset/"), Some(io::ErrorKind::InvalidInput));
        assert_eq!(kind("/dev/fdset/5"), Some(io::ErrorKind::NotFound));
        assert_eq!(kind("/dev/fd/5"), None);
    }
}
