//! The 8042 keyboard controller: a command byte, an output port with reset and A20, and two serial interfaces.
//!
//! Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller" (cited as §).

use std::collections::VecDeque;

use bitfield_struct::bitfield;
use rhea_core::{LoadError, SaveState};
use serde::{Deserialize, Serialize};

pub use state::{ControllerV1, I8042V1};

use super::{
    keyboard::Keyboard,
    mouse::Mouse,
    scancode::{RELEASE, to_set_1},
};
use crate::chipset::reset::Request;

/// Answers of the controller that wait for the output buffer, at most.
const ANSWERS: usize = 8;

/// § "Controller Command Byte".
#[bitfield(u8)]
struct CommandByte {
    keyboard_interrupt: bool,
    auxiliary_interrupt: bool,
    system_flag: bool,
    #[bits(1)]
    __: u8,
    disable_keyboard: bool,
    disable_auxiliary: bool,
    translate: bool,
    #[bits(1)]
    __: u8,
}

/// § "Controller Status Register".
#[bitfield(u8)]
struct Status {
    output_full: bool,
    input_full: bool,
    system_flag: bool,
    /// The last write was a command.
    command: bool,
    /// The keyboard is not locked by a key.
    unlocked: bool,
    auxiliary_output_full: bool,
    timeout: bool,
    parity_error: bool,
}

/// Where a byte in the output buffer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// The keyboard, or the controller itself.
    Keyboard,
    /// The auxiliary device: the mouse.
    Auxiliary,
}

/// What the next write to the data port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expect {
    /// A byte for the keyboard.
    Keyboard,
    /// A byte of the controller's memory; the first is the command byte.
    Memory(u8),
    /// The output port.
    OutputPort,
    /// A byte to appear in the output buffer.
    Loop(Source),
    /// A byte for the auxiliary device.
    Auxiliary,
}

/// The controller without its devices.
#[derive(Clone, Debug, PartialEq)]
pub struct Controller {
    /// Its memory; the first byte is the command byte.
    memory: [u8; 32],
    output: Option<(u8, Source)>,
    answers: VecDeque<(u8, Source)>,
    expect: Expect,
    last_was_command: bool,
    a20: bool,
    /// Translation met the prefix of a release.
    release: bool,
}

impl Controller {
    /// As firmware leaves it: keyboard on, translated and with its interrupt, auxiliary device off, A20 open.
    fn new() -> Self {
        let command_byte =
            CommandByte::new().with_keyboard_interrupt(true).with_system_flag(true).with_disable_auxiliary(true);
        let mut memory = [0; 32];
        memory[0] = command_byte.with_translate(true).into();
        Self {
            memory,
            output: None,
            answers: VecDeque::new(),
            expect: Expect::Keyboard,
            last_was_command: false,
            a20: true,
            release: false,
        }
    }

    const fn command_byte(&self) -> CommandByte {
        CommandByte::from_bits(self.memory[0])
    }

    fn change_command_byte(&mut self, change: impl FnOnce(CommandByte) -> CommandByte) {
        self.memory[0] = change(self.command_byte()).into();
    }

    fn answer(&mut self, byte: u8, source: Source) {
        if self.answers.len() < ANSWERS {
            self.answers.push_back((byte, source));
        }
    }

    fn reply(&mut self, byte: u8) {
        self.answer(byte, Source::Keyboard);
    }

    fn move_a20(&mut self, open: bool) -> Request {
        let changed = self.a20 != open;
        self.a20 = open;
        if changed { Request::A20(open) } else { Request::Nothing }
    }

    /// § "Output Port": reset, A20, the interrupts, and the lines to the keyboard.
    fn output_port(&self) -> u8 {
        let (keyboard, auxiliary) = match self.output {
            None => (false, false),
            Some((_, Source::Keyboard)) => (true, false),
            Some((_, Source::Auxiliary)) => (false, true),
        };
        0xc1 | u8::from(self.a20) << 1 | u8::from(keyboard) << 4 | u8::from(auxiliary) << 5
    }

    /// A byte of the keyboard as the guest is to see it; `None` for a prefix that translation swallows.
    fn translate(&mut self, byte: u8) -> Option<u8> {
        if !self.command_byte().translate() {
            return Some(byte);
        }
        if byte == RELEASE {
            self.release = true;
            return None;
        }
        let released = std::mem::take(&mut self.release);
        let code = to_set_1(byte);
        Some(if released { code | 0x80 } else { code })
    }
}

/// The controller with its keyboard and mouse.
#[derive(Clone, Debug, PartialEq)]
pub struct I8042 {
    controller: Controller,
    pub(super) keyboard: Keyboard,
    pub(super) mouse: Mouse,
}

