//! Drivers in a few lines, against a function on its own.

use std::io::Read as _;

use proptest::prelude::*;
use rhea_core::{Gate, InterruptSink, Ram};

use super::{
    super::{DeviceType, Outcome},
    *,
};

/// Answers each chain, and has four bytes of configuration.
struct Echo {
    config: Mutex<[u8; 4]>,
    served: Mutex<Vec<u8>>,
}

impl VirtioDevice for Echo {
    fn device_type(&self) -> DeviceType {
        DeviceType { name: "virtio-test-pci", id: 42, transitional: 0x1042, class: 0xff_0000 }
    }

    fn queues(&self) -> Vec<u16> {
        vec![8, 8]
    }

    fn features(&self) -> u64 {
        2
    }

    fn config_size(&self) -> usize {
        4
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        for (to, from) in data.iter_mut().zip(self.config.lock().into_iter().skip(offset)) {
            *to = from;
        }
    }

    fn write_config(&self, offset: usize, data: &[u8]) {
        for (to, from) in self.config.lock().iter_mut().skip(offset).zip(data) {
            *to = *from;
        }
    }

    fn serve(&self, _: usize, queue: &Virtqueue) {
        queue.serve(|buffers| {
            let _ = buffers.reader.read_to_end(&mut self.served.lock());
            Outcome::Done
        });
    }
}

#[derive(Default)]
struct Wires {
    level: Mutex<bool>,
    messages: Mutex<Vec<Message>>,
}

impl InterruptSink for Wires {
    fn set_level(&self, _: u32, level: bool) {
        *self.level.lock() = level;
    }
}

impl MessageSink for Wires {
    fn send(&self, message: Message) {
        self.messages.lock().push(message);
    }
}

struct Bench {
    memory: Arc<AddressSpace>,
    ports: Arc<PortSpace>,
    function: Arc<VirtioPci>,
    device: Arc<Echo>,
    wires: Arc<Wires>,
    gate: Arc<Gate>,
}

const WINDOW: u64 = 0xe000_0000;
const VECTORS: u64 = 0xe001_0000;
const PORT: u16 = 0xc000;

fn bench(interface: Interface) -> Bench {
    let (memory, ports) = (Arc::new(AddressSpace::new()), Arc::new(PortSpace::new()));
    let ram = Ram::new("test", 0x1_0000).unwrap();
    memory.map(0, 0x1_0000, 0, Target::Ram { ram, offset: 0, writable: true });
    let wires = Arc::<Wires>::default();
    let gate = Gate::new();
    let device = Arc::new(Echo { config: Mutex::new([1, 2, 3, 4]), served: Mutex::default() });
    let wiring = Wiring {
        memory: Arc::clone(&memory),
        ports: Arc::clone(&ports),
        dma: Dma::new(Arc::clone(&memory)),
        line: InterruptLine::new(Arc::clone(&wires) as _, 0),
        messages: Arc::clone(&wires) as _,
        worker: Worker::start("test").unwrap(),
        gate: Arc::clone(&gate),
    };
    let function = VirtioPci::new(Arc::clone(&device) as _, interface, None, wiring);
    function.write_config(0x10, Width::Dword, PORT.into());
    function.write_config(0x14, Width::Dword, VECTORS as u32);
    function.write_config(0x20, Width::Dword, WINDOW as u32);
    function.write_config(4, Width::Word, 7);
    Bench { memory, ports, function, device, wires, gate }
}

impl Bench {
    fn write(&self, offset: u64, width: Width, value: u64) {
        self.memory.write_value(WINDOW + offset, width, value);
    }

    fn read(&self, offset: u64, width: Width) -> u64 {
        self.memory.read_value(WINDOW + offset, width)
    }

    fn agree(&self) {
        self.write(0x14, Width::Byte, 3);
        for (half, features) in [(0, 2), (1, 1)] {
            self.write(8, Width::Dword, half);
            self.write(12, Width::Dword, features);
        }
        self.write(0x14, Width::Byte, 0xb);
        assert_eq!(self.read(0x14, Width::Byte), 0xb);
    }

    fn set_up_queue(&self, queue: u64) {
        self.write(0x16, Width::Word, queue);
        let base = 0x1000 + 0x3000 * queue;
        for (register, address) in [(0x20, base), (0x28, base + 0x1000), (0x30, base + 0x2000)] {
            self.write(register, Width::Dword, address);
            self.write(register + 4, Width::Dword, 0);
        }
        self.write(0x1c, Width::Word, 1);
    }

    /// One buffer with `text` in queue 0 whose rings are where the arguments say.
    fn offer(&self, count: u64, descriptors: u64, available: u64, text: &[u8]) {
        self.memory.write(0x8000, text);
        self.memory.write_value(descriptors, Width::Qword, 0x8000);
        self.memory.write_value(descriptors + 8, Width::Qword, text.len() as u64);
        self.memory.write_value(available + 2, Width::Word, count);
    }

    /// Waits until the worker has done what it was asked for.
    fn settle(&self, served: usize) {
        while self.device.served.lock().len() < served {
            std::thread::yield_now();
        }
        self.gate.close();
        self.gate.open();
    }
}

