//! Power management: function 3 of the PIIX4, with its registers in I/O space and the SCI.
//!
//! Source: ACPI specification 5.0, §4.8 (cited as §); Intel 290562, "82371AB (PIIX4)", ch. 7.

use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use rhea_core::{
    Device, Instant, InterruptLine, InterruptSink, LoadError, PortIo, PortSpace, SaveState, Timer, TimerQueue, Width,
    trace,
};

pub use super::chip::{
    ACPI_DISABLE, ACPI_ENABLE, Control, PowerManagement, PowerManagementV1, SleepRequest, Status, TIMER_FREQUENCY,
    WakeCause,
};

use crate::{
    Saveable,
    chipset::pci::{ConfigSpace, PciFunction},
};

/// Where firmware puts the registers on a PC.
pub const DEFAULT_BASE: u16 = 0x600;
/// Ports of the registers.
const LENGTH: u32 = 64;
/// The general-purpose event block.
pub const GPE_BASE: u16 = 0xafe0;
/// The ports by which ACPI is switched on and off.
pub const SMI_COMMAND: u16 = 0xb2;

/// Which sleep states firmware is not to tell of, where that is not 0. The chip has them all the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct HiddenStates {
    /// Suspend to RAM.
    pub s3: u8,
    /// Suspend to disk.
    pub s4: u8,
}

struct Inner {
    chip: PowerManagement,
    /// Where the registers are mapped.
    mapped: Option<u16>,
}

/// The listener for sleep requests.
type OnSleep = Box<dyn Fn(SleepRequest) + Send + Sync>;

/// The listener for what wakes a machine that sleeps.
type OnWake = Box<dyn Fn(WakeCause) + Send + Sync>;

/// Power management as function 3 of slot 1.
#[derive(rhea_core::object::Object)]
#[object(type = "PIIX4_PM", parent = "pci-device")]
pub struct Pm {
    /// 1 leaves suspend to RAM out of the firmware's tables.
    #[property(name = "disable_s3", default = 0)]
    disable_s3: u8,
    /// 1 leaves suspend to disk out of the firmware's tables.
    #[property(name = "disable_s4", default = 0)]
    disable_s4: u8,
    inner: Mutex<Inner>,
    base: u16,
    sci: InterruptLine,
    timer: Timer,
    ports: Arc<PortSpace>,
    /// The windows at PMBASE, which moves, at the event block and at the APM ports.
    registers: Arc<dyn PortIo>,
    on_sleep: OnceLock<OnSleep>,
    on_wake: OnceLock<OnWake>,
}

impl Pm {
    /// A chip in `ports`, with its registers at `base` (0: nowhere until the guest says so), that drives `sci` (9).
    pub fn new(
        timers: &Arc<TimerQueue>,
        sci: InterruptLine,
        ports: Arc<PortSpace>,
        base: u16,
        hidden: HiddenStates,
    ) -> Arc<Self> {
        let pm = Arc::new_cyclic(|weak: &Weak<Self>| {
            let expired = Weak::clone(weak);
            let timer = timers.timer(move |_| {
                if let Some(pm) = expired.upgrade() {
                    pm.with(|_, _| ());
                }
            });
            let registers = Arc::new(Window { pm: Weak::clone(weak), part: Part::Registers });
            let inner = Mutex::new(Inner { chip: PowerManagement::new(base), mapped: None });
            let HiddenStates { s3: disable_s3, s4: disable_s4 } = hidden;
            Self {
                disable_s3,
                disable_s4,
                inner,
                base,
                sci,
                timer,
                ports,
                registers,
                on_sleep: OnceLock::new(),
                on_wake: OnceLock::new(),
            }
        });
        let window = |part| Arc::new(Window { pm: Arc::downgrade(&pm), part });
        pm.ports.map(GPE_BASE, 4, window(Part::Events));
        pm.ports.map(SMI_COMMAND, 2, window(Part::Apm));
        pm.reset();
        pm
    }

    /// The sleep states that firmware is to tell of.
    pub fn offered(&self) -> Vec<SleepRequest> {
        let hidden = |request: &SleepRequest| match request {
            SleepRequest::S3 => self.disable_s3 != 0,
            SleepRequest::S4 => self.disable_s4 != 0,
            SleepRequest::S5 => false,
        };
        [SleepRequest::S3, SleepRequest::S4, SleepRequest::S5].into_iter().filter(|request| !hidden(request)).collect()
    }

    /// What to call, without the chip's lock, when the guest sleeps or powers off. Set once.
    pub fn on_sleep(&self, callback: OnSleep) {
        let _ = self.on_sleep.set(callback);
    }

    /// What to call, without the chip's lock, when something happens that wakes the machine if it sleeps. Set once.
    pub fn on_wake(&self, callback: OnWake) {
        let _ = self.on_wake.set(callback);
    }

