//! How many sessions have not ended.

use super::sync::{AtomicUsize, Ordering};

/// Counts sessions, so that a stop can wait for them.
#[derive(Default)]
pub struct Live(AtomicUsize);

impl Live {
    /// Counts a new session; whether it may begin, that is, no stop has begun. Either way it must [leave](Self::leave).
    ///
    /// Whoever begins a stop says so before looking at the count. So either the stop sees the session, or the session
    /// sees the stop.
    pub fn admit(&self, has_stopped: impl FnOnce() -> bool) -> bool {
        self.0.fetch_add(1, Ordering::SeqCst);
        !has_stopped()
    }

    /// A session has ended; whether it was the last one.
    pub fn leave(&self) -> bool {
        self.0.fetch_sub(1, Ordering::SeqCst) == 1
    }

    /// The sessions that have not ended.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}
