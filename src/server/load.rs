//! Whether so many sessions talk at once that no thread should wait for one of them.

use crate::session::PARK_AFTER;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

/// Consecutive over-limit samples before saturation. When sessions are short, threads that are still busy with their
/// ends may happen to be many.
const SATURATION_SAMPLES: usize = 16;

/// How often a session has to have made room for others before it is a sample. One that only negotiates has nothing to say
/// that often. (In S4 the ends of sessions pile up on one processor while the next ones come; where they were samples, the
/// library made 0.83 of the bare server's sessions instead of 0.93.)
const SAMPLE_AFTER: u8 = 2;

/// Counts the sessions that talk. Below saturation that costs no lock and no look at the clock.
#[derive(Debug)]
pub struct LoadGauge {
    /// More sessions than this saturate.
    limit: usize,
    /// Sessions that a thread waits for.
    served: AtomicUsize,
    /// Consecutive over-limit samples.
    excess: AtomicUsize,
    is_saturated: AtomicBool,
    recent: Mutex<Window>,
}

/// A window of time, at least [`PARK_AFTER`] long.
#[derive(Debug)]
struct Window {
    number: u32,
    since: Instant,
    /// How many sessions have talked in it and have not ended.
    sessions: usize,
}

/// The window that a session was counted in last. The default is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted(u32);

