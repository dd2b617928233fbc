//! Signal masks, and signals that are read from a descriptor: signalfd(2).

use super::{check, uninterrupted};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A set of signals.
#[derive(Clone, Copy)]
pub struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// These signals.
    pub fn of(signals: &[libc::c_int]) -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset fills in the set; sigaddset takes an initialised set and a valid signal number.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for &signal in signals {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            Self(set.assume_init())
        }
    }

    /// All signals.
    pub fn all() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigfillset fills in the set.
        unsafe {
            libc::sigfillset(set.as_mut_ptr());
            Self(set.assume_init())
        }
    }
}

/// Signals that are blocked in the calling thread for as long as this value lives.
pub struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    /// Blocks the signals in the calling thread, and so in the threads that it starts.
    ///
    /// # Errors
    /// As pthread_sigmask(3).
    pub fn new(signals: &SignalSet) -> io::Result<Self> {
        let mut before = MaybeUninit::uninit();
        // SAFETY: both sets are live; the call fills in `before`.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals.0, before.as_mut_ptr()) } {
            // SAFETY: the call succeeded.
            0 => Ok(Self { before: unsafe { before.assume_init() } }),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set is live and was filled in by the system.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// A descriptor from which blocked signals of the process are read.
pub struct SignalSource(OwnedFd);

impl SignalSource {
    /// A source of these signals; they should be [`Blocked`].
    ///
    /// # Errors
    /// No descriptor is to be had.
    pub fn new(signals: &SignalSet) -> io::Result<Self> {
        // SAFETY: the set is live; -1 asks for a new descriptor.
        let fd = check(unsafe {
            libc::signalfd(-1, &raw const signals.0, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        })?;
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal that has arrived, if there is one.
    pub fn take(&self) -> Option<libc::c_int> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        let read = uninterrupted(|| {
            // SAFETY: the kernel writes one record of `size` bytes into a live variable.
            super::check_size(unsafe { libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size) })
        });
        // SAFETY: a whole record was written.
        (read.ok()? == size).then(|| unsafe { info.assume_init() }.ssi_signo as libc::c_int)
    }
}

impl AsFd for SignalSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Ignores SIGPIPE in the whole process.
pub fn ignore_sigpipe() {
    // SAFETY: SIG_IGN is a valid disposition for SIGPIPE.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}
