//! The panic port: by a byte there a guest's kernel says that it cannot go on.
//!
//! Source: the published interface of "pvpanic": one port, whose read says which bits are understood.

use std::sync::Arc;

use rhea_core::{PortIo, PortSpace, Width};

/// Where the port is by convention.
pub const DEFAULT_PORT: u16 = 0x505;
/// The guest panicked, and leaves the rest to the host.
pub const PANICKED: u8 = 1 << 0;

/// The port. It has no state.
pub struct PanicPort {
    /// The bits that are understood.
    events: u8,
    on_panic: Box<dyn Fn() + Send + Sync>,
}

impl PanicPort {
    /// A port that understands `events` of those there are, and calls `on_panic`, on the processor's thread, when the guest
    /// panics.
    pub fn new(events: u8, on_panic: Box<dyn Fn() + Send + Sync>) -> Arc<Self> {
        Arc::new(Self { events: events & PANICKED, on_panic })
    }

    /// Puts the port at `port`.
    pub fn map(self: &Arc<Self>, ports: &PortSpace, port: u16) {
        ports.map(port, 1, Arc::clone(self) as Arc<dyn PortIo>);
    }
}

impl PortIo for PanicPort {
    fn name(&self) -> &str {
        "pvpanic"
    }

    fn read(&self, _: u16, _: Width) -> u32 {
        self.events.into()
    }

    fn write(&self, _: u16, _: Width, value: u32) {
        if value as u8 & self.events & PANICKED != 0 {
            (self.on_panic)();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_panic_is_heard_if_the_port_understands_it() {
        let heard = Arc::new(AtomicUsize::new(0));
        for (events, reads, expected) in [(0xff, 1, 2), (0, 0, 2)] {
            let ports = PortSpace::new();
            let counter = Arc::clone(&heard);
            let port = PanicPort::new(
                events,
                Box::new(move || {
                    counter.fetch_add(1, Ordering::Relaxed);
                }),
            );
            port.map(&ports, DEFAULT_PORT);
            assert_eq!(ports.read(DEFAULT_PORT, Width::Byte), reads);
            for value in [0, 1, 2, 0xfe, 0xff] {
                ports.write(DEFAULT_PORT, Width::Byte, value);
            }
            assert_eq!(heard.load(Ordering::Relaxed), expected);
        }
    }
}
