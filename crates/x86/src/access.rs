//! Guest memory as instructions use it: by linear address, fallible, never partly committed.
//!
//! This is one of the modules that may be unsafe: it reads and writes guest RAM through host pointers that the TLB
//! holds.
#![allow(unsafe_code)]

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering},
    },
};

use rhea_core::{Ram, Width, memory::PageState};

use crate::{
    engine::RamRange,
    state::{CpuState, Cr4, Rflags},
    tlb::TlbSet,
    trap::Trap,
};

/// Kinds of access, as permissions know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A data read.
    Read,
    /// A data write, or a read that a write will follow.
    Write,
    /// An instruction fetch.
    Execute,
}

/// Who makes the access: paging's user and supervisor. Each has translations of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// CPL 0 to 2, or implicit accesses to descriptor tables and the like.
    Supervisor = 0,
    /// CPL 3.
    User = 1,
    /// CPL 0 to 2 while RFLAGS.AC lets it use user pages in spite of CR4.SMAP.
    Override = 2,
}

mod sealed {
    pub trait Sealed {}
}

/// An integer that memory accesses move: `u8` to `u128`, little-endian.
pub trait Value: Copy + Eq + sealed::Sealed + std::fmt::Debug {
    /// Size in bytes.
    const SIZE: usize;
    /// From 16 little-endian bytes, of which the first [`SIZE`](Self::SIZE) count.
    fn from_bytes(bytes: [u8; 16]) -> Self;
    /// To 16 little-endian bytes, of which the first [`SIZE`](Self::SIZE) count.
    fn to_bytes(self) -> [u8; 16];
    /// # Safety
    /// `host` points to `SIZE` bytes of guest RAM.
    #[doc(hidden)]
    unsafe fn load(host: usize) -> Self;
    /// # Safety
    /// `host` points to `SIZE` bytes of guest RAM.
    #[doc(hidden)]
    unsafe fn store(host: usize, value: Self);
    /// Atomically replaces `old` by `new`; the value found if it was another.
    ///
    /// # Safety
    /// `host` points to `SIZE` bytes of guest RAM.
    #[doc(hidden)]
    unsafe fn compare_exchange(host: usize, old: Self, new: Self) -> Result<(), Self>;
}

/// Serialises locked accesses that the host cannot do in one: those that are not aligned, and 16-byte ones.
static SPLIT_LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());

macro_rules! value {
    ($type:ty, $atomic:ty) => {
        impl sealed::Sealed for $type {}
        impl Value for $type {
            const SIZE: usize = size_of::<$type>();

            #[inline(always)]
            fn from_bytes(bytes: [u8; 16]) -> Self {
                u128::from_le_bytes(bytes) as $type
            }

            #[inline(always)]
            fn to_bytes(self) -> [u8; 16] {
                (self as u128).to_le_bytes()
            }

            #[inline(always)]
            unsafe fn load(host: usize) -> Self {
                let pointer = host as *mut $type;
                if pointer.is_aligned() {
                    // SAFETY: valid by the caller's promise, aligned; RAM is shared, so the access is atomic. Acquire
                    // and release give the order that x86 promises its programs, at no cost on such a host.
                    <$type>::from_le(unsafe { <$atomic>::from_ptr(pointer) }.load(Ordering::Acquire))
                } else {
                    // SAFETY: valid by the caller's promise. Unaligned accesses are not atomic on the guest's
                    // processor either.
                    <$type>::from_le(unsafe { pointer.read_unaligned() })
                }
            }

            #[inline(always)]
            unsafe fn store(host: usize, value: Self) {
                let pointer = host as *mut $type;
                if pointer.is_aligned() {
                    // SAFETY: as in `load`.
                    unsafe { <$atomic>::from_ptr(pointer) }.store(value.to_le(), Ordering::Release);
                } else {
                    // SAFETY: as in `load`.
                    unsafe { pointer.write_unaligned(value.to_le()) };
                }
            }

            #[inline(always)]
            unsafe fn compare_exchange(host: usize, old: Self, new: Self) -> Result<(), Self> {
                let pointer = host as *mut $type;
                if pointer.is_aligned() {
                    // SAFETY: as in `load`.
                    unsafe { <$atomic>::from_ptr(pointer) }
                        .compare_exchange(old.to_le(), new.to_le(), Ordering::SeqCst, Ordering::SeqCst)
                        .map(drop)
                        .map_err(<$type>::from_le)
                } else {
                    // SAFETY: the caller's promise is ours.
                    unsafe { split_compare_exchange(host, old, new) }
                }
            }
        }
    };
}

