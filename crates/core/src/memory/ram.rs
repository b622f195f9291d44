//! Guest RAM: host memory that processors and devices share, and what is known of each of its pages.
//!
//! This is one of the modules that may be unsafe: it copies to and from mapped memory.
#![allow(unsafe_code)]

use std::{
    fmt, io,
    ptr::{self, NonNull},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering, fence},
    },
    task::Waker,
};

use zerocopy::FromZeros;

use super::{MapOptions, Placement, mapping::Mapping, sleepers::Sleepers};

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
    /// One bit for each [`Follower`](super::Follower) who has not heard yet that the page was written.
    pub(super) dirty: AtomicU32,
}

/// A piece of guest RAM.
pub struct Ram {
    name: String,
    mapping: Mapping,
    length: u64,
    pages: Box<[PageState]>,
    /// One bit for each [`Follower`](super::Follower) of its writes.
    pub(super) followers: AtomicU32,
    sleepers: Sleepers,
}

impl Ram {
    /// `length` bytes of zeroed RAM, a whole number of pages. Host memory is taken page by page on first use.
    ///
    /// # Errors
    /// A length that is zero, no whole number of pages, or more than the host can map.
    pub fn new(name: impl Into<String>, length: u64) -> io::Result<Arc<Self>> {
        Self::map(name, length, &MapOptions::default())
    }

