//! Who follows writes to guest memory, and which pages were written since they last asked.
//!
//! A page that was written has a bit for each follower. Whoever writes sets it after the write; a processor, which writes
//! through its TLB without a further look, sets it before it gets a way to write. So whoever takes the bits away has all
//! processors give up their ways to write before it reads the pages: then what is written later sets the bit again.

use std::sync::atomic::{Ordering, fence};

use super::{
    AddressSpace, PAGE,
    ram::{PageState, Ram},
};

/// Someone who wants to know which pages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follower {
    /// A client who switched the log on for all of the machine.
    Global,
    /// A migration.
    Migration,
}

impl Follower {
    pub(super) const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// One bit a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bitmap {
    words: Vec<u64>,
    pages: u64,
    count: u64,
}

impl Bitmap {
    /// No page of `pages`.
    pub fn none(pages: u64) -> Self {
        Self { words: vec![0; pages.div_ceil(64) as usize], pages, count: 0 }
    }

    /// All of `pages`.
    pub fn all(pages: u64) -> Self {
        let mut words = vec![u64::MAX; pages.div_ceil(64) as usize];
        if let Some(last) = words.last_mut().filter(|_| !pages.is_multiple_of(64)) {
            *last = (1 << (pages % 64)) - 1;
        }
        Self { words, pages, count: pages }
    }

    /// How many pages there are, in it or not.
    pub const fn pages(&self) -> u64 {
        self.pages
    }

    /// How many pages are in it.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Whether `page` is in it.
    pub fn contains(&self, page: u64) -> bool {
        self.words.get((page / 64) as usize).is_some_and(|word| word & 1 << (page % 64) != 0)
    }

    /// Takes `page` in; nothing happens if there is no such page.
    pub fn insert(&mut self, page: u64) {
        if let Some(word) = self.words.get_mut((page / 64) as usize).filter(|_| page < self.pages) {
            let bit = 1 << (page % 64);
            self.count += u64::from(*word & bit == 0);
            *word |= bit;
        }
    }

    /// Takes the first page at or after `from` out, and gives its number.
    pub fn take_next(&mut self, from: u64) -> Option<u64> {
        let mut at = (from / 64) as usize;
        let mut mask = u64::MAX << (from % 64);
        loop {
            let word = self.words.get_mut(at)?;
            let left = *word & mask;
            if left != 0 {
                let bit = left.trailing_zeros();
                *word &= !(1 << bit);
                self.count -= 1;
                return Some(64 * at as u64 + u64::from(bit));
            }
            mask = u64::MAX;
            at += 1;
        }
    }

    /// The pages in it, in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.words.iter().zip((0..).step_by(64)).flat_map(|(&word, first)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(first + u64::from(bit))
            })
        })
    }
}

impl PageState {
    /// After a write, or before a way to write is given out: `followers` are to hear of it.
    #[inline]
    pub(super) fn mark_written(&self, followers: u32) {
        // Most of the time nobody follows, or all are still to hear of an earlier write.
        if followers & !self.dirty.load(Ordering::SeqCst) != 0 {
            self.dirty.fetch_or(followers, Ordering::SeqCst);
        }
    }
}

impl Ram {
    /// To be called before a processor gets a way to write the page at `offset` that nobody looks at.
    #[inline]
    pub fn note_way_to_write(&self, offset: u64) {
        let followers = self.followers.load(Ordering::SeqCst);
        if followers != 0
            && let Some(page) = self.page(offset)
        {
            page.mark_written(followers);
        }
    }

    /// Pages are marked for the followers of `bits`, and for nobody else.
    pub(super) fn set_followers(&self, bits: u32) {
        let gone = self.followers.swap(bits, Ordering::SeqCst) & !bits;
        fence(Ordering::SeqCst);
        if gone != 0 {
            for page in self.pages() {
                page.dirty.fetch_and(!gone, Ordering::SeqCst);
            }
        }
    }

    /// The pages written since `follower` last asked. They may still be written unseen until all processors have given
    /// up the ways to write that they have: only then what is in them may be looked at.
    pub fn take_written(&self, follower: Follower) -> Bitmap {
        let bit = follower.bit();
        let mut written = Bitmap::none(self.len() / PAGE);
        for (page, number) in self.pages().iter().zip(0..) {
            if page.dirty.load(Ordering::SeqCst) & bit != 0 {
                page.dirty.fetch_and(!bit, Ordering::SeqCst);
                written.insert(number);
            }
        }
        fence(Ordering::SeqCst);
        written
    }

    /// Whether `follower` follows writes here.
    pub fn is_followed_by(&self, follower: Follower) -> bool {
        self.followers.load(Ordering::SeqCst) & follower.bit() != 0
    }
}

impl AddressSpace {
    /// From now on `follower` hears of writes to all RAM that is in the map, also to what is mapped later; `false` if it
    /// did before. Processors must give up their ways to write before that is true of them.
    pub fn follow_writes(&self, follower: Follower) -> bool {
        self.change_followers(|bits| bits | follower.bit())
    }

