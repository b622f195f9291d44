//! The CMOS clock: an MC146818A at ports 0x70 and 0x71, with the 128 bytes of memory that its battery keeps.

mod chip;
mod dates;
mod periodic;

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use rhea_core::{
    Device, HostTime, InterruptLine, LoadError, PortIo, PortSpace, SaveState, Timer, TimerQueue, Width, trace,
};

pub use chip::{CENTURY, Moment, Register, RegisterA, RegisterB, RegisterC, Rtc, RtcV1};
pub use dates::{Base, Follows, RtcOptions};

use crate::{Saveable, lost_ticks::LostTickPolicy};
use dates::Dates;

/// How often an event of the date is looked for, where what the date follows may be set and go on without the machine.
const RECHECK: Duration = Duration::from_secs(1);

/// The clock at its ISA ports.
#[derive(rhea_core::object::Object)]
#[object(type = "mc146818rtc", parent = "isa-device")]
pub struct IsaRtc {
    /// What becomes of periodic interrupts that the guest does not take in time.
    #[property(name = "lost_tick_policy", default = LostTickPolicy::Discard)]
    lost_tick_policy: LostTickPolicy,
    chip: Mutex<Rtc>,
    dates: Dates,
    line: InterruptLine,
    timer: Timer,
    changed: OnceLock<Box<dyn Fn(i64) + Send + Sync>>,
}

impl IsaRtc {
    /// A clock as `options` say on `host`'s time that interrupts on `line` (interrupt 8).
    pub fn new(
        timers: &Arc<TimerQueue>,
        line: InterruptLine,
        options: &RtcOptions,
        host: Arc<dyn HostTime>,
    ) -> Arc<Self> {
        let dates = Dates::new(options, host);
        let mut chip = Rtc::starting_at(dates.at_zero(), dates.now(timers.clock().now()));
        chip.set_policy(options.lost_tick_policy);
        Arc::new_cyclic(|weak: &Weak<Self>| {
            let weak = Weak::clone(weak);
            let timer = timers.timer(move |_| {
                if let Some(rtc) = weak.upgrade() {
                    rtc.with(|_, _| ());
                }
            });
            Self {
                lost_tick_policy: options.lost_tick_policy,
                chip: Mutex::new(chip),
                dates,
                line,
                timer,
                changed: OnceLock::new(),
            }
        })
    }

    /// Puts the ports 0x70 and 0x71 into `ports`.
    pub fn map(self: &Arc<Self>, ports: &PortSpace) {
        ports.map(0x70, 2, Arc::clone(self) as Arc<dyn PortIo>);
    }

    /// Whom to tell when the guest has set the clock: by how many seconds it is now ahead of one on the same base that
    /// follows the host and was never set. Called without the clock's lock. Set once.
    pub fn on_set_time(&self, callback: Box<dyn Fn(i64) + Send + Sync>) {
        let _ = self.changed.set(callback);
    }

    /// Sets a byte of plain memory.
    pub fn set_memory(&self, index: u8, value: u8) {
        self.chip.lock().set_memory(index, value);
    }

    /// Says in the memory how much RAM there is, as firmware reads it: `below` bytes under 4 GiB, `above` over it.
    pub fn set_memory_size(&self, below: u64, above: u64) {
        const KIB: u64 = 1024;
        const MIB: u64 = 1024 * KIB;
        let base = (below / KIB).min(640);
        let extended = (below.saturating_sub(MIB) / KIB).min(0xffff);
        let over_16m = (below.saturating_sub(16 * MIB) / (64 * KIB)).min(0xffff);
        let over_4g = (above / (64 * KIB)).min(0xff_ffff);
        let fields =
            [(0x15, base, 2), (0x17, extended, 2), (0x30, extended, 2), (0x34, over_16m, 2), (0x5b, over_4g, 3)];
        let mut chip = self.chip.lock();
        for (index, value, bytes) in fields {
            for byte in 0..bytes {
                chip.set_memory(index + byte, (value >> (8 * byte)) as u8);
            }
        }
    }

    /// Forgets the periodic interrupts that the guest is still to get.
    pub fn reset_reinjection(&self) {
        self.with(|chip, _| chip.forget_owed());
    }

    /// Whether the guest masks NMIs by bit 7 of port 0x70.
    pub fn nmi_masked(&self) -> bool {
        self.chip.lock().nmi_masked()
    }

