//! The local APICs: one for each processor, and the bus on which they, the I/O APIC and devices send interrupts.
//!
//! Source: Intel SDM vol. 3A, ch. 10 (cited as §).
//!
//! Each APIC has its own lock. It is held while the APIC's own processor is signalled, so that signals keep their order,
//! and never while another APIC, the I/O APIC or the 8259A pair is called.

mod chip;
mod registers;

use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::{Mutex, RwLock};
use rhea_core::{Device, Instant, InterruptSink, LoadError, Mmio, SaveState, Timer, TimerQueue, Width, trace};

pub use chip::{Apic, ApicV1, DEFAULT_BASE, GeneralProtection, Recipients, Request, Signal, Vectors};
pub use registers::{
    ApicBase, DeliveryMode, ErrorStatus, InterruptCommand, InterruptMessage, LocalVector, Lvt, Register, Trigger, widen,
};

use super::pic::Pic;
use crate::{Saveable, lost_ticks::Taken};

/// IA32_APIC_BASE.
pub const MSR_APIC_BASE: u32 = 0x1b;
/// IA32_TSC_DEADLINE.
pub const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// First and last MSR of x2APIC mode.
pub const MSR_X2APIC: std::ops::RangeInclusive<u32> = 0x800..=0x83f;

/// The pins of a processor. They are driven under a lock of its local APIC: an implementation notes what it was told and
/// wakes the processor, and calls nothing here.
pub trait ProcessorPins: Send + Sync {
    /// The level of the interrupt request: while it stands, [`LocalApic::acknowledge`] is likely to give a vector.
    fn interrupt(&self, level: bool);
    /// A non-maskable interrupt.
    fn nmi(&self);
    /// INIT: the processor resets and waits for a start-up. Its APIC has reset already.
    fn init(&self);
    /// Start-up at physical address `vector` << 12, for a processor that waits for it.
    fn startup(&self, vector: u8);
}

/// Who is told when a level-triggered interrupt has been served.
pub trait EndOfInterrupt: Send + Sync {
    /// An EOI for `vector` was broadcast.
    fn end_of_interrupt(&self, vector: u8);
}

/// A local APIC as people look at it.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    /// Its registers.
    pub state: ApicV1,
    /// What its timer has left.
    pub current_count: u32,
    /// The processor priority.
    pub processor_priority: u8,
}

struct Inner {
    chip: Apic,
    /// What the processor was last told.
    requested: bool,
    armed: Option<Instant>,
}

/// The local APIC of one processor. Its memory window is private to that processor, which reaches it through [`Mmio`].
#[derive(rhea_core::object::Object)]
#[object(type = "apic", parent = "device")]
pub struct LocalApic {
    index: usize,
    id: u8,
    inner: Mutex<Inner>,
    pins: Arc<dyn ProcessorPins>,
    timer: Timer,
    bus: Weak<ApicBus>,
}

