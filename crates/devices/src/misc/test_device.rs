//! `pc-testdev`: ports and memory by which test programs drive interrupt lines and check wide and narrow accesses.
//!
//! Source: the conventions of kvm-unit-tests: ports 0xe0 and 0xe8 (one register of 32 bits), 0xe4 (a page to flush), 0x2000
//! to 0x2017 (a line of an interrupt each), and 64 KiB at 0xff000000 that keep what is written.

use std::sync::Arc;

use parking_lot::Mutex;
use rhea_core::{AddressSpace, Device, InterruptLine, LoadError, Mmio, PortIo, PortSpace, Width, memory::Target};

pub use state::TestDeviceV1;

use crate::Saveable;

/// Lines of interrupts.
pub const LINES: usize = 24;

/// The register, accessed in any width.
const REGISTER: u16 = 0xe0;
/// Takes the address of a page whose mapping is to be forgotten.
const FLUSH: u16 = 0xe4;
/// The same register, accessed byte by byte.
const REGISTER_BYTES: u16 = 0xe8;
/// First of the ports of the lines.
const LINES_BASE: u16 = 0x2000;
/// Where the memory is, and its length.
const MEMORY: (u64, usize) = (0xff00_0000, 0x1_0000);

/// The device alone.
#[derive(Clone, Debug, PartialEq)]
pub struct TestDevice {
    register: u32,
    /// Levels of the lines.
    lines: u32,
    memory: Vec<u8>,
}

impl Default for TestDevice {
    fn default() -> Self {
        Self::new()
    }
}

impl TestDevice {
    /// A device after power-on: zeros.
    pub fn new() -> Self {
        Self { register: 0, lines: 0, memory: vec![0; MEMORY.1] }
    }

    /// A read of the register from its byte `offset` on; past its end, zeros.
    pub const fn register(&self, offset: u16) -> u32 {
        self.register >> (8 * (offset & 3) as u32)
    }

    /// A write to the register from its byte `offset` on; what hangs over its end is dropped.
    pub const fn set_register(&mut self, offset: u16, width: Width, value: u32) {
        let shift = 8 * (offset & 3) as u32;
        let mask = (width.ones() as u32) << shift;
        self.register = self.register & !mask | (value << shift) & mask;
    }

    /// Drives a line.
    pub const fn set_line(&mut self, line: usize, level: bool) {
        if line < LINES {
            self.lines = if level { self.lines | 1 << line } else { self.lines & !(1 << line) };
        }
    }

    /// The level of a line.
    pub const fn line(&self, line: usize) -> bool {
        line < LINES && self.lines & 1 << line != 0
    }

    /// A read of the memory; past its end, zeros.
    pub fn read(&self, offset: u64, width: Width) -> u64 {
        let bytes = self.memory.iter().skip(usize::try_from(offset).unwrap_or(usize::MAX)).take(width.bytes());
        bytes.rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// A write to the memory; what lies past its end is dropped.
    pub fn write(&mut self, offset: u64, width: Width, value: u64) {
        let to = self.memory.iter_mut().skip(usize::try_from(offset).unwrap_or(usize::MAX));
        to.zip(value.to_le_bytes()).take(width.bytes()).for_each(|(to, from)| *to = from);
    }
}

mod state {
    use super::{LINES, MEMORY, TestDevice};

    saved_state!(TestDevice => TestDeviceV1 { register: u32, lines: u32, memory: Vec<u8> }
        if |s| s.lines >> LINES == 0 && s.memory.len() == MEMORY.1);
}

/// The device at its ports and in memory.
pub struct IsaTestDevice {
    chip: Mutex<TestDevice>,
    lines: [InterruptLine; LINES],
}

impl IsaTestDevice {
    /// A device that drives these lines.
    pub fn new(lines: [InterruptLine; LINES]) -> Arc<Self> {
        Arc::new(Self { chip: Mutex::new(TestDevice::new()), lines })
    }