value!(u8, AtomicU8);
value!(u16, AtomicU16);
value!(u32, AtomicU32);
value!(u64, AtomicU64);

impl sealed::Sealed for u128 {}
impl Value for u128 {
    const SIZE: usize = 16;

    #[inline(always)]
    fn from_bytes(bytes: [u8; 16]) -> Self {
        Self::from_le_bytes(bytes)
    }

    #[inline(always)]
    fn to_bytes(self) -> [u8; 16] {
        self.to_le_bytes()
    }

    #[inline(always)]
    unsafe fn load(host: usize) -> Self {
        // SAFETY: both halves are inside what the caller vouches for.
        unsafe { u128::from(u64::load(host)) | u128::from(u64::load(host + 8)) << 64 }
    }

    #[inline(always)]
    unsafe fn store(host: usize, value: Self) {
        // SAFETY: as in `load`.
        unsafe {
            u64::store(host, value as u64);
            u64::store(host + 8, (value >> 64) as u64);
        }
    }

    unsafe fn compare_exchange(host: usize, old: Self, new: Self) -> Result<(), Self> {
        // SAFETY: the caller's promise is ours.
        unsafe { split_compare_exchange(host, old, new) }
    }
}

/// A compare and exchange of what the host has no single instruction for, atomic towards others of its kind.
///
/// # Safety
/// `host` points to `T::SIZE` bytes of guest RAM.
unsafe fn split_compare_exchange<T: Value>(host: usize, old: T, new: T) -> Result<(), T> {
    let _lock = SPLIT_LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // SAFETY: by the caller's promise.
    let found = unsafe { T::load(host) };
    if found != old {
        return Err(found);
    }
    // SAFETY: by the caller's promise.
    unsafe { T::store(host, new) };
    Ok(())
}

impl CpuState {
    #[inline(always)]
    fn tlb_set(&self) -> &TlbSet {
        &self.tlb[usize::from(self.privilege & 3)]
    }

    /// The privilege of the running code's accesses.
    #[inline(always)]
    pub fn privilege(&self) -> Privilege {
        match self.privilege {
            0 => Privilege::Supervisor,
            1 => Privilege::User,
            _ => Privilege::Override,
        }
    }

    /// Brings up to date with whose rights the running code accesses memory: to be called after CPL, RFLAGS.AC or
    /// CR4.SMAP changed.
    #[inline(always)]
    pub(crate) fn update_privilege(&mut self) {
        let privilege = if self.cpl == 3 {
            Privilege::User
        } else if self.cr4_has(Cr4::SMAP) && self.flags().contains(Rflags::AC) {
            Privilege::Override
        } else {
            Privilege::Supervisor
        };
        self.privilege = privilege as u8;
    }

    /// Reads a value at a linear address with the rights of the running code.
    ///
    /// # Errors
    /// A page fault.
    #[inline(always)]
    pub fn read<T: Value>(&mut self, linear: u64) -> Result<T, Trap> {
        match self.tlb_set().read.find(linear, T::SIZE) {
            // SAFETY: an entry points to a page of RAM that `view` keeps alive, and `find` saw that all bytes are in it.
            Some(host) => Ok(unsafe { T::load(host) }),
            None => self.read_slow(linear, self.privilege()),
        }
    }

