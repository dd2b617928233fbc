//! epoll(7): readiness of many descriptors, reported in batches.

use super::{check, milliseconds, opened};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// When a descriptor is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// Never; it stays in the set.
    Never,
    /// Once, as soon as it is readable; then never, until it is armed again.
    Once,
    /// Whenever something new arrives: the reader must read all that is there before it relies on the next report. A short
    /// read is enough for that, unless the report says that the peer has hung up.
    Edge,
    /// Whenever somebody waits while it is readable.
    Level,
}

impl Trigger {
    fn events(self) -> u32 {
        let events = match self {
            Self::Never => 0,
            Self::Once => libc::EPOLLIN | libc::EPOLLONESHOT,
            Self::Edge => libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET,
            Self::Level => libc::EPOLLIN,
        };
        events as u32
    }
}

/// What a wait tells of one descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// The descriptor's token.
    pub token: u64,
    /// The peer will send no more than there is to read now.
    pub is_hung_up: bool,
}

/// The most reports that one wait brings.
pub const BATCH: usize = 64;

/// A set of descriptors, each with a token.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl AsFd for Epoll {
    /// Readable while there is something to report.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Epoll {
    /// An empty set.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1 takes a number only, and its descriptor is new.
        unsafe { opened(libc::epoll_create1(libc::EPOLL_CLOEXEC)) }.map(Self)
    }

    /// Adds a descriptor.
    ///
    /// # Errors
    /// Memory is short, or the descriptor is already in the set.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, trigger: Trigger) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, trigger.events(), token)
    }

    /// Changes when a descriptor of the set is reported. What is readable now counts as new.
    ///
    /// # Errors
    /// The descriptor is not in the set.
    pub fn arm(&self, fd: BorrowedFd<'_>, token: u64, trigger: Trigger) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, trigger.events(), token)
    }

    /// Takes a descriptor out of the set.
    pub fn remove(&self, fd: BorrowedFd<'_>) {
        // It fails only for a descriptor that is not in the set, and that is what is wanted.
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, 0);
    }

    /// Waits for reports, for at most `time`, and passes them to `take`.
    ///
    /// # Errors
    /// As epoll_wait(2), except for interruption, which counts as a wait without reports.
    pub fn wait(&self, time: Duration, take: impl FnMut(Report)) -> io::Result<()> {
        let mut events = [const { libc::epoll_event { events: 0, u64: 0 } }; BATCH];
        let (start, most) = (events.as_mut_ptr(), BATCH as libc::c_int);
        // SAFETY: the kernel writes at most `most` events into a live array of that length.
        match check(unsafe { libc::epoll_wait(self.0.as_raw_fd(), start, most, milliseconds(time)) }) {
            Ok(count) => {
                let hang_up = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;
                let report = |event: &libc::epoll_event| Report {
                    token: event.u64,
                    is_hung_up: event.events & hang_up != 0,
                };
                events[..count.unsigned_abs() as usize].iter().map(report).for_each(take);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn control(&self, operation: libc::c_int, fd: BorrowedFd<'_>, events: u32, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: token };
        // SAFETY: the kernel reads one event from a live variable.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event) })
            .map(drop)
    }
}