impl I8042 {
    pub(super) fn new() -> Self {
        Self { controller: Controller::new(), keyboard: Keyboard::new(), mouse: Mouse::new() }
    }

    /// The level of the keyboard's interrupt.
    pub(super) fn keyboard_interrupt(&self) -> bool {
        let enabled = self.controller.command_byte().keyboard_interrupt();
        enabled && matches!(self.controller.output, Some((_, Source::Keyboard)))
    }

    /// The level of the mouse's interrupt.
    pub(super) fn mouse_interrupt(&self) -> bool {
        let enabled = self.controller.command_byte().auxiliary_interrupt();
        enabled && matches!(self.controller.output, Some((_, Source::Auxiliary)))
    }

    /// Moves the next byte to the output buffer, if that is empty: the controller's own first.
    pub(super) fn fill(&mut self) {
        let Self { controller, keyboard, mouse } = self;
        while controller.output.is_none() {
            if let Some(answer) = controller.answers.pop_front() {
                controller.output = Some(answer);
                return;
            }
            let command_byte = controller.command_byte();
            if !command_byte.disable_keyboard()
                && let Some(byte) = keyboard.take()
            {
                controller.output = controller.translate(byte).map(|byte| (byte, Source::Keyboard));
            } else if !command_byte.disable_auxiliary()
                && let Some(byte) = mouse.take()
            {
                controller.output = Some((byte, Source::Auxiliary));
            } else {
                return;
            }
        }
    }

    /// A read of port 0x64.
    pub(super) fn status(&self) -> u8 {
        let output = self.controller.output;
        Status::new()
            .with_output_full(output.is_some())
            .with_system_flag(self.controller.command_byte().system_flag())
            .with_command(self.controller.last_was_command)
            .with_unlocked(true)
            .with_auxiliary_output_full(matches!(output, Some((_, Source::Auxiliary))))
            .into()
    }

    /// A read of port 0x60, which empties the output buffer. Without a byte in it, nothing.
    pub(super) fn read_data(&mut self) -> u8 {
        self.controller.output.take().map_or(0, |(byte, _)| byte)
    }

    /// A write to port 0x60.
    pub(super) fn write_data(&mut self, value: u8) -> Request {
        let controller = &mut self.controller;
        controller.last_was_command = false;
        match std::mem::replace(&mut controller.expect, Expect::Keyboard) {
            Expect::Keyboard => {
                // Whatever is sent to a device switches its interface on.
                controller.change_command_byte(|byte| byte.with_disable_keyboard(false));
                controller.release = false;
                self.keyboard.write(value);
            }
            Expect::Auxiliary => {
                controller.change_command_byte(|byte| byte.with_disable_auxiliary(false));
                self.mouse.write(value);
            }
            Expect::Memory(address) => {
                if let Some(byte) = controller.memory.get_mut(usize::from(address)) {
                    *byte = value;
                }
            }
            Expect::OutputPort if value & 1 == 0 => return Request::Reset,
            Expect::OutputPort => return controller.move_a20(value & 2 != 0),
            Expect::Loop(source) => controller.answer(value, source),
        }
        Request::Nothing
    }

    /// A write to port 0x64 (§ "Controller Commands").
    pub(super) fn write_command(&mut self, command: u8) -> Request {
        let controller = &mut self.controller;
        controller.last_was_command = true;
        controller.expect = Expect::Keyboard;
        match command {
            0x20..0x40 => controller.reply(controller.memory[usize::from(command & 0x1f)]),
            0x60..0x80 => controller.expect = Expect::Memory(command & 0x1f),
            // There is no password.
            0xa4 => controller.reply(0xf1),
            0xa7 => controller.change_command_byte(|byte| byte.with_disable_auxiliary(true)),
            0xa8 => controller.change_command_byte(|byte| byte.with_disable_auxiliary(false)),
            // The interfaces' lines are as they should be.
            0xa9 | 0xab => controller.reply(0x00),
            0xaa => {
                controller.change_command_byte(|byte| byte.with_system_flag(true));
                controller.reply(0x55);
            }
            0xad => controller.change_command_byte(|byte| byte.with_disable_keyboard(true)),
            0xae => controller.change_command_byte(|byte| byte.with_disable_keyboard(false)),
            // Input port: the keyboard is not locked.
            0xc0 => controller.reply(0x80),
            0xd0 => controller.reply(controller.output_port()),
            0xd1 => controller.expect = Expect::OutputPort,
            0xd2 => controller.expect = Expect::Loop(Source::Keyboard),
            0xd3 => controller.expect = Expect::Loop(Source::Auxiliary),
            0xd4 => controller.expect = Expect::Auxiliary,
            0xdd => return controller.move_a20(false),
            0xdf => return controller.move_a20(true),
            // Test inputs: both clocks idle.
            0xe0 => controller.reply(0x00),
            // Pulses the lines of the output port whose bit is clear; the lowest is reset.
            0xf0..=0xff if command & 1 == 0 => return Request::Reset,
            _ => {}
        }
        Request::Nothing
    }
}

