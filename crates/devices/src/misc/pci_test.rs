//! `pci-testdev`: a PCI function whose windows count the writes that reach them, for tests of a machine's input and output.
//!
//! Source: the published interface of "pci-testdev": a header of 16 bytes and a name at the start of each window (cited as
//! "the header"), vendor 0x1b36, device 0x0005. Here every test counts by itself: there are no event descriptors between.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rhea_core::{AddressSpace, Device, LoadError, Mmio, PortIo, PortSpace, SaveState, Width, memory::Target};

pub use state::PciTestV1;

use crate::{
    Saveable,
    chipset::pci::{BarKind, ConfigSpace, Forwarded, Identity, PciFunction, WindowTarget, Windows},
};

/// Bytes of the window in memory.
const MEMORY_WINDOW: u64 = 4096;
/// Ports of the window there.
const IO_WINDOW: u64 = 256;
/// Register of the window with nothing behind it.
const EMPTY_BAR: usize = 2;

/// Offsets in the header.
mod header {
    /// Starts the test of the number that is written.
    pub(super) const TEST: u64 = 0;
    /// Width of the access that the test wants; 0 if there is no such test.
    pub(super) const WIDTH: u64 = 1;
    /// Offset of the access.
    pub(super) const OFFSET: u64 = 4;
    /// Value of the access.
    pub(super) const DATA: u64 = 8;
    /// Writes that were counted.
    pub(super) const COUNT: u64 = 12;
    /// Name of the test, ended by a zero.
    pub(super) const NAME: u64 = 16;
}

/// What a test counts.
struct Test {
    name: &'static str,
    data: u8,
    /// Whether other values count as well.
    wildcard: bool,
}

/// The tests of each window; the second part of the name.
const TESTS: [Test; 3] = [
    Test { name: "no-eventfd", data: 0xfa, wildcard: false },
    Test { name: "wildcard-eventfd", data: 0xce, wildcard: true },
    Test { name: "datamatch-eventfd", data: 0xfa, wildcard: false },
];

/// Which of the windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Memory,
    Ports,
}

impl Place {
    /// Where the first test's accesses go; those of the others follow.
    const fn first_offset(self) -> u64 {
        match self {
            Self::Memory => MEMORY_WINDOW / 2,
            Self::Ports => IO_WINDOW / 2,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "mmio-",
            Self::Ports => "portio-",
        }
    }
}

/// One window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counter {
    /// The test that was started, if there is such a test.
    test: Option<u8>,
    count: u32,
}

impl Counter {
    fn test(self) -> Option<(u64, &'static Test)> {
        let number = self.test?;
        Some((number.into(), TESTS.get(usize::from(number))?))
    }

    fn byte(self, place: Place, at: u64) -> u8 {
        let Some((number, test)) = self.test() else { return 0 };
        let part = |value: u32, first: u64| value.to_le_bytes().get((at - first) as usize).copied().unwrap_or(0);
        match at {
            header::TEST => number as u8,
            header::WIDTH => 1,
            header::OFFSET..header::DATA => part((place.first_offset() + number) as u32, header::OFFSET),
            header::DATA => test.data,
            header::COUNT..header::NAME => part(self.count, header::COUNT),
            header::NAME.. => {
                let at = usize::try_from(at - header::NAME).unwrap_or(usize::MAX);
                place.name().bytes().chain(test.name.bytes()).nth(at).unwrap_or(0)
            }
            _ => 0,
        }
    }

    fn read(self, place: Place, offset: u64, width: Width) -> u64 {
        let bytes = (0..width.bytes() as u64).rev().map(|i| self.byte(place, offset.saturating_add(i)));
        bytes.fold(0, |value, byte| value << 8 | u64::from(byte))
    }

    fn write(&mut self, place: Place, offset: u64, value: u64) {
        if offset == header::TEST {
            let number = value as u8;
            *self = Self { test: (usize::from(number) < TESTS.len()).then_some(number), count: 0 };
        } else if let Some((number, test)) = self.test()
            && offset == place.first_offset() + number
            && (test.wildcard || value == u64::from(test.data))
        {
            self.count = self.count.wrapping_add(1);
        }
    }
}

