//! Names of keys, and the numbers that keyboards know them by: scan codes of set 1, with bit 7 set for those with the
//! prefix 0xe0, as [`super::Ps2::key`] takes them.
//!
//! Source: the names are those of QKeyCode, as people type them into monitors; the numbers are those of the IBM PS/2
//! Hardware Interface Technical Reference, "Keyboards (101- and 102-Key)".

/// Every key that has a name.
pub const KEYS: &[(&str, u8)] = &[
    ("esc", 0x01),
    ("1", 0x02),
    ("2", 0x03),
    ("3", 0x04),
    ("4", 0x05),
    ("5", 0x06),
    ("6", 0x07),
    ("7", 0x08),
    ("8", 0x09),
    ("9", 0x0a),
    ("0", 0x0b),
    ("minus", 0x0c),
    ("equal", 0x0d),
    ("backspace", 0x0e),
    ("tab", 0x0f),
    ("q", 0x10),
    ("w", 0x11),
    ("e", 0x12),
    ("r", 0x13),
    ("t", 0x14),
    ("y", 0x15),
    ("u", 0x16),
    ("i", 0x17),
    ("o", 0x18),
    ("p", 0x19),
    ("bracket_left", 0x1a),
    ("bracket_right", 0x1b),
    ("ret", 0x1c),
    ("ctrl", 0x1d),
    ("a", 0x1e),
    ("s", 0x1f),
    ("d", 0x20),
    ("f", 0x21),
    ("g", 0x22),
    ("h", 0x23),
    ("j", 0x24),
    ("k", 0x25),
    ("l", 0x26),
    ("semicolon", 0x27),
    ("apostrophe", 0x28),
    ("grave_accent", 0x29),
    ("shift", 0x2a),
    ("backslash", 0x2b),
    ("z", 0x2c),
    ("x", 0x2d),
    ("c", 0x2e),
    ("v", 0x2f),
    ("b", 0x30),
    ("n", 0x31),
    ("m", 0x32),
    ("comma", 0x33),
    ("dot", 0x34),
    ("slash", 0x35),
    ("shift_r", 0x36),
    ("asterisk", 0x37),
    ("kp_multiply", 0x37),
    ("alt", 0x38),
    ("spc", 0x39),
    ("caps_lock", 0x3a),
    ("f1", 0x3b),
    ("f2", 0x3c),
    ("f3", 0x3d),
    ("f4", 0x3e),
    ("f5", 0x3f),
    ("f6", 0x40),
    ("f7", 0x41),
    ("f8", 0x42),
    ("f9", 0x43),
    ("f10", 0x44),
    ("num_lock", 0x45),
    ("scroll_lock", 0x46),
    ("kp_7", 0x47),
    ("kp_8", 0x48),
    ("kp_9", 0x49),
    ("kp_subtract", 0x4a),
    ("kp_4", 0x4b),
    ("kp_5", 0x4c),
    ("kp_6", 0x4d),
    ("kp_add", 0x4e),
    ("kp_1", 0x4f),
    ("kp_2", 0x50),
    ("kp_3", 0x51),
    ("kp_0", 0x52),
    ("kp_decimal", 0x53),
    ("sysrq", 0x54),
    ("less", 0x56),
    ("f11", 0x57),
    ("f12", 0x58),
    ("kp_equals", 0x59),
    ("hiragana", 0x70),
    ("ro", 0x73),
    ("henkan", 0x79),
    ("muhenkan", 0x7b),
    ("yen", 0x7d),
    ("kp_comma", 0x7e),
    ("audioprev", 0x90),
    ("audionext", 0x99),
    ("kp_enter", 0x9c),
    ("ctrl_r", 0x9d),
    ("audiomute", 0xa0),
    ("calculator", 0xa1),
    ("audioplay", 0xa2),
    ("audiostop", 0xa4),
    ("volumedown", 0xae),
    ("volumeup", 0xb0),
    ("ac_home", 0xb2),
    ("kp_divide", 0xb5),
    ("print", 0xb7),
    ("alt_r", 0xb8),
    ("pause", 0xc6),
    ("home", 0xc7),
    ("up", 0xc8),
    ("pgup", 0xc9),
    ("left", 0xcb),
    ("right", 0xcd),
    ("end", 0xcf),
    ("down", 0xd0),
    ("pgdn", 0xd1),
    ("insert", 0xd2),
    ("delete", 0xd3),
    ("meta_l", 0xdb),
    ("meta_r", 0xdc),
    ("compose", 0xdd),
    ("menu", 0xdd),
    ("power", 0xde),
    ("sleep", 0xdf),
    ("wake", 0xe3),
    ("ac_bookmarks", 0xe6),
    ("ac_refresh", 0xe7),
    ("ac_forward", 0xe9),
    ("ac_back", 0xea),
    ("computer", 0xeb),
    ("mail", 0xec),
    ("mediaselect", 0xed),
];

/// The key of that name: one of [`KEYS`], a few old names, or its number, as in `0x1e`.
pub fn key(name: &str) -> Option<u8> {
    if let Some(digits) = name.strip_prefix("0x") {
        return u8::from_str_radix(digits, 16).ok();
    }
    let name = match name {
        "enter" => "ret",
        "escape" => "esc",
        "space" => "spc",
        "<" => "less",
        name => name,
    };
    KEYS.iter().find(|(known, _)| *known == name).map(|(_, key)| *key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::scancode::{self, Set};

    #[test]
    fn each_name_is_there_once_and_its_key_sends_something() {
        for (index, (name, number)) in KEYS.iter().enumerate() {
            assert!(KEYS[index + 1..].iter().all(|(other, _)| other != name), "{name}");
            assert!(!scancode::of_key(Set::Two, *number, true).is_empty(), "{name}");
        }
        assert_eq!(
            (key("a"), key("delete"), key("0x1e"), key("enter")),
            (Some(0x1e), Some(0xd3), Some(0x1e), Some(0x1c))
        );
        assert_eq!((key("any"), key("0x100"), key("")), (None, None, None));
    }
}