    fn with<T>(&self, change: impl FnOnce(&mut Rtc, Moment) -> T) -> T {
        let mut chip = self.chip.lock();
        let now = self.dates.now(self.timer.now());
        chip.advance(now);
        let result = change(&mut chip, now);
        self.line.set(chip.interrupt());
        let mut event = chip.next_event(now);
        if self.dates.follows != Follows::Machine && chip.next_date_event(now).is_some() {
            let recheck = now.machine.saturating_add(RECHECK);
            event = event.map(|event| event.min(recheck));
        }
        self.timer.set_or_cancel(event);
        result
    }

    fn set_byte(&self, value: u8) {
        let (set, shown) = self.with(|chip, now| (chip.write(value, now), chip.shown(now)));
        if let (true, Some(callback)) = (set, self.changed.get()) {
            let ahead = shown - self.dates.unset();
            // To the nearest second: a guest that sets the clock right is not told to be off.
            let seconds = (ahead + 499_999_999).div_euclid(1_000_000_000);
            callback(i64::try_from(seconds).unwrap_or(i64::MAX));
        }
    }
}

impl PortIo for IsaRtc {
    fn name(&self) -> &str {
        "rtc"
    }

    fn read(&self, offset: u16, _: Width) -> u32 {
        // The index port is write-only.
        let value = if offset == 0 { 0xff } else { self.with(Rtc::read) };
        trace!(RTC_IOPORT_READ, "addr 0x{offset:02x} val 0x{value:02x}");
        value.into()
    }

    fn write(&self, offset: u16, _: Width, value: u32) {
        trace!(RTC_IOPORT_WRITE, "addr 0x{offset:02x} val 0x{value:02x}");
        if offset == 0 {
            self.chip.lock().select(value as u8);
        } else {
            self.set_byte(value as u8);
        }
    }
}

impl Device for IsaRtc {
    fn reset(&self) {
        self.with(|chip, _| chip.reset());
    }
}

impl Saveable for IsaRtc {
    type Chip = Rtc;
    const KIND: &'static str = "mc146818rtc";

    fn save(&self) -> RtcV1 {
        self.with(|chip, _| chip.save())
    }

