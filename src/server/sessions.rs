//! The sessions of a server: how a connection becomes one, how a thread serves it, where it waits while it is silent.
//!
//! A thread serves its session by blocking reads for as long as the MTA talks: that is the fewest system calls. A session
//! that is silent for a tenth of a second is parked.
//!
//! When many sessions talk at once, waiting for each of them in a thread of its own would cost a switch of threads for
//! every command. Then all are parked after each command, and one worker serves those that have spoken, a batch at a time.
//! A session whose callback has once held up a batch is slow: it gets a thread of its own until it falls silent.
//!
//! A connection for which the system has no thread is parked like a silent session. It waits its turn there for a worker, and
//! acceptors that come free help the workers.

use super::event::{self, Event};
use super::limits::Places;
use super::live::Live;
use super::load::{Counted, LoadGauge};
use super::parking::{NotParked, Parkable, Parking, Place};
use super::poller::EpollPoller;
use super::pool::{Effort, Turn};
use super::settings::{Settings, Threads};
use super::watch::Watch;
use crate::log::{self, LineKind};
use crate::observe::Observer;
use crate::session::{Buffers, Cause, Filter, Link, Patience, Pause, Session, Shutdown, remember};
use crate::sys::epoll::Trigger;
use crate::sys::memory;
use crate::sys::socket::Socket;
use crate::sys::thread;
use crossbeam_channel::Sender;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long to wait before asking again for what the system has denied: a descriptor, or memory.
pub const RETRY_DELAY: Duration = Duration::from_millis(100);

/// At most one complaint about a shortage of each kind in this time.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// How long nobody looks for expired sessions when there are none.
const NO_SWEEP: Duration = Duration::from_secs(86_400);

/// So many sessions that talk at once, for each processor, have a thread each. With two or three connections batches would
/// cost a quarter of the messages.
const BLOCKING_PER_PROCESSOR: usize = 2;

/// The sessions of a server, and what all its threads use.
pub struct Sessions<F: Filter> {
    filter: F,
    settings: Settings,
    watch: Option<Arc<Watch>>,
    observer: Option<Arc<Observer>>,
    shutdown: Arc<Shutdown>,
    parking: Parking<Connection, EpollPoller>,
    load: LoadGauge,
    /// Sessions that have not ended.
    live: Live,
    /// Where sessions have to have a place, if their number is limited.
    places: Option<Places>,
    events: Sender<Event>,
}

/// A session with what the engine knows of it.
pub struct Connection {
    session: Session,
    place: Place,
    counted: Counted,
    /// A callback of it has held up a batch.
    is_slow: bool,
    /// How often in a row it has not waited for its MTA, to make room for others.
    yields: u8,
}

impl Connection {
    pub fn is_slow(&self) -> bool {
        self.is_slow
    }
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

/// How a thread serves a session.
#[derive(Clone, Copy)]
enum Manner<'a> {
    /// It waits for the next command.
    Blocking,
    /// Others have their turn after each command.
    Batch(&'a Turn<'a>),
}