    /// Reads a value at a linear address if the TLB has its page and it is aligned: with that nothing can go wrong. What
    /// gives nothing here is to be read with care.
    #[inline(always)]
    pub(crate) fn read_at_once<T: Value>(&self, linear: u64) -> Option<T> {
        if linear & (T::SIZE as u64 - 1) != 0 {
            return None;
        }
        let host = self.tlb_set().read.find(linear, T::SIZE)?;
        // SAFETY: as in `read`.
        Some(unsafe { T::load(host) })
    }

    /// Writes a value at a linear address under the same conditions; whether it did.
    #[inline(always)]
    pub(crate) fn write_at_once<T: Value>(&mut self, linear: u64, value: T) -> bool {
        if linear & (T::SIZE as u64 - 1) != 0 {
            return false;
        }
        let Some(host) = self.tlb_set().write.find(linear, T::SIZE) else { return false };
        // SAFETY: as in `read`.
        unsafe { T::store(host, value) };
        true
    }

    /// Replaces a value at a linear address under the same conditions; gives the old one.
    #[inline(always)]
    pub(crate) fn modify_at_once<T: Value>(&mut self, linear: u64, change: impl FnOnce(T) -> T) -> Option<T> {
        if linear & (T::SIZE as u64 - 1) != 0 {
            return None;
        }
        let host = self.tlb_set().write.find(linear, T::SIZE)?;
        // SAFETY: as in `read`.
        let old = unsafe { T::load(host) };
        // SAFETY: as in `read`.
        unsafe { T::store(host, change(old)) };
        Some(old)
    }

    /// Writes a value at a linear address with the rights of the running code.
    ///
    /// # Errors
    /// A page fault; then nothing was written, also where the value crosses pages.
    #[inline(always)]
    pub fn write<T: Value>(&mut self, linear: u64, value: T) -> Result<(), Trap> {
        match self.tlb_set().write.find(linear, T::SIZE) {
            // SAFETY: as in `read`.
            Some(host) => {
                unsafe { T::store(host, value) };
                Ok(())
            }
            None => self.write_slow(linear, value, self.privilege()),
        }
    }

    /// Replaces a value by what `change` makes of it; gives the old one. The write is probed first.
    ///
    /// # Errors
    /// A page fault, before anything was read.
    #[inline(always)]
    pub fn modify<T: Value>(&mut self, linear: u64, change: impl FnOnce(T) -> T) -> Result<T, Trap> {
        if let Some(host) = self.tlb_set().write.find(linear, T::SIZE) {
            // SAFETY: as in `read`.
            let old = unsafe { T::load(host) };
            // SAFETY: as in `read`.
            unsafe { T::store(host, change(old)) };
            return Ok(old);
        }
        self.probe_write(linear, T::SIZE as u64)?;
        let old = self.read_slow(linear, self.privilege())?;
        self.write_slow(linear, change(old), self.privilege())?;
        Ok(old)
    }

    /// Like [`modify`](Self::modify), atomically towards the other processors: a locked instruction. `change` may be
    /// called more than once.
    ///
    /// # Errors
    /// A page fault, before anything was read.
    #[inline(always)]
    pub fn modify_locked<T: Value>(&mut self, linear: u64, change: impl Fn(T) -> T) -> Result<T, Trap> {
        if let Some(host) = self.tlb_set().write.find(linear, T::SIZE) {
            // SAFETY: as in `read`.
            let mut old = unsafe { T::load(host) };
            loop {
                // SAFETY: as in `read`.
                match unsafe { T::compare_exchange(host, old, change(old)) } {
                    Ok(()) => return Ok(old),
                    Err(found) => old = found,
                }
            }
        }
        self.modify_locked_slow(linear, &change)
    }

