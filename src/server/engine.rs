//! How connections become sessions, and which thread serves them: accept, serve, end.
//!
//! Acceptors wait in accept(2) and serve what they accept; workers wait for parked sessions that go on. Either serves
//! its session by blocking reads for as long as the MTA talks: that is the fewest system calls. A session that is silent
//! for a tenth of a second is parked.
//!
//! When many sessions talk at once, waiting for each of them in a thread of its own would cost a switch of threads for
//! every command. Then all are parked after each command, and one worker serves those that have spoken, a batch at a time.
//! A session whose callback has once held up a batch is slow: it gets a thread of its own until it falls silent.
//!
//! A connection for which the system has no thread is parked like a silent session. It waits its turn there for a worker, and
//! acceptors that come free help the workers.

use super::event::Event;
use super::limits::{Place as SessionPlace, Places};
use super::listener::Listener;
use super::live::Live;
use super::load::{Counted, LoadGauge};
use super::parking::{NotParked, Parkable, Parking, Place};
use super::poller::EpollPoller;
use super::pool::{Effort, Job, Pool, THREAD_IDLE_TIMEOUT, Turn, Waited};
use super::settings::{Settings, Threads};
use super::sync::ThreadGroup;
use super::watch::Watch;
use crate::log::{self, LineKind};
use crate::observe::Observer;
use crate::session::{Buffers, Cause, Filter, Link, Patience, Pause, Session, Shutdown, remember};
use crate::sys::epoll::Trigger;
use crate::sys::memory;
use crate::sys::socket::Socket;
use crate::sys::{self, Interest, thread};
use crossbeam_channel::Sender;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long to wait before asking again for what the system has denied: a descriptor, or memory.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// At most one complaint about a shortage of each kind in this time.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// How long nobody looks for expired sessions when there are none.
const NO_SWEEP: Duration = Duration::from_secs(86_400);

/// So many sessions that talk at once, for each processor, have a thread each. With two or three connections batches would
/// cost a quarter of the messages.
const BLOCKING_PER_PROCESSOR: usize = 2;

/// The server's handle on sessions and threads.
pub struct Engine<F: Filter> {
    shared: Arc<Shared<F>>,
    acceptors: Arc<Pool<Acceptor<F>>>,
    workers: Arc<Pool<Worker<F>>>,
    threads: Arc<ThreadGroup>,
}

/// What all threads use.
struct Shared<F: Filter> {
    filter: F,
    settings: Settings,
    watch: Option<Arc<Watch>>,
    observer: Option<Arc<Observer>>,
    shutdown: Arc<Shutdown>,
    /// `None` once the server stops.
    listener: Mutex<Option<Arc<Listener>>>,
    parking: Parking<Connection, EpollPoller>,
    load: LoadGauge,
    /// Sessions that have not ended.
    live: Live,
    /// Where sessions have to have a place, if their number is limited.
    places: Option<Places>,
    events: Sender<Event>,
}

/// A session with what the engine knows of it.
struct Connection {
    session: Session,
    place: Place,
    counted: Counted,
    /// A callback of it has held up a batch.
    is_slow: bool,
}

impl Parkable for Connection {
    fn place(&mut self) -> &mut Place {
        &mut self.place
    }

    fn must_end(&self) -> bool {
        self.session.must_end()
    }

    fn wait(&self, until: Instant) -> bool {
        self.session.wait(until)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.session.link().as_fd()
    }
}

/// The threads that wait for connections.
struct Acceptor<F: Filter> {
    shared: Arc<Shared<F>>,
    workers: Arc<Pool<Worker<F>>>,
}

impl<F: Filter> Job for Acceptor<F> {
    /// A new connection, which counts as a session already.
    type Work = Socket;
    type Kept = Buffers;

    const MAX_WAITING: usize = usize::MAX;

    fn begin(&self) {
        self.shared.begin_thread();
    }

    fn wait(&self, time: Duration, found: &mut VecDeque<Socket>) -> Waited {
        self.shared.accept(time, found)
    }

    fn wake(&self) {
        // An acceptor that waits, or is about to, closes the socket for good when it lets go of it.
        if let Some(listener) = self.shared.listener.lock().take() {
            listener.refuse();
        }
        if let Some(places) = &self.shared.places {
            places.wake();
        }
    }

    fn effort(&self, _: &Socket) -> Effort {
        if self.shared.serves_in_batches() { Effort::Short } else { Effort::Long }
    }

    fn work(&self, socket: Socket, turn: &Turn<'_>, buffers: &mut Buffers) {
        self.shared.begin(socket, turn, buffers);
    }

    fn thread_is_missing(&self) {
        self.shared.thread_is_missing();
    }

    fn is_needed_elsewhere(&self) -> bool {
        self.workers.lacks_thread()
    }

    fn help_elsewhere(&self) {
        self.workers.help();
    }
}

