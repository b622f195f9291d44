//! The ends of character backends that devices hold.

use std::sync::Arc;

use rhea_backends::char::{CharDevices, FrontEnd, Port};
use rhea_devices::{
    char::{CharSink, uart::Serial},
    virtio::console::Console,
};

/// A backend as a device writes to it.
pub(super) struct Sink(pub Arc<FrontEnd>);

impl CharSink for Sink {
    fn write(&self, bytes: &[u8]) {
        self.0.write(bytes);
    }
}

/// A serial port as a backend fills it.
struct SerialPort(Arc<Serial>);

impl Port for SerialPort {
    fn receive(&self, bytes: &[u8]) -> usize {
        self.0.receive(bytes)
    }

    fn on_room(&self, wake: Box<dyn Fn() + Send + Sync>) {
        self.0.on_room(wake);
    }

    fn receive_break(&self) {
        self.0.break_received();
    }
}

/// A port of a console device as a backend fills it.
pub(super) struct ConsolePort(pub Arc<Console>, pub u32);

impl Port for ConsolePort {
    fn receive(&self, bytes: &[u8]) -> usize {
        self.0.receive(self.1, bytes)
    }

    fn on_room(&self, wake: Box<dyn Fn() + Send + Sync>) {
        self.0.on_room(self.1, wake);
    }
}

/// Makes a serial port by `make`, which is given where its output goes, and connects it to backend `id`.
///
/// # Errors
/// There is no such backend, or it has a user.
pub(crate) fn connect_serial(
    chars: &CharDevices,
    id: &str,
    make: impl FnOnce(Arc<dyn CharSink>) -> Arc<Serial>,
) -> Result<Arc<Serial>, rhea_backends::char::CharError> {
    let front = Arc::new(chars.claim(id)?);
    let serial = make(Arc::new(Sink(Arc::clone(&front))));
    front.connect(Arc::new(SerialPort(Arc::clone(&serial))));
    Ok(serial)
}
