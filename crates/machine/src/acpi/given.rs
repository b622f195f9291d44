//! Tables of one's own: the contents of files, with a header made or changed. ACPI 5.0 § 5.2.6.

use std::io::{self, Read};

use rhea_core::files::{self, Access};

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};

/// Bytes of a table's header.
const HEADER: usize = 36;
/// The largest table. Firmware keeps them in memory below 4 GiB, all of them together.
const LIMIT: usize = 1 << 20;

/// The files of a table, one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableFiles {
    /// They begin with a header.
    Whole(Vec<String>),
    /// They are what follows a header.
    Body(Vec<String>),
}

/// A table as it is asked for. What is given replaces the fields of the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenTable {
    /// Where its contents are.
    pub files: TableFiles,
    /// Signature.
    pub signature: Option<String>,
    /// Revision of the table.
    pub revision: Option<u8>,
    /// Maker.
    pub oem_id: Option<String>,
    /// Maker's name for the table.
    pub oem_table_id: Option<String>,
    /// Maker's revision.
    pub oem_revision: Option<u32>,
    /// The tool that made it.
    pub compiler_id: Option<String>,
    /// Revision of the tool.
    pub compiler_revision: Option<u32>,
}

/// A table that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A file cannot be read.
    #[error("can't open file {file}: {reason}")]
    File {
        /// Which.
        file: String,
        /// What the host says.
        reason: String,
    },
    /// Files without a header, where there is to be one.
    #[error("ACPI table claiming to have header is too short, available: {0}, expected: {HEADER}")]
    Short(usize),
    /// More than firmware takes.
    #[error("ACPI table is too large: it may have {LIMIT} bytes")]
    Large,
}

impl GivenTable {
    /// Reads the files and completes the table.
    ///
    /// # Errors
    /// A file that cannot be read, or contents that are no table.
    pub fn read(&self) -> Result<Vec<u8>, TableError> {
        let (names, mut table) = match &self.files {
            TableFiles::Whole(names) => (names, Vec::new()),
            TableFiles::Body(names) => (names, default_header().to_vec()),
        };
        for name in names {
            let failed = |error: io::Error| TableError::File { file: name.clone(), reason: files::reason(&error) };
            let file = files::open(name, Access::Read).map_err(failed)?;
            let room = (LIMIT + 1).saturating_sub(table.len());
            file.take(room as u64).read_to_end(&mut table).map_err(failed)?;
        }
        if table.len() > LIMIT {
            return Err(TableError::Large);
        }
        let available = table.len();
        let header = table.first_chunk_mut::<HEADER>().ok_or(TableError::Short(available))?;
        self.complete(header, available as u32);
        let sum = table.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
        if let Some(checksum) = table.get_mut(9) {
            *checksum = checksum.wrapping_sub(sum);
        }
        Ok(table)
    }

    fn complete(&self, header: &mut [u8; HEADER], length: u32) {
        header[4..8].copy_from_slice(&length.to_le_bytes());
        let texts = [
            (0..4, &self.signature),
            (10..16, &self.oem_id),
            (16..24, &self.oem_table_id),
            (28..32, &self.compiler_id),
        ];
        for (field, text) in texts {
            if let Some(text) = text {
                let bytes = text.bytes().chain(std::iter::repeat(0));
                header[field].iter_mut().zip(bytes).for_each(|(at, byte)| *at = byte);
            }
        }
        if let Some(revision) = self.revision {
            header[8] = revision;
        }
        for (field, number) in [(24..28, self.oem_revision), (32..36, self.compiler_revision)] {
            if let Some(number) = number {
                header[field].copy_from_slice(&number.to_le_bytes());
            }
        }
    }
}

