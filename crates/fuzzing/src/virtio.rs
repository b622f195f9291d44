//! Virtio devices, whose driver breaks rules in its registers and in the rings that it keeps in memory.

use std::{
    fmt, io,
    sync::{Arc, mpsc},
};

use parking_lot::Mutex;
use rhea_core::{BlockMedium, Device, Dma, Gate, LoadError, RandomSource, Width};
use rhea_devices::{
    char::CharSink,
    chipset::pci::PciFunction,
    virtio::{
        Interface, VirtioDevice, VirtioPci, VirtioPciV1, Wiring, Worker,
        balloon::Balloon,
        block::{Block, BlockOptions},
        console::{Console, PortOptions},
        rng::Rng,
    },
};

use crate::{
    bench::{Bench, RAM},
    bytes::Bytes,
    subject::Subject,
};

/// Where the windows are put.
const MODERN: u64 = 0xe000_0000;
const VECTORS: u64 = 0xe001_0000;
const LEGACY: u16 = 0xc000;
/// Offsets in the modern window (VIRTIO 1.2 §4.1.4).
const DRIVER_FEATURE_SELECT: u64 = 8;
const DRIVER_FEATURE: u64 = 12;
const STATUS: u64 = 20;
const QUEUE_SELECT: u64 = 22;
const QUEUE_SIZE: u64 = 24;
const QUEUE_ENABLE: u64 = 28;
const QUEUE_RINGS: u64 = 32;
const NOTIFY: u64 = 0x3000;
/// Queues that the driver sets up, and their entries.
const QUEUES: u64 = 6;
const ENTRIES: u16 = 16;
/// Bytes of memory that belong to the rings of a queue; the rest of RAM is for buffers.
const RINGS: u64 = 0x1000;
const AVAILABLE: u64 = 0x400;
const USED: u64 = 0x800;
const BUFFERS: u64 = 0x1_0000;

/// A function, with the thread that serves it.
struct Function {
    pci: Arc<VirtioPci>,
    worker: Arc<Worker>,
}

impl Function {
    fn new(bench: &Bench, device: Arc<dyn VirtioDevice>) -> Self {
        let worker = Worker::start("fuzzing").expect("a thread");
        let wiring = Wiring {
            memory: Arc::clone(&bench.memory),
            ports: Arc::clone(&bench.ports),
            dma: Dma::new(Arc::clone(&bench.memory)),
            line: bench.line(0),
            messages: Arc::clone(&bench.ends) as _,
            worker: Arc::clone(&worker),
            gate: Gate::new(),
        };
        let interface = [Interface::Transitional, Interface::Modern, Interface::Legacy][usize::from(bench.variant) % 3];
        let vectors = (bench.variant & 0x80 != 0).then_some(u16::from(bench.variant & 3));
        Self { pci: VirtioPci::new(device, interface, vectors, wiring), worker }
    }

    /// Waits until all that was asked of the thread is done.
    fn settle(&self) {
        let (sender, receiver) = mpsc::channel();
        let last = Worker::task(move || sender.send(()).unwrap_or_default());
        self.worker.ask(&last);
        receiver.recv().expect("the thread lives");
    }

    fn save(&self) -> VirtioPciV1 {
        // A function that was put back looks at all of its queues: so that this changes nothing, it does so before.
        self.pci.notify_all();
        self.settle();
        self.pci.save()
    }

    fn restore(&self, state: VirtioPciV1) -> Result<(), LoadError> {
        self.settle();
        self.pci.restore(state)
    }

    fn reset(&self) {
        self.settle();
        self.pci.reset();
    }

    fn driver(&self, bench: &Bench, bytes: &mut Bytes<'_>) {
        match bytes.byte() % 8 {
            0 => self.place(),
            1 => self.set_up(bench, bytes),
            2 => {
                let width = bytes.pick(&[Width::Byte, Width::Word, Width::Dword]);
                let offset = bytes.byte() & !(width.bytes() as u8 - 1);
                self.pci.write_config(offset, width, bytes.value() as u32);
                self.pci.read_config(offset, width);
            }
            _ => self.fill(bench, bytes),
        }
    }