impl<F: Filter> Sessions<F> {
    /// None yet.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(
        filter: F,
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
        Ok(Self {
            filter,
            settings,
            watch,
            observer,
            shutdown,
            parking: Parking::new(poller),
            load: LoadGauge::new((BLOCKING_PER_PROCESSOR * processors).min(most_serving)),
            live: Live::default(),
            places,
            events,
        })
    }

    /// Whether sessions are to end.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Where a session has to have a place, if their number is limited.
    pub fn places(&self) -> Option<&Places> {
        self.places.as_ref()
    }

    /// How many have not ended.
    pub fn count(&self) -> usize {
        self.live.count()
    }

    /// Looks after callbacks that take long; when to look again, if they are watched.
    pub fn look_at_callbacks(&self) -> Option<Instant> {
        self.watch.as_ref().map(|watch| watch.look(self.filter.name()))
    }

    /// Ends those whose MTA was silent for too long; when to look again.
    pub fn expire_silent(&self) -> Instant {
        let silence = self.settings.limits.timeouts().silence();
        let now = Instant::now();
        // Each sweep costs time for every silent session, so there are not too many.
        let soonest = now + (silence / 64).clamp(Duration::from_millis(10), Duration::from_secs(1));
        self.parking.expire(now).unwrap_or(now + NO_SWEEP).max(soonest)
    }

    /// Parked ones that the shutdown ends go on.
    pub fn release_ending(&self) {
        self.parking.release_ending();
    }

    /// Waits for at most `time` until parked ones go on.
    ///
    /// # Errors
    /// The poller is broken. Those that are to end are found all the same.
    pub fn next(&self, time: Duration, found: &mut VecDeque<(Box<Connection>, Cause)>) -> io::Result<()> {
        self.parking.next(time, found)
    }

    /// Lets one thread that waits in [`Self::next`] look whether it is over.
    pub fn wake(&self) {
        self.parking.wake();
    }

    /// How much work it is to serve a session.
    pub fn effort(&self, is_slow: bool) -> Effort {
        if self.serves_in_batches() && !is_slow { Effort::Short } else { Effort::Long }
    }

    /// Whether sessions are served in batches.
    fn serves_in_batches(&self) -> bool {
        self.load.is_saturated() && self.settings.threads == Threads::Shared
    }

    /// To be called first in each thread that serves sessions.
    pub fn begin_thread(&self) {
        let name = self.filter.name().to_owned();
        thread::if_lost(move || {
            log::error(&name, format_args!("pthread_exit left a callback, the process ends"));
        });
    }

    /// Counts a new connection as a session; whether it may begin. Otherwise the server stops.
    pub fn admit(&self) -> bool {
        self.live.admit(|| self.shutdown.has_begun())
    }

    /// Serves a new connection. A thread that is alone must be free for the next one: this one waits its turn.
    pub fn begin(&self, socket: Socket, turn: &Turn<'_>, buffers: &mut Buffers) {
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
            yields: 0,
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

    /// Serves a session that goes on.
    pub fn go_on(
        &self,
        mut connection: Box<Connection>,
        cause: Cause,
        turn: &Turn<'_>,
        buffers: &mut Buffers,
    ) {
        let manner = match turn.effort {
            Effort::Short => Manner::Batch(turn),
            Effort::Long => {
                self.parking.disarm(&mut connection);
                Manner::Blocking
            }
        };
        self.serve(connection, cause, manner, buffers);
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
                    connection.yields = 0;
                }
                Pause::Yielded => connection.yields = connection.yields.saturating_add(1),
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
        self.ended();
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
                let hurry = self.load.begin(connection.yields);
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
            if event::is_broken(&error) {
                // Those who wait in it may not know yet.
                self.tell(Event::PollerBroken(error));
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
            self.tell(Event::EarlierDeadline);
        }
    }

    /// A connection was closed for lack of something.
    fn refused(&self, missing: &'static str) {
        if let Some(observer) = &self.observer {
            observer.refused(missing);
        }
        self.complain(missing, format_args!("no {missing} for another connection, refused"));
        self.ended();
    }

    /// A session has ended, or a connection that was [admitted](Self::admit) has none.
    pub fn ended(&self) {
        if let Some(places) = &self.places {
            places.give_back();
        }
        if self.live.leave() && self.shutdown.has_begun() {
            self.tell(Event::Drained);
        }
    }

    /// Nobody waits for work, and the system has no thread to give.
    pub fn thread_is_missing(&self) {
        self.load.saturate(Instant::now());
        self.tell(Event::NoThread);
    }

    /// Tells the supervisor. If nobody receives it, the server is stopping.
    pub fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// Logs a shortage, once a minute.
    pub fn complain(&self, about: &'static str, complaint: std::fmt::Arguments<'_>) {
        log::error_at_most(COMPLAIN_EVERY, LineKind(about, 0), self.filter.name(), complaint);
    }
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
