//! A PS/2 mouse with a wheel and five buttons.
//!
//! Source: IBM PS/2 Hardware Interface Technical Reference, "Auxiliary Device"; for wheel and further buttons the
//! knocks and packets of Microsoft's IntelliMouse and IntelliMouse Explorer.

use std::collections::VecDeque;

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

pub use state::MouseV1;

use super::keyboard::{ACKNOWLEDGE, RESEND, TEST_PASSED};

/// Bytes that wait at most: an answer, a packet, and what answers in wrap mode.
const QUEUE: usize = 16;
/// Samples a second and counts a millimetre (as a power of two) after reset.
const RATE: u8 = 100;
const RESOLUTION: u8 = 2;
/// What a packet can carry.
const STEP: std::ops::RangeInclusive<i32> = -256..=255;
const WHEEL_STEP: std::ops::RangeInclusive<i32> = -8..=7;
/// Movement that was not sent yet is kept up to this much.
const FAR: i32 = 1 << 15;

/// Buttons that are down.
#[bitfield(u8)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Buttons {
    /// Left.
    pub left: bool,
    /// Right.
    pub right: bool,
    /// Middle: the wheel.
    pub middle: bool,
    /// Side, towards the user.
    pub side: bool,
    /// Side, away from the user.
    pub extra: bool,
    #[bits(3)]
    __: u8,
}

/// How much the guest's driver knows of the mouse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Three bytes a packet: two axes, three buttons.
    Plain = 0,
    /// A fourth byte: the wheel.
    Wheel = 3,
    /// The fourth byte also has two more buttons.
    FiveButtons = 4,
}

/// When the mouse sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// By itself.
    Stream,
    /// When asked.
    Remote,
}

/// The mouse alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Mouse {
    queue: VecDeque<u8>,
    kind: Kind,
    mode: Mode,
    /// Sends every byte back.
    wrap: bool,
    reporting: bool,
    scaling: bool,
    resolution: u8,
    rate: u8,
    /// The last three rates, by which a driver knocks for more.
    knock: [u8; 3],
    expects: Option<u8>,
    last: u8,
    buttons: Buttons,
    /// Buttons as they were sent last.
    sent: Buttons,
    /// Movement since the last packet: right, up, wheel towards the user.
    moved: [i32; 3],
}

