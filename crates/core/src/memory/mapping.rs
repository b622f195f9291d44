//! Memory of the host, as the guest's RAM stands on it: a mapping of a file or of nothing, and what the host can be told
//! of it. Source: Linux man-pages mmap(2), madvise(2), mbind(2).
//!
//! This is one of the modules that may be unsafe: it maps memory.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU8, Ordering},
    thread,
};

use rustix::{
    fs::fstatfs,
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap},
};

use super::PAGE;

/// Nodes of the host that can be named.
pub const MAX_HOST_NODES: u16 = 128;

/// Magic number of the file system of huge pages (statfs(2)).
const HUGETLBFS: u64 = 0x9584_58f6;

/// Fail where pages lie elsewhere (mbind(2)).
const MPOL_MF_STRICT: u32 = 1;
/// Move pages that lie elsewhere.
const MPOL_MF_MOVE: u32 = 2;

/// Where memory comes from.
#[derive(Debug, Default)]
pub enum Source {
    /// Zeros, which the host has no file for.
    #[default]
    Anonymous,
    /// A file, from an offset that is a whole number of its pages.
    File(File, u64),
}

/// How memory is to be mapped.
#[derive(Debug)]
pub struct MapOptions {
    /// Where it comes from.
    pub source: Source,
    /// Whether writes go to the file, and to others who map it.
    pub share: bool,
    /// Whether the host promises now that it has the memory.
    pub reserve: bool,
    /// Whether it may be written.
    pub writable: bool,
    /// The address is a multiple of this power of two.
    pub align: u64,
}

impl Default for MapOptions {
    fn default() -> Self {
        Self { source: Source::Anonymous, share: false, reserve: true, writable: true, align: PAGE }
    }
}

/// On which nodes of the host memory is taken (mbind(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// As the host sees fit.
    Default,
    /// On the nodes as long as they have some.
    Preferred,
    /// On the nodes and nowhere else.
    Bind,
    /// In turn on each of the nodes.
    Interleave,
}

/// The bytes of a page of `file`: more than 4096 on a file system of huge pages.
///
/// # Errors
/// What the host says.
pub fn page_size(file: &File) -> io::Result<u64> {
    let about = fstatfs(file)?;
    let huge = about.f_type as u64 == HUGETLBFS;
    Ok(if huge { u64::try_from(about.f_bsize).unwrap_or(PAGE).max(PAGE) } else { PAGE })
}

/// Mapped memory of the host.
pub(super) struct Mapping {
    base: NonNull<u8>,
    length: usize,
    /// Private and anonymous: pages that are given back read as zeros.
    plain: bool,
    /// Shared: given back by making holes in the file.
    share: bool,
    writable: bool,
}