/// The header of a table of which nothing is said.
fn default_header() -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(b"RHEA");
    header[8] = 1;
    header[10..16].copy_from_slice(&OEM_ID);
    header[16..24].copy_from_slice(&OEM_TABLE_ID);
    header[24..28].copy_from_slice(&OEM_REVISION.to_le_bytes());
    header[28..32].copy_from_slice(b"RHEA");
    header[32..36].copy_from_slice(&1_u32.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    /// A file that is gone when the test ends.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, contents: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("rhea-table-{}-{name}", std::process::id()));
            std::fs::write(&path, contents).unwrap();
            Self(path)
        }

        fn name(&self) -> String {
            self.0.to_str().unwrap().to_owned()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn plain(files: TableFiles) -> GivenTable {
        GivenTable {
            files,
            signature: None,
            revision: None,
            oem_id: None,
            oem_table_id: None,
            oem_revision: None,
            compiler_id: None,
            compiler_revision: None,
        }
    }

    fn sum(table: &[u8]) -> u8 {
        table.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn contents_without_a_header_get_one_with_every_field_that_was_given() {
        let (first, second) = (Scratch::new("first", b"one "), Scratch::new("second", b"two"));
        let files = TableFiles::Body(vec![first.name(), second.name()]);
        let made = plain(files.clone()).read().unwrap();
        assert_eq!((&made[..8], &made[10..16], &made[36..]), (&b"RHEA\x2b\0\0\0"[..], &b"RHEA  "[..], &b"one two"[..]));
        let given = GivenTable {
            signature: Some("TST".into()),
            revision: Some(7),
            oem_id: Some("MAKERLONG".into()),
            oem_table_id: Some("NAME".into()),
            oem_revision: Some(0x0403_0201),
            compiler_id: Some("TOOL".into()),
            compiler_revision: Some(5),
            ..plain(files)
        };
        let table = given.read().unwrap();
        assert_eq!(&table[..9], b"TST\0\x2b\0\0\0\x07");
        assert_eq!(&table[10..36], b"MAKERLNAME\0\0\0\0\x01\x02\x03\x04TOOL\x05\0\0\0");
        assert_eq!((sum(&made), sum(&table)), (0, 0));
    }

    #[test]
    fn a_whole_table_keeps_its_header_but_for_length_and_checksum() {
        let mut table = default_header().to_vec();
        table[..4].copy_from_slice(b"SLIC");
        table.extend(b"contents");
        let file = Scratch::new("whole", &table);
        let whole = plain(TableFiles::Whole(vec![file.name()]));
        let read = whole.read().unwrap();
        assert_eq!((&read[..8], &read[36..], sum(&read)), (&b"SLIC\x2c\0\0\0"[..], &b"contents"[..], 0));
        let changed = GivenTable { oem_id: Some("X".into()), ..whole }.read().unwrap();
        assert_eq!((&changed[10..16], &changed[16..24], sum(&changed)), (&b"X\0\0\0\0\0"[..], &OEM_TABLE_ID[..], 0));
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let (short, large) = (Scratch::new("short", b"five!"), Scratch::new("large", &vec![0; LIMIT + 1]));
        let error = |files| plain(files).read().unwrap_err().to_string();
        assert_eq!(
            error(TableFiles::Whole(vec![short.name()])),
            "ACPI table claiming to have header is too short, available: 5, expected: 36"
        );
        assert_eq!(error(TableFiles::Whole(vec![large.name()])), "ACPI table is too large: it may have 1048576 bytes");
        assert!(plain(TableFiles::Body(vec!["/dev/zero".into()])).read().is_err());
        assert_eq!(
            error(TableFiles::Body(vec!["/nowhere".into()])),
            "can't open file /nowhere: No such file or directory"
        );
    }

    proptest! {
        #[test]
        fn every_table_has_its_length_and_sums_to_zero(
            signature in ".{0,6}", oem in ".{0,9}", revision: u8, number: u32, contents: Vec<u8>,
        ) {
            let file = Scratch::new("any", &contents);
            let given = GivenTable {
                signature: Some(signature),
                oem_id: Some(oem),
                revision: Some(revision),
                oem_revision: Some(number),
                ..plain(TableFiles::Body(vec![file.name()]))
            };
            let table = given.read().unwrap();
            prop_assert_eq!((sum(&table), table.len()), (0, HEADER + contents.len()));
            prop_assert_eq!(&table[4..8], &(table.len() as u32).to_le_bytes());
            prop_assert_eq!(&table[HEADER..], &contents[..]);
        }
    }
}
