//! Replies that take a while: work that a command leaves for a thread of its own.

use crate::error::Error;

/// The rest of a command, to be done off the monitor's thread. Its result is the command's.
pub type Later<T> = Box<dyn FnOnce() -> Result<T, Error> + Send>;
