//! The exit port: by a number there a bare guest, a test most often, ends the program that runs it.
//!
//! Source: the published interface of "isa-debug-exit": a write of `v` ends with the status `v << 1 | 1`.

use std::sync::Arc;

use rhea_core::{PortIo, PortSpace, Width};

/// Where the ports are by convention.
pub const DEFAULT_PORT: u32 = 0x501;
/// How many.
pub const DEFAULT_COUNT: u32 = 2;

/// The ports. They have no state.
pub struct ExitPort {
    on_exit: Box<dyn Fn(u8) + Send + Sync>,
}

impl ExitPort {
    /// Ports that call `on_exit`, on the processor's thread, with the status that the program is to end with.
    pub fn new(on_exit: Box<dyn Fn(u8) + Send + Sync>) -> Arc<Self> {
        Arc::new(Self { on_exit })
    }

    /// Puts `count` ports at `port`.
    pub fn map(self: &Arc<Self>, ports: &PortSpace, port: u16, count: u32) {
        ports.map(port, count, Arc::clone(self) as Arc<dyn PortIo>);
    }
}

impl PortIo for ExitPort {
    fn name(&self) -> &str {
        "isa-debug-exit"
    }

    fn read(&self, _: u16, _: Width) -> u32 {
        0
    }

    fn write(&self, _: u16, _: Width, value: u32) {
        // The host takes eight bits of a status.
        (self.on_exit)((value << 1 | 1) as u8);
    }

    fn widest(&self) -> Width {
        Width::Dword
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_write_of_any_width_to_any_of_the_ports_is_an_odd_status() {
        let statuses = Arc::new(Mutex::new(Vec::new()));
        let (ports, heard) = (PortSpace::new(), Arc::clone(&statuses));
        let exit = ExitPort::new(Box::new(move |status| heard.lock().unwrap().push(status)));
        exit.map(&ports, 0xf4, 4);
        ports.write(0xf4, Width::Dword, 0);
        ports.write(0xf7, Width::Byte, 0x21);
        ports.write(0xf6, Width::Word, 0x180);
        ports.write(0xf8, Width::Byte, 1);
        assert_eq!(ports.read(0xf4, Width::Byte), 0);
        assert_eq!(*statuses.lock().unwrap(), [1, 0x43, 1]);
    }
}
