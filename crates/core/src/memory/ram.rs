//! Guest RAM: host memory that processors and devices share, and what is known of each of its pages.
//!
//! This is one of the modules that may be unsafe: it maps memory and copies to and from it.
#![allow(unsafe_code)]

use std::{
    fmt, io,
    ptr::{self, NonNull},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering, fence},
    },
};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use zerocopy::FromZeros;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// Bytes of a grain: the unit in which a page remembers where decoded code lies.
pub const GRAIN: u64 = 64;

/// What is known of one page of RAM.
#[derive(Debug, FromZeros)]
#[repr(C)]
pub struct PageState {
    /// One bit for each [`GRAIN`] from which a processor has decoded instructions. A page with any bit set must be
    /// written through [`Ram::note_write`].
    pub code: AtomicU64,
    /// Counts the times that decoded code of this page was overwritten; what was decoded under another value is stale.
    pub generation: AtomicU32,
    /// Bits of those who follow writes, reserved for dirty logging.
    pub dirty: AtomicU32,
}

/// A piece of guest RAM.
pub struct Ram {
    name: String,
    base: NonNull<u8>,
    length: u64,
    pages: Box<[PageState]>,
}

// SAFETY: the mapping lives as long as the value and is reached only through raw copies and atomics, never through
// references, so it may be used from any thread.
unsafe impl Send for Ram {}
// SAFETY: as above.
unsafe impl Sync for Ram {}

impl Ram {
    /// `length` bytes of zeroed RAM, a whole number of pages. Host memory is taken page by page on first use.
    ///
    /// # Errors
    /// A length that is zero, no whole number of pages, or more than the host can map.
    pub fn new(name: impl Into<String>, length: u64) -> io::Result<Arc<Self>> {
        let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidInput, reason.to_owned());
        if length == 0 || !length.is_multiple_of(PAGE) {
            return Err(invalid("RAM must be a whole number of 4096-byte pages"));
        }
        let bytes = isize::try_from(length).map_err(|_| invalid("more RAM than an address space can hold"))? as usize;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing of ours.
        let base = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| invalid("mapping at address 0"))?;
        let pages = <[PageState]>::new_box_zeroed_with_elems((length / PAGE) as usize);
        let Ok(pages) = pages else {
            // SAFETY: the mapping was made above and nothing refers to it.
            let _ = unsafe { munmap(base.as_ptr().cast(), bytes) };
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        Ok(Arc::new(Self { name: name.into(), base, length, pages }))
    }

    /// What the RAM is called, such as `pc.ram`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its size in bytes.
    #[allow(clippy::len_without_is_empty, reason = "RAM is never empty")]
    pub const fn len(&self) -> u64 {
        self.length
    }

    /// The state of the page at `offset`.
    pub fn page(&self, offset: u64) -> Option<&PageState> {
        self.pages.get(usize::try_from(offset / PAGE).ok()?)
    }

    /// Where the host has the byte at `offset`; valid for as long as the RAM lives, up to its end.
    pub fn host(&self, offset: u64) -> Option<NonNull<u8>> {
        // SAFETY: the offset is inside the mapping.
        (offset < self.length).then(|| unsafe { self.base.add(offset as usize) })
    }

    fn contains(&self, offset: u64, length: usize) -> bool {
        offset.checked_add(length as u64).is_some_and(|end| end <= self.length)
    }

    /// Copies RAM at `offset` to `data`; `false`, and nothing copied, if that is not all inside.
    #[must_use]
    pub fn read(&self, offset: u64, data: &mut [u8]) -> bool {
        let inside = self.contains(offset, data.len());
        if inside {
            // SAFETY: the source is inside the mapping, the target is ours; guests may write meanwhile, and any mixture
            // of old and new bytes is a valid value.
            unsafe { ptr::copy_nonoverlapping(self.base.add(offset as usize).as_ptr(), data.as_mut_ptr(), data.len()) };
        }
        inside
    }

    /// Copies `data` to RAM at `offset`; `false`, and nothing copied, if that is not all inside.
    #[must_use]
    pub fn write(&self, offset: u64, data: &[u8]) -> bool {
        let inside = self.contains(offset, data.len());
        if inside {
            // SAFETY: as in `read`, with source and target exchanged.
            unsafe { ptr::copy_nonoverlapping(data.as_ptr(), self.base.add(offset as usize).as_ptr(), data.len()) };
            self.note_write(offset, data.len() as u64);
        }
        inside
    }

    /// Gives the host the memory of the page at `offset` back; it reads as zeros. `false` if it is not inside.
    pub fn discard_page(&self, offset: u64) -> bool {
        let offset = offset & !(PAGE - 1);
        let inside = self.contains(offset, PAGE as usize);
        if inside {
            // SAFETY: the page is inside the mapping, which is private and anonymous: it is there again, zeroed, when
            // it is next touched. Nobody holds references into it.
            let given = unsafe {
                madvise(self.base.add(offset as usize).as_ptr().cast(), PAGE as usize, Advice::LinuxDontNeed)
            };
            if given.is_err() {
                // Locked memory stays; its contents go all the same.
                return self.write(offset, &[0; PAGE as usize]);
            }
            self.note_write(offset, PAGE);
        }
        inside
    }

    /// To be called after a write that was not made by [`write`](Self::write), if it may have hit code.
    pub fn note_write(&self, offset: u64, length: u64) {
        if length == 0 {
            return;
        }
        // The write comes before the look at the marks; whoever decodes marks first and reads then, so that one of the
        // two sees the other.
        fence(Ordering::SeqCst);
        let last = offset.saturating_add(length - 1).min(self.length - 1);
        let mut at = offset;
        while at <= last {
            let page_last = at | (PAGE - 1);
            let end = page_last.min(last);
            if let Some(page) = self.page(at) {
                let code = page.code.load(Ordering::SeqCst);
                if code & grains(at, end) != 0 {
                    // In this order a mark made meanwhile is kept, or what was decoded under it is stale.
                    page.code.store(0, Ordering::SeqCst);
                    page.generation.fetch_add(1, Ordering::SeqCst);
                }
            }
            let Some(next) = page_last.checked_add(1) else { return };
            at = next;
        }
    }
}