    #[cold]
    fn modify_locked_slow<T: Value>(&mut self, linear: u64, change: &dyn Fn(T) -> T) -> Result<T, Trap> {
        self.probe_write(linear, T::SIZE as u64)?;
        // The probe filled the entry unless the page holds code or is a device, or the value crosses pages.
        if linear & 0xfff <= 4096 - T::SIZE as u64
            && let address = self.translate(linear, Access::Write, self.privilege())?
            && let Some(range) = self.engine.ram.find(address)
            && range.writable
        {
            let host = range.host_of(address);
            // SAFETY: the range is RAM that it keeps alive, and the value lies inside one of its pages.
            let mut old = unsafe { T::load(host) };
            loop {
                // SAFETY: as above.
                match unsafe { T::compare_exchange(host, old, change(old)) } {
                    Ok(()) => break,
                    Err(found) => old = found,
                }
            }
            self.note_write(address, T::SIZE as u64);
            self.note_data(linear, T::SIZE, Access::Write);
            return Ok(old);
        }
        let _lock = SPLIT_LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let old = self.read_slow(linear, self.privilege())?;
        self.write_slow(linear, change(old), self.privilege())?;
        Ok(old)
    }

    /// Reads with supervisor rights, as the processor itself does in descriptor tables and task state segments.
    ///
    /// # Errors
    /// A page fault.
    pub fn read_system<T: Value>(&mut self, linear: u64) -> Result<T, Trap> {
        match self.tlb[0].read.find(linear, T::SIZE) {
            // SAFETY: as in `read`.
            Some(host) => Ok(unsafe { T::load(host) }),
            None => self.read_slow(linear, Privilege::Supervisor),
        }
    }

    /// Writes with supervisor rights.
    ///
    /// # Errors
    /// A page fault; then nothing was written.
    pub fn write_system<T: Value>(&mut self, linear: u64, value: T) -> Result<(), Trap> {
        match self.tlb[0].write.find(linear, T::SIZE) {
            // SAFETY: as in `read`.
            Some(host) => {
                unsafe { T::store(host, value) };
                Ok(())
            }
            None => self.write_slow(linear, value, Privilege::Supervisor),
        }
    }

    /// Faults now if a write of `length` bytes (at most a page) at `linear` would.
    ///
    /// # Errors
    /// A page fault.
    pub fn probe_write(&mut self, linear: u64, length: u64) -> Result<(), Trap> {
        let privilege = self.privilege();
        self.check_canonical_across(linear, length, Access::Write, privilege)?;
        self.translate_fill(linear, Access::Write, privilege)?;
        let last = linear.wrapping_add(length.saturating_sub(1));
        if (linear ^ last) >> 12 != 0 {
            self.translate_fill(last & !0xfff, Access::Write, privilege)?;
        }
        Ok(())
    }

    /// Faults now if a read of `length` bytes (at most a page) at `linear` would.
    ///
    /// # Errors
    /// A page fault.
    pub fn probe_read(&mut self, linear: u64, length: u64) -> Result<(), Trap> {
        let privilege = self.privilege();
        self.check_canonical_across(linear, length, Access::Read, privilege)?;
        self.translate_fill(linear, Access::Read, privilege)?;
        let last = linear.wrapping_add(length.saturating_sub(1));
        if (linear ^ last) >> 12 != 0 {
            self.translate_fill(last & !0xfff, Access::Read, privilege)?;
        }
        Ok(())
    }

    /// An operand that ends where addresses are not canonical is no page fault, whatever its beginning is.
    fn check_canonical_across(
        &mut self,
        linear: u64,
        length: u64,
        access: Access,
        privilege: Privilege,
    ) -> Result<(), Trap> {
        let last = linear.wrapping_add(length.saturating_sub(1));
        if (linear ^ last) >> 12 != 0 && !self.is_canonical(last) {
            self.translate_fill(last, access, privilege)?;
        }
        Ok(())
    }

    /// Reads a value at a guest physical address: page tables, saved state, a debugger's look.
    #[inline]
    pub fn read_physical<T: Value>(&self, address: u64) -> T {
        if address & 0xfff <= 4096 - T::SIZE as u64
            && let Some(range) = self.engine.ram.find(address)
        {
            // SAFETY: the range is RAM that it keeps alive, and the value lies inside one of its pages.
            return unsafe { T::load(range.host_of(address)) };
        }
        let mut bytes = [0; 16];
        for (i, byte) in bytes[..T::SIZE].iter_mut().enumerate() {
            *byte = self.read_at(address.wrapping_add(i as u64));
        }
        T::from_bytes(bytes)
    }

