//! The console device: serial ports for guests, each two queues, and a control queue by which both sides tell of them.
//!
//! Source: VIRTIO 1.2 §5.3 (cited as §).

use std::{
    collections::VecDeque,
    fmt,
    io::{Read as _, Write as _},
    sync::{Arc, OnceLock},
};

use parking_lot::{Mutex, RwLock};
use rhea_core::LoadError;

use super::{DeviceType, DeviceV1, Link, Outcome, VirtioDevice, Virtqueue};
use crate::char::CharSink;

/// Feature bits (§5.3.3).
const MULTIPORT: u64 = 1 << 1;

/// Control events (§5.3.6.2).
const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_REMOVE: u16 = 2;
const PORT_READY: u16 = 3;
const CONSOLE_PORT: u16 = 4;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

/// Queues: input and output of port 0, control in both directions, then the other ports.
const CONTROL_IN: usize = 2;
const CONTROL_OUT: usize = 3;
/// Entries of a queue.
const QUEUE: u16 = 128;
/// Input that waits for the guest at the most, in bytes and in control messages.
const INPUT_LIMIT: usize = 4096;
const CONTROL_LIMIT: usize = 1024;
/// What is taken from the guest at once.
const CHUNK: usize = 4096;
/// Most ports: with port 0, 31 of them as QEMU has it.
pub const MOST_PORTS: u32 = 31;

/// A port as it is asked for.
#[derive(Clone)]
pub struct PortOptions {
    /// Its number; 0 is for the first console.
    pub number: u32,
    /// What the guest finds it by.
    pub name: Option<String>,
    /// Whether it is a terminal.
    pub console: bool,
    /// Where its output goes.
    pub output: Arc<dyn CharSink>,
}

impl fmt::Debug for PortOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PortOptions({}, {:?})", self.number, self.name)
    }
}

/// Called when a port has room again.
type OnRoom = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct PortState {
    input: VecDeque<u8>,
    /// A program in the guest has the port open.
    guest_open: bool,
    on_room: Option<OnRoom>,
}

struct Port {
    options: PortOptions,
    state: Mutex<PortState>,
    /// Held while something goes out.
    removed: Mutex<bool>,
}

#[derive(Default)]
struct Control {
    /// Messages for the driver.
    messages: VecDeque<Vec<u8>>,
    /// The driver wants to hear of ports.
    ready: bool,
    /// The driver is one that knows port 0 only, and has it open.
    single: bool,
}

/// The device.
pub struct Console {
    ports: RwLock<Vec<Arc<Port>>>,
    most_ports: u32,
    control: Mutex<Control>,
    link: OnceLock<Link>,
}

/// The queues of port `number`: what the guest receives, what it sends.
const fn queues_of(number: u32) -> (usize, usize) {
    match number {
        0 => (0, 1),
        number => (2 + 2 * number as usize, 3 + 2 * number as usize),
    }
}

impl Console {
    /// A device with room for ports 0 to `most_ports` less one.
    pub fn new(most_ports: u32) -> Arc<Self> {
        let most_ports = most_ports.clamp(1, MOST_PORTS);
        Arc::new(Self { ports: RwLock::default(), most_ports, control: Mutex::default(), link: OnceLock::new() })
    }

    /// Adds a port, and tells the driver; `false` if there is one of its number, or no room for it.
    pub fn add_port(&self, options: PortOptions) -> bool {
        let number = options.number;
        let (ready, single) = {
            let control = self.control.lock();
            (control.ready, control.single)
        };
        {
            let mut ports = self.ports.write();
            if number >= self.most_ports || ports.iter().any(|port| port.options.number == number) {
                return false;
            }
            let state = PortState { guest_open: single && number == 0, ..PortState::default() };
            ports.push(Arc::new(Port { options, state: Mutex::new(state), removed: Mutex::new(false) }));
        }
        if ready {
            self.tell(number, PORT_ADD, 1, &[]);
        }
        true
    }

    /// Takes a port away, and tells the driver. What the guest still sends is lost.
    pub fn remove_port(&self, number: u32) {
        let port = {
            let mut ports = self.ports.write();
            let at = ports.iter().position(|port| port.options.number == number);
            at.map(|at| ports.remove(at))
        };
        let Some(port) = port else { return };
        *port.removed.lock() = true;
        port.state.lock().on_room = None;
        let ready = self.control.lock().ready;
        if ready {
            self.tell(number, PORT_REMOVE, 1, &[]);
        }
    }