    /// Wakes the machine if the alarm has gone off.
    fn heed_alarm(&self) {
        if self.inner.lock().chip.alarm_wakes()
            && let Some(callback) = self.on_wake.get()
        {
            callback(WakeCause::Rtc);
        }
    }

    /// The power button is pressed and let go.
    pub fn press_power_button(&self) {
        self.with(|chip, _| chip.event(Status::new().with_power_button(true)));
    }

    /// The sleep button is pressed and let go.
    pub fn press_sleep_button(&self) {
        self.with(|chip, _| chip.event(Status::new().with_sleep_button(true)));
    }

    /// The machine comes back from sleep; to be called after the reset that belongs to it.
    pub fn wake(&self, cause: WakeCause) {
        self.with(|chip, _| chip.wake(cause));
    }

    /// Raises general-purpose event `event`, 0 to 15.
    pub fn raise_gpe(&self, event: u8) {
        self.with(|chip, _| chip.raise_gpe(event));
    }

    /// Whether the operating system has switched ACPI on.
    pub fn is_acpi_enabled(&self) -> bool {
        Control::from(self.inner.lock().chip.read(4, Width::Word, Instant::ZERO) as u16).sci_enable()
    }

    fn with<T>(&self, change: impl FnOnce(&mut PowerManagement, Instant) -> T) -> T {
        let now = self.timer.now();
        let mut inner = self.inner.lock();
        inner.chip.advance(now);
        let result = change(&mut inner.chip, now);
        self.sci.set(inner.chip.sci());
        let event = inner.chip.next_event(now);
        if self.timer.deadline() != event {
            self.timer.set_or_cancel(event);
        }
        let base = inner.chip.base();
        if inner.mapped != base {
            if inner.mapped.is_some() {
                self.ports.unmap(&self.registers);
            }
            if let Some(base) = base {
                self.ports.map(base, LENGTH, Arc::clone(&self.registers));
            }
            inner.mapped = base;
        }
        result
    }
}

impl PciFunction for Pm {
    fn read_config(&self, offset: u8, width: Width) -> u32 {
        self.inner.lock().chip.config.read(offset, width)
    }

    fn write_config(&self, offset: u8, width: Width, value: u32) {
        self.with(|chip, _| chip.config.write(offset, width, value));
    }

    fn config(&self) -> ConfigSpace {
        self.inner.lock().chip.config.clone()
    }
}

/// Pin 0 is interrupt 8 of the clock, which is an event here beside being an interrupt (PIIX4 §7.2.1.1, RTC_STS).
impl InterruptSink for Pm {
    fn set_level(&self, _: u32, level: bool) {
        if level {
            self.with(|chip, _| chip.event(Status::new().with_rtc(true)));
            self.heed_alarm();
        }
    }
}

impl Device for Pm {
    fn reset(&self) {
        self.with(|chip, now| {
            *chip = PowerManagement::new(self.base);
            // The timer ran before: what it did then is no event now.
            chip.advance(now);
            let _ = chip.write(0, Width::Word, 0xffff);
        });
    }
}

impl Saveable for Pm {
    type Chip = PowerManagement;
    const KIND: &'static str = "PIIX4_PM";

    fn save(&self) -> PowerManagementV1 {
        self.inner.lock().chip.save()
    }

    fn restore(&self, state: PowerManagementV1) -> Result<(), LoadError> {
        let chip = PowerManagement::load(state)?;
        self.with(|old, _| *old = chip);
        Ok(())
    }
}

enum Part {
    Registers,
    Events,
    Apm,
}

struct Window {
    pm: Weak<Pm>,
    part: Part,
}

impl PortIo for Window {
    fn name(&self) -> &str {
        match self.part {
            Part::Registers => "piix4-pm",
            Part::Events => "acpi-gpe0",
            Part::Apm => "apm-io",
        }
    }

    fn read(&self, offset: u16, width: Width) -> u32 {
        let Some(pm) = self.pm.upgrade() else { return u32::MAX };
        match self.part {
            Part::Registers => {
                let now = pm.timer.now();
                let chip = &mut pm.inner.lock().chip;
                // If this sees the timer's event, the SCI follows by the timer that is set for it.
                chip.advance(now);
                chip.read(offset, width, now)
            }
            Part::Events => {
                let value = pm.inner.lock().chip.read_gpe(offset);
                if offset & 2 == 0 {
                    trace!(ACPI_GPE_STS_IOPORT_READB, "addr 0x{offset:x} ==> {value}");
                } else {
                    trace!(ACPI_GPE_EN_IOPORT_READB, "addr 0x{offset:x} ==> {value}");
                }
                value.into()
            }
            Part::Apm => pm.inner.lock().chip.read_apm(offset).into(),
        }
    }

