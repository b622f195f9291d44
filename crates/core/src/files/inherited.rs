//! Descriptors that the program was started with, known by their numbers only.
//!
//! This module passes descriptors, so it may be unsafe: nobody but the command line says that a number is ours.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{BorrowedFd, FromRawFd, OwnedFd},
};

use rustix::{
    io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd},
    stdio,
};

/// Takes over descriptor `number`, which the command line gives to one user.
///
/// # Errors
/// There is no such descriptor, or it is one of the standard three.
pub fn inherited(number: i32) -> io::Result<OwnedFd> {
    if number <= stdio::raw_stderr() || !std::path::Path::new(&format!("/proc/self/fd/{number}")).exists() {
        return Err(Errno::BADF.into());
    }
    // What we opened ourselves is closed when another program is started; what was inherited is not yet.
    // SAFETY: the descriptor is open, and is looked at only here.
    if fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) })?.contains(FdFlags::CLOEXEC) {
        return Err(Errno::BADF.into());
    }
    // SAFETY: the descriptor is open, none that the standard library uses, and its number was given to us on the
    // command line for this one use.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
    Ok(descriptor)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, IntoRawFd};

    use super::*;

    #[test]
    fn only_what_was_really_inherited_is_taken() {
        assert!(inherited(1).is_err());
        assert!(inherited(1_000_000).is_err());
        let (ours, _writer) = io::pipe().unwrap();
        assert!(inherited(ours.as_raw_fd()).is_err(), "closed on exec, so it was opened here");
        fcntl_setfd(&ours, FdFlags::empty()).unwrap();
        let number = ours.into_raw_fd();
        assert_eq!(inherited(number).unwrap().as_raw_fd(), number);
    }
}
