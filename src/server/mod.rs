//! The process: where it listens, its threads, how it stops. [`serve`] is what smfi_main does.

pub mod endpoint;
pub mod engine;
pub mod listener;
mod reserve;
pub mod settings;
pub mod signals;
mod waiting_room;

use crate::log;
use crate::session::Filter;
use crate::sys::signal::ignore_sigpipe;
use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
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
    let result = supervise(&server, &inbox);
    drain(&server, &inbox, settings.drain, &name);
    server.finish(GRACE);
    drop(signals);
    result
}

/// Waits for the reason to stop, and ends sessions whose MTA has been silent for too long.
fn supervise<F: Filter>(engine: &Engine<F>, inbox: &Receiver<Event>) -> Result<(), Failure> {
    let mut threads_wanted = false;
    loop {
        let mut next_look = engine.expire_silent();
        if threads_wanted {
            threads_wanted = engine.restock().is_err();
            next_look = next_look.min(Instant::now() + RETRY);
        }
        match inbox.recv_deadline(next_look) {
            Ok(Event::Stop) => break engine.stop(),
            Ok(Event::Abort) => break engine.abort(),
            Ok(Event::ListenerBroken(error)) => {
                engine.stop();
                return Err(Failure::Listener(error));
            }
            Ok(Event::NoThread) => threads_wanted = true,
            Ok(Event::Drained) | Err(RecvTimeoutError::Timeout) => {}
            // The engine holds a sender for as long as it lives.
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok(())
}

/// Lets running messages finish, for a while; then cuts them off.
fn drain<F: Filter>(engine: &Engine<F>, inbox: &Receiver<Event>, time: Duration, name: &CString) {
    if wait_until_drained(engine, inbox, Instant::now() + time) {
        return;
    }
    engine.abort();
    if !wait_until_drained(engine, inbox, Instant::now() + GRACE) {
        log::error(
            name,
            format_args!("{} sessions are stuck in a callback and are left behind", engine.live_sessions()),
        );
        engine.abandon();
    }
}

fn wait_until_drained<F: Filter>(engine: &Engine<F>, inbox: &Receiver<Event>, deadline: Instant) -> bool {
    while engine.live_sessions() > 0 {
        match inbox.recv_deadline(deadline) {
            Ok(Event::Abort) => engine.abort(),
            Ok(_) => {}
            Err(_) => return engine.live_sessions() == 0,
        }
    }
    true
}