// SAFETY: the mapping lives as long as the value and is reached only through raw copies and atomics, never through
// references, so it may be used from any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes, a whole number of pages.
    pub(super) fn new(length: u64, options: &MapOptions) -> io::Result<Self> {
        let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidInput, reason.to_owned());
        if length == 0 || !length.is_multiple_of(PAGE) {
            return Err(invalid("RAM must be a whole number of 4096-byte pages"));
        }
        let length = isize::try_from(length).map_err(|_| Errno::NOMEM)? as usize;
        let align = usize::try_from(options.align.max(PAGE)).map_err(|_| Errno::NOMEM)?;
        if !align.is_power_of_two() {
            return Err(invalid("alignment must be a power of two"));
        }
        let mut protection = ProtFlags::READ;
        protection.set(ProtFlags::WRITE, options.writable);
        let mut flags = if options.share { MapFlags::SHARED } else { MapFlags::PRIVATE };
        flags.set(MapFlags::NORESERVE, !options.reserve);
        let place = if align > PAGE as usize { Some(Place::reserve(length, align)?) } else { None };
        let at = place.as_ref().map_or(ptr::null_mut(), |place| place.aligned);
        flags.set(MapFlags::FIXED, place.is_some());
        // SAFETY: the kernel chooses the address, or it is inside a reservation of ours that nobody uses; either way
        // nothing that exists is replaced.
        let base = unsafe {
            match &options.source {
                Source::Anonymous => mmap_anonymous(at, length, protection, flags),
                Source::File(file, offset) => mmap(at, length, protection, flags, file, *offset),
            }
        }?;
        if let Some(place) = place {
            place.keep(length);
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| invalid("mapping at address 0"))?;
        let plain = !options.share && matches!(options.source, Source::Anonymous);
        Ok(Self { base, length, plain, share: options.share, writable: options.writable })
    }

    /// Where the byte at `offset` is, if it is inside.
    pub(super) fn at(&self, offset: u64) -> Option<NonNull<u8>> {
        let offset = usize::try_from(offset).ok().filter(|&offset| offset < self.length)?;
        // SAFETY: the offset is inside the mapping.
        Some(unsafe { self.base.add(offset) })
    }

    /// Whether it may be written.
    pub(super) fn writable(&self) -> bool {
        self.writable
    }

    fn advise(&self, offset: u64, length: usize, advice: Advice) -> io::Result<()> {
        let inside =
            usize::try_from(offset).ok().and_then(|at| at.checked_add(length)).is_some_and(|end| end <= self.length);
        let start = self.at(offset).filter(|_| inside).ok_or(Errno::INVAL)?;
        // SAFETY: all of it is inside the mapping. Of the advice that is given here only what throws contents away
        // changes memory, and to nobody there are references into it.
        Ok(unsafe { madvise(start.as_ptr().cast(), length, advice) }?)
    }

    /// Whether the host may merge pages of equal contents.
    pub(super) fn set_merge(&self, merge: bool) -> io::Result<()> {
        self.advise(0, self.length, if merge { Advice::LinuxMergeable } else { Advice::LinuxUnmergeable })
    }

    /// Whether a core dump of this program holds it.
    pub(super) fn set_dump(&self, dump: bool) -> io::Result<()> {
        self.advise(0, self.length, if dump { Advice::LinuxDoDump } else { Advice::LinuxDontDump })
    }

    /// Gives the host `length` bytes at `offset` back, whole pages; they read as zeros. `false` if they cannot be given
    /// and stay as they are.
    pub(super) fn give_back(&self, offset: u64, length: usize) -> bool {
        let advice = match (self.plain, self.share) {
            (true, _) => Advice::LinuxDontNeed,
            (_, true) => Advice::LinuxRemove,
            // Pages of a file that others do not see would be the file's again.
            _ => return false,
        };
        self.writable && self.advise(offset, length, advice).is_ok()
    }

    /// Takes memory from `nodes` of the host, also what was taken already.
    pub(super) fn bind(&self, placement: Placement, nodes: &[u16]) -> io::Result<()> {
        let mode = match placement {
            Placement::Default => return Ok(()),
            Placement::Preferred => libc::MPOL_PREFERRED,
            Placement::Bind => libc::MPOL_BIND,
            Placement::Interleave => libc::MPOL_INTERLEAVE,
        };
        const BITS: usize = std::ffi::c_ulong::BITS as usize;
        let mut mask: [std::ffi::c_ulong; MAX_HOST_NODES as usize / BITS] = Default::default();
        for &node in nodes {
            let node = usize::from(node);
            *mask.get_mut(node / BITS).ok_or(Errno::INVAL)? |= 1 << (node % BITS);
        }
        // The kernel looks at one bit less than it is told.
        let bits = usize::from(MAX_HOST_NODES) + 1;
        let flags = MPOL_MF_STRICT | MPOL_MF_MOVE;
        // SAFETY: the kernel reads the mask, which has as many bits as it is told, and changes where pages lie, not what
        // they hold.
        let result = unsafe {
            libc::syscall(libc::SYS_mbind, self.base.as_ptr(), self.length, mode, mask.as_ptr(), bits, flags)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Takes all of it from the host now, with `threads` threads, in pieces of whole `page`s.
    pub(super) fn populate(&self, threads: u32, page: u64) -> io::Result<()> {
        let page = usize::try_from(page.max(PAGE)).map_err(|_| Errno::INVAL)?;
        let pages = self.length.div_ceil(page);
        let most = thread::available_parallelism().map_or(1, usize::from);
        let threads = (threads as usize).clamp(1, most).min(pages);
        let run = pages.div_ceil(threads) * page;
        let pieces = (0..self.length).step_by(run).map(|at| (at as u64, run.min(self.length - at)));
        thread::scope(|scope| {
            let spawned = pieces.map(|(at, length)| {
                let name = "prealloc".to_owned();
                thread::Builder::new().name(name).spawn_scoped(scope, move || self.populate_piece(at, length))
            });
            let spawned: Vec<_> = spawned.collect();
            let ends = spawned.into_iter().map(|thread| match thread?.join() {
                Ok(result) => result,
                Err(_) => Err(io::Error::other("a thread panicked")),
            });
            ends.fold(Ok(()), Result::and)
        })
    }

    fn populate_piece(&self, at: u64, length: usize) -> io::Result<()> {
        let result = self.advise(at, length, Advice::LinuxPopulateWrite);
        match result {
            // Hosts before Linux 5.14 do not know it. Pages of a file might not be there: touching them could kill us.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) && self.plain => {
                for offset in (at..at + length as u64).step_by(PAGE as usize) {
                    let Some(byte) = self.at(offset) else { break };
                    // SAFETY: the byte is inside the mapping, which is writable; nothing is changed, whoever writes.
                    unsafe { AtomicU8::from_ptr(byte.as_ptr()) }.fetch_or(0, Ordering::Relaxed);
                }
                Ok(())
            }
            result => result,
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and whoever holds a pointer into it holds the RAM too.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.length) };
    }
}

