//! A PCI-to-PCI bridge: a bus of its own behind a function of another bus.
//!
//! Source: PCI-to-PCI Bridge Architecture Specification 1.2, §3.2 (cited as §).

use std::{ops::RangeInclusive, sync::Arc};

use parking_lot::Mutex;
use rhea_core::{Device, InterruptLine, LoadError, SaveState, Width};

use super::{BarKind, Command, ConfigSpace, Identity, PciFunction, Slots};
use crate::Saveable;

const SECONDARY: u8 = 0x19;
const SUBORDINATE: u8 = 0x1a;
const IO_BASE: u8 = 0x1c;
const MEMORY_BASE: u8 = 0x20;
const PREFETCHABLE_BASE: u8 = 0x24;
const PREFETCHABLE_UPPER: u8 = 0x28;
/// Bridge control (§3.2.5.18), and its bit that resets what is behind.
const BRIDGE_CONTROL: u8 = 0x3e;
const SECONDARY_RESET: u8 = 1 << 6;

/// Addresses that reach a bus; those of the first one are not limited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Ports.
    pub io: Option<RangeInclusive<u64>>,
    /// Memory.
    pub memory: Option<RangeInclusive<u64>>,
    /// Memory that is read ahead.
    pub prefetchable: Option<RangeInclusive<u64>>,
}

impl Default for Forwarded {
    fn default() -> Self {
        let all = Some(0..=u64::MAX);
        Self { io: all.clone(), memory: all.clone(), prefetchable: all }
    }
}

impl Forwarded {
    /// Whether a window of `size` bytes at `base` is reached.
    pub fn reaches(&self, kind: BarKind, base: u64, size: u64) -> bool {
        let Some(last) = base.checked_add(size.saturating_sub(1)) else { return false };
        let inside = |range: &Option<RangeInclusive<u64>>| {
            range.as_ref().is_some_and(|range| range.contains(&base) && range.contains(&last))
        };
        match kind {
            BarKind::Io => inside(&self.io),
            _ => inside(&self.memory) || inside(&self.prefetchable),
        }
    }

    /// What reaches a bus behind both.
    fn and(&self, other: &Self) -> Self {
        let both = |one: &Option<RangeInclusive<u64>>, other: &Option<RangeInclusive<u64>>| {
            let (one, other) = (one.as_ref()?, other.as_ref()?);
            let range = *one.start().max(other.start())..=*one.end().min(other.end());
            (!range.is_empty()).then_some(range)
        };
        Self {
            io: both(&self.io, &other.io),
            memory: both(&self.memory, &other.memory),
            prefetchable: both(&self.prefetchable, &other.prefetchable),
        }
    }
}

/// The chip alone: its configuration registers.
#[derive(Clone, Debug, PartialEq)]
pub struct BridgeRegisters {
    config: ConfigSpace,
}

impl Default for BridgeRegisters {
    fn default() -> Self {
        Self::new()
    }
}

impl BridgeRegisters {
    /// A chip after power-on: it forwards nothing.
    pub fn new() -> Self {
        let identity = Identity { vendor: 0x1b36, device: 0x0001, class: 0x06_0400, revision: 0, subsystem: (0, 0) };
        let mut config = ConfigSpace::new(identity);
        config.set(0x0e, &[1]);
        config.make_writable(0x04, &Command::new().with_io(true).with_memory(true).into_bits().to_le_bytes());
        // Bus numbers and the latency timer behind.
        config.make_writable(0x18, &[0xff, 0xff, 0xff, 0xf8]);
        // §3.2.5.6: 16-bit ports; §3.2.5.9: prefetchable memory at 64-bit addresses.
        config.make_writable(IO_BASE.into(), &[0xf0, 0xf0]);
        config.make_writable(MEMORY_BASE.into(), &[0xf0, 0xff, 0xf0, 0xff]);
        config.set(PREFETCHABLE_BASE.into(), &[1, 0, 1, 0]);
        config.make_writable(PREFETCHABLE_BASE.into(), &[0xf0, 0xff, 0xf0, 0xff]);
        config.make_writable(PREFETCHABLE_UPPER.into(), &[0xff; 8]);
        // Interrupt line, kept for software; parity, SERR#, ISA and reset of the bridge control.
        config.make_writable(0x3c, &[0xff]);
        config.make_writable(BRIDGE_CONTROL.into(), &[0x47, 0]);
        Self { config }
    }

    /// What it forwards to the bus behind it.
    pub fn forwarded(&self) -> Forwarded {
        let command = self.config.command();
        let range = |enabled: bool, (base, limit): (u64, u64)| (enabled && base <= limit).then_some(base..=limit);
        let windows = BridgeWindows::of(&self.config);
        Forwarded {
            io: range(command.io(), windows.io),
            memory: range(command.memory(), windows.memory),
            prefetchable: range(command.memory(), windows.prefetchable),
        }
    }
}