    /// `length` bytes of RAM, a whole number of pages of what it is mapped from.
    ///
    /// # Errors
    /// As for [`new`](Self::new); a file that cannot be mapped so.
    pub fn map(name: impl Into<String>, length: u64, options: &MapOptions) -> io::Result<Arc<Self>> {
        let mapping = Mapping::new(length, options)?;
        let pages = <[PageState]>::new_box_zeroed_with_elems((length / PAGE) as usize);
        let pages = pages.map_err(|_| io::ErrorKind::OutOfMemory)?;
        let (followers, sleepers) = (AtomicU32::new(0), Sleepers::default());
        Ok(Arc::new(Self { name: name.into(), mapping, length, pages, followers, sleepers }))
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

    /// The states of all pages.
    pub(super) fn pages(&self) -> &[PageState] {
        &self.pages
    }

    /// The state of the page at `offset`.
    pub fn page(&self, offset: u64) -> Option<&PageState> {
        self.pages.get(usize::try_from(offset / PAGE).ok()?)
    }

    /// Where the host has the byte at `offset`; valid for as long as the RAM lives, up to its end.
    pub fn host(&self, offset: u64) -> Option<NonNull<u8>> {
        self.mapping.at(offset)
    }

    /// Whether it may be written; what cannot be is never mapped as writable.
    pub fn writable(&self) -> bool {
        self.mapping.writable()
    }

    /// Whether the host may merge its pages with others of equal contents.
    ///
    /// # Errors
    /// The host does not merge pages.
    pub fn set_merge(&self, merge: bool) -> io::Result<()> {
        self.mapping.set_merge(merge)
    }

    /// Whether a core dump of this program holds it.
    ///
    /// # Errors
    /// What the host says.
    pub fn set_dump(&self, dump: bool) -> io::Result<()> {
        self.mapping.set_dump(dump)
    }

    /// Takes the memory from `nodes` of the host.
    ///
    /// # Errors
    /// What the host says: nodes that it does not have, or that have no memory left.
    pub fn bind(&self, placement: Placement, nodes: &[u16]) -> io::Result<()> {
        self.mapping.bind(placement, nodes)
    }

    /// Takes all of it from the host now, with `threads` threads, in pieces of whole `page`s. What it holds stays.
    ///
    /// # Errors
    /// The host does not have as much.
    pub fn populate(&self, threads: u32, page: u64) -> io::Result<()> {
        self.mapping.populate(threads, page)
    }

    /// Gives all of it back to the host, where that loses nothing but its contents.
    pub fn discard_all(&self) {
        if self.mapping.give_back(0, self.length as usize) {
            self.note_write(0, self.length);
        }
    }

    /// The host address of `length` bytes at `offset`, if all of them are inside.
    fn span(&self, offset: u64, length: usize) -> Option<NonNull<u8>> {
        let inside = offset.checked_add(length as u64).is_some_and(|end| end <= self.length);
        // Nothing is inside at every address up to the end.
        if length == 0 { inside.then(NonNull::dangling) } else { self.mapping.at(offset).filter(|_| inside) }
    }

    /// Copies RAM at `offset` to `data`; `false`, and nothing copied, if that is not all inside.
    #[must_use]
    pub fn read(&self, offset: u64, data: &mut [u8]) -> bool {
        let Some(from) = self.span(offset, data.len()) else { return false };
        // SAFETY: the source is inside the mapping, the target is ours; guests may write meanwhile, and any mixture of
        // old and new bytes is a valid value.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), data.as_mut_ptr(), data.len()) };
        true
    }

    /// Copies `data` to RAM at `offset`; `false`, and nothing copied, if that is not all inside or cannot be written.
    #[must_use]
    pub fn write(&self, offset: u64, data: &[u8]) -> bool {
        let Some(to) = self.span(offset, data.len()).filter(|_| self.writable()) else { return false };
        // SAFETY: as in `read`, with source and target exchanged.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), to.as_ptr(), data.len()) };
        self.note_write(offset, data.len() as u64);
        true
    }

    /// Gives the host the memory of the page at `offset` back; it reads as zeros. `false` if it is not inside.
    pub fn discard_page(&self, offset: u64) -> bool {
        self.discard(offset & !(PAGE - 1), PAGE)
    }

    /// Gives the host `length` bytes at `offset` back, whole pages; they read as zeros. `false` if they are not all inside,
    /// or cannot be written.
    pub fn discard(&self, offset: u64, length: u64) -> bool {
        let Some(count) = usize::try_from(length).ok().filter(|&count| self.span(offset, count).is_some()) else {
            return false;
        };
        if length == 0 {
            return true;
        }
        if offset.is_multiple_of(PAGE) && length.is_multiple_of(PAGE) && self.mapping.give_back(offset, count) {
            self.note_write(offset, length);
            return true;
        }
        // Locked memory and huge pages stay; the contents go all the same.
        let zeros = [0; PAGE as usize];
        (0..length).step_by(PAGE as usize).all(|at| {
            let piece = (length - at).min(PAGE) as usize;
            zeros.get(..piece).is_some_and(|piece| self.write(offset + at, piece))
        })
    }

    /// Has `waker` woken whenever a grain that is marked as holding code is written, here or elsewhere in this RAM, until
    /// [`remove_sleeper`](Self::remove_sleeper). What was written before is to be looked at after this.
    pub fn add_sleeper(&self, waker: Waker) {
        self.sleepers.add(waker);
    }

    /// Takes back one [`add_sleeper`](Self::add_sleeper).
    pub fn remove_sleeper(&self, waker: &Waker) {
        self.sleepers.remove(waker);
    }

    /// To be called after a write that was not made by [`write`](Self::write): it may have hit code, and there may be
    /// followers.
    pub fn note_write(&self, offset: u64, length: u64) {
        if length == 0 {
            return;
        }
        // The write comes before the look at the marks; whoever decodes marks first and reads then, so that one of the
        // two sees the other.
        fence(Ordering::SeqCst);
        let followers = self.followers.load(Ordering::Relaxed);
        let last = offset.saturating_add(length - 1).min(self.length - 1);
        let mut at = offset;
        while at <= last {
            let page_last = at | (PAGE - 1);
            let end = page_last.min(last);
            if let Some(page) = self.page(at) {
                page.mark_written(followers);
                let code = page.code.load(Ordering::SeqCst);
                if code & grains(at, end) != 0 {
                    // In this order a mark made meanwhile is kept, or what was decoded under it is stale.
                    page.code.store(0, Ordering::SeqCst);
                    page.generation.fetch_add(1, Ordering::SeqCst);
                    self.sleepers.wake();
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