    /// Puts the ports into `ports` and the memory into `memory`.
    pub fn map(self: &Arc<Self>, ports: &PortSpace, memory: &AddressSpace) {
        ports.map(REGISTER, 4, Arc::new(RegisterPorts { device: Arc::clone(self), widest: Width::Dword }));
        ports.map(FLUSH, 4, Arc::new(FlushPorts));
        ports.map(REGISTER_BYTES, 4, Arc::new(RegisterPorts { device: Arc::clone(self), widest: Width::Byte }));
        ports.map(LINES_BASE, LINES as u32, Arc::new(LinePorts(Arc::clone(self))));
        memory.map(MEMORY.0, MEMORY.1 as u64, 1, Target::Mmio(Arc::clone(self) as Arc<dyn Mmio>));
    }

    fn with(&self, change: impl FnOnce(&mut TestDevice)) {
        let mut chip = self.chip.lock();
        let before = chip.lines;
        change(&mut chip);
        for (number, line) in self.lines.iter().enumerate() {
            if (before ^ chip.lines) >> number & 1 != 0 {
                line.set(chip.line(number));
            }
        }
    }
}

impl Mmio for IsaTestDevice {
    fn name(&self) -> &str {
        "pc-testdev-iomem"
    }

    fn read(&self, offset: u64, width: Width) -> u64 {
        self.chip.lock().read(offset, width)
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        self.with(|chip| chip.write(offset, width, value));
    }
}

impl Device for IsaTestDevice {
    fn reset(&self) {
        self.with(|chip| *chip = TestDevice::new());
    }
}

impl Saveable for IsaTestDevice {
    type Chip = TestDevice;
    const KIND: &'static str = "pc-testdev";

    fn save(&self) -> TestDeviceV1 {
        rhea_core::SaveState::save(&*self.chip.lock())
    }

    fn restore(&self, state: TestDeviceV1) -> Result<(), LoadError> {
        let chip: TestDevice = rhea_core::SaveState::load(state)?;
        self.with(|old| *old = chip);
        Ok(())
    }
}

/// The register at one of its places.
struct RegisterPorts {
    device: Arc<IsaTestDevice>,
    widest: Width,
}

impl PortIo for RegisterPorts {
    fn name(&self) -> &str {
        if self.widest == Width::Byte { "pc-testdev-ioport-byte" } else { "pc-testdev-ioport" }
    }

    fn read(&self, offset: u16, _: Width) -> u32 {
        self.device.chip.lock().register(offset)
    }

    fn write(&self, offset: u16, width: Width, value: u32) {
        self.device.with(|chip| chip.set_register(offset, width, value));
    }

    fn widest(&self) -> Width {
        self.widest
    }
}

/// Where a test asks that what the host keeps of a page's mapping is forgotten. Memory is the host's own here, and there
/// is no such mapping besides what processors keep, which they drop whenever it changes: nothing is left to do.
struct FlushPorts;

impl PortIo for FlushPorts {
    fn name(&self) -> &str {
        "pc-testdev-flush-page"
    }

    fn read(&self, _: u16, _: Width) -> u32 {
        0
    }

    fn write(&self, _: u16, _: Width, _: u32) {}

    fn widest(&self) -> Width {
        Width::Dword
    }
}

/// The ports of the lines: any byte but zero asserts one.
struct LinePorts(Arc<IsaTestDevice>);

impl PortIo for LinePorts {
    fn name(&self) -> &str {
        "pc-testdev-irq-line"
    }

    fn read(&self, _: u16, _: Width) -> u32 {
        0
    }