/// The threads that wait for parked sessions.
struct Worker<F: Filter>(Arc<Shared<F>>);

impl<F: Filter> Job for Worker<F> {
    /// A session that goes on.
    type Work = (Box<Connection>, Cause);
    type Kept = Buffers;

    const MAX_WAITING: usize = 1;

    fn begin(&self) {
        self.0.begin_thread();
    }

    fn wait(&self, time: Duration, found: &mut VecDeque<Self::Work>) -> Waited {
        match self.0.parking.next(time, found) {
            Ok(()) if found.is_empty() => Waited::Nothing,
            Ok(()) => Waited::Found,
            Err(error) => {
                // If nobody receives it, the server is stopping, perhaps because of this. Sessions that are to end are
                // found all the same.
                let _ = self.0.events.send(Event::PollerBroken(error));
                if found.is_empty() {
                    std::thread::sleep(RETRY_DELAY);
                }
                Waited::Found
            }
        }
    }

    fn wake(&self) {
        self.0.parking.wake();
    }

    fn effort(&self, (connection, _): &Self::Work) -> Effort {
        if self.0.serves_in_batches() && !connection.is_slow { Effort::Short } else { Effort::Long }
    }

    fn work(&self, (mut connection, cause): Self::Work, turn: &Turn<'_>, buffers: &mut Buffers) {
        let manner = match turn.effort {
            Effort::Short => Manner::Batch(turn),
            Effort::Long => {
                self.0.parking.disarm(&mut connection);
                Manner::Blocking
            }
        };
        self.0.serve(connection, cause, manner, buffers);
    }

    fn thread_is_missing(&self) {
        self.0.thread_is_missing();
    }
}

/// How a thread serves a session.
#[derive(Clone, Copy)]
enum Manner<'a> {
    /// It waits for the next command.
    Blocking,
    /// Others have their turn after each command.
    Batch(&'a Turn<'a>),
}

impl<F: Filter> Engine<F> {
    /// Starts to accept connections.
    ///
    /// # Errors
    /// No descriptor or no thread is left.
    pub fn start(
        filter: F,
        listener: Listener,
        settings: Settings,
        watch: Option<Arc<Watch>>,
        observer: Option<Arc<Observer>>,
        events: Sender<Event>,
    ) -> io::Result<Self> {
        let poller = EpollPoller::new()?;
        let shutdown = Arc::new(Shutdown::new()?);
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // Two threads wait for connections and for sessions that go on.
        let most_serving = settings.max_threads.map_or(usize::MAX, |most| most.get().saturating_sub(2));
        let places = settings.max_sessions.map(Places::new);
        let shared = Arc::new(Shared {
            filter,
            settings,
            watch,
            observer,
            shutdown,
            listener: Mutex::new(Some(Arc::new(listener))),
            parking: Parking::new(poller),
            load: LoadGauge::new((BLOCKING_PER_PROCESSOR * processors).min(most_serving)),
            live: Live::default(),
            places,
            events,
        });
        let threads = Arc::new(ThreadGroup::default());
        let workers = Pool::new(Worker(Arc::clone(&shared)), Arc::clone(&threads));
        let acceptor = Acceptor { shared: Arc::clone(&shared), workers: Arc::clone(&workers) };
        let acceptors = Pool::new(acceptor, Arc::clone(&threads));
        let engine = Self { acceptors, workers, shared, threads };
        match engine.restock() {
            Ok(()) => Ok(engine),
            Err(error) => {
                engine.stop();
                engine.finish(THREAD_IDLE_TIMEOUT);
                Err(error)
            }
        }
    }

    /// Starts threads where none waits for work.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn restock(&self) -> io::Result<()> {
        self.workers.restock()?;
        self.acceptors.restock()
    }

    /// Looks after callbacks that take long; when to look again, if they are watched.
    pub fn look_at_callbacks(&self) -> Option<Instant> {
        let shared = &self.shared;
        shared.watch.as_ref().map(|watch| watch.look(shared.filter.name()))
    }

    /// How many sessions have not ended.
    pub fn live_sessions(&self) -> usize {
        self.shared.live.count()
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
        self.acceptors.close();
        self.shared.parking.release_ending();
    }

    /// Ends sessions whose MTA was silent for too long; when to look again.
    pub fn expire_silent(&self) -> Instant {
        let silence = self.shared.settings.limits.timeouts().silence();
        let now = Instant::now();
        // Each sweep costs time for every silent session, so there are not too many.
        let soonest = now + (silence / 64).clamp(Duration::from_millis(10), Duration::from_secs(1));
        self.shared.parking.expire(now).unwrap_or(now + NO_SWEEP).max(soonest)
    }

    /// Ends all threads, and waits for them for at most `grace`. Threads that are stuck in a callback stay.
    pub fn finish(self, grace: Duration) {
        self.acceptors.close();
        self.workers.close();
        self.threads.wait(Instant::now() + grace);
    }
}