    /// Replaces `old` by `new` at a guest physical address, atomically; `false` if it was not `old`. What is no writable
    /// RAM keeps its value, as if the exchange had been lost on the way.
    pub(crate) fn exchange_physical<T: Value>(&mut self, address: u64, old: T, new: T) -> bool {
        let Some(range) = self.engine.ram.find(address).filter(|range| range.writable) else { return true };
        if address & 0xfff > 4096 - T::SIZE as u64 {
            return true;
        }
        // SAFETY: the range is RAM that it keeps alive, and the value lies inside one of its pages.
        let done = unsafe { T::compare_exchange(range.host_of(address), old, new) }.is_ok();
        if done {
            self.note_write(address, T::SIZE as u64);
        }
        done
    }

    /// After a write to RAM inside one page: what was decoded there is stale.
    fn note_write(&mut self, address: u64, length: u64) {
        let Some(range) = self.engine.ram.find(address) else { return };
        let offset = range.offset_of(address);
        if range.ram.page(offset).is_some_and(|page| page.code.load(Ordering::SeqCst) != 0) {
            // The running block may be what was written to: it ends after this instruction.
            self.engine.stop = true;
        }
        range.ram.note_write(offset, length);
    }

    /// Translates and remembers the translation where that is allowed; gives the physical address.
    fn translate_fill(&mut self, linear: u64, access: Access, privilege: Privilege) -> Result<u64, Trap> {
        let translation = self.translate_page(linear, access, privilege)?;
        let address = translation.address;
        if self.watches_page(linear) {
            return Ok(address);
        }
        if let Some(range) = self.engine.ram.find(address) {
            let host = range.host_of(address & !0xfff);
            let set = &mut self.tlb[privilege as usize];
            match access {
                Access::Read => set.read.insert(linear, host, translation.global),
                Access::Write if range.writable && !holds_code(range, address) => {
                    range.ram.note_way_to_write(range.offset_of(address));
                    set.write.insert(linear, host, translation.global);
                }
                Access::Write | Access::Execute => {}
            }
            if translation.size > 12 {
                self.engine.large_pages.note(linear, translation.size);
            }
        }
        Ok(address)
    }

    /// Drops every translation that may be written through.
    pub fn drop_write_translations(&mut self) {
        for set in &mut self.tlb {
            set.write.clear(false);
        }
    }

    /// Drops the translations that write to the page that the host has at `host`.
    pub(crate) fn drop_write_translations_of(&mut self, host: usize) {
        for set in &mut self.tlb {
            set.write.remove_where(|entry| entry.host == host);
        }
    }

    #[cold]
    #[inline(never)]
    fn read_slow<T: Value>(&mut self, linear: u64, privilege: Privilege) -> Result<T, Trap> {
        self.check_canonical_across(linear, T::SIZE as u64, Access::Read, privilege)?;
        let first = self.translate_fill(linear, Access::Read, privilege)?;
        self.note_data(linear, T::SIZE, Access::Read);
        let in_page = 4096 - (linear & 0xfff) as usize;
        if T::SIZE <= in_page {
            return Ok(self.read_at(first));
        }
        let next = linear.wrapping_add(in_page as u64);
        let second = self.translate_fill(next, Access::Read, privilege)?;
        let mut bytes = [0; 16];
        for (i, byte) in bytes[..T::SIZE].iter_mut().enumerate() {
            let address = if i < in_page { first + i as u64 } else { second + (i - in_page) as u64 };
            *byte = self.read_at(address);
        }
        Ok(T::from_bytes(bytes))
    }

