//! What the thread that called `serve` waits for, and why a server fails.

use std::io;

/// What the supervisor is told.
#[derive(Debug)]
pub enum Event {
    /// SIGHUP, SIGTERM or smfi_stop.
    Stop,
    /// SIGINT.
    Abort,
    /// The listening socket is of no use any more.
    ListenerBroken(io::Error),
    /// Nobody hears of silent sessions any more.
    PollerBroken(io::Error),
    /// The last session has ended after a stop.
    Drained,
    /// A session was parked that may expire before the next sweep.
    EarlierDeadline,
    /// A thread could not be started, and nobody waits for work now.
    NoThread,
}

/// Whether the listening socket, or the poller, will never work again.
pub fn is_broken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP))
}

/// Why a server could not start, or had to end.
#[derive(Debug)]
pub enum Failure {
    /// Threads, descriptors or signals could not be set up.
    Start(io::Error),
    /// The listening socket broke.
    Listener(io::Error),
    /// The set of silent sessions broke.
    Poller(io::Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start(error) => write!(f, "cannot start: {error}"),
            Self::Listener(error) => write!(f, "the listening socket broke: {error}"),
            Self::Poller(error) => write!(f, "the epoll set broke: {error}"),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start(error) | Self::Listener(error) | Self::Poller(error) => Some(error),
        }
    }
}
