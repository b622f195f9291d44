//! The watchdog timer of the 6300ESB: a PCI function that ends its machine if nobody tends it in time.
//!
//! Source: Intel 300641, "6300ESB I/O Controller Hub", ch. 16 "Watchdog Timer" (cited as §).

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rhea_core::{
    AddressSpace, Device, Instant, LoadError, Mmio, PortSpace, SaveState, Timer, TimerQueue, Width, memory::Target,
};

pub use state::WatchdogV1;

use crate::{
    Saveable,
    chipset::pci::{BarKind, ConfigSpace, Forwarded, Identity, PciFunction, WindowTarget, Windows},
};

/// Clocks of the PCI bus a second.
const PCI_CLOCK: u64 = 33_000_000;
/// The least time of a stage: what a guest asks for is work for the host.
const SHORTEST: u64 = PCI_CLOCK / 1000;
/// Bits of a preload register.
const PRELOAD: u32 = 0xf_ffff;
/// Bytes of the registers.
const WINDOW: u64 = 16;

/// WDT configuration: interrupt type, prescaler (bit 2), output disabled (bit 5).
const CONFIGURATION: u8 = 0x60;
/// WDT lock: locked (bit 0), enabled (bit 1), free running (bit 2).
const LOCK: u8 = 0x68;

/// Offsets in the window.
mod register {
    pub(super) const PRELOAD_1: u64 = 0x0;
    pub(super) const PRELOAD_2: u64 = 0x4;
    /// General interrupt status: the first stage ended.
    pub(super) const INTERRUPT: u64 = 0x8;
    /// Reload (bit 8), and whether the timer ever ran out (bit 9); takes the keys as well.
    pub(super) const RELOAD: u64 = 0xc;
}

const RELOAD: u32 = 1 << 8;
const TIMED_OUT: u32 = 1 << 9;
/// Written to the reload register, one after the other, they open a register for one write.
const KEYS: [u32; 2] = [0x80, 0x86];

/// The chip alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Watchdog {
    config: ConfigSpace,
    preload: [u32; 2],
    /// How many of the keys were written.
    keys: u8,
    /// The second stage runs, if any does.
    second: bool,
    /// When the stage ends, while the timer runs.
    end: Option<Instant>,
    /// The first stage ended since this was cleared.
    interrupt: bool,
    /// The second stage ended since this was cleared. A reset leaves it.
    timed_out: bool,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self::new()
    }
}

impl Watchdog {
    /// A timer after power-on, which does not run.
    pub fn new() -> Self {
        Self {
            config: Self::header(),
            preload: [PRELOAD; 2],
            keys: 0,
            second: false,
            end: None,
            interrupt: false,
            timed_out: false,
        }
    }

    fn header() -> ConfigSpace {
        let identity =
            Identity { vendor: 0x8086, device: 0x25ab, class: 0x08_8000, revision: 2, subsystem: (0x1af4, 0x1100) };
        let mut config = ConfigSpace::new(identity);
        config.make_writable(0x04, &[0x02]);
        config.add_bar(0, BarKind::Memory, WINDOW);
        config.make_writable(CONFIGURATION.into(), &[0x27]);
        config.make_writable(LOCK.into(), &[0x07]);
        config
    }

    fn flag(&self, register: u8, bit: u8) -> bool {
        self.config.read(register, Width::Byte) >> bit & 1 != 0
    }

    fn enabled(&self) -> bool {
        self.flag(LOCK, 1)
    }

    fn free_running(&self) -> bool {
        self.flag(LOCK, 2)
    }

    /// Starts a stage. A timer that runs freely has the second alone.
    fn start(&mut self, second: bool, now: Instant) {
        self.second = second || self.free_running();
        let shift = if self.flag(CONFIGURATION, 2) { 5 } else { 15 };
        let clocks = u64::from(self.preload[usize::from(self.second)]) << shift;
        self.end = Some(Instant::of_ticks(now.ticks(PCI_CLOCK) + clocks.max(SHORTEST), PCI_CLOCK));
    }

    /// When the stage ends: the adapter sets its timer to this.
    pub const fn next_event(&self) -> Option<Instant> {
        self.end
    }

    /// Lets time pass: whether the timer ran out, and its output says so.
    pub fn advance(&mut self, now: Instant) -> bool {
        if self.end.is_none_or(|end| now < end) {
            return false;
        }
        if !self.second {
            self.interrupt = true;
            self.start(true, now);
            return false;
        }
        self.timed_out = true;
        self.end = None;
        if self.free_running() {
            self.start(true, now);
        }
        !self.flag(CONFIGURATION, 5)
    }

