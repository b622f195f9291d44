//! Where everything is that a case can reach: one window of 64 KiB at a low address, the same natively and in the
//! interpreter, so that 16-, 32- and 64-bit code can address all of it.
//!
//! Each group of pages has unmapped neighbours, so that operands can run into page faults.

/// The window's first byte. Segments of 16-bit code begin here.
pub const WINDOW: u64 = 0x0100_0000;
/// Bytes of the window.
pub const WINDOW_SIZE: u64 = 0x1_0000;
/// A page.
pub const PAGE: u64 = 0x1000;
/// The page of code, which may not be written.
pub const CODE: u64 = WINDOW + 0x1000;
/// Where code ends: instructions are put right before, so that the fetch of the next one is what ends a case.
pub const CODE_END: u64 = CODE + PAGE;
/// Two pages of data.
pub const DATA: u64 = WINDOW + 0x4000;
/// Where the data ends.
pub const DATA_END: u64 = DATA + 2 * PAGE;
/// A page that may only be read.
pub const READ_ONLY: u64 = WINDOW + 0x8000;
/// The page of the stack.
pub const STACK: u64 = WINDOW + 0xa000;
/// Where the stack ends.
pub const STACK_END: u64 = STACK + PAGE;
/// Words of 8 bytes that a case can change.
pub const WORDS: usize = 3 * PAGE as usize / 8;
/// What fills the page of code before the instruction: HLT, which user code may not execute.
pub const FILLER: u8 = 0xf4;

/// Where the word with a number is.
pub const fn address_of(word: usize) -> u64 {
    let offset = word as u64 * 8;
    if offset < 2 * PAGE { DATA + offset } else { STACK + offset - 2 * PAGE }
}

/// The number of the word that `address` is in, if a case can change it.
pub const fn word_at(address: u64) -> Option<usize> {
    if address >= DATA && address < DATA_END {
        Some((address - DATA) as usize / 8)
    } else if address >= STACK && address < STACK_END {
        Some(((address - STACK) + 2 * PAGE) as usize / 8)
    } else {
        None
    }
}

/// What memory holds before a case changes it: no byte is zero, so that whatever is not written stands out.
pub fn background(address: u64) -> u64 {
    let mixed = (address >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29) | 0x0101_0101_0101_0101
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_addresses_are_each_others_inverse() {
        for word in 0..WORDS {
            assert_eq!(word_at(address_of(word)), Some(word));
            assert_eq!(word_at(address_of(word) + 7), Some(word));
        }
        for outside in [DATA - 1, DATA_END, STACK - 1, STACK_END, READ_ONLY] {
            assert_eq!(word_at(outside), None);
        }
    }
}
