//! Steps of the secure hash algorithms: SHA1RNDS4, SHA256RNDS2 and their kin.
//!
//! Sources: FIPS 180-4 (cited as §); SDM vol. 2 for each instruction.

use super::{
    lanes::{dword, from_dwords},
    operations::operations,
};

operations! { binary
    Sha1nexte: |a, b| from_dwords([
        dword(b, 0),
        dword(b, 1),
        dword(b, 2),
        dword(b, 3).wrapping_add(dword(a, 3).rotate_left(30)),
    ]);
    Sha1msg1: |a, b| a ^ (a << 64 | b >> 64);
    Sha1msg2: |a, b| {
        let words: [u32; 3] = std::array::from_fn(|i| (dword(a, 3 - i as u32) ^ dword(b, 2 - i as u32)).rotate_left(1));
        from_dwords([(dword(a, 0) ^ words[0]).rotate_left(1), words[2], words[1], words[0]])
    };
    Sha256msg1: |a, b| {
        let next = a >> 32 | b << 96;
        from_dwords(std::array::from_fn(|i| dword(a, i as u32).wrapping_add(small_sigma_0(dword(next, i as u32)))))
    };
    Sha256msg2: |a, b| {
        let low = dword(a, 0).wrapping_add(small_sigma_1(dword(b, 2)));
        let high = dword(a, 1).wrapping_add(small_sigma_1(dword(b, 3)));
        from_dwords([
            low,
            high,
            dword(a, 2).wrapping_add(small_sigma_1(low)),
            dword(a, 3).wrapping_add(small_sigma_1(high)),
        ])
    };
}

operations! { immediate
    Sha1rnds4: |a, b, function| match function & 3 {
        0 => four_rounds(a, b, 0x5a82_7999, choose),
        1 => four_rounds(a, b, 0x6ed9_eba1, parity),
        2 => four_rounds(a, b, 0x8f1b_bcdc, majority),
        _ => four_rounds(a, b, 0xca62_c1d6, parity),
    };
}

operations! { ternary
    Sha256rnds2: |a, b, c| two_rounds(a, b, c);
}

/// § 4.1.1.
#[inline(always)]
fn choose(x: u32, y: u32, z: u32) -> u32 {
    x & y ^ !x & z
}

/// § 4.1.1.
#[inline(always)]
fn parity(x: u32, y: u32, z: u32) -> u32 {
    x ^ y ^ z
}

/// § 4.1.1.
#[inline(always)]
fn majority(x: u32, y: u32, z: u32) -> u32 {
    x & y ^ x & z ^ y & z
}

/// § 4.1.2.
#[inline(always)]
fn small_sigma_0(x: u32) -> u32 {
    x.rotate_right(7) ^ x.rotate_right(18) ^ x >> 3
}

/// § 4.1.2.
#[inline(always)]
fn small_sigma_1(x: u32) -> u32 {
    x.rotate_right(17) ^ x.rotate_right(19) ^ x >> 10
}

/// Four rounds of SHA-1 (§ 6.1.2): A to D from the highest dword down, and in `b` the words of the schedule, to the first
/// of which E was added already.
#[inline(always)]
fn four_rounds(state: u128, schedule: u128, constant: u32, f: impl Fn(u32, u32, u32) -> u32) -> u128 {
    let [mut d, mut c, mut b, mut a] = std::array::from_fn(|i| dword(state, i as u32));
    let mut e = 0_u32;
    for i in 0..4 {
        let sum = a
            .rotate_left(5)
            .wrapping_add(f(b, c, d))
            .wrapping_add(e)
            .wrapping_add(constant)
            .wrapping_add(dword(schedule, 3 - i));
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, sum);
    }
    from_dwords([d, c, b, a])
}

/// Two rounds of SHA-256 (§ 6.2.2): A, B, E, F are in the second operand, C, D, G, H in the first one, words of the
/// schedule with their constants in the third one.
#[inline(always)]
fn two_rounds(first: u128, second: u128, schedule: u128) -> u128 {
    let [mut f, mut e, mut b, mut a] = std::array::from_fn(|i| dword(second, i as u32));
    let [mut h, mut g, mut d, mut c] = std::array::from_fn(|i| dword(first, i as u32));
    for i in 0..2 {
        let sum_1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let sum_0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t1 = h.wrapping_add(sum_1).wrapping_add(choose(e, f, g)).wrapping_add(dword(schedule, i));
        let t2 = sum_0.wrapping_add(majority(a, b, c));
        (h, g, f, e) = (g, f, e, d.wrapping_add(t1));
        (d, c, b, a) = (c, b, a, t1.wrapping_add(t2));
    }
    from_dwords([f, e, b, a])
}