    /// A configuration write.
    pub fn write_config(&mut self, offset: u8, width: Width, value: u32, now: Instant) {
        let (locked, was) = (self.flag(LOCK, 0), self.config.read(LOCK, Width::Byte));
        let running = self.enabled();
        self.config.write(offset, width, value);
        if locked {
            // Until the next reset.
            self.config.set(LOCK.into(), &[was as u8]);
        }
        match (running, self.enabled()) {
            (false, true) => self.start(false, now),
            (true, false) => self.end = None,
            _ => {}
        }
    }

    /// A read of the window.
    pub fn read(&self, offset: u64, width: Width) -> u32 {
        let value = match offset & !3 {
            register::PRELOAD_1 => self.preload[0],
            register::PRELOAD_2 => self.preload[1],
            register::INTERRUPT => self.interrupt.into(),
            _ if self.timed_out => TIMED_OUT,
            _ => 0,
        };
        (value >> (8 * (offset & 3))) & width.ones() as u32
    }

    /// A write to the window.
    pub fn write(&mut self, offset: u64, value: u32, now: Instant) {
        let open = usize::from(self.keys) == KEYS.len();
        match (offset, open) {
            (register::INTERRUPT, _) => {
                self.interrupt &= value & 1 == 0;
                return;
            }
            (register::RELOAD, false) => {
                let next = KEYS.get(usize::from(self.keys)) == Some(&value);
                self.keys = if next { self.keys + 1 } else { u8::from(value == KEYS[0]) };
                return;
            }
            (register::PRELOAD_1, true) => self.preload[0] = value & PRELOAD,
            (register::PRELOAD_2, true) => self.preload[1] = value & PRELOAD,
            (register::RELOAD, true) => {
                if value & RELOAD != 0 && self.enabled() {
                    self.start(false, now);
                }
                self.timed_out &= value & TIMED_OUT == 0;
            }
            _ => {}
        }
        self.keys = 0;
    }
}

mod state {
    use rhea_core::{Instant, LoadError, SaveState};

    use super::{KEYS, PRELOAD, Watchdog};

    /// Saved form of [`Watchdog`].
    #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    pub struct WatchdogV1 {
        /// Its configuration space.
        pub config: Vec<u8>,
        /// Preload values.
        pub preload: [u32; 2],
        /// How many of the keys were written.
        pub keys: u8,
        /// Whether the second stage runs.
        pub second: bool,
        /// When the stage ends.
        pub end: Option<Instant>,
        /// Whether the first stage ended.
        pub interrupt: bool,
        /// Whether the second stage ended.
        pub timed_out: bool,
    }

    impl SaveState for Watchdog {
        type State = WatchdogV1;

        fn save(&self) -> WatchdogV1 {
            let Self { config, preload, keys, second, end, interrupt, timed_out } = self.clone();
            WatchdogV1 { config: config.save(), preload, keys, second, end, interrupt, timed_out }
        }

        fn load(state: WatchdogV1) -> Result<Self, LoadError> {
            let WatchdogV1 { config: bytes, preload, keys, second, end, interrupt, timed_out } = state;
            if preload.iter().any(|value| value & !PRELOAD != 0) || usize::from(keys) > KEYS.len() {
                return Err(LoadError::invalid("Watchdog", "a value out of its range"));
            }
            let mut config = Self::header();
            config.restore(&bytes)?;
            Ok(Self { config, preload, keys, second, end, interrupt, timed_out })
        }
    }
}

/// The timer on a PCI bus.
pub struct PciWatchdog {
    chip: Mutex<Watchdog>,
    timer: Timer,
    windows: Windows,
    on_expiry: Box<dyn Fn() + Send + Sync>,
}

impl PciWatchdog {
    /// A timer that calls `on_expiry`, without its lock, when it runs out.
    pub fn new(
        timers: &Arc<TimerQueue>,
        memory: Arc<AddressSpace>,
        ports: Arc<PortSpace>,
        on_expiry: Box<dyn Fn() + Send + Sync>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|weak: &Weak<Self>| {
            let expired = Weak::clone(weak);
            let timer = timers.timer(move |_| {
                if let Some(watchdog) = expired.upgrade() {
                    watchdog.with(|_, _| ());
                }
            });
            let window = WindowTarget::Memory(Target::Mmio(Arc::new(Window(Weak::clone(weak)))));
            let windows = Windows::new(memory, ports, [Some(window), None, None, None, None, None]);
            Self { chip: Mutex::new(Watchdog::new()), timer, windows, on_expiry }
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut Watchdog, Instant) -> T) -> T {
        let now = self.timer.now();
        let mut chip = self.chip.lock();
        let expired = chip.advance(now);
        let result = change(&mut chip, now);
        let end = chip.next_event();
        if self.timer.deadline() != end {
            self.timer.set_or_cancel(end);
        }
        drop(chip);
        if expired {
            (self.on_expiry)();
        }
        result
    }

