//! What surrounds the pool and the parking: simulated MTAs, a simulated epoll set, and sessions that notice when anything
//! is done to them that must not be.

use super::sync::{Condvar, Mutex, ThreadGroup};
use crate::server::parking::{NotParked, Parkable, Parking, Place, Poller, Reports};
use crate::server::pool::{Effort, Job, Pool, THREAD_IDLE_TIMEOUT, Turn, Waited};
use crate::session::Cause;
use crate::sys::epoll::{BATCH, Report, Trigger};
use shuttle::rand::{Rng, thread_rng};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an MTA may be silent; only who waits for it by himself sees the end of it.
const SILENCE: Duration = Duration::from_secs(1);

/// The two ends of a connection.
#[derive(Default)]
pub struct Wire {
    /// Commands that the session has not read.
    unread: usize,
    /// Commands that it has answered.
    answered: usize,
    /// The MTA has closed it.
    is_hung_up: bool,
    /// It has closed the connection.
    is_closed: bool,
    /// How often close was called.
    pub closes: usize,
    /// A thread serves it.
    is_served: bool,
}

/// One session, with what a test must know of it.
pub struct Session {
    pub number: usize,
    place: Place,
    has_ended: bool,
    world: Arc<World>,
}

impl Parkable for Session {
    fn place(&mut self) -> &mut Place {
        &mut self.place
    }

    fn must_end(&self) -> bool {
        self.world.is_stopping()
    }

    /// No time passes, but a long one may.
    fn wait(&self, _: Instant) -> bool {
        shuttle::thread::yield_now();
        let wire = self.world.wires[self.number].lock();
        wire.unread > 0 || wire.is_hung_up || self.must_end()
    }
}

/// The connections, and whether the process stops.
pub struct World {
    pub wires: Vec<Mutex<Wire>>,
    change: Condvar,
    is_stopping: Mutex<bool>,
    /// No callback may run any more.
    pub is_over: Mutex<bool>,
    /// The first callback of session 0 lasts until so many other sessions have ended.
    pub first_waits_for: usize,
    epoll: Epoll,
    backlog: Mutex<Backlog>,
    arrival: Condvar,
    /// How many sessions have not ended; notified at each end.
    pub live: Mutex<usize>,
    pub ended: Condvar,
}

/// Connections that nobody has accepted.
#[derive(Default)]
struct Backlog {
    numbers: VecDeque<usize>,
    is_refusing: bool,
}

#[derive(Default)]
struct Set {
    registered: HashMap<u64, (usize, Trigger)>,
    reports: VecDeque<u64>,
    is_woken: bool,
    refusals: usize,
}

/// An epoll set with its eventfd.
pub struct Epoll {
    set: Mutex<Set>,
    change: Condvar,
}

impl Set {
    /// Reports the connection, if it is armed.
    fn report(&mut self, token: u64) {
        let Some((_, trigger)) = self.registered.get_mut(&token) else { return };
        match *trigger {
            Trigger::Never => return,
            Trigger::Once => *trigger = Trigger::Never,
            Trigger::Edge | Trigger::Level => {}
        }
        if !self.reports.contains(&token) {
            self.reports.push_back(token);
        }
    }
}

impl World {
    /// So many connections.
    pub fn new(sessions: usize, first_waits_for: usize, refusals: usize) -> Arc<Self> {
        Arc::new(Self {
            wires: (0..sessions).map(|_| Mutex::new(Wire::default())).collect(),
            change: Condvar::new(),
            is_stopping: Mutex::new(false),
            is_over: Mutex::new(false),
            first_waits_for,
            epoll: Epoll { set: Mutex::new(Set { refusals, ..Set::default() }), change: Condvar::new() },
            backlog: Mutex::new(Backlog::default()),
            arrival: Condvar::new(),
            live: Mutex::new(sessions),
            ended: Condvar::new(),
        })
    }

    /// Whether sessions must end.
    pub fn is_stopping(&self) -> bool {
        *self.is_stopping.lock()
    }

    /// From now on sessions must end.
    pub fn stop(&self) {
        *self.is_stopping.lock() = true;
    }

    /// An MTA connects.
    pub fn connect(&self, number: usize) {
        self.backlog.lock().numbers.push_back(number);
        self.arrival.notify_one();
    }

    /// An MTA's life: it sends a command when the one before is answered, then perhaps closes the connection.
    pub fn talk(&self, number: usize, commands: usize, hangs_up: bool) {
        for command in 0..commands + usize::from(hangs_up) {
            let mut wire = self.wires[number].lock();
            // It hangs up without waiting for the last answer.
            while wire.answered < command.min(commands - 1) && !wire.is_closed {
                self.change.wait_until(&mut wire, Instant::now());
            }
            if wire.is_closed {
                return;
            }
            if command < commands {
                wire.unread += 1;
            } else {
                wire.is_hung_up = true;
            }
            drop(wire);
            let mut set = self.epoll.set.lock();
            let tokens: Vec<_> =
                set.registered.iter().filter(|(_, (of, _))| *of == number).map(|(token, _)| *token).collect();
            tokens.into_iter().for_each(|token| set.report(token));
            self.epoll.change.notify_all();
        }
    }

