//! The process: where it listens, its threads, how it stops. [`serve`] is what smfi_main does.
#![forbid(unsafe_code)]

mod acceptor;
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
mod sessions;
pub mod settings;
pub mod signals;
mod supervisor;
mod sync;
mod watch;
mod worker;

use crate::observe::Observer;
use crate::session::Filter;
use crate::sys::{memory, thread};
use crossbeam_channel::{Receiver, Sender, unbounded};
use engine::Engine;
use event::Event;
pub use event::Failure;
use listener::Listener;
use manager::Manager;
use settings::Settings;
use std::sync::Arc;
use std::time::Duration;
use supervisor::{GRACE, Supervisor};
use watch::{Watch, Watched};

/// How long threads that are not stuck may take to end, if some are.
const WIND_UP: Duration = Duration::from_millis(100);

/// Serves mail filters' clients until the process is asked to stop. When it returns, the signal mask is as it
/// was before, unless a signal has stopped it, and no callback is running, except for those that are stuck, which are
/// logged.
///
/// # Errors
/// The server could not be started, or a descriptor of its own broke.
pub fn serve<F: Filter>(filter: F, mut listener: Listener, settings: &Settings) -> Result<(), Failure> {
    // Before anything else takes a descriptor: it might get the listener's number.
    listener.prepare().map_err(Failure::Start)?;
    thread::set_stack_size(settings.stack);
    thread::set_most(settings.max_threads);
    memory::heed_limit();
    let (events, inbox) = unbounded();
    // Before the first thread: all inherit the mask.
    let signals = signals::watch(events.clone(), settings.hangup).map_err(Failure::Start)?;
    let (observer, helpers) = Observer::start(filter.name(), &settings.observe);
    let watch = settings.watch.map(|terms| Arc::new(Watch::new(terms)));
    let result = if watch.is_none() && observer.is_none() {
        run(filter, listener, settings, None, None, events, &inbox)
    } else {
        run(Watched::new(filter, watch.clone()), listener, settings, watch, observer, events, &inbox)
    };
    drop(helpers);
    drop(signals);
    result
}

/// [`serve`] when it is known who looks on.
fn run<F: Filter>(
    filter: F,
    listener: Listener,
    settings: &Settings,
    watch: Option<Arc<Watch>>,
    observer: Option<Arc<Observer>>,
    events: Sender<Event>,
    inbox: &Receiver<Event>,
) -> Result<(), Failure> {
    let name = filter.name().to_owned();
    let engine =
        Engine::start(filter, listener, settings.clone(), watch, observer, events).map_err(Failure::Start)?;
    let mut manager = Manager::new(&name, settings.manager.as_ref());
    manager.is_ready();
    let mut supervisor = Supervisor::new(&engine, inbox, manager);
    let result = supervisor.supervise();
    let all_ended = supervisor.drain(settings.drain, &name);
    engine.finish(if all_ended { GRACE } else { WIND_UP });
    result
}
