//! Compression of a page to the LZO1X stream format: greedy, by a hash table of four-byte sequences.
//!
//! Source: the Linux kernel's description of the stream ("LZO stream format as understood by Linux' LZO decompressor").
//! A stream is instructions, each with the literals that follow it: copies of earlier bytes by length and distance, and
//! runs of literals. Pages are short, so only the instructions for distances up to 16 KiB are used.

/// Entries of the hash table.
const ENTRIES: usize = 1 << HASH_BITS;
const HASH_BITS: u32 = 12;
/// The shortest copy that is looked for.
const SHORTEST: usize = 4;
/// The last instruction of a stream.
const END: [u8; 3] = [0x11, 0, 0];
/// Where nothing compresses, each so many literals in a row make the steps longer by one.
const PATIENCE: usize = 32;

/// The longest distance that the instructions used here can say.
const FARTHEST: usize = 1 << 14;

/// Compresses one page after another.
pub(super) struct Lzo {
    /// For each hash, where its sequence was last seen, counted from 1.
    seen: Box<[u16; ENTRIES]>,
}

impl Lzo {
    pub(super) fn new() -> Self {
        Self { seen: Box::new([0; ENTRIES]) }
    }

    /// Compresses `page`, which is at most 16 KiB, to `out`. Only as long as `out` stays shorter than the page is it
    /// worth going on: `false` says that it did not.
    pub(super) fn compress(&mut self, page: &[u8], out: &mut Vec<u8>) -> bool {
        if page.len() > FARTHEST {
            return false;
        }
        self.seen.fill(0);
        let mut stream = Stream { out, counted: None };
        // Literals from here on are not written yet.
        let mut start = 0;
        let mut at = 0;
        while let Some(sequence) = word(page, at) {
            // Multiplicative hashing: the upper bits depend on all of the sequence.
            let hash = sequence.wrapping_mul(0x9e37_79b1) >> (u32::BITS - HASH_BITS);
            let Some(slot) = self.seen.get_mut(hash as usize) else { break };
            let earlier = usize::from(std::mem::replace(slot, at as u16 + 1)).checked_sub(1);
            let Some(earlier) = earlier.filter(|&earlier| word(page, earlier) == Some(sequence)) else {
                at += 1 + (at - start) / PATIENCE;
                continue;
            };
            let length = SHORTEST + common(page, earlier + SHORTEST, at + SHORTEST);
            stream.literals(page.get(start..at).unwrap_or_default());
            stream.copy(length, at - earlier);
            at += length;
            start = at;
            if stream.out.len() >= page.len() {
                return false;
            }
        }
        stream.literals(page.get(start..).unwrap_or_default());
        stream.out.extend_from_slice(&END);
        stream.out.len() < page.len()
    }
}

/// Four bytes as a number.
fn word(page: &[u8], at: usize) -> Option<u32> {
    page.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// How many bytes from `earlier` and from `later` on are the same.
fn common(page: &[u8], earlier: usize, later: usize) -> usize {
    let (a, b) = (page.get(earlier..).unwrap_or_default(), page.get(later..).unwrap_or_default());
    let (chunks_a, chunks_b) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    let same = chunks_a.iter().zip(chunks_b).take_while(|(a, b)| a == b).count() * 8;
    let rest = a.iter().zip(b).skip(same).take_while(|(a, b)| a == b).count();
    same + rest
}

/// A stream as it is written.
struct Stream<'a> {
    out: &'a mut Vec<u8>,
    /// The byte of the last copy whose two lowest bits count up to three literals behind it.
    counted: Option<usize>,
}

impl Stream<'_> {
    fn literals(&mut self, literals: &[u8]) {
        let length = literals.len();
        match (length, self.counted) {
            (0, _) => return,
            (1..=3, Some(counted)) => {
                if let Some(byte) = self.out.get_mut(counted) {
                    *byte |= length as u8;
                }
            }
            // Only the first instruction is without one before it, and may be so short.
            (1..=238, None) => self.out.push(17 + length as u8),
            _ => self.instruction(0, 15, length - 3),
        }
        self.out.extend_from_slice(literals);
    }

    fn copy(&mut self, length: usize, distance: usize) {
        let distance = distance - 1;
        let near = distance < 1 << 11;
        match length {
            3..=8 if near => {
                let kind = if length <= 4 { 0x40 | (length - 3) << 5 } else { 0x80 | (length - 5) << 5 };
                self.counted = Some(self.out.len());
                self.out.extend_from_slice(&[(kind | (distance & 7) << 2) as u8, (distance >> 3) as u8]);
            }
            _ => {
                self.instruction(0x20, 31, length - 2);
                self.counted = Some(self.out.len());
                self.out.extend_from_slice(&((distance << 2) as u16).to_le_bytes());
            }
        }
    }

    /// An instruction with a length of any size: what does not fit its bits follows in bytes.
    fn instruction(&mut self, kind: u8, most: usize, length: usize) {
        if length <= most {
            self.out.push(kind | length as u8);
            return;
        }
        self.out.push(kind);
        let mut left = length - most;
        while left > 255 {
            self.out.push(0);
            left -= 255;
        }
        self.out.push(left as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(page: &[u8]) -> Option<usize> {
        let mut out = Vec::new();
        if !Lzo::new().compress(page, &mut out) {
            return None;
        }
        let mut back = vec![0; page.len()];
        assert_eq!(lzokay::decompress::decompress(&out, &mut back), Ok(page.len()));
        assert!(back == page);
        Some(out.len())
    }

    #[test]
    fn pages_of_one_byte_and_of_text_shrink() {
        assert!(round_trip(&[7; 4096]).unwrap() < 40);
        let text = b"the quick brown fox jumps over the lazy dog, again and again; ".repeat(67);
        assert!(round_trip(&text[..4096]).unwrap() < 200);
    }

    #[test]
    fn a_dictionary_holds_nothing_of_the_page_before() {
        let mut lzo = Lzo::new();
        let page: Vec<u8> = (0..4096_u32).map(|at| (at.wrapping_mul(at) >> 5) as u8 & 7).collect();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        assert!(lzo.compress(&page, &mut first) && lzo.compress(&page, &mut second));
        assert_eq!(first, second);
    }

    proptest! {
        #[test]
        fn whatever_it_compresses_comes_back(
            parts in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 1..60), 1_usize..400, any::<bool>()), 1..60),
        ) {
            // Runs, repeated sequences and noise, of all lengths at which instructions change.
            let mut page = Vec::new();
            for (bytes, times, run) in parts {
                let times = if run { times } else { times % 3 + 1 };
                let bytes = if run { &bytes[..bytes.len().min(5)] } else { &bytes[..] };
                bytes.iter().cycle().take(bytes.len() * times).for_each(|byte| page.push(*byte));
            }
            page.truncate(16_000);
            let _ = round_trip(&page);
            page.resize(4096, 0);
            let _ = round_trip(&page);
        }

        #[test]
        fn few_letters_come_back(page in proptest::collection::vec(0_u8..3, 4096..4097)) {
            prop_assert!(round_trip(&page).is_some());
        }
    }
}
