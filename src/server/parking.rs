//! Sessions whose MTA is silent: they need no thread and no buffers, only a place in a table and in the poller.
//!
//! Each session that was ever parked has a slot of the table until it ends. The slot says whether the session is here or
//! away, that is, in the hands of a thread. A session that stays armed for [`Trigger::Edge`] while it is away may speak
//! then: the slot remembers that, and the session goes on instead of being parked. So nothing has to be armed anew for
//! each command, and no report is lost.

use super::sync::Mutex;
use crate::session::Cause;
use crate::sys::epoll::{BATCH, Report, Trigger};
use crate::sys::memory;
use smallvec::SmallVec;
use std::collections::{TryReserveError, VecDeque};
use std::io;
use std::time::{Duration, Instant};

/// How long to wait before asking the poller again.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// A session as the parking sees it.
pub trait Parkable {
    /// Its place, which only the parking changes.
    fn place(&mut self) -> &mut Place;

    /// Whether it must end because the process stops.
    fn must_end(&self) -> bool;

    /// Waits until it has spoken or must end; `false` if neither is so before `until`.
    fn wait(&self, until: Instant) -> bool;
}

/// What a poller has reported.
pub type Reports = SmallVec<[Report; BATCH]>;

/// What reports that parked sessions have spoken.
pub trait Poller<T> {
    /// Changes when the session is reported, by this token; `is_new` the first time.
    ///
    /// # Errors
    /// The system refuses; then it is as it was before.
    fn arm(&self, session: &T, token: u64, trigger: Trigger, is_new: bool) -> io::Result<()>;

    /// Forgets the session.
    fn remove(&self, session: &T);

    /// Appends a report for each session that has spoken, a [`BATCH`] at most; waits up to `time` for the first of them, but not beyond
    /// [`Self::wake`]. One thread at a time waits.
    ///
    /// # Errors
    /// The poller is of no use any more.
    fn wait(&self, time: Duration, reports: &mut Reports) -> io::Result<()>;

    /// Ends a [`Self::wait`], one that is under way or else the next one.
    fn wake(&self);
}

/// Where a session stands in the table, and when the poller reports it; the default is nowhere. Eight bytes, because there
/// may be many silent sessions.
#[derive(Debug, Default)]
pub struct Place {
    index: u32,
    generation: u16,
    trigger: Option<Trigger>,
}

impl Place {
    fn get(&self) -> Option<(Token, Trigger)> {
        self.trigger.map(|trigger| (Token { index: self.index, generation: self.generation }, trigger))
    }

    fn set(&mut self, token: Token, trigger: Trigger) {
        *self = Self { index: token.index, generation: token.generation, trigger: Some(trigger) };
    }

    fn take(&mut self) -> Option<Token> {
        let (token, _) = self.get()?;
        *self = Self::default();
        Some(token)
    }
}

/// Which slot, and how many sessions have had it before. A report that comes late by 65,536 of them could be taken for
/// this one's: then it goes on, has nothing to read, and is parked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    index: u32,
    generation: u16,
}

impl From<Token> for u64 {
    fn from(token: Token) -> Self {
        Self::from(token.generation) << 32 | Self::from(token.index)
    }
}

impl From<u64> for Token {
    fn from(number: u64) -> Self {
        Self { index: number as u32, generation: (number >> 32) as u16 }
    }
}

/// The parked sessions.
pub struct Parking<T, P> {
    poller: P,
    /// What deadlines are measured from.
    epoch: Instant,
    table: Mutex<Table<T>>,
}

struct Table<T> {
    slots: Vec<Slot<T>>,
    /// Slots without a session.
    free: Vec<u32>,
    /// How many slots hold a session that is [due](Slot::due).
    due: usize,
    /// The first deadline that the last sweep has seen, or that has been added since; `None` if there is none.
    first_deadline: Option<Instant>,
}

