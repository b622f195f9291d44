//! A PS/2 keyboard: what it answers to commands, and the codes of its keys.
//!
//! Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-Key)" (cited as §).

use std::collections::VecDeque;

pub use state::KeyboardV1;

use super::scancode::{self, Set};

/// Bytes of keys that wait to be sent. The real one holds 16; a host that types needs more.
const KEYS: usize = 256;
/// Bytes that one command is answered with, at most.
const ANSWERS: usize = 4;

pub(super) const ACKNOWLEDGE: u8 = 0xfa;
pub(super) const RESEND: u8 = 0xfe;
pub(super) const TEST_PASSED: u8 = 0xaa;
const ECHO: u8 = 0xee;
const ID: [u8; 2] = [0xab, 0x83];
/// Typematic rate and delay after reset: 10.9 characters a second after 500 ms.
const RATE: u8 = 0x2b;

/// The keyboard alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Keyboard {
    answers: VecDeque<u8>,
    keys: VecDeque<u8>,
    scanning: bool,
    set: Set,
    leds: u8,
    rate: u8,
    /// The command whose argument comes next.
    expects: Option<u8>,
    /// What was sent last, for a resend.
    last: u8,
}

impl Keyboard {
    pub(super) fn new() -> Self {
        Self {
            answers: VecDeque::new(),
            keys: VecDeque::new(),
            scanning: true,
            set: Set::Two,
            leds: 0,
            rate: RATE,
            expects: None,
            last: 0,
        }
    }

    fn answer(&mut self, bytes: &[u8]) {
        self.answers.extend(bytes);
    }

    /// A byte from the controller: a command, or the argument of the one before.
    pub(super) fn write(&mut self, byte: u8) {
        self.answers.clear();
        match self.expects.take() {
            // § "Commands from the system": a command in place of an argument ends the one before.
            Some(command) if byte < 0xed => self.argument(command, byte),
            _ => self.command(byte),
        }
    }

    fn command(&mut self, command: u8) {
        match command {
            // LEDs, scan code set, typematic rate.
            0xed | 0xf0 | 0xf3 => {
                self.expects = Some(command);
                self.answer(&[ACKNOWLEDGE]);
            }
            ECHO => self.answer(&[ECHO]),
            0xf2 => self.answer(&[ACKNOWLEDGE, ID[0], ID[1]]),
            0xf4 => {
                self.keys.clear();
                self.scanning = true;
                self.answer(&[ACKNOWLEDGE]);
            }
            0xf5 => {
                self.set_defaults();
                self.scanning = false;
                self.answer(&[ACKNOWLEDGE]);
            }
            0xf6 => {
                self.set_defaults();
                self.answer(&[ACKNOWLEDGE]);
            }
            // Kinds of all keys, of set 3 only: the sets there are know one kind.
            0xf7..=0xfa => self.answer(&[ACKNOWLEDGE]),
            RESEND => self.answer(&[self.last]),
            0xff => {
                *self = Self::new();
                self.answer(&[ACKNOWLEDGE, TEST_PASSED]);
            }
            _ => self.answer(&[RESEND]),
        }
    }

    fn argument(&mut self, command: u8, value: u8) {
        match (command, value) {
            (0xed, _) => self.leds = value & 7,
            (0xf3, _) => self.rate = value & 0x7f,
            (_, 0) => {
                let set = match self.set {
                    Set::One => 1,
                    Set::Two => 2,
                };
                return self.answer(&[ACKNOWLEDGE, set]);
            }
            (_, 1) => self.set = Set::One,
            (_, 2) => self.set = Set::Two,
            _ => return self.answer(&[RESEND]),
        }
        self.answer(&[ACKNOWLEDGE]);
    }

    fn set_defaults(&mut self) {
        self.keys.clear();
        (self.set, self.rate) = (Set::Two, RATE);
    }