    /// `follower` wants to hear no more; `false` if it did not.
    pub fn stop_following(&self, follower: Follower) -> bool {
        self.change_followers(|bits| bits & !follower.bit())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::memory::{Dma, Target};

    const NOTHING: [u64; 0] = [];

    fn space(pages: u64) -> (AddressSpace, Arc<Ram>) {
        let (space, ram) = (AddressSpace::new(), Ram::new("test", pages * PAGE).unwrap());
        space.map(0, pages * PAGE, 0, Target::Ram { ram: Arc::clone(&ram), offset: 0, writable: true });
        (space, ram)
    }

    fn taken(ram: &Ram, follower: Follower) -> Vec<u64> {
        ram.take_written(follower).iter().collect()
    }

    #[test]
    fn each_follower_hears_of_each_write_once_and_of_none_before_it_asked() {
        let (space, ram) = space(8);
        space.write(0, &[1]);
        assert!(space.follow_writes(Follower::Migration));
        assert!(!space.follow_writes(Follower::Migration));
        space.write(2 * PAGE - 1, &[1, 2]);
        assert!(space.follow_writes(Follower::Global));
        space.write_value(5 * PAGE, crate::Width::Dword, 7);
        assert_eq!(taken(&ram, Follower::Migration), [1, 2, 5]);
        assert_eq!(taken(&ram, Follower::Global), [5]);
        assert_eq!(taken(&ram, Follower::Migration), NOTHING);
        space.write(2 * PAGE, &[3]);
        assert_eq!(taken(&ram, Follower::Migration), [2]);
        assert!(space.stop_following(Follower::Global));
        assert!(!space.stop_following(Follower::Global));
        // What it did not ask for is not there when it comes again.
        assert!(space.follow_writes(Follower::Global));
        assert_eq!(taken(&ram, Follower::Global), NOTHING);
        assert!(ram.is_followed_by(Follower::Migration));
    }

    #[test]
    fn every_way_to_write_that_is_no_processor_is_seen() {
        let (space, ram) = space(8);
        let space = Arc::new(space);
        let dma = Dma::new(Arc::clone(&space));
        // Held since before anybody followed, as a device does in the middle of a request.
        let memory = dma.memory();
        space.follow_writes(Follower::Migration);
        assert!(ram.write(0, &[1]));
        memory.write_slice(&[1], GuestAddress(PAGE)).unwrap();
        memory.write_obj(7_u64, GuestAddress(2 * PAGE + 8)).unwrap();
        memory.store(7_u16, GuestAddress(3 * PAGE), Ordering::Release).unwrap();
        assert!(dma.discard_page(4 * PAGE));
        ram.note_write(5 * PAGE, 1);
        ram.note_way_to_write(6 * PAGE);
        assert_eq!(taken(&ram, Follower::Migration), [0, 1, 2, 3, 4, 5, 6]);
        ram.discard_all();
        assert_eq!(ram.take_written(Follower::Migration), Bitmap::all(8));
        let mut byte = [0];
        memory.read_slice(&mut byte, GuestAddress(PAGE)).unwrap();
        assert_eq!(taken(&ram, Follower::Migration), NOTHING);
    }

    #[test]
    fn memory_that_comes_is_followed_and_memory_that_goes_is_not() {
        let (space, _ram) = space(1);
        space.follow_writes(Follower::Migration);
        let more = Ram::new("more", PAGE).unwrap();
        let target = Target::Ram { ram: Arc::clone(&more), offset: 0, writable: true };
        let region = space.map(PAGE, PAGE, 0, target.clone());
        space.write(PAGE, &[1]);
        assert_eq!(taken(&more, Follower::Migration), [0]);
        let regions = space.replace(&[region], vec![(2 * PAGE, PAGE, 0, target)]);
        assert!(more.is_followed_by(Follower::Migration));
        assert!(space.unmap(regions[0]));
        assert!(!more.is_followed_by(Follower::Migration));
    }

    #[test]
    fn nothing_is_lost_while_two_write_and_one_takes() {
        const PAGES: u64 = 64;
        const ROUNDS: u32 = 20_000;
        let (space, ram) = space(PAGES);
        space.follow_writes(Follower::Migration);
        let copy = Ram::new("copy", PAGES * PAGE).unwrap();
        let take = |copy: &Ram| {
            for page in ram.take_written(Follower::Migration).iter() {
                let mut bytes = vec![0; PAGE as usize];
                assert!(ram.read(page * PAGE, &mut bytes));
                assert!(copy.write(page * PAGE, &bytes));
            }
        };
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..2_u32)
                .map(|writer| {
                    let ram = &ram;
                    scope.spawn(move || {
                        let mut at = u64::from(writer) + 1;
                        for round in 0..ROUNDS {
                            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                            let page = (at >> 40) % PAGES;
                            assert!(ram.write(page * PAGE + 8 * u64::from(writer), &round.to_le_bytes()));
                        }
                    })
                })
                .collect();
            while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                take(&copy);
            }
        });
        take(&copy);
        let (mut real, mut copied) = (vec![0; (PAGES * PAGE) as usize], vec![0; (PAGES * PAGE) as usize]);
        assert!(ram.read(0, &mut real) && copy.read(0, &mut copied));
        assert!(real == copied);
    }

    proptest! {
        #[test]
        fn a_bitmap_is_a_set(pages in 0_u64..300, inserted in prop::collection::btree_set(0_u64..300, 0..40)) {
            let mut map = Bitmap::none(pages);
            for page in &inserted {
                map.insert(*page);
                map.insert(*page);
            }
            let expected: Vec<u64> = inserted.iter().copied().filter(|page| *page < pages).collect();
            prop_assert_eq!(&map.iter().collect::<Vec<_>>()[..], &expected[..]);
            prop_assert_eq!(map.count(), expected.len() as u64);
            prop_assert!(expected.iter().all(|page| map.contains(*page)));
            prop_assert_eq!(Bitmap::all(pages).iter().collect::<Vec<_>>(), (0..pages).collect::<Vec<_>>());
            let (mut out, mut from) = (Vec::new(), 0);
            while let Some(page) = map.take_next(from) {
                out.push(page);
                from = page;
            }
            prop_assert_eq!(out, expected);
            prop_assert_eq!(map.count(), 0);
        }
    }
}
