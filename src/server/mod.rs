//! The process: where it listens, its threads, how it stops. [`serve`] is what smfi_main does.

mod crowd;
pub mod endpoint;
pub mod engine;
pub mod listener;
mod reserve;
pub mod settings;
pub mod signals;
mod waiting_room;

use crate::count::Count;
use crate::log;
use crate::session::Filter;
use crate::sys::signal::ignore_sigpipe;
use crossbeam_channel::{Receiver, unbounded};
use engine::Engine;
use listener::Listener;
use settings::Settings;
use std::ffi::CString;
use std::io;
use std::time::{Duration, Instant};

/// How long sessions may take to notice an abort before they count as stuck.
const GRACE: Duration = Duration::from_secs(1);

/// How long to wait before trying again to start a thread.
const RETRY: Duration = Duration::from_millis(100);

/// What the thread that called [`serve`] waits for.
#[derive(Debug)]
pub enum Event {
    /// SIGHUP, SIGTERM or smfi_stop.
    Stop,
    /// SIGINT.
    Abort,
    /// The listening socket is of no use any more.
    ListenerBroken(io::Error),
    /// The last session has ended after a stop.
    Drained,
    /// A thread could not be started, and nobody waits for work now.
    NoThread,
}

/// Why a server could not start, or had to end.
#[derive(Debug)]
pub enum Failure {
    /// Threads, descriptors or signals could not be set up.
    Start(io::Error),
    /// The listening socket broke.
    Listener(io::Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start(error) => write!(f, "cannot start: {error}"),
            Self::Listener(error) => write!(f, "the listening socket broke: {error}"),
        }
    }
}

impl std::error::Error for Failure {}

/// Serves mail filters' clients until the process is asked to stop. When it returns, the signal mask is as it
/// was before and no callback is running, except for those that are stuck, which are logged.
///
/// # Errors
/// The server could not be started, or the listening socket broke.
pub fn serve<F: Filter>(filter: F, listener: Listener, settings: &Settings) -> Result<(), Failure> {
    let name = filter.name().to_owned();
    ignore_sigpipe();
    let (events, inbox) = unbounded();
    let signals = signals::watch(events.clone()).map_err(Failure::Start)?;
    let server = Engine::start(filter, listener, settings.clone(), events).map_err(Failure::Start)?;
    let mut supervisor = Supervisor { engine: &server, inbox: &inbox, threads_wanted: false };
    let result = supervisor.supervise();
    supervisor.drain(settings.drain, &name);
    server.finish(GRACE);
    drop(signals);
    result
}

/// The calling thread's work: it looks after the engine while it waits for events.
struct Supervisor<'a, F: Filter> {
    engine: &'a Engine<F>,
    inbox: &'a Receiver<Event>,
    /// Whether somebody must wait for work for whom there was no thread.
    threads_wanted: bool,
}

impl<F: Filter> Supervisor<'_, F> {
    /// Waits for the reason to stop, and ends sessions whose MTA has been silent for too long.
    fn supervise(&mut self) -> Result<(), Failure> {
        loop {
            let next_look = self.engine.expire_silent();
            match self.next_event(next_look) {
                Some(Event::Stop) => break self.engine.stop(),
                Some(Event::Abort) => break self.engine.abort(),
                Some(Event::ListenerBroken(error)) => {
                    self.engine.stop();
                    return Err(Failure::Listener(error));
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    /// Lets running messages finish, for a while; then cuts them off.
    fn drain(&mut self, time: Duration, name: &CString) {
        if self.wait_until_drained(Instant::now() + time) {
            return;
        }
        self.engine.abort();
        if !self.wait_until_drained(Instant::now() + GRACE) {
            log::error(
                name,
                format_args!(
                    "{} left behind, stuck in a callback",
                    Count(self.engine.live_sessions(), "session")
                ),
            );
            self.engine.abandon();
        }
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
            let retry = self.threads_wanted.then(|| Instant::now() + RETRY);
            match self.inbox.recv_deadline(retry.map_or(deadline, |retry| retry.min(deadline))) {
                Ok(Event::NoThread) => self.threads_wanted = true,
                Ok(event) => return Some(event),
                // Not because it is disconnected: the engine holds a sender for as long as it lives.
                Err(_) if Instant::now() >= deadline => return None,
                Err(_) => {}
            }
        }
    }
}