    /// A key is pressed or released; dropped as a whole where there is no room.
    pub(super) fn key(&mut self, key: u8, down: bool) {
        let bytes = scancode::of_key(self.set, key, down);
        if self.scanning && self.keys.len() + bytes.len() <= KEYS {
            self.keys.extend(bytes);
        }
    }

    /// The next byte for the controller. Keys wait while a command lacks its argument.
    pub(super) fn take(&mut self) -> Option<u8> {
        let byte = match self.answers.pop_front() {
            Some(answer) => answer,
            None if self.expects.is_none() => self.keys.pop_front()?,
            None => return None,
        };
        if byte != RESEND {
            self.last = byte;
        }
        Some(byte)
    }
}

mod state {
    use std::collections::VecDeque;

    use super::{ANSWERS, KEYS, Keyboard, Set};

    saved_state!(Keyboard => KeyboardV1 {
        answers: VecDeque<u8>, keys: VecDeque<u8>, scanning: bool, set: Set, leds: u8, rate: u8, expects: Option<u8>,
        last: u8,
    } if |s| s.answers.len() <= ANSWERS && s.keys.len() <= KEYS && s.leds < 8 && s.rate < 0x80
        && matches!(s.expects, None | Some(0xed | 0xf0 | 0xf3)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(keyboard: &mut Keyboard, bytes: &[u8]) -> Vec<u8> {
        let mut answers = Vec::new();
        for &byte in bytes {
            keyboard.write(byte);
            answers.extend(std::iter::from_fn(|| keyboard.take()));
        }
        answers
    }

    #[test]
    fn commands_are_answered() {
        let mut keyboard = Keyboard::new();
        assert_eq!(ask(&mut keyboard, &[0xff]), [0xfa, 0xaa]);
        assert_eq!(ask(&mut keyboard, &[0xf2]), [0xfa, 0xab, 0x83]);
        assert_eq!(ask(&mut keyboard, &[0xfe]), [0x83]);
        assert_eq!(ask(&mut keyboard, &[0xee]), [0xee]);
        assert_eq!(ask(&mut keyboard, &[0xed, 7]), [0xfa, 0xfa]);
        assert_eq!((keyboard.leds, ask(&mut keyboard, &[0xf3, 0x20])), (7, vec![0xfa, 0xfa]));
        assert_eq!(ask(&mut keyboard, &[0xf0, 0]), [0xfa, 0xfa, 2]);
        assert_eq!(ask(&mut keyboard, &[0xf0, 3]), [0xfa, 0xfe]);
        assert_eq!(ask(&mut keyboard, &[0xe1]), [0xfe]);
    }

    #[test]
    fn a_command_in_place_of_an_argument_is_a_command() {
        let mut keyboard = Keyboard::new();
        assert_eq!(ask(&mut keyboard, &[0xed, 0xf4]), [0xfa, 0xfa]);
        assert_eq!((keyboard.leds, keyboard.expects), (0, None));
    }

    #[test]
    fn keys_are_sent_in_the_set_that_was_chosen_while_scanning() {
        let mut keyboard = Keyboard::new();
        ask(&mut keyboard, &[0xf0, 1]);
        keyboard.key(0x1e, false);
        assert_eq!(keyboard.take(), Some(0x9e));
        ask(&mut keyboard, &[0xf5]);
        keyboard.key(0x1e, true);
        assert_eq!(keyboard.take(), None);
        ask(&mut keyboard, &[0xf4]);
        keyboard.key(0x1e, true);
        keyboard.write(0xed);
        assert_eq!((keyboard.take(), keyboard.take()), (Some(0xfa), None));
        keyboard.write(0);
        assert_eq!((keyboard.take(), keyboard.take()), (Some(0xfa), Some(0x1c)));
    }

    #[test]
    fn keys_without_room_are_dropped_whole() {
        let mut keyboard = Keyboard::new();
        for _ in 0..100 {
            keyboard.key(0xc8, false);
        }
        let bytes: Vec<_> = std::iter::from_fn(|| keyboard.take()).collect();
        assert_eq!((bytes.len(), bytes.len() % 3), (255, 0));
    }
}
