//! The power management registers alone: fixed events, the timer, sleep requests and general-purpose events.
//!
//! Source: ACPI specification 5.0, §4.8 (cited as §); Intel 290562, "82371AB (PIIX4)", ch. 7.

use bitfield_struct::bitfield;
use rhea_core::{Instant, Width};
use serde::{Deserialize, Serialize};

pub use state::PowerManagementV1;

use crate::chipset::pci::{ConfigSpace, Identity, VIRTUAL_MACHINE};

/// Ticks of the power management timer a second (§4.8.2.1).
pub const TIMER_FREQUENCY: u64 = 3_579_545;
/// Bits of the timer.
const TIMER_BITS: u32 = 24;

/// PMBASE, the base of the registers in I/O space.
const PMBASE: u8 = 0x40;
/// PMREGMISC: whether they are decoded.
const PMREGMISC: u8 = 0x80;

/// PM1 status register (§4.8.3.1.1).
#[bitfield(u16)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Bit 23 of the timer changed.
    pub timer: bool,
    #[bits(3)]
    __: u8,
    /// A bus master asked for the bus.
    pub bus_master: bool,
    /// Firmware let go of the global lock.
    pub global: bool,
    #[bits(2)]
    __: u8,
    /// The power button was pressed.
    pub power_button: bool,
    /// The sleep button was pressed.
    pub sleep_button: bool,
    /// The clock's alarm went off.
    pub rtc: bool,
    #[bits(4)]
    __: u8,
    /// The machine woke up.
    pub wake: bool,
}

/// Status bits that raise the SCI where the enable register has them.
const EVENTS: u16 = 0x0721;

/// PM1 control register (§4.8.3.2.1).
#[bitfield(u16)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// Events raise the SCI, and not an SMI.
    pub sci_enable: bool,
    /// A bus master wakes the processor from C3.
    pub bus_master_reload: bool,
    /// Tells firmware that the global lock is free.
    pub global_release: bool,
    #[bits(7)]
    __: u8,
    /// The sleep type that SLP_EN enters.
    #[bits(3)]
    pub sleep_type: u8,
    /// Enters the sleep type; reads as zero.
    pub sleep_enable: bool,
    #[bits(2)]
    __: u8,
}

/// What the guest sets of it, but SLP_EN.
const CONTROL_WRITABLE: u16 = 0x1c03;

/// Where the guest asks the machine to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SleepRequest {
    /// Suspend to RAM, sleep type 1.
    S3,
    /// Suspend to disk, sleep type 2.
    S4,
    /// Power off, sleep type 0.
    S5,
}

impl SleepRequest {
    /// Its sleep type, as the DSDT has to name it.
    pub const fn sleep_type(self) -> u8 {
        match self {
            Self::S3 => 1,
            Self::S4 => 2,
            Self::S5 => 0,
        }
    }
}

/// What woke the machine up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeCause {
    /// The power button.
    PowerButton,
    /// The sleep button.
    SleepButton,
    /// The clock's alarm.
    Rtc,
    /// Something that has no status bit here.
    Other,
}

/// A 32-bit block of the registers at PMBASE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    /// PM1 status and enable.
    Events,
    /// PM1 control.
    Control,
    /// Power management timer.
    Timer,
    /// What is not used here.
    Other,
}

impl Block {
    const fn at(offset: u16) -> Self {
        match offset & !3 {
            0 => Self::Events,
            4 => Self::Control,
            8 => Self::Timer,
            _ => Self::Other,
        }
    }
}

/// The chip alone.
#[derive(Clone, Debug, PartialEq)]
pub struct PowerManagement {
    pub(super) config: ConfigSpace,
    status: u16,
    enable: u16,
    control: u16,
    gpe_status: u16,
    gpe_enable: u16,
    /// APM control and status ports, 0xb2 and 0xb3.
    apm: [u8; 2],
    /// Up to when the timer's status is right.
    seen: Instant,
}

/// The high byte of DEVACTB (PIIX4 §7.1.10).
const DEVACTB_HIGH: usize = 0x5b;

impl PowerManagement {
    /// A chip after power-on whose registers firmware has put at `base`, unless that is zero.
    pub fn new(base: u16) -> Self {
        let mut chip = Self {
            config: Self::header(),
            status: 0,
            enable: 0,
            control: 0,
            gpe_status: 0,
            gpe_enable: 0,
            apm: [0; 2],
            seen: Instant::ZERO,
        };
        if base != 0 {
            chip.config.write(PMBASE, Width::Dword, base.into());
            chip.config.write(PMREGMISC, Width::Byte, 1);
        }
        chip
    }