    #[cold]
    #[inline(never)]
    fn write_slow<T: Value>(&mut self, linear: u64, value: T, privilege: Privilege) -> Result<(), Trap> {
        self.check_canonical_across(linear, T::SIZE as u64, Access::Write, privilege)?;
        let first = self.translate_fill(linear, Access::Write, privilege)?;
        self.note_data(linear, T::SIZE, Access::Write);
        let in_page = 4096 - (linear & 0xfff) as usize;
        if T::SIZE <= in_page {
            self.write_at(first, value);
            return Ok(());
        }
        let next = linear.wrapping_add(in_page as u64);
        let second = self.translate_fill(next, Access::Write, privilege)?;
        let bytes = value.to_bytes();
        for (i, &byte) in bytes[..T::SIZE].iter().enumerate() {
            let address = if i < in_page { first + i as u64 } else { second + (i - in_page) as u64 };
            self.write_at(address, byte);
        }
        Ok(())
    }

    /// Reads at a physical address inside one page, RAM or device.
    pub(crate) fn read_at<T: Value>(&self, address: u64) -> T {
        if let Some(range) = self.engine.ram.find(address) {
            // SAFETY: the range is RAM that it keeps alive, and the value lies inside one of its pages.
            return unsafe { T::load(range.host_of(address)) };
        }
        let mut bytes = [0; 16];
        for (i, part) in bytes[..T::SIZE].chunks_mut(8).enumerate() {
            let Some(width) = Width::of(part.len()) else { continue };
            let value = self.bus.memory_read(address.wrapping_add(8 * i as u64), width).to_le_bytes();
            part.copy_from_slice(&value[..part.len()]);
        }
        T::from_bytes(bytes)
    }

    /// Writes at a physical address inside one page, RAM or device.
    fn write_at<T: Value>(&mut self, address: u64, value: T) {
        if let Some(range) = self.engine.ram.find(address) {
            if range.writable {
                // SAFETY: as in `read_at`.
                unsafe { T::store(range.host_of(address), value) };
                self.note_write(address, T::SIZE as u64);
            }
            return;
        }
        for (i, part) in value.to_bytes()[..T::SIZE].chunks(8).enumerate() {
            let Some(width) = Width::of(part.len()) else { continue };
            let mut bytes = [0; 8];
            bytes[..part.len()].copy_from_slice(part);
            self.bus.memory_write(address.wrapping_add(8 * i as u64), width, u64::from_le_bytes(bytes));
        }
    }
}

/// Whether a processor has decoded code from the page of `address`, which lies in `range`.
fn holds_code(range: &RamRange, address: u64) -> bool {
    range.ram.page(range.offset_of(address)).is_some_and(|page| page.code.load(Ordering::SeqCst) != 0)
}

/// A page of RAM that code was decoded from, watched for writes to that code.
#[derive(Clone, Debug)]
pub(crate) struct PageWatch {
    state: NonNull<PageState>,
    /// The page's generation when it was decoded.
    generation: u32,
    /// Keeps the state alive.
    ram: Arc<Ram>,
}

// SAFETY: the state is made of atomics and lives as long as the RAM that is kept with it.
unsafe impl Send for PageWatch {}

impl PageWatch {
    /// Watches the page at `offset`, from now on.
    pub(crate) fn new(ram: &Arc<Ram>, offset: u64) -> Option<Self> {
        let state = ram.page(offset)?;
        let generation = state.generation.load(Ordering::SeqCst);
        Some(Self { state: NonNull::from(state), generation, ram: Arc::clone(ram) })
    }

    /// The RAM that the page is in.
    pub(crate) const fn ram(&self) -> &Arc<Ram> {
        &self.ram
    }

    fn state(&self) -> &PageState {
        // SAFETY: the RAM that is kept here owns the state, and never moves it.
        unsafe { self.state.as_ref() }
    }

    /// Whether what was decoded from the page was written to since.
    #[inline(always)]
    pub(crate) fn stale(&self) -> bool {
        self.state().generation.load(Ordering::Acquire) != self.generation
    }

    /// Marks grains as holding code; whether the page held none before.
    pub(crate) fn mark(&self, grains: u64) -> bool {
        let code = &self.state().code;
        if code.load(Ordering::SeqCst) & grains == grains {
            return false;
        }
        code.fetch_or(grains, Ordering::SeqCst) == 0
    }
}
