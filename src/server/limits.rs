//! How many sessions may be open at the same time: above that, connections wait to be accepted.

use parking_lot::{Condvar, Mutex};
use std::num::NonZero;
use std::time::{Duration, Instant};

/// Counts places for sessions. An acceptor takes one before it accepts a connection, so that there is never one
/// connection too many.
#[derive(Debug)]
pub struct Places {
    free: Mutex<usize>,
    change: Condvar,
}

impl Places {
    /// So many, all of them free.
    pub fn new(count: NonZero<usize>) -> Self {
        Self { free: Mutex::new(count.get()), change: Condvar::new() }
    }

    /// Takes a place that is free.
    pub fn try_take(&self) -> Option<Place<'_>> {
        let free = &mut *self.free.lock();
        *free = free.checked_sub(1)?;
        Some(Place(self))
    }

    /// Takes a place; waits for one for at most `time`, and not once `is_over`.
    pub fn take(&self, time: Duration, is_over: impl Fn() -> bool) -> Option<Place<'_>> {
        let deadline = Instant::now() + time;
        let mut free = self.free.lock();
        while *free == 0 {
            if is_over() || self.change.wait_until(&mut free, deadline).timed_out() {
                return None;
            }
        }
        *free -= 1;
        Some(Place(self))
    }

    /// A session that has [kept](Place::keep) its place has ended.
    pub fn give_back(&self) {
        *self.free.lock() += 1;
        self.change.notify_one();
    }

    /// Lets all who wait look whether it is over.
    pub fn wake(&self) {
        // Whoever has looked and does not wait yet holds the lock.
        drop(self.free.lock());
        self.change.notify_all();
    }
}

/// A place, until it is dropped or kept.
#[derive(Debug)]
pub struct Place<'a>(&'a Places);

impl Place<'_> {
    /// Leaves it to a session, which must [give it back](Places::give_back).
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_place_is_taken_once() {
        let places = Places::new(NonZero::new(2).unwrap());
        let never = || false;
        let first = places.try_take().unwrap();
        places.take(Duration::ZERO, never).unwrap().keep();
        assert!(places.try_take().is_none() && places.take(Duration::from_millis(1), never).is_none());
        drop(first);
        let again = places.take(Duration::ZERO, never);
        assert!(again.is_some() && places.try_take().is_none());
        places.give_back();
        assert!(places.try_take().is_some());
    }

    #[test]
    fn who_waits_gets_the_next_place_or_hears_of_the_end() {
        let places = Places::new(NonZero::new(1).unwrap());
        let (long, is_over) = (Duration::from_secs(600), AtomicBool::new(false));
        let over = || is_over.load(Ordering::SeqCst);
        std::thread::scope(|scope| {
            let place = places.try_take().unwrap();
            let waiting = scope.spawn(|| places.take(long, over).map(Place::keep));
            drop(place);
            assert!(waiting.join().unwrap().is_some());
            let waiting = [(); 3].map(|()| scope.spawn(|| places.take(long, over).is_some()));
            is_over.store(true, Ordering::SeqCst);
            places.wake();
            assert!(waiting.into_iter().all(|thread| !thread.join().unwrap()));
        });
    }
}
