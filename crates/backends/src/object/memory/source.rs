//! What memory backends map: files by name, and files without one (memfd_create(2)).

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rhea_core::{
    files::{self, Access},
    memory::{PAGE, page_size},
    object::{PropertyError, Size},
};
use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::super::CreateError;
use super::settings::{FileSettings, MemfdSettings};

/// A file to map.
pub(super) struct Opened {
    pub(super) file: File,
    /// Bytes of its pages.
    pub(super) page: u64,
    /// A file that was made for this, to be removed if nothing comes of it.
    made: Option<std::path::PathBuf>,
}

impl Opened {
    /// The file is in use: it stays.
    pub(super) fn keep(&mut self) {
        self.made = None;
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(path) = &self.made {
            // Gone already is as good.
            let _ = fs::remove_file(path);
        }
    }
}

fn refused(reason: String) -> CreateError {
    PropertyError::Refused(reason).into()
}

fn host(what: String) -> impl FnOnce(io::Error) -> CreateError {
    move |reason| CreateError::Host { what, reason }
}

/// Opens the file of backend `id` with room for `size` bytes behind its offset. An empty or new one grows.
pub(super) fn file(id: &str, settings: &FileSettings, size: u64) -> Result<Opened, CreateError> {
    let FileSettings { mem_path, readonly, align: Size(align), offset: Size(offset), .. } = settings;
    let path = mem_path.as_deref().ok_or(PropertyError::Missing("mem-path"))?;
    if *align != 0 && !align.is_power_of_two() {
        return Err(refused(format!("alignment 0x{align:x} must be a power of two")));
    }
    let needed = offset.checked_add(size).ok_or_else(|| refused(format!("{id}: 'offset' and 'size' are too large")))?;
    let (file, made) =
        open(Path::new(path), *readonly).map_err(host(format!("can't open backing store {path} for guest RAM")))?;
    let mut opened = Opened { file, page: PAGE, made };
    let describe = || format!("can't look at backing store {path}");
    opened.page = page_size(&opened.file).map_err(host(describe()))?;
    let about = opened.file.metadata().map_err(host(describe()))?;
    if !offset.is_multiple_of(opened.page) {
        return Err(refused(format!("offset 0x{offset:x} must be a multiple of the page size 0x{:x}", opened.page)));
    }
    if !size.is_multiple_of(opened.page) {
        return Err(refused(format!("memory size 0x{size:x} must be a multiple of the page size 0x{:x}", opened.page)));
    }
    // What is no plain file, such as memory of a device, has the size that it has.
    if about.is_file() {
        let length = about.len();
        if length == 0 && !readonly {
            let grown = opened.file.set_len(needed);
            grown.map_err(host(format!("can't give backing store {path} a size of {needed} bytes")))?;
        } else if length < needed {
            return Err(refused(format!(
                "{id} backing store size 0x{length:x} is too small for 'size' option 0x{size:x} plus 'offset' option \
                 0x{offset:x}"
            )));
        }
    }
    Ok(opened)
}

fn open(path: &Path, readonly: bool) -> io::Result<(File, Option<std::path::PathBuf>)> {
    if readonly {
        return Ok((files::open(path, Access::Read)?, None));
    }
    if path.is_dir() {
        // A file without a name in that directory, on whose file system it is.
        let mode = OFlags::TMPFILE.bits() as i32;
        return Ok((OpenOptions::new().read(true).write(true).custom_flags(mode).open(path)?, None));
    }
    let made = (!files::is_passed(path) && !path.exists()).then(|| path.to_owned());
    Ok((files::open(path, if made.is_some() { Access::Create } else { Access::ReadWrite })?, made))
}

/// Makes a file without a name for backend `id`.
pub(super) fn memfd(id: &str, settings: &MemfdSettings, size: u64) -> Result<Opened, CreateError> {
    let MemfdSettings { seal, hugetlb, hugetlbsize: Size(huge_page) } = settings;
    let mut flags = MemfdFlags::CLOEXEC;
    flags.set(MemfdFlags::ALLOW_SEALING, *seal);
    let mut page = PAGE;
    if *hugetlb {
        flags |= MemfdFlags::HUGETLB;
        if *huge_page != 0 {
            if !huge_page.is_power_of_two() {
                let expected = "a power of two".to_owned();
                return Err(PropertyError::Range { name: "hugetlbsize".to_owned(), expected }.into());
            }
            // The logarithm of the page's size stands in the upper six bits (memfd_create(2)).
            flags |= MemfdFlags::from_bits_retain(huge_page.trailing_zeros() << 26);
            page = *huge_page;
        }
    }
    let descriptor = memfd_create(format!("memory-backend-memfd {id}"), flags)
        .map_err(|error| host(format!("failed to create memfd for '{id}'"))(error.into()))?;
    let file = File::from(descriptor);
    if *hugetlb && *huge_page == 0 {
        page = page_size(&file).map_err(host(format!("failed to look at memfd for '{id}'")))?;
    }
    if !size.is_multiple_of(page) {
        return Err(refused(format!("memory size 0x{size:x} must be a multiple of the page size 0x{page:x}")));
    }
    file.set_len(size).map_err(host(format!("failed to resize memfd to {size}")))?;
    if *seal {
        let seals = SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&file, seals)
            .map_err(|error| host(format!("failed to seal memfd for '{id}'"))(error.into()))?;
    }
    Ok(Opened { file, page, made: None })
}
