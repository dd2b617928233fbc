//! Threads that are not needed just now. Calling one back is cheaper than starting one, and keeping them out of the
//! poller is cheaper than letting the system choose among many.

use parking_lot::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// A place where threads wait to be called back.
#[derive(Debug, Default)]
pub struct Reserve {
    state: Mutex<State>,
    change: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Threads in [`Reserve::wait`] that have not been called.
    waiting: usize,
    /// Calls that no thread has answered yet.
    calls: usize,
    /// Nobody will be called any more.
    over: bool,
}

impl Reserve {
    /// Calls one thread back; `false` if there is none.
    pub fn call(&self) -> bool {
        let mut state = self.state.lock();
        if state.waiting == 0 {
            return false;
        }
        state.waiting -= 1;
        state.calls += 1;
        drop(state);
        self.change.notify_one();
        true
    }

    /// Waits to be called back; `false` if the thread was not needed for so long, or will never be.
    pub fn wait(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut state = self.state.lock();
        state.waiting += 1;
        while state.calls == 0 {
            let timed_out = state.over || self.change.wait_until(&mut state, deadline).timed_out();
            if timed_out && state.calls == 0 {
                state.waiting -= 1;
                return false;
            }
        }
        state.calls -= 1;
        true
    }

    /// Sends all threads home.
    pub fn dismiss(&self) {
        self.state.lock().over = true;
        self.change.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    #[test]
    fn nobody_is_called_who_does_not_wait() {
        let reserve = Reserve::default();
        assert!(!reserve.call());
        assert!(!reserve.wait(Duration::ZERO), "nobody called");
        assert!(!reserve.call(), "whoever has gone is not counted");
    }

    #[test]
    fn each_call_brings_one_thread_back_and_dismissal_sends_the_others_home() {
        let reserve = Arc::new(Reserve::default());
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let reserve = Arc::clone(&reserve);
                thread::spawn(move || reserve.wait(Duration::from_secs(60)))
            })
            .collect();
        while reserve.state.lock().waiting < 3 {
            thread::yield_now();
        }
        assert!(reserve.call() && reserve.call());
        reserve.dismiss();
        let back = threads.into_iter().map(|thread| thread.join().unwrap()).filter(|back| *back).count();
        assert_eq!(back, 2);
    }
}
