//! Copies and fills of plain RAM inside pages that the TLB holds: the fast part of repeated string instructions.
//!
//! This is one of the modules that may be unsafe: it works on the host addresses in the TLB.
#![allow(unsafe_code)]

use crate::{access::Value, state::CpuState, tlb::TlbSet};

/// Bytes from `linear` to the end of its page.
#[inline(always)]
fn to_page_end(linear: u64) -> u64 {
    4096 - (linear & 0xfff)
}

impl CpuState {
    #[inline(always)]
    fn bulk_set(&self) -> &TlbSet {
        &self.tlb[usize::from(self.privilege & 3)]
    }

    /// Copies upwards as if element by element of `T`, at most `count` of them and not beyond either page's end.
    ///
    /// Gives how many elements were copied: none where a page has no entry in the TLB (it is a device, holds code or
    /// was not used lately), where an element crosses pages, or where elements overlap their own source.
    #[inline]
    pub(crate) fn copy_elements<T: Value>(&mut self, to: u64, from: u64, count: u64) -> u64 {
        let unit = T::SIZE as u64;
        let elements = count.min(to_page_end(to) / unit).min(to_page_end(from) / unit);
        if elements == 0 {
            return 0;
        }
        let length = (elements * unit) as usize;
        let set = self.bulk_set();
        let (Some(source), Some(target)) = (set.read.find(from, length), set.write.find(to, length)) else {
            return 0;
        };
        let distance = target.wrapping_sub(source);
        if distance == 0 {
            return elements;
        }
        if distance >= length {
            // SAFETY: both entries point to pages of RAM that `view` keeps alive, and `find` saw that all bytes are in
            // them. Other processors may use the same RAM at the same time, as on real hardware: bytes may mix, no
            // more. `copy` allows overlap; with the target below the source it is what an upward copy gives.
            unsafe { std::ptr::copy(source as *const u8, target as *mut u8, length) };
            return elements;
        }
        if distance < T::SIZE {
            return 0;
        }
        // The target starts inside the source: the bytes between them repeat over the whole length. What is already
        // repeated serves as the source of the next, ever longer piece.
        let mut done = 0;
        while done < length {
            let piece = (distance + done).min(length - done);
            // SAFETY: as above; the piece ends at or before `target + done`, so the two do not overlap.
            unsafe { std::ptr::copy_nonoverlapping(source as *const u8, (target + done) as *mut u8, piece) };
            done += piece;
        }
        elements
    }

    /// Stores `value` at most `count` times upwards, not beyond the page's end; gives how often, as
    /// [`copy_elements`](Self::copy_elements) does.
    #[inline]
    pub(crate) fn fill_elements<T: Value>(&mut self, to: u64, count: u64, value: T) -> u64 {
        let unit = T::SIZE as u64;
        let elements = count.min(to_page_end(to) / unit);
        if elements == 0 {
            return 0;
        }
        let length = (elements * unit) as usize;
        let Some(target) = self.bulk_set().write.find(to, length) else { return 0 };
        let bytes = value.to_bytes();
        let first = bytes[0];
        if bytes[..T::SIZE].iter().all(|&byte| byte == first) {
            // SAFETY: the entry points to a page of RAM that `view` keeps alive, and `find` saw that all bytes are in
            // it.
            unsafe { std::ptr::write_bytes(target as *mut u8, first, length) };
        } else {
            for offset in (0..length).step_by(T::SIZE) {
                // SAFETY: as above.
                unsafe { T::store(target + offset, value) };
            }
        }
        elements
    }
}
