//! The local APIC alone: priorities, local vectors, timer and interrupt command, without bus or processor.
//!
//! Source: Intel SDM vol. 3A, ch. 10 (cited as §).

use rhea_core::Instant;
use std::time::Duration;

use super::registers::{
    ApicBase, DeliveryMode, ErrorStatus, InterruptCommand, InterruptMessage, LocalVector, Lvt, Register, Trigger, widen,
};

pub use state::ApicV1;

/// Where the registers are after power-on.
pub const DEFAULT_BASE: u64 = 0xfee0_0000;

/// Version 0x14 with six local vectors: an APIC of the Pentium 4 and later (§10.4.8).
const VERSION: u32 = 0x0005_0014;

/// Software enable, bit 8 of the spurious vector register (§10.9).
const SOFTWARE_ENABLE: u32 = 1 << 8;

/// What to do with an x2APIC access that the architecture refuses: #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("general protection fault by an APIC register")]
pub struct GeneralProtection;

/// Who gets an interprocessor interrupt (§10.6.1, destination shorthand).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// Those whom the destination names.
    Addressed,
    /// The sender.
    Sender,
    /// Everybody.
    All,
    /// Everybody but the sender.
    Others,
}

/// What an access asks of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Nothing.
    Nothing,
    /// Send an interrupt.
    Send(Recipients, InterruptMessage),
    /// Tell the I/O APICs that a level-triggered vector was served.
    EndOfInterrupt(u8),
}

/// What an interrupt does to the processor besides asking for acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Nothing.
    Nothing,
    /// NMI.
    Nmi,
    /// INIT.
    Init,
    /// Start-up at a page.
    Startup(u8),
}

/// 256 vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Vectors([u32; 8]);

impl Vectors {
    fn word(&self, index: usize) -> u32 {
        self.0[index & 7]
    }

    fn set(&mut self, vector: u8) {
        self.0[usize::from(vector >> 5)] |= 1 << (vector & 31);
    }

    fn clear(&mut self, vector: u8) {
        self.0[usize::from(vector >> 5)] &= !(1 << (vector & 31));
    }

    fn has(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 5)] & 1 << (vector & 31) != 0
    }

    /// The vectors that are set, by number.
    pub fn iter(&self) -> impl Iterator<Item = u8> + use<'_> {
        (0..=u8::MAX).filter(|&vector| self.has(vector))
    }

    /// Whether `vector` is set.
    pub fn contains(&self, vector: u8) -> bool {
        self.has(vector)
    }

    fn highest(&self) -> Option<u8> {
        let word = self.0.iter().rposition(|&word| word != 0)?;
        Some((word * 32 + self.0[word].ilog2() as usize) as u8)
    }
}

/// One local APIC.
#[derive(Clone, Debug, PartialEq)]
pub struct Apic {
    /// The ID given at power-on; that of x2APIC mode.
    initial_id: u32,
    /// The ID register of xAPIC mode.
    id: u8,
    base: u64,
    tpr: u8,
    ldr: u8,
    dfr: u32,
    svr: u32,
    isr: Vectors,
    tmr: Vectors,
    irr: Vectors,
    /// Errors as the last write of the error status register latched them, and those since.
    esr: u32,
    errors: u32,
    icr: u64,
    lvt: [u32; 6],
    divide: u8,
    initial_count: u32,
    /// The timer's count at `count_from`; zero where it stands still.
    count: u32,
    count_from: Instant,
    /// IA32_TSC_DEADLINE while armed, and when the counter reaches it.
    tsc_deadline: u64,
    deadline: Option<Instant>,
    /// The levels of LINT0 and LINT1.
    lint: [bool; 2],
    /// A message with delivery mode ExtINT came and was not acknowledged yet.
    ext_int: bool,
}

impl Apic {
    /// An APIC after power-on (§10.4.7.1): enabled globally, disabled by software, local vectors masked.
    pub fn new(id: u32, bsp: bool) -> Self {
        let base = ApicBase::from(DEFAULT_BASE).with_enabled(true).with_bsp(bsp);
        Self {
            initial_id: id,
            id: id as u8,
            base: base.into(),
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: 0xff,
            isr: Vectors::default(),
            tmr: Vectors::default(),
            irr: Vectors::default(),
            esr: 0,
            errors: 0,
            icr: 0,
            lvt: [LocalVector::new().with_masked(true).into_bits(); 6],
            divide: 0,
            initial_count: 0,
            count: 0,
            count_from: Instant::ZERO,
            tsc_deadline: 0,
            deadline: None,
            lint: [false; 2],
            ext_int: false,
        }
    }

