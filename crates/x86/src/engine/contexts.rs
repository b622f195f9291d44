//! What translations of code are valid in: a number that changes whenever they may no longer hold.
//!
//! There are two, one for code on global pages and one for other code. A change of address space renews only the
//! second. Each includes the mode word, so that one comparison covers both.

use super::mode::Mode;
use crate::state::{CpuState, seg};

/// Bits of a context that hold the mode.
const MODE_BITS: u32 = 18;

/// Words of the filter of code pages.
const FILTER_WORDS: usize = 64;

/// Entries of the instruction TLB.
const TRANSLATIONS: usize = 256;

/// The contexts, and the translations of code made in them.
#[derive(Debug)]
pub(crate) struct Contexts {
    /// For code on pages that are not global, and for code on global pages.
    pub(crate) current: [u64; 2],
    serial: u64,
    /// CS as far as it moves or limits code: base and limit.
    code_segment: (u64, u32),
    /// Linear pages, hashed, that code was fetched from since the last renewal of everything.
    filter: [u64; FILTER_WORDS],
    translations: Box<[CodeTranslation; TRANSLATIONS]>,
}

/// A translation of an instruction fetch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CodeTranslation {
    /// The linear page's address.
    pub(crate) page: u64,
    context: u64,
    /// The guest physical page's address.
    pub(crate) physical: u64,
    /// Whether it is global.
    pub(crate) global: bool,
}

impl Default for Contexts {
    fn default() -> Self {
        Self {
            current: [1 << (MODE_BITS + 1), 2 << (MODE_BITS + 1) | 1 << MODE_BITS],
            serial: 2,
            code_segment: (0, u32::MAX),
            filter: [0; FILTER_WORDS],
            translations: Box::new([CodeTranslation::default(); TRANSLATIONS]),
        }
    }
}

impl Contexts {
    /// Whether `context` is one of the current two.
    #[inline(always)]
    pub(crate) fn holds(&self, context: u64) -> bool {
        context == self.current[0] || context == self.current[1]
    }

    fn filter_bit(linear: u64) -> (usize, u64) {
        let page = linear >> 12;
        let hash = page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52;
        (hash as usize / 64 % FILTER_WORDS, 1 << (hash % 64))
    }

    /// The translation of the code page at `linear`, if it is known.
    #[inline]
    pub(crate) fn find(&self, linear: u64) -> Option<CodeTranslation> {
        let found = self.translations[(linear >> 12) as usize % TRANSLATIONS];
        (found.page == linear & !0xfff && found.context == self.current[usize::from(found.global)]).then_some(found)
    }

    /// Remembers a translation.
    pub(crate) fn insert(&mut self, linear: u64, physical: u64, global: bool) -> CodeTranslation {
        let made = CodeTranslation {
            page: linear & !0xfff,
            context: self.current[usize::from(global)],
            physical: physical & !0xfff,
            global,
        };
        self.translations[(linear >> 12) as usize % TRANSLATIONS] = made;
        let (word, bit) = Self::filter_bit(linear);
        self.filter[word] |= bit;
        made
    }
}

impl super::EngineState {
    /// Whether code may have been fetched from the page of `linear`.
    pub(crate) fn may_hold_code(&self, linear: u64) -> bool {
        let (word, bit) = Contexts::filter_bit(linear);
        self.contexts.filter[word] & bit != 0
    }

    /// Forgets which pages code was fetched from; every context must be renewed then.
    pub(crate) fn code_translations_changed(&mut self) {
        self.contexts.filter = [0; FILTER_WORDS];
    }
}

impl CpuState {
    /// Ends the validity of translations of code: of all, or of those that are not global.
    pub(crate) fn renew_contexts(&mut self, all: bool) {
        let contexts = &mut self.engine.contexts;
        let mode = contexts.current[0] & ((1 << MODE_BITS) - 1);
        for global in 0..=usize::from(all) {
            contexts.serial += 1;
            contexts.current[global] = contexts.serial << (MODE_BITS + 1) | (global as u64) << MODE_BITS | mode;
        }
    }

    /// Takes a changed mode word, and a changed code segment, into the contexts.
    pub(crate) fn update_contexts(&mut self, mode: Mode) {
        let code = &self.segments[usize::from(seg::CS)];
        let code_segment = if mode.contains(Mode::FLAT_CS) { (0, u32::MAX) } else { (code.base, code.limit) };
        if code_segment != self.engine.contexts.code_segment {
            self.engine.contexts.code_segment = code_segment;
            self.renew_contexts(true);
        }
        for context in &mut self.engine.contexts.current {
            *context = *context & !((1 << MODE_BITS) - 1) | u64::from(mode.bits());
        }
    }
}

/// Which linear addresses the TLB may hold from pages larger than 4 KiB, so that INVLPG of one of their addresses
/// drops all their pieces.
#[derive(Debug, Default)]
pub(crate) struct LargePages {
    /// Hashed numbers of 2 MiB units.
    filter: [u64; 8],
    /// log2 of the largest size seen.
    largest: u32,
}

impl LargePages {
    fn bit(linear: u64) -> (usize, u64) {
        let unit = linear >> 22;
        let hash = unit.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55;
        (hash as usize / 64 % 8, 1 << (hash % 64))
    }

    /// Takes note of a page of 2 to the power of `size` bytes.
    pub(crate) fn note(&mut self, linear: u64, size: u32) {
        let (word, bit) = Self::bit(linear);
        self.filter[word] |= bit;
        self.largest = self.largest.max(size);
    }

    /// log2 of the size of the largest page that `linear` may be in, if that is more than 4 KiB.
    pub(crate) fn size_at(&self, linear: u64) -> Option<u32> {
        let (word, bit) = Self::bit(linear);
        (self.largest > 22 || self.filter[word] & bit != 0).then_some(self.largest)
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