mod state {
    use std::collections::VecDeque;

    use super::{ANSWERS, Controller, Expect, I8042, LoadError, SaveState, Source};
    use crate::input::{KeyboardV1, MouseV1, keyboard::Keyboard, mouse::Mouse};

    saved_state!(Controller => ControllerV1 {
        memory: [u8; 32], output: Option<(u8, Source)>, answers: VecDeque<(u8, Source)>, expect: Expect,
        last_was_command: bool, a20: bool, release: bool,
    } if |s| s.answers.len() <= ANSWERS && !matches!(s.expect, Expect::Memory(32..)));

    /// Saved form of [`I8042`].
    #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    pub struct I8042V1 {
        /// The controller itself.
        pub controller: ControllerV1,
        /// The keyboard.
        pub keyboard: KeyboardV1,
        /// The mouse.
        pub mouse: MouseV1,
    }

    impl SaveState for I8042 {
        type State = I8042V1;

        fn save(&self) -> I8042V1 {
            let Self { controller, keyboard, mouse } = self;
            I8042V1 { controller: controller.save(), keyboard: keyboard.save(), mouse: mouse.save() }
        }

        fn load(state: I8042V1) -> Result<Self, LoadError> {
            let I8042V1 { controller, keyboard, mouse } = state;
            Ok(Self {
                controller: Controller::load(controller)?,
                keyboard: Keyboard::load(keyboard)?,
                mouse: Mouse::load(mouse)?,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(chip: &mut I8042) -> Vec<u8> {
        std::iter::from_fn(|| {
            chip.fill();
            (chip.status() & 1 != 0).then(|| chip.read_data())
        })
        .collect()
    }

    #[test]
    fn translation_makes_set_1_of_the_keyboards_set_2() {
        let mut chip = I8042::new();
        chip.keyboard.key(0x1e, true);
        chip.keyboard.key(0x1e, false);
        chip.keyboard.key(0xd3, false);
        assert_eq!(read(&mut chip), [0x1e, 0x9e, 0xe0, 0xd3]);
        chip.write_command(0x60);
        chip.write_data(0x25);
        chip.keyboard.key(0x1e, false);
        assert_eq!(read(&mut chip), [0xf0, 0x1c]);
    }

    #[test]
    fn a_disabled_device_keeps_its_bytes() {
        let mut chip = I8042::new();
        chip.write_command(0xad);
        chip.keyboard.key(0x02, true);
        assert_eq!(read(&mut chip), [0_u8; 0]);
        chip.write_command(0x20);
        assert_eq!(read(&mut chip), [0x75]);
        chip.write_command(0xae);
        assert_eq!(read(&mut chip), [0x02]);
    }

    #[test]
    fn the_status_tells_command_from_data_and_mouse_from_keyboard() {
        let mut chip = I8042::new();
        assert_eq!(chip.status(), 0x14);
        chip.write_command(0xd4);
        assert_eq!(chip.status(), 0x1c);
        chip.write_data(0xf2);
        chip.fill();
        assert_eq!(chip.status(), 0x35);
        assert_eq!(read(&mut chip), [0xfa, 0]);
    }

    #[test]
    fn interrupts_follow_the_command_byte() {
        let mut chip = I8042::new();
        chip.write_command(0xd2);
        chip.write_data(1);
        chip.fill();
        assert_eq!((chip.keyboard_interrupt(), chip.mouse_interrupt()), (true, false));
        chip.read_data();
        chip.write_command(0xd3);
        chip.write_data(1);
        chip.fill();
        assert_eq!((chip.keyboard_interrupt(), chip.mouse_interrupt()), (false, false));
        chip.write_command(0x60);
        chip.write_data(0x02);
        assert_eq!((chip.keyboard_interrupt(), chip.mouse_interrupt()), (false, true));
    }

    #[test]
    fn memory_behind_the_command_byte_is_kept() {
        let mut chip = I8042::new();
        chip.write_command(0x7f);
        chip.write_data(0xa7);
        chip.write_command(0x3f);
        assert_eq!(read(&mut chip), [0xa7]);
    }

    #[test]
    fn answers_beyond_what_the_controller_holds_are_lost() {
        let mut chip = I8042::new();
        for _ in 0..100 {
            chip.write_command(0xaa);
        }
        assert_eq!(read(&mut chip), [0x55; ANSWERS]);
    }
}