    /// Waits until all sessions have ended.
    pub fn wait_for_ends(&self) {
        let mut live = self.live.lock();
        while *live > 0 {
            self.ended.wait_until(&mut live, Instant::now());
        }
    }
}

/// The poller of a world.
pub struct WorldPoller(pub Arc<World>);

impl Poller<Session> for WorldPoller {
    fn arm(&self, session: &Session, token: u64, trigger: Trigger, is_new: bool) -> io::Result<()> {
        let is_readable = || {
            let wire = self.0.wires[session.number].lock();
            wire.unread > 0 || wire.is_hung_up
        };
        let was_readable = is_readable();
        let mut set = self.0.epoll.set.lock();
        if set.refusals == usize::MAX || set.refusals > 0 && thread_rng().gen_bool(0.5) {
            set.refusals = set.refusals.saturating_sub(usize::from(set.refusals != usize::MAX));
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let before = set.registered.insert(token, (session.number, trigger));
        assert_eq!(before.is_none(), is_new, "added twice, or changed before it was added");
        // What came between the look and the lock was reported, if it was armed before; look again if not.
        drop(set);
        if was_readable || is_readable() {
            self.0.epoll.set.lock().report(token);
            self.0.epoll.change.notify_all();
        }
        Ok(())
    }

    fn remove(&self, session: &Session) {
        self.0.epoll.set.lock().registered.retain(|_, (number, _)| *number != session.number);
    }

    fn wait(&self, _: Duration, reports: &mut Reports) -> io::Result<()> {
        let mut set = self.0.epoll.set.lock();
        while set.reports.is_empty() && !set.is_woken {
            self.0.epoll.change.wait_until(&mut set, Instant::now());
        }
        set.is_woken = false;
        let count = set.reports.len().min(BATCH);
        let tokens: Vec<_> = set.reports.drain(..count).collect();
        let numbers: Vec<_> =
            tokens.iter().map(|token| set.registered.get(token).map(|(number, _)| *number)).collect();
        drop(set);
        reports.extend(tokens.into_iter().zip(numbers).map(|(token, number)| {
            let is_hung_up = number.is_some_and(|number| self.0.wires[number].lock().is_hung_up);
            Report { token, is_hung_up }
        }));
        Ok(())
    }

    fn wake(&self) {
        self.0.epoll.set.lock().is_woken = true;
        self.0.epoll.change.notify_all();
    }
}

/// Serves the sessions of a world as the engine does.
pub struct Server {
    pub world: Arc<World>,
    pub parking: Parking<Session, WorldPoller>,
    /// Whether a thread is missing.
    pub missing: Mutex<bool>,
}

impl Server {
    /// Of a world.
    pub fn new(world: &Arc<World>) -> Self {
        Self {
            world: Arc::clone(world),
            parking: Parking::new(WorldPoller(Arc::clone(world))),
            missing: Mutex::new(false),
        }
    }

    /// A session that was accepted: parked, or served if that is not to be.
    pub fn begin(&self, number: usize) {
        if let Err((session, cause)) = self.park(self.session(number), trigger()) {
            self.serve(session, cause);
        }
    }

    /// A session that was accepted by a thread that is alone.
    fn let_wait(&self, number: usize) {
        match self.parking.try_park(self.session(number), trigger(), Instant::now() + SILENCE) {
            Ok(_) => {}
            Err((session, NotParked::GoesOn(cause))) => self.serve(session, cause),
            Err((_, NotParked::Refused(error))) => panic!("{error}"),
        }
    }

    fn session(&self, number: usize) -> Box<Session> {
        let world = Arc::clone(&self.world);
        Box::new(Session { number, place: Place::default(), has_ended: false, world })
    }

    fn thread_is_missing(&self) {
        *self.missing.lock() = true;
        // Whoever has just found that none is missing waits by now.
        drop(self.world.live.lock());
        self.world.ended.notify_all();
    }

    fn serve(&self, mut session: Box<Session>, mut cause: Cause) {
        loop {
            self.process(&mut session, cause);
            if session.has_ended {
                break;
            }
            match self.park(session, trigger()) {
                Ok(()) => return,
                Err(back) => (session, cause) = back,
            }
        }
        self.parking.forget(&mut session);
        *self.world.live.lock() -= 1;
        self.world.ended.notify_all();
    }

