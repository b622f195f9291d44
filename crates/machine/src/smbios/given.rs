//! Structures of the user's, out of files. DSP0134 §6.1.

use std::io::{self, Read};

use rhea_core::files::{self, Access};

use super::{kind, structure::HEADER};

/// The largest structure that is taken.
const LIMIT: usize = 0xffff;

/// A complete structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenStructure(Vec<u8>);

/// A file that is no structure.
#[derive(Debug, thiserror::Error)]
pub enum StructureError {
    /// It cannot be read.
    #[error("Cannot read SMBIOS file {file}: {reason}")]
    File {
        /// Which.
        file: String,
        /// What the host says.
        reason: String,
    },
    /// It holds something else.
    #[error("Cannot read SMBIOS file {file}: {reason}")]
    Contents {
        /// Which.
        file: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl GivenStructure {
    /// Reads a file that holds one structure.
    ///
    /// # Errors
    /// It cannot be read, or holds something else.
    pub fn read(file: &str) -> Result<Self, StructureError> {
        let failed = |error: io::Error| StructureError::File { file: file.to_owned(), reason: files::reason(&error) };
        let mut bytes = Vec::new();
        let opened = files::open(file, Access::Read).map_err(failed)?;
        opened.take(LIMIT as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        let wrong = |reason| StructureError::Contents { file: file.to_owned(), reason };
        Self::new(bytes).map_err(wrong)
    }

    /// A structure of these bytes. Strings that lack their last zeros get them.
    ///
    /// # Errors
    /// They are no structure, or more than one, and why not.
    pub fn new(mut bytes: Vec<u8>) -> Result<Self, &'static str> {
        let (kind, length) = match bytes[..] {
            [kind, length, _, _, ..] => (kind, usize::from(length)),
            _ => return Err("it has no header"),
        };
        if length < HEADER {
            return Err("its length is less than that of a header");
        }
        if bytes.len() > LIMIT - 2 {
            return Err("it is too large");
        }
        if kind == kind::END {
            return Err("it would end the tables");
        }
        let Some(strings) = bytes.get(length..) else { return Err("it is shorter than it says") };
        match strings.windows(2).position(|pair| pair == [0, 0]) {
            Some(end) if end + 2 == strings.len() => {}
            Some(_) => return Err("something is behind the structure"),
            // Tools leave the zeros behind a structure without strings away, or the last one.
            None if strings.is_empty() => bytes.extend([0, 0]),
            None if strings.ends_with(&[0]) => bytes.push(0),
            None => bytes.extend([0, 0]),
        }
        Ok(Self(bytes))
    }

    /// Its type.
    pub fn kind(&self) -> u8 {
        self.0.first().copied().unwrap_or(kind::END)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