struct Slot<T> {
    /// How many sessions have had this slot, so that reports of an earlier one are recognised.
    generation: u16,
    /// When the session will have been silent for too long, in nanoseconds: half the size of an instant.
    deadline: u64,
    /// `None` while it is away.
    session: Option<Box<T>>,
    /// Whether it was reported while it was away.
    has_spoken: bool,
    /// Why the session goes on although it has not spoken.
    due: Option<Cause>,
}

/// Why a session is not parked.
pub enum NotParked {
    /// It goes on at once.
    GoesOn(Cause),
    /// The poller does not take it.
    Refused(io::Error),
}

impl<T: Parkable, P: Poller<T>> Parking<T, P> {
    /// No session yet.
    pub fn new(poller: P) -> Self {
        let table = Table { slots: Vec::new(), free: Vec::new(), due: 0, first_deadline: None };
        Self { poller, epoch: Instant::now(), table: Mutex::new(table) }
    }

    /// Parks a session, `now`, until it speaks, or until `deadline`, or until the process stops; whether a sweep is due
    /// earlier than was known. If the poller refuses the session, the calling thread waits in the poller's place, and asks
    /// again now and then.
    ///
    /// # Errors
    /// The session goes on, and why.
    pub fn park(
        &self,
        mut session: Box<T>,
        trigger: Trigger,
        mut now: Instant,
        deadline: Instant,
        mut complain: impl FnMut(io::Error),
    ) -> Result<bool, (Box<T>, Cause)> {
        loop {
            let (back, reason) = match self.try_park(session, trigger, deadline) {
                Ok(is_earlier) => return Ok(is_earlier),
                Err(back) => back,
            };
            session = back;
            match reason {
                NotParked::GoesOn(cause) => return Err((session, cause)),
                NotParked::Refused(error) => complain(error),
            }
            let until = deadline.min(now + RETRY_DELAY);
            if session.wait(until) {
                // Whether it has hung up, nobody has told.
                return Err((session, Cause::HungUp));
            }
            if until == deadline {
                return Err((session, Cause::Expired));
            }
            now = until;
        }
    }

    /// As [`Self::park`], but without waiting in the poller's place.
    ///
    /// # Errors
    /// The session goes on, or the poller refuses it.
    pub fn try_park(
        &self,
        mut session: Box<T>,
        trigger: Trigger,
        deadline: Instant,
    ) -> Result<bool, (Box<T>, NotParked)> {
        let mut table = self.table.lock();
        // Whoever begins a stop says so before looking into the table.
        if session.must_end() {
            return Err((session, NotParked::GoesOn(Cause::Ready)));
        }
        let deadline_nanos = self.nanos(deadline);
        let before = session.place().get();
        let token = match before {
            Some((token, _)) => token,
            None => match table.new_slot() {
                Ok(token) => token,
                Err(_) => return Err((session, NotParked::Refused(io::ErrorKind::OutOfMemory.into()))),
            },
        };
        let stays_armed = before == Some((token, Trigger::Edge)) && trigger == Trigger::Edge;
        let slot = table.slot(token);
        if std::mem::take(&mut slot.has_spoken) && stays_armed {
            // Perhaps it has hung up.
            return Err((session, NotParked::GoesOn(Cause::HungUp)));
        }
        if !stays_armed {
            // Under the lock, so that whoever is told of a report finds the session here.
            if let Err(error) = self.poller.arm(&session, token.into(), trigger, before.is_none()) {
                if before.is_none() {
                    table.free_slot(token);
                }
                return Err((session, NotParked::Refused(error)));
            }
            session.place().set(token, trigger);
        }
        let slot = table.slot(token);
        slot.deadline = deadline_nanos;
        slot.session = Some(session);
        let is_earlier = table.first_deadline.is_none_or(|first| deadline < first);
        if is_earlier {
            table.first_deadline = Some(deadline);
        }
        Ok(is_earlier)
    }

    /// Lets a session that is away not be reported any more: it will be read from until it is parked again.
    pub fn disarm(&self, session: &mut T) {
        if let Some((token, Trigger::Edge)) = session.place().get()
            && self.poller.arm(session, token.into(), Trigger::Never, false).is_ok()
        {
            session.place().set(token, Trigger::Never);
        }
    }

