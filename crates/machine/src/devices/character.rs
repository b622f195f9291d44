//! Character backends in the tree, and their ends that devices hold.

use std::sync::Arc;

use rhea_backends::char::{CharDevice, CharDevices, FrontEnd, Port};
use rhea_core::object::{Object, TypeInfo, Value};
use rhea_devices::{
    char::{CharSink, uart::Serial},
    virtio::console::Console,
};

use crate::objects::Objects;

/// The types of backends.
pub(crate) const TYPES: &[&TypeInfo] = &[
    &TypeInfo::abstract_type("chardev", "object"),
    &TypeInfo::plain("chardev-file", "chardev"),
    &TypeInfo::plain("chardev-mux", "chardev"),
    &TypeInfo::plain("chardev-null", "chardev"),
    &TypeInfo::plain("chardev-pipe", "chardev"),
    &TypeInfo::plain("chardev-pty", "chardev"),
    &TypeInfo::plain("chardev-ringbuf", "chardev"),
    &TypeInfo::plain("chardev-socket", "chardev"),
    &TypeInfo::plain("chardev-stdio", "chardev"),
];

/// A backend in the tree.
struct Backend(&'static TypeInfo);

impl Object for Backend {
    fn info(&self) -> &'static TypeInfo {
        self.0
    }

    fn get(&self, _: &str) -> Option<Value> {
        None
    }
}

/// Keeps the backends in `/chardevs`.
pub(crate) fn show_backends(chars: &CharDevices, objects: &Arc<Objects>) {
    let objects = Arc::downgrade(objects);
    chars.watch(Box::new(move |device: &CharDevice, there| {
        let Some(objects) = objects.upgrade() else { return };
        let tree = objects.tree();
        let info = TYPES.iter().find(|info| info.name.strip_prefix("chardev-") == Some(device.kind()));
        let done = match (there, info, tree.child(objects.chardevs(), device.id())) {
            (true, Some(info), _) => tree.add(objects.chardevs(), device.id(), Arc::new(Backend(info))).map(drop),
            (false, _, Some(node)) => tree.remove(node).map(drop),
            _ => Ok(()),
        };
        if let Err(error) = done {
            tracing::warn!("'{}' is not in the tree: {error}", device.id());
        }
    }));
}

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
pub(super) fn connect_serial(
    chars: &CharDevices,
    id: &str,
    make: impl FnOnce(Arc<dyn CharSink>) -> Arc<Serial>,
) -> Result<Arc<Serial>, rhea_backends::char::CharError> {
    let front = Arc::new(chars.claim(id)?);
    let serial = make(Arc::new(Sink(Arc::clone(&front))));
    front.connect(Arc::new(SerialPort(Arc::clone(&serial))));
    Ok(serial)
}

/// A device that takes no input as a backend fills it: what comes is dropped.
struct Deaf;

impl Port for Deaf {
    fn receive(&self, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn on_room(&self, _: Box<dyn Fn() + Send + Sync>) {}
}

/// Connects a device that only sends to backend `id`: where its output goes.
///
/// # Errors
/// There is no such backend, or it has a user.
pub(super) fn connect_console(
    chars: &CharDevices,
    id: &str,
) -> Result<Arc<dyn CharSink>, rhea_backends::char::CharError> {
    let front = Arc::new(chars.claim(id)?);
    front.connect(Arc::new(Deaf));
    Ok(Arc::new(Sink(front)))
}
