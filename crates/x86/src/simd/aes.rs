//! Rounds of the Advanced Encryption Standard: AESENC, AESDEC and their kin.
//!
//! Sources: FIPS 197 (cited as §); SDM vol. 2 for each instruction.

use super::{
    lanes::{dword, from_dwords},
    operations::operations,
};

operations! { binary
    Aesenc: |a, b| encrypt(a) ^ b;
    Aesenclast: |a, b| shift_rows(a, 1, &TABLES.forward) ^ b;
    Aesdec: |a, b| decrypt(a) ^ b;
    Aesdeclast: |a, b| shift_rows(a, 3, &TABLES.inverse) ^ b;
    Aesimc: |_a, b| inverse_mix_columns(b);
}

operations! { immediate
    Aeskeygenassist: |_a, b, constant| {
        let (first, third) = (substitute(dword(b, 1)), substitute(dword(b, 3)));
        let constant = u32::from(constant);
        from_dwords([first, first.rotate_right(8) ^ constant, third, third.rotate_right(8) ^ constant])
    };
}

/// Twice a polynomial, modulo the one of the standard (§ 4.2.1).
const fn double(a: u8) -> u8 {
    a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 }
}

/// The product of two polynomials (§ 4.2).
const fn multiply(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut product) = (a, b, 0);
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = double(a);
        b >>= 1;
    }
    product
}

/// What bytes are replaced by, and what they give to a column that is mixed.
struct Tables {
    /// The S-box (§ 5.1.1).
    forward: [u8; 256],
    /// Its inverse (§ 5.3.2).
    inverse: [u8; 256],
    /// What a byte in row 0, replaced, becomes in MixColumns (§ 5.1.3); the other rows have it rotated.
    mixed: [u32; 256],
    /// The same of the inverse transformation (§ 5.3.3).
    inverse_mixed: [u32; 256],
    /// The inverse transformation of a byte as it is.
    inverse_column: [u32; 256],
}

static TABLES: Tables = tables();

const fn tables() -> Tables {
    let mut tables = Tables {
        forward: [0; 256],
        inverse: [0; 256],
        mixed: [0; 256],
        inverse_mixed: [0; 256],
        inverse_column: [0; 256],
    };
    // 3 generates all elements but zero, and 0xf6 is its inverse: both are walked in step.
    let (mut element, mut reciprocal) = (1, 1);
    let mut left = 255;
    tables.forward[0] = affine(0);
    while left != 0 {
        tables.forward[element as usize] = affine(reciprocal);
        element = multiply(element, 3);
        reciprocal = multiply(reciprocal, 0xf6);
        left -= 1;
    }
    let mut i = 0;
    while i < 256 {
        let replaced = tables.forward[i];
        tables.inverse[replaced as usize] = i as u8;
        tables.mixed[i] = column(replaced, [2, 1, 1, 3]);
        tables.inverse_mixed[replaced as usize] = column(i as u8, [14, 9, 13, 11]);
        tables.inverse_column[i] = column(i as u8, [14, 9, 13, 11]);
        i += 1;
    }
    tables
}

/// The affine transformation of § 5.1.1.
const fn affine(a: u8) -> u8 {
    a ^ a.rotate_left(1) ^ a.rotate_left(2) ^ a.rotate_left(3) ^ a.rotate_left(4) ^ 0x63
}

/// A byte times each of four factors.
const fn column(a: u8, factors: [u8; 4]) -> u32 {
    u32::from_le_bytes([
        multiply(a, factors[0]),
        multiply(a, factors[1]),
        multiply(a, factors[2]),
        multiply(a, factors[3]),
    ])
}

/// The sum of what the bytes of each column give, with rows shifted by `step` columns each.
#[inline(always)]
fn mix(state: u128, step: usize, table: &[u32; 256]) -> u128 {
    let bytes = state.to_le_bytes();
    from_dwords(std::array::from_fn(|column| {
        (0..4).fold(0, |sum, row| {
            let byte = bytes[(4 * (column + step * row) + row) & 15];
            sum ^ table[usize::from(byte)].rotate_left(8 * row as u32)
        })
    }))
}

/// Shifts rows by `step` columns each, and replaces bytes.
#[inline(always)]
fn shift_rows(state: u128, step: usize, table: &[u8; 256]) -> u128 {
    let bytes = state.to_le_bytes();
    u128::from_le_bytes(std::array::from_fn(|i| table[usize::from(bytes[(i + 4 * step * (i & 3)) & 15])]))
}

/// A round without its key (§ 5.1).
#[inline(always)]
fn encrypt(state: u128) -> u128 {
    mix(state, 1, &TABLES.mixed)
}

/// A round of the equivalent inverse cipher without its key (§ 5.3.5).
#[inline(always)]
fn decrypt(state: u128) -> u128 {
    mix(state, 3, &TABLES.inverse_mixed)
}

#[inline(always)]
fn inverse_mix_columns(state: u128) -> u128 {
    mix(state, 0, &TABLES.inverse_column)
}

/// Replaces the bytes of a word (§ 5.2).
fn substitute(word: u32) -> u32 {
    u32::from_le_bytes(word.to_le_bytes().map(|byte| TABLES.forward[usize::from(byte)]))
}

#[cfg(test)]
mod tests {
    use super::{
        super::operations::{Binary, Immediate},
        *,
    };

    /// A state from its bytes as the standard writes them.
    fn state(bytes: u128) -> u128 {
        bytes.swap_bytes()
    }

    /// The keys of all rounds of AES-128 (§ 5.2).
    fn schedule(key: u128) -> [u128; 11] {
        let mut keys = [key; 11];
        let constants = [1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0x1b, 0x36];
        for (round, constant) in constants.into_iter().enumerate() {
            let mut word = dword(Aeskeygenassist::wide(0, keys[round], constant), 3);
            let words = std::array::from_fn(|i| {
                word ^= dword(keys[round], i as u32);
                word
            });
            keys[round + 1] = from_dwords(words);
        }
        keys
    }

    #[test]
    fn the_example_of_the_standard_is_encrypted_and_decrypted() {
        // Appendix C.1.
        let keys = schedule(state(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f));
        let plain = state(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
        let cipher = state(0x69c4_e0d8_6a7b_0430_d8cd_b780_70b4_c55a);
        assert_eq!(state(keys[10]), 0x1311_1d7f_e394_4a17_f307_a78b_4d2b_30c5);
        let encrypted = keys[1..10].iter().fold(plain ^ keys[0], |a, &key| Aesenc::wide(a, key));
        assert_eq!(Aesenclast::wide(encrypted, keys[10]), cipher);
        let decrypted =
            keys[1..10].iter().rev().fold(cipher ^ keys[10], |a, &key| Aesdec::wide(a, Aesimc::wide(0, key)));
        assert_eq!(Aesdeclast::wide(decrypted, keys[0]), plain);
    }

    #[test]
    fn the_substitution_is_that_of_the_standard() {
        // § 5.1.1: the first row of figure 7, and the example in the text.
        assert_eq!(TABLES.forward[..4], [0x63, 0x7c, 0x77, 0x7b]);
        assert_eq!(TABLES.forward[0x53], 0xed);
        for i in 0..=255 {
            assert_eq!(TABLES.inverse[usize::from(TABLES.forward[usize::from(i)])], i);
        }
    }
}
