//! Why a thread serves a session, how long it may wait for the MTA, and why it stops.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How long a thread waits for an MTA's next command before it parks the session. SO_RCVTIMEO costs a timer for each
/// command, 5 to 7 % of the time of the shortest ones; parking after a fixed time is what that buys.
pub const PARK_AFTER: Duration = Duration::from_millis(100);

/// How long a thread waits in all for the rest of a frame that has begun, before it parks the session with what has come;
/// if it may block, the last of these waits may take up to [`PARK_AFTER`]. The pieces of a large frame follow each other
/// faster; who is slower than that must not hold threads. (In S3-4096 a recv that blocks for each piece is 1.05 of Debian's
/// throughput, recv and poll for each 1.01, one recv with MSG_WAITALL for all 0.93. A fuzz target sends the rest itself, from
/// the same thread.)
pub(super) const FRAME_PATIENCE: Duration =
    if cfg!(fuzzing) { Duration::ZERO } else { Duration::from_millis(10) };

/// Why [`Session::run`](super::Session::run) has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// The MTA has been silent for [`PARK_AFTER`], or has not sent the rest of a frame within a shorter time. Call again when
    /// there is something to read.
    Silent,
    /// The same, but without waiting: there is no patience left.
    Yielded,
    /// The session is over, close was called.
    Ended,
}

/// Why [`Session::run`](super::Session::run) is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// There is something to read, or [`Session::must_end`](super::Session::must_end).
    Ready,
    /// The same, and the MTA may have closed the connection behind it: that shows only to who reads on.
    HungUp,
    /// The silence has lasted too long.
    Expired,
}

/// How long [`Session::run`](super::Session::run) may wait for the MTA's next command.
#[derive(Debug, Clone, Copy)]
pub enum Patience<'a> {
    /// Not at all: the thread has other sessions to serve.
    None,
    /// For [`PARK_AFTER`].
    Brief,
    /// The same, but not at all while the flag is set.
    BriefUnless(&'a AtomicBool),
}

impl<'a> Patience<'a> {
    /// The flag: waiting is not allowed while it is set.
    pub(super) fn hurry(self) -> &'a AtomicBool {
        static ALWAYS: AtomicBool = AtomicBool::new(true);
        static NEVER: AtomicBool = AtomicBool::new(false);
        match self {
            Self::None => &ALWAYS,
            Self::Brief => &NEVER,
            Self::BriefUnless(hurry) => hurry,
        }
    }
}