    fn show_window(&self) {
        let config = self.chip.lock().config.clone();
        self.windows.update(&config);
    }
}

impl PciFunction for PciWatchdog {
    fn read_config(&self, offset: u8, width: Width) -> u32 {
        self.chip.lock().config.read(offset, width)
    }

    fn write_config(&self, offset: u8, width: Width, value: u32) {
        self.with(|chip, now| chip.write_config(offset, width, value, now));
        self.show_window();
    }

    fn config(&self) -> ConfigSpace {
        self.chip.lock().config.clone()
    }

    fn set_forwarded(&self, forwarded: &Forwarded) {
        self.windows.set_forwarded(forwarded);
        self.show_window();
    }
}

impl Device for PciWatchdog {
    fn reset(&self) {
        self.with(|chip, _| *chip = Watchdog { timed_out: chip.timed_out, ..Watchdog::new() });
        self.show_window();
    }
}

impl Saveable for PciWatchdog {
    type Chip = Watchdog;
    const KIND: &'static str = "i6300esb";

    fn save(&self) -> WatchdogV1 {
        self.chip.lock().save()
    }

    fn restore(&self, state: WatchdogV1) -> Result<(), LoadError> {
        let saved = Watchdog::load(state)?;
        self.with(|chip, _| *chip = saved);
        self.show_window();
        Ok(())
    }
}

struct Window(Weak<PciWatchdog>);

impl Mmio for Window {
    fn name(&self) -> &str {
        "i6300esb"
    }

    fn read(&self, offset: u64, width: Width) -> u64 {
        let Some(watchdog) = self.0.upgrade() else { return u64::MAX };
        watchdog.with(|chip, _| chip.read(offset, width)).into()
    }

