//! How a PC is told of x87 errors: the processor's pin FERR# is interrupt 13, and a write to port 0xF0 ends that and lets
//! the processor go on in spite of the error.
//!
//! Source: Intel 290550, "82371SB (PIIX3)", "Coprocessor Error Register" and the signals FERR# and IGNNE#; SDM vol. 1
//! § 8.7.

use std::sync::Arc;

use parking_lot::Mutex;
use rhea_core::{Device, InterruptLine, LoadError, PortIo, PortSpace, SaveState, Width};

pub use state::CoprocessorV1;

use crate::Saveable;

/// Port of the coprocessor error register.
const PORT: u16 = 0xf0;

/// The logic alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Coprocessor {
    /// FERR# is asserted.
    error: bool,
    /// IGNNE# is asserted.
    ignored: bool,
    /// The interrupt is asserted.
    interrupt: bool,
}

impl Coprocessor {
    /// The processor drives FERR#. It is the edge that interrupts.
    pub const fn set_error(&mut self, asserted: bool) {
        if asserted && !self.error {
            self.interrupt = true;
        }
        self.error = asserted;
        self.ignored &= asserted;
    }

    /// A write to the register, of whatever.
    pub const fn acknowledge(&mut self) {
        self.interrupt = false;
        self.ignored = self.error;
    }

    /// The level of IGNNE#.
    pub const fn ignored(&self) -> bool {
        self.ignored
    }

    /// The level of the interrupt.
    pub const fn interrupt(&self) -> bool {
        self.interrupt
    }
}

mod state {
    use super::Coprocessor;

    saved_state!(Coprocessor => CoprocessorV1 { error: bool, ignored: bool, interrupt: bool } if |s| s.error || !s.ignored);
}

/// Called when IGNNE# is asserted: the processor may stand until then.
type OnIgnored = Arc<dyn Fn() + Send + Sync>;

/// The logic between the bootstrap processor, interrupt 13 and port 0xF0. Other processors' pins are not connected (MP
/// specification 1.4, § 3.1).
pub struct CoprocessorErrors {
    chip: Mutex<Coprocessor>,
    line: InterruptLine,
    on_ignored: OnIgnored,
}

impl CoprocessorErrors {
    /// Logic that drives `line`, and calls `on_ignored`, without a lock, when IGNNE# is asserted.
    pub fn new(line: InterruptLine, on_ignored: OnIgnored) -> Arc<Self> {
        Arc::new(Self { chip: Mutex::default(), line, on_ignored })
    }

    /// Puts the register into `ports`.
    pub fn map(self: &Arc<Self>, ports: &PortSpace) {
        ports.map(PORT, 1, Arc::new(ErrorPort(Arc::clone(self))));
    }

    /// The processor drives FERR#.
    pub fn set_error(&self, asserted: bool) {
        let mut chip = self.chip.lock();
        chip.set_error(asserted);
        self.line.set(chip.interrupt());
    }

    /// The level of IGNNE#.
    pub fn ignored(&self) -> bool {
        self.chip.lock().ignored()
    }
}

impl Device for CoprocessorErrors {
    fn reset(&self) {
        let mut chip = self.chip.lock();
        *chip = Coprocessor::default();
        self.line.lower();
    }
}

impl Saveable for CoprocessorErrors {
    type Chip = Coprocessor;
    const KIND: &'static str = "coprocessor";

    fn save(&self) -> CoprocessorV1 {
        self.chip.lock().save()
    }

    fn restore(&self, state: CoprocessorV1) -> Result<(), LoadError> {
        let mut chip = self.chip.lock();
        *chip = Coprocessor::load(state)?;
        self.line.set(chip.interrupt());
        Ok(())
    }
}

struct ErrorPort(Arc<CoprocessorErrors>);

impl PortIo for ErrorPort {
    fn name(&self) -> &str {
        "coprocessor-error"
    }

    /// It is for writing only.
    fn read(&self, _: u16, width: Width) -> u32 {
        width.ones() as u32
    }

    fn write(&self, _: u16, _: Width, _: u32) {
        let errors = &self.0;
        {
            let mut chip = errors.chip.lock();
            chip.acknowledge();
            errors.line.set(chip.interrupt());
            if !chip.ignored() {
                return;
            }
        }
        (errors.on_ignored)();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rhea_core::InterruptSink;

    use super::*;

    #[derive(Default)]
    struct Log(Mutex<Vec<&'static str>>);

    impl InterruptSink for Log {
        fn set_level(&self, _: u32, level: bool) {
            self.0.lock().push(if level { "interrupt" } else { "no interrupt" });
        }
    }

    fn board() -> (PortSpace, Arc<CoprocessorErrors>, Arc<Log>) {
        let log = Arc::new(Log::default());
        let heard = Arc::clone(&log);
        let line = InterruptLine::new(Arc::clone(&log) as Arc<dyn InterruptSink>, 13);
        let errors = CoprocessorErrors::new(line, Arc::new(move || heard.0.lock().push("ignored")));
        let ports = PortSpace::new();
        errors.map(&ports);
        (ports, errors, log)
    }

    #[test]
    fn an_error_interrupts_until_the_port_is_written_and_is_ignored_until_it_is_gone() {
        let (ports, errors, log) = board();
        errors.set_error(true);
        assert!(!errors.ignored());
        ports.write(0xf0, Width::Byte, 0);
        assert!(errors.ignored());
        errors.set_error(true);
        errors.set_error(false);
        assert!(!errors.ignored());
        errors.set_error(true);
        let expected = ["interrupt", "no interrupt", "ignored", "no interrupt", "no interrupt", "interrupt"];
        assert_eq!(*log.0.lock(), expected);
        assert_eq!(ports.read(0xf0, Width::Byte), 0xff);
    }

    #[test]
    fn an_error_that_is_gone_still_interrupts_and_is_not_ignored_later() {
        let (ports, errors, log) = board();
        errors.set_error(true);
        errors.set_error(false);
        assert_eq!(*log.0.lock(), ["interrupt", "interrupt"]);
        ports.write(0xf0, Width::Byte, 1);
        errors.set_error(true);
        assert!(!errors.ignored());
        errors.reset();
        assert_eq!(*log.0.lock(), ["interrupt", "interrupt", "no interrupt", "interrupt", "no interrupt"]);
        assert_eq!(*errors.chip.lock(), Coprocessor::default());
    }

    proptest! {
        #[test]
        fn whatever_happens_is_saved_and_comes_back(steps in prop::collection::vec(0..3_u8, 0..12)) {
            let (ports, errors, log) = board();
            for step in steps {
                match step {
                    0 => ports.write(0xf0, Width::Byte, 0),
                    level => errors.set_error(level == 1),
                }
            }
            let level = errors.chip.lock().interrupt();
            let state = errors.save();
            errors.reset();
            errors.restore(state.clone()).unwrap();
            prop_assert_eq!(errors.save(), state);
            prop_assert_eq!(*log.0.lock().last().unwrap(), if level { "interrupt" } else { "no interrupt" });
            let impossible = CoprocessorV1 { error: false, ignored: true, interrupt: false };
            prop_assert!(errors.restore(impossible).is_err());
        }
    }
}
