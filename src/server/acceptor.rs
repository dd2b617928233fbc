//! The threads that wait for connections.

use super::event::{self, Event};
use super::limits::{Place, Places};
use super::listener::Listener;
use super::pool::{Effort, Job, Pool, THREAD_IDLE_TIMEOUT, Turn, Waited};
use super::sessions::{RETRY_DELAY, Sessions};
use super::worker::Worker;
use crate::session::{Buffers, Filter};
use crate::sys::socket::Socket;
use crate::sys::{self, Interest};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Each accepts a connection and serves it.
pub struct Acceptor<F: Filter> {
    sessions: Arc<Sessions<F>>,
    /// `None` once the server stops.
    listener: Mutex<Option<Arc<Listener>>>,
    workers: Arc<Pool<Worker<F>>>,
}

impl<F: Filter> Job for Acceptor<F> {
    /// A new connection, which counts as a session already.
    type Work = Socket;
    type Kept = Buffers;

    const MAX_WAITING: usize = usize::MAX;

    fn begin(&self) {
        self.sessions.begin_thread();
    }

    fn wait(&self, time: Duration, found: &mut VecDeque<Socket>) -> Waited {
        let mut place = None;
        if let Some(places) = self.sessions.places() {
            place = self.wait_for_place(places, time);
            if place.is_none() {
                return self.nothing();
            }
        }
        let Some(listener) = self.listener.lock().clone() else { return Waited::Over };
        let shutdown = self.sessions.shutdown();
        // accept(2) itself waits for no longer than a thread that is not needed.
        if time > THREAD_IDLE_TIMEOUT && !listener.is_wanted(time, shutdown.alarm(false)) {
            return self.nothing();
        }
        match listener.accept() {
            Ok(Some(socket)) => {
                if let Some(place) = place {
                    place.keep();
                }
                if !self.sessions.admit() {
                    drop(socket);
                    self.sessions.ended();
                    return Waited::Over;
                }
                found.push_back(socket);
                Waited::Found
            }
            _ if shutdown.has_begun() => Waited::Over,
            Ok(None) => Waited::Nothing,
            Err(error) if event::is_broken(&error) => {
                self.sessions.tell(Event::ListenerBroken(error));
                Waited::Over
            }
            Err(error) => {
                // The system looks for a descriptor before it looks for a connection: perhaps nobody misses it, or
                // another acceptor has one in store.
                if listener.is_wanted(THREAD_IDLE_TIMEOUT, shutdown.alarm(false)) {
                    self.rest();
                    if listener.is_wanted(Duration::ZERO, shutdown.alarm(false)) {
                        self.sessions.complain("accept", format_args!("cannot accept a connection: {error}"));
                    }
                }
                Waited::Nothing
            }
        }
    }

    fn wake(&self) {
        // An acceptor that waits, or is about to, closes the socket for good when it lets go of it.
        if let Some(listener) = self.listener.lock().take() {
            listener.refuse();
        }
        if let Some(places) = self.sessions.places() {
            places.wake();
        }
    }

    fn effort(&self, _: &Socket) -> Effort {
        self.sessions.effort(false)
    }

    fn work(&self, socket: Socket, turn: &Turn<'_>, buffers: &mut Buffers) {
        self.sessions.begin(socket, turn, buffers);
    }

    fn thread_is_missing(&self) {
        self.sessions.thread_is_missing();
    }

    fn is_needed_elsewhere(&self) -> bool {
        self.workers.lacks_thread()
    }

    fn help_elsewhere(&self) {
        self.workers.help();
    }
}

impl<F: Filter> Acceptor<F> {
    /// Those of a listening socket. They help the workers.
    pub fn new(sessions: Arc<Sessions<F>>, listener: Listener, workers: Arc<Pool<Worker<F>>>) -> Self {
        Self { sessions, listener: Mutex::new(Some(Arc::new(listener))), workers }
    }

    /// There is no connection, and perhaps never will be.
    fn nothing(&self) -> Waited {
        if self.sessions.shutdown().has_begun() { Waited::Over } else { Waited::Nothing }
    }

    /// Takes the place of a new session; waits for it if there are as many as are allowed.
    fn wait_for_place<'a>(&self, places: &'a Places, time: Duration) -> Option<Place<'a>> {
        places.try_take().or_else(|| {
            self.sessions.complain(
                "sessions",
                format_args!("as many sessions as LIBMILTER_MAX_SESSIONS allows, others wait"),
            );
            places.take(time, || self.sessions.shutdown().has_begun())
        })
    }

    /// Waits a little, unless the server stops.
    fn rest(&self) {
        let alarm = self.sessions.shutdown().alarm(false);
        // If the wait fails, there is no rest.
        let _ = sys::wait(alarm, Interest::Read, alarm, Instant::now() + RETRY_DELAY);
    }
}
