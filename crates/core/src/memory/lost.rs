//! A last word when the host takes memory away under the program: a file that is the guest's memory was cut, or its file
//! system is full. The host says so by SIGBUS (signal(7)), which would end the program in silence.
//!
//! This is one of the modules that may be unsafe: it handles a signal.
#![allow(unsafe_code)]

use std::{io, mem, ptr};

const WORDS: &[u8] =
    b"rhea: memory is gone: a file that memory of the guest is in was cut, or its file system is full\n";

/// Runs on the thread that touched the memory, in the middle of anything.
extern "C" fn say_and_end(_: libc::c_int) {
    // SAFETY: write(2) and signal(2) may be called from a handler (signal-safety(7)); the words are static.
    unsafe {
        libc::write(libc::STDERR_FILENO, WORDS.as_ptr().cast(), WORDS.len());
        // The access happens again, and ends the program as it would have.
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
    }
}

/// From now on the program says why it ends when memory that it uses is gone.
///
/// # Errors
/// What the host says.
pub fn say_when_memory_is_gone() -> io::Result<()> {
    // SAFETY: all zeros is a valid `sigaction`: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = say_and_end as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler only makes calls that handlers may make, and nothing else in the program handles this signal.
    let result = unsafe { libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
