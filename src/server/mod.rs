//! The process: where it listens, its threads, how it stops. [`serve`] is what smfi_main does.
#![forbid(unsafe_code)]

pub mod activation;
pub mod endpoint;
mod engine;
mod event;
mod limits;
pub mod listener;
mod live;
mod load;
pub mod manager;
#[cfg(feature = "model")]
mod model;
pub mod ops;
mod parking;
mod poller;
mod pool;
pub mod settings;
pub mod signals;
mod supervisor;
mod sync;
mod watch;

use crate::observe::Observer;
use crate::session::Filter;
use crate::sys::{memory, thread};
use crossbeam_channel::unbounded;
use engine::Engine;
pub use event::Failure;
use listener::Listener;
use manager::Manager;
use settings::Settings;
use std::time::Duration;
use supervisor::{GRACE, Supervisor};

/// How long threads that are not stuck may take to end, if some are.
const WIND_UP: Duration = Duration::from_millis(100);

/// Serves mail filters' clients until the process is asked to stop. When it returns, the signal mask is as it
/// was before, unless a signal has stopped it, and no callback is running, except for those that are stuck, which are
/// logged.
///
/// # Errors
/// The server could not be started, or a descriptor of its own broke.
pub fn serve<F: Filter>(filter: F, mut listener: Listener, settings: &Settings) -> Result<(), Failure> {
    let name = filter.name().to_owned();
    // Before anything else takes a descriptor: it might get the listener's number.
    listener.prepare().map_err(Failure::Start)?;
    thread::set_stack_size(settings.stack);
    thread::set_most(settings.max_threads);
    memory::heed_limit();
    let (events, inbox) = unbounded();
    let signals = signals::watch(events.clone(), settings.hangup).map_err(Failure::Start)?;
    let (observer, endpoint) = Observer::start(&name, &settings.observe);
    let engine =
        Engine::start(filter, listener, settings.clone(), observer, events).map_err(Failure::Start)?;
    let mut manager = Manager::new(&name, settings.manager.as_ref());
    manager.is_ready();
    let mut supervisor = Supervisor::new(&engine, &inbox, manager);
    let result = supervisor.supervise();
    let all_ended = supervisor.drain(settings.drain, &name);
    engine.finish(if all_ended { GRACE } else { WIND_UP });
    drop(endpoint);
    drop(signals);
    result
}
