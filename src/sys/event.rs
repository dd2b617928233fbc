//! A flag that can be waited for: eventfd(2). Once raised it stays raised.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A flag with a descriptor that is readable from the moment the flag is raised.
#[derive(Debug)]
pub struct Event(OwnedFd);

impl Event {
    /// A flag that is not raised.
    ///
    /// # Errors
    /// No descriptor is to be had.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes numbers only.
        let fd = super::check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Raises the flag.
    pub fn raise(&self) {
        let one: u64 = 1;
        // SAFETY: write(2) reads eight bytes from a live variable. It can only fail when the counter is full, and
        // then the flag is up already.
        unsafe { libc::write(self.0.as_raw_fd(), std::ptr::from_ref(&one).cast(), size_of::<u64>()) };
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
