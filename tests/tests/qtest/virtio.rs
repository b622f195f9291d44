//! A driver of virtio devices through the test port, by the legacy interface: VIRTIO 1.2 §4.1.4.10 and §2.7 (cited as §).
//! Queues are served by threads of their own, so that answers are waited for; the clock has no part in it.

use std::time::{Duration, Instant};

use rhea_tests::qtest::TestMachine;

/// Where the driver puts the registers of the device, in I/O space.
const PORTS: u16 = 0xc000;
/// Where its queues are, one every 64 KiB, and the buffers behind.
const QUEUES: u64 = 0x10_0000;
const QUEUE_SIZE: u64 = 0x1_0000;
/// The slot of the device.
const SLOT: u32 = 5;
/// The interrupt that PIRQ wires are routed to, an input of the I/O APIC as well.
pub const LINE: u32 = 11;
const PATIENCE: Duration = Duration::from_secs(20);

/// A buffer of a request: where it is, its bytes, and whether the device writes it.
pub type Buffer = (u64, u32, bool);

pub struct Driver {
    pub machine: TestMachine,
    /// Entries of each queue, what was offered there and what came back.
    queues: Vec<(u16, u16, u16)>,
}

fn config(machine: &mut TestMachine, slot: u32, register: u32) -> u16 {
    machine.outl(0xcf8, 1 << 31 | slot << 11 | register & 0xfc);
    0xcfc
}

impl Driver {
    /// Starts a machine with `device` and what else is in `arguments`, and takes the features of `wanted` that it offers.
    pub fn start(device: &str, arguments: &[&str], wanted: u32, queues: u16) -> Self {
        let device = format!("{device},addr={SLOT:#x}");
        let mut machine = TestMachine::start(&[arguments, &["-device", &device]].concat());
        // PIIX3 §2.2.9: all four PIRQ wires to one interrupt, which is level-triggered then.
        let port = config(&mut machine, 1, 0x60);
        machine.outl(port, u32::from_le_bytes([LINE as u8; 4]));
        machine.outb(0x4d1, 1 << (LINE - 8));
        machine.intercept_in("ioapic");
        let port = config(&mut machine, SLOT, 0);
        assert_eq!(machine.inw(port), 0x1af4);
        let port = config(&mut machine, SLOT, 0x10);
        machine.outl(port, PORTS.into());
        let port = config(&mut machine, SLOT, 4);
        machine.outw(port, 5);
        // §3.1.1: reset, acknowledge, driver, features, queues, ready.
        for status in [0, 1, 3] {
            machine.outb(PORTS + 0x12, status);
        }
        let features = machine.inl(PORTS) & wanted;
        machine.outl(PORTS + 4, features);
        let mut driver = Self { machine, queues: Vec::new() };
        for queue in 0..queues {
            let machine = &mut driver.machine;
            machine.outw(PORTS + 0xe, queue);
            let size = machine.inw(PORTS + 0xc);
            machine.outl(PORTS + 8, (queue_address(queue) / 4096) as u32);
            driver.queues.push((size, 0, 0));
        }
        driver.machine.outb(PORTS + 0x12, 7);
        driver
    }

    /// A byte of the device's configuration.
    pub fn config(&mut self, offset: u16) -> u8 {
        self.machine.inb(PORTS + 0x14 + offset)
    }

    /// A double word of it.
    pub fn config_l(&mut self, offset: u16) -> u32 {
        self.machine.inl(PORTS + 0x14 + offset)
    }

    /// Writes a double word of it.
    pub fn set_config_l(&mut self, offset: u16, value: u32) {
        self.machine.outl(PORTS + 0x14 + offset, value);
    }

    /// Reads the interrupt status, which ends the interrupt.
    pub fn interrupt_status(&mut self) -> u8 {
        self.machine.inb(PORTS + 0x13)
    }

    /// Offers a request and says so (§2.7.13).
    pub fn offer(&mut self, queue: u16, buffers: &[Buffer]) {
        let base = queue_address(queue);
        for (at, &(address, length, writable)) in buffers.iter().enumerate() {
            let more = at + 1 < buffers.len();
            let flags = u64::from(writable) << 1 | u64::from(more);
            self.machine.writeq(base + 16 * at as u64, address);
            self.machine.writeq(base + 16 * at as u64 + 8, u64::from(length) | flags << 32 | (at as u64 + 1) << 48);
        }
        let (size, offered, _) = &mut self.queues[usize::from(queue)];
        let available = base + 16 * u64::from(*size);
        let slot = *offered % *size;
        *offered = offered.wrapping_add(1);
        let offered = *offered;
        self.machine.value(&format!("writew {:#x} 0", available + 4 + 2 * u64::from(slot)));
        self.machine.value(&format!("writew {:#x} {offered}", available + 2));
        self.machine.outw(PORTS + 0x10, queue);
    }

    /// Waits until the device has served a request, and says how many bytes it wrote.
    #[track_caller]
    pub fn served(&mut self, queue: u16) -> u32 {
        let (size, offered, _) = self.queues[usize::from(queue)];
        let available = queue_address(queue) + 16 * u64::from(size);
        let used = (available + 6 + 2 * u64::from(size)).next_multiple_of(4096);
        let since = Instant::now();
        while (self.machine.readl(used) >> 16) as u16 != offered {
            assert!(since.elapsed() < PATIENCE, "the device does not serve its queue");
            // Each look is a question to the machine and its answer.
        }
        self.queues[usize::from(queue)].2 = offered;
        let slot = offered.wrapping_sub(1) % size;
        self.machine.readl(used + 4 + 8 * u64::from(slot) + 4)
    }

    /// Resets the device (§2.1.2).
    pub fn reset(&mut self) {
        self.machine.outb(PORTS + 0x12, 0);
    }

    /// Waits for the interrupt line.
    #[track_caller]
    pub fn wait_for_interrupt(&mut self) {
        let since = Instant::now();
        while !self.machine.line_level(LINE) {
            assert!(since.elapsed() < PATIENCE, "no interrupt");
            self.machine.now();
        }
    }
}

fn queue_address(queue: u16) -> u64 {
    QUEUES + QUEUE_SIZE * u64::from(queue)
}