impl Mouse {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            kind: Kind::Plain,
            mode: Mode::Stream,
            wrap: false,
            reporting: false,
            scaling: false,
            resolution: RESOLUTION,
            rate: RATE,
            knock: [0; 3],
            expects: None,
            last: 0,
            buttons: Buttons::new(),
            sent: Buttons::new(),
            moved: [0; 3],
        }
    }

    fn set_defaults(&mut self) {
        *self = Self { kind: self.kind, last: self.last, buttons: self.buttons, sent: self.sent, ..Self::new() };
    }

    fn answer(&mut self, bytes: &[u8]) {
        self.queue.extend(bytes);
    }

    /// A byte from the controller. It ends whatever was being sent.
    pub(super) fn write(&mut self, byte: u8) {
        self.queue.clear();
        if self.wrap && !matches!(byte, 0xec | 0xff) {
            return self.answer(&[byte]);
        }
        match self.expects.take() {
            Some(command) => self.argument(command, byte),
            None => self.command(byte),
        }
    }

    fn argument(&mut self, command: u8, value: u8) {
        match (command, value) {
            (0xe8, 0..4) => self.resolution = value,
            (0xf3, 1..=200) => {
                self.rate = value;
                self.knock = [self.knock[1], self.knock[2], value];
                match self.knock {
                    [200, 100, 80] => self.kind = Kind::Wheel,
                    [200, 200, 80] => self.kind = Kind::FiveButtons,
                    _ => {}
                }
            }
            _ => return self.answer(&[RESEND]),
        }
        self.answer(&[ACKNOWLEDGE]);
    }

    fn command(&mut self, command: u8) {
        match command {
            RESEND => return self.answer(&[self.last]),
            0xff => {
                *self = Self { buttons: self.buttons, sent: self.buttons, ..Self::new() };
                return self.answer(&[ACKNOWLEDGE, TEST_PASSED, Kind::Plain as u8]);
            }
            0xe6 | 0xe7 => self.scaling = command & 1 != 0,
            0xe8 | 0xf3 => self.expects = Some(command),
            0xe9 => return self.answer(&[ACKNOWLEDGE, self.status(), self.resolution, self.rate]),
            0xea => self.mode = Mode::Stream,
            0xeb => {
                self.answer(&[ACKNOWLEDGE]);
                return self.send_packet(false);
            }
            0xec => self.wrap = false,
            0xee => self.wrap = true,
            0xf0 => self.mode = Mode::Remote,
            0xf2 => return self.answer(&[ACKNOWLEDGE, self.kind as u8]),
            0xf4 | 0xf5 => {
                self.reporting = command == 0xf4;
                // What happened before is no news.
                (self.moved, self.sent) = ([0; 3], self.buttons);
            }
            0xf6 => self.set_defaults(),
            _ => return self.answer(&[RESEND]),
        }
        self.answer(&[ACKNOWLEDGE]);
    }

    fn status(&self) -> u8 {
        u8::from(self.buttons.right())
            | u8::from(self.buttons.middle()) << 1
            | u8::from(self.buttons.left()) << 2
            | u8::from(self.scaling) << 4
            | u8::from(self.reporting) << 5
            | u8::from(self.mode == Mode::Remote) << 6
    }

    /// Moves the mouse right, down and its wheel towards the user, and sets its buttons.
    pub(super) fn pointer(&mut self, right: i32, down: i32, wheel: i32, buttons: Buttons) {
        self.buttons = buttons;
        for (moved, by) in self.moved.iter_mut().zip([right, down.saturating_neg(), wheel]) {
            *moved = moved.saturating_add(by).clamp(-FAR, FAR);
        }
    }

    fn has_news(&self) -> bool {
        let axes = if self.kind == Kind::Plain { 2 } else { 3 };
        self.buttons != self.sent || self.moved.iter().take(axes).any(|&moved| moved != 0)
    }

    /// Takes out of the movement what one packet can carry.
    fn send_packet(&mut self, scaled: bool) {
        let [right, up, wheel] = &mut self.moved;
        let step = |moved: &mut i32, range: &std::ops::RangeInclusive<i32>| {
            let step = (*moved).clamp(*range.start(), *range.end());
            *moved -= step;
            step
        };
        let (x, y) = (step(right, &STEP), step(up, &STEP));
        let z = step(wheel, &WHEEL_STEP);
        let (x, y) = if scaled { (scale(x), scale(y)) } else { (x, y) };
        let buttons = self.buttons;
        let first = u8::from(buttons) & 7 | 0x08 | u8::from(x < 0) << 4 | u8::from(y < 0) << 5;
        self.queue.extend([first, x as u8, y as u8]);
        match self.kind {
            // Without a wheel its movement is lost.
            Kind::Plain => self.moved[2] = 0,
            Kind::Wheel => self.queue.push_back(z as u8),
            Kind::FiveButtons => {
                let more = u8::from(buttons.side()) << 4 | u8::from(buttons.extra()) << 5;
                self.queue.push_back(z as u8 & 0xf | more);
            }
        }
        self.sent = buttons;
    }

    /// The next byte for the controller: of an answer, or of what there is to report.
    pub(super) fn take(&mut self) -> Option<u8> {
        let streams = self.mode == Mode::Stream && self.reporting && !self.wrap && self.expects.is_none();
        if self.queue.is_empty() && streams && self.has_news() {
            self.send_packet(self.scaling);
        }
        let byte = self.queue.pop_front()?;
        if byte != RESEND {
            self.last = byte;
        }
        Some(byte)
    }
}

/// Scaling 2:1, of stream mode only.
fn scale(step: i32) -> i32 {
    let scaled = match step.abs() {
        small @ 0..=1 => small,
        2 => 1,
        3 => 3,
        4 => 6,
        5 => 9,
        large => 2 * large,
    };
    (step.signum() * scaled).clamp(*STEP.start(), *STEP.end())
}

mod state {
    use std::collections::VecDeque;

    use super::{Buttons, FAR, Kind, Mode, Mouse, QUEUE};