#[cfg(test)]
mod tests {
    use super::{
        super::operations::{Binary, Immediate, Ternary},
        *,
    };

    /// The block of the message "abc" (FIPS 180-4's example) as four registers, the first word in the given end.
    fn block() -> [u32; 16] {
        let mut words = [0; 16];
        words[0] = 0x6162_6380;
        words[15] = 24;
        words
    }

    #[test]
    fn sha_1_of_the_example_is_right() {
        let words = block();
        let mut schedule: Vec<u128> = words.chunks(4).map(|w| from_dwords([w[3], w[2], w[1], w[0]])).collect();
        for i in 4..20 {
            let first = Sha1msg1::wide(schedule[i - 4], schedule[i - 3]);
            schedule.push(Sha1msg2::wide(first ^ schedule[i - 2], schedule[i - 1]));
        }
        let initial = from_dwords([0x1032_5476, 0x98ba_dcfe, 0xefcd_ab89, 0x6745_2301]);
        let e = 0xc3d2_e1f0_u32;
        let mut state = initial;
        let mut previous = 0;
        for (i, &words) in schedule.iter().enumerate() {
            // E of the first round is given; of later ones it comes from the state before.
            let words = if i == 0 { words.wrapping_add(u128::from(e) << 96) } else { Sha1nexte::wide(previous, words) };
            previous = state;
            state = Sha1rnds4::wide(state, words, (i / 5) as u8);
        }
        let last = dword(Sha1nexte::wide(previous, u128::from(e) << 96), 3);
        let sums: Vec<u32> = (0..4).rev().map(|i| dword(state, i).wrapping_add(dword(initial, i))).collect();
        assert_eq!(sums, [0xa999_3e36, 0x4706_816a, 0xba3e_2571, 0x7850_c26c]);
        assert_eq!(last, 0x9cd0_d89d);
    }

    /// The first 32 bits of the fractional parts of the cube roots of the first 64 primes (§ 4.2.2).
    fn constants() -> Vec<u32> {
        let primes = (2_u128..).filter(|n| (2..*n).all(|d| n % d != 0)).take(64);
        primes
            .map(|prime| {
                // The cube root of the prime times 2^32, by bisection.
                let (mut low, mut high) = (0_u128, 8 << 32);
                while high - low > 1 {
                    let middle = (low + high) / 2;
                    if middle * middle * middle <= prime << 96 { low = middle } else { high = middle }
                }
                low as u32
            })
            .collect()
    }

    #[test]
    fn sha_256_of_the_example_is_right() {
        let words = block();
        let mut schedule: Vec<u128> = words.chunks(4).map(|w| from_dwords([w[0], w[1], w[2], w[3]])).collect();
        for i in 4..16 {
            let middle = schedule[i - 2] >> 32 | schedule[i - 1] << 96;
            let first = Sha256msg1::wide(schedule[i - 4], schedule[i - 3]);
            let sum =
                from_dwords(std::array::from_fn(|j| dword(first, j as u32).wrapping_add(dword(middle, j as u32))));
            schedule.push(Sha256msg2::wide(sum, schedule[i - 1]));
        }
        let initial = [
            from_dwords([0x5be0_cd19, 0x1f83_d9ab, 0xa54f_f53a, 0x3c6e_f372]),
            from_dwords([0x9b05_688c, 0x510e_527f, 0xbb67_ae85, 0x6a09_e667]),
        ];
        let [mut cdgh, mut abef] = initial;
        for (words, constants) in schedule.iter().zip(constants().chunks(4)) {
            let sum: [u32; 4] = std::array::from_fn(|i| dword(*words, i as u32).wrapping_add(constants[i]));
            for pair in [[sum[0], sum[1], 0, 0], [sum[2], sum[3], 0, 0]] {
                let next = Sha256rnds2::wide(cdgh, abef, from_dwords(pair));
                (cdgh, abef) = (abef, next);
            }
        }
        let sum = |register: u128, initial: u128, lane| dword(register, lane).wrapping_add(dword(initial, lane));
        let high = [3, 2].map(|lane| sum(abef, initial[1], lane));
        let low = [3, 2].map(|lane| sum(cdgh, initial[0], lane));
        assert_eq!([high, low], [[0xba78_16bf, 0x8f01_cfea], [0x4141_40de, 0x5dae_2223]]);
    }
}