/// The chip alone.
#[derive(Clone, Debug, PartialEq)]
pub struct PciTest {
    config: ConfigSpace,
    memory: Counter,
    ports: Counter,
    /// Size of the window with nothing behind it; 0 for none.
    empty: u64,
}

impl PciTest {
    /// A function with no test started, and with a window of `empty` bytes, a power of two, behind which nothing is; 0
    /// for none.
    pub fn new(empty: u64) -> Self {
        Self { config: Self::header(empty), memory: Counter::default(), ports: Counter::default(), empty }
    }

    fn header(empty: u64) -> ConfigSpace {
        let identity =
            Identity { vendor: 0x1b36, device: 0x0005, class: 0x00_ff00, revision: 0, subsystem: (0x1af4, 0x1100) };
        let mut config = ConfigSpace::new(identity);
        config.add_bar(0, BarKind::Memory, MEMORY_WINDOW);
        config.add_bar(1, BarKind::Io, IO_WINDOW);
        if empty != 0 {
            config.add_bar(EMPTY_BAR, BarKind::Prefetchable64, empty);
        }
        config
    }

    const fn counter(&mut self, place: Place) -> &mut Counter {
        match place {
            Place::Memory => &mut self.memory,
            Place::Ports => &mut self.ports,
        }
    }
}

mod state {
    use rhea_core::{LoadError, SaveState};

    use super::{Counter, PciTest, TESTS};

    /// Saved form of [`PciTest`].
    #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    pub struct PciTestV1 {
        /// Its configuration space.
        pub config: Vec<u8>,
        /// The window in memory.
        pub memory: Counter,
        /// The window of ports.
        pub ports: Counter,
        /// Size of the window with nothing behind it.
        pub empty: u64,
    }

    impl SaveState for PciTest {
        type State = PciTestV1;

        fn save(&self) -> PciTestV1 {
            let Self { config, memory, ports, empty } = self;
            PciTestV1 { config: config.save(), memory: *memory, ports: *ports, empty: *empty }
        }

        fn load(state: PciTestV1) -> Result<Self, LoadError> {
            let PciTestV1 { config: bytes, memory, ports, empty } = state;
            let invalid = |counter: &Counter| counter.test.is_some_and(|test| usize::from(test) >= TESTS.len());
            if invalid(&memory) || invalid(&ports) || (empty != 0 && !empty.is_power_of_two()) {
                return Err(LoadError::invalid("PciTest", "a value out of its range"));
            }
            let mut config = Self::header(empty);
            config.restore(&bytes)?;
            Ok(Self { config, memory, ports, empty })
        }
    }
}

/// The function on a PCI bus.
pub struct PciTestDevice {
    chip: Mutex<PciTest>,
    windows: Windows,
}

impl PciTestDevice {
    /// A function with a window of `empty` bytes behind which nothing is.
    pub fn new(memory: Arc<AddressSpace>, ports: Arc<PortSpace>, empty: u64) -> Arc<Self> {
        Arc::new_cyclic(|weak: &Weak<Self>| {
            let in_memory = WindowTarget::Memory(Target::Mmio(Arc::new(Window(Weak::clone(weak)))));
            let at_ports = WindowTarget::Io(Arc::new(Window(Weak::clone(weak))));
            let nothing = WindowTarget::Memory(Target::Mmio(Arc::new(Nothing)));
            let windows =
                Windows::new(memory, ports, [Some(in_memory), Some(at_ports), Some(nothing), None, None, None]);
            Self { chip: Mutex::new(PciTest::new(empty)), windows }
        })
    }

    fn show_windows(&self) {
        let config = self.chip.lock().config.clone();
        self.windows.update(&config);
    }
}

impl PciFunction for PciTestDevice {
    fn read_config(&self, offset: u8, width: Width) -> u32 {
        self.chip.lock().config.read(offset, width)
    }