impl LocalApic {
    fn new(
        (index, id): (usize, u8),
        pins: Arc<dyn ProcessorPins>,
        timers: &Arc<TimerQueue>,
        bus: Weak<ApicBus>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|weak: &Weak<Self>| {
            let weak = Weak::clone(weak);
            let timer = timers.timer(move |now| {
                if let Some(apic) = weak.upgrade() {
                    // The chip lets time pass before each change; here there is none besides.
                    apic.with(now, |_| ());
                }
            });
            let inner = Inner { chip: Apic::new(id.into(), index == 0), requested: false, armed: None };
            Self { index, id, inner: Mutex::new(inner), pins, timer, bus }
        })
    }

    /// Lets time pass and changes the chip, then drives the processor and the timer as it then says.
    fn with<T>(&self, now: Instant, change: impl FnOnce(&mut Apic) -> T) -> T {
        let mut inner = self.inner.lock();
        let signal = inner.chip.advance(now);
        self.signal(signal);
        let result = change(&mut inner.chip);
        self.settle(&mut inner);
        result
    }

    /// As [`with`](Self::with) for what has nothing to do with time: the clock is not asked.
    fn with_timeless<T>(&self, change: impl FnOnce(&mut Apic) -> T) -> T {
        let mut inner = self.inner.lock();
        let result = change(&mut inner.chip);
        self.settle(&mut inner);
        result
    }

    /// An access to the register at `offset`; only those of the timer look at the clock.
    fn access<T>(&self, offset: u16, change: impl FnOnce(&mut Apic, Instant) -> T) -> T {
        match Register::at(offset) {
            Some(
                Register::InitialCount
                | Register::CurrentCount
                | Register::DivideConfiguration
                | Register::LocalVector(Lvt::Timer),
            ) => {
                let now = self.timer.now();
                self.with(now, |chip| change(chip, now))
            }
            _ => self.with_timeless(|chip| change(chip, Instant::ZERO)),
        }
    }

    fn settle(&self, inner: &mut Inner) {
        self.drive(inner);
        let expiry = inner.chip.next_expiry();
        if inner.armed != expiry {
            inner.armed = expiry;
            self.timer.set_or_cancel(expiry);
        }
    }

    fn drive(&self, inner: &mut Inner) {
        let requests = inner.chip.requests();
        if inner.requested != requests {
            inner.requested = requests;
            self.pins.interrupt(requests);
        }
    }

    fn signal(&self, signal: Signal) {
        match signal {
            Signal::Nothing => {}
            Signal::Nmi => self.pins.nmi(),
            Signal::Init => self.pins.init(),
            Signal::Startup(vector) => self.pins.startup(vector),
        }
    }

    fn perform(&self, request: Request) {
        let Some(bus) = self.bus.upgrade() else { return };
        match request {
            Request::Nothing => {}
            Request::Send(recipients, message) => bus.send_from(Some(self.index), recipients, &message),
            Request::EndOfInterrupt(vector) => bus.end_of_interrupt(vector),
        }
    }

    /// The number of the processor.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The identification that it was given.
    pub fn id(&self) -> u8 {
        self.id
    }

    /// Whether the processor's interrupt request is asserted.
    pub fn pending(&self) -> bool {
        self.inner.lock().chip.requests()
    }

    /// The processor takes an interrupt: its vector, from this APIC or, where that passes it, from the 8259A pair. None
    /// if the request went away meanwhile.
    pub fn acknowledge(&self) -> Option<u8> {
        let bus = self.bus.upgrade()?;
        let vector = self.take(&bus)?;
        bus.taken.say();
        Some(vector)
    }

    fn take(&self, bus: &ApicBus) -> Option<u8> {
        {
            let mut inner = self.inner.lock();
            if let Some(vector) = inner.chip.acknowledge() {
                self.drive(&mut inner);
                return Some(vector);
            }
            if !inner.chip.external() {
                return None;
            }
            inner.chip.acknowledged_external();
            self.drive(&mut inner);
        }
        bus.pic.get()?.upgrade()?.acknowledge_pending()
    }

    /// CR8: the upper four bits of the task priority.
    pub fn cr8(&self) -> u8 {
        self.inner.lock().chip.task_priority() >> 4
    }

    /// Writes CR8; bits above the fourth are dropped.
    pub fn set_cr8(&self, value: u8) {
        let mut inner = self.inner.lock();
        inner.chip.set_task_priority(value << 4);
        self.drive(&mut inner);
    }

    /// IA32_APIC_BASE.
    pub fn base(&self) -> ApicBase {
        self.inner.lock().chip.base()
    }

    /// Where the processor sees the registers in its memory; nowhere while the APIC is disabled or in x2APIC mode.
    pub fn window(&self) -> Option<u64> {
        let base = self.base();
        (base.enabled() && !base.x2apic()).then(|| base.page() << 12)
    }

    /// RDMSR of IA32_APIC_BASE and of the x2APIC registers.
    ///
    /// # Errors
    /// An MSR that is not there or not readable: #GP(0).
    pub fn read_msr(&self, msr: u32) -> Result<u64, GeneralProtection> {
        match msr {
            MSR_APIC_BASE => Ok(self.base().into()),
            0x800..=0x83f => {
                let index = (msr - MSR_X2APIC.start()) as u16;
                self.access(index << 4, |chip, now| chip.read_x2apic(index, now))
            }
            _ => Err(GeneralProtection),
        }
    }

    /// WRMSR of IA32_APIC_BASE and of the x2APIC registers.
    ///
    /// # Errors
    /// An MSR that is not there or not writable, or a value that it refuses: #GP(0).
    pub fn write_msr(&self, msr: u32, value: u64) -> Result<(), GeneralProtection> {
        match msr {
            MSR_APIC_BASE => self.with_timeless(|chip| chip.set_base(value)),
            0x800..=0x83f => {
                let index = (msr - MSR_X2APIC.start()) as u16;
                let request = self.access(index << 4, |chip, now| chip.write_x2apic(index, value, now))?;
                self.perform(request);
                Ok(())
            }
            _ => Err(GeneralProtection),
        }
    }

    /// IA32_TSC_DEADLINE: zero unless armed.
    pub fn tsc_deadline(&self) -> u64 {
        self.with(self.timer.now(), |chip| chip.tsc_deadline())
    }

    /// Writes IA32_TSC_DEADLINE; `at` is when the processor's time stamp counter reaches `value`.
    pub fn set_tsc_deadline(&self, value: u64, at: Instant) {
        let now = self.timer.now();
        self.with(now, |chip| chip.set_tsc_deadline(value, at));
        // A deadline in the past is due at once.
        self.with(now, |_| ());
    }

    /// What it holds now, for people.
    pub fn inspect(&self) -> Inspection {
        const CURRENT_COUNT: u16 = 0x390;
        let now = self.timer.now();
        self.with(now, |chip| Inspection {
            state: chip.save(),
            current_count: chip.read(CURRENT_COUNT, now),
            processor_priority: chip.processor_priority(),
        })
    }

    /// Drives pin LINT0 or LINT1.
    pub fn set_lint(&self, pin: usize, level: bool) {
        trace!(APIC_LOCAL_DELIVER, "processor {} pin {pin} level {}", self.index, u8::from(level));
        self.with_timeless(|chip| {
            let signal = chip.set_lint(pin, level);
            self.signal(signal);
        });
    }

    /// Sets the registers as firmware leaves them for a guest that is started without one: enabled by software, LINT1 is
    /// NMI, and on the bootstrap processor LINT0 passes the 8259A pair ("virtual wire", MultiProcessor Specification §3.6.2.2).
    pub fn set_virtual_wire(&self) {
        let now = self.timer.now();
        self.with(now, |chip| {
            let lint0 = if chip.base().bsp() { 0x0700 } else { 0x1_0700 };
            for (offset, value) in [(0x0f0, 0x1ff), (0x350, lint0), (0x360, 0x0400)] {
                // None of these asks anything of others.
                let _ = chip.write(offset, value, now);
            }
        });
    }

    fn accept(&self, message: &InterruptMessage) {
        self.with_timeless(|chip| {
            let signal = chip.accept(message);
            self.signal(signal);
        });
    }
}