    /// Puts the windows where they are looked for.
    fn place(&self) {
        for (register, value) in
            [(0x10, u32::from(LEGACY)), (0x14, VECTORS as u32), (0x20, MODERN as u32), (0x24, 0), (4, 7)]
        {
            self.pci.write_config(register, Width::Dword, value);
        }
    }

    /// Sets all up as a driver that keeps the rules.
    fn set_up(&self, bench: &Bench, bytes: &mut Bytes<'_>) {
        self.place();
        let write = |offset, width, value| bench.memory.write_value(MODERN + offset, width, value);
        write(STATUS, Width::Byte, 0);
        write(STATUS, Width::Byte, 3);
        for half in 0..2 {
            write(DRIVER_FEATURE_SELECT, Width::Dword, half);
            // All that is offered; sometimes not.
            bench.memory.write_value(MODERN, Width::Dword, half);
            let offered = bench.memory.read_value(MODERN + 4, Width::Dword);
            write(DRIVER_FEATURE, Width::Dword, if bytes.byte() & 7 == 0 { bytes.value() } else { offered });
        }
        write(STATUS, Width::Byte, 0xb);
        for queue in 0..QUEUES {
            let rings = queue * RINGS;
            bench.memory.write(rings, &[0; RINGS as usize]);
            write(QUEUE_SELECT, Width::Word, queue);
            write(QUEUE_SIZE, Width::Word, ENTRIES.into());
            for (register, ring) in [(0, 0), (8, AVAILABLE), (16, USED)] {
                write(QUEUE_RINGS + register, Width::Dword, rings + ring);
                write(QUEUE_RINGS + register + 4, Width::Dword, 0);
            }
            write(QUEUE_ENABLE, Width::Word, 1);
        }
        write(STATUS, Width::Byte, 0xf);
    }

    /// Makes a chain of descriptors, good or bad, and has it served.
    fn fill(&self, bench: &Bench, bytes: &mut Bytes<'_>) {
        let queue = bytes.below(QUEUES);
        let rings = queue * RINGS;
        let head = u16::from(bytes.byte()) % ENTRIES;
        let length = u16::from(bytes.byte() % 4);
        for number in 0..=length {
            let at = rings + u64::from((head + number) % ENTRIES) * 16;
            let sane = bytes.byte() & 7 != 0;
            let address = if sane { BUFFERS + bytes.below(RAM - BUFFERS) } else { bytes.value() };
            let size = if sane { u32::from(bytes.byte()) * 4 } else { bytes.value() as u32 };
            let next = if number < length { 1 } else { 0 };
            let flags = if sane { next | u16::from(bytes.byte() & 1) << 1 } else { bytes.byte().into() };
            bench.memory.write(at, &address.to_le_bytes());
            bench.memory.write(at + 8, &size.to_le_bytes());
            bench.memory.write(at + 12, &flags.to_le_bytes());
            bench.memory.write(at + 14, &((head + number + 1) % ENTRIES).to_le_bytes());
            if sane && number == 0 {
                // A request of a disk, or a message of a console.
                bench.memory.write(address, &u32::from(bytes.byte() % 16).to_le_bytes());
                bench.memory.write(address + 4, &u32::from(bytes.byte() % 10).to_le_bytes());
                bench.memory.write(address + 8, &bytes.value().to_le_bytes());
            }
        }
        let mut index = [0; 2];
        bench.memory.read(rings + AVAILABLE + 2, &mut index);
        let index = u16::from_le_bytes(index);
        bench.memory.write(rings + AVAILABLE + 4 + u64::from(index % ENTRIES) * 2, &head.to_le_bytes());
        let step = if bytes.byte() & 31 == 0 { bytes.byte().into() } else { 1 };
        bench.memory.write(rings + AVAILABLE + 2, &index.wrapping_add(step).to_le_bytes());
        bench.memory.write_value(MODERN + NOTIFY + queue * 4, Width::Word, queue);
        self.settle();
    }
}

