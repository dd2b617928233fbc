//! The threads that serve sessions.
//!
//! All idle threads wait in one poller, for new connections as well as for silent ones that speak again; the
//! poller wakes one thread for each. So no thread hands work to another. A thread serves its connection
//! by blocking reads for as long as the MTA talks; after a moment of silence it leaves the session in the
//! [`WaitingRoom`] and waits for other work. Before the last idle thread takes up work it starts another one:
//! somebody is always waiting, and nothing that is ready waits behind a callback.

use super::Event;
use super::listener::Listener;
use super::settings::{Settings, Threads};
use super::waiting_room::{Seat, WaitingRoom};
use crate::log;
use crate::session::link::MOMENT;
use crate::session::{Buffers, Context, Filter, Link, Pause, Session, Shutdown};
use crate::sys::epoll::Epoll;
use crate::sys::event::Event as Flag;
use crate::sys::socket::Socket;
use crate::sys::thread::{self, Reaper};
use crate::sys::{self, Interest};
use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a thread waits for work before it ends, if another one is waiting too.
const KEEP: Duration = Duration::from_secs(2);

/// How long the listener rests when the system has no descriptor or memory for a connection.
const REST: Duration = Duration::from_millis(100);

/// At most one complaint about a shortage in this time.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// How many contexts of ended sessions are kept, so that a late call of a filter's helper thread fails instead
/// of reading freed memory.
const REMEMBERED: usize = 256;

/// The poller's token for the listening socket.
const LISTENER: u64 = 0;

/// The poller's token for "all threads end".
const CLOSING: u64 = 1;

/// The server's handle on the threads.
pub struct Engine<F: Filter> {
    shared: Arc<Shared<F>>,
    /// Disconnected when the last thread has ended.
    ended: Receiver<Infallible>,
}

struct Shared<F> {
    filter: F,
    settings: Settings,
    shutdown: Arc<Shutdown>,
    poller: Epoll,
    /// `None` once the server stops.
    listener: Mutex<Option<Listener>>,
    waiting_room: Mutex<WaitingRoom>,
    remembered: Mutex<VecDeque<Arc<Context>>>,
    closing: Flag,
    /// Threads that wait for work, or will in an instant.
    idle: AtomicUsize,
    /// Sessions that have not ended.
    live: AtomicUsize,
    next_token: AtomicU64,
    last_complaint: Mutex<Option<Instant>>,
    events: Sender<Event>,
    reaper: Reaper,
}

impl<F: Filter> Engine<F> {
    /// Starts to accept connections.
    ///
    /// # Errors
    /// No descriptor or no thread is to be had.
    pub fn start(
        filter: F,
        listener: Listener,
        settings: Settings,
        events: Sender<Event>,
    ) -> io::Result<Self> {
        let poller = Epoll::new()?;
        let closing = Flag::new()?;
        poller.add_alarm(closing.as_fd(), CLOSING)?;
        poller.add(listener.as_fd(), LISTENER)?;
        let shared = Arc::new(Shared {
            filter,
            settings,
            shutdown: Arc::new(Shutdown::new()?),
            poller,
            listener: Mutex::new(Some(listener)),
            waiting_room: Mutex::default(),
            remembered: Mutex::default(),
            closing,
            idle: AtomicUsize::new(0),
            live: AtomicUsize::new(0),
            next_token: AtomicU64::new(CLOSING + 1),
            last_complaint: Mutex::default(),
            events,
            reaper: Reaper::default(),
        });
        let (alive, ended) = crossbeam_channel::bounded(0);
        spawn(&shared, &alive)?;
        Ok(Self { shared, ended })
    }

    /// How many sessions have not ended.
    pub fn live_sessions(&self) -> usize {
        self.shared.live.load(Ordering::SeqCst)
    }

    /// No new connections; sessions end as soon as they are outside a message.
    pub fn stop(&self) {
        self.shared.shutdown.stop();
        self.end_sessions();
    }