    fn header() -> ConfigSpace {
        let identity =
            Identity { vendor: 0x8086, device: 0x7113, class: 0x06_8000, revision: 3, subsystem: VIRTUAL_MACHINE };
        let mut config = ConfigSpace::new(identity);
        config.set(0x06, &0x0280_u16.to_le_bytes());
        // PIIX4 §7.1: I/O space enable, interrupt 9 by INTA#.
        config.make_writable(0x04, &[0x01]);
        config.set_interrupt_pin(1);
        config.set(0x3c, &[9]);
        config.set(PMBASE.into(), &[1]);
        config.make_writable(PMBASE.into(), &[0xc0, 0xff]);
        // Counts, general-purpose event and device activity controls: kept.
        config.make_writable(0x44, &[0xff; 0x3c]);
        // Device activity B, APMC_EN: firmware takes this for the sign that system management mode, which is not there, is
        // set up.
        config.set(DEVACTB_HIGH, &[0x02]);
        config.make_writable(PMREGMISC.into(), &[0x01]);
        // SMBus host base and configuration: there is no host controller behind them.
        config.set(0x90, &[1]);
        config.make_writable(0x90, &[0xf0, 0xff]);
        config.make_writable(0xd2, &[0x1f]);
        config
    }

    /// Where the 64 ports are decoded, if anywhere.
    pub fn base(&self) -> Option<u16> {
        let base = u16::from_le_bytes([self.config.byte(PMBASE) & 0xc0, self.config.byte(PMBASE + 1)]);
        (self.config.byte(PMREGMISC) & 1 != 0 && base != 0).then_some(base)
    }

    fn ticks(now: Instant) -> u64 {
        now.ticks(TIMER_FREQUENCY)
    }

    /// Lets time pass: the timer's status bit is set when its top bit changes, every 2.3 seconds.
    pub fn advance(&mut self, now: Instant) {
        let turns = |at: Instant| Self::ticks(at) >> (TIMER_BITS - 1);
        if now > self.seen {
            if turns(now) > turns(self.seen) {
                self.status = Status::from(self.status).with_timer(true).into();
            }
            self.seen = now;
        }
    }

    /// When the line next rises by itself: the adapter sets its timer to this.
    pub fn next_event(&self, now: Instant) -> Option<Instant> {
        let enabled = Status::from(self.enable).timer() && Control::from(self.control).sci_enable();
        if !enabled || Status::from(self.status).timer() {
            return None;
        }
        let turn = Self::ticks(now) >> (TIMER_BITS - 1);
        Some(Instant::of_ticks((turn + 1) << (TIMER_BITS - 1), TIMER_FREQUENCY))
    }

    /// The level of the SCI.
    pub fn sci(&self) -> bool {
        let events = self.status & self.enable & EVENTS != 0 || self.gpe_status & self.gpe_enable != 0;
        Control::from(self.control).sci_enable() && events
    }

    fn block(&self, offset: u16, now: Instant) -> u32 {
        match Block::at(offset) {
            Block::Events => u32::from(self.status) | u32::from(self.enable) << 16,
            Block::Control => self.control.into(),
            Block::Timer => Self::ticks(now) as u32 & ((1 << TIMER_BITS) - 1),
            Block::Other => 0,
        }
    }

    /// A read at PMBASE; time must have advanced to now.
    pub fn read(&self, offset: u16, width: Width, now: Instant) -> u32 {
        let blocks = u64::from(self.block(offset, now)) | u64::from(self.block(offset.wrapping_add(4), now)) << 32;
        (blocks >> (8 * (offset & 3))) as u32 & width.ones() as u32
    }

    /// A write at PMBASE; time must have advanced to now.
    pub fn write(&mut self, offset: u16, width: Width, value: u32) -> Option<SleepRequest> {
        let shift = 8 * (offset & 3);
        let (value, mask) = (u64::from(value) << shift, (width.ones() & 0xffff_ffff) << shift);
        let high = self.write_block(offset.wrapping_add(4), (value >> 32) as u32, (mask >> 32) as u32);
        self.write_block(offset, value as u32, mask as u32).or(high)
    }

    fn write_block(&mut self, offset: u16, value: u32, mask: u32) -> Option<SleepRequest> {
        let (low, low_mask) = (value as u16, mask as u16);
        match Block::at(offset) {
            Block::Events => {
                // §4.8.3.1.1: ones clear.
                self.status &= !(low & low_mask);
                let (value, mask) = ((value >> 16) as u16, (mask >> 16) as u16 & EVENTS);
                self.enable = self.enable & !mask | value & mask;
                None
            }
            Block::Control => {
                let mask = low_mask & CONTROL_WRITABLE;
                self.control = self.control & !mask | low & mask;
                let enter = Control::from(low & low_mask).sleep_enable();
                match Control::from(self.control).sleep_type() {
                    0 if enter => Some(SleepRequest::S5),
                    1 if enter => Some(SleepRequest::S3),
                    2 if enter => Some(SleepRequest::S4),
                    _ => None,
                }
            }
            Block::Timer | Block::Other => None,
        }
    }