/// A virtio device as a subject: `$name` over a `$device` made by `$make`, which may be told or given `$other`,
/// which is kept by a reset if `$keeps`.
macro_rules! function {
    ($name:ident, $device:ty, $keeps:expr, $make:expr, $other:expr) => {
        pub(crate) struct $name(Function, Arc<$device>);

        impl Subject for $name {
            type State = VirtioPciV1;

            const PORTS: &'static [(u16, u16)] = &[(LEGACY, 0x40)];
            const MEMORY: &'static [(u64, u64)] = &[
                (MODERN, 0x3c),
                (MODERN, 0x3c),
                (MODERN + 0x2000, 0x40),
                (MODERN + NOTIFY, 0x20),
                (VECTORS, 0x50),
                (0, 0x6000),
            ];
            const OTHER: bool = true;
            const RESET_KEEPS_PARTS: bool = $keeps;

            fn new(bench: &Bench) -> Self {
                let make: fn(&Bench) -> Arc<$device> = $make;
                let device = make(bench);
                Self(Function::new(bench, Arc::clone(&device) as _), device)
            }

            fn reset(&self) {
                self.0.reset();
            }

            fn save(&self) -> VirtioPciV1 {
                self.0.save()
            }

            fn restore(&self, state: VirtioPciV1) -> Result<(), LoadError> {
                self.0.restore(state)
            }

            fn other(&self, bench: &Bench, bytes: &mut Bytes<'_>) {
                if bytes.byte() & 7 != 0 {
                    return self.0.driver(bench, bytes);
                }
                let other: fn(&$device, &mut Bytes<'_>) = $other;
                other(&self.1, bytes);
            }
        }
    };
}

#[derive(Debug)]
struct Sevens;

impl RandomSource for Sevens {
    fn fill(&self, data: &mut [u8]) -> io::Result<()> {
        data.fill(7);
        Ok(())
    }
}

function!(RngFunction, Rng, false, |_| Rng::new(Arc::new(Sevens)), |_, _| ());

function!(
    BalloonFunction,
    Balloon,
    true,
    |bench| Balloon::new(&bench.timers, bench.variant & 4 != 0),
    |balloon, bytes| {
        match bytes.byte() % 4 {
            0 => balloon.set_target(bytes.value() as u32),
            1 => balloon.set_polling_interval(u32::from(bytes.byte() % 3)),
            _ => drop(balloon.statistics()),
        }
    }
);

/// A disk that forgets, with a fault here and there.
struct Medium(Mutex<Vec<u8>>);

impl Medium {
    const SIZE: u64 = 0x4000;

    fn check(offset: u64, length: u64) -> io::Result<()> {
        match offset.checked_add(length) {
            Some(end) if end <= Self::SIZE && offset != 0x1400 => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl fmt::Debug for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Medium")
    }
}

impl BlockMedium for Medium {
    fn size(&self) -> u64 {
        Self::SIZE
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        Self::check(offset, data.len() as u64)?;
        data.copy_from_slice(&self.0.lock()[offset as usize..][..data.len()]);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        Self::check(offset, data.len() as u64)?;
        self.0.lock()[offset as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        Self::check(offset, length)
    }

    fn write_zeroes(&self, offset: u64, length: u64, _: bool) -> io::Result<()> {
        Self::check(offset, length)?;
        self.0.lock()[offset as usize..][..length as usize].fill(0);
        Ok(())
    }
}

function!(
    DiskFunction,
    Block,
    false,
    |bench| {
        let medium = Medium(Mutex::new(vec![0; Medium::SIZE as usize]));
        Block::new(BlockOptions {
            medium: Arc::new(medium),
            serial: "fuzzed".to_owned(),
            read_only: bench.variant & 8 != 0,
            discard: bench.variant & 16 != 0,
            block_size: 512,
            write_cache: bench.variant & 32 != 0,
            queues: 2,
            entries: 64,
        })
    },
    |_, _| ()
);

function!(
    ConsoleFunction,
    Console,
    false,
    |bench| {
        let console = Console::new(3);
        for (number, name) in [(0, None), (2, Some("org.example.port".to_owned()))] {
            let output = Arc::clone(&bench.ends) as Arc<dyn CharSink>;
            console.add_port(PortOptions { number, name, console: number == 0, output });
        }
        console
    },
    |console, bytes| {
        console.receive(u32::from(bytes.byte() % 4), bytes.take(64));
    }
);