impl<F: Filter> Shared<F> {
    /// Whether sessions are served in batches.
    fn serves_in_batches(&self) -> bool {
        self.load.is_saturated() && self.settings.threads == Threads::Shared
    }

    fn begin_thread(&self) {
        let name = self.filter.name().to_owned();
        thread::if_lost(move || {
            log::error(&name, format_args!("pthread_exit left a callback, the process ends"));
        });
    }

    /// Takes the place of a new session; waits for it if there are as many as are allowed.
    fn wait_for_place<'a>(&self, places: &'a Places, time: Duration) -> Option<SessionPlace<'a>> {
        places.try_take().or_else(|| {
            self.complain(
                "sessions",
                format_args!("as many sessions as LIBMILTER_MAX_SESSIONS allows, others wait"),
            );
            places.take(time, || self.shutdown.has_begun())
        })
    }

    fn accept(&self, time: Duration, found: &mut VecDeque<Socket>) -> Waited {
        let mut place = None;
        if let Some(places) = &self.places {
            place = self.wait_for_place(places, time);
            if place.is_none() {
                return if self.shutdown.has_begun() { Waited::Over } else { Waited::Nothing };
            }
        }
        let Some(listener) = self.listener.lock().clone() else { return Waited::Over };
        // accept(2) itself waits for no longer than a thread that is not needed.
        if time > THREAD_IDLE_TIMEOUT && !listener.is_wanted(time, self.shutdown.alarm(false)) {
            return if self.shutdown.has_begun() { Waited::Over } else { Waited::Nothing };
        }
        match listener.accept() {
            Ok(Some(socket)) => {
                if let Some(place) = place {
                    place.keep();
                }
                if !self.live.admit(|| self.shutdown.has_begun()) {
                    drop(socket);
                    self.session_ended();
                    return Waited::Over;
                }
                found.push_back(socket);
                Waited::Found
            }
            _ if self.shutdown.has_begun() => Waited::Over,
            Ok(None) => Waited::Nothing,
            Err(error) if is_broken(&error) => {
                // If nobody receives it, the server is stopping anyway.
                let _ = self.events.send(Event::ListenerBroken(error));
                Waited::Over
            }
            Err(error) => {
                // The system looks for a descriptor before it looks for a connection: perhaps nobody misses it, or
                // another acceptor has one in store.
                let stopping = self.shutdown.alarm(false);
                if listener.is_wanted(THREAD_IDLE_TIMEOUT, stopping) {
                    self.rest();
                    if listener.is_wanted(Duration::ZERO, stopping) {
                        self.complain("accept", format_args!("cannot accept a connection: {error}"));
                    }
                }
                Waited::Nothing
            }
        }
    }

    /// Serves a new connection. A thread that is alone must be free for the next one: this one waits its turn.
    fn begin(&self, socket: Socket, turn: &Turn<'_>, buffers: &mut Buffers) {
        if memory::is_short() {
            drop(socket);
            return self.refused("memory");
        }
        let limits = &self.settings.limits;
        let link = Link::new(socket, limits.timeouts(), Arc::clone(&self.shutdown));
        let observed = self.observer.as_ref().map(Observer::session);
        let connection = Box::new(Connection {
            session: Session::new(link, limits.max_payload(), buffers, observed),
            place: Place::default(),
            counted: Counted::default(),
            is_slow: false,
        });
        let (connection, cause) = match turn.effort {
            _ if turn.is_alone => match self.let_wait(connection) {
                None => return,
                Some(back) => back,
            },
            Effort::Long => (connection, Cause::Ready),
            Effort::Short => match self.park(connection, Trigger::Edge) {
                Ok(()) => return,
                Err(back) => back,
            },
        };
        self.serve(connection, cause, Manner::Blocking, buffers);
    }

    /// Serves a session until it falls silent or ends.
    fn serve(
        &self,
        mut connection: Box<Connection>,
        mut cause: Cause,
        manner: Manner<'_>,
        buffers: &mut Buffers,
    ) {
        loop {
            match self.run(&mut connection, cause, manner, buffers) {
                Pause::Silent => {
                    // What there is to save, a session that will be back in an instant need not save.
                    connection.session.shrink();
                    connection.is_slow = false;
                }
                Pause::Yielded => {}
                Pause::Ended => break,
            }
            let trigger = match manner {
                Manner::Batch(turn) => {
                    connection.is_slow = turn.was_overtaken();
                    Trigger::Edge
                }
                Manner::Blocking if self.serves_in_batches() => Trigger::Edge,
                Manner::Blocking => Trigger::Once,
            };
            match self.park(connection, trigger) {
                Ok(()) => return,
                Err(back) => (connection, cause) = back,
            }
        }
        self.parking.forget(&mut connection);
        self.load.forget(connection.counted);
        remember(Arc::clone(connection.session.context()));
        drop(connection);
        self.session_ended();
    }

    /// Lets a session work.
    fn run(
        &self,
        connection: &mut Connection,
        cause: Cause,
        manner: Manner<'_>,
        buffers: &mut Buffers,
    ) -> Pause {
        let (session, filter) = (&mut connection.session, &self.filter);
        let _serving = self.watch.as_ref().map(|watch| watch.serve(session));
        if self.settings.threads == Threads::PerSession {
            return session.run_to_end(filter, buffers);
        }
        match manner {
            Manner::Batch(_) => session.run(filter, buffers, cause, Patience::None),
            Manner::Blocking => {
                let hurry = self.load.begin();
                let patience =
                    if connection.is_slow { Patience::Brief } else { Patience::BriefUnless(hurry) };
                let pause = session.run(filter, buffers, cause, patience);
                self.load.finish();
                pause
            }
        }
    }

    /// Parks a silent session, unless it has to go on at once.
    fn park(
        &self,
        mut connection: Box<Connection>,
        trigger: Trigger,
    ) -> Result<(), (Box<Connection>, Cause)> {
        let now = Instant::now();
        let deadline = self.begin_silence(&mut connection, now);
        let is_earlier = self.parking.park(connection, trigger, now, deadline, |error| {
            self.complain("poller", format_args!("a silent session keeps its thread: {error}"));
            if is_broken(&error) {
                // Those who wait in it may not know yet. If nobody receives it, the server is stopping.
                let _ = self.events.send(Event::PollerBroken(error));
            }
        })?;
        self.parked(is_earlier);
        Ok(())
    }

    /// Parks a new session for which there is no thread, or refuses it if it cannot even wait. It comes back if it has
    /// to go on at once.
    fn let_wait(&self, mut connection: Box<Connection>) -> Option<(Box<Connection>, Cause)> {
        let deadline = self.begin_silence(&mut connection, Instant::now());
        let trigger = if self.serves_in_batches() { Trigger::Edge } else { Trigger::Once };
        match self.parking.try_park(connection, trigger, deadline) {
            Ok(is_earlier) => self.parked(is_earlier),
            Err((connection, NotParked::GoesOn(cause))) => return Some((connection, cause)),
            Err((connection, NotParked::Refused(_))) => {
                self.load.forget(connection.counted);
                drop(connection);
                self.refused("thread");
            }
        }
        None
    }

    /// A session is about to be parked; when its silence will have lasted too long.
    fn begin_silence(&self, connection: &mut Connection, now: Instant) -> Instant {
        self.load.count(&mut connection.counted, now);
        connection.session.deadline(now)
    }

    fn parked(&self, is_earlier: bool) {
        if is_earlier {
            // If nobody receives it, the server is stopping.
            let _ = self.events.send(Event::EarlierDeadline);
        }
    }

    /// A connection was closed for lack of something.
    fn refused(&self, missing: &'static str) {
        if let Some(observer) = &self.observer {
            observer.refused(missing);
        }
        self.complain(missing, format_args!("no {missing} for another connection, refused"));
        self.session_ended();
    }

    fn session_ended(&self) {
        if let Some(places) = &self.places {
            places.give_back();
        }
        if self.live.leave() && self.shutdown.has_begun() {
            // If nobody receives it, nobody waits for it.
            let _ = self.events.send(Event::Drained);
        }
    }

    fn thread_is_missing(&self) {
        self.load.saturate(Instant::now());
        // If nobody receives it, the server is stopping.
        let _ = self.events.send(Event::NoThread);
    }

    /// Waits a little, unless the server stops.
    fn rest(&self) {
        let alarm = self.shutdown.alarm(false);
        // If the wait fails, there is no rest.
        let _ = sys::wait(alarm, Interest::Read, alarm, Instant::now() + RETRY_DELAY);
    }

    fn complain(&self, about: &'static str, complaint: std::fmt::Arguments<'_>) {
        log::error_at_most(COMPLAIN_EVERY, LineKind(about, 0), self.filter.name(), complaint);
    }
}

/// Whether the listening socket, or the poller, will never work again.
fn is_broken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP))
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::session::Context;

    /// With glibc's malloc, a byte more would cost sixteen for each of many silent sessions.
    #[test]
    fn a_silent_session_is_small() {
        const COUNTS_OF_ARC: usize = 16;
        assert!(size_of::<Connection>() <= 56, "{}", size_of::<Connection>());
        assert!(COUNTS_OF_ARC + size_of::<Link>() <= 40, "{}", size_of::<Link>());
        assert!(COUNTS_OF_ARC + size_of::<Context>() <= 168, "{}", size_of::<Context>());
    }
}