/// The bits of the grains from `first` to `last`, two offsets in one page.
fn grains(first: u64, last: u64) -> u64 {
    let (low, high) = (first % PAGE / GRAIN, last % PAGE / GRAIN);
    (u64::MAX >> (63 - high)) & (u64::MAX << low)
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and whoever holds a pointer into it holds the RAM too.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.length as usize) };
    }
}

impl fmt::Debug for Ram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ram({}, {} bytes)", self.name, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_nothing_past_the_end() {
        let ram = Ram::new("test", 2 * PAGE).unwrap();
        assert!(ram.write(PAGE - 2, &[1, 2, 3, 4]));
        let mut data = [0; 4];
        assert!(ram.read(PAGE - 2, &mut data));
        assert_eq!(data, [1, 2, 3, 4]);
        assert!(!ram.write(2 * PAGE - 1, &[1, 2]));
        assert!(!ram.read(u64::MAX, &mut data));
        assert!(ram.host(2 * PAGE).is_none());
    }

    #[test]
    fn sizes_that_no_machine_has_are_errors() {
        for length in [0, 1, PAGE + 1, u64::MAX, u64::MAX - PAGE + 1] {
            assert!(Ram::new("test", length).is_err(), "{length:#x}");
        }
    }

    #[test]
    fn a_write_to_a_grain_with_code_makes_the_page_a_new_generation() {
        let ram = Ram::new("test", 2 * PAGE).unwrap();
        let page = ram.page(PAGE).unwrap();
        page.code.store(1 << 2, Ordering::SeqCst);
        assert!(ram.write(PAGE + 64, &[0; 64]));
        assert_eq!(page.generation.load(Ordering::SeqCst), 0);
        assert!(ram.write(PAGE - 1, &[0; 130]));
        assert_eq!(page.generation.load(Ordering::SeqCst), 1);
        assert_eq!(page.code.load(Ordering::SeqCst), 0);
    }
}
