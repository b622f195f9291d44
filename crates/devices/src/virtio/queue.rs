//! A virtqueue (§2.7): takes chains of buffers from guest memory, has them served, and gives them back.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};
use rhea_core::{
    Dma, LoadError,
    memory::{GuestRam, GuestSlice, WriteLogSlice},
};
use serde::{Deserialize, Serialize};
use virtio_queue::{
    DescriptorChain, Error, Queue, QueueOwnedT, QueueState, QueueT, Reader, Writer, desc::split::Descriptor,
};
use vm_memory::GuestMemoryBackend;

/// The buffers of one chain.
pub struct Buffers<'a> {
    /// Names the chain, to give it back later.
    pub head: u16,
    /// What the driver wrote.
    pub reader: Reader<'a, WriteLogSlice<'a>>,
    /// Where the device writes.
    pub writer: Writer<'a, WriteLogSlice<'a>>,
    /// Bytes that were written right behind those of `writer`, by what was split off it or through slices.
    pub behind: usize,
    memory: &'a GuestRam,
    chain: DescriptorChain<&'a GuestRam>,
}

impl<'a> Buffers<'a> {
    /// `length` bytes of what the driver wrote, from byte `skip` on, where they are.
    ///
    /// # Errors
    /// They are not all there.
    pub fn readable_parts(&self, skip: usize, length: usize) -> io::Result<Vec<GuestSlice<'a>>> {
        self.parts(self.chain.clone().readable(), skip, length)
    }

    /// `length` bytes of what the device writes, from byte `skip` on, where they are.
    ///
    /// # Errors
    /// They are not all there.
    pub fn writable_parts(&self, skip: usize, length: usize) -> io::Result<Vec<GuestSlice<'a>>> {
        self.parts(self.chain.clone().writable(), skip, length)
    }

    fn parts(
        &self,
        descriptors: impl Iterator<Item = Descriptor>,
        mut skip: usize,
        length: usize,
    ) -> io::Result<Vec<GuestSlice<'a>>> {
        let mut left = length;
        let mut parts = Vec::new();
        for descriptor in descriptors {
            if left == 0 {
                break;
            }
            for slice in GuestMemoryBackend::get_slices(self.memory, descriptor.addr(), descriptor.len() as usize) {
                let slice = slice.map_err(io::Error::other)?;
                let skipped = skip.min(slice.len());
                skip -= skipped;
                let count = (slice.len() - skipped).min(left);
                if count > 0 {
                    parts.push(slice.subslice(skipped, count).map_err(io::Error::other)?);
                    left -= count;
                }
            }
        }
        if left == 0 { Ok(parts) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// What became of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done: the driver gets it back, with as many bytes as were written.
    Done,
    /// The device keeps it, for [`Virtqueue::give_back`].
    Held,
    /// It stays in the queue, and so does what is behind it.
    NotNow,
}

/// Who is told of what happens in a queue.
pub(super) trait QueueEvents: Send + Sync {
    /// The driver wants to hear that buffers were given back.
    fn used(&self, index: u16);
    /// The driver broke the rules: the queue cannot be used any more. It may have been reset before this is told.
    fn broken(&self, index: u16);
}

/// A queue.
pub struct Virtqueue {
    index: u16,
    queue: Mutex<Queue>,
    dma: Arc<Dma>,
    events: OnceLock<Arc<dyn QueueEvents>>,
    /// Somebody looks for buffers all the time: the driver need not say that it has some.
    attended: AtomicBool,
    /// The driver broke the rules, and the queue was not reset since. Changed with the queue locked.
    broken: AtomicBool,
}

/// Saved form of a queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueV1 {
    size: u16,
    ready: bool,
    next_avail: u16,
    next_used: u16,
    event_idx: bool,
    desc_table: u64,
    avail_ring: u64,
    used_ring: u64,
}

impl Virtqueue {
    /// Queue `index` of at most `size` entries. A size that no queue has becomes the next one that there is.
    pub(super) fn new(index: u16, size: u16, dma: Arc<Dma>) -> Option<Arc<Self>> {
        let queue = Queue::new(size.clamp(1, 1 << 15).next_power_of_two()).ok()?;
        Some(Arc::new(Self {
            index,
            queue: Mutex::new(queue),
            dma,
            events: OnceLock::new(),
            attended: AtomicBool::new(false),
            broken: AtomicBool::new(false),
        }))
    }

    pub(super) fn connect(&self, events: Arc<dyn QueueEvents>) {
        let _ = self.events.set(events);
    }