/// Addresses that are set aside, so that an aligned mapping can be put among them.
struct Place {
    start: *mut std::ffi::c_void,
    length: usize,
    aligned: *mut std::ffi::c_void,
    kept: usize,
}

impl Place {
    fn reserve(length: usize, align: usize) -> io::Result<Self> {
        let total = length.checked_add(align).ok_or(Errno::NOMEM)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing of ours.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), total, ProtFlags::empty(), flags) }?;
        let aligned = start.wrapping_byte_add((start as usize).wrapping_neg() % align);
        Ok(Self { start, length: total, aligned, kept: 0 })
    }

    /// Gives back what is not used by a mapping of `length` bytes at the aligned address.
    fn keep(mut self, length: usize) {
        self.kept = length;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let before = self.aligned as usize - self.start as usize;
        let after = self.length - before - self.kept;
        let end = self.aligned.wrapping_byte_add(self.kept);
        for (start, length) in [(self.start, before), (end, after)] {
            if length > 0 {
                // SAFETY: these addresses were set aside by `reserve`, and nothing is mapped there.
                let _ = unsafe { munmap(start, length) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn file(name: &str, length: u64) -> File {
        let path = std::env::temp_dir().join(format!("rhea-mapping-{}-{name}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file.set_len(length).unwrap();
        file
    }

    #[test]
    fn an_alignment_is_kept_and_what_was_set_aside_for_it_is_given_back() {
        for align in [PAGE, 1 << 21, 1 << 30] {
            let mapping = Mapping::new(3 * PAGE, &MapOptions { align, ..MapOptions::default() }).unwrap();
            assert_eq!(mapping.at(0).unwrap().as_ptr() as u64 % align, 0);
        }
        // More than there are addresses, if any were kept.
        for _ in 0..300 {
            Mapping::new(3 * PAGE, &MapOptions { align: 1 << 39, ..MapOptions::default() }).unwrap();
        }
        assert!(Mapping::new(PAGE, &MapOptions { align: 3 * PAGE, ..MapOptions::default() }).is_err());
        assert!(Mapping::new(PAGE, &MapOptions { align: 1 << 63, ..MapOptions::default() }).is_err());
    }

    #[test]
    fn memory_that_a_file_does_not_have_is_an_error_to_take_and_no_signal() {
        let source = Source::File(file("short", PAGE), 0);
        let mapping = Mapping::new(4 * PAGE, &MapOptions { source, share: true, ..MapOptions::default() }).unwrap();
        assert!(mapping.populate(4, PAGE).is_err());
        let mapping = Mapping::new(64 * PAGE, &MapOptions::default()).unwrap();
        mapping.populate(3, PAGE).unwrap();
        mapping.populate(u32::MAX, PAGE).unwrap();
    }

    #[test]
    fn pages_given_back_are_zeros_also_in_the_file() {
        let shared = file("shared", 2 * PAGE);
        shared.write_all_at(&[7; 2 * PAGE as usize], 0).unwrap();
        let source = Source::File(shared.try_clone().unwrap(), 0);
        let mapping = Mapping::new(2 * PAGE, &MapOptions { source, share: true, ..MapOptions::default() }).unwrap();
        assert!(mapping.give_back(PAGE, PAGE as usize));
        let mut bytes = [1; 2 * PAGE as usize];
        shared.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes[..PAGE as usize].iter().all(|byte| *byte == 7));
        assert!(bytes[PAGE as usize..].iter().all(|byte| *byte == 0));
        let source = Source::File(shared, 0);
        let private = Mapping::new(2 * PAGE, &MapOptions { source, ..MapOptions::default() }).unwrap();
        assert!(!private.give_back(0, PAGE as usize));
        assert!(!mapping.give_back(2 * PAGE, PAGE as usize));
    }

    #[test]
    fn memory_is_bound_to_nodes_that_there_are() {
        let mapping = Mapping::new(PAGE, &MapOptions::default()).unwrap();
        for placement in [Placement::Default, Placement::Preferred, Placement::Bind, Placement::Interleave] {
            mapping.bind(placement, &[0]).unwrap();
        }
        assert!(mapping.bind(Placement::Bind, &[MAX_HOST_NODES - 1]).is_err());
        assert!(mapping.bind(Placement::Bind, &[MAX_HOST_NODES]).is_err());
        assert!(mapping.bind(Placement::Bind, &[]).is_err());
    }
}