    fn port(&self, number: u32) -> Option<Arc<Port>> {
        self.ports.read().iter().find(|port| port.options.number == number).cloned()
    }

    fn all_ports(&self) -> Vec<Arc<Port>> {
        self.ports.read().clone()
    }

    /// Bytes for the guest on port `number`, as many as there is room for: how many that were. A port that nobody in the
    /// guest has open takes none, unless it is a terminal.
    pub fn receive(&self, number: u32, bytes: &[u8]) -> usize {
        let Some(port) = self.port(number) else { return bytes.len() };
        let mut state = port.state.lock();
        if !state.guest_open && !port.options.console {
            return 0;
        }
        let taken = bytes.len().min(INPUT_LIMIT - state.input.len().min(INPUT_LIMIT));
        state.input.extend(&bytes[..taken]);
        drop(state);
        self.ask(queues_of(number).0);
        taken
    }

    /// Whom to tell when port `number` has room again.
    pub fn on_room(&self, number: u32, wake: OnRoom) {
        if let Some(port) = self.port(number) {
            port.state.lock().on_room = Some(wake);
        }
    }

    fn ask(&self, queue: usize) {
        if let Some(link) = self.link.get() {
            link.serve(queue);
        }
    }

    /// Tells the driver something about a port.
    fn tell(&self, number: u32, event: u16, value: u16, text: &[u8]) {
        let mut message = Vec::with_capacity(8 + text.len());
        message.extend(number.to_le_bytes());
        message.extend(event.to_le_bytes());
        message.extend(value.to_le_bytes());
        message.extend(text);
        let mut control = self.control.lock();
        // A driver that asks and does not listen hears no more.
        if control.messages.len() < CONTROL_LIMIT {
            control.messages.push_back(message);
        }
        drop(control);
        self.ask(CONTROL_IN);
    }

    /// A message of the driver.
    fn hear(&self, number: u32, event: u16, value: u16) {
        match (event, value) {
            (DEVICE_READY, 1) => {
                self.control.lock().ready = true;
                for port in self.all_ports() {
                    self.tell(port.options.number, PORT_ADD, 1, &[]);
                }
            }
            (PORT_READY, 1) => {
                let Some(port) = self.port(number) else { return };
                if port.options.console {
                    self.tell(number, CONSOLE_PORT, 1, &[]);
                }
                if let Some(name) = &port.options.name {
                    self.tell(number, PORT_NAME, 1, name.as_bytes());
                }
                self.tell(number, PORT_OPEN, 1, &[]);
            }
            (PORT_OPEN, value) => {
                let Some(port) = self.port(number) else { return };
                let mut state = port.state.lock();
                state.guest_open = value != 0;
                if let Some(wake) = &state.on_room {
                    wake();
                }
            }
            _ => {}
        }
    }

    fn serve_control_in(&self, queue: &Virtqueue) {
        queue.serve(|buffers| {
            let Some(message) = self.control.lock().messages.pop_front() else { return Outcome::NotNow };
            // What is longer than the driver's buffer is cut, as it is everywhere.
            let length = message.len().min(buffers.writer.available_bytes());
            let _ = buffers.writer.write_all(&message[..length]);
            Outcome::Done
        });
    }

    fn serve_control_out(&self, queue: &Virtqueue) {
        queue.serve(|buffers| {
            let mut message = [0; 8];
            if buffers.reader.read_exact(&mut message).is_ok() {
                let [n0, n1, n2, n3, e0, e1, v0, v1] = message;
                let number = u32::from_le_bytes([n0, n1, n2, n3]);
                self.hear(number, u16::from_le_bytes([e0, e1]), u16::from_le_bytes([v0, v1]));
            }
            Outcome::Done
        });
    }

    fn serve_input(&self, port: &Port, queue: &Virtqueue) {
        queue.serve(|buffers| {
            let mut state = port.state.lock();
            let length = state.input.len().min(buffers.writer.available_bytes());
            if state.input.is_empty() {
                return Outcome::NotNow;
            }
            let bytes: Vec<u8> = state.input.drain(..length).collect();
            let _ = buffers.writer.write_all(&bytes);
            if let Some(wake) = &state.on_room {
                wake();
            }
            Outcome::Done
        });
    }

    fn serve_output(port: &Port, queue: &Virtqueue) {
        queue.serve(|buffers| {
            let mut bytes = [0; CHUNK];
            while let Ok(count @ 1..) = buffers.reader.read(&mut bytes) {
                let removed = port.removed.lock();
                if !*removed {
                    port.options.output.write(&bytes[..count]);
                }
            }
            Outcome::Done
        });
    }
}

