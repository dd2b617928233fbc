//! The work of the thread that called smfi_main: it waits for a reason to stop, ends sessions whose silence has lasted too
//! long, and lets the server drain.

use super::engine::Engine;
use super::event::{Event, Failure};
use super::manager::Manager;
use crate::count::Count;
use crate::log;
use crate::session::Filter;
use crossbeam_channel::Receiver;
use std::ffi::CStr;
use std::time::{Duration, Instant};

/// How long sessions may take to notice an abort before they count as stuck.
pub const GRACE: Duration = Duration::from_secs(1);

/// How long to wait before trying again to start a thread.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Looks after an engine.
pub struct Supervisor<'a, F: Filter> {
    engine: &'a Engine<F>,
    events: &'a Receiver<Event>,
    /// Whether somebody must wait for work for whom there was no thread.
    threads_wanted: bool,
    manager: Manager<'a>,
}

impl<'a, F: Filter> Supervisor<'a, F> {
    /// Of an engine that runs and sends these events, and that the service manager may want to hear of.
    pub fn new(engine: &'a Engine<F>, events: &'a Receiver<Event>, manager: Manager<'a>) -> Self {
        Self { engine, events, threads_wanted: false, manager }
    }

    /// Waits for the reason to stop, and ends sessions whose MTA has been silent for too long.
    ///
    /// # Errors
    /// The reason is that the listening socket or the poller broke.
    pub fn supervise(&mut self) -> Result<(), Failure> {
        loop {
            let next_sweep = self.engine.expire_silent();
            match self.next_event(next_sweep) {
                Some(Event::Stop) => break self.engine.stop(),
                Some(Event::Abort) => break self.engine.abort(),
                Some(Event::ListenerBroken(error)) => {
                    self.engine.stop();
                    return Err(Failure::Listener(error));
                }
                Some(Event::PollerBroken(error)) => {
                    self.engine.stop();
                    return Err(Failure::Poller(error));
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    /// Lets running messages finish, for `time`; then cuts them off. Whether all sessions have ended.
    pub fn drain(&mut self, time: Duration, name: &CStr) -> bool {
        self.manager.is_stopping();
        self.manager.tell(|| self.engine.live_sessions());
        if self.wait_until_drained(Instant::now() + time) {
            return true;
        }
        self.engine.abort();
        if self.wait_until_drained(Instant::now() + GRACE) {
            return true;
        }
        let stuck = Count(self.engine.live_sessions(), "session");
        log::error(name, format_args!("{stuck} left behind, stuck in a callback"));
        self.engine.abandon();
        false
    }

    fn wait_until_drained(&mut self, deadline: Instant) -> bool {
        while self.engine.live_sessions() > 0 {
            match self.next_event(deadline) {
                Some(Event::Abort) => self.engine.abort(),
                Some(_) => {}
                None => return self.engine.live_sessions() == 0,
            }
        }
        true
    }

    /// The next event, or `None` at `deadline`. Meanwhile it tries again to start threads that are missing; sessions
    /// that are to end need them no less than others.
    fn next_event(&mut self, deadline: Instant) -> Option<Event> {
        loop {
            self.threads_wanted = self.threads_wanted && self.engine.restock().is_err();
            let retry = self.threads_wanted.then(|| Instant::now() + RETRY_DELAY);
            let news = self.manager.tell(|| self.engine.live_sessions());
            let look = self.engine.look_at_callbacks();
            let until = [retry, news, look].into_iter().flatten().fold(deadline, Instant::min);
            match self.events.recv_deadline(until) {
                Ok(Event::NoThread) => self.threads_wanted = true,
                Ok(event) => return Some(event),
                // Not because it is disconnected: the engine holds a sender for as long as it lives.
                Err(_) if Instant::now() >= deadline => return None,
                Err(_) => {}
            }
        }
    }
}