#[test]
fn a_modern_driver_is_served_and_interrupted_by_message_or_pin() {
    let bench = bench(Interface::Modern);
    assert_eq!(bench.function.read_config(0, Width::Dword), 0x106a_1af4);
    bench.agree();
    bench.set_up_queue(0);
    bench.write(0x14, Width::Byte, 0xf);
    bench.offer(1, 0x1000, 0x2000, b"ping");
    bench.write(0x3000, Width::Word, 0);
    bench.settle(4);
    assert_eq!(bench.device.served.lock().as_slice(), b"ping");
    assert!(*bench.wires.level.lock());
    assert_eq!((bench.read(0x1000, Width::Byte), bench.read(0x1000, Width::Byte)), (1, 0));
    assert!(!*bench.wires.level.lock());
    // Vector 1 for the queue.
    bench.write(0x1a, Width::Word, 1);
    for (offset, value) in [(16, 0xfee0_0000), (24, 0x41), (28, 0)] {
        bench.memory.write_value(VECTORS + offset, Width::Dword, value);
    }
    bench.function.write_config(0x42, Width::Word, 0x8000);
    bench.offer(2, 0x1000, 0x2000, b"pong");
    bench.write(0x3000, Width::Word, 0);
    bench.settle(8);
    assert_eq!(*bench.wires.messages.lock(), [Message { address: 0xfee0_0000, data: 0x41 }]);
    assert!(!*bench.wires.level.lock());
}

#[test]
fn a_legacy_driver_is_served_through_ports() {
    let bench = bench(Interface::Transitional);
    assert_eq!(bench.function.read_config(0, Width::Dword), 0x1042_1af4);
    let ports = &bench.ports;
    assert_eq!(ports.read(PORT, Width::Dword) & 2, 2);
    ports.write(PORT + 4, Width::Dword, 2);
    assert_eq!(ports.read(PORT + 0xc, Width::Word), 8);
    ports.write(PORT + 8, Width::Dword, 1);
    ports.write(PORT + 0x12, Width::Byte, 7);
    assert_eq!(ports.read(PORT + 0x14, Width::Dword), 0x0403_0201);
    // The available ring follows eight descriptors.
    bench.offer(1, 0x1000, 0x1080, b"old");
    ports.write(PORT + 0x10, Width::Word, 0);
    bench.settle(3);
    assert_eq!(bench.device.served.lock().as_slice(), b"old");
    assert_eq!(bench.memory.read_value(0x2002, Width::Word), 1);
    assert_eq!(ports.read(PORT + 0x13, Width::Byte), 1);
    ports.write(PORT + 0x12, Width::Byte, 0);
    assert_eq!(ports.read(PORT + 8, Width::Dword), 0);
}

#[test]
fn the_configuration_space_reaches_the_windows() {
    let bench = bench(Interface::Modern);
    let function = &bench.function;
    let mut at = function.read_config(0x34, Width::Byte) as u8;
    let access = loop {
        let head = function.read_config(at, Width::Dword);
        if head & 0xff == 9 && head >> 24 == 5 {
            break at;
        }
        at = (head >> 8) as u8;
        assert_ne!(at, 0, "there is no such capability");
    };
    function.write_config(access + 4, Width::Byte, 4);
    function.write_config(access + 8, Width::Dword, 0x2000);
    function.write_config(access + 12, Width::Dword, 4);
    assert_eq!(function.read_config(access + 16, Width::Dword), 0x0403_0201);
    function.write_config(access + 16, Width::Dword, 0x0807_0605);
    assert_eq!(*bench.device.config.lock(), [5, 6, 7, 8]);
}

#[test]
fn a_broken_queue_needs_a_reset_and_a_reset_equals_new() {
    let (bench, other) = (bench(Interface::Transitional), bench(Interface::Transitional));
    bench.agree();
    bench.set_up_queue(1);
    bench.write(0x14, Width::Byte, 0xf);
    bench.memory.write_value(0x5002, Width::Word, 100);
    bench.write(0x3004, Width::Word, 1);
    while bench.read(0x14, Width::Byte) & 0x40 == 0 {
        std::thread::yield_now();
    }
    bench.settle(0);
    bench.write(0x14, Width::Byte, 0);
    assert_eq!(bench.read(0x14, Width::Byte), 0);
    let before = bench.function.save();
    assert_eq!(before, other.function.save());
    bench.agree();
    bench.function.restore(before.clone()).unwrap();
    assert_eq!(bench.function.save(), before);
    bench.function.reset();
    other.function.reset();
    assert_eq!(bench.function.save(), other.function.save());
    assert!(bench.memory.view().find(WINDOW).is_none());
}

#[test]
fn what_broke_before_a_reset_is_not_told_after_it() {
    let (bench, other) = (bench(Interface::Transitional), bench(Interface::Transitional));
    let events = Events(Arc::downgrade(&bench.function));
    bench.agree();
    bench.set_up_queue(1);
    bench.write(0x14, Width::Byte, 0xf);
    bench.write(0x14, Width::Byte, 0);
    // Its worker found the error before the reset, and comes to tell only now.
    events.broken(1);
    assert_eq!(bench.function.save(), other.function.save());
    assert!(!*bench.wires.level.lock());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_access_is_harmless(ops in prop::collection::vec((0u8..4, any::<u16>(), 0u32..4, any::<u64>()), 0..200)) {
        let (bench, fresh) = (bench(Interface::Transitional), bench(Interface::Transitional));
        for (space, offset, width, value) in ops {
            let width = Width::of(1 << width).unwrap();
            let narrow = width.min(Width::Dword);
            let offset = offset & !(width.bytes() as u16 - 1);
            match space {
                0 => {
                    bench.write((offset % 0x40).into(), width, value);
                    bench.read((offset % 0x4000).into(), width);
                }
                1 => {
                    bench.ports.write(PORT + offset % 0x20, narrow, value as u32);
                    bench.ports.read(PORT + offset % 0x20, narrow);
                }
                2 => bench.write((offset % 0x4000).into(), width, value),
                // Not where the windows are, which would move them.
                _ => bench.function.write_config((offset % 0xc0) as u8 + 0x40, narrow, value as u32),
            }
        }
        bench.function.reset();
        fresh.function.reset();
        prop_assert_eq!(bench.function.save(), fresh.function.save());
    }
}
