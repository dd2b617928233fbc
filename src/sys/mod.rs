//! Operating-system calls made safe: file descriptors that close themselves, -1 turned into [`std::io::Error`]. Signals
//! that interrupt a wait do not prolong it without end. Linux only; what another system would need to provide is what stands here.

pub mod access;
pub mod clock;
pub mod datagram;
pub mod environment;
pub mod epoll;
pub mod event;
pub mod fork;
pub mod memory;
pub mod pages;
pub mod resolve;
pub mod signal;
pub mod socket;
#[cfg_attr(test, expect(dead_code, reason = "unit tests keep their lines"))]
pub mod syslog;
pub mod thread;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// Turns the -1 of a system call into the error that it set.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The lowest number that a descriptor of the library has. Below are the standard streams: in a daemon that closed
/// them, whatever the program prints there by mistake would end up in a descriptor of the library.
const FIRST_DESCRIPTOR: RawFd = libc::STDERR_FILENO + 1;

/// Takes over the descriptor that a system call has just opened, close-on-exec, or the error that it set. All
/// descriptors that the library opens come through here.
///
/// # Safety
/// If `result` is a descriptor, it is nobody else's.
///
/// # Errors
/// That of the call, or there is no descriptor behind those of the standard streams.
unsafe fn opened(result: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    above_standard_streams(unsafe { OwnedFd::from_raw_fd(check(result)?) })
}

/// The descriptor, or a copy of it behind those of the standard streams.
///
/// # Errors
/// There is none.
pub fn above_standard_streams(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() >= FIRST_DESCRIPTOR {
        return Ok(fd);
    }
    // SAFETY: fcntl with this command takes numbers only.
    let moved = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, FIRST_DESCRIPTOR) })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(moved) })
}

/// What a wait is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Data, or the peer's end.
    Read,
    /// Room to write.
    Write,
}

impl Interest {
    fn poll_events(self) -> libc::c_short {
        match self {
            Self::Read => libc::POLLIN,
            Self::Write => libc::POLLOUT,
        }
    }
}

/// What a wait has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The descriptor is ready.
    Ready,
    /// The alarm rang.
    Alarm,
    /// The time is over.
    TimedOut,
}

/// Whether there is something to read, or an end or an error to learn of, at this moment.
pub fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
    // SAFETY: the array outlives the call and its length is passed along. It does not wait.
    unsafe { libc::poll(fds.as_mut_ptr(), 1, 0) > 0 }
}

/// Waits until `fd` is ready for `interest`, `alarm` becomes readable, or `deadline` is reached. The alarm counts
/// first.
///
/// # Errors
/// poll(2) failed, which means that memory is short or a descriptor is not open.
pub fn wait(
    fd: BorrowedFd<'_>,
    interest: Interest,
    alarm: BorrowedFd<'_>,
    deadline: Instant,
) -> io::Result<Woken> {
    let mut fds = [
        libc::pollfd { fd: alarm.as_raw_fd(), events: libc::POLLIN, revents: 0 },
        libc::pollfd { fd: fd.as_raw_fd(), events: interest.poll_events(), revents: 0 },
    ];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // SAFETY: the array outlives the call and its length is passed along.
        match check(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, milliseconds(left)) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        match (fds[0].revents, fds[1].revents) {
            // poll(2) can't wait for more than 24 days.
            (0, 0) if Instant::now() < deadline => {}
            (0, 0) => return Ok(Woken::TimedOut),
            (0, _) => return Ok(Woken::Ready),
            _ => return Ok(Woken::Alarm),
        }
    }
}

/// A duration for poll(2) and epoll_wait(2), rounded up so that no wait ends too early.
fn milliseconds(time: Duration) -> libc::c_int {
    libc::c_int::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
}

/// Sets one integer-like socket option.
fn set_option<T>(fd: RawFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `size` bytes from `value`, which is a live reference to a value of that size.
    check(unsafe { libc::setsockopt(fd, level, name, std::ptr::from_ref(value).cast(), size) }).map(drop)
}

/// How much time of the processors this process has used.
pub fn processor_time() -> Duration {
    // SAFETY: all-zero is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the call fills in `usage`; it cannot fail for RUSAGE_SELF.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let duration = |time: libc::timeval| {
        let (seconds, micros) = (time.tv_sec.unsigned_abs(), time.tv_usec.unsigned_abs());
        Duration::from_secs(seconds as _) + Duration::from_micros(micros as _)
    };
    duration(usage.ru_utime) + duration(usage.ru_stime)
}

/// Whether the process acts as root.
pub fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions.
    unsafe { libc::geteuid() == 0 }
}