/// Base and limit of a bridge's windows, as its registers say; a window whose limit is below its base is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BridgeWindows {
    /// Ports.
    pub io: (u64, u64),
    /// Memory.
    pub memory: (u64, u64),
    /// Memory that is read ahead.
    pub prefetchable: (u64, u64),
}

impl BridgeWindows {
    /// Those of the bridge whose configuration space this is.
    pub fn of(config: &ConfigSpace) -> Self {
        let upper = |offset| u64::from(config.read(offset, Width::Dword)) << 32;
        let io = |offset| u64::from(config.byte(offset) & 0xf0) << 8;
        let megabytes = |offset| (u64::from(config.read(offset, Width::Word)) & 0xfff0) << 16;
        let low = |base| (megabytes(base), megabytes(base + 2) | 0xf_ffff);
        let (base, limit) = low(PREFETCHABLE_BASE);
        Self {
            io: (io(IO_BASE), io(IO_BASE + 1) | 0xfff),
            memory: low(MEMORY_BASE),
            prefetchable: (upper(PREFETCHABLE_UPPER) | base, upper(PREFETCHABLE_UPPER + 4) | limit),
        }
    }
}

mod state {
    use rhea_core::{LoadError, SaveState};

    use super::BridgeRegisters;

    /// Saved form of [`BridgeRegisters`].
    #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    pub struct BridgeV1 {
        /// Its configuration space.
        pub config: Vec<u8>,
    }

    impl SaveState for BridgeRegisters {
        type State = BridgeV1;

        fn save(&self) -> BridgeV1 {
            let Self { config } = self;
            BridgeV1 { config: config.save() }
        }

        fn load(BridgeV1 { config }: BridgeV1) -> Result<Self, LoadError> {
            let mut chip = Self::new();
            chip.config.restore(&config)?;
            Ok(chip)
        }
    }
}

pub use state::BridgeV1;

struct Inner {
    chip: BridgeRegisters,
    /// What reaches the bus that the bridge is on.
    above: Forwarded,
}

/// The bridge, with the slots behind it.
pub struct Bridge {
    inner: Mutex<Inner>,
    slots: Arc<Slots>,
}

impl Bridge {
    /// A bridge whose four interrupt pins are `pins`; slots behind it take them in turn (§9.1).
    pub fn new(pins: [InterruptLine; 4]) -> Arc<Self> {
        let inner = Inner { chip: BridgeRegisters::new(), above: Forwarded::default() };
        Arc::new(Self { inner: Mutex::new(inner), slots: Slots::new(pins, 0) })
    }

    /// The slots behind it.
    pub fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    /// The number of the bus behind it, and the highest one anywhere behind it.
    pub fn numbers(&self) -> (u8, u8) {
        let inner = self.inner.lock();
        (inner.chip.config.byte(SECONDARY), inner.chip.config.byte(SUBORDINATE))
    }

    /// Tells the functions behind what reaches them.
    pub fn forward(&self) {
        let forwarded = {
            let inner = self.inner.lock();
            inner.above.and(&inner.chip.forwarded())
        };
        for (_, function) in self.slots.functions() {
            function.set_forwarded(&forwarded);
        }
    }
}

impl PciFunction for Bridge {
    fn read_config(&self, offset: u8, width: Width) -> u32 {
        self.inner.lock().chip.config.read(offset, width)
    }

    fn write_config(&self, offset: u8, width: Width, value: u32) {
        let resets = {
            let config = &mut self.inner.lock().chip.config;
            let before = config.byte(BRIDGE_CONTROL);
            config.write(offset, width, value);
            config.byte(BRIDGE_CONTROL) & !before & SECONDARY_RESET != 0
        };
        if resets {
            for (_, function) in self.slots.functions() {
                function.reset();
            }
        }
        self.forward();
    }

    fn config(&self) -> ConfigSpace {
        self.inner.lock().chip.config.clone()
    }

    fn bridge(&self) -> Option<&Bridge> {
        Some(self)
    }

    fn set_forwarded(&self, forwarded: &Forwarded) {
        self.inner.lock().above = forwarded.clone();
        self.forward();
    }
}

impl Device for Bridge {
    /// Resets what is behind it too.
    fn reset(&self) {
        for (_, function) in self.slots.functions() {
            function.reset();
        }
        self.inner.lock().chip = BridgeRegisters::new();
        self.forward();
    }
}

impl Saveable for Bridge {
    type Chip = BridgeRegisters;
    const KIND: &'static str = "pci-bridge";

    fn save(&self) -> BridgeV1 {
        self.inner.lock().chip.save()
    }

    fn restore(&self, state: BridgeV1) -> Result<(), LoadError> {
        let chip = BridgeRegisters::load(state)?;
        self.inner.lock().chip = chip;
        self.forward();
        Ok(())
    }
}