    fn write(&self, offset: u16, _: Width, value: u32) {
        self.0.with(|chip| chip.set_line(offset.into(), value as u8 != 0));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rhea_core::{InterruptSink, SaveState};

    use super::*;

    #[derive(Default)]
    struct Levels(Mutex<u32>);

    impl InterruptSink for Levels {
        fn set_level(&self, pin: u32, level: bool) {
            let mut levels = self.0.lock();
            *levels = *levels & !(1 << pin) | u32::from(level) << pin;
        }
    }

    struct Bench {
        device: Arc<IsaTestDevice>,
        ports: PortSpace,
        memory: AddressSpace,
        levels: Arc<Levels>,
    }

    fn bench() -> Bench {
        let levels = Arc::new(Levels::default());
        let lines = std::array::from_fn(|pin| InterruptLine::new(Arc::clone(&levels) as _, pin as u32));
        let (device, ports, memory) = (IsaTestDevice::new(lines), PortSpace::new(), AddressSpace::new());
        device.map(&ports, &memory);
        Bench { device, ports, memory, levels }
    }

    #[test]
    fn the_register_is_one_at_both_places_and_in_all_widths() {
        let Bench { ports, .. } = bench();
        ports.write(0xe0, Width::Dword, 0x4433_2211);
        assert_eq!(ports.read(0xe1, Width::Byte), 0x22);
        assert_eq!(ports.read(0xe2, Width::Word), 0x4433);
        assert_eq!(ports.read(0xe8, Width::Dword), 0x4433_2211);
        ports.write(0xe9, Width::Byte, 0xaa);
        ports.write(0xe2, Width::Word, 0xbbcc);
        assert_eq!(ports.read(0xe0, Width::Dword), 0xbbcc_aa11);
        // What hangs over the end of the window is others'.
        ports.write(0xe3, Width::Word, 0x1234);
        assert_eq!(ports.read(0xe0, Width::Dword), 0x34cc_aa11);
    }

    #[test]
    fn each_port_drives_its_line_and_a_reset_releases_all() {
        let Bench { device, ports, levels, .. } = bench();
        ports.write(0x2000, Width::Byte, 1);
        ports.write(0x2017, Width::Byte, 0x80);
        ports.write(0x2018, Width::Byte, 1);
        assert_eq!(*levels.0.lock(), 1 | 1 << 23);
        ports.write(0x2000, Width::Byte, 0);
        assert_eq!(*levels.0.lock(), 1 << 23);
        device.reset();
        assert_eq!(*levels.0.lock(), 0);
        assert_eq!(*device.chip.lock(), TestDevice::new());
    }

    #[test]
    fn the_memory_keeps_what_is_written() {
        let Bench { memory, .. } = bench();
        memory.write_value(0xff00_0000, Width::Dword, 0x1234_5678);
        assert_eq!(memory.read_value(0xff00_0001, Width::Word), 0x3456);
        memory.write_value(0xff00_fff8, Width::Qword, 0x1122_3344_5566_7788);
        assert_eq!(memory.read_value(0xff00_fffc, Width::Dword), 0x1122_3344);
        assert_eq!(memory.read_value(0xff01_0000, Width::Dword), 0);
    }

    #[test]
    fn a_restored_device_drives_its_lines() {
        let (one, other) = (bench(), bench());
        one.ports.write(0x2005, Width::Byte, 1);
        other.ports.write(0x2006, Width::Byte, 1);
        other.device.restore(one.device.save()).unwrap();
        assert_eq!(*other.levels.0.lock(), 1 << 5);
    }

    proptest! {
        #[test]
        fn any_access_is_harmless_and_what_is_saved_comes_back(
            ops in prop::collection::vec((0_u8..3, any::<u64>(), 0_usize..4, any::<u64>()), 0..64),
        ) {
            let mut chip = TestDevice::new();
            for (op, offset, width, value) in ops {
                let width = [Width::Byte, Width::Word, Width::Dword, Width::Qword][width];
                match op {
                    0 => chip.set_register(offset as u16, width, value as u32),
                    1 => chip.set_line(offset as usize % 40, value & 1 != 0),
                    _ => {
                        chip.write(offset % 0x1_0010, width, value);
                        let _ = chip.read(offset, width);
                    }
                }
            }
            prop_assert_eq!(TestDevice::load(chip.save()).unwrap(), chip);
        }
    }
}