impl LoadGauge {
    /// Saturated by more than `limit` sessions.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            served: AtomicUsize::new(0),
            excess: AtomicUsize::new(0),
            is_saturated: AtomicBool::new(false),
            recent: Mutex::new(Window { number: 1, since: Instant::now(), sessions: 0 }),
        }
    }

    /// Whether too many sessions talk at once.
    pub fn is_saturated(&self) -> bool {
        self.is_saturated.load(Ordering::Relaxed)
    }

    /// A thread begins to serve a session by waiting for it. It should not wait while the flag is set. The session has
    /// made room for others `yields` times in a row.
    pub fn begin(&self, yields: u8) -> &AtomicBool {
        static ONE_TOO_MANY: AtomicBool = AtomicBool::new(true);
        if self.served.fetch_add(1, Ordering::Relaxed) < self.limit {
            self.excess.store(0, Ordering::Relaxed);
            return &self.is_saturated;
        }
        if yields >= SAMPLE_AFTER && self.excess.fetch_add(1, Ordering::Relaxed) + 1 >= SATURATION_SAMPLES {
            self.is_saturated.store(true, Ordering::Relaxed);
        }
        &ONE_TOO_MANY
    }

    /// There is no thread for another session: those that there are should be shared.
    pub fn saturate(&self, now: Instant) {
        if !self.is_saturated.swap(true, Ordering::Relaxed) {
            let recent = &mut *self.recent.lock();
            *recent = Window { number: recent.number.wrapping_add(1), since: now, sessions: 0 };
        }
    }

    /// The thread does not wait any more.
    pub fn finish(&self) {
        self.served.fetch_sub(1, Ordering::Relaxed);
    }

    /// A session has talked. Saturation ends when no more than the limit have talked in a window: when threads are
    /// quick, few sessions are served at the same moment even under load.
    pub fn count(&self, counted: &mut Counted, now: Instant) {
        if !self.is_saturated() {
            return;
        }
        let recent = &mut *self.recent.lock();
        let length = now.saturating_duration_since(recent.since);
        if length >= PARK_AFTER {
            if recent.sessions <= self.limit || length >= 2 * PARK_AFTER {
                self.is_saturated.store(false, Ordering::Relaxed);
            }
            *recent = Window { number: recent.number.wrapping_add(1), since: now, sessions: 0 };
        }
        if counted.0 != recent.number {
            counted.0 = recent.number;
            recent.sessions += 1;
        }
    }

    /// A session has ended.
    pub fn forget(&self, counted: Counted) {
        if counted == Counted::default() {
            return;
        }
        let recent = &mut *self.recent.lock();
        if counted.0 == recent.number {
            recent.sessions = recent.sessions.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Saturated by more than two sessions, and when its first window began.
    fn saturated() -> (LoadGauge, Instant) {
        let gauge = LoadGauge::new(2);
        for _ in 0..2 + SATURATION_SAMPLES {
            gauge.begin(SAMPLE_AFTER);
        }
        (0..2 + SATURATION_SAMPLES).for_each(|_| gauge.finish());
        let since = gauge.recent.lock().since;
        (gauge, since)
    }

    #[test]
    fn it_is_saturated_when_there_are_too_many_again_and_again() {
        let is_set = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let gauge = LoadGauge::new(2);
        for _ in 0..SATURATION_SAMPLES {
            let first = gauge.begin(SAMPLE_AFTER);
            assert!(!is_set(first) && !is_set(gauge.begin(SAMPLE_AFTER)));
            assert!(is_set(gauge.begin(SAMPLE_AFTER)), "the one that is too many");
            (0..3).for_each(|_| gauge.finish());
            assert!(!is_set(first));
        }
        assert!(!gauge.is_saturated(), "it was never one too many twice in a row");
        let lingering = [gauge.begin(SAMPLE_AFTER), gauge.begin(SAMPLE_AFTER)];
        for _ in 0..SATURATION_SAMPLES {
            assert!(!gauge.is_saturated());
            gauge.begin(SAMPLE_AFTER);
            gauge.finish();
        }
        assert!(gauge.is_saturated() && lingering.into_iter().all(is_set));
    }

    #[test]
    fn sessions_that_have_hardly_made_room_do_not_saturate() {
        let gauge = LoadGauge::new(2);
        for number in 0..10 * SATURATION_SAMPLES {
            let hurry = gauge.begin(SAMPLE_AFTER - 1);
            assert_eq!(hurry.load(Ordering::Relaxed), number >= 2, "they make room all the same");
        }
        assert!(!gauge.is_saturated());
    }

    #[test]
    fn it_stays_saturated_while_more_than_the_limit_talk() {
        let (gauge, since) = saturated();
        let mut sessions = [Counted::default(); 3];
        for window in 0..5 {
            for session in sessions.iter_mut().chain([&mut Counted::default()]) {
                gauge.count(session, since + window * PARK_AFTER);
            }
            assert!(gauge.is_saturated(), "{window}");
        }
        gauge.count(&mut sessions[0], since + 5 * PARK_AFTER);
        gauge.count(&mut sessions[1], since + 5 * PARK_AFTER);
        gauge.count(&mut sessions[0], since + 5 * PARK_AFTER + PARK_AFTER / 2);
        assert!(gauge.is_saturated());
        gauge.count(&mut sessions[0], since + 6 * PARK_AFTER);
        assert!(!gauge.is_saturated(), "two have talked in the last window");
    }

    #[test]
    fn short_sessions_one_after_the_other_do_not_saturate() {
        let (gauge, since) = saturated();
        for number in 0..50 {
            let mut session = Counted::default();
            gauge.count(&mut session, since + number * PARK_AFTER / 50);
            gauge.forget(session);
        }
        gauge.count(&mut Counted::default(), since + PARK_AFTER);
        assert!(!gauge.is_saturated());
    }

    #[test]
    fn a_lack_of_threads_saturates_for_a_window() {
        let gauge = LoadGauge::new(2);
        let hurry = gauge.begin(SAMPLE_AFTER);
        let now = gauge.recent.lock().since + 50 * PARK_AFTER;
        gauge.saturate(now);
        assert!(gauge.is_saturated() && hurry.load(Ordering::Relaxed));
        gauge.count(&mut Counted::default(), now + PARK_AFTER / 2);
        assert!(gauge.is_saturated());
        gauge.saturate(now + PARK_AFTER / 2);
        gauge.count(&mut Counted::default(), now + PARK_AFTER);
        assert!(!gauge.is_saturated(), "the second time began no new window");
    }

    #[test]
    fn a_silence_ends_saturation() {
        let (gauge, since) = saturated();
        let mut sessions = [Counted::default(); 9];
        sessions.iter_mut().for_each(|session| gauge.count(session, since));
        gauge.count(&mut sessions[0], since + 2 * PARK_AFTER);
        assert!(!gauge.is_saturated());
    }
}
