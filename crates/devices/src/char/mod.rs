//! Character devices: serial ports and debug consoles.

pub mod debugcon;
pub mod uart;

/// Where a character device's output goes. Called without any lock of the device.
pub trait CharSink: Send + Sync {
    /// Takes all of `bytes`, in order.
    fn write(&self, bytes: &[u8]);

    /// A break condition on the line begins or ends; what cannot carry one ignores it.
    fn set_break(&self, _on: bool) {}
}