    fn write_config(&self, offset: u8, width: Width, value: u32) {
        self.chip.lock().config.write(offset, width, value);
        self.show_windows();
    }

    fn config(&self) -> ConfigSpace {
        self.chip.lock().config.clone()
    }

    fn set_forwarded(&self, forwarded: &Forwarded) {
        self.windows.set_forwarded(forwarded);
        self.show_windows();
    }
}

impl Device for PciTestDevice {
    fn reset(&self) {
        {
            let mut chip = self.chip.lock();
            *chip = PciTest::new(chip.empty);
        }
        self.show_windows();
    }
}

impl Saveable for PciTestDevice {
    type Chip = PciTest;
    const KIND: &'static str = "pci-testdev";

    fn save(&self) -> PciTestV1 {
        self.chip.lock().save()
    }

    fn restore(&self, state: PciTestV1) -> Result<(), LoadError> {
        let saved = PciTest::load(state)?;
        {
            let mut chip = self.chip.lock();
            if saved.empty != chip.empty {
                return Err(LoadError::invalid("PciTest", "a device with another window"));
            }
            *chip = saved;
        }
        self.show_windows();
        Ok(())
    }
}

/// A window of the function, which may be gone.
struct Window(Weak<PciTestDevice>);

impl Window {
    fn read(&self, place: Place, offset: u64, width: Width) -> u64 {
        self.0.upgrade().map_or(0, |device| device.chip.lock().counter(place).read(place, offset, width))
    }

    fn write(&self, place: Place, offset: u64, value: u64) {
        if let Some(device) = self.0.upgrade() {
            device.chip.lock().counter(place).write(place, offset, value);
        }
    }
}

impl Mmio for Window {
    fn name(&self) -> &str {
        "pci-testdev-mmio"
    }

    fn read(&self, offset: u64, width: Width) -> u64 {
        Self::read(self, Place::Memory, offset, width)
    }

    fn write(&self, offset: u64, _: Width, value: u64) {
        Self::write(self, Place::Memory, offset, value);
    }
}

impl PortIo for Window {
    fn name(&self) -> &str {
        "pci-testdev-portio"
    }

    fn read(&self, offset: u16, width: Width) -> u32 {
        Self::read(self, Place::Ports, offset.into(), width) as u32
    }

    fn write(&self, offset: u16, _: Width, value: u32) {
        Self::write(self, Place::Ports, offset.into(), value.into());
    }

    fn widest(&self) -> Width {
        Width::Dword
    }
}

/// A window that is decoded, and that is all.
struct Nothing;

impl Mmio for Nothing {
    fn name(&self) -> &str {
        "pci-testdev-membar"
    }

    fn read(&self, _: u64, _: Width) -> u64 {
        0
    }

