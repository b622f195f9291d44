//! Scan codes of keyboards: set 2, which keyboards send, and set 1, into which the 8042 translates it.
//!
//! Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-Key)".

/// The 8042's translation of codes below 0x80 from set 2 to set 1.
const TO_SET_1: [u8; 128] = [
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59, // 0x00
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b, // 0x10
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d, // 0x20
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f, // 0x30
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61, // 0x40
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, // 0x50
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, // 0x60
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54, // 0x70
];

/// F7 and SysRq have codes above 0x7f in set 2.
const F7: (u8, u8) = (0x83, 0x41);
const SYSRQ: (u8, u8) = (0x84, 0x54);

const fn invert() -> [u8; 128] {
    let mut table = [0; 128];
    let mut code = 1;
    while code < 128 {
        table[(TO_SET_1[code] & 0x7f) as usize] = code as u8;
        code += 1;
    }
    table[F7.1 as usize] = F7.0;
    table[SYSRQ.1 as usize] = SYSRQ.0;
    table
}

const TO_SET_2: [u8; 128] = invert();

/// The prefix of a release in set 2.
pub const RELEASE: u8 = 0xf0;

/// Key number of Pause, which sends a press and a release at once.
const PAUSE: u8 = 0xc6;
/// Key number of Print Screen, which presses a shift of its own.
const PRINT: u8 = 0xb7;

/// A byte of set 2 in set 1, as the 8042 has it. Codes above 0x7f, among them answers to commands, stay but for two.
pub fn to_set_1(byte: u8) -> u8 {
    match TO_SET_1.get(usize::from(byte)) {
        Some(&code) => code,
        None if byte == F7.0 => F7.1,
        None if byte == SYSRQ.0 => SYSRQ.1,
        None => byte,
    }
}

/// The scan code sets that the keyboard has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Set {
    /// The PC/XT's.
    One,
    /// The AT's.
    Two,
}

/// What the keyboard sends for a key: number in set 1, bit 7 for those with a prefix. Nothing for a key that does not
/// exist.
pub fn of_key(set: Set, key: u8, down: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8);
    let mut one = |prefix: Option<u8>, code: u8, down: bool| match set {
        Set::One => {
            bytes.extend(prefix);
            bytes.push(if down { code } else { code | 0x80 });
        }
        Set::Two => {
            bytes.extend(prefix);
            if !down {
                bytes.push(RELEASE);
            }
            bytes.push(TO_SET_2[usize::from(code & 0x7f)]);
        }
    };
    match (key, down) {
        (0 | 0x80, _) => {}
        (PAUSE, true) => {
            for down in [true, false] {
                one(Some(0xe1), 0x1d, down);
                one(None, 0x45, down);
            }
        }
        (PAUSE, false) => {}
        (PRINT, true) => {
            one(Some(0xe0), 0x2a, true);
            one(Some(0xe0), 0x37, true);
        }
        (PRINT, false) => {
            one(Some(0xe0), 0x37, false);
            one(Some(0xe0), 0x2a, false);
        }
        (key, down) => one((key & 0x80 != 0).then_some(0xe0), key & 0x7f, down),
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_code_of_its_own_in_set_2_that_translates_back() {
        for key in 1..0x80_u8 {
            let code = TO_SET_2[usize::from(key)];
            assert_ne!(code, 0, "{key:#x}");
            assert_eq!(to_set_1(code), key);
        }
    }

    #[test]
    fn known_keys() {
        assert_eq!(of_key(Set::Two, 0x1e, true), [0x1c]);
        assert_eq!(of_key(Set::Two, 0x1e, false), [0xf0, 0x1c]);
        assert_eq!(of_key(Set::Two, 0x41, true), [0x83]);
        assert_eq!(of_key(Set::Two, 0xc8, false), [0xe0, 0xf0, 0x75]);
        assert_eq!(of_key(Set::One, 0xc8, false), [0xe0, 0xc8]);
        assert_eq!(of_key(Set::Two, 0xc6, true), [0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77]);
        assert_eq!(of_key(Set::Two, 0xc6, false), [0_u8; 0]);
        assert_eq!(of_key(Set::Two, 0xb7, true), [0xe0, 0x12, 0xe0, 0x7c]);
        assert_eq!(of_key(Set::Two, 0, true), [0_u8; 0]);
    }
}