    fn write(&self, offset: u16, width: Width, value: u32) {
        let Some(pm) = self.pm.upgrade() else { return };
        match self.part {
            Part::Registers => {
                let request = pm.with(|chip, _| chip.write(offset, width, value));
                if let (Some(request), Some(callback)) = (request, pm.on_sleep.get()) {
                    callback(request);
                    // Who goes to sleep after the alarm wakes at once.
                    pm.heed_alarm();
                }
            }
            Part::Events => {
                if offset & 2 == 0 {
                    trace!(ACPI_GPE_STS_IOPORT_WRITEB, "addr 0x{offset:x} <== {value}");
                } else {
                    trace!(ACPI_GPE_EN_IOPORT_WRITEB, "addr 0x{offset:x} <== {value}");
                }
                pm.with(|chip, _| chip.write_gpe(offset, value as u8));
            }
            Part::Apm => pm.with(|chip, _| chip.write_apm(offset, value as u8)),
        }
    }

    fn widest(&self) -> Width {
        match self.part {
            Part::Registers => Width::Dword,
            Part::Events | Part::Apm => Width::Byte,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use proptest::prelude::*;
    use rhea_core::Clock;

    use super::*;

    #[derive(Default)]
    struct Level(AtomicBool);

    impl InterruptSink for Level {
        fn set_level(&self, _: u32, level: bool) {
            self.0.store(level, Ordering::Relaxed);
        }
    }

    struct Bench {
        clock: Arc<Clock>,
        timers: Arc<TimerQueue>,
        ports: Arc<PortSpace>,
        pm: Arc<Pm>,
        sci: Arc<Level>,
    }

    impl Bench {
        fn new() -> Self {
            let clock = Clock::new();
            let timers = TimerQueue::new(Arc::clone(&clock));
            let (ports, sci) = (Arc::new(PortSpace::new()), Arc::new(Level::default()));
            let line = InterruptLine::new(Arc::clone(&sci) as _, 0);
            let pm = Pm::new(&timers, line, Arc::clone(&ports), DEFAULT_BASE, HiddenStates::default());
            Self { clock, timers, ports, pm, sci }
        }

        fn sci(&self) -> bool {
            self.sci.0.load(Ordering::Relaxed)
        }

        fn enable(&self) {
            self.ports.write(0xb2, Width::Byte, 0xf1);
        }

        fn tick(&self, tick: u64) {
            self.clock.set(Instant::of_ticks(tick, TIMER_FREQUENCY));
            self.timers.run_expired();
        }
    }

    #[test]
    fn the_timer_counts_24_bits_and_reports_each_change_of_the_top_one() {
        let bench = Bench::new();
        bench.enable();
        bench.ports.write(0x602, Width::Word, 1);
        bench.tick(0x7f_ffff);
        assert_eq!((bench.ports.read(0x608, Width::Dword), bench.sci()), (0x7f_ffff, false));
        bench.tick(0x80_0000);
        assert_eq!((bench.ports.read(0x600, Width::Word), bench.sci()), (1, true));
        bench.ports.write(0x600, Width::Word, 1);
        assert!(!bench.sci());
        bench.tick(0x100_0001);
        assert_eq!((bench.ports.read(0x608, Width::Dword), bench.sci()), (1, true));
        assert_eq!(bench.ports.read(0x609, Width::Word), 0);
    }

    #[test]
    fn the_power_button_raises_the_sci_where_acpi_is_on() {
        let bench = Bench::new();
        bench.ports.write(0x602, Width::Word, 0x100);
        bench.pm.press_power_button();
        assert!(!bench.sci() && !bench.pm.is_acpi_enabled());
        bench.enable();
        assert!(bench.sci() && bench.pm.is_acpi_enabled());
        assert_eq!(bench.ports.read(0x600, Width::Dword), 0x0100_0100);
        bench.ports.write(0x600, Width::Word, 0x100);
        assert!(!bench.sci());
        bench.ports.write(0xb2, Width::Byte, 0xf0);
        assert_eq!(bench.ports.read(0x604, Width::Word), 0);
    }

    #[test]
    fn sleep_enable_asks_for_the_sleep_type_and_reads_as_zero() {
        let bench = Bench::new();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&heard);
        bench.pm.on_sleep(Box::new(move |request| log.lock().push(request)));
        bench.ports.write(0x604, Width::Word, 1 << 10);
        assert_eq!(*heard.lock(), []);
        bench.ports.write(0x604, Width::Word, 1 << 13 | 1 << 10);
        bench.ports.write(0x605, Width::Byte, 1 << 5);
        // A sleep type that no state has.
        bench.ports.write(0x604, Width::Word, 1 << 13 | 7 << 10);
        assert_eq!(*heard.lock(), [SleepRequest::S3, SleepRequest::S5]);
        assert_eq!(bench.ports.read(0x604, Width::Word), 7 << 10);
        for request in [SleepRequest::S3, SleepRequest::S4, SleepRequest::S5] {
            heard.lock().clear();
            bench.ports.write(0x604, Width::Word, 1 << 13 | u32::from(request.sleep_type()) << 10);
            assert_eq!(*heard.lock(), [request]);
        }
    }

    #[test]
    fn waking_up_leaves_its_cause() {
        let bench = Bench::new();
        bench.pm.wake(WakeCause::Rtc);
        assert_eq!(bench.ports.read(0x600, Width::Word), 0x8400);
        bench.ports.write(0x600, Width::Word, 0x8000);
        assert_eq!(bench.ports.read(0x600, Width::Word), 0x0400);
    }

    #[test]
    fn the_alarm_wakes_where_enabled_and_also_who_sleeps_too_late() {
        let bench = Bench::new();
        let heard: Arc<Mutex<Vec<WakeCause>>> = Arc::default();
        let log = Arc::clone(&heard);
        bench.pm.on_sleep(Box::new(|_| ()));
        bench.pm.on_wake(Box::new(move |cause| log.lock().push(cause)));
        bench.pm.set_level(0, true);
        assert!(heard.lock().is_empty());
        bench.ports.write(0x600, Width::Dword, 0x0400_0400);
        bench.pm.set_level(0, false);
        bench.pm.set_level(0, true);
        assert_eq!(*heard.lock(), [WakeCause::Rtc]);
        bench.ports.write(0x604, Width::Word, 1 << 13 | 1 << 10);
        assert_eq!(*heard.lock(), [WakeCause::Rtc; 2]);
        bench.ports.write(0x600, Width::Word, 0x0400);
        bench.ports.write(0x604, Width::Word, 1 << 13 | 1 << 10);
        assert_eq!(*heard.lock(), [WakeCause::Rtc; 2]);
    }

    #[test]
    fn the_clocks_interrupt_is_an_event() {
        let bench = Bench::new();
        bench.enable();
        bench.ports.write(0x602, Width::Word, 0x400);
        bench.pm.set_level(0, false);
        assert!(!bench.sci());
        bench.pm.set_level(0, true);
        assert!(bench.sci());
    }

    #[test]
    fn general_purpose_events_raise_the_sci_where_enabled() {
        let bench = Bench::new();
        bench.enable();
        bench.pm.raise_gpe(9);
        assert!(!bench.sci());
        bench.ports.write(0xafe2, Width::Word, 0x0200);
        assert!(bench.sci());
        assert_eq!(bench.ports.read(0xafe0, Width::Dword), 0x0200_0200);
        bench.ports.write(0xafe1, Width::Byte, 2);
        assert!(!bench.sci());
    }

    #[test]
    fn the_registers_move_with_their_base() {
        let bench = Bench::new();
        bench.pm.wake(WakeCause::Other);
        bench.pm.write_config(0x40, Width::Dword, 0xb001);
        assert_eq!(bench.ports.read(0x600, Width::Word), 0xffff);
        assert_eq!(bench.ports.read(0xb000, Width::Word), 0x8000);
        bench.pm.write_config(0x80, Width::Byte, 0);
        assert_eq!(bench.ports.read(0xb000, Width::Word), 0xffff);
        assert_eq!(bench.pm.read_config(0, Width::Dword), 0x7113_8086);
        bench.pm.reset();
        assert_eq!(bench.ports.read(0x600, Width::Word), 0);
        assert_eq!(bench.pm.inner.lock().chip, PowerManagement::new(DEFAULT_BASE));
    }

    proptest! {
        #[test]
        fn any_access_is_harmless(ops in prop::collection::vec((0u8..6, any::<u16>(), 0u32..3, any::<u32>()), 0..100)) {
            let bench = Bench::new();
            let mut tick = 0;
            for (op, offset, width, value) in ops {
                let width = Width::of(1 << width).unwrap();
                match op {
                    0 => bench.ports.write(DEFAULT_BASE + offset % 72, width, value),
                    1 => { bench.ports.read(DEFAULT_BASE + offset % 72, width); }
                    2 => bench.ports.write(GPE_BASE + offset % 5, width, value),
                    3 => bench.ports.write(SMI_COMMAND + offset % 2, width, value),
                    4 => bench.pm.write_config(offset as u8, width, value),
                    _ => bench.pm.raise_gpe(offset as u8),
                }
                tick += u64::from(value);
                bench.tick(tick);
                let chip = bench.pm.inner.lock().chip.clone();
                prop_assert_eq!(PowerManagement::load(chip.save()).unwrap(), chip);
            }
        }
    }
}
