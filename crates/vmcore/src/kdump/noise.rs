//! Tells pages of noise (encrypted, compressed, random) from others, much faster than a compressor fails on them.

/// How far from even the bytes of noise are at most: counts of 256 kinds of bytes, squared and summed up, exceed the sum of
/// even counts by the count of a kind times a chi-squared number with 255 degrees of freedom: 255 on average, with a
/// deviation of 23. Eight deviations are never seen by chance; entropy coding would not save one byte in a hundred there.
const MOST: usize = 255 + 8 * 23;
/// Kinds of bytes.
const KINDS: usize = 256;

/// Whether each kind of byte is there as often as any other, so that entropy coding saves nothing.
pub(super) fn is_even(page: &[u8]) -> bool {
    // Two tables, so that equal neighbours do not wait for each other.
    let mut counts = [[0_u16; KINDS]; 2];
    for pair in page.as_chunks::<2>().0 {
        for (table, &byte) in counts.iter_mut().zip(pair) {
            table[usize::from(byte)] = table[usize::from(byte)].wrapping_add(1);
        }
    }
    let [even, odd] = counts;
    let squares = even.iter().zip(&odd).map(|(&a, &b)| {
        let count = usize::from(a) + usize::from(b);
        count * count
    });
    let length = page.len();
    squares.sum::<usize>() * KINDS <= length * length + MOST * length
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_tables_and_single_bytes_are_no_noise() {
        assert!(!is_even(&[0; 4096]));
        assert!(!is_even(&b"what people write has few letters, some of them often ".repeat(76)[..4096]));
        let table: Vec<u8> = (0..512_u64).flat_map(|entry| (entry * 4096 + 0x63).to_le_bytes()).collect();
        assert!(!is_even(&table));
    }

    #[test]
    fn one_missing_bit_shows() {
        let mut state = 1_u64;
        let page: Vec<u8> = (0..4096)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 57) as u8
            })
            .collect();
        assert!(!is_even(&page));
    }

    proptest! {
        #[test]
        fn noise_is_even(page in proptest::collection::vec(any::<u8>(), 4096)) {
            prop_assert!(is_even(&page));
        }
    }
}