impl Mmio for LocalApic {
    fn read(&self, offset: u64, _: Width) -> u64 {
        let offset = offset as u16 & 0xfff;
        // A register is 32 bits in a block of 16 bytes (§10.4.1); parts of it are read by shifting.
        if offset & 0xf > 3 {
            return 0;
        }
        let value = self.access(offset & 0xff0, |chip, now| chip.read(offset & 0xff0, now));
        trace!(APIC_REGISTER_READ, "register 0x{offset:03x} value 0x{value:x}");
        u64::from(value >> (8 * (offset & 3)))
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        let offset = offset as u16 & 0xfff;
        // §10.4.1: registers are written by aligned 32-bit accesses.
        if offset & 0xf != 0 || width < Width::Dword {
            return;
        }
        trace!(APIC_REGISTER_WRITE, "register 0x{offset:03x} value 0x{value:x}");
        let request = self.access(offset, |chip, now| chip.write(offset, value as u32, now));
        self.perform(request);
    }
}

impl Device for LocalApic {
    fn reset(&self) {
        self.with(self.timer.now(), |chip| *chip = Apic::new(self.id.into(), self.index == 0));
    }
}

impl Saveable for LocalApic {
    type Chip = Apic;
    const KIND: &'static str = "apic";

    fn save(&self) -> ApicV1 {
        self.inner.lock().chip.save()
    }

    fn restore(&self, state: ApicV1) -> Result<(), LoadError> {
        if state.initial_id != u32::from(self.id) {
            return Err(LoadError::invalid("Apic", "the state is of another processor"));
        }
        let apic = Apic::load(state)?;
        self.with(self.timer.now(), |chip| *chip = apic);
        Ok(())
    }
}

/// All local APICs of a machine and the wires between them. As an [`InterruptSink`], pin 0 is LINT0 of all of them (INTR
/// of the 8259A pair) and pin 1 is LINT1 (NMI).
pub struct ApicBus {
    own: Weak<Self>,
    timers: Arc<TimerQueue>,
    /// By number of their processor. Whoever goes through them holds no lock meanwhile.
    apics: RwLock<Arc<[Arc<LocalApic>]>>,
    /// The levels of the two pins, for APICs that come later.
    levels: [AtomicBool; 2],
    pic: OnceLock<Weak<Pic>>,
    io_apic: OnceLock<Weak<dyn EndOfInterrupt>>,
    taken: Arc<Taken>,
}