    fn write(&self, _: u64, _: Width, _: u64) {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: u64 = 0xe000_0000;
    const PORT: u16 = 0xc000;

    struct Bench {
        device: Arc<PciTestDevice>,
        memory: Arc<AddressSpace>,
        ports: Arc<PortSpace>,
    }

    fn bench(empty: u64) -> Bench {
        let (memory, ports) = (Arc::new(AddressSpace::new()), Arc::new(PortSpace::new()));
        let device = PciTestDevice::new(Arc::clone(&memory), Arc::clone(&ports), empty);
        device.write_config(0x10, Width::Dword, BASE as u32);
        device.write_config(0x14, Width::Dword, PORT.into());
        device.write_config(0x04, Width::Word, 3);
        Bench { device, memory, ports }
    }

    #[test]
    fn tests_are_found_by_their_numbers_until_a_width_of_zero() {
        let Bench { device: _device, memory, ports } = bench(0);
        let name = |read: &dyn Fn(u64) -> u8| {
            String::from_utf8((header::NAME..).map(read).take_while(|byte| *byte != 0).collect()).unwrap()
        };
        let mut found = Vec::new();
        for number in 0..4 {
            memory.write_value(BASE, Width::Byte, number);
            ports.write(PORT, Width::Byte, number as u32);
            let in_memory = |at| memory.read_value(BASE + at, Width::Byte) as u8;
            let at_ports = |at| ports.read(PORT + at as u16, Width::Byte) as u8;
            found.push((in_memory(1), name(&in_memory), at_ports(1), name(&at_ports)));
        }
        let row = |test: &str| (1, format!("mmio-{test}"), 1, format!("portio-{test}"));
        let none = (0, String::new(), 0, String::new());
        assert_eq!(found, [row("no-eventfd"), row("wildcard-eventfd"), row("datamatch-eventfd"), none]);
    }

    #[test]
    fn writes_to_the_right_place_are_counted_and_a_start_counts_anew() {
        let Bench { device: _device, memory, .. } = bench(0);
        let dword = |at| memory.read_value(BASE + at, Width::Dword);
        for (number, wildcard) in [(0, false), (1, true), (2, false)] {
            memory.write_value(BASE, Width::Byte, number);
            assert_eq!(dword(header::COUNT), 0);
            let (at, data) = (BASE + dword(header::OFFSET), dword(header::DATA));
            memory.write_value(at, Width::Byte, data);
            memory.write_value(at, Width::Byte, data ^ 0xff);
            memory.write_value(at + 1, Width::Byte, data);
            assert_eq!(dword(header::COUNT), if wildcard { 2 } else { 1 });
        }
    }

    #[test]
    fn ports_count_too_and_by_themselves() {
        let Bench { device: _device, memory, ports } = bench(0);
        ports.write(PORT, Width::Byte, 0);
        memory.write_value(BASE, Width::Byte, 1);
        let at = ports.read(PORT + 4, Width::Dword) as u16;
        ports.write(PORT + at, Width::Byte, ports.read(PORT + 8, Width::Dword));
        assert_eq!(ports.read(PORT + 12, Width::Dword), 1);
        assert_eq!(memory.read_value(BASE + 12, Width::Dword), 0);
    }

    #[test]
    fn a_large_window_is_sized_and_has_nothing_in_it() {
        let Bench { device, memory, .. } = bench(1 << 33);
        for register in [0x18, 0x1c] {
            device.write_config(register, Width::Dword, u32::MAX);
        }
        assert_eq!(device.read_config(0x18, Width::Dword), 0xc);
        assert_eq!(device.read_config(0x1c, Width::Dword), !1);
        device.write_config(0x18, Width::Dword, 0);
        device.write_config(0x1c, Width::Dword, 8);
        assert!(memory.view().find(9 << 32).is_some());
        assert_eq!(memory.read_value(9 << 32, Width::Dword), 0);
    }

    #[test]
    fn a_reset_makes_it_new_and_takes_its_windows_away() {
        let Bench { device, memory, .. } = bench(1 << 20);
        memory.write_value(BASE, Width::Byte, 1);
        device.reset();
        assert_eq!(*device.chip.lock(), PciTest::new(1 << 20));
        assert!(memory.view().find(BASE).is_none());
    }

    #[test]
    fn a_state_of_a_device_with_another_window_is_refused() {
        let state = bench(1 << 20).device.save();
        assert!(bench(0).device.restore(state.clone()).is_err());
        let odd = PciTestV1 { empty: 3, ..state };
        assert!(PciTest::load(odd).is_err());
    }

    proptest! {
        #[test]
        fn any_access_is_harmless_and_what_is_saved_comes_back(
            ops in prop::collection::vec((any::<bool>(), any::<u64>(), any::<u64>(), 0_u8..4), 0..64),
        ) {
            let mut chip = PciTest::new(0);
            for (memory, offset, value, small) in ops {
                let place = if memory { Place::Memory } else { Place::Ports };
                let offset = if small == 0 { offset } else { offset % 0x900 };
                let _ = chip.counter(place).read(place, offset, Width::Qword);
                chip.counter(place).write(place, offset, value % 8);
            }
            prop_assert_eq!(PciTest::load(chip.save()).unwrap(), chip);
        }
    }
}
