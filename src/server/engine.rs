//! The threads that serve sessions.
//!
//! Idle threads wait where work arrives: acceptors in accept(2), watchers in the poller that knows the silent
//! sessions. The system wakes one thread for each piece of work, so no thread hands work to another. Before the
//! last idle thread of a kind takes up work it starts another one: somebody is always waiting, and nothing that is
//! ready waits behind a callback.
//!
//! A thread serves its session by blocking reads for as long as the MTA talks: that is the fewest system calls. But
//! when it is crowded, that is, when many sessions talk at once, they all go back to the waiting room after each
//! command: there is a call or two more then, but no switch of threads for every command.

use super::Event;
use super::crowd::{Counted, Crowd};
use super::listener::{LONGEST_WAIT, Listener};
use super::reserve::Reserve;
use super::settings::{Settings, Threads};
use super::waiting_room::{Seat, WaitingRoom};
use crate::log;
use crate::session::{Buffers, Context, Filter, Link, MOMENT, Pause, Session, Shutdown};
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
const KEEP: Duration = LONGEST_WAIT;

/// How long to wait before asking again for what the system has denied: a descriptor, or memory.
const REST: Duration = Duration::from_millis(100);

/// At most one complaint about a shortage in this time.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// At least one look for expired sessions in this time: the timeout may have been changed meanwhile.
const LONGEST_LOOK: Duration = Duration::from_secs(10);

/// How many contexts of ended sessions are kept, so that a late call of a filter's helper thread fails instead
/// of reading freed memory.
const REMEMBERED: usize = 256;

/// So many sessions that talk at once are few, for each processor.
const FEW: usize = 2;

/// At least so many threads may wait in the poller.
const LEAST_WATCHERS: usize = 2;

/// The poller's token for "all watchers end"; sessions have higher ones.
const CLOSING: u64 = 0;

/// The server's handle on the threads.
pub struct Engine<F: Filter> {
    shared: Arc<Shared<F>>,
    /// What each thread has a copy of, to start more.
    alive: Sender<Infallible>,
    /// Disconnected when the last thread has ended.
    ended: Receiver<Infallible>,
}

struct Shared<F> {
    filter: F,
    settings: Settings,
    shutdown: Arc<Shutdown>,
    /// `None` once the server stops.
    listener: Mutex<Option<Arc<Listener>>>,
    poller: Epoll,
    waiting_room: Mutex<WaitingRoom>,
    remembered: Mutex<VecDeque<Arc<Context>>>,
    closing: Flag,
    /// Threads that wait for connections, or will in an instant.
    idle_acceptors: AtomicUsize,
    /// Threads that wait for silent sessions, or will in an instant.
    idle_watchers: AtomicUsize,
    /// How many watchers wait in the poller; more only make it slower.
    enough_watchers: usize,
    /// The others.
    reserve: Reserve,
    crowd: Crowd,
    /// Sessions that have not ended.
    live: AtomicUsize,
    next_token: AtomicU64,
    last_complaint: Mutex<Option<Instant>>,
    events: Sender<Event>,
    reaper: Reaper,
}

/// What a thread waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Acceptor,
    Watcher,
}

/// What a thread has found.
enum Work {
    /// A new connection, which counts as a session already.
    Connection(Socket),
    /// A silent session that has something to do.
    Session(u64),
    /// Nothing for a while.
    Nothing,
    /// The thread is not needed any more.
    Over,
}

impl<F: Filter> Engine<F> {
    /// Starts to accept connections.
    ///
    /// # Errors
    /// No descriptor or no thread is to be had.
    pub fn start(
        filter: F,
        mut listener: Listener,
        settings: Settings,
        events: Sender<Event>,
    ) -> io::Result<Self> {
        let poller = Epoll::new()?;
        let closing = Flag::new()?;
        poller.add_alarm(closing.as_fd(), CLOSING)?;
        listener.prepare()?;
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let shared = Arc::new(Shared {
            filter,
            settings,
            shutdown: Arc::new(Shutdown::new()?),
            listener: Mutex::new(Some(Arc::new(listener))),
            poller,
            waiting_room: Mutex::default(),
            remembered: Mutex::default(),
            closing,
            idle_acceptors: AtomicUsize::new(0),
            idle_watchers: AtomicUsize::new(0),
            enough_watchers: LEAST_WATCHERS.max(processors),
            reserve: Reserve::default(),
            crowd: Crowd::new(FEW * processors),
            live: AtomicUsize::new(0),
            next_token: AtomicU64::new(CLOSING + 1),
            last_complaint: Mutex::default(),
            events,
            reaper: Reaper::default(),
        });
        let (alive, ended) = crossbeam_channel::bounded(0);
        let engine = Self { shared, alive, ended };
        match engine.restock() {
            Ok(()) => Ok(engine),
            Err(error) => {
                engine.stop();
                engine.finish(KEEP);
                Err(error)
            }
        }
    }