    /// Forgets a session that has ended.
    pub fn forget(&self, session: &mut T) {
        if let Some(token) = session.place().take() {
            // A forked child may hold the connection open, and then closing it here is not enough.
            self.poller.remove(session);
            self.table.lock().free_slot(token);
        }
    }

    /// Appends the sessions that go on, and why; waits up to `time` for the first of them, but not beyond
    /// [`Self::wake`]. One thread at a time waits.
    ///
    /// # Errors
    /// The poller is of no use any more. Sessions that are due are appended nevertheless.
    pub fn next(&self, time: Duration, found: &mut VecDeque<(Box<T>, Cause)>) -> io::Result<()> {
        let mut reports = Reports::new();
        let waited = self.poller.wait(time, &mut reports);
        let table = &mut *self.table.lock();
        for Report { token, is_hung_up } in reports {
            let token = Token::from(token);
            let index = token.index as usize;
            let Some(slot) = table.slots.get_mut(index) else { continue };
            if slot.generation != token.generation {
                continue; // an earlier session's, reported late
            }
            match table.take(index) {
                Some((session, Some(cause))) => found.push_back((session, cause)),
                Some((session, None)) if is_hung_up => found.push_back((session, Cause::HungUp)),
                Some((session, None)) => found.push_back((session, Cause::Ready)),
                None => table.slots[index].has_spoken = true,
            }
        }
        // No more than a batch, so that there is always memory for them.
        for index in 0..table.slots.len() {
            if table.due == 0 || found.len() >= BATCH {
                break;
            }
            if table.slots[index].due.is_some()
                && let Some((session, Some(cause))) = table.take(index)
            {
                found.push_back((session, cause));
            }
        }
        if table.due > 0 {
            self.poller.wake();
        }
        waited
    }

    /// Lets all sessions go on whose deadline has come; the next deadline after `now`.
    pub fn expire(&self, now: Instant) -> Option<Instant> {
        let mut next = None;
        let table = &mut *self.table.lock();
        self.release(table, |deadline, _| {
            if deadline <= now {
                return Some(Cause::Expired);
            }
            next = Some(next.map_or(deadline, |next: Instant| next.min(deadline)));
            None
        });
        table.first_deadline = next;
        next
    }

    /// Lets all sessions go on that must end because the process stops.
    pub fn release_ending(&self) {
        self.release(&mut self.table.lock(), |_, session| session.must_end().then_some(Cause::Ready));
    }

    /// Ends a wait in [`Self::next`], one that is under way or else the next one.
    pub fn wake(&self) {
        self.poller.wake();
    }

    /// A deadline as slots have it.
    fn nanos(&self, deadline: Instant) -> u64 {
        // There is room for more than 500 years.
        u64::try_from(deadline.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Lets those parked sessions go on for which `cause`, given the deadline, has one.
    fn release(&self, table: &mut Table<T>, mut cause: impl FnMut(Instant, &T) -> Option<Cause>) {
        for slot in table.slots.iter_mut().filter(|slot| slot.due.is_none()) {
            if let Some(session) = &slot.session
                && let Some(cause) = cause(self.epoch + Duration::from_nanos(slot.deadline), session)
            {
                slot.due = Some(cause);
                table.due += 1;
            }
        }
        if table.due > 0 {
            self.poller.wake();
        }
    }
}

impl<T> Table<T> {
    /// A slot for a session that was never parked: its token.
    ///
    /// # Errors
    /// There is no memory for it.
    fn new_slot(&mut self) -> Result<Token, TryReserveError> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                memory::fallibly(|| {
                    self.slots.try_reserve(1)?;
                    // So that none is asked for when a slot becomes free.
                    self.free.try_reserve(self.slots.len() + 1)
                })?;
                self.slots.push(Slot {
                    generation: 0,
                    deadline: 0,
                    session: None,
                    has_spoken: false,
                    due: None,
                });
                (self.slots.len() - 1) as u32
            }
        };
        Ok(Token { index, generation: self.slots[index as usize].generation })
    }

    fn slot(&mut self, token: Token) -> &mut Slot<T> {
        &mut self.slots[token.index as usize]
    }

    /// Takes a session out, if it is there, and the cause if it is due.
    fn take(&mut self, index: usize) -> Option<(Box<T>, Option<Cause>)> {
        let slot = &mut self.slots[index];
        let session = slot.session.take()?;
        let cause = slot.due.take();
        self.due -= usize::from(cause.is_some());
        Some((session, cause))
    }

    fn free_slot(&mut self, token: Token) {
        let slot = self.slot(token);
        slot.generation = slot.generation.wrapping_add(1);
        slot.has_spoken = false;
        self.free.push(token.index);
    }
}