    /// INIT (§10.4.7.3): as power-on, but the ID, the base and the levels at the pins stay.
    pub fn init(&mut self) {
        let new = Self::new(self.initial_id, self.base().bsp());
        *self = Self { base: self.base, id: self.id, lint: self.lint, ..new };
    }

    /// IA32_APIC_BASE.
    pub fn base(&self) -> ApicBase {
        self.base.into()
    }

    /// Writes IA32_APIC_BASE.
    ///
    /// # Errors
    /// Reserved bits, and the changes of mode that figure 10-27 does not have.
    pub fn set_base(&mut self, value: u64) -> Result<(), GeneralProtection> {
        let (old, new) = (self.base(), ApicBase::from(value));
        let reserved = value & 0xfff0_0000_0000_02ff != 0;
        let forbidden = matches!(
            (old.enabled(), old.x2apic(), new.enabled(), new.x2apic()),
            (_, _, false, true) | (false, _, true, true) | (true, true, true, false)
        );
        if reserved || forbidden {
            return Err(GeneralProtection);
        }
        if old.enabled() && !new.enabled() {
            self.init();
            self.id = self.initial_id as u8;
        }
        self.base = new.with_bsp(old.bsp()).into();
        Ok(())
    }

    fn x2apic(&self) -> bool {
        self.base().x2apic()
    }

    fn software_enabled(&self) -> bool {
        self.base().enabled() && self.svr & SOFTWARE_ENABLE != 0
    }

    fn logical_id(&self) -> u32 {
        if self.x2apic() {
            // §10.12.10.2: cluster and bit follow from the ID.
            self.initial_id >> 4 << 16 | 1 << (self.initial_id & 0xf)
        } else {
            u32::from(self.ldr) << 24
        }
    }

    /// Whether a message's destination names this APIC (§10.6.2).
    pub fn is_addressed(&self, message: &InterruptMessage) -> bool {
        let destination = message.destination;
        if !self.base().enabled() {
            return false;
        }
        match (message.logical, self.x2apic()) {
            (false, true) => destination == u32::MAX || destination == self.initial_id,
            (false, false) => destination == u32::MAX || destination == u32::from(self.id),
            (true, true) => {
                let own = self.logical_id();
                destination == u32::MAX || destination >> 16 == own >> 16 && destination & own & 0xffff != 0
            }
            (true, false) if self.dfr >> 28 == 0xf => destination & u32::from(self.ldr) != 0,
            (true, false) => {
                let cluster = destination >> 4 & 0xf;
                (cluster == u32::from(self.ldr >> 4) || cluster == 0xf) && destination & u32::from(self.ldr) & 0xf != 0
            }
        }
    }

    /// The processor priority (§10.8.3.1).
    pub fn processor_priority(&self) -> u8 {
        let in_service = self.isr.highest().unwrap_or(0) & 0xf0;
        if self.tpr & 0xf0 >= in_service { self.tpr } else { in_service }
    }

    /// Whether the arbitration for lowest priority considers this APIC.
    pub fn takes_interrupts(&self) -> bool {
        self.software_enabled()
    }

    /// The vector that is due, if its class is above the processor priority.
    pub fn deliverable(&self) -> Option<u8> {
        let vector = self.irr.highest()?;
        (self.software_enabled() && vector >> 4 > self.processor_priority() >> 4).then_some(vector)
    }

    /// Whether the external interrupt controller's request passes to the processor: through LINT0 in ExtINT mode, or
    /// straight to the bootstrap processor while the APIC is disabled (§10.4.3).
    pub fn external(&self) -> bool {
        if !self.base().enabled() {
            return self.base().bsp() && self.lint[0];
        }
        let lint0 = self.local(Lvt::Lint0);
        let passes = !lint0.masked() && DeliveryMode::decode(lint0.mode()) == DeliveryMode::ExtInt;
        passes && self.lint[0] || self.ext_int
    }