    /// Starts threads where none waits for work.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn restock(&self) -> io::Result<()> {
        for role in [Role::Watcher, Role::Acceptor] {
            if self.shared.idle(role).load(Ordering::SeqCst) == 0 {
                enlist(&self.shared, &self.alive, role)?;
            }
        }
        Ok(())
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

    /// Sessions that are stuck in a callback end without another one.
    pub fn abandon(&self) {
        self.shared.shutdown.abandon();
    }

    fn end_sessions(&self) {
        // An acceptor that waits, or is about to, closes the socket for good when it lets go of it.
        if let Some(listener) = self.shared.listener.lock().take() {
            listener.refuse();
        }
        self.shared.waiting_room.lock().nudge_ending();
    }

    /// Ends sessions whose MTA was silent for too long; when to look again.
    pub fn expire_silent(&self) -> Instant {
        let silence = self.shared.settings.limits.timeouts().silence;
        let now = Instant::now();
        // Each look costs time for every silent session, so there are not too many looks; a session that falls silent
        // from now on has nearly its whole timeout before it.
        let soonest = now + (silence / 64).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let latest = now + silence.saturating_sub(MOMENT).min(LONGEST_LOOK);
        let next = self.shared.waiting_room.lock().expire(now);
        next.unwrap_or(latest).min(latest).max(soonest)
    }

    /// Ends all threads, and waits for them for at most `grace`. Threads that are stuck in a callback stay.
    pub fn finish(self, grace: Duration) {
        self.shared.closing.raise();
        self.shared.reserve.dismiss();
        drop(self.alive);
        // Nothing is ever sent: the end of the last thread disconnects the channel.
        let _ = self.ended.recv_timeout(grace);
        self.shared.reaper.join();
    }
}

/// Lets one more thread wait for work: one from the reserve, or a new one.
///
/// # Errors
/// The system has no thread to give.
fn enlist<F: Filter>(shared: &Arc<Shared<F>>, alive: &Sender<Infallible>, role: Role) -> io::Result<()> {
    // It is counted at once: before this thread goes on, it may have found work already.
    shared.idle(role).fetch_add(1, Ordering::SeqCst);
    if role == Role::Watcher && shared.reserve.call() {
        return Ok(());
    }
    let (its_shared, its_alive) = (Arc::clone(shared), alive.clone());
    let result = thread::spawn(Box::new(move || {
        work(&its_shared, &its_alive, role);
        its_shared.reaper.leave();
    }));
    if result.is_err() {
        shared.idle(role).fetch_sub(1, Ordering::SeqCst);
    }
    result
}

/// A thread's life: waits for work and does it.
fn work<F: Filter>(shared: &Arc<Shared<F>>, alive: &Sender<Infallible>, role: Role) {
    let mut buffers = Buffers::default();
    let idle = shared.idle(role);
    loop {
        let work = match role {
            Role::Acceptor => shared.wait_for_connection(),
            Role::Watcher => shared.wait_for_session(),
        };
        match work {
            Work::Connection(_) | Work::Session(_) => {
                let last = idle.fetch_sub(1, Ordering::SeqCst) == 1;
                let alone = last && enlist(shared, alive, role).is_err();
                if alone {
                    // If nobody receives it, the server is stopping.
                    let _ = shared.events.send(Event::NoThread);
                }
                match work {
                    Work::Connection(socket) => shared.begin(socket, &mut buffers, alone),
                    Work::Session(token) => shared.take_up(token, &mut buffers),
                    Work::Nothing | Work::Over => {}
                }
                if shared.has_enough(role) {
                    // Whoever calls it back counts it as idle.
                    if !shared.reserve.wait(KEEP) {
                        return;
                    }
                } else {
                    idle.fetch_add(1, Ordering::SeqCst);
                }
            }
            Work::Nothing => {
                buffers = Buffers::default();
                // One of the waiting threads stays.
                let leave = |idle: usize| (idle > 1).then(|| idle - 1);
                if idle.fetch_update(Ordering::SeqCst, Ordering::SeqCst, leave).is_ok() {
                    return;
                }
            }
            Work::Over => return,
        }
    }
}

impl<F: Filter> Shared<F> {
    fn idle(&self, role: Role) -> &AtomicUsize {
        match role {
            Role::Acceptor => &self.idle_acceptors,
            Role::Watcher => &self.idle_watchers,
        }
    }

    /// Whether another idle thread would be one too many.
    fn has_enough(&self, role: Role) -> bool {
        role == Role::Watcher && self.idle_watchers.load(Ordering::SeqCst) >= self.enough_watchers
    }

    fn wait_for_session(&self) -> Work {
        match self.poller.wait(KEEP) {
            Ok(Some(CLOSING)) => Work::Over,
            Ok(Some(token)) => Work::Session(token),
            Ok(None) | Err(_) => Work::Nothing,
        }
    }

