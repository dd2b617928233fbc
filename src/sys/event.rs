//! A flag that can be waited for: eventfd(2). Once raised it stays raised.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

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
        raise(self.0.as_raw_fd());
    }

    /// Gives the flag away, never to be closed.
    pub fn leak(self) -> LeakedEvent {
        LeakedEvent(self.0.into_raw_fd())
    }
}

/// A flag that stays for as long as the process lives, so that it can be raised from anywhere, signal handlers
/// included, without asking whether it is still there.
#[derive(Debug, Clone, Copy)]
pub struct LeakedEvent(RawFd);

impl LeakedEvent {
    /// The number of its descriptor, to keep in an atomic variable.
    pub fn number(self) -> RawFd {
        self.0
    }

    /// The flag with this number.
    ///
    /// # Safety
    /// It is the [`number`](Self::number) of a flag that was leaked in this process, or in one that forked it.
    pub unsafe fn from_number(number: RawFd) -> Self {
        Self(number)
    }

    /// Raises the flag. Async-signal-safe.
    pub fn raise(self) {
        raise(self.0);
    }

    /// Takes the flag down again.
    pub fn lower(self) {
        let mut count: u64 = 0;
        // SAFETY: read(2) writes eight bytes into a live variable. It fails when the flag is not up, which is fine.
        unsafe { libc::read(self.0, std::ptr::from_mut(&mut count).cast(), size_of::<u64>()) };
    }
}

impl AsFd for LeakedEvent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: a leaked descriptor is never closed.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Async-signal-safe.
fn raise(event: RawFd) {
    let one: u64 = 1;
    // SAFETY: write(2) reads eight bytes from a live variable. It can only fail when the counter is full, and
    // then the flag is up already.
    unsafe { libc::write(event, std::ptr::from_ref(&one).cast(), size_of::<u64>()) };
}