    fn restore(&self, state: RtcV1) -> Result<(), LoadError> {
        let mut rtc = Rtc::load(state)?;
        rtc.set_policy(self.lost_tick_policy);
        self.dates.go_on_from(rtc.seen());
        *self.chip.lock() = rtc;
        self.with(|_, _| ());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rhea_core::{Clock, Instant};

    use super::*;

    /// 13 February 2009, 23:31:30, a Friday.
    const BASE: i64 = 1_234_567_890;

    /// A host whose clocks stand where they were put.
    #[derive(Default)]
    struct Host {
        since_1970: Mutex<Duration>,
        steady: Mutex<Duration>,
        local_offset: Mutex<i64>,
    }

    impl Host {
        fn pass(&self, seconds: u64) {
            *self.since_1970.lock() += Duration::from_secs(seconds);
            *self.steady.lock() += Duration::from_secs(seconds);
        }
    }

    impl HostTime for Host {
        fn since_1970(&self) -> Duration {
            *self.since_1970.lock()
        }

        fn local_offset(&self) -> i64 {
            *self.local_offset.lock()
        }

        fn steady(&self) -> Duration {
            *self.steady.lock()
        }
    }

    struct Bench {
        host: Arc<Host>,
        clock: Arc<Clock>,
        timers: Arc<TimerQueue>,
        rtc: Arc<IsaRtc>,
        offsets: Arc<Mutex<Vec<i64>>>,
    }

    impl Bench {
        /// The host's clock is at `BASE` and half a second.
        fn new(base: Base, follows: Follows) -> Self {
            let host = Arc::new(Host::default());
            *host.since_1970.lock() = Duration::from_secs(BASE as u64) + Duration::from_millis(500);
            *host.steady.lock() = Duration::from_secs(77);
            *host.local_offset.lock() = 3600;
            let clock = Clock::told();
            let timers = TimerQueue::new(Arc::clone(&clock));
            let options = RtcOptions { base, follows, lost_tick_policy: LostTickPolicy::Discard };
            let as_host = Arc::clone(&host) as Arc<dyn HostTime>;
            let rtc = IsaRtc::new(&timers, InterruptLine::unconnected(), &options, as_host);
            let offsets = Arc::new(Mutex::new(Vec::new()));
            let log = Arc::clone(&offsets);
            rtc.on_set_time(Box::new(move |offset| log.lock().push(offset)));
            Self { host, clock, timers, rtc, offsets }
        }

        fn put(&self, index: u8, value: u8) {
            self.rtc.write(0, Width::Byte, index.into());
            self.rtc.write(1, Width::Byte, value.into());
        }

        fn get(&self, index: u8) -> u8 {
            self.rtc.write(0, Width::Byte, index.into());
            self.rtc.read(1, Width::Byte) as u8
        }

        /// Hour, minute and second.
        fn time(&self) -> [u8; 3] {
            [4, 2, 0].map(|index| self.get(index))
        }

        /// Machine and host go on.
        fn pass(&self, seconds: u64) {
            self.host.pass(seconds);
            self.clock.set(self.clock.now().saturating_add(Duration::from_secs(seconds)));
        }
    }

    #[test]
    fn a_base_is_utc_local_time_or_a_date() {
        for follows in [Follows::Host, Follows::Steady, Follows::Machine] {
            let shown = |base| {
                let bench = Bench::new(base, follows);
                bench.pass(5);
                ([CENTURY, 9, 8, 7].map(|index| bench.get(index)), bench.time())
            };
            assert_eq!(shown(Base::Utc), ([0x20, 0x09, 0x02, 0x13], [0x23, 0x31, 0x35]));
            assert_eq!(shown(Base::LocalTime), ([0x20, 0x09, 0x02, 0x14], [0x00, 0x31, 0x35]));
            assert_eq!(shown(Base::Date(-3600)), ([0x19, 0x69, 0x12, 0x31], [0x23, 0x00, 0x05]));
        }
    }

    #[test]
    fn each_source_of_the_date_goes_on_in_its_way() {
        let shown = |follows| {
            let bench = Bench::new(Base::Utc, follows);
            // The machine is stopped for 10 seconds.
            bench.host.pass(10);
            let stopped = bench.time();
            // Somebody sets the host's clock, one hour forward.
            *bench.host.since_1970.lock() += Duration::from_secs(3600);
            (stopped, bench.time())
        };
        assert_eq!(shown(Follows::Host), ([0x23, 0x31, 0x40], [0x00, 0x31, 0x40]));
        assert_eq!(shown(Follows::Steady), ([0x23, 0x31, 0x40], [0x23, 0x31, 0x40]));
        assert_eq!(shown(Follows::Machine), ([0x23, 0x31, 0x30], [0x23, 0x31, 0x30]));
    }

    #[test]
    fn an_alarm_is_found_after_the_hosts_clock_was_set() {
        let bench = Bench::new(Base::Utc, Follows::Host);
        // At 23:50:00.
        for (index, value) in [(1, 0), (3, 0x50), (5, 0x23), (0xb, 0x22)] {
            bench.put(index, value);
        }
        *bench.host.since_1970.lock() += Duration::from_secs(1200);
        bench.timers.run_until(Instant::from_nanos(999_999_999));
        assert!(!bench.rtc.chip.lock().interrupt());
        bench.timers.run_until(Instant::from_nanos(1_000_000_000));
        assert!(bench.rtc.chip.lock().interrupt());
    }

    #[test]
    fn setting_the_time_is_reported_as_the_offset_from_the_base_on_the_hosts_clock() {
        for base in [Base::Utc, Base::LocalTime, Base::Date(86_400 * 365)] {
            for follows in [Follows::Host, Follows::Steady, Follows::Machine] {
                let bench = Bench::new(base, follows);
                bench.pass(10);
                let minute = bench.get(2);
                bench.put(2, minute + 1);
                bench.put(2, minute);
                assert_eq!(*bench.offsets.lock(), [60, 0], "{base:?} {follows:?}");
            }
        }
        // What the machine missed while it was stopped is part of it, for a manager who starts it again.
        let bench = Bench::new(Base::Utc, Follows::Machine);
        bench.host.pass(100);
        bench.put(2, 0x32);
        assert_eq!(*bench.offsets.lock(), [-40]);
        // So is a summer that began meanwhile.
        let bench = Bench::new(Base::LocalTime, Follows::Host);
        *bench.host.local_offset.lock() = 7200;
        bench.put(2, 0x31);
        assert_eq!(*bench.offsets.lock(), [-3600]);
    }

    #[test]
    fn a_clock_that_is_set_as_operating_systems_do_is_reported_once() {
        let bench = Bench::new(Base::Utc, Follows::Host);
        bench.put(0xb, 0x82);
        for (index, value) in [(4, 0x22), (2, 0x31), (0, 0x30)] {
            bench.put(index, value);
        }
        bench.put(0xa, 0x76);
        bench.put(0xb, 0x02);
        assert!(bench.offsets.lock().is_empty());
        bench.put(0xa, 0x26);
        assert_eq!(*bench.offsets.lock(), [-3600]);
        assert_eq!(bench.time(), [0x22, 0x31, 0x30]);
    }

    #[test]
    fn reset_turns_interrupts_off_and_keeps_time_and_memory() {
        let bench = Bench::new(Base::Date(BASE), Follows::Machine);
        bench.rtc.reset();
        assert_eq!(*bench.rtc.chip.lock(), Rtc::new(BASE));
        for (index, value) in [(0xb, 0x72), (0x40, 7)] {
            bench.put(index, value);
        }
        bench.rtc.reset();
        assert_eq!(bench.timers.next_deadline(), None);
        bench.rtc.write(0, Width::Byte, 0xc0);
        assert!(bench.rtc.nmi_masked());
        assert_eq!(bench.rtc.read(1, Width::Byte), 7);
    }

    #[test]
    fn a_saved_clock_goes_on_in_another_process_as_what_it_follows_does() {
        for (follows, shown) in [
            (Follows::Host, [0x23, 0x32, 0x40]),
            (Follows::Steady, [0x23, 0x31, 0x40]),
            (Follows::Machine, [0x23, 0x31, 0x40]),
        ] {
            let old = Bench::new(Base::Utc, follows);
            old.pass(10);
            let saved = old.rtc.save();
            let new = Bench::new(Base::Utc, follows);
            *new.host.since_1970.lock() += Duration::from_secs(70);
            new.clock.set(old.clock.now());
            new.rtc.restore(saved.clone()).unwrap();
            assert_eq!(new.time(), shown, "{follows:?}");
            old.rtc.restore(saved.clone()).unwrap();
            assert_eq!(old.rtc.save(), saved);
        }
    }

    #[test]
    fn a_line_that_ticks_once_for_all_that_were_lost_falls_in_between() {
        let timers = TimerQueue::new(Clock::told());
        let tap = rhea_core::Tap::new(1, Arc::new(Nowhere));
        let log: Arc<Mutex<Vec<bool>>> = Arc::default();
        let heard = Arc::clone(&log);
        tap.listen(Some(Arc::new(move |_, level| heard.lock().push(level))));
        let options = RtcOptions { lost_tick_policy: LostTickPolicy::Merge, ..RtcOptions::default() };
        let line = InterruptLine::new(tap, 0);
        let rtc = IsaRtc::new(&timers, line, &options, Arc::new(Host::default()));
        for (index, value) in [(0xa, 0x26), (0xb, 0x42), (0xc, 0)] {
            rtc.write(0, Width::Byte, index);
            rtc.write(1, Width::Byte, value);
        }
        timers.run_until(Instant::from_nanos(10_000_000));
        rtc.read(1, Width::Byte);
        timers.run_until(Instant::from_nanos(10_100_000));
        assert_eq!(*log.lock(), [true, false, true]);
    }

    struct Nowhere;

    impl rhea_core::InterruptSink for Nowhere {
        fn set_level(&self, _: u32, _: bool) {}
    }

    #[test]
    fn the_memory_says_how_much_ram_there_is() {
        let bench = Bench::new(Base::Utc, Follows::Machine);
        bench.rtc.set_memory_size(512 << 20, 1 << 30);
        let bytes = [0x15, 0x16, 0x17, 0x18, 0x34, 0x35, 0x5b, 0x5c, 0x5d].map(|index| bench.get(index));
        assert_eq!(bytes, [0x80, 2, 0xff, 0xff, 0, 0x1f, 0, 0x40, 0]);
    }
}
