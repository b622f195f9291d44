//! Does what a test asks, and says how that went.

use std::{sync::Arc, time::Duration};

use rhea_core::{Instant, Tap};
use rhea_machine::{TestAccess, TestError, taps::Side};

use super::{outbox::Outbox, request::Request};

/// The machine's side of one conversation.
pub(super) struct Port {
    access: TestAccess,
    outbox: Arc<Outbox>,
    /// Where this test listens.
    heard: Option<(Side, String, Option<Arc<Tap>>)>,
}

impl Port {
    /// A conversation about `access`; changes of interrupt lines go to `outbox`.
    pub(super) fn new(access: TestAccess, outbox: Arc<Outbox>) -> Self {
        Self { access, outbox, heard: None }
    }

    /// The reply to a line. All that the request causes now has happened.
    pub(super) fn answer(&mut self, line: &str) -> String {
        let reply = match Request::parse(line) {
            Ok(request) => self.perform(request),
            Err(fault) => format!("FAIL {fault}"),
        };
        self.access.settle();
        reply
    }

    fn perform(&mut self, request: Request) -> String {
        let access = &self.access;
        let ok = "OK".to_owned();
        match request {
            Request::Endianness => return "OK little".to_owned(),
            Request::PortRead { port, width } => return format!("OK 0x{:04x}", access.port_read(port, width)),
            Request::PortWrite { port, width, value } => access.port_write(port, width, value),
            Request::Load { address, width } => return format!("OK 0x{:016x}", access.load(address, width)),
            Request::Store { address, width, value } => access.store(address, width, value),
            Request::Read { address, length, form } => {
                let mut data = vec![0; length];
                access.read(address, &mut data);
                return format!("OK {}", form.encode(&data));
            }
            Request::Write { address, data } => access.write(address, &data),
            Request::Fill { address, length, byte } => access.write(address, &vec![byte; length]),
            Request::Step { nanoseconds } => {
                let target = match nanoseconds {
                    Some(step) => Ok(access.now().saturating_add(Duration::from_nanos(step))),
                    None => access.next_deadline(),
                };
                return outcome(target.and_then(|target| self.move_clock(target)));
            }
            Request::SetClock { to } if to < access.now() => return format!("FAIL {}", access.now().as_nanos()),
            Request::SetClock { to } => return outcome(self.move_clock(to)),
            Request::Intercept { side, path } => return self.intercept(side, path),
            Request::SetInput { path, pin, level } => {
                return access.set_input(&path, pin, level).map_or_else(|error| format!("FAIL {error}"), |()| ok);
            }
        }
        ok
    }

    fn move_clock(&self, target: Instant) -> Result<u64, TestError> {
        self.access.run_until(target)?;
        Ok(self.access.now().as_nanos())
    }

    /// Lines are told by their number only, so that a test listens at one place.
    fn intercept(&mut self, side: Side, path: String) -> String {
        if let Some((heard_side, heard_path, _)) = &self.heard {
            return if (*heard_side, heard_path) == (side, &path) {
                "OK".to_owned()
            } else {
                "FAIL IRQ intercept already enabled".to_owned()
            };
        }
        let outbox = Arc::clone(&self.outbox);
        let tell = move |pin, level| outbox.push(&format!("IRQ {} {pin}", if level { "raise" } else { "lower" }));
        match self.access.listen(side, &path, Arc::new(tell)) {
            Ok(tap) => {
                self.heard = Some((side, path, tap));
                "OK".to_owned()
            }
            Err(error) => format!("FAIL {error}"),
        }
    }
}

fn outcome(result: Result<u64, TestError>) -> String {
    match result {
        Ok(now) => format!("OK {now}"),
        Err(error) => format!("FAIL {error}"),
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if let Some((_, _, Some(tap))) = &self.heard {
            tap.listen(None);
        }
    }
}
