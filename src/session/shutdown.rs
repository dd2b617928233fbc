//! The one stop and abort state that every loop waits on.

use crate::sys::event::EventFd;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU8, Ordering};

const RUNNING: u8 = 0;
const STOPPING: u8 = 1;
const ABORTING: u8 = 2;
const ABANDONED: u8 = 3;

/// Running, then perhaps stopping, then perhaps aborting, then perhaps abandoned; never back.
#[derive(Debug)]
pub struct Shutdown {
    phase: AtomicU8,
    stopping: EventFd,
    aborting: EventFd,
}

impl Shutdown {
    /// Running.
    ///
    /// # Errors
    /// No descriptor is to be had.
    pub fn new() -> io::Result<Self> {
        Ok(Self { phase: AtomicU8::new(RUNNING), stopping: EventFd::new()?, aborting: EventFd::new()? })
    }

    /// No new messages: sessions end as soon as no message is under way.
    pub fn stop(&self) {
        self.phase.fetch_max(STOPPING, Ordering::SeqCst);
        self.stopping.raise();
    }

    /// Every session ends at its next communication with the MTA.
    pub fn abort(&self) {
        self.phase.fetch_max(ABORTING, Ordering::SeqCst);
        self.stopping.raise();
        self.aborting.raise();
    }

    /// Nobody waits for the sessions any more that are stuck in a callback: when they come free, they end without
    /// another callback.
    pub fn abandon(&self) {
        self.phase.store(ABANDONED, Ordering::SeqCst);
    }

    /// Whether the filter must not be called any more.
    pub fn has_abandoned(&self) -> bool {
        self.phase.load(Ordering::SeqCst) == ABANDONED
    }

    /// Whether a stop or an abort has begun.
    pub fn has_begun(&self) -> bool {
        self.phase.load(Ordering::SeqCst) != RUNNING
    }

    /// Whether a session must end now, given whether it is inside a message.
    pub fn ends(&self, in_message: bool) -> bool {
        match self.phase.load(Ordering::Relaxed) {
            RUNNING => false,
            STOPPING => !in_message,
            _ => true,
        }
    }

    /// What becomes readable as soon as [`Self::ends`] would say so.
    pub fn alarm(&self, in_message: bool) -> BorrowedFd<'_> {
        if in_message { self.aborting.as_fd() } else { self.stopping.as_fd() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_spares_messages_and_an_abort_does_not() {
        let shutdown = Shutdown::new().unwrap();
        assert!(!shutdown.ends(false));
        shutdown.stop();
        assert!(shutdown.ends(false) && !shutdown.ends(true));
        shutdown.abort();
        shutdown.stop();
        assert!(shutdown.ends(true), "an abort is not taken back");
        assert!(!shutdown.has_abandoned());
        shutdown.abandon();
        assert!(shutdown.ends(true) && shutdown.has_abandoned());
    }
}