    fn write(&self, offset: u64, _: Width, value: u64) {
        if let Some(watchdog) = self.0.upgrade() {
            watchdog.with(|chip, now| chip.write(offset, value as u32, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;
    use rhea_core::Clock;

    use super::*;

    const BASE: u64 = 0xf000_0000;

    struct Bench {
        clock: Arc<Clock>,
        timers: Arc<TimerQueue>,
        memory: Arc<AddressSpace>,
        watchdog: Arc<PciWatchdog>,
        expired: Arc<AtomicUsize>,
    }

    impl Bench {
        fn new() -> Self {
            let clock = Clock::new();
            let timers = TimerQueue::new(Arc::clone(&clock));
            let (memory, ports) = (Arc::new(AddressSpace::default()), Arc::new(PortSpace::new()));
            let expired = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&expired);
            let on_expiry = Box::new(move || {
                counter.fetch_add(1, Ordering::Relaxed);
            });
            let watchdog = PciWatchdog::new(&timers, Arc::clone(&memory), ports, on_expiry);
            let bench = Self { clock, timers, memory, watchdog, expired };
            bench.place();
            bench
        }

        fn place(&self) {
            self.watchdog.write_config(0x10, Width::Dword, BASE as u32);
            self.watchdog.write_config(0x04, Width::Word, 2);
        }

        fn write(&self, offset: u64, value: u64) {
            self.memory.write_value(BASE + offset, Width::Dword, value);
        }

        fn open_and_write(&self, offset: u64, value: u64) {
            self.write(0xc, 0x80);
            self.write(0xc, 0x86);
            self.write(offset, value);
        }

        fn read(&self, offset: u64) -> u64 {
            self.memory.read_value(BASE + offset, Width::Dword)
        }

        fn at(&self, milliseconds: u64) {
            self.clock.set(Instant::of_ticks(milliseconds, 1000));
            self.timers.run_expired();
        }

        fn expired(&self) -> usize {
            self.expired.swap(0, Ordering::Relaxed)
        }
    }

    #[test]
    fn both_stages_pass_before_it_runs_out_and_that_is_remembered() {
        let bench = Bench::new();
        assert_eq!(bench.watchdog.read_config(0, Width::Dword), 0x25ab_8086);
        // A hundred units of 2^15 clocks, and two hundred.
        bench.open_and_write(0, 100);
        bench.open_and_write(4, 200);
        bench.watchdog.write_config(LOCK, Width::Byte, 2);
        bench.at(99);
        assert_eq!(bench.read(8), 0);
        bench.at(100);
        assert_eq!((bench.read(8), bench.expired()), (1, 0));
        bench.write(8, 1);
        bench.at(297);
        assert_eq!((bench.read(8), bench.read(0xc), bench.expired()), (0, 0, 0));
        bench.at(299);
        assert_eq!((bench.read(0xc), bench.expired()), (0x200, 1));
        bench.at(100_000);
        assert_eq!(bench.expired(), 0);
        bench.watchdog.reset();
        bench.place();
        assert_eq!((bench.read(0), bench.read(0xc)), (0xf_ffff, 0x200));
        bench.open_and_write(0xc, 0x200);
        assert_eq!(bench.watchdog.save(), {
            let fresh = Bench::new();
            fresh.watchdog.save()
        });
    }

    #[test]
    fn a_guest_that_tends_it_lives() {
        let bench = Bench::new();
        bench.open_and_write(0, 100);
        bench.open_and_write(4, 100);
        bench.watchdog.write_config(LOCK, Width::Byte, 2);
        for round in 1..20 {
            bench.at(150 * round);
            bench.open_and_write(0xc, 0x100);
        }
        assert_eq!(bench.expired(), 0);
        bench.watchdog.write_config(LOCK, Width::Byte, 0);
        bench.at(10_000);
        assert_eq!(bench.expired(), 0);
    }

    #[test]
    fn registers_open_for_one_write_after_both_keys() {
        let bench = Bench::new();
        bench.write(0, 1);
        bench.write(0xc, 0x86);
        bench.write(4, 1);
        assert_eq!((bench.read(0), bench.read(4)), (0xf_ffff, 0xf_ffff));
        bench.open_and_write(0, 0x12_3456);
        bench.write(0, 7);
        assert_eq!(bench.read(0), 0x2_3456);
        for key in [0x80, 0x80, 0x86] {
            bench.write(0xc, key);
        }
        bench.write(4, 5);
        assert_eq!(bench.read(4), 5);
    }

    #[test]
    fn a_locked_timer_cannot_be_stopped_and_a_disabled_output_says_nothing() {
        let bench = Bench::new();
        bench.watchdog.write_config(CONFIGURATION, Width::Word, 0x20);
        bench.open_and_write(0, 1);
        bench.open_and_write(4, 1);
        bench.watchdog.write_config(LOCK, Width::Byte, 3);
        bench.watchdog.write_config(LOCK, Width::Byte, 0);
        assert_eq!(bench.watchdog.read_config(LOCK, Width::Byte), 3);
        bench.at(2);
        bench.at(4);
        assert_eq!((bench.read(0xc), bench.expired()), (0x200, 0));
    }

    #[test]
    fn a_timer_that_runs_freely_starts_again_and_never_faster_than_the_host_bears() {
        let bench = Bench::new();
        bench.watchdog.write_config(CONFIGURATION, Width::Word, 4);
        bench.open_and_write(4, 0);
        bench.watchdog.write_config(LOCK, Width::Byte, 6);
        for millisecond in 1..=10 {
            bench.at(millisecond);
        }
        assert_eq!((bench.read(8), bench.expired()), (0, 10));
    }

    proptest! {
        #[test]
        fn any_access_is_harmless(ops in prop::collection::vec((0u8..5, any::<u8>(), 0u32..3, any::<u32>()), 0..100)) {
            let bench = Bench::new();
            let mut now = 0;
            for (op, offset, width, value) in ops {
                let width = Width::of(1 << width).unwrap();
                match op {
                    0 => bench.watchdog.write_config(offset, width, value),
                    1 => bench.memory.write_value(BASE + u64::from(offset % 18), width, value.into()),
                    2 => { bench.memory.read_value(BASE + u64::from(offset % 18), width); }
                    3 => bench.open_and_write(u64::from(offset % 16), value.into()),
                    _ => bench.watchdog.write_config(LOCK, Width::Byte, value & 7),
                }
                now += u64::from(value >> 12);
                bench.at(now);
                let state = bench.watchdog.save();
                prop_assert_eq!(Watchdog::load(state.clone()).unwrap().save(), state.clone());
                bench.watchdog.restore(state).unwrap();
            }
        }
    }

    #[test]
    fn a_state_that_cannot_be_is_refused() {
        let bench = Bench::new();
        let state = bench.watchdog.save();
        for bad in [
            WatchdogV1 { keys: 3, ..state.clone() },
            WatchdogV1 { preload: [0, 1 << 20], ..state.clone() },
            WatchdogV1 { config: Vec::new(), ..state },
        ] {
            assert!(bench.watchdog.restore(bad).is_err());
        }
    }
}