/// Saved form of a port.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PortV1 {
    number: u32,
    input: Vec<u8>,
    guest_open: bool,
}

/// Saved form of [`Console`]: what its ports stand on is not part of it.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ConsoleV1 {
    messages: Vec<Vec<u8>>,
    ready: bool,
    single: bool,
    ports: Vec<PortV1>,
}

impl VirtioDevice for Console {
    fn device_type(&self) -> DeviceType {
        DeviceType { name: "virtio-serial-pci", id: 3, transitional: 0x1003, class: 0x07_8000 }
    }

    fn queues(&self) -> Vec<u16> {
        vec![QUEUE; 2 + 2 * self.most_ports as usize]
    }

    fn features(&self) -> u64 {
        MULTIPORT
    }

    fn config_size(&self) -> usize {
        12
    }

    /// Columns and rows, which are not known, and the most ports.
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let mut config = [0; 12];
        config[4..8].copy_from_slice(&self.most_ports.to_le_bytes());
        for (to, from) in data.iter_mut().zip(config.into_iter().skip(offset)) {
            *to = from;
        }
    }

    fn attach(&self, link: Link) {
        let _ = self.link.set(link);
    }

    fn activate(&self, features: u64) {
        let single = features & MULTIPORT == 0;
        self.control.lock().single = single;
        // A driver that knows one port only has it open.
        if single && let Some(port) = self.port(0) {
            port.state.lock().guest_open = true;
        }
    }

    fn reset(&self) {
        *self.control.lock() = Control::default();
        for port in self.all_ports() {
            let mut state = port.state.lock();
            state.guest_open = false;
            state.input.clear();
            if let Some(wake) = &state.on_room {
                wake();
            }
        }
    }

    fn save(&self) -> DeviceV1 {
        let Self { ports, most_ports: _, control, link: _ } = self;
        let Control { messages, ready, single } = &*control.lock();
        let ports = ports.read();
        let ports = ports.iter().map(|port| {
            let PortState { input, guest_open, on_room: _ } = &*port.state.lock();
            PortV1 { number: port.options.number, input: input.iter().copied().collect(), guest_open: *guest_open }
        });
        DeviceV1::Console(ConsoleV1 {
            messages: messages.iter().cloned().collect(),
            ready: *ready,
            single: *single,
            ports: ports.collect(),
        })
    }

    fn restore(&self, state: &DeviceV1) -> Result<(), LoadError> {
        let invalid = |reason| Err(LoadError::invalid("Console", reason));
        let DeviceV1::Console(ConsoleV1 { messages, ready, single, ports }) = state.clone() else {
            return invalid("the state of another device");
        };
        let own = self.all_ports();
        let same = ports.iter().map(|port| port.number).eq(own.iter().map(|port| port.options.number));
        if !same || messages.len() > CONTROL_LIMIT || ports.iter().any(|port| port.input.len() > INPUT_LIMIT) {
            return invalid("other ports, or more than fits");
        }
        *self.control.lock() = Control { messages: messages.into(), ready, single };
        for (port, PortV1 { number: _, input, guest_open }) in own.iter().zip(ports) {
            let mut state = port.state.lock();
            (state.input, state.guest_open) = (input.into(), guest_open);
        }
        Ok(())
    }

    fn serve(&self, index: usize, queue: &Virtqueue) {
        match index {
            CONTROL_IN => self.serve_control_in(queue),
            CONTROL_OUT => self.serve_control_out(queue),
            _ => {
                for port in self.all_ports() {
                    match queues_of(port.options.number) {
                        (input, _) if input == index => self.serve_input(&port, queue),
                        (_, output) if output == index => Self::serve_output(&port, queue),
                        _ => {}
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rhea_core::Width;

    use super::{
        super::queue::tests::{DATA, Driver},
        *,
    };

    #[derive(Default)]
    struct Heard(Mutex<Vec<u8>>);

    impl CharSink for Heard {
        fn write(&self, bytes: &[u8]) {
            self.0.lock().extend(bytes);
        }
    }

    fn console() -> (Arc<Console>, Arc<Heard>) {
        let heard = Arc::<Heard>::default();
        let port = |number, console: bool| PortOptions {
            number,
            name: (!console).then(|| "org.test".to_owned()),
            console,
            output: Arc::clone(&heard) as _,
        };
        let console = Console::new(4);
        let added = [port(0, true), port(2, false), port(2, false), port(9, false)].map(|port| console.add_port(port));
        assert_eq!(added, [true, true, false, false]);
        (console, heard)
    }

    fn hear(console: &Console, driver: &mut Driver, queue: &Virtqueue, message: [u8; 8]) {
        driver.space.write(DATA, &message);
        driver.offer(&[(DATA, 8, false)]);
        console.serve(CONTROL_OUT, queue);
    }

    #[test]
    fn ports_are_told_of_and_named_when_the_driver_is_ready_for_them() {
        let (console, _) = console();
        let mut driver = Driver::new();
        let queue = driver.queue();
        hear(&console, &mut driver, &queue, [0, 0, 0, 0, 0, 0, 1, 0]);
        hear(&console, &mut driver, &queue, [2, 0, 0, 0, 3, 0, 1, 0]);
        // Of a port that there is not nothing is said.
        hear(&console, &mut driver, &queue, [7, 0, 0, 0, 3, 0, 1, 0]);
        let mut driver = Driver::new();
        let queue = driver.queue();
        let mut said = Vec::new();
        for _ in 0..4 {
            driver.offer(&[(DATA, 64, true)]);
            console.serve(CONTROL_IN, &queue);
            let mut bytes = vec![0; driver.used().1 as usize];
            driver.space.read(DATA, &mut bytes);
            said.push(bytes);
        }
        let named = [&[2, 0, 0, 0, 7, 0, 1, 0][..], b"org.test"].concat();
        let expected =
            [vec![0, 0, 0, 0, 1, 0, 1, 0], vec![2, 0, 0, 0, 1, 0, 1, 0], named, vec![2, 0, 0, 0, 6, 0, 1, 0]];
        assert_eq!(said, expected);
        driver.offer(&[(DATA, 64, true)]);
        console.serve(CONTROL_IN, &queue);
        assert_eq!(driver.used().0, 4);
    }

    #[test]
    fn input_waits_for_buffers_and_only_for_ports_that_are_open() {
        let (console, heard) = console();
        let mut driver = Driver::new();
        let queue = driver.queue();
        assert_eq!(console.receive(2, b"early"), 0);
        hear(&console, &mut driver, &queue, [2, 0, 0, 0, 6, 0, 1, 0]);
        assert_eq!(console.receive(2, b"hello"), 5);
        assert_eq!(console.receive(2, &[0; 5000]), INPUT_LIMIT - 5);
        assert_eq!(console.receive(2, b"x"), 0);
        driver.offer(&[(DATA, 4, true)]);
        console.serve(queues_of(2).0, &queue);
        assert_eq!(driver.space.read_value(DATA, Width::Dword), u64::from(u32::from_le_bytes(*b"hell")));
        assert_eq!(console.receive(2, &[0; 9]), 4);
        driver.space.write(DATA, b"out");
        driver.offer(&[(DATA, 3, false)]);
        console.serve(queues_of(2).1, &queue);
        assert_eq!(heard.0.lock().as_slice(), b"out");
        let (state, other) = (console.save(), self::console().0);
        other.restore(&state).unwrap();
        assert_eq!(other.save(), state);
        assert!(Console::new(4).restore(&state).is_err());
        console.reset();
        assert_eq!(console.receive(2, b"late"), 0);
        assert_eq!(console.save(), self::console().0.save());
    }

    #[test]
    fn a_port_that_comes_or_goes_later_is_told_to_a_driver_that_listens() {
        let (console, heard) = console();
        let output = Arc::clone(&heard) as Arc<dyn CharSink>;
        let late = |number| PortOptions { number, name: None, console: false, output: Arc::clone(&output) };
        assert!(console.add_port(late(1)));
        console.remove_port(1);
        assert!(console.control.lock().messages.is_empty());
        console.hear(0, DEVICE_READY, 1);
        console.control.lock().messages.clear();
        assert!(console.add_port(late(1)));
        console.remove_port(1);
        console.remove_port(3);
        assert_eq!(console.control.lock().messages, [vec![1, 0, 0, 0, 1, 0, 1, 0], vec![1, 0, 0, 0, 2, 0, 1, 0]]);
        // One end less than ours and the two of the ports that stayed.
        assert_eq!(Arc::strong_count(&heard), 4);
        assert_eq!(console.receive(1, b"gone"), 4);
    }
}
