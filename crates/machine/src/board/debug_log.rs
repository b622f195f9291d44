//! The debug console's other end: lines in this program's log, under the target `debugcon`.

use parking_lot::Mutex;
use rhea_devices::char::CharSink;

/// A line is cut here.
const LONGEST: usize = 1024;

/// Collects lines and logs them.
#[derive(Default)]
pub struct DebugLog {
    line: Mutex<Vec<u8>>,
}

impl CharSink for DebugLog {
    fn write(&self, bytes: &[u8]) {
        let mut line = self.line.lock();
        for &byte in bytes {
            if byte == b'\n' || line.len() == LONGEST {
                tracing::debug!(target: "debugcon", "{}", String::from_utf8_lossy(&line));
                line.clear();
            }
            if byte != b'\n' {
                line.push(byte);
            }
        }
    }
}