impl ApicBus {
    /// A bus on which there is no APIC yet.
    pub fn new(timers: &Arc<TimerQueue>) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            own: Weak::clone(own),
            timers: Arc::clone(timers),
            apics: RwLock::new(Arc::new([])),
            levels: Default::default(),
            pic: OnceLock::new(),
            io_apic: OnceLock::new(),
            taken: Arc::default(),
        })
    }

    /// Where timers hear that processors take interrupts.
    pub fn taken(&self) -> &Arc<Taken> {
        &self.taken
    }

    /// Whether a vector waits to be taken at one of those that a message names.
    pub fn is_requested(&self, message: &InterruptMessage) -> bool {
        let vectored = matches!(message.mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority);
        let waits = |apic: &Arc<LocalApic>| {
            let inner = apic.inner.lock();
            inner.chip.is_addressed(message) && inner.chip.is_requested(message.vector)
        };
        vectored && self.apics().iter().any(waits)
    }

    /// Puts the APIC of processor `index` on the bus, in the place of one that was there; processor 0 is the bootstrap
    /// processor.
    pub fn plug(&self, index: usize, id: u8, pins: Arc<dyn ProcessorPins>) -> Arc<LocalApic> {
        let apic = LocalApic::new((index, id), pins, &self.timers, Weak::clone(&self.own));
        {
            let mut apics = self.apics.write();
            let others = apics.iter().filter(|other| other.index != index).cloned();
            let mut list: Vec<_> = others.chain([Arc::clone(&apic)]).collect();
            list.sort_by_key(|apic| apic.index);
            *apics = list.into();
        }
        for (pin, level) in self.levels.iter().enumerate() {
            apic.set_lint(pin, level.load(Ordering::SeqCst));
        }
        apic
    }

    /// Takes the APIC of processor `index` off the bus: nothing reaches it any more.
    pub fn unplug(&self, index: usize) {
        let mut apics = self.apics.write();
        *apics = apics.iter().filter(|apic| apic.index != index).cloned().collect();
    }

    /// Names the 8259A pair whose INTR drives pin 0, to ask it for vectors. Once.
    pub fn connect_pic(&self, pic: &Arc<Pic>) {
        let _ = self.pic.set(Arc::downgrade(pic));
    }

    /// Names who hears of EOIs. Once.
    pub fn connect_io_apic(&self, io_apic: Weak<dyn EndOfInterrupt>) {
        let _ = self.io_apic.set(io_apic);
    }

    /// The local APICs, by rising number of their processor.
    pub fn apics(&self) -> Arc<[Arc<LocalApic>]> {
        Arc::clone(&self.apics.read())
    }

    /// Delivers an interrupt of the I/O APIC or of a device.
    pub fn send(&self, message: &InterruptMessage) {
        self.send_from(None, Recipients::Addressed, message);
    }

    /// A device's write of `data` to the message address space from 0xfee0_0000.
    pub fn send_msi(&self, address: u64, data: u32) {
        self.send(&InterruptMessage::from_msi(address, data));
    }

    fn send_from(&self, sender: Option<usize>, recipients: Recipients, message: &InterruptMessage) {
        trace!(APIC_DELIVER_IRQ, "{message:?}");
        let is_sender = |apic: &LocalApic| Some(apic.index) == sender;
        let receives = |apic: &LocalApic| match recipients {
            Recipients::Addressed => apic.inner.lock().chip.is_addressed(message),
            Recipients::Sender => is_sender(apic),
            Recipients::All => true,
            Recipients::Others => !is_sender(apic),
        };
        let apics = self.apics();
        let receivers = apics.iter().filter(|apic| receives(apic));
        if message.mode == DeliveryMode::LowestPriority {
            // §10.6.2.4: one of those that take interrupts, the one with the least urgent work.
            let candidates = receivers.filter_map(|apic| {
                let inner = apic.inner.lock();
                inner.chip.takes_interrupts().then(|| (inner.chip.processor_priority(), apic))
            });
            if let Some((_, apic)) = candidates.min_by_key(|(priority, _)| *priority) {
                apic.accept(message);
            }
        } else {
            receivers.for_each(|apic| apic.accept(message));
        }
    }

    fn end_of_interrupt(&self, vector: u8) {
        if let Some(io_apic) = self.io_apic.get().and_then(Weak::upgrade) {
            io_apic.end_of_interrupt(vector);
        }
    }
}

impl InterruptSink for ApicBus {
    fn set_level(&self, pin: u32, level: bool) {
        if let Some(known) = self.levels.get(pin as usize) {
            known.store(level, Ordering::SeqCst);
        }
        for apic in self.apics().iter() {
            apic.set_lint(pin as usize, level);
        }
    }
}

impl Device for ApicBus {
    fn reset(&self) {
        for apic in self.apics().iter() {
            apic.reset();
        }
    }
}

#[cfg(test)]
mod tests;
