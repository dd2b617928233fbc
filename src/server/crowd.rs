//! Whether it is crowded: whether so many sessions talk at once that no thread should wait for one of them.

use crate::session::MOMENT;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

/// So often in a row one session too many makes a crowd. When sessions are short, threads that are still busy with
/// their ends may happen to be many.
const PERSISTENT: usize = 16;

/// Counts the sessions that talk. While it is not crowded that costs no lock and no look at the clock.
#[derive(Debug)]
pub struct Crowd {
    /// Not yet a crowd.
    few: usize,
    /// Sessions that a thread works for.
    served: AtomicUsize,
    /// How often in a row there was one too many.
    excess: AtomicUsize,
    crowded: AtomicBool,
    recent: Mutex<Recent>,
}

/// The time is cut into windows of at least a [`MOMENT`].
#[derive(Debug)]
struct Recent {
    /// The window's number.
    window: u32,
    since: Instant,
    /// How many sessions have talked in this window and have not ended.
    sessions: usize,
}

/// The window that a session was counted in last. The default is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted(u32);

impl Crowd {
    /// With more than `few` sessions it is crowded.
    pub fn new(few: usize) -> Self {
        let recent = Recent { window: 1, since: Instant::now(), sessions: 0 };
        Self {
            few,
            served: AtomicUsize::new(0),
            excess: AtomicUsize::new(0),
            crowded: AtomicBool::new(false),
            recent: Mutex::new(recent),
        }
    }

    /// Whether it is crowded.
    pub fn is_crowded(&self) -> bool {
        self.crowded.load(Ordering::Relaxed)
    }

    /// A thread begins to work for a session. Whenever the flag that it gets is set, it should not wait for it.
    pub fn begin(&self) -> &AtomicBool {
        static TOO_MANY: AtomicBool = AtomicBool::new(true);
        if self.served.fetch_add(1, Ordering::Relaxed) < self.few {
            self.excess.store(0, Ordering::Relaxed);
            return &self.crowded;
        }
        if self.excess.fetch_add(1, Ordering::Relaxed) + 1 >= PERSISTENT {
            self.crowded.store(true, Ordering::Relaxed);
        }
        &TOO_MANY
    }

    /// The thread has done its work.
    pub fn finish(&self) {
        self.served.fetch_sub(1, Ordering::Relaxed);
    }

    /// A session has talked. As the threads are quick, few sessions are served at once even in a crowd; so the crowd
    /// is over when few have talked in a window.
    pub fn count(&self, counted: &mut Counted, now: Instant) {
        if !self.is_crowded() {
            return;
        }
        let recent = &mut *self.recent.lock();
        let length = now.saturating_duration_since(recent.since);
        if length >= MOMENT {
            if recent.sessions <= self.few || length >= 2 * MOMENT {
                self.crowded.store(false, Ordering::Relaxed);
            }
            *recent = Recent { window: recent.window.wrapping_add(1), since: now, sessions: 0 };
        }
        if counted.0 != recent.window {
            counted.0 = recent.window;
            recent.sessions += 1;
        }
    }

    /// A session has ended.
    pub fn forget(&self, counted: Counted) {
        if counted == Counted::default() {
            return;
        }
        let recent = &mut *self.recent.lock();
        if counted.0 == recent.window {
            recent.sessions = recent.sessions.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crowd of more than two, and when its first window began.
    fn crowd() -> (Crowd, Instant) {
        let crowd = Crowd::new(2);
        for _ in 0..2 + PERSISTENT {
            crowd.begin();
        }
        (0..2 + PERSISTENT).for_each(|_| crowd.finish());
        let since = crowd.recent.lock().since;
        (crowd, since)
    }

    #[test]
    fn it_is_crowded_when_there_are_too_many_again_and_again() {
        let is_set = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let crowd = Crowd::new(2);
        for _ in 0..PERSISTENT {
            let first = crowd.begin();
            assert!(!is_set(first) && !is_set(crowd.begin()));
            assert!(is_set(crowd.begin()), "the one that is too many");
            (0..3).for_each(|_| crowd.finish());
            assert!(!is_set(first));
        }
        assert!(!crowd.is_crowded(), "it was never one too many twice in a row");
        let lingering = [crowd.begin(), crowd.begin()];
        for _ in 0..PERSISTENT {
            assert!(!crowd.is_crowded());
            crowd.begin();
            crowd.finish();
        }
        assert!(crowd.is_crowded() && lingering.into_iter().all(is_set));
    }

    #[test]
    fn it_stays_crowded_while_more_than_few_talk() {
        let (crowd, since) = crowd();
        let mut sessions = [Counted::default(); 3];
        for window in 0..5 {
            for session in sessions.iter_mut().chain([&mut Counted::default()]) {
                crowd.count(session, since + window * MOMENT);
            }
            assert!(crowd.is_crowded(), "{window}");
        }
        crowd.count(&mut sessions[0], since + 5 * MOMENT);
        crowd.count(&mut sessions[1], since + 5 * MOMENT);
        crowd.count(&mut sessions[0], since + 5 * MOMENT + MOMENT / 2);
        assert!(crowd.is_crowded());
        crowd.count(&mut sessions[0], since + 6 * MOMENT);
        assert!(!crowd.is_crowded(), "two have talked in the last window");
    }

    #[test]
    fn one_short_session_after_the_other_is_no_crowd() {
        let (crowd, since) = crowd();
        for number in 0..50 {
            let mut session = Counted::default();
            crowd.count(&mut session, since + number * MOMENT / 50);
            crowd.forget(session);
        }
        crowd.count(&mut Counted::default(), since + MOMENT);
        assert!(!crowd.is_crowded());
    }

    #[test]
    fn a_silence_ends_the_crowd() {
        let (crowd, since) = crowd();
        let mut sessions = [Counted::default(); 9];
        sessions.iter_mut().for_each(|session| crowd.count(session, since));
        crowd.count(&mut sessions[0], since + 2 * MOMENT);
        assert!(!crowd.is_crowded());
    }
}
