//! Sessions whose MTA is silent: they need no thread, no buffers, only their place here and in the poller.

use super::crowd::Counted;
use crate::session::Session;
use std::collections::HashMap;
use std::time::Instant;

/// A session with what the engine knows of it.
#[derive(Debug)]
pub struct Seat {
    /// Its token in the poller, never used twice.
    pub token: u64,
    /// The session.
    pub session: Session,
    /// Whether the poller knows its connection.
    pub registered: bool,
    /// Whether the MTA was silent for too long.
    pub expired: bool,
    /// What the crowd knows of it.
    pub counted: Counted,
}

/// The silent sessions, and when each of them will have been silent for too long.
#[derive(Debug, Default)]
pub struct WaitingRoom {
    seats: HashMap<u64, (Instant, Seat)>,
}

impl WaitingRoom {
    /// Takes a session in. It is for the caller to let the poller watch its connection from now on.
    pub fn enter(&mut self, seat: Seat, deadline: Instant) {
        self.seats.insert(seat.token, (deadline, seat));
    }

    /// Hands a session out that the poller has reported.
    pub fn leave(&mut self, token: u64) -> Option<Seat> {
        self.seats.remove(&token).map(|(_, seat)| seat)
    }

    /// Lets the poller report all sessions whose deadline has come; the next deadline after `now`.
    pub fn expire(&mut self, now: Instant) -> Option<Instant> {
        let mut next = None;
        for (deadline, seat) in self.seats.values_mut().filter(|(_, seat)| !seat.expired) {
            if *deadline <= now {
                seat.expired = true;
                nudge(seat);
            } else {
                next = Some(next.map_or(*deadline, |next: Instant| next.min(*deadline)));
            }
        }
        next
    }

    /// Lets the poller report all sessions that must end because the process stops.
    pub fn nudge_ending(&self) {
        self.seats.values().filter(|(_, seat)| seat.session.must_end()).for_each(|(_, seat)| nudge(seat));
    }
}

/// Makes a thread take the session up although there may be nothing to read: it is about to end, so it need not
/// hear the MTA any more. (Asking for room to write would not do: there may be none until the MTA reads.)
fn nudge(seat: &Seat) {
    seat.session.link().stop_reading();
}
