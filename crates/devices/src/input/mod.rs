//! Input devices: keyboard and mouse behind the 8042 controller.

mod controller;
mod keyboard;
pub mod keys;
mod mouse;
mod scancode;

use std::sync::Arc;

use parking_lot::Mutex;
use rhea_core::{Device, InterruptLine, LoadError, PortIo, PortSpace, SaveState, Width, trace};

pub use controller::{ControllerV1, I8042, I8042V1};
pub use keyboard::KeyboardV1;
pub use mouse::{Buttons, MouseV1};

use crate::{Saveable, chipset::reset::Request};

type OnReset = Arc<dyn Fn() + Send + Sync>;
type OnA20 = Arc<dyn Fn(bool) + Send + Sync>;

/// The controller at its ISA ports, with a keyboard and a mouse.
#[derive(rhea_core::object::Object)]
#[object(type = "i8042", parent = "isa-device")]
pub struct Ps2 {
    chip: Mutex<I8042>,
    keyboard_line: InterruptLine,
    mouse_line: InterruptLine,
    on_reset: OnReset,
    on_a20: OnA20,
}

impl Ps2 {
    /// A controller whose keyboard interrupts on `keyboard_line` (interrupt 1) and whose mouse on `mouse_line` (12). It
    /// calls `on_reset` when the guest pulses the reset line and `on_a20` when it moves the A20 gate, from the
    /// processor's thread and without a lock.
    pub fn new(keyboard_line: InterruptLine, mouse_line: InterruptLine, on_reset: OnReset, on_a20: OnA20) -> Arc<Self> {
        Arc::new(Self { chip: Mutex::new(I8042::new()), keyboard_line, mouse_line, on_reset, on_a20 })
    }

    /// Puts the ports 0x60 and 0x64 into `ports`.
    pub fn map(self: &Arc<Self>, ports: &PortSpace) {
        ports.map(0x60, 1, Arc::new(DataPort(Arc::clone(self))));
        ports.map(0x64, 1, Arc::new(CommandPort(Arc::clone(self))));
    }

    /// Presses or releases the key with number `key`: its scan code of set 1, with bit 7 set for those with the prefix
    /// 0xe0; 0xc6 is Pause. A key for which the keyboard has no room, or that it does not have, is dropped.
    pub fn key(&self, key: u8, down: bool) {
        self.with(|chip| chip.keyboard.key(key, down));
    }

    /// Moves the mouse right, down and its wheel towards the user, and sets its buttons.
    pub fn pointer(&self, right: i32, down: i32, wheel: i32, buttons: Buttons) {
        self.with(|chip| chip.mouse.pointer(right, down, wheel, buttons));
    }

    fn with<T>(&self, change: impl FnOnce(&mut I8042) -> T) -> T {
        let mut chip = self.chip.lock();
        let result = change(&mut chip);
        // Between two bytes the lines fall, so that each is an edge.
        self.drive(&chip);
        chip.fill();
        self.drive(&chip);
        result
    }

    fn drive(&self, chip: &I8042) {
        self.keyboard_line.set(chip.keyboard_interrupt());
        self.mouse_line.set(chip.mouse_interrupt());
    }

    fn carry_out(&self, request: Request) {
        match request {
            Request::Nothing => {}
            Request::Reset => (self.on_reset)(),
            Request::A20(open) => (self.on_a20)(open),
        }
    }
}

impl Device for Ps2 {
    fn reset(&self) {
        self.with(|chip| *chip = I8042::new());
    }
}

impl Saveable for Ps2 {
    type Chip = I8042;
    const KIND: &'static str = "i8042";

    fn save(&self) -> I8042V1 {
        self.chip.lock().save()
    }

    fn restore(&self, state: I8042V1) -> Result<(), LoadError> {
        let chip = I8042::load(state)?;
        self.with(|old| *old = chip);
        Ok(())
    }
}

struct DataPort(Arc<Ps2>);

impl PortIo for DataPort {
    fn name(&self) -> &str {
        "i8042-data"
    }

    fn read(&self, _: u16, _: Width) -> u32 {
        let value = self.0.with(I8042::read_data);
        trace!(PCKBD_KBD_READ_DATA, "0x{value:02x}");
        value.into()
    }

    fn write(&self, _: u16, _: Width, value: u32) {
        trace!(PCKBD_KBD_WRITE_DATA, "0x{value:02x}");
        let request = self.0.with(|chip| chip.write_data(value as u8));
        self.0.carry_out(request);
    }
}

struct CommandPort(Arc<Ps2>);

impl PortIo for CommandPort {
    fn name(&self) -> &str {
        "i8042-cmd"
    }

    fn read(&self, _: u16, _: Width) -> u32 {
        let value = self.0.chip.lock().status();
        trace!(PCKBD_KBD_READ_STATUS, "0x{value:02x}");
        value.into()
    }