    /// The level of the processor's interrupt request.
    pub fn requests(&self) -> bool {
        self.deliverable().is_some() || self.external()
    }

    /// Whether a vector waits to be taken.
    pub fn is_requested(&self, vector: u8) -> bool {
        self.irr.has(vector)
    }

    /// The processor takes the due vector (§10.8.4).
    pub fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.deliverable()?;
        self.irr.clear(vector);
        self.isr.set(vector);
        Some(vector)
    }

    /// The processor asked the external controller.
    pub fn acknowledged_external(&mut self) {
        self.ext_int = false;
    }

    /// Takes an interrupt that is addressed to this APIC.
    pub fn accept(&mut self, message: &InterruptMessage) -> Signal {
        match message.mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
                if message.vector < 16 {
                    self.error(ErrorStatus::new().with_received_illegal_vector(true));
                } else if self.software_enabled() {
                    self.irr.set(message.vector);
                    match message.trigger {
                        Trigger::Level => self.tmr.set(message.vector),
                        Trigger::Edge => self.tmr.clear(message.vector),
                    }
                }
            }
            DeliveryMode::ExtInt => self.ext_int = true,
            DeliveryMode::Nmi => return Signal::Nmi,
            DeliveryMode::Init => {
                self.init();
                return Signal::Init;
            }
            DeliveryMode::Startup => return Signal::Startup(message.vector),
            // There is no system management mode here.
            DeliveryMode::Smi | DeliveryMode::Reserved => {}
        }
        Signal::Nothing
    }

    fn local(&self, entry: Lvt) -> LocalVector {
        self.lvt[entry as usize].into()
    }

    fn error(&mut self, error: ErrorStatus) {
        self.errors |= u32::from(error);
        let entry = self.local(Lvt::Error);
        if !entry.masked() && self.software_enabled() {
            if entry.vector() >= 16 {
                self.irr.set(entry.vector());
                self.tmr.clear(entry.vector());
            } else {
                self.errors |= u32::from(ErrorStatus::new().with_received_illegal_vector(true));
            }
        }
    }

    /// A local source asks (§10.5.1).
    fn local_interrupt(&mut self, entry: Lvt) -> Signal {
        let vector = self.local(entry);
        if vector.masked() {
            return Signal::Nothing;
        }
        let mode = match entry {
            // The timer has no delivery mode.
            Lvt::Timer | Lvt::Error => DeliveryMode::Fixed,
            _ => DeliveryMode::decode(vector.mode()),
        };
        let level = entry == Lvt::Lint0 && vector.level() && mode == DeliveryMode::Fixed;
        match mode {
            // The level of LINT0 says it, see `external`.
            DeliveryMode::ExtInt => return Signal::Nothing,
            _ if level && vector.remote_irr() => return Signal::Nothing,
            _ if level => self.lvt[entry as usize] = vector.with_remote_irr(true).into(),
            _ => {}
        }
        let trigger = if level { Trigger::Level } else { Trigger::Edge };
        let (destination, logical) = (self.initial_id, false);
        self.accept(&InterruptMessage { destination, logical, mode, vector: vector.vector(), trigger })
    }

    /// Drives pin LINT0 or LINT1.
    pub fn set_lint(&mut self, pin: usize, level: bool) -> Signal {
        let Some(line) = self.lint.get_mut(pin) else { return Signal::Nothing };
        let rises = level && !*line;
        *line = level;
        match (rises, pin) {
            (false, _) => Signal::Nothing,
            (true, 0) if self.base().enabled() => self.local_interrupt(Lvt::Lint0),
            (true, 1) if self.base().enabled() => self.local_interrupt(Lvt::Lint1),
            (true, 1) => Signal::Nmi,
            (true, _) => Signal::Nothing,
        }
    }

    fn end_of_interrupt(&mut self) -> Request {
        let Some(vector) = self.isr.highest() else { return Request::Nothing };
        self.isr.clear(vector);
        if !self.tmr.has(vector) {
            return Request::Nothing;
        }
        let lint0 = self.local(Lvt::Lint0);
        if lint0.remote_irr() && lint0.vector() == vector {
            self.lvt[Lvt::Lint0 as usize] = lint0.with_remote_irr(false).into();
            if self.lint[0] {
                self.local_interrupt(Lvt::Lint0);
            }
        }
        Request::EndOfInterrupt(vector)
    }

    /// Nanoseconds a count of the timer takes, at a bus clock of 1 GHz (§10.5.4, figure 10-10).
    fn divisor(&self) -> u64 {
        let bits = (self.divide >> 1 & 4) | self.divide & 3;
        1 << ((bits + 1) & 7)
    }

    const fn timer_mode(&self) -> u8 {
        (self.lvt[Lvt::Timer as usize] >> 17 & 3) as u8
    }

    fn periodic(&self) -> bool {
        self.timer_mode() == 1
    }

    /// The timer's current count.
    fn current_count(&self, now: Instant) -> u32 {
        let elapsed = now.since(self.count_from).as_nanos() as u64 / self.divisor();
        let count = u64::from(self.count);
        if elapsed < count {
            (count - elapsed) as u32
        } else if self.periodic() && count > 0 && self.initial_count > 0 {
            let period = u64::from(self.initial_count);
            (period - (elapsed - count) % period) as u32
        } else {
            0
        }
    }

    fn restart(&mut self, count: u32, now: Instant) {
        self.count = count;
        self.count_from = now;
    }

    /// When the timer next expires: the adapter sets its timer to this.
    pub fn next_expiry(&self) -> Option<Instant> {
        if self.timer_mode() == 2 {
            return self.deadline;
        }
        let span = Duration::from_nanos(u64::from(self.count) * self.divisor());
        (self.count > 0).then(|| self.count_from.saturating_add(span))
    }

    /// Lets time pass: the timer's interrupt, once also where several periods went by.
    pub fn advance(&mut self, now: Instant) -> Signal {
        let Some(expiry) = self.next_expiry().filter(|&expiry| expiry <= now) else { return Signal::Nothing };
        if self.timer_mode() == 2 {
            self.deadline = None;
            self.tsc_deadline = 0;
        } else if self.periodic() && self.initial_count > 0 {
            let period = u64::from(self.initial_count) * self.divisor();
            let late = now.since(expiry).as_nanos() as u64;
            self.restart(self.initial_count, expiry.saturating_add(Duration::from_nanos(late - late % period)));
        } else {
            self.count = 0;
        }
        self.local_interrupt(Lvt::Timer)
    }

    /// IA32_TSC_DEADLINE: zero unless armed (§10.5.4.1).
    pub const fn tsc_deadline(&self) -> u64 {
        self.tsc_deadline
    }

    /// Writes IA32_TSC_DEADLINE; `at` is when the time stamp counter reaches it. Ignored outside TSC-deadline mode.
    pub fn set_tsc_deadline(&mut self, value: u64, at: Instant) {
        if self.timer_mode() == 2 {
            self.tsc_deadline = value;
            self.deadline = (value != 0).then_some(at);
        }
    }

    /// The task priority register.
    pub const fn task_priority(&self) -> u8 {
        self.tpr
    }

    /// Sets the task priority register; CR8 is its upper half.
    pub const fn set_task_priority(&mut self, value: u8) {
        self.tpr = value;
    }

    fn value(&self, register: Register, now: Instant) -> u32 {
        match register {
            Register::Id if self.x2apic() => self.initial_id,
            Register::Id => u32::from(self.id) << 24,
            Register::Version => VERSION,
            Register::TaskPriority => self.tpr.into(),
            Register::ArbitrationPriority | Register::ProcessorPriority => self.processor_priority().into(),
            Register::Eoi | Register::RemoteRead | Register::SelfIpi => 0,
            Register::LogicalDestination => self.logical_id(),
            Register::DestinationFormat => self.dfr,
            Register::SpuriousVector => self.svr,
            Register::InService(word) => self.isr.word(word),
            Register::TriggerMode(word) => self.tmr.word(word),
            Register::InterruptRequest(word) => self.irr.word(word),
            Register::ErrorStatus => self.esr,
            Register::InterruptCommand => self.icr as u32,
            Register::InterruptCommandHigh => (self.icr >> 32) as u32,
            Register::LocalVector(entry) => self.lvt[entry as usize],
            Register::InitialCount => self.initial_count,
            Register::CurrentCount => self.current_count(now),
            Register::DivideConfiguration => self.divide.into(),
        }
    }

    /// A read at `offset` of the memory window.
    pub fn read(&mut self, offset: u16, now: Instant) -> u32 {
        match Register::at(offset) {
            Some(Register::SelfIpi) | None => {
                self.error(ErrorStatus::new().with_illegal_register(true));
                0
            }
            Some(register) => self.value(register, now),
        }
    }

    /// A write at `offset` of the memory window.
    pub fn write(&mut self, offset: u16, value: u32, now: Instant) -> Request {
        match Register::at(offset) {
            Some(Register::SelfIpi) | None => {
                self.error(ErrorStatus::new().with_illegal_register(true));
                Request::Nothing
            }
            Some(Register::Id) => {
                self.id = (value >> 24) as u8;
                Request::Nothing
            }
            Some(Register::LogicalDestination) => {
                self.ldr = (value >> 24) as u8;
                Request::Nothing
            }
            Some(Register::DestinationFormat) => {
                self.dfr = value | 0x0fff_ffff;
                Request::Nothing
            }
            Some(Register::InterruptCommandHigh) => {
                self.icr = self.icr & 0xffff_ffff | u64::from(value & 0xff00_0000) << 32;
                Request::Nothing
            }
            Some(Register::InterruptCommand) => {
                let command = InterruptCommand::from(self.icr & !0xffff_ffff | u64::from(value));
                self.icr = command.with_pending(false).into();
                self.send(command, widen((self.icr >> 56) as u8, command.logical()))
            }
            Some(register) => self.store(register, value, now),
        }
    }

    /// RDMSR of 0x800 to 0x83f (§10.12.1.2).
    ///
    /// # Errors
    /// Outside x2APIC mode, and for what is no register or write-only.
    pub fn read_x2apic(&mut self, index: u16, now: Instant) -> Result<u64, GeneralProtection> {
        if !self.x2apic() {
            return Err(GeneralProtection);
        }
        match Register::at(index << 4).ok_or(GeneralProtection)? {
            Register::InterruptCommand => Ok(self.icr),
            Register::InterruptCommandHigh
            | Register::DestinationFormat
            | Register::ArbitrationPriority
            | Register::RemoteRead
            | Register::Eoi
            | Register::SelfIpi => Err(GeneralProtection),
            register => Ok(self.value(register, now).into()),
        }
    }

    /// WRMSR of 0x800 to 0x83f.
    ///
    /// # Errors
    /// Outside x2APIC mode, for what is no register or read-only, and for reserved bits.
    pub fn write_x2apic(&mut self, index: u16, value: u64, now: Instant) -> Result<Request, GeneralProtection> {
        if !self.x2apic() {
            return Err(GeneralProtection);
        }
        let register = Register::at(index << 4).ok_or(GeneralProtection)?;
        if register == Register::InterruptCommand {
            let command = InterruptCommand::from(value);
            self.icr = command.with_pending(false).into();
            return Ok(self.send(command, command.destination()));
        }
        let low = u32::try_from(value).map_err(|_| GeneralProtection)?;
        match register {
            Register::Id
            | Register::Version
            | Register::ArbitrationPriority
            | Register::ProcessorPriority
            | Register::RemoteRead
            | Register::LogicalDestination
            | Register::DestinationFormat
            | Register::InService(_)
            | Register::TriggerMode(_)
            | Register::InterruptRequest(_)
            | Register::InterruptCommandHigh
            | Register::CurrentCount => Err(GeneralProtection),
            Register::Eoi | Register::ErrorStatus if low != 0 => Err(GeneralProtection),
            Register::TaskPriority | Register::SelfIpi if low > 0xff => Err(GeneralProtection),
            Register::SelfIpi => {
                let command = InterruptCommand::new().with_vector(low as u8).with_shorthand(1);
                Ok(self.send(command, 0))
            }
            register => Ok(self.store(register, low, now)),
        }
    }

    /// Writes a register that has the same form in both modes; read-only ones drop it.
    fn store(&mut self, register: Register, value: u32, now: Instant) -> Request {
        match register {
            Register::TaskPriority => self.tpr = value as u8,
            Register::Eoi => return self.end_of_interrupt(),
            Register::SpuriousVector => {
                self.svr = value & 0x3ff;
                if value & SOFTWARE_ENABLE == 0 {
                    // §10.4.7.2: all local vectors are masked, and stay so.
                    for entry in &mut self.lvt {
                        *entry = LocalVector::from(*entry).with_masked(true).into();
                    }
                }
            }
            Register::ErrorStatus => {
                self.esr = self.errors;
                self.errors = 0;
            }
            Register::LocalVector(entry) => self.store_local(entry, value, now),
            Register::InitialCount if self.timer_mode() == 2 => {}
            Register::InitialCount => {
                self.initial_count = value;
                self.restart(value, now);
            }
            Register::DivideConfiguration => {
                let count = self.current_count(now);
                self.divide = (value & 0xb) as u8;
                self.restart(count, now);
            }
            _ => {}
        }
        Request::Nothing
    }

    fn store_local(&mut self, entry: Lvt, value: u32, now: Instant) {
        const MASKED: u32 = 1 << 16;
        let (writable, fixed) = match entry {
            Lvt::Timer => (0x0007_00ff, 0),
            Lvt::Thermal | Lvt::Performance => (0x0001_07ff, 0),
            Lvt::Lint0 | Lvt::Lint1 => (0x0001_a7ff, self.lvt[entry as usize] & 1 << 14),
            Lvt::Error => (0x0001_00ff, 0),
        };
        let enabled = self.svr & SOFTWARE_ENABLE != 0;
        let value = value & writable | fixed | if enabled { 0 } else { MASKED };
        if entry == Lvt::Timer {
            let (old, new) = (self.timer_mode(), (value >> 17 & 3) as u8);
            let count = self.current_count(now);
            self.lvt[entry as usize] = value;
            if (old == 2) != (new == 2) {
                // §10.5.4.1: a change to or from TSC-deadline mode disarms the timer.
                (self.deadline, self.tsc_deadline, self.count) = (None, 0, 0);
            } else if old != new {
                self.restart(count, now);
            }
            return;
        }
        self.lvt[entry as usize] = value;
        // A level at LINT0 that was masked asks now.
        let lint0 = self.local(Lvt::Lint0);
        if entry == Lvt::Lint0
            && self.lint[0]
            && lint0.level()
            && DeliveryMode::decode(lint0.mode()) == DeliveryMode::Fixed
        {
            self.local_interrupt(Lvt::Lint0);
        }
    }

    fn send(&mut self, command: InterruptCommand, destination: u32) -> Request {
        let mode = DeliveryMode::decode(command.mode());
        let vectored = matches!(mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority);
        if vectored && command.vector() < 16 {
            self.error(ErrorStatus::new().with_send_illegal_vector(true));
            return Request::Nothing;
        }
        let deassert = mode == DeliveryMode::Init && !command.level() && command.level_trigger();
        if deassert || matches!(mode, DeliveryMode::Reserved | DeliveryMode::ExtInt | DeliveryMode::Smi) {
            // §10.6.1: the INIT level de-assert sets arbitration IDs, of which there are none here.
            return Request::Nothing;
        }
        let recipients = match command.shorthand() {
            0 => Recipients::Addressed,
            1 => Recipients::Sender,
            2 => Recipients::All,
            _ => Recipients::Others,
        };
        let (logical, vector) = (command.logical(), command.vector());
        // §10.6.1: interprocessor interrupts are edges, whatever the trigger bit says.
        let message = InterruptMessage { destination, logical, mode, vector, trigger: Trigger::Edge };
        Request::Send(recipients, message)
    }
}

mod state {
    use rhea_core::Instant;

    use super::{Apic, Vectors};

    saved_state!(Apic => ApicV1 {
        initial_id: u32, id: u8, base: u64, tpr: u8, ldr: u8, dfr: u32, svr: u32, isr: Vectors, tmr: Vectors,
        irr: Vectors, esr: u32, errors: u32, icr: u64, lvt: [u32; 6], divide: u8, initial_count: u32, count: u32,
        count_from: Instant, tsc_deadline: u64, deadline: Option<Instant>, lint: [bool; 2], ext_int: bool,
    } if |s| s.base & 0xfff0_0000_0000_02ff == 0 && s.base & 0xc00 != 0x400 && s.divide & !0xb == 0
        && s.svr & !0x3ff == 0 && s.lvt.iter().all(|entry| entry & 0xfff8_5800 & !(1 << 14) == 0)
        && s.dfr | 0xf000_0000 == u32::MAX);
}