    fn wait_for_connection(&self) -> Work {
        let Some(listener) = self.listener.lock().clone() else { return Work::Over };
        match listener.accept(self.shutdown.alarm(false)) {
            Ok(Some(socket)) => {
                // Whoever begins a shutdown says so before counting the sessions.
                self.live.fetch_add(1, Ordering::SeqCst);
                if self.shutdown.has_begun() {
                    drop(socket);
                    self.session_ended();
                    return Work::Over;
                }
                Work::Connection(socket)
            }
            _ if self.shutdown.has_begun() => Work::Over,
            Ok(None) => Work::Nothing,
            Err(error) if is_broken(&error) => {
                // If nobody receives it, the server is stopping anyway.
                let _ = self.events.send(Event::ListenerBroken(error));
                Work::Over
            }
            Err(error) => {
                // The system looks for a descriptor before it looks for a connection: perhaps nobody misses it, or
                // another acceptor has one in store.
                let stopping = self.shutdown.alarm(false);
                if listener.is_wanted(LONGEST_WAIT, stopping) {
                    self.rest();
                    if listener.is_wanted(Duration::ZERO, stopping) {
                        self.complain(format_args!("cannot accept a connection: {error}"));
                    }
                }
                Work::Nothing
            }
        }
    }

    /// Serves a new connection. A thread that is `alone` must be free for the next one: it refuses this one.
    fn begin(&self, socket: Socket, buffers: &mut Buffers, alone: bool) {
        if alone {
            drop(socket);
            self.complain(format_args!("no thread for another connection, refused"));
            return self.session_ended();
        }
        let limits = &self.settings.limits;
        match Link::new(socket, limits.timeouts(), Arc::clone(&self.shutdown)) {
            Ok(link) => self.serve(
                Seat {
                    token: self.next_token.fetch_add(1, Ordering::Relaxed),
                    session: Session::new(link, limits.max_payload(), buffers),
                    registered: false,
                    expired: false,
                    counted: Counted::default(),
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
            match self.run(&mut seat, buffers) {
                Ok(Pause::Silent) => match self.seat(seat) {
                    Ok(()) => return,
                    Err(stays) => seat = *stays,
                },
                Ok(Pause::Ended) => break,
                Err(Panicked) => {
                    log::error(self.filter.name(), format_args!("internal error, session ended"));
                    seat.session.context().end();
                    *buffers = Buffers::default();
                    break;
                }
            }
        }
        if seat.registered {
            // A forked child may hold the connection open, and then closing it here is not enough.
            self.poller.remove(seat.session.link().as_fd());
        }
        self.crowd.forget(seat.counted);
        self.remember(Arc::clone(seat.session.context()));
        drop(seat);
        self.session_ended();
    }

    /// Lets a session work. A bug in this library must not cost the process, only the session.
    fn run(&self, seat: &mut Seat, buffers: &mut Buffers) -> Result<Pause, Panicked> {
        let (session, filter) = (&mut seat.session, &self.filter);
        if self.settings.threads == Threads::PerSession {
            return caught(|| session.run_to_end(filter, buffers));
        }
        let crowded = self.crowd.begin();
        let pause = caught(|| session.run(filter, buffers, crowded, seat.expired));
        self.crowd.finish();
        pause
    }

    /// Leaves a silent session in the waiting room, unless it has to go on at once.
    fn seat(&self, mut seat: Seat) -> Result<(), Box<Seat>> {
        let now = Instant::now();
        self.crowd.count(&mut seat.counted, now);
        if !self.crowd.is_crowded() {
            // Else it need not be silent: it will be back in an instant.
            seat.session.shrink();
        }
        let (token, known, link) = (seat.token, seat.registered, Arc::clone(seat.session.link()));
        let deadline = link.silence_deadline(now);
        loop {
            {
                let mut waiting_room = self.waiting_room.lock();
                // Whoever begins a shutdown says so before looking into the waiting room.
                if seat.session.must_end() {
                    return Err(Box::new(seat));
                }
                seat.registered = true;
                waiting_room.enter(seat, deadline);
            }
            // Not under the lock: a thread that is interrupted here must not hold up all others.
            let watched = if known {
                self.poller.rearm(link.as_fd(), token)
            } else {
                self.poller.add(link.as_fd(), token)
            };
            let Err(error) = watched else { return Ok(()) };
            self.complain(format_args!("a silent session keeps its thread: {error}"));
            let Some(left) = self.waiting_room.lock().leave(token) else { return Ok(()) };
            seat = left;
            seat.registered = known;
            // The thread waits in the poller's place, and asks it again now and then.
            let goes_on = seat.session.wait(deadline.min(Instant::now() + REST));
            seat.expired |= !goes_on && Instant::now() >= deadline;
            if goes_on || seat.expired {
                return Err(Box::new(seat));
            }
        }
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

/// The session's code panicked.
struct Panicked;

fn caught(run: impl FnOnce() -> Pause) -> Result<Pause, Panicked> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| Panicked)
}

/// Whether the listening socket will never work again.
fn is_broken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP))
}
