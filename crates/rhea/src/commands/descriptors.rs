//! Descriptors that clients pass: `descriptors.json`.

use std::os::fd::OwnedFd;

use rhea_api::descriptors::{AddfdInfo, FdsetFdInfo, FdsetInfo, Handler};
use rhea_core::files::{self, DESCRIPTOR_SETS, sets::Listed};
use rhea_qmp::Error;

use super::Commands;

impl Handler for Commands<'_> {
    fn getfd(&mut self, fdname: String) -> Result<(), Error> {
        let descriptor = self.passed()?;
        if fdname.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(Error::generic("Parameter 'fdname' expects a name not starting with a digit"));
        }
        self.session.named_descriptors().insert(fdname, descriptor);
        Ok(())
    }

    fn closefd(&mut self, fdname: String) -> Result<(), Error> {
        match self.session.named_descriptors().remove(&fdname) {
            Some(_) => Ok(()),
            None => Err(Error::generic(format_args!("File descriptor named '{fdname}' not found"))),
        }
    }

    fn add_fd(&mut self, fdset_id: Option<i64>, opaque: Option<String>) -> Result<AddfdInfo, Error> {
        let added = DESCRIPTOR_SETS.add(self.passed()?, fdset_id, opaque).map_err(Error::generic)?;
        Ok(AddfdInfo { fdset_id: added.set, fd: added.descriptor.into() })
    }

    fn remove_fd(&mut self, fdset_id: i64, fd: Option<i64>) -> Result<(), Error> {
        DESCRIPTOR_SETS.remove(fdset_id, fd).map_err(Error::generic)
    }

    fn query_fdsets(&mut self) -> Result<Vec<FdsetInfo>, Error> {
        let shown = |Listed { set, descriptors }| FdsetInfo {
            fdset_id: set,
            fds: descriptors.into_iter().map(|(fd, opaque)| FdsetFdInfo { fd: fd.into(), opaque }).collect(),
        };
        Ok(DESCRIPTOR_SETS.list().into_iter().map(shown).collect())
    }
}

impl Commands<'_> {
    /// The descriptor that came along with the command.
    fn passed(&self) -> Result<OwnedFd, Error> {
        let passed = self.session.take_descriptor();
        passed.ok_or_else(|| Error::generic("No file descriptor supplied via SCM_RIGHTS"))
    }

    /// Takes the descriptor that the client has named; a number is one that the program was started with.
    pub(super) fn named(&self, name: &str) -> Result<OwnedFd, Error> {
        if name.starts_with(|first: char| first.is_ascii_digit()) {
            let number =
                name.parse().map_err(|_| Error::generic(format_args!("Invalid file descriptor number '{name}'")))?;
            return files::inherited(number)
                .map_err(|error| Error::generic(format_args!("File descriptor {name}: {}", files::reason(&error))));
        }
        let found = self.session.named_descriptors().remove(name);
        found.ok_or_else(|| Error::generic(format_args!("File descriptor named '{name}' has not been found")))
    }
}