#[cfg(all(test, not(feature = "model")))]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    #[derive(Debug, Default)]
    struct Session {
        place: Place,
        ends: bool,
        number: u32,
    }

    impl Parkable for Session {
        fn place(&mut self) -> &mut Place {
            &mut self.place
        }

        fn must_end(&self) -> bool {
            self.ends
        }

        fn wait(&self, _: Instant) -> bool {
            false
        }
    }

    /// Reports what a test says.
    #[derive(Default)]
    struct Script {
        armed: RefCell<Vec<(u64, Trigger)>>,
        reports: RefCell<Vec<Report>>,
        refuses: Cell<bool>,
        refusals: Cell<u32>,
        wakes: Cell<u32>,
    }

    impl Poller<Session> for Script {
        fn arm(&self, _: &Session, token: u64, trigger: Trigger, _: bool) -> io::Result<()> {
            if self.refuses.get() {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            self.armed.borrow_mut().push((token, trigger));
            Ok(())
        }

        fn remove(&self, _: &Session) {}

        fn wait(&self, _: Duration, reports: &mut Reports) -> io::Result<()> {
            reports.extend(self.reports.borrow_mut().drain(..));
            Ok(())
        }

        fn wake(&self) {
            self.wakes.set(self.wakes.get() + 1);
        }
    }

    type Lot = Parking<Session, Script>;

    fn session(number: u32) -> Box<Session> {
        Box::new(Session { number, ..Session::default() })
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn park(
        lot: &Lot,
        session: Box<Session>,
        deadline: Instant,
        trigger: Trigger,
    ) -> Result<bool, (Box<Session>, Cause)> {
        lot.park(session, trigger, Instant::now(), deadline, |_| {
            lot.poller.refusals.set(lot.poller.refusals.get() + 1)
        })
    }

    fn next(lot: &Lot) -> Vec<(Box<Session>, Cause)> {
        let mut found = VecDeque::new();
        lot.next(Duration::ZERO, &mut found).unwrap();
        found.into()
    }

    /// A report of this session.
    fn of(token: u64) -> Report {
        Report { token, is_hung_up: false }
    }

    /// The token that was armed last.
    fn token(lot: &Lot) -> u64 {
        lot.poller.armed.borrow().last().unwrap().0
    }

    #[test]
    fn places_are_small() {
        assert_eq!(size_of::<Place>(), 8);
        assert!(size_of::<Slot<Session>>() <= 24);
    }

    #[test]
    fn whoever_speaks_goes_on_and_nobody_else() {
        let lot = Lot::new(Script::default());
        park(&lot, session(1), later(), Trigger::Once).unwrap();
        park(&lot, session(2), later(), Trigger::Once).unwrap();
        assert!(next(&lot).is_empty());
        lot.poller.reports.borrow_mut().push(of(token(&lot)));
        let found = next(&lot);
        assert!(matches!(&found[..], [(session, Cause::Ready)] if session.number == 2));
    }

    #[test]
    fn a_session_that_stays_armed_and_speaks_while_it_is_away_goes_on() {
        let lot = Lot::new(Script::default());
        park(&lot, session(1), later(), Trigger::Edge).unwrap();
        let token = token(&lot);
        for _ in 0..2 {
            lot.poller.reports.borrow_mut().push(of(token));
            let (away, _) = next(&lot).pop().unwrap();
            lot.poller.reports.borrow_mut().push(of(token));
            assert!(next(&lot).is_empty(), "it is away");
            let Err((away, Cause::HungUp)) = park(&lot, away, later(), Trigger::Edge) else { panic!() };
            park(&lot, away, later(), Trigger::Edge).unwrap();
        }
        assert_eq!(*lot.poller.armed.borrow(), [(token, Trigger::Edge)], "armed once");
    }

    #[test]
    fn a_session_hears_that_the_mta_has_hung_up() {
        let lot = Lot::new(Script::default());
        park(&lot, session(1), later(), Trigger::Edge).unwrap();
        let token = token(&lot);
        lot.poller.reports.borrow_mut().push(Report { token, is_hung_up: true });
        assert!(matches!(next(&lot)[..], [(_, Cause::HungUp)]));
    }

    #[test]
    fn a_session_that_is_armed_anew_needs_no_memory_of_reports() {
        let lot = Lot::new(Script::default());
        park(&lot, session(1), later(), Trigger::Edge).unwrap();
        let token = token(&lot);
        lot.poller.reports.borrow_mut().extend([of(token), of(token)]);
        let (mut away, _) = next(&lot).pop().unwrap();
        lot.disarm(&mut away);
        park(&lot, away, later(), Trigger::Once).unwrap();
        let triggers: Vec<_> = lot.poller.armed.borrow().iter().map(|(_, trigger)| *trigger).collect();
        assert_eq!(triggers, [Trigger::Edge, Trigger::Never, Trigger::Once]);
    }

    #[test]
    fn a_session_that_the_poller_refuses_expires_all_the_same() {
        let lot = Lot::new(Script::default());
        lot.poller.refuses.set(true);
        let deadline = Instant::now() + 5 * RETRY_DELAY / 2;
        let Err((back, Cause::Expired)) = park(&lot, session(1), deadline, Trigger::Once) else { panic!() };
        assert_eq!(lot.poller.refusals.get(), 3);
        lot.poller.refuses.set(false);
        park(&lot, back, later(), Trigger::Once).unwrap();
        assert_eq!(lot.table.lock().slots.len(), 1, "nothing was left behind");
    }

    #[test]
    fn a_late_report_does_not_reach_the_next_session() {
        let lot = Lot::new(Script::default());
        park(&lot, session(1), later(), Trigger::Edge).unwrap();
        let first = token(&lot);
        lot.poller.reports.borrow_mut().push(of(first));
        let (mut away, _) = next(&lot).pop().unwrap();
        lot.forget(&mut away);
        park(&lot, session(2), later(), Trigger::Edge).unwrap();
        assert_eq!(Token::from(token(&lot)).index, Token::from(first).index, "the slot is used again");
        assert_ne!(token(&lot), first);
        lot.poller.reports.borrow_mut().push(of(first));
        assert!(next(&lot).is_empty());
    }

    #[test]
    fn deadlines_and_stops_let_sessions_go_on() {
        let lot = Lot::new(Script::default());
        let now = Instant::now();
        let second = now + Duration::from_secs(1);
        park(&lot, session(1), now, Trigger::Once).unwrap();
        park(&lot, session(2), second, Trigger::Edge).unwrap();
        assert_eq!(lot.expire(now), Some(second));
        assert!(matches!(&next(&lot)[..], [(session, Cause::Expired)] if session.number == 1));
        assert_eq!(lot.poller.wakes.get(), 1);
        lot.release_ending();
        assert!(next(&lot).is_empty());
        assert!(!park(&lot, session(4), later(), Trigger::Once).unwrap());
        assert!(park(&lot, session(5), now, Trigger::Once).unwrap(), "earlier than any other");
        assert_eq!(lot.expire(now), Some(second));
        let mut ending = session(3);
        ending.ends = true;
        assert!(matches!(park(&lot, ending, later(), Trigger::Once), Err((_, Cause::Ready))));
    }
}
