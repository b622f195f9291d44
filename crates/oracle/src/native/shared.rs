//! The memory that the process that executes cases shares with the one that compares them.

use crate::case::{PATCHES, Registers};

/// Most cases of a batch.
pub const BATCH: usize = 512;
/// Words that patches of a batch may fill.
pub const PATCH_WORDS: usize = 1 << 16;
/// Changed words of a batch.
pub const CHANGED_WORDS: usize = 1 << 17;

/// A patch, in whole words.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct WordPatch {
    /// The number of the first word of memory.
    pub word: u32,
    /// Words.
    pub count: u32,
    /// Where they are in [`Shared::patches`].
    pub from: u32,
}

/// A case as the child reads it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Input {
    /// Registers before.
    pub registers: Registers,
    /// Where in the page of code the bytes go.
    pub code_offset: u32,
    /// How many there are.
    pub code_length: u32,
    /// The bytes.
    pub code: [u8; 16],
    /// Memory.
    pub patches: [WordPatch; PATCHES],
}

/// What came out, as the child writes it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Output {
    /// Registers after.
    pub registers: Registers,
    /// The exception.
    pub vector: u32,
    /// Its error code.
    pub error: u32,
    /// The address of the last page fault.
    pub cr2: u64,
    /// Where its words are in [`Shared::changed`].
    pub changed: u32,
    /// How many there are.
    pub count: u32,
}

/// A word of memory that is not the background's.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Changed {
    /// Its number.
    pub word: u32,
    /// Its value.
    pub value: u64,
}

/// All of it.
#[repr(C)]
pub struct Shared {
    /// Cases of the batch.
    pub count: u32,
    /// Cases that were done: fewer than `count` while the child runs, or when room for changed words ran out.
    pub done: u32,
    /// Changed words so far.
    pub changed_count: u32,
    /// The cases.
    pub inputs: [Input; BATCH],
    /// What came out.
    pub outputs: [Output; BATCH],
    /// Words of patches.
    pub patches: [u64; PATCH_WORDS],
    /// Changed words.
    pub changed: [Changed; CHANGED_WORDS],
    /// The page of code, which the child also has where cases run.
    pub code: CodePage,
}

/// A page at an address that is a whole number of pages.
#[repr(C, align(4096))]
pub struct CodePage(pub [u8; 4096]);
