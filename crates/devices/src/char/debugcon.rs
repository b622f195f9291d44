//! Debug consoles: a port whose every written byte is text for the host.
//!
//! Source: the convention of firmware and kernels to probe such a port by reading 0xe9 from it.

use std::sync::Arc;

use rhea_core::{PortIo, PortSpace, Width};

use super::CharSink;

/// A debug console: where it is, and what it is connected to.
#[derive(Clone, Debug, rhea_core::object::Object)]
#[object(type = "isa-debugcon", parent = "isa-device", settings)]
pub struct DebugconSettings {
    /// Its port.
    #[property(default = 0xe9)]
    pub iobase: u32,
    /// What a read returns, so that guests see that somebody listens.
    #[property(default = 0xe9)]
    pub readback: u32,
    /// Id of the character backend.
    #[property]
    pub chardev: Option<String>,
}

/// A debug console. It has no state.
pub struct Debugcon {
    sink: Arc<dyn CharSink>,
    readback: u8,
}

impl Debugcon {
    /// A console whose text goes to `sink` and whose port reads as `readback`.
    pub fn new(sink: Arc<dyn CharSink>, readback: u8) -> Arc<Self> {
        Arc::new(Self { sink, readback })
    }

    /// Puts the console at `port`: 0xe9 by the oldest convention, 0x402 for firmware.
    pub fn map(self: &Arc<Self>, ports: &PortSpace, port: u16) {
        ports.map(port, 1, Arc::clone(self) as Arc<dyn PortIo>);
    }
}

impl PortIo for Debugcon {
    fn name(&self) -> &str {
        "isa-debugcon"
    }

    fn read(&self, _: u16, _: Width) -> u32 {
        self.readback.into()
    }

    fn write(&self, _: u16, _: Width, value: u32) {
        self.sink.write(&[value as u8]);
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Text(Mutex<Vec<u8>>);

    impl CharSink for Text {
        fn write(&self, bytes: &[u8]) {
            self.0.lock().extend(bytes);
        }
    }

    #[test]
    fn bytes_written_to_the_port_are_text_in_order() {
        let (ports, text) = (PortSpace::new(), Arc::new(Text::default()));
        let console = Debugcon::new(Arc::clone(&text) as _, 0xe9);
        console.map(&ports, 0xe9);
        console.map(&ports, 0x402);
        assert_eq!(ports.read(0xe9, Width::Byte), 0xe9);
        for (port, byte) in [(0xe9, b'h'), (0x402, b'i')] {
            ports.write(port, Width::Byte, byte.into());
        }
        // Wider writes reach the port with their lowest byte alone.
        ports.write(0xe9, Width::Word, 0x4121);
        assert_eq!(*text.0.lock(), b"hi!");
    }
}
