//! A flag that can be waited for: eventfd(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A flag with a descriptor that is readable for as long as the flag is up.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A flag that is down.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes numbers only, and its descriptor is new.
        unsafe { super::opened(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) }.map(Self)
    }

    /// Raises the flag.
    pub fn raise(&self) {
        let one: u64 = 1;
        // SAFETY: write(2) reads eight bytes from a live variable. It can only fail when the counter is full, and
        // then the flag is up already.
        unsafe { libc::write(self.0.as_raw_fd(), std::ptr::from_ref(&one).cast(), size_of::<u64>()) };
    }

    /// Takes the flag down.
    pub fn clear(&self) {
        let mut count: u64 = 0;
        // SAFETY: read(2) writes eight bytes into a live variable. It fails only when the flag is down already.
        unsafe { libc::read(self.0.as_raw_fd(), std::ptr::from_mut(&mut count).cast(), size_of::<u64>()) };
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
