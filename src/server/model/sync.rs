//! Mutex, Condvar and threads with the interfaces that the server uses, scheduled by the model checker.
//!
//! Time does not exist there. Waits with a long timeout last until somebody ends them, so a lost wake-up shows as a
//! deadlock; a wait with a short one, a tick, may end at any moment.

pub use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use shuttle::{sync, thread};
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// As parking_lot's.
pub struct Mutex<T>(sync::Mutex<T>);

/// As parking_lot's.
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// `None` only inside of this module's functions.
    guard: Option<sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    /// Not locked.
    pub fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, guard: Some(self.acquire()) }
    }

    fn acquire(&self) -> sync::MutexGuard<'_, T> {
        self.0.lock().expect("the model ends at a panic")
    }
}

impl<T> MutexGuard<'_, T> {
    /// Runs `f` without the lock.
    pub fn unlocked<R>(guard: &mut Self, f: impl FnOnce() -> R) -> R {
        guard.guard = None;
        let result = f();
        guard.guard = Some(guard.mutex.acquire());
        result
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().expect("locked")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("locked")
    }
}

/// Whether a wait has lasted too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether it has.
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

/// As parking_lot's, but for its timeouts.
pub struct Condvar(sync::Condvar);

impl Condvar {
    /// Nobody waits.
    pub fn new() -> Self {
        Self(sync::Condvar::new())
    }

    /// Waits until it is notified; the deadline is far away.
    pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _: Instant) -> WaitTimeoutResult {
        let inner = guard.guard.take().expect("locked");
        guard.guard = Some(self.0.wait(inner).expect("the model ends at a panic"));
        WaitTimeoutResult(false)
    }

    /// Waits for a tick, which comes at any moment.
    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _: Duration) -> WaitTimeoutResult {
        MutexGuard::unlocked(guard, thread::yield_now);
        WaitTimeoutResult(true)
    }

    /// Ends one wait.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Ends all waits.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// As that of `sys::thread`; if it is `scarce`, the system has a thread to give only now and then, and never more than
/// `limit` at a time.
pub struct ThreadGroup {
    running: Mutex<usize>,
    all_left: Condvar,
    /// Whether starting a thread may fail.
    pub scarce: bool,
    /// How many threads there may be.
    pub limit: usize,
}

impl Default for ThreadGroup {
    fn default() -> Self {
        Self { running: Mutex::new(0), all_left: Condvar::new(), scarce: false, limit: usize::MAX }
    }
}

impl ThreadGroup {
    /// Starts a thread.
    ///
    /// # Errors
    /// None is left.
    pub fn spawn(self: &Arc<Self>, body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        if self.scarce && shuttle::rand::Rng::gen_bool(&mut shuttle::rand::thread_rng(), 0.5) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut running = self.running.lock();
        if *running >= self.limit {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        *running += 1;
        drop(running);
        let group = Arc::clone(self);
        thread::spawn(move || {
            body();
            *group.running.lock() -= 1;
            group.all_left.notify_all();
        });
        Ok(())
    }

    /// Waits until all threads have ended.
    pub fn wait(&self, deadline: Instant) -> bool {
        let mut running = self.running.lock();
        while *running > 0 {
            self.all_left.wait_until(&mut running, deadline);
        }
        true
    }
}