    fn write(&self, _: u16, _: Width, value: u32) {
        trace!(PCKBD_KBD_WRITE_COMMAND, "0x{value:02x}");
        let request = self.0.with(|chip| chip.write_command(value as u8));
        self.0.carry_out(request);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rhea_core::InterruptSink;

    use super::*;

    /// Counts rising edges.
    #[derive(Default)]
    struct Edges(Mutex<[(bool, u32); 2]>);

    impl InterruptSink for Edges {
        fn set_level(&self, pin: u32, level: bool) {
            let (now, edges) = &mut self.0.lock()[pin as usize];
            *edges += u32::from(level && !*now);
            *now = level;
        }
    }

    struct Bench {
        ports: PortSpace,
        device: Arc<Ps2>,
        edges: Arc<Edges>,
        log: Arc<Mutex<Vec<&'static str>>>,
    }

    fn bench() -> Bench {
        let (edges, log) = (Arc::new(Edges::default()), Arc::new(Mutex::new(Vec::new())));
        let line = |pin| InterruptLine::new(Arc::clone(&edges) as _, pin);
        let (on_reset, on_a20) = (Arc::clone(&log), Arc::clone(&log));
        let device = Ps2::new(
            line(0),
            line(1),
            Arc::new(move || on_reset.lock().push("reset")),
            Arc::new(move |open| on_a20.lock().push(if open { "open" } else { "closed" })),
        );
        let ports = PortSpace::new();
        device.map(&ports);
        Bench { ports, device, edges, log }
    }

    impl Bench {
        fn command(&self, value: u8) {
            self.ports.write(0x64, Width::Byte, value.into());
        }

        fn data(&self, value: u8) {
            self.ports.write(0x60, Width::Byte, value.into());
        }

        fn read(&self) -> Vec<u8> {
            std::iter::from_fn(|| {
                let full = self.ports.read(0x64, Width::Byte) & 1 != 0;
                full.then(|| self.ports.read(0x60, Width::Byte) as u8)
            })
            .collect()
        }
    }

    #[test]
    fn each_byte_of_a_key_is_an_edge_of_its_own() {
        let bench = bench();
        bench.device.key(0x9c, true);
        assert_eq!(bench.edges.0.lock()[0], (true, 1));
        assert_eq!(bench.read(), [0xe0, 0x1c]);
        assert_eq!(bench.edges.0.lock()[0], (false, 2));
    }

    #[test]
    fn a_probe_of_keyboard_and_mouse_is_answered_at_once() {
        let bench = bench();
        for (command, answer) in [(0xaa, 0x55), (0xab, 0), (0xa9, 0), (0x20, 0x65)] {
            bench.command(command);
            assert_eq!(bench.read(), [answer]);
        }
        bench.command(0xd3);
        bench.data(0x5a);
        assert_eq!(bench.ports.read(0x64, Width::Byte) & 0x21, 0x21);
        assert_eq!(bench.read(), [0x5a]);
        bench.data(0xf2);
        assert_eq!(bench.read(), [0xfa, 0xab, 0x41]);
        bench.command(0x60);
        bench.data(0x47);
        bench.command(0xd4);
        bench.data(0xff);
        assert!(bench.edges.0.lock()[1].0);
        assert_eq!(bench.read(), [0xfa, 0xaa, 0]);
    }

    #[test]
    fn the_guest_resets_and_moves_the_gate_through_the_output_port() {
        let bench = bench();
        bench.command(0xd0);
        assert_eq!(bench.read(), [0xc3]);
        bench.command(0xd1);
        bench.data(0xdd);
        bench.command(0xdf);
        bench.command(0xfe);
        bench.command(0xff);
        bench.command(0xd1);
        bench.data(0x02);
        assert_eq!(*bench.log.lock(), ["closed", "open", "reset", "reset"]);
    }

    #[test]
    fn a_saved_controller_goes_on_with_the_bytes_it_had() {
        let bench = bench();
        bench.device.key(0xc6, true);
        let state = bench.device.save();
        bench.device.reset();
        assert!(bench.read().is_empty());
        bench.device.restore(state).unwrap();
        assert_eq!(bench.read(), [0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5]);
    }

    proptest! {
        #[test]
        fn any_access_is_harmless(ops in prop::collection::vec((0u8..6, any::<u8>(), any::<i32>()), 0..300)) {
            let bench = bench();
            for (op, value, amount) in ops {
                match op {
                    0 => bench.command(value),
                    1 => bench.data(value),
                    2 => { bench.ports.read(0x60, Width::Byte); }
                    3 => bench.device.key(value, amount & 1 != 0),
                    4 => bench.device.pointer(amount, amount.rotate_left(9), amount.rotate_left(20), value.into()),
                    _ => {
                        bench.command(0xd4);
                        bench.data(value | 0xe0);
                    }
                }
                let state = bench.device.save();
                prop_assert_eq!(I8042::load(state.clone()).unwrap().save(), state);
            }
            // Everything that is queued comes to an end.
            bench.command(0xad);
            bench.command(0xa7);
            prop_assert!(bench.read().len() <= 20);
        }
    }
}