    saved_state!(Mouse => MouseV1 {
        queue: VecDeque<u8>, kind: Kind, mode: Mode, wrap: bool, reporting: bool, scaling: bool, resolution: u8, rate: u8,
        knock: [u8; 3], expects: Option<u8>, last: u8, buttons: Buttons, sent: Buttons, moved: [i32; 3],
    } if |s| s.queue.len() <= QUEUE && s.resolution < 4 && matches!(s.expects, None | Some(0xe8 | 0xf3))
        && s.moved.iter().all(|moved| (-FAR..=FAR).contains(moved)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(mouse: &mut Mouse, bytes: &[u8]) -> Vec<u8> {
        let mut answers = Vec::new();
        for &byte in bytes {
            mouse.write(byte);
            answers.extend(std::iter::from_fn(|| mouse.take()));
        }
        answers
    }

    fn packets(mouse: &mut Mouse) -> Vec<u8> {
        std::iter::from_fn(|| mouse.take()).collect()
    }

    #[test]
    fn commands_are_answered() {
        let mut mouse = Mouse::new();
        assert_eq!(ask(&mut mouse, &[0xff]), [0xfa, 0xaa, 0]);
        assert_eq!(ask(&mut mouse, &[0xf2]), [0xfa, 0]);
        assert_eq!(ask(&mut mouse, &[0xe9]), [0xfa, 0, 2, 100]);
        assert_eq!(ask(&mut mouse, &[0xe8, 3, 0xf3, 40, 0xe7, 0xf0, 0xf4]), [0xfa; 7]);
        assert_eq!(ask(&mut mouse, &[0xe9]), [0xfa, 0x70, 3, 40]);
        assert_eq!(ask(&mut mouse, &[0xe8, 4]), [0xfa, 0xfe]);
        assert_eq!(ask(&mut mouse, &[0xf6, 0xe9]), [0xfa, 0xfa, 0, 2, 100]);
        assert_eq!(ask(&mut mouse, &[0xe1]), [0xfe]);
        assert_eq!(ask(&mut mouse, &[0xee, 0xf4, 0x12, 0xec]), [0xfa, 0xf4, 0x12, 0xfa]);
    }

    #[test]
    fn rates_knock_for_the_wheel_and_for_more_buttons() {
        let mut mouse = Mouse::new();
        ask(&mut mouse, &[0xf3, 200, 0xf3, 100, 0xf3, 80]);
        assert_eq!(ask(&mut mouse, &[0xf2]), [0xfa, 3]);
        ask(&mut mouse, &[0xf3, 200, 0xf3, 200, 0xf3, 80]);
        assert_eq!(ask(&mut mouse, &[0xf2, 0xf4]), [0xfa, 4, 0xfa]);
        mouse.pointer(0, 0, -2, Buttons::new().with_extra(true));
        assert_eq!(packets(&mut mouse), [8, 0, 0, 0x2e]);
    }

    #[test]
    fn movement_goes_up_for_the_guest_and_is_split_where_it_is_too_large() {
        let mut mouse = Mouse::new();
        ask(&mut mouse, &[0xf4]);
        mouse.pointer(-300, 5, 9, Buttons::new().with_left(true));
        assert_eq!(packets(&mut mouse), [0x39, 0x00, 0xfb, 0x19, 0xd4, 0x00]);
        mouse.pointer(0, 0, 1, Buttons::new());
        assert_eq!(packets(&mut mouse), [8, 0, 0]);
        assert_eq!(packets(&mut mouse), [0_u8; 0]);
    }

    #[test]
    fn nothing_is_reported_until_it_is_asked_for() {
        let mut mouse = Mouse::new();
        mouse.pointer(1, 1, 0, Buttons::new());
        assert_eq!(packets(&mut mouse), [0_u8; 0]);
        assert_eq!(ask(&mut mouse, &[0xf0, 0xf4]), [0xfa, 0xfa]);
        mouse.pointer(4, 0, 0, Buttons::new());
        assert_eq!(packets(&mut mouse), [0_u8; 0]);
        assert_eq!(ask(&mut mouse, &[0xeb]), [0xfa, 8, 4, 0]);
    }

    #[test]
    fn scaling_counts_double_when_fast() {
        assert_eq!([0, 1, 2, 3, 4, 5, 6, -6, -4, 200].map(scale), [0, 1, 1, 3, 6, 9, 12, -12, -6, 255]);
    }
}