    /// The way to guest memory.
    pub fn dma(&self) -> &Dma {
        &self.dma
    }

    /// Looks at the registers, while the queue is not being served.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Queue) -> T) -> T {
        work(&mut self.queue.lock())
    }

    /// Whether the driver has made more available.
    pub(super) fn has_more(&self) -> bool {
        let queue = self.queue.lock();
        let memory = self.dma.memory();
        queue.ready() && queue.avail_idx(&*memory, Ordering::Acquire).is_ok_and(|end| end.0 != queue.next_avail())
    }

    /// Begins, or ends, a time in which the driver need not say that it has made more available. At the end of it there may
    /// be more.
    pub(super) fn attend(&self, attended: bool) {
        let mut queue = self.queue.lock();
        if self.attended.swap(attended, Ordering::AcqRel) == attended || !queue.ready() {
            return;
        }
        let memory = self.dma.memory();
        let result =
            if attended { queue.disable_notification(&*memory) } else { queue.enable_notification(&*memory).map(drop) };
        self.conclude(queue, &result);
    }

    /// Has every chain served that is there, one after another, until one says [`Outcome::NotNow`].
    pub fn serve(&self, mut work: impl FnMut(&mut Buffers<'_>) -> Outcome) {
        let mut queue = self.queue.lock();
        if !queue.ready() {
            return;
        }
        let result = self.serve_all(&mut queue, &mut work);
        self.conclude(queue, &result);
    }

    fn serve_all(
        &self,
        queue: &mut MutexGuard<'_, Queue>,
        work: &mut impl FnMut(&mut Buffers<'_>) -> Outcome,
    ) -> Result<(), Error> {
        // The library gives nothing, too, where the ring cannot be read: what is said to be there must come at the
        // second time.
        let mut came_up_empty = false;
        loop {
            let memory = self.dma.memory();
            queue.disable_notification(&*memory)?;
            let mut served = false;
            while queue.ready() {
                match self.serve_one(queue, &memory, work)? {
                    Some(Outcome::Done | Outcome::Held) => served = true,
                    // Whoever put it off asks again.
                    Some(Outcome::NotNow) => return Ok(()),
                    None => break,
                }
                // Whoever wants to look at the registers, or to reset them, comes in between two chains.
                MutexGuard::bump(queue);
            }
            if !queue.ready() || self.attended.load(Ordering::Acquire) || !queue.enable_notification(&*memory)? {
                return Ok(());
            }
            if came_up_empty && !served {
                return Err(Error::InvalidAvailRingIndex);
            }
            came_up_empty = !served;
        }
    }

    fn serve_one(
        &self,
        queue: &mut Queue,
        memory: &GuestRam,
        work: &mut impl FnMut(&mut Buffers<'_>) -> Outcome,
    ) -> Result<Option<Outcome>, Error> {
        let Some(chain) = queue.iter(memory)?.next() else { return Ok(None) };
        let head = chain.head_index();
        let reader = Reader::new(memory, chain.clone())?;
        let writer = Writer::new(memory, chain.clone())?;
        let mut buffers = Buffers { head, reader, writer, behind: 0, memory, chain };
        let outcome = work(&mut buffers);
        match outcome {
            Outcome::Done => {
                self.complete(queue, memory, head, buffers.writer.bytes_written() + buffers.behind)?;
            }
            Outcome::Held => {}
            Outcome::NotNow => queue.go_to_previous_position(),
        }
        Ok(Some(outcome))
    }

    fn complete(&self, queue: &mut Queue, memory: &GuestRam, head: u16, written: usize) -> Result<(), Error> {
        queue.add_used(memory, head, u32::try_from(written).unwrap_or(u32::MAX))?;
        if self.wants_interrupt(queue, memory)?
            && let Some(events) = self.events.get()
        {
            events.used(self.index);
        }
        Ok(())
    }

    fn wants_interrupt(&self, queue: &mut Queue, memory: &GuestRam) -> Result<bool, Error> {
        if queue.event_idx_enabled() {
            return queue.needs_notification(memory);
        }
        // §2.7.7: the driver's flag, which the library leaves to us.
        let mut flags = [0; 2];
        vm_memory::Bytes::read_slice(memory, &mut flags, vm_memory::GuestAddress(queue.avail_ring()))
            .map_err(Error::GuestMemory)?;
        Ok(flags[0] & 1 == 0)
    }

    /// Gives a held chain back, with nothing written.
    pub fn give_back(&self, head: u16) {
        let mut queue = self.queue.lock();
        let memory = self.dma.memory();
        let result = if queue.ready() { self.complete(&mut queue, &memory, head, 0) } else { Ok(()) };
        self.conclude(queue, &result);
    }

    /// Ends what was done with the queue: one with an error in it cannot be used any more.
    fn conclude(&self, mut queue: MutexGuard<'_, Queue>, result: &Result<(), Error>) {
        if result.is_ok() {
            return;
        }
        queue.set_ready(false);
        self.broken.store(true, Ordering::Release);
        drop(queue);
        if let Some(events) = self.events.get() {
            events.broken(self.index);
        }
    }

    /// The driver gave something that cannot be followed.
    pub fn break_down(&self) {
        self.conclude(self.queue.lock(), &Err(Error::InvalidChain));
    }

    /// Whether the driver broke the rules, and the queue was not reset since.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Back to what it is without a driver, once what is being served is done.
    pub(super) fn reset(&self) {
        let mut queue = self.queue.lock();
        queue.reset();
        self.broken.store(false, Ordering::Release);
    }

    /// The registers and positions.
    pub fn save(&self) -> QueueV1 {
        let queue = self.queue.lock();
        let QueueState {
            max_size: _,
            next_avail,
            next_used,
            event_idx_enabled,
            size,
            ready,
            desc_table,
            avail_ring,
            used_ring,
        } = queue.state();
        QueueV1 { size, ready, next_avail, next_used, event_idx: event_idx_enabled, desc_table, avail_ring, used_ring }
    }

    /// Puts saved ones back.
    ///
    /// # Errors
    /// What the queue cannot have.
    pub fn restore(&self, state: &QueueV1) -> Result<(), LoadError> {
        let mut queue = self.queue.lock();
        let state = QueueState {
            max_size: queue.max_size(),
            next_avail: state.next_avail,
            next_used: state.next_used,
            event_idx_enabled: state.event_idx,
            size: state.size,
            ready: state.ready,
            desc_table: state.desc_table,
            avail_ring: state.avail_ring,
            used_ring: state.used_ring,
        };
        *queue = Queue::try_from(state).map_err(|_| LoadError::invalid("Virtqueue", "registers that cannot be"))?;
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{Read, Write};

    use proptest::prelude::*;
    use rhea_core::{AddressSpace, Ram, Width, memory::Target};

    use super::*;

    /// A driver's end of one queue of eight entries in a small memory of its own.
    pub struct Driver {
        pub space: Arc<AddressSpace>,
        pub dma: Arc<Dma>,
        next: u16,
        free: u16,
    }

    pub const DESCRIPTORS: u64 = 0x1000;
    pub const AVAILABLE: u64 = 0x2000;
    pub const USED: u64 = 0x3000;
    pub const DATA: u64 = 0x4000;

    impl Driver {
        pub fn new() -> Self {
            let space = Arc::new(AddressSpace::new());
            let ram = Ram::new("test", 0x10_0000).unwrap();
            space.map(0, 0x10_0000, 0, Target::Ram { ram, offset: 0, writable: true });
            let dma = Dma::new(Arc::clone(&space));
            Self { space, dma, next: 0, free: 0 }
        }

        /// A queue of the device that is ready.
        pub fn queue(&self) -> Arc<Virtqueue> {
            let queue = Virtqueue::new(0, 8, Arc::clone(&self.dma)).unwrap();
            queue.with(|queue| {
                queue.set_desc_table_address(Some(DESCRIPTORS as u32), Some(0));
                queue.set_avail_ring_address(Some(AVAILABLE as u32), Some(0));
                queue.set_used_ring_address(Some(USED as u32), Some(0));
                queue.set_ready(true);
            });
            queue
        }

        /// Makes a chain of buffers (address, length, whether the device writes it) available; gives its head.
        pub fn offer(&mut self, buffers: &[(u64, u32, bool)]) -> u16 {
            let head = self.free;
            for (i, (address, length, writable)) in buffers.iter().enumerate() {
                let at = DESCRIPTORS + 16 * u64::from((head + i as u16) % 8);
                let last = i + 1 == buffers.len();
                self.space.write_value(at, Width::Qword, *address);
                self.space.write_value(at + 8, Width::Dword, (*length).into());
                self.space.write_value(at + 12, Width::Word, u64::from(!last) | u64::from(*writable) << 1);
                self.space.write_value(at + 14, Width::Word, ((u64::from(head) + i as u64) + 1) % 8);
            }
            self.free = (head + buffers.len() as u16) % 8;
            self.space.write_value(AVAILABLE + 4 + 2 * u64::from(self.next % 8), Width::Word, head.into());
            self.next = self.next.wrapping_add(1);
            self.space.write_value(AVAILABLE + 2, Width::Word, self.next.into());
            head
        }

        /// How many chains came back, and the length of the last.
        pub fn used(&self) -> (u16, u32) {
            let count = self.space.read_value(USED + 2, Width::Word) as u16;
            let last = USED + 4 + 8 * u64::from(count.wrapping_sub(1) % 8);
            (count, self.space.read_value(last + 4, Width::Dword) as u32)
        }
    }

    #[test]
    fn chains_are_read_written_and_given_back() {
        let mut driver = Driver::new();
        let queue = driver.queue();
        driver.space.write(DATA, b"ping");
        driver.offer(&[(DATA, 4, false), (DATA + 0x100, 16, true)]);
        let mut seen = Vec::new();
        queue.serve(|buffers| {
            let mut text = [0; 4];
            buffers.reader.read_exact(&mut text).unwrap();
            seen.extend(text);
            buffers.writer.write_all(b"pong!").unwrap();
            Outcome::Done
        });
        let mut answer = [0; 5];
        driver.space.read(DATA + 0x100, &mut answer);
        assert_eq!((&seen[..], &answer, driver.used()), (&b"ping"[..], b"pong!", (1, 5)));
    }

    #[test]
    fn a_chain_that_is_put_off_is_seen_again_and_a_held_one_is_given_back_later() {
        let mut driver = Driver::new();
        let queue = driver.queue();
        let head = driver.offer(&[(DATA, 16, true)]);
        queue.serve(|_| Outcome::NotNow);
        assert_eq!(driver.used().0, 0);
        let mut times = 0;
        queue.serve(|buffers| {
            times += 1;
            assert_eq!(buffers.head, head);
            Outcome::Held
        });
        queue.serve(|_| panic!("there is no other"));
        assert_eq!((times, driver.used().0), (1, 0));
        queue.give_back(head);
        assert_eq!(driver.used(), (1, 0));
        let state = queue.save();
        let other = driver.queue();
        other.restore(&state).unwrap();
        assert_eq!(other.save(), state);
    }

    #[test]
    fn a_ring_whose_entries_are_outside_memory_ends() {
        let driver = Driver::new();
        let queue = driver.queue();
        driver.space.write_value(0xf_fffe, Width::Word, 1);
        queue.with(|queue| queue.set_avail_ring_address(Some(0xf_fffc), Some(0)));
        queue.serve(|_| panic!("there is nothing to serve"));
        assert!(!queue.save().ready);
    }

    struct Broken(Mutex<u32>);

    impl QueueEvents for Broken {
        fn used(&self, _: u16) {}

        fn broken(&self, _: u16) {
            *self.0.lock() += 1;
        }
    }

    #[test]
    fn buffers_outside_memory_break_the_queue_and_nothing_else() {
        let mut driver = Driver::new();
        let queue = driver.queue();
        let events = Arc::new(Broken(Mutex::new(0)));
        queue.connect(Arc::clone(&events) as _);
        driver.offer(&[(u64::MAX - 3, 16, true)]);
        queue.serve(|_| panic!("it cannot be served"));
        queue.serve(|_| panic!("it is broken"));
        assert_eq!(*events.0.lock(), 1);
        assert!(!queue.save().ready);
    }

    proptest! {
        #[test]
        fn rings_of_any_bytes_end(
            bytes in prop::collection::vec(any::<u8>(), 0x40..0x300),
            rings in (0u64..0x400, 0u64..0x400, 0u64..0x400),
        ) {
            let driver = Driver::new();
            driver.space.write(0, &bytes);
            let queue = driver.queue();
            queue.with(|queue| {
                queue.set_desc_table_address(Some(rings.0 as u32 & !15), Some(0));
                queue.set_avail_ring_address(Some(rings.1 as u32 & !1), Some(0));
                queue.set_used_ring_address(Some(rings.2 as u32 & !3), Some(0));
            });
            // The device's own writes may change what the driver offers, so that it need not run dry; it ends here.
            let mut served = 0;
            queue.serve(|buffers| {
                served += 1;
                let mut data = [0; 64];
                let _ = buffers.reader.read(&mut data);
                let _ = buffers.writer.write(&data);
                if served > 1000 { Outcome::NotNow } else { Outcome::Done }
            });
        }
    }
}