    /// Reads what has come and answers it; the end of the connection, of time or of the process ends the session.
    fn process(&self, session: &mut Session, cause: Cause) {
        let world = &*self.world;
        let mut wire = world.wires[session.number].lock();
        assert!(!std::mem::replace(&mut wire.is_served, true), "served twice at once");
        assert_eq!(wire.closes, 0, "served after its end");
        let ends = session.must_end() || cause == Cause::Expired;
        loop {
            let read = std::mem::take(&mut wire.unread);
            if ends || read == 0 && wire.is_hung_up {
                session.has_ended = true;
                break;
            }
            for _ in 0..read {
                let is_first = session.number == 0 && wire.answered == 0;
                drop(wire);
                self.callback(is_first);
                wire = world.wires[session.number].lock();
                wire.answered += 1;
                world.change.notify_all();
            }
            // A short read was all, unless the report said more.
            if read == 0 || cause == Cause::Ready {
                break;
            }
        }
        if session.has_ended {
            wire.closes += 1;
            wire.is_closed = true;
            world.change.notify_all();
        }
        wire.is_served = false;
    }

    fn callback(&self, is_first: bool) {
        assert!(!*self.world.is_over.lock(), "a callback after the end");
        if is_first {
            // Only if nobody waits behind it can it come to its end.
            let mut live = self.world.live.lock();
            while *live > self.world.wires.len() - self.world.first_waits_for {
                self.world.ended.wait_until(&mut live, Instant::now());
            }
        }
    }

    fn park(&self, session: Box<Session>, trigger: Trigger) -> Result<(), (Box<Session>, Cause)> {
        let now = Instant::now();
        self.parking.park(session, trigger, now, now + SILENCE, |_| {}).map(drop)
    }
}

fn trigger() -> Trigger {
    if thread_rng().gen_bool(0.7) { Trigger::Edge } else { Trigger::Once }
}

/// The job of the pool that is tested.
pub struct Serving(pub Arc<Server>);

impl Job for Serving {
    type Work = (Box<Session>, Cause);
    type Kept = ();

    const MAX_WAITING: usize = 1;

    fn wait(&self, time: Duration, found: &mut VecDeque<Self::Work>) -> Waited {
        self.0.parking.next(time, found).unwrap();
        if found.is_empty() { Waited::Nothing } else { Waited::Found }
    }

    fn wake(&self) {
        self.0.parking.wake();
    }

    fn effort(&self, _: &Self::Work) -> Effort {
        if thread_rng().gen_bool(0.7) { Effort::Short } else { Effort::Long }
    }

    fn work(&self, (mut session, cause): Self::Work, turn: &Turn<'_>, (): &mut ()) {
        if turn.effort == Effort::Long {
            self.0.parking.disarm(&mut session);
        }
        self.0.serve(session, cause);
    }

    fn thread_is_missing(&self) {
        self.0.thread_is_missing();
    }
}

/// The job of the pool that accepts connections, and helps the other one. Its work is always long: what looks after
/// short work is a spare thread, which stays for ever where no time passes.
pub struct Accepting {
    server: Arc<Server>,
    workers: Arc<Pool<Serving>>,
}

impl Job for Accepting {
    type Work = usize;
    type Kept = ();

    const MAX_WAITING: usize = usize::MAX;

    /// A wait that is not long may end at any moment.
    fn wait(&self, time: Duration, found: &mut VecDeque<usize>) -> Waited {
        let world = &self.server.world;
        let mut backlog = world.backlog.lock();
        loop {
            if let Some(number) = backlog.numbers.pop_front() {
                found.push_back(number);
                return Waited::Found;
            }
            if backlog.is_refusing {
                return Waited::Over;
            }
            if time > THREAD_IDLE_TIMEOUT {
                world.arrival.wait_until(&mut backlog, Instant::now());
            } else {
                world.arrival.wait_for(&mut backlog, time);
                if backlog.numbers.is_empty() && thread_rng().gen_bool(0.2) {
                    return Waited::Nothing;
                }
            }
        }
    }

    fn wake(&self) {
        self.server.world.backlog.lock().is_refusing = true;
        self.server.world.arrival.notify_all();
    }

    fn effort(&self, _: &usize) -> Effort {
        Effort::Long
    }

    fn work(&self, number: usize, turn: &Turn<'_>, (): &mut ()) {
        if turn.is_alone {
            self.server.let_wait(number);
        } else {
            self.server.serve(self.server.session(number), Cause::Ready);
        }
    }

    fn thread_is_missing(&self) {
        self.server.thread_is_missing();
    }

    fn is_needed_elsewhere(&self) -> bool {
        self.workers.lacks_thread()
    }

    fn help_elsewhere(&self) {
        self.workers.help();
    }
}

/// A pool of acceptors for a server with these workers.
pub fn acceptors(
    server: &Arc<Server>,
    workers: &Arc<Pool<Serving>>,
    threads: &Arc<ThreadGroup>,
) -> Arc<Pool<Accepting>> {
    let job = Accepting { server: Arc::clone(server), workers: Arc::clone(workers) };
    Pool::new(job, Arc::clone(threads))
}

/// A pool for a server.
pub fn pool(server: &Arc<Server>, threads: &Arc<ThreadGroup>) -> Arc<Pool<Serving>> {
    Pool::new(Serving(Arc::clone(server)), Arc::clone(threads))
}