    /// No new connections; all sessions end at their next communication with the MTA.
    pub fn abort(&self) {
        self.shared.shutdown.abort();
        self.end_sessions();
    }

    fn end_sessions(&self) {
        // Closing the socket refuses those who come from now on.
        drop(self.shared.listener.lock().take());
        self.shared.waiting_room.lock().nudge_ending();
    }

    /// Ends sessions whose MTA was silent for too long; when to look again.
    pub fn expire_silent(&self) -> Instant {
        let now = Instant::now();
        // A session that falls silent from now on has nearly its whole timeout before it; the longest wait
        // is bounded because an instant is.
        let next_possible = now + self.shared.settings.timeouts.silence.saturating_sub(MOMENT).max(MOMENT);
        match self.shared.waiting_room.lock().expire(now) {
            Some(deadline) => deadline.min(next_possible),
            None => next_possible,
        }
    }

    /// Ends all threads, and waits for them for at most `grace`. Threads that are stuck in a callback stay.
    pub fn finish(self, grace: Duration) {
        self.shared.closing.raise();
        // Nothing is ever sent: the end of the last thread disconnects the channel.
        let _ = self.ended.recv_timeout(grace);
        self.shared.reaper.join();
    }
}

/// Starts one more thread.
fn spawn<F: Filter>(shared: &Arc<Shared<F>>, alive: &Sender<Infallible>) -> io::Result<()> {
    shared.idle.fetch_add(1, Ordering::SeqCst);
    let (its_shared, its_alive) = (Arc::clone(shared), alive.clone());
    let result = thread::spawn(Box::new(move || {
        work(&its_shared, &its_alive);
        its_shared.reaper.leave();
    }));
    if result.is_err() {
        shared.idle.fetch_sub(1, Ordering::SeqCst);
    }
    result
}

/// A thread's life: waits for work and does it.
fn work<F: Filter>(shared: &Arc<Shared<F>>, alive: &Sender<Infallible>) {
    let mut buffers = Buffers::default();
    loop {
        match shared.poller.wait(KEEP) {
            Ok(Some(CLOSING)) => return,
            Ok(Some(token)) => {
                let last = shared.idle.fetch_sub(1, Ordering::SeqCst) == 1;
                let alone = last && spawn(shared, alive).is_err();
                match token {
                    LISTENER => shared.take_connection(&mut buffers, alone),
                    token => shared.take_up(token, &mut buffers),
                }
                shared.idle.fetch_add(1, Ordering::SeqCst);
            }
            Ok(None) | Err(_) => {
                buffers = Buffers::default();
                // One of the waiting threads stays.
                let leave = |idle: usize| (idle > 1).then(|| idle - 1);
                if shared.idle.fetch_update(Ordering::SeqCst, Ordering::SeqCst, leave).is_ok() {
                    return;
                }
            }
        }
    }
}

impl<F: Filter> Shared<F> {
    /// Accepts one connection and serves it. A thread that is `alone` must be free for the other sessions: it
    /// refuses the connection.
    fn take_connection(&self, buffers: &mut Buffers, alone: bool) {
        let Some(accepted) = self.listener.lock().as_ref().map(|listener| {
            let accepted = listener.accept();
            if accepted.is_ok() {
                self.live.fetch_add(1, Ordering::SeqCst);
            }
            accepted
        }) else {
            return; // stopped meanwhile
        };
        match accepted {
            Ok(socket) => {
                self.listen_again();
                if alone {
                    drop(socket);
                    self.complain(format_args!("no thread for another connection, refused"));
                    self.session_ended();
                } else {
                    self.begin(socket, buffers);
                }
            }
            Err(error) if is_broken(&error) => {
                // If nobody receives it, the server is stopping anyway.
                let _ = self.events.send(Event::ListenerBroken(error));
            }
            Err(error) => {
                if !is_passing(&error) {
                    self.complain(format_args!("cannot accept a connection: {error}"));
                    self.rest();
                }
                self.listen_again();
            }
        }
    }

