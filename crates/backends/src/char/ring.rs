//! A ring buffer: the latest output, kept in memory until somebody reads it.

use std::collections::VecDeque;

/// The latest bytes, up to a size.
#[derive(Debug)]
pub(super) struct Ring {
    bytes: VecDeque<u8>,
    size: usize,
}

impl Ring {
    /// A ring of `size` bytes; memory is taken as it fills.
    pub(super) fn new(size: usize) -> Self {
        Self { bytes: VecDeque::new(), size }
    }

    /// Appends; the oldest bytes make room.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(self.size)..];
        let excess = (self.bytes.len() + kept.len()).saturating_sub(self.size);
        self.bytes.drain(..excess);
        self.bytes.extend(kept);
    }

    /// Takes the oldest bytes, `most` of them at most.
    pub(super) fn take(&mut self, most: usize) -> Vec<u8> {
        let count = most.min(self.bytes.len());
        self.bytes.drain(..count).collect()
    }

    /// The same as text. Bytes at the end that begin a character stay, unless they are all there is.
    pub(super) fn take_text(&mut self, most: usize) -> String {
        let mut bytes = self.take(most);
        if let Err(error) = std::str::from_utf8(&bytes) {
            // Only the last characters can be incomplete; what is wrong before them is not waited for.
            let tail = bytes.iter().rposition(|byte| byte & 0xC0 != 0x80).unwrap_or(0);
            let incomplete = std::str::from_utf8(&bytes[tail..]).is_err_and(|error| error.error_len().is_none());
            if incomplete && tail > 0 && error.valid_up_to() <= tail {
                for byte in bytes.split_off(tail).into_iter().rev() {
                    self.bytes.push_front(byte);
                }
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_oldest_bytes_make_room() {
        let mut ring = Ring::new(4);
        ring.push(b"abc");
        ring.push(b"de");
        assert_eq!(ring.take(3), b"bcd");
        ring.push(b"0123456789");
        assert_eq!(ring.take(10), b"6789");
        assert_eq!(ring.take(10), b"");
    }

    #[test]
    fn a_character_is_read_whole_or_later() {
        let mut ring = Ring::new(16);
        ring.push("aäb".as_bytes());
        assert_eq!(ring.take_text(2), "a");
        assert_eq!(ring.take_text(9), "äb");
        ring.push(b"x\xFFy\xC3");
        assert_eq!(ring.take_text(9), "x\u{FFFD}y");
        assert_eq!(ring.take_text(9), "\u{FFFD}", "alone it does not hold up the reader");
        assert_eq!(ring.take_text(9), "");
    }

    proptest! {
        #[test]
        fn reading_as_text_comes_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..40), most in 1usize..6) {
            let mut ring = Ring::new(64);
            ring.push(&bytes);
            for _ in 0..bytes.len() {
                ring.take_text(most);
            }
            prop_assert_eq!(ring.take(64).len(), 0);
        }
    }
}