    /// A byte of the general-purpose event block: two of status, two of enable (§4.8.4.1).
    pub const fn read_gpe(&self, offset: u16) -> u8 {
        let [status, enable] = [self.gpe_status.to_le_bytes(), self.gpe_enable.to_le_bytes()];
        match offset & 3 {
            0 => status[0],
            1 => status[1],
            2 => enable[0],
            _ => enable[1],
        }
    }

    /// A write to it.
    pub const fn write_gpe(&mut self, offset: u16, value: u8) {
        let shift = 8 * (offset & 1);
        if offset & 2 == 0 {
            self.gpe_status &= !((value as u16) << shift);
        } else {
            self.gpe_enable = self.gpe_enable & !(0xff << shift) | (value as u16) << shift;
        }
    }

    /// Sets a general-purpose event's status.
    pub fn raise_gpe(&mut self, event: u8) {
        if event < 16 {
            self.gpe_status |= 1 << event;
        }
    }

    /// A read of port 0xb2 (0) or 0xb3 (1).
    pub const fn read_apm(&self, offset: u16) -> u8 {
        self.apm[(offset & 1) as usize]
    }

    /// A write to them. There is no system management mode; what firmware would do there for the FADT's commands is done
    /// here (§4.7.2.5).
    pub fn write_apm(&mut self, offset: u16, value: u8) {
        self.apm[usize::from(offset & 1)] = value;
        let control = Control::from(self.control);
        match (offset & 1, value) {
            (0, ACPI_ENABLE) => self.control = control.with_sci_enable(true).into(),
            (0, ACPI_DISABLE) => self.control = control.with_sci_enable(false).into(),
            _ => {}
        }
    }

    /// Something happened that has a status bit.
    pub fn event(&mut self, event: Status) {
        self.status |= u16::from(event) & EVENTS;
    }

    /// Whether the clock's alarm has gone off and is to wake a machine that sleeps (§4.8.3.1.2, RTC_EN).
    pub fn alarm_wakes(&self) -> bool {
        Status::from(self.status & self.enable).rtc()
    }

    /// The machine woke up.
    pub fn wake(&mut self, cause: WakeCause) {
        let status = Status::from(self.status).with_wake(true);
        self.status = match cause {
            WakeCause::PowerButton => status.with_power_button(true),
            WakeCause::SleepButton => status.with_sleep_button(true),
            WakeCause::Rtc => status.with_rtc(true),
            WakeCause::Other => status,
        }
        .into();
    }
}

/// What port 0xb2 takes to switch ACPI on, as the FADT says.
pub const ACPI_ENABLE: u8 = 0xf1;
/// And off.
pub const ACPI_DISABLE: u8 = 0xf0;

mod state {
    use rhea_core::{Instant, LoadError, SaveState};

    use super::{CONTROL_WRITABLE, EVENTS, PowerManagement};

    /// Saved form of [`PowerManagement`].
    #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    pub struct PowerManagementV1 {
        /// Its configuration space.
        pub config: Vec<u8>,
        /// PM1 status.
        pub status: u16,
        /// PM1 enable.
        pub enable: u16,
        /// PM1 control.
        pub control: u16,
        /// General-purpose event status.
        pub gpe_status: u16,
        /// General-purpose event enable.
        pub gpe_enable: u16,
        /// APM control and status.
        pub apm: [u8; 2],
        /// Up to when the timer's status is right.
        pub seen: Instant,
    }

    impl SaveState for PowerManagement {
        type State = PowerManagementV1;

        fn save(&self) -> PowerManagementV1 {
            let Self { config, status, enable, control, gpe_status, gpe_enable, apm, seen } = self.clone();
            let config = config.save();
            PowerManagementV1 { config, status, enable, control, gpe_status, gpe_enable, apm, seen }
        }

        fn load(state: PowerManagementV1) -> Result<Self, LoadError> {
            let PowerManagementV1 { config: bytes, status, enable, control, gpe_status, gpe_enable, apm, seen } = state;
            if enable & !EVENTS != 0 || control & !CONTROL_WRITABLE != 0 || status & !(EVENTS | 0x8010) != 0 {
                return Err(LoadError::invalid("PowerManagement", "a reserved bit is set"));
            }
            let mut config = Self::header();
            config.restore(&bytes)?;
            Ok(Self { config, status, enable, control, gpe_status, gpe_enable, apm, seen })
        }
    }
}