    fn begin(&self, socket: Socket, buffers: &mut Buffers) {
        match Link::new(socket, self.settings.timeouts, Arc::clone(&self.shutdown)) {
            Ok(link) => self.serve(
                Seat {
                    token: self.next_token.fetch_add(1, Ordering::Relaxed),
                    session: Session::new(link, self.settings.max_payload),
                    registered: false,
                    expired: false,
                },
                buffers,
            ),
            Err(error) => {
                self.complain(format_args!("cannot set up a connection: {error}"));
                self.session_ended();
            }
        }
    }

    /// Goes on with a session that was silent.
    fn take_up(&self, token: u64, buffers: &mut Buffers) {
        let seat = self.waiting_room.lock().leave(token);
        if let Some(seat) = seat {
            self.serve(seat, buffers);
        }
    }

    /// Serves a session until it falls silent or ends.
    fn serve(&self, mut seat: Seat, buffers: &mut Buffers) {
        loop {
            // A bug in this library must not cost the process, only the session.
            let run = AssertUnwindSafe(|| match self.settings.threads {
                Threads::Shared => seat.session.run(&self.filter, buffers, seat.expired),
                Threads::PerSession => seat.session.run_to_end(&self.filter, buffers),
            });
            match catch_unwind(run) {
                Ok(Pause::Silent) => match self.seat(seat) {
                    Ok(()) => return,
                    Err(stays) => seat = *stays,
                },
                Ok(Pause::Ended) => break,
                Err(_) => {
                    log::error(self.filter.name(), format_args!("internal error, session ended"));
                    *buffers = Buffers::default();
                    break;
                }
            }
        }
        if seat.registered {
            // A forked child may hold the connection open, and then closing it here is not enough.
            self.poller.remove(seat.session.link().as_fd());
        }
        self.remember(Arc::clone(seat.session.context()));
        drop(seat);
        self.session_ended();
    }

    /// Leaves a silent session in the waiting room, unless it has to go on at once.
    fn seat(&self, seat: Seat) -> Result<(), Box<Seat>> {
        seat.session.shrink();
        let deadline = seat.session.link().silence_deadline();
        let mut waiting_room = self.waiting_room.lock();
        // Whoever begins a shutdown says so before looking into the waiting room.
        if seat.session.must_end() {
            return Err(Box::new(seat));
        }
        waiting_room.enter(seat, deadline, &self.poller).map_err(|(seat, error)| {
            drop(waiting_room);
            self.complain(format_args!("a silent session keeps its thread: {error}"));
            seat
        })
    }

    /// Keeps the context of an ended session for a while.
    fn remember(&self, context: Arc<Context>) {
        let mut remembered = self.remembered.lock();
        let forgotten = if remembered.len() == REMEMBERED { remembered.pop_front() } else { None };
        remembered.push_back(context);
        drop(remembered);
        drop(forgotten);
    }

    fn session_ended(&self) {
        if self.live.fetch_sub(1, Ordering::SeqCst) == 1 && self.shutdown.has_begun() {
            // If nobody receives it, nobody waits for it.
            let _ = self.events.send(Event::Drained);
        }
    }

    fn listen_again(&self) {
        if let Some(listener) = &*self.listener.lock()
            && let Err(error) = self.poller.rearm(listener.as_fd(), LISTENER)
        {
            // As above.
            let _ = self.events.send(Event::ListenerBroken(error));
        }
    }

    /// Waits a little, unless the server stops.
    fn rest(&self) {
        let alarm = self.shutdown.alarm(false);
        // If the wait fails, there is no rest.
        let _ = sys::wait(alarm, Interest::Read, alarm, Instant::now() + REST);
    }

    fn complain(&self, complaint: std::fmt::Arguments<'_>) {
        let mut last = self.last_complaint.lock();
        if last.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY) {
            *last = Some(Instant::now());
            drop(last);
            log::error(self.filter.name(), complaint);
        }
    }
}

/// Whether the listening socket will never work again.
fn is_broken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP))
}

/// Whether only this one connection is gone.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted)
}
